"""Fill: bring one object from a source into a store, resuming, verified before it is visible.

Two that want one object at once download it once: the second waits for the first, politely.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Mapping, Union

from ocidist.content.protocols import Body, Ingester, Provider, Writer
from ocidist.content.resume import Opener, Resuming, resuming
from ocidist.content.verify import BLOCK, MemoryBody
from ocidist.errors import AlreadyExists, ContentError, DigestMismatch, Locked, SizeMismatch
from ocidist.progress import Advanced, Finished, Resumed, Waiting
from ocidist.spec import mediatype

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

__all__ = ["fill", "ref_key"]

Outcome = Union[Literal["copied"], Literal["exists"]]

POLL = 0.05  # seconds between looks for an object that another brings
LONGEST = 0.4  # seconds between tries to take its ingest over
REPORT = 0.2  # seconds after which progress is reported, and what came is written, on a slow link
SMALL = 256 << 10  # bytes that are gathered before they are hashed and written


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
    Bytes that do not verify are dropped and fetched again from the start, until a host has sent wrong ones twice; then
    DigestMismatch or SizeMismatch. On any other end (errors of the source, StoreError, the scope's end, KeyboardInterrupt) what
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
    with writer:
        if writer.status().offset > target.size:
            writer.truncate(0)
        with resuming(source, target, scope, offset=writer.status().offset) as body:
            _Fill(writer, target, body, scope).run(labels)
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


class _Fill:
    """Writes a body to a writer, and makes what came visible once it verifies."""

    def __init__(self, writer: Writer, target: Descriptor, body: Resuming, scope: Scope) -> None:
        self.writer, self.target, self.body, self.scope = writer, target, body, scope
        self.offset = writer.status().offset
        self.buffer = memoryview(bytearray(max(min(target.size + 1, BLOCK), 1)))
        self.reported, self.reported_at = 0, time.monotonic()

    def run(self, labels: Mapping[str, str] | None) -> None:
        if self.offset:
            self.scope.emit(Resumed(self.target.digest, self.offset))
            self.writer.catch_up(self.scope.check)
        while True:
            try:
                self.receive()
                self.writer.commit(self.target.size, self.target.digest, labels)
                return
            except (DigestMismatch, SizeMismatch) as error:
                final = self.body.wrong(error)
                if self.body.ended:
                    raise  # what came is kept
                if final is not None:
                    self.writer.abort()
                    raise final from None
                self.writer.truncate(0)
                self.offset = self.reported = 0

    def receive(self) -> None:
        """Write all that comes; also what came before an error."""
        filled = 0
        try:
            while True:
                self.scope.check()
                count = self.body.readinto(self.buffer[filled:])
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
        self.report(final=True)

    def write(self, count: int) -> None:
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
