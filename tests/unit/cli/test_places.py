"""Odd places to work in: a working directory that was removed, paths that are no Unicode, trees that change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocidist.cli.main import main
from ocidist.stores.store import Store
from ocidist.trees import directory as reading
from tests.parts.required import require


@pytest.mark.parametrize(
    "words",
    [
        ["--root", "root", "images"],
        ["--root", "root", "gc"],
        ["--cassette", "x.json", "resolve", "registry.example/demo/shop:1.0"],
        ["rootfs", "diff", "tree"],
        ["rootfs", "prepare", "", "target"],
        ["rootfs", "rm", "target"],
    ],
)
def test_a_working_directory_that_was_removed_is_told(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs it ends in a line; what has whole paths works."""
    require("kernel")
    (tmp_path / "gone").mkdir()
    root = [] if words[0] == "--root" else ["--root", str(tmp_path / "root")]
    before = os.getcwd()
    os.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
        assert main([*root, *words]) == 1
        assert "the working directory was removed" in capsys.readouterr().err
        assert main(["--root", str(tmp_path / "root"), "images"]) == 0
    finally:
        os.chdir(before)


def test_paths_are_printed_to_the_byte(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A shell reads them: ``sh -c "$(ocidist rootfs prepare …)"``."""
    require("kernel")
    root = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xc3")
    try:
        os.mkdir(root)
    except OSError:
        pytest.skip("file names are Unicode here")
    with Store.at(root) as store:
        with store.ingest("key") as into:
            into.write(b"x")
            digest = into.commit(0, None)
        place = os.fsencode(store.content.path(digest))
    assert main(["--root", root, "path", digest]) == 0
    assert capfdbinary.readouterr().out == digest.encode() + b" " + place + b"\n"
    assert main(["--root", root, "rootfs", "prepare", "", str(tmp_path / "target")]) == 0
    printed = capfdbinary.readouterr().out
    assert os.fsencode(root) in printed
    source = printed.split(b"'")[1]
    assert os.path.isdir(source)


@pytest.mark.parametrize("words", [["rootfs", "diff"], ["rootfs", "diff", "-o", "layer"]])
def test_a_directory_that_vanishes_is_told_by_its_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error of the system names a descriptor."""
    (tmp_path / "tree" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def gone(at: int) -> None:
        raise FileNotFoundError(2, "No such file or directory", at)

    monkeypatch.setattr(reading.os, "scandir", gone)
    assert main(["--root", str(tmp_path / "root"), *words, str(tmp_path / "tree")]) == 1
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert said.endswith(": No such file or directory\n")
    assert "tree: " in said
