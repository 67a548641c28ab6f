"""Rows: an immutable sequence that prints, pickles and makes DataFrames."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from ocidist.errors import MissingExtra
from ocidist.rows import HIDDEN, Column, Rows, Schema, column
from ocidist.spec.digest import Digest
from tests.parts.required import require

SCHEMA = Schema(
    "blobs",
    (
        Column("digest", "digest"),
        Column("name"),
        Column("size", "bytes"),
        Column("links", "count"),
        Column("seen", "age"),
        Column("made", "time"),
        Column("whole", "flag"),
        Column("tags", "list"),
    ),
)


@dataclass(frozen=True)
class Blob:
    digest: Digest
    name: str
    size: int | None
    links: int
    seen: float | None
    made: float | None
    whole: bool | None
    tags: tuple[str, ...]


def blob(at: int = 0, name: str = "n") -> Blob:
    return Blob(Digest.of(b"%d" % at), name, at * 1000, at, 1.5e9, None, at % 2 == 0, ("a", "b"))


ROWS = Rows(SCHEMA, [blob(at) for at in range(5)])


@dataclass(frozen=True)
class Made:
    digest: Digest | None
    name: str
    links: int
    when: datetime | None
    whole: bool
    tags: tuple[str, ...]
    size: int | None = field(metadata=column("bytes", "ON DISK", room="spare"))
    seen: float = field(metadata=column("age"))
    took: int = field(metadata=column(unit="milliseconds"))
    target: object = field(default=None, metadata=HIDDEN)


def test_a_schema_is_derived_from_its_dataclass() -> None:
    """Kinds come from the fields' types, the rest from their metadata; hidden fields are no columns."""
    schema = Schema.of(Made, "made")
    assert schema == Schema(
        "made",
        (
            Column("digest", "digest"),
            Column("name"),
            Column("links", "count"),
            Column("when", "time"),
            Column("whole", "flag"),
            Column("tags", "list"),
            Column("size", "bytes", "ON DISK", room="spare"),
            Column("seen", "age"),
            Column("took", "count", unit="milliseconds"),
        ),
    )
    assert schema.without("digest", "size").names == (
        "name",
        "links",
        "when",
        "whole",
        "tags",
        "seen",
        "took",
    )
    assert len(schema.names) == 9


def test_rows_are_an_immutable_sequence() -> None:
    """Indexing gives rows, slicing gives Rows, and nothing can be set."""
    assert len(ROWS) == 5
    assert ROWS[1] == blob(1)
    assert isinstance(ROWS[1:3], Rows)
    assert list(ROWS[1:3]) == [blob(1), blob(2)]
    assert ROWS[::-1][0] == blob(4)
    assert blob(3) in ROWS
    assert Rows(SCHEMA, list(ROWS)) == ROWS
    assert ROWS[:4] != ROWS
    assert hash(ROWS) == hash(Rows(SCHEMA, list(ROWS)))
    with pytest.raises(AttributeError):
        ROWS.schema = SCHEMA
    with pytest.raises(TypeError):
        ROWS[0] = blob()  # type: ignore[index]


def test_a_column_by_its_name() -> None:
    """As of a DataFrame; an unknown name says which there are, and completion offers them."""
    assert ROWS["size"] == (0, 1000, 2000, 3000, 4000)
    assert ROWS[1:3]["digest"] == (blob(1).digest, blob(2).digest)
    with pytest.raises(KeyError, match="digest, name, size"):
        ROWS["sizes"]
    assert ROWS._ipython_key_completions_() == list(SCHEMA.names)


def test_rows_pickle() -> None:
    """A process pool gets equal rows."""
    assert pickle.loads(pickle.dumps(ROWS)) == ROWS


def test_a_frame_has_the_stated_dtypes() -> None:
    """Each kind has its dtype, also for no rows at all; units go along."""
    require("module:pandas")
    expected = [
        "string",
        "string",
        "Int64",
        "Int64",
        "datetime64[ns, UTC]",
        "datetime64[ns, UTC]",
        "boolean",
        "object",
    ]
    for rows in (ROWS, ROWS[:0]):
        frame = rows.to_frame()
        assert [str(dtype) for dtype in frame.dtypes] == expected
        assert list(frame.columns) == list(SCHEMA.names)
        assert len(frame) == len(rows)
        assert frame.attrs["units"] == {"size": "bytes"}
    frame = ROWS.to_frame()
    assert frame["size"].sum() == 10_000
    assert str(frame["seen"][0]) == "2017-07-14 02:40:00+00:00"
    assert frame["made"].isna().all()
    assert frame["tags"][0] == ("a", "b")
    assert ROWS[0].digest == frame["digest"][0]


def test_a_frame_takes_what_is_odd() -> None:
    """A surrogate, a size that isn't known and a time before pandas' calendar are no errors."""
    require("module:pandas")
    odd = Blob(Digest.of(b""), "\udc80", None, 2**63 - 1, None, -62135596800.0, None, ())
    frame = Rows(SCHEMA, [odd]).to_frame()
    assert frame["name"][0] == "\\udc80"
    assert frame["links"][0] == 2**63 - 1
    assert frame.isna().iloc[0].to_dict() == {
        "digest": False, "name": False, "size": True, "links": False, "seen": True, "made": True, "whole": True, "tags": False,
    }  # fmt: skip


def test_a_frame_without_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the pip line."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="pip install pandas"):
        ROWS.to_frame()


def test_json_and_csv_have_every_row() -> None:
    """Both write whole bytes, and csv can guard formulas where that is asked for."""
    assert [row["size"] for row in json.loads(ROWS.to_json())] == [0, 1000, 2000, 3000, 4000]
    assert ROWS.to_csv().count("\r\n") == 6
    formula = Rows(SCHEMA, [blob(name="=1+1"), blob(name="@scope/x")])
    assert ",=1+1," in formula.to_csv()
    assert ",'=1+1," in formula.to_csv(spreadsheet=True)


def test_g68_a_million_rows_show_sixty_and_the_count() -> None:
    """Both reprs are short and say how many there are."""
    many = Rows(SCHEMA, [blob(1)] * 1_000_000)
    text, html = repr(many), many._repr_html_()
    assert text.endswith("… 999,940 more\n[blobs: 1,000,000 rows]")
    assert len(text.splitlines()) == 63
    assert html.count("<tr>") == 62
    assert "999,940 more of 1,000,000 rows" in html
    assert len(many[10:]) == 999_990


def test_g66_html_of_hostile_names_is_inert() -> None:
    """Markup, quotes and control characters in a name are text."""
    html = Rows(SCHEMA, [blob(name='<script>alert("1")</script>\'\x1b\u202e')])._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#x27;\\x1b\\u202e" in html


def test_g67_reprs_of_broken_rows_do_not_raise() -> None:
    """Values of the wrong type show as text."""
    broken = Rows(SCHEMA, [Blob(None, b"\xff", "x", None, "y", object(), "z", 3)])  # type: ignore[arg-type]
    assert "[blobs: 1 row]" in repr(broken)
    assert "<table" in broken._repr_html_()


def test_html_reads_by_screen_reader() -> None:
    """A caption, column and row headers, and the whole digest behind the short one."""
    html = ROWS._repr_html_()
    assert html.count('scope="col"') == len(SCHEMA.columns)
    assert html.count('scope="row"') == len(ROWS)
    assert "blobs: 5 rows</caption>" in html
    assert f'title="{ROWS[0].digest}"' in html


def test_rows_load_nothing_heavy() -> None:
    """Importing rows and printing a table needs neither json, csv nor pandas."""
    code = (
        "import sys; from ocidist.rows import *; from ocidist.view.table import stream\n"
        "stream('table', Schema('x', (Column('a'),)), [('b',)], sys.stdout.write)\n"
        "print(sorted({'json', 'csv', 'html', 'pandas', 'logging', 'datetime', 'unicodedata'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "A\nb\n[]\n"
