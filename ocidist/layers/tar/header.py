"""One block of 512 bytes: a header of ustar, GNU or older tar.

Pure: bytes in, a :class:`Member` out. What can't be read raises :class:`Malformed`, which the record loop turns
into a LayerError.

What decides between the formats is as in Go's ``archive/tar``, which the engines read layers with: the first six bytes
of ustar's magic whatever its version, star by its trailer.

Sources: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; star(5).
"""

from __future__ import annotations

import struct
from zlib import adler32

__all__ = ["BLOCK", "Headers", "Malformed", "Member", "check_ids", "check_size", "decimal", "number"]

BLOCK = 512
MAX_ID = 0xFFFF_FFFE  # 4294967295 means "leave it as it is" to chown

# name mode uid gid size mtime checksum type link magic+version … prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s80x155s12x")
_USTAR, _GNU = b"ustar\0", b"ustar  \0"
_STAR_PREFIX = 131  # bytes, then the times of access and change


class Malformed(Exception):
    """An archive that can't be read: why, and the entry's name if it has one of its own."""

    def __init__(self, reason: str, name: bytes | None = None) -> None:
        super().__init__(reason)
        self.reason, self.name = reason, name


class Member:
    """One entry. Names are bytes as archived; ``type`` is an ASCII code, `0` for every regular file.

    ``size`` is in bytes, of the file as it is to be; ``mtime`` in nanoseconds since the epoch; ``xattrs`` are those
    of PAX. ``extents`` is None, or of a sparse file where its data lies: (offset, length), the rest of it are zeros.
    """

    __slots__ = (
        *("gid", "extents", "link", "major", "minor", "mode", "mtime", "name", "size", "type", "uid"),
        "xattrs",
    )

    def __init__(
        self, name: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes
    ) -> None:
        self.name = name
        self.type = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime = mtime
        self.link = link
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] | None = None
        self.extents: list[tuple[int, int]] | None = None

    def __repr__(self) -> str:
        return f"<Member {self.name!r} type {chr(self.type)} mode {self.mode:o} size {self.size}>"


class Headers:
    """Decodes headers; remembers numbers that it has seen, for most are alike."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def decode(self, block: bytes) -> Member:
        """The member of a header. Raises Malformed, also for a wrong checksum."""
        name, mode, uid, gid, size, mtime, checksum, kind, link, magic, prefix = _HEADER.unpack(block)
        name = name.partition(b"\0")[0]
        _verify(block, checksum)
        if prefix[0]:
            folder = _prefix(block, magic, prefix)
            if folder:
                name = folder + b"/" + name
        type_ = kind[0]
        if type_ == 0 or type_ == 0x37:  # old archives; "contiguous" files
            # Before ustar a directory was a regular file whose name ends in a slash.
            type_ = 0x35 if type_ == 0 and name[-1:] == b"/" else 0x30
        numbers = self._numbers
        try:
            mode_ = numbers[mode]
            uid_ = numbers[uid]
            gid_ = numbers[gid]
        except KeyError:
            if len(numbers) > 4096:
                numbers.clear()
            for field in (mode, uid, gid):
                numbers[field] = number(field, name)
            mode_, uid_, gid_ = numbers[mode], numbers[uid], numbers[gid]
        size_ = number(size, name)
        if size_ < 0 or size_ >= 1 << 63:
            check_size(size_, name)
        member = Member(
            name,
            type_,
            mode_ & 0o7777,
            uid_,
            gid_,
            size_,
            number(mtime, name) * 1_000_000_000,
            link.partition(b"\0")[0] if link[0] else b"",
        )
        if (type_ == 0x33 or type_ == 0x34) and (magic[:6] == _USTAR or magic == _GNU):
            member.major = number(block[329:337], name)
            member.minor = number(block[337:345], name)
        if uid_ > MAX_ID or gid_ > MAX_ID or uid_ < 0 or gid_ < 0:
            check_ids(member)
        return member


def _prefix(block: bytes, magic: bytes, prefix: bytes) -> bytes:
    """What stands before the name. Go before 1.8 wrote it into GNU's headers too, which have two times there."""
    if magic[:6] == _USTAR:
        if block[508:] == b"tar\0":
            prefix = prefix[:_STAR_PREFIX]
        return prefix.partition(b"\0")[0]
    if magic == _GNU and not (_is_time(prefix[:12]) and _is_time(prefix[12:24])):
        folder = prefix.partition(b"\0")[0]
        return folder if folder.isascii() else b""
    return b""


def _is_time(field: bytes) -> bool:
    try:
        return field[0] == 0 or -(1 << 63) <= number(field, b"") < 1 << 63
    except Malformed:
        return False


def check_ids(member: Member) -> None:
    """Refuse owners that chown reads as something else."""
    for what, value in (("user", member.uid), ("group", member.gid)):
        if not 0 <= value <= MAX_ID:
            raise Malformed(f"{what} id {value} is out of range", member.name)


def check_size(size: int, name: bytes) -> None:
    """Refuse sizes that no file has."""
    if not 0 <= size < 1 << 63:
        raise Malformed(f"a size of {size} bytes", name)


def _verify(block: bytes, field: bytes) -> None:
    """Refuse a wrong checksum, by Malformed without a reason: what it means depends on where the header stands."""
    text = field.strip(b"\0 ").partition(b"\0")[0]
    try:
        stored = int(text, 8) if text.isdigit() else -1
    except ValueError:
        stored = -1
    # The sum is taken with the checksum's own eight bytes as spaces.
    stored += sum(field) - 256
    if block.isascii():
        # Adler-32's low half is 1 + the sum of the bytes, modulo 65521: exact, since 512 * 127 is less.
        if (adler32(block) & 0xFFFF) - 1 == stored:
            return
    else:
        plain = sum(block)
        # Some old programs summed signed characters.
        signed = plain - 256 * sum(1 for byte in block if byte > 127)
        if stored in (plain, signed):
            return
    raise Malformed("")


def decimal(text: bytes) -> int:
    """A number of PAX or of a sparse file's map; -1 if it is none, or has more than 20 digits that count."""
    digits = text.lstrip(b"0") or text[-1:]
    return int(digits) if digits.isdigit() and len(digits) <= 20 else -1


def number(field: bytes, name: bytes) -> int:
    """Octal, between NULs and spaces, or GNU's base-256 where the first bit is set (two's complement)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    text = field.strip(b"\0 ").partition(b"\0")[0].rstrip(b" ")
    if not text:
        return 0
    if text.isdigit():  # int() takes signs, underscores and prefixes
        try:
            return int(text, 8)
        except ValueError:
            pass
    raise Malformed("a number in the header is none", name)
