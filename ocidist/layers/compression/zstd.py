"""zstd by the program of that name, where Python has no module for it.

The program is told where frames end by nothing but its input, and it can't say what of that it did not need: so frames
are followed here, and it is given nothing else. Plain bytes come as they are made; a program that stops taking or
giving is ended with the scope.

Source: RFC 8878, "Zstandard Frames"; zstd(1).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterator

from ocidist.errors import LayerError, OcidistError, quoted
from ocidist.scope import POLL, Scope

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["Frame", "decompressed", "too_much_memory"]

_PIECE = 256 * 1024
_SAID = 4096  # bytes of its complaint that are kept
_PATIENCE = 10.0  # seconds that it may take to end once it has closed its output
_RLE = 1
_CUT = (b"premature end", b"unexpected end")


class Frame:
    """Follows one frame to its end, through pieces of any size."""

    def __init__(self) -> None:
        self.ended = False
        self._head = bytearray()  # what is being collected, up to ``_wanted`` bytes
        self._wanted = 5  # magic and descriptor
        self._skip = 0  # bytes that are not looked at
        self._checksum = self._begun = self._last = False

    def feed(self, data: bytes | memoryview) -> int:
        """How many bytes of ``data`` belong to the frame; all, unless it ends in them."""
        pos, end = 0, len(data)
        while pos < end and not self.ended:
            if self._skip:
                step = min(self._skip, end - pos)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._head), end - pos)
                self._head += data[pos : pos + step]
                if len(self._head) == self._wanted:
                    self._block() if self._begun else self._header()
                    self._head.clear()
            pos += step
            self.ended = self._last and not self._skip
        return pos

    def _header(self) -> None:
        descriptor = self._head[4]
        single = descriptor >> 5 & 1
        content = (single, 2, 4, 8)[descriptor >> 6]
        self._checksum = bool(descriptor & 4)
        self._skip = (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
        self._begun, self._wanted = True, 3

    def _block(self) -> None:
        head = int.from_bytes(self._head, "little")
        self._last, kind = bool(head & 1), head >> 1 & 3
        self._skip = 1 if kind == _RLE else head >> 3
        if self._last and self._checksum:
            self._skip += 4


def too_much_memory(layer: str, name: str) -> LayerError:
    """The error for data whose window is larger than its decompressor takes: 128 MiB of zstd, 256 MiB of xz."""
    return LayerError(
        layer,
        "",
        f"its {name} data needs more memory to unpack than is allowed; compress it with a shorter window",
    )


def decompressed(program: str, frames: Iterator[bytes], layer: str, scope: Scope | None) -> Iterator[bytes]:
    """The plain bytes of ``frames``, by the ``program`` at that path.

    An error that ``frames`` ends with is raised once all before it has come. Raises LayerError for damage and for a
    program that can't be run or fails, and the scope's end.
    """
    import subprocess
    from contextlib import nullcontext
    from itertools import chain

    first = next(frames, b"")
    if not first:  # it would take that for an error
        return
    try:
        process = subprocess.Popen(
            [program, "-dcq"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
    except OSError as error:
        raise LayerError(layer, "", f"{program} can't be run: {error.strerror or error}") from error
    work = _Work(process, chain((first,), frames), scope)
    try:
        with nullcontext() if scope is None else scope.on_cancel(process.kill):
            yield from work.pieces()
            code = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        raise LayerError(layer, "", f"{program} doesn't end") from None
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    if scope is not None:
        scope.check()
    if code and (work.trouble is None or not any(words in work.said for words in _CUT)):
        if b"--memory" in work.said:
            raise too_much_memory(layer, "zstd")
        said = work.said.decode("utf-8", "replace").strip().rpartition("\n")[2].rpartition(" : ")[2]
        raise LayerError(
            layer, "", f"the zstd data is damaged: {quoted(said) if said else f'exit code {code}'}"
        )
    if work.trouble is not None:
        raise work.trouble


class _Work:
    """A process that is fed and emptied by turns. ``trouble`` is what its input ended with, ``said`` its complaint."""

    def __init__(self, process: Popen[bytes], frames: Iterator[bytes], scope: Scope | None) -> None:
        self.trouble: OcidistError | None = None
        self.said = b""
        self._frames, self._scope = frames, scope
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._piece = memoryview(b"")

    def pieces(self) -> Iterator[bytes]:
        from select import POLLIN, POLLOUT, poll

        into, out, complaint = (stream.fileno() for stream in (self._stdin, self._stdout, self._stderr))
        os.set_blocking(into, False)
        waiting, open_ = poll(), {into, out, complaint}
        for fd in open_:
            waiting.register(fd, POLLOUT if fd == into else POLLIN)
        while open_:
            for fd, _ in waiting.poll(1000 * POLL):
                data = b"" if fd == into else os.read(fd, _PIECE)
                if not (self._feed() if fd == into else data):
                    waiting.unregister(fd)
                    open_.remove(fd)
                    if fd == into:
                        self._stdin.close()
                elif fd == out:
                    yield data
                else:
                    self.said = (self.said + data)[:_SAID]
            if self._scope is not None:
                self._scope.check()

    def _feed(self) -> bool:
        """Write some of its input; False once there is no more, or it takes no more."""
        if not self._piece:
            try:
                self._piece = memoryview(next(self._frames, b""))
            except OcidistError as error:
                self.trouble = error
            if not self._piece:
                return False
        try:
            self._piece = self._piece[os.write(self._stdin.fileno(), self._piece) :]
        except BlockingIOError:
            pass
        except OSError:  # it has ended: its exit code and its complaint say why
            return False
        return True
