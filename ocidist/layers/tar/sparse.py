"""Sparse files: where the data of a file lies that is archived without its holes.

There are four forms. GNU's old one has entries of type ``S`` with a map in the header and in blocks after it.
The three of PAX have ordinary files: 0.0 and 0.1 hold the map in the extended header, 1.0 in the first blocks of
the data. A map that contradicts itself, or the data that is there, is refused.

Pure, but for the blocks that a function hands over. Source: GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from typing import Callable

from ocidist.layers.tar.header import BLOCK, Malformed, Member, check_size, decimal, number
from ocidist.layers.tar.pax import MAP

__all__ = ["MAX_EXTENTS", "unfold_old", "unfold_pax"]

MAX_EXTENTS = 1 << 16  # pieces of one file; GNU tar itself has no bound
_MAX_DIGITS = 20
_FILE = 0x30

Take = Callable[[int], bytes]  # the next bytes of the archive, fewer where it ends
Extents = list[tuple[int, int]]


def unfold_old(member: Member, block: bytes, take: Take) -> int:
    """``member`` of type ``S`` becomes the file that it stands for; returns the bytes of data that follow.

    ``block`` is its header; ``take`` gives the blocks that continue the map. Raises Malformed.
    """
    if block[257:265] != b"ustar  \0":
        raise Malformed("a sparse file of a form that isn't GNU's", member.name)
    size, table, more = number(block[483:495], member.name), block[386:482], block[482]
    extents: Extents = []
    while True:
        for at in range(0, len(table), 24):
            pair = table[at : at + 24]
            if not pair[0]:
                break
            if pair.strip(b"\0 "):  # else it isn't used
                extents.append((number(pair[:12], member.name), number(pair[12:], member.name)))
        if not more:
            break
        block = take(BLOCK)
        if len(block) < BLOCK:
            raise Malformed("the archive is cut short", member.name)
        table, more = block[:504], block[504]
        _check_count(len(extents), member)
    stored, member.type = member.size, _FILE
    _settle(member, extents, size, stored)
    return stored


def unfold_pax(member: Member, pax: dict[bytes, bytes], take: Take) -> int:
    """``member`` becomes the file that its PAX records say it stands for; returns the bytes of data that follow.

    ``take`` gives the blocks of a map that stands before the data. Raises Malformed.
    """
    member.name = pax.get(b"GNU.sparse.name") or member.name
    if b"\0" in member.name:
        raise Malformed("a NUL byte in a name", member.name)
    stored = member.size
    version = pax.get(b"GNU.sparse.major") or b"0", pax.get(b"GNU.sparse.minor") or b"0"
    if version == (b"1", b"0"):
        numbers, used = _map_in_data(member, take)
        stored -= used
    elif version in ((b"0", b"0"), (b"0", b"1")) and (pax.get(MAP) or pax.get(b"GNU.sparse.major")):
        words = pax[MAP].split(b",") if pax.get(MAP) else []  # one hole
        _check_count(len(words) // 2, member)
        numbers = [_decimal(word, member) for word in words]
    else:
        raise Malformed("a sparse file of an unknown form", member.name)
    if len(numbers) % 2:
        raise _damaged(member)
    real = pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize") or b""
    _settle(member, list(zip(numbers[::2], numbers[1::2], strict=True)), _decimal(real, member), stored)
    return stored


def _map_in_data(member: Member, take: Take) -> tuple[list[int], int]:
    """The numbers of a 1.0 map, a line each after a line with how many pairs there are, and its bytes."""
    numbers: list[int] = []
    expected, used, rest = 1, 0, b""
    while len(numbers) < expected:
        block = take(BLOCK) if used < member.size else b""
        if len(block) < BLOCK or len(rest) > _MAX_DIGITS:
            raise _damaged(member)
        used += BLOCK
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if len(numbers) == expected:
                break
            numbers.append(_decimal(line, member))
            if len(numbers) == 1:
                _check_count(numbers[0], member)
                expected += 2 * numbers[0]
    return numbers[1:], used


def _settle(member: Member, extents: Extents, size: int, stored: int) -> None:
    """Give ``member`` its real size and its map, if they agree with each other and with the data."""
    check_size(size, member.name)
    at = total = 0
    for offset, length in extents:
        if offset < at or length < 0 or offset + length > size:
            raise _damaged(member)
        at = offset + length
        total += length
    if total != stored:
        raise _damaged(member)
    member.size = size
    member.extents = [pair for pair in extents if pair[1]]


def _check_count(count: int, member: Member) -> None:
    if count > MAX_EXTENTS:
        raise Malformed(f"a sparse file in more than {MAX_EXTENTS} pieces", member.name)


def _decimal(text: bytes, member: Member) -> int:
    found = decimal(text)
    if found < 0:
        raise _damaged(member)
    return found


def _damaged(member: Member) -> Malformed:
    return Malformed("a damaged map of a sparse file", member.name)
