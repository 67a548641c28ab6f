"""Text tables, and the writer that streams a listing of any length as table, json, jsonl or csv."""

from __future__ import annotations

import time
from itertools import chain, islice
from typing import Any, Callable, Collection, Iterable, Iterator, Sequence

from ocidist.spec.digest import DIGITS
from ocidist.view import sizes
from ocidist.view.schema import Column, Schema
from ocidist.view.text import clip, middle, pad, visible, width

__all__ = ["FORMATS", "cell", "render", "stream"]

FORMATS = ("table", "json", "jsonl", "csv")
BUFFERED = 500  # rows that a streamed table looks at before it settles its widths
GAP = "  "
_WHOLE = ("bytes", "count", "age", "time")  # a part of them says something else
NARROW = 6  # cells under which no column is cut


def cell(column: Column, value: Any, now: float) -> str:
    """One value as a table shows it: ``1.8 kB``, ``3 minutes``, escapes for what doesn't print; ``-`` for
    None. Never raises: a value that isn't of the column's kind is shown as text."""
    if value is None:
        return "-"
    kind = column.kind
    if kind in ("age", "time") and (when := sizes.moment(value)) is not None:
        return (sizes.age(now - when) if kind == "age" else sizes.utc(when)) or "-"
    if isinstance(value, (int, float)) and value == value and abs(value) != float("inf"):
        if kind == "flag":
            return "yes" if value else "no"
        if kind == "bytes":
            return sizes.human(value)
        if kind == "count":
            return sizes.count(int(value))
    if kind == "list" and isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(visible(part) for part in value) or "-"
    return visible(value) or "-"


def render(
    schema: Schema,
    rows: Iterable[Any],
    width: int | None = None,
    *,
    now: float | None = None,
    header: bool = True,
) -> str:
    """The table as text without a last newline.

    With ``width`` (cells) digests are shortened to 12 hexadecimal digits, then spare columns left out, then the widest
    of those that need not be whole cut until each line fits, as far as it can; without it nothing is cut.
    """
    out: list[str] = []
    _table(schema, rows, out.append, time.time() if now is None else now, width=width, header=header)
    return "".join(out)[:-1] if out else ""


def stream(
    format: str,
    schema: Schema,
    rows: Iterable[Any],
    write: Callable[[str], object],
    *,
    now: float | None = None,
    header: bool = True,
) -> None:
    """Write rows (objects with the columns' names, or tuples) as they come, in one of :data:`FORMATS`.

    A table settles its columns' widths by the header and its first 500 rows; a later, wider cell pushes
    its own line. json is one array, jsonl an object a line, csv as RFC 4180 has it, with an apostrophe before
    what a spreadsheet would run; sizes are whole bytes there and times ISO 8601.
    """
    if format == "table":
        _table(schema, rows, write, time.time() if now is None else now, header=header)
        return
    if format not in FORMATS:
        raise ValueError(f"no format {format!r}; they are {', '.join(FORMATS)}")
    from ocidist.view import export

    export.WRITERS[format](schema, rows, write)


def _table(
    schema: Schema,
    rows: Iterable[Any],
    write: Callable[[str], object],
    now: float,
    *,
    width: int | None = None,
    header: bool = True,
) -> None:
    lines = _cells(schema, rows, now)
    first = list(islice(lines, BUFFERED if width is None else None))
    if width is not None:
        first = [_shorten(schema, line) for line in first]
    head = [[column.heading for column in schema.columns]] if header else []
    widths = _widths(schema, chain(head, first))
    if width is not None:
        kept = _kept(schema, widths, width)
        head, first = ([[line[at] for at in kept] for line in lines] for lines in (head, first))
        schema = Schema(schema.name, tuple(schema.columns[at] for at in kept))
        whole = {at for at, c in enumerate(schema.columns) if c.room == "whole" or c.kind in _WHOLE}
        digests = {at for at, column in enumerate(schema.columns) if column.kind == "digest"}
        widths = fit([widths[at] for at in kept], width, len(GAP), whole | digests)
        widths = fit(widths, width, len(GAP), whole)
    for line in chain(head, first, lines):
        write(_line(schema, line, widths, cut=width is not None) + "\n")


def _cells(schema: Schema, rows: Iterable[Any], now: float) -> Iterator[list[str]]:
    read, columns = schema.reader(), schema.columns
    for row in rows:
        yield [cell(column, value, now) for column, value in zip(columns, read(row), strict=False)]


def _shorten(schema: Schema, line: Sequence[str]) -> list[str]:
    return [
        short_digest(text) if c.kind == "digest" else text
        for c, text in zip(schema.columns, line, strict=False)
    ]


def short_digest(text: str) -> str:
    """``sha256:abcdef123456`` of a whole digest; other text as it is."""
    algorithm, _, digits = text.partition(":")
    whole = algorithm.isalnum() and len(digits) >= 32 and DIGITS.issuperset(digits)
    return f"{algorithm}:{digits[:12]}" if whole else text


def _kept(schema: Schema, widths: Sequence[int], room: int) -> list[int]:
    """The columns that stay: all, or without spare ones, the first of them first, as far as there is too little room."""
    kept = list(range(len(widths)))
    for at, column in enumerate(schema.columns):
        if column.room == "spare" and sum(widths[i] + len(GAP) for i in kept) - len(GAP) > room:
            kept.remove(at)
    return kept


def _widths(schema: Schema, lines: Iterable[Sequence[str]]) -> list[int]:
    widths = [0] * len(schema.columns)
    for line in lines:
        for at, text in enumerate(line):
            if (cells := width(text)) > widths[at]:
                widths[at] = cells
    return widths


def fit(widths: Sequence[int], room: int, gap: int, whole: Collection[int] = ()) -> list[int]:
    """``widths`` made narrower, the widest first, until they and their gaps take ``room`` cells or each
    that was cut is down to a few. Those at ``whole`` stay."""
    fitted = list(widths)
    over = sum(fitted) + gap * (len(fitted) - 1) - room
    while over > 0:
        free = [i for i in range(len(fitted)) if i not in whole]
        widest = max((fitted[i] for i in free), default=0)
        if widest <= NARROW:
            break
        at = [i for i in free if fitted[i] == widest]
        floor = max([fitted[i] for i in free if fitted[i] < widest] + [NARROW])
        step = max(1, min(widest - floor, -(-over // len(at))))
        for i in at:
            take = min(step, over)
            fitted[i] -= take
            over -= take
    return fitted


def _line(schema: Schema, line: Sequence[str], widths: Sequence[int], *, cut: bool) -> str:
    parts = []
    for column, text, cells in zip(schema.columns, line, widths, strict=False):
        if cut:
            text = clip(text, cells) if column.kind in ("list", "bytes", "count") else middle(text, cells)
        parts.append(pad(text, cells, right=column.right))
    return GAP.join(parts).rstrip(" ")
