"""A transfer under way as lines of text: a pure function of its state, the screen's size and the time.

Every line takes at most ``width`` cells and there are never more than ``height`` of them, so that a
terminal's block neither wraps nor scrolls.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Sequence

from ocidist.frozen import dataclass
from ocidist.progress import Failed, Finished, Named, Queued, Resumed, Retrying, Waiting
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.mediatype import kind
from ocidist.view.sizes import duration, human
from ocidist.view.text import clip, middle, pad, visible, width

if TYPE_CHECKING:
    from ocidist.progress import Event, ProgressRow, ProgressState

__all__ = [
    "ASCII",
    "BLOCKS",
    "Glyphs",
    "Piece",
    "choose",
    "event_line",
    "event_object",
    "label",
    "lines",
    "pieces",
    "status",
    "summary",
    "unpacking",
]

Piece = tuple[str, str]
"""A text and its style: "", "good", "bad", "busy" or "faint"; a line is a list of them."""

MOVING = frozenset({"fetching", "pushing", "unpacking", "checking", "retrying", "waiting"})
GOOD = frozenset({"fetched", "exists", "pushed", "mounted", "unpacked", "checked"})
ENDED = frozenset({"failed", "stopped", "interrupted"})
STATUS = 9  # cells: "unpacking", "resolving"
BYTES = 15  # cells: "99.9 MB/99.9 MB"
BAR = (10, 42)  # cells, the fewest and the most


@dataclass(frozen=True)
class Glyphs:
    """What a bar is drawn with: ``parts`` are the steps of a cell, the last one full."""

    parts: str
    empty: str
    mark: str

    def bar(self, cells: int, part: float) -> str:
        """``|██▌  |`` in exactly ``cells`` cells; ``part`` is 0 to 1."""
        inside = max(cells - 2, 0)
        steps = len(self.parts)
        # Rounded down: a bar is full only when all is there.
        filled = int(min(max(part, 0.0), 1.0) * inside * steps)
        whole, rest = divmod(filled, steps)
        drawn = self.parts[-1] * whole + (self.parts[rest - 1] if rest else "")
        return f"|{drawn}{self.empty * (inside - len(drawn))}|"


BLOCKS = Glyphs("▏▎▍▌▋▊▉█", " ", "…")
ASCII = Glyphs("+", "-", "~")


def label(row: ProgressRow, *, short: bool = False) -> str:
    """``layer-sha256:abcdef123456``; short, ``layer-abcdef123456``."""
    name = kind(row.media_type)
    return f"{name}-{row.digest.short}" if short else f"{name}-{row.digest.algorithm}:{row.digest.short}"


def lines(
    state: ProgressState, width: int, height: int, elapsed: float, *, glyphs: Glyphs = BLOCKS
) -> list[str]:
    """The reference, a line for each descriptor, and the sum; at most ``height`` lines of ``width`` cells."""
    return [
        "".join(text for text, _ in line) for line in pieces(state, width, height, elapsed, glyphs=glyphs)
    ]


def pieces(
    state: ProgressState,
    width: int,
    height: int,
    elapsed: float,
    *,
    glyphs: Glyphs = BLOCKS,
    moving: float | None = None,
) -> list[list[Piece]]:
    """:func:`lines`, each in styled pieces; ``moving`` as in :func:`summary`."""
    if height <= 0 or width <= 0:
        return []
    rows = tuple(state.rows.values())
    foot = [[(clip(summary(state, elapsed, moving), width, glyphs.mark), "")]]
    room = height - 1
    head = [_reference(state, width, glyphs)] if room and state.reference else []
    room -= len(head)
    if len(rows) <= room:
        shown, more = rows, []
    elif room:
        shown, left = choose(rows, room - 1)
        more = [[(clip(_more(left), width, glyphs.mark), "faint")]]
    else:
        shown, more = (), []
    plan = _plan(shown, width)
    body = [_row(row, plan, width, glyphs) for row in shown]
    return head + body + more + foot


def choose(rows: Sequence[ProgressRow], room: int) -> tuple[tuple[ProgressRow, ...], tuple[ProgressRow, ...]]:
    """The ``room`` rows most worth a line, in their order, and those left out: failed ones first, then
    those that move, then the latest settled, then those queued."""

    def rank(at: int) -> tuple[int, int]:
        row = rows[at]
        if row.status in ENDED:
            return 0, at
        if row.status in MOVING:
            return 1, at
        return (2, -at) if row.settled else (3, at)

    picked = set(sorted(range(len(rows)), key=rank)[: max(room, 0)])
    return (
        tuple(row for at, row in enumerate(rows) if at in picked),
        tuple(row for at, row in enumerate(rows) if at not in picked),
    )


def status(state: ProgressState) -> str:
    """What the reference has come to: resolving, resolved, failed or interrupted."""
    if state.interrupted:
        return "interrupted"
    if state.error:
        return "failed"
    return "resolving" if state.descriptor is None and not state.rows else "resolved"


def summary(state: ProgressState, elapsed: float, moving: float | None = None) -> str:
    """``elapsed: 1.2 s  total: 31.4 MB (26.1 MB/s)``. The rate is over ``moving`` seconds, those in which bytes
    came or went; without them it is left out while layers are only unpacked, for it would decay."""
    done, total = state.done, state.total
    text = f"elapsed: {duration(elapsed)}  total: {human(done)}"
    if done < total:
        text += f" of {human(total)}"
    only_unpacking = done == total and any(row.status == "unpacking" for row in state.rows.values())
    over = elapsed if moving is None else moving
    rate = state.transferred / over if over > 0 else 0.0
    if rate and not (moving is None and only_unpacking):
        text += f" ({human(rate)}/s)"
    if done < total and rate > 0 and elapsed > 2:
        text += f"  left: {duration((total - done) / rate)}"
    elif done == total and done - state.transferred > 0:
        text += f", {human(done - state.transferred)} already there"
    return text


def unpacking(state: ProgressState) -> str:
    """``unpacking layer-sha256:abcdef123456, 1.0 MB of 31.4 MB``, or "" where no layer is being unpacked."""
    for row in state.rows.values():
        if row.status == "unpacking":
            return f"unpacking {label(row)}, {human(row.done)} of {human(row.size)}"
    return ""


def _more(rows: Sequence[ProgressRow]) -> str:
    counts = Counter(row.status for row in rows)
    said = ", ".join(f"{number:,} {name}" for name, number in counts.most_common())
    return f"+ {len(rows):,} more: {said}"


def _style(word: str) -> str:
    if word in GOOD or word == "resolved":
        return "good"
    if word in ENDED:
        return "bad"
    return "faint" if word == "queued" else "busy"


def _reference(state: ProgressState, cells: int, glyphs: Glyphs) -> list[Piece]:
    word = status(state)
    name = visible(state.reference)
    if cells < STATUS + 12:
        return [(middle(name, cells, glyphs.mark), "")]
    # The name may reach over the bars; the word stands over theirs where it can.
    column = min(max(width(name), 28), cells - max(STATUS, width(word)) - 1)
    return [(pad(middle(name, column, glyphs.mark), column), ""), (" ", ""), (word, _style(word))]


@dataclass(frozen=True)
class _Plan:
    label: int
    short: bool
    bar: int  # 0: no bar
    bytes: bool


def _plan(rows: Sequence[ProgressRow], cells: int) -> _Plan:
    longest = max((len(label(row)) for row in rows), default=0)
    shortest = max((len(label(row, short=True)) for row in rows), default=0)
    for column, short in ((longest, False), (shortest, True)):
        room = cells - column - 1 - STATUS - 1 - 1 - BYTES
        if room >= BAR[0]:
            return _Plan(column, short, min(room, BAR[1]), True)
    column = min(shortest, max(cells - STATUS - 1, 0))
    return _Plan(column, True, 0, cells - column - 1 - STATUS - 1 >= BYTES)


def _row(row: ProgressRow, plan: _Plan, cells: int, glyphs: Glyphs) -> list[Piece]:
    name = clip(label(row, short=plan.short), plan.label, glyphs.mark)
    line: list[Piece] = [(pad(name, plan.label), "")]
    left = cells - plan.label - 1
    word = clip(visible(row.status), min(STATUS, left), glyphs.mark)
    if left <= 0:
        return line
    style = _style(row.status)
    line += [(" ", ""), (word, style)]
    left -= STATUS + 1
    space = " " * (STATUS - width(word) + 1)
    if row.note and (row.status in ("waiting", "retrying", "failed")):
        note = clip(visible(row.note), left, glyphs.mark)
        return [*line, (space, ""), (note, style)] if left > 0 and note else line
    if plan.bar:
        line += [(space, ""), (glyphs.bar(plan.bar, part(row)), style), (" ", "")]
    elif plan.bytes:
        line.append((space, ""))
    if plan.bytes:
        line.append((_bytes(row).rjust(BYTES), ""))
    return line


def part(row: ProgressRow) -> float:
    """How much of a row is done, 0 to 1."""
    if row.whole:
        return 1.0
    return min(row.done / row.size, 1.0) if row.size > 0 else 0.0


def _bytes(row: ProgressRow) -> str:
    if row.whole:
        return human(row.size)
    return f"{human(row.done)}/{human(row.size)}"


# -- events -----------------------------------------------------------------------------------------


def event_object(event: Event) -> dict[str, Any]:
    """An event as JSON has it: ``{"event": "advanced", "digest": …, "phase": …, "done": …}``; bytes are
    whole, a descriptor is an object with mediaType, digest and size."""
    found: dict[str, Any] = {"event": type(event).__name__.lower()}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, Descriptor):
            value = {"mediaType": value.media_type, "digest": str(value.digest), "size": value.size}
        found[field.name] = str(value) if isinstance(value, str) else value
    return found


def event_line(event: Event, state: ProgressState) -> str:
    """An event worth a line of a log, in words, after ``state`` has taken it in; else empty."""
    if isinstance(event, Named):
        target = event.descriptor
        return f"{visible(state.reference)}: {f'resolved to {target.digest}' if target else 'resolving'}"
    if isinstance(event, Queued):
        return ""
    row = state.rows.get(event.digest) if event.digest is not None else None
    if isinstance(event, Failed):
        subject = label(row) if row is not None else visible(state.reference) or "transfer"
        return f"{subject}: failed: {visible(event.error)}"
    if isinstance(event, Retrying):
        subject = label(row) if row is not None else visible(state.reference)
        return f"{subject}: attempt {event.attempt} in {duration(event.after)}: {visible(event.why)}"
    if row is None:
        return ""
    if isinstance(event, Finished):
        if event.phase == "unpack" and event.outcome == "exists":
            return ""
        return f"{label(row)}: {visible(row.status)}, {human(row.size)}"
    if isinstance(event, Waiting):
        return f"{label(row)}: waiting: {visible(row.note)}"
    if isinstance(event, Resumed):
        return f"{label(row)}: resumed at {human(row.done)} of {human(row.size)}"
    return ""
