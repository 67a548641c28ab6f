"""From a layer's blob to plain tar bytes: gzip, zstd, xz, bzip2 or no compression, told by magic.

The media type is not asked: what registries serve under one media type differs, the first bytes don't lie.
Rules that hold for every compression, with and without accelerators:

* members (gzip, bzip2), frames (zstd) and streams (xz) may follow each other; zstd's skippable frames are skipped;
* zero bytes after the last one are padding and accepted, in xz between two as well; anything else there is refused;
* a stream that ends inside a member is refused, also if all of its data was seen but its trailer wasn't.

This is the one module that looks for accelerators (``isal``, ``zlib_ng``, ``backports.zstd``, the program ``zstd``), at
first use.

Sources: RFC 1952 (gzip), RFC 8878 (zstd), the .xz file format 1.2.
"""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any, Callable, Iterator, Protocol

from ocidist.errors import LayerError, MissingExtra, OcidistError, Unsupported
from ocidist.layers.compression.zstd import Frame, decompressed, too_much_memory
from ocidist.scope import Scope
from ocidist.settings import find_program

__all__ = ["PlainStream", "Readable", "detect", "inflater", "open_stream", "use_accelerators", "zstd_program"]

# 64 KiB in and about 256 KiB out stay in the processor's cache between inflating, hashing and writing.
INPUT = 64 * 1024
OUTPUT = 1024 * 1024  # what one call may return at most, so that a bomb can't fill the memory
RAW = 256 * 1024

_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f


class Readable(Protocol):
    """Anything with ``readinto``: a Body of the store, a file, standard input."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


def detect(head: bytes) -> str:
    """ "gzip", "zstd", "xz", "bzip2" or "none", from the first bytes (ten are enough)."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == _ZSTD_FRAME or (head[1:4] == _SKIPPABLE and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    # Text may begin with "BZh9": a block or the end-of-stream mark has to follow.
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bzip2"
    return "none"


class _Source:
    """The compressed side: reads into one buffer, counts, and gives back what was looked at."""

    def __init__(self, body: Readable, layer: str, progress: Callable[[int], object] | None) -> None:
        self.layer = layer
        self.count = 0
        self._body = body
        self._progress = progress
        self._buffer = memoryview(bytearray(INPUT))
        self._ahead = b""

    def read(self) -> bytes | memoryview:
        """The next bytes, empty at the end. Valid until the next call."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        try:
            count = self._body.readinto(self._buffer) or 0
        except OcidistError:
            raise
        except (OSError, ValueError) as error:
            raise LayerError(self.layer, "", f"can't read it: {error}") from error
        self.count += count
        if count and self._progress is not None:
            self._progress(self.count)
        return self._buffer[:count]

    def widen(self, size: int) -> None:
        """Read up to ``size`` bytes at a time from now on."""
        self._buffer = memoryview(bytearray(size))

    def push(self, data: bytes) -> None:
        """Put ``data`` back in front."""
        self._ahead = data + self._ahead

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes without taking them; fewer at the end."""
        while len(self._ahead) < count:
            ahead, self._ahead = self._ahead, b""
            more = bytes(self.read())
            self._ahead = ahead + more
            if not more:
                break
        return self._ahead[:count]

    def skip(self, count: int) -> None:
        while count:
            data = self.read()
            if not data:
                raise LayerError(self.layer, "", "the compressed data is cut short")
            if len(data) > count:
                self.push(bytes(data[count:]))
                return
            count -= len(data)

    def skip_zeros(self) -> None:
        while data := self.read():
            if rest := bytes(data).lstrip(b"\0"):
                self.push(rest)
                return

    def only_padding(self) -> None:
        """Read to the end; refuse anything but zeros."""
        while data := self.read():
            if bytes(data).strip(b"\0"):
                raise LayerError(self.layer, "", "there is other data after the compressed data")


class PlainStream:
    """Plain tar bytes of a layer. ``name`` is the compression; ``consumed`` counts bytes of the blob read."""

    def __init__(self, blocks: Iterator[bytes], source: _Source, name: str) -> None:
        self.name = name
        self._blocks = blocks
        self._source = source
        self._rest = memoryview(b"")

    @property
    def consumed(self) -> int:
        return self._source.count

    def read_block(self) -> bytes:
        """The next piece, of whatever size up to 1 MiB; empty at the end. Raises LayerError."""
        return next(self._blocks, b"")

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end. Don't mix it with ``read_block``."""
        if not self._rest:
            self._rest = memoryview(self.read_block())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def open_stream(
    body: Readable,
    layer: str = "layer",
    progress: Callable[[int], object] | None = None,
    scope: Scope | None = None,
) -> tuple[PlainStream, str]:
    """The plain bytes of ``body`` and the name of its compression.

    ``progress`` is called with the cumulative number of bytes read of ``body``; a program that decompresses ends with
    ``scope``. Raises LayerError (also for what can't be read), MissingExtra where zstd needs a package, Unsupported
    where this Python lacks a codec.
    """
    source = _Source(body, layer, progress)
    name = detect(source.peek(10))
    if name == "none":
        blocks = _plain(source)
    elif name == "gzip":
        blocks = _gzip(source)
    else:
        blocks = _framed(source, name, scope)
    return PlainStream(blocks, source, name), name


def _plain(source: _Source) -> Iterator[bytes]:
    source.widen(RAW)
    while data := source.read():
        yield bytes(data)


# -- gzip -------------------------------------------------------------------------------------------

_wanted = True
_Inflater = tuple[str, Callable[[], Any], tuple[type[BaseException], ...]]
_inflater: _Inflater | None = None


def use_accelerators(wanted: bool) -> None:
    """Look for accelerators (the default) or do without: what tests compare."""
    global _wanted, _inflater
    _wanted, _inflater = wanted, None


def inflater() -> _Inflater:
    """(module name, maker of a gzip decompression object, its errors), the fastest one that is here."""
    global _inflater
    if _inflater is None:
        _inflater = _find_inflater() if _wanted else None
        if _inflater is None:
            _inflater = ("zlib", lambda: zlib.decompressobj(31), (zlib.error,))
    return _inflater


def _find_inflater() -> _Inflater | None:
    try:
        from isal import isal_zlib

        error: Any = isal_zlib.error  # its stubs have an instance where there is a class
        return "isal", lambda: isal_zlib.decompressobj(31), (error, zlib.error)
    except (ImportError, AttributeError):
        pass
    try:
        from zlib_ng import zlib_ng

        return "zlib_ng", lambda: zlib_ng.decompressobj(31), (zlib_ng.error, zlib.error)
    except (ImportError, AttributeError):
        return None


def _gzip(source: _Source) -> Iterator[bytes]:
    _, make, errors = inflater()
    while True:
        member = make()
        data: bytes | memoryview = source.read()
        while not member.eof:
            if not data:
                raise LayerError(source.layer, "", "the gzip data is cut short")
            try:
                out = member.decompress(data, OUTPUT)
                if out:
                    yield out
                # Full output: more may wait inside although the input is used up.
                while len(out) == OUTPUT and not member.eof and not member.unconsumed_tail:
                    out = member.decompress(b"", OUTPUT)
                    if out:
                        yield out
            except errors as error:
                raise LayerError(source.layer, "", f"the gzip data is damaged: {error}") from error
            if not member.eof:
                data = member.unconsumed_tail or source.read()
        if member.unused_data:
            source.push(member.unused_data)
        if source.peek(2) != b"\x1f\x8b":
            source.only_padding()
            return


# -- codecs of one interface: decompress(data, max_length), needs_input, eof, unused_data -----------


def _codec(name: str) -> tuple[Callable[[], Any], tuple[type[BaseException], ...]]:
    try:
        if name == "xz":
            import lzma

            return lambda: lzma.LZMADecompressor(memlimit=256 << 20), (lzma.LZMAError, EOFError)
        if name == "bzip2":
            import bz2

            return bz2.BZ2Decompressor, (OSError, EOFError)
    except ImportError:
        raise Unsupported(f"this Python was built without the codec of {name}") from None
    zstd = _zstd()
    return zstd.ZstdDecompressor, (zstd.ZstdError, EOFError)


def zstd_program() -> str | None:
    """The path of the program ``zstd``, where there is one that can be fed and emptied by turns."""
    return find_program("zstd") if os.name == "posix" and sys.platform not in ("emscripten", "wasi") else None


def _zstd() -> Any:
    try:
        from compression import zstd  # Python 3.14

        return zstd
    except ImportError:
        pass
    try:
        from backports import zstd as backport

        return backport
    except ImportError:
        raise MissingExtra(
            "backports.zstd", "a layer compressed with zstd", "install the program zstd"
        ) from None


def _framed(source: _Source, name: str, scope: Scope | None) -> Iterator[bytes]:
    try:
        make, errors = _codec(name)
    except MissingExtra:
        program = zstd_program()
        if program is None:
            raise
        yield from decompressed(program, _frames(source), source.layer, scope)
        return
    while True:
        if name == "zstd" and _skip_frame(source):
            pass
        else:
            yield from _frame(source, name, make(), errors)
        if name == "xz":
            source.skip_zeros()
        if detect(source.peek(10)) != name:
            source.only_padding()
            return


def _frames(source: _Source) -> Iterator[bytes]:
    """The bytes of all zstd frames, by the rules of ``_framed``."""
    while True:
        if not _skip_frame(source):
            frame = Frame()
            while not frame.ended:
                data = source.read()
                if not data:
                    raise LayerError(source.layer, "", "the zstd data is cut short")
                count = frame.feed(data)
                yield bytes(data[:count])
                if count < len(data):
                    source.push(bytes(data[count:]))
        if detect(source.peek(10)) != "zstd":
            source.only_padding()
            return


def _skip_frame(source: _Source) -> bool:
    head = source.peek(8)
    if head[1:4] != _SKIPPABLE:
        return False
    if len(head) < 8:
        raise LayerError(source.layer, "", "the zstd data is cut short")
    source.skip(8 + int.from_bytes(head[4:8], "little"))
    return True


def _frame(
    source: _Source, name: str, frame: Any, errors: tuple[type[BaseException], ...]
) -> Iterator[bytes]:
    while not frame.eof:
        data: bytes | memoryview = b""
        if frame.needs_input:
            data = source.read()
            if not data:
                raise LayerError(source.layer, "", f"the {name} data is cut short")
        try:
            out = frame.decompress(data, OUTPUT)
        except errors as error:
            if "memory" in str(error).lower():
                raise too_much_memory(source.layer, name) from error
            raise LayerError(source.layer, "", f"the {name} data is damaged: {error}") from error
        if out:
            yield out
    if frame.unused_data:
        source.push(frame.unused_data)
