"""Files that a command writes: whole or not at all, and never in a device's place."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import BinaryIO, Iterator

from ocidist.errors import StoreError
from ocidist.files import replacing

__all__ = ["output"]

_MAX_LINKS = 40  # as the kernel's own limit


@contextmanager
def output(path: str) -> Iterator[BinaryIO]:
    """``path``, to be written. A regular file gets its new content at the end of the block, by a rename; anything
    else (/dev/stdout, a FIFO) is written into. A link of root's or this user's is followed, another user's may lead to
    any file of ours. Raises StoreError."""
    try:
        target = _followed(path)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            found = None
        if found is not None and not stat.S_ISREG(found.st_mode):
            with os.fdopen(_opened(path), "wb", buffering=0) as file:
                yield file
            return
        with replacing(target, None if found is None else stat.S_IMODE(found.st_mode)) as file:
            yield file
    except OSError as error:
        raise StoreError(path, error.strerror or str(error)) from error


def _followed(path: str) -> str:
    """Where the links at ``path`` lead, be there something or not."""
    trusted = (0, os.geteuid()) if hasattr(os, "geteuid") else ()
    target = path
    for _ in range(_MAX_LINKS):
        try:
            found = os.lstat(target)
        except FileNotFoundError:
            return target
        if not stat.S_ISLNK(found.st_mode):
            return target
        if trusted and found.st_uid not in trusted:
            raise StoreError(path, f"{target} is another user's symbolic link; write where it leads")
        target = os.path.join(os.path.dirname(target), os.readlink(target))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _opened(path: str) -> int:
    """What is no regular file, and has not become one since: nothing is made or emptied."""
    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise StoreError(path, "another process exchanged it for a file; nothing was written")
    return handle
