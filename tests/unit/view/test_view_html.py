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
from ocidist.view.svg import strip

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
        json_tree({HOSTILE: [HOSTILE]}),
        table(SCHEMA, [(HOSTILE, HOSTILE, HOSTILE)], caption=HOSTILE),
        table(SCHEMA, [(HOSTILE, 1, HOSTILE)], caption=HOSTILE, share="size"),
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


def test_a_share_is_a_bar_and_a_percentage() -> None:
    """Each number's part of the sum: bars in proportion, none invisible, and the part in words beside it."""
    shown = table(
        SCHEMA, [("a", 3000, None), ("b", 1000, None), ("c", 1, None), ("d", 0, None)], share="size"
    )
    lengths = [float(found) for found in re.findall(r'<rect [^>]*width="([0-9.]+)"', shown)]
    assert lengths == [90.0, 30.0, 1.0, 1.0]
    assert re.findall(r"</svg> ([^<]*)</td>", shown) == ["75 %", "25 %", "&lt;1 %", "0 %"]
    assert shown.count('<th scope="col"') == 4
    assert '<th scope="col"' in table(SCHEMA, [], share="size")
    unknown = table(SCHEMA, [("a", None, None)], share="size")
    assert "<svg" not in unknown
    assert unknown.count("<td") == 3


def test_a_picture_leaves_no_rubble() -> None:
    """There is no text in an SVG: what drops pictures keeps their text."""
    for picture in (strip([(0.0, 0.5, 1.0)], 100), table(SCHEMA, [("a", 5, None)], share="size")):
        inside = "".join(re.findall(r"<svg.*?</svg>", picture))
        assert inside
        assert re.sub(r"<[^>]*>", "", inside) == ""


def test_only_very_long_words_are_broken() -> None:
    """A media type stays in one piece; a word of hundreds of characters can't widen the page."""
    assert "overflow-wrap" not in table(SCHEMA, [("application/vnd.oci.image.layer.v1.tar+gzip", 1, None)])
    assert "overflow-wrap:anywhere" in table(SCHEMA, [("x" * 200, 1, None)])


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
