"""The parts that need no server: trees compared, processes started, and what a missing part does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.required import require


def test_trees_show_every_kind_of_difference(tmp_path: Path) -> None:
    """Equal trees give nothing; each field that differs gives its own line."""
    from tests.parts.trees import differences, snapshot

    for name in ("one", "two"):
        tree = tmp_path / name
        (tree / "d").mkdir(parents=True)
        (tree / "d/f").write_text("same")
        os.link(tree / "d/f", tree / "hard")
        os.symlink("d/f", tree / "link")
        os.mkfifo(tree / "pipe")
        for path in ("d/f", "link", "pipe", "d", "."):
            os.utime(tree / path, (1, 1), follow_symlinks=False)
    one, two = tmp_path / "one", tmp_path / "two"
    assert differences(snapshot(one), snapshot(two)) == []
    (two / "hard").unlink()
    (two / "hard").write_text("sane")
    (two / "d/f").chmod(0o4755)
    (two / "link").unlink()
    os.symlink("d/g", two / "link")
    (two / "pipe").unlink()
    (two / "pipe").mkdir()
    (two / "extra").touch()
    lines = differences(snapshot(one), snapshot(two), ignore=["mtime_ns", "uid", "gid"])
    assert {line.partition(" is ")[0] for line in lines} >= {
        "'d/f': mode",
        "'d/f': hardlinks",
        "'hard': sha256",
        "'link': target",
        "'pipe': type",
        "'extra': only right",
    }
    assert "'d/f': mode is 644 left, 4755 right" in lines


def test_programs_start_without_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of Program sees its own HOME and none of this one's PYTHON, OCIDIST or proxy variables."""
    from tests.parts.processes import Program

    for name in ("PYTHONPATH", "OCIDIST_ROOT", "HTTPS_PROXY", "XDG_DATA_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, "/leak")
    show = "import os, sys, json; print(json.dumps(dict(os.environ))); print(sys.argv[1:], file=sys.stderr)"
    started = Program(
        tmp_path / "home", tmp_path / "root", start_with=("-c", show), environment={"MORE": "1"}
    )
    done = started.ok("list")
    seen = json.loads(done.stdout)
    assert "/leak" not in seen.values()
    assert seen["HOME"] == str(tmp_path / "home")
    assert seen["MORE"] == "1"
    assert str(["--root", str(tmp_path / "root"), "list"]) in done.stderr
    failing = Program(tmp_path / "home", start_with=("-c", "import sys; sys.exit('no such thing')"))
    assert failing.fails() == "no such thing"
    with pytest.raises(AssertionError, match="no such thing"):
        failing.ok()


def test_every_python_found_is_of_its_version() -> None:
    """The interpreters found run, and are what they are called."""
    from tests.parts.processes import pythons

    found = pythons()
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in found
    for version, path in found.items():
        done = subprocess.run([path, "-S", "-V"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"Python {version}.")


REQUIRING = """
import pytest
from tests.parts.required import MISSING, require

def test_asks(): require("ROOM")
def test_skips_by_hand(): pytest.skip(MISSING + "made up")
@pytest.mark.skipif(True, reason=MISSING + "by mark")
def test_marked(): pass
def test_skips_for_another_reason(): pytest.skip("not today")
@pytest.fixture
def lacking(): require("ROOM")
def test_in_a_fixture(lacking): pass
def test_runs(): require("git")
"""


def _pytest_on(tmp_path: Path, source: str, **environment: str) -> str:
    from tests.parts.processes import CHECKOUT

    file = tmp_path / "test_requiring.py"
    file.write_text(source)
    kept = {name: value for name, value in os.environ.items() if name != "OCIDIST_REQUIRE"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.parts.required", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(tmp_path), str(file)],
        cwd=CHECKOUT,
        env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_a_missing_part_skips_and_fails_if_all_are_required(tmp_path: Path) -> None:
    """Without OCIDIST_REQUIRE a missing part is a skip; with it a failure wherever the skip came from."""
    require("git")
    source = REQUIRING.replace("ROOM", "module:no_such_module_anywhere")
    assert "1 passed, 5 skipped" in _pytest_on(tmp_path, source)
    output = _pytest_on(tmp_path, source, OCIDIST_REQUIRE="all")
    assert "1 passed" in output
    assert "1 skipped" in output, output
    assert output.count("not installed") >= 2
    assert "missing part: made up" in output
    assert "missing part: by mark" in output
    module = "import pytest\npytest.skip('missing part: whole', allow_module_level=True)\n"
    assert "1 skipped" in _pytest_on(tmp_path, module)
    assert "1 error" in _pytest_on(tmp_path, module, OCIDIST_REQUIRE="all")


def test_an_unknown_part_is_an_error_not_a_skip() -> None:
    """A misspelt part must not hide a test for ever."""
    with pytest.raises(LookupError, match="skopoe"):
        require("skopoe")
