"""The mark on a name whose content a cassette gave in place of its registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Mapping

from ocidist.errors import StoreError

if TYPE_CHECKING:
    from ocidist.images.protocols import ImageRecord
    from ocidist.spec.digest import Digest

__all__ = ["REPLAYED", "marking"]

REPLAYED = "io.ocidist.replayed"
"""Label of an image; its value is the cassette's name."""


def marking(
    root: str, name: str, digest: Digest, cassette: str
) -> Callable[[ImageRecord | None], Mapping[str, str] | None]:
    """What :meth:`Images.put` revises a record by: with a ``cassette`` the name bears the mark, else none.

    A name that a registry gave is left as it is if it stands for the same content; for other content it is refused
    to a cassette (StoreError).
    """

    def revise(old: ImageRecord | None) -> Mapping[str, str] | None:
        labels = dict(old.labels) if old is not None else {}
        if cassette and old is not None and REPLAYED not in labels:
            if old.target.digest == digest:
                return None
            why = f"{name} was pulled from its registry and stands for other content"
            raise StoreError(root, f"{why}; replay into another store, with --root")
        labels.pop(REPLAYED, None)
        return {**labels, REPLAYED: cassette} if cassette else labels

    return revise
