"""The least rate of an answer: who sends slower than that for long is cut off, without a deadline (threat A.17).

Nothing here waits: on a thin wire each read of the client brings few bytes, and seems to take seconds.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.content import resume
from ocidist.errors import OcidistError, TransportError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.progress import Retrying
from ocidist.remotes.registry import session
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.scope import Retries, Scope
from tests.parts.faulty import FaultyRegistry
from tests.parts.images import Entry, image, noise
from tests.unit.net.peers import Server, always, raw
from tests.unit.net.test_http_ends import trickle

Serve = Callable[..., Server]
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
IMAGE = image([[Entry("noise", noise(100_000))]])
SLOW = r"sends too slowly: \d+ bytes in 60 seconds"


@dataclass
class ThinWire:
    """Reads by this process from the servers at ``ports`` bring ``size`` bytes and take ``seconds``, ``reads`` times, by a clock
    that else stands still."""

    ports: set[int] = field(default_factory=set)
    size: int = 1
    seconds: float = 1.0
    reads: int = 1 << 60
    now: float = field(default_factory=time.monotonic)

    def readinto(self, file: Any, buffer: Any) -> Any:
        view = memoryview(buffer)
        try:
            thin = self.reads > 0 and file._sock.getpeername()[1] in self.ports
        except OSError:  # not connected any more
            thin = False
        if thin:
            self.reads -= 1
            self.now += self.seconds
            view = view[: self.size]
        return _READINTO(file, view)


_READINTO = socket.SocketIO.readinto


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> ThinWire:
    made = ThinWire()
    monkeypatch.setattr(socket.SocketIO, "readinto", lambda file, buffer: made.readinto(file, buffer))
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(Scope, "sleep", lambda self, seconds: self.check())
    for module in (resume, session):
        monkeypatch.setattr(module, "Retries", lambda tries=10: Retries(tries, clock=lambda: made.now))
    return made


@pytest.fixture
def transport() -> Iterator[HTTPTransport]:
    with HTTPTransport(HTTPOptions()) as made:
        yield made


def read_all(transport: HTTPTransport, url: str) -> bytes:
    return transport.send(Request("GET", url), Scope()).read(1 << 20)


SLOW_PARTS = {
    "status": b"HTTP/1.1 200 " + b"y" * 2000 + b"\r\nContent-Length: 0\r\n\r\n",
    "header": HEAD + b"X: " + b"y" * 2000 + b"\r\nContent-Length: 0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + HEAD + b"Content-Length: 0\r\n\r\n",
    "body": HEAD + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000,
    "until close": HEAD + b"\r\n" + b"x" * 2000,
    "chunks": CHUNKED + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n",
    "chunk line": CHUNKED + b"1;" + b"y" * 2000 + b"\r\nx\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * 50 + b"\r\n",
}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("part", SLOW_PARTS)
def test_a17_whoever_sends_one_byte_a_second_is_cut_off(
    serve: Serve, ca: Any, wire: ThinWire, part: str, tls: bool
) -> None:
    """After a minute of waiting, in whatever part of an answer it is; that can be retried."""
    server = serve(raw(SLOW_PARTS[part]), context=ca.server_context() if tls else None)
    wire.ports.add(server.port)
    began = wire.now
    with HTTPTransport(HTTPOptions(ca_file=ca.file)) as transport:
        with pytest.raises(TransportError, match=SLOW) as caught:
            read_all(transport, server.url)
        assert not transport._pool._idle
    assert caught.value.retryable
    assert wire.now - began == pytest.approx(60)


@pytest.mark.parametrize("part", SLOW_PARTS)
def test_a17_slow_but_above_the_least_rate_passes(
    serve: Serve, transport: HTTPTransport, wire: ThinWire, part: str
) -> None:
    """A little more than 256 bytes a second is enough, however long it takes."""
    long = SLOW_PARTS[part].replace(b"2000", b"600000").replace(b"x" * 2000, b"x" * 600_000)
    server = serve(raw(long))
    wire.ports.add(server.port)
    wire.size, wire.seconds = 26, 0.1
    assert len(read_all(transport, server.url)) in (0, 1, 1000, 600_000)


def test_a17_the_rate_is_looked_at_again_each_minute(
    serve: Serve, transport: HTTPTransport, wire: ThinWire
) -> None:
    """What came fast in an earlier minute does not buy a slow one."""
    server = serve(always(body=b"x" * 500_000))
    wire.ports.add(server.port)
    wire.size, block = 4096, memoryview(bytearray(4096))
    with transport.send(Request("GET", server.url), Scope()) as answer:
        for _ in range(100):
            answer.readinto(block)
        wire.size, began = 1, wire.now
        with pytest.raises(TransportError, match=SLOW):
            answer.read(1 << 20)
    assert 60 <= wire.now - began <= 120


def test_a17_time_of_the_consumer_does_not_count(
    serve: Serve, transport: HTTPTransport, wire: ThinWire
) -> None:
    """A reader that takes one byte an hour is no fault of the server's."""
    server = serve(always(body=b"x" * 5000))
    wire.ports.add(server.port)
    wire.seconds = 0.0
    with transport.send(Request("GET", server.url), Scope()) as answer:
        count = 0
        while got := answer.readinto(memoryview(bytearray(1))):
            wire.now += 3600
            count += got
    assert count == 5000


def test_a17_one_long_wait_is_not_the_rate(serve: Serve, transport: HTTPTransport, wire: ThinWire) -> None:
    """A process that is stopped in a read, or a registry that thinks long before it answers, cuts nothing off."""
    server = serve(always(body=b"x" * 5000))
    wire.ports.add(server.port)
    wire.seconds, wire.size, wire.reads = 3600, 10, 3
    assert len(read_all(transport, server.url)) == 5000


def test_a17_a_byte_a_minute_is_cut_off(serve: Serve, transport: HTTPTransport, wire: ThinWire) -> None:
    """Just below the idle time-out each time: it ends all the same."""
    server = serve(always(body=b"x" * 5000))
    wire.ports.add(server.port)
    wire.seconds = 59
    began = wire.now
    with pytest.raises(TransportError, match=SLOW):
        read_all(transport, server.url)
    assert wire.now - began < 600


def test_a17_the_least_rate_can_be_switched_off(serve: Serve, wire: ThinWire) -> None:
    """With 0; of a Client too."""
    server = serve(always(body=b"x" * 5000))
    wire.ports.add(server.port)
    with HTTPTransport(HTTPOptions(least_rate=0)) as transport:
        assert len(read_all(transport, server.url)) == 5000
    assert Client().network_options().least_rate == 256
    assert Client(least_rate=0).network_options().least_rate == 0


def test_a17_through_a_proxy(serve: Serve, wire: ThinWire) -> None:
    """What a proxy hands on is bounded likewise, and its origin is named."""
    proxy = serve(raw(SLOW_PARTS["body"]))
    wire.ports.add(proxy.port)
    options = HTTPOptions(proxies={"http": f"http://127.0.0.1:{proxy.port}"})
    with (
        HTTPTransport(options) as transport,
        pytest.raises(TransportError, match=f"registry.example: it {SLOW}"),
    ):
        read_all(transport, "http://registry.example/")


def test_a17_a_real_trickle_is_cut_off(serve: Serve) -> None:
    """By the clock of the machine: 50 bytes a second, where 1,000 are the least."""
    server = serve(trickle(HEAD + b"Content-Length: 100000\r\n\r\n", b"x"))
    options = HTTPOptions(least_rate=1000, rate_window=0.3)
    with HTTPTransport(options) as transport, pytest.raises(TransportError, match="sends too slowly"):
        read_all(transport, server.url)
    server.closing = True


# -- a fetch --


def fetch(registry: FaultyRegistry, root: Path, events: list[Any] | None = None, **options: Any) -> None:
    client = Client(store=root, hosts_dirs=[], plain_http=True, platform="linux/amd64", workers=1, **options)
    with Scope(observer=None if events is None else events.append) as scope:
        client.fetch(f"{registry.name}:1", scope=scope)


def test_a17_a_slow_blob_is_given_up_at_the_second_cut(tmp_path: Path, wire: ThinWire) -> None:
    """For ever too slow: two minutes, then an error that says so."""
    with FaultyRegistry({"1": IMAGE}, redirect=True) as own:
        assert own.storage is not None
        wire.ports.add(own.storage.port)
        began = wire.now
        with pytest.raises(OcidistError, match=SLOW):
            fetch(own, tmp_path)
        asked = [record.path for record in own.storage.records]
    assert len(asked) == 2
    assert wire.now - began < 180


def test_a17_a_slow_blob_goes_on_where_it_was_cut(tmp_path: Path, wire: ThinWire) -> None:
    """What came before the cut is kept: the next connection is asked for the rest."""
    with FaultyRegistry({"1": IMAGE}, redirect=True) as own:
        assert own.storage is not None
        wire.ports.add(own.storage.port)
        wire.size, wire.reads = 200, 80  # those of the config, a minute of the layer, and a few after that
        events: list[Any] = []
        fetch(own, tmp_path, events)
        ranges = [record.header("Range") for record in own.storage.records]
    assert [bool(re.search(SLOW, event.why)) for event in events if isinstance(event, Retrying)] == [True]
    resumed = [int(found[6:-1].split("-")[0]) for found in ranges if found]
    assert len(resumed) == 1
    assert 5000 < resumed[0] < 12_000


def test_a17_a_slow_token_server_is_given_up(tmp_path: Path, wire: ThinWire) -> None:
    """Small answers are bounded as blobs are."""
    with FaultyRegistry({"1": IMAGE}, tokens=True) as own:
        assert own.tokens is not None
        wire.ports.add(own.tokens.port)
        with pytest.raises(OcidistError, match=SLOW):
            fetch(own, tmp_path)
        assert len(own.tokens.records) == 2


def test_a17_a_slow_mirror_is_passed_over(
    tmp_path: Path, wire: ThinWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first cut: the next host is asked."""
    with FaultyRegistry({"1": IMAGE}) as mirror, FaultyRegistry({"1": IMAGE}) as own:
        ends = tuple(Endpoint(f"{server.registry.url}/v2") for server in (mirror, own))
        monkeypatch.setattr(Client, "endpoints", lambda self, host: ends)
        wire.ports.add(mirror.registry.port)
        events: list[Any] = []
        with Scope(observer=events.append) as scope:
            Client(store=tmp_path, platform="linux/amd64", workers=1).fetch(f"{own.name}:1", scope=scope)
        told = [event.why for event in events if isinstance(event, Retrying)]
    assert told
    assert all(re.search(SLOW, why) and why.startswith(mirror.registry.address) for why in told)
