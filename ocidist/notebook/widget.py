"""A transfer as Jupyter widgets: a progress bar for each descriptor while it runs, gone when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocidist.view.html import escape
from ocidist.view.progress import choose, label, part, status
from ocidist.view.progress_html import total
from ocidist.view.sizes import human

if TYPE_CHECKING:
    from ocidist.progress import ProgressRow, ProgressState

__all__ = ["VIEW", "ProgressWidget"]

VIEW = "application/vnd.jupyter.widget-view+json"
SHOWN = 20  # bars
STEPS = 1000
HEIGHT = "22px"
_STYLES = {"failed": "danger", "stopped": "warning", "retrying": "warning", "waiting": "warning"}


class ProgressWidget:
    """Widgets of one transfer. Raises ImportError where ipywidgets isn't installed."""

    def __init__(self, title: str) -> None:
        import ipywidgets

        self._kit: Any = ipywidgets
        self._title = title
        self._head = ipywidgets.HTML()
        self._foot = ipywidgets.HTML()
        self._rows: dict[str, tuple[Any, Any, Any]] = {}
        self._all: list[Any] = [self._head, self._foot]
        self._box = ipywidgets.VBox([self._head, self._foot])
        self._all.append(self._box)
        self._shown: tuple[str, ...] = ()

    def view(self) -> Any:
        """The value of the widget-view entry of a mimebundle."""
        return {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}

    def update(self, state: ProgressState, elapsed: float) -> None:
        """Show ``state``. Only what changed is sent."""
        rows, left = choose(tuple(state.rows.values()), SHOWN)
        for row in rows:
            self._set(row)
        names = tuple(str(row.digest) for row in rows)
        if names != self._shown:
            lines = [self._rows[name][0] for name in names]
            self._box.children = [self._head, *lines, self._foot]
            self._shown = names
        named = "" if state.reference in self._title else f" {escape(state.reference)}"
        word = f"{named} · {status(state)}" if state.reference else ""
        self._head.value = f"<strong>{escape(self._title)}</strong>{word}"
        more = f"+ {len(left):,} more · " if left else ""
        self._foot.value = more + total(state, elapsed)

    def _set(self, row: ProgressRow) -> None:
        key = str(row.digest)
        if key not in self._rows:
            self._rows[key] = self._make(label(row))
        _, bar, text = self._rows[key]
        bar.value = int(part(row) * STEPS)
        settled = row.whole
        bar.bar_style = "success" if settled else _STYLES.get(row.status, "info")
        numbers = human(row.size) if settled else f"{human(row.done)} of {human(row.size)}"
        note = f": {row.note}" if row.note else ""
        text.value = _line(escape(f"{row.status}{note} · {numbers}"))

    def _make(self, name: str) -> tuple[Any, Any, Any]:
        kit = self._kit
        flat = {"height": HEIGHT, "margin": "0"}
        title = kit.HTML(_line(f"<code>{escape(name)}</code>"), layout=kit.Layout(width="19em", **flat))
        bar = kit.IntProgress(value=0, min=0, max=STEPS, layout=kit.Layout(width="16em", **flat))
        # What a screen reader says of the bar; older ipywidgets have no tooltip here, and do without.
        bar.tooltip = name
        text = kit.HTML(layout=kit.Layout(margin="0 0 0 0.8em", height=HEIGHT))
        line = kit.HBox([title, bar, text])
        self._all += [title, bar, text, line]
        return line, bar, text

    def close(self) -> None:
        """Take every model away, so that a saved notebook holds no stale widget."""
        for widget in self._all:
            for also in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
                if also is not None and hasattr(also, "close"):
                    also.close()
        self._all, self._rows = [], {}


def _line(inside: str) -> str:
    # A widget's own lines are higher than these rows, which would cut them off.
    return f'<div style="line-height:{HEIGHT};white-space:nowrap">{inside}</div>'
