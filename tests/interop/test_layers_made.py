"""Layers that we make, applied by others; snapshots that the kernel mounts."""

from __future__ import annotations

import gzip
import io
import os
import random
import shlex
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from ocidist.layers.diff import write_layer
from ocidist.scope import Scope
from ocidist.trees.directory import DirectoryReader
from tests.parts.containerd import Containerd
from tests.parts.images import layout_root
from tests.parts.peers import by_containerd, by_umoci, layout_of
from tests.parts.processes import Program
from tests.parts.required import program, require
from tests.parts.tars import directory, entry
from tests.parts.tars import layer as tar
from tests.parts.trees import assert_same, snapshot

TIMES = [1_000_000_000, 1_234_567_890_123_456_789, 1_600_000_000_500_000_000]
NAMES = ["a", "b", "c.d", "ä", "n" * 101, "m" * 200]


def grow(root: Path, seed: int) -> Path:
    """A tree with every type of entry, names that are shared by all seeds, and much that differs."""
    chance = random.Random(seed)
    root.mkdir()
    folders, files = [root], list[Path]()
    for folder in folders:
        for name in NAMES:
            path, kind = folder / name, chance.randrange(9)
            if kind == 0 and len(folders) < 9:
                path.mkdir()
                folders.append(path)
            elif kind in (1, 2, 3):
                path.write_bytes(chance.choice([b"", b"x", b"y" * 600, b"z" * 70_000]))
                os.chmod(path, chance.choice([0o644, 0o4755, 0o600]))
                os.chown(path, chance.choice([0, 1000, 3_000_000]), 0)
                if chance.random() < 0.3:
                    os.setxattr(path, "user.one", b"1")
                files.append(path)
            elif kind == 4 and files:
                os.link(chance.choice(files), path)
            elif kind == 5:
                os.symlink(chance.choice(["a", "/etc/passwd", "../b"]), path)
            elif kind == 6:
                os.mkfifo(path, 0o640)
            elif kind == 7:
                os.mknod(path, 0o020600, os.makedev(1, chance.choice([3, 5])))
    for path in sorted(root.rglob("*"), reverse=True):
        time = chance.choice(TIMES)
        os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(root, ns=(TIMES[0], TIMES[0]))
    return root


def layer(lower: Path | None, upper: Path) -> bytes:
    """The layer between two directories."""
    out, above = io.BytesIO(), DirectoryReader(upper)
    below = DirectoryReader(lower) if lower is not None else None
    write_layer(below, above, out.write, Scope())
    above.close()
    if below is not None:
        below.close()
    return out.getvalue()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    require("root", "containerd", "ctr", "umoci")
    with Containerd(tmp_path_factory.mktemp("containerd") / "daemon") as running:
        yield running


@pytest.mark.parametrize("seed", range(3))
def test_umoci_and_containerd_make_the_same_tree_of_our_layers(
    seed: int, tmp_path: Path, daemon: Containerd
) -> None:
    """Two trees, the second as a layer over the first: all of the second is there, and nothing else."""
    one, two = grow(tmp_path / "one", seed), grow(tmp_path / "two", seed + 100)
    blobs = [layer(None, one), layer(one, two)]
    plain = [gzip.decompress(blob) for blob in blobs]
    wanted = snapshot(two)
    for peer in ("umoci", "containerd"):
        (tmp_path / peer).mkdir()
    assert_same(wanted, snapshot(by_umoci(tmp_path / "umoci", plain)), root=False)
    # Its native snapshotter copies the tree beneath, and folders get the time of that.
    folders = {path for path, node in wanted.items() if node.type == "directory"}
    named = tmp_path / "containerd" / f"made-{seed}"
    named.mkdir()
    found = snapshot(by_containerd(daemon, named, blobs, plain))
    assert set(found) == set(wanted)
    others = {path: node for path, node in wanted.items() if path not in folders}
    assert_same(others, {path: found[path] for path in others})
    assert_same(
        {path: wanted[path] for path in folders},
        {path: found[path] for path in folders},
        ignore={"mtime_ns", "xattrs"},
        root=False,
    )


def mounted(script: str) -> str:
    """What a script prints in a mount namespace of its own, which ends with it."""
    done = subprocess.run(
        [program("unshare"), "-m", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def two_layers(ocidist: Program, folder: Path) -> str:
    """An image made by hand, its second layer over the first: its ChainID."""
    chain = ""
    for number, script in enumerate(
        ("echo kept > kept; echo gone > gone; mkdir d; touch d/old", "rm gone d/old; touch d/new")
    ):
        target = folder / f"layer-{number}"
        target.mkdir()
        mount = ocidist.ok("rootfs", "prepare", chain, str(target)).text
        mounted(f"set -e\n{mount}cd {shlex.quote(str(target))}; {script}")
        chain = ocidist.ok("rootfs", "commit", str(target)).text.split()[2]
    return chain


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_what_prepare_prints_can_be_mounted_and_what_is_written_committed(kind: str, tmp_path: Path) -> None:
    """In a mount namespace: the tree is there, changes are taken, a view takes none; diff and commit see them."""
    require("root", "unshare")
    ocidist = Program(tmp_path / "home", tmp_path / "root", options=("--snapshotter", kind))
    chain = two_layers(ocidist, tmp_path)
    target, view = tmp_path / "at", tmp_path / "view"
    target.mkdir()
    view.mkdir()
    mount = ocidist.ok("rootfs", "prepare", chain, str(target)).text
    looking = ocidist.ok("rootfs", "view", chain, str(view)).text
    script = f"""set -e
{mount}{looking}
cd {shlex.quote(str(target))}
test "$(cat kept)" = kept && test ! -e gone && test "$(ls d)" = new
echo changed > kept; rm d/new; rmdir d; mkdir d; mkdir d/inside; mknod null c 1 3; ln kept other
if touch {shlex.quote(str(view))}/x 2>/dev/null; then echo a view was written to; exit 1; fi
test "$(cat {shlex.quote(str(view))}/kept)" = kept
"""
    mounted(script)
    rows = ocidist.ok("rootfs", "diff", str(target), "--format", "csv").text.splitlines()[1:]
    assert [(row.split(",")[0], row.split(",")[-1]) for row in rows if not row.endswith(",/")] == [
        ("modified", "/d"),
        ("added", "/d/inside"),
        ("deleted", "/d/new"),
        ("modified", "/kept"),
        ("added", "/null"),
        ("added", "/other"),
    ]
    top = ocidist.ok("rootfs", "commit", str(target)).text.split()[2]
    again = tmp_path / "again"
    again.mkdir()
    mount = ocidist.ok("rootfs", "prepare", top, str(again)).text
    script = f"set -e\n{mount}cd {shlex.quote(str(again))}; cat kept other; ls -A . d; stat -c %h kept\n"
    assert mounted(script).split() == [
        *("changed", "changed", ".:", "d", "kept", "null", "other", "d:", "inside", "2")
    ]


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_the_kernel_shows_an_opaque_root_and_whiteout_devices_alike(kind: str, tmp_path: Path) -> None:
    """What a mount can't say of a layer's root, or of a device 0:0, is said so that both kinds have the same tree."""
    require("root", "unshare")
    ocidist = Program(tmp_path / "home", tmp_path / "root", options=("--snapshotter", kind))
    tars = [
        tar(directory("old"), entry("old/file", b"1"), entry("file", b"2")).getvalue(),
        tar(
            entry(".wh..wh..opq"), directory("new"), entry("new/kept", b"3"), entry("new/gone", b"4")
        ).getvalue(),
        tar(entry("new/gone", kind="3", device=(0, 0)), entry("null", kind="3", device=(1, 3))).getvalue(),
    ]
    layout = layout_of(tmp_path / "layout", tars, tars)
    manifest = layout_root(layout)["digest"]
    for blob in (layout / "blobs/sha256").iterdir():
        ocidist.ok("ingest", blob.name, stdin=blob.read_bytes())
    chain = ocidist.ok("rootfs", "unpack", manifest).text.split()[-1]
    view = tmp_path / "view"
    view.mkdir()
    mount = ocidist.ok("rootfs", "view", chain, str(view)).text
    seen = mounted(f"set -e\n{mount}cd {shlex.quote(str(view))}; find . -mindepth 1 | sort").split()
    assert seen == ["./new", "./new/kept", "./null"]
