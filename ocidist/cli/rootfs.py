"""apply, rootfs …, snapshots: from layers to trees, and from what changed in a tree to a layer."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import BinaryIO, Callable

from ocidist.cli.context import Context
from ocidist.cli.options import add_no_limits
from ocidist.snapshots.protocols import Mount
from ocidist.view.schema import Column, Schema

MOUNTS = Schema.of(Mount, "mounts")
COMMITTED = Schema(
    "committed",
    (Column("digest", "digest"), Column("diff_id", "digest"), Column("chain_id", "digest")),
)


def configure_apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", help="an existing directory")
    add_no_limits(parser)


def run_apply(args: argparse.Namespace, context: Context) -> None:
    from pathlib import Path

    from ocidist.errors import StoreError
    from ocidist.files import within
    from ocidist.layers.apply.layer import apply_layer

    context.announce_stdin("a layer (a tar, compressed or not)")
    with context.quiet() as scope, ExitStack() as stack:
        try:
            root = stack.enter_context(within(args.dir))
        except OSError as error:
            raise StoreError(args.dir, error.strerror or str(error)) from error
        result = apply_layer(context.stdin, Path(args.dir), scope, opened=root)
    if result.skipped:
        context.warn(
            f"{result.skipped} devices were skipped: they need root, and 0:0 is a whiteout to overlay mounts"
        )
    if result.disowned:
        context.warn(f"{result.disowned} entries are yours, not their owners': changing that needs root")


def configure_rootfs_unpack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("digest", metavar="DIGEST", help="a manifest of the store, or an image's name")
    add_no_limits(parser)


def run_rootfs_unpack(args: argparse.Namespace, context: Context) -> None:
    from ocidist.errors import ContentError, InvalidManifest, LayerError, UsageError
    from ocidist.stores.upkeep.damage import explained

    with context.progress() as scope:
        try:
            image = context.client.open(f"store:{args.digest}", scope=scope)
            if image.config is None:
                raise UsageError(
                    f"{args.digest}: an artifact, not an image, has no root filesystem; `inspect` shows what it is"
                )
            with context.store.fetching(scope):
                chain = context.store.unpack(image.manifest, image.config, scope)
        except (ContentError, LayerError, InvalidManifest) as error:
            raise explained(error, context.store, args.digest, scope) from error
    context.line(str(chain))


def configure_rootfs_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("chain", metavar="CHAINID", help="what `pull` and `rootfs unpack` print")
    parser.add_argument("target", metavar="TARGET", help="the directory that it is to be mounted at")


def run_rootfs_prepare(args: argparse.Namespace, context: Context) -> None:
    _prepare(args, context, readonly=False)


configure_rootfs_view = configure_rootfs_prepare


def run_rootfs_view(args: argparse.Namespace, context: Context) -> None:
    _prepare(args, context, readonly=True)


def _prepare(args: argparse.Namespace, context: Context, *, readonly: bool) -> None:
    import os
    import shlex

    from ocidist.rootfs import prepare

    with context.quiet() as scope:
        mounts = prepare(context.store, args.chain, args.target, scope, readonly=readonly)
    if args.format != "table":
        context.listing(MOUNTS, mounts)
        return
    target = shlex.quote(os.path.abspath(args.target))
    commands = [
        f"mount -t {each.type} -o {shlex.quote(','.join(each.options))} {shlex.quote(each.source)} {target}"
        for each in mounts
    ]
    context.path_line(" &&\n".join(commands))  # the first that fails ends them all


def configure_rootfs_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write the layer there; - is stdout")
    parser.add_argument("trees", metavar="[LOWER] UPPER", nargs="+", help="snapshots or directories")


def run_rootfs_diff(args: argparse.Namespace, context: Context) -> None:
    from ocidist.cli.outputs import output
    from ocidist.errors import UsageError
    from ocidist.rootfs import changes, make_layer

    if len(args.trees) > 2:
        raise UsageError("rootfs diff takes one tree or two; write [LOWER] UPPER")
    lower, upper = [None, *args.trees][-2:]
    with context.quiet() as scope:
        if args.output is None:
            rows = changes(context.store, upper, lower, scope)
            context.listing(rows.schema, rows)
        elif args.output == "-":
            epoch = _epoch(context)
            make_layer(context.store, upper, lower, context.stdout.write, scope, epoch=epoch)
            context.stdout.flush()
        else:
            epoch = _epoch(context)
            with output(args.output, scope) as file:
                make_layer(context.store, upper, lower, _all_of(file), scope, epoch=epoch)


def _all_of(file: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    return write


def _epoch(context: Context) -> int | None:
    """``$SOURCE_DATE_EPOCH`` in seconds. Raises UsageError."""
    from ocidist.errors import UsageError

    text = context.settings.source_date_epoch
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 11:
        raise UsageError(
            f"$SOURCE_DATE_EPOCH: {text!r} is not a number of seconds since 1970; correct it or unset it"
        )
    return int(text)


def configure_rootfs_commit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="an active snapshot, by its key or target")


def run_rootfs_commit(args: argparse.Namespace, context: Context) -> None:
    from ocidist.rootfs import commit

    epoch = _epoch(context)
    with context.quiet() as scope:
        made = commit(context.store, args.key, scope, epoch=epoch)
    context.result(COMMITTED, (made.layer.digest, made.layer.diff_id, made.chain_id))


def configure_rootfs_rm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEY", nargs="+", help="a snapshot, by its key or target")


def run_rootfs_rm(args: argparse.Namespace, context: Context) -> int:
    from ocidist.errors import OcidistError
    from ocidist.rootfs import remove
    from ocidist.view.text import visible

    failed = 0
    for key in args.keys:
        try:
            context.line(visible(remove(context.store, key)))
        except OcidistError as error:
            context.warn(str(error))
            failed = 1
    return failed


def configure_snapshots(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes none but the global options


def run_snapshots(args: argparse.Namespace, context: Context) -> None:
    del args
    from ocidist.rootfs import snapshots

    with context.quiet() as scope:
        rows = snapshots(context.store, scope)
    context.listing(rows.schema, rows)
