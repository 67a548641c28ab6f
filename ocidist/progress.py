"""Progress: frozen events, and a pure reducer from events to rows.

Work posts events to one observer, ``Callable[[Event], None]``, from any thread. Bars, widgets and tables
are views of :class:`ProgressState`, which knows nothing of clocks, terminals or notebooks.

``Advanced.done`` is cumulative, so a retry, a resume or a lost event can't corrupt a total.
"""

from __future__ import annotations

from dataclasses import field, replace
from itertools import islice
from typing import Iterator, Mapping, Union

from ocidist.frozen import dataclass
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

__all__ = [
    "Advanced",
    "Event",
    "Failed",
    "Finished",
    "Named",
    "ProgressRow",
    "ProgressState",
    "Queued",
    "Resumed",
    "Retrying",
    "Waiting",
]


@dataclass(frozen=True)
class Named:
    """The reference under way, and what it resolved to (None until it has)."""

    reference: str
    descriptor: Descriptor | None = None


@dataclass(frozen=True)
class Queued:
    """A descriptor that will be moved; ``parent`` is the digest of the manifest that names it."""

    descriptor: Descriptor
    parent: Digest | None = None


@dataclass(frozen=True)
class Waiting:
    """Another process or thread moves this one; ``why`` in a few words."""

    digest: Digest
    why: str


@dataclass(frozen=True)
class Advanced:
    """``done`` bytes (cumulative) in ``phase``: "fetch", "push", "unpack", "check"."""

    digest: Digest
    phase: str
    done: int
    total: int = 0


@dataclass(frozen=True)
class Retrying:
    """Attempt number ``attempt`` starts in ``after`` seconds; ``why`` in a few words."""

    digest: Digest | None
    attempt: int
    after: float
    why: str


@dataclass(frozen=True)
class Resumed:
    """The transfer goes on from byte ``at``."""

    digest: Digest
    at: int


@dataclass(frozen=True)
class Finished:
    """One phase of one descriptor is done. ``outcome``: copied, exists, mounted, unpacked, checked."""

    digest: Digest
    outcome: str
    phase: str = "fetch"


@dataclass(frozen=True)
class Failed:
    """``error`` ended it; a ``digest`` of None is the whole. ``interrupted``: no fault of it, somebody ended it."""

    digest: Digest | None
    error: str
    interrupted: bool = False


Event = Union[Named, Queued, Waiting, Advanced, Retrying, Resumed, Finished, Failed]


@dataclass(frozen=True)
class ProgressRow:
    """What one descriptor has come to. ``done`` and ``size`` are bytes.

    ``status`` is one of queued, waiting, fetching, retrying, fetched, exists, pushing, pushed, mounted,
    unpacking, unpacked, checking, checked, failed, stopped (by an interrupt). While unpacking, ``done`` counts bytes of the blob that were read.
    """

    digest: Digest
    media_type: str
    size: int
    status: str = "queued"
    done: int = 0
    note: str = ""

    @property
    def settled(self) -> bool:
        """True when nothing more will happen unless a further phase starts."""
        return self.status in _SETTLED

    @property
    def whole(self) -> bool:
        """True when it is settled and all of it is there."""
        return self.status in _WHOLE


_WHOLE = frozenset({"fetched", "exists", "pushed", "mounted", "unpacked", "checked"})
_SETTLED = _WHOLE | {"failed", "stopped"}
_DOING = {"fetch": "fetching", "push": "pushing", "unpack": "unpacking", "check": "checking"}
_DID = {"fetch": "fetched", "push": "pushed", "unpack": "unpacked"}


class _Rows(Mapping[Digest, ProgressRow]):
    """Rows in order, in blocks: the next state shares all but one of them, for `check` has a row for each blob."""

    __slots__ = ("_blocks", "_count", "_places")

    def __init__(
        self, places: dict[Digest, int], blocks: tuple[tuple[ProgressRow, ...], ...], count: int
    ) -> None:
        self._places, self._blocks, self._count = (
            places,
            blocks,
            count,
        )  # a place from count on is a later state's

    def __getitem__(self, digest: Digest) -> ProgressRow:
        place = self._places[digest]
        if place >= self._count:
            raise KeyError(digest)
        return self._blocks[place // _BLOCK][place % _BLOCK]

    def __iter__(self) -> Iterator[Digest]:
        return (row.digest for block in self._blocks for row in block)

    def __len__(self) -> int:
        return self._count

    def having(self, row: ProgressRow) -> _Rows:
        """These and ``row``, which takes the place of the one with its digest."""
        places, count = self._places, self._count
        place = places.get(row.digest, count)
        if place >= count:  # new to this state
            if len(places) > count:  # to another that came from it something is new already
                places = dict(islice(places.items(), count))
            place = places[row.digest] = count
            count += 1
        number, at = divmod(place, _BLOCK)
        block = self._blocks[number] if number < len(self._blocks) else ()
        block = (*block[:at], row, *block[at + 1 :])
        return _Rows(places, (*self._blocks[:number], block, *self._blocks[number + 1 :]), count)


_BLOCK = 256


def _no_rows() -> Mapping[Digest, ProgressRow]:
    return _Rows({}, (), 0)


def _having(rows: Mapping[Digest, ProgressRow], row: ProgressRow) -> Mapping[Digest, ProgressRow]:
    return rows.having(row) if isinstance(rows, _Rows) else {**rows, row.digest: row}


@dataclass(frozen=True)
class ProgressState:
    """Every row so far, in the order in which they were queued. Immutable: ``apply`` returns the next."""

    reference: str = ""
    descriptor: Descriptor | None = None
    rows: Mapping[Digest, ProgressRow] = field(default_factory=_no_rows)
    transferred: int = 0
    error: str = ""
    interrupted: bool = False

    def apply(self, event: Event) -> ProgressState:
        """The state after ``event``. Pure; an event about an unknown digest changes nothing."""
        if isinstance(event, Named):
            return replace(self, reference=event.reference, descriptor=event.descriptor or self.descriptor)
        if isinstance(event, Queued):
            target = event.descriptor
            if target.digest in self.rows:
                return self
            row = ProgressRow(target.digest, target.media_type, target.size)
            return replace(self, rows=_having(self.rows, row))
        if isinstance(event, Failed) and event.digest is None:
            rows = self.rows
            if event.interrupted:  # and with the whole whatever was under way
                ended = {digest: replace(row, status="stopped", note="") for digest, row in rows.items()}
                rows = {
                    d: row if row.settled or row.status == "queued" else ended[d] for d, row in rows.items()
                }
            return replace(self, rows=rows, error=event.error, interrupted=event.interrupted)
        digest = event.digest
        old = self.rows.get(digest) if digest is not None else None
        if old is None:
            return self
        new = _step(old, event)
        moved = self.transferred
        if isinstance(event, (Advanced, Finished)) and event.phase != "unpack" and old.status != "unpacking":
            moved += max(new.done - old.done, 0) if new.status not in ("exists", "mounted") else 0
        error = event.error if isinstance(event, Failed) else self.error
        return replace(self, rows=_having(self.rows, new), transferred=moved, error=error)

    @property
    def done(self) -> int:
        """Bytes that are here of all that is known to be wanted (an unpack does not take away from it)."""
        return sum(
            row.size if row.whole or row.status == "unpacking" else row.done
            for row in self.rows.values()
            if row.status != "failed"
        )

    @property
    def total(self) -> int:
        """Bytes of all that is known to be wanted."""
        return sum(row.size for row in self.rows.values())


def _step(row: ProgressRow, event: Event) -> ProgressRow:
    if isinstance(event, Advanced):
        return replace(row, status=_DOING.get(event.phase, event.phase), done=event.done, note="")
    if isinstance(event, Waiting):
        return replace(row, status="waiting", note=event.why)
    if isinstance(event, Retrying):
        return replace(row, status="retrying", note=event.why)
    if isinstance(event, Resumed):
        return replace(row, status="fetching", done=event.at, note="resumed")
    if isinstance(event, Failed):
        return replace(row, status="failed", note=event.error)
    if isinstance(event, Finished) and event.phase == "unpack" and event.outcome == "exists" and row.whole:
        return row  # its tree was there already: what was new of it is how its blob came
    if isinstance(event, Finished):
        status = _DID.get(event.phase, event.phase) if event.outcome == "copied" else event.outcome
        return replace(row, status=status, done=row.size, note="")
    return row
