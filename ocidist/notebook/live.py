"""A transfer on show while it runs, and its result afterwards: widget, HTML or text, by what is there.

    with live("pull redis:7") as display:
        scope = Scope(observer=display.observe, tick=display.tick)
        …
        display.finish(result)

Workers post events to a queue; the calling thread paints while it waits. At the end the widget closes and the
same output is updated to HTML and text, so a saved notebook shows what happened.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Iterator, TextIO

from ocidist.errors import Cancelled
from ocidist.progress import Failed, ProgressState
from ocidist.view.progress import lines
from ocidist.view.progress_html import progress_html
from ocidist.view.text import visible

if TYPE_CHECKING:
    from types import FrameType

    from ocidist.notebook.widget import ProgressWidget
    from ocidist.progress import Event
    from ocidist.terminal.bars import Quiet

__all__ = ["Live", "live"]

INTERVAL = 0.1  # seconds between paints
TEXT_SIZE = (90, 60)  # columns and lines of text/plain
RESUME = "what was transferred is kept; the same call goes on from there"


def live(title: str, *, stream: TextIO | None = None, colour: bool = True, dumb: bool = False) -> Live:
    """A display to use in ``with``.

    ``stream`` (default stderr) is for where there is no notebook; without ``colour``, and plain lines only on
    a ``dumb`` terminal.
    """
    return Live(title, stream=stream, colour=colour, dumb=dumb)


class Live:
    """One transfer on show.

    As an object it shows its last state: text and HTML always, the widget only while it runs. What goes wrong
    in showing never reaches the transfer.
    """

    def __init__(
        self,
        title: str,
        *,
        stream: TextIO | None = None,
        colour: bool = True,
        dumb: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.state = ProgressState()
        self.outcome = ""
        self._clock = clock
        self._began = clock()
        self._elapsed: float | None = None
        self._queue: deque[Event] = deque()
        self._painted = float("-inf")
        self._stream, self._colour, self._dumb = stream, colour, dumb
        self._handle: Any = None
        self._widget: ProgressWidget | None = None
        self._bars: Quiet | None = None
        self._result = ""

    # -- what the transfer calls --

    def observe(self, event: Event) -> None:
        """Take an event; from any thread, never blocks, shows nothing."""
        self._queue.append(event)
        bars = self._bars
        if bars is not None:
            bars.observe(event)

    def tick(self) -> None:
        """Show what is new, at most ten times a second. Only the calling thread calls it."""
        self._drain()
        if self._bars is not None:
            self._bars.tick()
            return
        now = self._clock()
        if self._handle is not None and not self.outcome and now - self._painted >= INTERVAL:
            self._painted = now
            self._safely(self._paint)

    def finish(self, result: object = None) -> None:
        """It is done; ``result`` (a chain ID, a digest, None) is named under the table at the end."""
        self._result = "" if result is None else visible(result)

    def __enter__(self) -> Live:
        self._began = self._clock()
        self._safely(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: object) -> None:
        self._drain()
        interrupted = isinstance(error, (KeyboardInterrupt, Cancelled))
        if error is not None and (interrupted or not self.state.error):
            self.observe(Failed(None, "interrupted" if interrupted else visible(error), interrupted))
            self._drain()
        self._elapsed = self.elapsed
        if error is None:
            self.outcome = f"done: {self._result}" if self._result else "done"
        elif interrupted:
            self.outcome = f"interrupted; {RESUME}"
        else:
            self.outcome = f"failed: {visible(error) or type(error).__name__}"
        self._safely(self._end)

    @property
    def elapsed(self) -> float:
        """Seconds since the block began, or that it took."""
        return self._elapsed if self._elapsed is not None else self._clock() - self._began

    # -- how it looks --

    def __repr__(self) -> str:
        out = [visible(self.title), *lines(self.state, *TEXT_SIZE, self.elapsed)]
        return "\n".join([*out, self.outcome] if self.outcome else out)

    def _repr_html_(self) -> str:
        return progress_html(self.state, self.elapsed, self.title, self.outcome)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if self._widget is not None and not self.outcome:
            from ocidist.notebook.widget import VIEW

            bundle[VIEW] = self._widget.view()
        return bundle

    # -- inside --

    def _begin(self) -> None:
        if not _in_notebook():
            from ocidist.terminal.bars import make

            stream = self._stream if self._stream is not None else sys.stderr
            self._bars = make("auto", stream, stream.isatty(), colour=self._colour, dumb=self._dumb)
            return
        import IPython.display

        show: Any = IPython.display.display
        try:
            from ocidist.notebook.widget import ProgressWidget

            self._widget = ProgressWidget(self.title)
            self._widget.update(self.state, self.elapsed)
        except Exception:  # noqa: BLE001 - not installed, or no comm to the front end: HTML will do
            self._widget = None
        self._handle = show(self, display_id=True)

    def _drain(self) -> None:
        while self._queue:
            self.state = self.state.apply(self._queue.popleft())

    def _paint(self) -> None:
        if self._widget is not None:
            try:
                self._widget.update(self.state, self.elapsed)
                return
            except Exception:  # noqa: BLE001 - a comm that broke: HTML from here on
                self._widget = None
        self._handle.update(self)

    def _end(self) -> None:
        if self._bars is not None:
            if self.outcome.endswith(RESUME):
                self._bars.say(self.outcome)
            self._bars.final()
            self._bars = None
        widget, self._widget = self._widget, None
        if widget is not None:
            self._safely(widget.close)
        if self._handle is not None:
            self._handle.update(self)

    def _safely(self, action: Callable[[], object]) -> None:
        # A broken front end, comm or stream must not end a download.
        with _unbroken():
            try:
                action()
            except Exception:
                import logging

                logging.getLogger("ocidist.notebook").debug("the display failed", exc_info=True)


@contextmanager
def _unbroken() -> Iterator[None]:
    """Holds an interrupt back until the block is done: half-made widgets would never be taken away."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


def _in_notebook() -> bool:
    """True in a kernel, where a display can be updated; IPython on a terminal gets bars."""
    # Where IPython runs it is imported already; importing it here would cost a script half a second.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
