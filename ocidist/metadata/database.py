"""Names, labels and leases in one sqlite3 file that many processes use at once.

A rollback journal, not WAL: it works on network file systems and can be read in a read-only directory.
The constructor does no I/O, ``sqlite3`` is imported at first use, and reads make no file.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, TypeVar

from ocidist.content.disk import make_folders
from ocidist.errors import StoreError, quoted
from ocidist.metadata.records import DamagedRecord, ImageRecord, Lease, find_record, read_record, sort_out
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    import sqlite3

    from ocidist.spec.descriptor import Descriptor

    Run = Callable[[str, tuple[object, ...]], sqlite3.Cursor]

T = TypeVar("T")

__all__ = ["ImageRecord", "Lease", "Metadata"]

SCHEMA = 1
_MADE = "ocidist.made"  # a label of no blob: when the database was made
BUSY = 30.0  # seconds to wait for other processes
_STEP = 0.25  # seconds that sqlite3 waits before we look whether to go on

_TABLES = """
CREATE TABLE images (
  name TEXT PRIMARY KEY, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  annotations TEXT NOT NULL, labels TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE labels (
  digest TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (digest, key)
) WITHOUT ROWID;
CREATE TABLE leases (id TEXT PRIMARY KEY, created_at REAL NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE resources (
  lease TEXT NOT NULL, kind TEXT NOT NULL, ref TEXT NOT NULL, PRIMARY KEY (lease, kind, ref)
) WITHOUT ROWID;
"""


_living: weakref.WeakSet[Metadata] = weakref.WeakSet()
_abandoned: list[Any] = []  # connections inherited over a fork; kept so that nothing closes them


def _after_fork() -> None:
    for metadata in list(_living):
        metadata._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Metadata:
    """The database at ``path``. For any thread, and usable again in a forked child.

    Every method raises StoreError: damaged, of a newer version, read-only, busy for more than 30 s. ``check``
    arguments are called while it waits, and may raise.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.readonly = readonly
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        _living.add(self)

    def __repr__(self) -> str:
        return f"Metadata({self.path!r})"

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _forked(self) -> None:
        # In a child: the connection is the parent's, and another thread may have held the lock.
        if self._connection is not None:
            _abandoned.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()

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
            _MADE,
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
        with self._writing(check) as run:
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

        return self._shrinking(delete, check)

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
        with self._writing(check) as run:
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

    # -- the file --

    def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        until = time.monotonic() + BUSY
        with self._lock, self._mapped():
            while True:
                if self._connection is None and not self._exists():
                    return []
                try:
                    connection = self._open(write=False)
                    return [] if connection is None else connection.execute(statement, values).fetchall()
                except _errors().OperationalError as error:
                    if not _is_busy(error) or time.monotonic() > until:
                        raise

    def _exists(self) -> bool:
        try:
            os.stat(self.path)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _writing(self, check: Callable[[], object] | None) -> Iterator[Run]:
        if self.readonly:
            raise StoreError(self.path, "opened read-only")
        with self._lock, self._mapped():
            connection = self._patiently(lambda: self._open(write=True), check)
            assert connection is not None
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"), check)
            try:
                yield connection.execute
                # Readers in other processes can keep a commit waiting as well.
                self._patiently(lambda: connection.execute("COMMIT"), check)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _shrinking(self, action: Callable[[Run], T], check: Callable[[], object] | None) -> T:
        """``action``, which only deletes, in a transaction. Where the disk is too full for a journal that is kept in
        memory: to make room comes before being whole after a crash in these few writes."""
        with self._lock:
            try:
                with self._writing(check) as run:
                    return action(run)
            except StoreError as error:
                if self._connection is None or "full" not in str(error.__cause__):
                    raise
            self._connection.execute("PRAGMA journal_mode = MEMORY")
            try:
                with self._writing(check) as run:
                    return action(run)
            finally:
                self._connection.execute("PRAGMA journal_mode = DELETE")

    def _patiently(self, action: Callable[[], Any], check: Callable[[], object] | None) -> Any:
        until = time.monotonic() + BUSY
        while True:
            try:
                return action()
            except _errors().OperationalError as error:
                if not _is_busy(error) or time.monotonic() > until:
                    raise
            if check is not None:
                check()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        sqlite3 = _errors()
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self.path, _explained(error)) from error
        except UnicodeDecodeError as error:  # of sqlite's own words about a damaged file
            raise StoreError(self.path, _explained(ValueError("malformed"))) from error
        except UnicodeEncodeError as error:
            raise StoreError(self.path, "a name or label is not valid Unicode") from error
        except OSError as error:
            raise StoreError(self.path, error.strerror or str(error)) from error

    def _open(self, *, write: bool) -> sqlite3.Connection | None:
        """The connection; a new one where the file was replaced."""
        try:
            found = os.stat(self.path)
            identity = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            if not write:
                return None
            identity = (0, 0)
        if self._connection is not None and identity == self._identity:
            return self._connection
        if self._connection is not None:
            stale, self._connection = self._connection, None
            stale.close()
        connection = self._connect(write)
        if connection is not None:
            found = os.stat(self.path)
            self._identity = (found.st_dev, found.st_ino)
            self._connection = connection
        return connection

    def _connect(self, write: bool) -> sqlite3.Connection | None:
        sqlite3 = _errors()
        if not self.readonly:
            make_folders(os.path.dirname(self.path))
            connection = sqlite3.connect(
                self.path, timeout=_STEP, isolation_level=None, check_same_thread=False
            )
            return self._prepared(connection, write)
        from pathlib import Path

        uri = Path(self.path).as_uri()
        for options in ("?mode=ro", "?immutable=1"):
            connection = sqlite3.connect(
                uri + options, uri=True, timeout=_STEP, isolation_level=None, check_same_thread=False
            )
            try:
                return self._prepared(connection, write)
            except sqlite3.OperationalError as error:
                # A hot journal in a directory that can't be written: only immutable=1 opens that.
                if _is_busy(error) or options == "?immutable=1":
                    raise
        return None

    def _prepared(self, connection: sqlite3.Connection, write: bool) -> sqlite3.Connection | None:
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA:
                raise StoreError(
                    self.path, f"written by a newer ocidist (schema {version}, this one reads {SCHEMA})"
                )
            if version == 0:
                if not write:  # nothing is in it, and a look makes no tables: the disk may be full
                    connection.close()
                    return None
                self._create(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody else was first
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO labels VALUES ('', ?, ?)", (_MADE, repr(time.time())))
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _errors() -> Any:
    import sqlite3

    return sqlite3


def _is_busy(error: Exception) -> bool:
    text = str(error)
    return "locked" in text or "busy" in text


def _explained(error: Exception) -> str:
    text = quoted(str(error) or type(error).__name__)[1:-1]
    if "not a database" in text or "malformed" in text or "no such table" in text or "no such column" in text:
        return (
            f"the database of names is damaged ({text}); move the file away to go on: blobs stay, "
            "and names return when images are pulled again"
        )
    if "readonly database" in text:
        return "the database of names can't be written to by this user"
    if _is_busy(error):
        return f"other processes held the database for {BUSY:.0f} s"
    return f"the database of names: {text}"


def _lease(run: Run, id_: str, expires_at: float) -> None:
    run(
        "INSERT INTO leases VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        (id_, time.time(), expires_at),
    )


def _merged(key: str, old: str | None, new: str) -> str:
    """Sources of a blob add up, as containerd writes them: ``library/busybox,library/redis``."""
    if old is None or not key.startswith("containerd.io/distribution.source."):
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
