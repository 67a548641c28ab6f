"""The graph of descriptors in a store: what a manifest names, and what it names in turn."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterator

from ocidist.content.verify import fill_buffer, stream
from ocidist.errors import OcidistError
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.content.protocols import Body, Provider
    from ocidist.scope import Scope

__all__ = ["LIMIT", "children", "may_name", "mentioned", "verified", "walk"]

LIMIT = 4 << 20  # bytes of a manifest
_SPELLED = re.compile(rb"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def children(provider: Provider, target: Descriptor, scope: Scope) -> tuple[Descriptor, ...]:
    """What a manifest or index that is here names, itself not verified; () for all else.

    The media type may be unknown (octet-stream): then the content decides.
    """
    if target.size > LIMIT or not may_name(target):
        return ()
    try:
        body = provider.open(target, scope)
    except OcidistError:
        scope.check()
        return ()
    try:
        raw = _read(body, target.size if target.size >= 0 else LIMIT)
        return manifests.parse(raw, target.media_type).children()
    except OcidistError:
        scope.check()
        return ()
    finally:
        body.close()


def may_name(target: Descriptor) -> bool:
    """Whether its media type lets it name others."""
    kind = mediatype.kind(target.media_type)
    return kind in ("index", "manifest") or mediatype.is_generic(target.media_type)


def _read(body: Body, limit: int) -> bytes:
    buffer = memoryview(bytearray(limit))
    return bytes(buffer[: fill_buffer(body, buffer)])


def mentioned(provider: Provider, digest: Digest, scope: Scope) -> set[Digest]:
    """Return the digests that a blob's first LIMIT bytes spell, whole and parsable or not; empty if it can't be
    read."""
    try:
        body = provider.open(Descriptor("application/octet-stream", digest, -1), scope)
        try:
            raw = _read(body, LIMIT)
        finally:
            body.close()
    except OcidistError:
        scope.check()
        return set()
    return {Digest(found.decode("ascii")) for found in _SPELLED.findall(raw)}


def verified(provider: Provider, target: Descriptor, scope: Scope) -> bytes:
    """The first LIMIT + 1 bytes of a blob that was hashed as a whole. Raises ContentError."""
    head = bytearray()

    def keep(block: memoryview) -> None:
        head.extend(block[: max(LIMIT + 1 - len(head), 0)])

    stream(provider.open(target, scope), target, keep, scope)
    return bytes(head)


def walk(provider: Provider, root: Descriptor, scope: Scope) -> Iterator[Descriptor]:
    """``root`` and all that it names, each digest once, whether it is here or not. What one parent calls a layer and
    another a manifest is followed."""
    seen: set[Digest] = set()
    followed: set[Digest] = set()
    todo = [root]
    while todo:
        target = todo.pop()
        if target.digest not in seen:
            seen.add(target.digest)
            yield target
        if may_name(target) and target.digest not in followed:
            followed.add(target.digest)
            todo += reversed(children(provider, target, scope))
