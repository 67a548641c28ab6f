"""A store in memory: all ports of the store, without a file."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, Mapping

from ocidist.content.labels import merged
from ocidist.content.memory import MemoryContent
from ocidist.images.protocols import UNNAMED, DamagedRecord, ImageRecord, Lease
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.leased import LeasedContent
from ocidist.stores.store import Store
from tests.parts.memory_trees import MemoryApplier, MemorySnapshotter


def memory_store() -> Store:
    """An empty one."""
    leases, snapshots = MemoryLeases(), MemorySnapshotter()
    return Store(
        content=LeasedContent(MemoryContent(), leases),
        names=MemoryImages(),
        leases=leases,
        snapshots=lambda: snapshots,
        applier=lambda store: MemoryApplier(store.content, snapshots),
    )


class MemoryImages:
    """Names in a dictionary."""

    place = "memory"

    def __init__(self) -> None:
        self._records: dict[str, ImageRecord] = {}

    def within(self, scope: Scope) -> MemoryImages:
        return self

    def get(self, name: str) -> ImageRecord | None:
        return self._records.get(name)

    def has(self, name: str) -> bool:
        return name in self._records

    def all(self) -> tuple[list[ImageRecord], list[DamagedRecord]]:
        return sorted(self._records.values(), key=lambda record: record.name), []

    def of(self, digest: Digest) -> list[ImageRecord]:
        return [record for record in self.all()[0] if record.target.digest == digest]

    def put(
        self,
        name: str,
        target: Descriptor,
        labels: Mapping[str, str] | None = None,
        revise: Callable[[ImageRecord | None], Mapping[str, str] | None] | None = None,
    ) -> None:
        old, now = self._records.get(name), time.time()
        if revise is not None and (labels := revise(old)) is None:
            return
        kept = old.labels if old is not None else {}
        made = old.created_at if old is not None else now
        self._records[name] = ImageRecord(name, target, made, now, kept if labels is None else dict(labels))

    def delete(self, name: str) -> bool:
        return self._records.pop(name, None) is not None

    def problems(self) -> list[str]:
        return []

    def since(self) -> float:
        return 0.0


class MemoryLeases:
    """Leases and labels in dictionaries; one lock keeps the collector apart from all who add."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._leases: dict[str, Lease] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._used: list[str] = []

    def within(self, scope: Scope) -> MemoryLeases:
        return self

    def all(self) -> list[Lease]:
        return sorted(self._leases.values())

    def create(self, id_: str, expires_at: float) -> None:
        old = self._leases.get(id_, Lease(id_, time.time(), 0))
        self._leases[id_] = old._replace(expires_at=max(old.expires_at, expires_at))

    def delete(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            self._leases.pop(id_, None)

    def hold(
        self,
        id_: str,
        expires_at: float,
        resources: Iterable[tuple[str, str]],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        wanted = frozenset(resources)
        with self._lock:
            self.create(id_, expires_at)
            lease = self._leases[id_]
            self._leases[id_] = lease._replace(resources=lease.resources | wanted)
            for kind, ref in wanted:
                have = self.labels(Digest(ref)) if kind == "content" and labels else {}
                changes = {key: merged(key, have.get(key), value) for key, value in (labels or {}).items()}
                if kind == "content":
                    self.set_labels(Digest(ref), changes)

    def labels(self, digest: Digest) -> dict[str, str]:
        return dict(self._labels.get(digest, {}))

    def labeled(self, prefix: str) -> list[tuple[str, str, str]]:
        every = [(digest, *label) for digest, labels in self._labels.items() for label in labels.items()]
        return [label for label in every if label[1].startswith(prefix)]

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        have = {**self._labels.get(digest, {}), **changes}
        self._labels[str(digest)] = {key: value for key, value in sorted(have.items()) if value}
        return self.labels(digest)

    def forget(self, digests: Iterable[Digest]) -> None:
        gone = set(digests)
        self._labels = {digest: labels for digest, labels in self._labels.items() if digest not in gone}
        for lease in self.all():
            left = frozenset((kind, ref) for kind, ref in lease.resources if ref not in gone)
            self._leases[lease.id] = lease._replace(resources=left)

    @contextmanager
    def adding(self) -> Iterator[None]:
        with self._lock:
            yield

    @contextmanager
    def alone(self, *, looking: bool = False) -> Iterator[None]:
        with self._lock:
            yield

    @contextmanager
    def using(self, id_: str) -> Iterator[None]:
        self._used.append(id_)
        try:
            yield
        finally:
            self._used.remove(id_)

    def in_use(self, id_: str) -> bool:
        unnamed = id_.startswith(UNNAMED)
        return any(each == id_ or (unnamed and each.startswith(UNNAMED)) for each in self._used)

    def sweep(self) -> None:
        pass
