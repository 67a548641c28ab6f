"""pull, fetch, fetch-object."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

from ocidist.cli.context import Context
from ocidist.cli.options import add_no_limits
from ocidist.errors import OcidistError
from ocidist.spec import mediatype
from ocidist.view.schema import Column, Schema

if TYPE_CHECKING:
    from ocidist.scope import Scope

PULLED = Schema("pulled", (Column("ref"), Column("digest", "digest"), Column("chain_id", "digest")))
FETCHED = Schema("fetched", (Column("ref"), Column("digest", "digest")))


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, and only the digest on stdout"
    )


def configure_pull(parser: argparse.ArgumentParser) -> None:
    _add_quiet(parser)
    parser.add_argument("ref", metavar="REF", help="an image: redis:7, ghcr.io/org/name@sha256:…")
    add_no_limits(parser)


def run_pull(args: argparse.Namespace, context: Context) -> None:
    with context.progress() as scope:
        pulled = context.client.pull(args.ref, scope=scope)
    if context.platform == "all":
        if pulled.chain_id is not None and pulled.image.index is not None:
            context.warn(
                f"unpacked {pulled.image.platform}; of the other platforms only the content was fetched"
            )
    else:
        context.check_platform(pulled.image)
    if args.quiet:
        context.line(str(pulled.descriptor.digest))
    else:
        context.result(PULLED, (pulled.reference, pulled.descriptor.digest, pulled.chain_id))


def configure_fetch(parser: argparse.ArgumentParser) -> None:
    _add_quiet(parser)
    _add_object(parser)


def _add_object(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("remote", metavar="REMOTE", help="a repository, or REMOTE:TAG, or REMOTE@DIGEST")
    parser.add_argument("object", metavar="OBJECT", nargs="?", help="a tag or a digest (latest)")
    parser.add_argument("hints", metavar="HINT", nargs="*", help="mediatype:TYPE; others are ignored")


def run_fetch(args: argparse.Namespace, context: Context) -> None:
    with context.progress() as scope:
        name, target = context.client.fetch(args.remote, args.object, scope=scope)
        if not context.platform and mediatype.is_manifest(target.media_type):
            with suppress(OcidistError):  # what can't be opened is fetched all the same
                context.check_platform(context.client.open(f"store:{target.digest}", scope=scope), name)
    if args.quiet:
        context.line(str(target.digest))
    else:
        context.result(FETCHED, (name, target.digest))


def configure_fetch_object(parser: argparse.ArgumentParser) -> None:
    _add_object(parser)
    parser.epilog = "With - for OBJECT, objects and their hints come on stdin, a line each."


def run_fetch_object(args: argparse.Namespace, context: Context) -> None:
    # A scope without painting: what comes out is the object, and ten of these run at once in a pipeline.
    with context.quiet() as scope:
        if args.object != "-":
            _write_object(context, args.remote, args.object, args.hints, scope)
            return
        context.announce_stdin("objects, one on each line,")
        for line in sys.stdin:
            words = line.split()
            if words:
                _write_object(context, args.remote, words[0], words[1:], scope)


def _write_object(
    context: Context, locator: str, object_: str | None, hints: list[str], scope: Scope
) -> None:
    from ocidist.content import verify
    from ocidist.content.resume import resuming

    remote = context.client.remote(locator, object_)
    source = remote.readable()
    target, raw = source.resolve(remote.object, scope, need_bytes=True, hint=_media_type(hints))
    write: Callable[[bytes | memoryview], object] = context.stdout.write
    if raw is not None:
        write(raw)
    else:
        with resuming(source, target, scope) as body:
            verify.stream(body, target, write, scope)
    context.stdout.flush()


def _media_type(hints: list[str]) -> str:
    """The last ``mediatype:`` hint; what isn't known is ignored, as the ``-`` that shasum leaves behind."""
    found = ""
    for hint in hints:
        if hint.startswith("mediatype:"):
            found = hint[len("mediatype:") :]
    return found
