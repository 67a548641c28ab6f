"""HTML as strings. Everything that comes in is escaped; every table reads without styles, pictures or colour.

Colours are the notebook's own (``var(--jp-…, var(--vscode-…, inherit))``), so that light and dark themes
both read. JupyterLab drops styles from notebooks that it doesn't trust: nothing may depend on them.
"""

from __future__ import annotations

import html as _html
import time
from typing import Any, Iterable, Mapping

from ocidist.view.schema import Column, Schema
from ocidist.view.sizes import count
from ocidist.view.table import cell, short_digest
from ocidist.view.text import visible

__all__ = ["BORDER", "MUTED", "definitions", "details", "escape", "json_tree", "note", "table"]

TEXT = "var(--jp-ui-font-color1, var(--vscode-foreground, inherit))"
MUTED = "var(--jp-ui-font-color2, var(--vscode-descriptionForeground, inherit))"
BORDER = "var(--jp-border-color2, var(--vscode-panel-border, currentColor))"
ACCENT = "var(--jp-brand-color1, var(--vscode-charts-blue, currentColor))"
ERROR = "var(--jp-error-color1, var(--vscode-errorForeground, inherit))"
MONO = "var(--jp-code-font-family, var(--vscode-editor-font-family, monospace))"

_CELL = "padding:0.15em 0.7em;vertical-align:top"
LONGEST = 400  # characters of one cell


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
) -> str:
    """A table of all of ``rows`` with a caption; ``total`` is the count where they are only the first."""
    moment = time.time() if now is None else now
    read, columns = schema.reader(), schema.columns
    body = [
        "<tr>"
        + "".join(
            _td(c, v, moment, first=not at) for at, (c, v) in enumerate(zip(columns, read(row), strict=False))
        )
        + "</tr>"
        for row in rows
    ]
    whole = len(body) if total is None else total
    head = "".join(
        f'<th scope="col" style="{_CELL};text-align:{"right" if c.right else "left"}">{escape(c.label)}</th>'
        for c in columns
    )
    title = caption or f"{schema.name}: {count(whole)} row{'' if whole == 1 else 's'}"
    foot = ""
    if whole > len(body):
        foot = (
            f'<tfoot><tr><td colspan="{max(len(columns), 1)}" style="{_CELL};text-align:left;color:{MUTED}">'
            f"… {count(whole - len(body))} more of {count(whole)} rows; .to_frame() has them all</td></tr></tfoot>"
        )
    return (
        f'<table class="ocidist" style="border-collapse:collapse;color:{TEXT}">'
        f'<caption style="text-align:left;color:{MUTED}">{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>{foot}</table>"
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
    wrap = ";white-space:nowrap" if numbers else ";overflow-wrap:anywhere"
    return f'<{tag}{scope}{title} style="{_CELL};text-align:{align}{weight}{wrap}">{shown}</{tag}>'


def definitions(pairs: Iterable[tuple[str, object]], caption: str, *, strong: bool = False) -> str:
    """Names and values, a line each, as a table with row headers; values that are empty are left out.
    A ``strong`` caption heads more than this table."""
    title = f"<strong>{escape(caption)}</strong>" if strong else escape(caption)
    colour = TEXT if strong else MUTED
    body = "".join(
        f'<tr><th scope="row" style="{_CELL};text-align:left;color:{MUTED};font-weight:normal">{escape(name)}</th>'
        f'<td style="{_CELL};text-align:left;overflow-wrap:anywhere">{escape(value)}</td></tr>'
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
