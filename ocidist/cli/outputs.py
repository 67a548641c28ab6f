"""Files that a command writes: whole or not at all, and never in a device's place."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Iterator

from ocidist.errors import StoreError
from ocidist.files import RELATIVE, locate, replacing

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["output"]


@contextmanager
def output(path: str, scope: Scope) -> Iterator[BinaryIO]:
    """``path``, to be written. A regular file gets its new content at the end of the block, by a rename, and keeps its
    mode if it is root's or this user's; anything else (/dev/stdout, a FIFO) is written into.

    Links of root's or this user's are followed; another user's may lead to any file of ours, and who laid a FIFO reads
    it. Raises StoreError, and the scope's end.
    """
    try:
        above, name = locate(path, follow=True) if RELATIVE else (None, os.path.realpath(path))
        try:
            here = _stat(name, above)
            found = os.stat(path) if here is None else here  # /dev/stdout leads to what has no name
        except FileNotFoundError:
            found = None
        try:
            if found is not None and not stat.S_ISREG(found.st_mode):
                if here is not None and stat.S_ISFIFO(here.st_mode) and not _trusted(here):
                    raise StoreError(path, "another user's FIFO; name another file")
                handle = _opened(path, None, scope) if here is None else _opened(name, above, scope)
                with os.fdopen(handle, "wb", buffering=0) as file:
                    yield file
                return
            mode = stat.S_IMODE(here.st_mode) if here is not None and _trusted(here) else None
            with replacing(name, mode, dir_fd=above) as file:
                yield file
        finally:
            if above is not None:
                os.close(above)
    except OSError as error:
        raise StoreError(path, error.strerror or str(error)) from error


def _stat(name: str, at: int | None) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    return None


def _trusted(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid in (0, os.geteuid())


def _opened(path: str, at: int | None, scope: Scope) -> int:
    """What is no regular file, and has not become one since: nothing is made or emptied. A FIFO that nobody reads yet
    is waited for."""
    from ocidist.scope import POLL

    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | (0 if at is None else getattr(os, "O_NOFOLLOW", 0))
    while True:
        try:
            handle = os.open(path, flags, dir_fd=at)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            scope.sleep(POLL)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise StoreError(path, "another process exchanged it for a file; nothing was written")
    if hasattr(os, "set_blocking"):
        os.set_blocking(handle, True)
    return handle
