"""What the columns of a listing mean: the one thing that a table, a DataFrame and a CSV agree on."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Callable, NamedTuple

__all__ = ["KINDS", "Column", "Schema"]

KINDS = ("text", "digest", "bytes", "count", "age", "time", "flag", "list")
"""text: str · digest: ALGORITHM:HEX · bytes, count: int · age, time: seconds since the epoch or a datetime
(age prints as the span until now) · flag: bool · list: a sequence of str. None is "not known" in all."""


class _Column(NamedTuple):
    name: str
    kind: str = "text"
    title: str = ""
    unit: str = ""
    room: str = ""


class Column(_Column):
    """One column. ``name`` is the attribute of a row and the key in JSON; ``title`` heads a text table
    (empty: the name in capitals); ``unit`` is for readers of the DataFrame, ``bytes`` by itself. Where a text table
    has too little ``room`` a "spare" column goes first, and a "whole" one, which is typed again, is never cut."""

    __slots__ = ()

    def __new__(
        cls, name: str, kind: str = "text", title: str = "", unit: str = "", room: str = ""
    ) -> Column:
        if kind not in KINDS:
            raise ValueError(f"column {name!r}: no kind {kind!r}; they are {', '.join(KINDS)}")
        if room not in ("", "spare", "whole"):
            raise ValueError(f"column {name!r}: no room {room!r}; it is spare, whole or empty")
        return super().__new__(cls, name, kind, title, unit, room)

    @property
    def heading(self) -> str:
        """What stands over the column in a text table."""
        return self.title or self.name.replace("_", " ").upper()

    @property
    def label(self) -> str:
        """What stands over the column in HTML."""
        return self.title.lower() if self.title else self.name.replace("_", " ")

    @property
    def right(self) -> bool:
        """True for numbers, which line up at their right."""
        return self.kind in ("bytes", "count")


class Schema(NamedTuple):
    """A listing's ``name`` ("blobs", "layers") and its columns."""

    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    def reader(self) -> Callable[[Any], tuple[Any, ...]]:
        """A function from a row (an object with the columns' names, or a tuple) to a tuple of its values."""
        names = self.names
        get = attrgetter(*names) if names else None

        def read(row: Any) -> tuple[Any, ...]:
            if type(row) is tuple:
                return row
            if get is None:
                return ()
            found = get(row)
            return found if len(names) > 1 else (found,)

        return read
