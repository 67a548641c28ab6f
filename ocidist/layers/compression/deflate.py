"""gzip with the same bytes each time: no name, no time, no operating system in its header (RFC 1952, section 2.3).

zlib of the standard library alone, for what an accelerator makes differs.
"""

from __future__ import annotations

import zlib
from typing import Callable

__all__ = ["GzipWriter"]

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


class GzipWriter:
    """Compresses what is written and hands it to ``write``."""

    def __init__(self, write: Callable[[bytes], object], level: int = 6) -> None:
        self._write = write
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -15)
        self._checksum = self._size = 0
        write(_HEADER)

    def write(self, data: bytes) -> None:
        """Add ``data``."""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        made = self._deflate.compress(data)
        if made:
            self._write(made)

    def finish(self) -> None:
        """The rest, and the trailer."""
        trailer = self._checksum.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        self._write(self._deflate.flush() + trailer)
