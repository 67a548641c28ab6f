"""A tree of files as it is read.

Paths are bytes relative to the root, ``b""`` for the root itself. No link is followed.
"""

from __future__ import annotations

import os
from typing import Callable, Iterator, Protocol

from ocidist.scope import no_check

__all__ = ["Reader"]


class Reader(Protocol):
    """A tree that can be read, wherever its parts lie. OSErrors come as they are."""

    def entries(
        self, path: bytes, check: Callable[[], object] = no_check
    ) -> Iterator[tuple[bytes, os.stat_result]]:
        """Yield the names in a directory with what they are, in no order, keeping none: it may hold a million.

        ``check`` is called for the first and each thousandth. The same directory is not to be read meanwhile.
        """
        ...

    def names(self, path: bytes, check: Callable[[], object] = no_check) -> list[bytes]:
        """The names in a directory, sorted. ``check`` is called as for ``entries``."""
        ...

    def stat(self, path: bytes) -> os.stat_result:
        """What an entry is; a link is not followed."""
        ...

    def readlink(self, path: bytes) -> bytes: ...

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes, but for those that belong to the host or to overlay mounts."""
        ...

    def open(self, path: bytes) -> int:
        """A descriptor of a regular file, to be closed by the caller."""
        ...

    def close(self) -> None: ...
