"""images, rmi, gc: names, and what they hold."""

from __future__ import annotations

import argparse
from typing import Sized

from ocidist.cli.context import Context
from ocidist.view.schema import Column, Schema

REMOVED = Schema("removed", (Column("digest", "digest"), Column("size", "bytes")))


def configure_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="references alone")
    parser.add_argument("refs", metavar="REF", nargs="*", help="only these images")


def run_images(args: argparse.Namespace, context: Context) -> int:
    from ocidist.stores.upkeep.inventory import images

    wanted = set()
    for ref in args.refs:
        name = context.store.find_image(ref)
        if name is None:
            _checked(ref)
        else:
            wanted.add(name)
    only = wanted if args.refs else None
    if args.quiet:
        from ocidist.view.text import visible

        for record in context.store.image_records():
            if only is None or record.name in only:
                context.line(visible(record.name))
    else:
        with context.quiet() as scope:
            rows = images(context.store.within(scope), scope, only)
        schema = rows.schema
        if args.format == "table" and not any(row.replayed for row in rows):
            schema = schema.without("replayed")
        context.listing(schema, rows)
    context.say_whose_names()
    return context.say_damaged_names()


def configure_rmi(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("refs", metavar="REF", nargs="+")


def run_rmi(args: argparse.Namespace, context: Context) -> int:
    from ocidist.errors import OcidistError

    failed = 0
    for ref in args.refs:
        try:
            name = context.store.find_image(ref)
            if name is None:
                _checked(ref)
                context.warn(f"{ref}: no such image here; `images` lists them")
            elif context.store.remove_image(name):
                context.line(name)
        except OcidistError as error:
            context.warn(str(error))
            failed = 1
    return failed


def _checked(ref: str) -> None:
    """Raise for a text that can't name an image: it is mistyped, not missing."""
    from ocidist.remotes import Locator
    from ocidist.spec.reference import Reference

    where = Locator.parse(ref)
    if where.kind == "registry":
        Reference.parse(where.body)


def configure_gc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    parser.add_argument(
        "--all",
        action="store_true",
        help="also what fetch, ingest and interrupted pulls left less than a day ago",
    )


def run_gc(args: argparse.Namespace, context: Context) -> int:
    from ocidist.view.sizes import human

    with context.quiet() as scope:
        report = context.store.gc(scope, dry_run=args.dry_run, everything=args.all)
    context.listing(REMOVED, report.blobs)
    verb = "would free" if args.dry_run else "freed"
    unpackings = f", {_number(report.unpackings, 'interrupted unpack')}" if report.unpackings else ""
    context.warn(
        f"{verb} {human(report.freed)}: {_count(report.blobs, 'blob')}, {_count(report.snapshots, 'snapshot')}, "
        f"{_count(report.ingests, 'stale ingest')}{unpackings}"
    )
    if report.unknown or report.unknown_snapshots:
        size = human(sum(blob.size for blob in report.unknown))
        context.warn(
            f"{_count(report.unknown, 'blob')} ({size}) and {_count(report.unknown_snapshots, 'snapshot')} are older "
            f"than the database of names ({context.store.names.place}) and unknown to it, as after a loss; they are "
            "kept: pull their images again to name them, or remove them with gc --all"
        )
    if report.held:
        context.warn(
            f"{_count(report.held, 'blob')} ({human(sum(blob.size for blob in report.held))}) "
            f"{'is' if len(report.held) == 1 else 'are'} held for up to 24 hours; "
            f"gc --all removes {'it' if len(report.held) == 1 else 'them'} too"
        )
    if report.kept_ingests:
        one = len(report.kept_ingests) == 1
        found = f"{_count(report.kept_ingests, 'ingest')} ({human(report.kept_ingest_bytes)}) {'is' if one else 'are'} "
        lists = f"`active` lists {'it' if one else 'them'}"
        if args.all:
            context.warn(f"{found}under way; {lists}")
        else:
            context.warn(
                f"{found}under way or can be resumed; {lists}, gc --all removes what nobody is writing"
            )

    for problem in report.problems:
        context.warn(problem)
    return 1 if report.problems else 0


def _count(items: Sized, name: str) -> str:
    return _number(len(items), name)


def _number(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
