"""Trees that another process changes while they are written, removed or read: nothing beyond them is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ocidist.client import Client
from ocidist.errors import BundleError, OcidistError
from ocidist.graph.copy import copy_graph
from ocidist.image import Image
from ocidist.scope import Scope
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.removal import remove_tree
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from ocidist.trees.directory import DirectoryReader
from tests.parts.exchange import each_moment, without_pause
from tests.parts.images import Entry, image
from tests.parts.processes import CHECKOUT
from tests.parts.required import lacking, program, require
from tests.parts.sources import MemorySource
from tests.parts.trees import assert_same, snapshot

CHAIN = str(Digest.of(b"a chain"))


def plant(folder: Path) -> None:
    """A small tree with a bit of everything, the same names as in :func:`app`."""
    (folder / "etc/inner").mkdir(parents=True)
    (folder / "etc/passwd").write_text("root")
    (folder / "etc/inner/file").write_text("x")
    os.link(folder / "etc/passwd", folder / "etc/hard")
    os.symlink("passwd", folder / "etc/soft")
    os.mkfifo(folder / "etc/pipe")
    os.chmod(folder / "etc/pipe", 0o640)
    (folder / "etc/su").write_text("setuid")
    os.chmod(folder / "etc/su", 0o4755)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """What must not change: it has all the names that the trees have, with modes of its own."""
    require("os:mkfifo", "os:link", "kernel")
    folder = tmp_path / "victim"
    for name in ("", "rootfs", "b/rootfs", "e", "d/e"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    plant(folder / "rootfs")
    (folder / "etc").mkdir()
    for name in ("config.json", "passwd", "su", "hard", "soft", "pipe", "file", "e/file", "d/file"):
        (folder / name).write_text("of the victim")
        os.chmod(folder / name, 0o640)
    for name in ("", "e", "d", "etc"):
        os.chmod(folder / name, 0o751)
    return folder


def app(store: Store) -> Image:
    files = [
        Entry("etc/", mode=0o711),
        Entry("etc/passwd", b"root:x:0:0::/:\n"),
        Entry("etc/hard", hard="etc/passwd"),
        Entry("etc/soft", link="passwd"),
        Entry("etc/pipe", type=b"6"),
        Entry("etc/su", b"setuid", mode=0o4755),
    ]
    source = MemorySource(image([files], run={"Cmd": ["/x"]}))
    with store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(source, store, source.root, scope, platform="all", workers=0)
        store.tag("docker.io/library/app:1", source.root, scope)
    return Client(store=store).open("store:docker.io/library/app:1", platform="linux/amd64")


def clear(*folders: Path) -> None:
    """Remove them and what was put aside, without going through a link."""
    for folder in folders:
        for each in (folder, folder.with_name(f"{folder.name}.away")):
            if each.is_symlink():
                each.unlink()
            elif each.exists():
                for at, names, _ in os.walk(each):  # an ordinary user's, whatever their modes
                    for name in names:
                        if not os.path.islink(os.path.join(at, name)):
                            os.chmod(os.path.join(at, name), 0o700)
                shutil.rmtree(each)


@pytest.mark.parametrize("back", [False, True], ids=["stays", "back"])
@pytest.mark.parametrize(
    ("which", "there"),
    [
        ("p", False),
        ("p/b", False),
        ("p/b", True),
        ("p/b/rootfs", False),
        ("p/b/rootfs/etc", False),
        ("p/b/rootfs/etc/su", False),
    ],
)
def test_i72_a_bundle_s_directory_exchanged_at_every_moment(
    which: str, back: bool, there: bool, tmp_path: Path, victim: Path
) -> None:
    """The place, its parent, its rootfs, what is in it: another's link in its stead leads nowhere."""
    to = victim / "su" if which.endswith("su") else victim
    before = snapshot(victim)
    with Store.at(tmp_path / "root") as store:
        img = app(store)
        store.unpack(img.manifest, img.config, Scope())

        def ready() -> None:
            clear(tmp_path / "p")
            (tmp_path / "p").mkdir()
            if there:
                (tmp_path / "p/b").mkdir()

        moments = each_moment(
            lambda: img.bundle(tmp_path / "p/b"),
            lambda: tmp_path / which,
            to,
            back=back,
            ready=ready,
            begin="b",
        )
        for _ in moments:
            assert_same(before, snapshot(victim))


def test_i72_a_bundle_s_directory_exchanged_without_pause(tmp_path: Path, victim: Path) -> None:
    """By a second process, with renameat2(RENAME_EXCHANGE), from before it is there to after its end."""
    require("processes", "root")
    before = snapshot(victim)
    (tmp_path / "p").mkdir()
    with Store.at(tmp_path / "root") as store:
        img = app(store)
        store.unpack(img.manifest, img.config, Scope())
        with without_pause(tmp_path / "p", "b", victim):
            for number in range(60):
                try:
                    img.bundle(tmp_path / f"p/b{number}")
                except OcidistError:
                    continue
    assert_same(before, snapshot(victim))


def test_i72_another_user_s_link_on_the_way_to_a_bundle(tmp_path: Path, victim: Path) -> None:
    """It is not followed; root's own is. The place itself may be no link of anybody's."""
    require("root")
    with Store.at(tmp_path / "root") as store:
        img = app(store)
        (tmp_path / "real").mkdir()
        os.symlink("real", tmp_path / "mine")
        img.bundle(tmp_path / "mine/../mine/b")
        assert (tmp_path / "real/b/config.json").is_file()
        os.symlink("real", tmp_path / "theirs")
        os.chown(tmp_path / "theirs", 65534, 65534, follow_symlinks=False)
        with pytest.raises(BundleError, match="theirs on the way is another user's symbolic link"):
            img.bundle(tmp_path / "theirs/c")
        (tmp_path / "empty").mkdir()
        os.symlink("empty", tmp_path / "place")
        with pytest.raises(BundleError, match="it is a symbolic link; write where it leads"):
            img.bundle(tmp_path / "place")
        assert os.listdir(tmp_path / "empty") == []


@pytest.mark.parametrize("back", [False, True], ids=["stays", "back"])
@pytest.mark.parametrize("which", ["tree", "tree/d", "tree/d/e", "tree/d/e/file", "tree/e"])
def test_i72_a_directory_exchanged_while_its_tree_is_removed(
    which: str, back: bool, tmp_path: Path, victim: Path
) -> None:
    """No mode of the victim's changes, and nothing of it goes."""
    if which.endswith("file"):
        require("root")  # it lies in a directory of mode 0000
    before = snapshot(victim)

    def ready() -> None:
        clear(tmp_path / "tree")
        for name in ("d/e", "e"):
            (tmp_path / "tree" / name).mkdir(parents=True)
            (tmp_path / "tree" / name / "file").write_text("x")
            os.chmod(tmp_path / "tree" / name, 0)

    tree = tmp_path / "tree"
    moments = each_moment(lambda: remove_tree(tree), lambda: tmp_path / which, victim, back=back, ready=ready)
    for _ in moments:
        assert_same(before, snapshot(victim))


@pytest.mark.parametrize("back", [False, True], ids=["stays", "back"])
@pytest.mark.parametrize("which", ["etc", "etc/inner", "etc/su", "etc/pipe"])
def test_i72_a_directory_exchanged_while_a_snapshot_is_prepared(
    which: str, back: bool, tmp_path: Path, victim: Path
) -> None:
    """The copy that a native snapshot begins as is written nowhere else."""
    snapshots = NativeSnapshotter(tmp_path / "root")
    plant(snapshots.begin("working"))
    snapshots.commit(CHAIN, "working")
    to = victim / which[4:] if which in ("etc/su", "etc/pipe") else victim
    before, whole = snapshot(victim), snapshot(snapshots.path(CHAIN))

    def place() -> Path | None:
        copies = [*(tmp_path / "root/native").glob(f"removed/*/fs/{which}")]
        return next(iter([*copies, *(tmp_path / "root/native").glob(f"active/*/fs/{which}")]), None)

    for _ in each_moment(lambda: snapshots.begin("copy", CHAIN), place, to, back=back):
        assert_same(before, snapshot(victim))
        assert_same(whole, snapshot(snapshots.path(CHAIN)))


def test_i72_what_is_mounted_in_a_tree_is_not_removed_with_it(tmp_path: Path, victim: Path) -> None:
    """A bind mount that somebody left in a snapshot: named, and all else goes."""
    require("root", "unshare", "processes")
    plant(tmp_path / "tree")
    (tmp_path / "tree/mnt/deep").mkdir(parents=True)
    before = snapshot(victim)
    code = (
        "import sys; from pathlib import Path; from ocidist.snapshots.removal import remove_tree\n"
        "try: remove_tree(Path(sys.argv[1]))\nexcept OSError as error: print(error.strerror)"
    )
    script = 'mount --bind "$1" "$2/$3" && exec "$4" -c "$5" "$2"'
    for where in ("mnt/deep", "mnt"):
        words = [str(victim), str(tmp_path / "tree"), where, sys.executable, code]
        done = subprocess.run(
            [program("unshare"), "-m", "sh", "-c", script, "sh", *words],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
        )
        if "mount:" in done.stderr:
            lacking("the right to mount")
        assert done.stdout == "Device or resource busy\n", done.stderr
        assert_same(before, snapshot(victim))
        (tmp_path / "tree/mnt/deep").mkdir(parents=True, exist_ok=True)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_i72_a_device_put_in_a_file_s_place_is_not_read(tmp_path: Path) -> None:
    """Between the listing and the reading of a tree that a container still has: its content is the host's."""
    require("os:mkfifo", "kernel")
    os.mkfifo(tmp_path / "file")
    with (
        closing(DirectoryReader(tmp_path)) as reader,
        pytest.raises(OSError, match="no longer a regular file"),
    ):
        reader.open(b"file")
