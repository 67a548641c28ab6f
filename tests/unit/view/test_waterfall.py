"""The waterfall of a trace."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from ocidist.view.waterfall import WIDTH, Span, waterfall

SVG = "{http://www.w3.org/2000/svg}"


def bars(text: str) -> list[tuple[float, float]]:
    """(left, right) of each bar."""
    found = ET.fromstring(text).findall(f".//{SVG}rect")
    return [(float(r.get("x", 0)), float(r.get("x", 0)) + float(r.get("width", 0))) for r in found]


def test_bars_stand_on_one_scale_of_time() -> None:
    """Waiting, then receiving; the second begins where the first ended; all within the picture."""
    text = waterfall([Span("a", 100.0, 1.0, 2.0), Span("b", 102.0, 0.5, 2.0)], "two")
    (a_wait, a_rest, b_wait, b_rest) = bars(text)
    assert a_wait == (0, WIDTH / 4)
    assert a_rest == (WIDTH / 4, WIDTH / 2)
    assert b_wait[0] == a_rest[1]
    assert b_rest[1] == WIDTH
    assert "2,000 ms" in text


def test_it_reads_without_its_pictures() -> None:
    """What drops SVG leaves a table: labels and times, nothing else."""
    text = re.sub(r"<svg.*?</svg>", "", waterfall([Span("a", 0.0, 1.0, 2.0)], "one"))
    words = [word for word in re.split(r"<[^>]*>", text) if word]
    assert words == ["one", "request", "waiting, then receiving", "took", "a", "2,000 ms"]


def test_no_spans_no_picture() -> None:
    """And instant ones are no division by zero."""
    assert waterfall([], "none") == ""
    assert len(bars(waterfall([Span("a", 5.0, 0.0, 0.0)], "one"))) == 2


def test_g68_many_spans_are_cut_with_the_count() -> None:
    """Sixty rows of a thousand."""
    text = waterfall([Span(str(n), n, 0.1, 0.2) for n in range(1000)], "many")
    assert len(bars(text)) == 120
    assert "the first 60 of 1,000" in text


def test_g66_labels_are_inert() -> None:
    """Markup in a label is text; a long one is cut."""
    text = waterfall([Span("<script>alert(1)</script>" + "x" * 100, 0, 0, 1)], '"><b>')
    assert "<script" not in text
    assert "<b>" not in text
    label = re.search(r'<th scope="row"[^>]*>([^<]*)</th>', text)
    assert label is not None
    assert label[1].endswith("…")
