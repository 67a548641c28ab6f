"""The database of names, labels and leases: over threads, processes, forks, and damage."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from ocidist.errors import Cancelled, StoreError
from ocidist.images.connection import DatabaseFile
from ocidist.images.leases import SqliteLeases
from ocidist.images.sqlite import SqliteImages
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.processes import CHECKOUT

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = Descriptor(MANIFEST, Digest.of(b"a"), 1, annotations={"k": "v"})
B = Descriptor(MANIFEST, Digest.of(b"b"), 2)


class Database(DatabaseFile):
    """A file, and what is kept in it."""

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        super().__init__(path, readonly=readonly)
        self.names, self.leases = SqliteImages(self), SqliteLeases(self)


@pytest.fixture
def metadata(tmp_path: Path) -> Database:
    """An empty database that is not there yet."""
    return Database(tmp_path / "root" / "meta.db")


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_reads_make_no_file(metadata: Database) -> None:
    """All of them answer as an empty store does."""
    assert metadata.names.get("x") is None
    assert metadata.names.all()[0] == []
    assert metadata.leases.labels(A.digest) == {}
    assert metadata.leases.all() == []
    assert not Path(metadata.path).parent.exists()


def test_a_label_that_is_not_unicode_is_refused(metadata: Database) -> None:
    """sqlite3 could not keep it."""
    with pytest.raises(StoreError):
        metadata.leases.set_labels(A.digest, {"\udcff": "x"})


def test_a_hold_that_is_so_already_writes_nothing(metadata: Database) -> None:
    """The file stays as it was, to the byte."""
    metadata.leases.hold("l", time.time() + 9000, [("content", str(A.digest))], {"k": "v"})
    before = Path(metadata.path).stat().st_mtime_ns, Path(metadata.path).read_bytes()
    metadata.leases.hold("l", time.time() + 9000, [("content", str(A.digest))], {"k": "v"})
    assert (Path(metadata.path).stat().st_mtime_ns, Path(metadata.path).read_bytes()) == before


def test_a_failed_write_leaves_nothing_half_done(metadata: Database) -> None:
    """The whole transaction is undone, and the next one works."""
    metadata.leases.set_labels(A.digest, {"a": "1"})
    with pytest.raises(StoreError):
        metadata.leases.set_labels(A.digest, {"b": "2", "c": "\udc00"})
    assert metadata.leases.set_labels(A.digest, {"d": "4"}) == {"a": "1", "d": "4"}


def test_many_threads(metadata: Database) -> None:
    """One file, and one each, used at once."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        mine = metadata if number % 2 else Database(metadata.path)
        try:
            for turn in range(5):
                mine.names.put(f"{number}-{turn}", A)
                assert mine.names.get(f"{number}-{turn}") is not None
        except BaseException as error:  # noqa: BLE001 - whatever a thread meets fails the test
            errors.append(error)
        if mine is not metadata:
            mine.close()

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(metadata.names.all()[0]) == 40


def test_many_processes_make_one_database(metadata: Database) -> None:
    """The first use of a root by several at once."""
    script = """
        import sys
        from ocidist.images.connection import DatabaseFile
        from ocidist.images.leases import SqliteLeases
        from ocidist.spec.digest import Digest
        metadata = DatabaseFile(sys.argv[1])
        leases = SqliteLeases(metadata)
        for turn in range(10):
            leases.set_labels(Digest.of(b"a"), {f"{sys.argv[2]}-{turn}": "x"})
        metadata.close()
    """
    processes = [python(script, metadata.path, number) for number in range(6)]
    for process in processes:
        assert process.communicate(timeout=100) == ("", "")
    assert len(metadata.leases.labels(A.digest)) == 60


def test_a_forked_child_opens_its_own(metadata: Database) -> None:
    """Also when another thread is inside the database at the moment of the fork."""
    metadata.names.put("parent", A)
    metadata._lock.acquire()  # as if another thread had it
    child = os.fork()
    if child == 0:
        try:
            metadata.names.put("child", B)
            os._exit(0 if metadata.names.get("parent") else 2)
        except BaseException:  # noqa: BLE001 - a child must not run the rest of the tests
            os._exit(1)
    metadata._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [record.name for record in metadata.names.all()[0]] == ["child", "parent"]
    metadata.names.put("after", A)


def test_a_wait_for_another_process_can_be_cancelled(metadata: Database) -> None:
    """The check is called while the database is busy."""
    metadata.names.put("a", A)
    other = sqlite3.connect(metadata.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    scope = Scope()
    timer = threading.Timer(0.1, scope.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        metadata.names.within(scope).put("b", A)
    timer.join()
    other.execute("ROLLBACK")
    other.close()
    metadata.names.within(Scope()).put("b", A)


def test_a_file_that_was_removed_is_made_again(metadata: Database) -> None:
    """A long-lived process does not write into a file that is gone."""
    metadata.names.put("a", A)
    os.unlink(metadata.path)
    assert metadata.names.all()[0] == []
    metadata.names.put("b", A)
    assert [record.name for record in Database(metadata.path).names.all()[0]] == ["b"]


def test_a_newer_schema_is_refused(metadata: Database) -> None:
    """With its number, and nothing is changed."""
    metadata.names.put("a", A)
    metadata.close()
    with sqlite3.connect(metadata.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = Path(metadata.path).read_bytes()
    for use in (metadata.names.all, lambda: metadata.names.put("b", A)):
        with pytest.raises(StoreError, match=r"newer ocidist \(schema 99"):
            use()
    assert Path(metadata.path).read_bytes() == before


@pytest.mark.parametrize("raw", [b"this is no database, just a text that someone put here", b"\0" * 5000])
def test_a_damaged_file_gives_one_clear_error(metadata: Database, raw: bytes) -> None:
    """It names the file and the way out, and the file is left as it is."""
    Path(metadata.path).parent.mkdir()
    Path(metadata.path).write_bytes(raw)
    for use in (metadata.names.all, lambda: metadata.names.put("b", A)):
        with pytest.raises(StoreError) as caught:
            use()
        assert str(caught.value).startswith(metadata.path)
        assert "damaged" in str(caught.value)
    assert Path(metadata.path).read_bytes() == raw


def test_c41_read_only(metadata: Database) -> None:
    """Opened so, it reads, makes nothing and refuses writes."""
    reader = Database(metadata.path, readonly=True)
    assert reader.names.all()[0] == []
    assert not Path(metadata.path).exists()
    metadata.names.put("a", A)
    assert [record.name for record in reader.names.all()[0]] == ["a"]
    with pytest.raises(StoreError):
        reader.names.put("b", A)


def test_c41_a_directory_that_can_not_be_written() -> None:
    """Reads work, opened read-only or not; a write is a StoreError. As root the test becomes nobody first."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        metadata = Database(root / "meta.db")
        metadata.names.put("a", A)
        metadata.close()
        root.chmod(0o555)
        (root / "meta.db").chmod(0o444)
        process = python(
            """
            import os, sys
            import sqlite3
            from ocidist.errors import StoreError
            from ocidist.images.connection import DatabaseFile
            from ocidist.images.leases import SqliteLeases
            from ocidist.images.sqlite import SqliteImages
            from ocidist.spec.digest import Digest
            import ocidist.spec.descriptor, hashlib, json, pathlib, urllib.parse
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            for readonly in (False, True):
                metadata = DatabaseFile(sys.argv[1], readonly=readonly)
                print([record.name for record in SqliteImages(metadata).all()[0]])
                try:
                    SqliteLeases(metadata).set_labels(Digest.of(b"a"), {"a": "b"})
                except StoreError as error:
                    print("refused")
                metadata.close()
            """,
            root / "meta.db",
        )
        assert process.communicate(timeout=30) == ("['a']\nrefused\n" * 2, "")
    finally:
        root.chmod(0o755)
        subprocess.run(["rm", "-r", str(root)], check=True)


@pytest.mark.parametrize(
    "damage",
    [
        "digest = 'sha256:../../../etc/passwd'",
        "digest = upper(digest)",
        "digest = digest || char(10)",
        "digest = 5",
        "size = -1",
        "size = 'many'",
        "size = 1.5",
        "media_type = ''",
        "media_type = 'a/b' || char(13, 10) || 'X-Evil: 1'",
        "annotations = '{'",
        "annotations = '[]'",
        "annotations = '{\"a\": 1}'",
        "annotations = replace(hex(zeroblob(50000)), '00', '[')",
        "labels = 'NaN'",
        "labels = x'00'",
        "created_at = 'yesterday'",
        "updated_at = x'ff'",
    ],
)
def test_d42_d45_a_damaged_record_is_named_and_can_be_removed(metadata: Database, damage: str) -> None:
    """No digest, size or type is taken from the database unchecked; the others' records still answer."""
    metadata.names.put("a", A, {"k": "v"})
    metadata.names.put("b", B)
    with closing(sqlite3.connect(metadata.path)) as connection, connection:
        connection.execute(f"UPDATE images SET {damage} WHERE name = 'a'")
    assert [each.name for each in metadata.names.all()[1]] == ["a"]
    with pytest.raises(StoreError, match=r"record of the image 'a' is damaged.*rmi it"):
        metadata.names.get("a")
    assert metadata.names.get("b") is not None
    assert metadata.names.has("a")
    assert metadata.names.delete("a")
    assert [record.name for record in metadata.names.all()[0]] == ["b"]


@pytest.mark.parametrize("damage", ["created_at = 'x'", "expires_at = x'00'"])
def test_a_damaged_lease_is_told(metadata: Database, damage: str) -> None:
    """What it held is not known, so nothing may be collected."""
    metadata.leases.create("l", time.time() + 60)
    with closing(sqlite3.connect(metadata.path)) as connection, connection:
        connection.execute(f"UPDATE leases SET {damage}")
    with pytest.raises(StoreError, match="damaged"):
        metadata.leases.all()
