"""The record loop: what it reads, what it refuses, and that it stays bounded."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tracemalloc
from typing import Callable

import pytest

from ocidist.errors import LayerError
from ocidist.layers.compression.inflate import open_stream
from ocidist.layers.tar.records import MAX_EXTENDED, Member, Records
from tests.parts.tars import END, directory, entry, hardlink, header, padded, pax, record, symlink


def pieces(data: bytes, size: int) -> Callable[[], bytes]:
    source = io.BytesIO(data)
    return lambda: source.read(size)


def read(data: bytes, size: int = 1 << 20) -> list[tuple[Member, bytes]]:
    records = Records(pieces(data, size))
    found = [(member, b"".join(bytes(part) for part in records.data())) for member in records]
    records.drain()
    return found


def names(data: bytes) -> list[bytes]:
    return [member.name for member, _ in read(data)]


def refused(data: bytes) -> str:
    with pytest.raises(LayerError) as caught:
        read(data)
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 1500, 1 << 20])
def test_members_do_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    """Pieces of any size give the same members and data."""
    long = b"d/" * 70 + b"name"
    data = (
        directory("d/", uid=5, gid=7, mtime=12345)
        + entry("d/file", b"x" * 1300, mode=0o4755)
        + entry(long, b"long")
        + pax(record("path", "päx"), record("mtime", "1.25"), record("SCHILY.xattr.user.a", b"\0\xff"))
        + entry("short", b"y" * 512)
        + symlink("link", "/else/where")
        + hardlink("hard", b"t" * 150)
        + END
    )
    found = read(data, size)
    assert [member.name for member, _ in found] == [b"d/", b"d/file", long, "päx".encode(), b"link", b"hard"]
    assert [content for _, content in found] == [b"", b"x" * 1300, b"long", b"y" * 512, b"", b""]
    first, file, _, fourth, link, hard = (member for member, _ in found)
    assert (first.uid, first.gid, first.mtime, first.type) == (5, 7, 12345 * 10**9, ord("5"))
    assert file.mode == 0o4755
    assert fourth.mtime == 1_250_000_000
    assert fourth.xattrs == {b"user.a": b"\0\xff"}
    assert link.link == b"/else/where"
    assert hard.link == b"t" * 150


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_agrees_with_tarfile_on_what_tarfile_writes(form: int) -> None:
    """Names, numbers and types of each format are read as the library wrote them."""
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number, (name, kind) in enumerate(
            [
                ("a", tarfile.REGTYPE),
                ("x" * 90 + "/" + "y" * 90, tarfile.REGTYPE),
                ("dir/", tarfile.DIRTYPE),
                ("null", tarfile.CHRTYPE),
                ("disk", tarfile.BLKTYPE),
                ("pipe", tarfile.FIFOTYPE),
                ("soft", tarfile.SYMTYPE),
            ]
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, 0o640, 1_600_000_000 + number
            info.uid, info.gid = (2097151, 7) if form == tarfile.USTAR_FORMAT else (3_000_000_000, 7)
            info.linkname = "target" if kind == tarfile.SYMTYPE else ""
            info.devmajor, info.devminor = (8, 1) if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE) else (0, 0)
            info.size = 700 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"z" * 700) if info.size else None)
            written.append(info)
    found = [member for member, _ in read(buffer.getvalue())]
    for info, member in zip(written, found, strict=True):
        assert member.name.decode().rstrip("/") == info.name.rstrip("/")
        assert (member.mode, member.uid, member.gid, member.size) == (
            info.mode,
            info.uid,
            info.gid,
            info.size,
        )
        assert (member.mtime, member.link.decode()) == (info.mtime * 10**9, info.linkname)
        assert (member.major, member.minor, bytes([member.type])) == (info.devmajor, info.devminor, info.type)


def test_old_archives_mark_directories_by_a_slash_and_gnu_ones_have_no_prefix() -> None:
    """Type NUL with a trailing slash is a directory; the prefix belongs to POSIX alone."""
    old = header("old/", "\0", magic=b"")
    gnu = header("gnu", magic=b"ustar  \0", prefix=b"12345670123")
    found = [member for member, _ in read(old + gnu + END)]
    assert [(member.name, member.type) for member in found] == [(b"old/", ord("5")), (b"gnu", ord("0"))]


@pytest.mark.parametrize("version", [b"00", b"\0\0", b"  ", b"0\0", b"xy"])
def test_the_prefix_counts_whatever_the_version_is(version: bytes) -> None:
    """Of ustar's magic the first six bytes alone decide, as in Go: without its prefix a file is elsewhere."""
    block = header("name", magic=b"ustar\0" + version, prefix=b"some/folder")
    assert names(block + END) == [b"some/folder/name"]


def test_star_s_prefix_ends_before_its_times() -> None:
    """star has 131 bytes of it, then two times, and "tar" at the very end."""
    times = {476: b"12345670123 12345670123 ", 508: b"tar\0"}
    assert names(header("name", prefix=b"p" * 131, fields=times) + END) == [b"p" * 131 + b"/name"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (b"some/folder", b"some/folder/name"),
        (b"12345670123", b"name"),
        (b"12345670123\x0012345670123", b"name"),
        (b"1234567012 x/y", b"1234567012 x/y/name"),
        (b"fold\xe9r", b"name"),
        (b"\x80" + bytes(10) + b"\1", b"name"),
        (bytes(12) + b"not a time", b"name"),
    ],
)
def test_a_prefix_in_gnu_s_header_is_one_where_it_is_no_time(prefix: bytes, expected: bytes) -> None:
    """Go before 1.8 wrote it there, where GNU has two times; Go's readers take it since."""
    block = header("name", magic=b"ustar  \0", prefix=prefix)
    assert names(block + END) == [expected]


@pytest.mark.parametrize(
    "field", [b"\0\0\0\0\0\0\x00701\0", b"  \0 701 \0\0\0\0", b"00000000701\0", b" 701\0 rest\0\0"]
)
def test_numbers_may_have_nul_bytes_before_them(field: bytes) -> None:
    """As Go reads them: spaces and NULs on both sides are no part of the number."""
    block = header("name", fields={124: field, 136: field})
    [(member, content)] = read(block + padded(b"x" * 0o701) + END)
    assert (member.size, content, member.mtime) == (0o701, b"x" * 0o701, 0o701 * 10**9)


def test_a_checksum_may_have_nul_bytes_before_it() -> None:
    """It is a number as the others are."""
    total = sum(header("name", checksum=b" " * 8))
    for field in (b"\0\0%06o" % total, b"%06o\x007" % total, b"  %05o\0" % total):
        assert names(header("name", checksum=field) + END) == [b"name"]


def test_a_device_of_a_header_without_numbers_has_none() -> None:
    """Before ustar there was no field for them; what stands there is not looked at."""
    old = header("old", "3", device=(8, 1), magic=b"")
    new = header("new", "3", device=(8, 1), magic=b"ustar\0xx")
    gnu = header("gnu", "4", device=(8, 2), magic=b"ustar  \0")
    found = [(member.major, member.minor) for member, _ in read(old + new + gnu + END)]
    assert found == [(0, 0), (8, 1), (8, 2)]


def test_the_name_that_counts_says_whether_an_old_entry_is_a_directory() -> None:
    """Type NUL: the slash at the end of the whole name, wherever that stands."""
    plain = pax(record("path", "d/")) + header("name", "\0")
    other = pax(record("path", "f")) + header("name/", "\0")
    gnu = header("././@LongLink", "L", size=3) + padded(b"g/\0") + header("name", "\0")
    gnu_file = header("././@LongLink", "L", size=2) + padded(b"h\0") + header("name/", "\0")
    found = [(member.name, chr(member.type)) for member, _ in read(plain + other + gnu + gnu_file + END)]
    assert found == [(b"d/", "5"), (b"f", "0"), (b"g/", "5"), (b"h", "0")]


def test_gnu_s_long_names_come_before_those_of_pax() -> None:
    """Both before one entry: Go's readers take GNU's."""
    long = header("././@LongLink", "L", size=4) + padded(b"gnu\0")
    link = header("././@LongLink", "K", size=3) + padded(b"to\0")
    other = pax(record("path", "pax"), record("linkpath", "elsewhere"))
    found = read(long + link + other + symlink("name", "target") + END)
    assert [(member.name, member.link) for member, _ in found] == [(b"gnu", b"to")]


def test_signed_checksums_of_old_programs_are_accepted() -> None:
    """A name with high bytes, summed as signed characters."""
    block = header("caf\u00e9")
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    assert names(header("caf\u00e9", checksum=b"%06o\0 " % signed) + END) == ["café".encode()]


def test_e58_a_bad_second_header_is_refused() -> None:
    """What follows the first member isn't dropped in silence."""
    good, bad = entry("good", b"1"), bytearray(header("bad"))
    bad[0] ^= 1
    assert "damaged header" in refused(good + bytes(bad) + END)
    assert "damaged header" in refused(good + b"\xff" * 512 + END)
    assert "not a tar archive" in refused(b"hello" * 200)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\n<!DOCTYPE html><title>502 Bad Gateway</title>", ": it looks like an HTML page, 46 bytes in all"),
        (b"<html>" + b"x" * 600, ": it looks like an HTML page"),
        (b'<?xml version="1.0"?>', ": it looks like XML or HTML, 21 bytes in all"),
        (b'{"errors": []}', ": it looks like JSON, 14 bytes in all"),
        (b"PK\3\4" + bytes(40), ": it looks like a zip archive, 44 bytes in all"),
        (
            gzip.compress(b"once more", mtime=0),
            ": it looks like gzip data inside the compression, 29 bytes in all",
        ),
        (b"Not found\n", ": it looks like text, 10 bytes in all"),
        (b"\1\2\3" * 300, ""),
        (b"\1\2\3", ", 3 bytes in all"),
    ],
)
def test_what_is_not_a_tar_archive_is_told_by_what_it_looks_like(data: bytes, what: str) -> None:
    """However short it is; only what may have been a header is called cut."""
    assert refused(data) == f"layer: not a tar archive{what}"


def test_e58_an_archive_cut_in_its_first_header_is_called_cut() -> None:
    """Once its magic is there; zeros may be the beginning of the end."""
    assert "inside a header" in refused(header("name")[:300])
    assert "inside a header" in refused(bytes(300))


def test_an_archive_of_nothing_is_whole() -> None:
    """As Go reads it, also in an empty gzip; the DiffID decides."""
    stream, _ = open_stream(io.BytesIO(gzip.compress(b"", mtime=0)))
    assert Records(stream.read_block).next() is None


@pytest.mark.parametrize("cut", range(1, 512, 73))
def test_e58_a_cut_header_is_refused(cut: int) -> None:
    """An archive that ends inside a header."""
    assert "inside a header" in refused(entry("good", b"1") + header("next")[:cut])


def test_e58_a_cut_member_is_refused() -> None:
    """Cut in the data, read or passed by."""
    whole = entry("file", b"x" * 700)
    assert "cut short" in refused(whole[:1000])
    assert "cut short" in refused(whole[: 512 + 699])
    records = Records(pieces(whole[: 512 + 699], 512))
    records.next()
    with pytest.raises(LayerError, match="cut short"):
        records.next()


@pytest.mark.parametrize("size", [1, 512, 1 << 20])
def test_padding_may_lack_behind_the_last_member(size: int) -> None:
    """All of its data is there: so the engines read it, and the DiffID decides."""
    whole = entry("file", b"x" * 700)
    for cut in (512 + 700, 512 + 701, len(whole) - 1):
        assert [content for _, content in read(whole[:cut], size)] == [b"x" * 700]
        records = Records(pieces(whole[:cut], size))
        assert records.next() is not None
        assert records.next() is None


def test_numbers_of_pax_may_have_zeros_before_them() -> None:
    """However many, as every reader takes them; also in maps of sparse files."""
    zeros = "0" * 5000
    numbers = [
        record(key, f"{zeros}{value}")
        for key, value in (("size", 3), ("uid", 7), ("gid", 8), ("mtime", "9.5"))
    ]
    sparse = [
        record(f"GNU.sparse.{key}", value)
        for key, value in (("map", f"{zeros}2,{zeros}3"), ("size", f"{zeros}9"))
    ]
    found = read(pax(*numbers) + entry("a", b"abc", size=0) + pax(*sparse) + entry("b", b"def") + END)
    assert [(content, member.uid, member.gid) for member, content in found] == [
        (b"abc", 7, 8),
        (b"\0\0def\0\0\0\0", 0, 0),
    ]
    assert found[0][0].mtime == 9_500_000_000


def test_e58_missing_end_blocks_at_a_boundary_are_accepted() -> None:
    """No end blocks, one, or an empty archive: the DiffID decides."""
    whole = entry("file", b"x" * 700)
    assert names(whole) == [b"file"]
    assert names(whole + bytes(512)) == [b"file"]
    assert names(b"") == []
    assert "single end block" in refused(whole + bytes(512) + whole)


def test_e58_what_follows_the_end_blocks_is_read_but_not_looked_at() -> None:
    """All of it counts for the DiffID."""
    data = entry("file") + END + b"anything" * 999
    seen = hashlib.sha256()
    more = pieces(data, 600)

    def counted() -> bytes:
        piece = more()
        seen.update(piece)
        return piece

    records = Records(counted)
    assert [member.name for member in records] == [b"file"]
    records.drain()
    assert seen.digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [-1, -512, 1 << 63, 1 << 70])
def test_e59_sizes_that_can_not_be(size: int) -> None:
    """Negative and beyond 2^63 - 1, in base-256."""
    assert "size" in refused(header("x", size=size) + END)


@pytest.mark.parametrize(
    "field", [b"-0000000001\0", b"+0000000001\0", b"0o000000001\0", b"0000_000001\0", b"0000000009x\0"]
)
def test_e59_numbers_that_only_int_takes(field: bytes) -> None:
    """Signs, prefixes, underscores and letters are no octal numbers."""
    assert "number" in refused(header("x", fields={124: field}) + END)


@pytest.mark.parametrize("value", [b"-1", b"1_0", b"0x10", b"1e3", b"9223372036854775808", b"9" * 5000])
def test_e59_pax_numbers(value: bytes) -> None:
    """A PAX size is decimal digits, and fits."""
    assert refused(pax(record("size", value)) + entry("x") + END)


@pytest.mark.parametrize("who", ["uid", "gid"])
@pytest.mark.parametrize("value", [4294967295, 1 << 40, -2])
def test_e56_owners_that_chown_reads_as_something_else(who: str, value: int) -> None:
    """4294967295 would mean "leave it", and more would wrap."""
    assert "out of range" in refused(entry("x", **{who: value}) + END)
    if value > 0:
        assert "out of range" in refused(pax(record(who, str(value))) + entry("x") + END)


def test_e59_pax_odds_and_ends() -> None:
    """Duplicate records: the last counts; an empty value changes nothing; global headers are passed by."""
    data = (
        pax(record("path", "ignored"), kind="g")
        + pax(record("path", "first"), record("path", "second"), record("linkpath", ""))
        + symlink("name", "target")
        + entry(b"caf\xe9")
        + pax(record("comment", "at the end"), kind="g")
        + END
    )
    found = [member for member, _ in read(data)]
    assert [member.name for member in found] == [b"second", b"caf\xe9"]
    assert found[0].link == b"target"


@pytest.mark.parametrize(
    "payload",
    [
        b"5 a=b",
        b"99 path=x\n",
        b"path=x\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"7 a:bc\n",
        b"5 =b\n",
        b"6 a=bX",
        b"1000000000 a=b\n",
    ],
)
def test_e59_damaged_pax_records_are_refused(payload: bytes) -> None:
    """Lengths that lie, records without a key, an end or a number."""
    assert refused(header("p", "x", size=len(payload)) + padded(payload) + entry("x") + END)


@pytest.mark.parametrize("kind", ["x", "L", "K"])
def test_e58_an_extended_header_without_its_entry_is_refused(kind: str) -> None:
    """At the end of the archive, with and without end blocks; and cut in its own data."""
    payload = record("path", "x") if kind == "x" else b"name\0"
    head = header("h", kind, size=len(payload)) + padded(payload)
    assert "without its entry" in refused(head + END)
    assert "without its entry" in refused(head)
    assert "inside an extended header" in refused(head[:515])


@pytest.mark.parametrize("kind", ["V", "M", "D", "A", "\xff"])
def test_unknown_types_are_refused(kind: str) -> None:
    """Multi-volume parts, labels and what nobody knows."""
    assert "not supported" in refused(entry("x", kind=kind) + END)


@pytest.mark.parametrize("kind", ["x", "g", "L", "K"])
def test_h69_a_huge_extended_header_is_refused_before_it_is_read(kind: str) -> None:
    """400 MiB announced: refused at its header, with no memory taken."""
    size = 400 << 20
    served = 0
    start = io.BytesIO(header("h", kind, size=size))

    def more() -> bytes:
        nonlocal served
        piece = start.read(1 << 20) or bytes(1 << 20)
        served += len(piece)
        return piece

    tracemalloc.start()
    try:
        with pytest.raises(LayerError, match="too large"):
            Records(more).next()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert served <= 2 << 20


def test_h69_nested_headers_are_capped_by_number_and_by_their_sum() -> None:
    """3000 small ones, and a few that together pass the limit."""
    small = pax(record("comment", "x"))
    assert "too large" in refused(small * 3000 + entry("x") + END)
    half = pax(record("comment", "y" * (MAX_EXTENDED // 2)))
    assert "too large" in refused(half * 3 + entry("x") + END)
    assert names(small * 3 + entry("x") + END) == [b"x"]


def test_e57_libarchive_s_attributes_are_read_and_star_s_come_first() -> None:
    """Names are percent-encoded, values base64 without padding; where both forms stand, the plain one counts."""
    data = (
        pax(
            record("LIBARCHIVE.xattr.user.%E2%82%AC%3D", "AAECAw"),
            record("LIBARCHIVE.xattr.user.both", "b3RoZXI="),
            record("SCHILY.xattr.user.both", b"this\n\0="),
            record("LIBARCHIVE.creationtime", "1"),
        )
        + entry("x")
        + END
    )
    (found,) = [member for member, _ in read(data)]
    assert found.xattrs == {"user.€=".encode(): b"\0\1\2\3", b"user.both": b"this\n\0="}
    assert "base64" in refused(pax(record("LIBARCHIVE.xattr.user.a", "!!")) + entry("x") + END)


def test_h71_entries_without_end_are_read_with_little_memory() -> None:
    """Thirty thousand headers: each is forgotten when the next is read."""
    block = entry("d/" + "n" * 90, mtime=77) * 64
    left = 500

    def more() -> bytes:
        nonlocal left
        left -= 1
        return block if left >= 0 else b""

    tracemalloc.start()
    try:
        assert sum(1 for _ in Records(more)) == 32_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
