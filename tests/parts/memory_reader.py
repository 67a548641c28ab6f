"""A Reader in memory, and the content of a file of any Reader."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing
from dataclasses import dataclass, field
from typing import Callable, Iterator

from ocidist.scope import no_check
from ocidist.trees.protocols import Entry, FileBody, Reader


def content(reader: Reader, path: bytes) -> bytes:
    """All bytes of a regular file."""
    with closing(reader.open(path)) as body:
        data = bytearray(body.size)
        view = memoryview(data)
        while view and (count := body.readinto(view)):
            view = view[count:]
    return bytes(data)


class MemoryBody:
    """A FileBody without holes."""

    start, host = 0, ""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self.size = data, 0, len(data)

    def readinto(self, buffer: memoryview) -> int:
        piece = self._data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def next_data(self, offset: int) -> int:
        return offset

    def seek(self, offset: int) -> object:
        self._at = offset
        return offset

    def copy_to(self, target: int, check: Callable[[], object] = no_check) -> None:
        check()
        os.write(target, self._data)

    def close(self) -> None: ...


@dataclass
class MemoryReader:
    """Directories are the paths that lead to others. ``same`` names of one file are given as path -> first path."""

    files: dict[bytes, tuple[Entry, bytes]]
    attributes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)

    def entries(self, path: bytes, check: Callable[[], object] = no_check) -> Iterator[tuple[bytes, Entry]]:
        for name in self.names(path, check):
            yield name, self.stat(path + b"/" + name if path else name)

    def names(self, path: bytes, check: Callable[[], object] = no_check) -> list[bytes]:
        check()
        if path and not stat.S_ISDIR(self.stat(path).mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        inside = path + b"/" if path else b""
        found = (each[len(inside) :] for each in self.files if each.startswith(inside))
        return sorted({each for each in found if each and b"/" not in each})

    def stat(self, path: bytes) -> Entry:
        return self._find(path)[0]

    def readlink(self, path: bytes) -> bytes:
        entry, data = self._find(path)
        if not stat.S_ISLNK(entry.mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return data

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return dict(self.attributes.get(path, {}))

    def open(self, path: bytes) -> FileBody:
        entry, data = self._find(path)
        if not stat.S_ISREG(entry.mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return MemoryBody(data)

    def close(self) -> None: ...

    def _find(self, path: bytes) -> tuple[Entry, bytes]:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.files[path]
