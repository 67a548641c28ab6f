"""Damaged blobs of images, found by hashing, and what an error over them says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Iterator

from ocidist.errors import ContentError, DigestMismatch, OcidistError, SizeMismatch
from ocidist.graph.walk import children_here, reachable, verified, walk
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.content.protocols import Provider
    from ocidist.scope import Scope
    from ocidist.stores.store import Store

__all__ = ["damaged", "explained", "holders"]


def damaged(content: Provider, roots: Iterable[Descriptor], scope: Scope) -> Iterator[Digest]:
    """Yield the blobs of ``roots`` that exist and do not hash to their digest. What a damaged manifest names is not
    followed."""
    seen: set[tuple[Digest, str]] = set()
    hashed: set[Digest] = set()
    for root in roots:
        for target in walk(root, lambda item: children_here(content, item, scope), seen):
            scope.tick()
            if target.digest in hashed:
                continue
            hashed.add(target.digest)
            try:
                size = content.info(target.digest).size
                verified(content, Descriptor(target.media_type, target.digest, size), scope)
            except (DigestMismatch, SizeMismatch):  # the latter: it grew or shrank meanwhile
                yield target.digest
            except ContentError:  # missing, or no file at all: the next fetch replaces that
                continue


def holders(store: Store, digest: Digest, scope: Scope) -> Iterator[str]:
    """Yield the names of the images that a blob is part of."""
    for record in store.image_records():
        if any(item.digest == digest for item in reachable(store.content, record.target, scope)):
            yield record.name


def explained(error: OcidistError, store: Store, name: str, scope: Scope) -> OcidistError:
    """Return ``error``, or if the store's copy of the image ``name`` is damaged one that says so, and the way out."""
    try:
        bad = store.damaged([store.resolve(name, scope)[0]], scope)
    except DigestMismatch as mismatch:  # of a manifest that no name stands for
        bad = [mismatch.descriptor.digest] if isinstance(mismatch.descriptor, Descriptor) else []
    except OcidistError:
        bad = []
    if not bad:
        return error
    image = store.find_image(name) or next(holders(store, bad[0], scope), "its image")
    return ContentError(str(bad[0]), f"the copy in the store is damaged; pull {image} again")
