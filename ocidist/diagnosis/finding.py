"""A finding: one thing that was looked at, how it is, and what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ocidist.rows import Schema

__all__ = ["FAILED", "FINDINGS", "NOTE", "OK", "SKIPPED", "Finding"]

OK = "ok"
NOTE = "note"
"""Nothing is broken, but it may be the reason."""
FAILED = "failed"
SKIPPED = "skipped"
"""It could not be tried, or there is nothing to try."""


@dataclass(frozen=True)
class Finding:
    """``part`` is "machine", or the host that a step asks; ``state`` is ok, note, failed or skipped.

    ``found`` never holds a secret. ``advice`` is the way out, "" where there is nothing to do.
    """

    part: str
    check: str
    state: str
    found: str
    advice: str = ""


FINDINGS = Schema.of(Finding, "findings")
