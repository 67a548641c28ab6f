"""Tables that tests print when the run is over: which fault in which phase ended how, what each registry was asked.

A test adds rows to a table by name with the ``table`` fixture; they travel in its report, so that they arrive from
the workers of pytest-xdist as well. Rows come out sorted, each once.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import pytest

from tests.parts.required import everything_required

_KEY = "ocidist-table"
LONG = 60  # rows

Add = Callable[..., None]


class Table(NamedTuple):
    """A table's name, and what its columns are called."""

    title: str
    columns: tuple[str, ...]


@pytest.fixture
def table(record_property: Callable[[str, object], None]) -> Callable[[Table], Add]:
    """``add = table(Table("Faults", ("fault", "phase", "outcome")))``, then ``add("429", "token", "copied")``."""

    def begin(which: Table) -> Add:
        def add(*cells: object) -> None:
            assert len(cells) == len(which.columns), (
                f"{which.title}: {cells} has not the columns {which.columns}"
            )
            record_property(_KEY, [which.title, list(which.columns), [str(cell) for cell in cells]])

        return add

    return begin


def collected(reports: list[Any]) -> dict[Table, list[tuple[str, ...]]]:
    """The tables of a run's reports."""
    found: dict[Table, set[tuple[str, ...]]] = {}
    for report in reports:
        for key, value in getattr(report, "user_properties", ()):
            if key == _KEY:
                title, columns, cells = value
                found.setdefault(Table(title, tuple(columns)), set()).add(tuple(cells))
    return {which: sorted(rows) for which, rows in sorted(found.items())}


def rendered(which: Table, rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of one table, as wide as its cells."""
    widths = [max(map(len, cells)) for cells in zip(which.columns, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in (which.columns, *rows)
    ]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was collected: a hook of pytest's, made known by ``tests/conftest.py``.

    A long table is named alone, unless it is asked for (``-v``) or the run is that of ``.ci/run``.
    """
    whole = everything_required() or terminalreporter.config.get_verbosity() > 0
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    for which, rows in collected(reports).items():
        terminalreporter.section(f"{which.title} ({len(rows)})", "-")
        if len(rows) > LONG and not whole:
            terminalreporter.line(f"{len(rows)} rows; -v prints them")
            continue
        for line in rendered(which, rows):
            terminalreporter.line(line)
