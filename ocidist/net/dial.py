"""Links: one connection each, opened so that it can be cut from any thread. The only opener of sockets.

``http.client`` does the talking. A :class:`Link` gives it our own way to connect (``dial``), and keeps a
duplicate of the socket: ``kill`` shuts that down, and whatever thread waits in connect, in the TLS handshake
or in recv returns at once. The duplicate is needed because TLS takes the first socket object over, and
because closing a socket does not wake those who wait on it.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any, Mapping

from ocidist.errors import TransportError
from ocidist.net.proxy import Route, host_port
from ocidist.scope import POLL, Scope

if TYPE_CHECKING:
    import http.client
    import socket
    import ssl

__all__ = ["Link", "is_near", "look_up", "readable"]

_MAKING = threading.Lock()
_HEAD = 16 << 10  # bytes of a proxy's answer to CONNECT
# IPv4-compatible (:: and ::1 are two of those), IPv4-mapped (RFC 4291, 2.5.5) and translated (RFC 6052)
_IPV4_INSIDE = (bytes(12), bytes(10) + b"\xff\xff", b"\x00\x64\xff\x9b" + bytes(8))
_LEAST = 2.0  # seconds that one of several addresses gets at least, unless that is over an eighth of all


class Link:
    """A connection on a route. One exchange at a time; ``scope`` is that of the present one."""

    def __init__(
        self,
        route: Route,
        scope: Scope,
        *,
        connect_timeout: float,
        connect_to: Mapping[str, tuple[str, int]],
        context: ssl.SSLContext | None,
        near: set[tuple[str, int]] | None = None,
    ) -> None:
        self.route = route
        self._near = near if near is not None else set()
        self.scope = scope
        self.context = context
        self.reused = False
        self.connected = False  # TLS, where there is some, may be to come
        self.talking = False  # connected (through TLS, where there is some), and a request is sent
        self._connect_timeout = connect_timeout
        self._connect_to = connect_to
        self._lock = threading.Lock()
        self._twin: socket.socket | None = None
        self.kind, self.connection = self._make(context)

    def _make(self, context: ssl.SSLContext | None) -> tuple[object, http.client.HTTPConnection]:
        import http.client

        route, proxy = self.route, self.route.proxy
        host, port = route.host, route.port
        if proxy is not None and route.scheme == "http":
            host, port = proxy.host, proxy.port
        connection: http.client.HTTPConnection
        # vcrpy swaps these names while it plays, and swaps them back for a moment whenever it makes a
        # connection itself: so they are looked up now, and by one thread at a time.
        with _MAKING:
            kind: object
            if route.scheme == "https":
                kind = http.client.HTTPSConnection
                connection = http.client.HTTPSConnection(
                    host, port, timeout=self._connect_timeout, context=context
                )
            else:
                kind = http.client.HTTPConnection
                connection = http.client.HTTPConnection(host, port, timeout=self._connect_timeout)
        connection._create_connection = self._dial  # type: ignore[attr-defined]
        return kind, connection

    # -- ending --

    def kill(self) -> None:
        """Cut the connection under whoever waits on it. From any thread; never raises."""
        import socket

        with self._lock:
            if self._twin is not None:
                try:
                    self._twin.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # not connected any more

    def close(self) -> None:
        """Close for good. Idempotent; never raises."""
        with self._lock:
            twin, self._twin = self._twin, None
        for end in (twin, self.connection):
            try:
                if end is not None:
                    end.close()
            except OSError:
                pass

    # -- connecting --

    def _dial(self, address: tuple[str, int], *_: object) -> socket.socket:
        """What ``http.client`` calls in place of ``socket.create_connection``."""
        proxy = self.route.proxy
        tunnelled = proxy is not None and self.route.scheme == "https"
        if proxy is not None and tunnelled:
            address = (proxy.host, proxy.port)
        host, port = place = self._connect_to.get(host_port(*address), address)
        until = time.monotonic() + self._connect_timeout
        found = look_up(host, port, self.scope, until)
        if place is address:  # where --connect-to leads is the user's own choice
            found = self._allowed(found)
        least = min(_LEAST, self._connect_timeout / 8)
        for index, candidate in enumerate(found):
            left = until - time.monotonic()
            turns = len(found) - index
            try:
                sock = self._open(candidate, left if turns == 1 else max(left / turns, min(left, least)))
            except OSError:
                self.scope.check()
                if turns == 1:
                    raise
            else:
                if proxy is None and is_near(str(candidate[4][0])):
                    self._near.add((self.route.host, self.route.port))
                try:
                    if tunnelled:
                        self._tunnel(sock, until)
                    self.connected = True
                    # What is left of the connect timeout is for the TLS handshake.
                    sock.settimeout(self.scope.remaining(max(until - time.monotonic(), 0.001)))
                except BaseException:
                    sock.close()
                    raise
                return sock
        raise OSError(f"no address for {host}")

    def _allowed(self, found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The addresses of ``found`` that this route may lead to.

        Whoever is not at a loopback or link-local address must not send us to one: behind those are services of this
        machine and its neighbours that trust whoever reaches them. The proxy looks names up where there is one, so
        there only an address that is written as such is refused.
        """
        sender = self.route.led_by
        if sender is None or sender in self._near:
            return found
        ends = found if self.route.proxy is None else _numeric(self.route.host, self.route.port)
        far = [candidate for candidate in ends if not is_near(str(candidate[4][0]))]
        if ends and not far:
            raise TransportError(
                self.route.authority,
                f"{sender[0]} sent us there, to {ends[0][4][0]}, a loopback or link-local address; "
                "only a host that is at such an address itself may do that",
                False,
                kind="redirect",
            )
        return far if self.route.proxy is None else found

    def _open(self, candidate: tuple[Any, ...], seconds: float) -> socket.socket:
        import socket

        family, kind, protocol, _, address = candidate
        if seconds <= 0:
            raise TimeoutError("timed out")
        sock = socket.socket(family, kind, protocol)
        try:
            with self._lock:
                self._twin, old = sock.dup(), self._twin
            if old is not None:
                old.close()
            # Whoever ends the scope from here on finds the twin; who did before is seen by this look.
            sock.settimeout(self.scope.remaining(seconds))
            sock.connect(address)
            self.scope.check()
        except BaseException:
            sock.close()
            raise
        return sock

    def _tunnel(self, sock: socket.socket, until: float) -> None:
        """Ask the proxy for a way through (RFC 9110, section 9.3.6).

        ``http.client`` could, but it reads a proxy's fields for ever, and says IPv6 addresses without brackets
        in older Pythons.
        """
        route, proxy = self.route, self.route.proxy
        assert proxy is not None
        name = host_port(route.host, route.port)
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        head = b""
        while b"\r\n\r\n" not in head:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            sock.settimeout(self.scope.remaining(left))
            data = sock.recv(4096)
            self.scope.check()
            head += data
            if not data or len(head) > _HEAD:
                break
        status = tunnel_status(head)
        if not 200 <= status < 300:
            another = "another user and password" if proxy.authorization else "user and password"
            hint = f"; set {another} in the proxy's URL" if status == 407 else ""
            said = f"it answered {status}" if status else "it gave no proper answer"
            reason = f"proxy {host_port(proxy.host, proxy.port)} gave no way through: {said}{hint}"
            raise TransportError(route.authority, reason, status >= 500 or not head, kind="tunnel")


def tunnel_status(head: bytes) -> int:
    """The status of a proxy's answer to CONNECT; 0 if it is malformed or goes on after its empty line."""
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r\n", head)
    if match is None or b"\r\n\r\n" not in head:
        return 0
    status = int(match.group(1))
    # The origin does not speak first in TLS: bytes after a 2xx answer are the proxy's own invention.
    return 0 if 200 <= status < 300 and not head.endswith(b"\r\n\r\n") else status


def look_up(host: str, port: int, scope: Scope, until: float) -> list[tuple[Any, ...]]:
    """``getaddrinfo``, in a thread of its own, because nothing can interrupt it."""
    import socket

    scope.check()
    numeric = _numeric(host, port)
    if numeric:
        return numeric
    found: list[list[tuple[Any, ...]]] = []
    failed: list[Exception] = []
    done = threading.Event()

    def work() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            failed.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=work, name="ocidist-lookup", daemon=True).start()
    except RuntimeError:  # no threads here
        work()
    while not done.wait(POLL):
        scope.check()
        if time.monotonic() >= until:
            raise TimeoutError("the name look-up timed out")
    if failed:
        raise failed[0]
    return found[0]


def _numeric(host: str, port: int) -> list[tuple[Any, ...]]:
    """The address that ``host`` is, however it is written (127.1, 0x7f000001); [] for a name. Asks nobody."""
    import socket

    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return []


def is_near(address: str) -> bool:
    """True for an address on loopback, link-local or unspecified, IPv4 inside IPv6 included. ``address`` is numeric text."""
    import socket

    text = address.partition("%")[0]
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        return False
    if len(packed) == 16:
        if packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:
            return True
        if packed[:12] not in _IPV4_INSIDE:
            return False
        packed = packed[12:]
    return packed[0] in (0, 127) or packed[:2] == b"\xa9\xfe"


def readable(descriptor: int) -> bool:
    """True if a read would return at once: there is data, or an end. False where that can't be told."""
    import select

    poll = getattr(select, "poll", None)
    if poll is None:
        return bool(select.select([descriptor], [], [], 0)[0])
    poller = poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))
