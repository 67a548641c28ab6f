"""The whole examination, as Rows: the machine, then the steps to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocidist.diagnosis.finding import FAILED, FINDINGS, Finding
from ocidist.diagnosis.machine import machine
from ocidist.rows import Rows
from ocidist.scope import Scope

if TYPE_CHECKING:
    from ocidist.client import Client

__all__ = ["examine", "is_well"]


def examine(client: Client, locator: str | None = None, scope: Scope | None = None) -> Rows[Finding]:
    """What stands in the way of pulling ``locator``; without one, the facts of this machine alone.

    Columns: part, check, state (ok, note, failed, skipped), found, advice. Raises InvalidReference, UsageError and Cancelled; what
    fails is a row.
    """
    if locator is None:
        return Rows(FINDINGS, machine(client))
    from ocidist.diagnosis.steps import reference_of, steps

    reference = reference_of(locator)
    host = reference.name.partition("/")[0]
    scope = scope if scope is not None else Scope.within(client.timeout)
    found = list(machine(client, host))
    if any(finding.check == "mirrors" and finding.state == FAILED for finding in found):
        return Rows(FINDINGS, found)  # who is to be asked can't be told
    return Rows(FINDINGS, [*found, *steps(client, reference, scope)])


def is_well(findings: Rows[Finding]) -> bool:
    """True if nothing failed."""
    return all(finding.state != FAILED for finding in findings)
