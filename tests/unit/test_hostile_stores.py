"""A store that somebody else has prepared: nothing in it is waited for, run, followed or written that is not ours."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli.main import main
from ocidist.content.ingest import folder_name
from ocidist.errors import DeadlineExceeded, OcidistError, StoreError
from ocidist.images.connection import APPLICATION, DatabaseFile
from ocidist.images.leases import SqliteLeases
from ocidist.images.sqlite import SqliteImages
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require

RAW = b"bytes of a blob"


def put(store: Store, raw: bytes = RAW) -> Digest:
    with store.ingest("key") as into:
        into.write(raw)
        return into.commit(0, None)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


KINDS = {"fifo": fifo, "link": link, "directory": directory}
INGEST = f"content/ingest/{folder_name('key')}"
PLACES = (
    *(f"{INGEST}/{name}" for name in ("ref", "total", "expected", "startedat", "updatedat", "data", "lock")),
    *("gc.lock", "gc.lock.next", "leases/unnamed", "leases/lease-0011223344556677", "meta.db", "names.db"),
    "snapshots/snapshotter",
    "snapshots/native/committed/sha256-" + "0" * 64 + "/info",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_i82_nothing_is_waited_for_that_is_no_file(tmp_path: Path, place: str, kind: str) -> None:
    """Every use of the store ends at once, in what it does or in an error of ours."""
    require("threads", "os:symlink", *(["os:mkfifo"] if kind == "fifo" else []))
    root = tmp_path / "root"
    store = Store.at(root)
    digest = put(store)
    with store.ingest("key") as into:
        into.write(b"left")
    store.snapshots.prepare("key")
    store.close()
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
    KINDS[kind](path)

    def use() -> None:
        scope = Scope.within(20)
        store = Store.at(root).within(scope)
        for action in (
            lambda: list(store.images),
            lambda: list(store.active),
            lambda: list(store.snapshots.walk()),
            lambda: put(store, b"more"),
            lambda: store.tag("a/b:c", store.resolve(str(digest), scope)[0], scope),
            lambda: store.gc(scope, dry_run=True),
            lambda: store.gc(scope, everything=True),
            lambda: list(store.check(scope)),
            lambda: list(store.du(scope)),
        ):
            with suppress(OcidistError):
                action()

    worker = threading.Thread(target=use, daemon=True)
    worker.start()
    worker.join(15)
    stuck = worker.is_alive()
    if stuck and kind == "fifo":  # let it go on: the test has failed
        with suppress(OSError):
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    assert not stuck


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        SqliteImages(DatabaseFile(path)).all()
    with pytest.raises(StoreError):
        SqliteLeases(DatabaseFile(path)).set_labels(Digest.of(b""), {"a": "b"})
    with pytest.raises(StoreError):
        SqliteImages(DatabaseFile(path, readonly=True)).all()
    return str(caught.value)


def ours(path: Path) -> None:
    SqliteLeases(DatabaseFile(path)).set_labels(Digest.of(b""), {"a": "b"})


SCHEMAS = {
    "a view in the place of a table": "DROP TABLE images; CREATE VIEW images AS WITH RECURSIVE r(n) AS "
    "(SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n, n, n, n, n, n, n, n FROM r",
    "a view": "CREATE VIEW other AS SELECT 1",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON labels BEGIN DELETE FROM images; END",
    "an index with code": "CREATE INDEX i ON images (abs(size))",
    "a table of another": "CREATE TABLE other (a)",
    "a virtual table": "CREATE VIRTUAL TABLE other USING fts5(a)",
    "a column with code": "DROP TABLE labels; CREATE TABLE labels (digest TEXT NOT NULL, key TEXT NOT NULL, "
    "value TEXT NOT NULL CHECK (length(value) < 9), PRIMARY KEY (digest, key)) WITHOUT ROWID",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_i84_a_schema_that_is_not_ours_is_not_run(tmp_path: Path, name: str) -> None:
    """What runs by itself, or never ends, is refused before it is asked; the file stays as it was."""
    path = tmp_path / "meta.db"
    ours(path)
    with closing(sqlite3.connect(path)) as connection:
        try:
            connection.executescript(SCHEMAS[name])
        except sqlite3.OperationalError as error:
            pytest.skip(f"this sqlite3: {error}")
    before = path.read_bytes()
    assert "not a database of ocidist's" in refused(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["meta.db"]


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("version", [0, 1])
def test_i84_another_programs_database_is_not_written(tmp_path: Path, journal: str, version: int) -> None:
    """In its place, by a name or by a link; also with a WAL that opening it would make part of it."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE places (url TEXT)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
        if journal == "wal":
            connection.execute("INSERT INTO places VALUES ('a')")
            connection.commit()
            for end in ("", "-wal"):
                (tmp_path / f"kept.db{end}").write_bytes(Path(f"{path}{end}").read_bytes())
            path = tmp_path / "kept.db"
    root = tmp_path / "root"
    root.mkdir()
    for end in ("", "-wal"):
        if (tmp_path / f"{path.name}{end}").exists():
            (root / f"meta.db{end}").write_bytes((tmp_path / f"{path.name}{end}").read_bytes())
    before = {name: (root / name).read_bytes() for name in os.listdir(root)}
    assert "not a database of ocidist's" in refused(root / "meta.db")
    assert {name: (root / name).read_bytes() for name in os.listdir(root)} == before


def test_i84_a_hot_journal_of_another_program_is_not_rolled_back(tmp_path: Path) -> None:
    """What a killed program left of a change is its own to undo."""
    require("processes")
    path = tmp_path / "meta.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE places (url TEXT)")
        connection.executemany("INSERT INTO places VALUES (?)", [("x" * 500,)] * 2000)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("UPDATE places SET url = 'y'")
        hot = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
        connection.rollback()
    assert set(hot) == {"meta.db", "meta.db-journal"}
    for name, raw in hot.items():
        (tmp_path / name).write_bytes(raw)
    assert "not a database of ocidist's" in refused(path)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == hot


def test_i84_a_link_is_not_followed_to_a_database(tmp_path: Path) -> None:
    """Not even to one that looks like ours."""
    require("os:symlink")
    ours(tmp_path / "victim.db")
    before = (tmp_path / "victim.db").read_bytes()
    (tmp_path / "meta.db").symlink_to(tmp_path / "victim.db")
    assert "a link, not a regular file" in refused(tmp_path / "meta.db")
    assert (tmp_path / "victim.db").read_bytes() == before


def test_i84_what_never_ends_in_the_database_ends_with_the_scope(tmp_path: Path) -> None:
    """sqlite3 itself asks whether to go on."""
    path = tmp_path / "meta.db"
    ours(path)
    bound = SqliteLeases(DatabaseFile(path)).within(Scope.within(0.3))
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    with pytest.raises(DeadlineExceeded):
        bound.read(endless)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bound.file.read(endless, (), interrupt)
    assert bound.file.read("SELECT 1", (), None) == [(1,)]


def test_i84_a_database_of_an_older_version_is_ours(tmp_path: Path) -> None:
    """One without our application id; new ones have it."""
    path = tmp_path / "meta.db"
    ours(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
        connection.execute("PRAGMA application_id = 0")
    assert SqliteLeases(DatabaseFile(path)).labels(Digest.of(b"")) == {"a": "b"}


def test_i84_the_command_line_says_what_to_do(tmp_path: Path, capfd: Any) -> None:
    """One line that names the file."""
    (tmp_path / "root").mkdir()
    with closing(sqlite3.connect(tmp_path / "root" / "meta.db")) as connection:
        connection.execute("CREATE TABLE places (url TEXT)")
    assert main(["--root", str(tmp_path / "root"), "images"]) == 1
    said = capfd.readouterr().err
    assert "meta.db: not a database of ocidist's (it has the table 'places'); move the file away" in said
    assert said.count("\n") == 1


def test_i84_a_database_that_is_being_made_is_ours(tmp_path: Path) -> None:
    """Another thread or process makes the tables between two looks at an empty file."""
    file = DatabaseFile(str(tmp_path / "meta.db"))

    def make(statement: str) -> None:
        if "sqlite_master" in statement:
            other = sqlite3.connect(file.path, timeout=0, isolation_level=None)
            with closing(other), suppress(sqlite3.OperationalError):  # it has to wait
                file._create(other)
            made.append(statement)

    made: list[str] = []
    with closing(sqlite3.connect(file.path, isolation_level=None)) as connection:
        connection.set_trace_callback(make)
        assert file._require_ours(connection) is False
    assert len(made) == 1
