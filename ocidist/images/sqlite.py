"""Names, labels and leases in one sqlite3 file that many processes use at once; ``connection`` is how it is opened.

The constructor does no I/O, ``sqlite3`` is imported at first use, and reads make no file.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Iterable, Mapping, TypeVar

from ocidist.content.labels import SOURCE_LABEL
from ocidist.errors import StoreError
from ocidist.images.connection import MADE, DatabaseFile, Run
from ocidist.images.protocols import DamagedRecord, ImageRecord, Lease
from ocidist.images.records import find_record, read_record, sort_out
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

T = TypeVar("T")

__all__ = ["ImageRecord", "Lease", "Metadata"]


class Metadata:
    """The database at ``path``. For any thread, and usable again in a forked child.

    Every method raises StoreError: damaged, another program's, of a newer version, read-only, busy for more than 30 s.
    ``check`` arguments are called while it works or waits, and may raise; without one, that of :meth:`within`'s scope.
    ``shared``: other users may read the names.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        shared: bool = False,
        scope: Scope | None = None,
        file: DatabaseFile | None = None,
    ) -> None:
        self._file = file or DatabaseFile(os.path.abspath(os.fspath(path)), readonly, shared)
        self.path = self._file.path
        self.readonly = self._file.readonly
        self._check = None if scope is None else scope.check

    def __repr__(self) -> str:
        return f"Metadata({self.path!r})"

    def within(self, scope: Scope) -> Metadata:
        """The same database, for work that ``scope`` bounds."""
        return Metadata(self.path, scope=scope, file=self._file)

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        self._file.close()

    def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._file.read(statement, values, self._check)

    def _writing(self, check: Callable[[], object] | None, *, names: bool = False) -> ContextManager[Run]:
        return self._file.writing(check or self._check, names=names)

    def _shrinking(
        self, action: Callable[[Run], T], check: Callable[[], object] | None, *, names: bool = False
    ) -> T:
        return self._file.shrinking(action, check or self._check, names=names)

    def problems(self) -> list[str]:
        """What sqlite3's own check finds wrong with the file; [] where there is none. Raises StoreError if it
        can't even be opened."""
        found = [str(row[0]) for row in self._read("PRAGMA quick_check(5)")]
        return [] if found == ["ok"] else [f"the database of names is damaged: {line}" for line in found]

    def made_at(self) -> float:
        """When the database was made, seconds since the epoch: what is older it may not know. Infinite where there is
        none, or an empty one of an older version that doesn't tell; 0 for others of that version."""
        found = self._read(
            "SELECT (SELECT value FROM labels WHERE digest = '' AND key = ?), EXISTS (SELECT 1 FROM images) "
            "OR EXISTS (SELECT 1 FROM labels) OR EXISTS (SELECT 1 FROM leases)",
            MADE,
        )
        if not found or not found[0][1]:
            return float("inf")
        try:
            return float(found[0][0] or 0)
        except ValueError as error:
            raise StoreError(self.path, f"the time that it was made is damaged ({error})") from error

    # -- images --

    def get_image(self, name: str) -> ImageRecord | None:
        """The record of that name."""
        rows = self._read("SELECT * FROM images WHERE name = ?", name)
        return read_record(rows[0], self.path) if rows else None

    def has_image(self, name: str) -> bool:
        """Whether there is a record of that name, damaged or not."""
        return bool(self._read("SELECT 1 FROM images WHERE name = ?", name))

    def images(self) -> list[ImageRecord]:
        """Every record, by name."""
        return [read_record(row, self.path) for row in self._read("SELECT * FROM images ORDER BY name")]

    def sorted_images(self) -> tuple[list[ImageRecord], list[DamagedRecord]]:
        """Every record that can be read, by name, and the others: one of them stops no look at the rest."""
        return sort_out(self._read("SELECT * FROM images ORDER BY name"), self.path)

    def images_of(self, digest: Digest) -> list[ImageRecord]:
        """The records that stand for ``digest``, by name."""
        found = self._read("SELECT * FROM images WHERE digest = ? ORDER BY name", str(digest))
        return [read_record(row, self.path) for row in found]

    def set_image(
        self,
        name: str,
        target: Descriptor,
        labels: Mapping[str, str] | None = None,
        check: Callable[[], object] | None = None,
        revise: Callable[[ImageRecord | None], Mapping[str, str] | None] | None = None,
    ) -> None:
        """``name`` stands for ``target`` from now on; ``labels`` of None keeps those it had.

        ``revise`` makes them, in the same transaction, of the record there is (None: none, or a damaged one). It returns
        None to leave that as it is, and may raise.
        """
        import json

        now = time.time()
        annotations = json.dumps(dict(target.annotations))
        with self._writing(check, names=True) as run:
            if revise is not None:
                row = run("SELECT * FROM images WHERE name = ?", (name,)).fetchone()
                labels = revise(find_record(row, self.path))
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

    def delete_image(self, name: str, check: Callable[[], object] | None = None) -> bool:
        """True if there was one. Works on a full disk."""

        def delete(run: Run) -> bool:
            return bool(run("DELETE FROM images WHERE name = ?", (name,)).rowcount)

        return self._shrinking(delete, check, names=True)

    # -- labels of blobs --

    def labels(self, digest: Digest) -> dict[str, str]:
        """The labels of a blob."""
        found = self._read("SELECT key, value FROM labels WHERE digest = ? ORDER BY key", str(digest))
        return {str(key): str(value) for key, value in found}

    def labeled(self, prefix: str) -> list[tuple[str, str, str]]:
        """``(digest, key, value)`` for every label whose key starts with ``prefix``."""
        found = self._read(
            "SELECT digest, key, value FROM labels WHERE digest <> '' AND substr(key, 1, ?) = ?",
            len(prefix),
            prefix,
        )
        return [(str(digest), str(key), str(value)) for digest, key, value in found]

    def set_labels(
        self, digest: Digest, changes: Mapping[str, str | None], check: Callable[[], object] | None = None
    ) -> dict[str, str]:
        """Set labels of a blob; None or "" removes one. Returns all that it has then."""
        with self._writing(check, names=True) as run:  # other users read them too
            _change_labels(run, digest, changes)
            rows = run("SELECT key, value FROM labels WHERE digest = ? ORDER BY key", (str(digest),))
            return {str(key): str(value) for key, value in rows.fetchall()}

    def forget(self, digests: Iterable[Digest], check: Callable[[], object] | None = None) -> None:
        """Drop what is known of blobs that are gone. Works on a full disk."""
        gone = list(digests)

        def forget(run: Run) -> None:
            for digest in gone:
                run("DELETE FROM labels WHERE digest = ?", (str(digest),))
                run("DELETE FROM resources WHERE kind = 'content' AND ref = ?", (str(digest),))

        self._shrinking(forget, check)

    # -- leases --

    def leases(self) -> list[Lease]:
        """Every lease, expired ones too, by id."""
        # One statement: between two, what one lease held could have gone over to another.
        rows = self._read(
            "SELECT id, created_at, expires_at, kind, ref FROM leases LEFT JOIN resources ON lease = id ORDER BY id"
        )
        times: dict[str, tuple[float, float]] = {}
        held: dict[str, set[tuple[str, str]]] = {}
        try:
            for id_, created, expires, kind, ref in rows:
                times[str(id_)] = float(created), float(expires)
                if kind is not None:
                    held.setdefault(str(id_), set()).add((str(kind), str(ref)))
        except (ValueError, TypeError) as error:
            raise StoreError(self.path, f"a lease's times are damaged ({error})") from error
        return [Lease(id_, *times[id_], frozenset(held.get(id_, ()))) for id_ in times]

    def create_lease(self, id_: str, expires_at: float, check: Callable[[], object] | None = None) -> None:
        """A lease that ends at ``expires_at`` (seconds since the epoch), or the end of one moved there."""
        with self._writing(check) as run:
            _lease(run, id_, expires_at)

    def delete_leases(self, ids: Iterable[str], check: Callable[[], object] | None = None) -> None:
        """What they held is held no longer; unknown ones are no error. Works on a full disk."""
        gone = list(ids)

        def delete(run: Run) -> None:
            for id_ in gone:
                run("DELETE FROM resources WHERE lease = ?", (id_,))
                run("DELETE FROM leases WHERE id = ?", (id_,))

        self._shrinking(delete, check)

    def hold(
        self,
        lease: str,
        expires_at: float,
        resources: Iterable[tuple[str, str]],
        labels: Mapping[str, str] | None = None,
        check: Callable[[], object] | None = None,
    ) -> None:
        """In one transaction: ``lease`` lasts until ``expires_at`` at least, holds ``resources``, and the
        content among them has ``labels``. Where all that is so already, nothing is written."""
        wanted = list(resources)
        if self._holds(lease, wanted, labels or {}):
            return
        with self._writing(check) as run:
            _lease(run, lease, expires_at)
            for kind, ref in wanted:
                run("INSERT OR IGNORE INTO resources VALUES (?, ?, ?)", (lease, kind, ref))
                if labels and kind == "content":
                    rows = run("SELECT key, value FROM labels WHERE digest = ?", (ref,)).fetchall()
                    have = dict(rows)
                    merged = {key: _merged(key, have.get(key), value) for key, value in labels.items()}
                    _change_labels(run, Digest(ref), merged)

    def _holds(self, lease: str, wanted: list[tuple[str, str]], labels: Mapping[str, str]) -> bool:
        if not self._read("SELECT 1 FROM leases WHERE id = ? AND expires_at > ?", lease, time.time() + 3600):
            return False
        for kind, ref in wanted:
            if not self._read(
                "SELECT 1 FROM resources WHERE lease = ? AND kind = ? AND ref = ?", lease, kind, ref
            ):
                return False
            if labels and kind == "content":
                have = self.labels(Digest(ref))
                if any(_merged(key, have.get(key), value) != have.get(key) for key, value in labels.items()):
                    return False
        return True


def _lease(run: Run, id_: str, expires_at: float) -> None:
    run(
        "INSERT INTO leases VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        (id_, time.time(), expires_at),
    )


def _merged(key: str, old: str | None, new: str) -> str:
    """Sources of a blob add up, as containerd writes them: ``library/busybox,library/redis``."""
    if old is None or not key.startswith(SOURCE_LABEL):
        return new
    return ",".join(sorted({part for part in f"{old},{new}".split(",") if part}))


def _change_labels(
    run: Run,
    digest: Digest,
    changes: Mapping[str, str | None],
) -> None:
    for key, value in changes.items():
        if value:
            run("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", (str(digest), key, value))
        else:
            run("DELETE FROM labels WHERE digest = ? AND key = ?", (str(digest), key))
