"""Idle connections, kept for the next request on the same route. Thread-safe; opens nothing."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from ocidist.net.dial import Link, readable
from ocidist.net.proxy import Route

__all__ = ["Pool"]

IDLE_SECONDS = 60.0


@dataclass
class _Idle:
    link: Link
    since: float


class Pool:
    """At most ``limit`` idle links in all; the oldest go first, and each after a minute."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        self._closed = False
        self._process = os.getpid()

    def take(self, route: Route, kind: object) -> Link | None:
        """The link of this route that was used last, or None.

        ``kind`` is the class of connection in force: inside a vcrpy cassette it is another, and the links
        from outside must not be used. One that is readable has been closed by its peer, or has bytes that
        belong to no answer: it is dropped.
        """
        while True:
            with self._lock:
                dropped = self._expire()
                entry = next(
                    (e for e in reversed(self._idle) if e.link.route == route and e.link.kind is kind), None
                )
                if entry is not None:
                    self._idle.remove(entry)
            for link in dropped:
                link.close()
            if entry is None:
                return None
            if _quiet(entry.link):
                entry.link.reused = True
                return entry.link
            entry.link.close()

    def put(self, link: Link) -> None:
        """Keep ``link``, whose last answer was read to its end, or close it if there is no room."""
        with self._lock:
            dropped = self._expire()
            if self._closed or self._limit <= 0:
                dropped.append(link)
            else:
                self._idle.append(_Idle(link, time.monotonic()))
                while len(self._idle) > self._limit:
                    dropped.append(self._idle.pop(0).link)
        for old in dropped:
            old.close()

    def close(self) -> None:
        """Close what is idle; what comes back later is closed as well."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for entry in idle:
            entry.link.close()

    def _expire(self) -> list[Link]:
        if self._process != os.getpid():  # a fork: the connections belong to the parent
            self._process = os.getpid()
            old, self._idle = self._idle, []
        else:
            limit = time.monotonic() - IDLE_SECONDS
            old = [entry for entry in self._idle if entry.since <= limit]
            self._idle = [entry for entry in self._idle if entry.since > limit]
        return [entry.link for entry in old]


def _quiet(link: Link) -> bool:
    sock = link.connection.sock
    try:
        return sock is not None and not readable(sock.fileno())
    except (OSError, ValueError):
        return False
