"""A store that somebody else prepared, with links in the places of its own folders: what they lead to is nobody's garbage."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ocidist.cli.main import main
from ocidist.content.lock import FileLock
from ocidist.errors import StoreError
from ocidist.snapshots import folders
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.stores.store import Store
from tests.parts.required import require

FOLDERS = (
    *("content", "content/blobs", "content/blobs/sha256", "content/ingest", "leases"),
    *("snapshots", "snapshots/native"),
    *(f"snapshots/native/{name}" for name in ("committed", "active", "locks", "removed")),
)
BLOB = "sha256:" + "1" * 64
COMMANDS = (
    ("gc", "--all"),
    ("delete", BLOB),
    ("ingest", "--expected-size", "1", "key"),
    ("--cassette", "demo", "pull", "registry.example/demo/shop:1.0"),
    ("--cassette", "demo", "check", "--repair"),
    ("rootfs", "rm", "sha256:" + "2" * 64),
)


def victim(folder: Path) -> dict[str, bytes]:
    """Somebody's files, old enough, and named so that any folder of a store could have them."""
    for name in ("sub/precious", "sha256/" + BLOB[7:], "1" * 64, "sha256-" + "2" * 64 + "/info"):
        for base in ("", "ingest", "blobs", "sha256", "native/removed/x", "removed/x"):
            path = folder / base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(b"precious")
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("place", FOLDERS)
def test_i73_nothing_is_removed_or_written_where_a_link_in_a_store_leads(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gc, which comes to all of them, names the link and the way out."""
    require("threads", "os:symlink")
    before = victim(tmp_path / "victim")
    root = tmp_path / "root"
    link = root / place
    for name in FOLDERS:
        if not f"{name}/".startswith(f"{place}/"):
            (root / name).mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "victim")
    for command in COMMANDS:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x")))
        code = main(["--root", str(root), *command])
        error = capsys.readouterr().err
        assert files(tmp_path / "victim") == before, command
        if command[0] == "gc":
            assert code == 1
            assert f"{link}: a link in the place of a folder" in error


def test_i73_a_snapshotter_by_itself_refuses_links(tmp_path: Path) -> None:
    require("os:symlink")
    before = victim(tmp_path / "victim")
    kept = NativeSnapshotter(tmp_path / "trees")
    kept.prepare("key")
    (tmp_path / "trees/native/removed").rmdir()
    (tmp_path / "trees/native/removed").symlink_to(tmp_path / "victim")
    for action in (kept.remove_stale, lambda: kept.begin("other"), lambda: kept.remove("key")):
        with pytest.raises(StoreError, match="a link in the place"):
            action()
    assert files(tmp_path / "victim") == before


def test_i72_removed_is_exchanged_for_a_link_behind_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever owns the store that root works on: nothing is removed where the link leads."""
    require("os:symlink", "os:O_DIRECTORY")
    before = victim(tmp_path / "victim")
    kept = NativeSnapshotter(tmp_path / "trees")
    kept.prepare("key")
    removed = tmp_path / "trees/native/removed"
    look = folders.refuse_links

    def exchanging(*names: str) -> None:
        look(*names)
        if not removed.is_symlink():
            removed.rename(tmp_path / "aside")
            removed.symlink_to(tmp_path / "victim")

    monkeypatch.setattr(folders, "refuse_links", exchanging)
    with pytest.raises(StoreError):
        kept.remove_stale()
    assert files(tmp_path / "victim") == before


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    """It is what the user named, and may be on another disk."""
    require("os:symlink")
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    with Store.at(tmp_path / "root") as store:
        with store.ingest("key") as into:
            into.write(b"x")
            into.commit(1, None)
        store.require_writable()
    assert (tmp_path / "disk/content/blobs").is_dir()


def test_i73_the_mode_of_a_file_with_a_second_name_stays(tmp_path: Path) -> None:
    """It may be a file of root's that another user linked into the place of a lock or of the names."""
    require("os:link")
    passwd = tmp_path / "passwd"
    passwd.write_bytes(b"root:x:0:0")
    passwd.chmod(0o644)
    before = passwd.stat().st_mode
    for name in ("lock", "meta.db"):
        os.link(passwd, tmp_path / name)
    lock = FileLock(str(tmp_path / "lock"))
    assert lock.acquire()
    lock.release()
    with Store.at(tmp_path) as store, pytest.raises(StoreError):
        store.leases.delete(["x"])
    assert passwd.stat().st_mode == before
