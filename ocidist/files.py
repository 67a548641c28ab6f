"""Files that somebody else may have made: opened for reading only where they are files."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

__all__ = ["open_regular"]

_FLAGS = os.O_RDONLY
for _name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY"):
    _FLAGS |= getattr(os, _name, 0)


def open_regular(path: str | os.PathLike[str], *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading.

    Raises OSError for anything else: a FIFO would block, a device may do something when it is opened and never end. A
    link is opened only if ``follow``.
    """
    name = os.fspath(path)
    _require_regular(os.stat(name) if follow else os.lstat(name), name)
    handle = os.open(name, _FLAGS | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    try:
        _require_regular(os.fstat(handle), name)  # it may have been exchanged
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _require_regular(found: os.stat_result, name: str) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"))
    kind = next((kind for test, kind in kinds if test(found.st_mode)), "a device or socket")
    raise OSError(errno.EINVAL, f"{kind}, not a regular file", name)
