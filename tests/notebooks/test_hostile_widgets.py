"""What the progress widget is given shows text from outside as everything else in a notebook does."""

from __future__ import annotations

from tests.parts.required import require
from tests.unit.view.test_hostile_text import HOSTILE, check_html, events


def test_g66_i78_widgets() -> None:
    """Each value that a widget is given: HTML, or a name that is read to who does not see."""
    require("module:ipywidgets")
    from ocidist.notebook.widget import ProgressWidget
    from ocidist.progress import ProgressState

    widget, state = ProgressWidget(HOSTILE), ProgressState()
    for event in events():
        state = state.apply(event)
        widget.update(state, 1.0)
        for each in widget._all:
            for value in (getattr(each, "value", ""), getattr(each, "tooltip", "")):
                check_html(str(value or ""))
    widget.close()
