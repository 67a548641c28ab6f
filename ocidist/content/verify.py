"""Nothing is believed before its size and its digest match: verified reads, bounded in size as well as hash.

Source: OCI image specification, descriptor.md, "Verification".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from ocidist.content.protocols import Body
from ocidist.errors import ContentError, DigestMismatch, SizeMismatch
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

__all__ = ["BLOCK", "MemoryBody", "read_all", "stream"]

BLOCK = 1 << 20
"""Bytes that are read and hashed at a time."""


class MemoryBody:
    """A body over bytes at hand: ``raw[offset:end]`` of an object of ``len(raw)`` bytes. ``host`` sent them."""

    def __init__(
        self,
        raw: bytes | bytearray | memoryview,
        offset: int = 0,
        end: int | None = None,
        *,
        host: str = "",
    ) -> None:
        self.start, self.host = offset, host
        self.size = len(raw)
        self._rest = memoryview(raw)[offset:end]

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as there are bytes; 0 at the end."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Let go of the bytes. Idempotent."""
        self._rest = memoryview(b"")


def fill_buffer(body: Body, buffer: memoryview) -> int:
    """Read until ``buffer`` is full or the body ends; the number of bytes read."""
    done = 0
    while done < len(buffer):
        count = body.readinto(buffer[done:])
        if not count:
            break
        done += count
    return done


def read_all(body: Body, target: Descriptor, limit: int) -> bytes:
    """All of ``body``, verified against ``target``; then it is closed.

    A negative ``target.size`` is unknown: then ``limit`` alone bounds it. Raises ContentError for more than
    ``limit`` bytes, SizeMismatch, DigestMismatch.
    """
    try:
        if target.size > limit:
            raise ContentError(target, f"{target.size} bytes; at most {limit} are read into memory")
        _from_start(body, target)
        bound = limit if target.size < 0 else target.size
        parts: list[bytes] = []
        total = 0
        while True:
            # In blocks: a declared size costs no memory before its bytes arrive.
            block = memoryview(bytearray(min(BLOCK, bound + 1 - total)))
            count = fill_buffer(body, block)
            parts.append(bytes(block[:count]))
            total += count
            if total > bound:
                if target.size < 0:
                    raise ContentError(target, f"more than {limit} bytes; that many are read into memory")
                raise SizeMismatch(target, f"more than the {target.size} bytes that were promised")
            if count < len(block):
                break
        raw = b"".join(parts)
        if 0 <= target.size != total:
            raise SizeMismatch(target, f"{total} bytes came, {target.size} were promised")
        _same(Digest.of(raw, target.digest.algorithm), target)
        return raw
    finally:
        body.close()


def stream(body: Body, target: Descriptor, write: Callable[[memoryview], object], scope: Scope) -> int:
    """Hand ``body`` to ``write`` in blocks of :data:`BLOCK` bytes; the number of bytes.

    The last block is withheld until size and digest match, so that what reads the output never sees a whole
    object that is a wrong one. The blocks' memory is used again once ``write`` returns. Closes the body.
    Raises SizeMismatch, DigestMismatch, or the scope's end.
    """
    try:
        _from_start(body, target)
        hasher = target.digest.hasher()
        room = BLOCK if target.size < 0 else min(BLOCK, target.size + 1)  # a small one costs no two blocks
        held, spare = memoryview(bytearray(room)), memoryview(bytearray(room))
        filled = total = 0
        while True:
            scope.check()
            count = fill_buffer(body, spare)
            if not count:
                break
            total += count
            if 0 <= target.size < total:
                raise SizeMismatch(target, f"more than the {target.size} bytes that were promised")
            if filled:
                write(held[:filled])
            hasher.update(spare[:count])
            held, spare, filled = spare, held, count
        if 0 <= target.size != total:
            raise SizeMismatch(target, f"{total} bytes came, {target.size} were promised")
        _same(Digest.from_hash(hasher), target)
        if filled:
            write(held[:filled])
        return total
    finally:
        body.close()


def _from_start(body: Body, target: Descriptor) -> None:
    if body.start:
        raise ContentError(target, f"the body begins at byte {body.start}; only a whole one can be verified")


def _same(found: Digest, target: Descriptor) -> None:
    if found != target.digest:
        raise DigestMismatch(target, f"the bytes hash to {found}")
