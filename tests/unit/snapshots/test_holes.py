"""Copies of trees keep holes, end within a large file when their scope does, and are seen only once they are whole."""

from __future__ import annotations

import io
import os
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest

from ocidist.errors import Cancelled
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.apply.policy import Policy
from ocidist.rootfs import prepare, snapshots
from ocidist.scope import Scope
from ocidist.snapshots.apart import Over
from ocidist.snapshots.copying import copy_tree
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from ocidist.trees.compare import compare, same_content
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.local_file import copy_file
from tests.parts.required import lacking, require
from tests.parts.tars import directory, entry, hardlink, layer, padded, pax, record

CHAIN = str(Digest.of(b"a chain"))
SIZE = 256 << 20
SMALL = 1 << 20  # bytes on disk


class Ending(Scope):
    """It ends at the nth look, as by Ctrl-C."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        if self.looks < 0:
            self.cancel()
        super().check()


def sparse(path: Path) -> None:
    """A file of 256 MiB with a page of data in its middle, and one at an odd place behind it."""
    with open(path, "wb") as file:
        os.truncate(file.fileno(), SIZE)
        for at in (SIZE // 2, SIZE // 2 + (9 << 20) + 5):
            file.seek(at)
            file.write(b"data" * 1024)
    if os.stat(path).st_blocks * 512 > SMALL:
        lacking("a file system with holes for the tests")


def assert_sparse(path: Path) -> None:
    info = os.stat(path)
    assert info.st_size == SIZE
    assert info.st_blocks * 512 < SMALL, f"{info.st_blocks * 512} bytes were written"
    with open(path, "rb") as file:
        for at in (SIZE // 2, SIZE // 2 + (9 << 20) + 5):
            file.seek(at - 8)
            assert file.read(4096 + 16) == bytes(8) + b"data" * 1024 + bytes(8)


def test_i77_a_snapshot_begins_with_the_holes_of_its_parent(tmp_path: Path) -> None:
    """A native one, which is a copy; a file that is one hole too."""
    require("kernel", "os:link")
    kept = NativeSnapshotter(tmp_path / "root")
    root = kept.begin("working")
    sparse(root / "file")
    os.link(root / "file", root / "hard")
    with open(root / "hole", "wb") as file:
        os.truncate(file.fileno(), SIZE)
    kept.commit(CHAIN, "working")
    tree = kept.begin("copy", CHAIN)
    assert_sparse(tree / "file")
    assert os.path.samefile(tree / "file", tree / "hard")
    info = os.stat(tree / "hole")
    assert (info.st_size, info.st_blocks) == (SIZE, 0)


def test_i77_a_hardlink_to_a_sparse_file_beneath_brings_up_its_holes(tmp_path: Path) -> None:
    """1.1 kB of overlay layers wrote all of the file's size."""
    require("kernel", "os:link")
    size = SIZE // 2 + (9 << 20) + 5
    table = padded(b"".join(b"%d\n" % each for each in (3, SIZE // 2, 4096, size, 4096, SIZE, 0)))
    records = [("major", "1"), ("minor", "0"), ("name", "file"), ("realsize", str(SIZE))]
    head = pax(*(record(f"GNU.sparse.{key}", value) for key, value in records))
    archived = head + entry("GNUSparseFile.0/file", table + b"data" * 2048)
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    upper.mkdir()
    apply_layer(layer(archived), lower, Scope(), threads=False)
    assert_sparse(lower / "file")
    with closing(DirectoryReader(lower)) as reader:
        privileged = Policy.of_process().privileged
        policy = Policy(privileged, Over(reader, privileged, Scope()))
        again = io.BytesIO(layer(directory("d"), hardlink("d/hard", "file")).getvalue())
        apply_layer(again, upper, Scope(), policy=policy, threads=False)
    assert_sparse(upper / "d/hard")


@pytest.mark.parametrize("lacks", ["sendfile", "SEEK_DATA"])
def test_copies_without_what_some_systems_lack(
    lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is the same, whether holes stay or not."""
    require("kernel")
    if lacks == "SEEK_DATA":
        monkeypatch.delattr(os, "SEEK_DATA")
    else:
        monkeypatch.setattr("sys.platform", "other")
    with open(tmp_path / "file", "wb") as file:
        os.truncate(file.fileno(), 5 << 20)
        file.seek(3 << 20)
        file.write(b"data" * 1000)
    with open(tmp_path / "file", "rb") as one, open(tmp_path / "copy", "xb") as two:
        copy_file(one.fileno(), two.fileno(), lambda: None)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (None, True),
        (lambda file: os.pwrite(file, bytes(4096), 1 << 39), True),
        (lambda file: os.pwrite(file, b"x", (1 << 40) - 1), False),
        (lambda file: os.pwrite(file, b"x", 1 << 39), False),
        (lambda file: os.pwrite(file, b"x", 5), False),
        (lambda file: os.truncate(file, (1 << 40) - 1), False),
    ],
    ids=["holes", "zeros in a hole", "the last byte", "in a hole", "in the data", "shorter"],
)
def test_i80_what_is_a_hole_in_both_trees_is_not_read_to_compare_them(
    change: Callable[[int], object] | None, same: bool, tmp_path: Path
) -> None:
    """A kilobyte of layer can have a terabyte of them."""
    require("kernel")
    for name in "ab":
        (tmp_path / name).mkdir()
        with open(tmp_path / name / "f", "wb", buffering=0) as file:
            file.write(b"data" * 1024)
            try:
                os.truncate(file.fileno(), 1 << 40)
            except OSError:
                lacking("a file system with files of a terabyte for the tests")
            if change is not None and name == "b":
                change(file.fileno())
    with closing(DirectoryReader(tmp_path / "a")) as one, closing(DirectoryReader(tmp_path / "b")) as two:
        assert same_content(one, two, b"f", Ending(9)) is same


def test_i74_a_copy_ends_within_a_large_file(tmp_path: Path) -> None:
    """And so does the comparison of two: the scope is looked at between their blocks."""
    require("kernel")
    for name in ("one", "two", "copy"):
        (tmp_path / name).mkdir()
    for name in ("one", "two"):
        (tmp_path / name / "file").write_bytes(bytes(32 << 20))
        os.utime(tmp_path / name / "file", (5, 5))
    with closing(DirectoryReader(tmp_path / "one")) as one, closing(DirectoryReader(tmp_path / "two")) as two:
        with pytest.raises(Cancelled):
            copy_tree(one, tmp_path / "copy", Ending(3).check)
        assert os.stat(tmp_path / "copy/file").st_size < 32 << 20
        with pytest.raises(Cancelled):
            list(compare(one, two, Ending(10)))


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_a_snapshot_that_was_not_finished_is_not_there(kind: str, tmp_path: Path) -> None:
    """Interrupted within its copy it is in no list, and the next to prepare one removes what is left of it."""
    require("kernel")
    with Store.at(tmp_path / "root", snapshotter=kind) as store:
        root = store.snapshots.begin("working")
        (root / "file").write_bytes(bytes(32 << 20))
        store.snapshots.commit(CHAIN, "working")
        target = str(tmp_path / "target")
        if kind == "native":
            with pytest.raises(Cancelled):
                prepare(store, CHAIN, target, Ending(3))
            assert [row.kind for row in snapshots(store)] == ["committed"]
            assert len(os.listdir(tmp_path / "root/snapshots/native/removed")) == 1
        prepare(store, CHAIN, target, Scope())
        assert [row.kind for row in snapshots(store)] == ["committed", "active"]
        assert os.listdir(tmp_path / f"root/snapshots/{kind}/removed") == []
