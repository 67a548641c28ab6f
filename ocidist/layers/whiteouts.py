"""What a layer's entry does to the tree beneath: put something, hide one name, or hide a directory's content.

Pure: names in, values out. Source: OCI image specification, layer.md, "Representing Changes", "Whiteouts".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Union

from ocidist.errors import LayerError, UnsafeEntry

__all__ = [
    *("HELD", "MAX_PATH", "Marker", "Nothing", "Opaque", "Whiteout"),
    *("in_meta", "marker", "split", "strip", "target"),
]

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
META = b".wh..wh."  # names that AUFS kept for itself
HELD = b".wh..wh.plnk"  # its directory of files that have several names in the layer
MAX_PATH = 4096  # PATH_MAX: what is longer can't be used by the programs of an image


@dataclass(frozen=True)
class Whiteout:
    """``parent/name`` of the layers beneath is gone."""

    parent: bytes
    name: bytes


@dataclass(frozen=True)
class Opaque:
    """All that the layers beneath have in ``parent`` is gone."""

    parent: bytes


@dataclass(frozen=True)
class Nothing:
    """AUFS's own bookkeeping: to be skipped."""


Marker = Union[Whiteout, Opaque, Nothing]


def strip(name: bytes, layer: str = "layer") -> bytes:
    """``name`` without leading, doubled and trailing slashes and without ``.``; the root is ``b""``.

    Absolute names count from the root, as tar and every container engine take them. Raises UnsafeEntry for
    ``..``, and LayerError for NUL bytes and for names beyond PATH_MAX.
    """
    parts = _parts(name, layer, name)
    if b".." in parts:
        raise UnsafeEntry(layer, os.fsdecode(name), "'..' in a name")
    return b"/".join(parts)


def target(link: bytes, layer: str, member: bytes) -> tuple[bytes, bytes]:
    """(directory, last component) that a hardlink names, normalised but for ``..``, which the directory may have.

    The last component is empty if the link names no entry. Raises LayerError as :func:`strip` does, with the name of
    the ``member``.
    """
    *above, last = _parts(link, layer, member) or [b""]
    return b"/".join(above), last if last != b".." else b""


def _parts(name: bytes, layer: str, member: bytes) -> list[bytes]:
    if b"\0" in name:
        raise LayerError(layer, os.fsdecode(member), "a NUL byte in a name")
    if len(name) > MAX_PATH:
        reason = f"a name of {len(name)} bytes; {MAX_PATH} are the limit"
        raise LayerError(layer, os.fsdecode(member), reason)
    return [part for part in name.split(b"/") if part and part != b"."]


def split(name: bytes, layer: str = "layer") -> tuple[bytes, bytes]:
    """(parent, last component) of an entry's name, both normalised as :func:`strip` does it.

    ``(b"", b"")`` is the root. Raises what ``strip`` raises, and LayerError for an empty name and for a
    parent that has the name of a whiteout.
    """
    if not name:
        raise LayerError(layer, "", "an entry without a name")
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    # Nearly every name is normal already, but for those two; all others take the long way.
    odd = b"/." in name or b"//" in name or b"\0" in name or len(name) > MAX_PATH
    if odd or not name or name[0] in b"./" or name[-1] == 0x2F:
        name = strip(name, layer)
    parent, _, last = name.rpartition(b"/")
    if parent.startswith(PREFIX) or b"/.wh." in parent:
        _check_parent(parent, name, layer)
    return parent, last


def _check_parent(parent: bytes, name: bytes, layer: str) -> None:
    for part in parent.split(b"/"):
        if part.startswith(META):
            return
        if part.startswith(PREFIX):
            raise LayerError(layer, os.fsdecode(name), "its directory has the name of a whiteout")


def in_meta(parent: bytes) -> bool:
    """Whether a parent lies in one of AUFS's own directories."""
    return parent.startswith(META) or b"/.wh..wh." in parent


def marker(parent: bytes, last: bytes, layer: str = "layer") -> Marker:
    """Return what an entry hides whose name begins with ``.wh.`` or which lies in a directory that does.

    Raises LayerError for ``.wh.``, ``.wh..`` and ``.wh...``, which would hide nothing, the directory itself,
    or its parent.
    """
    if in_meta(parent):
        return Nothing()
    if last == OPAQUE:
        return Opaque(parent)
    if last.startswith(META):
        return Nothing()
    hidden = last[len(PREFIX) :]
    if hidden in (b"", b".", b".."):
        shown = os.fsdecode(parent + b"/" + last if parent else last)
        raise UnsafeEntry(layer, shown, "a whiteout of no name that a directory can hold")
    return Whiteout(parent, hidden)
