"""Graphs of descriptors: what a manifest in a store names (:func:`children`), and what that names in turn (:func:`walk`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Iterable, Iterator

from ocidist.content.verify import fill_buffer, stream
from ocidist.errors import OcidistError
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.document import MAX_SIZE

if TYPE_CHECKING:
    from ocidist.content.protocols import Provider
    from ocidist.scope import Scope

__all__ = ["children", "children_here", "may_name", "mentioned", "reachable", "verified", "walk"]

_SPELLED = re.compile(rb"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def may_name(target: Descriptor) -> bool:
    """Return whether its media type lets it name others. That of octets is unknown: then the content decides."""
    kind = mediatype.kind(target.media_type)
    return kind in ("index", "manifest") or mediatype.is_generic(target.media_type)


def children(provider: Provider, target: Descriptor, scope: Scope) -> tuple[Descriptor, ...]:
    """Return what a manifest or index names, once its bytes are verified; empty for other content.

    Its own size counts: a wrong one in the descriptor that leads here does not hide what it names. Raises BlobNotFound,
    DigestMismatch, and InvalidManifest for content that is called a manifest and is none.
    """
    if not may_name(target):
        return ()
    size = provider.info(target.digest).size
    generic = mediatype.is_generic(target.media_type)
    if generic and size > MAX_SIZE:
        return ()
    raw = verified(provider, Descriptor(target.media_type, target.digest, size), scope)
    try:
        return manifests.parse(raw, target.media_type).children()
    except OcidistError:
        if generic:
            return ()
        raise


def children_here(provider: Provider, target: Descriptor, scope: Scope) -> tuple[Descriptor, ...]:
    """As :func:`children`; empty for what is missing or can't be read."""
    try:
        return children(provider, target, scope)
    except OcidistError:
        scope.check()
        return ()


def walk(
    root: Descriptor,
    named: Callable[[Descriptor], Iterable[Descriptor]],
    seen: set[tuple[Digest, str]] | None = None,
) -> Iterator[Descriptor]:
    """Yield ``root`` and all below it, each once as what it is called; ``named`` tells what one of them names.

    What one parent calls a layer another may call a manifest, and neither hides the other. ``seen`` is what earlier
    walks have met, and is added to.
    """
    seen = set() if seen is None else seen
    todo = [root]
    while todo:
        target = todo.pop()
        called = mediatype.base(target.media_type) if may_name(target) else ""
        if (target.digest, called) not in seen:
            seen.add((target.digest, called))
            yield target
            todo += reversed(tuple(named(target)))


def reachable(provider: Provider, root: Descriptor, scope: Scope) -> Iterator[Descriptor]:
    """Yield ``root`` and all that it leads to, each digest once, whether it is in the store or not."""
    found: set[Digest] = set()
    for target in walk(root, lambda item: children_here(provider, item, scope)):
        if target.digest not in found:
            found.add(target.digest)
            yield target


def verified(provider: Provider, target: Descriptor, scope: Scope) -> bytes:
    """Return the first bytes, one more than a manifest may have, of a blob that was hashed as a whole.

    Raises ContentError.
    """
    head = bytearray()

    def keep(block: memoryview) -> None:
        head.extend(block[: max(MAX_SIZE + 1 - len(head), 0)])

    stream(provider.open(target, scope), target, keep, scope)
    return bytes(head)


def mentioned(provider: Provider, digest: Digest, scope: Scope) -> set[Digest]:
    """Return the digests that the beginning of a blob spells, whole and parsable or not; empty if it can't be read."""
    try:
        body = provider.open(Descriptor(mediatype.OCTET_STREAM, digest, -1), scope)
        try:
            buffer = memoryview(bytearray(MAX_SIZE))
            raw = bytes(buffer[: fill_buffer(body, buffer)])
        finally:
            body.close()
    except OcidistError:
        scope.check()
        return set()
    return {Digest(found.decode("ascii")) for found in _SPELLED.findall(raw)}
