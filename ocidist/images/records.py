"""What rows of the database stand for."""

from __future__ import annotations

from typing import Any, Iterable

from ocidist.errors import OcidistError, StoreError, quoted
from ocidist.images.protocols import DamagedRecord, ImageRecord

__all__ = ["find_record", "read_record", "sort_out"]


def sort_out(rows: Iterable[tuple[Any, ...]], path: str) -> tuple[list[ImageRecord], list[DamagedRecord]]:
    """What rows of the database at ``path`` say, those that can't be read apart."""
    whole: list[ImageRecord] = []
    damaged: list[DamagedRecord] = []
    for row in rows:
        try:
            whole.append(read_record(row, path))
        except StoreError as error:
            damaged.append(DamagedRecord(str(row[0]), str(row[2]), error.reason))
    return whole, damaged


def read_record(row: tuple[Any, ...], path: str) -> ImageRecord:
    """What a row of the database at ``path`` says. Raises StoreError for a damaged one."""
    try:
        return _record(row)
    except (OcidistError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            path,
            f"the record of the image {quoted(row[0])} is damaged ({error}); rmi it, and pull it again",
        ) from error


def find_record(row: tuple[Any, ...] | None, path: str) -> ImageRecord | None:
    """What a row says; None for no row, or a damaged one."""
    try:
        return None if row is None else read_record(row, path)
    except StoreError:
        return None


def _record(row: tuple[Any, ...]) -> ImageRecord:
    from ocidist.spec import document
    from ocidist.spec.descriptor import Descriptor

    name, media_type, digest, size, annotations, labels, created, updated = row
    notes, marks = (document.decode(text.encode("utf-8"), "record") for text in (annotations, labels))
    members = {"mediaType": media_type, "digest": digest, "size": size, "annotations": notes}
    target = Descriptor.from_json(members, "record")
    marks = document.get_string_map({"labels": marks}, "labels", "record")
    return ImageRecord(name, target, float(created), float(updated), marks)
