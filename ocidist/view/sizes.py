"""Bytes and times in words. Bytes are decimal, as Docker prints them; times are UTC."""

from __future__ import annotations

import math
import time
from typing import Any

__all__ = ["age", "count", "duration", "human", "moment", "utc"]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def human(size: float) -> str:
    """Bytes in decimal units: ``0 B``, ``999 B``, ``1.8 kB``, ``31.4 MB``, ``314 MB``."""
    if size < 0:
        return f"-{human(-size)}"
    if size < 1000:
        return f"{int(size)} B"
    value = float(size)
    for unit in _UNITS:
        # 99.95 would round to "100.0", 999.5 to "1000": both take the next form instead.
        if value < 99.95 and unit != "B":
            return f"{value:.1f} {unit}"
        if value < 999.5:
            return f"{value:.0f} {unit}"
        if unit != _UNITS[-1]:
            value /= 1000
    return f"{value:.0f} {_UNITS[-1]}"


def count(number: int) -> str:
    """A number with its thousands apart: ``1,000,000``."""
    return f"{number:,}"


_STEPS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"),
    (2 * 365 * 86400, 30 * 86400, "month"),
)


def age(seconds: float) -> str:
    """A span of seconds in words: ``12 seconds``, ``3 minutes``, ``2 weeks``; the future is ``in 3 days``."""
    if seconds <= -1:
        return f"in {age(-seconds)}"
    if seconds < 1:
        return "less than a second"
    for limit, size, name in _STEPS:
        if seconds < limit:
            return _several(int(seconds // size), name)
    return _several(int(seconds // (365 * 86400)), "year")


def _several(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number:,} {name}s"


def duration(seconds: float) -> str:
    """A measured span: ``1.2 s``, ``42 s``, ``3 min 07 s``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def moment(value: Any) -> float | None:
    """Seconds since the epoch of a number or a ``datetime``; None for anything else, not-a-number and infinities too."""
    if isinstance(value, (int, float)):
        return value if -math.inf < value < math.inf else None
    stamp = getattr(value, "timestamp", None)
    try:
        return float(stamp()) if callable(stamp) else None
    except (OverflowError, ValueError, OSError, TypeError):
        return None


def utc(epoch: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, ``2026-05-01T12:00:00Z``; empty where no date fits."""
    try:
        parts = time.gmtime(epoch)
    except (OverflowError, ValueError, OSError):
        return ""
    if not 0 <= parts.tm_year <= 9999:
        return ""
    # Not strftime: how it pads years before 1000 differs between C libraries.
    return (
        f"{parts.tm_year:04d}-{parts.tm_mon:02d}-{parts.tm_mday:02d}"
        f"T{parts.tm_hour:02d}:{parts.tm_min:02d}:{parts.tm_sec:02d}Z"
    )
