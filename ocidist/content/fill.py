"""Fill: bring one object from a source into a store, resuming, verified before it is visible.

Two that want one object at once download it once: the second waits for the first, politely.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Mapping, Protocol, Union

from ocidist.content.protocols import Body, Ingester, Provider, Writer
from ocidist.content.verify import BLOCK, MemoryBody
from ocidist.errors import (
    AlreadyExists,
    ContentError,
    DigestMismatch,
    Locked,
    SizeMismatch,
    TransportError,
)
from ocidist.progress import Advanced, Finished, Resumed, Retrying, Waiting
from ocidist.scope import Retries
from ocidist.spec import mediatype

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

__all__ = ["Opener", "fill", "ref_key"]

Outcome = Union[Literal["copied"], Literal["exists"]]

POLL = 0.05  # seconds between looks for an object that another brings
LONGEST = 0.4  # seconds between tries to take its ingest over
REPORT = 0.2  # seconds after which progress is reported, and what came is written, on a slow link
ATTEMPTS = 3  # bodies that end early, without an error, before it is given up
SMALL = 256 << 10  # bytes that are gathered before they are hashed and written


class Opener(Protocol):
    """The part of a Source that is needed here."""

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> Body: ...


def ref_key(target: Descriptor) -> str:
    """The key of an ingest, as containerd names them: ``layer-sha256:…``, ``manifest-sha256:…``."""
    kind = mediatype.kind(target.media_type)
    return f"{'unknown' if kind == 'blob' else kind}-{target.digest}"


def fill(
    ingester: Ingester,
    provider: Provider,
    target: Descriptor,
    source: Opener,
    scope: Scope,
    *,
    key: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Outcome:
    """``target`` is in the store when this returns: "copied", or "exists" if it was there or another brought it.

    What an earlier run left under ``key`` is kept and hashed again, and the source is asked for the rest.
    Bytes that do not verify are dropped and fetched once more from the start; then DigestMismatch or
    SizeMismatch. On any other end (errors of the source, StoreError, the scope's end, KeyboardInterrupt) what
    came is kept for the next run. Emits Waiting, Resumed, Advanced, Retrying and Finished.
    """
    if _here(provider, target):
        scope.emit(Finished(target.digest, "exists"))
        return "exists"
    if target.data is not None:
        source = _Inline(target)
    writer = _writer(ingester, provider, target, scope, key or ref_key(target), labels)
    if writer is None:
        scope.emit(Finished(target.digest, "exists"))
        return "exists"
    with writer, scope.child(retries=Retries()) as inner:
        _Fill(writer, target, source, inner).run(labels)
    scope.emit(Finished(target.digest, "copied"))
    return "copied"


def _here(provider: Provider, target: Descriptor) -> bool:
    try:
        return provider.info(target.digest).size == target.size
    except (
        ContentError
    ):  # absent, or something else in its place: the commit replaces that, or says what it is
        return False


def _writer(
    ingester: Ingester,
    provider: Provider,
    target: Descriptor,
    scope: Scope,
    key: str,
    labels: Mapping[str, str] | None,
) -> Writer | None:
    """The writer, once nobody else holds it; None if the object came meanwhile."""
    waited = False
    pause = POLL
    while True:
        scope.check()
        try:
            return ingester.writer(key, total=target.size, expected=target.digest, labels=labels)
        except AlreadyExists:
            return None
        except Locked:
            if not waited:
                scope.emit(Waiting(target.digest, "another process or thread fetches it"))
                waited = True
            # A look costs one stat; to try the lock costs more, and with many waiting that adds up.
            until = time.monotonic() + pause
            pause = min(pause * 2, LONGEST)
            while time.monotonic() < until:
                scope.sleep(POLL)
                if _here(provider, target):
                    return None


class _Inline:
    """A source of a descriptor's own ``data`` (descriptor.md, "Embedded Content")."""

    def __init__(self, target: Descriptor) -> None:
        self.data = target.data or b""

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        return MemoryBody(self.data, offset)


class _Wrong(Exception):
    """More bytes than promised, or a body that begins past what is here."""


class _Fill:
    def __init__(self, writer: Writer, target: Descriptor, source: Opener, scope: Scope) -> None:
        self.writer, self.target, self.source, self.scope = writer, target, source, scope
        self.offset = writer.status().offset
        self.buffer = memoryview(bytearray(max(min(target.size + 1, BLOCK), 1)))
        self.reported = 0
        self.reported_at = time.monotonic()
        self.retries = scope.retries or Retries()
        self.sender = ""  # the host that the last bytes came from, where the source tells

    def run(self, labels: Mapping[str, str] | None) -> None:
        # Each host may send wrong bytes once: a source of several asks another one first each time.
        asked: set[str] = set()
        reasons: list[str] = []
        while True:
            if self.offset > self.target.size:
                self.restart()
            try:
                self.fetch()
                self.writer.commit(self.target.size, self.target.digest, labels)
                return
            except (_Wrong, DigestMismatch, SizeMismatch) as error:
                if self.offset < self.target.size and not isinstance(error, _Wrong):
                    raise  # it ended early, however often it was asked: what came is kept
                found = SizeMismatch(self.target, str(error)) if isinstance(error, _Wrong) else error
                if self.sender in asked:
                    self.writer.abort()
                    said = f"; {self.sender} sent them; asked before it: {'; '.join(dict.fromkeys(reasons))}"
                    raise (found.extended(said) if len(asked) > 1 else found) from None
                asked.add(self.sender)
                if self.sender:
                    reasons.append(f"{self.sender}: {found.reason}")
                self.restart()
                self.scope.emit(
                    Retrying(
                        self.target.digest,
                        self.retries.elsewhere(),
                        0.0,
                        reasons[-1] if self.sender else str(error),
                    )
                )

    def restart(self) -> None:
        self.writer.truncate(0)
        self.offset = self.reported = 0

    def fetch(self) -> None:
        """Get what is missing, over as many connections as it takes while they bring something."""
        if self.offset:
            self.scope.emit(Resumed(self.target.digest, self.offset))
            catch_up = getattr(self.writer, "catch_up", None)
            if catch_up is not None:
                catch_up(self.scope.check)
        retries = self.retries
        while self.offset < self.target.size or not self.target.size:
            began = self.offset
            reason = "the body ended early"
            error: TransportError | None = None
            try:
                self.receive(self.source.open(self.target, self.scope, offset=self.offset))
            except TransportError as caught:
                if (
                    not caught.retryable or retries.spent
                ):  # the source has tried it again itself, as often as may be
                    raise
                error, reason = caught, caught.reason
            if self.offset == self.target.size:
                return
            retries.moved(self.offset - began)
            pause = retries.again(tries=ATTEMPTS if error is None else None)
            if pause is None:
                if error is not None:
                    raise error
                raise SizeMismatch(
                    self.target, f"the source ends after {self.offset} of {self.target.size} bytes"
                )
            self.scope.emit(Retrying(self.target.digest, retries.attempt, pause, reason))
            self.scope.pause(pause)

    def receive(self, body: Body) -> None:
        """Write one body's bytes; also those that came before an error."""
        self.sender = body.host
        try:
            if body.start > self.offset:
                raise _Wrong(f"the source answered from byte {body.start}, not {self.offset}")
            self.skip(body, self.offset - body.start)
            filled = 0
            try:
                while True:
                    self.scope.check()
                    count = body.readinto(self.buffer[filled:])
                    if not count:
                        break
                    filled += count
                    late = time.monotonic() - self.reported_at >= REPORT
                    if filled == len(self.buffer) or filled >= SMALL or late:
                        filled, ready = 0, filled
                        self.write(ready)
            finally:
                if filled:
                    self.write(filled)
        finally:
            body.close()
        self.report(final=True)

    def skip(self, body: Body, count: int) -> None:
        # A server that ignores the range sends what is here already.
        while count > 0:
            self.scope.check()
            got = body.readinto(self.buffer[:count])
            if not got:
                raise TransportError("source", "the body ended before the byte to resume from")
            count -= got

    def write(self, count: int) -> None:
        if self.offset + count > self.target.size:
            raise _Wrong(f"more than the {self.target.size} bytes that were promised")
        try:
            self.writer.write(self.buffer[:count])
        finally:
            self.offset = self.writer.status().offset
        self.report()

    def report(self, final: bool = False) -> None:
        now = time.monotonic()
        if self.offset - self.reported >= BLOCK or now - self.reported_at >= REPORT or final:
            self.reported, self.reported_at = self.offset, now
            self.scope.emit(Advanced(self.target.digest, "fetch", self.offset, self.target.size))
