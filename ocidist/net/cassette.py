"""Cassettes as files: the JSON, and the sidecars in ``blobs`` beside it. The format is net/exchange.py's."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Iterator

from ocidist.errors import StoreError, TransportError, quoted
from ocidist.files import named, open_regular, replacing, within
from ocidist.net.exchange import BLOCK, FORMAT, Exchange, Payload, from_json, iso, to_json
from ocidist.spec.digest import Digest
from ocidist.spec.document import check_depth

__all__ = ["parse_cassette", "read_cassette", "save_cassette", "sidecar", "withheld"]

LIMIT = 32 << 20
"""Bytes of a cassette's JSON, without its sidecars."""
VALUES = 2_000_000
"""Values in it: each takes some hundred bytes of memory."""


def save_cassette(exchanges: tuple[Exchange, ...], path: str | Path, **about: str) -> Path:
    """Write a cassette; its path. A path that does not end in ``.json`` is a folder, and the cassette is
    ``recording.json`` in it.

    What got no answer is left out: there is nothing to replay; so is what shows a secret that can't be taken out
    (:func:`withheld`), with a warning. ``about`` goes into the cassette's head
    ("from", "command"). Raises StoreError, also where large bodies were only counted.
    """
    from ocidist import __version__

    target = Path(path)
    if target.suffix != ".json":
        target = target / "recording.json"
    answered = [exchange for exchange in exchanges if exchange.status and not exchange.withheld]
    base = min((exchange.started for exchange in answered), default=0.0)

    with mapped(target):
        _make(target.parent)
        with within(target.parent) as at:

            def store(payload: Payload) -> None:
                _put_sidecar(target.parent, at, payload)

            document = {
                "format": FORMAT,
                "recorded": {"at": iso(base), "by": f"ocidist {__version__}", **about},
                "exchanges": [to_json(exchange, base, store) for exchange in answered],
            }
            text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
            with replacing(named(target, at), dir_fd=at) as out:
                out.write(text.encode("utf-8", "backslashreplace"))
    return target


def _make(folder: Path) -> None:
    if folder.is_dir():
        return
    _make(folder.parent)
    with within(folder.parent) as at, suppress(FileExistsError):
        os.mkdir(named(folder, at), dir_fd=at)


def withheld(exchanges: Iterable[Exchange]) -> str:
    """What is to be said of exchanges that a cassette leaves out for the secret in them; "" for none."""
    names = [f"{exchange.method} {quoted(exchange.url)[1:-1]}" for exchange in exchanges if exchange.withheld]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    said = "its body shows" if len(names) == 1 else "their bodies show"
    return f"left out {', '.join(names[:3])}{more}: {said} a secret of this session" if names else ""


def sidecar(folder: Any, digest: Digest) -> Any:
    """Where a large body lies, beside the cassettes in ``folder``."""
    return folder / "blobs" / digest.algorithm / digest.hex


def _put_sidecar(folder: Path, held: int | None, payload: Payload) -> None:
    """Write a large body beside the cassettes in ``folder``, open as ``held``."""
    digest = payload.digest
    if digest is None or not payload.kept:
        raise StoreError(str(folder), f"a body of {payload.size} bytes was counted and not kept")
    place: Path = sidecar(folder, digest)
    with (
        _beside(folder, held, place.parent.relative_to(folder).parts) as at,
        payload.open() as source,
        replacing(named(place, at), dir_fd=at) as out,
    ):
        while block := source.read(BLOCK):
            out.write(block)


@contextmanager
def _beside(folder: Path, held: int | None, parts: tuple[str, ...]) -> Iterator[int | None]:
    """Hold the folder ``parts`` in ``folder``, made if it is missing. Raises OSError where a link is on the way."""
    if held is None:
        folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        _require_inside(folder, folder.joinpath(*parts, "body"))
        yield None
        return
    at = os.dup(held)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=at)
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(part, at):
                    raise _leads_out(folder / part) from None
                raise
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def _is_link(name: str, at: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)


def _leads_out(path: Path) -> OSError:
    return OSError(errno.ELOOP, "a link leads out of the cassette's folder", str(path))


def _require_inside(folder: Path, path: Path) -> None:
    inside = path.parent.relative_to(folder)
    if os.path.realpath(path.parent) != os.path.join(os.path.realpath(folder), inside):
        raise _leads_out(path)


class _Sidecar:
    """A large body beside a cassette. It is a file, in that very folder: what a cassette of a stranger comes with may be
    a FIFO, a device or a link to anywhere."""

    def __init__(self, folder: Path, digest: Digest) -> None:
        self._folder, self._path = folder, Path(sidecar(folder, digest))

    def open(self, mode: str) -> BinaryIO:
        """A reader. Raises OSError."""
        _require_inside(self._folder, self._path)
        return open_regular(self._path)

    def __str__(self) -> str:
        return str(self._path)


def read_cassette(place: Any, folder: Any, *, follow: bool = True) -> Iterator[Exchange]:
    """The exchanges of one cassette file, a link to one if ``follow``; sidecars are in ``folder``.

    Raises TransportError, and OSError for what can't be read or is not a file.
    """
    with open_regular(place, follow=follow) if isinstance(place, Path) else place.open("rb") as file:
        data = file.read(LIMIT + 1)
    try:
        if len(data) > LIMIT:
            raise ValueError(f"larger than the {LIMIT >> 20} MiB limit")
        text = data.decode("utf-8")
        if sum(map(text.count, "{[,")) > VALUES:
            raise ValueError(f"more than {VALUES} values")
        check_depth(text, "cassette")
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TransportError(str(place), f"not a cassette: {error}", False) from error
    yield from parse_cassette(document, str(place), folder)


def parse_cassette(document: object, name: str, folder: Any = None) -> Iterator[Exchange]:
    """The exchanges of a cassette's JSON document. Raises TransportError."""
    declared = document.get("format") if isinstance(document, dict) else None
    if not isinstance(document, dict) or declared != FORMAT:
        said = f"its format is {quoted(declared)}" if declared else "it has no format"
        raise TransportError(name, f"not a cassette: {said}, expected {FORMAT!r}", False)
    exchanges = document.get("exchanges")
    if not isinstance(exchanges, list):
        raise TransportError(name, "not a cassette: exchanges is not a list", False)

    def place(digest: Any) -> Any:
        if folder is None:
            raise ValueError("a sidecar, and no folder to find it in")
        return _Sidecar(folder, digest) if isinstance(folder, Path) else sidecar(folder, digest)

    for number, value in enumerate(exchanges):
        try:
            yield from_json(value, place)
        except (ValueError, TypeError) as error:
            raise TransportError(name, f"exchange {number + 1}: {error}", False) from error


class mapped:
    """Foreign errors of the writers become StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(str(error.filename or self._path), error.strerror or str(error)) from error
