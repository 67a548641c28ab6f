"""A tree as it is read: one directory at a time, by descriptor, without following a link.

Paths are bytes relative to the root, ``b""`` for the root itself. A directory that another process swaps for a
link meanwhile is refused by the kernel, so that a tree in use never leads out of itself.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

__all__ = ["Reader", "TreeReader"]

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER = _FLAGS | getattr(os, "O_DIRECTORY", 0)
# A FIFO put in a file's place must not stop us.
_FILE = _FLAGS | getattr(os, "O_NONBLOCK", 0)
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENOSYS})


class Reader(Protocol):
    """A tree that can be read, wherever its parts lie. OSErrors come as they are."""

    def list(self, path: bytes) -> dict[bytes, os.stat_result]:
        """The names in a directory with what they are."""
        ...

    def stat(self, path: bytes) -> os.stat_result:
        """What an entry is; a link is not followed."""
        ...

    def readlink(self, path: bytes) -> bytes: ...

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes, but for those that belong to the host or to overlay mounts."""
        ...

    def open(self, path: bytes) -> int:
        """A descriptor of a regular file, to be closed by the caller."""
        ...

    def close(self) -> None: ...


class TreeReader:
    """A Reader of a plain directory. The directory used last stays open."""

    def __init__(self, root: Path | str) -> None:
        self._root = os.open(root, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
        self._path = b""
        self._fd = self._root

    def close(self) -> None:
        """Let go of the descriptors. Idempotent."""
        for fd in {self._fd, self._root}:
            if fd >= 0:
                os.close(fd)
        self._fd = self._root = -1

    def folder(self, path: bytes) -> int:
        """A descriptor of the directory ``path``, valid until the next call."""
        if path == self._path:
            return self._fd
        fd = self._root
        try:
            for part in path.split(b"/") if path else ():
                inner = os.open(part, _FOLDER, dir_fd=fd)
                if fd != self._root:
                    os.close(fd)
                fd = inner
        except BaseException:
            if fd != self._root:
                os.close(fd)
            raise
        if self._fd != self._root:
            os.close(self._fd)
        self._path, self._fd = path, fd
        return fd

    def list(self, path: bytes) -> dict[bytes, os.stat_result]:
        fd = self.folder(path)
        with os.scandir(fd) as entries:
            return {os.fsencode(entry.name): entry.stat(follow_symlinks=False) for entry in entries}

    def stat(self, path: bytes) -> os.stat_result:
        if not path:
            return os.fstat(self._root)
        above, _, name = path.rpartition(b"/")
        return os.stat(name, dir_fd=self.folder(above), follow_symlinks=False)

    def readlink(self, path: bytes) -> bytes:
        above, _, name = path.rpartition(b"/")
        return os.readlink(name, dir_fd=self.folder(above))

    def open(self, path: bytes) -> int:
        above, _, name = path.rpartition(b"/")
        return os.open(name, _FILE, dir_fd=self.folder(above))

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return {
            name: value
            for name, value in self.raw_xattrs(path).items()
            if name != b"security.selinux" and not name.startswith((b"trusted.overlay.", b"user.overlay."))
        }

    def raw_xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """All of them; none where the system or the file system has none."""
        if not hasattr(os, "listxattr"):
            return {}
        above, _, name = path.rpartition(b"/")
        # There is no call for a name in a directory; the one component behind the descriptor isn't followed.
        where = b"/proc/self/fd/%d/%s" % (self.folder(above), name or b".")
        try:
            names = os.listxattr(where, follow_symlinks=False)
            return {
                os.fsencode(each): os.getxattr(where, each, follow_symlinks=False) for each in sorted(names)
            }
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return {}
            raise
