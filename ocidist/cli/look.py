"""resolve, tags, catalog, manifest, inspect: what a registry says, read-only."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator

from ocidist.cli.context import Context
from ocidist.view.schema import Column, Schema

if TYPE_CHECKING:
    from ocidist.image import Image

RESOLVED = Schema(
    "resolved",
    (Column("ref"), Column("media_type", title="TYPE"), Column("digest", "digest"), Column("size", "bytes")),
)
TAGS = Schema("tags", (Column("tag"),))
REPOSITORIES = Schema("repositories", (Column("repository"),))


@contextmanager
def _or_store(context: Context, ref: str) -> Iterator[None]:
    """A registry that can't be reached: the error says where else the image is available."""
    from ocidist.errors import OcidistError, RegistryError, TransportError

    try:
        yield
    except (TransportError, RegistryError) as error:
        if isinstance(error, RegistryError) and not error.retryable:
            raise
        try:
            name = context.store.find_image(ref)
        except OcidistError:
            name = None
        if name is None:
            raise
        raise OcidistError(f"{error}; the store has it: store:{name}") from error


def configure_resolve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF")


def run_resolve(args: argparse.Namespace, context: Context) -> None:
    with context.quiet() as scope, _or_store(context, args.ref):
        remote = context.client.remote(args.ref)
        target = context.client.resolve(args.ref, scope=scope)
    context.result(RESOLVED, (remote.name, target.media_type, target.digest, target.size))


def configure_tags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("remote", metavar="REMOTE", help="a repository")


def run_tags(args: argparse.Namespace, context: Context) -> None:
    with context.quiet() as scope:
        _names(context, TAGS, context.client.tags(args.remote, scope=scope))


def configure_catalog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="a registry")


def run_catalog(args: argparse.Namespace, context: Context) -> None:
    with context.quiet() as scope:
        _names(context, REPOSITORIES, context.client.registry(args.host).catalog(scope))


def _names(context: Context, schema: Schema, names: Iterator[str]) -> None:
    """One name a line as they come, or rows as ``--format`` says."""
    if context.args.format != "table":
        context.listing(schema, ((name,) for name in names))
        return
    from ocidist.view.text import visible

    for name in names:
        context.line(visible(name))


def configure_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF")


def run_manifest(args: argparse.Namespace, context: Context) -> None:
    """The exact bytes: of an index where REF is one, unless --platform chooses an image of it."""
    from ocidist.graph.copy import read_small

    with context.quiet() as scope, _or_store(context, args.ref):
        if args.platform:
            image = context.client.open(args.ref, scope=scope)
            raw = image.manifest.raw
        else:
            remote = context.client.remote(args.ref)
            source = remote.readable()
            target, found = source.resolve(remote.object, scope)
            raw = found if found is not None else read_small(source, target, scope)
    context.stdout.write(raw)
    context.stdout.flush()
    if sys.stdout.isatty():
        context.line("")


def _as_json(image: Image) -> str:
    """Manifest and config as they are, with what follows from them."""
    import json

    return json.dumps(
        {
            "ref": image.reference,
            "digest": image.digest,
            "media_type": image.descriptor.media_type,
            "manifest_digest": image.manifest_descriptor.digest,
            "platform": str(image.platform) if image.platform is not None else None,
            "size": image.size,
            "chain_id": image.chain_id,
            "platforms": image.image_platforms,
            "manifest": json.loads(image.manifest.raw),
            "config": image.config.data if image.config is not None else None,
        },
        indent=2,
    )


def configure_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF")


def run_inspect(args: argparse.Namespace, context: Context) -> None:
    with context.quiet() as scope, _or_store(context, args.ref):
        image = context.client.open(args.ref, scope=scope)
    context.check_platform(image)
    if args.format == "table":
        context.line(repr(image))
    elif args.format == "json":
        context.line(_as_json(image))
    else:
        context.listing(image.layers.schema, image.layers)
