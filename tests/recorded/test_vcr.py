"""vcrpy as a recorder: what it writes in this project's format, and reads back."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.integrations import vcr as integration
from ocidist.net.message import Headers, Request
from ocidist.net.replay import ReplayTransport
from ocidist.scope import Scope

vcr = pytest.importorskip("vcr", reason="missing part: the Python module vcr is not installed")
pytestmark = pytest.mark.block_network(allowed_hosts=["127.0.0.1"])

LARGE = bytes(range(256)) * 64
SECRET = "s3cr3t-s3cr3t-s3cr3t"


class Answers(BaseHTTPRequestHandler):
    """A token, a blob, and a part of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            return self._send(200, json.dumps({"token": SECRET}).encode(), "application/json")
        if self.headers.get("Range"):
            return self._send(206, LARGE[:10], "application/octet-stream")
        return self._send(200, LARGE, "application/octet-stream")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    """A server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def recorder(**options: Any) -> Any:
    """A VCR with this project's format."""
    made = vcr.VCR(record_mode="once", **options)
    integration.register(made)
    return made


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    """One GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def talk(port: int) -> list[tuple[int, bytes]]:
    """The same five requests, recorded or played."""
    authorized = {"Authorization": f"Bearer {SECRET}"}
    return [
        get(port, f"/token?service=x&key={SECRET}"),
        get(port, "/blob", **authorized),
        get(port, "/blob", Range="bytes=0-9", **authorized),
        get(port, "/blob"),
        get(port, "/blob", **authorized),
    ]


def test_what_vcrpy_records_it_plays_and_so_does_replay(tmp_path: Path, port: int) -> None:
    """Scrubbed on the way, large bodies beside the cassette, Range told apart."""
    path = tmp_path / "x.json"
    with recorder().use_cassette(str(path), **integration.CONFIG):
        live = talk(port)
    assert json.loads(live[0][1]) == {"token": SECRET}, "who records gets the real token"
    text = path.read_text()
    assert SECRET not in text
    assert json.loads(text)["format"] == "ocidist-cassette/1"
    assert [p.read_bytes() for p in (tmp_path / "blobs/sha256").iterdir()] == [LARGE]
    with recorder().use_cassette(str(path), **integration.CONFIG) as cassette:
        played = talk(port)
        assert cassette.play_count == 5
    assert played[1:] == live[1:]
    assert json.loads(played[0][1]) == {"token": "scrubbed"}
    request = Request("GET", f"http://127.0.0.1:{port}/blob", Headers([("Range", "bytes=0-9")]))
    assert ReplayTransport.load(path).send(request, Scope()).read(99) == LARGE[:10]


def test_a_spoiled_sidecar_is_refused(tmp_path: Path, port: int) -> None:
    """vcrpy checks digests, too."""
    from ocidist.errors import ContentError

    path = tmp_path / "x.json"
    with recorder().use_cassette(str(path), **integration.CONFIG):
        get(port, "/blob")
    (sidecar,) = (tmp_path / "blobs/sha256").iterdir()
    sidecar.write_bytes(LARGE[:-1] + b"x")
    with pytest.raises(ContentError), recorder().use_cassette(str(path), **integration.CONFIG):
        pass


def test_the_serializer_alone_keeps_every_body_inline() -> None:
    """Without the persister there is no place for sidecars; the round trip is exact."""
    recorded = {
        "version": 1,
        "interactions": [
            {
                "request": {
                    "method": "GET",
                    "uri": "https://a.example/x",
                    "body": None,
                    "headers": {"A": ["b"]},
                },
                "response": {
                    "status": {"code": 200, "message": "OK"},
                    "headers": {"Content-Type": ["x/y"], "Vary": ["a", "b"]},
                    "body": {"string": LARGE},
                },
            }
        ],
    }
    text = integration.serialize(recorded)
    again = integration.deserialize(text)["interactions"][0]
    assert again["response"]["body"]["string"] == LARGE
    assert again["response"]["headers"] == recorded["interactions"][0]["response"]["headers"]  # type: ignore[index]
    assert again["request"]["uri"] == "https://a.example/x"


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "ocidist-cassette/9"}', "x"])
def test_what_is_no_cassette_is_refused(text: str) -> None:
    """As ValueError, which vcrpy passes on."""
    with pytest.raises(ValueError):
        integration.deserialize(text)
