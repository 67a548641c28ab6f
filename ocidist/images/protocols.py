"""Names, and what holds content against the collector.

Invariants, which ``tests/contracts`` hold against every implementation:

* a name stands for its old content or its new, never for a mixture;
* a lease's resources and their labels are there together, or neither is;
* who is :meth:`Leases.alone` sees nothing that is only about to be held: whoever adds is :meth:`Leases.adding`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, ContextManager, Iterable, Mapping, NamedTuple, Protocol

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

__all__ = [
    "DAY",
    "LEASED",
    "UNNAMED",
    "DamagedRecord",
    "ImageRecord",
    "Images",
    "Labels",
    "Lease",
    "Leases",
    "lease_of",
]

DAY = 86_400.0
"""Seconds for which content that nothing names is held."""

UNNAMED = "unnamed-"
"""How the ids of the leases begin that hold what fetch and ingest bring."""

LEASED = "lease-"
"""How those begin that a pull takes."""


class ImageRecord(NamedTuple):
    """A name and what it stands for. Times are seconds since the epoch, UTC."""

    name: str
    target: Descriptor
    created_at: float
    updated_at: float
    labels: Mapping[str, str] = {}


class DamagedRecord(NamedTuple):
    """A name whose record can't be read: ``digest`` is the text in the digest's place, ``problem`` says why and what to
    do."""

    name: str
    digest: str
    problem: str


class Lease(NamedTuple):
    """Holds its resources against the collector until it expires or is deleted.

    ``resources`` are pairs of a kind ("content", "ingest", "snapshot") and a digest or key.
    """

    id: str
    created_at: float
    expires_at: float
    resources: frozenset[tuple[str, str]] = frozenset()


class Images(Protocol):
    """Names to descriptors. Every method raises StoreError if they can't be read or written."""

    @property
    def place(self) -> str:
        """Where they are kept, for messages."""
        ...

    def within(self, scope: Scope) -> Images:
        """Return the same names, for work that ``scope`` bounds."""
        ...

    def get(self, name: str) -> ImageRecord | None:
        """Return the record of that name. Raises StoreError for a damaged one."""
        ...

    def has(self, name: str) -> bool:
        """True if there is a record of that name, damaged or not."""
        ...

    def all(self) -> tuple[list[ImageRecord], list[DamagedRecord]]:
        """Return every record that can be read, by name, and the others."""
        ...

    def of(self, digest: Digest) -> list[ImageRecord]:
        """Return the records that stand for ``digest``, by name."""
        ...

    def put(
        self,
        name: str,
        target: Descriptor,
        labels: Mapping[str, str] | None = None,
        revise: Callable[[ImageRecord | None], Mapping[str, str] | None] | None = None,
    ) -> None:
        """Let ``name`` stand for ``target`` from now on; ``labels`` of None keeps those it had.

        ``revise`` makes the labels, in the same transaction, of the record there is (None: none, or a damaged one). It
        returns None to leave the record as it is, and may raise.
        """
        ...

    def delete(self, name: str) -> bool:
        """Forget a name; True if there was one."""
        ...

    def problems(self) -> list[str]:
        """Return what is wrong with the place that they are kept in."""
        ...

    def since(self) -> float:
        """Return when this place was made, in seconds since the epoch: what is older it may not know.

        0 if it knows of everything, infinite if nothing was ever written to it.
        """
        ...


class Labels(Protocol):
    """Labels of blobs, here or gone."""

    def labels(self, digest: Digest) -> dict[str, str]:
        """Return the labels of a blob."""
        ...

    def labeled(self, prefix: str) -> list[tuple[str, str, str]]:
        """Return ``(digest, key, value)`` of every label whose key starts with ``prefix``."""
        ...

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels of a blob; None or "" removes one. Return all that it has then."""
        ...


class Leases(Labels, Protocol):
    """What holds what, until when. Every method raises StoreError if that can't be read or written."""

    def within(self, scope: Scope) -> Leases:
        """Return the same leases, for work and waits that ``scope`` bounds."""
        ...

    def all(self) -> list[Lease]:
        """Return every lease, expired ones too, by id."""
        ...

    def create(self, id_: str, expires_at: float) -> None:
        """Make a lease that ends at ``expires_at`` (seconds since the epoch), or move the end of one there."""
        ...

    def delete(self, ids: Iterable[str]) -> None:
        """Hold no longer what these held; unknown ones are no error."""
        ...

    def hold(
        self,
        id_: str,
        expires_at: float,
        resources: Iterable[tuple[str, str]],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """In one transaction: the lease lasts until ``expires_at`` at least and holds ``resources``, and the content
        among them has ``labels``. Where all that is so already, nothing is written."""
        ...

    def forget(self, digests: Iterable[Digest]) -> None:
        """Drop the labels of blobs that are gone, and what holds them."""
        ...

    def adding(self) -> ContextManager[None]:
        """Keep the collector out while the block holds, commits or names; others may do so at the same time."""
        ...

    def alone(self, *, looking: bool = False) -> ContextManager[None]:
        """Keep out all who are :meth:`adding` while the block runs; with ``looking`` write nothing."""
        ...

    def using(self, id_: str) -> ContextManager[None]:
        """Let others know, while the block runs, that a lease is in use (:meth:`in_use`)."""
        ...

    def in_use(self, id_: str) -> bool:
        """True if somebody, of this process or another, is :meth:`using` the lease."""
        ...

    def sweep(self) -> None:
        """Remove what killed processes left of :meth:`using`."""
        ...


def lease_of(scope: Scope | None) -> tuple[str, float]:
    """The lease that holds what is written within ``scope``, and until when: its own, else one of this hour."""
    now = time.time()
    if scope is not None and scope.lease:
        return scope.lease, now + DAY
    hour = int(now // 3600)
    return f"{UNNAMED}{hour}", (hour + 1) * 3600 + DAY
