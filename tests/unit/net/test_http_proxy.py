"""Proxies: who goes through one, and what each side gets to see (threat A.18)."""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64encode
from typing import Any, Callable

import pytest

from ocidist.errors import TransportError
from ocidist.net.dial import tunnel_status
from ocidist.net.framing import Malformed
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Headers, Request
from ocidist.net.proxy import Proxy, bypassed, route
from ocidist.scope import Scope
from tests.unit.net.peers import Peer, Server, always, raw

Serve = Callable[..., Server]
BASIC = "Basic " + b64encode(b"me:p@ss").decode()


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://registry.test/", "", False),
        ("http://registry.test/", "registry.test", True),
        ("http://REGISTRY.test./", "Registry.Test", True),
        ("http://a.registry.test/", "registry.test", True),
        ("http://a.registry.test/", ".registry.test", True),
        ("http://a.registry.test/", "*.registry.test", True),
        ("http://registry.test/", ".registry.test", True),
        ("http://evilregistry.test/", "registry.test", False),
        ("http://registry.test.evil/", "registry.test", False),
        ("http://a.b.test/", "x.test, b.test c.test", True),
        ("http://registry.test:5000/", "registry.test:5000", True),
        ("http://registry.test:5001/", "registry.test:5000", False),
        ("https://registry.test/", "registry.test:443", True),
        ("http://registry.test/", "registry.test:443", False),
        ("http://registry.test/", "*", True),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://10.1.2.3/", "10.1.2.3", True),
        ("http://10.1.2.30/", "10.1.2.3", False),
        ("http://10.1.2.3:81/", "10.1.2.3:80", False),
        ("http://10.1.2.3/", ".3", False),
        ("http://[fd00::1]/", "fd00::/8", True),
        ("http://[fe00::1]/", "fd00::/8", False),
        ("http://[fd00::1]:5000/", "[fd00::1]:5000", True),
        ("http://[fd00::1]:5001/", "[fd00::1]:5000", False),
        ("http://[FD00:0::1]/", "fd00::1", True),
        ("http://[fd00::1]/", "[fd00::1]", True),
        ("http://[fd00::1]/", "10.0.0.0/8,registry.test", False),
        ("http://registry.test/", "10.0.0.0/8,:80,[,*.,.,[]:x", False),
        ("http://localhost:5000/", "", True),
        ("http://a.localhost/", "", True),
        ("http://127.9.9.9/", "", True),
        ("http://[::1]/", "", True),
        ("http://notlocalhost/", "", False),
    ],
)
def test_a18_no_proxy(url: str, no_proxy: str, direct: bool) -> None:
    """Suffixes at label boundaries, ports, networks, IPv6 and stars; loopback always goes straight."""
    way, _ = route(url, {"all": "http://proxy.test:3128"}, no_proxy)
    assert (way.proxy is None) is direct


def test_a18_proxy_is_chosen_by_scheme() -> None:
    """The scheme's own proxy first, then the one for all; a bare host:port is an http proxy; IPv6 works."""
    proxies = {
        "http": "proxy.test:3128",
        "https": "http://me:p%40ss@[fd00::1]:8080/",
        "all": "http://all.test",
    }
    assert route("http://a.test/", proxies, "")[0].proxy == Proxy("proxy.test", 3128)
    assert route("https://a.test/", proxies, "")[0].proxy == Proxy("fd00::1", 8080, BASIC)
    assert route("http://a.test/", {"all": "http://all.test"}, "")[0].proxy == Proxy("all.test", 80)
    assert route("http://a.test/", {"https": "http://p.test"}, "")[0].proxy is None


@pytest.mark.parametrize(
    "url", ["socks5://me:hush@p.test", "https://me:hush@p.test", "http://", "http://me:hush@p:x"]
)
def test_a18_other_proxies_are_refused(url: str) -> None:
    """A proxy of another kind, or no URL, is refused; never bypassed, and its password is not shown."""
    with pytest.raises(Malformed) as caught:
        route("http://a.test/", {"http": url}, "")
    assert "hush" not in str(caught.value)
    with (
        HTTPTransport(HTTPOptions(proxies={"http": url})) as transport,
        pytest.raises(TransportError, match=r"the proxy|proxies of kind"),
    ):
        transport.send(Request("GET", "http://a.test/"), Scope())


def test_a18_secrets_are_in_no_repr() -> None:
    """Neither options nor routes show a proxy's password."""
    options = HTTPOptions(proxies={"http": "http://me:hush@p.test"})
    assert "hush" not in repr(options)
    assert BASIC not in repr(route("http://a.test/", {"http": "http://me:p%40ss@p.test"}, "")[0])


def test_a18_http_goes_in_absolute_form(serve: Serve) -> None:
    """An http request reaches the proxy with the whole URL, the origin's Host and the proxy's credentials."""
    proxy = serve(always(body=b"from the proxy"))
    options = HTTPOptions(proxies={"http": f"http://me:p%40ss@127.0.0.1:{proxy.port}"})
    with HTTPTransport(options) as transport:
        for _ in range(2):
            answer = transport.send(Request("GET", "http://registry.test:5000/v2/?n=1"), Scope())
            assert answer.read(100) == b"from the proxy"
    got = proxy.requests[0]
    assert got.target == "http://registry.test:5000/v2/?n=1"
    assert got.get("Host") == "registry.test:5000"
    assert got.get("Proxy-Authorization") == BASIC
    assert proxy.connections == 1


def test_a18_credentials_never_reach_an_origin(serve: Serve) -> None:
    """A Proxy-Authorization header that a caller set, or that options have, is not sent to an origin."""
    server = serve(always())
    options = HTTPOptions(proxies={"all": "http://me:hush@127.0.0.1:1"}, no_proxy="127.0.0.1")
    with HTTPTransport(options) as transport:
        headers = Headers([("proxy-AUTHORIZATION", "Basic hush")])
        transport.send(Request("GET", server.url, headers), Scope()).close()
    assert "hush" not in repr(server.requests)
    assert server.requests[0].get("Proxy-Authorization") is None


def tunnel(
    port: int, verdict: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
) -> Callable[[Peer], None]:
    """A proxy that answers CONNECT with ``verdict`` and then carries bytes to a port here."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(verdict)
        if b" 200 " not in verdict:
            peer.hold()
            return
        with socket.create_connection(("127.0.0.1", port)) as onward:
            back = threading.Thread(target=carry, args=(onward, peer.sock), daemon=True)
            back.start()
            carry(peer.sock, onward)
            back.join(5)

    return script


def carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a18_https_goes_through_connect(serve: Serve, ca: Any) -> None:
    """An https request is tunnelled: TLS is with the origin, and only the proxy sees the proxy's credentials."""
    origin = serve(always(body=b"origin"), context=ca.server_context(["registry.test"]))
    proxy = serve(tunnel(origin.port))
    options = HTTPOptions(ca_file=ca.file, proxies={"https": f"http://me:p%40ss@127.0.0.1:{proxy.port}"})
    with HTTPTransport(options) as transport:
        for _ in range(2):
            headers = Headers([("Authorization", "Bearer token")])
            answer = transport.send(Request("GET", "https://registry.test/v2/", headers), Scope())
            assert answer.read(100) == b"origin"
    assert [(got.method, got.target) for got in proxy.requests] == [("CONNECT", "registry.test:443")]
    assert proxy.requests[0].get("Proxy-Authorization") == BASIC
    assert proxy.requests[0].get("Authorization") is None
    assert [got.target for got in origin.requests] == ["/v2/", "/v2/"]
    assert origin.requests[0].get("Proxy-Authorization") is None
    assert origin.requests[0].get("Host") == "registry.test"


def test_a19_tunnel_checks_the_origin(serve: Serve, ca: Any) -> None:
    """A tunnel that ends at somebody else is refused: the name checked is the origin's, not the proxy's."""
    origin = serve(always(), context=ca.server_context(["other.test"]))
    options = HTTPOptions(
        ca_file=ca.file, proxies={"https": f"http://127.0.0.1:{serve(tunnel(origin.port)).port}"}
    )
    with HTTPTransport(options) as transport, pytest.raises(TransportError, match="certificate refused"):
        transport.send(Request("GET", "https://registry.test/"), Scope())
    assert origin.requests == []


@pytest.mark.parametrize(
    ("user", "status", "words", "retryable"),
    [
        ("", "407 Proxy Authentication Required", "set user and password", False),
        ("u:p@", "407 Proxy Authentication Required", "set another user and password", False),
        ("", "503 Busy", "answered 503", True),
    ],
)
def test_a18_proxy_that_refuses(serve: Serve, user: str, status: str, words: str, retryable: bool) -> None:
    """A CONNECT that is refused says that it was the proxy, and what it said."""
    proxy = serve(raw(f"HTTP/1.1 {status}\r\n\r\n".encode()))
    transport = HTTPTransport(HTTPOptions(proxies={"https": f"http://{user}127.0.0.1:{proxy.port}"}))
    with pytest.raises(TransportError, match=f"proxy 127.0.0.1:{proxy.port} gave no way through") as caught:
        transport.send(Request("GET", "https://registry.test/"), Scope())
    assert words in str(caught.value)
    assert caught.value.retryable is retryable


def test_a18_proxy_that_is_down_is_named(serve: Serve) -> None:
    """A proxy that can't be reached is named in the error, without its password."""
    proxy = serve(always())
    proxy.close()
    for scheme in ("http", "https"):
        options = HTTPOptions(proxies={"all": f"http://me:hush@127.0.0.1:{proxy.port}"})
        with pytest.raises(TransportError, match=f"proxy 127.0.0.1:{proxy.port}") as caught:
            HTTPTransport(options).send(Request("GET", f"{scheme}://registry.test/"), Scope())
        assert "hush" not in str(caught.value)


def test_a17_endless_answer_of_a_proxy(serve: Serve) -> None:
    """A proxy that sends headers without end, as fast as it can, is left."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            peer.send(b"X: y\r\n" * 1000)

    proxy = serve(script)
    options = HTTPOptions(proxies={"https": f"http://127.0.0.1:{proxy.port}"}, connect_timeout=0.5)
    with (
        HTTPTransport(options) as transport,
        pytest.raises(TransportError, match="no proper answer"),
    ):
        transport.send(Request("GET", "https://registry.test/"), Scope())


def test_a17_slow_answer_of_a_proxy(serve: Serve) -> None:
    """A proxy that sends a byte now and then is left when the connect timeout is over."""

    def script(peer: Peer) -> None:
        peer.request()
        while not peer.server.closing:
            peer.send(b"H")
            time.sleep(0.02)

    proxy = serve(script)
    options = HTTPOptions(proxies={"https": f"http://127.0.0.1:{proxy.port}"}, connect_timeout=0.4)
    with pytest.raises(TransportError, match="no connection within"):
        HTTPTransport(options).send(Request("GET", "https://registry.test/"), Scope())
    proxy.closing = True


def test_tunnel_answer_by_rule() -> None:
    """A status line and an empty line, nothing after it; all else counts as no answer."""
    assert tunnel_status(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n") == 200
    assert tunnel_status(b"HTTP/1.1 407\r\nContent-Length: 2\r\n\r\nno") == 407
    for head in (b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n\x16\x03"):
        assert tunnel_status(head) == 0


def test_bypassed_is_about_whole_labels() -> None:
    """An entry of dots or nothing matches nothing."""
    assert not any(bypassed("registry.test", 80, entry) for entry in ("", ".", "*.", ",", "test.registry"))
