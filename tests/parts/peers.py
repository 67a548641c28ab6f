"""Root filesystems as others unpack them: umoci, containerd's native snapshotter, GNU tar and bsdtar."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from tests.parts.images import CONFIG, CREATED, LAYER, MANIFEST, blob_path, sha256, to_json, write_index
from tests.parts.required import program

if TYPE_CHECKING:
    from tests.parts.containerd import Containerd


def layout_of(folder: Path, layers: Sequence[bytes], plain: Sequence[bytes]) -> Path:
    """An OCI layout (tag ``latest``) of an image of these layers, whose tars are ``plain``; lowest first."""

    def put(raw: bytes, media: str) -> dict[str, object]:
        path = blob_path(folder, sha256(raw))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return {"mediaType": media, "digest": sha256(raw), "size": len(raw)}

    config = {
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [sha256(raw) for raw in plain]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(to_json(config), CONFIG),
        "layers": [put(raw, LAYER + _suffix(raw)) for raw in layers],
    }
    write_index(folder, {"latest": put(to_json(manifest), MANIFEST)})
    return folder


def _suffix(raw: bytes) -> str:
    return "+gzip" if raw[:2] == b"\x1f\x8b" else "+zstd" if raw[:4] == b"\x28\xb5\x2f\xfd" else ""


def by_umoci(folder: Path, plain: Sequence[bytes]) -> Path:
    """The tree that ``umoci unpack`` makes of layers given as tars (it knows no compression but gzip)."""
    layout = layout_of(folder / "layout", [gzip.compress(raw, 1, mtime=0) for raw in plain], plain)
    done = subprocess.run(
        [program("umoci"), "unpack", "--image", f"{layout}:latest", str(folder / "bundle")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "bundle/rootfs"


def by_containerd(daemon: Containerd, folder: Path, layers: Sequence[bytes], plain: Sequence[bytes]) -> Path:
    """The tree of containerd's native snapshotter, of layers as they are."""
    layout = layout_of(folder / "layout", layers, plain)
    with tarfile.open(folder / "image.tar", "w") as archive:
        for path in sorted(layout.rglob("*")):
            archive.add(path, path.relative_to(layout).as_posix(), recursive=False)
    name = f"peer.example/{folder.name}"
    daemon.ctr("images", "import", "--snapshotter", "native", "--base-name", name, str(folder / "image.tar"))
    chain = sha256(plain[0])
    for raw in plain[1:]:
        chain = sha256(f"{chain} {sha256(raw)}".encode())
    # A view is collected soon, but of its image's tree, which stays: "mount -t bind SOURCE TARGET -o …".
    view = [
        "snapshots",
        "--snapshotter",
        "native",
        "view",
        "--target",
        "/target",
        f"view-{folder.name}",
        chain,
    ]
    return Path(daemon.ctr(*view).split()[3])


def by_gnu_tar(folder: Path, archive: bytes) -> Path:
    """The tree that GNU tar makes of an archive, as root."""
    return _by_tar(folder, archive, "tar", "--same-owner", "--xattrs", "--xattrs-include=*")


def by_bsdtar(folder: Path, archive: bytes) -> Path:
    """The tree that libarchive's tar makes of an archive, as root."""
    return _by_tar(folder, archive, "bsdtar", "--xattrs")


def _by_tar(folder: Path, archive: bytes, name: str, *options: str) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    done = subprocess.run(
        [program(name), "-x", "-p", "--numeric-owner", *options, "-C", str(tree), "-f", "-"],
        input=archive,
        capture_output=True,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return tree
