"""What a store holds, as Rows: blobs, ingests, images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Collection, Iterable, Iterator

from ocidist.content import verify
from ocidist.errors import OcidistError
from ocidist.graph.walk import children_here, reachable
from ocidist.images.replayed import REPLAYED
from ocidist.rows import Column, Rows, Schema
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.document import MAX_SIZE

if TYPE_CHECKING:
    from ocidist.content.protocols import Content, IngestStatus
    from ocidist.stores.store import Store

__all__ = ["ACTIVE", "ActiveRow", "BlobRow", "ImageRow", "active", "active_rows", "blobs", "images"]

BLOBS = Schema(
    "blobs", (Column("digest", "digest"), Column("size", "bytes"), Column("created_at", "age", "AGE"))
)
ACTIVE = Schema(
    "active",
    (
        Column("ref", room="whole"),
        Column("size", "bytes"),
        Column("started_at", "age", "AGE"),
        Column("total", "bytes"),
    ),
)
IMAGES = Schema(
    "images",
    (
        Column("ref", room="whole"),
        Column("type", room="spare"),
        Column("digest", "digest"),
        Column("size", "bytes"),
        Column("platforms", "list"),
        Column("replayed"),
    ),
)


@dataclass(frozen=True)
class BlobRow:
    """A blob: ``size`` in bytes, ``created_at`` in seconds since the epoch, UTC."""

    digest: Digest
    size: int
    created_at: float


@dataclass(frozen=True)
class ActiveRow:
    """An ingest: ``ref`` is its key, which resumes it, ``size`` the bytes so far, ``started_at`` seconds since the epoch,
    UTC, ``total`` the bytes that it will have, None where nobody said."""

    ref: str
    size: int
    started_at: float
    total: int | None = None


@dataclass(frozen=True)
class ImageRow:
    """A name: ``type`` is the target's media type, ``size`` the bytes of the image's content that are here,
    ``platforms`` those whose content is here. ``replayed`` is the cassette that gave it in place of its registry; empty
    for a name that was pulled."""

    ref: str
    type: str
    digest: Digest
    size: int
    platforms: tuple[str, ...]
    replayed: str = ""


def blobs(content: Content) -> Rows[BlobRow]:
    """Every blob, by digest."""
    return Rows(BLOBS, (BlobRow(info.digest, info.size, info.created_at) for info in content.walk()))


def active(content: Content) -> Rows[ActiveRow]:
    """Every ingest, oldest first."""
    return Rows(ACTIVE, active_rows(content.statuses()))


def active_rows(statuses: Iterable[IngestStatus]) -> Iterator[ActiveRow]:
    """A row for each."""
    for status in statuses:
        yield ActiveRow(status.key, status.offset, status.started_at, status.total or None)


def images(store: Store, scope: Scope | None = None, only: Collection[str] | None = None) -> Rows[ImageRow]:
    """Every name whose record can be read, sorted; with ``only``, those of them. Raises the scope's end."""
    scope = scope if scope is not None else Scope()
    content, rows = store.content, []
    for record in store.names.all()[0]:
        scope.check()
        if only is not None and record.name not in only:
            continue
        target = record.target
        size = sum(
            item.size for item in reachable(content, target, scope) if content.has(item.digest, item.size)
        )
        platforms = tuple(_platforms(content, target, scope))
        cassette = record.labels.get(REPLAYED, "")
        rows.append(ImageRow(record.name, target.media_type, target.digest, size, platforms, cassette))
    return Rows(IMAGES, rows)


def _platforms(content: Content, target: Descriptor, scope: Scope) -> list[str]:
    found: list[str] = []
    for item in [target] if mediatype.is_manifest(target.media_type) else reachable(content, target, scope):
        if not mediatype.is_manifest(item.media_type) or not content.has(item.digest, item.size):
            continue
        parts = children_here(content, item, scope)
        # Foreign layers are not fetched: they can't be missing.
        if any(
            not content.has(part.digest, part.size)
            for part in parts
            if not mediatype.is_foreign(part.media_type)
        ):
            continue
        name = str(item.platform) if item.platform is not None else _of_config(content, parts, scope)
        if name and not name.startswith("unknown/") and name not in found:  # attestations say unknown/unknown
            found.append(name)
    return found


def _of_config(content: Content, parts: tuple[Descriptor, ...], scope: Scope) -> str:
    from ocidist.spec.config import ImageConfig

    for part in parts:
        if mediatype.is_config(part.media_type):
            try:
                raw = verify.read_all(content.open(part, scope), part, MAX_SIZE)
                return str(ImageConfig.parse(raw).platform)
            except OcidistError:
                return ""
    return ""
