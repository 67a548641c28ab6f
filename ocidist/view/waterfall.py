"""A waterfall: what happened when, as a table with a strip of inline SVG in each row. Pure strings."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from ocidist.view.html import CELL, MUTED, TEXT, escape
from ocidist.view.svg import strip

__all__ = ["Span", "waterfall"]

MOST = 60  # rows
WIDTH = 400  # user units
LONGEST = 60  # characters of a label


class Span(NamedTuple):
    """One row. ``start`` is in seconds from any moment; ``waited`` seconds until an answer, of ``seconds``."""

    label: str
    start: float
    waited: float
    seconds: float


def waterfall(spans: Sequence[Span], title: str) -> str:
    """A row for each span, on one scale of time: waiting light, receiving full; empty for no spans.

    Past sixty, the first sixty are shown.
    """
    if not spans:
        return ""
    shown = spans[:MOST]
    if len(spans) > MOST:
        title = f"{title}, the first {MOST} of {len(spans):,}"
    begin = min(span.start for span in shown)
    whole = max(max(span.start + span.seconds for span in shown) - begin, 1e-6)
    head = "".join(
        f'<th scope="col" style="{CELL};text-align:{align}">{name}</th>'
        for name, align in (("request", "left"), ("waiting, then receiving", "left"), ("took", "right"))
    )
    return (
        f'<table class="ocidist" style="border-collapse:collapse;color:{TEXT}">'
        f'<caption style="text-align:left;color:{MUTED}">{escape(title)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(_row(span, begin, whole) for span in shown)}</tbody></table>"
    )


def _row(span: Span, begin: float, whole: float) -> str:
    start = (span.start - begin) / whole
    waited = min(max(span.waited, 0.0), span.seconds) / whole
    picture = strip([(start, waited, 0.4), (start + waited, span.seconds / whole - waited, 1.0)], WIDTH)
    label = span.label if len(span.label) <= LONGEST else f"{span.label[: LONGEST - 1]}…"
    return (
        f'<tr><th scope="row" style="{CELL};text-align:left;font-weight:normal;white-space:nowrap">{escape(label)}</th>'
        f'<td style="{CELL};text-align:left;min-width:{WIDTH}px">{picture}</td>'
        f'<td style="{CELL};text-align:right;white-space:nowrap">{span.seconds * 1000:,.0f} ms</td></tr>'
    )
