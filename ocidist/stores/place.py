"""Where a store is kept: what is not said by its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

from ocidist.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Place"]


class Place:
    """The memory of this process; ``local`` says it for a directory. ``name`` is for messages."""

    name = "memory"
    readonly = False
    foreign = False
    """Whether it belongs to containerd, which keeps the names of images in a database of its own."""
    options: tuple[str, bool, str | None, bool] | None = None
    """The arguments of ``Store.at`` that lead here again; None where nothing does."""

    @property
    def root(self) -> Path:
        """The directory. Raises StoreError if there is none."""
        raise StoreError(self.name, "this store is not in a directory")

    def close(self) -> None:
        """Let go of what is open. The store can be used again."""

    def exists(self) -> bool:
        """False if nothing was ever stored."""
        return True

    def require_writable(self) -> None:
        """Raise StoreError, with the reason, where nothing can be written."""

    def files(self) -> Mapping[str, tuple[str, ...]]:
        """The paths of each kind of what is stored ("total" for all of it); empty if it is not in files."""
        return {}
