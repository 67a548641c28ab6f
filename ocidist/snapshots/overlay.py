"""Snapshots for overlay mounts: each layer is a directory of its own, shared by all images that have it.

``committed/…/fs`` is what one layer adds, with whiteouts as the kernel wants them; a chain of parents makes a tree.
``active/…/{fs,work}`` are the upper and the work directory of a mount. Nothing here mounts: :meth:`mounts` says how.
As root the kernel's attributes are ``trusted.overlay.*``, for others and in user namespaces ``user.overlay.*`` (mount option
userxattr, Linux 5.11).

Source: Documentation/filesystems/overlayfs.rst of Linux.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Callable, Iterator, Sequence

from ocidist.content.disk import failure, place_of
from ocidist.errors import StoreError
from ocidist.layers.apply.policy import Policy
from ocidist.scope import Scope
from ocidist.snapshots.apart import Marks, Over
from ocidist.snapshots.copying import copy_metadata
from ocidist.snapshots.folders import FolderSnapshotter
from ocidist.snapshots.protocols import Mount, Site
from ocidist.snapshots.removal import remove_tree
from ocidist.snapshots.stack import stack
from ocidist.trees.directory import FOLDER, DirectoryReader
from ocidist.trees.rootless import in_first_namespace
from ocidist.trees.stacked import StackedReader

__all__ = ["OverlaySnapshotter"]

_MAX_OPTIONS = 4095  # bytes: a page, and its end


class OverlaySnapshotter(FolderSnapshotter):
    """A Snapshotter over directories that the kernel stacks."""

    name = "overlay"

    def _fill(self, folder: Path, parent: str, kind: str, scope: Scope) -> None:
        if kind == "active":
            os.mkdir(folder / "work", 0o700)
            if parent:  # the root of the mount is the upper directory: it looks like the one beneath
                self._like(self._committed_path(parent), folder / "fs")

    def commit(self, name: str, key: str, parent: str = "") -> None:
        """As FolderSnapshotter.commit; the work directory of the mount is removed."""
        if self.stat(key).kind == "active":
            work = self.path(key).parent / "work"
            try:
                remove_tree(work)
            except OSError as error:
                raise failure(str(work), error) from error
        super().commit(name, key, parent)

    def _like(self, lower: Path, upper: Path) -> None:
        with closing(DirectoryReader(lower)) as source:
            fd = os.open(upper, FOLDER)
            try:
                copy_metadata(source, b"", source.stat(b""), fd, Policy.of_process().privileged)
            finally:
                os.close(fd)

    def kept(self, chains: Sequence[str]) -> Sequence[str]:
        """Return all: each layer is the parent of the next."""
        return chains

    def site(self, key: str, parent: str, scope: Scope) -> Site:
        """Begin a layer to stand on ``parent``, which need not be there yet."""
        return _Layer(self, self.begin(key, scope=scope), parent)

    def layers(self, key: str) -> list[Path]:
        """Return the directories that a snapshot's tree is made of, the uppermost first. Raises StoreError."""
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

    def dependents(self, key: str) -> list[str]:
        """Return the keys of active snapshots and views that stand on the committed ``key``, also over others."""
        every = list(self.walk())
        parents = {info.key: info.parent for info in every if info.kind == "committed"}
        found = []
        for info in every:
            above, seen = info.parent if info.kind != "committed" else "", set[str]()
            while above and above != key and above not in seen:
                seen.add(above)
                above = parents.get(above, "")
            if above == key:
                found.append(info.key)
        return found

    def reader(self, key: str) -> StackedReader:
        """Open a snapshot's whole tree for reading. Raises StoreError."""
        layers = self.layers(key)
        try:
            return StackedReader(layers)
        except OSError as error:
            raise failure(place_of(error, str(layers[0])), error) from error

    def mounts(self, key: str) -> Sequence[Mount]:
        """Return an overlay mount; a bind mount where there is only one layer. Raises StoreError."""
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


class _Layer:
    """A Site: the layer is extracted into the snapshot, and stands on its parent's tree."""

    def __init__(self, snapshots: OverlaySnapshotter, root: Path, parent: str) -> None:
        self.root, self._snapshots, self._parent = root, snapshots, parent
        self._privileged = Policy.of_process().privileged

    def is_lowest(self, number: int) -> bool:
        return not self._parent

    def place(self, number: int) -> Path:
        return self.root

    @contextmanager
    def over(self, number: int, scope: Scope, count: Callable[[int], object]) -> Iterator[Over]:
        with closing(self._snapshots.reader(self._parent)) as lower:
            yield Over(lower, self._privileged, scope, count=count)

    def settle(self, number: int, marks: Marks, scope: Scope, layer: str) -> None:
        if self._parent:
            with closing(self._snapshots.reader(self._parent)) as lower:
                stack(self.root, lower, marks, self._privileged, scope, layer)


def _escaped(path: str) -> str:
    """Escape the colons that separate directories and the commas that separate options."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
