"""How an exchange ends early: cancelled, past its deadline, silent, stale (threats A.16, A.17, A.20)."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Callable, Iterator

import pytest

from ocidist.errors import Cancelled, DeadlineExceeded, TransportError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.scope import Scope
from tests.unit.net.peers import Peer, Script, Server, always, raw

Serve = Callable[..., Server]
HEAD = b"HTTP/1.1 200 OK\r\n"
SOON = 0.5  # seconds in which an end must have reached whoever waits


@pytest.fixture
def transport() -> Iterator[HTTPTransport]:
    with HTTPTransport(HTTPOptions(connect_timeout=20, idle_timeout=20)) as made:
        yield made


def ended(scope: Scope, work: Callable[[], object], after: float = 0.2) -> tuple[BaseException, float]:
    """What ``work`` raised when ``scope`` was cancelled from another thread, and how many seconds that took."""
    moment: list[float] = []

    def cancel() -> None:
        moment.append(time.monotonic())
        scope.cancel()

    timer = threading.Timer(after, cancel)
    timer.start()
    try:
        with pytest.raises(Exception) as caught:
            work()
        return caught.value, time.monotonic() - moment[0]
    finally:
        timer.join()


def silent(peer: Peer) -> None:
    """Take a request and never answer."""
    peer.request()
    peer.hold()


def half(peer: Peer) -> None:
    """Answer half a body and stop."""
    peer.request()
    peer.send(HEAD + b"Content-Length: 10\r\n\r\n12345")
    peer.hold()


def open_ended(peer: Peer) -> None:
    """Answer a little of a body that only a close ends, and stop."""
    peer.request()
    peer.send(HEAD + b"\r\n12345")
    peer.hold()


def read_all(transport: HTTPTransport, url: str, scope: Scope) -> bytes:
    return transport.send(Request("GET", url), scope).read(1 << 20)


@pytest.mark.parametrize("script", [silent, half, open_ended])
@pytest.mark.parametrize("tls", [False, True])
def test_cancel_wakes_a_blocked_read(serve: Serve, ca: Any, script: Script, tls: bool) -> None:
    """Cancelling from another thread ends a wait for an answer or a body at once, on http and TLS."""
    server = serve(script, context=ca.server_context() if tls else None)
    scope = Scope()
    with HTTPTransport(HTTPOptions(ca_file=ca.file, idle_timeout=20)) as transport:
        error, seconds = ended(scope, lambda: read_all(transport, server.url, scope))
    assert isinstance(error, Cancelled)
    assert seconds < SOON
    assert scope._actions == {}


def test_cancel_wakes_a_blocked_handshake(serve: Serve, transport: HTTPTransport) -> None:
    """A peer that accepts and never says a word of TLS is left at once."""
    server, scope = serve(lambda peer: peer.hold()), Scope()
    error, seconds = ended(scope, lambda: read_all(transport, f"https://127.0.0.1:{server.port}/", scope))
    assert isinstance(error, Cancelled)
    assert seconds < SOON


@pytest.fixture
def full_listener() -> Iterator[int]:
    """The port of a listener whose queue is full, so that connecting to it hangs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    yield listener.getsockname()[1]
    for sock in (*waiting, listener):
        sock.close()


def test_cancel_wakes_a_blocked_connect(transport: HTTPTransport, full_listener: int) -> None:
    """A connection that is not taken up is left at once."""
    scope = Scope()
    error, seconds = ended(scope, lambda: read_all(transport, f"http://127.0.0.1:{full_listener}/", scope))
    assert isinstance(error, Cancelled)
    assert seconds < SOON


def test_cancel_wakes_a_blocked_send(serve: Serve, transport: HTTPTransport) -> None:
    """An upload to a peer that does not read is left at once."""
    stop = threading.Event()
    server, scope = serve(lambda peer: stop.wait(20)), Scope()
    request = Request("PUT", server.url, body=bytes(64 << 20))
    error, seconds = ended(scope, lambda: transport.send(request, scope))
    stop.set()
    assert isinstance(error, Cancelled)
    assert seconds < SOON


def test_cancel_does_not_wait_for_a_name(transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name look-up that hangs does not hold the caller."""
    stop = threading.Event()

    def hang(*args: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        stop.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    scope = Scope()
    error, seconds = ended(scope, lambda: read_all(transport, "http://slow.test/", scope))
    stop.set()
    assert isinstance(error, Cancelled)
    assert seconds < SOON


def test_ended_scope_opens_nothing(serve: Serve, transport: HTTPTransport) -> None:
    """With a scope that has ended already, no connection is made."""
    server, scope = serve(always()), Scope()
    scope.cancel()
    with pytest.raises(Cancelled):
        read_all(transport, server.url, scope)
    assert server.connections == 0


def test_interrupt_closes_the_connection(serve: Serve, transport: HTTPTransport) -> None:
    """Ctrl-C in the middle of a body goes through as it is, and the connection is not kept."""
    server = serve(half)
    answer = transport.send(Request("GET", server.url), Scope())

    def interrupted(view: memoryview) -> int:
        raise KeyboardInterrupt

    answer._pull = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        answer.readinto(memoryview(bytearray(10)))
    assert answer._link.connection.sock is None
    assert transport._pool._idle == []


def test_silence_is_bounded_by_the_idle_timeout(serve: Serve) -> None:
    """Without a deadline, a peer that says nothing is given up after idle_timeout; that can be retried."""
    with HTTPTransport(HTTPOptions(idle_timeout=0.2)) as transport:
        for script in (silent, half):
            with pytest.raises(TransportError, match=r"nothing was received for 0\.2 seconds") as caught:
                read_all(transport, serve(script).url, Scope())
            assert caught.value.retryable


def test_connecting_is_bounded_by_the_connect_timeout(serve: Serve, full_listener: int) -> None:
    """Connecting, and a TLS handshake, are given up after connect_timeout."""
    with HTTPTransport(HTTPOptions(connect_timeout=0.3)) as transport:
        mute = serve(lambda peer: peer.hold()).port
        for url, what in (
            (f"http://127.0.0.1:{full_listener}/", "connection"),
            (f"https://127.0.0.1:{mute}/", "TLS handshake"),
        ):
            with pytest.raises(TransportError, match=rf"no {what} within 0\.3 seconds"):
                read_all(transport, url, Scope())


def trickle(start: bytes, piece: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(start)
        while not peer.server.closing:
            peer.send(piece)
            time.sleep(0.02)

    return script


TRICKLES = {
    "status": (b"", b"H"),
    "header": (HEAD + b"X: ", b"y"),
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
    "until close": (HEAD + b"\r\n", b"x"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
}


@pytest.mark.parametrize("name", TRICKLES)
def test_a17_deadline_bounds_the_whole(serve: Serve, transport: HTTPTransport, name: str) -> None:
    """A peer that sends a little all the time, for ever, is left when the scope's time is up."""
    server = serve(trickle(*TRICKLES[name]))
    begin = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        read_all(transport, server.url, Scope.within(0.5))
    server.closing = True
    assert time.monotonic() - begin < 0.5 + SOON


def test_a17_deadline_bounds_a_silent_handshake(serve: Serve, transport: HTTPTransport) -> None:
    """The scope's time ends a connection in its TLS handshake too."""
    server = serve(lambda peer: peer.hold())
    with pytest.raises(DeadlineExceeded):
        read_all(transport, f"https://127.0.0.1:{server.port}/", Scope.within(0.3))


def test_a17_endless_heads_are_bounded_without_a_deadline(serve: Serve, transport: HTTPTransport) -> None:
    """As fast as they may come: endless 1xx, headers and trailers are refused for good."""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    for message in (
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
        HEAD + b"X: y\r\n" * 5000,
        HEAD + b"X: " + b"y" * 100000,
        chunked + b"X: y\r\n" * 5000,
        chunked + b"X: " + b"y" * 100000,
    ):
        with pytest.raises(TransportError, match="malformed answer") as caught:
            read_all(transport, serve(raw(message)).url, Scope())
        assert not caught.value.retryable


# -- kept-alive connections --


def once(peer: Peer) -> None:
    """Answer one request, and hang up when the next one comes."""
    peer.request()
    peer.answer(body=b"first")
    peer.request()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_a16_stale_connection_is_retried_once(serve: Serve, transport: HTTPTransport, method: str) -> None:
    """An idempotent request on a connection that the server just closed is sent again, on a fresh one."""
    server = serve(once, always())
    assert read_all(transport, server.url, Scope()) == b"first"
    body = b"again" if method == "PUT" else None
    transport.send(Request(method, server.url, body=body), Scope()).close()
    assert [got.method for got in server.requests] == ["GET", method, method]
    assert server.requests[-1].body == (body or b"")
    assert server.connections == 2


def test_a16_body_source_starts_again(serve: Serve, transport: HTTPTransport) -> None:
    """The body of a retried PUT is read from its start."""

    class Source:
        size = 200_000
        reads = 0

        def chunks(self) -> Iterator[bytes]:
            self.reads += 1
            yield from (b"a" * 100_000, b"b" * 100_000)

    server, source = serve(once, always()), Source()
    read_all(transport, server.url, Scope())
    transport.send(Request("PUT", server.url, body=source), Scope()).close()
    assert source.reads == 2
    assert server.requests[-1].body == b"a" * 100_000 + b"b" * 100_000


def test_a16_post_is_not_retried(serve: Serve, transport: HTTPTransport) -> None:
    """What is not idempotent is not sent again: the caller hears of it."""
    server = serve(once, always())
    read_all(transport, server.url, Scope())
    with pytest.raises(TransportError, match="without an answer"):
        transport.send(Request("POST", server.url), Scope())
    assert server.connections == 1


def test_a16_fresh_connection_is_not_retried(serve: Serve, transport: HTTPTransport) -> None:
    """A server that closes every connection is asked once on a fresh one, and twice after a stale one."""
    server = serve(once, raw(b""))
    read_all(transport, server.url, Scope())
    for connections in (2, 3):
        with pytest.raises(TransportError, match="without an answer"):
            read_all(transport, server.url, Scope())
        assert server.connections == connections


def test_a16_closed_idle_connection_is_noticed(serve: Serve, transport: HTTPTransport) -> None:
    """A connection that was closed while idle is not used: even a POST goes through."""
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.answer()
        peer.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = serve(script, always(status="202 Accepted"))
    read_all(transport, server.url, Scope())
    assert closed.wait(5)
    assert transport.send(Request("POST", server.url), Scope()).status == 202
    assert [got.method for got in server.requests] == ["GET", "POST"]


def test_a16_unread_body_is_never_reused(serve: Serve, transport: HTTPTransport) -> None:
    """Closing an answer with much of its body unread drops the connection."""
    server = serve(always(body=b"x" * 300_000))
    answer = transport.send(Request("GET", server.url), Scope())
    assert answer.readinto(memoryview(bytearray(10))) == 10
    answer.close()
    answer.close()
    assert len(read_all(transport, server.url, Scope())) == 300_000
    assert server.connections == 2


def test_a16_short_rest_is_read_and_the_connection_kept(serve: Serve, transport: HTTPTransport) -> None:
    """Closing an answer whose short body is there, unread, keeps the connection; one that stalls drops it."""
    server = serve(always(body=b"error"))
    for _ in range(3):
        transport.send(Request("GET", server.url), Scope()).close()
    assert server.connections == 1
    stalled = serve(half)
    begin = time.monotonic()
    transport.send(Request("GET", stalled.url), Scope()).close()
    assert time.monotonic() - begin < 2
    assert len(transport._pool._idle) == 1


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"x"])
@pytest.mark.parametrize("late", [False, True])
def test_a16_bytes_after_the_answer_never_begin_the_next(
    serve: Serve, transport: HTTPTransport, extra: bytes, late: bool
) -> None:
    """A server that sends more than its answer, with it or a little later, loses the connection."""
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(HEAD + b"Content-Length: 4\r\n\r\ngood" + (b"" if late else extra))
        if late:
            time.sleep(0.05)
            peer.send(extra)
        sent.set()
        peer.hold()

    server = serve(script, always(body=b"next"))
    assert read_all(transport, server.url, Scope()) == b"good"
    assert sent.wait(5)
    assert read_all(transport, server.url, Scope()) == b"next"
    assert server.connections == 2


def test_close_of_the_server_is_kept_to(serve: Serve, transport: HTTPTransport) -> None:
    """An answer with Connection: close, or of HTTP/1.0, is read whole and its connection dropped."""
    for message in (
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ):
        assert read_all(transport, serve(raw(message)).url, Scope()) == b"ok"
    assert transport._pool._idle == []


def test_pool_is_bounded_and_closes(serve: Serve) -> None:
    """At most max_idle connections stay; closing the transport closes them, and those that come back later."""
    server = serve(always(body=b"x"))
    with HTTPTransport(HTTPOptions(max_idle=2)) as transport:
        answers = [transport.send(Request("GET", server.url), Scope()) for _ in range(4)]
        for answer in answers:
            answer.read(1)
        assert len(transport._pool._idle) == 2
        late = transport.send(Request("GET", server.url), Scope())
        transport.close()
        assert late.read(1) == b"x"
    assert transport._pool._idle == []
    assert late._link.connection.sock is None


def test_idle_connections_expire(
    serve: Serve, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute an idle connection is dropped, not used."""
    server = serve(always(body=b"x"))
    read_all(transport, server.url, Scope())
    real = time.monotonic
    monkeypatch.setattr("ocidist.net.pool.time.monotonic", lambda: real() + 61)
    read_all(transport, server.url, Scope())
    assert server.connections == 2


def test_a20_one_stalled_exchange_does_not_stop_the_others(serve: Serve, transport: HTTPTransport) -> None:
    """While one exchange hangs, eight threads on the same transport go on, and share few connections."""
    stalled, server = serve(half), serve(always(body=b"x" * 1000))
    scope = Scope()
    results: list[int] = []

    def work() -> None:
        for _ in range(25):
            results.append(len(read_all(transport, server.url, Scope())))

    answer = transport.send(Request("GET", stalled.url), scope)
    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert results == [1000] * 200
    assert server.connections <= 8
    scope.cancel()
    with pytest.raises(Cancelled):
        answer.read(100)


def test_a17_deadline_holds_without_threads(
    serve: Serve, transport: HTTPTransport, full_listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no timer can be started, connecting and each wait for bytes still end when the time is up."""
    monkeypatch.setattr(Scope, "_arm", lambda self: None)
    for url in (f"http://127.0.0.1:{full_listener}/", serve(silent).url, serve(half).url):
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            read_all(transport, url, Scope.within(0.3))
        assert time.monotonic() - begin < 0.3 + SOON
