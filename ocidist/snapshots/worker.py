"""A process that extracts one layer into an empty directory, and reports in lines of JSON.

Started by ``parallel`` with the blob's descriptor as standard input. It ends by itself when its parent has ended; until
then it holds the claim on the snapshot, whose descriptor it inherits.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ocidist.errors import LimitExceeded, OcidistError
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.apply.layering import InPlace
from ocidist.layers.apply.policy import Policy
from ocidist.limits import Limits
from ocidist.scope import Scope
from ocidist.snapshots.apart import Apart

__all__ = ["main"]

_STEP = 1 << 20  # bytes of a blob between two reports
_TOGETHER = 500  # marks in one line
_MEMORY = 2 << 30  # of addresses; a million entries take about 100 MiB
_THREADS = 2  # one inflates, one writes


class _Blob:
    def readinto(self, buffer: memoryview) -> int:
        return os.readv(0, [buffer])


class _Report:
    def __init__(self, size: int) -> None:
        self._size, self._next = size, 0

    def __call__(self, done: int) -> None:
        if done >= self._next or done >= self._size:
            self._next = done + _STEP
            _say({"done": done})


def _say(what: dict[str, object]) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """As the one word of ``sys.argv``, JSON, says: ``root``, the ``layer``'s name and ``size``, whether it is the
    ``lowest``, how many entries there were ``before``, the ``seconds`` that are left, the ``limits``, and the ``parent``."""
    asked = json.loads(sys.argv[1])
    _bound(asked["seconds"])
    limits = None if asked["limits"] is None else Limits(**asked["limits"])
    privileged = Policy.of_process().privileged
    apart = Apart(privileged)
    parent = asked["parent"]

    def tick() -> None:
        if os.getppid() != parent:  # nobody waits for it any more
            os._exit(1)

    try:
        result = apply_layer(
            _Blob(),
            Path(asked["root"]),
            Scope.within(asked["seconds"], limits=limits),
            layer=asked["layer"],
            policy=Policy(privileged, InPlace() if asked["lowest"] else apart),
            progress=_Report(asked["size"]),
            tick=tick,
            before=asked["before"],
        )
    except LimitExceeded as error:
        _say({"limit": [error.what, error.reason, error.member]})
        return
    except MemoryError:
        _say({"limit": [asked["layer"], f"its entries need more than {_MEMORY} bytes of memory", ""]})
        return
    except OcidistError as error:
        _say({"error": str(error)})
        return
    for kind, noted in vars(apart.marks).items():
        paths = [os.fsdecode(real) for real in noted]
        for at in range(0, len(paths), _TOGETHER):
            _say({"marks": [kind, paths[at : at + _TOGETHER]]})
    _say({"diff_id": str(result.diff_id), "entries": result.entries + result.made, "bytes": result.size})


def _bound(seconds: float | None) -> None:
    """What no layer needs is refused by the kernel, also to code that a damaged layer might get to run here."""
    try:
        import resource
    except ImportError:  # another system
        return
    bounds = {resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":  # elsewhere what is reserved counts, or the bound is not kept
        bounds[resource.RLIMIT_AS] = _MEMORY
    if seconds is not None:
        bounds[resource.RLIMIT_CPU] = _THREADS * (int(seconds) + 1)
    for what, most in bounds.items():
        try:
            hard = resource.getrlimit(what)[1]
            if hard == resource.RLIM_INFINITY or hard > most:
                resource.setrlimit(what, (most, most))
        except (OSError, ValueError):
            continue
