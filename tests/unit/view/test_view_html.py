"""HTML and SVG as strings."""

from __future__ import annotations

import html.parser
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ocidist.progress import Advanced, Failed, Finished, Named, ProgressState, Queued
from ocidist.rows import Column, Schema
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.mediatype import OCI_LAYER_GZIP
from ocidist.view.html import definitions, details, escape, json_tree, note, table
from ocidist.view.progress_html import progress_html
from ocidist.view.svg import size_bars

HOSTILE = "</table><script>alert(1)</script><img src=x onerror=alert(1)>\"'\x1b[31m\u202e\x00\udc80"
ELEMENTS = frozenset(
    [
        "table",
        "caption",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "code",
        "details",
        "summary",
        "div",
        "span",
        "strong",
        "p",
        "progress",
        "svg",
        "title",
        "text",
        "rect",
    ]
)


class Strict(html.parser.HTMLParser):
    """A document whose elements must balance, be known ones, and carry neither handlers nor URLs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        assert all(char.isprintable() for char in text)
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def _look(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS
        assert not any(name.startswith("on") or name in ("href", "src", "action") for name, _ in attrs)
        self.count[tag] = self.count.get(tag, 0) + 1


SCHEMA = Schema("things", (Column("name"), Column("size", "bytes"), Column("digest", "digest")))


@given(
    st.lists(st.tuples(st.text(st.characters()), st.none() | st.integers(), st.text()), max_size=4), st.text()
)
def test_g66_a_table_of_anything_is_inert(rows: list[tuple[Any, ...]], caption: str) -> None:
    """Cells and captions are text whatever is in them; each column and row has its header."""
    found = Strict(table(SCHEMA, rows, caption=caption or "x", now=0.0))
    assert found.count["caption"] == 1
    assert found.count["th"] == 3 + len(rows)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()), lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=20))  # fmt: skip
def test_g66_json_of_anything_is_inert(value: Any) -> None:
    """Any JSON value folds, keys and strings being text."""
    Strict(json_tree(value, "name"))


def test_g66_every_piece_escapes() -> None:
    """Markup, quotes, controls and surrogates are inert in text, in attributes and in SVG."""
    for shown in (
        f"<p>{escape(HOSTILE)}</p>",
        note(HOSTILE),
        details(HOSTILE, ""),
        definitions([(HOSTILE, HOSTILE)], HOSTILE),
        definitions([(HOSTILE, HOSTILE)], HOSTILE, strong=True),
        size_bars([(HOSTILE, 1)], HOSTILE),
        json_tree({HOSTILE: [HOSTILE]}),
        table(SCHEMA, [(HOSTILE, HOSTILE, HOSTILE)], caption=HOSTILE),
    ):
        words = "".join(Strict(shown).words)
        assert "<script>alert(1)</script>" in words
        assert "\\x1b[31m\\u202e\\x00\\udc80" in words


def test_json_is_cut_where_it_is_deep_or_wide() -> None:
    """A document of a hundred thousand keys, or a hundred levels, makes a page that a browser takes."""
    deep: Any = "end"
    for _ in range(100):
        deep = [deep]
    assert "end" not in json_tree(deep)
    wide = json_tree({str(at): at for at in range(100_000)})
    assert "99,800 more" in wide
    assert len(wide) < 50_000
    assert "2,000" not in json_tree("x" * 5000)
    assert len(json_tree("x" * 5000)) < 2200


def test_only_the_first_level_is_unfolded() -> None:
    """What is deeper takes a click or a key."""
    shown = json_tree({"a": {"b": 1}})
    assert shown.count("<details open") == 1
    assert shown.count("<details") == 2


def test_long_cells_are_cut() -> None:
    """One name can't fill the page."""
    assert len(table(SCHEMA, [("n" * 100_000, 1, None)])) < 2500


def test_a_chart_is_as_long_as_its_sizes() -> None:
    """The longest bar takes the room, others their share, none is invisible; many are cut to the largest."""
    shown = size_bars([("a", 1000), ("b", 500), ("c", 0)], "sizes")
    lengths = [float(found) for found in re.findall(r'<rect [^>]*width="([0-9.]+)"', shown)]
    assert lengths == [500.0, 250.0, 1.0]
    assert "1.0 kB" in shown
    assert size_bars([], "sizes") == ""
    many = size_bars([(f"layer{at}", at) for at in range(100)], "sizes")
    assert many.count("<rect") == 40
    assert "sizes, the 40 largest of 100" in many
    assert "layer99" in many
    assert "layer59<" not in many


def test_progress_in_html() -> None:
    """While it runs what moves has a progress element with a label and numbers; at the end words stay."""
    layer = Descriptor(OCI_LAYER_GZIP, Digest.of(b"a"), 1_000_000)
    other = Descriptor(OCI_LAYER_GZIP, Digest.of(b"b"), 2_000_000)
    state = ProgressState()
    for event in (
        Named(HOSTILE, layer),
        Queued(layer),
        Queued(other),
        Advanced(layer.digest, "fetch", 250_000),
    ):
        state = state.apply(event)
    running = progress_html(state, 1.0, HOSTILE)
    assert Strict(running).count["progress"] == 1
    assert f'aria-label="layer-sha256:{layer.digest.short}" value="250000" max="1000000"' in running
    assert ">250 kB of 1.0 MB</td>" in running
    state = state.apply(Finished(layer.digest, "copied")).apply(Failed(other.digest, HOSTILE))
    ended = Strict(progress_html(state, 1.0, HOSTILE, f"failed: {HOSTILE}"))
    assert "progress" not in ended.count
    words = " ".join(ended.words)
    assert "fetched" in words
    assert words.count("failed: </table>") == 2
