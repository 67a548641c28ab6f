"""Root filesystems keyed by ChainID, in containerd's words: who keeps them, and who applies layers to them.

Invariant: a committed snapshot is whole; one that is being prepared is invisible under its final key.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Protocol, Sequence

from ocidist.scope import no_check
from ocidist.trees.protocols import Reader

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.snapshots.apart import Marks, Over
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

__all__ = ["Applier", "Claim", "LocalTrees", "Mount", "Site", "SnapshotInfo", "Snapshotter", "Usage"]


@dataclass(frozen=True)
class Mount:
    """A mount that shows a snapshot's tree, as mount(2) takes it."""

    type: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Usage:
    """The cost of a snapshot's own files: entries (a file with many names once), and the bytes set aside for them."""

    inodes: int
    size: int


@dataclass(frozen=True)
class SnapshotInfo:
    """``kind`` is "committed", "active" (may be written) or "view" (read only); times are seconds since the epoch, UTC."""

    key: str
    parent: str
    kind: str
    created_at: float


class Snapshotter(Protocol):
    """Keeps root filesystems. Keys are any text; those of unpacked images are ChainIDs. Raises StoreError."""

    @property
    def name(self) -> str: ...

    def stat(self, key: str) -> SnapshotInfo:
        """Return what is known of a snapshot. Raises StoreError for an unknown key."""
        ...

    def prepare(self, key: str, parent: str = "", scope: Scope | None = None) -> Sequence[Mount]:
        """Make a snapshot to write in, over the parent's tree; return its mounts. A stale one of this key is dropped."""
        ...

    def view(self, key: str, parent: str, scope: Scope | None = None) -> Sequence[Mount]:
        """As :meth:`prepare`, to be read only."""
        ...

    def mounts(self, key: str) -> Sequence[Mount]:
        """Return what shows the tree of an active snapshot or a view at a place of the user's."""
        ...

    def commit(self, name: str, key: str, parent: str = "") -> None:
        """Make the active ``key`` the committed ``name``; if that exists already, ``key`` is dropped."""
        ...

    def remove(self, key: str, scope: Scope | None = None) -> None: ...

    def walk(self) -> Iterator[SnapshotInfo]:
        """Yield every snapshot, committed before active."""
        ...

    def usage(self, key: str, check: Callable[[], object] = no_check) -> Usage:
        """Measure a snapshot's own files. ``check`` may end it."""
        ...


class Claim(Protocol):
    """The sole right to prepare a key, until it is closed, or its process and all that inherited it have ended."""

    def fileno(self) -> int:
        """Return the descriptor that a process has to inherit to hold the claim too."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Claim: ...

    def __exit__(self, *exc: object) -> None: ...


class LocalTrees(Snapshotter, Protocol):
    """A Snapshotter whose trees are directories of this machine, which this process may read and write."""

    def begin(self, key: str, parent: str = "", scope: Scope | None = None) -> Path:
        """As :meth:`prepare`; return the private directory to write in (0700 above it)."""
        ...

    def kept(self, chains: Sequence[str]) -> Sequence[str]:
        """Return those ChainIDs of an image's layers, the lowest first, that get a snapshot of their own; the last does."""
        ...

    def site(self, key: str, parent: str, scope: Scope) -> Site:
        """Begin a snapshot that layers are applied to, over ``parent``, which need not be committed before they settle."""
        ...

    def claim(self, key: str) -> Claim | None:
        """Take the sole right to prepare ``key``, over threads and processes; None while another has it."""
        ...

    def path(self, key: str) -> Path:
        """Return the directory of a snapshot's own files: its whole tree, unless it stands on its parent's."""
        ...

    def reader(self, key: str) -> Reader:
        """Open a snapshot's whole tree for reading; the caller closes it."""
        ...

    def dependents(self, key: str) -> Sequence[str]:
        """Return the keys of active snapshots and views that need the files of the committed ``key``."""
        ...

    def scratch(self) -> AbstractContextManager[LocalTrees]:
        """Yield empty trees of the same kind on the same file system, removed at the end of the block."""
        ...

    def replace(self, key: str, made: LocalTrees, scope: Scope | None = None) -> None:
        """Put the committed ``key`` of ``made``, a :meth:`scratch`, in the place of this one's."""
        ...

    def stale(self) -> list[Path]:
        """Return the folders that :meth:`remove_stale` would remove."""
        ...

    def remove_stale(self) -> int:
        """Remove what killed processes left of their work; return how many there were."""
        ...


class Site(Protocol):
    """A snapshot that layers are applied to, one over the other: each is extracted apart, then settled in its turn."""

    @property
    def root(self) -> Path:
        """The directory of the snapshot's own files."""
        ...

    def is_lowest(self, number: int) -> bool:
        """Return whether nothing is beneath the layer: it needs no marks."""
        ...

    def place(self, number: int) -> Path:
        """Return the empty directory to extract the ``number``-th layer in, made if it is missing."""
        ...

    def over(self, number: int, scope: Scope, count: Callable[[int], object]) -> AbstractContextManager[Over]:
        """Yield what extracts the layer over those beneath, which are settled."""
        ...

    def settle(self, number: int, marks: Marks, scope: Scope, layer: str) -> None:
        """Put the extracted layer over those beneath it, which are settled.

        Raises NeedsOrder, before anything is changed; LayerError, LimitExceeded, the scope's end; OSErrors come as they are.
        """
        ...


class Applier(Protocol):
    """Applies layers to snapshots. A snapshot is committed only after the DiffID of each of its layers was checked.

    Raises LayerError for a wrong DiffID and for a layer that can't be applied, LimitExceeded, BlobNotFound, StoreError,
    the scope's end; after a failure nothing is visible.
    """

    def unpack(
        self,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[Digest],
        scope: Scope,
        *,
        wait: Callable[[Descriptor], None] | None = None,
    ) -> Digest:
        """Apply ``layers``, the lowest first, one over the other; return the ChainID that their snapshot is committed by.

        One that exists already is returned at once. ``wait(descriptor)`` returns when that layer's blob is in the store.
        """
        ...

    def apply(self, layer: Descriptor, diff_id: Digest, parent: str, scope: Scope) -> Digest:
        """Apply one layer over the committed ``parent`` ("" for none); return the ChainID it is committed by."""
        ...
