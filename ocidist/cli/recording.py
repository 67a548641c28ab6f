"""``--record`` and ``--trace``: whether they can be written, before the network is used; then what was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable

from ocidist.errors import StoreError, UsageError

if TYPE_CHECKING:
    from ocidist.net.recording import Trace

__all__ = ["check", "save"]

CASSETTE = "recording.json"  # of a folder; as save_cassette has it


def check(record: str | None, trace: str | None) -> None:
    """Raise UsageError for a name that can't be meant, or a file that is something else; StoreError where
    nothing can be written. A missing folder is made."""
    if trace:
        _check_trace(Path(trace))
    if record:
        _check_cassette(Path(record))


def _check_trace(path: Path) -> None:
    if path.suffix not in (".har", ".jsonl"):
        raise UsageError(f"--trace {str(path)!r}: its name ends in .har or in .jsonl")
    if path.is_dir():
        raise UsageError(f"--trace {str(path)!r}: it is a folder")
    _try(path.parent)


def _check_cassette(path: Path) -> None:
    target = path
    if path.suffix != ".json":
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"--record {str(path)!r}: a file; a cassette's name ends in .json, or is a folder"
            )
        target = path / CASSETTE
    if target.is_dir():
        raise UsageError(f"--record {str(target)!r}: it is a folder")
    if target.exists() and not _is_cassette(target):
        raise UsageError(
            f"--record {str(target)!r}: it is there, and is no cassette: it would be overwritten"
        )
    _try(target.parent)


def _is_cassette(path: Path) -> bool:
    from ocidist.errors import TransportError
    from ocidist.net.cassette import read_cassette

    try:
        for _ in read_cassette(path, path.parent):
            break
    except TransportError:
        return False
    except OSError as error:
        raise StoreError(str(path), error.strerror or str(error)) from error
    return True


def _try(folder: Path) -> None:
    """A file in it, made and dropped: what permissions promise a full or read-only disk may not keep."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise StoreError(str(folder), error.strerror or str(error)) from error


def save(trace: Trace, record: str | None, to: str | None, warn: Callable[[str], None]) -> None:
    """Write both, and say in a line what the cassette came to."""
    if record:
        from ocidist.net.cassette import save_cassette, sidecar, withheld

        exchanges = trace.exchanges
        path = save_cassette(exchanges, record)
        if left := withheld(exchanges):
            warn(left)
        answered = [exchange for exchange in exchanges if exchange.status and not exchange.withheld]
        digests = [body.digest for item in answered for body in (item.body, item.request_body)]
        beside = any(digest and sidecar(path.parent, digest).exists() for digest in digests)
        number = len(answered)
        text = f"recorded {number} exchange{'' if number == 1 else 's'} in {path}"
        warn(f"{text}; large bodies are in blobs/ beside it" if beside else text)
    if to:
        (trace.to_har if to.endswith(".har") else trace.to_jsonl)(to)
