"""What an ordinary user makes of owners: the attribute that umoci writes too."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from ocidist.layers.apply.layer import Policy, apply_layer
from ocidist.scope import Scope
from ocidist.trees.rootless import ATTRIBUTE, decode_owner, encode_owner
from tests.parts.peers import layout_of
from tests.parts.required import lacking, program, require
from tests.parts.tars import directory, entry, gzipped, hardlink, layer, pax, record, symlink
from tests.parts.trees import assert_same, snapshot

ENTRIES = [
    directory("d", mode=0o750, uid=1000, gid=1000),
    entry("d/file", b"x", mode=0o640, uid=1000, gid=65534),
    entry("d/group", b"x", gid=8),
    entry("root", b"x"),
    hardlink("hard", "d/file"),
    entry("large", b"x", uid=4294967294, gid=4294967294),
]


@pytest.mark.parametrize(
    ("owner", "raw"),
    [
        ((0, 0), b""),
        ((0, 8), b"\x08\xff\xff\xff\xff\x0f\x10\x08"),
        ((1000, 0), b"\x08\xe8\x07\x10\xff\xff\xff\xff\x0f"),
        ((127, 128), b"\x08\x7f\x10\x80\x01"),
        ((4294967294, 4294967294), b"\x08\xfe\xff\xff\xff\x0f\x10\xfe\xff\xff\xff\x0f"),
    ],
)
def test_owners_as_a_protocol_buffer(owner: tuple[int, int], raw: bytes) -> None:
    """Varints by field number, nothing for root, and "leave it" where one of the two is root's."""
    assert encode_owner(*owner) == raw
    assert decode_owner(raw) == owner


@pytest.mark.parametrize(
    "raw", [b"\x08", b"\x08\x80", b"\x0a\x01", b"\x08\xff\xff\xff\xff\xff\x0f", b"\x80" * 99]
)
def test_what_is_no_owner(raw: bytes) -> None:
    """Cut, of another type, too large, endless."""
    assert decode_owner(raw) is None


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for everyone, on a file system with attributes."""
    require("os:setxattr", "kernel")
    with tempfile.TemporaryDirectory(prefix="ocidist-rootless-") as folder:
        os.chmod(folder, 0o777)
        try:
            os.setxattr(folder, "user.probe", b"x")
        except OSError:
            lacking("a file system with extended attributes for the tests")
        os.removexattr(folder, "user.probe")
        yield Path(folder)


def test_e56_owners_are_written_beside_files_and_directories(place: Path) -> None:
    """One that an archive brings is not believed; links and FIFOs can't have it, and are counted."""
    root = place / "root"
    root.mkdir()
    policy = Policy(privileged=False)
    forged = pax(
        record("SCHILY.xattr.user.rootlesscontainers", b"\x08\x01"), record("SCHILY.xattr.user.kept", b"1")
    )
    more = [symlink("link", "d", uid=1), entry("pipe", kind="6", gid=1), forged, entry("forged", b"x")]
    result = apply_layer(layer(*ENTRIES, *more), root, Scope(), policy=policy)
    assert (result.skipped, result.disowned) == (0, 2)
    found = snapshot(root)
    owners = {path: node.xattrs.get(os.fsdecode(ATTRIBUTE)) for path, node in found.items()}
    assert owners["d"] == b"\x08\xe8\x07\x10\xe8\x07"
    assert owners["d/file"] == owners["hard"] == encode_owner(1000, 65534)
    assert owners["d/group"] == encode_owner(0, 8)
    assert owners["root"] is None
    assert dict(found["forged"].xattrs) == {"user.kept": b"1"}
    # The next layer's directory is root's.
    apply_layer(layer(directory("d")), root, Scope(), policy=policy)
    assert snapshot(root)["d"].xattrs == {}


def test_e56_owners_are_counted_where_they_can_not_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system, or a system, without extended attributes."""
    monkeypatch.delattr(os, "setxattr", raising=False)
    result = apply_layer(layer(*ENTRIES), tmp_path, Scope(), policy=Policy(privileged=False))
    assert result.disowned == 4


def test_e56_the_tree_of_an_ordinary_user_equals_umoci_s(place: Path) -> None:
    """umoci unpack --rootless and we, as nobody: modes, owners and attributes."""
    require("root", "umoci", "processes")
    raw = gzipped(*ENTRIES).getvalue()
    layout = layout_of(place / "layout", [raw], [gzip.decompress(raw)])
    shutil.copytree(Path(__file__).resolve().parents[3] / "ocidist", place / "code/ocidist")
    (place / "layer").write_bytes(raw)
    for folder, names, files in os.walk(place):
        for name in names + files:
            os.chmod(os.path.join(folder, name), 0o755)
    code = (
        "import os, sys; sys.path.insert(0, 'code'); from pathlib import Path\n"
        "from ocidist.layers.apply.layer import apply_layer; from ocidist.scope import Scope\n"
        "os.mkdir('ours'); print(apply_layer(open('layer', 'rb'), Path('ours'), Scope()).disowned)\n"
    )
    commands = [
        [program("umoci"), "unpack", "--rootless", "--image", f"{layout}:latest", str(place / "theirs")],
        ["/usr/bin/python3", "-I", "-S", "-B", "-c", code],
    ]
    for command in commands:
        done = subprocess.run(
            command,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd=place,
            env={"PATH": "/usr/bin:/bin", "HOME": str(place)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout == "0\n"
    ours, theirs = snapshot(place / "ours"), snapshot(place / "theirs/rootfs")
    assert ours["d/file"].xattrs
    assert_same(ours, theirs, root=False)


def test_owners_as_meant_are_what_a_layer_of_the_tree_says(place: Path) -> None:
    """Applied as nobody, changed, and the difference applied as root: owners are the image's, and no mark is left."""
    require("root", "processes")
    raw = layer(*ENTRIES, entry("untouched", b"u", uid=7)).getvalue()
    (place / "layer").write_bytes(raw)
    shutil.copytree(Path(__file__).resolve().parents[3] / "ocidist", place / "code/ocidist")
    code = (
        "import os, sys; sys.path.insert(0, 'code'); from pathlib import Path\n"
        "from ocidist.layers.apply.layer import apply_layer; from ocidist.scope import Scope\n"
        "from ocidist.trees.directory import DirectoryReader; from ocidist.layers.diff import write_layer\n"
        "from ocidist.trees.compare import compare\n"
        "os.umask(0o22)\n"
        "for name in ('lower', 'upper'):\n"
        "    os.mkdir(name); apply_layer(open('layer', 'rb'), Path(name), Scope())\n"
        "with open('upper/d/file', 'a') as file: file.write('changed')\n"
        "with open('upper/d/group', 'a') as file: file.write('changed')\n"
        "with open('upper/new', 'w') as file: file.write('new')\n"
        "os.utime('upper', (5, 5)); os.utime('lower', (5, 5))\n"
        "with open('made', 'wb') as made:\n"
        "    write_layer(DirectoryReader('lower'), DirectoryReader('upper'), made.write, Scope(), compress=False)\n"
        "with open('whole', 'wb') as made:\n"
        "    write_layer(None, DirectoryReader('upper'), made.write, Scope(), compress=False)\n"
        "print([os.fsdecode(c.path) for c in compare(DirectoryReader('lower'), DirectoryReader('upper'), Scope())])\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-B", "-c", code],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['d/file', 'd/group', 'hard', 'new']\n"
    owners = {"d": (1000, 1000), "d/file": (1000, 65534), "d/group": (0, 8), "hard": (1000, 65534)}
    for made, more in (
        ("made", {"new": (0, 0)}),
        ("whole", {"new": (0, 0), "untouched": (7, 0), "root": (0, 0), "large": (4294967294,) * 2}),
    ):
        root = place / f"{made}-applied"
        root.mkdir()
        apply_layer(io.BytesIO((place / made).read_bytes()), root, Scope(), policy=Policy(privileged=True))
        found = snapshot(root)
        assert {path: (node.uid, node.gid) for path, node in found.items() if path != "."} == {
            **owners,
            **more,
        }
        assert all(not node.xattrs for node in found.values())
