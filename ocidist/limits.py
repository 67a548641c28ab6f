"""Limits: how much one image may cost before its unpacking is refused.

They are far beyond what real images need, and are there for images that are made to fill a disk, a memory or an
evening. A :class:`~ocidist.scope.Scope` carries them; ``limits=None``, or ``--no-limits``, lifts all of them.
"""

from __future__ import annotations

from ocidist.frozen import dataclass

__all__ = ["DEFAULT", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Pure numbers. Whoever counts raises LimitExceeded, which names the number."""

    layers: int = 500
    """Layers of one image. An overlay mount takes 500; Docker builds 127 at most."""

    entries: int = 5_000_000
    """Entries of all layers of one image, and directories that had to be made for them."""

    ratio: int = 1000
    """Unpacked bytes for each byte of the blobs, beyond ``floor``; a layer that is listed twice counts as one blob.
    gzip makes 1032 of one at most, of zeros."""

    floor: int = 1 << 30
    """Bytes that any image may unpack to, whatever its blobs' size."""

    steps: int = 1_000_000
    """Steps of looking up directories in one layer, beyond 100 for each entry: a component of a path, or of a link, is
    one; so is a file that a whiteout has to spare."""

    reserve: int = 64 << 20
    """Bytes that stay free on the disk, or a hundredth of it where that is less."""


DEFAULT = Limits()
