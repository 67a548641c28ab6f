"""A regular file of this machine: read, and copied so that holes stay holes and blocks are shared where possible.

Sources: ioctl_ficlone(2); lseek(2), "Seeking file data and holes".
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Callable

from ocidist.scope import no_check

__all__ = ["LocalFile", "copy_file"]

_READV = hasattr(os, "readv")
_FICLONE = 0x40049409
_PIECE = 1 << 23  # bytes between two looks at the scope
_BLOCK = 1 << 20


class LocalFile:
    """A FileBody over the descriptor ``fd``, which it closes."""

    start, host = 0, ""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def readinto(self, buffer: memoryview) -> int:
        if _READV:
            return os.readv(self._fd, (buffer,))
        block = os.read(self._fd, len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def next_data(self, offset: int) -> int:
        return _next_data(self._fd, offset, self.size)

    def seek(self, offset: int) -> object:
        return os.lseek(self._fd, offset, os.SEEK_SET)

    def copy_to(self, target: int, check: Callable[[], object] = no_check) -> None:
        copy_file(self._fd, target, check)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def copy_file(source: int, target: int, check: Callable[[], object]) -> None:
    """Copy all of the regular file open as ``source`` to the empty one open as ``target``, both at their start.

    ``check`` is called within a large file too; what it raises, and OSErrors, come as they are.
    """
    info = os.fstat(source)
    if info.st_size and _share(source, target):
        return
    if getattr(info, "st_blocks", info.st_size) * 512 >= info.st_size or not hasattr(os, "SEEK_DATA"):
        _copy(source, target, None, check)
        return
    at = 0
    while at < info.st_size:
        check()
        at = _next_data(source, at, info.st_size)
        if at == info.st_size:
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(source, at, os.SEEK_SET)
        os.lseek(target, at, os.SEEK_SET)
        _copy(source, target, end - at, check)
        at = end
    os.ftruncate(target, info.st_size)


def _next_data(fd: int, at: int, size: int) -> int:
    """Where data begins at ``at`` or behind it in the file open as ``fd``, ``size`` for a hole up to the end."""
    if not hasattr(os, "SEEK_DATA"):
        return at
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno == errno.EINVAL:  # a file system that can't tell
            return at
        raise


def _share(source: int, target: int) -> bool:
    """Whether ``target`` is now a reflink of ``source``: blocks shared until either is written."""
    if sys.platform != "linux":
        return False
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
        return True
    except (ImportError, OSError):  # most file systems can't
        return False


def _copy(source: int, target: int, length: int | None, check: Callable[[], object]) -> None:
    """``length`` bytes, or all up to the end, from where both stand."""
    left = sys.maxsize if length is None else length
    send = sys.platform == "linux"
    while left > 0:
        check()
        try:
            count = os.sendfile(target, source, None, min(left, _PIECE)) if send else 0
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            send, count = False, 0
        if not send:
            count = _by_hand(source, target, min(left, _BLOCK))
        if not count:
            return
        left -= count


def _by_hand(source: int, target: int, most: int) -> int:
    block = os.read(source, most)
    view = memoryview(block)
    while view:
        view = view[os.write(target, view) :]
    return len(block)
