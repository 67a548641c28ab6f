"""Owners that an ordinary user can't give, written beside the file: the attribute ``user.rootlesscontainers``.

Its value is a protocol buffer of two numbers, ``uint32 uid = 1; uint32 gid = 2``. Root's files have no attribute, and
where one of the two is root's it is 4294967295, "leave it". PRoot, umoci and whoever follows them read it. Only
regular files and directories can have one.

Source: rootlesscontaine.rs, proto/rootlesscontainers.proto; Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import os

__all__ = ["ATTRIBUTE", "decode_owner", "encode_owner", "in_first_namespace", "owner_as_meant"]

ATTRIBUTE = b"user.rootlesscontainers"
_UID, _GID = 1, 2
_UNCHANGED = 0xFFFF_FFFF
_FIRST = 0xEFFFFFFD
"""PROC_USER_INIT_INO of Linux, include/linux/proc_ns.h."""


def encode_owner(uid: int, gid: int) -> bytes:
    """The attribute's value, empty for root's."""
    return _field(_UID, uid or _UNCHANGED) + _field(_GID, gid or _UNCHANGED) if uid or gid else b""


def _field(number: int, value: int) -> bytes:
    raw = bytearray([number << 3])
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)
    return bytes(raw)


def decode_owner(raw: bytes) -> tuple[int, int] | None:
    """(uid, gid) of a value, None if it is none; fields of other numbers are skipped where they are numbers."""
    found = {_UID: 0, _GID: 0}
    numbers: list[int] = []
    value = shift = 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            return None
        if not byte & 0x80:
            numbers.append(value)
            value = shift = 0
    if shift or len(numbers) % 2:
        return None
    for tag, number in zip(numbers[::2], numbers[1::2], strict=True):
        if tag & 7 or number > _UNCHANGED:
            return None
        found[tag >> 3] = number if number != _UNCHANGED else 0
    return found[_UID], found[_GID]


def in_first_namespace() -> bool:
    """Return whether this process is in the machine's first user namespace, the only one with attributes of ``trusted.``."""
    try:
        return os.stat("/proc/self/ns/user").st_ino == _FIRST
    except OSError:  # another system, which has one
        return True


def owner_as_meant(uid: int, gid: int, mark: bytes | None = None) -> tuple[int, int]:
    """Return the (uid, gid) that an entry of ``uid`` and ``gid`` with this attribute is meant to have.

    What an ordinary user has without the attribute is root's.
    """
    found = decode_owner(mark) if mark is not None else None
    if found is not None:
        return found
    if hasattr(os, "geteuid") and uid == os.geteuid():
        return 0, (0 if uid else gid)
    return uid, gid
