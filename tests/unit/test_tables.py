"""The tables that a run prints at its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Callable

import pytest

from tests.parts import tables
from tests.parts.tables import Table

COLOURS = Table("Colours", ("name", "of"))


def reported(*properties: tuple[str, Any]) -> Any:
    return SimpleNamespace(user_properties=list(properties))


def test_rows_are_collected_from_reports_once_and_in_order(
    table: Callable[[Table], tables.Add], request: pytest.FixtureRequest
) -> None:
    """What two tests add stands in one table, sorted, the same row once; other properties are none of it."""
    add = table(COLOURS)
    add("red", "blood")
    add("blue", 1)
    own = reported(*request.node.user_properties)
    request.node.user_properties.clear()
    assert tables.collected([own, own, reported(("other", 1)), object()]) == {
        COLOURS: [("blue", "1"), ("red", "blood")]
    }
    with pytest.raises(AssertionError, match="columns"):
        add("one")


def test_a_table_is_as_wide_as_its_cells() -> None:
    """Columns line up; no line ends in blanks."""
    assert tables.rendered(COLOURS, [("blue", "1"), ("vermilion", "dawn")]) == [
        "name       of",
        "blue       1",
        "vermilion  dawn",
    ]
