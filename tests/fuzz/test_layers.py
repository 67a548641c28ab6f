"""Layers that nobody would write: mutated and generated archives and streams, against tarfile, GNU tar and zstd.

Whatever comes in, there is a tree or an OcidistError, nothing outside of the root is touched, and memory is bounded.
Where the oracle and we both take an archive, names, types, sizes and content agree. The seeds are kept as they are run:
the numbers from 0 on are the same every time, ``OCIDIST_FUZZ_SECONDS=600 pytest tests/fuzz/test_layers.py`` goes on from a
random one, and what fails prints its number, for ``KEPT``.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import random
import subprocess
import tarfile
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.errors import LayerError, OcidistError
from ocidist.layers.apply.layer import Policy, apply_layer
from ocidist.layers.compression.inflate import open_stream, use_accelerators
from ocidist.layers.tar.records import MAX_EXTENDED, Records
from ocidist.scope import Scope
from ocidist.snapshots.removal import remove_tree
from tests.parts.required import program, require
from tests.parts.tars import END, directory, entry, hardlink, pax, record, symlink
from tests.parts.trees import snapshot

COUNT = 120  # of each test, unless OCIDIST_FUZZ_SECONDS asks for a time
# Seeds that once broke something, run before all others.
KEPT: dict[str, tuple[int, ...]] = {
    "records": (837, 2618),  # an empty path; a hardlink with a size
    "trees": (),
    "streams": (152,),  # padding after xz
    "tar": (),
}
NAMES = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "./a",
    "a/",
    "d",
    "d/e",
    "l",
    "l/x",
    "../out",
    "/etc/x",
    "l/../a",
    ".",
    "a//b",
    "\udcff",
]
LINKS = [
    "a",
    "b",
    "../victim",
    "/",
    ".",
    "..",
    "l",
    "a/b",
    "d",
    "/etc",
    "x" * 300,
    "../../../../victim/secret",
]
MARKERS = [
    ".wh.a",
    ".wh..wh..opq",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh.l",
    "l/.wh.secret",
    ".wh.",
    ".wh..",
    "d/.wh..wh.x",
]


def seeds(name: str) -> Iterator[int]:
    """The kept ones, then the first of all, or as many from a random one on as the time that was asked for allows."""
    yield from KEPT[name]
    asked = float(os.environ.get("OCIDIST_FUZZ_SECONDS", "0"))
    if not asked:
        yield from range(COUNT // 4 if name == "tar" else COUNT)  # each starts GNU tar
        return
    until = time.monotonic() + asked
    for number in itertools.count(random.randrange(2**32)):
        yield number
        if time.monotonic() > until:
            return


def one_line(error: OcidistError, seed: int) -> None:
    assert str(error).isprintable(), f"seed {seed}: {error!r}"


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def one_entry(chance: random.Random) -> bytes:
    """An entry of any kind, legal by itself."""
    name = raw(chance.choice(NAMES))
    mode = chance.choice([0o644, 0o755, 0, 0o7777])
    options = {"mode": mode, "mtime": chance.choice([0, 5, 1_600_000_000, -3]), "uid": chance.choice([0, 7])}
    link = raw(chance.choice(LINKS))
    kind = chance.random()
    if kind < 0.3:
        return entry(name, chance.randbytes(chance.choice([0, 1, 511, 512, 513, 3000])), **options)
    if kind < 0.5:
        return directory(name, **options)
    if kind < 0.65:
        return symlink(name, link)
    if kind < 0.75:
        return hardlink(name, raw(chance.choice(NAMES)))
    if kind < 0.85:
        return entry(raw(chance.choice(MARKERS)))
    if kind < 0.9:
        return entry(name, kind="6", **options)
    return extended(chance, name)


def extended(chance: random.Random, name: bytes) -> bytes:
    """An entry with PAX records, sparse ones among them."""
    keys: list[tuple[str, list[bytes]]] = [
        ("path", [name, b"", b"x" * 300]),
        ("mtime", [b"1.5", b"-1.000000001", b"1e9", b""]),
        ("size", [b"5", b"0", b"99999999999", b"-1"]),
        ("uid", [b"0", b"4294967295", b"7"]),
        ("linkpath", [b"a", b"../victim"]),
        ("SCHILY.xattr.user.a", [b"\0\xff", b""]),
        ("LIBARCHIVE.xattr.user.%41", [b"YQ", b"!"]),
        ("GNU.sparse.map", [b"0,5", b"1,2,3,3", b"1,2,0,3", b"1"]),
        ("GNU.sparse.size", [b"9", b"5", b"4", b"9223372036854775807"]),
        ("GNU.sparse.major", [b"1", b"0"]),
        ("GNU.sparse.realsize", [b"9"]),
        ("comment", [b"x", b"y" * 600]),
    ]
    chosen = [(key, chance.choice(values)) for key, values in chance.sample(keys, chance.randrange(1, 5))]
    return pax(*(record(*pair) for pair in chosen), kind=chance.choice("xxxg")) + entry(name, b"12345")


def archive(chance: random.Random) -> bytes:
    """Some entries; half of the archives are then damaged, with checksums mended for most so that more is read."""
    blocks = bytearray(b"".join(one_entry(chance) for _ in range(chance.randrange(1, 9))) + END)
    if chance.random() < 0.5:
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(blocks) // 512) * 512
            blocks[at + chance.randrange(512)] = chance.choice(
                [0, 0x20, 0x30, 0x37, 0x80, 0xFF, chance.randrange(256)]
            )
            if chance.random() < 0.7:
                fields = bytes(blocks[at : at + 512])
                blocks[at + 148 : at + 156] = b"%06o\0 " % (sum(fields[:148]) + 256 + sum(fields[156:]))
        if chance.random() < 0.3:
            del blocks[chance.randrange(len(blocks)) :]
    return bytes(blocks)


def pieces(data: bytes, chance: random.Random) -> Callable[[], bytes]:
    source, size = io.BytesIO(data), chance.choice([1, 100, 512, 1000, 1 << 20])
    return lambda: source.read(size)


def test_records_are_read_or_refused_and_agree_with_tarfile() -> None:
    """What both take has the same names, types, sizes, links and content."""
    agreed = refused = 0
    for seed in seeds("records"):
        chance = random.Random(seed)
        data = archive(chance)
        records = Records(pieces(data, chance))
        ours = []
        tracemalloc.start()
        try:
            for member in records:
                size = sum(map(len, records.data())) if member.size < 1 << 22 else member.size
                size = size if member.type == ord("0") else 0
                # Where several sizes of a sparse file contradict each other, the oracle takes another one.
                size = -1 if member.extents is not None else size
                ours.append((member.name.strip(b"/"), member.type, size, member.link))
        except LayerError as error:
            one_line(error, seed)
            refused += 1
            continue
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < MAX_EXTENDED * 8, f"seed {seed}: {peak} bytes"
        theirs = by_tarfile(data)
        # tarfile drops what follows a bad header and takes other liberties: where it goes on, it is to agree.
        if theirs is not None and len(theirs) == len(ours):
            for mine, his in zip(ours, theirs, strict=True):
                # An empty path takes the record back, by the standard; to tarfile it is the name.
                name = his[0] or mine[0]
                assert mine == (name, his[1], -1 if mine[2] < 0 else his[2], his[3]), f"seed {seed}"
            agreed += 1
    assert agreed >= 3
    assert refused >= 3


def by_tarfile(data: bytes) -> list[tuple[bytes, int, int, bytes]] | None:
    """(name, type, size, link) of each member, None where tarfile refuses, or has applied a global header."""
    try:
        with tarfile.open(
            fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as found:
            members = found.getmembers()
            if found.pax_headers:
                return None
    except (tarfile.TarError, ValueError, OverflowError, EOFError):
        return None
    kinds = {tarfile.AREGTYPE: b"0", tarfile.CONTTYPE: b"0", tarfile.GNUTYPE_SPARSE: b"0"}
    return [
        (
            raw(member.name).strip(b"/"),
            kinds.get(member.type, member.type)[0],
            member.size if member.isreg() else 0,
            raw(member.linkname),
        )
        for member in members
    ]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/secret").write_bytes(b"a secret of the host")
    return tmp_path


def test_two_layers_of_anything_stay_inside(box: Path) -> None:
    """Applied one after the other, in either column of the policy: a tree or an error, and the victim is as it was."""
    before = snapshot(box / "victim")
    links = os.stat(box / "victim/secret").st_nlink
    taken = 0
    for seed in seeds("trees"):
        chance = random.Random(seed)
        root = box / "root"
        root.mkdir()
        policy = Policy(privileged=chance.random() < 0.5 and hasattr(os, "geteuid") and os.geteuid() == 0)
        for _ in range(2):
            data = archive(chance)
            data = gzip.compress(data, 1) if chance.random() < 0.3 else data
            try:
                apply_layer(io.BytesIO(data), root, Scope(), policy=policy, threads=False)
                taken += 1
            except OcidistError as error:
                one_line(error, seed)
        assert snapshot(box / "victim") == before, f"seed {seed}"
        assert os.stat(box / "victim/secret").st_nlink == links, f"seed {seed}"
        assert sorted(os.listdir(box)) == ["root", "victim"], f"seed {seed}"
        remove_tree(root)
    assert taken >= 5


def test_trees_agree_with_gnu_tar_s(box: Path) -> None:
    """Archives without links, markers and ..: the same names, types, modes and content, or both refuse."""
    require("tar", "processes", "kernel", "root")
    seen = 0
    for seed in seeds("tar"):
        chance = random.Random(seed)
        parts = []
        for number in range(chance.randrange(1, 6)):
            name = f"{chance.choice('abc')}{number}/{'n' * chance.choice([1, 90, 150])}"
            data = chance.randbytes(chance.choice([0, 5, 700]))
            extra = chance.choice([b"", pax(record("mtime", "7.25"))])
            parts.append(extra + entry(name, data, mode=chance.choice([0o600, 0o4755])))
            parts.append(
                chance.choice([b"", directory(f"x{number}/y"), entry(f"p{number}", kind="6"), sparse(number)])
            )
        blob = b"".join(parts) + END
        ours, theirs = box / "ours", box / "theirs"
        ours.mkdir()
        theirs.mkdir()
        apply_layer(io.BytesIO(blob), ours, Scope(), threads=False)
        command = [program("tar"), "-x", "-p", "-C", str(theirs), "--numeric-owner"]
        subprocess.run(command, input=blob, check=True, capture_output=True)
        one, two = snapshot(ours), snapshot(theirs)
        assert {path: (node.type, node.mode, node.sha256) for path, node in one.items() if path != "."} == {
            path: (node.type, node.mode, node.sha256) for path, node in two.items() if path != "."
        }, f"seed {seed}"
        remove_tree(ours)
        remove_tree(theirs)
        seen += 1
    assert seen >= 20


def sparse(number: int) -> bytes:
    """A file in the second form of PAX."""
    return pax(
        record("GNU.sparse.size", "5000"),
        record("GNU.sparse.numblocks", "3"),
        record("GNU.sparse.name", f"s{number}"),
        record("GNU.sparse.map", "1024,512,4096,5,5000,0"),
    ) + entry(f"GNUSparseFile.1/s{number}", b"0123456789" * 51 + b"4567890")


def compressed(kind: str, data: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if kind == "raw zlib in gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return packer.compress(data) + packer.flush()
    return bz2.compress(data) if kind == "bzip2" else lzma.compress(data, preset=0)


ORACLES: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "raw zlib in gzip": gzip.decompress,
    "bzip2": bz2.decompress,
    "xz": lzma.decompress,
}


@pytest.mark.parametrize("accelerated", [True, False])
def test_streams_are_read_or_refused_and_agree_with_the_library(accelerated: bool) -> None:
    """Whole, cut, damaged and joined: what we take the library takes, with the same bytes, and memory is bounded."""
    use_accelerators(accelerated)
    try:
        outcomes = [stream_of(seed) for seed in seeds("streams")]
    finally:
        use_accelerators(True)
    assert outcomes.count(True) >= 3
    assert outcomes.count(False) >= 3


def stream_of(seed: int) -> bool:
    """Whether the stream of this number is taken."""
    chance = random.Random(seed)
    kind = chance.choice(list(ORACLES))
    plain = chance.randbytes(chance.choice([0, 10, 3000])) + b"t" * chance.choice([0, 5000, 3_000_000])
    whole = compressed(kind, plain)
    data = bytearray(whole)
    change = chance.random()
    if change < 0.2:
        del data[chance.randrange(len(data)) :]
    elif change < 0.5:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif change < 0.7:
        data += chance.choice([whole, b"junk", whole[:9]])
    padding = chance.choice([0, 99]) if change >= 0.5 else 0  # zeros, which we take and lzma does not
    data += bytes(padding)
    tracemalloc.start()
    try:
        stream, name = open_stream(io.BytesIO(bytes(data)))
        size = 0
        hash_of = 0
        while piece := stream.read_block():
            assert len(piece) <= 1 << 20
            size += len(piece)
            hash_of = zlib.crc32(piece, hash_of)
    except OcidistError as error:
        one_line(error, seed)
        return False
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20, f"seed {seed}: {peak} bytes"
    if name != "none":
        expected = ORACLES[kind](bytes(data[: len(data) - padding]))
        assert (size, hash_of) == (len(expected), zlib.crc32(expected)), f"seed {seed}"
    return True


def test_zstd_agrees_with_the_program() -> None:
    """Damaged frames: what we take, zstd takes, with the same bytes."""
    require("zstd", "processes")
    try:
        open_stream(io.BytesIO(b"\x28\xb5\x2f\xfd"))[0].read_block()
    except ImportError:
        require("module:backports.zstd")
    except LayerError:
        pass
    taken = 0
    command = [program("zstd"), "-q", "-c"]
    for seed in range(40):
        chance = random.Random(seed)
        plain = chance.randbytes(500) + b"t" * 4000
        packed = subprocess.run(command, input=plain, check=True, capture_output=True).stdout
        data = bytearray(packed)
        if seed % 4 == 1:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif seed % 4 == 2:
            data = data[: chance.randrange(1, len(data))]
        elif seed % 4 == 3:
            data += b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345" + packed
        try:
            stream, name = open_stream(io.BytesIO(bytes(data)))
            found = b"".join(iter(stream.read_block, b""))
        except OcidistError:
            assert seed % 4 in (1, 2), f"seed {seed}"
            continue
        if name == "zstd":
            theirs = subprocess.run([*command, "-d"], input=bytes(data), capture_output=True)
            assert theirs.returncode == 0, f"seed {seed}: zstd refuses it: {theirs.stderr!r}"
            assert theirs.stdout == found, f"seed {seed}"
            taken += 1
    assert taken >= 20


@pytest.mark.soak
@pytest.mark.parametrize("test", ["records", "trees", "streams"])
def test_anything_for_a_minute_each(test: str, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, from other numbers, and for longer."""
    monkeypatch.setenv("OCIDIST_FUZZ_SECONDS", "60")
    if test == "records":
        test_records_are_read_or_refused_and_agree_with_tarfile()
    elif test == "trees":
        test_two_layers_of_anything_stay_inside(box)
    else:
        test_streams_are_read_or_refused_and_agree_with_the_library(True)
