"""A tree as it is read: one directory at a time, by descriptor, without following a link.

Paths are bytes relative to the root, ``b""`` for the root itself. A directory that another process swaps for a
link meanwhile is refused by the kernel, so that a tree in use never leads out of itself.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from pathlib import Path
from typing import Callable, Iterator

from ocidist.scope import no_check
from ocidist.trees.local_file import LocalFile
from ocidist.trees.protocols import Entry
from ocidist.trees.rootless import ATTRIBUTE, in_first_namespace, owner_as_meant

__all__ = ["FOLDER", "PATH_ONLY", "DirectoryReader", "of_host", "on_disk", "shared"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
FOLDER = _FLAGS | getattr(os, "O_DIRECTORY", 0)
# A FIFO put in a file's place must not stop us.
_FILE = _FLAGS | getattr(os, "O_NONBLOCK", 0)
# An entry itself, without opening it: opening devices and FIFOs has effects.
PATH_ONLY = (_FLAGS | os.O_PATH) if hasattr(os, "O_PATH") else _FILE
_MARK = frozenset({os.fsdecode(ATTRIBUTE)})
_DEVICES = hasattr(os.stat_result, "st_rdev")
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENOSYS})


class DirectoryReader:
    """A Reader of a plain directory, by its path or a descriptor of it (which stays the caller's).

    The directories on the way to the one used last stay open, the ``keep`` innermost of them, so that neither depth
    nor length of a path limits anything.
    """

    def __init__(self, root: Path | str | int, keep: int = 32) -> None:
        self._root = (
            os.dup(root) if isinstance(root, int) else os.open(root, FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
        )
        self._keep = keep
        self._is_root = not hasattr(os, "geteuid") or (os.geteuid() == 0 and in_first_namespace())
        self._path, self._fd = b"", self._root
        self._inmost = b""  # the path of the innermost directory that is open
        self._fds = [self._root]  # on the way to it, the root's first; -1 for one that was let go

    def close(self) -> None:
        """Let go of the descriptors. Idempotent."""
        self._let_go(0)
        if self._root >= 0:
            os.close(self._root)
        self._root = self._fd = self._fds[0] = -1

    def _let_go(self, depth: int) -> None:
        """Close all that is deeper."""
        for fd in self._fds[depth + 1 :]:
            if fd >= 0:
                os.close(fd)
        del self._fds[depth + 1 :]

    def folder(self, path: bytes) -> int:
        """A descriptor of the directory ``path``, valid until the next call."""
        if path == self._path:
            return self._fd
        parts = path.split(b"/") if path else []
        depth = shared(self._inmost, path)
        if depth < len(parts) or self._fds[depth] < 0:
            while self._fds[depth] < 0:
                depth -= 1
            self._path, self._fd = b"", self._root
            self._let_go(depth)
            try:
                for part in parts[depth:]:
                    self._fds.append(os.open(part, FOLDER, dir_fd=self._fds[-1]))
                    away = len(self._fds) - 1 - self._keep
                    if away > 0 and self._fds[away] >= 0:
                        os.close(self._fds[away])
                        self._fds[away] = -1
            finally:
                self._inmost = b"/".join(parts[: len(self._fds) - 1])
        self._path, self._fd = path, self._fds[len(parts)]
        return self._fd

    def entries(self, path: bytes, check: Callable[[], object] = no_check) -> Iterator[tuple[bytes, Entry]]:
        above = path + b"/" if path else b""
        for name, info in self.scan(path, check):
            yield name, self.entry(above + name, info)

    def scan(
        self, path: bytes, check: Callable[[], object] = no_check
    ) -> Iterator[tuple[bytes, os.stat_result]]:
        """As :meth:`entries`, yielding what the file system says."""
        with os.scandir(self.folder(path)) as found:
            for number, entry in enumerate(found):
                if not number % 1000:
                    check()
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # removed meanwhile
                    continue
                yield os.fsencode(entry.name), info

    def names(self, path: bytes, check: Callable[[], object] = no_check) -> list[bytes]:
        found: list[bytes] = []
        with os.scandir(self.folder(path)) as entries:
            for entry in entries:
                if not len(found) % 1000:
                    check()
                found.append(os.fsencode(entry.name))
        found.sort()
        return found

    def stat(self, path: bytes) -> Entry:
        return self.entry(path, self.lstat(path))

    def lstat(self, path: bytes) -> os.stat_result:
        """As :meth:`stat`, returning what the file system says."""
        if not path:
            return os.fstat(self._root)
        above, _, name = path.rpartition(b"/")
        return os.stat(name, dir_fd=self.folder(above), follow_symlinks=False)

    def readlink(self, path: bytes) -> bytes:
        above, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.folder(above))

    def entry(self, path: bytes, info: os.stat_result) -> Entry:
        """Return what an entry is of which the file system says ``info``."""
        return Entry(
            info.st_mode,
            info.st_size,
            info.st_mtime_ns,
            partial(self._owner, path, info)
            if self._may_be_marked(info)
            else owner_as_meant(info.st_uid, info.st_gid),
            (info.st_dev, info.st_ino),
            info.st_nlink,
            info.st_rdev if _DEVICES else 0,
            on_disk(info),
        )

    def _owner(self, path: bytes, info: os.stat_result) -> tuple[int, int]:
        return owner_as_meant(info.st_uid, info.st_gid, self._xattrs(path, _MARK).get(ATTRIBUTE))

    def _may_be_marked(self, info: os.stat_result) -> bool:
        """Whether the owner may be written beside an entry: to root's own entries root gave the right one."""
        if self._is_root and not info.st_uid:
            return False
        return stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)

    def open(self, path: bytes) -> LocalFile:
        above, _, name = path.rpartition(b"/")
        at = self.folder(above)
        try:
            fd = os.open(name, _FILE, dir_fd=at)
        except PermissionError:
            fd = _open_own(name, at)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):  # another process put it there: a device is not to be read
            os.close(fd)
            raise OSError(errno.EINVAL, "no longer a regular file", os.fsdecode(path))
        return LocalFile(fd, info.st_size)

    def xattrs(self, path: bytes, also: tuple[bytes, ...] = ()) -> dict[bytes, bytes]:
        """As :meth:`Reader.xattrs`; and those of the host's that end in one of ``also``."""
        found = self.raw_xattrs(path)
        if ATTRIBUTE in found and self._may_be_marked(self.lstat(path)):
            del found[ATTRIBUTE]
        return {
            name: value
            for name, value in found.items()
            if not of_host(name) or (also and name.endswith(also))
        }

    def raw_xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Return all of them; none where the system or the file system has none."""
        return self._xattrs(path, None)

    def _xattrs(self, path: bytes, wanted: frozenset[str] | None) -> dict[bytes, bytes]:
        if not hasattr(os, "listxattr"):
            return {}
        above, _, name = path.rpartition(b"/")
        # There is no call for a name in a directory; the one component behind the descriptor isn't followed.
        where = b"/proc/self/fd/%d/%s" % (self.folder(above), name or b".")
        try:
            names = os.listxattr(where, follow_symlinks=False)
            if not names:
                return {}
            return {
                os.fsencode(each): os.getxattr(where, each, follow_symlinks=False)
                for each in sorted(names)
                if wanted is None or each in wanted
            }
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return {}
            raise


def of_host(name: bytes) -> bool:
    """Whether an extended attribute belongs to the host or to overlay mounts, not to an image."""
    return name == b"security.selinux" or name.startswith((b"trusted.overlay.", b"user.overlay."))


def on_disk(found: os.stat_result) -> int:
    """Return the bytes set aside for a file; its size on a system that doesn't tell."""
    blocks = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else int(blocks) * 512


def shared(one: bytes, other: bytes) -> int:
    """How many components two paths have in common from their beginning."""
    above = other
    while above:
        if one.startswith(above) and one[len(above) : len(above) + 1] in (b"", b"/"):
            return above.count(b"/") + 1
        above = above.rpartition(b"/")[0]
    return 0


def _open_own(name: bytes, at: int) -> int:
    """A file that its owner, who asks, may not read by its mode: /etc/shadow often is 0000. Raises PermissionError."""
    held = os.open(name, PATH_ONLY, dir_fd=at)
    try:
        info = os.fstat(held)
        own = hasattr(os, "geteuid") and info.st_uid == os.geteuid()
        if not own or not stat.S_ISREG(info.st_mode) or info.st_mode & 0o400:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(name))
        itself = f"/proc/self/fd/{held}"
        os.chmod(itself, stat.S_IMODE(info.st_mode) | 0o400)
        try:
            return os.open(itself, _FILE & ~getattr(os, "O_NOFOLLOW", 0))
        finally:
            os.chmod(itself, stat.S_IMODE(info.st_mode))
    finally:
        os.close(held)
