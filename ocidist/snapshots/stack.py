"""A layer that was extracted apart becomes the upper one of a stack, as overlay mounts want it: its marks become whiteouts.

Source: Documentation/filesystems/overlayfs.rst of Linux 6.7, "whiteouts and opaque directories".
"""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path
from typing import Iterator

from ocidist.layers.apply.contained import CREATE, Directory, Tree
from ocidist.layers.tar.records import Member
from ocidist.scope import Scope
from ocidist.snapshots.apart import Marks, bring, require_fitting
from ocidist.snapshots.copying import copy_metadata
from ocidist.trees.directory import FOLDER, DirectoryReader
from ocidist.trees.protocols import Reader
from ocidist.trees.rootless import in_first_namespace
from ocidist.trees.stacked import OPAQUE, WHITEOUT

__all__ = ["stack"]


def stack(root: Path, lower: Reader, marks: Marks, privileged: bool, scope: Scope, layer: str) -> None:
    """Settle the ``layer`` extracted at ``root`` over ``lower``. ``privileged`` chooses the kernel's attributes.

    Raises NeedsOrder, before anything is changed; LayerError, LimitExceeded, the scope's end; OSErrors come as they are.
    """
    require_fitting(marks, lower, scope)
    if b"" in marks.opaque:  # a mount doesn't look at the attribute of a layer's root
        del marks.opaque[b""]
        marks.hidden.update((b"/" + name, None) for name in lower.names(b"", scope.check))
    settling = _Settling(root, lower, marks, privileged, scope, layer)
    try:
        settling.write_marks()
    finally:
        settling.tree.close()
    with closing(DirectoryReader(root)) as reader:
        for real in sorted(marks.implied, reverse=True):
            scope.check()
            found = marks.beneath(lower, real)
            if found is None or not stat.S_ISDIR(found.mode):
                continue
            try:
                if stat.S_ISDIR(reader.stat(real[1:]).mode):
                    copy_metadata(lower, real[1:], found, reader.folder(real[1:]), privileged)
            except (
                FileNotFoundError,
                NotADirectoryError,
            ):  # an entry took its place, or it was removed again
                continue


class _Settling:
    """The marks of one layer, and a Settler for the directories that are brought up on the way to them."""

    def __init__(
        self, root: Path, lower: Reader, marks: Marks, privileged: bool, scope: Scope, layer: str
    ) -> None:
        self._lower, self._marks, self._privileged, self._scope = lower, marks, privileged, scope
        self._space = "trusted." if privileged and in_first_namespace() else "user."
        self.tree = Tree(root, layer, self, scope)

    def write_marks(self) -> None:
        for real in self._each(self._marks.opaque):
            at = self.tree.exactly(real)
            if at is not None:
                self._set(at.fd, OPAQUE, b"y")
        for real in self._each(self._marks.hidden):
            if not self._marks.covers(real):  # a whiteout where nothing is beneath is listed by the kernel
                self._hide(real)

    def _each(self, marks: dict[bytes, None]) -> Iterator[bytes]:
        for real in marks:
            self._scope.check()
            self.tree.member = real[1:]
            self.tree.entries += 1
            yield real

    def _hide(self, real: bytes) -> None:
        try:
            self._lower.stat(real[1:])
        except (FileNotFoundError, NotADirectoryError):
            return
        above, _, name = real.rpartition(b"/")
        at = self.tree.exactly(above)
        if at is None:  # another entry took its directory's place
            return
        try:
            mode = os.stat(name, dir_fd=at.fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            self._white_out(at, name)
            return
        if stat.S_ISDIR(mode):
            fd = os.open(name, FOLDER, dir_fd=at.fd)
            try:
                self._set(fd, OPAQUE, b"y")
            finally:
                os.close(fd)

    def _white_out(self, at: Directory, name: bytes) -> None:
        try:
            # A device of this number may be made by every user (since Linux 5.8).
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=at.fd)
        except PermissionError:
            fd = os.open(name, CREATE, 0o600, dir_fd=at.fd)
            try:
                self._set(fd, WHITEOUT, b"y")
            finally:
                os.close(fd)
            if at.real not in self._marks.opaque:
                self._set(at.fd, OPAQUE, b"x")

    def _set(self, fd: int, name: str, value: bytes) -> None:
        os.setxattr(fd, self._space + name, value)

    # -- Settler --

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        found = self._marks.beneath(self._lower, at.real + b"/" + name)
        if found is None or not stat.S_ISDIR(found.mode):
            return False
        bring(self._lower, found, at, name, self._privileged, self._scope)
        return True

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        raise AssertionError("nothing is archived here")

    def implied(self, fd: int) -> None:
        raise AssertionError("nothing is made here")

    def replaced(self, real: bytes) -> None:
        raise AssertionError("nothing is put here")
