"""A transfer as HTML: what a notebook shows without widgets, and what stays in a saved one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocidist.view.html import ERROR, MUTED, TEXT, escape
from ocidist.view.progress import ENDED, GOOD, MOVING, choose, label, status, summary
from ocidist.view.sizes import human

if TYPE_CHECKING:
    from ocidist.progress import ProgressRow, ProgressState

__all__ = ["progress_html", "total"]

SHOWN = 40  # rows
_CELL = "padding:0.1em 0.7em;text-align:left"
_NUMBER = "padding:0.1em 0.7em;text-align:right"


def progress_html(state: ProgressState, elapsed: float, title: str, outcome: str = "") -> str:
    """A table with a ``<progress>`` a row, each with its numbers as text beside it, and the sum.

    ``outcome`` is a sentence under it ("interrupted; …"); empty while it runs. Once nothing moves the
    elements are gone and the words stay.
    """
    rows, running = tuple(state.rows.values()), not outcome
    shown, left = choose(rows, SHOWN)
    columns = ("content", "status", "progress", "bytes") if running else ("content", "status", "bytes")
    head = "".join(
        f'<th scope="col" style="{_NUMBER if name == "bytes" else _CELL}">{name}</th>' for name in columns
    )
    whole = f'colspan="{len(columns)}" style="{_CELL}'
    body = (
        _line(escape(state.reference), status(state), "" if running else None, "") if state.reference else ""
    )
    body += "".join(_row(row, running) for row in shown)
    if left:
        body += f'<tr><td {whole};color:{MUTED}">+ {len(left):,} more</td></tr>'
    foot = f'<tr><td {whole}">{total(state, elapsed)}</td></tr>'
    if outcome:
        foot += f'<tr><td {whole};overflow-wrap:anywhere"><strong>{escape(outcome)}</strong></td></tr>'
    return (
        f'<table class="ocidist" style="border-collapse:collapse;color:{TEXT}">'
        f'<caption style="text-align:left;color:{MUTED}">{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
    )


def total(state: ProgressState, elapsed: float) -> str:
    """The sum, as HTML: what the text sets apart by two spaces, which HTML would make one, has a dot between."""
    return escape(summary(state, elapsed).replace("  ", " · "))


def _row(row: ProgressRow, running: bool) -> str:
    word = row.status if not row.note else f"{row.status}: {row.note}"
    if row.whole:
        numbers = human(row.size)
    else:
        numbers = f"{human(row.done)} of {human(row.size)}"
    bar = "" if running else None
    if running and (row.status in MOVING or row.status in GOOD):
        done = row.size if row.settled else min(row.done, row.size)
        bar = (
            f'<progress aria-label="{escape(label(row))}" value="{max(done, 0)}" max="{max(row.size, 1)}">'
            f"{numbers}</progress>"
        )
    return _line(f"<code>{escape(label(row))}</code>", word, bar, numbers, bad=row.status in ENDED)


def _line(name: str, word: str, bar: str | None, numbers: str, *, bad: bool = False) -> str:
    colour = f";color:{ERROR}" if bad else ""
    cell = "" if bar is None else f'<td style="{_CELL}">{bar}</td>'
    return (
        f'<tr><th scope="row" style="{_CELL};font-weight:normal">{name}</th>'
        f'<td style="{_CELL}{colour}">{escape(word)}</td>{cell}'
        f'<td style="{_NUMBER};white-space:nowrap">{numbers}</td></tr>'
    )
