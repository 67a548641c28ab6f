"""Snapshots: root filesystems keyed by ChainID, in containerd's words.

Invariant: a committed snapshot is whole; what is being prepared is invisible under its final key.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Protocol, Sequence

from ocidist.trees.directory import Reader, nothing

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["Claim", "Mount", "SnapshotInfo", "Snapshotter", "Usage"]


@dataclass(frozen=True)
class Mount:
    """A mount that shows a snapshot's tree, as mount(2) takes it."""

    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Usage:
    """What a snapshot has for itself: entries, a file with many names once, and the bytes set aside for them."""

    inodes: int
    size: int


@dataclass(frozen=True)
class SnapshotInfo:
    """``kind`` is "committed", "active" (may be written) or "view" (read only); times are seconds since the epoch, UTC."""

    key: str
    parent: str
    kind: str
    created_at: float


class Claim(Protocol):
    """The sole right to prepare a key, until it is closed or its process ends, and whoever inherited it."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...

    def __enter__(self) -> Claim: ...

    def __exit__(self, *exc: object) -> None: ...


class Snapshotter(Protocol):
    """Keeps root filesystems."""

    name: str
    apart: bool
    """Whether each layer has a snapshot of its own, the parent of the next; else one holds all layers."""

    def claim(self, key: str) -> Claim | None:
        """The sole right to prepare ``key``, over threads and processes; None while another has it."""
        ...

    def stat(self, key: str) -> SnapshotInfo: ...

    def path(self, key: str) -> Path:
        """The directory of a snapshot's own files; all of its tree, unless it stands on its parent's."""
        ...

    def reader(self, key: str) -> Reader:
        """All of a snapshot's tree, to be read; the caller closes it."""
        ...

    def mounts(self, key: str) -> Sequence[Mount]:
        """What shows the tree of an active snapshot or a view at a place of the user's."""
        ...

    def usage(self, key: str, check: Callable[[], object] = nothing) -> Usage:
        """Entries and bytes of its own files. ``check`` may end it. Raises StoreError."""
        ...

    def prepare(self, key: str, parent: str = "", scope: Scope | None = None) -> Path:
        """A private directory (0700 above it) to write what comes over the parent's tree; redone if it is stale.

        It is seen once it is whole.
        """
        ...

    def view(self, key: str, parent: str, scope: Scope | None = None) -> Path:
        """The parent's tree, read only."""
        ...

    def commit(self, name: str, key: str, parent: str = "") -> None:
        """The active ``key`` becomes the committed ``name``; one that exists already is success."""
        ...

    def remove(self, key: str, scope: Scope | None = None) -> None: ...

    def walk(self) -> Iterator[SnapshotInfo]: ...

    def scratch(self) -> AbstractContextManager[Snapshotter]:
        """An empty snapshotter of the same kind on the same file system, removed at the end of the block."""
        ...

    def replace(self, key: str, made: Snapshotter, scope: Scope | None = None) -> None:
        """The committed ``key`` of ``made``, a :meth:`scratch`, takes the place of this one's."""
        ...

    def stale(self) -> list[Path]:
        """The folders that :meth:`remove_stale` would remove."""
        ...

    def remove_stale(self) -> int:
        """Remove what killed processes left of their unpacking; how many there were."""
        ...
