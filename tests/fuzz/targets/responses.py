"""Answers as bytes from a socket, read by the whole of ``net/http.py``; the oracle is ``http.client`` alone."""

from __future__ import annotations

import http.client
import io
import re
import socket
from typing import Any

from hypothesis import strategies as st

from ocidist.errors import TransportError
from ocidist.net.dial import Link
from ocidist.net.framing import Malformed, chunk_size
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.net.proxy import Route
from ocidist.scope import Scope
from tests.fuzz.harness import Target, mutated, refused_or, seeds

__all__ = ["CHUNKS", "RESPONSES"]


class OneAnswer(HTTPTransport):
    """The network, but that every connection is this end of a pair of sockets."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(HTTPOptions(idle_timeout=30))
        self._end = end

    def _fresh(self, way: Route, scope: Scope) -> Link:
        link = super()._fresh(way, scope)
        link.connection.sock = self._end
        return link


def check_response(raw: bytes) -> None:
    """What is taken as whole is what ``http.client`` reads too, no byte more than came; all else is refused."""
    for method in ("GET", "HEAD"):
        ours = _ours(method, raw)
        if ours is None or re.search(rb"HTTP/1.[01] 1", raw):  # interim answers are skipped by our own rule
            continue
        theirs = _theirs(method, raw)
        assert theirs is not None, "taken, and http.client refuses it"
        assert theirs[: len(ours)] == ours


def _ours(method: str, raw: bytes) -> bytes | None:
    mine, peer = socket.socketpair()
    with mine, peer, OneAnswer(mine) as transport:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)

        def exchange() -> bytes:
            body, block = bytearray(), memoryview(bytearray(1000))
            with transport.send(Request(method, "http://registry.example/v2/"), Scope()) as answer:
                assert 100 <= answer.status <= 999
                while count := answer.readinto(block):
                    body += block[:count]
                assert answer.length in (None, len(body))
            return bytes(body)

        found = refused_or(exchange, by=TransportError)
        assert len(transport._pool._idle) <= 1
    return found


class _Fed:
    """What ``http.client`` takes for a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _theirs(method: str, raw: bytes) -> bytes | None:
    response = http.client.HTTPResponse(_Fed(raw), method=method)  # type: ignore[arg-type]
    try:
        response.begin()
        return response.read()
    except (http.client.HTTPException, ValueError, OSError):
        return None


def check_chunk(line: bytes) -> None:
    """A size is hexadecimal digits and nothing that only ``int`` takes for some."""
    try:
        size = chunk_size(line)
    except Malformed:
        return
    digits = line.partition(b";")[0].strip(b" \t\r\n")
    assert re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits)
    assert size == int(digits, 16)
    assert line.endswith(b"\r\n")
    assert line.count(b"\n") == 1


_PARTS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 1_0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b" folded\r\n", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"+5", b"0x", b";ext=1", b"\x00", b"\xff", b":", b"X: y\r\n",
)  # fmt: skip

RESPONSES = Target(
    "responses",
    mutated(seeds("responses"), *_PARTS) | st.lists(st.sampled_from(_PARTS), max_size=12).map(b"".join),
    check_response,
    longest=48 << 10,
)
CHUNKS = Target(
    "chunks",
    mutated(seeds("chunks"), b"0x", b"+", b"-", b"_", b" ", b"\t", b";", b"\r", b"\n", b"\x0b")
    | st.binary(max_size=12),
    check_chunk,
)
