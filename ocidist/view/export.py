"""Listings for other programs: json, jsonl and csv, each written as the rows come."""

from __future__ import annotations

import csv
import json
from functools import partial
from typing import Any, Callable, Iterable, Mapping

from ocidist.view import sizes
from ocidist.view.schema import Column, Schema
from ocidist.view.text import visible

__all__ = ["WRITERS", "plain", "write_csv", "write_json", "write_jsonl"]

Write = Callable[[str], object]


def plain(column: Column, value: Any) -> Any:
    """``value`` as JSON has it: whole bytes, ISO 8601 text for times, lists, true and false, null."""
    if value is None:
        return None
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    kind = column.kind
    if kind in ("age", "time") and (when := sizes.moment(value)) is not None:
        return sizes.utc(when) or None
    if kind in ("bytes", "count") and isinstance(value, (int, float)):
        return int(value)
    if kind == "flag":
        return bool(value)
    if kind == "list" and isinstance(value, (list, tuple, set, frozenset)):
        return [str(part) for part in value]
    return str(value)


def _objects(schema: Schema, rows: Iterable[Any]) -> Iterable[dict[str, Any]]:
    read, columns = schema.reader(), schema.columns
    for row in rows:
        yield {column.name: plain(column, value) for column, value in zip(columns, read(row), strict=False)}


def write_json(schema: Schema, rows: Iterable[Any], write: Write) -> None:
    """One array, an object a line; ASCII, so no terminal obeys a name that is in it."""
    lead = "[\n  "
    for found in _objects(schema, rows):
        write(lead + json.dumps(found))
        lead = ",\n  "
    write("[]\n" if lead.startswith("[") else "\n]\n")


def write_jsonl(schema: Schema, rows: Iterable[Any], write: Write) -> None:
    """An object a line (https://jsonlines.org); ASCII."""
    for found in _objects(schema, rows):
        write(json.dumps(found) + "\n")


class _Sink:
    def __init__(self, write: Write) -> None:
        self.write = write


# OWASP, "CSV Injection"; tab and carriage return, its others, are escapes by then.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(schema: Schema, rows: Iterable[Any], write: Write, *, spreadsheet: bool = False) -> None:
    """RFC 4180 with a header line and CRLF; lists are joined with spaces, None is empty.

    Characters that don't print are escapes, as in tables. ``spreadsheet=True`` puts an apostrophe before
    text that a spreadsheet would run as a formula, as ``--format csv`` does; it isn't the default because it
    changes names such as ``@scope/package``.
    """
    out = csv.writer(_Sink(write), lineterminator="\r\n")
    out.writerow(schema.names)
    for found in _objects(schema, rows):
        out.writerow([_field(value, spreadsheet) for value in found.values()])


def _field(value: Any, spreadsheet: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = visible(" ".join(value) if isinstance(value, list) else value)
    return f"'{text}" if spreadsheet and text.startswith(_FORMULA) else text


WRITERS: Mapping[str, Callable[[Schema, Iterable[Any], Write], None]] = {
    "json": write_json,
    "jsonl": write_jsonl,
    "csv": partial(write_csv, spreadsheet=True),
}
"""The command line's: csv is guarded there."""
