"""stdin, stdout and stderr as this process got them: closed, full, or in another encoding than UTF-8.

A closed one is put back in its place (else the next file that is opened would be file 1, and listings would go
into it): reads and writes then fail by themselves. A failed read or write of stdin and stdout is a StreamError;
what stderr can't take is dropped, for there is nobody left to tell. Used by the program alone, not by ``main``.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

from ocidist.errors import OcidistError
from ocidist.redaction import SECRETS

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["StreamError", "let_go_of_stdout", "log_to_stderr", "say", "set_up", "speak_json"]


class StreamError(OcidistError):
    """stdin or stdout, ``stream``, can't be read or written."""

    def __init__(self, stream: str, error: OSError) -> None:
        import errno

        self.stream = stream
        closed = error.errno == errno.EBADF
        super().__init__(f"{stream}: {'it is closed' if closed else error.strerror or error}")


class _Input(io.FileIO):
    def readinto(self, buffer: WriteableBuffer) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise StreamError("stdin", error) from error

    def readall(self) -> bytes | None:  # type: ignore[override]
        try:
            return super().readall()
        except OSError as error:
            raise StreamError("stdin", error) from error


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StreamError("stdout", error) from error


class _Lossy(io.FileIO):
    def write(self, data: ReadableBuffer) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def set_up() -> None:
    """Put the three in their places. What can't be encoded is written as an escape."""
    _fill_gaps()
    sys.stdin = _text(sys.stdin, io.BufferedReader(_Input(0, "rb", closefd=False)), "surrogateescape")
    sys.stdout = _text(sys.stdout, io.BufferedWriter(_Output(1, "wb", closefd=False)), "backslashreplace")
    sys.stderr = _text(sys.stderr, io.BufferedWriter(_Lossy(2, "wb", closefd=False)), "backslashreplace")
    if not sys.stderr.line_buffering:
        sys.stderr.reconfigure(line_buffering=True)


def _fill_gaps() -> None:
    """File 0 is opened for writing and 1 for reading, so that using them is the error it was."""
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)


def _text(old: Any, buffer: Any, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        buffer,
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors=errors,
        line_buffering=getattr(old, "line_buffering", False),
        write_through=getattr(old, "write_through", False),
    )


def let_go_of_stdout() -> None:
    """Its reader is gone, or it is full: what is still buffered must not raise when the interpreter closes it."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass


_objects = False


def speak_json(yes: bool) -> None:
    """Whether each line on stderr is a JSON object from here on (``--progress json``)."""
    global _objects
    _objects = yes


def say(text: str, event: str = "said", **more: object) -> None:
    """A line on stderr for the reader; as JSON an object of that ``event``."""
    from ocidist.view.text import visible

    text = SECRETS.text(text)
    if _objects:
        import json

        line = json.dumps({"event": event, "text": text, **more})
    else:
        line = f"ocidist: {visible(text)}"
    try:
        sys.stderr.write(f"{line}\n")
    except OSError:
        pass


def log_to_stderr() -> None:
    """Every log record of this process on stderr (``--debug``), without the secrets that it uses."""
    import logging

    class Redacting(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            text = SECRETS.text(super().format(record))
            if not _objects:
                return text
            import json

            return json.dumps({"event": "log", "text": text})

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG)
