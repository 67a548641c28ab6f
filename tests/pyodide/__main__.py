"""``python -m tests.pyodide [PYTEST ARGUMENT…]``: the core on CPython 3.14 in WebAssembly, under Node.

That interpreter has the whole standard library, but no threads, processes, sockets, hard links or devices. In it
run a replayed pull of the demo, which must leave what it leaves on the host, and the tests of unit, contracts and
recorded; those that start a thread, a process or a server themselves skip with the reason
(``tests/parts/absent.py``), and no more than a fifth may. The checkout is copied in, never mounted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Sequence

from tests.parts.processes import CHECKOUT, clean_environment

HERE = Path(__file__).resolve().parent
ROOMS = ("tests/unit", "tests/contracts", "tests/recorded")
TREE = ("ocidist", "tests", "cassettes", "pyproject.toml", "README.md")
PURE = ("--only-binary", ":all:", "--python-version", "3.14", "--implementation", "py", "--abi", "none")
STACK = 6000  # KiB of the 8192 that a process has; Node takes 984, and a test nests deeper
MOST_SKIPPED = 0.2


def main(arguments: Sequence[str]) -> int:
    """Set up, pull, test; the first exit code that isn't 0."""
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            print(f"{name} is not installed", file=sys.stderr)
            return 1
    kept = os.environ.get("OCIDIST_TEST_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(kept, "pyodide") if kept else Path(folder, "cache")
        with Stage("install"):
            runtime, site = install(cache)
        with Stage("pull on the host"):
            expected = Path(folder, "expected")
            expected.write_text(on_the_host(Path(folder)))
        tree = Path(folder, "tree.tar")
        pack(tree, site, expected)
        node = ["node", f"--stack-size={STACK}", str(HERE / "run.mjs"), str(runtime), str(tree)]
        with Stage("pull of the demo"):
            code = subprocess.run([*node, "pull", "/expected"], stdin=subprocess.DEVNULL).returncode
        if code != 0:
            return code
        with Stage("tests"):
            return tested([*node, "pytest", "-p", "no:cacheprovider", *(arguments or ["-q", *ROOMS])])


class Stage:
    """Prints how long its block took."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        print(f"-- {self.name}: {time.monotonic() - self.started:.0f} s", flush=True)


def install(cache: Path) -> tuple[Path, Path]:
    """The folder of the npm package, and one with pytest and hypothesis: pure wheels, made once."""
    cache.mkdir(parents=True, exist_ok=True)
    runtime, site = cache / "node_modules/pyodide", cache / "site"
    if not (runtime / "pyodide.mjs").exists():
        shutil.copy(HERE / "package.json", cache)
        npm = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*npm, "--loglevel=error"], check=True, stdin=subprocess.DEVNULL)
    if not (site / "pytest").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--target", str(site), *PURE, "--platform", "any", "pytest>=8", "hypothesis>=6.100"],
            check=True,
        )
    return runtime, site


def on_the_host(folder: Path) -> str:
    """What the pull of the demo leaves on this machine."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.pyodide.demo", str(folder / "root")],
        env=clean_environment(folder / "home"),
        cwd=CHECKOUT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def pack(tree: Path, site: Path, expected: Path) -> None:
    """One tar of the checkout's parts, the site folder and what the host printed."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        skip = ("__pycache__", "node_modules", ".so")
        return None if member.name.endswith(skip) else member

    with tarfile.open(tree, "w") as archive:
        for name in TREE:
            archive.add(CHECKOUT / name, f"checkout/{name}", filter=wanted)
        archive.add(site, "site", filter=wanted)
        archive.add(expected, "expected")


def tested(command: list[str]) -> int:
    """Run pytest inside, its output shown as it comes; 1 if too many tests skipped."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if " passed" in line or " failed" in line else last
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", last)}
    passed, skipped = counts.get("passed", 0), counts.get("skipped", 0)
    print(f"{passed} passed and {skipped} skipped on this system; exit code {process.returncode}")
    if process.returncode == 0 and skipped > MOST_SKIPPED * (passed + skipped):
        print(f"more than {MOST_SKIPPED:.0%} skipped: the run shows too little")
        return 1
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
