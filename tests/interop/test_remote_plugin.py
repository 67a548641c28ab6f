"""A remote that another package brings: built as a wheel, installed on its own, found by its entry point."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.registries import blobs_in
from tests.parts.images import layout_root, small_index, write_layout
from tests.parts.processes import CHECKOUT, Program
from tests.parts.required import require

SHELF = '''
"""shelf:FOLDER serves an OCI layout, as a package that knows ocidist's protocols alone would write it."""

import json
import os

from ocidist.content.verify import MemoryBody
from ocidist.errors import OcidistError
from ocidist.remotes.protocols import Remote
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest


def remote(locator, context):
    folder, _, name = locator.body.partition("#")
    return Remote(str(locator), name, source=Shelf(folder))


class Shelf:
    host = ""

    def __init__(self, folder):
        self.folder = folder

    def origin(self, target):
        return None

    def resolve(self, name, scope, *, need_bytes=False, hint=None):
        with open(os.path.join(self.folder, "index.json"), "rb") as file:
            entries = json.load(file)["manifests"]
        for entry in entries:
            if name in ("", entry["digest"], entry["annotations"]["org.opencontainers.image.ref.name"]):
                return Descriptor(entry["mediaType"], Digest(entry["digest"]), entry["size"]), None
        raise OcidistError(f"{self.folder} has no {name}")

    def open(self, target, scope, *, offset=0, length=None):
        path = os.path.join(self.folder, "blobs", str(target.digest).replace(":", "/"))
        with open(path, "rb") as file:
            raw = file.read()
        return MemoryBody(raw, offset, None if length is None else offset + length)

'''
METADATA = "Metadata-Version: 2.1\nName: ocidist-shelf\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
ENTRY_POINTS = """[ocidist.remotes]
shelf = ocidist_shelf:remote
torn = ocidist_shelf_that_is_not_there:Remote
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Program:
    """The program, with the package beside it on PYTHONPATH."""
    require("module:pip")
    wheel = tmp_path / "ocidist_shelf-1.0-py3-none-any.whl"
    info = "ocidist_shelf-1.0.dist-info"
    files = {
        "ocidist_shelf.py": SHELF,
        f"{info}/METADATA": METADATA,
        f"{info}/WHEEL": WHEEL,
        f"{info}/entry_points.txt": ENTRY_POINTS,
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return Program(
        tmp_path / "home",
        tmp_path / "root",
        options=("--platform", "linux/arm64"),
        environment={"PYTHONPATH": f"{target}:{CHECKOUT}"},
        cwd=tmp_path,
    )


def test_an_image_is_pulled_from_a_kind_that_another_package_brings(tmp_path: Path, shelf: Program) -> None:
    """pull, fetch, resolve, inspect, manifest and fetch-object of shelf:, with every check that a registry gets."""
    made = small_index()
    layout = write_layout(tmp_path / "layout", {"1": made, "2": small_index("b")})
    ref = f"shelf:{layout}#1"
    name, digest, chain = shelf.ok("pull", ref).text.split()
    assert (name, digest) == (ref, made.digest)
    child = made.children[1]
    expected = {d: b.raw for d, b in {**child.everything(), made.digest: made.root}.items()}
    assert blobs_in(tmp_path / "root/content") == expected
    assert shelf.ok("images", "-q").lines == [ref]
    assert shelf.ok("rootfs", "unpack", str(child.digest)).lines == [chain]
    assert shelf.ok("resolve", ref).text.split()[2] == child.digest
    assert chain in shelf.ok("inspect", ref).text
    assert shelf.ok("manifest", "--platform", "linux/arm/v7", ref).stdout == made.children[2].root.raw
    second = str(layout_root(layout, "2")["digest"])
    assert shelf.ok("fetch", f"shelf:{layout}", "2").text.split() == [f"shelf:{layout}:2", second]
    assert shelf.ok("fetch-object", f"shelf:{layout}", "1").stdout == made.root.raw
    assert shelf.ok("images", "-q", ref, "not-here").lines == [ref]
    assert shelf.ok("rmi", ref).lines == [ref]
    assert shelf.ok("pull", "shelf:layout#1").text.split()[:2] == ["shelf:layout#1", digest]
    assert shelf.ok("images", "-q").lines == ["shelf:layout#1"], "not docker.io/library/shelf"

    layer = child.blobs[1]
    path = layout / "blobs" / layer.digest.replace(":", "/")
    path.write_bytes(layer.raw[:-1] + b"\1")
    line = replace(shelf, root=tmp_path / "other").fails("pull", ref)
    assert layer.digest in line


def test_a_plugged_remote_that_is_broken_or_absent_is_one_line(tmp_path: Path, shelf: Program) -> None:
    """An entry point that can't be loaded is named; without the package the kind is unknown; nothing else changes."""
    line = shelf.fails("pull", "torn://something")
    assert "torn" in line
    assert "ocidist_shelf_that_is_not_there" in line
    assert "no-such-tag" in shelf.fails("pull", f"shelf:{write_layout(tmp_path / 'l', {})}#no-such-tag")
    without = Program(tmp_path / "home", tmp_path / "root")
    assert "shelf" in without.fails("pull", "shelf://somewhere", code=2)
    assert shelf.ok("list").lines[1:] == []
