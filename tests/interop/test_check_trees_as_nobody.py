"""``check --trees`` by an ordinary user, in a process of that user's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ocidist.scope import Scope
from ocidist.stores.store import Store
from ocidist.stores.upkeep.check import check
from tests.parts.processes import CHECKOUT
from tests.parts.required import program, require


def test_as_an_ordinary_user() -> None:
    """Owners that are only written beside the files are compared too."""
    require("root", "setpriv")
    work = Path(tempfile.mkdtemp(prefix="ocidist-trees-"))
    try:
        os.chmod(work, 0o755)
        (work / "home").mkdir()
        os.chown(work / "home", 65534, 65534)

        def python(*words: str) -> subprocess.CompletedProcess[str]:
            start = [program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
            command = [*start, sys.executable, "-B", *words]
            environment = {
                "HOME": str(work / "home"),
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(CHECKOUT),
            }
            return subprocess.run(
                command, capture_output=True, text=True, timeout=100, env=environment, cwd=work
            )

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            return python("-m", "ocidist", "--root", str(work / "home/root"), *words)

        for kind in ("native", "overlay"):
            shutil.rmtree(work / "home/root", ignore_errors=True)
            begin = "from tests.interop.test_check_trees import MADE, Store, put"
            made = python(
                "-c", f"{begin}; put(Store.at({str(work / 'home/root')!r}, snapshotter={kind!r}), MADE)"
            )
            assert made.returncode == 0, made.stderr
            fine = run("check", "--trees")
            assert (fine.returncode, fine.stdout.count("tree")) == (0, 0), fine.stderr
            [owned] = (work / "home/root/snapshots").glob("*/committed/*/fs/etc/owned")
            os.setxattr(owned, "user.rootlesscontainers", b"\x08\x09\x10\x08")
            found = run("--format", "json", "check", "--trees")
            assert found.returncode == 1, found.stderr
            assert [row["problem"] for row in json.loads(found.stdout)] == [
                "/etc/owned: owner 9:8, should be 7:8"
            ]
            again = run("check", "--trees", "--repair")
            assert again.returncode == 0, again.stderr
            assert run("check", "--trees").returncode == 0
        # Another user's trees are not compared with what this one would make of them, and that is said.
        mine = check(Store.at(work / "home/root"), Scope(), trees=True)
        assert mine.trees == 0
        assert "user 65534 unpacked it" in mine.skipped[0][1]
    finally:
        shutil.rmtree(work)
