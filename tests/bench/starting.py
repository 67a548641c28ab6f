"""How fast it starts, and what it does not load for that."""

from __future__ import annotations

import re
import subprocess

from tests.bench.measure import Contender, Track, plain
from tests.bench.report import Report
from tests.parts.processes import CHECKOUT, clean_environment

SLOW = ("ssl", "http.client", "tarfile", "logging")
NOTEBOOK = ("pandas", "IPython", "ipywidgets")
PEER = "import argparse, dataclasses, json, sqlite3"
BUDGET = 0.060  # seconds over a bare Python, for any command


def start(track: Track, report: Report, python: str, rounds: int) -> None:
    """``ocidist list`` on an empty store against the imports that a program of its kind needs."""
    rounds *= 5  # they are short
    report.begin("start", f"python -S -m ocidist list, empty store; medians of {rounds} rounds in turns")
    ours = Contender("ocidist list", plain([python, "-S", "-m", "ocidist", "list"]))
    peer = Contender("its imports", plain([python, "-S", "-c", PEER]))
    bare = Contender("python -S", plain([python, "-S", "-c", "pass"]))
    track.race([ours, peer, bare], rounds, every=0)
    report.contenders([ours, peer, bare])
    report.ratio(ours, peer)
    report.above(ours, bare, BUDGET)
    report.absent("it", loaded(track, python, "-m", "ocidist", "list"), SLOW)


def imports(track: Track, report: Report, python: str, rounds: int) -> None:
    """``import ocidist`` against nothing."""
    rounds *= 5
    report.begin("import", f"import ocidist; medians of {rounds} rounds in turns")
    ours = Contender("import ocidist", plain([python, "-S", "-c", "import ocidist"]))
    bare = Contender("python -S", plain([python, "-S", "-c", "pass"]))
    track.race([ours, bare], rounds, every=0)
    report.contenders([ours, bare])
    report.ratio(ours, bare)
    report.absent("it", loaded(track, python, "-c", "import ocidist"), (*SLOW, *NOTEBOOK))


def loaded(track: Track, python: str, *arguments: str) -> set[str]:
    """The modules that a run imports, as ``-X importtime`` tells."""
    done = subprocess.run(
        [python, "-S", "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(track.home, {"OCIDIST_ROOT": str(track.folder / "root")}),
        cwd=CHECKOUT,
    )
    found = set(re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s*(\S+)$", done.stderr, re.MULTILINE))
    assert any(name.partition(".")[0] == "ocidist" for name in found), "importtime told nothing"
    return found
