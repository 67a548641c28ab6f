"""A content store with labels and leases: what is committed is held before it is visible.

A commit takes the gate that keeps the collector out, writes the lease and the labels in one transaction,
and renames. So a blob that the collector sees is either held, or nobody's.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping

from ocidist.content.local import FileBody, LocalContent
from ocidist.content.lock import Gate
from ocidist.content.protocols import Info, IngestStatus, Writer
from ocidist.content.writer import LocalWriter
from ocidist.errors import AlreadyExists, BlobNotFound, StoreError
from ocidist.images.sqlite import Metadata
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

__all__ = ["DAY", "LEASED", "UNNAMED", "LeasedContent", "LeasedWriter"]

DAY = 86_400.0
"""Seconds for which content that nothing names is held."""

UNNAMED = "unnamed-"
"""How the ids of the leases begin that hold what fetch and ingest bring."""

LEASED = "lease-"
"""How those begin that a pull takes; its process holds a lock of that name while it runs."""


class LeasedContent:
    """Provider, Ingester and Manager over a LocalContent, its labels and its leases.

    ``scope`` is where waits look, and its lease holds what is written; without one, what is written is held
    for 24 hours.
    """

    def __init__(
        self, local: LocalContent, metadata: Metadata, gate: Gate, scope: Scope | None = None
    ) -> None:
        self.local, self.metadata, self.gate, self.scope = local, metadata, gate, scope

    def within(self, scope: Scope) -> LeasedContent:
        """The same store, for writes that ``scope`` bounds and its lease holds."""
        return LeasedContent(self.local, self.metadata.within(scope), self.gate, scope)

    # -- Provider --

    def info(self, digest: Digest) -> Info:
        """Size, times and labels. Raises BlobNotFound."""
        found = self.local.info(digest)
        labels = self.metadata.labels(found.digest)
        return found._replace(labels=labels) if labels else found

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """As LocalContent.has."""
        return self.local.has(digest, size)

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, or would."""
        return self.local.path(digest)

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> FileBody:
        """As LocalContent.open."""
        return self.local.open(target, scope, offset=offset, length=length)

    # -- Ingester --

    def writer(
        self,
        key: str,
        *,
        total: int = 0,
        expected: Digest | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> LeasedWriter:
        """As LocalContent.writer; a blob that exists already is held and labelled as well."""
        while True:
            try:
                inner = self.local.writer(key, total=total, expected=expected)
                return LeasedWriter(self, inner, labels or {})
            except AlreadyExists:
                assert expected is not None
                if self.hold(Digest(expected), total or None, labels):
                    raise
                # The collector took it between our look and our hold: it is to be written after all.

    def hold(self, digest: Digest, size: int | None = None, labels: Mapping[str, str] | None = None) -> bool:
        """True if the blob is here; then it is held by the lease. Where the store can't be written, nothing
        can take it away either, and it is only looked at."""
        if not self.local.has(digest, size):
            return False
        if self.local.readonly:
            return True
        try:
            with self.gate.shared(self.scope):
                if not self.local.has(digest, size):
                    return False
                self._keep(digest, labels)
                return True
        except OSError:
            return self.local.has(digest, size)

    def _keep(self, digest: Digest, labels: Mapping[str, str] | None) -> None:
        lease, expires = self.lease()
        self.metadata.hold(lease, expires, [("content", str(digest))], labels, self._check)

    def hold_trees(self, chains: Iterable[str]) -> None:
        """The lease holds trees, by ChainID, here or to be made. A collector under way has ended by then: one that is
        still here afterwards stays. Raises StoreError, the scope's end."""
        lease, expires = self.lease()
        with self._mapped(), self.gate.shared(self.scope):
            self.metadata.hold(lease, expires, [("snapshot", chain) for chain in chains], check=self._check)

    def lease(self) -> tuple[str, float]:
        """The lease that holds what is written now, and until when: the scope's, else one of this hour."""
        now = time.time()
        if self.scope is not None and self.scope.lease:
            return self.scope.lease, now + DAY
        hour = int(now // 3600)
        return f"{UNNAMED}{hour}", (hour + 1) * 3600 + DAY

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(self.gate.path, error.strerror or str(error)) from error

    @property
    def _check(self) -> Any:
        return None if self.scope is None else self.scope.check

    # -- Manager --

    def walk(self) -> Iterator[Info]:
        """Every blob, without its labels: a listing needs no database."""
        return self.local.walk()

    def delete(self, digest: Digest) -> None:
        """Remove a blob and its labels, while nobody commits: what another brings in its place is not forgotten.
        Raises BlobNotFound."""
        self.local.require_writable()
        if not os.path.lexists(self.path(digest)):
            raise BlobNotFound(str(digest), "no such blob in this store")
        with self._mapped(), self.gate.exclusive(self.scope):
            self.local.delete(digest)
            self.metadata.forget([digest], self._check)

    def statuses(self, keys: Iterable[str] = ()) -> Iterator[IngestStatus]:
        """As LocalContent.statuses."""
        return self.local.statuses(keys)

    def abort(self, key: str) -> None:
        """As LocalContent.abort."""
        self.local.abort(key)

    def labels(self, digest: Digest) -> dict[str, str]:
        """The labels of a blob. Raises BlobNotFound."""
        return self.metadata.labels(self.local.info(digest).digest)

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels (None or "" removes one); returns all that it has then. Raises BlobNotFound."""
        return self.metadata.set_labels(self.local.info(digest).digest, changes, self._check)


class LeasedWriter:
    """A LocalWriter whose commit is held by a lease before it is visible."""

    def __init__(self, owner: LeasedContent, inner: LocalWriter, labels: Mapping[str, str]) -> None:
        self._owner, self._inner, self._labels = owner, inner, dict(labels)
        self.status = inner.status
        self.write = inner.write
        self.catch_up = inner.catch_up
        self.peek = inner.peek
        self.truncate = inner.truncate
        self.prepare = inner.prepare
        self.abort = inner.abort
        self.close = inner.close

    def commit(self, size: int, expected: Digest | None, labels: Mapping[str, str] | None = None) -> Digest:
        """As LocalWriter.commit. The slow part, the data's fsync, is done before the gate is taken."""
        digest = self._inner.prepare(size, expected)
        owner = self._owner
        with owner._mapped(), owner.gate.shared(owner.scope):
            owner._keep(digest, {**self._labels, **(labels or {})})
            return self._inner.commit(size, expected)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
