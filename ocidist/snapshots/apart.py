"""A layer extracted into an empty directory of its own, with marks of what it does to the tree beneath.

Every layer but the lowest comes to its place in two steps: it is extracted apart, then settled over its parent by the marks
(``merge`` for one tree of all layers, ``stack`` for overlay mounts). :class:`Apart` extracts before the tree beneath is
known, in a process of its own; :class:`Over` knows it.

What a layer comes to depends on the tree beneath in two things alone. One is where a path leads that goes through
directories which the layer itself doesn't have: Apart takes them for directories and notes them as ``assumed``. Where
one of them turns out to be a symlink beneath, the layer is extracted once more, Over its parent. The other is
the target of a hardlink that is not in the layer: that is seen at once.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Callable

from ocidist.errors import LayerError
from ocidist.files import forget_acls
from ocidist.layers.apply import links
from ocidist.layers.apply.contained import Directory, Tree
from ocidist.layers.apply.space import require
from ocidist.scope import Scope
from ocidist.snapshots.copying import copy_entry
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.protocols import Entry, Reader

__all__ = ["Apart", "Marks", "NeedsOrder", "Over", "require_fitting"]

MOST = 8 << 20
"""Bytes of marks of a layer whose parent is unknown. One with more of them is extracted over its parent, where only those
are noted that hide something."""

_EACH = 64  # bytes around a name


class NeedsOrder(Exception):
    """A path of the layer leads through a symlink beneath."""


@dataclass
class Marks:
    """Real paths (without links; ``b""`` is the root, ``b"/usr/lib"``), in the order of the archive.

    Of the tree beneath, ``hidden`` paths are gone, and so is all that ``opaque`` directories hold. ``implied``
    directories of the layer, which no entry describes, look as they do beneath. No ``assumed`` path is a symlink beneath.
    """

    hidden: dict[bytes, None] = field(default_factory=dict)
    opaque: dict[bytes, None] = field(default_factory=dict)
    implied: dict[bytes, None] = field(default_factory=dict)
    assumed: dict[bytes, None] = field(default_factory=dict)

    def hides(self, real: bytes) -> bool:
        """Whether the layer hides what is beneath at a path."""
        return real in self.hidden or self.covers(real)

    def covers(self, real: bytes) -> bool:
        """Whether the layer hides what the directories above a path hold beneath."""
        while real:
            real = real.rpartition(b"/")[0]
            if real in self.hidden or real in self.opaque:
                return True
        return False

    def beneath(self, lower: Reader, real: bytes) -> Entry | None:
        """What ``lower`` has at a path, unless the layer hides it."""
        return None if self.hides(real) else _stat(lower, real)


def _stat(lower: Reader, real: bytes) -> Entry | None:
    try:
        return lower.stat(real[1:])
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_fitting(marks: Marks, lower: Reader, scope: Scope) -> None:
    """Raise NeedsOrder where ``lower`` is not as the layer assumed. OSErrors come as they are, and the scope's end."""
    for real in marks.assumed:
        scope.check()
        info = _stat(lower, real)
        if info is not None and stat.S_ISLNK(info.mode):
            raise NeedsOrder
    # Over an empty tree, whiteouts do nothing.
    if marks.assumed and (marks.hidden or marks.opaque) and is_empty(lower, scope):
        raise NeedsOrder


def is_empty(lower: Reader, scope: Scope) -> bool:
    return next(lower.entries(b"", scope.check), None) is None


class Apart:
    """A Layering over a tree that is not known yet."""

    def __init__(self, privileged: bool) -> None:
        self.marks = Marks(implied={b"": None})
        self._privileged = privileged
        self._size = 0

    @property
    def in_place(self) -> bool:
        return False

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        at, missing = tree.reach(parent)
        self._hide(b"/".join((at.real, *missing, name)))
        if not missing:
            tree.hide(at, name, own)

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        at, missing = tree.reach(parent)
        self._note(self.marks.opaque, b"/".join((at.real, *missing)))
        if not missing:
            tree.empty(at, own)

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        real = at.real + b"/" + name
        if self.marks.hides(real):
            return False
        self._note(self.marks.assumed, real)
        if not create:
            return False
        os.mkdir(name, 0o755, dir_fd=at.fd)
        if at.inherits:
            forget_acls(b"/proc/self/fd/%d/%s" % (at.fd, name))
        if self._privileged:
            os.chown(name, 0, 0, dir_fd=at.fd, follow_symlinks=False)
        os.chmod(name, 0o755, dir_fd=at.fd)
        self._note(self.marks.implied, real)
        return True

    def bring_target(self, at: Directory, name: bytes) -> bool:
        return False  # the caller's error is what has the layer extracted over its parent

    def replaced(self, real: bytes) -> None:
        self._hide(real)  # also from what comes

    def described(self, real: bytes) -> None:
        self.marks.implied.pop(real, None)

    def _hide(self, real: bytes) -> None:
        self._note(self.marks.hidden, real)

    def _note(self, noted: dict[bytes, None], real: bytes) -> None:
        if real not in noted:
            self._size += _EACH + len(real)
            if self._size > MOST:
                raise LayerError("layer", "", "too much of it is about the layers beneath")
            noted[real] = None


class Over(Apart):
    """A Layering over the tree ``lower``: what the archive needs of it is brought up (directories and symlinks on the
    way to its entries, targets of hardlinks).

    ``lower`` is ``linked`` from where both become one tree, else copied: ``count`` is called with the bytes of each
    file before. Copying ends with ``scope``, and where the disk gets full.
    """

    def __init__(
        self,
        lower: Reader,
        privileged: bool,
        scope: Scope,
        *,
        linked: DirectoryReader | None = None,
        count: Callable[[int], object] | None = None,
    ) -> None:
        super().__init__(privileged)
        self._lower, self._scope, self._linked, self._count = lower, scope, linked, count

    @property
    def in_place(self) -> bool:
        return is_empty(self._lower, self._scope)

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        if b"/" in name:  # in what isn't there either
            return False
        found = self.marks.beneath(self._lower, at.real + b"/" + name)
        if found is None or not (stat.S_ISDIR(found.mode) or stat.S_ISLNK(found.mode)):
            return False
        bring(self._lower, found, at, name, self._privileged, self._scope)
        return True

    def bring_target(self, at: Directory, name: bytes) -> bool:
        real = at.real + b"/" + name
        found = self.marks.beneath(self._lower, real)
        if found is None:
            return False
        if stat.S_ISDIR(found.mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if self._linked is not None:
            above = real[1:].rpartition(b"/")[0]
            links.link(name, name, self._linked.folder(above), at.fd)
            return True
        if stat.S_ISREG(found.mode):  # without its holes
            taken = found.disk
            if self._count is not None:
                self._count(taken)
            require(at.fd, os.fsdecode(real), taken, self._scope.limits, "a copy of it in the layer")
        bring(self._lower, found, at, name, self._privileged, self._scope)
        return True

    def _note(self, noted: dict[bytes, None], real: bytes) -> None:
        if noted is not self.marks.hidden or self.marks.beneath(self._lower, real) is not None:
            noted[real] = None


def bring(lower: Reader, found: Entry, at: Directory, name: bytes, privileged: bool, scope: Scope) -> None:
    """Copy what ``lower`` has at ``at/name``; of a directory nothing that is in it."""
    path = (at.real + b"/" + name)[1:]
    copy_entry(lower, path, found, name, at.fd, privileged, scope.check)
    if at.inherits:
        forget_acls(b"/proc/self/fd/%d/%s" % (at.fd, name), lower.xattrs(path))
