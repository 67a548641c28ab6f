"""How the database of names is opened: nothing in it runs, and nothing is written, before it is known to be ours.

A rollback journal, not WAL: it works on network file systems and can be read in a read-only directory.

Whoever may read an sqlite3 file may also lock it, and so keep its writers waiting for ever. So the file is its owner's
alone, and in a shared store other users read a copy of it, which is replaced whenever a name changes.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
import weakref
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Iterator, TypeVar

from ocidist.content.disk import PRIVATE, SHARED, failure, make_folders, remove_file
from ocidist.errors import StoreError, quoted
from ocidist.files import NotRegular, create, random_name, set_mode

if TYPE_CHECKING:
    import sqlite3

    from ocidist.scope import Scope

Check = Callable[[], object]
Run = Callable[[str, "tuple[object, ...]"], "sqlite3.Cursor"]
T = TypeVar("T")

__all__ = ["MADE", "Bounded", "DatabaseFile", "Run"]

SCHEMA = 1
APPLICATION = 0x4F434944
"""In the file's head, "OCID"; 0 in files of older versions."""
MADE = "ocidist.made"
"""A label of no blob: when the database was made."""
BUSY = 30.0  # seconds to wait for other processes
COPY = "names.db"
"""The copy for other users, beside the database of a shared store."""
_STEP = 0.25  # seconds that sqlite3 waits before we look whether to go on
_OPERATIONS = 20_000  # of sqlite3's machine, between looks whether to go on: about a millisecond

_TABLES = (
    """CREATE TABLE images (
  name TEXT PRIMARY KEY, media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  annotations TEXT NOT NULL, labels TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL
) WITHOUT ROWID""",
    """CREATE TABLE labels (
  digest TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (digest, key)
) WITHOUT ROWID""",
    """CREATE TABLE leases (id TEXT PRIMARY KEY, created_at REAL NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE resources (
  lease TEXT NOT NULL, kind TEXT NOT NULL, ref TEXT NOT NULL, PRIMARY KEY (lease, kind, ref)
) WITHOUT ROWID""",
)

_living: weakref.WeakSet[DatabaseFile] = weakref.WeakSet()
_abandoned: list[Any] = []  # connections inherited over a fork; kept so that nothing closes them


def _after_fork() -> None:
    for file in list(_living):
        file.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class DatabaseFile:
    """The file at ``path``, and this process's one connection to it. For any thread. Raises StoreError.

    ``check`` arguments are called while it works or waits, and may raise.
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False, shared: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.readonly = readonly
        self.shared = shared
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        self._check: Check | None = None  # of the call under way
        self._ended: BaseException | None = None  # what it raised within sqlite3
        _living.add(self)

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def forked(self) -> None:
        """Start over in a child: the connection is the parent's, and another thread may have held the lock."""
        if self._connection is not None:
            _abandoned.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()

    def read(self, statement: str, values: tuple[object, ...], check: Check | None) -> list[tuple[Any, ...]]:
        """All rows; none where there is no file."""

        def rows() -> list[tuple[Any, ...]]:
            if self._connection is None and self._found() is None:
                return []
            connection = self._open(write=False)
            return [] if connection is None else connection.execute(statement, values).fetchall()

        with self._mapped(check):
            found: list[tuple[Any, ...]] = self._patiently(rows)
            return found

    @contextmanager
    def writing(self, check: Check | None, *, names: bool) -> Iterator[Run]:
        """A transaction, for the block; ``names`` if it changes what other users read."""
        if self.readonly:
            raise StoreError(self.path, "opened read-only")
        with self._mapped(check):
            connection = self._patiently(lambda: self._open(write=True))
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield connection.execute
                # Readers in other processes can keep a commit waiting as well.
                self._patiently(lambda: connection.execute("COMMIT"))
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if names or (self.shared and not os.path.lexists(self._copy)):
                with suppress(
                    _sqlite().Error, OSError
                ):  # a full disk: others see it when the next name changes
                    self._publish(connection)

    def shrinking(self, action: Callable[[Run], T], check: Check | None, *, names: bool) -> T:
        """``action``, which only deletes, in a transaction. Where the disk is too full for a journal that is kept in
        memory: to make room comes before being whole after a crash in these few writes."""
        with self._mapped(check):
            try:
                with self.writing(check, names=names) as run:
                    return action(run)
            except StoreError as error:
                if self._connection is None or "full" not in str(error.__cause__):
                    raise
            self._connection.execute("PRAGMA journal_mode = MEMORY")
            try:
                with self.writing(check, names=names) as run:
                    return action(run)
            finally:
                self._connection.execute("PRAGMA journal_mode = DELETE")

    def _patiently(self, action: Callable[[], Any]) -> Any:
        until = time.monotonic() + BUSY
        while True:
            try:
                return action()
            except _sqlite().OperationalError as error:
                if not _is_busy(error) or time.monotonic() > until:
                    raise
            if self._check is not None:
                self._check()

    @contextmanager
    def _mapped(self, check: Check | None) -> Iterator[None]:
        """The connection for this thread alone, and sqlite3's errors as StoreError."""
        while not self._lock.acquire(timeout=_STEP):
            if check is not None:
                check()
        sqlite3 = _sqlite()
        before, self._check = self._check, check or self._check
        try:
            yield
        except sqlite3.Error as error:
            if str(error) == "interrupted":
                # An exception that came as the look began was swallowed, and can only have been Ctrl-C's.
                raise (self._ended or KeyboardInterrupt()) from None
            raise StoreError(self.path, _explained(error, self.path)) from error
        except UnicodeDecodeError as error:  # of sqlite's own words about a damaged file
            raise StoreError(self.path, _explained(ValueError("malformed"), self.path)) from error
        except UnicodeEncodeError as error:
            raise StoreError(self.path, "a name or label is not valid Unicode") from error
        except OSError as error:
            raise StoreError(self.path, error.strerror or str(error)) from error
        finally:
            self._check, self._ended = before, None
            self._lock.release()

    def _look(self) -> int:
        """Called by sqlite3 while it works; anything but 0 ends that."""
        try:
            if self._check is not None:
                self._check()
        except BaseException as error:  # noqa: BLE001 - sqlite3 would swallow it
            self._ended = error
            return 1
        return 0

    # -- opening --

    def _found(self) -> os.stat_result | None:
        """The status of the file. Raises NotRegular for a link, which may lead to another program's database."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):
            kind = "a link" if stat.S_ISLNK(found.st_mode) else "a FIFO, a directory or a device"
            raise NotRegular(0, f"{kind}, not a regular file; move it away to go on")
        return found

    def _open(self, *, write: bool) -> sqlite3.Connection | None:
        """The connection; a new one where the file was replaced."""
        found = self._found()
        if found is None and not write:
            return None
        identity = (found.st_dev, found.st_ino) if found is not None else (0, 0)
        if self._connection is not None and identity == self._identity:
            return self._connection
        if self._connection is not None:
            stale, self._connection = self._connection, None
            stale.close()
        connection = self._connect(write, found)
        if connection is not None:
            found = os.lstat(self.path)
            self._identity = (found.st_dev, found.st_ino)
            self._connection = connection
        return connection

    def _connect(self, write: bool, found: os.stat_result | None) -> sqlite3.Connection | None:
        if found is not None and found.st_size:
            if not os.access(self.path, os.R_OK) and os.path.lexists(self._copy):
                return self._prepared(_connect(self._copy, "?immutable=1"), write)
            if not os.access(self.path, os.R_OK):
                raise StoreError(self.path, "the names are for their owner alone")
            self._inspect()
        if not self.readonly:
            if write:
                self._make(found)
            return self._prepared(_connect(self.path, "?mode=rw"), write)
        for options in ("?mode=ro", "?immutable=1"):
            try:
                return self._prepared(_connect(self.path, options), write)
            except _sqlite().OperationalError as error:
                # A hot journal in a directory that can't be written: only immutable=1 opens that.
                if _is_busy(error) or options == "?immutable=1":
                    raise
        return None

    def _inspect(self) -> None:
        """Raise StoreError for another program's database. It is read without locks and as it lies there: opened
        otherwise, what a killed program left of a change would be undone, or a WAL made part of it."""
        if os.path.lexists(f"{self.path}-wal"):
            raise StoreError(
                self.path,
                "not a database of ocidist's (a WAL lies beside it); move both away to go on, or choose another --root",
            )
        try:
            with closing(_connect(self.path, "?immutable=1")) as connection:
                self._require_ours(connection)
        except _sqlite().DatabaseError:
            return  # damaged, or another process writes just now: under locks it can be told

    def _prepared(self, connection: sqlite3.Connection, write: bool) -> sqlite3.Connection | None:
        try:
            connection.set_progress_handler(self._look, _OPERATIONS)
            if not self._require_ours(connection):
                if not write:  # nothing is in it, and a look makes no tables: the disk may be full
                    connection.close()
                    return None
                self._create(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_ours(self, connection: sqlite3.Connection) -> bool:
        """False if it is empty. Raises StoreError unless all that is in it is what we make, and nothing that runs."""
        run = connection.execute
        run("BEGIN")  # one moment for all three looks: another may be making the tables
        try:
            application, version = (
                run(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            found = run("SELECT type, name, sql FROM sqlite_master").fetchall()
        finally:
            if connection.in_transaction:
                run("ROLLBACK")
        if application in (0, APPLICATION) and version > SCHEMA:
            raise StoreError(
                self.path, f"written by a newer ocidist (schema {version}, this one reads {SCHEMA})"
            )
        ours = {" ".join(table.split()) for table in _TABLES}
        other = next((row for row in found if " ".join(str(row[2]).split()) not in ours), None)
        if application not in (0, APPLICATION) or other is not None or (found and not version):
            said = "" if other is None else f" (it has the {quoted(other[0])[1:-1]} {quoted(other[1])})"
            raise StoreError(
                self.path,
                f"not a database of ocidist's{said}; move the file away to go on, or choose another --root",
            )
        if found and len(found) < len(_TABLES):
            raise _sqlite().DatabaseError("malformed: no such table")
        return bool(version)

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody else was first
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute("INSERT INTO labels VALUES ('', ?, ?)", (MADE, repr(time.time())))
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # -- who may read it --

    @property
    def _copy(self) -> str:
        return os.path.join(os.path.dirname(self.path), COPY)

    def _make(self, found: os.stat_result | None) -> None:
        """An empty file of its owner's alone; one that others may open is theirs no more, but for a copy."""
        folder = os.path.dirname(self.path)
        if found is None:
            make_folders(folder, SHARED if self.shared else PRIVATE)
            # Whole at once, and never closed under its name: that would let go of other threads' locks on it.
            new = os.path.join(folder, random_name())
            os.close(create(new, 0o600))
            try:
                with suppress(FileExistsError):
                    os.link(new, self.path)
            except (OSError, AttributeError, NotImplementedError):  # a file system without hard links
                if not os.path.lexists(self.path):
                    os.rename(new, self.path)
            finally:
                remove_file(new)
        elif hasattr(os, "geteuid") and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            if found.st_nlink > 1:  # as tighten
                return
            with suppress(PermissionError):
                set_mode(self.path, 0o600)
            self.shared = self.shared or bool(os.stat(folder).st_mode & found.st_mode & 0o044)

    def _publish(self, connection: sqlite3.Connection) -> None:
        """Replace the copy that other users read, in a shared store."""
        if not self.shared and not os.path.lexists(self._copy):
            return
        new = os.path.join(os.path.dirname(self.path), random_name())
        os.close(create(new, os.stat(os.path.dirname(self.path)).st_mode & 0o044 | 0o600))
        try:
            # So that an older state never replaces a newer one.
            self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                # From a reader: sqlite3 makes no copy within a transaction that writes.
                with (
                    closing(_connect(self.path, "?mode=ro")) as source,
                    closing(_connect(new, "?mode=rw")) as copy,
                ):
                    source.backup(copy)
                os.replace(new, self._copy)
            finally:
                connection.execute("ROLLBACK")
        finally:
            remove_file(new)


class Bounded:
    """What is kept in a database, for work that ``scope`` bounds (None: nothing does). Raises StoreError: damaged,
    another program's, of a newer version, read-only, busy for more than 30 s."""

    def __init__(self, file: DatabaseFile, scope: Scope | None = None) -> None:
        self.file, self.scope = file, scope
        self._check = None if scope is None else scope.check

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r})"

    @property
    def place(self) -> str:
        """The path of the database."""
        return self.file.path

    def read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows; none where there is no file."""
        return self.file.read(statement, values, self._check)

    def writing(self, *, names: bool = False) -> ContextManager[Run]:
        """A transaction, for the block; ``names`` if it changes what other users read."""
        return self.file.writing(self._check, names=names)

    def shrinking(self, action: Callable[[Run], T], *, names: bool = False) -> T:
        """``action``, which only deletes, in a transaction; also on a full disk."""
        return self.file.shrinking(action, self._check, names=names)


def _sqlite() -> Any:
    import sqlite3

    return sqlite3


def _connect(path: str, options: str) -> sqlite3.Connection:
    from pathlib import Path

    connection: sqlite3.Connection = _sqlite().connect(
        Path(path).as_uri() + options, uri=True, timeout=_STEP, isolation_level=None, check_same_thread=False
    )
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {setting}")
    return connection


def _is_busy(error: Exception) -> bool:
    text = str(error)
    return "locked" in text or "busy" in text


def _explained(error: Exception, path: str) -> str:
    text = quoted(str(error) or type(error).__name__)[1:-1]
    if "not a database" in text or "malformed" in text or "no such table" in text or "no such column" in text:
        return (
            f"the database of names is damaged ({text}); move the file away to go on: blobs stay, "
            "and names return when images are pulled again"
        )
    if "readonly database" in text:
        return "the database of names can't be written to by this user"
    if "disk is full" in text:
        return failure(path, OSError(errno.ENOSPC, f"the database of names: {text}")).reason
    if _is_busy(error):
        return f"other processes held the database for {BUSY:.0f} s"
    return f"the database of names: {text}"
