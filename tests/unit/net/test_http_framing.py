"""Where a message ends: short bodies, contradictory lengths, odd numbers (threats A.1 to A.3)."""

from __future__ import annotations

from typing import Callable, Iterator

import pytest

from ocidist.errors import TransportError
from ocidist.net.framing import CHUNKED, UNTIL_CLOSE, Malformed, body_length, chunk_size
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Headers, Request
from ocidist.scope import Scope
from tests.unit.net.peers import Peer, Server, raw

Serve = Callable[..., Server]
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def transport() -> Iterator[HTTPTransport]:
    with HTTPTransport(HTTPOptions(connect_timeout=5, idle_timeout=5)) as made:
        yield made


def drain(answer: object) -> bytes:
    got, buffer = bytearray(), memoryview(bytearray(1 << 20))
    while count := answer.readinto(buffer):  # type: ignore[attr-defined]
        got += buffer[:count]
    return bytes(got)


@pytest.mark.parametrize(
    "message",
    [
        HEAD + b"Content-Length: 10\r\n\r\n123456789",
        HEAD + b"Content-Length: 10\r\n\r\n",
        HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(999999),
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
@pytest.mark.parametrize("how", ["readinto", "read"])
def test_a01_body_shorter_than_announced(
    serve: Serve, transport: HTTPTransport, message: bytes, how: str
) -> None:
    """A body cut short raises through every read call, and can be retried."""
    answer = transport.send(Request("GET", serve(raw(message)).url), Scope())
    with pytest.raises(TransportError, match="closed before the end") as caught:
        drain(answer) if how == "readinto" else answer.read(1 << 21)
    assert caught.value.retryable
    assert transport._pool._idle == []
    with pytest.raises(TransportError, match="closed"):
        answer.readinto(memoryview(bytearray(1)))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a01_a_head_that_breaks_off_is_no_answer(serve: Serve, transport: HTTPTransport, method: str) -> None:
    """At whatever byte: neither a refusal nor a length is believed before the empty line; it can be retried."""
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 100\r\nLocation: https://h.example/\r\n\r\n"
    server = serve(*(raw(head[:at]) for at in range(1, len(head))))
    for at in range(1, len(head)):
        with pytest.raises(TransportError, match="the connection was closed") as caught:
            transport.send(Request(method, server.url), Scope())
        assert caught.value.retryable, head[:at]
    whole = serve(raw(HEAD + b"X: y\r\n\r\n"), raw(b"HTTP/1.1 204 No\r\n\r\n"))
    for _ in range(2):
        assert drain(transport.send(Request(method, whole.url), Scope())) == b""


@pytest.mark.parametrize("said", [b"{}", b"SSH-2.0-x\r\n", b"HTTPS"])
def test_a01_what_is_no_answer_at_all_is_told_apart_from_a_cut_one(
    serve: Serve, transport: HTTPTransport, said: bytes
) -> None:
    """Another protocol stays that the second time."""
    with pytest.raises(TransportError, match="no HTTP status line") as caught:
        transport.send(Request("GET", serve(raw(said)).url), Scope())
    assert not caught.value.retryable


def test_a01_what_came_before_the_cut_is_handed_out(serve: Serve, transport: HTTPTransport) -> None:
    """The bytes before the cut reach the caller first, so that a resume starts after them."""
    server = serve(raw(HEAD + b"Content-Length: 10\r\n\r\n12345"))
    answer = transport.send(Request("GET", server.url), Scope())
    buffer = memoryview(bytearray(100))
    assert bytes(buffer[: answer.readinto(buffer)]) == b"12345"
    with pytest.raises(TransportError):
        answer.readinto(buffer)


def test_a02_body_ended_by_close(serve: Serve, transport: HTTPTransport) -> None:
    """Without any framing the close is the end, length is None, and the connection is not kept."""
    server = serve(raw(HEAD + b"\r\n" + b"x" * 300000))
    answer = transport.send(Request("GET", server.url), Scope())
    assert answer.length is None
    assert drain(answer) == b"x" * 300000
    assert transport._pool._idle == []


def test_a02_reset_is_no_end(serve: Serve, transport: HTTPTransport) -> None:
    """A reset in a body that is ended by close is an error, not its end."""
    import socket
    import struct

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"\r\n" + b"x" * 10)
        peer.sock.recv(1)  # the test has seen the ten bytes: any byte more
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    answer = transport.send(Request("GET", serve(script).url), Scope())
    buffer = memoryview(bytearray(100))
    assert answer.readinto(buffer) == 10
    answer._link._twin.send(b"!")  # type: ignore[union-attr]
    with pytest.raises(TransportError, match="reset"):
        answer.readinto(buffer)


def test_a02_reset_behind_data_is_no_end(
    serve: Serve, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset met while more is gathered after some data: the data first, then the error."""
    import socket
    import struct

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"\r\n" + b"x" * 10)
        peer.sock.recv(1)
        peer.send(b"y" * 10)
        peer.sock.recv(1)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    answer = transport.send(Request("GET", serve(script).url), Scope())
    buffer = memoryview(bytearray(100))
    assert answer.readinto(buffer) == 10
    twin = answer._link._twin
    assert twin is not None
    twin.send(b"!")
    # The second look for more is what runs into the reset, which the server sends after this byte.
    monkeypatch.setattr("ocidist.net.body.readable", lambda _: bool(twin.send(b"!")))
    assert bytes(buffer[: answer.readinto(buffer)]) == b"y" * 10
    with pytest.raises(TransportError, match="reset"):
        answer.readinto(buffer)


MALFORMED = [
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5, 6",
    b"Content-Length: -5",
    b"Content-Length: +5",
    b"Content-Length: 1_0",
    b"Content-Length: 0x5",
    b"Content-Length: 5 5",
    b"Content-Length: ",
    b"Content-Length: \xb2",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: xchunked",
    b"Content-Length : 5",
    b"X: y\r\nno header line\r\nContent-Length: 5",
    b": 5",
]


@pytest.mark.parametrize("fields", MALFORMED)
def test_a03_contradictory_framing(serve: Serve, transport: HTTPTransport, fields: bytes) -> None:
    """Lengths that differ, are no plain numbers or stand beside Transfer-Encoding are refused for good."""
    server = serve(raw(HEAD + fields + b"\r\n\r\nhello"))
    with pytest.raises(TransportError, match="malformed answer") as caught:
        transport.send(Request("GET", server.url), Scope())
    assert not caught.value.retryable
    assert transport._pool._idle == []


CHUNKS = [
    b"+5\r\n",
    b"-5\r\n",
    b"0x5\r\n",
    b"5_0\r\n",
    b" 5\r\n",
    b"\r\n",
    b"5\n",
    b"g\r\n",
    b";a\r\n",
    b"5" * 17 + b"\r\n",
]


@pytest.mark.parametrize("line", CHUNKS)
def test_a03_chunk_size(serve: Serve, transport: HTTPTransport, line: bytes) -> None:
    """Chunk sizes that Python's int() would take, or that are none, are refused for good."""
    server = serve(raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + line + b"hello\r\n0\r\n\r\n"))
    with pytest.raises(TransportError, match="malformed answer") as caught:
        transport.send(Request("GET", server.url), Scope()).read(1000)
    assert not caught.value.retryable


def test_a03_chunk_longer_than_its_size(serve: Serve, transport: HTTPTransport) -> None:
    """Bytes between a chunk's end and the next size are refused; so is an endless line."""
    for rest in (b"3\r\nhello\r\n0\r\n\r\n", b"5;" + b"x" * 100000 + b"\r\nhello\r\n0\r\n\r\n"):
        server = serve(raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + rest))
        with pytest.raises(TransportError, match="malformed answer"):
            transport.send(Request("GET", server.url), Scope()).read(1000)


def test_same_length_twice_is_accepted(serve: Serve, transport: HTTPTransport) -> None:
    """The same Content-Length given twice is one length (RFC 9112, section 6.3)."""
    server = serve(raw(HEAD + b"Content-Length: 5\r\nContent-Length: 5, 5\r\n\r\nhello"))
    assert transport.send(Request("GET", server.url), Scope()).read(9) == b"hello"


def test_folded_header_is_one_value(serve: Serve, transport: HTTPTransport) -> None:
    """A value folded over lines comes as one line."""
    server = serve(raw(HEAD + b"X: a\r\n  b\r\n\tc\r\nContent-Length: 0\r\n\r\n"))
    assert transport.send(Request("GET", server.url), Scope()).headers.get("X") == "a b c"


@pytest.mark.parametrize(
    "message", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 70000]
)
def test_no_http_answer(serve: Serve, transport: HTTPTransport, message: bytes) -> None:
    """What is no HTTP/1 answer is refused for good, what was said shown as visible escapes."""
    with pytest.raises(TransportError, match="malformed answer") as caught:
        transport.send(Request("GET", serve(raw(message)).url), Scope())
    assert not caught.value.retryable
    assert str(caught.value).isprintable()


def test_closed_without_an_answer(serve: Serve, transport: HTTPTransport) -> None:
    """A peer that hangs up without a word: retryable."""
    with pytest.raises(TransportError, match="without an answer") as caught:
        transport.send(Request("GET", serve(raw(b"")).url), Scope())
    assert caught.value.retryable


def test_body_length_by_rule() -> None:
    """The pure rule: HEAD, 204 and 304 have no body; chunked and close are told apart."""
    sized, chunked = Headers([("content-length", "7")]), Headers([("Transfer-Encoding", "Chunked")])
    assert body_length("GET", 200, sized) == 7
    assert [body_length("HEAD", 200, h) for h in (sized, chunked, Headers())] == [0, 0, 0]
    assert [body_length("GET", status, sized) for status in (204, 304)] == [0, 0]
    assert body_length("GET", 200, chunked) == CHUNKED
    assert body_length("GET", 200, Headers()) == UNTIL_CLOSE
    with pytest.raises(Malformed):
        body_length("HEAD", 200, Headers([("Content-Length", "1_0")]))


def test_chunk_size_by_rule() -> None:
    """Hexadecimal digits of either case, an extension behind them."""
    assert [chunk_size(line) for line in (b"0\r\n", b"1F\r\n", b"a;x=y\r\n", b"a \r\n")] == [0, 31, 10, 10]
