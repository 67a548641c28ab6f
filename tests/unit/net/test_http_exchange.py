"""One exchange: what is sent, what comes back, and when a connection is used again."""

from __future__ import annotations

import pickle
import threading
from typing import Any, Callable, Iterator

import pytest

from ocidist.errors import DeadlineExceeded, TransportError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Headers, Request
from ocidist.scope import Scope
from tests.unit.net.peers import Peer, Server, always, raw

Serve = Callable[..., Server]


class Blocks:
    """A body that can be sent again, in blocks."""

    def __init__(self, *blocks: bytes, size: int | None = None) -> None:
        self.blocks = blocks
        self.size = sum(map(len, blocks)) if size is None else size
        self.reads = 0

    def chunks(self) -> Iterator[bytes]:
        self.reads += 1
        yield from self.blocks


@pytest.fixture
def transport() -> Iterator[HTTPTransport]:
    with HTTPTransport(HTTPOptions(connect_timeout=5, idle_timeout=5)) as made:
        yield made


def test_get_gives_status_headers_and_body(serve: Serve, transport: HTTPTransport) -> None:
    """Status, reason, repeated headers and body arrive; the URL is the request's."""
    server = serve(always("X-One: a", "x-one: b", body=b"hello", status="203 Well then"))
    answer = transport.send(Request("GET", f"{server.url}/v2/?n=1"), Scope())
    assert (answer.status, answer.reason, answer.length) == (203, "Well then", 5)
    assert answer.headers.get_all("X-ONE") == ["a", "b"]
    assert answer.read(5) == b"hello"
    assert answer.url == f"{server.url}/v2/?n=1"
    assert server.requests[0].target == "/v2/?n=1"
    assert server.requests[0].get("Host") == f"127.0.0.1:{server.port}"
    assert server.requests[0].get("Accept-Encoding") == "identity"
    assert server.requests[0].get("User-Agent") == "ocidist"


def test_request_headers_repeat_as_one_line(serve: Serve, transport: HTTPTransport) -> None:
    """Repeated fields go out joined by commas; framing fields of the caller do not."""
    server = serve(always())
    headers = Headers(
        [("Accept", "a/b"), ("accept", "c/d"), ("Content-Length", "7"), ("Connection", "close")]
    )
    transport.send(Request("POST", server.url, headers), Scope()).close()
    got = server.requests[0]
    assert got.get("Accept") == "a/b, c/d"
    assert got.get("Content-Length") == "0"
    assert got.get("Connection") is None


def test_head_and_204_have_no_body(serve: Serve, transport: HTTPTransport) -> None:
    """The answer to HEAD keeps its Content-Length as a header, has no body, and frees the connection."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        peer.request()
        peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        always(body=b"x")(peer)

    server = serve(script)
    head = transport.send(Request("HEAD", server.url), Scope())
    assert head.headers.get("content-length") == "1000"
    assert (head.length, head.read(0)) == (0, b"")
    assert transport.send(Request("DELETE", server.url), Scope()).readinto(memoryview(bytearray(9))) == 0
    assert transport.send(Request("GET", server.url), Scope()).read(1) == b"x"
    assert server.connections == 1


def test_body_goes_into_the_callers_buffer(serve: Serve, transport: HTTPTransport) -> None:
    """readinto fills large blocks of the caller's memory, and the whole equals what was sent."""
    data = bytes(range(256)) * 20000
    server = serve(always(body=data))
    answer = transport.send(Request("GET", server.url), Scope())
    got, buffer = bytearray(), memoryview(bytearray(1 << 20))
    while count := answer.readinto(buffer):
        got += buffer[:count]
    assert got == data
    assert answer.readinto(buffer) == 0
    assert transport.send(Request("GET", server.url), Scope()).read(len(data)) == data
    assert server.connections == 1


def test_chunked_body_with_extensions_and_trailers(serve: Serve, transport: HTTPTransport) -> None:
    """The chunked coding is undone, extensions and trailers are dropped, the connection is kept."""

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            peer.send(b"5;a=b\r\nhel", b"lo\r\n", b"A \r\n, chunked!\r\n", b"0\r\nX-T: 1\r\n\r\n")

    server = serve(script)
    for _ in range(2):
        answer = transport.send(Request("GET", server.url), Scope())
        assert answer.length is None
        assert answer.read(100) == b"hello, chunked!"
    assert server.connections == 1


def test_read_refuses_more_than_its_limit(serve: Serve, transport: HTTPTransport) -> None:
    """read(limit) raises for a longer body, announced or not, and takes one of exactly that size."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n"
    closed = b"HTTP/1.1 200 OK\r\n\r\nabcdef"
    sized = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef"
    for message in (chunked, closed, sized):
        server = serve(raw(message))
        with pytest.raises(TransportError, match="longer than 5 bytes") as caught:
            transport.send(Request("GET", server.url), Scope()).read(5)
        assert not caught.value.retryable
        assert transport.send(Request("GET", server.url), Scope()).read(6) == b"abcdef"


def test_bodies_are_sent_with_their_size(serve: Serve, transport: HTTPTransport) -> None:
    """Bytes, long bytes and a BodySource go out with Content-Length and unchanged."""
    server = serve(always(status="201 Created"))
    bodies: list[Any] = [b"short", bytes(range(256)) * 8192, Blocks(b"ab", b"", b"c" * 100000)]
    for body in bodies:
        transport.send(Request("PUT", server.url, body=body), Scope()).close()
    sent = [got.body for got in server.requests]
    assert sent == [b"short", bytes(range(256)) * 8192, b"ab" + b"c" * 100000]
    assert server.requests[2].get("Transfer-Encoding") is None
    assert server.connections == 1


@pytest.mark.parametrize(("size", "words"), [(5, "ends after 4 of 5"), (3, "more than the 3 bytes")])
def test_body_of_another_size_is_refused(
    serve: Serve, transport: HTTPTransport, size: int, words: str
) -> None:
    """A source that yields fewer or more bytes than it announced fails, and the connection is dropped."""
    server = serve(lambda peer: peer.hold())
    with pytest.raises(TransportError, match=words) as caught:
        transport.send(Request("PUT", server.url, body=Blocks(b"ab", b"cd", size=size)), Scope())
    assert not caught.value.retryable


def test_early_answer_to_an_upload_is_read(serve: Serve, transport: HTTPTransport) -> None:
    """A server that answers 401 and hangs up in mid-upload is heard, and the connection is not kept."""

    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        peer.sock.shutdown(1)
        peer.sock.recv(1)

    server = serve(script)
    body = Blocks(*[bytes(1 << 20)] * 64)
    answer = transport.send(Request("PATCH", server.url, body=body), Scope())
    assert (answer.status, answer.read(10)) == (401, b"no")
    assert transport._pool._idle == []


def test_interim_answers_are_skipped(serve: Serve, transport: HTTPTransport) -> None:
    """100, 102 and 103 are passed over, to the final answer."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    server = serve(
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", hints, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    )
    assert transport.send(Request("GET", server.url), Scope()).read(1) == b"x"


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:1/a b", []),
        ("http://127.0.0.1:1/a\r\nX: y", []),
        ("http://127.0.0.1:1/\x00", []),
        ("http://127.0.0.1\r\n:1/", []),
        ("http://127.0.0.1:1/é", []),
        ("file:///etc/passwd", []),
        ("http:///v2/", []),
        ("http://127.0.0.1:99999/", []),
        ("http://127.0.0.1:1/", [("X", "a\r\nY: b")]),
        ("http://127.0.0.1:1/", [("X", "a\n b")]),
        ("http://127.0.0.1:1/", [("X\r\nY", "b")]),
        ("http://127.0.0.1:1/", [("X ", "b")]),
        ("http://127.0.0.1:1/", [("X", "\x00")]),
        ("http://127.0.0.1:1/", [("X", "\u20ac")]),
    ],
)
def test_header_injection_is_refused(
    transport: HTTPTransport, url: str, headers: list[tuple[str, str]]
) -> None:
    """CR, LF, NUL, spaces and other schemes never reach a socket; the values are not shown."""
    with pytest.raises(TransportError, match="can't be sent") as caught:
        transport.send(Request("GET", url, Headers(headers)), Scope())
    assert not caught.value.retryable
    assert not any(char in str(caught.value) for char in "\r\n\x00")


def test_method_injection_is_refused(transport: HTTPTransport) -> None:
    """A method that is no token is refused."""
    with pytest.raises(TransportError, match="method"):
        transport.send(Request("GET / HTTP/1.1\r\nX:", "http://127.0.0.1:1/"), Scope())


def test_userinfo_of_a_url_is_not_sent(serve: Serve, transport: HTTPTransport) -> None:
    """User and password in a URL go nowhere: neither into Host nor into the target."""
    server = serve(always())
    transport.send(Request("GET", server.url.replace("//", "//me:secret@") + "/x"), Scope()).close()
    assert "secret" not in repr(server.requests[0])
    assert server.requests[0].target == "/x"


def test_refused_connection_names_the_host(serve: Serve, transport: HTTPTransport) -> None:
    """A port where nobody listens: a retryable TransportError with host and port, which survives pickle."""
    server = serve(always())
    server.close()
    with pytest.raises(TransportError, match="connection refused") as caught:
        transport.send(Request("GET", server.url), Scope())
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.host, again.retryable) == (f"127.0.0.1:{server.port}", True)


def test_unknown_name_is_explained(transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve says so, and is not worth a retry; a failing resolver is."""
    import socket

    real = socket.getaddrinfo

    def fail(number: int) -> Callable[..., Any]:
        def look_up(*args: Any, **options: Any) -> Any:
            if options.get("flags", 0) & socket.AI_NUMERICHOST:
                return real(*args, **options)
            raise socket.gaierror(number, "x")

        return look_up

    for number, words, retryable in (
        (socket.EAI_NONAME, "no such host", False),
        (socket.EAI_AGAIN, "failed for now", True),
    ):
        monkeypatch.setattr(socket, "getaddrinfo", fail(number))
        with pytest.raises(TransportError, match=words) as caught:
            transport.send(Request("GET", "http://registry.invalid/"), Scope())
        assert caught.value.retryable is retryable


def test_connect_to_keeps_the_name(serve: Serve) -> None:
    """connect_to changes what is dialled, not Host; other ports of the name are untouched."""
    server = serve(always(body=b"x"))
    options = HTTPOptions(connect_to={"registry.test:80": ("127.0.0.1", server.port)}, connect_timeout=5)
    with HTTPTransport(options) as transport:
        assert transport.send(Request("GET", "http://registry.test/v2/"), Scope()).read(1) == b"x"
    assert server.requests[0].get("Host") == "registry.test"


def test_second_address_is_tried(
    serve: Serve, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first address of a name refuses, the next is tried; small packets are not held back."""
    import socket

    server = serve(always(body=b"x"))
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host != "two.test":
            return real(host, port, *args, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        closed = real("127.0.0.2", 1, type=socket.SOCK_STREAM)
        return closed + real("127.0.0.1", server.port, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    answer = transport.send(Request("GET", "http://two.test/"), Scope())
    assert answer._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert answer.read(1) == b"x"


def test_works_where_threads_cannot_start(
    serve: Serve, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without threads a name is looked up directly, and a deadline still ends a silent exchange."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = serve(always(body=b"x"), lambda peer: peer.hold())
    options = HTTPOptions(connect_to={"name.test:80": ("localhost", server.port)})
    with HTTPTransport(options) as named, monkeypatch.context() as patch:
        serving = threading.Thread.start
        patch.setattr(
            threading.Thread, "start", lambda t: serving(t) if "_run" in repr(t._target) else start(t)
        )
        assert named.send(Request("GET", "http://name.test/"), Scope()).read(1) == b"x"
        with pytest.raises(DeadlineExceeded):
            transport.send(Request("GET", server.url), Scope.within(0.3))


def test_logging_shows_no_query(
    serve: Serve, transport: HTTPTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """The debug log has method, host, path and status, never a query or a header."""
    server = serve(always())
    with caplog.at_level("DEBUG", "ocidist.net"):
        headers = Headers([("Authorization", "Bearer hush")])
        transport.send(Request("GET", f"{server.url}/v2/?sig=hush", headers), Scope()).close()
    assert f"GET {server.url}/v2/ 200" in caplog.text
    assert "hush" not in caplog.text
