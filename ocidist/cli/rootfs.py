"""apply, rootfs unpack: from layers to trees."""

from __future__ import annotations

import argparse

from ocidist.cli.context import Context


def configure_apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", help="an existing directory")


def run_apply(args: argparse.Namespace, context: Context) -> None:
    from pathlib import Path

    from ocidist.layers.apply import apply_layer

    with context.quiet() as scope:
        result = apply_layer(context.stdin, Path(args.dir), scope)
    if result.skipped:
        context.warn(f"{result.skipped} entries were skipped: devices need root")
    if result.disowned:
        context.warn(f"{result.disowned} entries are yours, not their owners': changing that needs root")


def configure_rootfs_unpack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST", help="a manifest of the store, or an image's name")


def run_rootfs_unpack(args: argparse.Namespace, context: Context) -> None:
    from ocidist.errors import ContentError, InvalidManifest, LayerError, UsageError
    from ocidist.unpacking import explained

    with context.progress() as scope:
        try:
            image = context.client.open(f"store:{args.digest}", scope=scope)
            if image.config is None:
                raise UsageError(f"{args.digest}: an artifact, not an image; it has no root filesystem")
            chain = context.store.unpack(image.manifest, image.config, scope)
        except (ContentError, LayerError, InvalidManifest) as error:
            raise explained(error, context.store, args.digest, scope) from error
    context.line(str(chain))
