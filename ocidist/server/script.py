"""Which fault an exchange meets: the script that a misbehaving registry follows."""

from __future__ import annotations

import threading
from typing import Iterable

from ocidist.server.faults import Fault

__all__ = ["Script"]


class Script:
    """Faults, each with the times that are left of it. Threads may share it."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[Fault, int | None]] = [(fault, fault.times) for fault in faults]
        self._happened: list[tuple[str, Fault]] = []

    def next(self, phase: str) -> Fault | None:
        """The first fault that is due in ``phase``, which is then used up by one; None if all is well."""
        with self._lock:
            for at, (fault, left) in enumerate(self._left):
                if phase in fault.on and left != 0:
                    self._left[at] = fault, None if left is None else left - 1
                    self._happened.append((phase, fault))
                    return fault
        return None

    @property
    def happened(self) -> tuple[tuple[str, Fault], ...]:
        """Phase and fault of all that has happened so far, in that order."""
        with self._lock:
            return tuple(self._happened)
