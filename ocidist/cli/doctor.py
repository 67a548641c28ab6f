"""doctor: what stands in the way of a pull."""

from __future__ import annotations

import argparse

from ocidist.cli.context import Context


def configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", nargs="?", help="an image, each step to which is tried")


def run_doctor(args: argparse.Namespace, context: Context) -> int:
    from ocidist.diagnosis.examination import examine
    from ocidist.diagnosis.finding import FAILED

    with context.quiet() as scope:
        findings = examine(context.client, args.ref, scope)
    context.listing(findings.schema, findings)
    failed = next((finding for finding in findings if finding.state == FAILED), None)
    if failed is None:
        return 0
    context.warn(
        f"{failed.part}: {failed.check}: {failed.found}" + (f"; {failed.advice}" if failed.advice else "")
    )
    return 1
