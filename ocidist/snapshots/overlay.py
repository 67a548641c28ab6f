"""Snapshots for overlay mounts: each layer is a directory of its own, shared by all images that have it.

``committed/…/fs`` is what one layer adds, with whiteouts as the kernel wants them; a chain of parents makes a tree.
``active/…/{fs,work}`` are the upper and the work directory of a mount. Nothing here mounts: :meth:`mounts` says how.
As root the kernel's attributes are ``trusted.overlay.*``, for others and in user namespaces ``user.overlay.*`` (mount option
userxattr, Linux 5.11).

Source: Documentation/filesystems/overlayfs.rst of Linux.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Sequence

from ocidist.content.disk import failure, place_of
from ocidist.errors import StoreError
from ocidist.layers.apply.policy import Policy, in_first_namespace
from ocidist.snapshots.folders import FolderSnapshotter
from ocidist.snapshots.protocols import Mount, Usage
from ocidist.snapshots.whole_trees import copy_metadata, remove_tree, tree_usage
from ocidist.trees.directory import FOLDER, TreeReader, nothing
from ocidist.trees.stacked import StackedReader

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["OverlaySnapshotter"]

_MAX_OPTIONS = 4095  # bytes: a page, and its end


class OverlaySnapshotter(FolderSnapshotter):
    """A Snapshotter over directories that the kernel stacks."""

    name = "overlay"
    apart = True

    def _fill(self, folder: Path, parent: str, kind: str, scope: Scope) -> None:
        if kind == "active":
            os.mkdir(folder / "work", 0o700)
            if parent:  # the root of the mount is the upper directory: it looks like the one beneath
                self._like(self._committed_path(parent), folder / "fs")

    def commit(self, name: str, key: str, parent: str = "") -> None:
        """As FolderSnapshotter.commit; what a mount kept beside the layer goes."""
        if self.stat(key).kind == "active":
            work = self.path(key).parent / "work"
            try:
                remove_tree(work)
            except OSError as error:
                raise failure(str(work), error) from error
        super().commit(name, key, parent)

    def _like(self, lower: Path, upper: Path) -> None:
        with closing(TreeReader(lower)) as source:
            fd = os.open(upper, FOLDER)
            try:
                copy_metadata(source, b"", source.stat(b""), fd, Policy.of_process().privileged)
            finally:
                os.close(fd)

    def layers(self, key: str) -> list[Path]:
        """The directories that a snapshot's tree is made of, the uppermost first. Raises StoreError."""
        info = self.stat(key)
        found = [] if info.kind == "view" else [self.path(key)]
        seen = {key}
        while info.parent:
            if info.parent in seen:
                raise StoreError(key, f"its parents go in a circle at {info.parent}")
            seen.add(info.parent)
            found.append(self._committed_path(info.parent))
            info = self.stat(info.parent)
        return found or [self.path(key)]

    def reader(self, key: str) -> StackedReader:
        """All of a snapshot's tree. Raises StoreError."""
        layers = self.layers(key)
        try:
            return StackedReader(layers)
        except OSError as error:
            raise failure(place_of(error, str(layers[0])), error) from error

    def mounts(self, key: str) -> Sequence[Mount]:
        """An overlay mount; a bind mount where there is one layer alone. Raises StoreError."""
        info = self.stat(key)
        if info.kind == "committed":
            raise StoreError(key, "a committed snapshot is not mounted; prepare one over it, or a view")
        layers = [os.path.abspath(layer) for layer in self.layers(key)]
        if len(layers) == 1:
            how = "ro" if info.kind == "view" else "rw"
            return (Mount("bind", layers[0], ("rbind", how)),)
        lower = layers if info.kind == "view" else layers[1:]
        options = [f"lowerdir={':'.join(map(_escaped, lower))}"]
        if info.kind == "active":
            work = os.path.join(os.path.dirname(layers[0]), "work")
            options += [f"upperdir={_escaped(layers[0])}", f"workdir={_escaped(work)}"]
        if not (Policy.of_process().privileged and in_first_namespace()):
            options.append("userxattr")
        if len(os.fsencode(",".join(options))) > _MAX_OPTIONS:
            raise StoreError(
                key,
                f"{len(lower)} layers are more than one mount takes; use a root with --snapshotter native",
            )
        return (Mount("overlay", "overlay", tuple(options)),)

    def usage(self, key: str, check: Callable[[], object] = nothing) -> Usage:
        """Entries and bytes of its own layer. Raises StoreError."""
        folder = self.path(key)
        try:
            return tree_usage(folder, check)
        except OSError as error:
            raise failure(str(folder), error) from error


def _escaped(path: str) -> str:
    """Colons part directories, commas part options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
