"""The packages: wheel, sdist and the single file, built from the checkout and run where nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.parts.processes import CHECKOUT, Program, pythons
from tests.parts.required import require

DEMO = "registry.example/demo/shop:1.0"
FOLDERS = ("ocidist", "tests", "cassettes", "notebooks", ".ci")
SOURCES = (*FOLDERS, "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``wheel`` and ``sdist`` by ``python -m build``, ``pyz`` by ``.ci/pyz``, of a copy of the checkout."""
    require("module:build", "module:hatchling")
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(
                CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        else:
            shutil.copy2(CHECKOUT / name, source / name)
    # As the reader of the README does, sdist first and the wheel from it; the backend is the one that is installed.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    pyz = folder / "ocidist.pyz"
    subprocess.run([sys.executable, str(source / ".ci/pyz"), str(pyz)], check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist, "pyz": pyz}


def modules() -> set[str]:
    """Every file of the package as it stands in the checkout."""
    return {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "ocidist").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    """Every module, py.typed, the demo and the licence; no test, no requirement beyond the extras."""
    with zipfile.ZipFile(built["wheel"]) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
        points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert {name for name in names if ".dist-info/" not in name} == modules()
    assert "ocidist/py.typed" in names
    assert "ocidist/demo/demo.json" in names
    assert any(name.startswith("ocidist/demo/blobs/") for name in names)
    assert any("licenses/LICENSE" in name for name in names)
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist:")]
    assert [line for line in required if "extra ==" not in line] == []
    extras = {line.split(": ")[1] for line in text.splitlines() if line.startswith("Provides-Extra:")}
    assert extras >= {"notebook", "fast", "zstd", "containerd", "fsspec", "test"}
    assert "ocidist = ocidist.cli.main:console" in points
    assert built["wheel"].name.endswith("-py3-none-any.whl")


def test_the_sdist_holds_what_is_needed_to_build_and_test(built: dict[str, Path]) -> None:
    """The package, tests, cassettes, README and licence."""
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= modules()
    assert names >= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", ".ci/run"}
    assert any(name.startswith("tests/unit/") for name in names)
    assert any(name.startswith("cassettes/") for name in names)
    assert not any("__pycache__" in name for name in names)


def pulls_the_demo(program: Program, tmp_path: Path) -> None:
    """The demo from inside the package: pulled, listed, unpacked, without a network."""
    assert program.ok("--version").text.startswith("ocidist ")
    name, digest, chain = program.ok("--cassette", "demo", "pull", DEMO).text.split()
    assert name == DEMO
    assert digest.startswith("sha256:")
    assert program.ok("images", "-q").lines == [DEMO]
    assert len(program.ok("list", "-q").lines) > 3
    (tree,) = [
        path.parents[1] for path in (tmp_path / "root").rglob("etc/os-release") if chain[7:] in str(path)
    ]
    assert (tree / "etc/os-release").is_file()
    assert program.ok("--cassette", "demo", "inspect", DEMO, "--format", "json").text.startswith("{")


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory, built: dict[str, Path]) -> Path:
    """A new environment with the wheel and nothing but pip."""
    require("module:pip")
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-index", str(built["wheel"])], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("start", ["console script", "python -m"])
def test_the_wheel_runs_in_an_empty_environment(tmp_path: Path, empty_venv: Path, start: str) -> None:
    """Installed without an index, it pulls the demo; the console script and ``python -m`` are one program."""
    script = empty_venv / "bin/ocidist"
    program = Program(
        tmp_path / "home",
        tmp_path / "root",
        python=str(script if start == "console script" else empty_venv / "bin/python"),
        start_with=() if start == "console script" else ("-I", "-m", "ocidist"),
        cwd=tmp_path,
    )
    pulls_the_demo(program, tmp_path)
    show = [str(empty_venv / "bin/python"), "-I", "-c", "import ocidist; print(ocidist.__file__)"]
    where = subprocess.run(show, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert where.startswith(str(empty_venv))


@pytest.mark.parametrize("version", sorted(pythons(), key=lambda text: int(text.partition(".")[2])))
def test_the_single_file_runs_on_every_python(tmp_path: Path, built: dict[str, Path], version: str) -> None:
    """ocidist.pyz, alone, isolated and without site-packages."""
    pyz = tmp_path / "ocidist.pyz"
    pyz.write_bytes(built["pyz"].read_bytes())
    program = Program(
        tmp_path / "home",
        tmp_path / "root",
        python=pythons()[version],
        start_with=("-I", "-S", str(pyz)),
        cwd=tmp_path,
    )
    pulls_the_demo(program, tmp_path)


@pytest.mark.parametrize(
    ("version", "start"),
    [
        ("2.7", "single file"),
        *((version, start) for version in ("3.6", "3.8", "3.9") for start in ("single file", "python -m")),
    ],
)
def test_an_older_python_is_told_so(tmp_path: Path, built: dict[str, Path], version: str, start: str) -> None:
    """One sentence and exit 1; ``-m`` needs a Python that can read the package's first module, from 3.6 on."""
    found = next(iter((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python")), None)
    path = str(found) if found is not None else shutil.which(f"python{version}")
    if path is None:
        pytest.skip(f"no Python {version} here to be refused")
    show = "import sys; sys.stdout.write('%d.%d.%d' % sys.version_info[:3])"
    asked = subprocess.run([path, "-c", show], capture_output=True, text=True)
    if asked.returncode == 127:  # a pyenv shim of a version that is not active: no interpreter is behind it
        pytest.skip(f"no Python {version} here to be refused")
    assert asked.returncode == 0, asked.stderr
    exact = asked.stdout
    words = [str(built["pyz"])] if start == "single file" else ["-B", "-m", "ocidist"]
    done = subprocess.run(
        [path, *words, "list"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=CHECKOUT if start == "python -m" else tmp_path,
        capture_output=True,
        text=True,
    )
    said = f"ocidist needs Python 3.10 or later; this is {exact}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_the_single_file_is_its_own_program(tmp_path: Path, built: dict[str, Path]) -> None:
    """It has a first line for the kernel, may be executed, and holds the package alone."""
    with zipfile.ZipFile(built["pyz"]) as archive:
        assert set(filter(lambda name: not name.endswith("/"), archive.namelist())) == {
            *modules(),
            "__main__.py",
        }
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([built["pyz"], "--version"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ocidist ")
