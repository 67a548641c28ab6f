"""Replay: a Transport that answers from recorded exchanges and never opens a socket.

A request matches a recorded one by method, URL (scrubbed as the recorded one was), Range and Accept. Of several
that match, those that came with the same kind of credentials go first (none, Basic, Bearer: so an answer of
401 is not served to a request that already has a token). They are served in recorded order, and the last one
again and again, so a notebook's cell can be run twice. Where nothing matches exactly:

* a 200 that was recorded under another Accept is served if the server could not have answered otherwise: its
  Content-Type is among what is asked for, and it was chosen from more, or the URL pins it by digest;
* a Range for which only the whole was recorded is cut from it: a 206 with Content-Range, or a 416;
  any other answer to the request without Range (a redirect, a 404) is served as it is;
* a HEAD for which only the GET was recorded gets its head;
* a request to a registry gets what a mirror answered in its place, best a success: no mirror is configured here.

All else raises TransportError, which names the request and the nearest recorded ones. Times are not replayed, and
tokens are the word ``scrubbed``, which never expires here: no answer depends on it.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Iterable
from urllib.parse import urlsplit

from ocidist.errors import ContentError, FailureKind, StoreError, TransportError, quoted
from ocidist.net import scrub
from ocidist.net.cassette import LIMIT, read_cassette
from ocidist.net.exchange import Exchange, Payload
from ocidist.net.message import Headers, Request, Response
from ocidist.net.proxy import is_local
from ocidist.scope import Scope

if TYPE_CHECKING:
    from importlib.abc import Traversable  # the name that 3.10 has

__all__ = ["DEMO_REFERENCE", "ReplayTransport", "find", "load_demo"]

DEMO_REFERENCE = "registry.example/demo/shop:1.0"
"""The image of the cassette that comes with the package."""

Key = tuple[str, str, str, str]

_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*\Z", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
_PINNED = re.compile(r"/(?:manifests|blobs)/sha(?:256|512):[0-9a-f]+\Z")
SHOWN = 3  # nearest requests that a miss lists


class ReplayTransport:
    """Answers from ``exchanges``; ``name`` says in errors where they came from. Thread-safe."""

    def __init__(self, exchanges: Iterable[Exchange], name: str = "cassette") -> None:
        self.name = name
        self.exchanges = tuple(exchanges)
        self._by_key: dict[Key, list[int]] = {}
        for number, exchange in enumerate(self.exchanges):
            self._by_key.setdefault(_key_of(exchange), []).append(number)
        self._by_meaning = self._meanings()
        self._served = [0] * len(self.exchanges)
        self._lock = threading.Lock()

    @property
    def mark(self) -> str:
        """What names that it gave are marked with; never empty, which would mean a registry."""
        return PurePath(self.name).name or "cassette"

    @classmethod
    def load(cls, path: str | Path | Traversable) -> ReplayTransport:
        """The cassette of a ``.json`` file, or all of a folder (every ``*.json`` in it, by name).

        Sidecars are found in ``blobs`` beside the file; they are read, and checked, when they are served.
        Raises TransportError for what is missing or no cassette.
        """
        place: Any = Path(path) if isinstance(path, str) else path
        name = str(path) if isinstance(path, (str, Path)) else place.name
        try:
            if place.is_dir():
                files = sorted((item for item in place.iterdir() if item.name.endswith(".json")), key=_name)
                if not files:
                    raise TransportError(name, "a folder without a cassette (*.json)", False)
                if isinstance(place, Path) and sum(os.lstat(file).st_size for file in files) > LIMIT:
                    raise TransportError(name, f"cassettes larger than the {LIMIT >> 20} MiB limit", False)
                return cls([e for file in files for e in read_cassette(file, place, follow=False)], name)
            folder = place.parent if isinstance(place, Path) else None
            return cls(read_cassette(place, folder), name)
        except OSError as error:
            where = str(error.filename or name)
            raise TransportError(where, error.strerror or str(error), False) from error

    def send(self, request: Request, scope: Scope) -> Response:
        """The recorded answer to ``request``."""
        scope.check()
        found = self._find(request)
        if found is None:
            kind: FailureKind = "plain-http" if self._spoke_http_alone(request.url) else "recording"
            raise TransportError(_host(request.url), self._miss(request), False, kind=kind)
        exchange, wanted = found
        return _answer(exchange, request, scope, wanted)

    def close(self) -> None:
        """Nothing is held."""

    def _find(self, request: Request) -> tuple[Exchange, str] | None:
        method, url, wanted, accept = _key(request.method, request.url, request.headers.items())
        for other in (method, "GET") if method == "HEAD" else (method,):
            found = self._take((other, url, wanted, accept), request)
            if found is not None:
                return found, ""
        if wanted:
            for other in (method, "GET") if method == "HEAD" else (method,):
                found = self._take((other, url, "", accept), request)
                if found is not None and found.status != 200:
                    return found, ""
                if found is not None and found.complete and _RANGE.match(wanted):
                    return found, wanted
        return None

    def _take(self, key: Key, request: Request) -> Exchange | None:
        numbers = self._by_key.get(key) or self._other_accept(key, self._by_key)
        if not numbers and not self._spoke_http_alone(request.url):
            key = _by_any_scheme(key)
            numbers = self._by_meaning.get(key) or self._other_accept(key, self._by_meaning)
        if not numbers:
            return None
        kind = _credentials(request.headers.items())
        same = [n for n in numbers if _credentials(self.exchanges[n].request_headers) == kind] or numbers
        with self._lock:
            number = next((n for n in same if not self._served[n]), same[-1])
            self._served[number] += 1
        return self.exchanges[number]

    def _meanings(self) -> dict[Key, list[int]]:
        """Answers of mirrors that a client would have taken, by what was asked: successes, then challenges."""
        taken = [
            n
            for n, each in enumerate(self.exchanges)
            if each.meant and (each.status < 400 or each.status == 401)
        ]
        found: dict[Key, list[int]] = {}
        for number in sorted(taken, key=lambda n: self.exchanges[n].status == 401):
            each = self.exchanges[number]
            key = _by_any_scheme(_key(each.method, each.meant, each.request_headers))
            found.setdefault(key, []).append(number)
        return found

    def _other_accept(self, key: Key, known: dict[Key, list[int]]) -> list[int]:
        asked = set(key[3].split(","))
        found = []
        for other, numbers in known.items():
            if other[:3] == key[:3]:
                more = asked <= set(other[3].split(","))
                found += [n for n in numbers if _would_answer(self.exchanges[n], asked, more)]
        return found

    def _spoke_http_alone(self, url: str) -> bool:
        """Whether an https URL is on a host that was recorded by http and no other way.

        A failed TLS handshake is no exchange, so no cassette has it; a client that tries https first wants it. What
        mirrors answered for a registry on loopback counts: it is tried both ways.
        """
        origin = _origin(url)
        near = is_local(re.sub(r":[0-9]+\Z", "", _host(url)).strip("[]"))
        spoken = {
            scrub.url(each.url).partition("://")[0]
            for each in self.exchanges
            if _origin(scrub.url(each.url)) == origin or (near and _origin(scrub.url(each.meant)) == origin)
        }
        return url.startswith("https:") and spoken == {"http"}

    def _miss(self, request: Request) -> str:
        key = _key(request.method, request.url, request.headers.items())
        nearest = sorted(set(self._by_key), key=lambda other: _distance(key, other))[:SHOWN]
        close = [other for other in nearest if other[1] == key[1]]
        text = f"{_describe(key, bool(close))} is not recorded in {self.name}"
        if not nearest:
            return f"{text}, which is empty"
        shown = dict.fromkeys(_describe(other, other in close) for other in close or nearest)
        return f"{text}; nearest: " + "; ".join(shown)


def _origin(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def load_demo() -> ReplayTransport:
    """The cassette that comes with the package: all of the image :data:`DEMO_REFERENCE`. Works inside a zip."""
    from importlib.resources import files

    # A folder and no package: a module ocidist.demo would hide the function of that name.
    demo = ReplayTransport.load(files("ocidist") / "demo")
    demo.name = "demo"
    return demo


def find(cassette: str | Path) -> ReplayTransport:
    """The cassette that a user names: ``demo``, a path, or the name of one in a folder ``cassettes`` here or above.

    Raises TransportError.
    """
    if cassette == "demo":
        return load_demo()
    path = Path(cassette)
    if not path.exists() and len(path.parts) == 1:
        file = path.name if path.suffix == ".json" else f"{path.name}.json"
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / "cassettes" / file).is_file():
                return ReplayTransport.load(folder / "cassettes" / file)
        why = 'no such file, and no such name in a folder "cassettes" here or above; "demo" comes with the package'
        raise TransportError(f"cassette {quoted(cassette)}", why, False)
    return ReplayTransport.load(path)


# -- matching ---------------------------------------------------------------------------------------


def _name(place: Any) -> str:
    return str(place.name)


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "replay"
    except ValueError:
        return "replay"


def _key_of(exchange: Exchange) -> Key:
    return _key(exchange.method, exchange.url, exchange.request_headers)


def _key(method: str, url: str, fields: Iterable[tuple[str, str]]) -> Key:
    values: dict[str, list[str]] = {"range": [], "accept": []}
    for name, value in fields:
        if name.lower() in values:
            values[name.lower()].append(value)
    return method.upper(), scrub.url(url), range_key(values["range"]), accept_key(values["accept"])


def _by_any_scheme(key: Key) -> Key:
    return key[0], key[1].partition("://")[2], *key[2:]


def range_key(values: Iterable[str]) -> str:
    """Range fields as they are compared: without blanks, lowercase."""
    return ",".join("".join(value.split()).lower() for value in values)


def accept_key(values: Iterable[str]) -> str:
    """Accept fields as they are compared: the set of media ranges; none is ``*/*``."""
    items = {"".join(item.split()).lower() for value in values for item in value.split(",")} - {""}
    return ",".join(sorted(items or {"*/*"}))


def _credentials(fields: Iterable[tuple[str, str]]) -> str:
    value = next((value for name, value in fields if name.lower() == "authorization"), "")
    return value.partition(" ")[0].lower()


def _would_answer(exchange: Exchange, asked: set[str], more: bool) -> bool:
    kind = (exchange.header("content-type") or "").partition(";")[0].strip().lower()
    pinned = _PINNED.search(exchange.url) is not None
    return exchange.status == 200 and (more or pinned) and bool(asked & {kind, "*/*"})


def _describe(key: Key, fully: bool) -> str:
    """``fully``: with what tells it from another request for the same URL."""
    method, url, wanted, accept = key
    notes = [f"Range {wanted}"] if wanted else []
    if fully:
        notes.append(f"Accept {quoted(accept)[1:-1]}")
    return f"{method} {quoted(url, 300)[1:-1]}" + (f" ({', '.join(notes)})" if notes else "")


def _distance(key: Key, other: Key) -> tuple[int, int, int, Key]:
    mine, theirs = key[1], other[1]
    same = 0
    for left, right in zip(mine, theirs, strict=False):
        if left != right:
            break
        same += 1
    differs = sum(left != right for left, right in zip(key, other, strict=True))
    return (mine != theirs, differs if mine == theirs else -same, abs(len(mine) - len(theirs)), other)


# -- answers ----------------------------------------------------------------------------------------


class _Replayed:
    """A recorded answer, read as one from the network is. ``start`` and ``length`` are what of it is sent."""

    def __init__(
        self, exchange: Exchange, request: Request, scope: Scope, *, start: int = 0, length: int | None = None
    ) -> None:
        self.status, self.reason = exchange.status, exchange.reason
        # Where a mirror led on is as seen from the mirror.
        self.url = exchange.url if exchange.meant else request.url
        self.headers = Headers(exchange.headers)
        self._payload, self._scope = exchange.body, scope
        self._length = exchange.body.size - start if length is None else length
        self._start, self._left = start, self._length
        self._cut = not exchange.complete
        self._file: BinaryIO | None = None
        self._closed = False

    @property
    def length(self) -> int | None:
        """None where the recorded answer did not announce one, either."""
        text = self.headers.get("content-length")
        if text is None and (self._length or self._cut):
            return None
        return int(text) if self._cut and text and _LENGTH.match(text) else self._length

    def readinto(self, buffer: memoryview) -> int:
        if self._closed:
            raise TransportError(_host(self.url), "the response is closed", False)
        self._scope.check()
        view = memoryview(buffer).cast("B")[: self._left]
        count = 0
        if len(view):
            data = self._opened().read(len(view))
            count = len(data)
            view[:count] = data
            self._left -= count
        if not count and len(buffer) and (self._left or self._cut):
            raise TransportError(_host(self.url), "the recording ends inside this body", False)
        return count

    def read(self, limit: int) -> bytes:
        if self._left > limit:
            self.close()
            raise TransportError(_host(self.url), f"an answer of more than {limit} bytes", False)
        data = bytearray(self._left)
        view, done = memoryview(data), 0
        try:
            while done < len(data):
                done += self.readinto(view[done:])
            self.readinto(memoryview(bytearray(1)))
        finally:
            self.close()
        return bytes(data)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            try:
                self._file = self._payload.open(self._scope.check)
                if self._start:
                    self._file.seek(self._start)
            except (ContentError, StoreError, OSError) as error:
                raise TransportError(_host(self.url), f"recorded body: {error}", False) from error
        return self._file

    def close(self) -> None:
        self._closed = True
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _answer(exchange: Exchange, request: Request, scope: Scope, wanted: str) -> Response:
    if request.method.upper() == "HEAD":
        return _Replayed(replace(exchange, body=Payload(b""), complete=True), request, scope)
    if not wanted:
        return _Replayed(exchange, request, scope)
    size = exchange.body.size
    span = _span(wanted, size)
    if span is None:
        answer = _Replayed(exchange, request, scope, length=0)
        answer.status, answer.reason = 416, "Requested Range Not Satisfiable"
        answer.headers.set("Content-Range", f"bytes */{size}")
        answer.headers.set("Content-Length", "0")
        return answer
    start, end = span
    answer = _Replayed(exchange, request, scope, start=start, length=end - start)
    answer.status, answer.reason = 206, "Partial Content"
    answer.headers.set("Content-Range", f"bytes {start}-{end - 1}/{size}")
    answer.headers.set("Content-Length", str(end - start))
    answer.headers.remove("transfer-encoding")
    return answer


def _span(wanted: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last of a Range (RFC 9110, 14.1.2); None: not satisfiable."""
    match = _RANGE.match(wanted)
    first, last = (match[1], match[2]) if match else ("", "")
    if not first:
        count = int(last or "0")
        return (max(size - count, 0), size) if count and size else None
    start, end = int(first), min(int(last) + 1, size) if last else size
    return (start, end) if start < end else None
