"""The program, started in a folder that others have filled: nothing in it is loaded or run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.processes import CHECKOUT, Program, clean_environment

DEMO = "registry.example/demo/shop:1.0"
TRAP = "import os\nwith open({marker!r}, 'a') as file:\n    file.write(__name__ + ' ')\n"
OPTIONAL = ("isal", "zlib_ng", "backports", "compression", "pandas", "ipywidgets", "certifi", "trap_remote")
INFO = "Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n"
POINTS = "[ocidist.remotes]\n" + "".join(
    f"{kind} = trap_remote:Remote\n" for kind in ("trap", "redis", "demo")
)


def _loaded_before() -> set[str]:
    """Modules that Python itself loads for ``-m``, before the first line of ours."""
    code = "import sys, runpy, importlib.util, pkgutil; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file for each module of Python's, for packages that help, and a package that brings remotes."""
    folder = tmp_path / "untrusted"
    folder.mkdir()
    trap = TRAP.format(marker=str(tmp_path / "ran"))
    for name in (sys.stdlib_module_names - _loaded_before()) | set(OPTIONAL):
        (folder / f"{name}.py").write_text(trap)
    info = folder / "trap-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(INFO)
    (info / "entry_points.txt").write_text(POINTS)
    return folder


def _ran(tmp_path: Path) -> str:
    marker = tmp_path / "ran"
    return marker.read_text() if marker.exists() else ""


def _python(folder: Path, home: Path, code: str) -> subprocess.CompletedProcess[str]:
    """``code`` in a process of its own, working in ``folder``, which is not in sys.path yet."""
    (home / "code.py").write_text(code)
    done = subprocess.run(
        [sys.executable, str(home / "code.py"), str(home), str(folder)],
        cwd=folder,
        env=clean_environment(home, {"PYTHONPATH": str(CHECKOUT)}),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done


def test_i79_python_m_in_an_untrusted_folder_loads_nothing_from_there(tmp_path: Path, folder: Path) -> None:
    """A pull, listings and doctor, with files named as Python's own modules around them."""
    program = Program(
        tmp_path / "home",
        tmp_path / "root",
        options=("--cassette", "demo"),
        environment={"PYTHONPATH": str(CHECKOUT)},
        cwd=folder,
    )
    for words in (("--version",), ("pull", DEMO), ("images",), ("list", "--format", "csv"), ("doctor",)):
        program.run(*words)
        assert _ran(tmp_path) == "", words
    assert DEMO in program.ok("images", "-q").text


def test_i79_a_package_in_the_working_directory_brings_no_remote(tmp_path: Path, folder: Path) -> None:
    """Neither for a kind of its own nor for a short name; also where the folder is in sys.path, as in a notebook."""
    for trap in folder.glob("*.py"):
        if trap.stem != "trap_remote":
            trap.unlink()
    code = (
        "import sys; sys.path[:0] = ['', sys.argv[2]]\n"
        "from ocidist.remotes import Locator\n"
        "print(Locator.parse('redis:7').kind, Locator.parse('redis:7#x').kind, Locator.parse('demo:/a').kind)\n"
    )
    done = _python(folder, tmp_path, code)
    assert done.stdout.split() == ["registry"] * 3
    assert _ran(tmp_path) == ""


def test_i79_doctor_in_a_notebook_loads_no_package_from_the_working_directory(
    tmp_path: Path, folder: Path
) -> None:
    """Whether ``compression.zstd`` is here is found out without running a ``compression`` that lies around."""
    (folder / "compression.py").unlink()
    package = folder / "compression"
    package.mkdir()
    (package / "__init__.py").write_text(TRAP.format(marker=str(tmp_path / "ran")))
    code = (
        "import sys, ocidist.diagnosis.machine as machine; sys.path.insert(0, '')\n"
        "print(machine._importable('compression.zstd'))\n"
    )
    done = _python(folder, tmp_path, code)
    assert done.stdout == "False\n"
    assert _ran(tmp_path) == ""
