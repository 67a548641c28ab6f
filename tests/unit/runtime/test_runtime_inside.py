"""Files of an image's tree, read as a process in it would: whatever lies there, nothing outside is looked at."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Iterator

import pytest

from ocidist.errors import BundleError
from ocidist.runtime import accounts
from ocidist.runtime.inside import MAX_FILE, Inside
from ocidist.trees.directory import DirectoryReader
from tests.parts.required import require


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty tree, beside a file that must not be read."""
    (tmp_path / "secret").write_bytes(b"root:x:0:0:the host's::\n")
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    return root


@pytest.fixture
def inside(tree: Path) -> Iterator[Inside]:
    """A look into the tree, as it becomes."""
    with contextlib.closing(DirectoryReader(tree)) as reader:
        yield Inside(reader)


@pytest.mark.parametrize(
    ("links", "path"),
    [
        ({"etc/passwd": "accounts"}, "/etc/passwd"),
        ({"etc/passwd": "/etc/accounts"}, "/etc/passwd"),
        ({"etc/passwd": "../../../../etc/accounts"}, "/etc/passwd"),
        ({"etc/passwd": "../etc/./accounts"}, "etc/passwd"),
        ({"run": "/etc", "etc/passwd": "/run/accounts"}, "/etc/passwd"),
        ({"a": "b", "b": "c", "c": "/etc"}, "/a/../a/accounts"),
        ({}, "//etc/../..//etc/accounts"),
    ],
)
def test_links_are_followed_inside(tree: Path, inside: Inside, links: dict[str, str], path: str) -> None:
    """Absolute ones and ``..`` count from the tree's root, as they will when it is one."""
    (tree / "etc/accounts").write_bytes(b"found")
    for name, target in links.items():
        (tree / name).symlink_to(target)
    assert inside.read(path) == b"found"


@pytest.mark.parametrize("target", ["../../secret", "{outside}/secret", "../../../../../../{outside}/secret"])
def test_h71_a_link_out_of_the_tree_leads_nowhere(tree: Path, inside: Inside, target: str) -> None:
    """The host's file is not read: in the tree there is none of that name."""
    (tree / "etc/passwd").symlink_to(target.format(outside=tree.parent))
    assert inside.read("/etc/passwd") == b""
    (tree / "etc/passwd").unlink()
    (tree / "etc").rmdir()
    (tree / "etc").symlink_to(tree.parent)
    assert inside.read("/etc/secret") == b""
    assert inside.stat("/etc/secret") is None


def test_what_is_missing_is_empty(tree: Path, inside: Inside) -> None:
    """No file, no directory, a file where a directory would be, a link to nothing."""
    (tree / "file").write_bytes(b"x")
    (tree / "etc/dangling").symlink_to("nothing")
    for path in ("/etc/passwd", "/no/such/place", "/file/passwd", "/etc/dangling"):
        assert inside.read(path) == b""
        assert inside.stat(path) is None
    assert inside.stat("/") is not None
    assert inside.stat("/etc") is not None


def test_h71_a_fifo_is_refused_and_not_waited_for(tree: Path, inside: Inside) -> None:
    """Opening one for reading would block for ever."""
    require("os:mkfifo", "threads")
    os.mkfifo(tree / "etc/passwd")
    said: list[str] = []

    def look() -> None:
        try:
            accounts.find("redis", inside.read)
        except BundleError as error:
            said.append(str(error))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(60)
    assert said == ["/etc/passwd: in the image it is a FIFO, not a file"]


def test_h71_a_directory_and_a_device_are_no_files(tree: Path, inside: Inside) -> None:
    """They are named for what they are."""
    (tree / "etc/passwd").mkdir()
    with pytest.raises(BundleError, match="in the image it is a directory, not a file"):
        inside.read("/etc/passwd")
    require("root", "kernel")
    os.mknod(tree / "etc/group", 0o20666, os.makedev(1, 5))  # /dev/zero
    with pytest.raises(BundleError, match="in the image it is a device, not a file"):
        inside.read("/etc/group")


def test_h71_a_bomb_is_not_read(tree: Path, inside: Inside) -> None:
    """A terabyte of holes is refused by its size; the limit itself can be read."""
    bomb = tree / "etc/passwd"
    bomb.write_bytes(b"x" * MAX_FILE)
    assert len(inside.read("/etc/passwd")) == MAX_FILE
    bomb.write_bytes(b"x" * (MAX_FILE + 1))
    with pytest.raises(BundleError, match=f"{MAX_FILE + 1} bytes"):
        inside.read("/etc/passwd")
    require("kernel")
    os.truncate(bomb, 1 << 40)
    with pytest.raises(BundleError, match="1099511627776 bytes"):
        inside.read("/etc/passwd")


def test_h71_rings_and_mazes_of_links_end(tree: Path, inside: Inside) -> None:
    """A link to itself, a ring of two, a chain that doubles at each step, a path of a million parts."""
    (tree / "self").symlink_to("self")
    (tree / "one").symlink_to("/two")
    (tree / "two").symlink_to("one/x")
    (tree / "d0").mkdir()
    for number in range(1, 30):
        (tree / f"d{number}").symlink_to("/".join([f"../d{number - 1}"] * 2))
    for path in ("/self", "/one", "/d29/x"):
        with pytest.raises(BundleError, match="ring of links"):
            inside.read(path)
    with pytest.raises(BundleError, match="steps"):
        inside.read("/x" * 1_000_000)
    require("kernel")
    with pytest.raises(BundleError, match="too long"):
        inside.read("/etc/" + "n" * 5000)


def test_where_a_path_leads(tree: Path, inside: Inside) -> None:
    """Links resolved, what is missing as it is written, never above the root."""
    (tree / "srv").symlink_to("proc/self")
    assert inside.real("/") == "/"
    assert inside.real("etc/../..") == "/"
    assert inside.real("/srv/fd/7") == "/proc/self/fd/7"
    assert inside.real("/new/../etc/./x") == "/etc/x"
