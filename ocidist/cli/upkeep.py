"""check, du: what is damaged in the store, and where the disk went."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ocidist.cli.context import Context

if TYPE_CHECKING:
    from ocidist.stores.upkeep.check import CheckReport


def configure_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repair", action="store_true", help="fetch what is damaged again, and verify it")
    parser.add_argument(
        "--trees",
        action="store_true",
        help="also compare the files of unpacked trees with their layers; needs room for the largest image",
    )


def run_check(args: argparse.Namespace, context: Context) -> int:
    from ocidist.stores.upkeep.check import check
    from ocidist.view.sizes import human

    store = context.store
    with context.progress() as scope:
        report = check(store, scope, trees=args.trees)
    for each in report.unseen:
        context.warn(f"not checked: {each}")
    for chain, why in report.skipped:
        context.warn(f"{chain}: not compared: {why}")
    if report.rows and args.repair:
        return _repair(context, report)
    context.listing(report.rows.schema, report.rows)
    looked_at = f"{_count(report.blobs, 'blob')} ({human(report.bytes)})"
    if args.trees:
        looked_at += f" and {_count(report.trees, 'tree')}"
    if not report.rows:
        context.warn(f"{looked_at}: all is well")
        return 0
    way_out = "check --repair fetches again what is damaged or missing"
    if any(row.kind == "tree" for row in report.rows):
        way_out = "check --trees --repair fetches damaged blobs and unpacks damaged trees again"
    context.warn(f"{_count(len(report.rows), 'thing')} amiss among {looked_at}; {way_out}")
    return 1


def _repair(context: Context, report: CheckReport) -> int:
    from ocidist.repair import repair

    with context.progress() as scope:
        rows = repair(context.client, report.rows, scope)
    context.listing(rows.schema, rows)
    left = sum(not row.repaired for row in rows)
    context.warn(f"{_count(len(rows) - left, 'thing')} repaired, {left} not")
    return 1 if left else 0


def configure_du(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes none but the global options


def run_du(args: argparse.Namespace, context: Context) -> int:
    with context.quiet() as scope:
        rows = context.store.du(scope)
    context.listing(rows.schema, rows)
    context.say_whose_names()
    if rows[0].unread:
        context.warn(
            f"{_count(rows[0].unread, 'folder')} can't be read by this user: the sizes are without them"
        )
    return context.say_damaged_names()


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
