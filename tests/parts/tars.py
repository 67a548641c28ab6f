"""Tar archives byte by byte, so that they can be as wrong as a test needs them."""

from __future__ import annotations

import gzip
import io
from typing import Mapping

END = bytes(1024)


def octal(value: int, width: int) -> bytes:
    """An octal field, NUL-terminated; base-256 where it doesn't fit or is negative."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if value < 0:
        return (value + (1 << (8 * width))).to_bytes(width, "big")
    return bytes([0x80]) + value.to_bytes(width - 1, "big")


def header(
    name: bytes | str,
    kind: str = "0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_000_000_000,
    link: bytes | str = b"",
    device: tuple[int, int] = (0, 0),
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    fields: Mapping[int, bytes] | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """One 512-byte header. ``fields`` puts bytes at offsets before the checksum is taken."""
    block = bytearray(512)
    _put(block, 0, _bytes(name)[:100])
    _put(block, 100, octal(mode, 8) + octal(uid, 8) + octal(gid, 8) + octal(size, 12) + octal(mtime, 12))
    _put(block, 156, kind.encode("latin-1"))
    _put(block, 157, _bytes(link)[:100])
    _put(block, 257, magic)
    _put(block, 329, octal(device[0], 8) + octal(device[1], 8))
    _put(block, 345, prefix)
    for offset, value in (fields or {}).items():
        _put(block, offset, value)
    _put(block, 148, b" " * 8)
    _put(block, 148, b"%06o\0 " % sum(block) if checksum is None else checksum)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """``data`` up to the next block."""
    return data + bytes(-len(data) % 512)


def entry(name: bytes | str, data: bytes = b"", kind: str = "0", **options: object) -> bytes:
    """A header with its data. Names of more than 100 bytes get a GNU long name before them."""
    raw, link = _bytes(name), _bytes(options.get("link", b""))  # type: ignore[arg-type]
    before = b""
    if len(raw) > 100:
        before += header("././@LongLink", "L", size=len(raw) + 1) + padded(raw + b"\0")
    if len(link) > 100:
        before += header("././@LongLink", "K", size=len(link) + 1) + padded(link + b"\0")
    options.setdefault("size", len(data))
    return before + header(raw, kind, **options) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes | str, mode: int = 0o755, **options: object) -> bytes:
    return entry(name, kind="5", mode=mode, **options)


def symlink(name: bytes | str, target: bytes | str, **options: object) -> bytes:
    return entry(name, kind="2", link=target, mode=0o777, **options)


def hardlink(name: bytes | str, target: bytes | str, **options: object) -> bytes:
    return entry(name, kind="1", link=target, **options)


def record(key: bytes | str, value: bytes | str) -> bytes:
    """One PAX record, with the length that counts itself."""
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax(*records: bytes, kind: str = "x", name: str = "PaxHeaders/x") -> bytes:
    """An extended header of records."""
    data = b"".join(records)
    return header(name, kind, size=len(data)) + padded(data)


def layer(*entries: bytes, end: bytes = END) -> io.BytesIO:
    """Plain tar of some entries."""
    return io.BytesIO(b"".join(entries) + end)


def gzipped(*entries: bytes) -> io.BytesIO:
    return io.BytesIO(gzip.compress(layer(*entries).getvalue(), mtime=0))


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _put(block: bytearray, offset: int, value: bytes) -> None:
    block[offset : offset + len(value)] = value
