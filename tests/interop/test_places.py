"""A store, a bundle or a target in a folder that hands something down: access control lists, a group, a mode."""

from __future__ import annotations

import io
import os
import stat
import struct
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.graph.copy import copy_graph
from ocidist.image import Image
from ocidist.layers.apply.layer import apply_layer
from ocidist.scope import Scope
from ocidist.snapshots import parallel
from ocidist.stores.store import Store
from tests.parts.images import image, noise
from tests.parts.required import lacking, require
from tests.parts.sources import MemorySource
from tests.parts.tars import directory, entry, layer, pax, record
from tests.parts.trees import Node, assert_same, snapshot, whole_tree

ALL = 0xFFFFFFFF
DEFAULT = "system.posix_acl_default"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel takes it: tags, permissions and ids (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)


OPEN = acl((1, 7, ALL), (2, 7, 65534), (4, 7, ALL), (0x10, 7, ALL), (0x20, 7, ALL))
CLOSED = acl((1, 7, ALL), (4, 0, ALL), (0x20, 0, ALL))


def _setgid(folder: Path) -> None:
    os.chown(folder, 0, 4242)
    folder.chmod(0o2777)


PLACES: dict[str, Callable[[Path], object]] = {
    "open": lambda folder: os.setxattr(folder, DEFAULT, OPEN),
    "closed": lambda folder: os.setxattr(folder, DEFAULT, CLOSED),
    "setgid": _setgid,
}
LAYERS = [
    layer(
        directory("etc", mode=0o755),
        entry("etc/shadow", b"x", mode=0o640, gid=42),
        pax(record(f"SCHILY.xattr.{DEFAULT}", OPEN)),
        directory("listed"),
        entry("listed/one", mode=0o644),
        directory("listed/sub", mode=0o700),
        entry("pipe", kind="6", mode=0o600),
        entry("big-1", noise(parallel.SMALL + 1000), mode=0o600),
    ).getvalue(),
    layer(
        entry("listed/two", mode=0o660),
        entry("listed/sub/three", mode=0o604),
        directory("listed/more", mode=0o711),
        entry("listed/pipe", kind="6", mode=0o604),
        entry("etc/implied/x", mode=0o644),
        entry("big-2", noise(parallel.SMALL + 1000, "b"), mode=0o640),
    ).getvalue(),
]


def put(store: Store) -> Image:
    source = MemorySource(image(LAYERS, run={"Cmd": ["/x"]}))
    with store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(source, store, source.root, scope, platform="all", workers=0)
        store.tag("docker.io/library/app:1", source.root, scope)
    return Client(store=store).open("store:docker.io/library/app:1", platform="linux/amd64")


def trees(place: Path, kind: str) -> Iterator[dict[str, Node]]:
    """What the image comes to below ``place``: unpacked, prepared, and as a bundle."""
    with Store.at(place / "above" / "root", snapshotter=kind) as store:
        img = put(store)
        chain = str(store.unpack(img.manifest, img.config, Scope()))
        store.snapshots.prepare("key", chain)
        for key in (chain, "key"):
            with whole_tree(store.snapshots, key) as tree:
                yield snapshot(tree)
        if kind == "native":
            yield snapshot(store.snapshots.path(chain))
        img.bundle(place / "bundle")
        assert stat.S_IMODE((place / "bundle").stat().st_mode) == 0o700
        yield snapshot(place / "bundle" / "rootfs")


@pytest.mark.parametrize("cores", [1, 2], ids=["in turn", "at once"])
@pytest.mark.parametrize("kind", ["native", "overlay"])
@pytest.mark.parametrize("place", PLACES)
def test_a_tree_is_what_its_layers_say_wherever_the_store_lies(
    place: str, kind: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is inherited, neither from the folder nor from a directory of the image's own with a list."""
    require("root", "kernel", "processes", "os:setxattr")
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    (tmp_path / "plain").mkdir(mode=0o755)
    (tmp_path / "place").mkdir(mode=0o755)
    try:
        PLACES[place](tmp_path / "place")
    except OSError:
        lacking("a file system with access control lists")
    for raw in LAYERS:
        apply_layer(io.BytesIO(raw), tmp_path / "plain", Scope())
    wanted = snapshot(tmp_path / "plain")
    assert DEFAULT in wanted["listed"].xattrs
    assert not wanted["listed/two"].xattrs
    for found in trees(tmp_path / "place", kind):
        assert_same(wanted, found, ignore={"mtime_ns"})


@pytest.mark.parametrize("place", PLACES)
def test_a_layer_is_applied_as_it_says_whatever_the_target_hands_down(place: str, tmp_path: Path) -> None:
    """The target itself stays as it is."""
    require("root", "kernel", "os:setxattr")
    for name in ("plain", "place"):
        (tmp_path / name).mkdir(mode=0o755)
    try:
        PLACES[place](tmp_path / "place")
    except OSError:
        lacking("a file system with access control lists")
    before = snapshot(tmp_path / "place")["."]
    for name in ("plain", "place"):
        for raw in LAYERS:
            apply_layer(io.BytesIO(raw), tmp_path / name, Scope())
    assert_same(snapshot(tmp_path / "plain"), snapshot(tmp_path / "place"), ignore={"mtime_ns"}, root=False)
    after = snapshot(tmp_path / "place")["."]
    assert (after.mode, after.gid, after.xattrs) == (before.mode, before.gid, before.xattrs)
