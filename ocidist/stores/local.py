"""The store in a directory: ``ROOT/content`` (containerd's layout), ``ROOT/meta.db`` (names, labels, leases),
``ROOT/snapshots``, ``ROOT/gc.lock``.

Many processes may use one root at once; folders are made when something is first written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Mapping

from ocidist.content.disk import refuse_links, unwritable
from ocidist.content.foreign import REFUSAL, containerd_content
from ocidist.content.local import LocalContent
from ocidist.errors import StoreError
from ocidist.images.connection import DatabaseFile
from ocidist.stores.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.snapshots.protocols import Applier, LocalTrees
    from ocidist.stores.store import Store

__all__ = ["LocalPlace", "local_applier"]


def local_applier(store: Store) -> Applier:
    """What applies layers to a store's own trees."""
    from ocidist.snapshots.unpack import LocalApplier

    return LocalApplier(store.content, store.local_trees())


class LocalPlace(Place):
    """A root, and the parts of a store in it. The constructor makes nothing; for the arguments see ``Store.at``."""

    def __init__(self, root: str, readonly: bool, snapshotter: str | None, shared: bool) -> None:
        self.name = root
        folder = os.path.join(root, "content")
        theirs = containerd_content(root)
        if theirs is not None:
            folder, readonly = theirs, True
        elif readonly and not os.path.exists(folder) and os.path.isdir(os.path.join(root, "blobs")):
            folder = root
        self.readonly, self.foreign = readonly, theirs is not None
        self.options = (root, readonly, snapshotter, shared)
        self._base, self._snapshotter = os.path.abspath(root), snapshotter
        self.blobs = LocalContent(folder, readonly=readonly, shared=shared)
        self.database = DatabaseFile(os.path.join(root, "meta.db"), readonly=readonly, shared=shared)

    @property
    def root(self) -> Path:
        """The directory. pathlib is loaded where a Path is asked for, not by a listing."""
        from pathlib import Path

        return Path(self.name)

    def trees(self) -> LocalTrees:
        """The snapshotter under ``ROOT/snapshots``, the root's own choice. Raises StoreError, UsageError."""
        from ocidist.snapshots.choice import choose

        return choose(self.root / "snapshots", self._snapshotter)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def exists(self) -> bool:
        """False if there is nothing. Raises StoreError for anything else than a directory."""
        there = os.path.lexists(self._base)
        if there and not os.path.isdir(self._base):
            raise StoreError(self.name, "Not a directory")
        return there

    def require_writable(self) -> None:
        """Raise StoreError, with the reason, where nothing can be written here."""
        if self.readonly:
            raise StoreError(self.name, REFUSAL if self.foreign else "opened read-only")
        if not self.exists():
            return  # the folder alone may be writable, and what another user made in it not
        content, leases, gate = (os.path.join(self._base, name) for name in ("content", "leases", "gc.lock"))
        for path in (self._base, self.database.path, content, gate):
            if os.path.lexists(path) and not os.access(path, os.W_OK):
                raise StoreError(self.name, unwritable(path))
        refuse_links(content, leases)
        self.blobs.require_writable()

    def files(self) -> Mapping[str, tuple[str, ...]]:
        """The paths of each kind of what is in it; "total" is the root."""
        content, database = os.path.abspath(self.blobs.root), self.database.path
        return {
            "total": (self._base,),
            "content": (os.path.join(content, "blobs"),),
            "ingests": (os.path.join(content, "ingest"),),
            "snapshots": (os.path.join(self._base, "snapshots"),),
            "database": (database, f"{database}-journal"),
        }
