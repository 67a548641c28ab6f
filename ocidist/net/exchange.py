"""One model of an HTTP exchange, and the three ways it is written: cassette, HAR, JSON lines.

Pure but for :meth:`Payload.open`. A :class:`Exchange` that a trace hands out is scrubbed (``net/scrub.py``), so none
of its writers has to think of secrets.

A cassette is one JSON file, ``{"format": "ocidist-cassette/1", "recorded": {…}, "exchanges": […]}``. A body
is ``{"text": …}`` where it is UTF-8 text of at most 64 KiB, ``{"base64": …}`` where it is tiny, and else
``{"digest": "sha256:…", "size": …}``: a file ``blobs/sha256/HEX`` beside the cassette, shared by all
cassettes of the folder. An empty body is not written at all. A header field that occurs once is a string,
a repeated one a list.

HAR source: the HTTP Archive format, version 1.2.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any, BinaryIO, Callable, Iterable, Mapping

from ocidist.errors import DigestMismatch, InvalidDigest, OcidistError, SizeMismatch, StoreError, quoted
from ocidist.frozen import dataclass
from ocidist.spec.digest import Digest

__all__ = ["FORMAT", "Exchange", "Payload", "from_json", "har_entry", "iso", "line", "to_json"]

FORMAT = "ocidist-cassette/1"
TEXT_LIMIT = 64 << 10
"""Bytes of a text that stands in the cassette itself; also the size up to which bodies stay in memory."""
BASE64_LIMIT = 256
BLOCK = 1 << 20
_CENTURIES = 1e10  # seconds

Fields = tuple[tuple[str, str], ...]
Place = Any
"""A file that can be opened: a path, or a resource inside a wheel or a zip (Traversable moved in 3.11)."""


class Payload:
    """The bytes of a body: in memory, in a file, or only counted (a trace keeps no large bodies).

    ``size`` is in bytes; ``digest`` is None where the bytes were only counted.
    """

    __slots__ = ("_checked", "_data", "_digest", "_place", "size")

    def __init__(
        self,
        data: bytes | None = None,
        *,
        size: int = 0,
        digest: Digest | None = None,
        place: Place | None = None,
    ) -> None:
        self._data, self._place, self._digest = data, place, digest
        self._checked = False
        self.size = size if data is None else len(data)

    @property
    def digest(self) -> Digest | None:
        if self._digest is None and self._data is not None:
            self._digest = Digest.of(self._data)
        return self._digest

    @property
    def data(self) -> bytes | None:
        """The bytes where they are in memory, else None."""
        return self._data

    @property
    def kept(self) -> bool:
        """True where the bytes can be read again."""
        return self._data is not None or self._place is not None

    def open(self, check: Callable[[], object] = bool) -> BinaryIO:
        """A reader from the first byte on. A file's size and digest are checked before it is handed out; ``check`` is
        called meanwhile, and may raise.

        Raises DigestMismatch, SizeMismatch, StoreError (missing, no file, or only counted).
        """
        if self._data is not None:
            return io.BytesIO(self._data)
        if self._place is None:
            raise StoreError("trace", f"a body of {self.size} bytes was counted and not kept")
        try:
            file: BinaryIO = self._place.open("rb")
            try:
                if not self._checked:
                    self._check(file, check)
                    file.seek(0)
            except BaseException:
                file.close()
                raise
        except OSError as error:
            raise StoreError(str(self._place), error.strerror or str(error)) from error
        return file

    def _check(self, file: BinaryIO, check: Callable[[], object]) -> None:
        assert self._digest is not None
        hasher, size = self._digest.hasher(), 0
        while size <= self.size and (block := file.read(BLOCK)):
            check()
            hasher.update(block)
            size += len(block)
        if size != self.size:
            found = f"more than {self.size}" if size > self.size else size
            raise SizeMismatch(
                self._digest, f"{self._place} has {found} bytes, the cassette says {self.size}"
            )
        if hasher.hexdigest() != self._digest.hex:
            raise DigestMismatch(self._digest, f"{self._place} holds other bytes")
        self._checked = True

    def __repr__(self) -> str:
        return f"Payload({self.size} bytes)"


@dataclass(frozen=True)
class Exchange:
    """A request and what came back.

    ``status`` is 0 and ``error`` is set where nothing came back. ``started`` is seconds since the epoch, UTC;
    ``waited`` seconds until the answer's head, ``seconds`` until its end. ``complete`` is False where the
    body was not read to its end; ``body`` then is what was read. ``withheld``: a body shows a secret and could not be
    written down without it, so it is only counted. ``meant`` is the URL by the registry's own name, where it was asked of a
    mirror or below a path of ``hosts.toml``.
    """

    method: str
    url: str
    request_headers: Fields = ()
    request_body: Payload = Payload(b"")
    status: int = 0
    reason: str = ""
    headers: Fields = ()
    body: Payload = Payload(b"")
    started: float = 0.0
    waited: float = 0.0
    seconds: float = 0.0
    complete: bool = True
    error: str = ""
    withheld: bool = False
    meant: str = ""

    def header(self, name: str) -> str | None:
        """The first value of an answer's header field."""
        return first(self.headers, name)

    def asked(self, name: str) -> str | None:
        """The values of a request's header field, joined by commas."""
        found = [value for key, value in self.request_headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None


def first(fields: Iterable[tuple[str, str]], name: str) -> str | None:
    """The first value of ``name`` among ``fields``, names case-insensitive."""
    wanted = name.lower()
    return next((value for key, value in fields if key.lower() == wanted), None)


# -- cassette ---------------------------------------------------------------------------------------


def to_json(
    exchange: Exchange, base: float = 0.0, store: Callable[[Payload], object] | None = None
) -> dict[str, Any]:
    """The exchange as a cassette has it. ``store`` puts a large body beside the cassette; without it every
    body is inline. ``base`` is the time that ``offset`` counts from."""
    request: dict[str, Any] = {
        "method": exchange.method,
        "url": exchange.url,
        "headers": _fields_to_json(exchange.request_headers),
    }
    if exchange.meant not in ("", exchange.url):
        request["meant"] = exchange.meant
    response: dict[str, Any] = {
        "status": exchange.status,
        "reason": exchange.reason,
        "headers": _fields_to_json(exchange.headers),
    }
    for part, payload in ((request, exchange.request_body), (response, exchange.body)):
        if payload.size:
            part["body"] = _body_to_json(payload, store)
    result: dict[str, Any] = {"request": request, "response": response}
    if not exchange.complete:
        result["partial"] = True
    result["offset"] = round(max(exchange.started - base, 0.0), 3)
    result["seconds"] = round(exchange.seconds, 3)
    return result


def from_json(value: object, place: Callable[[Digest], Place], base: float = 0.0) -> Exchange:
    """The exchange that a cassette has. ``place`` finds a sidecar. Raises ValueError for anything else."""
    outer = _object(value, "exchange")
    request, response = _object(outer.get("request"), "request"), _object(outer.get("response"), "response")
    status = response.get("status")
    if type(status) is not int or not 100 <= status <= 999:
        raise ValueError(f"response.status is {status!r}")
    offset, seconds = (_seconds(outer, name) for name in ("offset", "seconds"))
    return Exchange(
        method=_text(request, "method"),
        url=_text(request, "url"),
        request_headers=_fields_from_json(request.get("headers", {})),
        request_body=_body_from_json(request.get("body"), place),
        status=status,
        reason=_text(response, "reason", ""),
        headers=_fields_from_json(response.get("headers", {})),
        body=_body_from_json(response.get("body"), place),
        started=base + offset,
        waited=seconds,
        seconds=seconds,
        complete=not outer.get("partial", False),
        meant=_text(request, "meant", ""),
    )


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def _text(value: Mapping[str, Any], name: str, default: object = None) -> str:
    text = value.get(name) or default
    if not isinstance(text, str):
        raise ValueError(f"{name} is not a text")
    return text


def _seconds(value: Mapping[str, Any], name: str) -> float:
    number = value.get(name, 0)
    # The limit also keeps out NaN, infinity and integers that no float holds.
    if not isinstance(number, (int, float)) or not -_CENTURIES <= number <= _CENTURIES:
        raise ValueError(f"{name} is no number of seconds")
    return float(number)


def _fields_to_json(fields: Fields) -> dict[str, str | list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _fields_from_json(value: object) -> Fields:
    fields = []
    for name, found in _object(value, "headers").items():
        for item in found if isinstance(found, list) else [found]:
            if not isinstance(item, str):
                raise ValueError(f"header {quoted(name)} is not a text")
            fields.append((name, item))
    return tuple(fields)


def _body_to_json(payload: Payload, store: Callable[[Payload], object] | None) -> dict[str, Any]:
    if payload.size <= TEXT_LIMIT or store is None:
        with payload.open() as file:
            data = file.read()
        text = readable(data)
        if text is not None:
            return {"text": text}
        if store is None or len(data) <= BASE64_LIMIT:
            return {"base64": base64.b64encode(data).decode("ascii")}
    store(payload)
    return {"digest": str(payload.digest), "size": payload.size}


def readable(data: bytes) -> str | None:
    """``data`` as the text that it is, or None where it is none that an editor would show."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(char >= " " or char in "\n\r\t" for char in text) and "\x7f" not in text else None


def _body_from_json(value: object, place: Callable[[Digest], Place]) -> Payload:
    if value is None:
        return Payload(b"")
    body = _object(value, "body")
    text, encoded, size = body.get("text"), body.get("base64"), body.get("size")
    if isinstance(text, str):
        return Payload(text.encode("utf-8"))
    if isinstance(encoded, str):
        try:
            return Payload(base64.b64decode(encoded, validate=True))
        except binascii.Error as error:
            raise ValueError(f"base64: {error}") from error
    if type(size) is not int or size < 0:
        raise ValueError("a body is text, base64, or digest and size")
    try:
        digest = Digest(_text(body, "digest"))
    except InvalidDigest as error:
        raise ValueError(str(error)) from error
    return Payload(size=size, digest=digest, place=place(digest))


# -- HAR and JSON lines -----------------------------------------------------------------------------


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    from datetime import datetime, timezone

    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def har_entry(exchange: Exchange) -> dict[str, Any]:
    """The exchange as an entry of HAR 1.2. Times are in milliseconds; text bodies up to 64 KiB come along."""
    from urllib.parse import parse_qsl, urlsplit

    def pairs(fields: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in fields]

    request: dict[str, Any] = {
        "method": exchange.method,
        "url": exchange.url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": pairs(exchange.request_headers),
        "queryString": pairs(parse_qsl(urlsplit(exchange.url).query, keep_blank_values=True)),
        "headersSize": -1,
        "bodySize": exchange.request_body.size,
    }
    sent = _shown(exchange.request_body)
    if exchange.request_body.size:
        request["postData"] = {"mimeType": exchange.asked("content-type") or "", "text": sent or ""}
    content: dict[str, Any] = {
        "size": exchange.body.size,
        "mimeType": exchange.header("content-type") or "application/octet-stream",
    }
    text = _shown(exchange.body)
    if text:
        content["text"] = text
    entry: dict[str, Any] = {
        "startedDateTime": iso(exchange.started),
        "time": round(exchange.seconds * 1000, 3),
        "request": request,
        "response": {
            "status": exchange.status,
            "statusText": exchange.reason,
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": pairs(exchange.headers),
            "content": content,
            "redirectURL": exchange.header("location") or "",
            "headersSize": -1,
            "bodySize": exchange.body.size,
        },
        "cache": {},
        "timings": {
            "send": 0,
            "wait": round(exchange.waited * 1000, 3),
            "receive": round(max(exchange.seconds - exchange.waited, 0.0) * 1000, 3),
        },
    }
    comments = [exchange.error] if exchange.error else []
    if not exchange.complete:
        comments.append("the body was not read to its end")
    if comments:
        entry["comment"] = "; ".join(comments)
    return entry


def _shown(payload: Payload) -> str | None:
    return readable(payload.data) if payload.data is not None else None


def line(exchange: Exchange) -> dict[str, Any]:
    """The exchange as one line of JSON lines: no bodies; times in seconds, sizes in bytes."""
    return {
        "time": iso(exchange.started),
        "method": exchange.method,
        "url": exchange.url,
        "status": exchange.status,
        "sent": exchange.request_body.size,
        "bytes": exchange.body.size,
        "waited": round(exchange.waited, 6),
        "seconds": round(exchange.seconds, 6),
        "complete": exchange.complete,
        "error": exchange.error,
        "request_headers": _fields_to_json(exchange.request_headers),
        "headers": _fields_to_json(exchange.headers),
    }


def why(error: BaseException) -> str:
    """One line that says what went wrong with an exchange."""
    return str(error) if isinstance(error, OcidistError) else type(error).__name__
