"""Content-addressed bytes, in containerd's words: Provider, Ingester, Manager.

:class:`Blobs` is what a folder or memory keeps. :class:`Content` adds labels and holds, in step with the leases and
the collector; that is what a store works with.

Invariants, which ``tests/contracts`` hold against every implementation:

* uncommitted content is invisible: a digest is either absent or whole;
* one writer per key, over threads and processes; a second gets :class:`~ocidist.errors.Locked`;
* what was written before a failure or a close is kept under the key, and the next writer resumes there;
* after a failed ``commit`` the ingest is still there, unless it was aborted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, ContextManager, Iterable, Iterator, Mapping, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

__all__ = [
    "Blobs",
    "Body",
    "Content",
    "Info",
    "IngestStatus",
    "Ingester",
    "Manager",
    "Provider",
    "Remover",
    "Survey",
    "Writer",
]


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

    @property
    def host(self) -> str:
        """The network host that sends them; "" where they come from this machine."""
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


class IngestStatus(NamedTuple):
    """An ingest under way. ``offset`` bytes are written; ``total`` is 0 where unknown; times as in Info."""

    key: str
    offset: int
    total: int
    started_at: float
    updated_at: float
    expected: Digest | None = None


class Survey(NamedTuple):
    """All that lies where blobs are kept, whole or not.

    ``blobs`` are digests with the sizes of what is under their names, 0 for what is not a regular file. ``strays`` are
    paths that nothing in the store has, relative to its folder. ``unseen`` says what this user may not look at.
    """

    blobs: Mapping[Digest, int]
    strays: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


class Provider(Protocol):
    """Reads of committed blobs. Raise :class:`~ocidist.errors.BlobNotFound`."""

    def info(self, digest: Digest) -> Info: ...

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> Body: ...

    def file(self, target: Descriptor, scope: Scope) -> int | None:
        """Return a descriptor of the blob's file, for another process to read; the caller closes it. None if the blob
        is not a file."""
        ...


class Writer(Protocol):
    """One ingest; append-only. Use it in ``with``: leaving without commit keeps what was written."""

    def status(self) -> IngestStatus: ...

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of ``data``; hashes as it goes."""
        ...

    def peek(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of what is written, from ``offset`` on; fewer where the ingest ends sooner."""
        ...

    def truncate(self, size: int) -> None:
        """Cut back to ``size`` bytes (most often 0) and hash again what stays."""
        ...

    def catch_up(self, check: Callable[[], object] | None = None) -> None:
        """Hash what an earlier writer left, calling ``check`` (may raise) before each block."""
        ...

    def prepare(self, size: int, expected: Digest | None) -> Digest:
        """Do all of a commit that needs nobody else: check size and digest, fsync the data. Idempotent."""
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


class Blobs(Provider, Ingester, Protocol):
    """Bytes by digest, and nothing known of them but that."""

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """True if the blob is here, and of that size (None: any). Nothing is hashed."""
        ...

    def walk(self) -> Iterator[Info]:
        """Yield every blob by digest."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Raises BlobNotFound."""
        ...

    def statuses(self, keys: Iterable[str] = ()) -> Iterator[IngestStatus]:
        """Yield ingests under way or interrupted, oldest first; of ``keys`` alone if any are given."""
        ...

    def abort(self, key: str) -> None:
        """Drop an ingest; one that is not there is no error. Raises Locked while a writer holds it."""
        ...

    def sweep(self, before: float, *, keep: Iterable[str] = (), dry_run: bool = False) -> list[str]:
        """Drop the ingests that nobody holds and that were last written ``before``; return their keys."""
        ...

    def survey(self) -> Survey:
        """Look at all that is kept, also at what :meth:`walk` passes over."""
        ...

    def identity(self, digest: Digest) -> tuple[int, ...]:
        """Return what tells this copy of a blob from one that took its place; () if there is none."""
        ...

    def path(self, digest: Digest) -> Path | None:
        """Return where the blob's file is, or would be; None for blobs that are not files on this machine."""
        ...


class Remover(Protocol):
    """What only one who is alone in a store may do."""

    def delete(self, digest: Digest) -> None:
        """Remove a blob; its labels and what holds it stay. Raises BlobNotFound."""
        ...

    def forget(self, digests: Iterable[Digest]) -> None:
        """Drop labels and holds of blobs that are gone."""
        ...


class Manager(Protocol):
    """Labels and holds. What is committed is held by a lease, and has its labels, before it is visible."""

    def labels(self, digest: Digest) -> dict[str, str]:
        """Return the labels of a blob. Raises BlobNotFound."""
        ...

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels (None or "" removes one); return all that the blob has then. Raises BlobNotFound."""
        ...

    def labeled(self, prefix: str) -> list[tuple[str, str, str]]:
        """Return ``(digest, key, value)`` of every label whose key starts so, also of blobs that are gone."""
        ...

    def hold(self, digest: Digest, size: int | None = None, labels: Mapping[str, str] | None = None) -> bool:
        """Hold and label a blob; False if it is not here. From then on no collector takes it."""
        ...

    def alone(self, scope: Scope, *, looking: bool = False) -> ContextManager[Remover]:
        """Keep out whoever commits, holds or names while the block runs; with ``looking`` write nothing.

        Nothing else of the store that waits for its turn may be called within.
        """
        ...


class Content(Blobs, Manager, Protocol):
    """What a store works with."""

    def within(self, scope: Scope) -> Content:
        """Return the same content, for work that ``scope`` bounds and whose writes its lease holds."""
        ...
