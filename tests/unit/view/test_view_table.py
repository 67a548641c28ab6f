"""Text tables and the streaming writer."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.view.schema import KINDS, Column, Schema
from ocidist.view.table import FORMATS, cell, render, stream
from ocidist.view.text import width

SCHEMA = Schema(
    "things", (Column("name"), Column("size", "bytes"), Column("seen", "age"), Column("tags", "list"))
)


@dataclass(frozen=True)
class Thing:
    name: str | None
    size: int | None
    seen: float | None
    tags: tuple[str, ...]


THINGS = [Thing("a", 1800, 1000.0, ("x", "y")), Thing("longer", 5, None, ())]


def written(format: str, rows: Any, **options: Any) -> str:
    out: list[str] = []
    stream(format, SCHEMA, rows, out.append, now=1180.0, **options)
    return "".join(out)


def test_a_table_lines_up() -> None:
    """Text at the left, numbers at the right, a dash for what isn't known, no space at line ends."""
    assert written("table", THINGS) == (
        "NAME      SIZE  SEEN       TAGS\na       1.8 kB  3 minutes  x, y\nlonger     5 B  -          -\n"
    )
    assert written("table", [], header=False) == ""
    assert render(SCHEMA, []) == "NAME  SIZE  SEEN  TAGS"


def test_tuples_are_rows_too() -> None:
    """A tuple of values prints as the object with those attributes does."""
    assert written("table", [("a", 1800, 1000.0, ("x", "y"))]) == written("table", THINGS[:1])


def test_json_has_whole_bytes_and_utc_times() -> None:
    """One array; numbers as they are, times as ISO 8601, null for what isn't known."""
    assert json.loads(written("json", THINGS)) == [
        {"name": "a", "size": 1800, "seen": "1970-01-01T00:16:40Z", "tags": ["x", "y"]},
        {"name": "longer", "size": 5, "seen": None, "tags": []},
    ]
    assert json.loads(written("json", [])) == []


def test_jsonl_is_an_object_a_line() -> None:
    """Each line parses alone and the two JSON forms agree."""
    lines = written("jsonl", THINGS).splitlines()
    assert [json.loads(line) for line in lines] == json.loads(written("json", THINGS))


def test_csv_reads_back() -> None:
    """A header, CRLF, quotes where needed."""
    text = written("csv", [Thing('q",\r', 7, 0.0, ("x", "y")), Thing(None, None, None, ())])
    assert text.count("\r\n") == 3
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["name", "size", "seen", "tags"],
        ['q",\\r', "7", "1970-01-01T00:00:00Z", "x y"],
        ["", "", "", ""],
    ]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d", "\t=", "\r="])
def test_i78_csv_has_no_text_that_a_spreadsheet_runs(sign: str) -> None:
    """An apostrophe stands before it; numbers, and the json of the same rows, are as they are."""
    name = f"{sign}cmd|' /C calc'!A0"
    text = written("csv", [Thing(name, -7, None, (name,))])
    assert list(csv.reader(io.StringIO(text, newline="")))[1][1] == "-7"
    for field in (field for row in csv.reader(io.StringIO(text, newline="")) for field in row):
        assert field == "-7" or field[:1] not in tuple("=+-@\uff1d\t\r")
    assert json.loads(written("jsonl", [Thing(name, 7, None, ())]))["name"] == name


@pytest.mark.parametrize("format", FORMATS)
def test_g67_no_format_lets_control_characters_through(format: str) -> None:
    """A name that is an escape sequence reaches the terminal as text in every format."""
    text = written(format, [Thing("\x1b[2J\u202e\x00\udc80\n", 1, 0.0, ("\x1b]0;x\x07",))])
    assert all(char.isprintable() or char in "\r\n" for char in text)
    assert len(text.splitlines()) == {"table": 2, "json": 3, "jsonl": 1, "csv": 2}[format]
    text.encode("utf-8")


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_rows_are_written_as_they_come(format: str) -> None:
    """The first rows are out before the last is made."""
    out: list[str] = []

    def source() -> Iterator[Thing]:
        yield THINGS[0]
        assert "1800" in "".join(out)
        yield THINGS[1]

    stream(format, SCHEMA, source(), out.append)


def test_a_long_table_streams_after_its_first_rows() -> None:
    """A table buffers a bounded number of rows, and goes on with the widths they had."""
    out: list[str] = []
    before: list[int] = []

    def source() -> Iterator[tuple[Any, ...]]:
        for at in range(2000):
            before.append(len(out))
            yield (f"n{at % 100}", 7, None, ())
        yield ("x" * 100, 1, None, ())

    stream("table", SCHEMA, source(), out.append)
    assert before[400] == 0
    assert before[1999] >= 1400
    assert len(out) == 2002
    assert out[1].index("-") == out[1999].index("-")
    assert out[-1].startswith("x" * 100 + "  ")


def test_a_width_shortens_digests_then_cuts_the_widest() -> None:
    """What fits stays whole; a name loses its middle."""
    schema = Schema("blobs", (Column("digest", "digest"), Column("name")))
    text = render(schema, [("sha256:" + "ab" * 32, "n" * 200)], 60)
    assert text.splitlines()[1].startswith("sha256:abababababab  nnn")
    assert all(width(line) <= 60 for line in text.splitlines())
    assert "sha256:" + "ab" * 32 in render(schema, [("sha256:" + "ab" * 32, "n" * 200)])


VALUES = st.one_of(
    st.none(),
    st.text(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(st.text()),
    st.binary(),
    st.just(object()),
)


@given(st.sampled_from(KINDS), VALUES)
def test_g67_a_cell_takes_any_value(kind: str, value: Any) -> None:
    """Whatever stands in a field, its cell is printable and not empty."""
    text = cell(Column("x", kind), value, 0.0)
    assert text
    assert text.isprintable()


@given(
    st.lists(st.tuples(st.text(), st.integers(0, 2**63), st.floats(0, 1e9), st.lists(st.text())), max_size=5),
    st.integers(50, 120),
)
def test_lines_of_a_rendered_table_fit(rows: list[tuple[Any, ...]], cells: int) -> None:
    """No line is wider than asked for, once there is room for each column's least."""
    assert all(width(line) <= cells for line in render(SCHEMA, rows, cells, now=0.0).splitlines())


def test_unknown_names_are_refused() -> None:
    """A format or a kind that isn't one says which there are."""
    with pytest.raises(ValueError, match="jsonl"):
        stream("xml", SCHEMA, [], print)
    with pytest.raises(ValueError, match="digest"):
        Column("x", "colour")


@pytest.mark.parametrize("cells", [8, 20, 40])
def test_numbers_keep_their_units_however_little_room_there_is(cells: int) -> None:
    """ "18.5 …" could be bytes or gigabytes: a line that is too long says more."""
    schema = Schema("blobs", (Column("name", room="whole"), Column("size", "bytes"), Column("age", "age")))
    row = ("registry.example/some/name:1.0", 18_500, 0.0)
    assert render(schema, [row], cells, now=180.0).splitlines()[1].split() == [
        row[0],
        "18.5",
        "kB",
        "3",
        "minutes",
    ]


# -- what goes first where there is too little room --

NAMES = Schema(
    "names",
    (Column("ref", room="whole"), Column("type", room="spare"), Column("digest", "digest"), Column("note")),
)


@pytest.mark.parametrize("cells", range(10, 130, 7))
def test_spare_columns_go_first_and_whole_ones_are_never_cut(cells: int) -> None:
    """With room all columns are there; then the spare one is gone, then others are cut; the name stays."""
    digest = f"sha256:{'ab' * 32}"
    row = ("registry.example/some/name:1.0", "application/x-type", digest, "some words of a note")
    head, line = render(NAMES, [row], cells).splitlines()
    assert line.startswith(row[0])
    roomy = len(row[0]) + len(row[1]) + 19 + len(row[3]) + 6
    assert ("TYPE" in head.split()) == (cells >= roomy)
    if cells >= roomy - len(row[1]) - 2:
        assert line.split()[-5:] == row[3].split()
        assert max(len(head), len(line)) <= cells
    assert head.split()[0] == "REF"


def test_only_digests_are_shortened_as_such() -> None:
    """A path or a name in a column of digests stays."""
    schema = Schema("keys", (Column("key", "digest", room="whole"),))
    for key in ("/mnt/of:a-long-directory-name", "registry.example:5000/some/name:1.0"):
        assert render(schema, [(key,)], 40).splitlines()[1] == key
    assert render(schema, [(f"sha512:{'0' * 128}",)], 40).splitlines()[1] == f"sha512:{'0' * 12}"


def test_a_column_says_how_much_room_it_needs() -> None:
    """By name, and no other."""
    with pytest.raises(ValueError, match="room"):
        Column("a", room="much")
