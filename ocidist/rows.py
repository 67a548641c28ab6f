"""Rows: the one shape of every listing.

A row is a frozen dataclass; a :class:`Schema` says what its fields mean. The CLI prints rows as they come
(``view.table.stream``); :class:`Rows` is them materialised, for a notebook, a DataFrame, a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Iterable, Iterator, TypeVar, overload

from ocidist.view.schema import HIDDEN, KINDS, Column, Schema, column

if TYPE_CHECKING:
    import pandas

__all__ = ["HIDDEN", "KINDS", "Column", "Rows", "Schema", "column"]

T = TypeVar("T")

SHOWN = 60  # rows that a repr shows; the rest is a count
TEXT_WIDTH = 110  # cells of a repr's line


class Rows(Sequence[T], Generic[T]):
    """An immutable sequence of rows. A slice is Rows.

    It shows as a table (HTML in a notebook, text elsewhere) of at most 60 rows with the count of all.
    """

    __slots__ = ("_items", "schema")
    schema: Schema
    _items: tuple[T, ...]

    def __init__(self, schema: Schema, items: Iterable[T] = ()) -> None:
        object.__setattr__(self, "schema", schema)
        object.__setattr__(self, "_items", tuple(items))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Rows are immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("Rows are immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.schema, self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Rows[T]: ...

    @overload
    def __getitem__(self, index: str) -> tuple[Any, ...]: ...

    def __getitem__(self, index: int | slice | str) -> T | Rows[T] | tuple[Any, ...]:
        """A row by its number, Rows by a slice, or one column's values by its name (KeyError lists them)."""
        if isinstance(index, str):
            if index not in self.schema.names:
                raise KeyError(f"no column {index!r}; there are {', '.join(self.schema.names)}")
            at = self.schema.names.index(index)
            return tuple(row[at] for row in map(self.schema.reader(), self._items))
        if isinstance(index, slice):
            return type(self)(self.schema, self._items[index])
        return self._items[index]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.schema.names)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        return self.schema == other.schema and self._items == other._items

    def __hash__(self) -> int:
        return hash((self.schema, self._items))

    # -- elsewhere --

    def to_frame(self) -> pandas.DataFrame:
        """A pandas DataFrame, a column for each of the schema's.

        dtypes by kind: text and digest ``string``; bytes and count ``Int64``; age and time
        ``datetime64[ns, UTC]``; flag ``boolean``; list ``object`` (tuples of str). What is not known is NA or
        NaT. ``frame.attrs["units"]`` has the units. Raises :class:`~ocidist.errors.MissingExtra`.
        """
        try:
            import pandas as pd
        except ImportError:
            from ocidist.errors import MissingExtra

            raise MissingExtra("pandas", "a DataFrame") from None
        read = self.schema.reader()
        values = list(zip(*map(read, self._items), strict=False)) or [()] * len(self.schema.columns)
        frame: pandas.DataFrame = pd.DataFrame(
            {
                column.name: _series(pd, column, cells)
                for column, cells in zip(self.schema.columns, values, strict=False)
            },
            columns=list(self.schema.names),
        )
        units = {c.name: c.unit or ("bytes" if c.kind == "bytes" else "") for c in self.schema.columns}
        frame.attrs["units"] = {name: unit for name, unit in units.items() if unit}
        return frame

    def to_csv(self, *, spreadsheet: bool = False) -> str:
        """CSV as RFC 4180 has it: a header, CRLF, whole bytes, ISO 8601 times, escapes for what doesn't print.

        ``spreadsheet=True`` guards text that a spreadsheet would run as a formula with an apostrophe.
        """
        from ocidist.view.export import write_csv

        out: list[str] = []
        write_csv(self.schema, self._items, out.append, spreadsheet=spreadsheet)
        return "".join(out)

    def to_json(self) -> str:
        """A JSON array of objects: whole bytes, ISO 8601 times in UTC, null for what is not known."""
        from ocidist.view.export import write_json

        out: list[str] = []
        write_json(self.schema, self._items, out.append)
        return "".join(out)

    # -- here --

    def __repr__(self) -> str:
        from ocidist.view.table import render

        text = render(self.schema, self._items[:SHOWN], TEXT_WIDTH)
        total = len(self)
        more = f"… {total - SHOWN:,} more\n" if total > SHOWN else ""
        return f"{text}\n{more}[{self.schema.name}: {total:,} row{'' if total == 1 else 's'}]"

    def _repr_html_(self) -> str:
        from ocidist.view.html import table

        return table(self.schema, self._items[:SHOWN], total=len(self))


def _series(pd: Any, column: Column, cells: Sequence[Any]) -> Any:
    kind = column.kind
    if kind in ("text", "digest"):
        # str(): a Digest is a str subclass, and surrogates (undecodable names) must not reach Arrow.
        return pd.Series([None if v is None else _encodable(str(v)) for v in cells], dtype="string")
    if kind in ("bytes", "count"):
        return pd.Series(pd.array(list(cells), dtype="Int64"))
    if kind == "flag":
        return pd.Series(pd.array([None if v is None else bool(v) for v in cells], dtype="boolean"))
    if kind in ("age", "time"):
        moments = pd.Series(pd.array([_nanoseconds(v) for v in cells], dtype="Int64"))
        return pd.to_datetime(moments, unit="ns", utc=True).astype("datetime64[ns, UTC]")
    return pd.Series([None if v is None else tuple(v) for v in cells], dtype="object")


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _nanoseconds(value: Any) -> int | None:
    """Nanoseconds, to the microsecond that a float has; None outside of what pandas can hold (Go's zero
    time, which many images are dated with)."""
    from ocidist.view.sizes import moment

    epoch = moment(value)
    return None if epoch is None or abs(epoch) > 9.2e9 else round(epoch * 1e6) * 1000
