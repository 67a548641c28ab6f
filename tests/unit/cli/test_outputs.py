"""A file that a command writes (``-o``), in a folder that others may write to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli import outputs
from ocidist.cli.main import main
from tests.parts.required import require


def layer(tmp_path: Path, target: Path) -> int:
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir(exist_ok=True)
    words = ["rootfs", "diff", "-o", str(target), str(tmp_path / "lower"), str(tmp_path / "upper")]
    return main(["--root", str(tmp_path / "root"), *words])


def test_i73_what_another_users_link_leads_to_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In /tmp anybody can lay one where a file is going to be."""
    require("os:symlink", "os:geteuid")
    if os.geteuid() != 0:
        pytest.skip("only root can give a link to another user")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name, target in (("near", victim), ("far", tmp_path / "near")):
        (tmp_path / name).symlink_to(target)
    os.lchown(tmp_path / "near", 65534, 65534)
    for name in ("near", "far"):
        assert layer(tmp_path, tmp_path / name) == 1
        assert "another user's symbolic link" in capsys.readouterr().err
        assert victim.read_bytes() == b"precious"


def test_ones_own_links_are_followed(tmp_path: Path) -> None:
    """Also where they lead to each other, and to what is not there yet."""
    require("os:symlink")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "layer")
    for _ in range(2):
        assert layer(tmp_path, tmp_path / "a") == 0
        assert (tmp_path / "a").is_symlink()
        assert (tmp_path / "layer").read_bytes()[:2] == b"\x1f\x8b"
        (tmp_path / "layer").write_bytes(b"old")


def test_i73_a_file_that_takes_the_place_of_a_fifo_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner exchanges it for a link between our look and the opening."""
    require("os:symlink", "os:mkfifo")
    victim, place = tmp_path / "victim", tmp_path / "place"
    victim.write_bytes(b"precious")
    os.mkfifo(place)
    look = os.stat

    def looked(path: Any, *args: Any, **how: Any) -> os.stat_result:
        found = look(path, *args, **how)
        if path == str(place) and place.is_fifo():
            place.unlink()
            place.symlink_to(victim)
        return found

    monkeypatch.setattr(outputs.os, "stat", looked)
    assert layer(tmp_path, place) == 1
    assert victim.read_bytes() == b"precious"
