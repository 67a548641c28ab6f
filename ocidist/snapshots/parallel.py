"""Layers extracted in processes of their own, while their order is kept by who started them.

Python writes files on one core only, whatever the number of threads. A process for each layer, as many at a time as
there are cores, and four at most: each takes about 30 MiB.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Sequence

from ocidist.errors import LimitExceeded
from ocidist.scope import Scope
from ocidist.snapshots.apart import Marks
from ocidist.snapshots.protocols import Claim
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

__all__ = ["SMALL", "Worker", "Workers", "worthwhile"]

MOST = 4
SMALL = 1 << 20  # bytes of compressed layers that are extracted before a process has started
_POLL = 0.02
_START = "import sys; sys.path += {path!r}; from ocidist.snapshots.worker import main; main()"
_PACKAGE = str(Path(os.path.abspath(__file__)).parents[2])  # a directory, or the single file that all is in


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worthwhile(layers: Sequence[Descriptor]) -> bool:
    """Return whether several processes would be faster, and can be started here."""
    if sys.platform in ("emscripten", "wasi") or not hasattr(os, "O_DIRECTORY"):
        return False
    if not os.path.isabs(sys.executable or ""):
        return False
    large = [layer for layer in layers if layer.size > SMALL]
    return len(large) > 1 and cores() > 1


def places() -> list[str]:
    """Return the import path of a worker, besides Python's own: this package, and installed packages.

    No other entry of ``sys.path`` is taken: in a notebook or with ``python -m`` the working directory is one, and that
    may be an image's tree.
    """
    installed = {*site.getsitepackages(), site.USER_SITE if site.ENABLE_USER_SITE else None}
    return [_PACKAGE, *(place for place in sys.path if place in installed)]


class Worker:
    """A process that extracts one layer. ``failed`` is its error where it could not."""

    def __init__(self, layer: Descriptor, root: Path, report: Callable[[int], object]) -> None:
        self.layer, self.root = layer, root
        self.failed: str | None = None
        self.diff_id: Digest | None = None
        self.marks = Marks()
        self.entries = self.size = 0  # entries, and bytes of plain tar
        self.limit: LimitExceeded | None = None
        self._report = report
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def start(self, blob: int, lowest: bool, before: int, scope: Scope, held: Sequence[int]) -> None:
        """Start the process. Raises OSError where none can be started, and the scope's end."""
        code = _START.format(path=places())
        asked = {
            "root": os.path.abspath(self.root),
            "layer": str(self.layer.digest),
            "size": self.layer.size,
            "lowest": lowest,
            "before": before,
            "seconds": scope.remaining(),
            "limits": None if scope.limits is None else asdict(scope.limits),
            "parent": os.getpid(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, json.dumps(asked)],
            stdin=blob,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=held,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the process that waits
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def running(self) -> bool:
        return self._process is not None

    def look(self) -> bool:
        """Read its reports; return whether it has ended. Raises LimitExceeded where it reports that."""
        if self._process is None:
            return True
        assert self._process.stdout is not None
        while True:
            try:
                data = os.read(self._process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return False
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._heard(json.loads(line))
        self.end()
        if self.limit is not None:
            raise self.limit
        if self.diff_id is None and self.failed is None:
            self.failed = "its process ended"
        return True

    def _heard(self, said: dict[str, Any]) -> None:
        if "done" in said:
            self._report(said["done"])
        elif "error" in said:
            self.failed = said["error"]
        elif "limit" in said:
            self.limit = LimitExceeded(*said["limit"])
        elif "marks" in said:
            kind, paths = said["marks"]
            vars(self.marks)[kind].update((os.fsencode(path), None) for path in paths)
        else:
            self.diff_id = Digest(said["diff_id"])
            self.entries, self.size = said["entries"], said["bytes"]

    def end(self) -> None:
        """Kill it if it still runs. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class Workers:
    """Extract ``layers``, at most as many at a time as there are cores; ``useful`` where that is faster than without.
    ``claims`` are held by them too."""

    def __init__(
        self,
        scope: Scope,
        tick: Callable[[], object],
        layers: Sequence[Descriptor],
        claims: Sequence[Claim],
    ) -> None:
        self._scope, self._tick, self._claims = scope, tick, claims
        self._most = min(cores(), MOST)
        self._running: list[Worker] = []
        self.useful = worthwhile(layers)

    def suits(self, layer: Descriptor, diff_id: Digest) -> bool:
        """Return whether a worker would be faster for this layer, and can tell its DiffID."""
        return self.useful and layer.size > SMALL and diff_id.algorithm == "sha256"

    def start(
        self,
        layer: Descriptor,
        place: Path,
        report: Callable[[int], object],
        blob: int,
        lowest: bool,
        before: int,
    ) -> Worker:
        """Wait until another worker may start, and start it. Raises OSError where none can be, and the scope's end."""
        while len(self._running) >= self._most:
            self._wait()
        worker = Worker(layer, place, report)
        worker.start(blob, lowest, before, self._scope, [claim.fileno() for claim in self._claims])
        self._running.append(worker)
        return worker

    def finish(self, worker: Worker) -> None:
        """Wait until ``worker`` has ended."""
        while worker.running:
            self._wait()

    def _wait(self) -> None:
        self._scope.check()
        self._tick()
        before = len(self._running)
        self._running = [worker for worker in self._running if not worker.look()]
        if len(self._running) == before:
            self._scope.sleep(_POLL)

    def end(self) -> None:
        """End all of them."""
        for worker in self._running:
            worker.end()
        self._running.clear()
