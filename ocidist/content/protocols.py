"""The content-addressed store, in containerd's words: Provider, Ingester, Manager.

Invariants, which ``tests/contracts`` hold against every implementation:

* uncommitted content is invisible: a digest is either absent or whole;
* one writer per key, over threads and processes; a second gets :class:`~ocidist.errors.Locked`;
* what was written before a failure or a close is kept under the key, and the next writer resumes there;
* after a failed ``commit`` the ingest is still there, unless it was aborted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Iterator, Mapping, NamedTuple, Protocol

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

__all__ = ["Body", "Info", "IngestStatus", "Ingester", "Manager", "Provider", "Writer"]


class Body(Protocol):
    """Bytes of one object, from ``start`` on. Unverified until ``content.verify`` has seen all of it."""

    @property
    def start(self) -> int:
        """The offset at which it really begins: 0 where a server ignored the range asked for."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes of the whole object, None if unknown."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        ...

    def close(self) -> None: ...


class Info(NamedTuple):
    """A committed blob. Times are seconds since the epoch, UTC; ``size`` is in bytes."""

    digest: Digest
    size: int
    created_at: float
    updated_at: float
    labels: Mapping[str, str] = {}


class IngestStatus(NamedTuple):
    """An ingest under way. ``offset`` bytes are written; ``total`` is 0 where unknown; times as in Info."""

    key: str
    offset: int
    total: int
    started_at: float
    updated_at: float
    expected: Digest | None = None


class Provider(Protocol):
    """Reads of committed blobs. Raise :class:`~ocidist.errors.BlobNotFound`."""

    def info(self, digest: Digest) -> Info: ...

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> Body: ...


class Writer(Protocol):
    """One ingest; append-only. Use it in ``with``: leaving without commit keeps what was written."""

    def status(self) -> IngestStatus: ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of ``data``; hashes as it goes."""
        ...

    def peek(self, offset: int, size: int) -> bytes:
        """What is written at ``offset``: ``size`` bytes, fewer where the ingest ends sooner."""
        ...

    def truncate(self, size: int) -> None:
        """Cut back to ``size`` bytes (most often 0) and hash anew what stays."""
        ...

    def commit(self, size: int, expected: Digest | None, labels: Mapping[str, str] | None = None) -> Digest:
        """Check size (0: any) and digest (None: any), fsync, rename, fsync the directory; then it is visible.

        Raises SizeMismatch or DigestMismatch with the ingest kept. A blob that another writer committed
        meanwhile is success.
        """
        ...

    def abort(self) -> None:
        """Drop what was written."""
        ...

    def close(self) -> None:
        """Let go, keeping what was written. Idempotent; after commit or abort it does nothing."""
        ...

    def __enter__(self) -> Writer: ...

    def __exit__(self, *exc: object) -> None: ...


class Ingester(Protocol):
    """Where new content enters."""

    def writer(
        self,
        key: str,
        *,
        total: int = 0,
        expected: Digest | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Writer:
        """The writer of ``key``. Raises AlreadyExists if ``expected`` is here, Locked if another holds it."""
        ...


class Manager(Protocol):
    """What is there, and its removal."""

    def walk(self) -> Iterator[Info]: ...

    def delete(self, digest: Digest) -> None:
        """Raises BlobNotFound."""
        ...

    def statuses(self, keys: Iterable[str] = ()) -> Iterator[IngestStatus]: ...

    def abort(self, key: str) -> None: ...
