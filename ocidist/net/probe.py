"""The way to a host, a stretch at a time: its name, a connection, TLS. For finding out where a request gets stuck.

Each function does what a request would do up to that point, with the same options, and says what it found.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Iterator

from ocidist.errors import TransportError
from ocidist.net.framing import Malformed
from ocidist.net.proxy import Route, host_port, route

if TYPE_CHECKING:
    from ssl import SSLContext

    from ocidist.net.dial import Link
    from ocidist.net.http import HTTPOptions
    from ocidist.scope import Scope

__all__ = ["connect", "handshake", "name", "way_to"]


def way_to(url: str, options: HTTPOptions) -> Route:
    """The route of a URL: straight, or through a proxy. Raises TransportError where there is none."""
    try:
        return route(url, options.proxies, options.no_proxy)[0]
    except Malformed as error:
        raise TransportError(
            url.partition("://")[2].partition("/")[0], str(error), False, kind=error.kind
        ) from None


def _first_hop(way: Route) -> Route:
    """The plain connection that comes first: to the proxy, where there is one."""
    at = way.proxy if way.proxy is not None else way
    return Route("http", at.host, at.port)


def name(way: Route, options: HTTPOptions, scope: Scope) -> tuple[str, ...]:
    """The addresses of what is connected to. Raises TransportError."""
    from ocidist.net.dial import look_up

    hop = _first_hop(way)
    host, port = options.connect_to.get(host_port(hop.host, hop.port), (hop.host, hop.port))
    with _linked(hop, options, scope):
        found = look_up(host, port, scope, monotonic() + options.connect_timeout)
    return tuple(dict.fromkeys(str(item[4][0]) for item in found))


def connect(way: Route, options: HTTPOptions, scope: Scope) -> str:
    """``ADDRESS:PORT`` of a connection that was made, and closed again. Raises TransportError."""
    with _linked(_first_hop(way), options, scope) as link:
        link.connection.connect()
        address: tuple[Any, ...] = link.connection.sock.getpeername()
    return host_port(str(address[0]), int(address[1]))


def handshake(way: Route, options: HTTPOptions, scope: Scope) -> tuple[str, str]:
    """TLS's version, and until when the certificate is good ("" where it is not checked). Raises TransportError.

    Through a proxy this is where it is asked for a way on.
    """
    from ocidist.net.tls import make_context

    context = make_context(
        options.ca_file, options.insecure, way.authority, options.ca_files, options.certificates
    )
    with _linked(replace(way, scheme="https"), options, scope, context) as link:
        link.connection.connect()
        sock: Any = link.connection.sock
        return str(sock.version()), str((sock.getpeercert() or {}).get("notAfter", ""))


@contextmanager
def _linked(
    way: Route, options: HTTPOptions, scope: Scope, context: SSLContext | None = None
) -> Iterator[Link]:
    """A link, its errors told as those of a request are."""
    from ocidist.net.dial import Link
    from ocidist.net.reasons import reason_for

    link = Link(
        way,
        scope,
        connect_timeout=options.connect_timeout,
        connect_to=options.connect_to,
        context=context,
    )
    try:
        with scope.on_cancel(link.kill):
            yield link
    except Exception as error:
        scope.check()
        told = reason_for(error, link, options.connect_timeout, options.idle_timeout, options.ca_file)
        if told is None:
            raise
        raise told from error
    finally:
        link.close()
