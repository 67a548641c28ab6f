"""``--record`` and ``--trace``: whether they can be written, before the network is used; then what was written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from ocidist.errors import StoreError, UsageError
from ocidist.files import create, named, random_name, within

if TYPE_CHECKING:
    from ocidist.net.recording import Trace
    from ocidist.progress import Event
    from ocidist.spec.digest import Digest

__all__ = ["Lacking", "check", "save"]

LIMIT = 999  # recordings in a folder


def check(record: str | None, trace: str | None) -> None:
    """Raise UsageError for a name that can't be meant, or a file that is something else; StoreError where
    nothing can be written. A missing folder to record in is made; what it is in has to be there."""
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
    if path.suffix != ".json":
        if path.exists() and not path.is_dir():
            raise UsageError(
                f"--record {str(path)!r}: a file; a cassette's name ends in .json, or is a folder"
            )
        _try(path, make=True)
        return
    if path.is_dir():
        raise UsageError(f"--record {str(path)!r}: it is a folder")
    if path.exists():
        _check_empty(path)
    _try(path.parent)


def _check_empty(path: Path) -> None:
    from ocidist.errors import TransportError
    from ocidist.net.cassette import read_cassette

    said = f"--record {str(path)!r}: it is there, and "
    try:
        number = sum(1 for _ in read_cassette(path, path.parent))
    except TransportError:
        raise UsageError(f"{said}is no cassette: it would be overwritten") from None
    except OSError as error:
        raise StoreError(str(path), error.strerror or str(error)) from error
    if number:
        raise UsageError(
            f"{said}holds {number} exchange{'' if number == 1 else 's'}; remove it, or name a folder: each run adds a file there"
        )


def _claimed(path: Path) -> Path:
    """The file to record to: ``path``, or one in that folder that nobody else has, by the order of the runs."""
    if path.suffix == ".json":
        return path
    try:
        with within(path) as at:
            for number in range(1, LIMIT + 1):
                name = path / f"recording{f'{number:03}' if number > 1 else ''}.json"
                with suppress(FileExistsError):
                    os.close(create(named(name, at), dir_fd=at))
                    return name
    except OSError as error:
        raise StoreError(str(path), error.strerror or str(error)) from error
    raise StoreError(str(path), f"it holds {LIMIT} recordings; name another folder")


def _try(folder: Path, *, make: bool = False) -> None:
    """A file in it, made and dropped: what permissions promise a full or read-only disk may not keep."""
    try:
        if make and not folder.is_dir():
            with within(folder.parent) as at, suppress(FileExistsError):
                os.mkdir(named(folder, at), dir_fd=at)
        with within(folder) as at:
            name = named(folder / random_name(), at)
            try:
                with os.fdopen(create(name, dir_fd=at), "wb") as file:
                    file.write(b"x")
            finally:
                os.unlink(name, dir_fd=at)
    except OSError as error:
        raise StoreError(str(folder), error.strerror or str(error)) from error


class Lacking:
    """An observer that hands events on, and counts the blobs that were in the store already: no recording has them."""

    def __init__(self, observe: Callable[[Event], None]) -> None:
        self._observe = observe
        self._here: set[Digest] = set()
        self._resolved: set[Digest] = set()  # asked for all the same

    def __call__(self, event: Event) -> None:
        from ocidist.progress import Finished, Named

        if isinstance(event, Finished) and event.outcome == "exists" and event.phase == "fetch":
            self._here.add(event.digest)
        elif isinstance(event, Named) and event.descriptor is not None:
            self._resolved.add(event.descriptor.digest)
        self._observe(event)

    def say(self, warn: Callable[[str], None]) -> None:
        """Say how many there were, if any."""
        number = len(self._here - self._resolved)
        if number:
            blobs = "1 blob was" if number == 1 else f"{number} blobs were"
            warn(f"{blobs} in the store already, which this recording lacks; with a new --root it has all")


def save(trace: Trace, record: str | None, to: str | None, warn: Callable[[str], None]) -> None:
    """Write both, and say in a line what the cassette came to."""
    if record:
        from ocidist.net.cassette import save_cassette, sidecar, withheld

        exchanges = trace.exchanges
        path = _claimed(Path(record))
        try:
            save_cassette(exchanges, path)
        except BaseException:
            if path != Path(record):
                with suppress(OSError), within(path.parent) as at:
                    os.unlink(named(path, at), dir_fd=at)
            raise
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
