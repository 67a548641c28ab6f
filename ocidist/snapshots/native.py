"""Snapshots that are whole trees, each by itself: for every system and file system.

A writable one begins as a copy of its parent: by reflink where the file system can share blocks between files,
else byte by byte. Hardlinks would let a container write into its parent's files, so there are none. A view is the
parent's own tree.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Sequence

from ocidist.content.disk import failure
from ocidist.errors import StoreError
from ocidist.snapshots.folders import FolderSnapshotter
from ocidist.snapshots.protocols import Mount, Usage
from ocidist.snapshots.whole_trees import copy_tree, tree_usage
from ocidist.trees.directory import TreeReader, nothing

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["NativeSnapshotter"]


class NativeSnapshotter(FolderSnapshotter):
    """A Snapshotter over directories."""

    name = "native"
    apart = False

    def _fill(self, folder: Path, parent: str, kind: str, scope: Scope) -> None:
        if not parent or kind != "active":
            return
        with closing(TreeReader(self._committed_path(parent))) as source:
            try:
                copy_tree(source, folder / "fs", scope.check)
            except OSError as error:
                error.filename = os.path.join(folder, "fs", error.filename)
                raise

    def _tree(self, key: str) -> Path:
        info = self.stat(key)
        return self._committed_path(info.parent) if info.kind == "view" and info.parent else self.path(key)

    def reader(self, key: str) -> TreeReader:
        """All of a snapshot's tree. Raises StoreError."""
        tree = self._tree(key)
        try:
            return TreeReader(tree)
        except OSError as error:
            raise failure(str(tree), error) from error

    def mounts(self, key: str) -> Sequence[Mount]:
        """A bind mount. Raises StoreError for a committed snapshot, which nobody may write to."""
        info = self.stat(key)
        if info.kind == "committed":
            raise StoreError(key, "a committed snapshot is not mounted; prepare one over it, or a view")
        how = "ro" if info.kind == "view" else "rw"
        return (Mount("bind", os.path.abspath(self._tree(key)), ("rbind", how)),)

    def usage(self, key: str, check: Callable[[], object] = nothing) -> Usage:
        """Entries and bytes of its own tree. Raises StoreError."""
        tree = self.path(key)
        try:
            return tree_usage(tree, check)
        except OSError as error:
            raise failure(str(tree), error) from error
