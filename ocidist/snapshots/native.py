"""Snapshots that are whole trees, each by itself: for every system and file system.

A writable one begins as a copy of its parent: by reflink where the file system can share blocks between files,
else byte by byte. Hardlinks would let a container write into its parent's files, so there are none. A view is the
parent's own tree.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Callable, Iterator, Sequence

from ocidist.content.disk import failure
from ocidist.errors import StoreError
from ocidist.layers.apply.policy import Policy
from ocidist.scope import Scope
from ocidist.snapshots.apart import Marks, Over
from ocidist.snapshots.copying import copy_tree
from ocidist.snapshots.folders import FolderSnapshotter, make_place
from ocidist.snapshots.merge import merge
from ocidist.snapshots.protocols import Mount, Site
from ocidist.snapshots.removal import remove_tree
from ocidist.trees.directory import DirectoryReader

__all__ = ["NativeSnapshotter"]


class NativeSnapshotter(FolderSnapshotter):
    """A Snapshotter over directories."""

    name = "native"

    def _fill(self, folder: Path, parent: str, kind: str, scope: Scope) -> None:
        if not parent or kind != "active":
            return
        with closing(DirectoryReader(self._committed_path(parent))) as source:
            try:
                copy_tree(source, folder / "fs", scope.check)
            except OSError as error:
                error.filename = os.path.join(folder, "fs", error.filename)
                raise

    def kept(self, chains: Sequence[str]) -> Sequence[str]:
        """Return the last: one tree takes all layers."""
        return chains[-1:]

    def site(self, key: str, parent: str, scope: Scope) -> Site:
        """Begin a tree, as a copy of ``parent``'s."""
        return _Tree(self.begin(key, parent, scope), bool(parent))

    def _tree(self, key: str) -> Path:
        info = self.stat(key)
        return self._committed_path(info.parent) if info.kind == "view" and info.parent else self.path(key)

    def reader(self, key: str) -> DirectoryReader:
        """Open a snapshot's whole tree for reading. Raises StoreError."""
        tree = self._tree(key)
        try:
            return DirectoryReader(tree)
        except OSError as error:
            raise failure(str(tree), error) from error

    def mounts(self, key: str) -> Sequence[Mount]:
        """Return a bind mount. Raises StoreError for a committed snapshot, which nobody may write to."""
        info = self.stat(key)
        if info.kind == "committed":
            raise StoreError(key, "a committed snapshot is not mounted; prepare one over it, or a view")
        how = "ro" if info.kind == "view" else "rw"
        return (Mount("bind", os.path.abspath(self._tree(key)), ("rbind", how)),)


class _Tree:
    """A Site: the lowest layer is extracted into the tree itself, others beside it and merged onto it."""

    def __init__(self, root: Path, on_parent: bool) -> None:
        self.root, self._on_parent = root, on_parent

    def is_lowest(self, number: int) -> bool:
        return not number and not self._on_parent

    def place(self, number: int) -> Path:
        if self.is_lowest(number):
            return self.root
        beside = self.root.parent / f"apart-{number}"
        make_place(beside)
        return beside

    @contextmanager
    def over(self, number: int, scope: Scope, count: Callable[[int], object]) -> Iterator[Over]:
        with closing(DirectoryReader(self.root)) as lower, closing(DirectoryReader(self.root)) as linked:
            yield Over(lower, Policy.of_process().privileged, scope, linked=linked)

    def settle(self, number: int, marks: Marks, scope: Scope, layer: str) -> None:
        if not self.is_lowest(number):
            place = self.place(number)
            merge(self.root, place, marks, scope, layer)
            remove_tree(place, check=scope.check)
