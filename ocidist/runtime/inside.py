"""Looking into an image's tree as a process in it would: links lead to where they lead there, never out.

Each step is one component from a directory descriptor and follows no link; a link is read and walked by hand,
absolute ones and ``..`` counting from the tree's root. What an image puts where a small file is expected (a FIFO,
a device, a terabyte of holes, a ring of links) is refused, not waited for (threat H.71).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ocidist.errors import BundleError, quoted

__all__ = ["MAX_FILE", "Inside"]

MAX_FILE = 4 << 20  # bytes of /etc/passwd or /etc/group; those of large organisations are some 100 kB
_MAX_STEPS = 1000
_MAX_LINKS = 40  # as the kernel's own limit
_FOLDER = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)
_FILE = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)


class Inside:
    """The tree at ``root``. Raises BundleError for what can't be read as what it should be."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, limit: int = MAX_FILE) -> bytes:
        """The content of a regular file, links to it followed inside the tree; empty if there is none."""
        found = self._find(path)
        if found is None:
            return b""
        folder, name, info = found
        try:
            if not stat.S_ISREG(info.st_mode):
                raise _refused(path, f"in the image it is {_KINDS[stat.S_IFMT(info.st_mode)]}, not a file")
            fd = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from error
        finally:
            os.close(folder)
        with open(fd, "rb") as source:
            size = os.fstat(fd).st_size
            data = source.read(limit + 1) if stat.S_ISREG(os.fstat(fd).st_mode) and size <= limit else None
        if data is None or len(data) > limit:
            raise _refused(path, f"in the image it has {size} bytes; {limit} are as many as are read")
        return data

    def stat(self, path: str) -> os.stat_result | None:
        """Of what a path leads to, None if that is nothing."""
        found = self._find(path)
        if found is None:
            return None
        os.close(found[0])
        return found[2]

    def real(self, path: str) -> str:
        """Where a path leads to, without links, as seen from inside: ``/srv/app``. The part that does not exist
        yet, as a runtime would make it, is taken as it is written."""
        return "/" + "/".join(self._walk(path)[0])

    def _find(self, path: str) -> tuple[int, str, os.stat_result] | None:
        """An open descriptor of the directory, the name in it, and what is there; None if nothing is."""
        names, whole = self._walk(path)
        if not whole:
            return None
        name = names[-1] if names else "."
        try:
            folder = self._open(names[:-1])
            try:
                return folder, name, os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError:
                os.close(folder)
                raise
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(path, error.strerror or str(error)) from error

    def _walk(self, path: str) -> tuple[list[str], bool]:
        """The names without links from the root to where ``path`` leads, and whether all of them exist."""
        real: list[str] = []
        todo = path.split("/")[::-1]
        steps = links = 0
        whole = True
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del real[-1:]
                continue
            steps += 1
            if steps > _MAX_STEPS:
                raise _refused(path, f"in the image it takes more than {_MAX_STEPS} steps")
            target = self._link(real, part, path)
            if target is None:
                whole = False
            if not target:
                real.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise _refused(path, "in the image it is a ring of links")
            if target.startswith("/"):
                real.clear()
            todo.extend(target.split("/")[::-1])
        return real, whole

    def _link(self, folder: list[str], name: str, path: str) -> str | None:
        """The target of the link ``name``; empty if it is something else, None if it is nothing."""
        try:
            fd = self._open(folder)
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                return os.readlink(name, dir_fd=fd) if stat.S_ISLNK(info.st_mode) else ""
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise _refused(path, error.strerror or str(error)) from error

    def _open(self, names: list[str]) -> int:
        """The directory below the root that ``names`` lead to, none of them a link."""
        fd = os.open(self.root, _FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
        for name in names:
            try:
                inner = os.open(name, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return fd


def _refused(path: str, reason: str) -> BundleError:
    return BundleError(quoted(path)[1:-1], reason)


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
