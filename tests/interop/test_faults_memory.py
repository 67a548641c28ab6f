"""What answers without an end, and large layers under faults, cost of memory: a few MiB each."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.parts.faulty import FaultyRegistry
from tests.parts.images import Entry, image, noise
from tests.parts.processes import CHECKOUT, clean_environment
from tests.parts.required import require

PULLS = """
import json, sys
from ocidist.client import Client
from ocidist.errors import OcidistError, TransferError

def peak():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

client = Client(store=sys.argv[1], plain_http=True, auth=("user", "password"), platform="linux/amd64")
grown = []
for ref in sys.argv[2:]:
    before = peak()
    try:
        client.pull(ref)
        ended = "whole"
    except OcidistError as error:
        ended = type(error.__cause__ if isinstance(error, TransferError) else error).__name__
    grown.append([ended, peak() - before])
print(json.dumps(grown))
"""
SIZE = 40_000_000
# The first loads what a pull takes of code; the layer's buffers come with the second.
FAULTS = {
    "": "whole",
    "endless-body;on=token;times=always": "TransportError",
    "endless-interim;on=resolve;times=always": "TransportError",
    "endless-headers;on=config;times=always": "TransportError",
    "endless-body;on=resolve;times=always": "TransportError",
    "endless-body;on=config;times=always": "SizeMismatch",
    "endless-body;on=layer;times=always": "SizeMismatch",
    "truncate@15000000;on=layer ignore-range;on=resume": "whole",
}
ALLOWED = 12 << 20  # a manifest's limit is 4 MiB, held twice for a moment; a layer's blocks are 1 MiB


def test_a17_memory_does_not_grow_with_what_comes(tmp_path: Path) -> None:
    """A layer of 40 MB, broken off and sent whole again, and answers that never end."""
    require("kernel")
    large = image([[Entry("large", noise(SIZE))]], compress=False)
    with ExitStack() as stack:
        refs = []
        for spec in FAULTS:
            made = large if "layer" in spec else image([[Entry("small", noise(3_000_000, spec))]])
            registry = FaultyRegistry({"1": made}, spec, tokens="token" in spec)
            refs.append(f"{stack.enter_context(registry).name}:1")
        done = subprocess.run(
            [sys.executable, "-c", PULLS, str(tmp_path / "root"), *refs],
            env=clean_environment(tmp_path / "home"),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [ended for ended, _ in found] == list(FAULTS.values())
    assert [grown for _, grown in found[1:] if grown > ALLOWED] == []
