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
from ocidist.images.sqlite import Metadata
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.processes import CHECKOUT

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = Descriptor(MANIFEST, Digest.of(b"a"), 1, annotations={"k": "v"})
B = Descriptor(MANIFEST, Digest.of(b"b"), 2)


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    """An empty database that is not there yet."""
    return Metadata(tmp_path / "root" / "meta.db")


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=CHECKOUT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_reads_make_no_file(metadata: Metadata) -> None:
    """All of them answer as an empty store does."""
    assert metadata.get_image("x") is None
    assert metadata.images() == []
    assert metadata.labels(A.digest) == {}
    assert metadata.leases() == []
    assert not Path(metadata.path).parent.exists()


def test_images(metadata: Metadata) -> None:
    """Set, replaced, listed by name, deleted; labels and the first time stay when a name moves."""
    metadata.set_image("b", A, {"owner": "me"})
    metadata.set_image("a", B)
    first = metadata.get_image("b")
    assert first is not None
    assert (first.target, first.target.annotations, first.labels) == (A, {"k": "v"}, {"owner": "me"})
    metadata.set_image("b", B)
    second = metadata.get_image("b")
    assert second is not None
    assert (second.target, second.labels) == (B, {"owner": "me"})
    assert second.created_at == first.created_at
    assert second.updated_at >= first.updated_at
    assert [record.name for record in metadata.images()] == ["a", "b"]
    assert [record.name for record in metadata.images_of(B.digest)] == ["a", "b"]
    assert metadata.delete_image("b")
    assert not metadata.delete_image("b")
    assert [record.name for record in Metadata(metadata.path).images()] == ["a"]


def test_labels(metadata: Metadata) -> None:
    """Set, changed, removed by None or nothing; found by prefix, taken literally."""
    assert metadata.set_labels(A.digest, {"x": "1", "y": "2"}) == {"x": "1", "y": "2"}
    assert metadata.set_labels(A.digest, {"x": None, "y": "3", "z": ""}) == {"y": "3"}
    metadata.set_labels(B.digest, {"a_b": "1", "aXb": "2"})
    assert metadata.labeled("a_") == [(str(B.digest), "a_b", "1")]
    metadata.forget([A.digest])
    assert metadata.labels(A.digest) == {}
    with pytest.raises(StoreError):
        metadata.set_labels(A.digest, {"\udcff": "x"})


def test_leases(metadata: Metadata) -> None:
    """A hold writes lease, resources and labels; sources of a blob add up; a lease is never shortened."""
    now = time.time()
    source = "containerd.io/distribution.source.docker.io"
    metadata.hold("l", now + 9000, [("content", str(A.digest))], {source: "library/b"})
    metadata.hold("l", now + 8000, [("content", str(B.digest)), ("snapshot", "s")])
    metadata.hold("m", now + 9000, [("content", str(A.digest))], {source: "library/a"})
    metadata.hold("m", now + 9000, [("content", str(A.digest))], {source: "library/b"})
    leases = {lease.id: lease for lease in metadata.leases()}
    assert leases["l"].expires_at == now + 9000
    assert leases["l"].resources == {
        ("content", str(A.digest)),
        ("content", str(B.digest)),
        ("snapshot", "s"),
    }
    assert metadata.labels(A.digest) == {source: "library/a,library/b"}
    metadata.delete_leases(["l", "unknown"])
    assert [lease.id for lease in metadata.leases()] == ["m"]


def test_a_hold_that_is_so_already_writes_nothing(metadata: Metadata) -> None:
    """The file stays as it was, to the byte."""
    metadata.hold("l", time.time() + 9000, [("content", str(A.digest))], {"k": "v"})
    before = Path(metadata.path).stat().st_mtime_ns, Path(metadata.path).read_bytes()
    metadata.hold("l", time.time() + 9000, [("content", str(A.digest))], {"k": "v"})
    assert (Path(metadata.path).stat().st_mtime_ns, Path(metadata.path).read_bytes()) == before


def test_a_failed_write_leaves_nothing_half_done(metadata: Metadata) -> None:
    """The whole transaction is undone, and the next one works."""
    metadata.set_labels(A.digest, {"a": "1"})
    with pytest.raises(StoreError):
        metadata.set_labels(A.digest, {"b": "2", "c": "\udc00"})
    assert metadata.set_labels(A.digest, {"d": "4"}) == {"a": "1", "d": "4"}


def test_many_threads(metadata: Metadata) -> None:
    """One Metadata, and one each, used at once."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        mine = metadata if number % 2 else Metadata(metadata.path)
        try:
            for turn in range(5):
                mine.set_image(f"{number}-{turn}", A)
                assert mine.get_image(f"{number}-{turn}") is not None
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
    assert len(metadata.images()) == 40


def test_many_processes_make_one_database(metadata: Metadata) -> None:
    """The first use of a root by several at once."""
    script = """
        import sys
        from ocidist.images.sqlite import Metadata
        from ocidist.spec.digest import Digest
        metadata = Metadata(sys.argv[1])
        for turn in range(10):
            metadata.set_labels(Digest.of(b"a"), {f"{sys.argv[2]}-{turn}": "x"})
        metadata.close()
    """
    processes = [python(script, metadata.path, number) for number in range(6)]
    for process in processes:
        assert process.communicate(timeout=100) == ("", "")
    assert len(metadata.labels(A.digest)) == 60


def test_a_forked_child_opens_its_own(metadata: Metadata) -> None:
    """Also when another thread is inside the database at the moment of the fork."""
    metadata.set_image("parent", A)
    metadata._file._lock.acquire()  # as if another thread had it
    child = os.fork()
    if child == 0:
        try:
            metadata.set_image("child", B)
            os._exit(0 if metadata.get_image("parent") else 2)
        except BaseException:  # noqa: BLE001 - a child must not run the rest of the tests
            os._exit(1)
    metadata._file._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [record.name for record in metadata.images()] == ["child", "parent"]
    metadata.set_image("after", A)


def test_a_wait_for_another_process_can_be_cancelled(metadata: Metadata) -> None:
    """The check is called while the database is busy."""
    metadata.set_image("a", A)
    other = sqlite3.connect(metadata.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    scope = Scope()
    timer = threading.Timer(0.1, scope.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        metadata.set_image("b", A, check=scope.check)
    timer.join()
    other.execute("ROLLBACK")
    other.close()
    metadata.set_image("b", A, check=Scope().check)


def test_a_file_that_was_removed_is_made_again(metadata: Metadata) -> None:
    """A long-lived process does not write into a file that is gone."""
    metadata.set_image("a", A)
    os.unlink(metadata.path)
    assert metadata.images() == []
    metadata.set_image("b", A)
    assert [record.name for record in Metadata(metadata.path).images()] == ["b"]


def test_a_newer_schema_is_refused(metadata: Metadata) -> None:
    """With its number, and nothing is changed."""
    metadata.set_image("a", A)
    metadata.close()
    with sqlite3.connect(metadata.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = Path(metadata.path).read_bytes()
    for use in (metadata.images, lambda: metadata.set_image("b", A)):
        with pytest.raises(StoreError, match=r"newer ocidist \(schema 99"):
            use()
    assert Path(metadata.path).read_bytes() == before


@pytest.mark.parametrize("raw", [b"this is no database, just a text that someone put here", b"\0" * 5000])
def test_a_damaged_file_gives_one_clear_error(metadata: Metadata, raw: bytes) -> None:
    """It names the file and the way out, and the file is left as it is."""
    Path(metadata.path).parent.mkdir()
    Path(metadata.path).write_bytes(raw)
    for use in (metadata.images, lambda: metadata.set_image("b", A)):
        with pytest.raises(StoreError) as caught:
            use()
        assert str(caught.value).startswith(metadata.path)
        assert "damaged" in str(caught.value)
    assert Path(metadata.path).read_bytes() == raw


def test_c41_read_only(metadata: Metadata) -> None:
    """Opened so, it reads, makes nothing and refuses writes."""
    reader = Metadata(metadata.path, readonly=True)
    assert reader.images() == []
    assert not Path(metadata.path).exists()
    metadata.set_image("a", A)
    assert [record.name for record in reader.images()] == ["a"]
    with pytest.raises(StoreError):
        reader.set_image("b", A)


def test_c41_a_directory_that_can_not_be_written() -> None:
    """Reads work, opened read-only or not; a write is a StoreError. As root the test becomes nobody first."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        metadata = Metadata(root / "meta.db")
        metadata.set_image("a", A)
        metadata.close()
        root.chmod(0o555)
        (root / "meta.db").chmod(0o444)
        process = python(
            """
            import os, sys
            import sqlite3
            from ocidist.errors import StoreError
            from ocidist.images.sqlite import Metadata
            from ocidist.spec.digest import Digest
            import ocidist.spec.descriptor, hashlib, json, pathlib, urllib.parse
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            for readonly in (False, True):
                metadata = Metadata(sys.argv[1], readonly=readonly)
                print([record.name for record in metadata.images()])
                try:
                    metadata.set_labels(Digest.of(b"a"), {"a": "b"})
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
def test_d42_d45_a_damaged_record_is_named_and_can_be_removed(metadata: Metadata, damage: str) -> None:
    """No digest, size or type is taken from the database unchecked; the others' records still answer."""
    metadata.set_image("a", A, {"k": "v"})
    metadata.set_image("b", B)
    with closing(sqlite3.connect(metadata.path)) as connection, connection:
        connection.execute(f"UPDATE images SET {damage} WHERE name = 'a'")
    for use in (metadata.images, lambda: metadata.get_image("a")):
        with pytest.raises(StoreError, match=r"record of the image 'a' is damaged.*rmi it"):
            use()
    assert metadata.get_image("b") is not None
    assert metadata.has_image("a")
    assert metadata.delete_image("a")
    assert [record.name for record in metadata.images()] == ["b"]


@pytest.mark.parametrize("damage", ["created_at = 'x'", "expires_at = x'00'"])
def test_a_damaged_lease_is_told(metadata: Metadata, damage: str) -> None:
    """What it held is not known, so nothing may be collected."""
    metadata.create_lease("l", time.time() + 60)
    with closing(sqlite3.connect(metadata.path)) as connection, connection:
        connection.execute(f"UPDATE leases SET {damage}")
    with pytest.raises(StoreError, match="damaged"):
        metadata.leases()
