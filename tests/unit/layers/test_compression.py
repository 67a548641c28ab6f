"""Compressions: found by magic, joined members, one rule for cut and trailing data, with and without accelerators."""

from __future__ import annotations

import bz2
import gc
import gzip
import importlib.util
import io
import lzma
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections import deque
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.errors import Cancelled, LayerError, MissingExtra
from ocidist.layers.compression import inflate as compression
from ocidist.layers.compression.inflate import detect, inflater, open_stream
from ocidist.layers.compression.zstd import Frame
from ocidist.scope import Scope
from tests.parts.required import program, require

HAVE_ZSTD = importlib.util.find_spec("backports.zstd") if importlib.util.find_spec("backports") else None
try:
    from compression import zstd as _stdlib_zstd  # type: ignore[import-not-found,unused-ignore]  # noqa: F401

    HAVE_ZSTD = True  # type: ignore[assignment]
except ImportError:
    pass

PLAIN = random.Random(7).randbytes(40_000) + b"compressible " * 400_000


PROGRAM = "zstd, by its program"
ZSTD = None if not HAVE_ZSTD else compression._zstd()
MODULES = ("compression", "compression.zstd", "backports", "backports.zstd")


def zstd(data: bytes) -> bytes:
    if ZSTD is not None:
        return ZSTD.compress(data)  # type: ignore[no-any-return]
    return subprocess.run([program("zstd"), "-cq"], input=data, capture_output=True, check=True).stdout


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


@pytest.fixture(params=[*COMPRESS, PROGRAM])
def kind(request: pytest.FixtureRequest, _accelerators: None, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == PROGRAM:
        require("zstd", "processes")
        without_module(monkeypatch)
        return "zstd"
    if request.param == "zstd" and not HAVE_ZSTD:
        require("module:backports.zstd")
    return str(request.param)


def without_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Python before 3.14 without the package."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)


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


def test_e60_zstd_missing_says_which_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either module, and without the program; one in the working directory is none."""
    without_module(monkeypatch)
    for path in ("", "bin:.", "/nowhere"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(MissingExtra) as caught:
            read(b"\x28\xb5\x2f\xfd" + bytes(20))
        said = "a layer compressed with zstd needs backports.zstd; pip install backports.zstd, or install the program zstd"
        assert str(caught.value) == said


def test_data_that_needs_more_memory_than_is_given_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A window of 2 GiB: of zstd by its module and by its program, and of xz."""
    require("zstd", "processes", "module:backports.zstd")
    xz = bytearray(lzma.compress(b"x"))
    assert xz[14:16] == b"\x21\x01"  # LZMA2 with one byte of properties, which is the window's size
    xz[16] = 38
    xz[20:24] = zlib.crc32(xz[12:20]).to_bytes(4, "little")
    long = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00"
    for data in (bytes(xz), long):
        with pytest.raises(LayerError, match="needs more memory"):
            read(data)
    without_module(monkeypatch)
    with pytest.raises(LayerError, match="needs more memory"):
        read(long)


def frames() -> dict[str, bytes]:
    """Of every shape that RFC 8878 has, by the program's options."""
    options = {
        "level 1": ["-1"],
        "level 19": ["-19", "--ultra"],
        "no checksum": ["--no-check"],
        "no content size": ["--no-content-size"],
        "a long window": ["--long=27"],
        "many blocks": ["-B1000"],
    }
    made = {}
    for data in (b"", b"x", bytes(300_000), PLAIN[:300_000], PLAIN[:60_000] * 5):
        for name, words in options.items():
            done = subprocess.run(
                [program("zstd"), "-cq", *words], input=data, capture_output=True, check=True
            )
            made[f"{name}, {len(data)} of {data[:1]!r}"] = done.stdout
    return made


@pytest.mark.parametrize("source", [io.BytesIO, Dribble])
def test_e60_streams_of_xz_may_have_padding_between_them(source: type[io.BytesIO]) -> None:
    """The .xz file format 1.2, "Stream Padding"; what is no stream behind it is refused as ever."""
    one, two = lzma.compress(PLAIN[:5000]), lzma.compress(PLAIN[5000:9000])
    for count in (0, 4, 70_000):
        assert read(one + bytes(count) + two + bytes(count), source) == (PLAIN[:9000], "xz")
    with pytest.raises(LayerError, match="other data"):
        read(one + bytes(4) + b"other data", source)


@pytest.mark.parametrize("step", [1, 3, 100_000])
def test_the_end_of_a_zstd_frame_is_found(step: int) -> None:
    """However its bytes arrive, and whatever stands behind it."""
    require("zstd", "processes")
    for name, data in frames().items():
        if len(data) > 5000 * step:
            continue
        frame, taken = Frame(), 0
        whole = data + b"behind it"
        while taken < len(whole) and not frame.ended:
            count = frame.feed(whole[taken : taken + step])
            assert count in (step, len(whole) - taken) or frame.ended, name
            taken += count
        assert (taken, frame.ended) == (len(data), True), name


def test_zstd_by_its_program_is_zstd_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes and the same errors, whole, cut, damaged and with more behind."""
    require("zstd", "processes", "module:backports.zstd")

    def outcome(data: bytes) -> tuple[bytes, str]:
        found = []
        try:
            stream, _ = open_stream(io.BytesIO(data))
            while piece := stream.read_block():
                found.append(piece)
        except LayerError as error:
            return b"".join(found), error.reason.partition(":")[0]
        return b"".join(found), ""

    whole = zstd(PLAIN[:200_000])
    skip = b"\x50\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"skip this"
    cases = [
        skip,
        skip + whole + skip,
        whole + skip[:5],
        whole + bytes(9) + b"x",
        whole + whole[:4],
        whole[:5],
    ]
    cases += [whole + whole[:cut] for cut in range(6, len(whole), 997)]
    for at in range(4, len(whole), 311):
        damaged = bytearray(whole)
        damaged[at] ^= 0x41
        cases.append(bytes(damaged))
    wanted = [outcome(case) for case in cases]
    without_module(monkeypatch)
    for case, (data, error) in zip(cases, wanted, strict=True):
        found, said = outcome(case)
        # Of what is damaged either gives as much as it can, by pieces of its own.
        assert (said, found if not said else b"") == (error, data if not said else b"")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a program of that name before all others."""

    def put(script: str) -> Path:
        path = tmp_path / "zstd"
        path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{script}\n")
        path.chmod(0o755)
        return tmp_path

    require("processes", "threads", "os:set_blocking")
    without_module(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    return put


def test_a_zstd_program_that_fails_is_told_with_its_last_words(fake: Callable[[str], Path]) -> None:
    """Its exit code decides, also where all of its output came; no more of its words is kept than a page."""
    data = b"\x28\xb5\x2f\xfd\x00\x00\x01\x00\x00"
    fake(
        "sys.stdin.buffer.read(); print('out'); sys.stderr.write('w' * 100_000 + '\\n/*stdin*\\ : no\\x1b luck'); sys.exit(3)"
    )
    with pytest.raises(LayerError) as caught:
        read(data)
    assert len(str(caught.value)) < 5000
    fake(
        "sys.stdin.buffer.read(); sys.stderr.write('zstd: one\\n/*stdin*\\ : no\\x1b luck \\n'); sys.exit(3)"
    )
    with pytest.raises(LayerError, match=r"the zstd data is damaged: 'no\\x1b luck'"):
        read(data)
    fake("os._exit(9)")
    with pytest.raises(LayerError, match="exit code 9"):
        read(data)
    (fake("") / "zstd").write_text("#!/nowhere/python\n")
    with pytest.raises(LayerError, match="can't be run"):
        read(data)


def test_i74_a_zstd_program_ends_with_the_scope(fake: Callable[[str], Path], tmp_path: Path) -> None:
    """One that neither takes nor gives anything, and one that gives without end."""
    data = b"\x28\xb5\x2f\xfd\x00\x00" + b"\xf9\xff\x07" + bytes(100_000)
    note = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    for script in ("time.sleep(600)", "while True: sys.stdout.buffer.write(b'x' * 70000)"):
        fake(f"{note}; os.close(0)\n{script}")
        scope, pid = Scope(), tmp_path / "pid"
        pid.unlink(missing_ok=True)

        def end(scope: Scope = scope, pid: Path = pid) -> None:
            while not pid.exists() or not pid.read_text():
                time.sleep(0.02)
            scope.cancel()

        threading.Thread(target=end, daemon=True).start()
        stream, _ = open_stream(io.BytesIO(data), scope=scope)
        with pytest.raises(Cancelled):
            deque(iter(stream.read_block, b""), 0)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
    fake(f"{note}\nwhile True: sys.stdout.buffer.write(b'x' * 70000)")
    stream, _ = open_stream(io.BytesIO(data))
    assert stream.read_block()
    del stream  # nobody wants more of it
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


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
