"""The layer between two trees: applied to the one it gives the other, and it is the same each time."""

from __future__ import annotations

import gc
import gzip
import io
import os
import socket
import tarfile
import tempfile
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import HealthCheck, given, settings

from ocidist.errors import Cancelled, LayerError, OcidistError
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.diff import MadeLayer, write_layer
from ocidist.scope import Scope
from ocidist.snapshots.copying import copy_tree
from ocidist.spec.digest import Digest
from ocidist.stores.upkeep.usage import measure
from ocidist.trees.compare import compare, in_both
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.local_file import LocalFile
from ocidist.trees.protocols import Entry, Reader
from ocidist.trees.stacked import StackedReader
from ocidist.trees.verify import differences
from tests.parts.forest import TREES, Branch, plant
from tests.parts.required import require
from tests.parts.trees import assert_same, snapshot


def made(
    lower: Path | None, upper: Path, *, epoch: int | None = None, compress: bool = True
) -> tuple[MadeLayer, bytes]:
    """The layer between two directories, and its bytes."""
    out = io.BytesIO()
    one, two = DirectoryReader(lower) if lower else None, DirectoryReader(upper)
    try:
        layer = write_layer(one, two, out.write, Scope(), epoch=epoch, compress=compress)
    finally:
        two.close()
        if one is not None:
            one.close()
    assert (layer.digest, layer.size) == (Digest.of(out.getvalue()), len(out.getvalue()))
    return layer, out.getvalue()


def changes(lower: Path, upper: Path) -> list[tuple[str, str]]:
    one, two = DirectoryReader(lower), DirectoryReader(upper)
    found = [(change.kind, os.fsdecode(change.path)) for change in compare(one, two, Scope())]
    one.close()
    two.close()
    return found


def members(raw: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return archive.getmembers()


def check_round_trip(a: Branch, b: Branch) -> None:
    """apply(diff(a, b)) on a gives b; two diffs are the same bytes; what is the same gives nothing."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        lower, upper = plant(a, base / "a"), plant(b, base / "b")
        wanted = snapshot(upper)
        layer, raw = made(lower, upper)
        again, same = made(lower, upper)
        assert (layer, raw) == (again, same)
        assert layer.diff_id == Digest.of(gzip.decompress(raw))
        result = apply_layer(io.BytesIO(raw), lower, Scope(), threads=False)
        assert (result.diff_id, result.skipped) == (layer.diff_id, 0)
        assert_same(wanted, snapshot(lower))
        assert changes(lower, upper) == []
        assert made(lower, upper)[0].entries == 0
        whole = base / "whole"
        whole.mkdir()
        apply_layer(io.BytesIO(made(None, upper)[1]), whole, Scope(), threads=False)
        assert_same(wanted, snapshot(whole), root=False)


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, deadline=None, suppress_health_check=_QUIET, derandomize=True)
@given(TREES, TREES)
def test_a_layer_applied_to_the_one_tree_gives_the_other(a: Branch, b: Branch) -> None:
    """Files, links, symlinks, FIFOs and, as root, devices and owners: whatever changed into what."""
    require("os:link", "os:mkfifo", "kernel")
    check_round_trip(a, b)


@pytest.mark.soak
@settings(max_examples=4000, deadline=None, suppress_health_check=_QUIET)
@given(TREES, TREES)
def test_a_layer_applied_to_the_one_tree_gives_the_other_often(a: Branch, b: Branch) -> None:
    """The same, with trees that nobody has seen yet."""
    require("os:link", "os:mkfifo", "kernel")
    check_round_trip(a, b)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal trees."""
    require("kernel")  # times, of links too, that stay as they were set
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "d").mkdir()
    (one / "d/file").write_text("text")
    (one / "gone").write_text("x")
    os.symlink("d/file", one / "link")
    with closing(DirectoryReader(one)) as source:
        copy_tree(source, two)
    return one, two


def test_changes_are_told_in_order_and_only_where_there_are_any(trees: tuple[Path, Path]) -> None:
    """Content with the same size and time counts; a directory is named once it differs itself."""
    one, two = trees
    assert changes(one, two) == []
    info = os.stat(one / "d/file")
    (two / "d/file").write_text("TEXT")
    os.utime(two / "d/file", ns=(info.st_atime_ns, info.st_mtime_ns))
    (two / "gone").unlink()
    (two / "new").mkdir()
    (two / "new/inside").write_text("y")
    os.utime(two, ns=(0, os.stat(one).st_mtime_ns))
    assert changes(one, two) == [
        ("modified", "d/file"),
        ("deleted", "gone"),
        ("added", "new"),
        ("added", "new/inside"),
    ]


def test_the_layer_has_whiteouts_and_the_directories_that_lead_to_a_change(trees: tuple[Path, Path]) -> None:
    """In one order, and without names of users, of groups or of the program."""
    one, two = trees
    (two / "d/file").write_text("longer")
    (two / "gone").unlink()
    os.utime(two, ns=(0, os.stat(one).st_mtime_ns))
    found = members(made(one, two)[1])
    assert [member.name for member in found] == ["d", "d/file", ".wh.gone"]
    assert {(member.uname, member.gname) for member in found} == {("", "")}
    assert found[2].size == 0


def test_no_time_is_later_than_the_epoch(trees: tuple[Path, Path]) -> None:
    """SOURCE_DATE_EPOCH: later times become it, earlier ones stay."""
    two = trees[1]
    os.utime(two / "d/file", ns=(0, 5_500_000_000))
    os.utime(two / "gone", ns=(0, 50_000_000_000))
    layer, raw = made(None, two, epoch=20)
    times = {member.name: member.mtime for member in members(raw)}
    assert times["d/file"] == 5.5
    assert times["gone"] == times["d"] == times["link"] == 20
    assert layer.clamped == 3


def test_gzip_tells_nothing_of_when_and_where(trees: tuple[Path, Path]) -> None:
    """No time, no name, no system in its header; without compression the digest is the DiffID."""
    _, raw = made(*trees)
    assert raw[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    plain, bare = made(*trees, compress=False)
    assert plain.digest == plain.diff_id == made(*trees)[0].diff_id
    assert gzip.decompress(raw) == bare


def test_names_that_a_layer_cannot_hold_are_refused(trees: tuple[Path, Path]) -> None:
    """A file called as a whiteout is called would delete another when applied."""
    (trees[1] / ".wh.file").write_text("x")
    with pytest.raises(LayerError, match=r"\.wh\.file.*whiteout"):
        made(*trees)


def test_a_socket_is_no_entry(trees: tuple[Path, Path]) -> None:
    """What was in its place is gone."""
    require("sockets", "kernel")
    one, two = trees
    os.unlink(two / "gone")
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            os.chdir(two)  # a socket's path has a limit
            server.bind("gone")
        finally:
            os.chdir(here)
        os.utime(two, ns=(0, os.stat(one).st_mtime_ns))
        assert changes(one, two) == [("deleted", "gone")]


def test_the_scope_ends_it(trees: tuple[Path, Path]) -> None:
    """Cancelled is raised, not an archive that is cut."""
    scope = Scope()
    scope.cancel()
    reader = DirectoryReader(trees[1])
    with pytest.raises(Cancelled):
        write_layer(None, reader, io.BytesIO().write, scope)
    reader.close()


def test_what_cannot_be_read_is_one_error(trees: tuple[Path, Path]) -> None:
    """An OcidistError names it."""

    class Broken(DirectoryReader):
        def open(self, path: bytes) -> LocalFile:
            raise PermissionError(13, "Permission denied", os.fsdecode(path))

    reader = Broken(trees[1])
    with pytest.raises(OcidistError, match="d/file: Permission denied"):
        write_layer(None, reader, io.BytesIO().write, Scope())
    reader.close()


def test_a_link_in_a_directory_s_place_is_not_followed(trees: tuple[Path, Path], tmp_path: Path) -> None:
    """A directory swapped while the tree is read leads nowhere."""
    require("kernel")
    (tmp_path / "secret").mkdir()
    reader = DirectoryReader(trees[1])
    os.rename(trees[1] / "d", trees[1] / "was")
    os.symlink(tmp_path / "secret", trees[1] / "d")
    with pytest.raises(OSError):
        reader.names(b"d")
    with pytest.raises(OSError):
        next(reader.entries(b"d"))
    reader.close()


class Ending(Scope):
    """Ends when it is looked at for the nth time."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.cancel()
        super().check()


@pytest.mark.parametrize("kind", [DirectoryReader, lambda folder: StackedReader([folder])])
def test_i74_a_large_directory_is_read_as_long_as_the_scope_lasts(
    tmp_path: Path, kind: Callable[[Path], Reader]
) -> None:
    """It ends within it, not behind its last name; so does a comparison."""
    for number in range(3000):
        (tmp_path / str(number)).touch()
    with closing(kind(tmp_path)) as reader:
        for after in (0, 1, 2):
            with pytest.raises(Cancelled):
                reader.names(b"", Ending(after).check)
            with pytest.raises(Cancelled):
                list(reader.entries(b"", Ending(after).check))
        assert len(reader.names(b"", Ending(3).check)) == 3000
        assert sum(1 for _ in reader.entries(b"", Ending(3).check)) == 3000
        scope = Ending(2)
        with pytest.raises(Cancelled):
            list(compare(None, reader, scope))
        assert scope.left == -1


WIDE = 4000  # names in a directory


def peak(work: Callable[[], object]) -> float:
    """The most bytes that Python has taken at once meanwhile, for each of WIDE names."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / WIDE
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two equal trees of one directory with many names."""
    made = []
    for name in ("one", "two"):
        tree = tmp_path_factory.mktemp(name)
        (tree / "many").mkdir()
        for number in range(WIDE):
            path = tree / "many" / f"file {number:06}"
            path.touch()
            os.utime(path, (1, 1))
        for path in (tree / "many", tree):
            os.utime(path, (1, 1))
        made.append(tree)
    return made[0], made[1]


@pytest.mark.parametrize("kind", [DirectoryReader, lambda folder: StackedReader([folder])])
def test_i77_of_the_names_in_a_wide_directory_names_alone_are_kept(
    wide: tuple[Path, Path], kind: Callable[[Path], Reader]
) -> None:
    """What they are took 700 bytes each, twice in a comparison: 480 MiB for 300,000 names."""
    with closing(kind(wide[0])) as lower, closing(kind(wide[1])) as upper:
        assert peak(lambda: list(compare(lower, upper, Scope()))) < 250
        assert peak(lambda: write_layer(lower, upper, lambda data: None, Scope())) < 400  # and a compressor
    with closing(DirectoryReader(wide[0])) as one, closing(DirectoryReader(wide[1])) as other:
        assert peak(lambda: list(differences(one, other, 2**62, Scope()))) < 250


@pytest.mark.parametrize("kind", [DirectoryReader, lambda folder: StackedReader([folder])])
def test_i77_a_wide_directory_is_copied_and_measured_name_by_name(
    wide: tuple[Path, Path], tmp_path: Path, kind: Callable[[Path], Reader]
) -> None:
    require("kernel")
    with closing(kind(wide[0])) as reader:
        assert peak(lambda: copy_tree(reader, tmp_path)) < 20
    assert len(os.listdir(tmp_path / "many")) == WIDE
    assert peak(lambda: measure(str(tmp_path), Scope())) < 20
    assert measure(str(tmp_path), Scope()).files == WIDE


def test_all_names_of_two_trees_come_once_and_in_order() -> None:
    assert list(in_both([], [])) == []
    assert list(in_both([b"a", b"c"], [])) == [(b"a", True, False), (b"c", True, False)]
    assert list(in_both([b"a", b"c", b"d"], [b"b", b"c", b"\xff"])) == [
        (b"a", True, False),
        (b"b", False, True),
        (b"c", True, True),
        (b"d", True, False),
        (b"\xff", False, True),
    ]


def test_a_name_removed_while_trees_are_compared_is_no_change(trees: tuple[Path, Path]) -> None:
    class Vanishing(DirectoryReader):
        def stat(self, path: bytes) -> Entry:
            if path == b"d/file":
                raise FileNotFoundError(2, "No such file or directory", "d/file")
            return super().stat(path)

    with closing(Vanishing(trees[1])) as upper, closing(Vanishing(trees[0])) as lower:
        assert b"d/file" not in [change.path for change in compare(lower, upper, Scope())]
