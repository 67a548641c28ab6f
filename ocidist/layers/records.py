"""The record loop: tar members out of plain bytes, one at a time, with memory that doesn't grow.

Reads ustar, GNU (long names, base-256 numbers) and PAX. It is stricter than ``tarfile`` where that would lose
data, and bounded where that isn't: a bad or cut header is refused wherever it stands, the extended headers of
one member may hold 1 MiB together and be 16 at most. An archive that just stops after a member is whole
(the DiffID decides), as is one with a single end block; what follows the end blocks is read but not looked at.

Global PAX headers are checked and otherwise ignored, as containerd and umoci do.

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar
Format"; OCI image specification, layer.md.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Callable, Iterator
from zlib import adler32

from ocidist.errors import LayerError

__all__ = ["BLOCK", "MAX_EXTENDED", "Member", "Records"]

BLOCK = 512
MAX_EXTENDED = 1 << 20  # bytes of extended headers for one member
MAX_EXTENSIONS = 16  # extended headers before one member
MAX_ID = 0xFFFF_FFFE  # 4294967295 means "leave it as it is" to chown
_ZEROS = bytes(BLOCK)

# name mode uid gid size mtime checksum type link magic+version … prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s80x155s12x")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?\Z")
_HEADER_ONLY = frozenset(b"123456")  # types that have no data, whatever their size field says
_KNOWN = frozenset(b"01234567S")


class Member:
    """One entry. Names are bytes as archived; ``type`` is an ASCII code, `0` for every regular file.

    ``size`` is in bytes, ``mtime`` in nanoseconds since the epoch; ``xattrs`` are those of PAX.
    """

    __slots__ = ("gid", "link", "major", "minor", "mode", "mtime", "name", "size", "type", "uid", "xattrs")

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

    def __repr__(self) -> str:
        return f"<Member {self.name!r} type {chr(self.type)} mode {self.mode:o} size {self.size}>"


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
        self._numbers: dict[bytes, int] = {}
        self._name = b""

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
        shown = os.fsdecode(self._name if name is None else name)
        return LayerError(self._layer, shown, reason)

    # -- a member's data --

    def data(self) -> Iterator[memoryview]:
        """What is left of the current member's data, in pieces that are valid until the next one."""
        while self._left:
            if self._pos == self._length and not self._refill():
                raise self._error("the archive is cut short")
            end = min(self._pos + self._left, self._length)
            piece = self._view[self._pos : end]
            self._left -= end - self._pos
            self._pos = end
            yield piece

    def copy(self, fd: int) -> None:
        """Write what is left of the current member's data to ``fd``."""
        left, pos = self._left, self._pos
        end = pos + left
        if left > 0 and end <= self._length:  # nearly every member
            self._left, self._pos = 0, end
            done = os.write(fd, self._view[pos:end])
            while done < left:
                done += os.write(fd, self._view[pos + done : end])
            return
        for piece in self.data():
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
            self._skip(self._left + self._pad)
            self._left = self._pad = 0
        block = self._take(BLOCK)
        if len(block) < BLOCK or block == _ZEROS:
            self._end(block)
            return None
        member = self._decode(block)
        if member.type not in _KNOWN:
            extended = self._extended(member)
            if extended is None:
                return None
            member = extended
        self._name = member.name
        if member.type == 0x53:
            raise self._error("sparse files are not supported")
        if member.type not in _HEADER_ONLY and member.size:
            self._left = member.size
            self._pad = -member.size & 511
        return member

    def _end(self, block: bytes) -> None:
        """End blocks, or the end of the stream at a member's boundary; otherwise refuse."""
        if not block:
            return
        if len(block) < BLOCK:
            raise self._error("the archive ends inside a header")
        second = self._take(BLOCK)
        if second.strip(b"\0"):
            raise self._error("a header follows a single end block")

    def _decode(self, block: bytes) -> Member:
        name, mode, uid, gid, size, mtime, checksum, kind, link, magic, prefix = _HEADER.unpack(block)
        name = name.partition(b"\0")[0]
        self._verify(block, checksum)
        if magic == b"ustar\00000" and prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
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
                numbers[field] = self._number(field, name)
            mode_, uid_, gid_ = numbers[mode], numbers[uid], numbers[gid]
        size_ = self._number(size, name)
        if size_ < 0 or size_ >= 1 << 63:
            raise self._error(f"a size of {size_} bytes", name)
        member = Member(
            name,
            type_,
            mode_ & 0o7777,
            uid_,
            gid_,
            size_,
            self._number(mtime, name) * 1_000_000_000,
            link.partition(b"\0")[0] if link[0] else b"",
        )
        if type_ == 0x33 or type_ == 0x34:
            member.major = self._number(block[329:337], name)
            member.minor = self._number(block[337:345], name)
        if uid_ > MAX_ID or gid_ > MAX_ID or uid_ < 0 or gid_ < 0:
            self._check_ids(member)
        return member

    def _check_ids(self, member: Member) -> None:
        for what, value in (("user", member.uid), ("group", member.gid)):
            if not 0 <= value <= MAX_ID:
                raise self._error(f"{what} id {value} is out of range", member.name)

    def _verify(self, block: bytes, field: bytes) -> None:
        text = field.strip(b"\0 ")
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
        raise self._error("a damaged header follows" if self._name else "not a tar archive")

    def _number(self, field: bytes, name: bytes) -> int:
        """Octal, or GNU's base-256 where the first bit is set (two's complement)."""
        if field[0] & 0x80:
            value = int.from_bytes(field, "big")
            bits = 8 * len(field)
            return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
        text = field.partition(b"\0")[0].strip(b" ")
        if not text:
            return 0
        if text.isdigit():  # int() takes signs, underscores and prefixes
            try:
                return int(text, 8)
            except ValueError:
                pass
        raise self._error("a number in the header is none", name)

    # -- extended headers --

    def _extended(self, member: Member) -> Member | None:
        """Read PAX and GNU headers up to the member that they are for, and apply them.

        None where nothing but global headers stood before the end.
        """
        total = count = 0
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        while member.type not in _KNOWN:
            kind = chr(member.type)
            if kind not in "xgLKX":
                raise self._error(f"entries of type {kind!r} are not supported", member.name)
            total += member.size
            count += 1
            if total > MAX_EXTENDED or count > MAX_EXTENSIONS:
                raise self._error("its extended headers are too large", member.name)
            payload = self._take(member.size)
            if len(payload) < member.size:
                raise self._error("the archive ends inside an extended header", member.name)
            self._skip(-member.size & 511)
            if kind == "L":
                long_name = payload.partition(b"\0")[0]
            elif kind == "K":
                long_link = payload.partition(b"\0")[0]
            elif kind == "g":
                self._pax(payload, member.name)
            else:
                pax = self._pax(payload, member.name)
            block = self._take(BLOCK)
            if len(block) < BLOCK or block == _ZEROS:
                if pax or long_name or long_link:
                    raise self._error("an extended header without its entry", member.name)
                self._end(block)
                return None
            member = self._decode(block)
        if long_name:
            member.name = long_name
            if member.type == 0x30 and long_name[-1:] == b"/" and block[156] == 0:
                member.type = 0x35
        if long_link:
            member.link = long_link
        if pax:
            self._apply(member, pax)
        return member

    def _pax(self, payload: bytes, name: bytes) -> dict[bytes, bytes]:
        """``LENGTH KEY=VALUE\\n`` records; of records with one key the last counts."""
        records: dict[bytes, bytes] = {}
        pos, end = 0, len(payload)
        while pos < end:
            space = payload.find(b" ", pos, pos + 9)
            digits = payload[pos:space] if space > pos else b""
            length = int(digits) if digits.isdigit() else 0
            stop = pos + length
            equals = payload.find(b"=", space, stop)
            if length < 5 or stop > end or equals <= space + 1 or payload[stop - 1] != 0x0A:
                if not payload[pos:].strip(b"\0"):
                    break
                raise self._error("a damaged PAX header", name)
            records[payload[space + 1 : equals]] = payload[equals + 1 : stop - 1]
            pos = stop
        return records

    def _apply(self, member: Member, pax: dict[bytes, bytes]) -> None:
        for key, value in pax.items():
            if key.startswith(b"SCHILY.xattr."):
                if member.xattrs is None:
                    member.xattrs = {}
                member.xattrs[key[13:]] = value
            elif key.startswith(b"GNU.sparse."):
                raise self._error("sparse files are not supported", pax.get(b"GNU.sparse.name", member.name))
            elif not value:
                continue  # an empty value takes the record back (pax, "pax Extended Header")
            elif key == b"path" or key == b"linkpath":
                if b"\0" in value:
                    raise self._error("a NUL byte in a name", value)
                if key == b"path":
                    member.name = value
                else:
                    member.link = value
            elif key == b"size":
                member.size = self._decimal(value, member)
                if member.size >= 1 << 63:
                    raise self._error(f"a size of {member.size} bytes", member.name)
            elif key == b"uid":
                member.uid = self._decimal(value, member)
            elif key == b"gid":
                member.gid = self._decimal(value, member)
            elif key == b"mtime":
                member.mtime = self._time(value, member)
        self._check_ids(member)

    def _decimal(self, value: bytes, member: Member) -> int:
        if not value.isdigit() or len(value) > 20:
            raise self._error("a number in the PAX header is none", member.name)
        return int(value)

    def _time(self, value: bytes, member: Member) -> int:
        match = _TIME.match(value)
        if match is None:
            raise self._error("a time in the PAX header is none", member.name)
        sign, seconds, fraction = match.groups()
        nanoseconds = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
        return -nanoseconds if sign else nanoseconds
