"""Labels and leases in the database, and the locks that stand beside it.

``gc.lock`` keeps the collector apart from whoever adds; ``leases/ID`` says that a process uses a lease, and
``leases/unnamed`` that one brings what has no name.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, ContextManager, Iterable, Iterator, Mapping

from ocidist.content.disk import PRIVATE, SHARED, make_folders, remove_file
from ocidist.content.labels import merged
from ocidist.content.lock import FileLock, Gate, is_held
from ocidist.errors import StoreError
from ocidist.images.connection import Bounded, DatabaseFile, Run
from ocidist.images.protocols import LEASED, UNNAMED, Lease
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["SqliteLeases"]


class SqliteLeases(Bounded):
    """Leases over one sqlite3 file that many processes use at once. Reads make no file."""

    def __init__(self, file: DatabaseFile, scope: Scope | None = None) -> None:
        super().__init__(file, scope)
        self._root = os.path.dirname(file.path)
        self._mode = SHARED if file.shared else PRIVATE
        self._gate = Gate(os.path.join(self._root, "gc.lock"), self._mode)

    def within(self, scope: Scope) -> SqliteLeases:
        """The same leases, for work and waits that ``scope`` bounds."""
        return SqliteLeases(self.file, scope)

    # -- locks --

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Keep the collector out while the block runs; others may be adding too."""
        with self._passed(self._gate.shared(self.scope)):
            yield

    @contextmanager
    def alone(self, *, looking: bool = False) -> Iterator[None]:
        """Keep out all who are adding while the block runs; with ``looking`` write nothing."""
        gate = self._gate
        with self._passed(gate.looking(self.scope) if looking else gate.exclusive(self.scope), looking):
            yield

    @contextmanager
    def _passed(self, gate: ContextManager[None], looking: bool = False) -> Iterator[None]:
        if self.file.readonly and not looking:
            raise StoreError(self.place, "opened read-only")
        with ExitStack() as stack:
            try:
                stack.enter_context(gate)
            except OSError as error:
                raise StoreError(self._gate.path, error.strerror or str(error)) from error
            yield

    @contextmanager
    def using(self, id_: str) -> Iterator[None]:
        """Hold the lock of a lease; that of what has no name is shared, and done without where none can be made."""
        with ExitStack() as stack:
            if not id_.startswith(UNNAMED):
                stack.enter_context(self._locked(self._lock_path(id_)))
            elif not self.file.readonly:
                with suppress(OSError):
                    self._make_folder()
                    stack.enter_context(Gate(self._lock_path(id_)).shared(self.scope))
            yield

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        lock = FileLock(path)
        try:
            self._make_folder()
            while not lock.acquire():  # a collector looks whether it is anybody's
                if self.scope is not None:
                    self.scope.check()
                time.sleep(0.001)
        except OSError as error:
            raise StoreError(path, error.strerror or str(error)) from error
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(path)
            lock.release()

    def _make_folder(self) -> None:
        make_folders(self._root, self._mode)
        make_folders(os.path.join(self._root, "leases"))

    def _lock_path(self, id_: str) -> str:
        name = "unnamed" if id_.startswith(UNNAMED) else os.path.basename(id_)
        return os.path.join(self._root, "leases", name)

    def in_use(self, id_: str) -> bool:
        """Whether somebody, of this process or another, is using the lease."""
        return is_held(self._lock_path(id_))

    def sweep(self) -> None:
        """Remove the locks that killed pulls left. A lease that is only about to be made has its lock."""
        folder = os.path.join(self._root, "leases")
        living = {lease.id for lease in self.all()}
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith(LEASED) and name not in living and not self.in_use(name):
                remove_file(os.path.join(folder, name))

    # -- labels of blobs --

    def labels(self, digest: Digest) -> dict[str, str]:
        """The labels of a blob."""
        found = self.read("SELECT key, value FROM labels WHERE digest = ? ORDER BY key", str(digest))
        return {str(key): str(value) for key, value in found}

    def labeled(self, prefix: str) -> list[tuple[str, str, str]]:
        """``(digest, key, value)`` for every label whose key starts with ``prefix``."""
        found = self.read(
            "SELECT digest, key, value FROM labels WHERE digest <> '' AND substr(key, 1, ?) = ?",
            len(prefix),
            prefix,
        )
        return [(str(digest), str(key), str(value)) for digest, key, value in found]

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels of a blob; None or "" removes one. Returns all that it has then."""
        with self.writing(names=True) as run:  # other users read them too
            _change_labels(run, digest, changes)
            rows = run("SELECT key, value FROM labels WHERE digest = ? ORDER BY key", (str(digest),))
            return {str(key): str(value) for key, value in rows.fetchall()}

    def forget(self, digests: Iterable[Digest]) -> None:
        """Drop what is known of blobs that are gone. Works on a full disk."""
        gone = list(digests)

        def forget(run: Run) -> None:
            for digest in gone:
                run("DELETE FROM labels WHERE digest = ?", (str(digest),))
                run("DELETE FROM resources WHERE kind = 'content' AND ref = ?", (str(digest),))

        self.shrinking(forget)

    # -- leases --

    def all(self) -> list[Lease]:
        """Every lease, expired ones too, by id."""
        # One statement: between two, what one lease held could have gone over to another.
        rows = self.read(
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
            raise StoreError(self.place, f"a lease's times are damaged ({error})") from error
        return [Lease(id_, *times[id_], frozenset(held.get(id_, ()))) for id_ in times]

    def create(self, id_: str, expires_at: float) -> None:
        """A lease that ends at ``expires_at`` (seconds since the epoch), or the end of one moved there."""
        with self.writing() as run:
            _lease(run, id_, expires_at)

    def delete(self, ids: Iterable[str]) -> None:
        """What they held is held no longer; unknown ones are no error. Works on a full disk."""
        gone = list(ids)

        def delete(run: Run) -> None:
            for id_ in gone:
                run("DELETE FROM resources WHERE lease = ?", (id_,))
                run("DELETE FROM leases WHERE id = ?", (id_,))

        self.shrinking(delete)

    def hold(
        self,
        id_: str,
        expires_at: float,
        resources: Iterable[tuple[str, str]],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """In one transaction: the lease lasts until ``expires_at`` at least, holds ``resources``, and the
        content among them has ``labels``. Where all that is so already, nothing is written."""
        wanted = list(resources)
        if self._holds(id_, wanted, labels or {}):
            return
        with self.writing() as run:
            _lease(run, id_, expires_at)
            for kind, ref in wanted:
                run("INSERT OR IGNORE INTO resources VALUES (?, ?, ?)", (id_, kind, ref))
                if labels and kind == "content":
                    rows = run("SELECT key, value FROM labels WHERE digest = ?", (ref,)).fetchall()
                    have = dict(rows)
                    changes = {key: merged(key, have.get(key), value) for key, value in labels.items()}
                    _change_labels(run, Digest(ref), changes)

    def _holds(self, lease: str, wanted: list[tuple[str, str]], labels: Mapping[str, str]) -> bool:
        if not self.read("SELECT 1 FROM leases WHERE id = ? AND expires_at > ?", lease, time.time() + 3600):
            return False
        for kind, ref in wanted:
            if not self.read(
                "SELECT 1 FROM resources WHERE lease = ? AND kind = ? AND ref = ?", lease, kind, ref
            ):
                return False
            if labels and kind == "content":
                have = self.labels(Digest(ref))
                if any(merged(key, have.get(key), value) != have.get(key) for key, value in labels.items()):
                    return False
        return True


def _lease(run: Run, id_: str, expires_at: float) -> None:
    run(
        "INSERT INTO leases VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
        (id_, time.time(), expires_at),
    )


def _change_labels(run: Run, digest: Digest, changes: Mapping[str, str | None]) -> None:
    for key, value in changes.items():
        if value:
            run("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", (str(digest), key, value))
        else:
            run("DELETE FROM labels WHERE digest = ? AND key = ?", (str(digest), key))
