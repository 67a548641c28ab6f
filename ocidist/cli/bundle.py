"""bundle: from an image of the store to what runc and crun run."""

from __future__ import annotations

import argparse

from ocidist.cli.context import Context
from ocidist.cli.options import Parser, add_no_limits
from ocidist.view.schema import Column, Schema

BUNDLE = Schema("bundle", (Column("path"),))


def configure_bundle(parser: Parser) -> None:
    parser.behind = "words"
    parser.usage = "ocidist bundle [OPTION …] REF DIR [-- ARG …]"
    parser.add_argument("ref", metavar="REF", help="an image of the store; pull it first")
    parser.add_argument("dir", metavar="DIR", help="where to: a new directory, or an empty one")
    add = parser.add_argument
    add("--rootless", action="store_true", help="for a user namespace, so that you can run it yourself")
    add("--read-only", action="store_true", help="the root filesystem can't be written")
    add("--env", metavar="K=V", action="append", default=[], help="set a variable; may be repeated")
    add("--mount", metavar="SPEC", action="append", default=[],
        help="type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH; may be repeated")  # fmt: skip
    add(
        "-u",
        "--user",
        metavar="USER",
        dest="run_as",
        help="run as NAME or UID, or either with :GROUP or :GID",
    )
    add("--entrypoint", metavar="WORD", help="in place of the image's; empty for none")
    add("--network", choices=("private", "host"), help="loopback alone (as root), or the host's (--rootless)")
    add("-t", "--tty", action="store_true", help="a terminal of its own")
    add("--annotation", metavar="K=V", action="append", default=[], help="may be repeated")
    add_no_limits(parser)
    parser.epilog = "Words behind -- are run in place of the image's Cmd: bundle busybox b -- echo hello"


def run_bundle(args: argparse.Namespace, context: Context) -> None:
    from pathlib import Path

    from ocidist.errors import BlobNotFound, ContentError, InvalidManifest, LayerError, UsageError
    from ocidist.runtime.options import BundleOptions, Mount, parse_pair
    from ocidist.spec.descriptor import Descriptor
    from ocidist.stores.upkeep.damage import explained

    options = BundleOptions(
        args=tuple(args.words) if args.words is not None else None,
        entrypoint=None if args.entrypoint is None else tuple(filter(None, [args.entrypoint])),
        env=dict(parse_pair(text, "--env") for text in args.env),
        user=args.run_as,
        mounts=tuple(Mount.parse(text) for text in args.mount),
        annotations=dict(parse_pair(text, "--annotation") for text in args.annotation),
        read_only=args.read_only,
        rootless=args.rootless,
        network=args.network,
        terminal=args.tty,
    )
    if not args.dir:
        raise UsageError("bundle: DIR is empty; write where the bundle is to be")
    ref = args.ref.removeprefix("store:")
    with context.progress() as scope:
        try:
            image = context.client.open(f"store:{ref}", scope=scope)
            context.check_platform(image)
            made = image.bundle(Path(args.dir), options, scope=scope)
        except BlobNotFound as error:
            if not isinstance(error.descriptor, Descriptor):
                raise  # it says what of the image is missing
            wanted = f" with --platform {context.platform}" if context.platform else ""
            missing = error.descriptor.digest
            raise BlobNotFound(ref, f"{missing} of it is not in the store; pull it{wanted}") from error
        except (ContentError, LayerError, InvalidManifest) as error:
            raise explained(error, context.store, ref, scope) from error
    if made.left_out:
        number = len(made.left_out)
        context.warn(
            f"{number} label{'' if number == 1 else 's'} of the image {'is' if number == 1 else 'are'} no "
            f"annotation, as a runtime could take them for options: {', '.join(made.left_out[:5])}"
            f"{', …' if number > 5 else ''}; --annotation K=V sets one"
        )
    if not options.rootless and not _is_root():
        context.warn("only root can run it; --rootless makes one that you can run")
    context.result(BUNDLE, (args.dir,))


def _is_root() -> bool:
    import os

    return not hasattr(os, "geteuid") or os.geteuid() == 0
