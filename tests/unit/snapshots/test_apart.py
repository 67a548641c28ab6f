"""Layers extracted apart and brought together, by a merge or as a stack, are what one after the other makes."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import struct
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Callable, Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ocidist.errors import LayerError
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.apply.policy import Policy
from ocidist.layers.diff import write_layer
from ocidist.scope import Scope
from ocidist.snapshots.apart import Apart, Marks, NeedsOrder, Over
from ocidist.snapshots.copying import copy_tree
from ocidist.snapshots.merge import merge
from ocidist.snapshots.stack import stack
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.protocols import Reader
from ocidist.trees.stacked import StackedReader
from tests.parts.forest import TREES, Branch, plant
from tests.parts.required import lacking, require
from tests.parts.tars import directory, entry, hardlink, layer, pax, record, symlink
from tests.parts.trees import Node, assert_same, snapshot

PRIVILEGED = Policy.of_process().privileged


def apply(raw: bytes, root: Path, policy: Policy | None = None) -> None:
    apply_layer(io.BytesIO(raw), root, Scope(), policy=policy, threads=False)


def in_turn(layers: Sequence[bytes], root: Path) -> Path:
    """What is wanted."""
    root.mkdir()
    for raw in layers:
        apply(raw, root)
    return root


def extract(raw: bytes, root: Path) -> Apart | None:
    """As a worker does it; None where the layer needs those beneath it."""
    apart = Apart(PRIVILEGED)
    root.mkdir()
    try:
        apply(raw, root, Policy(PRIVILEGED, apart))
    except LayerError:
        return None
    return apart


def over(raw: bytes, root: Path, lower: Reader, linked: DirectoryReader | None = None) -> Marks:
    """As it is done where the layers beneath are there."""
    layering = Over(lower, PRIVILEGED, Scope(), linked=linked)
    root.mkdir()
    apply(raw, root, Policy(PRIVILEGED, layering))
    return layering.marks


def merged(layers: Sequence[bytes], folder: Path, *, apart: bool) -> tuple[Path, int]:
    """The native way, and how many layers were merged without knowing those beneath."""
    base, count = folder / "base", 0
    base.mkdir()
    apply(layers[0], base)
    for number, raw in enumerate(layers[1:]):
        root = folder / f"apart-{number}"
        found = extract(raw, root) if apart else None
        if found is not None:
            try:
                merge(base, root, found.marks, Scope(), "layer")
                count += 1
                continue
            except NeedsOrder:
                pass
        root = folder / f"over-{number}"
        with closing(DirectoryReader(base)) as lower, closing(DirectoryReader(base)) as linked:
            marks = over(raw, root, lower, linked)
        merge(base, root, marks, Scope(), "layer")
    return base, count


def stacked(layers: Sequence[bytes], folder: Path, *, apart: bool) -> tuple[Path, int]:
    """The overlay way, flattened again, and how many layers were settled without knowing those beneath."""
    stack_of = [folder / "layer-0"]
    count = 0
    stack_of[0].mkdir()
    apply(layers[0], stack_of[0])
    for number, raw in enumerate(layers[1:], 1):
        with closing(StackedReader(stack_of)) as lower:
            root = folder / f"layer-{number}"
            found = extract(raw, root) if apart else None
            if found is not None:
                try:
                    stack(root, lower, found.marks, PRIVILEGED, Scope(), "layer")
                    count += 1
                except NeedsOrder:
                    found = None
            if found is None:
                root = folder / f"layer-{number}-over"
                stack(root, lower, over(raw, root, lower), PRIVILEGED, Scope(), "layer")
        stack_of.insert(0, root)
    reader, whole = StackedReader(stack_of), folder / "whole"
    whole.mkdir()
    copy_tree(reader, whole)
    reader.close()
    return whole, count


def ways(apart: bool) -> list[Callable[[Sequence[bytes], Path], tuple[Path, int]]]:
    """The native one, then overlay's."""
    return [partial(merged, apart=apart), partial(stacked, apart=apart)]


BASE = layer(
    directory("./", mode=0o751, mtime=5),
    directory("usr", mtime=6),
    directory("usr/lib", mode=0o711, mtime=7),
    entry("usr/lib/so", b"elf", mtime=8),
    symlink("lib", "usr/lib"),
    symlink("all", "/"),
    directory("old", mode=0o711, uid=9, mtime=-1_141_592_653),
    directory("d", mode=0o700, mtime=9),
    entry("d/one", b"1"),
    entry("d/two", b"2"),
    hardlink("d/three", "d/two"),
    entry("file", b"f"),
).getvalue()

# What a layer does, and whether it can be extracted before the one beneath it is known.
CASES = {
    "new entries": (layer(entry("usr/lib/new", b"n"), entry("usr/share/x/y", b"y")), True),
    "a whiteout": (layer(entry("d/.wh.one")), True),
    "a whiteout of a tree": (layer(entry(".wh.usr")), True),
    "an opaque directory": (
        layer(directory("d", mode=0o755), entry("d/.wh..wh..opq"), entry("d/new", b"n")),
        True,
    ),
    "opaque, told last, of a directory that no entry describes": (
        layer(entry("d/new", b"n"), entry("d/.wh..wh..opq")),
        True,
    ),
    "a tree hidden and made anew": (layer(entry(".wh.d"), directory("d", mtime=3), entry("d/x", b"x")), True),
    "a tree hidden that one's own entry is in": (layer(entry("d/x", b"x"), entry(".wh.d")), True),
    "a whiteout of nothing": (layer(entry(".wh.nothing"), entry("no/.wh.nothing")), True),
    "a file over a directory": (layer(entry("usr", b"file now")), True),
    "a directory over a file": (layer(directory("file", mtime=4), entry("file/in", b"i")), True),
    "an implied directory over a file": (layer(entry("file/in", b"i")), True),
    "a directory over a link": (layer(directory("lib", mtime=4), entry("lib/own", b"o")), True),
    "one of two names": (layer(entry("d/two", b"other")), True),
    "the root": (layer(directory("./", mode=0o700, mtime=77), entry("x", b"x")), True),
    "through a link beneath": (layer(entry("lib/through", b"t")), False),
    "a whiteout through a link beneath": (layer(entry("lib/.wh.so")), False),
    "a hardlink to a file beneath": (layer(hardlink("d/four", "d/two")), False),
    "the root, opaque": (layer(entry("new", b"n"), entry(".wh..wh..opq"), entry("d/x", b"x")), True),
    "the root, opaque by another name": (layer(entry("all/.wh..wh..opq"), entry("new", b"n")), False),
    "the root, opaque and described": (
        layer(directory("./", mode=0o711, mtime=7), entry(".wh..wh..opq")),
        True,
    ),
    "a device that a mount takes for a whiteout": (
        layer(entry("d/one", kind="3"), entry("n", kind="3")),
        True,
    ),
    "such a device in place of one's own": (
        layer(entry("d/one", b"1"), entry("d/one", kind="3"), directory("usr", mtime=9)),
        True,
    ),
    "such a device, replaced": (layer(entry("d", kind="3"), entry("d/in", b"i")), True),
    "a directory of the year 1933": (
        layer(directory("d", mode=0o3711, uid=7, gid=8, mtime=-1_141_592_653), entry("d/x", b"x")),
        True,
    ),
    "a new directory of the year 1933": (
        layer(entry("new/x", b"x"), directory("new", mode=0o711, uid=7, gid=8, mtime=-1_141_592_653)),
        True,
    ),
    "a root of the year 1933": (
        layer(directory("./", mode=0o3711, uid=7, gid=8, mtime=-1_141_592_653), entry("x", b"x")),
        True,
    ),
    "into a directory of the year 1933": (layer(entry("old/x", b"x")), True),
    "hardlinks of AUFS": (
        layer(
            directory(".wh..wh.plnk"),
            entry(".wh..wh.plnk/1.2", b"held", mtime=3),
            hardlink("d/one", ".wh..wh.plnk/1.2"),
            hardlink("n", ".wh..wh.plnk/1.2"),
        ),
        True,
    ),
    "a link of its own": (layer(symlink("l", "usr/lib"), entry("l/x", b"x")), True),
    "a whiteout through a link of its own": (layer(symlink("d", "usr/lib"), entry("d/.wh.so")), False),
    "a whiteout, then a link in its place": (layer(entry("d/.wh.one"), symlink("d", "usr/lib")), False),
    "opaque through a link of its own": (layer(symlink("d", "usr/lib"), entry("d/.wh..wh..opq")), False),
    "opaque, then a link in its place": (layer(entry("d/.wh..wh..opq"), symlink("d", "usr/lib")), False),
    "a file, then a directory": (layer(entry("d", b"f"), directory("d", mode=0o711)), True),
    "a file, then what is in it": (layer(entry("d", b"f"), entry("d/new", b"n")), True),
    "a FIFO, then a directory": (layer(entry("d", kind="6"), directory("d"), entry("d/new", b"n")), True),
    "a directory, a file, a directory": (layer(directory("d"), entry("d", b"f"), directory("d")), True),
    "through a link beneath, that is hidden then": (
        layer(entry("lib/through", b"t"), entry(".wh.lib"), entry("lib/own", b"o")),
        False,
    ),
    "through a link beneath, replaced then": (
        layer(entry("lib/through", b"t"), directory("lib", mtime=4), entry("lib/own", b"o")),
        False,
    ),
    "a whiteout through a link of its own, which is replaced": (
        layer(symlink("l", "d"), entry("l/.wh.one"), entry("l", kind="3")),
        True,
    ),
    "a whiteout in a directory in place of a link beneath": (
        layer(directory("lib"), entry("lib/.wh.so")),
        True,
    ),
    "a whiteout through a link beneath, replaced then": (
        layer(entry("lib/.wh.so"), entry("lib", b"f")),
        False,
    ),
    "a whiteout below a file in place of a link beneath": (
        layer(entry("lib", b"f"), entry("lib/.wh.so")),
        True,
    ),
    "a hardlink to itself beneath": (layer(hardlink("d/one", "d/one")), False),
}


@pytest.mark.parametrize("name", CASES)
def test_each_way_makes_the_same_tree(name: str, tmp_path: Path) -> None:
    """Merged, settled, or applied over a stack: entries, modes, times, links."""
    require("os:link", "kernel", "root")
    made, known = CASES[name]
    # A last layer on top, so that what was made holds something.
    layers = [BASE, made.getvalue(), layer(entry("d/top", b"t"), entry("usr/lib/top", b"t")).getvalue()]
    # What no entry describes gets the time at which it was made.
    unset = {"mtime_ns"}
    wanted = snapshot(in_turn(layers, tmp_path / "wanted"))
    for number, way in enumerate((*ways(True), *ways(False))):
        folder = tmp_path / str(number)
        folder.mkdir()
        found, able = way(layers, folder)
        now = snapshot(found)
        assert_same(wanted, now, ignore=unset | ({"hardlinks"} if number % 2 and not known else set()))
        early = {path for path, node in wanted.items() if node.mtime_ns < 10**18 + 1}
        assert_same(
            {path: wanted[path] for path in early}, {path: now[path] for path in early}, ignore={"hardlinks"}
        )
        if number < 2:
            assert (able == 2) is known, "which layers can be extracted apart has changed"


# Of a directory: rwx for user 1000 in what is made there.
_RIGHTS = ((1, 7, -1), (2, 7, 1000), (4, 5, -1), (16, 7, -1), (32, 5, -1))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in _RIGHTS)
DEFAULT_ACL = "system.posix_acl_default"
MARKED = pax(record("SCHILY.xattr.user.one", "1"))
ORDERED = {
    "opaque through a link beneath, to what becomes a link": [
        layer(symlink("a", "b"), directory("b"), entry("b/x", b"x")),
        layer(entry("a/.wh..wh..opq"), symlink("b", ".")),
    ],
    "a hardlink in place of a directory that its target leads through": [
        layer(symlink("c", "a/.."), entry("f", b"f"), directory("a"), entry("a/x", b"x")),
        layer(hardlink("a", "c/f")),
    ],
    "a whiteout through a link in what a file replaces": [
        layer(directory("b"), symlink("b/c", "/d"), directory("d"), entry("d/x", b"x")),
        layer(entry("b/c/.wh.x"), entry("b", b"f")),
    ],
    "a whiteout through a link in what a file has replaced": [
        layer(directory("b"), symlink("b/c", "/d"), directory("d"), entry("d/x", b"x")),
        layer(entry("b", b"f"), entry("b/c/.wh.x")),
    ],
    "a directory with attributes, hidden but for what is in it": [
        layer(MARKED, directory("d", mode=0o711, mtime=9), entry("d/old", b"o")),
        layer(entry("d/x", b"x"), entry(".wh.d")),
    ],
    "a hardlink whose target is told through a directory that isn't there": [
        layer(entry("f", b"f")),
        layer(entry("g", b"g"), hardlink("h", "none/../g")),
    ],
    "over nothing, a whiteout through a link to itself": [
        layer(),
        layer(symlink("a/c", "a/../c/a"), entry("a/c/.wh.b"), entry("b", b"b")),
    ],
    "over nothing again, a whiteout of a directory of a device that is left out": [
        layer(entry("a")),
        layer(entry(".wh.a")),
        layer(entry("c/c/b", kind="3"), entry("c/.wh.c")),
    ],
    "into a directory with a default ACL": [
        layer(pax(record(f"SCHILY.xattr.{DEFAULT_ACL}", ACL)), directory("d", mtime=9)),
        layer(entry("d/f", mode=0o640), directory("d/in", mode=0o750), entry("d/p", kind="6", mode=0o640)),
    ],
    "the same by an opaque root": [
        layer(MARKED, directory("d", mode=0o711, mtime=9), entry("d/old", b"o")),
        layer(entry("d/x", b"x"), entry(".wh..wh..opq")),
    ],
}


@pytest.mark.parametrize("name", ORDERED)
def test_e55_what_depends_on_the_order_of_entries_is_the_same_each_way(name: str, tmp_path: Path) -> None:
    """Where a whiteout leads, what a hardlink names, and what stays of a directory."""
    require("os:link", "kernel", "root")
    layers = [each.getvalue() for each in ORDERED[name]]
    wanted = snapshot(in_turn(layers, tmp_path / "wanted"))
    for number, way in enumerate((*ways(True), *ways(False))):
        folder = tmp_path / str(number)
        folder.mkdir()
        now = snapshot(way(layers, folder)[0])
        assert_same(wanted, now, ignore={"mtime_ns", "hardlinks"})
        old = {path for path, node in wanted.items() if node.mtime_ns < 10**18 + 1}
        assert old == {path for path, node in now.items() if node.mtime_ns < 10**18 + 1}


def test_the_default_acl_of_a_place_is_not_that_of_what_is_unpacked_or_copied_there(tmp_path: Path) -> None:
    """It stays with the directories that were there."""
    require("kernel")
    for name in "base", "base/d", "copy":
        (tmp_path / name).mkdir()
        try:
            os.setxattr(tmp_path / name, DEFAULT_ACL, ACL)
        except OSError:
            lacking("a file system with ACLs for the tests")
    apply(layer(entry("d/f", b"1"), directory("n"), entry("n/g", b"2")).getvalue(), tmp_path / "base")
    with closing(DirectoryReader(tmp_path / "base")) as reader:
        copy_tree(reader, tmp_path / "copy")
    found = {path: sorted(node.xattrs) for path, node in snapshot(tmp_path).items() if path != "."}
    assert {path for path, names in found.items() if DEFAULT_ACL in names} == {
        "base",
        "base/d",
        "copy",
        "copy/d",
    }
    for path in "base/d/f", "base/n", "base/n/g", "copy/d/f", "copy/n", "copy/n/g":
        assert found[path] == []


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    "marks",
    [
        [entry("d/.wh.one"), entry("d/.wh..wh..opq")],
        [entry("d/.wh.one"), entry("d/.wh.two"), entry(".wh.d"), directory("d", mode=0o711)],
        [entry("d/.wh.one"), entry("d/new", b"n"), entry(".wh..wh..opq")],
    ],
    ids=["opaque", "hidden and made anew", "an opaque root"],
)
def test_no_whiteout_stands_in_an_opaque_directory(marks: list[bytes], apart: bool, tmp_path: Path) -> None:
    """There is nothing that it could hide, and a mount lists its name, of which no entry can be had then."""
    require("kernel", "root")
    stacked([BASE, layer(*marks).getvalue()], tmp_path, apart=apart)
    top = tmp_path / ("layer-1" if apart else "layer-1-over")
    assert [path for path in (top / "d").rglob("*") if stat.S_ISCHR(path.lstat().st_mode)] == []


_NAMES = ("a", "b", "c")


def _hostile(numbers: random.Random) -> bytes:
    """A layer in no order: names again and again, as everything, through links of any layer."""
    made: list[bytes] = []
    for number in range(numbers.randint(1, 6)):
        *above, last = (numbers.choice(_NAMES) for _ in range(numbers.randint(1, 3)))
        folder = "".join(f"{part}/" for part in above)
        link = numbers.choice(("", "/", "../")) + numbers.choice(("a", "b/c", "c/a"))
        made.append(
            numbers.choice(
                (
                    entry(folder + last, b"%d" % number),
                    directory(folder + last, mode=0o711),
                    symlink(folder + last, link),
                    entry(folder + last, kind="6"),
                    hardlink(folder + last, link),
                    entry(f"{folder}.wh.{last}"),
                    entry(f"{folder}.wh..wh..opq"),
                )
            )
        )
    return layer(*made).getvalue()


def _outcome(way: Callable[[], Path]) -> dict[str, Node] | None:
    try:
        return snapshot(way())
    except LayerError:
        return None


def test_e55_whatever_is_in_an_archive_each_way_makes_the_same_tree(tmp_path: Path) -> None:
    """How many cores there are, how large a layer is and which snapshotter is used, no ChainID tells."""
    require("os:link", "os:mkfifo", "kernel", "root")
    unset = {"mtime_ns", "hardlinks"}
    for seed in range(40):
        numbers, folder = random.Random(seed), tmp_path / str(seed)
        layers = [_hostile(numbers) for _ in range(numbers.randint(2, 3))]
        folder.mkdir()
        wanted = _outcome(lambda: in_turn(layers, folder / "turn"))  # noqa: B023 - called at once
        for number, way in enumerate((*ways(True), *ways(False))):
            place = folder / str(number)
            place.mkdir()
            found = _outcome(lambda: way(layers, place)[0])  # noqa: B023
            assert (wanted is None) is (found is None), (seed, number)
            if wanted is not None and found is not None:
                assert_same(wanted, found, ignore=unset)
        shutil.rmtree(folder)


def layers_of(trees: Sequence[Path]) -> list[bytes]:
    """The layers that lead from one tree to the next."""
    layers = []
    before: DirectoryReader | None = None
    for tree in trees:
        out, now = io.BytesIO(), DirectoryReader(tree)
        write_layer(before, now, out.write, Scope(), compress=False)
        layers.append(out.getvalue())
        if before is not None:
            before.close()
        before = now
    if before is not None:
        before.close()
    return layers


def check_random(a: Branch, b: Branch, c: Branch) -> None:
    """Three trees, one over the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trees = [plant(tree, folder / str(number)) for number, tree in enumerate((a, b, c))]
        layers = layers_of(trees)
        wanted = snapshot(trees[-1])
        assert_same(wanted, snapshot(in_turn(layers, folder / "turn")), root=False)
        for number, way in enumerate((*ways(True), *ways(False))):
            place = folder / f"way-{number}"
            place.mkdir()
            assert_same(wanted, snapshot(way(layers, place)[0]), root=False)


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=_QUIET,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
@given(TREES, TREES, TREES)
def test_random_layers_come_to_the_same_tree_each_way(a: Branch, b: Branch, c: Branch) -> None:
    """Every type of entry, replaced by every other."""
    require("os:link", "os:mkfifo", "kernel", "root")
    check_random(a, b, c)


@pytest.mark.soak
@settings(max_examples=2000, deadline=None, suppress_health_check=_QUIET)
@given(TREES, TREES, TREES)
def test_random_layers_come_to_the_same_tree_each_way_often(a: Branch, b: Branch, c: Branch) -> None:
    """The same, with trees that nobody has seen yet."""
    require("os:link", "os:mkfifo", "kernel", "root")
    check_random(a, b, c)
