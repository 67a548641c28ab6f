"""Damaged blobs of images: found by hashing, and discarded so that whole ones can take their place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable, Iterator

from ocidist.errors import ContentError, DigestMismatch, OcidistError, SizeMismatch
from ocidist.graph.walk import may_name, verified
from ocidist.spec import manifest as manifests
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.stores.leased import LeasedContent

__all__ = ["damaged", "discard", "identity"]


def damaged(
    content: LeasedContent, roots: Iterable[Descriptor], scope: Scope
) -> Iterator[tuple[Digest, tuple[int, ...]]]:
    """The blobs of ``roots`` that are here and do not hash to their digest, each with the :func:`identity` of its
    file. What a damaged manifest names is not followed."""
    seen: dict[Digest, bool] = {}
    todo = list(roots)
    while todo:
        scope.tick()
        target = todo.pop()
        names = may_name(target)
        if seen.get(target.digest, False) or (target.digest in seen and not names):
            continue
        seen[target.digest] = names
        try:
            mark = identity(content, target.digest)
            size = content.local.info(target.digest).size
            raw = verified(content, Descriptor(target.media_type, target.digest, size), scope)
        except (DigestMismatch, SizeMismatch):  # the latter: it grew or shrank meanwhile
            yield target.digest, mark
            continue
        except ContentError:  # missing, or no file at all: what brings it again replaces that
            continue
        if names:
            try:
                todo += manifests.parse(raw, target.media_type).children()
            except OcidistError:
                continue


def identity(content: LeasedContent, digest: Digest) -> tuple[int, ...]:
    """What tells one file in a blob's place from another that took it; () where there is none."""
    try:
        found = os.stat(content.path(digest), follow_symlinks=False)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def discard(
    content: LeasedContent, found: Iterable[tuple[Digest, tuple[int, ...]]], scope: Scope
) -> list[Digest]:
    """Delete what :func:`damaged` found, unless a whole one took its place meanwhile; those deleted. Their labels
    and leases stay: they hold what is brought in their place."""
    gone = []
    for digest, mark in found:
        with content.gate.exclusive(scope):
            if mark and identity(content, digest) == mark:
                content.local.delete(digest)
                gone.append(digest)
    return gone
