"""Free space on a disk, checked before a tree is made and while it grows. Holes take none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Union

from ocidist.errors import StoreError
from ocidist.limits import Limits
from ocidist.scope import Scope
from ocidist.view.sizes import human

__all__ = ["Space", "require"]

Place = Union[int, Path]
_STEP = 16 << 20  # bytes written between two looks
_ADVICE = (
    "free some (rmi, gc), use another disk (--root), or lift this limit: --no-limits (in Python limits=None)"
)


def _room(place: Place, limits: Limits) -> tuple[int, int]:
    """Return (free bytes for this user, how many of them are to stay free); (-1, 0) where the system can't tell."""
    if not hasattr(os, "statvfs"):
        return -1, 0
    found = os.statvfs(place)
    if not found.f_blocks:
        return -1, 0
    return found.f_bavail * found.f_frsize, min(limits.reserve, found.f_blocks * found.f_frsize // 100)


def require(place: Place, name: str, needed: int, limits: Limits | None, what: str) -> None:
    """Raise StoreError, about ``name``, where ``needed`` bytes for ``what`` don't fit on the disk of ``place``. OSErrors
    come as they are."""
    if limits is None:
        return
    free, kept = _room(place, limits)
    if 0 <= free < needed + kept:
        raise StoreError(
            name,
            f"{os.strerror(errno.ENOSPC)} for {what}: {human(needed)} at least are needed, {human(free)} free; {_ADVICE}",
        )


class Space:
    """The disk that ``place`` (a path, or a descriptor that stays open) is on, while something is written there."""

    def __init__(self, place: Place, name: str, scope: Scope) -> None:
        self._place, self._name, self._scope = place, name, scope
        self._all = self._since = 0

    def wrote(self, count: int) -> None:
        """Count bytes that were written. Raises StoreError where too little stays free, and the scope's end."""
        self._since += count
        if self._since < _STEP:
            return
        self._scope.check()
        self._all += self._since
        self._since = 0
        limits = self._scope.limits
        if limits is None:
            return
        try:
            free, kept = _room(self._place, limits)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                return
            raise
        if 0 <= free < kept:
            raise StoreError(
                self._name,
                f"{os.strerror(errno.ENOSPC)} after {human(self._all)} of it: {human(free)} are free, {human(kept)} are to stay so; "
                f"{_ADVICE}",
            )
