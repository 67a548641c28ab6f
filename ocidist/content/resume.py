"""The one reader of what other hosts send: it resumes where an answer breaks off, and asks again for wrong bytes.

A source's bodies are single answers. Whatever goes wrong with one object (failures of the network, answers of a busy
host, cuts, stalls, wrong bytes, changes of host) is counted here, in one :class:`~ocidist.scope.Retries`. Bytes of this
machine (``Body.host`` is "") are read once: they would not differ the next time.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator, Protocol

from ocidist.content.protocols import Body
from ocidist.content.verify import read_all
from ocidist.errors import ContentError, DigestMismatch, RegistryError, SizeMismatch, TransportError
from ocidist.progress import Resumed, Retrying
from ocidist.scope import Retries, Scope

if TYPE_CHECKING:
    from ocidist.spec.descriptor import Descriptor

__all__ = ["Opener", "Resuming", "read", "resuming"]

EARLY = 3  # answers in a row that end early, without an error
WRONG = 2  # times that one host may send wrong bytes
_SKIP = 64 << 10


class Opener(Protocol):
    """The part of a Source that is read from."""

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> Body: ...


def read(source: Opener, target: Descriptor, limit: int, scope: Scope) -> bytes:
    """Return all bytes of an object, verified; ``limit`` is as for :func:`~ocidist.content.verify.read_all`."""
    with resuming(source, target, scope) as body:
        while True:
            try:
                return read_all(body, target, limit)
            except (DigestMismatch, SizeMismatch) as error:
                final = body.wrong(error)
                if final is not None:
                    raise final from None


@contextmanager
def resuming(
    source: Opener, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
) -> Iterator[Resuming]:
    """Give the block a body of ``target``, with retries of its own."""
    retries = Retries()
    with scope.child(retries=retries) as inner:
        body = Resuming(source, target, inner, retries, offset=offset, length=length)
        try:
            yield body
        finally:
            body.close()


class Resuming:
    """A Body over as many answers of ``source`` as it takes. Nothing is asked for before the first read.

    After a failure the next answer is asked for from the byte where the last one ended; what is sent again is dropped.
    """

    def __init__(
        self,
        source: Opener,
        target: Descriptor,
        scope: Scope,
        retries: Retries,
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        self._source, self._target, self._scope, self._retries = source, target, scope, retries
        self._stop = None if length is None else offset + length
        self.start = self._position = offset
        self.size: int | None = target.size if target.size >= 0 else None
        self.ended = False
        """True once the source has no more of it, which says nothing against the bytes that came."""
        self._body: Body | None = None
        self._sender: str | None = None  # of the last bytes; None: nothing was asked for yet
        self._kept = offset > 0  # the first bytes are of an earlier run
        self._known = 0  # bytes that the present answer sends again
        self._reasons: dict[str, str] = {}
        self._wrong: dict[str, int] = {}
        self._broken: set[str] = set()  # hosts that failed in the middle as they would again

    @property
    def host(self) -> str:
        """Return the host that sent the last bytes."""
        return self._sender or ""

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end. Raises what the source does, or SizeMismatch, once retries are spent."""
        while True:
            room = buffer if self._stop is None else buffer[: max(self._stop - self._position, 0)]
            if not len(room) or (self._body is None and self.size and self._position >= self.size):
                return 0
            try:
                count = self._answer().readinto(_scratch(self._known) if self._known else room)
            except (TransportError, RegistryError) as error:
                self._failed(error)
                continue
            if not count and not self._known and self._position >= self._end():
                return 0
            if not count:
                self._ended_early()
            elif self._known:
                self._scope.check()
                self._known -= count
            else:
                self._position += count
                self._retries.moved(count)
                if self.size is not None and self._position > self.size:
                    raise SizeMismatch(self._target, f"more than the {self.size} bytes that were promised")
                return count

    def close(self) -> None:
        """Let go of the connection. The next read opens another one."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def wrong(self, error: ContentError) -> ContentError | None:
        """Go back to byte 0, since the bytes are wrong as ``error`` says; return the error to raise if that is no use.

        It is no use once each host has had its turn, when one has sent wrong bytes for the second time.
        """
        self.close()
        sender, kept = self._sender, self._kept
        if self.ended or (sender == "" and not kept):
            return error
        if sender:
            self._wrong[sender] = self._wrong.get(sender, 0) + 1
            self._reasons[sender] = error.reason
            if self._wrong[sender] >= WRONG:
                return error.extended(f"; {sender} sent them{self._others(sender)}")
        self._position, self._kept = 0, False
        why = f"{sender}: {error.reason}" if sender else str(error)
        self._scope.emit(Retrying(self._target.digest, self._retries.elsewhere(), 0.0, why))
        return None

    def _end(self) -> int:
        ends = [end for end in (self.size, self._stop) if end is not None]
        return min(ends, default=0)

    def _answer(self) -> Body:
        """Return the present answer, or the next one."""
        if self._body is None:
            at, resumed = self._position, self._sender is not None
            length = None if self._stop is None else self._stop - at
            self.ended = True  # an error about content from here is not about bytes that came
            self._body = body = self._source.open(self._target, self._scope, offset=at, length=length)
            self.ended, self._sender, self._known = False, body.host, at - body.start
            if self._target.size < 0:
                self.size = body.size
            if body.start > at:
                raise SizeMismatch(self._target, f"the source answered from byte {body.start}, not {at}")
            if resumed and at:
                self._scope.emit(Resumed(self._target.digest, at))
        return self._body

    # -- failures --

    def _failed(self, error: TransportError | RegistryError) -> None:
        """Wait for the next try, or raise ``error``. The end of an answer whose bytes have all come may fail."""
        open_ = self._body is not None
        host = self.host or error.host if open_ else error.host
        reason = error.reason if isinstance(error, TransportError) else f"it answered {error.status}"
        whole = open_ and bool(self.size) and self._position == self.size
        self.close()
        if whole and error.retryable:
            return
        self._reasons[host] = reason
        if open_ and not error.retryable and len(self._broken | {host}) < self._retries.hosts:
            self._broken.add(host)  # it does not pass, but another host may do better
            self._retries.elsewhere()
            self._pause(0.0, f"{host}: {reason}")
            return
        seconds = self._retries.after(error, _jitter())
        if seconds is None:
            others = self._others(host)
            raise error.extended(others) if others else error
        self._pause(seconds, f"{host}: {reason}")

    def _ended_early(self) -> None:
        """Wait for the next try after an answer that is whole by its own account, and too short."""
        host, end = self.host, self._end()
        self.close()
        reason = f"the source ends after {self._position - self._known}{f' of {end}' if end else ''} bytes"
        seconds = self._retries.again(_jitter(), tries=EARLY) if host else None
        if seconds is None:
            self.ended = True
            raise SizeMismatch(self._target, reason)
        self._pause(seconds, f"{host}: {reason}")

    def _pause(self, seconds: float, why: str) -> None:
        self._scope.emit(Retrying(self._target.digest, self._retries.attempt, seconds, why))
        self._scope.pause(seconds)

    def _others(self, host: str) -> str:
        said = [f"{other}: {reason}" for other, reason in self._reasons.items() if other != host]
        return f"; asked before it: {'; '.join(said)}" if said else ""


def _jitter() -> float:
    import random  # 5 ms, and most runs never pause

    return random.random()


def _scratch(count: int) -> memoryview:
    return memoryview(bytearray(min(count, _SKIP)))
