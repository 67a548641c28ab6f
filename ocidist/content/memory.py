"""Blobs in memory: for tests, for systems without a disk, and as the second of their contract."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Mapping

from ocidist.content.ingest import check_key
from ocidist.content.protocols import Info, IngestStatus, Survey
from ocidist.content.verify import MemoryBody
from ocidist.errors import (
    AlreadyExists,
    BlobNotFound,
    DigestMismatch,
    Locked,
    SizeMismatch,
    StoreError,
    UsageError,
)
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

__all__ = ["MemoryContent", "MemoryWriter"]


@dataclass
class _Ingest:
    status: IngestStatus
    data: bytearray = field(default_factory=bytearray)
    held: bool = False


class MemoryContent:
    """Blobs in a dictionary. For any thread of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[Digest, tuple[bytes, Info]] = {}
        self._ingests: dict[str, _Ingest] = {}

    def __repr__(self) -> str:
        return f"MemoryContent({len(self._blobs)} blobs)"

    # -- Provider --

    def info(self, digest: Digest) -> Info:
        """Size and times. Raises BlobNotFound."""
        return self._blob(digest)[1]

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """True if the blob is here, and of that size (None: any)."""
        found = self._blobs.get(Digest(digest))
        return found is not None and size in (None, found[1].size)

    def _blob(self, digest: Digest) -> tuple[bytes, Info]:
        try:
            return self._blobs[Digest(digest)]
        except KeyError:
            raise BlobNotFound(str(digest), "no such blob in this store") from None

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> MemoryBody:
        """The blob's bytes. Raises BlobNotFound, SizeMismatch (a negative ``target.size`` is unknown)."""
        scope.check()
        raw, _ = self._blob(target.digest)
        if 0 <= target.size != len(raw):
            raise SizeMismatch(target, f"the blob is {len(raw)} bytes, not {target.size}")
        return MemoryBody(raw, offset, None if length is None else offset + length)

    def file(self, target: Descriptor, scope: Scope) -> None:
        """Return None: there are no files. Raises BlobNotFound."""
        self._blob(target.digest)

    # -- Ingester --

    def writer(
        self,
        key: str,
        *,
        total: int = 0,
        expected: Digest | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> MemoryWriter:
        """The writer of ``key``. Raises AlreadyExists, Locked, UsageError for a key that can't be."""
        check_key(key)
        with self._lock:
            if expected is not None and expected in self._blobs:
                raise AlreadyExists(str(expected), "already in the store")
            now = time.time()
            ingest = self._ingests.get(key)
            if ingest is None:
                ingest = self._ingests[key] = _Ingest(IngestStatus(key, 0, total, now, now, expected))
            if ingest.held:
                raise Locked(key, "another writer holds this ingest")
            ingest.held = True
            known = ingest.status
            other = bool(total and known.total and total != known.total)
            if other or (expected and known.expected and expected != known.expected):
                ingest.data.clear()
            ingest.status = known._replace(total=total or known.total, expected=expected or known.expected)
            return MemoryWriter(self, ingest)

    def add(self, digest: Digest, raw: bytes) -> None:
        """A writer committed these bytes."""
        now = time.time()
        with self._lock:
            self._blobs[digest] = (raw, Info(digest, len(raw), now, now))

    def let_go(self, ingest: _Ingest, *, drop: bool) -> None:
        """A writer is done with it."""
        with self._lock:
            ingest.held = False
            if drop:
                self._ingests.pop(ingest.status.key, None)

    # -- management --

    def walk(self) -> Iterator[Info]:
        """Every blob, by digest."""
        with self._lock:
            infos = [info for _, info in self._blobs.values()]
        yield from sorted(infos, key=lambda info: info.digest)

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Raises BlobNotFound."""
        with self._lock:
            if self._blobs.pop(Digest(digest), None) is None:
                raise BlobNotFound(str(digest), "no such blob in this store")

    def statuses(self, keys: Iterable[str] = ()) -> Iterator[IngestStatus]:
        """Ingests under way or interrupted, oldest first; of ``keys`` alone if any are given."""
        wanted = set(keys)
        with self._lock:
            found = [
                ingest.status._replace(offset=len(ingest.data))
                for key, ingest in self._ingests.items()
                if not wanted or key in wanted
            ]
        yield from sorted(found, key=lambda status: (status.started_at, status.key))

    def abort(self, key: str) -> None:
        """Drop an ingest; one that is not there is no error. Raises Locked while a writer holds it."""
        with self._lock:
            ingest = self._ingests.get(key)
            if ingest is not None and ingest.held:
                raise Locked(key, "a writer holds this ingest")
            self._ingests.pop(key, None)

    def sweep(self, before: float, *, keep: Iterable[str] = (), dry_run: bool = False) -> list[str]:
        """Drop the ingests that nobody holds and that were last written ``before``; their keys."""
        with self._lock:
            found = [
                key
                for key, ingest in self._ingests.items()
                if not ingest.held and ingest.status.updated_at < before and key not in set(keep)
            ]
            for key in () if dry_run else found:
                del self._ingests[key]
        return found

    def survey(self) -> Survey:
        """Every blob; nothing else can be here."""
        return Survey({info.digest: info.size for info in self.walk()})

    def identity(self, digest: Digest) -> tuple[int, ...]:
        """Which bytes they are, of those that had this digest in turn."""
        found = self._blobs.get(Digest(digest))
        return () if found is None else (id(found), int(found[1].created_at * 1e6))

    def path(self, digest: Digest) -> Path | None:
        """None: they are not files."""
        return None


class MemoryWriter:
    """The one writer of a key; made by ``MemoryContent.writer``."""

    def __init__(self, owner: MemoryContent, ingest: _Ingest) -> None:
        self._owner = owner
        self._ingest: _Ingest | None = ingest

    def _open(self) -> _Ingest:
        if self._ingest is None:
            raise StoreError("memory", "this writer is closed")
        return self._ingest

    def status(self) -> IngestStatus:
        """Where it stands."""
        ingest = self._open()
        return ingest.status._replace(offset=len(ingest.data))

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of ``data``."""
        ingest = self._open()
        view = memoryview(data).cast("B")
        ingest.data += view
        ingest.status = ingest.status._replace(updated_at=time.time())
        return len(view)

    def peek(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of what is written, from ``offset`` on."""
        data = self._open().data
        return bytes(data[offset : offset + size]) if offset >= 0 and size > 0 else b""

    def truncate(self, size: int) -> None:
        """Cut back to ``size`` bytes."""
        ingest = self._open()
        if not 0 <= size <= len(ingest.data):
            raise UsageError(f"can't cut {len(ingest.data)} bytes back to {size}")
        del ingest.data[size:]

    def catch_up(self, check: Callable[[], object] | None = None) -> None:
        """Do nothing: all is hashed at once, at the end."""

    def prepare(self, size: int, expected: Digest | None) -> Digest:
        """Check size and digest."""
        ingest = self._open()
        named, wanted = str(expected or ingest.status.key), expected or ingest.status.expected
        if size and size != len(ingest.data):
            raise SizeMismatch(named, f"{len(ingest.data)} bytes were written, {size} were promised")
        digest = Digest.of(ingest.data, wanted.algorithm if wanted else "sha256")
        if expected is not None and digest != expected:
            raise DigestMismatch(named, f"the bytes hash to {digest}")
        return digest

    def commit(self, size: int, expected: Digest | None, labels: Mapping[str, str] | None = None) -> Digest:
        """Check, and make it visible."""
        digest = self.prepare(size, expected)
        raw = bytes(self._open().data)
        self._owner.add(digest, raw)
        self._finish(drop=True)
        return digest

    def abort(self) -> None:
        """Drop what was written. After a commit, or twice, it does nothing."""
        self._finish(drop=True)

    def close(self) -> None:
        """Let go, keeping what was written."""
        self._finish(drop=False)

    def _finish(self, *, drop: bool) -> None:
        ingest, self._ingest = self._ingest, None
        if ingest is not None:
            self._owner.let_go(ingest, drop=drop)

    def __enter__(self) -> MemoryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
