"""Inflating and hashing beside the extraction: plain tar bytes handed over in pieces.

zlib and hashlib release the interpreter's lock, so a thread that inflates and hashes runs while the caller
writes files. Where threads can't be started (Pyodide) the same is done in the caller's thread.
"""

from __future__ import annotations

import queue
import threading
from typing import Callable, Protocol

from ocidist.layers.compression.inflate import PlainStream
from ocidist.scope import Scope
from ocidist.spec.digest import Digest

__all__ = ["Feed", "start"]

_DEPTH = 16  # pieces under way: at most 16 MiB, mostly about 4
_POLL = 0.05
_JOIN = 0.4  # seconds that an end waits for a read that may never return (standard input)


class Feed(Protocol):
    """Pieces in order; ``digest`` and ``size`` are whole once ``more`` has returned nothing."""

    size: int

    def more(self) -> bytes: ...

    def digest(self) -> Digest: ...

    def close(self) -> None: ...


def start(
    opener: Callable[[], PlainStream], scope: Scope, threads: bool = True, algorithm: str = "sha256"
) -> Feed:
    """A feed from what ``opener`` returns (called at the first read, there), digested by ``algorithm``; ends with the
    scope."""
    if threads:
        try:
            return _Threaded(opener, scope, algorithm)
        except RuntimeError:
            pass
    return _Inline(opener, scope, algorithm)


class _Inline:
    def __init__(self, opener: Callable[[], PlainStream], scope: Scope, algorithm: str) -> None:
        self.size = 0
        self._opener = opener
        self._stream: PlainStream | None = None
        self._scope = scope
        self._hash = Digest.hasher_for(algorithm)

    def more(self) -> bytes:
        self._scope.check()
        if self._stream is None:
            self._stream = self._opener()
        piece = self._stream.read_block()
        self._hash.update(piece)
        self.size += len(piece)
        return piece

    def digest(self) -> Digest:
        return Digest.from_hash(self._hash)

    def close(self) -> None:
        pass


class _Threaded:
    def __init__(self, opener: Callable[[], PlainStream], scope: Scope, algorithm: str) -> None:
        self.size = 0
        self._opener = opener
        self._scope = scope
        self._hash = Digest.hasher_for(algorithm)
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_DEPTH)
        self._stop = self._ended = False
        self._thread = threading.Thread(target=self._run, name="ocidist-inflate", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            stream = self._opener()
            while not self._stop:
                piece = stream.read_block()
                self._hash.update(piece)
                self.size += len(piece)
                self._put(piece)
                if not piece:
                    return
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            self._put(error)

    def _put(self, item: bytes | BaseException) -> None:
        while not self._stop:
            try:
                self._queue.put(item, timeout=_POLL)
                return
            except queue.Full:
                continue

    def more(self) -> bytes:
        while not self._ended:
            self._scope.check()
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            self._ended = not item
            return item
        return b""

    def digest(self) -> Digest:
        return Digest.from_hash(self._hash)

    def close(self) -> None:
        self._stop = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(_JOIN)
