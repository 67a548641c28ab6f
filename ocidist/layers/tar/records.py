"""The record loop: tar members out of plain bytes, one at a time, with memory that doesn't grow.

Reads ustar, GNU (long names, base-256 numbers, sparse files) and PAX. It is stricter than ``tarfile`` where that
would lose data, and bounded where that isn't: a bad or cut header is refused wherever it stands, the extended headers
of one member may hold 1 MiB together and be 16 at most. An archive that just stops after a member, or in the padding
behind its data, is whole (the DiffID decides), as is one with a single end block; what follows the end blocks is read but not looked at.

Global PAX headers are checked and otherwise ignored, as containerd does.

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar
Format"; OCI image specification, layer.md.
"""

from __future__ import annotations

import os
from typing import Callable, Iterator

from ocidist.errors import LayerError
from ocidist.layers.tar import pax, sparse
from ocidist.layers.tar.header import BLOCK, Headers, Malformed, Member
from ocidist.layers.tar.recognise import recognise

__all__ = ["BLOCK", "MAX_EXTENDED", "Member", "Records"]

MAX_EXTENDED = 1 << 20  # bytes of extended headers for one member
MAX_EXTENSIONS = 16  # extended headers before one member
_ZEROS = bytes(BLOCK)
_ZERO_PIECE = memoryview(bytes(64 * 1024))

_FILE = 0x30
_DIRECTORY = 0x35
_SPARSE = 0x53
_HEADER_ONLY = frozenset(b"123456")  # types that have no data, whatever their size field says
_KNOWN = frozenset(b"01234567")


class Records:
    """Members of a tar archive, from a function that returns the next piece of it (empty at the end).

    ``next()`` skips what is left of the current member's data. Errors are LayerError with ``layer``.
    """

    def __init__(self, more: Callable[[], bytes], layer: str = "layer") -> None:
        self._more = more
        self._layer = layer
        self._chunk = b""
        self._view = memoryview(b"")
        self._length = 0
        self._pos = 0
        self._left = 0  # of the current member's data
        self._pad = 0  # up to the next header
        self._decode = Headers().decode
        self._member: Member | None = None

    # -- bytes --

    def _refill(self) -> bool:
        self._chunk = self._more()
        self._view = memoryview(self._chunk)
        self._length = len(self._chunk)
        self._pos = 0
        return self._length > 0

    def _take(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer where the archive ends."""
        pos = self._pos
        end = pos + count
        if end <= self._length:
            self._pos = end
            return self._chunk[pos:end]
        pieces = [self._chunk[pos:]]
        missing = end - self._length
        while self._refill():
            if missing <= self._length:
                self._pos = missing
                pieces.append(self._chunk[:missing])
                break
            pieces.append(self._chunk)
            missing -= self._length
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        while count > self._length - self._pos:
            count -= self._length - self._pos
            if not self._refill():
                raise self._error("the archive is cut short")
        self._pos += count

    def _error(self, reason: str, name: bytes | None = None) -> LayerError:
        if name is None:
            name = self._member.name if self._member is not None else b""
        return LayerError(self._layer, os.fsdecode(name), reason)

    # -- a member's data --

    def _stored(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes of the current member's data, in pieces that are valid until the next one."""
        while count:
            if self._pos == self._length and not self._refill():
                raise self._error("the archive is cut short")
            end = min(self._pos + count, self._length)
            piece = self._view[self._pos : end]
            count -= end - self._pos
            self._left -= end - self._pos
            self._pos = end
            yield piece

    def data(self) -> Iterator[memoryview]:
        """The current member's data, in pieces that are valid until the next one; holes are zeros. Once."""
        member = self._member
        if member is None or member.extents is None:
            yield from self._stored(self._left)
            return
        at = 0
        for offset, length in [*member.extents, (member.size, 0)]:
            while at < offset:
                piece = _ZERO_PIECE[: offset - at]
                at += len(piece)
                yield piece
            yield from self._stored(length)
            at = offset + length

    def copy(self, fd: int) -> None:
        """Write the current member's data to the empty file open as ``fd``; holes stay holes. Once."""
        left, pos = self._left, self._pos
        end = pos + left
        member = self._member
        if member is not None and member.extents is not None:
            for offset, length in member.extents:
                os.lseek(fd, offset, os.SEEK_SET)
                self._write(fd, length)
            os.ftruncate(fd, member.size)
        elif left > 0 and end <= self._length:  # nearly every member
            self._left, self._pos = 0, end
            done = os.write(fd, self._view[pos:end])
            while done < left:
                done += os.write(fd, self._view[pos + done : end])
        else:
            self._write(fd, left)

    def _write(self, fd: int, count: int) -> None:
        for piece in self._stored(count):
            while piece:
                piece = piece[os.write(fd, piece) :]

    def drain(self) -> None:
        """Read to the very end, so that all of it is hashed."""
        while self._refill():
            pass

    # -- headers --

    def __iter__(self) -> Iterator[Member]:
        while (member := self.next()) is not None:
            yield member

    def next(self) -> Member | None:
        """The next member, None at the end of the archive."""
        if self._left or self._pad:
            end = self._pos + self._left + self._pad
            if end <= self._length:
                self._pos = end
            else:
                self._skip(self._left)
                self._take(self._pad)  # which may lack at the end
            self._left = self._pad = 0
        block = self._take(BLOCK)
        if len(block) < BLOCK or block == _ZEROS:
            self._end(block)
            return None
        try:
            member: Member | None = self._decode(block)
            assert member is not None
            if member.type in _KNOWN:
                left = member.size
            else:
                member, left = self._extended(member, block)
        except Malformed as error:
            # One without a reason is about the checksum.
            if not error.reason and self._member is None:
                raise self._no_tar(block) from None
            raise self._error(error.reason or "a damaged header follows", error.name) from None
        self._member = member
        if left and member is not None and member.type not in _HEADER_ONLY:
            self._left = left
            self._pad = -left & 511
        return member

    def _end(self, block: bytes) -> None:
        """End blocks, or the end of the stream at a member's boundary; otherwise refuse."""
        if not block:
            return
        if len(block) < BLOCK:
            # What a header holds up to its magic, or zeros, may have been one.
            if self._member is None and block[257:262] != b"ustar" and block.strip(b"\0"):
                raise self._no_tar(block)
            raise self._error("the archive ends inside a header")
        second = self._take(BLOCK)
        if second.strip(b"\0"):
            raise self._error("a header follows a single end block")

    def _no_tar(self, head: bytes) -> LayerError:
        """The error for what begins so."""
        what = recognise(head)
        size = f", {len(head)} bytes in all" if len(head) < BLOCK else ""
        return self._error(f"not a tar archive{f': it looks like {what}' if what else ''}{size}")

    # -- extended headers --

    def _extended(self, member: Member, block: bytes) -> tuple[Member | None, int]:
        """Read PAX and GNU headers up to the member that they are for, and apply them; the bytes of its data.

        None where nothing but global headers stood before the end.
        """
        total = count = 0
        records: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while member.type not in _KNOWN and member.type != _SPARSE:
            kind = chr(member.type)
            if kind not in "xgLKX":
                raise Malformed(f"entries of type {kind!r} are not supported", member.name)
            total += member.size
            count += 1
            if total > MAX_EXTENDED or count > MAX_EXTENSIONS:
                raise Malformed("its extended headers are too large", member.name)
            payload = self._take(member.size)
            if len(payload) < member.size:
                raise Malformed("the archive ends inside an extended header", member.name)
            self._skip(-member.size & 511)
            if kind == "L":
                long_name = payload.partition(b"\0")[0]
            elif kind == "K":
                long_link = payload.partition(b"\0")[0]
            elif kind == "g":
                pax.parse(payload, member.name)
            else:
                records = pax.parse(payload, member.name)
            block = self._take(BLOCK)
            if len(block) < BLOCK or block == _ZEROS:
                if records or long_name or long_link:
                    raise Malformed("an extended header without its entry", member.name)
                self._end(block)
                return None, 0
            member = self._decode(block)
        if records:
            pax.describe(member, records)
        if long_name:  # GNU's come before those of PAX, as in Go
            member.name = long_name
        if long_link:
            member.link = long_link
        if block[156] == 0:  # an old directory, by the name that counts
            member.type = _DIRECTORY if member.name[-1:] == b"/" else _FILE
        return member, self._unfold(member, block, records)

    def _unfold(self, member: Member, block: bytes, records: dict[bytes, bytes]) -> int:
        """How many bytes of data follow; a sparse member gets its map."""
        if member.type == _SPARSE:
            return sparse.unfold_old(member, block, self._take)
        if member.type == _FILE and any(key.startswith(b"GNU.sparse.") for key in records):
            return sparse.unfold_pax(member, records, self._take)
        return member.size
