"""The system calls of a commit, in order; and the process ended at each of them.

Two commands stand for all: ``ingest``, one thread and one blob, and ``pull``, with leases, threads, trees and a name.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import pytest

from ocidist.client import Client
from ocidist.scope import Scope
from ocidist.stores.store import Store
from tests.interop import roots
from tests.parts import syscalls
from tests.parts.processes import CHECKOUT, Program, Result, clean_environment
from tests.parts.required import require
from tests.parts.syscalls import Call

DEMO = "registry.example/demo/shop:1.0"
RAW = bytes(range(256)) * 40


@dataclass(frozen=True)
class Command:
    """What is run, and what it prints when nothing disturbs it."""

    words: tuple[str, ...]
    stdin: bytes = b""

    def traced(self, root: Path, *options: str, log: Path | None = None) -> int:
        """Run under strace; how it ended."""
        program = Program(root.parent / "home", root, options=["--cassette", "demo", "--progress", "none"])
        program.home.mkdir(exist_ok=True)
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        done = syscalls.run(
            program.command(*self.words),
            *options,
            log=log,
            stdin=self.stdin,
            env=clean_environment(program.home, environment),
            cwd=CHECKOUT,
        )
        return done.returncode

    def run(self, root: Path) -> Result:
        program = Program(root.parent / "home", root, options=["--cassette", "demo", "--progress", "none"])
        return program.ok(*self.words, stdin=self.stdin)


INGEST = Command(("ingest", "key"), RAW)
PULL = Command(("pull", DEMO))


def observed(command: Command, folder: Path) -> tuple[Path, list[Call]]:
    """The calls of an undisturbed run in a new root two folders deep."""
    require("strace")
    root, log = folder / "new" / "root", folder / "log"
    root.parent.mkdir(parents=True)
    assert command.traced(root, log=log) == 0
    return root, syscalls.parse(log)


def position(calls: Sequence[Call], name: str, path: str, start: int = 0) -> int:
    """Where the first call of that name on that path is, from ``start`` on; it must have succeeded."""
    for at in range(start, len(calls)):
        if calls[at].name == name and path in calls[at].paths and calls[at].result >= 0:
            return at
    raise AssertionError(f"no {name} of {path} after call {start}")


def commits(root: Path, calls: Sequence[Call]) -> list[tuple[int, str, str]]:
    """Position, ingest and blob of each rename that makes a blob visible."""
    blobs = f"{root}/content/blobs/"
    found = [
        (at, *call.paths) for at, call in enumerate(calls) if call.name == "rename" and blobs in call.text
    ]
    return [(at, source, target) for at, source, target in found]


def transactions(root: Path, calls: Sequence[Call]) -> list[int]:
    """Where sqlite3's transactions end: the journal goes."""
    journal = f"{root}/meta.db-journal"
    return [
        at
        for at, call in enumerate(calls)
        if call.name == "unlink" and journal in call.paths and call.result == 0
    ]


@pytest.mark.parametrize("command", [INGEST, PULL], ids=["ingest", "pull"])
def test_c35_data_then_rename_then_directory(tmp_path: Path, command: Command) -> None:
    """Each blob: its last write, fsync of the data, a lease that is on disk, the rename, fsync of the directory."""
    root, calls = observed(command, tmp_path)
    found = commits(root, calls)
    assert len(found) == len(roots.blobs(root)) > 0
    ended = transactions(root, calls)
    for number, (renamed, source, target) in enumerate(found, 1):
        written = max(at for at, call in enumerate(calls) if call.name == "write" and source in call.paths)
        synced = position(calls, "fsync", source)
        assert written < synced < renamed
        # A lease of each blob, and for a pull one of its own before all: at least as many transactions as blobs.
        assert sum(at < renamed for at in ended) >= number
        after = position(calls, "fsync", os.path.dirname(target), renamed)
        assert after < len(calls)
        assert not any(
            call.name in ("write", "pwrite64", "ftruncate") and target in call.paths for call in calls
        )


@pytest.mark.parametrize("command", [INGEST, PULL], ids=["ingest", "pull"])
def test_c35_new_directories_are_durable_before_a_blob_is(tmp_path: Path, command: Command) -> None:
    """The parent of each directory from the root to the blobs is fsynced after its mkdir and before the rename."""
    root, calls = observed(command, tmp_path)
    first = commits(root, calls)[0][0]
    folder = f"{root}/content/blobs/sha256"
    while folder != str(root.parent):
        made, parent = position(calls, "mkdir", folder), os.path.dirname(folder)
        synced = position(calls, "fsync", parent, made)
        assert made < synced < first, folder
        folder = parent


def test_c35_the_name_comes_last(tmp_path: Path) -> None:
    """It is written when every blob is renamed and its directory fsynced, and the tree has its place."""
    root, calls = observed(PULL, tmp_path)
    database = f"{root}/meta.db"
    named = min(
        at
        for at, call in enumerate(calls)
        if call.name == "pwrite64" and database in call.paths and DEMO in call.text
    )
    for renamed, _, target in commits(root, calls):
        assert position(calls, "fsync", os.path.dirname(target), renamed) < named
    trees = [
        at for at, call in enumerate(calls) if call.name.startswith("rename") and "/committed/" in call.text
    ]
    assert len(trees) == 1
    assert trees[0] < named
    assert position(calls, "fdatasync", database, named) < len(calls)


def ended_at(command: Command, place: tuple[str, int], folder: Path, line: str) -> bool:
    """Killed at one call; then the store has nothing torn, and the same command does its work. False if the
    process was through before."""
    root = folder / "-".join(map(str, place))
    code = command.traced(root, *syscalls.killing(*place))
    assert code in (0, -9), f"{place}: it ended with {code}"
    assert {digest for digest, real in roots.blobs(root).items() if digest != real} == set(), place
    with Store.at(root) as store:
        assert list(store.check()) == [], place
        if store.find_image(DEMO) is not None:  # so all is
            config = Client(store=store).open(f"store:{DEMO}").config
            assert config is not None
            assert store.chain_of(config) is not None
    assert command.run(root).text == line, place
    with Store.at(root) as store:
        assert list(store.check()) == [], place
        assert store.gc(Scope(), everything=command is not INGEST).blobs == (), place
    assert roots.leftovers(root) == [], place
    return code == -9


def sampled(places: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """``count`` of them, spread over the whole."""
    step = len(places) / count
    choice = random.Random(34)
    return [places[int((at + choice.random()) * step)] for at in range(count)]


def every_place(command: Command, folder: Path) -> tuple[str, list[tuple[str, int]]]:
    """What the command prints, and each of its calls that may change the disk."""
    require("strace")
    root, log = folder / "whole", folder / "log"
    assert command.traced(root, log=log) == 0
    places = syscalls.places(syscalls.parse(log), root)
    assert len(places) > 60
    return command.run(root).text, places


@pytest.mark.parametrize(("command", "count"), [(INGEST, 14), (PULL, 10)], ids=["ingest", "pull"])
def test_c34_ended_at_calls_that_change_the_disk(tmp_path: Path, command: Command, count: int) -> None:
    """Blobs are absent or whole, a name has all that it stands for, and the same command run again succeeds."""
    line, places = every_place(command, tmp_path)
    killed = [ended_at(command, place, tmp_path, line) for place in sampled(places, count)]
    assert sum(killed) > len(killed) / 2


@pytest.mark.soak
@pytest.mark.parametrize("command", [INGEST, PULL], ids=["ingest", "pull"])
def test_c34_ended_at_every_call_that_changes_the_disk(tmp_path: Path, command: Command) -> None:
    """The same at each of them."""
    line, places = every_place(command, tmp_path)
    killed = [ended_at(command, place, tmp_path, line) for place in places]
    assert sum(killed) > len(killed) * 0.9


GC = Command(("gc", "--all"))


def collecting(folder: Path, count: int | None) -> None:
    """``gc`` over an image that was forgotten, ended at ``count`` of its calls (None: at each)."""
    require("strace")
    before, log = folder / "before", folder / "log"
    PULL.run(before)
    Program(folder / "home", before).ok("rmi", DEMO)
    whole = Path(shutil.copytree(before, folder / "whole", symlinks=True))
    assert GC.traced(whole, log=log) == 0
    places = syscalls.places(syscalls.parse(log), whole)
    chosen = places if count is None else sampled(places, count)
    killed = 0
    for place in chosen:
        root = Path(shutil.copytree(before, folder / "-".join(map(str, place)), symlinks=True))
        killed += GC.traced(root, *syscalls.killing(*place)) == -9
        assert {digest for digest, real in roots.blobs(root).items() if digest != real} == set(), place
        with Store.at(root) as store:
            assert list(store.check()) == [], place
        GC.run(root)
        assert (roots.blobs(root), roots.snapshots(root), roots.leftovers(root)) == ({}, [], []), place
        with Store.at(root) as store:
            assert store.leases.labeled("") == [], place
        shutil.rmtree(root)
    assert killed > len(chosen) / 2


def test_c34_a_collector_ended_at_calls_that_change_the_disk(tmp_path: Path) -> None:
    """What it had not removed yet the next one removes, and nothing is left of it: no lock, no label, no tree."""
    collecting(tmp_path, 8)


@pytest.mark.soak
def test_c34_a_collector_ended_at_every_call_that_changes_the_disk(tmp_path: Path) -> None:
    """The same at each of them."""
    collecting(tmp_path, None)
