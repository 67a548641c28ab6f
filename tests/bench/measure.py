"""Contenders that take turns, and what each took."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.processes import CHECKOUT, clean_environment

LAUNCHER = Path(__file__).with_name("launch.py")
EVERY = 0.02  # seconds between looks at the memory of a tree of processes


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds of wall clock and of user + system time, and the peak of memory in bytes.

    The peak is the largest process's (``ru_maxrss``), or the sum over the tree of processes as sampled, if larger.
    """

    wall: float
    cpu: float
    peak: int


@dataclass
class Run:
    """Commands to measure, one after the other, and daemons that work for them."""

    commands: Sequence[Sequence[str]]
    watch: Sequence[int] = ()


@dataclass
class Contender:
    """``prepare`` makes a clean state, gives what to run in it, and tidies up after it, all of it unmeasured."""

    name: str
    prepare: Callable[[], AbstractContextManager[Run]]
    costs: list[Cost] = field(default_factory=list)

    @property
    def wall(self) -> float:
        """Median seconds."""
        return statistics.median(cost.wall for cost in self.costs)

    @property
    def cpu(self) -> float:
        """Median CPU seconds."""
        return statistics.median(cost.cpu for cost in self.costs)

    @property
    def peak(self) -> int:
        """The largest peak of all rounds, in bytes."""
        return max(cost.peak for cost in self.costs)


class Failed(Exception):
    """A contender did not do its work."""


def plain(*commands: Sequence[str]) -> Callable[[], AbstractContextManager[Run]]:
    """A ``prepare`` for commands that need nothing made and leave nothing behind."""

    @contextlib.contextmanager
    def prepare() -> Iterator[Run]:
        yield Run(commands)

    return prepare


class Track:
    """Where contenders run: one folder on tmpfs, with a home and a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self._number = 0

    def fresh(self, name: str) -> Path:
        """A path that nothing has used yet."""
        self._number += 1
        return self.folder / f"{name}-{self._number}"

    def once(self, contender: Contender, every: float = EVERY) -> Cost:
        """Run it once and keep nothing but the cost. Raises Failed."""
        with contender.prepare() as run:
            asked = {
                "commands": [list(map(str, command)) for command in run.commands],
                "every": every,
                "watch": list(run.watch),
                "log": str(self.folder / "log"),
            }
            # The environment has no PYTHONDONTWRITEBYTECODE: what is measured has its caches, and warm.
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(LAUNCHER)],
                input=json.dumps(asked),
                capture_output=True,
                text=True,
                env=clean_environment(self.home, {"OCIDIST_ROOT": str(self.folder / "root")}),
                cwd=CHECKOUT,
            )
        if done.returncode:
            raise Failed(f"{contender.name}: {done.stderr.strip().rpartition(chr(10))[2]}")
        return Cost(**json.loads(done.stdout))

    def race(self, contenders: Sequence[Contender], rounds: int, every: float = EVERY) -> None:
        """A round to warm up, then ``rounds`` that count, in turns."""
        for number in range(rounds + 1):
            for contender in contenders:
                cost = self.once(contender, every)
                if number:
                    contender.costs.append(cost)


def remove(path: Path) -> None:
    """Remove a tree that another program made."""
    subprocess.run(["rm", "-rf", "--", str(path)], check=True)
