"""Content with labels and leases: what is committed is held before it is visible.

A commit keeps the collector out, writes the lease and the labels in one transaction, and renames. So a blob that the
collector sees is either held, or nobody's.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Iterator, Mapping

from ocidist.content.protocols import Blobs, Remover, Writer
from ocidist.errors import AlreadyExists, BlobNotFound, StoreError
from ocidist.images.protocols import Leases, lease_of
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["LeasedContent", "LeasedWriter"]


class LeasedContent:
    """Content made of blobs and leases.

    ``scope`` is where waits look, and its lease holds what is written; without one, what is written is held
    for 24 hours.
    """

    def __init__(self, blobs: Blobs, leases: Leases, scope: Scope | None = None) -> None:
        self.blobs, self.leases, self.scope = blobs, leases, scope
        self.info, self.has, self.open, self.walk = blobs.info, blobs.has, blobs.open, blobs.walk
        self.file = blobs.file
        self.statuses, self.abort, self.sweep = blobs.statuses, blobs.abort, blobs.sweep
        self.survey, self.identity, self.path = blobs.survey, blobs.identity, blobs.path
        self.labeled = leases.labeled

    def within(self, scope: Scope) -> LeasedContent:
        """The same content, for writes that ``scope`` bounds and its lease holds."""
        return LeasedContent(self.blobs, self.leases.within(scope), scope)

    def writer(
        self,
        key: str,
        *,
        total: int = 0,
        expected: Digest | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> LeasedWriter:
        """The writer of ``key``; a blob that exists already is held and labelled as well. Raises AlreadyExists."""
        while True:
            try:
                return LeasedWriter(
                    self, self.blobs.writer(key, total=total, expected=expected), labels or {}
                )
            except AlreadyExists:
                assert expected is not None
                if self.hold(Digest(expected), total or None, labels):
                    raise
                # The collector took it between our look and our hold: it is to be written after all.

    def delete(self, digest: Digest) -> None:
        """Remove a blob and its labels, while nobody commits: what another brings in its place is not forgotten.
        Raises BlobNotFound."""
        if not self.identity(digest):
            raise BlobNotFound(str(digest), "no such blob in this store")
        with self.leases.alone():
            self.blobs.delete(digest)
            self.leases.forget([digest])

    # -- Manager --

    def labels(self, digest: Digest) -> dict[str, str]:
        """The labels of a blob. Raises BlobNotFound."""
        return self.leases.labels(self.blobs.info(digest).digest)

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels (None or "" removes one); returns all that it has then. Raises BlobNotFound."""
        return self.leases.set_labels(self.blobs.info(digest).digest, changes)

    def hold(self, digest: Digest, size: int | None = None, labels: Mapping[str, str] | None = None) -> bool:
        """True if the blob is here; then it is held by the lease. Where the store can't be written, nothing
        can take it away either, and it is only looked at."""
        if not self.has(digest, size):
            return False
        with ExitStack() as stack:
            try:
                stack.enter_context(self.leases.adding())
            except StoreError:
                return self.has(digest, size)
            if not self.has(digest, size):
                return False
            self.keep(digest, labels)
            return True

    def keep(self, digest: Digest, labels: Mapping[str, str] | None) -> None:
        """Hold and label a blob, here or about to be. The caller is ``leases.adding()``."""
        self.leases.hold(*lease_of(self.scope), [("content", str(digest))], labels)

    @contextmanager
    def alone(self, scope: Scope, *, looking: bool = False) -> Iterator[Remover]:
        """Keep out whoever commits, holds or names while the block runs."""
        leases = self.leases.within(scope)
        with leases.alone(looking=looking):
            yield _Alone(self.blobs, leases)


class _Alone:
    """A Remover."""

    def __init__(self, blobs: Blobs, leases: Leases) -> None:
        self.delete, self.forget = blobs.delete, leases.forget


class LeasedWriter:
    """A writer whose commit is held by a lease before it is visible."""

    def __init__(self, owner: LeasedContent, inner: Writer, labels: Mapping[str, str]) -> None:
        self._owner, self._inner, self._labels = owner, inner, dict(labels)
        self.status, self.write, self.peek = inner.status, inner.write, inner.peek
        self.truncate, self.catch_up, self.prepare = inner.truncate, inner.catch_up, inner.prepare
        self.abort, self.close = inner.abort, inner.close

    def commit(self, size: int, expected: Digest | None, labels: Mapping[str, str] | None = None) -> Digest:
        """As the inner writer's. The slow part, the data's fsync, is done before the collector is kept out."""
        digest = self.prepare(size, expected)
        with self._owner.leases.adding():
            self._owner.keep(digest, {**self._labels, **(labels or {})})
            return self._inner.commit(size, expected)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
