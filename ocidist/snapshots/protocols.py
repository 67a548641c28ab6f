"""Snapshots: root filesystems keyed by ChainID, in containerd's words.

Invariant: a committed snapshot is whole; what is being prepared is invisible under its final key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Protocol

__all__ = ["Claim", "SnapshotInfo", "Snapshotter"]


@dataclass(frozen=True)
class SnapshotInfo:
    """``kind`` is "committed" or "active"; times are seconds since the epoch, UTC."""

    key: str
    parent: str
    kind: str
    created_at: float


class Claim(Protocol):
    """The sole right to prepare a key, until it is closed or its process ends."""

    def close(self) -> None: ...

    def __enter__(self) -> Claim: ...

    def __exit__(self, *exc: object) -> None: ...


class Snapshotter(Protocol):
    """Keeps root filesystems."""

    name: str

    def claim(self, key: str) -> Claim | None:
        """The sole right to prepare ``key``, over threads and processes; None while another has it."""
        ...

    def stat(self, key: str) -> SnapshotInfo: ...

    def path(self, key: str) -> Path: ...

    def prepare(self, key: str, parent: str = "") -> Path:
        """A private directory (0700 above it) with the parent's tree, to be written; redone if it is stale."""
        ...

    def commit(self, name: str, key: str, parent: str = "") -> None:
        """The active ``key`` becomes the committed ``name``; one that exists already is success."""
        ...

    def remove(self, key: str) -> None: ...

    def walk(self) -> Iterator[SnapshotInfo]: ...
