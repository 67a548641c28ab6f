"""The least rate of an answer. A peer that sends a byte a second for ever never meets the idle time-out.

Only the time inside the reads of the socket counts, so a slow disk, a consumer that pauses and an unread answer cost nothing.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["PacedFile", "TooSlow"]

_LONGEST = 0.25  # of the window: what one wait counts at most, for the process may have been stopped in it


class TooSlow(OSError):
    """The peer sent less than the least rate over a window of waiting."""


class PacedFile(io.RawIOBase):
    """``source``, the file of a socket, whose peer has to send ``rate`` bytes a second over each ``window`` seconds of waiting.

    Whoever reads from ``source`` itself calls :meth:`begin` and :meth:`end` around it. ``rate`` may be 0. It raises :class:`TooSlow` where another read would begin: the bytes that came before are delivered, and an answer that is
    complete by then is taken.
    """

    def __init__(self, source: io.RawIOBase, rate: float, window: float) -> None:
        self.source = source
        self._rate, self._window = rate, window
        self._longest = window * _LONGEST
        self._waited, self._came = 0.0, 0
        self.ended = False
        """An end was read."""

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        began = self.begin()
        count = self.source.readinto(buffer)
        self.end(began, count or 0)
        self.ended = count == 0
        return count

    def begin(self) -> float:
        """The moment, for :meth:`end`. Raises TooSlow."""
        if self._waited >= self._window:
            self._judge()
        return time.monotonic()

    def end(self, began: float, count: int) -> None:
        """``count`` bytes came."""
        self._waited += min(time.monotonic() - began, self._longest)
        self._came += count

    def _judge(self) -> None:
        if self._came < self._rate * self._waited:
            raise TooSlow(
                f"it sends too slowly: {self._came} bytes in {round(self._waited, 1):g} seconds, less than {self._rate:g} a second; "
                "try again later, or from a mirror"
            )
        self._waited, self._came = 0.0, 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.source.fileno()

    def close(self) -> None:
        try:
            self.source.close()
        finally:
            super().close()
