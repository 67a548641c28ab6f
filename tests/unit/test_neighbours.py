"""Another user of the same machine: what he can read of a store, lock in it, or exchange in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.content import ingest, local, writer
from ocidist.content.local import LocalContent
from ocidist.diagnosis.finding import NOTE, OK
from ocidist.diagnosis.machine import machine
from ocidist.errors import DeadlineExceeded, OcidistError, StoreError
from ocidist.net.replay import load_demo
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require
from tests.unit.upkeep.damages import DEMO

RAW = b"the bytes that were verified"
NOBODY = 65534


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user gets to."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def put(store: Store, raw: bytes = RAW) -> Digest:
    with store.ingest("key") as into:
        into.write(raw)
        return into.commit(0, None)


def modes(root: Path) -> dict[str, int]:
    """Of everything at and below ``root``, by path."""
    every = [root, *root.rglob("*")]
    return {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in every}


def demo(root: Path, *options: str) -> None:
    words = ["--root", str(root), "--cassette", "demo", "--progress", "none", *options]
    assert main([*words, "pull", DEMO, "--platform", "linux/amd64"]) == 0


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_i73_a_new_store_is_its_owners_alone(tmp_path: Path, capfd: Any, mask: int) -> None:
    """Whatever the umask: nobody else looks into a folder, and nobody else opens a lock, a blob or the database."""
    require("root")  # an ordinary user's own umask of 0777 would keep the tests' files from him
    root = tmp_path / "above" / "root"
    with umask(mask):
        demo(root)
        with Store.at(root).ingest("left") as into:
            into.write(RAW)
    trees = root / "snapshots" / "native" / "committed"
    found = {name: mode for name, mode in modes(root).items() if not (root / name).is_relative_to(trees)}
    assert {name for name in found if name in ("gc.lock", "meta.db", "content", "snapshots")} == {
        *("gc.lock", "meta.db", "content", "snapshots")
    }
    for name, mode in found.items():
        wanted = 0o700 if (root / name).is_dir() else 0o400 if "/blobs/" in f"/{name}" else 0o600
        assert mode == wanted, (name, oct(mode))
    assert stat.S_IMODE(trees.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "above").stat().st_mode) == 0o700


def test_i73_a_shared_store_is_read_and_never_locked(public: Path, capfd: Any) -> None:
    """Others read blobs and names; what they could lock is not theirs to open."""
    require("root")
    root = public / "root"
    with umask(0o077):
        demo(root, "--shared")
    found = modes(root)
    assert found["."] == found["content"] == found["content/blobs"] == found["content/blobs/sha256"] == 0o755
    assert {mode for name, mode in found.items() if "blobs/sha256/" in name} == {0o444}
    assert {mode for name, mode in found.items() if name.endswith((".lock", ".next", "meta.db"))} == {0o600}
    whole = ["inspect", f"store:{DEMO}", "--platform", "linux/amd64"]
    for words in (["images", "-q"], ["list", "-q"], ["active"], whole):
        capfd.readouterr()
        assert main(["--root", str(root), *words]) == 0
        mine = capfd.readouterr().out
        assert as_nobody("--root", str(root), *words) == mine
    main(["--root", str(root), "tag", DEMO, "registry.example/other:1"])
    capfd.readouterr()
    main(["--root", str(root), "images", "-q"])
    as_nobody("--root", str(root), "gc", "--dry-run")
    assert as_nobody("--root", str(root), "images", "-q") == capfd.readouterr().out


def test_i73_what_others_see_of_a_shared_store_and_what_not(public: Path, capfd: Any) -> None:
    """Blobs and names are checked, prefixes are of blobs; ingests and trees are said to be their owner's alone."""
    require("root")
    root = public / "root"
    demo(root, "--shared")
    capfd.readouterr()
    as_nobody("--root", str(root), "--progress", "none", "check")
    said = capfd.readouterr().err
    for folder in ("content/ingest", "snapshots"):
        assert f"{root / folder}" in said
    assert said.count("for its owner alone, user 0") == 2
    assert "9 blobs (18.5 kB): all is well" in said
    blob = next(Store.at(root).content.walk()).digest
    assert (
        as_nobody("--root", str(root), "path", blob[:14]) == f"{blob} {Store.at(root).content.path(blob)}\n"
    )
    as_nobody("--root", str(root), "path", "sha256:0123456789", code=1)
    as_nobody("--root", str(root), "snapshots", code=1)
    said = capfd.readouterr().err
    assert "its trees are their owner's alone" in said
    assert f"{root / 'snapshots'} is for its owner alone, user 0" in said


def test_i73_others_read_a_shared_store_before_it_has_a_name(public: Path, capfd: Any) -> None:
    """And labels as they are now."""
    require("root")
    root = public / "root"
    digest = put(Store.at(root, shared=True))
    images = as_nobody("--root", str(root), "images", "-q")
    assert images == ""
    for value in ("one", "two"):
        Store.at(root, shared=True).set_labels(digest, {"key": value})
        assert as_nobody("--root", str(root), "label", digest) == f"key={value}\n"
    (root / "names.db").unlink()
    as_nobody("--root", str(root), "images", code=1)
    assert "the names are for their owner alone" in capfd.readouterr().err


def test_a_tree_that_another_user_put_into_a_store_keeps_only_trees_from_gc(public: Path, capfd: Any) -> None:
    """Blobs go; the tree is named with its owner."""
    require("root")
    root, words = public / "root", ["--cassette", "demo", "--progress", "none"]
    os.chown(public, NOBODY, NOBODY)
    as_nobody("--root", str(root), *words, "pull", DEMO, "--platform", "linux/amd64")
    trees = root / "snapshots" / "native" / "committed"
    (trees / f"sha256-{'0' * 64}").mkdir(0o700)
    as_nobody("--root", str(root), "rmi", DEMO)
    capfd.readouterr()
    as_nobody("--root", str(root), "gc", "--all", code=1)
    said = capfd.readouterr().err
    assert f"{trees}/sha256-{'0' * 64}: Permission denied; it is for its owner alone, user 0" in said
    assert "no tree is removed" in said
    assert list(Store.at(root, readonly=True).content.walk()) == []
    assert len(os.listdir(trees)) == 2


def as_nobody(*words: str, code: int = 0) -> str:
    """What a command prints, run by another user in a process that has all modules already."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            sys.stdout = open(write, "w", encoding="utf-8")  # noqa: SIM115 - flushed below
            ended = main(list(words))
            sys.stdout.flush()
            os._exit(ended)
        finally:
            os._exit(99)
    os.close(write)
    with open(read, "rb") as source:
        out = source.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code, out
    return out


def test_i73_an_open_store_stays_open_and_its_locks_do_not(tmp_path: Path) -> None:
    """One that an older version made: its folders keep their mode, what is added has the like, locks are closed."""
    require("kernel", "os:fchmod")
    root = tmp_path / "root"
    with umask(0o022):
        for folder in ("content/blobs/sha256", "content/ingest", "leases"):
            (root / folder).mkdir(parents=True)
        for name in ("gc.lock", "gc.lock.next", "leases/unnamed"):
            (root / name).touch()
    store = Store.at(root)
    digest = put(store)
    found = modes(root)
    assert found["."] == found["content"] == found["content/blobs/sha256"] == 0o755
    assert found[f"content/blobs/sha256/{digest.hex}"] == 0o444
    assert found["gc.lock"] == found["gc.lock.next"] == found["meta.db"] == 0o600


def test_i73_sharing_a_private_store_says_how(tmp_path: Path) -> None:
    """--shared does not open what was made private."""
    require("os:geteuid")
    put(Store.at(tmp_path / "root"))
    with pytest.raises(StoreError, match="chmod go"):
        put(Store.at(tmp_path / "root", shared=True), b"more")


def test_i73_a_lock_that_others_could_open_is_closed(tmp_path: Path) -> None:
    """The lock of a key and the gate, as an older version left them."""
    require("os:fchmod")
    content = LocalContent(tmp_path / "content")
    with content.writer("key") as into:
        into.write(b"x")
    lock = next((tmp_path / "content" / "ingest").iterdir()) / "lock"
    lock.chmod(0o644)
    with content.writer("key"):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_i73_doctor_says_who_else_reads_a_store(tmp_path: Path) -> None:
    """An open one is noted with the command that closes it, and then is not noted."""
    require("os:geteuid")
    root = tmp_path / "root"
    put(Store.at(root, shared=True))

    def found() -> tuple[str, str, str]:
        findings = machine(Client(store=root, transport=load_demo()), "registry.example")
        one = next(finding for finding in findings if finding.check == "root")
        return one.state, one.found, one.advice

    status, said, advice = found()
    assert (status, said) == (NOTE, f"{root}: other users may read images in it")
    os.system(advice.partition(": ")[2])
    assert found() == (OK, str(root), "")
    root.chmod(0o777)
    assert found() == (NOTE, f"{root}: other users may write to it", f"chmod go-w {root}")


# -- what is published is what was verified --


class Neighbour:
    """A process of another user, in the group that a store's owner works with. It tries whatever it is asked to."""

    def __init__(self, group: int) -> None:
        there, self._write = os.pipe()
        self._read, here = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._write)
            os.close(self._read)
            self._run(there, here, group)
        os.close(there)
        os.close(here)

    @staticmethod
    def _run(there: int, here: int, group: int) -> None:
        try:
            os.setgroups([group])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.umask(0)
            while path := os.read(there, 4096):
                ingests = Path(os.fsdecode(path)) / "ingest"
                with suppress(OSError):
                    for folder in list(ingests.iterdir()):
                        with suppress(OSError):  # bytes into the file itself
                            os.write(os.open(folder / "data", os.O_WRONLY), b"EVIL")
                        with suppress(OSError):  # another file in its place
                            (folder / "data").rename(folder / "away")
                            (folder / "data").write_bytes(b"EVIL" + RAW[4:])
                        with suppress(OSError):  # another folder in the place of its folder
                            folder.rename(ingests / f"away-{folder.name}")
                            folder.mkdir()
                            (folder / "data").write_bytes(b"EVIL" + RAW[4:])
                os.write(here, b".")
        finally:
            os._exit(0)

    def attack(self, content: Path) -> None:
        os.write(self._write, os.fsencode(content))
        os.read(self._read, 1)

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        os.waitpid(self._pid, 0)


class Interrupting:
    """``os`` whose calls are preceded by ``action``, beginning with the ``first``."""

    def __init__(self, action: Callable[[], object], first: int) -> None:
        self._action, self.left, self.calls = action, first, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if not callable(found) or name in ("fspath", "fsencode"):
            return found

        def call(*words: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls > self.left:
                self._action()
            return found(*words, **named)

        return call


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_i73_a_neighbour_never_chooses_what_is_published(
    public: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    """umask 002 and a shared group: he writes, renames and exchanges before each call, from each call on."""
    require("root")
    group, evil = 4242, []
    neighbour = Neighbour(group)
    try:
        before, old = os.getegid(), os.umask(0o002)
        os.setegid(group)
        try:
            first = 0
            while True:
                root = public / f"root{first}"
                if resumed:  # as an older version left it
                    folder = root / "ingest" / ingest.folder_name("key")
                    folder.mkdir(parents=True)
                    (folder / "data").write_bytes(RAW[:7])
                counter = Interrupting(lambda root=root: neighbour.attack(root), first)  # type: ignore[misc]
                for module in (local, writer, ingest):
                    monkeypatch.setattr(module, "os", counter)
                content = LocalContent(root)
                with suppress(OcidistError), content.writer("key") as into:
                    into.truncate(0)
                    into.write(RAW)
                    into.commit(len(RAW), None)
                for path in (root / "blobs").rglob("*"):
                    if path.is_file() and Digest.of(path.read_bytes()).hex != path.name:
                        evil.append((first, path.read_bytes()))
                if counter.calls <= first:
                    break
                first += 1
        finally:
            os.setegid(before)
            os.umask(old)
    finally:
        neighbour.close()
    assert first > 20
    assert evil == []


@pytest.mark.parametrize("call", ["lstat", "replace", "utime", "fchmod"])
def test_i73_a_commit_compares_what_it_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Also where modes keep nobody out (another process of root's): what was exchanged is not kept."""
    require("kernel", "os:fchmod")
    content = LocalContent(tmp_path / "content")
    real, done = getattr(os, call), []

    def exchanged(*words: Any, **named: Any) -> Any:
        data = next((tmp_path / "content" / "ingest").glob("*/data"), None)
        if data is not None and not done:
            done.append(call)
            data.rename(data.with_name("away"))
            data.write_bytes(b"evil")
        return real(*words, **named)

    with content.writer("key") as into:
        into.write(RAW)
        into.prepare(len(RAW), None)
        monkeypatch.setattr(os, call, exchanged)
        with suppress(StoreError):
            into.commit(len(RAW), None)
    monkeypatch.undo()
    assert {info.digest for info in content.walk()} <= {Digest.of(RAW)}
    for info in content.walk():
        assert content.path(info.digest).read_bytes() == RAW


# -- every wait ends --


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The lock on ``path``, as another process would hold it."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


WAITING: dict[str, Callable[[Store, Digest], object]] = {
    "ingest": lambda store, digest: put(store, b"more"),
    "delete": lambda store, digest: store.delete_blob(digest),
    "gc": lambda store, digest: store.gc(Scope.within(0.2)),
    "exists": lambda store, digest: store.content.hold(digest),
}


@pytest.mark.parametrize("name", WAITING)
def test_i74_a_wait_for_the_gate_ends_with_the_scope(tmp_path: Path, name: str) -> None:
    """Whoever holds the gate: a store within a scope waits no longer than that."""
    require("processes", "module:fcntl")
    digest = put(Store.at(tmp_path / "root"))
    began = time.monotonic()
    with held(tmp_path / "root" / "gc.lock"), pytest.raises(DeadlineExceeded):
        WAITING[name](Store.at(tmp_path / "root").within(Scope.within(0.2)), digest)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("words", [["delete", "sha256:"], ["ingest", "key"], ["gc"]])
def test_i74_commands_obey_their_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, words: list[str]
) -> None:
    """delete, ingest and gc while another holds the gate."""
    require("processes", "module:fcntl")
    digest = put(Store.at(tmp_path / "root"))
    words = [str(digest) if word == "sha256:" else word for word in words]
    with open(os.devnull) as nothing, held(tmp_path / "root" / "gc.lock"):
        monkeypatch.setattr(sys, "stdin", nothing)
        assert main(["--root", str(tmp_path / "root"), "--timeout", "300ms", *words]) == 1
    assert "time" in capfd.readouterr().err


BUSY: dict[str, Callable[[Store], object]] = {
    "images": lambda store: list(store.images),
    "resolve": lambda store: store.resolve("nosuch", Scope.within(0.3)),
    "labels": lambda store: store.content.labels(Digest.of(RAW)),
    "set_labels": lambda store: store.set_labels(Digest.of(RAW), {"a": "b"}),
    "rmi": lambda store: store.remove_image("nosuch"),
}


@pytest.mark.parametrize("name", BUSY)
def test_i74_a_wait_for_the_database_ends_with_the_scope(tmp_path: Path, name: str) -> None:
    """Another process is in a transaction for ever; sqlite3 alone would wait 30 s."""
    put(Store.at(tmp_path / "root"))
    other = sqlite3.connect(tmp_path / "root" / "meta.db")
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    try:
        with pytest.raises(DeadlineExceeded):
            BUSY[name](Store.at(tmp_path / "root").within(Scope.within(0.3)))
    finally:
        other.close()
    assert time.monotonic() - began < 5
