"""Under vcrpy: recorded through it, and replayed without a socket."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.errors import TransportError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.scope import Scope
from tests.unit.net.peers import Peer, Server, always

vcr = pytest.importorskip("vcr", reason="missing part: vcrpy")
Serve = Callable[..., Server]


class Source:
    size = 6

    def chunks(self) -> Any:
        yield from (b"abc", b"def")


def session(url: str, ca_file: Path | None) -> list[Any]:
    with HTTPTransport(HTTPOptions(connect_timeout=5, idle_timeout=5, ca_file=ca_file)) as transport:
        seen: list[Any] = []
        for method, path, body in (
            ("GET", "/sized", None),
            ("GET", "/chunked", None),
            ("HEAD", "/head", None),
            ("PUT", "/put", Source()),
            ("GET", "/empty", None),
        ):
            answer = transport.send(Request(method, url + path, body=body), Scope())
            seen.append((answer.status, answer.headers.get("Content-Length"), answer.read(10_000)))
        assert transport._pool._idle == []
        return seen


@pytest.mark.parametrize("tls", [False, True])
def test_recorded_and_replayed(
    serve: Serve, ca: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """The same five answers come from the server through vcrpy and from the cassette with the server gone."""
    server = serve(*map(one, range(5)), context=ca.server_context() if tls else None)
    cassette = str(tmp_path / "tape.yaml")
    with vcr.use_cassette(cassette, record_mode="once") as tape:
        recorded = session(server.url, ca.file)
        assert len(tape.requests) == 5
    assert recorded == [
        (200, "5000", b"sized" * 1000),
        (200, None, b"chunked"),
        (200, "99", b""),
        (201, "0", b""),
        (200, "0", b""),
    ]
    assert server.requests[3].body == b"abcdef"
    server.close()

    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    with vcr.use_cassette(cassette, record_mode="none") as tape:
        assert session(server.url, ca.file) == recorded
        assert tape.play_count == 5


def one(index: int) -> Callable[[Peer], None]:
    """The index-th answer of the five, on a connection of its own: vcrpy's are not kept."""

    def run(peer: Peer) -> None:
        chosen = [
            lambda: peer.answer("X-One: 1", body=b"sized" * 1000),
            lambda: peer.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nchunked\r\n0\r\n\r\n"
            ),
            lambda: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            lambda: peer.answer(status="201 Created"),
            lambda: peer.answer(),
        ][index]
        peer.request()
        chosen()
        peer.hold()

    return run


def test_connection_from_outside_is_not_used_inside(serve: Serve, tmp_path: Path) -> None:
    """A connection kept before the cassette began does not get around it, nor one from inside afterwards."""
    server = serve(always(body=b"x"))
    with HTTPTransport(HTTPOptions(connect_timeout=5)) as transport:
        transport.send(Request("GET", server.url), Scope()).read(1)
        with vcr.use_cassette(str(tmp_path / "tape.yaml")) as tape:
            assert transport.send(Request("GET", server.url), Scope()).read(1) == b"x"
            assert len(tape.requests) == 1
        transport.send(Request("GET", server.url), Scope()).read(1)
    assert server.connections == 2


def test_replayed_body_is_counted(tmp_path: Path) -> None:
    """A cassette whose body is shorter than its Content-Length is refused like a server."""
    tape = tmp_path / "tape.yaml"
    tape.write_text(
        "version: 1\ninteractions:\n- request: {method: GET, uri: 'http://registry.test/', body: null, headers: {}}\n"
        "  response:\n    status: {code: 200, message: OK}\n    headers: {Content-Length: ['9']}\n"
        "    body: {string: short}\n"
    )
    with HTTPTransport() as transport, vcr.use_cassette(str(tape), record_mode="none"):
        answer = transport.send(Request("GET", "http://registry.test/"), Scope())
        with pytest.raises(TransportError, match="closed before the end"):
            answer.read(100)
