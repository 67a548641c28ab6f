"""Files that a command writes: whole or not at all, and never in a device's place."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import BinaryIO, Iterator

from ocidist.errors import StoreError
from ocidist.files import replacing

__all__ = ["output"]


@contextmanager
def output(path: str) -> Iterator[BinaryIO]:
    """``path``, to be written. A regular file gets its new content at the end of the block, by a rename; anything
    else (/dev/stdout, a FIFO) is written into. Raises StoreError."""
    try:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            found = None
        if found is not None and not stat.S_ISREG(found.st_mode):
            with open(path, "wb", buffering=0) as file:
                yield file
            return
        with replacing(
            os.path.realpath(path), None if found is None else stat.S_IMODE(found.st_mode)
        ) as file:
            yield file
    except OSError as error:
        raise StoreError(path, error.strerror or str(error)) from error
