"""The contract of snapshotters whose trees are directories of this machine, run on every implementation."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Callable

import pytest

from ocidist.errors import Cancelled, OcidistError
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.overlay import OverlaySnapshotter
from ocidist.snapshots.protocols import LocalTrees
from ocidist.spec.digest import Digest
from tests.parts.required import require
from tests.parts.trees import Node, assert_same, snapshot, whole_tree

CHAIN = str(Digest.of(b"a chain"))
OTHER = str(Digest.of(b"another"))

IMPLEMENTATIONS: dict[str, Callable[[Path], LocalTrees]] = {
    "native": NativeSnapshotter,
    "overlay": OverlaySnapshotter,
}


@pytest.fixture(params=list(IMPLEMENTATIONS))
def snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> LocalTrees:
    return IMPLEMENTATIONS[request.param](tmp_path / "root")


def commit(snapshots: LocalTrees, name: str, content: str = "x", parent: str = "") -> Path:
    root = snapshots.begin("working", parent)
    (root / "file").write_text(content)
    snapshots.commit(name, "working", parent)
    return snapshots.path(name)


def whole(snapshots: LocalTrees, key: str) -> dict[str, Node]:
    """All of a snapshot's tree, wherever its parts lie."""
    with whole_tree(snapshots, key) as tree:
        return snapshot(tree)


def keys(snapshots: LocalTrees) -> list[tuple[str, str]]:
    return [(info.key, info.kind) for info in snapshots.walk()]


def test_an_empty_one_lists_nothing_and_makes_nothing(snapshots: LocalTrees, tmp_path: Path) -> None:
    """Looking costs no directory, and what isn't there is an error."""
    assert keys(snapshots) == []
    for look in (snapshots.stat, snapshots.path, snapshots.remove):
        with pytest.raises(OcidistError):
            look(CHAIN)
    assert os.listdir(tmp_path) == []


def test_what_is_prepared_is_active_and_not_visible_as_what_it_will_be(snapshots: LocalTrees) -> None:
    """Only commit makes the name."""
    root = snapshots.begin("working")
    assert os.listdir(root) == []
    assert keys(snapshots) == [("working", "active")]
    assert snapshots.path("working") == root
    with pytest.raises(OcidistError):
        snapshots.stat(CHAIN)
    (root / "file").write_text("x")
    snapshots.commit(CHAIN, "working")
    assert keys(snapshots) == [(CHAIN, "committed")]
    assert (snapshots.path(CHAIN) / "file").read_text() == "x"
    with pytest.raises(OcidistError):
        snapshots.stat("working")


def test_e61_the_directories_above_a_tree_are_private(snapshots: LocalTrees, tmp_path: Path) -> None:
    """0700 between the root and every tree, active or committed (CVE-2021-41103); the tree itself is 0755."""
    old = os.umask(0o002)
    try:
        commit(snapshots, CHAIN)
        snapshots.prepare("working")
    finally:
        os.umask(old)
    for key in (CHAIN, "working"):
        path = snapshots.path(key)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert 0o700 in {
            stat.S_IMODE(above.stat().st_mode) for above in path.parent.parents if tmp_path in above.parents
        }


def test_preparing_again_starts_afresh(snapshots: LocalTrees) -> None:
    """What a killed process left under the key is gone."""
    (snapshots.begin("working") / "stale").write_text("x")
    assert os.listdir(snapshots.begin("working")) == []


def test_committing_a_name_that_exists_is_success_and_keeps_the_first(snapshots: LocalTrees) -> None:
    """The second one's work is dropped."""
    commit(snapshots, CHAIN, "first")
    commit(snapshots, CHAIN, "second")
    assert (snapshots.path(CHAIN) / "file").read_text() == "first"
    assert keys(snapshots) == [(CHAIN, "committed")]


def test_a_child_has_its_parent_s_tree_and_changes_its_own(snapshots: LocalTrees, tmp_path: Path) -> None:
    """All types, modes, times and hardlinks; the parent stays as it was."""
    require("os:link", "os:mkfifo", "kernel")
    root = snapshots.begin("working")
    (root / "d").mkdir()
    (root / "d/file").write_text("text")
    os.link(root / "d/file", root / "hard")
    os.symlink("d/file", root / "soft")
    os.symlink("/nowhere", root / "dangling")
    os.mkfifo(root / "pipe")
    os.chmod(root / "d/file", 0o4711)
    os.utime(root / "d", ns=(5, 1_234_567_891))
    os.chmod(root / "d", 0o1777)
    snapshots.commit(CHAIN, "working")
    before = snapshot(snapshots.path(CHAIN))
    child = snapshots.begin("child", CHAIN)
    assert_same(before, whole(snapshots, "child"))
    (child / "new").write_text("changed")
    if snapshots.name == "native":
        (child / "d/file").write_text("changed")
    assert "new" in whole(snapshots, "child")
    assert_same(before, snapshot(snapshots.path(CHAIN)))
    snapshots.commit(OTHER, "child", CHAIN)
    assert snapshots.stat(OTHER).parent == CHAIN
    with pytest.raises(OcidistError):
        snapshots.prepare("orphan", str(Digest.of(b"unknown")))


def test_a_view_is_its_parent_s_tree_and_is_never_committed(snapshots: LocalTrees, tmp_path: Path) -> None:
    """Nothing is copied for it, and what is mounted is read only."""
    require("kernel")
    commit(snapshots, CHAIN, "text")
    snapshots.view("looking", CHAIN)
    assert snapshots.stat("looking").kind == "view"
    assert ("looking", "view") in keys(snapshots)
    assert_same(snapshot(snapshots.path(CHAIN)), whole(snapshots, "looking"))
    assert [mount.options for mount in snapshots.mounts("looking")] == [("rbind", "ro")]
    with pytest.raises(OcidistError, match="view"):
        snapshots.commit(OTHER, "looking")
    assert snapshots.stat("looking").kind == "view"
    with pytest.raises(OcidistError):
        snapshots.view("orphan", OTHER)


def test_i74_measuring_a_wide_snapshot_ends_within_a_directory(snapshots: LocalTrees) -> None:
    """`snapshots` took 2 seconds for each 300,000 names, whatever --timeout said."""
    root = snapshots.begin("working")
    for number in range(2500):
        (root / str(number)).touch()
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        snapshots.usage("working", check)
    assert looks == 2
    assert snapshots.usage("working", lambda: None).inodes == 2501


def test_usage_counts_a_snapshot_s_own_files(snapshots: LocalTrees) -> None:
    """Bytes that are set aside, a file with two names once; mounts are for what is active."""
    require("os:link", "kernel")
    root = snapshots.begin("working")
    empty = snapshots.usage("working")
    assert empty.inodes == 1
    (root / "file").write_bytes(bytes(range(256)) * 256)
    os.link(root / "file", root / "again")
    found = snapshots.usage("working")
    assert found.inodes == 2
    assert found.size - empty.size >= 65536
    [mount] = snapshots.mounts("working")
    assert (mount.type, mount.source, mount.options) == ("bind", str(root), ("rbind", "rw"))
    snapshots.commit(CHAIN, "working")
    assert snapshots.usage(CHAIN).inodes == 2
    for ask in (snapshots.usage, snapshots.mounts, snapshots.reader):
        with pytest.raises(OcidistError):
            ask("unknown")
    with pytest.raises(OcidistError, match="prepare one over it"):
        snapshots.mounts(CHAIN)


def test_remove_takes_trees_of_any_depth_and_mode(snapshots: LocalTrees) -> None:
    """Directories without permissions, 3000 levels, names like the remover's own."""
    require("kernel")
    root = snapshots.begin("working")
    for name in ("a", "a/b", ".moved-1", ".moved-2", ".moved-2/x"):
        (root / name).mkdir()
    for name in ("a/b/f", ".moved-1/f", ".moved-2/x/f", ".moved-3"):
        (root / name).write_text("x")
    fd = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    os.chmod(root / "a/b", 0)
    os.chmod(root / "a", 0)
    snapshots.commit(CHAIN, "working")
    above = snapshots.path(CHAIN).parent
    snapshots.remove(CHAIN)
    assert keys(snapshots) == []
    assert not above.exists()


def test_one_claim_at_a_time(snapshots: LocalTrees) -> None:
    """A second gets None until the first is closed; other keys are free."""
    first = snapshots.claim("unpack x")
    assert first is not None
    assert snapshots.claim("unpack x") is None
    with snapshots.claim("unpack y") or pytest.fail("another key is held"):
        pass
    first.close()
    first.close()
    again = snapshots.claim("unpack x")
    assert again is not None
    again.close()


def test_many_threads_commit_one_name(snapshots: LocalTrees) -> None:
    """One stays, no error, nothing is left over."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                key = f"key {number} {turn}"
                (snapshots.begin(key) / "file").write_text("x")
                snapshots.commit(CHAIN, key)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert keys(snapshots) == [(CHAIN, "committed")]


def test_what_needs_a_tree_is_listed(snapshots: LocalTrees) -> None:
    """Snapshots to write in and views, where they stand on it, however far above on overlay."""
    commit(snapshots, CHAIN)
    snapshots.prepare("child", CHAIN)
    snapshots.view("looking", CHAIN)
    commit(snapshots, OTHER, parent=CHAIN)
    snapshots.prepare("grandchild", OTHER)
    above = ["grandchild"] if snapshots.name == "overlay" else []
    assert sorted(snapshots.dependents(CHAIN)) == sorted(["child", "looking", *above])
    assert snapshots.dependents(OTHER) == ["grandchild"]
    assert snapshots.dependents("unknown") == []


def test_a_scratch_is_of_the_same_kind_and_takes_a_place(snapshots: LocalTrees, tmp_path: Path) -> None:
    """What is made there is seen once it replaces the tree; the scratch is gone then."""
    commit(snapshots, CHAIN, "old")
    with snapshots.scratch() as scratch:
        assert scratch.name == snapshots.name
        assert keys(scratch) == []
        commit(scratch, CHAIN, "new")
        assert (snapshots.path(CHAIN) / "file").read_text() == "old"
        snapshots.replace(CHAIN, scratch)
    assert (snapshots.path(CHAIN) / "file").read_text() == "new"
    assert keys(snapshots) == [(CHAIN, "committed")]
    assert list(tmp_path.rglob("removed/*")) == []


def test_damaged_metadata_is_as_good_as_absent(tmp_path: Path) -> None:
    """A snapshot without a readable description is made again, not served."""
    snapshots = NativeSnapshotter(tmp_path)
    (commit(snapshots, CHAIN, "old").parent / "info").write_text("{")
    (tmp_path / "native/committed/stray").write_text("not a snapshot")
    assert keys(snapshots) == []
    commit(snapshots, CHAIN, "new")
    assert (snapshots.path(CHAIN) / "file").read_text() == "new"


def test_what_a_killed_unpack_left_is_swept(tmp_path: Path) -> None:
    """By the next one to prepare anything, unless somebody holds its claim."""
    snapshots = NativeSnapshotter(tmp_path)
    snapshots.prepare("a container's")
    snapshots.prepare("unpack dead")
    with snapshots.claim("unpack alive") or pytest.fail("held"):
        snapshots.prepare("unpack alive")
        assert sorted(key for key, _ in keys(snapshots)) == ["a container's", "unpack alive"]
        snapshots.prepare("unpack next")
        assert sorted(key for key, _ in keys(snapshots)) == ["a container's", "unpack alive", "unpack next"]
    assert snapshots.remove_stale() == 2
    assert keys(snapshots) == [("a container's", "active")]
    assert os.listdir(tmp_path / "native/removed") == os.listdir(tmp_path / "native/locks") == []
