"""What rows of the database stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, NamedTuple

from ocidist.errors import OcidistError

if TYPE_CHECKING:
    from ocidist.spec.descriptor import Descriptor

__all__ = ["ImageRecord", "Lease", "find_record", "read_record"]


class ImageRecord(NamedTuple):
    """A name and what it stands for. Times are seconds since the epoch, UTC."""

    name: str
    target: Descriptor
    created_at: float
    updated_at: float
    labels: Mapping[str, str] = {}


class Lease(NamedTuple):
    """Holds its resources against the collector until it expires or is deleted.

    ``resources`` are pairs of a kind ("content", "ingest", "snapshot") and a digest or key.
    """

    id: str
    created_at: float
    expires_at: float
    resources: frozenset[tuple[str, str]] = frozenset()


def read_record(row: tuple[Any, ...]) -> ImageRecord:
    """What a row says. Raises InvalidManifest, or whatever a value that we did not write leads to."""
    from ocidist.spec import document
    from ocidist.spec.descriptor import Descriptor

    name, media_type, digest, size, annotations, labels, created, updated = row
    notes, marks = (document.decode(text.encode("utf-8"), "record") for text in (annotations, labels))
    members = {"mediaType": media_type, "digest": digest, "size": size, "annotations": notes}
    target = Descriptor.from_json(members, "record")
    marks = document.get_string_map({"labels": marks}, "labels", "record")
    return ImageRecord(name, target, float(created), float(updated), marks)


def find_record(row: tuple[Any, ...] | None) -> ImageRecord | None:
    """What a row says; None for no row, or a damaged one."""
    try:
        return None if row is None else read_record(row)
    except (OcidistError, ValueError, TypeError, AttributeError):
        return None
