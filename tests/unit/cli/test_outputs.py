"""A file that a command writes (``-o``), in a folder that others may write to."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli import outputs
from ocidist.cli.main import main
from ocidist.net import cassette
from tests.parts.required import require
from tests.parts.tars import entry
from tests.parts.tars import layer as tar
from tests.unit.upkeep.damages import DEMO

NOBODY = 65534


def layer(tmp_path: Path, target: Path, *options: str) -> int:
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir(exist_ok=True)
    words = ["rootfs", "diff", "-o", str(target), str(tmp_path / "lower"), str(tmp_path / "upper")]
    return main(["--root", str(tmp_path / "root"), *options, *words])


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
        if path == place.name and place.is_fifo():
            place.unlink()
            place.symlink_to(victim)
        return found

    monkeypatch.setattr(outputs.os, "stat", looked)
    assert layer(tmp_path, place) == 1
    assert victim.read_bytes() == b"precious"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder in which another user has links to the folder of a victim, and to a file in it."""
    require("root", "os:symlink")
    (tmp_path / "victim").mkdir()
    (tmp_path / "shared").mkdir()
    for name, target in (("folder", "victim"), ("blobs", "victim"), ("x.json", "victim/x.json")):
        (tmp_path / "shared" / name).symlink_to(tmp_path / target)
        os.lchown(tmp_path / "shared" / name, NOBODY, NOBODY)
    return tmp_path / "shared"


@pytest.mark.parametrize(
    "words",
    [
        ["--record", "folder"],
        ["--record", "folder/new"],
        ["--record", "folder/x.json"],
        ["--trace", "folder/x.har"],
        ["--trace", "folder/x.jsonl"],
    ],
)
def test_i73_nothing_is_recorded_behind_another_users_link(
    shared: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a file nor a folder for it."""
    option, name = words
    assert main(["--cassette", "demo", option, str(shared / name), "inspect", DEMO]) == 1
    assert "folder on the way is another user's symbolic link" in capsys.readouterr().err
    assert os.listdir(shared.parent / "victim") == []


def test_i73_large_bodies_of_a_recording_stay_beside_it(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``blobs`` may be another user's link; not even a folder is made where it leads."""
    root = str(shared.parent / "root")
    words = ["--root", root, "--cassette", "demo", "--record", str(shared / "y.json"), "pull", DEMO]
    assert main([*words, "--progress", "none"]) == 1
    assert "a link leads out of the cassette's folder" in capsys.readouterr().err
    assert os.listdir(shared.parent / "victim") == []


def test_i73_a_layer_is_not_applied_behind_another_users_link(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link of root's own is followed."""
    raw = tar(entry("new", b"x")).getvalue()
    for name in ("folder", "folder/."):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        assert main(["apply", str(shared / name)]) == 1
        assert "folder on the way is another user's symbolic link" in capsys.readouterr().err
    assert os.listdir(shared.parent / "victim") == []
    (shared.parent / "own").symlink_to("victim")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert main(["apply", str(shared.parent / "own")]) == 0
    assert os.listdir(shared.parent / "victim") == ["new"]


def test_i73_a_layer_is_not_written_behind_another_users_link(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the link is a folder on the way."""
    assert layer(shared.parent, shared / "folder" / "layer") == 1
    assert "folder on the way is another user's symbolic link" in capsys.readouterr().err
    assert os.listdir(shared.parent / "victim") == []


def test_i73_the_mode_of_another_users_file_is_not_taken_over(tmp_path: Path) -> None:
    """He lays it, open to all, where root's layer is going to be; root's own file keeps its mode."""
    require("root")
    place = tmp_path / "layer"
    for owner, mode in ((NOBODY, 0o644), (0, 0o666)):
        place.write_bytes(b"")
        place.chmod(0o666)
        os.chown(place, owner, owner)
        before = os.umask(0o022)
        try:
            assert layer(tmp_path, place) == 0
        finally:
            os.umask(before)
        assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (0, mode)
        place.unlink()


def test_i73_another_users_fifo_is_not_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who laid it reads what is written."""
    require("root", "os:mkfifo")
    os.mkfifo(tmp_path / "pipe", 0o666)
    os.chown(tmp_path / "pipe", NOBODY, NOBODY)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert layer(tmp_path, tmp_path / "pipe") == 1
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
    assert "another user's FIFO" in capsys.readouterr().err


def test_i74_a_fifo_without_a_reader_ends_with_the_timeout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is waited for, and no longer."""
    require("os:mkfifo", "kernel")
    os.mkfifo(tmp_path / "pipe")
    started = time.monotonic()
    assert layer(tmp_path, tmp_path / "pipe", "--timeout", "200ms") == 1
    assert time.monotonic() - started < 5
    assert "time limit" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--trace", "no/x.har"], ["--record", "no/x.json"], ["--record", "no/x"]])
def test_no_folder_is_made_up_on_the_way_to_a_recording(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt one is told; but the folder itself that ``--record`` names is made."""
    option, name = words
    assert main(["--cassette", "demo", option, str(tmp_path / name), "inspect", DEMO]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
    assert main(["--cassette", "demo", "--record", str(tmp_path / "new"), "inspect", DEMO]) == 0
    assert os.listdir(tmp_path / "new") == ["recording.json"]


def test_i72_a_folder_exchanged_while_it_is_recorded_to(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is taken back is in the folder that was there, and nothing of the victim's goes."""
    (shared / "mine").mkdir()
    precious = shared.parent / "victim" / "recording.json"
    precious.write_bytes(b"precious")
    save = cassette.save_cassette

    def exchanged(*words: Any) -> Any:
        (shared / "mine").rename(shared / "away")
        (shared / "folder").rename(shared / "mine")
        return save(*words)

    monkeypatch.setattr(cassette, "save_cassette", exchanged)
    assert main(["--cassette", "demo", "--record", str(shared / "mine"), "resolve", DEMO]) == 1
    assert "another user's symbolic link" in capsys.readouterr().err
    assert precious.read_bytes() == b"precious"
