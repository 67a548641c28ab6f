"""64 threads in 8 processes on one store, with pulls, deletes, gc, labels, and SIGKILL at random.

``OCIDIST_LOAD_SECONDS`` says how long the soak lasts (600), ``OCIDIST_LOAD_SEED`` which numbers it draws.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import pytest

from ocidist.scope import Scope
from ocidist.stores.store import Store
from tests.interop import roots
from tests.interop.load import Held, Journal
from tests.parts.processes import CHECKOUT, clean_environment
from tests.parts.required import require

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

PROCESSES = 8
REPOSITORIES = {
    "team/a": ("base", "x"),
    "team/b": ("base", "y"),
    "team/c": ("x", "y", "z"),
    "team/d": ("z", "base"),
}
PATIENCE = 300  # seconds in which a process that was told to end must have ended, on whatever machine
SEED = int(os.environ.get("OCIDIST_LOAD_SEED", "7"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProcess]:
    """With small images that share layers, and one for each process to keep."""
    require("docker-registry")
    from tests.parts.images import push_layout, write_layout
    from tests.parts.registry import RegistryProcess

    folder = tmp_path_factory.mktemp("load")
    with RegistryProcess(folder / "registry", front=False) as made:
        names = dict(REPOSITORIES) | {
            f"keep/{number}": ("base", f"own-{number}") for number in range(PROCESSES)
        }
        for name, seeds in names.items():
            image = roots.layered(*seeds, size=60_000, files=8)
            layout = write_layout(folder / name.replace("/", "-"), {"latest": image})
            push_layout(made.url, layout, name, "latest")
        yield made


@dataclass
class Load:
    """The processes, each of which is started again when it was killed."""

    root: Path
    folder: Path
    registry: str
    pause: float
    random: random.Random
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    kills: int = 0

    def journal(self, number: int) -> Path:
        return self.folder / f"journal-{number}"

    def start(self, number: int) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.interop.load",
            str(self.root),
            str(self.journal(number)),
            str(number),
        ]
        command += [str(self.random.randrange(1 << 30)), str(self.pause), self.registry, *REPOSITORIES]
        with (self.folder / f"stderr-{number}").open("ab") as errors:
            self.running[number] = subprocess.Popen(
                command,
                env=clean_environment(self.folder / "home"),
                cwd=CHECKOUT,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    def run(self, seconds: float) -> None:
        """All of them for that long, one killed every second or so."""
        for number in range(PROCESSES):
            self.start(number)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self.random.uniform(0.3, 1.7))
            number = self.random.randrange(PROCESSES)
            process = self.running[number]
            assert process.poll() is None, self.errors()
            process.kill()
            process.communicate()
            self.kills += 1
            self.start(number)

    def end(self) -> None:
        """Told to end, they do, and well."""
        for process in self.running.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self.running.values():
            assert process.wait(PATIENCE) == 0, self.errors()

    def stop(self) -> None:
        """Whatever still runs, on the way out of a failed test."""
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def errors(self) -> str:
        return "".join((self.folder / f"stderr-{number}").read_text()[-3000:] for number in range(PROCESSES))

    def told(self) -> tuple[Counter[str], dict[str, float], list[str]]:
        """How often each action was done, how long the longest took, and what failed."""
        done, longest, failed = Counter[str](), dict[str, float](), list[str]()
        for number in range(PROCESSES):
            for what, about, more in Journal.read(self.journal(number)):
                if what == "did":
                    done[about] += 1
                    longest[about] = max(longest.get(about, 0.0), float(more))
                elif what == "failed":
                    failed.append(f"{about}: {more}")
        return done, longest, failed


def under_load(folder: Path, registry: RegistryProcess, seconds: float, pause: float) -> None:
    """The load, and what must hold after it."""
    load = Load(folder / "root", folder, registry.address, pause, random.Random(SEED))
    try:
        load.run(seconds)
        load.end()
    finally:
        load.stop()
    done, longest, failed = load.told()
    print(json.dumps({"seed": SEED, "kills": load.kills, "done": done, "longest": longest}, indent=1))
    assert failed == []
    assert load.errors() == ""
    assert load.kills > 2
    assert {"pull", "keep", "collect", "collect_all", "ingest", "chain", "release", "delete", "label"} <= set(
        done
    )
    with Store.at(load.root) as store:
        for collect in (lambda: None, lambda: store.gc(Scope()), lambda: store.gc(Scope(), everything=True)):
            collect()
            assert list(store.check()) == []
            assert {digest for digest, real in roots.blobs(load.root).items() if digest != real} == set()
            for number in range(PROCESSES):
                Held.of(load.journal(number)).assert_there(store)
        held = [Held.of(load.journal(number)) for number in range(PROCESSES)]
        assert any(entry.names for entry in held)
        assert any(entry.blobs for entry in held)
        assert roots.leftovers(load.root) == []
        assert os.listdir(load.root / "leases") in ([], ["unnamed"])


def test_c37_c38_sixty_four_threads_with_kills(tmp_path: Path, registry: RegistryProcess) -> None:
    """Twenty seconds of it, with pauses: no blob lost that a name or a lease held, none torn, the check is clean."""
    under_load(tmp_path, registry, 20, pause=0.8)


@pytest.mark.soak
def test_c37_c38_ten_minutes_of_it(tmp_path: Path, registry: RegistryProcess) -> None:
    """The same without mercy."""
    under_load(tmp_path, registry, float(os.environ.get("OCIDIST_LOAD_SECONDS", "600")), pause=0.05)
