"""Which way a request goes: straight to its origin, or through a proxy. Pure.

``proxies`` maps a scheme (``http``, ``https``, ``all``) to a proxy's URL. ``no_proxy`` is the usual list:
names (with everything below them), ``.suffix``, ``*.suffix``, addresses, networks (CIDR), each with an optional
``:port``, or ``*``. Loopback hosts are never proxied: a proxy's own loopback is another machine.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING, Mapping

from ocidist.errors import quoted
from ocidist.frozen import dataclass
from ocidist.net.framing import Malformed

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["Proxy", "Route", "bypassed", "host_port", "route"]

_PORTS = {"http": 80, "https": 443}
_UNSENDABLE = re.compile(r"[^\x21-\x7e]")
_HOST = re.compile(r"[A-Za-z0-9._~%:-]+\Z")


class BadProxy(Malformed):
    """A proxy's URL that can't be used."""

    kind = "proxy"


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. ``authorization`` is the value of Proxy-Authorization, or empty."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True)
class Route:
    """Where a request goes: the origin, and the proxy on the way. Equal routes can share a connection.

    ``led_by`` is the host and port that sent us there, if it was another; ``certified`` as in a Request.
    """

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None
    led_by: tuple[str, int] | None = None
    certified: bool = True

    @property
    def authority(self) -> str:
        """``host`` or ``host:port``, without the scheme's own port; IPv6 in brackets."""
        if self.port == _PORTS[self.scheme]:
            return f"[{self.host}]" if ":" in self.host else self.host
        return host_port(self.host, self.port)


def host_port(host: str, port: int) -> str:
    """``host:port``, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def route(url: str, proxies: Mapping[str, str], no_proxy: str) -> tuple[Route, str]:
    """The route of an absolute URL, and its request target in origin form. Userinfo is dropped.

    Raises Malformed for what can't be put on a request line, and for proxies of other kinds than HTTP.
    """
    from urllib.parse import urlsplit

    if _UNSENDABLE.search(url):
        raise Malformed("the URL has spaces or characters that can't be sent")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Malformed(f"the URL is malformed: {error}") from None
    if parts.scheme not in _PORTS:
        raise Malformed(f"not an http or https URL: scheme {quoted(parts.scheme)}")
    if not _HOST.match(host):
        raise Malformed("the URL has no host")
    port = _PORTS[parts.scheme] if port is None else port
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy_url = proxies.get(parts.scheme) or proxies.get("all") or ""
    proxy = None if not proxy_url or bypassed(host, port, no_proxy) else _proxy(proxy_url)
    return Route(parts.scheme, host, port, proxy), target


def _proxy(url: str) -> Proxy:
    from base64 import b64encode
    from urllib.parse import unquote_to_bytes, urlsplit

    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadProxy("the proxy's URL is malformed") from None
    if parts.scheme != "http":
        raise BadProxy(f"proxies of kind {quoted(parts.scheme)} are not supported, only http://")
    if not _HOST.match(host):
        raise BadProxy("the proxy's URL has no host")
    authorization = ""
    if parts.username is not None:
        pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        authorization = "Basic " + b64encode(pair).decode("ascii")
    return Proxy(host, port or 80, authorization)


def is_local(host: str) -> bool:
    """True for a name or an address of this machine's loopback. By text, not by look-up."""
    host = host.lower().rstrip(".")
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def bypassed(host: str, port: int, no_proxy: str) -> bool:
    """True if a request to ``host`` goes straight there. Names are compared whole labels at a time."""
    if is_local(host):
        return True
    host = host.lower().rstrip(".")
    address = _address(host)
    return any(
        _matches(entry.lower(), host, address, port) for entry in re.split(r"[,\s]+", no_proxy) if entry
    )


def _matches(entry: str, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    import ipaddress

    if entry == "*":
        return True
    name, wanted = _split(entry)
    if wanted is not None and wanted != port:
        return False
    if address is not None:
        try:
            return address in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _split(entry: str) -> tuple[str, int | None]:
    """An entry's name and port. A bare IPv6 address has no port, however many colons it has."""
    match = re.match(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?\Z", entry)
    if match is None:
        return entry, None
    bracketed, bare, port = match.groups()
    return (bare if bracketed is None else bracketed), (int(port) if port else None)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    import ipaddress

    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
