"""Where a host may lead us: not to loopback or link-local addresses, unless it is at one itself (threats I.75, I.76)."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Callable

import pytest

from ocidist.client import Client
from ocidist.errors import OcidistError, TransportError
from ocidist.net import dial
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.required import require
from tests.unit.net.peers import Server, always

Serve = Callable[..., Server]
REGISTRY = "https://registry.example"


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that are connected to; none is. Names under .example are looked up in a table of our own."""
    found: list[str] = []
    names = {
        "inside.example": ["127.0.0.1"],
        "both.example": ["169.254.169.254", "192.0.2.7"],
        "localhost": ["127.0.0.1"],
        "outside.example": ["192.0.2.7"],
    }
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        if options.get("flags") == socket.AI_NUMERICHOST:
            return real(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    def opened(link: dial.Link, candidate: tuple[Any, ...], seconds: float) -> socket.socket:
        found.append(str(candidate[4][0]))
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(dial.Link, "_open", opened)
    return found


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::]",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
        "[fe80::1]",
        "localhost",
        "inside.example",
    ],
)
@pytest.mark.parametrize("proxied", [False, True])
def test_i76_a_host_may_not_lead_to_loopback_or_link_local(
    host: str, proxied: bool, dialled: list[str]
) -> None:
    """However the address is written, and whatever name leads to it. A proxy's look-ups are its own: it is asked by name."""
    require("sockets")
    options = HTTPOptions(proxies={"https": "http://192.0.2.1:3128"} if proxied else {})
    with HTTPTransport(options) as transport, pytest.raises(TransportError) as caught:
        transport.send(Request("GET", f"https://{host}:5000/x", led_by=REGISTRY), Scope())
    if proxied and host == "inside.example":
        assert dialled == ["192.0.2.1"]
        return
    assert "registry.example sent us there" in str(caught.value)
    assert (dialled, caught.value.retryable) == ([], False)


def test_i76_of_several_addresses_the_others_are_tried(dialled: list[str]) -> None:
    """A name with an address on either side leads to the one that is far."""
    with HTTPTransport() as transport, pytest.raises(TransportError, match="refused"):
        transport.send(Request("GET", "https://both.example/x", led_by=REGISTRY), Scope())
    assert dialled == ["192.0.2.7"]


def test_i76_who_is_asked_of_our_own_accord_may_be_anywhere(dialled: list[str]) -> None:
    """A registry on this machine, or one that --connect-to puts there."""
    to = {"far.example:443": ("127.0.0.1", 1)}
    with HTTPTransport(HTTPOptions(connect_to=to)) as transport:
        for url, led_by in (("https://127.0.0.1/", ""), ("https://far.example/", REGISTRY)):
            with pytest.raises(TransportError, match="refused"):
                transport.send(Request("GET", url, led_by=led_by), Scope())
    assert dialled == ["127.0.0.1", "127.0.0.1"]


def test_i76_a_registry_that_is_there_itself_may_lead_there(serve: Serve) -> None:
    """It was connected to at such an address; a connection that was made for it serves nobody else."""
    registry, tokens = serve(always(body=b"a")), serve(always(body=b"b"))
    with HTTPTransport() as transport:
        led = Request("GET", tokens.url, led_by=registry.url)
        with pytest.raises(TransportError, match="sent us there"):
            transport.send(led, Scope())
        assert transport.send(Request("GET", registry.url), Scope()).read(9) == b"a"
        assert transport.send(led, Scope()).read(9) == b"b"
        with pytest.raises(TransportError, match=r"registry\.example sent us there"):
            transport.send(Request("GET", tokens.url, led_by=REGISTRY), Scope())
    assert tokens.connections == 1


def test_i75_a_client_certificate_is_not_shown_where_a_host_leads_us(serve: Serve, ca: Any) -> None:
    """Neither at another place nor on a connection to the same one that it was shown on."""
    shown: list[bool] = []
    context = ca.server_context()
    context.load_verify_locations(ca.file)
    context.verify_mode = ssl.CERT_OPTIONAL

    def script(peer: Any) -> None:
        while peer.request() is not None:
            shown.append(peer.sock.getpeercert() is not None)
            peer.answer(body=b"x")

    server = serve(script, context=context)
    options = HTTPOptions(ca_file=ca.file, certificates=(ca.leaf(["client.example"]),))
    with HTTPTransport(options) as transport:
        for certified in (True, False, True):
            transport.send(Request("GET", server.url, certified=certified), Scope()).read(9)
    assert shown == [True, False, True]
    assert server.connections == 2


@pytest.mark.parametrize("way", ["realm", "redirect", "link", "foreign"])
def test_i76_a_client_asks_nothing_of_this_machine_for_a_registry_that_is_elsewhere(
    way: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token server, storage, a next page or a layer at 127.0.0.1: no request, and the error says why."""
    inside = serve(always(body=b'{"token": "abcdef"}'))
    answers: dict[str, tuple[str, ...]] = {
        "realm": ("401 Unauthorized", f'WWW-Authenticate: Bearer realm="{inside.url}/token"'),
        "redirect": ("307 Temporary Redirect", f"Location: {inside.url}/blob"),
        "link": ("200 OK", f'Link: <{inside.url}/more>; rel="next"'),
        "foreign": ("404 Not Found",),
    }
    status, *fields = answers[way]
    registry = serve(always(*fields, body=b'{"tags": ["1"]}', status=status))
    real_open, real_look_up = dial.Link._open, dial.look_up

    def look_up(host: str, port: int, *rest: Any) -> Any:
        if host == "registry.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", port))]
        return real_look_up(host, port, *rest)

    def opened(link: dial.Link, candidate: Any, seconds: float) -> socket.socket:
        if candidate[4][0] == "192.0.2.7":
            candidate = (*candidate[:4], ("127.0.0.1", registry.port))
        return real_open(link, candidate, seconds)

    monkeypatch.setattr(dial, "look_up", look_up)
    monkeypatch.setattr(dial.Link, "_open", opened)
    client = Client(plain_http=True, hosts_dirs=[], auth=("ann", "pw"))
    target = Descriptor("application/x", Digest.of(b"x"), 1, urls=(f"{inside.url}/layer",))
    source = client.remote("registry.example/a").readable()
    ask = {"foreign": lambda: source.open(target, Scope())}
    with pytest.raises(OcidistError, match="loopback or link-local"):
        ask.get(way, lambda: list(client.tags("registry.example/a")))()
    assert len(registry.requests) == 1
    assert inside.requests == []


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("10.0.0.1", False),
        ("2001:db8::1", False),
        ("::7f00:1", True),
        ("febf::1%eth0", True),
        ("fec0::1", False),
        ("name", False),
        ("0.1.2.3", True),
    ],
)
def test_which_addresses_are_near(address: str, near: bool) -> None:
    """Private ones are not: a registry and its storage on one network lead to each other."""
    require("sockets")
    assert dial.is_near(address) is near
