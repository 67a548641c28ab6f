"""Charts as inline SVG: no script, the notebook's own colours, and always with a plain table beside them."""

from __future__ import annotations

from typing import Sequence

from ocidist.view.html import ACCENT, escape
from ocidist.view.sizes import human

__all__ = ["size_bars"]

MOST = 40  # bars
ROW, WIDTH = 20, 640  # user units
LABEL, NUMBER = 60, 80


def size_bars(sizes: Sequence[tuple[str, int]], title: str) -> str:
    """Horizontal bars, one for each ``(label, bytes)``, the longest the full width; empty for no sizes.

    Past forty, the largest forty are shown in their order.
    """
    if not sizes:
        return ""
    shown = list(sizes)
    if len(shown) > MOST:
        largest = sorted(range(len(shown)), key=lambda at: (-shown[at][1], at))[:MOST]
        shown = [shown[at] for at in sorted(largest)]
        title = f"{title}, the {MOST} largest of {len(sizes):,}"
    most = max(max(size for _, size in shown), 1)
    room = WIDTH - LABEL - NUMBER
    bars = "".join(
        _bar(at * ROW, label, size, max(room * size / most, 1.0)) for at, (label, size) in enumerate(shown)
    )
    height = len(shown) * ROW
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}" width="100%" '
        f'style="max-width:{WIDTH}px;height:auto" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>{bars}</svg>'
    )


def _bar(top: float, label: str, size: int, length: float) -> str:
    base = top + ROW * 0.7
    return (
        f'<text x="{LABEL - 8}" y="{base:.0f}" text-anchor="end" fill="currentColor">{escape(label)}</text>'
        f'<rect x="{LABEL}" y="{top + 3}" width="{length:.1f}" height="{ROW - 6}" rx="2" '
        f'fill="currentColor" style="fill:{ACCENT}"/>'
        f'<text x="{LABEL + length + 6:.1f}" y="{base:.0f}" fill="currentColor">{human(size)}</text>'
    )
