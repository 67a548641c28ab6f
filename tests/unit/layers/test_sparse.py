"""Sparse files in their four forms: content and holes as they were, and maps that lie refused."""

from __future__ import annotations

import io
import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from ocidist.errors import LayerError
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.tar.records import Records
from ocidist.layers.tar.sparse import MAX_EXTENTS
from ocidist.scope import Scope
from tests.parts.required import program, require
from tests.parts.tars import END, entry, layer, octal, padded, pax, record

FORMS = {
    "oldgnu": ["--format=oldgnu"],
    "gnu": ["--format=gnu"],
    "pax-0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax-0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax-1.0": ["--format=pax", "--sparse-version=1.0"],
}


def old(
    name: str, size: int, pairs: list[tuple[int, int]], data: bytes, *, magic: bytes = b"ustar  \0"
) -> bytes:
    """An old GNU sparse entry: 4 pieces in its header, 21 in each block after it."""
    tables = [pairs[:4], *(pairs[at : at + 21] for at in range(4, len(pairs), 21))]
    raw = [b"".join(octal(offset, 12) + octal(length, 12) for offset, length in table) for table in tables]
    more = [b"\1"] * (len(tables) - 1) + [b"\0"]
    head = entry(
        name, kind="S", size=len(data), magic=magic, fields={386: raw[0], 482: more[0], 483: octal(size, 12)}
    )
    blocks = [
        table.ljust(504, b"\0") + flag.ljust(8, b"\0") for table, flag in zip(raw[1:], more[1:], strict=True)
    ]
    return head + b"".join(blocks) + padded(data)


def new(size: int, pairs: list[tuple[int, int]], data: bytes, form: str = "1.0") -> bytes:
    """A PAX sparse file called ``f``, of one of three forms."""
    flat = [number for pair in pairs for number in pair]
    if form == "1.0":
        table = padded(b"".join(b"%d\n" % number for number in [len(pairs), *flat]))
        return pax(
            record("GNU.sparse.major", "1"),
            record("GNU.sparse.minor", "0"),
            record("GNU.sparse.name", "f"),
            record("GNU.sparse.realsize", str(size)),
        ) + entry("GNUSparseFile.0/f", table + data)
    records = [record("GNU.sparse.size", str(size)), record("GNU.sparse.numblocks", str(len(pairs)))]
    if form == "0.1":
        records += [record("GNU.sparse.name", "f"), record("GNU.sparse.map", ",".join(map(str, flat)))]
        return pax(*records) + entry("GNUSparseFile.0/f", data)
    for offset, length in pairs:
        records += [record("GNU.sparse.offset", str(offset)), record("GNU.sparse.numbytes", str(length))]
    return pax(*records) + entry("f", data)


def whole(size: int, pairs: list[tuple[int, int]], data: bytes) -> bytes:
    """What the file is."""
    content, at = bytearray(size), 0
    for offset, length in pairs:
        content[offset : offset + length] = data[at : at + length]
        at += length
    return bytes(content)


def unpack(root: Path, *entries: bytes) -> Path:
    root.mkdir(exist_ok=True)
    apply_layer(layer(*entries), root, Scope())
    return root


@pytest.mark.parametrize("form", list(FORMS))
def test_e59_what_gnu_tar_packs_comes_back_with_its_holes(tmp_path: Path, form: str) -> None:
    """Many pieces (more than a header holds), one at the end, none at all, no size, and a name of 200 bytes."""
    require("tar", "kernel")
    source, archive = tmp_path / "source", tmp_path / "some.tar"
    source.mkdir()
    for name, size, pieces in [
        ("many", 9_000_000, [(at * 200_000, b"%d" % at * 900) for at in range(40)]),
        ("end", 3_000_000, [(2_999_999, b"x")]),
        ("holes", 3_000_000, []),
        ("empty", 0, []),
        ("l" * 200, 2_000_000, [(1_000_000, b"middle")]),
    ]:
        with (source / name).open("wb") as target:
            target.truncate(size)
            for offset, data in pieces:
                target.seek(offset)
                target.write(data)
    command = [program("tar"), "-c", "--sparse", *FORMS[form], "-f", str(archive), "-C", str(source), "."]
    subprocess.run(command, check=True)
    assert archive.stat().st_size < 1_000_000, "this file system keeps no holes"
    root = tmp_path / "root"
    root.mkdir()
    with archive.open("rb", buffering=0) as stream:
        assert apply_layer(stream, root, Scope()).entries == 6
    assert sorted(os.listdir(root)) == sorted(os.listdir(source))
    for path in source.iterdir():
        assert (root / path.name).read_bytes() == path.read_bytes()
        assert (root / path.name).stat().st_blocks * 512 < 1_000_000
    # What reads the data instead of writing it sees the holes as zeros.
    with archive.open("rb") as stream:
        records = Records(lambda: stream.read(10_000))
        for member in records:
            content = b"".join(bytes(piece) for piece in records.data())
            if member.size:
                name = os.fsdecode(member.name).removeprefix("./")
                assert content == (source / name).read_bytes()


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 60])
def test_e59_maps_of_every_length(tmp_path: Path, form: str, count: int) -> None:
    """Header alone, and every number of blocks after it; then another entry, so that the place is right."""
    pairs = [(at * 700, 300) for at in range(count)]
    data = bytes(range(1, 251)) * 2 * count
    data, size = data[: 300 * count], 700 * count + 5
    sparse = old("f", size, pairs, data) if form == "old" else new(size, pairs, data, form)
    if form in ("0.0", "0.1") and not count:
        with pytest.raises(LayerError, match="unknown form"):
            unpack(tmp_path / "root", sparse)
        return
    root = unpack(tmp_path / "root", entry("before", b"1"), sparse, entry("after", b"2"))
    assert (root / "f").read_bytes() == whole(size, pairs, data)
    assert ((root / "before").read_bytes(), (root / "after").read_bytes()) == (b"1", b"2")
    assert sorted(os.listdir(root)) == ["after", "before", "f"]


def test_e59_a_map_without_pieces_is_one_hole(tmp_path: Path) -> None:
    """Of the forms 0.0 and 0.1, where the records name them: as Go reads it."""
    records = [record("GNU.sparse.major", "0"), record("GNU.sparse.minor", "1")]
    records += [record("GNU.sparse.numblocks", "0"), record("GNU.sparse.size", "900")]
    root = unpack(tmp_path / "root", pax(*records) + entry("f"), entry("after", b"2"))
    assert ((root / "f").read_bytes(), (root / "after").read_bytes()) == (bytes(900), b"2")


def test_e59_an_old_map_ends_where_a_piece_begins_with_nul(tmp_path: Path) -> None:
    """Whatever stands behind it, as GNU tar, libarchive and Go read it."""
    sparse = bytearray(old("f", 900, [(100, 3)], b"abc"))
    sparse[410:434] = b"\0" * 3 + b"rest of what was there"[:21]
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse[:512])
    root = unpack(tmp_path / "root", bytes(sparse))
    assert (root / "f").read_bytes() == whole(900, [(100, 3)], b"abc")


LIES: dict[str, tuple[int, list[tuple[int, int]], int]] = {
    "past the end": (100, [(50, 51)], 51),
    "overlapping": (100, [(0, 20), (10, 20)], 40),
    "backwards": (100, [(50, 10), (0, 10)], 20),
    "more data than pieces": (100, [(0, 10)], 11),
    "less data than pieces": (100, [(0, 10)], 9),
    "no end": (1 << 63, [(0, 10)], 10),
    "past every end": (100, [((1 << 63) - 5, 10)], 10),
}


@pytest.mark.parametrize("form", ["old", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("lie", list(LIES))
def test_e59_maps_that_lie_are_refused(tmp_path: Path, lie: str, form: str) -> None:
    """What the map says has to agree with itself, with the size, and with the data that is there."""
    size, pairs, stored = LIES[lie]
    data = b"x" * stored
    sparse = old("f", size, pairs, data) if form == "old" else new(size, pairs, data, form)
    with pytest.raises(LayerError):
        unpack(tmp_path / "root", sparse, entry("after"))
    assert not (tmp_path / "root/after").exists()


def test_e59_damaged_maps_are_refused(tmp_path: Path) -> None:
    """No numbers, odd ones, negative ones, no end, cut, of an unknown version or form, with a NUL in the name."""
    names = [
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.minor", "0"),
        record("GNU.sparse.realsize", "9"),
    ]
    texts = [b"", b"x\n", b"-1\n", b"1\n0\n", b"2\n0\n1\n", b"9" * 512, b"1\n" + b"0" * 600, b"1\n0\n1\n"]
    bad = [pax(*names) + entry("f", padded(text)) for text in texts]
    bad += [
        pax(*names) + entry("f", b"1\n0\n1\n"),
        pax(record("GNU.sparse.major", "2"), record("GNU.sparse.size", "1")) + entry("f", b"x"),
        pax(record("GNU.sparse.size", "1")) + entry("f", b"x"),
        pax(record("GNU.sparse.map", "0,1")) + entry("f", b"x"),
        pax(record("GNU.sparse.map", "0,1,2"), record("GNU.sparse.size", "9")) + entry("f", b"x"),
        pax(record("GNU.sparse.map", "0,+1"), record("GNU.sparse.size", "9")) + entry("f", b"x"),
        pax(record("GNU.sparse.numbytes", "1"), record("GNU.sparse.offset", "0")) + entry("f", b"x"),
        pax(
            record("GNU.sparse.map", "0,1"),
            record("GNU.sparse.size", "9"),
            record("GNU.sparse.name", b"a\0b"),
        )
        + entry("f", b"x"),
        old("f", 9, [(0, 1)], b"x", magic=b"ustar\x0000"),
        old("f", -1, [(0, 1)], b"x"),
        old("f", 9, [(0, -1)], b"x"),
        old("f", 9000, [(at * 10, 1) for at in range(9)], b"x" * 9)[:700],
    ]
    for number, sparse in enumerate(bad):
        root = tmp_path / f"root{number}"
        root.mkdir()
        with pytest.raises(LayerError):
            apply_layer(io.BytesIO(sparse + END), root, Scope())


def test_h69_a_map_of_a_million_pieces_is_refused_before_it_is_held(tmp_path: Path) -> None:
    """In blocks after the header, and announced at the front of the data."""
    block = (octal(0, 12) + octal(0, 12)) * 21 + b"\1".ljust(8, b"\0")
    endless = old("f", 9, [(0, 0)] * 5, b"")[:512]
    served = io.BytesIO(endless)
    tracemalloc.start()
    try:
        with pytest.raises(LayerError, match="pieces"):
            Records(lambda: served.read(512) or block * 100).next()
        with pytest.raises(LayerError, match="pieces"):
            unpack(tmp_path / "root", new(9, [], b"").replace(b"0\n\0\0\0\0\0\0\0", b"1000000\n\0"))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert MAX_EXTENTS < 1_000_000


def test_h69_a_file_of_an_exabyte_of_nothing_costs_nothing_or_is_refused(tmp_path: Path) -> None:
    """The file system decides; either way no block is written."""
    require("kernel")
    sparse, said = old("f", (1 << 63) - 1, [(0, 1)], b"x"), ""
    try:
        unpack(tmp_path / "root", sparse)
    except LayerError as error:
        said = str(error)
    assert not said or "too large" in said
    assert (tmp_path / "root/f").stat().st_blocks < 100
