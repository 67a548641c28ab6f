"""The contract of snapshotters, run on every implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from ocidist.errors import StoreError
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.overlay import OverlaySnapshotter
from ocidist.snapshots.protocols import LocalTrees, Snapshotter
from ocidist.spec.digest import Digest
from tests.parts.memory_reader import content
from tests.parts.memory_trees import MemorySnapshotter
from tests.parts.required import require

CHAIN = str(Digest.of(b"a chain"))
OTHER = str(Digest.of(b"another"))

IMPLEMENTATIONS: dict[str, Callable[[Path], Snapshotter]] = {
    "native": NativeSnapshotter,
    "overlay": OverlaySnapshotter,
    "memory": lambda root: MemorySnapshotter(),
}


@pytest.fixture(params=list(IMPLEMENTATIONS))
def snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> Snapshotter:
    return IMPLEMENTATIONS[request.param](tmp_path / "root")


def write(snapshots: Snapshotter, key: str, content: bytes) -> None:
    """Write a file, as a container would through the mounts."""
    if isinstance(snapshots, MemorySnapshotter):
        snapshots.tree(key)["file"] = content
    else:
        (local(snapshots).path(key) / "file").write_bytes(content)


def read(snapshots: Snapshotter, key: str) -> bytes | None:
    """The file, wherever it lies."""
    if isinstance(snapshots, MemorySnapshotter):
        return snapshots.tree(key).get("file")
    reader = local(snapshots).reader(key)
    try:
        if b"file" not in reader.names(b""):
            return None
        return content(reader, b"file")
    finally:
        reader.close()


def local(snapshots: Snapshotter) -> LocalTrees:
    assert isinstance(snapshots, (NativeSnapshotter, OverlaySnapshotter))
    return snapshots


def commit(snapshots: Snapshotter, name: str, content: bytes = b"x", parent: str = "") -> None:
    snapshots.prepare("working", parent)
    write(snapshots, "working", content)
    snapshots.commit(name, "working", parent)


def keys(snapshots: Snapshotter) -> list[tuple[str, str]]:
    return [(info.key, info.kind) for info in snapshots.walk()]


def test_of_nothing_nothing_is_known(snapshots: Snapshotter) -> None:
    """Every question about a key that is unknown is a StoreError."""
    assert keys(snapshots) == []
    for ask in (snapshots.stat, snapshots.mounts, snapshots.usage, snapshots.remove):
        with pytest.raises(StoreError):
            ask(CHAIN)
    with pytest.raises(StoreError):
        snapshots.commit(CHAIN, "working")
    assert keys(snapshots) == []


def test_only_commit_makes_the_name(snapshots: Snapshotter) -> None:
    """What is prepared is active, and invisible as what it will be."""
    snapshots.prepare("working")
    write(snapshots, "working", b"x")
    assert keys(snapshots) == [("working", "active")]
    with pytest.raises(StoreError):
        snapshots.stat(CHAIN)
    snapshots.commit(CHAIN, "working")
    assert keys(snapshots) == [(CHAIN, "committed")]
    assert read(snapshots, CHAIN) == b"x"
    with pytest.raises(StoreError):
        snapshots.stat("working")


def test_preparing_again_begins_again(snapshots: Snapshotter) -> None:
    """What a killed process left under the key is gone."""
    snapshots.prepare("working")
    write(snapshots, "working", b"stale")
    snapshots.prepare("working")
    assert read(snapshots, "working") is None


def test_the_first_to_commit_a_name_keeps_it(snapshots: Snapshotter) -> None:
    """The second one's work is dropped, without an error."""
    commit(snapshots, CHAIN, b"first")
    commit(snapshots, CHAIN, b"second")
    assert read(snapshots, CHAIN) == b"first"
    assert keys(snapshots) == [(CHAIN, "committed")]


def test_a_child_has_its_parent_s_tree_and_changes_its_own(snapshots: Snapshotter) -> None:
    """Only what is committed is a parent."""
    commit(snapshots, CHAIN, b"parent's")
    snapshots.prepare("working", CHAIN)
    assert read(snapshots, "working") == b"parent's"
    with pytest.raises(StoreError):
        snapshots.prepare("orphan", "working")
    with pytest.raises(StoreError):
        snapshots.prepare("orphan", OTHER)
    commit(snapshots, OTHER, b"child's", CHAIN)
    assert snapshots.stat(OTHER).parent == CHAIN
    assert (read(snapshots, CHAIN), read(snapshots, OTHER)) == (b"parent's", b"child's")


def test_a_view_is_read_only_and_never_committed(snapshots: Snapshotter) -> None:
    """What it says of itself, and its mounts."""
    commit(snapshots, CHAIN, b"text")
    mounts = snapshots.view("looking", CHAIN)
    assert [mount.options[-1] for mount in mounts] == ["ro"]
    assert snapshots.stat("looking").kind == "view"
    assert read(snapshots, "looking") == b"text"
    with pytest.raises(StoreError, match="view"):
        snapshots.commit(OTHER, "looking")
    assert keys(snapshots) == [(CHAIN, "committed"), ("looking", "view")]


def test_mounts_are_for_what_is_not_committed(snapshots: Snapshotter) -> None:
    """prepare returns what mounts tells later."""
    assert list(snapshots.prepare("working")) == list(snapshots.mounts("working")) != []
    snapshots.commit(CHAIN, "working")
    with pytest.raises(StoreError, match="prepare one over it"):
        snapshots.mounts(CHAIN)


def test_usage_grows_with_what_is_written(snapshots: Snapshotter) -> None:
    """An entry more, and its bytes."""
    if not isinstance(snapshots, MemorySnapshotter):
        require("kernel")
    snapshots.prepare("working")
    before = snapshots.usage("working")
    write(snapshots, "working", bytes(range(256)) * 256)
    after = snapshots.usage("working")
    assert (before.inodes, after.inodes) == (1, 2)
    assert after.size - before.size >= 65536


def test_any_text_is_a_key(snapshots: LocalTrees) -> None:
    """Slashes, dots, newlines and lengths that no file name has; listed as they were given."""
    names = ["../../evil", "a/b", "x" * 5000, "line\nline", "", ".", "caf\udce9"]
    for name in names:
        snapshots.prepare(name)
    assert sorted(key for key, _ in keys(snapshots)) == sorted(names)
    for name in names:
        snapshots.remove(name)
    assert keys(snapshots) == []
