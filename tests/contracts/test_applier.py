"""The contract of what applies layers, run on every implementation."""

from __future__ import annotations

import gzip
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest

from ocidist.content.memory import MemoryContent
from ocidist.errors import BlobNotFound, Cancelled, InvalidManifest, LayerError, OcidistError
from ocidist.scope import Scope
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.overlay import OverlaySnapshotter
from ocidist.snapshots.protocols import Applier, LocalTrees, Snapshotter
from ocidist.snapshots.unpack import LocalApplier
from ocidist.spec.chain import chain_ids
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.memory_reader import content
from tests.parts.memory_trees import MemoryApplier, MemorySnapshotter
from tests.parts.required import require
from tests.parts.tars import entry, layer

MEDIA = "application/vnd.oci.image.layer.v1.tar+gzip"
Found = Callable[[str], dict[str, bytes]]


class Place:
    """An applier, the blobs that it reads, and the trees that it makes."""

    def __init__(self, kind: str, root: Path) -> None:
        self.blobs = MemoryContent()
        self.applier: Applier
        self.snapshots: Snapshotter
        self._files: Found
        if kind == "memory":
            memory = MemorySnapshotter()
            self.applier, self.snapshots = MemoryApplier(self.blobs, memory), memory
            self._files = memory.tree
        else:
            if kind == "overlay":
                require("kernel")  # whiteouts are devices
            trees = NativeSnapshotter(root) if kind == "native" else OverlaySnapshotter(root)
            self.applier, self.snapshots = LocalApplier(self.blobs, trees), trees
            self._files = lambda key: files(trees, key)

    def add(self, *entries: bytes) -> tuple[Descriptor, Digest]:
        """A layer's blob; its descriptor and DiffID."""
        plain = layer(*entries).getvalue()
        data = gzip.compress(plain, mtime=0)
        digest = Digest.of(data)
        with self.blobs.writer(str(digest)) as writer:
            writer.write(data)
            writer.commit(len(data), digest)
        return Descriptor(MEDIA, digest, len(data)), Digest.of(plain)

    def files(self, key: Digest) -> dict[str, bytes]:
        return self._files(str(key))

    def committed(self) -> set[str]:
        return {info.key for info in self.snapshots.walk() if info.kind == "committed"}


def files(trees: LocalTrees, key: str) -> dict[str, bytes]:
    """The files at the top of a tree."""
    with closing(trees.reader(key)) as reader:
        found = {}
        for name in reader.names(b""):
            found[name.decode()] = content(reader, name)
        return found


@pytest.fixture(params=["native", "overlay", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path / "root")


def test_layers_become_one_tree_under_their_chain_id(place: Place) -> None:
    """The lowest first; each is waited for, once, before it is read."""
    rows = [
        place.add(entry("a", b"1"), entry("b", b"2"), entry("c", b"3")),
        place.add(entry("a", b"other"), entry(".wh.b")),
    ]
    layers, ids = [row[0] for row in rows], [row[1] for row in rows]
    waited: list[Descriptor] = []
    chain = place.applier.unpack(layers, ids, Scope(), wait=waited.append)
    assert chain == chain_ids(ids)[-1]
    assert waited == layers
    assert place.files(chain) == {"a": b"other", "c": b"3"}
    assert place.snapshots.stat(str(chain)).kind == "committed"
    assert [info.key for info in place.snapshots.walk() if info.kind != "committed"] == []


def test_what_is_there_is_not_read_again(place: Place) -> None:
    """Nor is anything waited for."""
    made, diff_id = place.add(entry("a"))
    chain = place.applier.unpack([made], [diff_id], Scope())
    assert place.applier.unpack([made], [diff_id], Scope(), wait=lambda _: pytest.fail("waited")) == chain


def test_one_layer_stands_on_a_committed_parent(place: Place) -> None:
    """The parent stays as it is."""
    made, diff_id = place.add(entry("a", b"1"), entry("b", b"2"))
    parent = place.applier.apply(made, diff_id, "", Scope())
    assert parent == diff_id
    made, other = place.add(entry(".wh.a"), entry("c", b"3"))
    chain = place.applier.apply(made, other, str(parent), Scope())
    assert chain == chain_ids([diff_id, other])[-1]
    assert place.files(chain) == {"b": b"2", "c": b"3"}
    assert place.files(parent) == {"a": b"1", "b": b"2"}


def test_a_wrong_diff_id_leaves_nothing_visible(place: Place) -> None:
    """Of the uppermost layer, and of a single one."""
    lower, lower_id = place.add(entry("a"))
    upper, upper_id = place.add(entry("b"))
    wrong = [lower_id, Digest.of(b"another")]
    with pytest.raises(LayerError, match="DiffID"):
        place.applier.unpack([lower, upper], wrong, Scope())
    assert str(chain_ids(wrong)[-1]) not in place.committed()
    with pytest.raises(LayerError, match="DiffID"):
        place.applier.apply(lower, upper_id, "", Scope())
    assert str(upper_id) not in place.committed()
    assert [info.key for info in place.snapshots.walk() if info.kind == "active"] == []


def test_what_can_t_be_applied_is_refused(place: Place) -> None:
    """A blob that is missing, numbers that differ, no layers, an unknown parent, a scope that has ended."""
    made, diff_id = place.add(entry("a"))
    gone = Descriptor(MEDIA, Digest.of(b"gone"), 5)
    with pytest.raises(BlobNotFound):
        place.applier.unpack([gone], [diff_id], Scope())
    for layers in ([made, made], []):
        with pytest.raises(InvalidManifest):
            place.applier.unpack(layers, [diff_id][: len(layers)], Scope())
    with pytest.raises(OcidistError):
        place.applier.apply(made, diff_id, str(Digest.of(b"unknown")), Scope())
    ended = Scope()
    ended.cancel()
    with pytest.raises(Cancelled):
        place.applier.apply(made, diff_id, "", ended)
    assert place.committed() == set()
