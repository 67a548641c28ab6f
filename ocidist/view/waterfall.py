"""A waterfall: what happened when, as inline SVG. Pure strings; a plain table belongs beneath it."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from ocidist.view.html import ACCENT, escape

__all__ = ["Span", "waterfall"]

MOST = 60  # rows
ROW, WIDTH = 18, 760  # user units
LABEL, NUMBER = 300, 70
LONGEST = 46  # characters of a label


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
    scale = (WIDTH - LABEL - NUMBER) / whole
    rows = "".join(_row(at * ROW, span, begin, scale) for at, span in enumerate(shown))
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {len(shown) * ROW}" width="100%" '
        f'style="max-width:{WIDTH}px;height:auto" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="sans-serif" font-size="11"><title>{escape(title)}</title>{rows}</svg>'
    )


def _row(top: float, span: Span, begin: float, scale: float) -> str:
    base = top + ROW * 0.7
    left = LABEL + (span.start - begin) * scale
    waited = min(max(span.waited, 0.0), span.seconds) * scale
    rest = max(span.seconds * scale - waited, 1.0)
    label = span.label if len(span.label) <= LONGEST else f"{span.label[: LONGEST - 1]}…"
    return (
        f'<text x="{LABEL - 8}" y="{base:.0f}" text-anchor="end" fill="currentColor">{escape(label)}</text>'
        + _bar(left, top, waited, 0.4)
        + _bar(left + waited, top, rest, 1.0)
        + f'<text x="{left + waited + rest + 5:.1f}" y="{base:.0f}" fill="currentColor">'
        f"{_milliseconds(span.seconds)}</text>"
    )


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def _bar(left: float, top: float, length: float, opacity: float) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top + 3}" width="{length:.1f}" height="{ROW - 6}" fill="currentColor" '
        f'fill-opacity="{opacity}" style="fill:{ACCENT}"/>'
    )
