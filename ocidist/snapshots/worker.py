"""A process that extracts one layer into an empty directory, and reports in lines of JSON.

Started by ``parallel`` with the blob's descriptor as standard input. It ends by itself when nobody reads what it
reports any more; until then it holds the claim on the snapshot, whose descriptor it inherits.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ocidist.errors import OcidistError
from ocidist.layers.apart import Apart
from ocidist.layers.apply import apply_layer
from ocidist.layers.policy import Merged, Policy
from ocidist.scope import Scope

__all__ = ["main"]

_STEP = 1 << 20  # bytes of a blob between two reports


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
    """As ``sys.argv`` says: the directory, the layer's name, its size, and whether it is the lowest."""
    root, layer, size, lowest = sys.argv[1:]
    privileged = Policy.of_process().privileged
    apart = Apart(privileged)
    try:
        result = apply_layer(
            _Blob(),
            Path(root),
            Scope(),
            layer=layer,
            policy=Policy(privileged, Merged() if int(lowest) else apart),
            progress=_Report(int(size)),
        )
    except OcidistError as error:
        _say({"error": str(error)})
        return
    _say(
        {
            "diff_id": str(result.diff_id),
            "marks": [[os.fsdecode(mark.parent), os.fsdecode(mark.name)] for mark in apart.marks],
            "implied": [os.fsdecode(path) for path in apart.implied],
        }
    )
