"""pull, fetch, fetch-object."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Callable

from ocidist.cli.context import Context
from ocidist.view.schema import Column, Schema

if TYPE_CHECKING:
    from ocidist.remotes.registry.client import RegistryRemote
    from ocidist.scope import Scope

PULLED = Schema("pulled", (Column("ref"), Column("digest", "digest"), Column("chain_id", "digest")))
FETCHED = Schema("fetched", (Column("ref"), Column("digest", "digest")))


def configure_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="an image: redis:7, ghcr.io/org/name@sha256:…")


def run_pull(args: argparse.Namespace, context: Context) -> None:
    with context.progress() as scope:
        pulled = context.client.pull(args.ref, scope=scope)
    context.result(PULLED, (pulled.reference, pulled.descriptor.digest, pulled.chain_id))


def configure_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("remote", metavar="REMOTE", help="a repository, or REMOTE:TAG, or REMOTE@DIGEST")
    parser.add_argument("object", metavar="OBJECT", nargs="?", help="a tag or a digest (latest)")
    parser.add_argument("hints", metavar="HINT", nargs="*", help="mediatype:TYPE; others are ignored")


def run_fetch(args: argparse.Namespace, context: Context) -> None:
    from ocidist.spec.reference import Reference

    with context.progress() as scope:
        name, target = context.client.fetch(Reference.of(args.remote, args.object), scope=scope)
    context.result(FETCHED, (name, target.digest))


def configure_fetch_object(parser: argparse.ArgumentParser) -> None:
    configure_fetch(parser)
    parser.epilog = "With - for OBJECT, objects and their hints come on stdin, a line each."


def run_fetch_object(args: argparse.Namespace, context: Context) -> None:
    from ocidist.spec.reference import Reference

    # A scope without painting: what comes out is the object, and ten of these run at once in a pipeline.
    with context.quiet() as scope:
        if args.object != "-":
            _write_object(context, Reference.of(args.remote, args.object), args.hints, scope)
            return
        for line in sys.stdin:
            words = line.split()
            if words:
                _write_object(context, Reference.of(args.remote, words[0]), words[1:], scope)


def _write_object(context: Context, reference: object, hints: list[str], scope: Scope) -> None:
    from ocidist.content import verify
    from ocidist.transfer import MANIFEST_LIMIT

    remote: RegistryRemote
    remote, name, _ = context.client.source(str(reference))  # type: ignore[assignment]
    target, raw = remote.locate(name, _media_type(hints), scope)
    write: Callable[[bytes | memoryview], object] = context.stdout.write
    if raw is not None:
        write(raw)
    else:
        body = remote.open(target, scope)
        try:
            if target.size <= MANIFEST_LIMIT:
                write(verify.read_all(body, target, MANIFEST_LIMIT))
            else:
                verify.stream(body, target, write, scope)
        finally:
            body.close()
    context.stdout.flush()


def _media_type(hints: list[str]) -> str:
    """The last ``mediatype:`` hint; what isn't known is ignored, as the ``-`` that shasum leaves behind."""
    found = ""
    for hint in hints:
        if hint.startswith("mediatype:"):
            found = hint[len("mediatype:") :]
    return found
