"""What runs inside the interpreter, started by ``run.mjs``: the pull of the demo, or pytest."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Sequence

from tests.parts.required import missing

LACKS = ("threads", "processes", "sockets")


def main(command: Sequence[str]) -> int:
    """``pull EXPECTED_FILE`` or ``pytest ARGUMENTS…``: 0 if all is well."""
    kind, *rest = command
    print(f"CPython {platform.python_version()} on {platform.system()} {platform.machine()}", flush=True)
    has = [part for part in LACKS if missing(part) is None]
    if has:  # then this run would show less than it says
        print(f"a system without {', '.join(has)} was expected")
        return 1
    return pull(Path(rest[0])) if kind == "pull" else tests(rest)


def pull(expected: Path) -> int:
    """The demo by the command line's own main, compared with what the same commands left on the host."""
    from tests.pyodide.demo import pulled

    here = pulled(Path("/tmp/root"))
    if here == expected.read_text():
        name, digest, chain = here.splitlines()[0].split()
        print(f"{name} {digest}\nunpacked to {chain}, {len(here.splitlines())} lines the same as on the host")
        return 0
    there = expected.read_text().splitlines()
    for line in sorted(set(here.splitlines()) ^ set(there)):
        print(f"only {'on the host' if line in there else 'here'}: {line}")
    return 1


def tests(arguments: Sequence[str]) -> int:
    """pytest's exit code."""
    import pytest

    sys.stdin = open(os.devnull)  # noqa: SIM115 - open until the interpreter ends
    return int(pytest.main([*arguments]))
