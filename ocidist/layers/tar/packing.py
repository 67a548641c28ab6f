"""Tar members written so that the same entry gives the same bytes everywhere.

ustar where its fields hold everything, else a PAX header before it with just what they don't: names beyond 255
bytes, fractions of seconds, large numbers, extended attributes. No user or group names, no access times, no
program's name: nothing that depends on who packs, when, or where.

Sources: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; ``SCHILY.xattr.`` as star, GNU tar
and the OCI image specification have it.
"""

from __future__ import annotations

from typing import Mapping

__all__ = ["BLOCK", "END", "padding", "pack_header"]

BLOCK = 512
END = bytes(2 * BLOCK)
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777
_SECOND = 1_000_000_000


def padding(size: int) -> bytes:
    """The zeros behind ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def pack_header(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """The blocks before a member's data. ``mtime`` is in nanoseconds since the epoch, ``kind`` ustar's type.

    A directory's name ends in a slash.
    """
    records: dict[bytes, bytes] = {}
    fields = _split_name(name)
    if fields is None:
        records[b"path"] = name
        fields = (b"", name[-100:] if not name.endswith(b"/") else name[-101:-1][:99] + b"/")
    if len(link) > 100:
        records[b"linkpath"] = link
    seconds, fraction = divmod(mtime, _SECOND)
    if fraction or not 0 <= seconds <= _MAX_NUMBER:
        records[b"mtime"] = _decimal(mtime)
    for key, value, limit in ((b"uid", uid, _MAX_ID), (b"gid", gid, _MAX_ID), (b"size", size, _MAX_NUMBER)):
        if value > limit:
            records[key] = b"%d" % value
    for key, attribute in (xattrs or {}).items():
        records[b"SCHILY.xattr." + key] = attribute
    block = _block(
        fields,
        kind,
        mode,
        (uid if uid <= _MAX_ID else 0, gid if gid <= _MAX_ID else 0),
        size if size <= _MAX_NUMBER else 0,
        min(max(seconds, 0), _MAX_NUMBER),
        link[:100],
        device,
    )
    return _extended(name, records) + block if records else block


def _extended(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    base = name.rstrip(b"/").rpartition(b"/")[2][:80]
    block = _block((b"", b"PaxHeaders/" + base), b"x", 0o644, (0, 0), len(data), 0, b"", (0, 0))
    return block + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE`` and a newline; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) + rest != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), _SECOND)
    text = f"{seconds}.{fraction:09}".rstrip("0").rstrip(".")
    return (f"-{text}" if nanoseconds < 0 else text).encode()


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar's fields hold them, None if they don't."""
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return None
    cut = name.find(b"/", len(name) - 101)
    if cut < 1 or cut > 155 or cut == len(name) - 1:
        return None
    return name[:cut], name[cut + 1 :]


def _block(
    fields: tuple[bytes, bytes],
    kind: bytes,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    prefix, name = fields
    head = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode & 0o7777, *owner, size, mtime),
        )
    )
    tail = b"".join(
        (
            kind,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % device,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    checksum = sum(head) + sum(tail) + 8 * 0x20
    return head + b"%06o\0 " % checksum + tail
