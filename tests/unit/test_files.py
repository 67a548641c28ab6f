"""Files in places that others may write to: what is opened, and how new ones are made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ocidist.files import NotRegular, create, random_name, read_small, replacing, set_mode
from tests.parts.required import require


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_i82_new_files_have_their_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """From the first moment at most that mode, in the end exactly that."""
    require("os:fchmod")
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "secret", 0o600) as file:
            (new,) = tmp_path.iterdir()
            assert mode(new) == 0o600
            file.write(b"x")
        (tmp_path / "folder").mkdir()
        set_mode(str(tmp_path / "folder"), 0o700)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "secret"), mode(tmp_path / "folder")) == (0o600, 0o700)


def test_i82_a_replacement_is_whole_or_not_there(tmp_path: Path) -> None:
    """After an error the old bytes are there, and nothing beside them."""
    (tmp_path / "name").write_bytes(b"old")

    def stopped() -> None:
        with replacing(tmp_path / "name") as file:
            file.write(b"new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_i82_temporary_names_are_random_and_exclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the name was guessed, the link there is not written through."""
    require("os:symlink")
    assert random_name() != random_name()
    (tmp_path / "victim").write_bytes(b"mine")
    monkeypatch.setattr("ocidist.files.random_name", lambda: "guessed")
    (tmp_path / "guessed").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        create(tmp_path / "guessed")
    with pytest.raises(FileExistsError), replacing(tmp_path / "name"):
        pass
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_i82_small_files_are_files(tmp_path: Path, kind: str) -> None:
    """Anything else is an error at once."""
    path = tmp_path / "small"
    if kind == "fifo":
        require("os:mkfifo")
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        require("os:symlink")
        path.symlink_to(tmp_path / "other")
        (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(NotRegular, match="not a regular file"):
        read_small(path, 10)


def test_i82_small_files_have_a_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="larger than the 10-byte limit"):
        read_small(tmp_path / "small", 10)
    assert read_small(tmp_path / "small", 11) == b"x" * 11
