"""The contract of readers of trees, run on every implementation."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.scope import Scope
from ocidist.trees import rootless
from ocidist.trees.compare import compare, same_content
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.protocols import Entry, Reader
from ocidist.trees.stacked import StackedReader
from tests.parts.memory_reader import MemoryReader, content
from tests.parts.required import lacking, require

FILES = {b"d/file": b"text", b"d/large": bytes(range(256)) * 2000, b"empty": b""}


def plant(root: Path) -> Path:
    root.mkdir()
    (root / "d").mkdir()
    for name, data in FILES.items():
        (root / os.fsdecode(name)).write_bytes(data)
        os.chmod(root / os.fsdecode(name), 0o640)
    os.link(root / "d/file", root / "hard")
    os.symlink("d/file", root / "link")
    for name in ("d/file", "d/large", "empty", "d", "."):
        os.utime(root / name, (5, 5))
    return root


def directory(folder: Path) -> Reader:
    return DirectoryReader(plant(folder / "tree"))


def stacked(folder: Path) -> Reader:
    """The lower layer has all; the upper one nothing but the root."""
    lower, upper = plant(folder / "lower"), folder / "upper"
    upper.mkdir()
    os.utime(upper, (5, 5))
    return StackedReader([upper, lower])


def memory(folder: Path) -> Reader:
    def entry(number: int, mode: int, size: int = 0, links: int = 1) -> Entry:
        return Entry(mode, size, 5_000_000_000, (0, 0), ("memory", number), links)

    files = {
        path: (entry(number, stat.S_IFREG | 0o640, len(data), 1 + (path == b"d/file")), data)
        for number, (path, data) in enumerate(FILES.items())
    }
    return MemoryReader(
        {
            b"": (entry(-1, stat.S_IFDIR | 0o755), b""),
            b"d": (entry(-2, stat.S_IFDIR | 0o755), b""),
            b"link": (entry(-3, stat.S_IFLNK | 0o777, 6), b"d/file"),
            **files,
            b"hard": files[b"d/file"],
        }
    )


IMPLEMENTATIONS: dict[str, Callable[[Path], Reader]] = {
    "directory": directory,
    "stacked": stacked,
    "memory": memory,
}


@pytest.fixture(params=list(IMPLEMENTATIONS))
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    if request.param != "memory":
        require("kernel", "os:link")
    with closing(IMPLEMENTATIONS[request.param](tmp_path)) as made:
        yield made


def test_names_are_sorted_and_entries_are_those_of_stat(reader: Reader) -> None:
    assert reader.names(b"") == [b"d", b"empty", b"hard", b"link"]
    assert reader.names(b"d") == [b"file", b"large"]
    found = dict(reader.entries(b""))
    assert sorted(found) == reader.names(b"")
    for name, entry in found.items():
        again = reader.stat(name)
        assert (entry.mode, entry.size, entry.mtime, entry.identity, entry.owner) == (
            *(again.mode, again.size, again.mtime, again.identity, again.owner),
        )


def test_an_entry_says_what_it_is(reader: Reader) -> None:
    kinds = {path: reader.stat(path).type for path in (b"", b"d", b"d/file", b"link")}
    assert kinds == {b"": "directory", b"d": "directory", b"d/file": "file", b"link": "symlink"}
    entry = reader.stat(b"d/file")
    assert (stat.S_IMODE(entry.mode), entry.size, entry.mtime) == (0o640, 4, 5_000_000_000)
    assert reader.readlink(b"link") == b"d/file"
    assert reader.xattrs(b"empty") == {}


def test_names_of_one_file_have_one_identity(reader: Reader) -> None:
    one, other = reader.stat(b"d/file"), reader.stat(b"hard")
    assert one.identity == other.identity != reader.stat(b"empty").identity
    assert (one.links, reader.stat(b"empty").links) == (2, 1)


def test_files_are_read_and_copied(reader: Reader, tmp_path: Path) -> None:
    for path, data in FILES.items():
        assert content(reader, path) == data
        with closing(reader.open(path)) as body, open(tmp_path / "copy", "wb") as copy:
            assert (body.start, body.host, body.size) == (0, "", len(data))
            body.copy_to(copy.fileno())
        assert (tmp_path / "copy").read_bytes() == data
    with closing(reader.open(b"d/large")) as body:
        buffer = bytearray(3)
        body.seek(body.next_data(1000))
        assert body.readinto(memoryview(buffer)) == 3
        assert buffer == FILES[b"d/large"][1000:1003]


def test_what_is_not_there_or_not_a_file_is_an_error(reader: Reader) -> None:
    for look in (reader.stat, reader.open):
        with pytest.raises(FileNotFoundError):
            look(b"missing")
    with pytest.raises(OSError):
        reader.open(b"d")
    with pytest.raises(OSError):
        reader.readlink(b"d")


def test_trees_of_any_kind_are_compared(reader: Reader) -> None:
    assert list(compare(reader, reader, Scope())) == []
    assert same_content(reader, memory(Path()), b"d/large", Scope())
    assert not same_content(reader, reader_of(b"TEXT"), b"d/file", Scope())


def reader_of(data: bytes) -> Reader:
    return MemoryReader({b"d/file": (Entry(stat.S_IFREG, len(data), 0, (0, 0), ("other", 0)), data)})


@pytest.mark.parametrize("kind", [DirectoryReader, lambda folder: StackedReader([folder])])
def test_a_mark_beside_a_file_is_its_owner_and_no_attribute(
    tmp_path: Path, kind: Callable[[Path], Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that user 33 should have is 33:33 to everyone who asks, also from the list of its directory."""
    require("os:setxattr", "kernel")
    # As an ordinary user has it: root's own entries have the owner that they have.
    monkeypatch.setattr("ocidist.trees.directory.in_first_namespace", lambda: False)
    (tmp_path / "file").write_text("x")
    try:
        os.setxattr(tmp_path / "file", rootless.ATTRIBUTE, rootless.encode_owner(33, 33))
    except OSError:
        lacking("a file system with extended attributes for the tests")
    os.setxattr(tmp_path / "file", "user.kept", b"1")
    with closing(kind(tmp_path)) as reader:
        entry = dict(reader.entries(b""))[b"file"]
        assert (entry.uid, entry.gid) == reader.stat(b"file").owner == (33, 33)
        assert reader.xattrs(b"file") == {b"user.kept": b"1"}
        assert reader.stat(b"").owner == (0, 0)
