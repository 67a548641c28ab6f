"""list, ingest, active, get, path, label, delete: the content store, blob by blob.

``list`` starts fast: neither the network nor sqlite3 is loaded for it.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Iterable, Iterator

from ocidist.cli.context import Context
from ocidist.spec import mediatype
from ocidist.spec.digest import Digest
from ocidist.view.schema import Column, Schema

if TYPE_CHECKING:
    from ocidist.content.protocols import Info, Writer
    from ocidist.scope import Scope
    from ocidist.stores.store import Store

BLOBS = Schema(
    "blobs", (Column("digest", "digest"), Column("size", "bytes"), Column("created_at", "age", "AGE"))
)
PATHS = Schema("paths", (Column("digest", "digest"), Column("path")))
LABELS = Schema("labels", (Column("label"), Column("value")))


def configure_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="digests alone")
    parser.add_argument("prefixes", metavar="PREFIX", nargs="*", help="only digests that start so")


def run_list(args: argparse.Namespace, context: Context) -> None:
    prefixes = tuple(args.prefixes) + tuple(f"sha256:{p}" for p in args.prefixes)
    infos = (
        info for info in context.store.content.walk() if not prefixes or info.digest.startswith(prefixes)
    )
    if args.quiet:
        for info in infos:
            context.line(str(info.digest))
        return
    context.listing(BLOBS, _blob_rows(infos))


def _blob_rows(infos: Iterable[Info]) -> Iterator[tuple[object, ...]]:
    for info in infos:
        yield info.digest, info.size, info.created_at


def configure_active(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEY", nargs="*", help="only these ingests")


def run_active(args: argparse.Namespace, context: Context) -> None:
    from ocidist.stores.upkeep.inventory import ACTIVE, active_rows

    context.listing(ACTIVE, active_rows(context.store.content.statuses(args.keys)))


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def configure_ingest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expected-size", metavar="N", type=_size, default=0, help="refuse any other size (bytes)"
    )
    parser.add_argument("--expected-digest", metavar="DIGEST", help="refuse any other content")
    parser.add_argument("key", metavar="KEY", help="names the ingest; the same key resumes it")


def run_ingest(args: argparse.Namespace, context: Context) -> None:
    from ocidist.errors import AlreadyExists

    expected = Digest(args.expected_digest) if args.expected_digest else None
    context.announce_stdin("the blob")
    with context.quiet() as scope:
        try:
            digest = _ingest(args.key, args.expected_size, expected, context, scope)
        except AlreadyExists:
            assert expected is not None
            digest = expected
    context.line(str(digest))


def _ingest(key: str, size: int, expected: Digest | None, context: Context, scope: Scope) -> Digest:
    """All of stdin. What an earlier run kept under the key is not written again as far as stdin agrees with
    it; where it differs, or ends sooner, what was kept is cut off."""
    with _writer(key, size, expected, context.store, scope) as writer:
        seen, kept = 0, writer.status().offset
        for data in _stdin(context, scope):
            if seen < kept:
                same = _common(data, writer.peek(seen, len(data)))
                seen += same
                data = data[same:]
                if data and seen < kept:
                    writer.truncate(seen)
                    kept = seen
            if data:
                writer.write(data)
        if seen < kept:
            writer.truncate(seen)
        return writer.commit(size, expected)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    if one[: len(other)] == other:
        return len(other)
    low, high = 0, min(len(one), len(other))  # equal up to low; not up to high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low


def _writer(key: str, size: int, expected: Digest | None, store: Store, scope: Scope) -> Writer:
    """The writer, once nobody else holds it: ``xargs -P10`` may bring one object twice."""
    from ocidist.errors import Locked
    from ocidist.scope import POLL

    while True:
        try:
            return store.ingest(key, total=size, expected=expected)
        except Locked:
            scope.sleep(POLL)


def _stdin(context: Context, scope: Scope) -> Iterator[bytes]:
    """stdin in pieces, as they come: ``active`` shows what a slow pipe has brought. Looks at the time limit."""
    import select

    source = context.stdin
    while True:
        while scope.deadline is not None and not select.select([source], [], [], scope.remaining(0.1))[0]:
            pass
        scope.check()
        data = source.read1(1 << 20)
        if not data:
            return
        yield data


def configure_get(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST")


def run_get(args: argparse.Namespace, context: Context) -> None:
    from ocidist.content import verify
    from ocidist.errors import DigestMismatch
    from ocidist.spec.descriptor import Descriptor
    from ocidist.stores.upkeep.damage import holders

    content = context.store.content
    info = content.info(context.digest(args.digest))
    target = Descriptor(mediatype.OCTET_STREAM, info.digest, info.size)
    with context.quiet() as scope:
        body = content.open(target, scope)
        try:
            verify.stream(body, target, context.stdout.write, scope)
        except DigestMismatch as error:
            image = next(holders(context.store, target.digest, scope), "its image")
            reason = f"the copy in the store is damaged: delete {target.digest}, then pull {image} again"
            raise DigestMismatch(target, reason) from error
        finally:
            body.close()
    context.stdout.flush()


def configure_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "digests", metavar="DIGEST", nargs="+", help="a blob's digest, or the ChainID of a tree"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--blob", dest="only", action="store_const", const="blob", help="blobs alone")
    only.add_argument("--tree", dest="only", action="store_const", const="tree", help="unpacked trees alone")


def run_path(args: argparse.Namespace, context: Context) -> None:
    digests = [context.digest(text, trees=args.only != "blob") for text in args.digests]
    found = [(digest, path) for digest in digests for path in _paths(digest, args.only, context)]
    if args.format != "table":
        context.listing(PATHS, found)
        return
    for digest, path in found:
        context.path_line(f"{digest} {path}")


def _paths(digest: Digest, only: str | None, context: Context) -> list[str]:
    """Where a blob lies, and the tree of the snapshot with this ChainID. Raises BlobNotFound for neither."""
    from ocidist.errors import BlobNotFound, OcidistError

    store, found = context.store, []
    path = None if only == "tree" else store.content.path(digest)
    if path is not None and os.path.lexists(path):
        store.content.info(digest)  # a file, and no link or folder
        found.append(str(path))
    if only != "blob" and store.trees is not None:
        try:
            if store.snapshots.stat(str(digest)).kind == "committed":
                found.append(str(store.trees.path(str(digest))))
        except OcidistError:
            pass
    if len(found) > 1:  # the ChainID of one layer is its DiffID, and an uncompressed layer's digest
        context.warn(f"{digest} is a blob and the ChainID of a tree; --blob or --tree prints one of the two")
    if not found:
        what = {"blob": "not a blob", "tree": "not an unpacked tree"}.get(
            only or "", "neither a blob nor an unpacked tree"
        )
        raise BlobNotFound(str(digest), f"{what} of this store")
    return found


def configure_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST")
    parser.add_argument(
        "labels", metavar="KEY=VALUE", nargs="*", help="KEY alone sets it to true, KEY= removes it"
    )


def run_label(args: argparse.Namespace, context: Context) -> None:
    from ocidist.errors import UsageError, quoted

    digest = context.store.content.info(context.digest(args.digest)).digest
    changes: dict[str, str | None] = {}
    for label in args.labels:
        key, equals, value = label.partition("=")
        if not key:
            raise UsageError(f"{quoted(label)}: a label is KEY=VALUE, KEY, or KEY= to remove it")
        changes[key] = (value or None) if equals else "true"
    with context.quiet():
        labels = context.store.set_labels(digest, changes) if changes else context.store.labels(digest)
    if args.format != "table":
        context.listing(LABELS, sorted(labels.items()))
        return
    from ocidist.view.text import visible

    for key, value in sorted(labels.items()):
        context.line(f"{visible(key)}={visible(value)}")


def configure_delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digests", metavar="DIGEST", nargs="*")


def run_delete(args: argparse.Namespace, context: Context) -> int:
    from ocidist.errors import BlobNotFound, OcidistError

    failed = 0
    for text in args.digests:
        try:
            digest = context.digest(text)
            context.store.delete_blob(digest)
            context.line(str(digest))
        except BlobNotFound:
            continue
        except OcidistError as error:
            context.warn(str(error))
            failed = 1
    return failed
