"""LocalContent against crashes, full disks, other processes and strange files."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ocidist.content import lock
from ocidist.content.ingest import folder_name, format_time, parse_time
from ocidist.content.local import LocalContent
from ocidist.content.verify import read_all
from ocidist.errors import (
    BlobNotFound,
    ContentError,
    DeadlineExceeded,
    DigestMismatch,
    Locked,
    SizeMismatch,
    StoreError,
)
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.processes import CHECKOUT
from tests.parts.required import require

RAW = bytes(range(256)) * 4096  # 1 MiB
TARGET = Descriptor("application/octet-stream", Digest.of(RAW), len(RAW))


@pytest.fixture
def content(tmp_path: Path) -> LocalContent:
    """An empty store."""
    return LocalContent(tmp_path / "content")


def put(content: LocalContent, raw: bytes = RAW, key: str = "put") -> Descriptor:
    with content.writer(key) as writer:
        writer.write(raw)
        digest = writer.commit(len(raw), None)
    return Descriptor("application/octet-stream", digest, len(raw))


def get(content: LocalContent, target: Descriptor = TARGET) -> bytes:
    return read_all(content.open(target, Scope()), target, 1 << 30)


def python(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process of its own that runs ``script`` with the package importable."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=CHECKOUT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_the_layout_is_containerds(content: LocalContent) -> None:
    """The ingest's directory is the sha256 of its key, the small files hold what containerd's do."""
    with content.writer("layer-1", total=10, expected=TARGET.digest) as writer:
        writer.write(b"abc")
        # sha256 of "layer-1", as sha256sum prints it
        folder = content.root / "ingest" / "922badbaf192e1a4a5af64df422de6d73e96e70d0ab52245bd3d692bcea9cfad"
        assert (folder / "ref").read_text() == "layer-1"
        assert (folder / "total").read_text() == "10"
        assert (folder / "data").read_bytes() == b"abc"
        for file in ("startedat", "updatedat"):
            assert parse_time((folder / file).read_text()) is not None
    put(content)
    blob = content.root / "blobs" / "sha256" / TARGET.digest.hex
    assert blob == content.path(TARGET.digest)
    assert stat.S_IMODE(blob.stat().st_mode) == 0o400


def test_times_as_containerd_writes_them() -> None:
    """Nanoseconds, offsets and Z are read; what is none is None."""
    assert parse_time("1970-01-01T00:00:01.500000000Z") == 1.5
    assert parse_time("1970-01-01T02:00:01+02:00") == 1.0
    assert parse_time(format_time(1_700_000_000.25)) == 1_700_000_000.25
    for text in ("", "yesterday", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00Z\n"):
        assert parse_time(text) is None


HOLD = """
    import sys, time
    from ocidist.content.local import LocalContent
    writer = LocalContent(sys.argv[1]).writer("k", total=1 << 20)
    writer.write(bytes(range(256)) * 1024)
    print("held", flush=True)
    time.sleep(60)
"""


def test_c32_a_writer_in_another_process_is_respected_and_sigkill_frees_it(content: LocalContent) -> None:
    """Locked at once; after SIGKILL the next writer goes on from the bytes that were written."""
    process = python(HOLD, content.root)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Locked):
            content.writer("k")
        with pytest.raises(Locked):
            content.abort("k")
        assert content.sweep(before=1e12) == []
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    with content.writer("k", total=len(RAW), expected=TARGET.digest) as writer:
        offset = writer.status().offset
        assert offset == 256 * 1024
        writer.write(RAW[offset:])
        writer.commit(len(RAW), TARGET.digest)
    assert get(content) == RAW
    assert os.listdir(content.root / "ingest") == []


def test_c32_a_fork_does_not_take_the_lock_along(content: LocalContent) -> None:
    """A child that ends, or closes its copy of the writer, leaves the lock with the parent."""
    writer = content.writer("k")
    child = os.fork()
    if child == 0:
        writer.close()
        os._exit(0)
    os.waitpid(child, 0)
    process = python(
        """
        import sys
        from ocidist.content.local import LocalContent
        from ocidist.errors import Locked
        try:
            LocalContent(sys.argv[1]).writer("k")
        except Locked:
            print("locked")
        """,
        content.root,
    )
    out, error = process.communicate(timeout=30)
    assert (out, error) == ("locked\n", "")
    writer.close()


CRASH = """
    import os, sys
    from ocidist.content.local import LocalContent
    from ocidist.content.verify import read_all
    from ocidist.errors import AlreadyExists, BlobNotFound
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

    raw = b"0123456789" * 100
    target = Descriptor("text/plain", Digest.of(raw), len(raw))
    CALLS = ("open", "write", "fsync", "replace", "chmod", "utime", "unlink", "rmdir", "mkdir", "close", "stat",
             "ftruncate", "fstat")

    def store(content):
        try:
            with content.writer("k", total=len(raw), expected=target.digest) as writer:
                done = writer.status().offset
                writer.write(raw[done:500])
                writer.write(raw[max(done, 500):])
                writer.commit(len(raw), target.digest)
        except AlreadyExists:
            pass

    def crash_at(n, root):
        count = 0
        def wrap(call):
            def wrapped(*args, **options):
                nonlocal count
                count += 1
                if count == n:
                    os._exit(9)
                return call(*args, **options)
            return wrapped
        for name in CALLS:
            setattr(os, name, wrap(getattr(os, name)))
        store(LocalContent(root))
        os._exit(0)

    states = []
    for n in range(1, 1000):
        root = os.path.join(sys.argv[1], str(n))
        child = os.fork()
        if child == 0:
            crash_at(n, root)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        content = LocalContent(root)
        try:
            assert read_all(content.open(target, Scope()), target, 1 << 20) == raw
            states.append("whole")
        except BlobNotFound:
            states.append("absent")
        store(content)
        assert read_all(content.open(target, Scope()), target, 1 << 20) == raw
        assert os.listdir(root + "/ingest") == [], n
        assert [info.digest for info in content.walk()] == [target.digest]
        if ended == 0:
            break
    print(len(states), sorted(set(states)), states == sorted(states))
"""


def test_c34_ended_at_every_system_call(tmp_path: Path) -> None:
    """The blob is absent up to a point and whole after it; a restart succeeds and leaves nothing over."""
    process = python(CRASH, tmp_path)
    out, error = process.communicate(timeout=120)
    assert error == ""
    count, rest = out.split(" ", 1)
    assert int(count) > 25
    assert rest == "['absent', 'whole'] True\n"


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def name(fd: int) -> str:
        return os.readlink(f"/proc/self/fd/{fd}")

    def recorded_fsync(fd: int) -> None:
        calls.append(("fsync", name(fd)))
        fsync(fd)

    def recorded_replace(source: str, target: str) -> None:
        calls.append(("rename", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    return calls


def test_c35_the_order_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync data, rename, fsync directory; and each parent of a directory that is new, before the rename."""
    content = LocalContent(tmp_path / "new" / "content")
    calls = record_calls(monkeypatch)
    put(content)
    root = str(content.root)
    data = f"{root}/ingest/{folder_name('put')}/data"
    blob = str(content.path(TARGET.digest))
    assert calls == [
        ("fsync", str(tmp_path)),
        ("fsync", str(tmp_path / "new")),
        ("fsync", data),
        ("fsync", root),
        ("fsync", f"{root}/blobs"),
        # Whoever made a folder that is here may have been killed before it was durable.
        ("fsync", f"{root}/blobs"),
        ("fsync", root),
        ("fsync", str(tmp_path / "new")),
        ("fsync", str(tmp_path)),
        ("rename", blob),
        ("fsync", f"{root}/blobs/sha256"),
    ]
    calls.clear()
    put(content, b"second")
    assert [call for call, _ in calls] == ["fsync", "rename", "fsync"]


def failing(number: int, code: int, call: Any) -> Any:
    """``call``, which fails the ``number``-th time."""
    count = 0

    def wrapped(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise OSError(code, os.strerror(code))
        return call(*args)

    return wrapped


def test_c36_a_failed_fsync_of_the_data_is_not_trusted_later(
    content: LocalContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused; what was written is dropped, so that a second fsync can't make it look durable."""
    put(content, b"first")  # the directories exist
    with content.writer("k", total=len(RAW), expected=TARGET.digest) as writer:
        writer.write(RAW)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(1, errno.EIO, os.fsync))
            with pytest.raises(StoreError):
                writer.commit(len(RAW), TARGET.digest)
        assert writer.status().offset == 0
        with pytest.raises(SizeMismatch):
            writer.commit(len(RAW), TARGET.digest)
        writer.write(RAW)
        writer.commit(len(RAW), TARGET.digest)
    assert get(content) == RAW


def test_c36_a_failed_fsync_of_the_directory_takes_the_blob_back(
    content: LocalContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused and absent; but a blob that was here before stays."""
    put(content, b"first")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(2, errno.EIO, os.fsync))
        with pytest.raises(StoreError):
            put(content)
    assert not content.has(TARGET.digest)
    put(content)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(2, errno.EIO, os.fsync))
        with pytest.raises(StoreError):
            put(content, key="again")
    assert get(content) == RAW
    assert os.listdir(content.root / "ingest") == []


def test_c36_a_folder_whose_entry_is_not_durable_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever comes next would find it, and take it for durable."""
    content = LocalContent(tmp_path / "new" / "content")
    for number in (1, 2):  # of the root, then of the content directory
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(number, errno.EIO, os.fsync))
            with pytest.raises(StoreError):
                content.writer("k")
        assert not content.root.exists()
        assert (tmp_path / "new").exists() == (number == 2)
    put(content)
    assert get(content) == RAW


def test_c35_what_a_killed_process_made_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders that are here are fsynced by each process that commits, once: who made them may not have come to it."""
    content = LocalContent(tmp_path / "new" / "content")
    (content.root / "blobs" / "sha256").mkdir(parents=True)
    calls = record_calls(monkeypatch)
    put(content)
    renamed = [call for call, _ in calls].index("rename")
    before = {name for call, name in calls[:renamed] if call == "fsync"}
    root = content.root
    assert {str(path) for path in (root / "blobs", root, root.parent, tmp_path)} <= before
    calls.clear()
    put(content, b"second")
    assert [call for call, _ in calls] == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_c36_a_full_disk_at_every_write(
    content: LocalContent, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Refused with the reason; what went in is kept and hashed, and the store works once there is room."""
    writer = content.writer("k")
    parts = [RAW[:1000], RAW[1000:2000], RAW[2000:]]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(number, code, os.write))
        for part in parts[: number - 1]:
            writer.write(part)
        with pytest.raises(StoreError) as caught:
            writer.write(parts[number - 1])
    assert os.strerror(code) in str(caught.value)
    offset = writer.status().offset
    assert offset == 1000 * (number - 1)
    writer.write(RAW[offset:])
    writer.commit(len(RAW), TARGET.digest)
    assert get(content) == RAW


def test_c36_short_writes_are_noticed(content: LocalContent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes seven bytes at a time gets them all; one that takes none is an error."""
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:7]))
        put(content, RAW[:1000])
    assert get(content, Descriptor("text/plain", Digest.of(RAW[:1000]), 1000)) == RAW[:1000]
    with content.writer("k") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: 0)
            with pytest.raises(StoreError):
                writer.write(b"abc")
        assert writer.status().offset == 0


def test_c36_the_limit_on_file_sizes_is_an_error_like_others(tmp_path: Path) -> None:
    """A real EFBIG, from the kernel."""
    process = python(
        """
        import resource, sys
        from ocidist.content.local import LocalContent
        from ocidist.errors import StoreError
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        content = LocalContent(sys.argv[1])
        with content.writer("k") as writer:
            try:
                writer.write(bytes(20_000))
            except StoreError as error:
                print(writer.status().offset, str(error).rpartition(": ")[2])
        with content.writer("small") as writer:
            writer.write(b"abc")
            writer.commit(3, None)
        print(len(list(content.walk())))
        """,
        tmp_path,
    )
    out, error = process.communicate(timeout=30)
    assert error == ""
    assert out == f"10000 {os.strerror(errno.EFBIG)}\n1\n"


MANY = """
    import sys, threading
    from ocidist.content.local import LocalContent
    from ocidist.errors import AlreadyExists, Locked
    from ocidist.spec.digest import Digest
    content = LocalContent(sys.argv[1])
    raw = bytes(range(256)) * 4096
    digest = Digest.of(raw)
    failed = []
    sys.stdin.readline()
    def work(number):
        while True:
            try:
                with content.writer("k%d" % (number % 2), total=len(raw), expected=digest) as writer:
                    writer.truncate(0)
                    for at in range(0, len(raw), 65536):
                        writer.write(raw[at:at + 65536])
                    writer.commit(len(raw), digest)
                return
            except AlreadyExists:
                return
            except Locked:
                continue
            except BaseException as error:
                failed.append(repr(error))
                return
    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    print(failed)
"""


def test_c37_many_processes_commit_one_digest(content: LocalContent) -> None:
    """8 processes of 8 threads: one blob, nothing left over, no error but Locked and AlreadyExists."""
    processes = [python(MANY, content.root) for _ in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=100) == ("[]\n", "")
    assert get(content) == RAW
    assert len(list(content.walk())) == 1
    assert os.listdir(content.root / "ingest") == []


def damage_flip(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"\xff" + RAW[1:])


def damage_append(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(RAW + b"x")


def damage_cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(RAW[:-1])


def damage_link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_fifo(path: Path) -> None:
    require("os:mkfifo")
    path.unlink()
    os.mkfifo(path)


DAMAGES = [damage_flip, damage_append, damage_cut, damage_link, damage_folder, damage_fifo]


@pytest.mark.parametrize("damage", DAMAGES)
def test_c39_every_reader_refuses_damage(content: LocalContent, damage: Any) -> None:
    """A bit flipped, a byte appended or cut, a link, a directory or a FIFO in the blob's place."""
    put(content)
    path = content.path(TARGET.digest)
    damage(path)
    with pytest.raises(ContentError) as caught:
        get(content)
    assert not isinstance(caught.value, BlobNotFound)
    if damage is damage_flip:
        assert isinstance(caught.value, DigestMismatch)
    elif damage in (damage_link, damage_folder, damage_fifo):
        assert list(content.walk()) == []
        with pytest.raises(ContentError):
            content.info(TARGET.digest)


@pytest.mark.parametrize("damage", [d for d in DAMAGES if d is not damage_folder])
def test_c39_a_new_commit_mends_what_is_damaged(content: LocalContent, damage: Any) -> None:
    """The verified bytes take the place of whatever is there; what a link points at is not written."""
    put(content)
    path = content.path(TARGET.digest)
    damage(path)
    other = path.with_name("other")
    put(content, key="again")
    assert get(content) == RAW
    assert not path.is_symlink()
    if damage is damage_link:
        assert other.read_bytes() == RAW


def test_c39_a_directory_in_the_blobs_place_is_refused_at_commit(content: LocalContent) -> None:
    """With its content untouched, and the ingest kept."""
    path = content.path(TARGET.digest)
    path.mkdir(parents=True)
    (path / "precious").write_text("x")
    with pytest.raises(StoreError):
        put(content)
    assert (path / "precious").read_text() == "x"
    assert [status.offset for status in content.statuses()] == [len(RAW)]


def test_c40_stray_names_do_not_hide_the_rest(content: LocalContent) -> None:
    """Files, links and folders that are no blobs and no ingests are passed over."""
    put(content)
    blobs = content.root / "blobs"
    for name in ("README", "sha256/x", f"sha256/{'A' * 64}", f"sha256/{'0' * 63}", "sha256/.nfs001", "md5"):
        (blobs / name).write_text("stray")
    (blobs / "sha256" / ("1" * 64)).mkdir()
    (blobs / "sha256" / ("2" * 64)).symlink_to("/etc/passwd")
    ingest = content.root / "ingest"
    (ingest / "file").write_text("stray")
    (ingest / "empty").mkdir()
    (ingest / "link").symlink_to("/etc")
    assert [info.digest for info in content.walk()] == [TARGET.digest]
    assert list(content.statuses()) == []
    with content.writer("k") as writer:
        writer.write(b"abc")
    assert [status.key for status in content.statuses()] == ["k"]


@pytest.mark.parametrize(
    "total", [b"", b"-1", b"1e3", b"\xff\xfe", b"9" * 5000, b"12\x00", b"0x10", "٣".encode()]
)
@pytest.mark.parametrize(
    "when", [b"", b"yesterday", b"\xff", b"9999-99-99T99:99:99Z", b"0001-01-01T00:00:00Z"]
)
def test_c40_damaged_small_files_are_read_as_unknown(
    content: LocalContent, total: bytes, when: bytes
) -> None:
    """The ingest is listed, resumed and committed all the same."""
    with content.writer("k", total=len(RAW), expected=TARGET.digest) as writer:
        writer.write(RAW[:1000])
    folder = content.root / "ingest" / folder_name("k")
    (folder / "total").write_bytes(total)
    (folder / "startedat").write_bytes(when)
    (folder / "expected").write_bytes(b"sha256:../../x")
    [status] = content.statuses()
    assert (status.key, status.offset, status.total, status.expected) == ("k", 1000, 0, None)
    with content.writer("k", total=len(RAW), expected=TARGET.digest) as writer:
        assert writer.status().offset == 1000
        writer.write(RAW[1000:])
        writer.commit(len(RAW), TARGET.digest)
    assert os.listdir(content.root / "ingest") == []


@pytest.mark.parametrize("ref", [None, b"", b"other", b"\xff\xfe", b"x" * 20_000])
def test_c40_a_damaged_ref_is_listed_by_its_folder_and_can_be_dropped(
    content: LocalContent, ref: bytes | None
) -> None:
    """It never bricks the listing; a writer of the true key repairs it."""
    with content.writer("k") as writer:
        writer.write(b"abc")
    name = folder_name("k")
    folder = content.root / "ingest" / name
    if ref is None:
        (folder / "ref").unlink()
    else:
        (folder / "ref").write_bytes(ref)
    assert [(status.key, status.offset) for status in content.statuses()] == [(name, 3)]
    content.writer("k").close()
    assert [status.key for status in content.statuses()] == ["k"]
    (folder / "ref").unlink()
    content.abort(name)
    assert not folder.exists()


def test_c40_what_lies_in_the_place_of_an_ingests_files_is_not_written_through(
    content: LocalContent, tmp_path: Path
) -> None:
    """Links there are replaced, and what they point at stays as it is."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = content.root / "ingest" / folder_name("k")
    folder.mkdir(parents=True)
    for name in ("data", "ref", "total", "startedat", "expected"):
        (folder / name).symlink_to(victim)
    with content.writer("k", total=3) as writer:
        writer.write(b"abc")
        writer.commit(3, None)
    assert victim.read_text() == "precious"
    assert os.listdir(content.root / "ingest") == []


def test_c41_a_store_opened_read_only_reads_and_refuses_writes(content: LocalContent) -> None:
    """Every write is a StoreError, and nothing is made."""
    put(content)
    with content.writer("k") as writer:
        writer.write(b"abc")
    reader = LocalContent(content.root, readonly=True)
    assert get(reader) == RAW
    assert [status.key for status in reader.statuses()] == ["k"]
    for write in (
        lambda: reader.writer("new"),
        lambda: reader.writer("k"),
        lambda: reader.abort("k"),
        lambda: reader.delete(TARGET.digest),
    ):
        with pytest.raises(StoreError):
            write()
    assert len(os.listdir(content.root / "ingest")) == 1


def test_c41_a_directory_that_can_not_be_written(tmp_path: Path) -> None:
    """The kernel's refusal is a StoreError; reads work. As root the test becomes nobody first."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        put(LocalContent(root / "content", shared=True))
        for path in [*root.rglob("*"), root]:
            if path.is_dir():
                path.chmod(0o555)
        process = python(
            """
            import hashlib, os, sys  # all of it now: nobody may not be able to read where the interpreter lies
            from ocidist.content.local import LocalContent
            from ocidist.content.verify import read_all
            from ocidist.errors import StoreError
            from ocidist.scope import Scope
            from ocidist.spec.descriptor import Descriptor
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            content = LocalContent(sys.argv[1])
            [info] = content.walk()
            target = Descriptor("text/plain", info.digest, info.size)
            print(len(read_all(content.open(target, Scope()), target, 1 << 30)))
            for write in (lambda: content.writer("k"), lambda: content.delete(info.digest)):
                try:
                    write()
                except StoreError as error:
                    print(str(error).rpartition(": ")[2].partition("; ")[0])
            """,
            root / "content",
        )
        out, error = process.communicate(timeout=30)
        assert error == ""
        assert out == f"{len(RAW)}\n{os.strerror(errno.EACCES)}\n{os.strerror(errno.EACCES)}\n"
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(root)], check=True)
        subprocess.run(["rm", "-r", str(root)], check=True)


def test_an_empty_root_is_only_looked_at(tmp_path: Path) -> None:
    """Reads make no directory."""
    content = LocalContent(tmp_path / "none")
    assert list(content.walk()) == []
    assert list(content.statuses()) == []
    assert not content.has(TARGET.digest)
    with pytest.raises(BlobNotFound):
        content.open(TARGET, Scope())
    content.abort("k")
    assert not (tmp_path / "none").exists()


def test_what_a_killed_commit_left_is_tidied(content: LocalContent) -> None:
    """An ingest without data beside a committed blob goes when the blob is asked for again."""
    put(content)
    folder = content.root / "ingest" / folder_name("k")
    folder.mkdir()
    (folder / "ref").write_text("k")
    content.abort("k")
    assert not folder.exists()


def test_without_fcntl_one_process_still_has_one_writer(tmp_path: Path) -> None:
    """On systems that lack the module, threads are kept apart all the same."""
    process = python(
        """
        import sys
        sys.modules["fcntl"] = None
        from ocidist.content.local import LocalContent
        from ocidist.content.lock import Gate
        from ocidist.errors import Locked
        content = LocalContent(sys.argv[1])
        with content.writer("k") as writer:
            writer.write(b"abc")
            try:
                LocalContent(sys.argv[1]).writer("k")
            except Locked:
                print("locked")
            writer.commit(3, None)
        with Gate(sys.argv[1] + "/gate").exclusive():
            print(len(list(content.walk())))
        """,
        tmp_path,
    )
    assert process.communicate(timeout=30) == ("locked\n1\n", "")


@pytest.mark.parametrize("with_fcntl", [True, False])
def test_a_gate_is_shared_or_passed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_fcntl: bool
) -> None:
    """Many together, also of one thread; one alone keeps all out; with flock, and where nothing like it is."""
    if not with_fcntl:
        monkeypatch.setattr(lock, "fcntl", None)
    gate, path = lock.Gate(str(tmp_path / "gate")), str(tmp_path / "gate")
    short = Scope.within(0.05)
    with gate.shared():
        with gate.shared():
            assert lock.is_held(path)
        assert lock.is_held(path)
        with pytest.raises(DeadlineExceeded), gate.exclusive(short):
            pytest.fail("passed")
    assert not lock.is_held(path)
    for enter in (gate.shared, gate.exclusive, gate.looking):
        with gate.exclusive(), pytest.raises(DeadlineExceeded), enter(short):
            pytest.fail("passed")
    with gate.exclusive():
        assert lock.is_held(path)
    assert not lock.is_held(path)


def test_a_listing_loads_little() -> None:
    """`list` starts fast: neither the network, sqlite3, json nor logging is loaded for walk."""
    process = python(
        """
        import sys
        from ocidist.stores.store import Store
        list(Store.at(sys.argv[1]).content.walk())
        print(sorted({"ssl", "sqlite3", "json", "http.client", "logging", "tarfile"} & set(sys.modules)))
        """,
        "/nonexistent",
    )
    assert process.communicate(timeout=30) == ("[]\n", "")


@pytest.mark.parametrize("place", ["ingest", "ingest/KEY"])
def test_c40_a_file_in_the_place_of_a_folder_of_ingests_is_refused(tmp_path: Path, place: str) -> None:
    """It stands in every writer's way; it is not waited for."""
    path = tmp_path / place.replace("KEY", folder_name("k"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(StoreError):
        LocalContent(tmp_path).writer("k")
    assert path.read_bytes() == b"mine"
