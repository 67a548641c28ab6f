"""Looking into an image's tree as a process in it would: links lead to where they lead there, never out.

Each step is one component, and a link is read and walked by hand, absolute ones and ``..`` counting from the tree's
root. What an image puts where a small file is expected (a FIFO, a device, a terabyte of holes, a ring of links) is
refused, not waited for (threat H.71).
"""

from __future__ import annotations

import errno
import stat
from contextlib import closing

from ocidist.errors import BundleError, quoted
from ocidist.trees.protocols import Entry, FileBody, Reader

__all__ = ["MAX_FILE", "Inside"]

MAX_FILE = 4 << 20  # bytes of /etc/passwd or /etc/group; those of large organisations are some 100 kB
_MAX_STEPS = 1000
_MAX_LINKS = 40  # as the kernel's own limit
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Inside:
    """A view of ``tree``. Raises BundleError for what can't be read as what it should be."""

    def __init__(self, tree: Reader) -> None:
        self._tree = tree

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        """The content of a regular file, links to it followed inside the tree; empty if there is none."""
        real, info = self._walk(path)
        if info is None:
            return b""
        if not stat.S_ISREG(info.mode):
            kind = _KINDS.get(stat.S_IFMT(info.mode), "something else")
            raise _refused(path, f"in the image it is {kind}, not a file")
        try:
            with closing(self._tree.open(b"/".join(real))) as source:
                size = source.size
                data = _read(source, size + 1) if size <= limit else b""
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from error
        if size > limit:
            raise _refused(path, f"in the image it has {size} bytes; {limit} are as many as are read")
        return data

    def stat(self, path: str) -> Entry | None:
        """Of what a path leads to, None if that is nothing."""
        return self._walk(path)[1]

    def real(self, path: str) -> str:
        """Where a path leads to, without links, as seen from inside: ``/srv/app``. The part that does not exist
        yet, as a runtime would make it, is taken as it is written."""
        return "/" + b"/".join(self._walk(path)[0]).decode("utf-8", "surrogateescape")

    def _walk(self, path: str) -> tuple[list[bytes], Entry | None]:
        """The names without links from the root to where ``path`` leads, and what is there."""
        real: list[bytes] = []
        todo = path.encode("utf-8", "surrogateescape").split(b"/")[::-1]
        steps = links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del real[-1:]
                continue
            steps += 1
            if steps > _MAX_STEPS:
                raise _refused(path, f"in the image it takes more than {_MAX_STEPS} steps")
            target = self._link(b"/".join([*real, part]), path)
            if target is None:
                real.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise _refused(path, "in the image it is a ring of links")
            if target.startswith(b"/"):
                real.clear()
            todo.extend(target.split(b"/")[::-1])
        return real, self._stat(b"/".join(real), path)

    def _link(self, real: bytes, path: str) -> bytes | None:
        """The target of a link; None if it is something else, or nothing."""
        info = self._stat(real, path)
        if info is None or not stat.S_ISLNK(info.mode):
            return None
        try:
            return self._tree.readlink(real)
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from error

    def _stat(self, real: bytes, path: str) -> Entry | None:
        try:
            return self._tree.stat(real)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise _refused(path, error.strerror or str(error)) from error


def _read(source: FileBody, most: int) -> bytes:
    view = memoryview(bytearray(most))
    done = 0
    while done < most and (count := source.readinto(view[done:])):
        done += count
    return bytes(view[:done])


def _refused(path: str, reason: str) -> BundleError:
    return BundleError(quoted(path)[1:-1], reason)
