"""vcrpy reads and writes this project's cassettes: a serializer, a persister for the sidecars, matchers.

In a ``conftest.py``::

    from ocidist.integrations import vcr as cassettes

    def pytest_recording_configure(config, vcr):
        cassettes.register(vcr)

    @pytest.fixture(scope="module")
    def vcr_config():
        return dict(cassettes.CONFIG)

The serializer takes the name ``json`` because pytest-recording makes a cassette's suffix of it.

vcrpy is not thread-safe when it records: use one worker. With ``allow_playback_repeats`` it serves, of several
that match, always the first: :data:`CONFIG` therefore also matches on the kind of credentials (a 401 is not
served to a request with a token), and a test of an answer that changes (429, then 200) turns repeats off.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Iterable, Mapping

from ocidist.errors import TransportError
from ocidist.net import scrub
from ocidist.net.cassette import read_cassette, save_cassette, sidecar, withheld
from ocidist.net.exchange import FORMAT, Exchange, Payload, from_json, to_json
from ocidist.net.replay import accept_key, range_key
from ocidist.redaction import RECORDED, SECRETS, Redactor

__all__ = ["CONFIG", "Persister", "deserialize", "register", "serialize"]

CONFIG: Mapping[str, Any] = {
    "serializer": "json",
    "match_on": ("method", "scheme", "host", "port", "path", "query", "range", "accept", "credentials"),
    "allow_playback_repeats": True,
    "decode_compressed_response": False,
}
"""Keyword arguments for ``use_cassette``: what pytest-recording's ``vcr_config`` fixture returns."""


def register(vcr: Any) -> None:
    """Make a ``vcr.VCR`` read and write cassettes of this format, and scrub what it records.

    Cassettes that pytest-recording adds by ``@pytest.mark.vcr("other.json")`` are read, too.
    """
    vcr.register_serializer("json", _Serializer)
    vcr.register_persister(Persister(getattr(vcr.persister, "extra_paths", ())))
    vcr.register_matcher("range", _same("range", range_key))
    vcr.register_matcher("accept", _same("accept", accept_key))
    vcr.register_matcher("credentials", _same_credentials)
    vcr.before_record_request = _scrub_request


# -- serializer -------------------------------------------------------------------------------------


def serialize(recorded: Mapping[str, Any]) -> str:
    """vcrpy's dictionary as a cassette with every body inline: a serializer is not told where it writes."""
    exchanges = [e for e in _scrubbed(recorded.get("interactions", ())) if not e.withheld]
    document = {"format": FORMAT, "recorded": {"by": "vcrpy"}, "exchanges": [to_json(e) for e in exchanges]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def deserialize(text: str) -> dict[str, Any]:
    """A cassette as vcrpy's dictionary. Bodies in sidecars need the :class:`Persister`. Raises ValueError."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"not a cassette of format {FORMAT!r}")

    def nowhere(digest: object) -> Any:
        raise ValueError(f"the body {digest} is in a sidecar: register the persister")

    return _interactions(from_json(value, nowhere) for value in document.get("exchanges", ()))


class _Serializer:
    serialize = staticmethod(serialize)
    deserialize = staticmethod(deserialize)


class Persister:
    """Reads and writes a cassette and the sidecars beside it. ``extra_paths`` are cassettes read along."""

    def __init__(self, extra_paths: Iterable[str] = ()) -> None:
        self.extra_paths = tuple(extra_paths)

    def load_cassette(self, cassette_path: str, serializer: Any) -> tuple[list[Any], list[Any]]:
        """vcrpy's requests and responses. Digests of sidecars are checked."""
        from vcr.cassette import CassetteNotFoundError
        from vcr.request import Request

        exchanges: list[Exchange] = []
        for path in dict.fromkeys(map(Path, (cassette_path, *self.extra_paths))):
            if path.is_file():
                exchanges += read_cassette(path, path.parent)
        if not exchanges:
            raise CassetteNotFoundError(f"no cassette at {cassette_path}")
        interactions = _interactions(exchanges)["interactions"]
        requests = [Request._from_dict(item["request"]) for item in interactions]
        return requests, [item["response"] for item in interactions]

    @staticmethod
    def save_cassette(cassette_path: str, cassette_dict: Mapping[str, Any], serializer: Any) -> None:
        """Write what vcrpy recorded, scrubbed."""
        pairs = zip(cassette_dict["requests"], cassette_dict["responses"], strict=True)
        exchanges = _scrubbed({"request": _plain(asked), "response": answer} for asked, answer in pairs)
        if text := withheld(exchanges):
            warnings.warn(text, stacklevel=2)
        save_cassette(exchanges, cassette_path, by="vcrpy")


def sidecars(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """The sidecar files that a cassette's JSON document points to."""
    from ocidist.spec.digest import Digest

    bodies = [part.get("body") or {} for e in document["exchanges"] for part in (e["request"], e["response"])]
    return [sidecar(folder, Digest(body["digest"])) for body in bodies if "digest" in body]


# -- between vcrpy's dictionaries and exchanges -----------------------------------------------------


def _plain(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = request._to_dict()
    return found


def _scrubbed(interactions: Iterable[Mapping[str, Any]]) -> tuple[Exchange, ...]:
    """Exchanges that may be written down. Secrets of requests were learned when they passed."""
    raws = [_exchange(interaction) for interaction in interactions]
    redactor = Redactor(RECORDED)
    redactor.learn_from(SECRETS)
    for raw in raws:
        scrub.learn(raw, redactor)
    besides = scrub.url(raws[0].url) if raws else ""
    return tuple(scrub.exchange(raw, redactor, besides) for raw in raws)


def _exchange(interaction: Mapping[str, Any]) -> Exchange:
    request, response = interaction["request"], interaction["response"]
    return Exchange(
        method=request["method"],
        url=request["uri"],
        request_headers=tuple(_pairs(request["headers"])),
        request_body=Payload(_bytes(request["body"])),
        status=response["status"]["code"],
        reason=response["status"]["message"] or "",
        headers=tuple(_pairs(response["headers"])),
        body=Payload(_bytes(response["body"].get("string"))),
    )


def _interactions(exchanges: Iterable[Exchange]) -> dict[str, Any]:
    return {"version": 1, "interactions": [_interaction(exchange) for exchange in exchanges]}


def _interaction(exchange: Exchange) -> dict[str, Any]:
    headers: dict[str, list[str]] = {}
    for name, value in exchange.headers:
        headers.setdefault(name, []).append(value)
    return {
        "request": {
            "method": exchange.method,
            "uri": exchange.url,
            "body": _read(exchange.request_body) or None,
            "headers": {name: [exchange.asked(name)] for name, _ in exchange.request_headers},
        },
        "response": {
            "status": {"code": exchange.status, "message": exchange.reason},
            "headers": headers,
            "body": {"string": _read(exchange.body)},
        },
    }


def _read(payload: Payload) -> bytes:
    with payload.open() as file:
        return file.read()


def _bytes(body: object) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    read = getattr(body, "read", None)
    if read is not None:
        return bytes(read())
    if isinstance(body, Iterable):
        return b"".join(body)
    raise TransportError("vcrpy", f"a body of type {type(body).__name__} can't be recorded", False)


def _pairs(headers: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, value.decode("latin-1") if isinstance(value, bytes) else str(value))
        for name, values in headers.items()
        for value in (values if isinstance(values, (list, tuple)) else [values])
    ]


# -- matching ---------------------------------------------------------------------------------------


def _scrub_request(request: Any) -> Any:
    """The request as it is recorded, and as it is looked up: vcrpy hands over a copy."""
    body = None if request.body is None else _bytes(request.body)
    passed = Exchange(request.method, request.uri, tuple(_pairs(request.headers)), Payload(body or b""))
    scrub.learn(passed, SECRETS)
    request.uri = scrub.url(request.uri)
    request.headers = dict(scrub.headers(passed.request_headers))
    if body is not None:
        request.body = scrub.request_body(body, passed.asked("content-type"))
    return request


def _values(request: Any, name: str) -> list[str]:
    return [value for key, value in _pairs(request.headers) if key.lower() == name]


def _same(name: str, key: Any) -> Any:
    def matcher(asked: Any, recorded: Any) -> None:
        mine, theirs = key(_values(asked, name)), key(_values(recorded, name))
        if mine != theirs:
            raise AssertionError(f"{name} {mine!r} is not the recorded {theirs!r}")

    matcher.__name__ = name
    return matcher


def _same_credentials(asked: Any, recorded: Any) -> None:
    kinds = [
        "".join(_values(request, "authorization")).partition(" ")[0].lower() for request in (asked, recorded)
    ]
    if kinds[0] != kinds[1]:
        raise AssertionError(f"credentials {kinds[0] or 'none'} are not the recorded {kinds[1] or 'none'}")
