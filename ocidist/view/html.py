"""HTML as strings. Everything that comes in is escaped; every table reads without styles, pictures or colour.

Colours are the notebook's own (``var(--jp-…, var(--vscode-…, inherit))``), so that light and dark themes
both read. JupyterLab drops styles from notebooks that it doesn't trust: nothing may depend on them.
"""

from __future__ import annotations

import html as _html
import time
from typing import Any, Iterable, Mapping, Sequence

from ocidist.view.schema import Column, Schema
from ocidist.view.sizes import count
from ocidist.view.svg import ACCENT, strip
from ocidist.view.table import cell, short_digest
from ocidist.view.text import visible

__all__ = ["BORDER", "CELL", "MUTED", "definitions", "details", "escape", "json_tree", "note", "table"]

TEXT = "var(--jp-ui-font-color1, var(--vscode-foreground, inherit))"
MUTED = "var(--jp-ui-font-color2, var(--vscode-descriptionForeground, inherit))"
BORDER = "var(--jp-border-color2, var(--vscode-panel-border, currentColor))"
ERROR = "var(--jp-error-color1, var(--vscode-errorForeground, inherit))"
MONO = "var(--jp-code-font-family, var(--vscode-editor-font-family, monospace))"

CELL = "padding:0.15em 0.7em;vertical-align:top"
LONGEST = 400  # characters of one cell
WORD = 60  # characters of a word that is not broken
SHARE = 120  # user units of a picture


def escape(text: object) -> str:
    """``text`` for element content or a quoted attribute: markup inert, what doesn't print as escapes."""
    return _html.escape(visible(text), quote=True)


def table(
    schema: Schema,
    rows: Iterable[Any],
    *,
    total: int | None = None,
    caption: str = "",
    now: float | None = None,
    share: str = "",
    share_of: int | None = None,
) -> str:
    """A table of all of ``rows`` with a caption; ``total`` is the count where they are only the first.

    ``share`` names a column of numbers; one more follows it, with each one's part of ``share_of`` (default: their
    sum), in percent and as a bar.
    """
    moment = time.time() if now is None else now
    read, columns = schema.reader(), schema.columns
    values = [read(row) for row in rows]
    sums = {
        at: _sum(line[at] for line in values) if share_of is None else share_of
        for at, c in enumerate(columns)
        if c.name == share
    }
    body = [f"<tr>{_cells(columns, line, moment, sums)}</tr>" for line in values]
    whole = len(body) if total is None else total
    head = "".join(
        f'<th scope="col" style="{CELL};text-align:{"right" if c.right else "left"}">{escape(c.label)}</th>'
        + (f'<th scope="col" style="{CELL};text-align:left">share</th>' if at in sums else "")
        for at, c in enumerate(columns)
    )
    title = caption or f"{schema.name}: {count(whole)} row{'' if whole == 1 else 's'}"
    foot = ""
    if whole > len(body):
        foot = (
            f'<tfoot><tr><td colspan="{max(len(columns) + len(sums), 1)}" style="{CELL};text-align:left;color:{MUTED}">'
            f"… {count(whole - len(body))} more of {count(whole)} rows; .to_frame() has them all</td></tr></tfoot>"
        )
    return (
        f'<table class="ocidist" style="border-collapse:collapse;color:{TEXT}">'
        f'<caption style="text-align:left;color:{MUTED}">{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>{foot}</table>"
    )


def _cells(columns: Sequence[Column], line: Sequence[Any], now: float, sums: Mapping[int, int]) -> str:
    out = []
    for at, (column, value) in enumerate(zip(columns, line, strict=False)):
        out.append(_td(column, value, now, first=not at))
        if at in sums:
            out.append(_share(value, sums[at]))
    return "".join(out)


def _sum(values: Iterable[Any]) -> int:
    return sum(value for value in values if isinstance(value, int) and value > 0)


def _share(value: Any, whole: int) -> str:
    if not isinstance(value, int) or value < 0 or not whole:
        return f'<td style="{CELL}"></td>'
    part = min(value / whole, 1.0)
    percent = f"{100 * part:.0f} %" if part >= 0.01 or not value else "<1 %"
    return (
        f'<td style="{CELL};text-align:left;white-space:nowrap">{strip([(0.0, part, 1.0)], SHARE)} '
        f"{escape(percent)}</td>"
    )


def _td(column: Column, value: Any, now: float, *, first: bool) -> str:
    text = cell(column, value, now)
    title = ""
    if column.kind == "digest" and value is not None:
        title, text = f' title="{escape(text)}"', short_digest(text)
    elif len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    align = "right" if column.right else "left"
    shown = _html.escape(text, quote=True)
    if column.kind == "digest":
        shown = f"<code>{shown}</code>"
    tag, scope = ("th", ' scope="row"') if first else ("td", "")
    weight = ";font-weight:normal" if first else ""
    numbers = column.kind in ("bytes", "count", "age", "time", "digest")
    wrap = ";white-space:nowrap" if numbers else _wrap(text)
    return f'<{tag}{scope}{title} style="{CELL};text-align:{align}{weight}{wrap}">{shown}</{tag}>'


def _wrap(text: str) -> str:
    # Only where it must: a table whose cells may break anywhere breaks every word in its narrow columns.
    return ";overflow-wrap:anywhere" if any(len(word) > WORD for word in text.split(" ")) else ""


def definitions(pairs: Iterable[tuple[str, object]], caption: str, *, strong: bool = False) -> str:
    """Names and values, a line each, as a table with row headers; values that are empty are left out.
    A ``strong`` caption heads more than this table."""
    title = f"<strong>{escape(caption)}</strong>" if strong else escape(caption)
    colour = TEXT if strong else MUTED
    body = "".join(
        f'<tr><th scope="row" style="{CELL};text-align:left;color:{MUTED};font-weight:normal">{escape(name)}</th>'
        f'<td style="{CELL};text-align:left;overflow-wrap:anywhere">{escape(value)}</td></tr>'
        for name, value in pairs
        if value not in (None, "", (), [])
    )
    return (
        f'<table class="ocidist" style="border-collapse:collapse;color:{TEXT}">'
        f'<caption style="text-align:left;color:{colour}">{title}</caption><tbody>{body}</tbody></table>'
    )


def note(text: object, *, error: bool = False) -> str:
    """A banner: one paragraph with a line at its left."""
    colour = ERROR if error else ACCENT
    return (
        f'<p class="ocidist" style="color:{TEXT};border-left:3px solid {colour};padding:0.3em 0.8em">'
        f"{escape(text)}</p>"
    )


def details(summary: str, inside: str, *, open: bool = False) -> str:
    """A part that folds, by mouse and by keyboard. ``inside`` is HTML."""
    return f"<details{' open' if open else ''}><summary>{escape(summary)}</summary>{inside}</details>"


DEEPEST = 12
WIDEST = 200


def json_tree(value: Any, name: str = "", *, depth: int = 0, opened: int = 1) -> str:
    """A JSON value as folding parts, the first ``opened`` levels unfolded; deep and wide ones are cut."""
    label = f"<strong>{escape(name)}</strong>: " if name else ""
    if isinstance(value, (Mapping, list, tuple)):
        pairs: list[tuple[str, Any]]
        if isinstance(value, Mapping):
            pairs, kind = [(str(key), inner) for key, inner in list(value.items())[:WIDEST]], "{}"
        else:
            pairs, kind = [(str(at), inner) for at, inner in enumerate(value[:WIDEST])], "[]"
        size = len(value)
        if not size:
            return f"<div>{label}<code>{kind}</code></div>"
        unit = "key" if kind == "{}" else "item"
        summary = f"{label}<span>{kind[0]} {count(size)} {unit}{'' if size == 1 else 's'} {kind[1]}</span>"
        if depth >= DEEPEST:
            return f"<div>{summary} …</div>"
        inside = "".join(json_tree(inner, key, depth=depth + 1, opened=opened) for key, inner in pairs)
        if size > WIDEST:
            inside += f"<div>… {count(size - WIDEST)} more</div>"
        unfolded = " open" if depth < opened else ""
        return f'<details{unfolded} style="margin-left:1em"><summary>{summary}</summary>{inside}</details>'
    return f'<div style="margin-left:1em">{label}<code>{escape(_scalar(value))}</code></div>'


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value if len(value) <= 2000 else value[:2000] + "…"}"'
    return str(value)
