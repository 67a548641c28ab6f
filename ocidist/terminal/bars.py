"""Progress on a terminal: bars, plain lines, JSON lines, or nothing.

All four have one shape: ``observe`` takes events from any thread, ``tick`` (the calling thread, about ten
times a second) writes, ``final`` writes what is still to be said, once. Nothing here reads the environment.
"""

from __future__ import annotations

import os
import time
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Callable, Mapping, TextIO

from ocidist.progress import Advanced, Failed, Named, ProgressState, Queued
from ocidist.view.progress import (
    ASCII,
    BLOCKS,
    Glyphs,
    Piece,
    event_line,
    event_object,
    pieces,
    summary,
    unpacking,
)
from ocidist.view.text import visible, width

if TYPE_CHECKING:
    from ocidist.progress import Event
    from ocidist.spec.digest import Digest

__all__ = ["MODES", "Bars", "Json", "Plain", "Quiet", "make"]

MODES = ("auto", "bar", "plain", "json", "none")
INTERVAL = 0.1  # seconds between paints
STATUS_EVERY = 5.0  # seconds between plain status lines
LONGEST_FINAL = 200  # lines that the last paint may take, past the screen's
_SGR: Mapping[str, str] = {"good": "32", "bad": "31", "busy": "36", "faint": "2"}


def make(
    mode: str,
    stream: TextIO,
    isatty: bool,
    *,
    colour: bool = True,
    dumb: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Quiet:
    """The progress of ``--progress MODE`` on ``stream``. ``auto`` is bars on a terminal, else plain lines;
    a ``dumb`` terminal (no cursor movement) gets plain lines for bars too."""
    if mode not in MODES:
        raise ValueError(f"no progress {mode!r}; it is one of {', '.join(MODES)}")
    if mode == "auto":
        mode = "bar" if isatty else "plain"
    if mode == "bar":
        if not dumb:
            return Bars(stream, colour=colour and isatty, clock=clock)
        mode = "plain"
    if mode == "plain":
        return Plain(stream, clock=clock)
    return Json(stream, clock=clock) if mode == "json" else Quiet(stream, clock=clock)


class Quiet:
    """Takes events and says nothing; the base of the others."""

    lines = False
    """Whether it writes a line for an event, rather than a picture of the whole."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream
        self.state = ProgressState()
        self._clock = clock
        self._began = clock()
        self._moved = 0.0  # seconds until the last byte came or went
        self._queue: deque[Event | str] = deque()
        self._ended = False
        self._broken = False
        self._painter = get_ident()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._began

    @property
    def moving(self) -> float:
        """Seconds in which bytes came or went: all of them until everything is here."""
        return self.elapsed if self.state.done < self.state.total else self._moved

    def observe(self, event: Event) -> None:
        """Take an event; from any thread. Lines about the doings of the thread that paints are written at once, for it
        may be about to wait for a registry that says nothing; all else at the next tick."""
        self._queue.append(event)  # deque.append is atomic
        if self.lines and get_ident() == self._painter:
            self.tick()

    __call__ = observe

    def say(self, text: str) -> None:
        """A line for the reader (a warning, a debug line), written at the next tick; from any thread."""
        self._queue.append(text)

    def tick(self) -> None:
        """Write what is due. Only the thread that made this calls it."""
        if not self._ended:
            self._drain()

    def final(self) -> None:
        """Take in what is still queued and write the last state. Later calls do nothing."""
        if self._ended:
            return
        self._drain()
        self._ended = True
        self._finish()

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *exc: object) -> None:
        self.final()

    def _drain(self) -> None:
        while self._queue:
            found = self._queue.popleft()
            if isinstance(found, str):
                self._said(found)
            else:
                before, self.state = self.state.transferred, self.state.apply(found)
                if self.state.transferred != before:
                    self._moved = self.elapsed
                self._took(found)

    def _took(self, event: Event) -> None:
        pass

    def _said(self, text: str) -> None:
        self._write(visible(text) + "\n")

    def _finish(self) -> None:
        pass

    def _write(self, text: str) -> None:
        # A terminal that went away, or a closed pipe, ends the painting, not the transfer.
        if self._broken or not text:
            return
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        try:
            self.stream.write(text.encode(encoding, "replace").decode(encoding, "replace"))
            self.stream.flush()
        except (OSError, ValueError, LookupError):
            self._broken = True


class Plain(Quiet):
    """A line for each thing that is done, and a status line about every five seconds."""

    lines = True

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock=clock)
        self._last = self._began

    def tick(self) -> None:
        super().tick()
        now = self._clock()
        if not self._ended and now - self._last >= STATUS_EVERY:
            self._last = now
            rows = self.state.rows.values()
            settled = sum(row.settled for row in rows)
            line = f"{summary(self.state, self.elapsed, self.moving)}  {settled:,} of {len(rows):,} done"
            doing = unpacking(self.state)
            self._write(f"{line}, {doing}\n" if doing else f"{line}\n")

    def _took(self, event: Event) -> None:
        if isinstance(event, Failed):
            return  # whoever started it says why, in the line that ends the command
        line = event_line(event, self.state)
        if line:
            self._write(line + "\n")

    def _finish(self) -> None:
        if self.state.rows:
            self._write(summary(self.state, self.elapsed, self.moving) + "\n")


class Json(Quiet):
    """One JSON object for each event, with ``elapsed`` in seconds; the last one is ``{"event": "ended"}``.

    How far a descriptor has come is said ten times a second at most, and once more before what comes after.
    """

    lines = True

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock=clock)
        self._written: dict[Digest, float] = {}
        self._held: dict[Digest, Advanced] = {}

    def tick(self) -> None:
        super().tick()
        for digest in [digest for digest in self._held if self._due(digest)]:
            self._release(digest)

    def _due(self, digest: Digest) -> bool:
        return self._clock() - self._written.get(digest, float("-inf")) >= INTERVAL

    def _release(self, digest: Digest | None) -> None:
        event = self._held.pop(digest, None) if digest is not None else None
        if event is not None:
            self._written[event.digest] = self._clock()
            self._event(event)

    def _took(self, event: Event) -> None:
        if isinstance(event, Advanced):
            held = self._held.get(event.digest)
            if held is not None and held.phase != event.phase:
                self._release(event.digest)
            self._held[event.digest] = event
            if self._due(event.digest):
                self._release(event.digest)
            return
        self._release(None if isinstance(event, (Named, Queued)) else event.digest)
        self._event(event)

    def _event(self, event: Event) -> None:
        self._object({**event_object(event), "elapsed": round(self.elapsed, 3)})

    def _said(self, text: str) -> None:
        self._object({"event": "said", "text": text, "elapsed": round(self.elapsed, 3)})

    def _finish(self) -> None:
        for digest in list(self._held):
            self._release(digest)
        state = self.state
        self._object(
            {
                "event": "ended",
                "done": state.done,
                "total": state.total,
                "transferred": state.transferred,
                "error": state.error or None,
                "elapsed": round(self.elapsed, 3),
            }
        )

    def _object(self, found: dict[str, object]) -> None:
        import json  # not on the path of commands that show no progress

        self._write(json.dumps(found) + "\n")


class Bars(Quiet):
    """A block of lines at the terminal's bottom, painted anew in place at most ten times a second.

    The cursor rests at the start of the line below the block, so whatever ends the program leaves the
    terminal as it should be. The size is asked for at each paint, so a resize needs no signal handler.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        colour: bool = True,
        size: Callable[[], tuple[int, int]] | None = None,
        glyphs: Glyphs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream, clock=clock)
        self._size = size if size is not None else self._ask
        self._colour = colour
        self._glyphs = glyphs if glyphs is not None else glyphs_for(stream)
        self._painted = float("-inf")
        self._block: list[int] = []  # cells of each line that stands on the screen
        self._above: list[str] = []  # lines to write over the block

    def tick(self) -> None:
        if self._ended:
            return
        self._drain()
        now = self._clock()
        if now - self._painted >= INTERVAL:
            self._painted = now
            self._paint(final=False)

    def _said(self, text: str) -> None:
        self._above.append(visible(text))

    def _finish(self) -> None:
        self._paint(final=True)

    def _paint(self, *, final: bool) -> None:
        columns, rows = self._size()
        if not self.state.reference and not self.state.rows and not self._above and not self._block:
            return
        # The last column stays empty: some terminals wrap when it is written. The last line is the cursor's.
        cells, height = max(columns - 1, 1), max(rows - 1, 1)
        block: list[list[Piece]] = []
        if self.state.reference or self.state.rows:
            most = max(height, LONGEST_FINAL) if final else height
            block = pieces(self.state, cells, most, self.elapsed, glyphs=self._glyphs, moving=self.moving)
        self._write(
            self._back(columns, rows)
            + "".join(f"{line}\x1b[K\n" for line in self._above)
            + "".join(f"{self._dress(line)}\x1b[K\n" for line in block)
            + "\x1b[J"
        )
        self._above = []
        self._block = [sum(width(text) for text, _ in line) for line in block]

    def _back(self, columns: int, rows: int) -> str:
        """The cursor to the block's first line. A narrower terminal has folded the lines by now."""
        up = sum(max(-(-cells // max(columns, 1)), 1) for cells in self._block)
        up = min(up, max(rows - 1, 0))
        return f"\r\x1b[{up}A" if up else "\r"

    def _dress(self, line: list[Piece]) -> str:
        if not self._colour:
            return "".join(text for text, _ in line)
        return "".join(f"\x1b[{_SGR[style]}m{text}\x1b[0m" if style in _SGR else text for text, style in line)

    def _ask(self) -> tuple[int, int]:
        try:
            found = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError, AttributeError):
            return 80, 24
        return found.columns or 80, found.lines or 24


def glyphs_for(stream: TextIO) -> Glyphs:
    """Blocks where the stream's encoding has them, else ASCII."""
    try:
        (BLOCKS.parts + BLOCKS.mark).encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS
