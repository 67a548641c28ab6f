"""Names in the database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Mapping

from ocidist.errors import StoreError
from ocidist.images.connection import MADE, Bounded, Run
from ocidist.images.protocols import DamagedRecord, ImageRecord
from ocidist.images.records import find_record, read_record, sort_out

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

__all__ = ["SqliteImages"]


class SqliteImages(Bounded):
    """Images over one sqlite3 file that many processes use at once. Reads make no file."""

    def within(self, scope: Scope) -> SqliteImages:
        """The same names, for work that ``scope`` bounds."""
        return SqliteImages(self.file, scope)

    def problems(self) -> list[str]:
        """What sqlite3's own check finds wrong with the file; [] where there is none. Raises StoreError if it
        can't even be opened."""
        found = [str(row[0]) for row in self.read("PRAGMA quick_check(5)")]
        return [] if found == ["ok"] else [f"the database of names is damaged: {line}" for line in found]

    def since(self) -> float:
        """When the database was made, seconds since the epoch: what is older it may not know. Infinite where there is
        none, or an empty one of an older version that doesn't tell; 0 for others of that version."""
        found = self.read(
            "SELECT (SELECT value FROM labels WHERE digest = '' AND key = ?), EXISTS (SELECT 1 FROM images) "
            "OR EXISTS (SELECT 1 FROM labels) OR EXISTS (SELECT 1 FROM leases)",
            MADE,
        )
        if not found or not found[0][1]:
            return float("inf")
        try:
            return float(found[0][0] or 0)
        except ValueError as error:
            raise StoreError(self.place, f"the time that it was made is damaged ({error})") from error

    def get(self, name: str) -> ImageRecord | None:
        """The record of that name."""
        rows = self.read("SELECT * FROM images WHERE name = ?", name)
        return read_record(rows[0], self.place) if rows else None

    def has(self, name: str) -> bool:
        """Whether there is a record of that name, damaged or not."""
        return bool(self.read("SELECT 1 FROM images WHERE name = ?", name))

    def all(self) -> tuple[list[ImageRecord], list[DamagedRecord]]:
        """Every record that can be read, by name, and the others: one of them stops no look at the rest."""
        return sort_out(self.read("SELECT * FROM images ORDER BY name"), self.place)

    def of(self, digest: Digest) -> list[ImageRecord]:
        """The records that stand for ``digest``, by name."""
        found = self.read("SELECT * FROM images WHERE digest = ? ORDER BY name", str(digest))
        return [read_record(row, self.place) for row in found]

    def put(
        self,
        name: str,
        target: Descriptor,
        labels: Mapping[str, str] | None = None,
        revise: Callable[[ImageRecord | None], Mapping[str, str] | None] | None = None,
    ) -> None:
        """``name`` stands for ``target`` from now on; ``labels`` of None keeps those it had.

        ``revise`` makes them, in the same transaction, of the record there is (None: none, or a damaged one). It returns
        None to leave that as it is, and may raise.
        """
        import json

        now = time.time()
        annotations = json.dumps(dict(target.annotations))
        with self.writing(names=True) as run:
            if revise is not None:
                row = run("SELECT * FROM images WHERE name = ?", (name,)).fetchone()
                labels = revise(find_record(row, self.place))
                if labels is None:
                    return
            run(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "media_type = excluded.media_type, digest = excluded.digest, size = excluded.size, "
                "annotations = excluded.annotations, updated_at = excluded.updated_at",
                (name, target.media_type, str(target.digest), target.size, annotations, "{}", now, now),
            )
            if labels is not None:
                run("UPDATE images SET labels = ? WHERE name = ?", (json.dumps(dict(labels)), name))

    def delete(self, name: str) -> bool:
        """True if there was one. Works on a full disk."""

        def delete(run: Run) -> bool:
            return bool(run("DELETE FROM images WHERE name = ?", (name,)).rowcount)

        return self.shrinking(delete, names=True)
