"""Record what a server was asked, and hold the rules by which a caller bends its answers."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Callable

__all__ = ["Gate", "Record", "Rule"]

_V2_BLOB = re.compile(r"/blobs/(sha\d+):([0-9a-f]+)$")
_STORED_BLOB = re.compile(r"/blobs/(sha\d+)/[0-9a-f]{2}/([0-9a-f]+)/data$")


@dataclass(frozen=True)
class Record:
    """One exchange as the server saw it. ``sent`` counts the body bytes written to the socket."""

    method: str
    target: str
    status: int
    request_headers: tuple[tuple[str, str], ...]
    response_headers: tuple[tuple[str, str], ...]
    received: int
    sent: int
    complete: bool
    connection: int
    at: float = 0.0
    """Seconds of the monotonic clock at its start."""

    def header(self, name: str) -> str | None:
        """Return the first request header of that name."""
        return next((value for key, value in self.request_headers if key.lower() == name.lower()), None)

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def digest(self) -> str | None:
        """Return the digest of the blob asked for, from a registry's path or a storage's."""
        found = _V2_BLOB.search(self.path) or _STORED_BLOB.search(self.path)
        return f"{found[1]}:{found[2]}" if found else None

    @property
    def start(self) -> int:
        """Return the offset of the sent body in the blob."""
        value = next((v for k, v in self.response_headers if k.lower() == "content-range"), "")
        found = re.match(r"bytes (\d+)-", value)
        return int(found[1]) if found and self.status == 206 else 0


@dataclass
class Gate:
    """Hold a body at a byte: wait for ``reached``, act, then call ``open()``."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: list[Callable[[int], None]] = field(default_factory=list)

    def open(self) -> None:
        """Let the body continue. Its exchange counts as under way again when this returns."""
        with self._lock:
            held, self._held = self._held, []
            for busy in held:
                busy(1)
            self.opened.set()

    def hold(self, busy: Callable[[int], None]) -> None:
        """Wait in the server's thread, not counted as ``busy``, for up to two minutes."""
        with self._lock:
            if not self.opened.is_set():
                busy(-1)
                self._held.append(busy)
        self.reached.set()
        if not self.opened.wait(120):
            self.open()


@dataclass
class Rule:
    """Change the next ``times`` exchanges that match; all of them if ``times`` is None."""

    method: str
    pattern: re.Pattern[str]
    times: int | None
    at: int = 0
    gate: Gate | None = None
    cut: bool = False
    answer: tuple[int, dict[str, str], bytes] | None = None
