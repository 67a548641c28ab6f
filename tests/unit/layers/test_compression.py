"""Compressions: found by magic, joined members, one rule for cut and trailing data, with and without accelerators."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import os
import random
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.errors import LayerError, MissingExtra
from ocidist.layers import compression
from ocidist.layers.compression import detect, inflater, open_stream
from tests.parts.required import require

HAVE_ZSTD = importlib.util.find_spec("backports.zstd") if importlib.util.find_spec("backports") else None
try:
    from compression import zstd as _stdlib_zstd  # type: ignore[import-not-found,unused-ignore]  # noqa: F401

    HAVE_ZSTD = True  # type: ignore[assignment]
except ImportError:
    pass

PLAIN = random.Random(7).randbytes(40_000) + b"compressible " * 400_000


def zstd(data: bytes) -> bytes:
    return compression._zstd().compress(data)  # type: ignore[no-any-return]


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 3, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


@pytest.fixture(params=["accelerated", "plain"])
def _accelerators(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once with whatever accelerator is installed, once without."""
    compression.use_accelerators(request.param == "accelerated")
    yield
    compression.use_accelerators(True)


@pytest.fixture(params=list(COMPRESS))
def kind(request: pytest.FixtureRequest, _accelerators: None) -> str:
    if request.param == "zstd" and not HAVE_ZSTD:
        require("module:backports.zstd")
    return str(request.param)


class Dribble(io.BytesIO):
    """Gives seven bytes at most, as a slow connection may."""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(buffer[:7])


def read(data: bytes, source: type[io.BytesIO] = io.BytesIO) -> tuple[bytes, str]:
    stream, name = open_stream(source(data))
    pieces = []
    while piece := stream.read_block():
        assert len(piece) <= 1 << 20
        pieces.append(piece)
    assert stream.read_block() == b""
    assert stream.consumed == len(data)
    return b"".join(pieces), name


def test_e60_round_trip_and_name(kind: str) -> None:
    """The plain bytes come back, and the magic tells which it was."""
    assert read(COMPRESS[kind](PLAIN)) == (PLAIN, kind)
    assert read(COMPRESS[kind](b"")) == (b"", kind)


def test_e60_bytes_that_trickle_in_give_the_same(kind: str) -> None:
    """Members, trailers and magics split anywhere."""
    data = COMPRESS[kind](PLAIN[:50_000])
    assert read(data + data + bytes(8), Dribble) == (PLAIN[:50_000] * 2, kind)


def test_e60_members_that_follow_each_other_are_joined(kind: str) -> None:
    """Several, with an empty one between, and zero padding after the last."""
    pack = COMPRESS[kind]
    whole = pack(PLAIN) + pack(b"") + pack(b"tail")
    assert read(whole)[0] == PLAIN + b"tail"
    for padding in (4, 512, 70_000):
        assert read(whole + bytes(padding))[0] == PLAIN + b"tail"


def test_e60_cut_anywhere_is_refused(kind: str) -> None:
    """In the header, in the data, in the trailer, and in a second member."""
    data = COMPRESS[kind](PLAIN[:50_000])
    for cut in sorted({12, 40, len(data) // 2, len(data) - 9, len(data) - 4, len(data) - 1}):
        with pytest.raises(LayerError):
            read(data[:cut])
        with pytest.raises(LayerError):
            read(data + data[:cut])


def test_e60_trailing_garbage_is_refused(kind: str) -> None:
    """Other data after the end, at once or after padding; data of another compression too."""
    data = COMPRESS[kind](PLAIN[:50_000])
    other = bz2.compress(b"x") if kind != "bzip2" else gzip.compress(b"x")
    for garbage in (b"x", b"garbage" * 100, bytes(600) + b"x", bytes(100_000) + b"x", b"\x1f", other):
        with pytest.raises(LayerError, match="after the compressed data"):
            read(data + garbage)


def test_e60_damage_is_refused(kind: str) -> None:
    """A flipped bit in the data is noticed by the format's own checks (zstd's frames may have none)."""
    data = bytearray(COMPRESS[kind](PLAIN[:50_000]))
    if kind == "zstd":
        data[6] ^= 0xFF
        data[5] ^= 0x1B
    else:
        data[len(data) // 2] ^= 0x10
    with pytest.raises(LayerError):
        read(bytes(data))


def test_h69_a_bomb_takes_little_memory(kind: str) -> None:
    """256 MiB of zeros from a small blob: pieces of at most 1 MiB, nothing kept."""
    piece = bytes(1 << 20)
    if kind == "gzip":
        pack = zlib.compressobj(9, wbits=31)
        bomb = b"".join(pack.compress(piece) for _ in range(256)) + pack.flush()
    else:
        bomb = COMPRESS[kind](piece * 4) * 64
    tracemalloc.start()
    try:
        stream, _ = open_stream(io.BytesIO(bomb))
        total = 0
        while block := stream.read_block():
            total += len(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 256 << 20
    assert peak < (24 << 20)


@pytest.mark.usefixtures("_accelerators")
def test_h69_an_endless_gzip_name_is_read_with_little_memory() -> None:
    """The header's file name goes on for 64 MiB."""
    served = 0

    class Endless:
        def readinto(self, buffer: memoryview) -> int:
            nonlocal served
            if served >= 64 << 20:
                return 0
            buffer[:] = b"n" * len(buffer)
            if not served:
                buffer[:10] = b"\x1f\x8b\x08\x08" + bytes(6)
            served += len(buffer)
            return len(buffer)

    tracemalloc.start()
    try:
        with pytest.raises(LayerError):
            open_stream(Endless())[0].read_block()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_h69_gzip_in_gzip_is_not_unwrapped_twice() -> None:
    """The inner one is data, which is no tar."""
    inner = gzip.compress(b"x" * 1000)
    assert read(gzip.compress(inner)) == (inner, "gzip")


def test_plain_bytes_come_as_they_are() -> None:
    """No magic: no compression. Short and empty ones too, and text that begins like bzip2."""
    for data in (b"", b"a", PLAIN, b"BZh9 is a file name" + bytes(1000)):
        assert read(data) == (data, "none")
        assert read(data[:100], Dribble) == (data[:100], "none")


def test_e60_zstd_s_skippable_frames_are_skipped() -> None:
    """Before, between and after frames, as zstd:chunked has them."""
    if not HAVE_ZSTD:
        require("module:backports.zstd")
    skip = b"\x50\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"skip this"
    data = zstd(b"one") + skip + zstd(b"two") + skip
    assert read(skip + data, Dribble)[0] == b"onetwo"
    with pytest.raises(LayerError):
        read(data[:-1])


def test_e60_zstd_missing_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either module."""
    for name in ("compression", "compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install 'ocidist\[zstd\]'"):
        read(b"\x28\xb5\x2f\xfd" + bytes(20))


def test_readinto_fills_buffers() -> None:
    """The same bytes by readinto, in odd sizes."""
    stream, _ = open_stream(io.BytesIO(gzip.compress(PLAIN)))
    buffer, found = bytearray(7777), bytearray()
    while count := stream.readinto(memoryview(buffer)):
        found += buffer[:count]
    assert bytes(found) == PLAIN


def test_reads_that_fail_are_layer_errors(tmp_path: Path) -> None:
    """A file that was closed, and a directory."""
    source = io.BytesIO(b"x")
    source.close()
    with pytest.raises(LayerError, match="can't read"):
        open_stream(source)

    class Folder:
        def readinto(self, buffer: memoryview) -> int:
            fd = os.open(tmp_path, os.O_RDONLY)
            try:
                return os.readv(fd, [buffer])
            finally:
                os.close(fd)

    with pytest.raises(LayerError, match="can't read"):
        open_stream(Folder())


def test_progress_counts_bytes_of_the_blob() -> None:
    """Cumulative, ending at its size."""
    data, seen = gzip.compress(PLAIN), []
    stream, _ = open_stream(io.BytesIO(data), progress=seen.append)
    while stream.read_block():
        pass
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


def test_detect_and_inflater_name_what_they_found() -> None:
    """An unknown beginning is no compression; the plain fallback is zlib."""
    assert detect(b"") == detect(b"\x1f") == detect(b"BZh9xxxxxx") == "none"
    compression.use_accelerators(False)
    try:
        assert inflater()[0] == "zlib"
    finally:
        compression.use_accelerators(True)
