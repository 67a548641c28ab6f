"""A store that repairs itself while an image is copied to it: damaged blobs count as absent, and are replaced.

Manifests, indices and configs are verified whenever they are met. Layers are taken for whole, since hashing them all
would cost as much as a pull; after a failure over content :meth:`RepairingSink.suspect` hashes them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ocidist.content.protocols import Body
from ocidist.content.verify import MemoryBody, read_all
from ocidist.errors import (
    Cancelled,
    ContentError,
    DeadlineExceeded,
    InvalidManifest,
    LayerError,
    OcidistError,
    RegistryError,
    StoreError,
    TransferError,
    TransportError,
)
from ocidist.graph.walk import may_name
from ocidist.progress import Retrying
from ocidist.spec.document import MAX_SIZE

if TYPE_CHECKING:
    from ocidist.remotes.protocols import Source
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest
    from ocidist.stores.store import Store

__all__ = ["LocalFirst", "RepairingSink"]

DAMAGED = "the copy in the store is damaged; fetching it again"
_ROUNDS = 4  # times that damaged blobs are looked for


class LocalFirst:
    """A Source that reads a manifest or index from the store if it has a whole one, which saves a request."""

    def __init__(self, remote: Source, store: Store) -> None:
        self._remote, self._store = remote, store
        self.host = remote.host
        self.origin, self.resolve = remote.origin, remote.resolve

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        if not offset and length is None and may_name(target) and self._store.exists(target, scope):
            raw = _whole(self._store, target, scope)
            if raw is not None:
                return MemoryBody(raw)
        return self._remote.open(target, scope, offset=offset, length=length)


class RepairingSink:
    """A Sink over ``store``. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._trusted: dict[Digest, Descriptor] = {}
        self._damaged: set[Digest] = set()
        self._round = 0

    def exists(self, target: Descriptor, scope: Scope) -> bool:
        """Return whether the store has ``target``, as far as is known not damaged."""
        if not self._store.exists(target, scope) or target.digest in self._damaged:
            return False
        if may_name(target) and _whole(self._store, target, scope) is None:
            self._report(target.digest, scope)
            return False
        with self._lock:
            self._trusted[target.digest] = target
        return True

    def push(self, target: Descriptor, source: Source, scope: Scope) -> None:
        """Fetch ``target``; a damaged copy of it stays until a verified one takes its place."""
        if target.digest not in self._damaged:
            self._store.push(target, source, scope)
            return
        self._store.replace(target, source, scope)
        with self._lock:
            self._damaged.discard(target.digest)

    def tag(self, name: str, target: Descriptor, scope: Scope) -> None:
        """As the store does."""
        self._store.tag(name, target, scope)

    def finalize(self, scope: Scope) -> None:
        """As the store does."""
        self._store.finalize(scope)

    def suspect(self, error: OcidistError, scope: Scope) -> bool:
        """Return whether ``error`` comes of damaged blobs: if it is about content, what was taken for whole is hashed.

        Those that are damaged are absent from then on, so that the next copy replaces them.
        """
        self._round += 1
        if self._round > _ROUNDS or not _over_content(error):
            return False
        found = self._store.damaged(list(self._trusted.values()), scope)
        for digest in found:
            self._report(digest, scope)
        return bool(found)

    def _report(self, digest: Digest, scope: Scope) -> None:
        with self._lock:
            self._damaged.add(digest)
        scope.emit(Retrying(digest, self._round + 1, 0, DAMAGED))


def _whole(store: Store, target: Descriptor, scope: Scope) -> bytes | None:
    """Return the verified bytes of a manifest in the store, None if it is damaged."""
    try:
        return read_all(store.open(target, scope), target, MAX_SIZE)
    except ContentError:
        return None


def _over_content(error: BaseException) -> bool:
    """Return whether the store's content may be the reason, and not the network, a registry or the disk."""
    if not isinstance(error, (ContentError, LayerError, TransferError, InvalidManifest)):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (TransportError, RegistryError, StoreError, Cancelled, DeadlineExceeded)):
            return False
        cause = cause.__cause__
    return True
