"""Trees equal, entry by entry, to those of umoci and of containerd: real images, and the archive that CPython tests with.

What differs is data of this file: whole entries that the peers refuse (``REFUSED``), and times of directories that
nobody archived or that the peer loses (``untimed``). Nothing else is left out.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator, Mapping, Sequence

import pytest

from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.compression.inflate import open_stream
from ocidist.scope import Scope
from tests.parts.containerd import Containerd
from tests.parts.corpora import cpython_archive
from tests.parts.images import blob_path, layout_root
from tests.parts.peers import by_containerd, by_umoci
from tests.parts.required import require
from tests.parts.tables import Add, Table
from tests.parts.trees import Node, differences, snapshot

# Of CPython's testtar.tar. Go's tar package knows no type 7, S or X, which GNU tar, tarfile and we do;
# an owner of 4294967295 is "leave it" to chown, and refused here (E.56).
REFUSED = {
    "ustar/conttype": "type 7, a contiguous file, is unknown to both peers",
    "gnu/sparse": "type S, GNU's old sparse file, is unknown to both peers",
    "misc/regtype-suntar": "type X, Solaris' extended header, is unknown to both peers",
    "gnu/regtype-gnu-uid": "its owner is 4294967295: refused by us",
}


TREES = Table(
    "Trees compared, entry by entry: differences",
    ("image", "entries", "hardlinked", "from umoci", "from containerd"),
)
Compare = Callable[[str, Sequence[bytes]], Mapping[str, Node]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    require("root", "containerd", "ctr", "umoci")
    with Containerd(tmp_path_factory.mktemp("containerd") / "daemon") as running:
        yield running


def plain(blob: bytes) -> bytes:
    """The tar in a blob."""
    stream, _ = open_stream(io.BytesIO(blob))
    return b"".join(iter(stream.read_block, b""))


def blobs_of(archive: Path) -> list[bytes]:
    """The layers of an OCI archive, or of one that ``docker save`` wrote; lowest first."""
    with tarfile.open(archive) as source:

        def read(name: str) -> bytes:
            found = source.extractfile(name)
            assert found is not None
            return found.read()

        def blob(descriptor: Mapping[str, str]) -> bytes:
            return read(f"blobs/{descriptor['digest'].replace(':', '/')}")

        if "index.json" not in source.getnames():
            return [read(name) for name in json.loads(read("manifest.json"))[0]["Layers"]]
        found = json.loads(read("index.json"))
        while "manifests" in found:
            found = json.loads(blob(found["manifests"][0]))
        return [blob(layer) for layer in found["layers"]]


def named(tar: bytes) -> set[str]:
    """The paths that have an entry; the root is ``.``."""
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as source:
        return {member.name.strip("/").removeprefix("./") or "." for member in source}


def untimed(tree: Mapping[str, Node], tars: Sequence[bytes], peer: str) -> set[str]:
    """The directories whose time is not the archive's: no entry describes them, or the peer loses it."""
    entries = [named(tar) for tar in tars]
    lost = set(tree) - set().union(*entries)
    if peer == "containerd":
        lost.add(".")
        if len(tars) > 1:  # its native snapshotter copies the tree beneath, and folders get the time of that
            lost |= {path for path, node in tree.items() if node.type == "directory"}
    else:
        # umoci leaves a time of its own where a further layer puts something into a directory without naming it.
        for above in entries[1:]:
            put = {path for path in above if ".wh." not in path}
            lost |= {str(parent) for path in put for parent in PurePosixPath(path).parents} - above
    return lost


def timed(tree: Mapping[str, Node], lost: set[str]) -> dict[str, Node]:
    """The tree without those times."""
    return {path: replace(node, mtime_ns=0) if path in lost else node for path, node in tree.items()}


@pytest.fixture
def compare(daemon: Containerd, tmp_path: Path, table: Callable[[Table], Add]) -> Compare:
    """Unpacks layers by us and by both peers, and fails with what differs; returns our tree."""
    add = table(TREES)

    def compared(name: str, blobs: Sequence[bytes]) -> Mapping[str, Node]:
        tars = [plain(blob) for blob in blobs]
        ours = tmp_path / "ours"
        ours.mkdir()
        for blob in blobs:
            apply_layer(io.BytesIO(blob), ours, Scope())
        mine = snapshot(ours)
        found = {}
        for peer in ("umoci", "containerd"):
            place = tmp_path / f"{name}-{peer}"
            place.mkdir()
            tree = by_umoci(place, tars) if peer == "umoci" else by_containerd(daemon, place, blobs, tars)
            lost = untimed(mine, tars, peer)
            found[peer] = differences(timed(mine, lost), timed(snapshot(tree), lost))
        linked = sum(1 for node in mine.values() if node.hardlinks)
        add(name, len(mine), linked, *(len(lines) for lines in found.values()))
        assert found == {"umoci": [], "containerd": []}
        return mine

    return compared


@pytest.mark.parametrize("name", ["musl-amd64", "glibc-amd64"])
def test_busybox_is_the_same_tree(name: str, compare: Compare, images_of_others: Path) -> None:
    """The official images: hundreds of names of one file."""
    mine = compare(name, [(images_of_others / "busybox" / name / "rootfs.tar.gz").read_bytes()])
    assert sum(1 for node in mine.values() if node.hardlinks) > 400


@pytest.mark.parametrize(
    "name", ["test-oci-zstd-image.tar", "test-oci-estargz-image.tar", "alpine-310.tar.gz"]
)
def test_archives_of_others_are_the_same_tree(name: str, compare: Compare, images_of_others: Path) -> None:
    """zstd, eStargz, and what docker save wrote."""
    if "zstd" in name and sys.version_info < (3, 14):
        require("module:backports.zstd")
    compare(name.partition(".")[0], blobs_of(images_of_others / name))


def test_cpython_s_own_archive_is_the_same_tree(compare: Compare) -> None:
    """testtar.tar: every format and oddity that tarfile is tested with; sparse members too."""
    require("module:test")
    mine = compare("testtar", [cpython_archive(REFUSED)])
    # All forms of one sparse file: of the three of PAX both peers agree, of the old one GNU tar does (test_sparse).
    assert (
        len(
            {mine[f"gnu/sparse-{form}"].sha256 for form in ("0.0", "0.1", "1.0")}
            | {mine["ustar/sparse"].sha256}
        )
        == 1
    )


@pytest.mark.soak
def test_debian_is_the_same_tree(compare: Compare) -> None:
    """Three layers of 31,000 entries, a whiteout among them."""
    from tests.parts.realimages import big_image

    layout = big_image()
    manifest = json.loads(blob_path(layout, layout_root(layout)["digest"]).read_bytes())
    compare(
        "debian",
        [blob_path(layout, layer["digest"]).read_bytes() for layer in manifest["layers"]],
    )
