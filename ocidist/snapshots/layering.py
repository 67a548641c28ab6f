"""A layer applied to a directory of its own, over layers that stand beneath it: what overlay mounts want.

What the archive needs of the layers beneath is brought up (the directories that lead to its entries, symlinks on
the way, targets of hardlinks). Whiteouts become what the kernel takes for them, once all entries are in place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Callable, Collection, Sequence

from ocidist.files import forget_acls
from ocidist.layers.apply.apart import Mark, ways
from ocidist.layers.apply.contained import Directory, Tree
from ocidist.layers.apply.policy import in_first_namespace
from ocidist.layers.apply.space import require
from ocidist.layers.tar.records import Member
from ocidist.scope import Scope
from ocidist.snapshots.whole_trees import copy_entry, copy_metadata
from ocidist.trees.directory import Reader, TreeReader
from ocidist.trees.stacked import OPAQUE, WHITEOUT

__all__ = ["NeedsOrder", "Over", "settle"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Over:
    """A Layering over the tree ``lower`` (None: over nothing). ``privileged`` chooses the kernel's attributes.

    What is copied up ends with ``scope``, and where the disk gets full; ``count`` hears of the bytes of each file before it
    is copied.
    """

    def __init__(
        self,
        lower: Reader | None,
        privileged: bool,
        scope: Scope,
        count: Callable[[int], object] | None = None,
    ) -> None:
        self._lower, self._scope, self._count = lower, scope, count
        self._privileged = privileged
        self._space = "trusted." if privileged and in_first_namespace() else "user."
        self._hidden: dict[bytes, None] = {}  # real paths, in order
        self._opaque: dict[bytes, None] = {}
        self._marked: set[bytes] = set()  # directories that hold whiteouts by attribute

    @property
    def in_place(self) -> bool:
        """Also where all that is beneath is empty."""
        if self._lower is None:
            return True
        return next(self._lower.entries(b"", self._scope.check), None) is None

    # -- while the archive is applied --

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        at = tree.at(parent, create=False)
        if at is None:
            return
        real = at.real + b"/" + name
        if self._beneath(real) is not None:
            self._hidden[real] = None
        tree.hide(at, name, own)

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        at = tree.at(parent, create=False)
        if at is None:
            return
        if at.real:
            self._opaque[at.real] = None
        elif self._lower is not None:  # a mount doesn't look at the attribute of a layer's root
            self._hidden.update((b"/" + name, None) for name in self._lower.names(b"", self._scope.check))
        tree.empty(at, own)

    def bring_up(self, at: Directory, name: bytes) -> bool:
        real = at.real + b"/" + name
        found = self._beneath(real)
        if found is None or self._lower is None:
            return False
        if stat.S_ISREG(found.st_mode):  # without its holes
            taken = getattr(found, "st_blocks", 0) * 512
            if self._count is not None:
                self._count(taken)
            require(at.fd, os.fsdecode(real), taken, self._scope.limits, "a copy of it in the layer")
        copy_entry(self._lower, real[1:], found, name, at.fd, self._privileged, self._scope.check)
        if at.inherits:
            forget_acls(b"/proc/self/fd/%d/%s" % (at.fd, name), self._lower.xattrs(real[1:]))
        return True

    def replaced(self, real: bytes) -> None:
        if self._beneath(real) is not None:
            self._hidden[real] = None  # also from what comes: links may lead there again

    def described(self, real: bytes) -> None:
        pass

    def require_no_link(self, marks: Sequence[Mark], implied: Collection[bytes]) -> None:
        """Raise NeedsOrder where what leads to whiteouts, or to entries of the layer, is a link beneath."""
        if self._lower is None:
            return
        for _, info in ways(self._lower, marks, implied, self._scope.check):
            if stat.S_ISLNK(info.st_mode):
                raise NeedsOrder

    def look_like_beneath(self, path: bytes, fd: int) -> None:
        """Give a directory that no entry describes the metadata that it has beneath."""
        found = self._beneath(b"/" + path if path else b"")
        if found is None or not stat.S_ISDIR(found.st_mode):
            return
        assert self._lower is not None
        copy_metadata(self._lower, path, found, fd, self._privileged)

    def _beneath(self, real: bytes) -> os.stat_result | None:
        """What the layers beneath have at a real path, unless this layer hides it."""
        if self._lower is None or real in self._hidden or self._covered(real):
            return None
        try:
            return self._lower.stat(real[1:])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _covered(self, real: bytes) -> bool:
        """Whether this layer hides what the directories above it have beneath."""
        while real:
            real = real.rpartition(b"/")[0]
            if real in self._hidden or real in self._opaque:
                return True
        return False

    # -- at its end --

    def finish(self, tree: Tree) -> None:
        for real in self._opaque:
            self._scope.check()
            at = tree.exactly(real)
            if at is not None:
                self._set(at.fd, OPAQUE, b"y")
        for real in self._hidden:
            self._scope.check()
            if self._covered(real):  # a whiteout where nothing is beneath is listed by the kernel
                continue
            above, _, name = real.rpartition(b"/")
            at = tree.exactly(above)
            if at is None:  # another entry took its directory's place
                continue
            try:
                mode = os.stat(name, dir_fd=at.fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                self._white_out(at, name)
                continue
            if stat.S_ISDIR(mode):
                fd = os.open(name, _FOLDER, dir_fd=at.fd)
                try:
                    self._set(fd, OPAQUE, b"y")
                finally:
                    os.close(fd)

    def _white_out(self, at: Directory, name: bytes) -> None:
        try:
            # A device of this number may be made by every user (since Linux 5.8).
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=at.fd)
        except PermissionError:
            fd = os.open(name, _NEW, 0o600, dir_fd=at.fd)
            try:
                self._set(fd, WHITEOUT, b"y")
            finally:
                os.close(fd)
            if at.real not in self._opaque:
                self._set(at.fd, OPAQUE, b"x")

    def _set(self, fd: int, name: str, value: bytes) -> None:
        os.setxattr(fd, self._space + name, value)


# -- a layer that was extracted before those beneath it were known --


class NeedsOrder(Exception):
    """A directory that the layer implies, or that a whiteout of it is in, is a symlink beneath: what is in it belongs
    elsewhere, and where depends on the entries before it."""


class _Lower:
    """A Settler for directories that are ``brought`` up on the way to a whiteout: real paths of them, and of links."""

    def __init__(self, over: Over) -> None:
        self._over = over
        self.brought: set[bytes] = set()

    def bring_up(self, at: Directory, name: bytes) -> bool:
        found = self._over.bring_up(at, name)
        if found:
            self.brought.add(at.real + b"/" + name)
        return found

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        raise AssertionError("nothing is archived here")

    def implied(self, fd: int) -> None:
        os.chmod(fd, 0o755)

    def replaced(self, real: bytes) -> None:
        raise AssertionError("nothing is put here")


def settle(
    root: Path, marks: Sequence[Mark], implied: Collection[bytes], over: Over, scope: Scope, layer: str
) -> None:
    """Make of a tree that was extracted apart what ``over`` would have made of it.

    Raises NeedsOrder where that can't be, LayerError, LimitExceeded, the scope's end; OSErrors come as they are.
    """
    lower = _Lower(over)
    tree = Tree(root, layer, lower, scope)

    def own(real: bytes) -> bool:
        return real not in lower.brought

    try:
        over.require_no_link(marks, implied)
        for tree.entries, mark in enumerate(marks):
            scope.check()
            tree.member = mark.parent + b"/" + mark.name
            if mark.name:
                over.whiteout(tree, mark.parent, mark.name, own)
            else:
                over.opaque(tree, mark.parent, own)
        over.finish(tree)
    finally:
        tree.close()
    reader = TreeReader(root)
    try:
        for path in sorted(implied, reverse=True):
            scope.check()
            try:
                if stat.S_ISDIR(reader.stat(path).st_mode):
                    over.look_like_beneath(path, reader.folder(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
    finally:
        reader.close()
