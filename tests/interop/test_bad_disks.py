"""Disks that are full, read-only, failing, or that keep no locks: one clear line, nothing lost, and usable after."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.interop import roots
from tests.parts import syscalls
from tests.parts.disks import Disk
from tests.parts.images import noise
from tests.parts.processes import CHECKOUT, Program, clean_environment
from tests.parts.required import require

DEMO = "registry.example/demo/shop:1.0"
OPTIONS = ["--cassette", "demo", "--progress", "none"]
RAW = noise(60_000)
COMMANDS: dict[str, tuple[tuple[str, ...], bytes | None]] = {
    "ingest": (("ingest", "key"), RAW),
    "pull": (("pull", DEMO), None),
}
FULL = (os.strerror(errno.ENOSPC), "database or disk is full", "disk I/O error")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Four megabytes."""
    with Disk(tmp_path / "disk", size=4 << 20) as made:
        yield made


def refused_or_done(program: Program, command: str, reasons: tuple[str, ...], **popen: object) -> bool:
    """Run it: True if it succeeded, False if it ended with 1 and one line that names the root and a reason."""
    words, stdin = COMMANDS[command]
    process = program.start(*words, stdin=-1, **popen)
    out, err = process.communicate(stdin or b"", timeout=120)
    said = err.decode()
    assert process.returncode in (0, 1), said
    if process.returncode == 0:
        return True
    assert len(said.splitlines()) == 1, said
    assert any(reason in said for reason in reasons), said
    assert str(program.root) in said
    assert "full" not in said or "free some (rmi, gc, gc --all)" in said, said
    assert out == b""
    return False


def works(program: Program, command: str) -> None:
    """The same command succeeds, and all that is in the store is whole."""
    words, stdin = COMMANDS[command]
    program.ok(*words, stdin=stdin)
    program.ok("check")


# -- no room ----------------------------------------------------------------------------------------

ROOM = {
    "ingest": [0, 8, 16, 40, 72, 100, 140],
    "pull": [0, 8, 20, 60, 160, 320, 600],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_c36_a_full_disk(tmp_path: Path, disk: Disk, command: str) -> None:
    """With ever more room (KiB): refused until it is enough, never half done, and done once there is room."""
    done = []
    for free in ROOM[command]:
        program = disk.program(tmp_path / "home", f"root-{free}", options=OPTIONS)
        disk.fill(free << 10)
        done.append(refused_or_done(program, command, FULL))
        root = disk.inside / f"root-{free}"
        assert {digest for digest, real in roots.blobs(root).items() if digest != real} == set()
        program.ok("list")
        if (root / "content").exists():
            program.ok("check")
        disk.empty()
        works(program, command)
        assert roots.leftovers(root) == []
    assert done == sorted(done)  # more room is never worse
    assert not done[0]
    assert done[-1]


def test_c36_no_inodes_left(tmp_path: Path) -> None:
    """The same where there is room, but not for one more file."""
    done = []
    with Disk(tmp_path / "disk", size=16 << 20, inodes=700) as disk:
        for free in (0, 1, 4, 10, 30, 150):
            program = disk.program(tmp_path / "home", f"root-{free}", options=OPTIONS)
            disk.fill_inodes(free)
            done.append(refused_or_done(program, "pull", (*FULL, "unable to open database file")))
            disk.empty()
            works(program, "pull")
            assert roots.leftovers(disk.inside / f"root-{free}") == []
            shutil.rmtree(disk.inside / f"root-{free}")
    assert done == sorted(done)
    assert not done[0]
    assert done[-1]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("limit", [0, 100, 5000, 9000, 1 << 20])
def test_c36_a_limit_on_the_size_of_files(tmp_path: Path, command: str, limit: int) -> None:
    """RLIMIT_FSIZE at every file that a command writes, from the smallest to the largest."""
    program = Program(tmp_path / "home", tmp_path / "root", options=OPTIONS)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    reasons = (os.strerror(errno.EFBIG), *FULL)
    done = refused_or_done(program, command, reasons, preexec_fn=limited)
    assert done == (limit == 1 << 20)
    works(program, command)
    assert roots.leftovers(tmp_path / "root") == []


# -- fsync and write --------------------------------------------------------------------------------


class Traced:
    """A command in a new root, under strace."""

    def __init__(self, folder: Path, command: str) -> None:
        require("strace")
        self.command, self.log, self.root = command, folder / "log", folder / "root"
        self.program = Program(folder / "home", self.root, options=OPTIONS)
        self.program.home.mkdir(parents=True, exist_ok=True)

    def run(self, *options: str) -> tuple[int, str, list[syscalls.Call]]:
        """Its exit code, what it said, and its calls."""
        words, stdin = COMMANDS[self.command]
        done = syscalls.run(
            self.program.command(*words),
            *options,
            log=self.log,
            stdin=stdin or b"",
            env=clean_environment(self.program.home, {"PYTHONHASHSEED": "0"}),
            cwd=CHECKOUT,
        )
        return done.returncode, done.stderr.decode(), syscalls.parse(self.log)

    def number(self, name: str, right: Callable[[syscalls.Call], bool]) -> int:
        """Which of the calls of that name, in its thread, is the first ``right`` one."""
        code, said, calls = self.run()
        assert code == 0, said
        counts: dict[int, int] = {}
        for call in calls:
            if call.name == name:
                counts[call.thread] = counts.get(call.thread, 0) + 1
                if right(call):
                    return counts[call.thread]
        raise AssertionError(f"no such {name}")


def is_data(call: syscalls.Call) -> bool:
    return any(path.endswith("/data") for path in call.paths)


def test_c36_a_failed_fsync_is_not_trusted(tmp_path: Path) -> None:
    """Of the data: refused, its bytes dropped; the next run writes all of them again before it renames."""
    number = Traced(tmp_path / "whole", "ingest").number("fsync", is_data)
    traced = Traced(tmp_path / "bad", "ingest")
    code, said, calls = traced.run(*syscalls.failing("EIO", str(number), ["fsync"]))
    failed = [at for at, call in enumerate(calls) if call.error == "EIO"]
    assert [(calls[at].name, is_data(calls[at])) for at in failed] == [("fsync", True)]
    assert code == 1
    assert said.splitlines() == [said.strip()]
    assert os.strerror(errno.EIO) in said
    later = calls[failed[0] + 1 :]
    assert not any(call.name in ("rename", "fsync") and is_data(call) for call in later)
    assert roots.blobs(traced.root) == {}
    assert [path.stat().st_size for path in (traced.root / "content/ingest").glob("*/data")] == [0]
    code, said, calls = traced.run()
    assert code == 0, said
    renamed = next(at for at, call in enumerate(calls) if call.name == "rename" and is_data(call))
    written = sum(call.result for call in calls[:renamed] if call.name == "write" and is_data(call))
    assert written == len(RAW)
    traced.program.ok("check")


@pytest.mark.parametrize("command", COMMANDS)
def test_c36_every_fsync_fails(tmp_path: Path, command: str) -> None:
    """Nothing is committed, nothing is named; and all is well when the disk is."""
    traced = Traced(tmp_path, command)
    code, said, _ = traced.run(*syscalls.failing("EIO", "1+", ["fsync", "fdatasync"]))
    assert code == 1
    assert len(said.splitlines()) == 1, said
    assert roots.blobs(traced.root) == {}
    works(traced.program, command)


def each_fsync_fails(folder: Path, command: str, step: int) -> int:
    """Let one fsync after the other fail, every ``step``-th; how many runs were refused."""
    whole = Traced(folder / "whole", command)
    code, said, calls = whole.run()
    assert code == 0, said
    places = [place for place in syscalls.places(calls, whole.root) if place[0] in ("fsync", "fdatasync")]
    refused = 0
    for name, number in places[::step]:
        traced = Traced(folder / f"{name}-{number}", command)
        code, said, calls = traced.run(*syscalls.failing("EIO", str(number), [name]))
        assert code in (0, 1), said
        assert len(said.splitlines()) == code, said  # one line, if it was refused
        refused += code
        # What can be seen was fsynced, its directory as well.
        for digest in roots.blobs(traced.root):
            path = traced.root / "content/blobs" / digest.replace(":", "/")
            renamed = [
                at for at, call in enumerate(calls) if call.name == "rename" and str(path) in call.paths
            ]
            after = calls[renamed[-1] :]
            assert any(
                call.name == "fsync" and not call.error and str(path.parent) in call.paths for call in after
            ), digest
        works(traced.program, command)
    return refused


@pytest.mark.parametrize(("command", "step"), [("ingest", 3), ("pull", 9)])
def test_c36_fsyncs_that_fail_one_by_one(tmp_path: Path, command: str, step: int) -> None:
    """Data, directories and the database: refused in one line; the store works on."""
    assert each_fsync_fails(tmp_path, command, step) > 0


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS)
def test_c36_each_fsync_fails(tmp_path: Path, command: str) -> None:
    """The same for each of them."""
    assert each_fsync_fails(tmp_path, command, 1) > 5


def test_c36_a_write_that_did_less_than_it_said(tmp_path: Path) -> None:
    """Refused: the file is looked at before it is believed. A short write that tells the truth goes on."""
    number = Traced(tmp_path / "whole", "ingest").number("write", is_data)
    traced = Traced(tmp_path / "bad", "ingest")
    code, said, calls = traced.run("-e", f"inject=write:retval={len(RAW)}:when={number}")
    assert any(call.name == "write" and is_data(call) and call.result == len(RAW) for call in calls)
    assert code == 1
    assert f"the ingest holds 0 bytes, {len(RAW)} were written" in said
    assert len(said.splitlines()) == 1, said
    assert roots.blobs(traced.root) == {}
    works(traced.program, "ingest")


# -- read-only, and without locks -------------------------------------------------------------------

# A fetch of what is here has nothing to write.
READS = (("list",), ("images",), ("active",), ("du",), ("check",), ("gc", "--dry-run"), ("fetch", DEMO))
WRITES = (("pull", DEMO), ("ingest", "k"), ("rmi", DEMO), ("gc",))


def test_c41_a_disk_that_is_read_only(tmp_path: Path, disk: Disk) -> None:
    """Reads work, also of an image; each write says why not, and where nothing is yet as well."""
    program = disk.program(tmp_path / "home", "root", options=OPTIONS)
    program.ok("pull", DEMO)
    digest = program.ok("list", "-q").lines[0]
    disk.remount("ro")
    for command in (*READS, ("get", digest), ("inspect", f"store:{DEMO}"), ("label", digest)):
        program.ok(*command)
    for command in (*WRITES, ("delete", digest), ("label", digest, "a=b")):
        said = program.fails(*command)
        assert "its file system is read-only" in said, (command, said)
        assert str(program.root) in said
    nothing = disk.program(tmp_path / "home", "absent", options=OPTIONS)
    assert nothing.ok("images", "-q").text == ""
    assert os.strerror(errno.EROFS) in nothing.fails("pull", DEMO)
    disk.remount("rw")
    program.ok("pull", DEMO)
    program.ok("check")


@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_c41_a_disk_without_locks(tmp_path: Path, error: str) -> None:
    """What must keep others out is refused, with the way out; what only looks works; nothing is changed."""
    require("strace")
    program = Program(tmp_path / "home", tmp_path / "root", options=OPTIONS)
    program.ok("pull", DEMO)
    before = roots.blobs(tmp_path / "root")
    other = Program(tmp_path / "home", tmp_path / "other", options=OPTIONS)

    def run(program: Program, *words: str) -> tuple[int, str]:
        environment = clean_environment(program.home)
        options = syscalls.failing(error, "1+", ["flock"])
        done = syscalls.run(program.command(*words), *options, calls=["flock"], env=environment, cwd=CHECKOUT)
        return done.returncode, done.stderr.decode()

    for words in (("list",), ("images",), ("check",), ("inspect", f"store:{DEMO}")):
        code, said = run(program, *words)
        assert code == 0, said
    for where, words in ((program, ("gc",)), (other, ("pull", DEMO)), (other, ("ingest", "k"))):
        code, said = run(where, *words)
        assert code == 1, (words, said)
        assert len(said.splitlines()) == 1, said
        assert "keeps no locks (flock)" in said
        assert "choose a root on another" in said
        assert str(where.root) in said
    assert roots.blobs(tmp_path / "root") == before
    assert roots.blobs(tmp_path / "other") == {}
    works(other, "pull")


def test_c36_rmi_and_gc_make_room_on_a_full_disk(tmp_path: Path, disk: Disk) -> None:
    """With not a byte left: names are forgotten, the content goes, and the store is whole afterwards. delete does so
    as well."""
    program = disk.program(tmp_path / "home", "root", options=OPTIONS)
    program.ok("pull", DEMO)
    digest = program.ok("ingest", "k", stdin=os.urandom(100_000)).text.strip()
    disk.fill(0)
    assert FULL[1] in program.fails("label", digest, "a=b")
    assert program.ok("rmi", DEMO).lines == [DEMO]
    assert program.ok("images", "-q").lines == []
    disk.fill(0)
    assert digest in program.ok("gc", "--all").text
    disk.empty()
    assert roots.blobs(disk.inside / "root") == {}
    assert program.ok("check").code == 0
    program.ok("pull", DEMO)
    digest = program.ok("list", "-q").lines[0]
    disk.fill(0)
    program.ok("delete", digest)
