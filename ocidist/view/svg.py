"""Pictures as inline SVG: no script, the notebook's own colours, in a table's cell beside the number.

There is no text in them. JupyterLab drops SVG from notebooks that it doesn't trust but leaves the text that was in
it, as a line of rubble; so what a picture says stands in the table around it.
"""

from __future__ import annotations

from typing import Sequence

__all__ = ["strip"]

HEIGHT = 10  # user units, as the widths are
ACCENT = "var(--jp-brand-color1, var(--vscode-charts-blue, currentColor))"

Piece = tuple[float, float, float]
"""Where it starts and how long it is, as parts of the whole (0 to 1), and its opacity."""


def strip(pieces: Sequence[Piece], width: int) -> str:
    """One strip, ``width`` units long, with bars on it; a bar is never too short to be seen."""
    bars = "".join(_bar(start * width, length * width, opacity) for start, length, opacity in pieces)
    return (
        f'<svg aria-hidden="true" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'style="vertical-align:middle" xmlns="http://www.w3.org/2000/svg">{bars}</svg>'
    )


def _bar(left: float, length: float, opacity: float) -> str:
    see_through = "" if opacity == 1.0 else f' fill-opacity="{opacity}"'
    return (
        f'<rect x="{left:.1f}" y="0" width="{max(length, 1.0):.1f}" height="{HEIGHT}" rx="1.5" '
        f'fill="currentColor"{see_through} style="fill:{ACCENT}"/>'
    )
