"""A tree of files as it is read: what a Reader says of its entries, and the bytes of its files.

Paths are bytes relative to the root, ``b""`` for the root itself. No link is followed. OSErrors come as they are.
"""

from __future__ import annotations

import stat
from typing import Callable, Hashable, Iterator, Protocol

from ocidist.content.protocols import Body
from ocidist.scope import no_check

__all__ = ["Entry", "FileBody", "Reader"]

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


Owner = tuple[int, int]


class Entry:
    """What an entry is. ``uid`` and ``gid`` are the owner as meant, also where an ordinary user could not give it.

    ``mode`` has the type's bits, ``size`` is in bytes, ``disk`` the bytes set aside for them, ``mtime`` in nanoseconds
    since the epoch, ``device`` as os.makedev makes it. ``links`` counts the names of a file. Entries of equal
    ``identity``, in this tree or in another, are one file.

    ``owner`` is (uid, gid), or a function that reads them when they are asked for, which costs a directory's reader a
    system call: ask while the reader is open.
    """

    __slots__ = ("_owner", "device", "disk", "identity", "links", "mode", "mtime", "size")

    def __init__(
        self,
        mode: int,
        size: int,
        mtime: int,
        owner: Owner | Callable[[], Owner],
        identity: tuple[Hashable, ...],
        links: int = 1,
        device: int = 0,
        disk: int = 0,
    ) -> None:
        self.mode = mode
        self.size = size
        self.mtime = mtime
        self.identity = identity
        self.links = links
        self.device = device
        self.disk = disk
        self._owner = owner

    @property
    def owner(self) -> Owner:
        """(uid, gid). Raises OSError."""
        if callable(self._owner):
            self._owner = self._owner()
        return self._owner

    @property
    def uid(self) -> int:
        return self.owner[0]

    @property
    def gid(self) -> int:
        return self.owner[1]

    @property
    def type(self) -> str:
        """The type in a word."""
        return _TYPES.get(stat.S_IFMT(self.mode), "unknown")


class FileBody(Body, Protocol):
    """The bytes of a regular file, from its beginning on."""

    @property
    def size(self) -> int: ...

    def next_data(self, offset: int) -> int:
        """Return where data begins at ``offset`` or behind it; ``size`` if a hole reaches up to the end."""
        ...

    def seek(self, offset: int) -> object:
        """Read from ``offset`` on next. It is not before the place reached: a layer's stream goes forward alone."""
        ...

    def copy_to(self, target: int, check: Callable[[], object] = no_check) -> None:
        """Write the whole file, before anything of it is read, to the empty one open as ``target``, at its start.

        Holes stay holes, and blocks are shared where that is possible. ``check`` may end it.
        """
        ...


class Reader(Protocol):
    """A tree that can be read, wherever its parts lie."""

    def entries(self, path: bytes, check: Callable[[], object] = no_check) -> Iterator[tuple[bytes, Entry]]:
        """Yield the names in a directory with what they are, in no order, keeping none: it may hold a million.

        ``check`` is called for the first and each thousandth. The same directory is not to be read meanwhile.
        """
        ...

    def names(self, path: bytes, check: Callable[[], object] = no_check) -> list[bytes]:
        """Return the names in a directory, sorted. ``check`` is called as for ``entries``."""
        ...

    def stat(self, path: bytes) -> Entry: ...

    def readlink(self, path: bytes) -> bytes: ...

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Return the extended attributes, but for the host's, for those of overlay mounts and for a mark of the owner."""
        ...

    def open(self, path: bytes) -> FileBody:
        """Open a regular file. Raises OSError for anything else."""
        ...

    def close(self) -> None: ...
