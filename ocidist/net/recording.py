"""Recording: a Transport that passes on and collects exchanges, and what is written from them.

One model (``net/exchange.py``), three writers: :meth:`Trace.save_cassette`, :meth:`Trace.to_har`,
:meth:`Trace.to_jsonl`. Bodies stream through: up to 64 KiB stay in memory, larger ones go to temporary files
(or, for a trace, are only counted), so memory stays flat. Exchanges stand in the order their requests started.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Callable, Iterable, Iterator

from ocidist.errors import StoreError
from ocidist.files import named, replacing, within
from ocidist.frozen import dataclass
from ocidist.net import scrub
from ocidist.net.cassette import mapped, save_cassette, withheld
from ocidist.net.exchange import TEXT_LIMIT, Exchange, Payload, har_entry, line, why
from ocidist.net.message import BodySource, Request, Response, Transport
from ocidist.redaction import RECORDED, SECRETS, Redactor
from ocidist.rows import HIDDEN, Rows, Schema, column
from ocidist.scope import Scope
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

__all__ = ["ExchangeRow", "Recorder", "Trace", "save_cassette", "to_har", "to_jsonl"]


@dataclass(frozen=True)
class ExchangeRow:
    """One exchange as a listing shows it. ``bytes`` is the answer's body; ``seconds`` until its end.

    ``status`` is 0 where nothing came back.
    """

    method: str
    url: str
    status: int
    bytes: int = field(metadata=column("bytes"))
    milliseconds: int = field(metadata=column(title="MS", unit="milliseconds"))
    seconds: float = field(metadata=HIDDEN)


EXCHANGES = Schema.of(ExchangeRow, "exchanges")


class Trace:
    """Exchanges of a piece of work, in the order in which their requests started. Thread-safe.

    ``bodies=False`` keeps bodies up to 64 KiB and only counts larger ones: enough for every listing and for
    HAR, not for a cassette. Use it in ``with``, or close it, to drop its temporary files.
    """

    def __init__(self, *, bodies: bool = False) -> None:
        self._bodies = bodies
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._redactor = Redactor(RECORDED)
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What was collected so far, scrubbed. One that is still under way counts as partial, without a body.

        A body that shows a secret, and is named by its digest or is no text, is counted and not kept.
        """
        return self._scrubbed(files=True)

    def _scrubbed(self, *, files: bool) -> tuple[Exchange, ...]:
        """Cleaned by all secrets at hand: a later exchange may show an earlier one's, and the other way round."""
        with self._lock:
            entries = tuple(self._entries)
        self._redactor.learn_from(SECRETS)
        besides = (
            scrub.url(entries[0].raw.url) if entries else ""
        )  # what was asked for first is a name, and no secret
        return tuple(entry.scrubbed(self._redactor, besides, files) for entry in entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self.exchanges)

    def rows(self) -> Rows[ExchangeRow]:
        """A row an exchange: method, url, status, bytes, milliseconds (each row has ``seconds``, too).

        ``.to_frame()`` has the dtypes string, string, Int64, Int64, Int64.
        """
        return Rows(
            EXCHANGES,
            [
                ExchangeRow(
                    item.method,
                    item.url,
                    item.status,
                    item.body.size,
                    round(item.seconds * 1000),
                    item.seconds,
                )
                for item in self._scrubbed(files=False)
            ],
        )

    def to_har(self, path: str | Path | None = None) -> str:
        """HAR 1.2: the text, or, where a ``path`` is given, the path that it was written to."""
        if path is None:
            return "".join(_har(self._scrubbed(files=False)))
        return str(to_har(self._scrubbed(files=False), path))

    def to_jsonl(self, path: str | Path | None = None) -> str:
        """A JSON line an exchange: the text, or, where a ``path`` is given, the path it was written to."""
        if path is None:
            return "".join(map(_line, self._scrubbed(files=False)))
        return str(to_jsonl(self._scrubbed(files=False), path))

    def save_cassette(self, path: str | Path) -> Path:
        """Write a cassette and its sidecars; the cassette's path. Needs ``bodies=True``.

        An exchange whose body shows a secret that can't be taken out is left out, with a warning.
        """
        exchanges = self.exchanges
        if text := withheld(exchanges):
            import warnings

            warnings.warn(text, stacklevel=2)
        return save_cassette(exchanges, path)

    def _repr_html_(self) -> str:
        from ocidist.view.waterfall import Span, waterfall

        exchanges = self._scrubbed(files=False)
        spans = [Span(_label(item), item.started, item.waited, item.seconds) for item in exchanges]
        return waterfall(spans, f"waterfall of {len(spans)} requests") + self.rows()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.rows())

    def close(self) -> None:
        """Drop the temporary files; bodies that were in them can't be read any more."""
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- for the transports below --

    def begin(self, request: Request) -> _Entry:
        """Return the entry of an exchange that starts now."""
        with self._lock:
            entry = _Entry(request, self._sink, self._redactor)
            self._entries.append(entry)
        return entry

    def _sink(self) -> _Sink:
        return _Sink(self._spool if self._bodies else None)

    def _spool(self) -> Path:
        import tempfile

        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="ocidist-record-")
            handle, name = tempfile.mkstemp(dir=self._folder.name)
        os.close(handle)
        return Path(name)


def _label(exchange: Exchange) -> str:
    """Status, method, and what of the URL tells exchanges apart: host and end of the path."""
    host, _, path = exchange.url.partition("://")[2].partition("/")
    end = path.partition("?")[0].rstrip("/").rpartition("/")[2]
    return f"{exchange.status or 'failed'} {exchange.method} {host} {end[:20]}"


class _Sink:
    """Where one body goes while it streams: memory, past 64 KiB a file (or only a count)."""

    def __init__(self, spool: Callable[[], Path] | None) -> None:
        self._spool = spool
        self.reset()

    def reset(self) -> None:
        self._memory = bytearray()
        self._hasher = hashlib.sha256()
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self.size <= TEXT_LIMIT:
            self._memory += data
            return
        if self._spool is None:
            self._memory.clear()
            return
        try:
            if self._file is None:
                self._path = self._spool()
                self._file = open(self._path, "wb")  # noqa: SIM115 - closed by finish
                self._append(self._memory)
                self._memory.clear()
            self._append(data)
        except OSError as error:
            raise StoreError(str(self._path or "temporary folder"), error.strerror or str(error)) from error

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hasher.update(data)

    def finish(self) -> Payload:
        """The body as it passed."""
        if self.size <= TEXT_LIMIT:
            return Payload(bytes(self._memory))
        if self._file is None or self._path is None:
            return Payload(size=self.size)
        self._file.close()
        return Payload(size=self.size, digest=Digest.from_hash(self._hasher), place=self._path)


class _Entry:
    """One exchange while it happens, as it passes. Used by one thread at a time."""

    def __init__(self, request: Request, sink: Callable[[], _Sink], redactor: Redactor) -> None:
        self._clock = time.monotonic()
        self._sent, self.received = sink(), sink()
        self._redactor, self._done = redactor, False
        self.raw = Exchange(
            request.method,
            request.url,
            tuple(request.headers.items()),
            started=time.time(),
            complete=False,
            meant=request.meant,
        )
        self._clean: tuple[object, Exchange] | None = None
        scrub.learn(self.raw, redactor)

    def scrubbed(self, redactor: Redactor, besides: str, files: bool) -> Exchange:
        """What of it may be shown or written; ``files``: large bodies are looked into."""
        key = (id(self.raw), redactor.version, files)
        if self._clean is None or self._clean[0] != key:
            self._clean = key, scrub.exchange(self.raw, redactor, besides, files=files)
        return self._clean[1]

    def request_with_tee(self, request: Request) -> Request:
        """The request to pass on: its body is noted while it is sent."""
        body = request.body
        if body is None:
            return request
        if isinstance(body, bytes):
            self._sent.write(body)
            return request
        return replace(request, body=_Tee(body, self._sent))

    def answered(self, response: Response) -> None:
        self.raw = replace(
            self.raw,
            status=response.status,
            reason=response.reason,
            headers=tuple(response.headers.items()),
            waited=time.monotonic() - self._clock,
        )

    def finish(self, complete: bool, error: str = "") -> None:
        if self._done:
            return
        self._done = True
        self.raw = replace(
            self.raw,
            request_body=self._sent.finish(),
            body=self.received.finish(),
            seconds=time.monotonic() - self._clock,
            complete=complete,
            error=error,
        )
        scrub.learn(self.raw, self._redactor)


class _Tee:
    """A request body that notes what is sent; sent again from its start, it notes from the start."""

    def __init__(self, source: BodySource, sink: _Sink) -> None:
        self._source, self._sink = source, sink

    @property
    def size(self) -> int:
        return self._source.size

    def chunks(self) -> Iterator[bytes]:
        self._sink.reset()
        for chunk in self._source.chunks():
            self._sink.write(chunk)
            yield chunk


class _Recorded:
    """A response whose body is noted while it is read."""

    def __init__(self, inner: Response, entry: _Entry, method: str) -> None:
        self.status, self.reason, self.headers, self.url = (
            inner.status,
            inner.reason,
            inner.headers,
            inner.url,
        )
        self._inner, self._entry = inner, entry
        self._bodiless = method == "HEAD" or inner.status in (204, 304)

    @property
    def length(self) -> int | None:
        return self._inner.length

    def readinto(self, buffer: memoryview) -> int:
        try:
            count = self._inner.readinto(buffer)
        except Exception as error:
            self._entry.finish(False, why(error))
            raise
        if count:
            self._entry.received.write(buffer[:count])
        elif len(buffer):
            self._entry.finish(True)
        return count

    def read(self, limit: int) -> bytes:
        try:
            data = self._inner.read(limit)
        except Exception as error:
            self._entry.finish(False, why(error))
            raise
        self._entry.received.write(data)
        self._entry.finish(True)
        return data

    def close(self) -> None:
        seen = self._entry.received.size
        self._entry.finish(self._bodiless or seen == self._inner.length)
        self._inner.close()


def _exchange(transport: Transport, trace: Trace, request: Request, scope: Scope) -> Response:
    entry = trace.begin(request)
    try:
        response = transport.send(entry.request_with_tee(request), scope)
    except BaseException as error:
        entry.finish(False, why(error))
        raise
    entry.answered(response)
    return _Recorded(response, entry, request.method)


class Recorder:
    """A Transport that passes everything on to ``transport`` and collects it in ``trace``, scrubbed.

    Without a trace it makes its own, which keeps all bodies, as a cassette needs them.
    """

    def __init__(self, transport: Transport, trace: Trace | None = None) -> None:
        self._transport = transport
        self.trace = trace if trace is not None else Trace(bodies=True)

    def send(self, request: Request, scope: Scope) -> Response:
        return _exchange(self._transport, self.trace, request, scope)

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """What was collected, in the order in which requests started."""
        return self.trace.exchanges

    def save_cassette(self, path: str | Path) -> Path:
        """Write the cassette and its sidecars; the cassette's path."""
        return self.trace.save_cassette(path)

    def close(self) -> None:
        """Drop temporary files. The transport stays open: whoever made it closes it."""
        self.trace.close()


# -- HAR and JSON lines -----------------------------------------------------------------------------


def to_har(exchanges: Iterable[Exchange], path: str | Path) -> Path:
    """Write HAR 1.2, entry by entry; the path."""
    return _write(path, _har(exchanges))


def to_jsonl(exchanges: Iterable[Exchange], path: str | Path) -> Path:
    """Write a JSON object a line, an exchange each; the path."""
    return _write(path, map(_line, exchanges))


def _write(path: str | Path, parts: Iterable[str]) -> Path:
    target = Path(path)
    with mapped(target), within(target.parent) as at, replacing(named(target, at), dir_fd=at) as out:
        out.writelines(part.encode() for part in parts)
    return target


def _har(exchanges: Iterable[Exchange]) -> Iterator[str]:
    from ocidist import __version__

    creator = _json({"name": "ocidist", "version": __version__})
    yield f'{{"log": {{"version": "1.2", "creator": {creator}, "entries": ['
    for number, exchange in enumerate(exchanges):
        yield ",\n" if number else "\n"
        yield _json(har_entry(exchange))
    yield "\n]}}\n"


def _line(exchange: Exchange) -> str:
    return _json(line(exchange)) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
