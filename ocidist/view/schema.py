"""What the columns of a listing mean: the one thing that a table, a DataFrame and a CSV agree on."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any, Callable, Mapping, NamedTuple

__all__ = ["HIDDEN", "KINDS", "Column", "Schema", "column"]

KINDS = ("text", "digest", "bytes", "count", "age", "time", "flag", "list")
"""text: str · digest: ALGORITHM:HEX · bytes, count: int · age, time: seconds since the epoch or a datetime
(age prints as the span until now) · flag: bool · list: a sequence of str. None is "not known" in all."""

_BY_TYPE = {
    "str": "text",
    "Digest": "digest",
    "int": "count",
    "datetime": "time",
    "bool": "flag",
    "tuple": "list",
}


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


def column(kind: str = "", title: str = "", unit: str = "", room: str = "") -> Mapping[str, tuple[str, ...]]:
    """Return a dataclass field's ``metadata`` for :meth:`Schema.of`. Without ``kind`` the field's type says it."""
    return {"column": (kind, title, unit, room)}


HIDDEN: Mapping[str, tuple[str, ...]] = {"column": ()}
"""The ``metadata`` of a field that is not a column."""


class Schema(NamedTuple):
    """A listing's ``name`` ("blobs", "layers") and its columns."""

    name: str
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, row: type[Any], name: str) -> Schema:
        """Return the schema of a dataclass ``row``: its fields in order, each as its type and metadata say.

        Types are read as they are written (``from __future__ import annotations``): ``str`` is text, ``int`` a count,
        ``bool`` a flag, ``tuple[str, ...]`` a list, ``Digest`` and ``datetime`` a digest and a time; None may be among
        them. Sizes and ages say so by :func:`column`.
        """
        columns = []
        for each in fields(row):
            said = each.metadata.get("column", ("",))
            if said:
                kind = said[0] or _BY_TYPE[str(each.type).partition(" | ")[0].partition("[")[0]]
                columns.append(Column(each.name, kind, *said[1:]))
        return cls(name, tuple(columns))

    def without(self, *names: str) -> Schema:
        """Return the schema less these columns."""
        return self._replace(columns=tuple(each for each in self.columns if each.name not in names))

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
