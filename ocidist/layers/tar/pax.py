"""PAX extended headers: records out of bytes, and what they say of a member.

Pure. Keys that are known: ``path linkpath size uid gid mtime``, extended attributes as star (``SCHILY.xattr.``)
and libarchive (``LIBARCHIVE.xattr.``) write them, and GNU's sparse files (see :mod:`sparse`). All others are
passed by: they describe what no layer has, or what an entry's own fields say.

Sources: POSIX.1-2017 pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files"; libarchive,
archive_write_pax(3) and its percent-encoded names with base64 values.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ocidist.layers.tar.header import Malformed, Member, check_ids, check_size, decimal

__all__ = ["MAP", "describe", "parse"]

_TIME = re.compile(rb"(-?)0*([0-9]{1,18})(?:\.([0-9]*))?\Z")
_SCHILY, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
MAP = b"GNU.sparse.map"
_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")  # repeated, in turn: the oldest form


def parse(payload: bytes, name: bytes) -> dict[bytes, bytes]:
    """``LENGTH KEY=VALUE\\n`` records by their keys; of records with one key the last counts.

    The one exception, the map of GNU's oldest sparse form, comes as ``GNU.sparse.map`` as in the next one.
    Raises Malformed.
    """
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
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
            raise Malformed("a damaged PAX header", name)
        key, value = payload[space + 1 : equals], payload[equals + 1 : stop - 1]
        if key in _PAIR:
            if key != _PAIR[len(pairs) & 1] or not value.isdigit():
                raise Malformed("a damaged map of a sparse file", name)
            pairs.append(value)
        else:
            records[key] = value
        pos = stop
    if pairs:
        records[MAP] = b",".join(pairs)
    return records


def describe(member: Member, pax: dict[bytes, bytes]) -> None:
    """Set what the records say of ``member``, but for what makes it sparse. Raises Malformed."""
    xattrs: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_SCHILY):
            xattrs[key[len(_SCHILY) :]] = value
        elif not value or key.startswith(b"GNU.sparse."):
            continue  # an empty value takes the record back (pax, "pax Extended Header")
        elif key == b"path" or key == b"linkpath":
            if b"\0" in value:
                raise Malformed("a NUL byte in a name", value)
            if key == b"path":
                member.name = value
            else:
                member.link = value
        elif key == b"size":
            member.size = _decimal(value, member)
            check_size(member.size, member.name)
        elif key == b"uid":
            member.uid = _decimal(value, member)
        elif key == b"gid":
            member.gid = _decimal(value, member)
        elif key == b"mtime":
            member.mtime = _time(value, member)
    for key, value in pax.items():
        if key.startswith(_LIBARCHIVE):
            # libarchive writes both forms; the other one needs no decoding.
            xattrs.setdefault(unquote_to_bytes(key[len(_LIBARCHIVE) :]), _base64(value, member))
    if xattrs:
        member.xattrs = xattrs
    check_ids(member)


def _decimal(value: bytes, member: Member) -> int:
    found = decimal(value)
    if found < 0:
        raise Malformed("a number in the PAX header is none", member.name)
    return found


def _time(value: bytes, member: Member) -> int:
    match = _TIME.match(value)
    if match is None:
        raise Malformed("a time in the PAX header is none", member.name)
    sign, seconds, fraction = match.groups()
    nanoseconds = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if sign else nanoseconds


def _base64(value: bytes, member: Member) -> bytes:
    from base64 import b64decode

    try:
        return b64decode(value.rstrip(b"=\n") + b"=" * (-len(value.rstrip(b"=\n")) % 4), validate=True)
    except ValueError:
        raise Malformed("an extended attribute that isn't base64", member.name) from None
