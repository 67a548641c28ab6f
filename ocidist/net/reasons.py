"""Plain words for what ``socket``, ``ssl`` and ``http.client`` raise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ocidist.errors import TransportError, quoted
from ocidist.net.body import CutShort
from ocidist.net.framing import Malformed
from ocidist.net.pace import TooSlow
from ocidist.net.proxy import host_port
from ocidist.net.tls import explain

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.net.dial import Link

__all__ = ["reason_for"]


def reason_for(
    error: BaseException, link: Link, connect_timeout: float, idle_timeout: float, ca_file: Path | None
) -> TransportError | None:
    """The TransportError for a foreign exception of an exchange on ``link``; None if it is no such thing."""
    import http.client

    host = link.route.authority
    if isinstance(error, CutShort):
        return TransportError(host, "the connection was closed before the end of the answer", kind="cut")
    if isinstance(error, Malformed):
        return TransportError(host, f"malformed answer: {error}", False, kind="protocol")
    if isinstance(error, http.client.HTTPException) and not isinstance(error, http.client.RemoteDisconnected):
        return TransportError(host, f"malformed answer: {_http(error)}", False, kind="protocol")
    if isinstance(error, UnicodeError):
        return TransportError(host, "invalid host name", False, kind="resolve")
    if not isinstance(error, OSError):
        return None
    return _os_error(error, link, connect_timeout, idle_timeout, ca_file)


def _os_error(
    error: OSError, link: Link, connect_timeout: float, idle_timeout: float, ca_file: Path | None
) -> TransportError:
    import http.client
    import socket

    host, proxy = link.route.authority, link.route.proxy
    via = "" if proxy is None else f" (proxy {host_port(proxy.host, proxy.port)})"
    ssl = sys.modules.get("ssl")  # where it is not loaded, this is none of its errors
    if ssl is not None and isinstance(error, ssl.SSLError):
        return explain(error, host, not link.talking, ca_file)
    if isinstance(error, TooSlow):
        return TransportError(host, str(error), kind="slow")
    if isinstance(error, TimeoutError):
        if link.talking:
            return TransportError(host, f"nothing was received for {idle_timeout:g} seconds", kind="timeout")
        what = "TLS handshake" if link.connected else "connection"
        return TransportError(host, f"no {what} within {connect_timeout:g} seconds{via}", kind="connect")
    if isinstance(error, socket.gaierror):
        again = error.errno == socket.EAI_AGAIN
        why = "the name look-up failed for now" if again else "no such host"
        return TransportError(host, why + via, again, kind="resolve")
    if isinstance(error, http.client.RemoteDisconnected):
        return TransportError(host, "the connection was closed without an answer", kind="cut")
    if isinstance(error, ConnectionRefusedError):
        return TransportError(host, f"connection refused{via}", kind="refused")
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return TransportError(host, "the connection was reset", kind="cut")
    return TransportError(host, (error.strerror or str(error) or type(error).__name__) + via)


def _http(error: Exception) -> str:
    import http.client

    if isinstance(error, http.client.BadStatusLine):
        return f"no HTTP status line: {quoted(str(error.args[0]).strip() if error.args else '')}"
    if isinstance(error, http.client.IncompleteRead):
        return "it ends early"
    return quoted(str(error) or type(error).__name__)[1:-1]
