"""What failed is told by a kind: nothing above has to read the words of an error."""

from __future__ import annotations

import errno
import http.client
import pickle
import socket
import ssl
from typing import Any

import pytest

from ocidist.diagnosis.advice import advice_for
from ocidist.errors import TransportError
from ocidist.net.body import CutShort
from ocidist.net.dial import Link
from ocidist.net.framing import Malformed
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.net.pace import TooSlow
from ocidist.net.proxy import Route
from ocidist.net.reasons import reason_for
from ocidist.scope import Scope


def certificate(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


# The foreign exception, whether the request was on its way, and the kind.
KINDS: list[tuple[BaseException, bool, str]] = [
    (CutShort(), True, "cut"),
    (http.client.RemoteDisconnected(), True, "cut"),
    (ConnectionResetError(104, "reset"), True, "cut"),
    (BrokenPipeError(32, "broken"), True, "cut"),
    (Malformed("odd"), True, "protocol"),
    (http.client.BadStatusLine("x"), True, "protocol"),
    (TooSlow("slow"), True, "slow"),
    (TimeoutError(), True, "timeout"),
    (TimeoutError(), False, "connect"),
    (socket.gaierror(socket.EAI_AGAIN, "later"), False, "resolve"),
    (socket.gaierror(socket.EAI_NONAME, "none"), False, "resolve"),
    (ConnectionRefusedError(111, "refused"), False, "refused"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), False, "other"),
    (ssl.SSLEOFError(8, "EOF"), False, "hung-up"),
    (ssl.SSLEOFError(8, "EOF"), True, "cut"),
    (certificate(10, "certificate has expired"), False, "expired"),
    (certificate(9, "certificate is not yet valid"), False, "not-yet-valid"),
    (certificate(62, "Hostname mismatch"), False, "wrong-name"),
    (certificate(64, "IP address mismatch"), False, "wrong-name"),
    (certificate(7, "bad signature"), False, "certificate"),
]


@pytest.mark.parametrize(("error", "talking", "kind"), KINDS)
def test_a_foreign_exception_becomes_an_error_of_its_kind(
    error: BaseException, talking: bool, kind: str
) -> None:
    """At the one boundary, and the kind survives pickle, as a process pool needs it."""
    link = Link(
        Route("https", "registry.example", 443), Scope(), connect_timeout=2, connect_to={}, context=None
    )
    link.talking = talking
    found = reason_for(error, link, 2, 60, None)
    assert found is not None
    again: Any = pickle.loads(pickle.dumps(found))
    for one in (found, again, found.extended("; more"), found.worded("said otherwise")):
        assert (one.host, one.kind, one.retryable) == ("registry.example", kind, found.retryable)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://:80", "http://[x"])
def test_a_bad_url_of_a_proxy_is_told_from_a_bad_request(proxy: str) -> None:
    """What to do about it differs."""
    with HTTPTransport(HTTPOptions(proxies={"http": proxy})) as transport:
        with pytest.raises(TransportError) as caught:
            transport.send(Request("GET", "http://registry.example/"), Scope())
        assert caught.value.kind == "proxy"
        assert advice_for("/v2/", caught.value, "h").startswith("set $https_proxy")
        with pytest.raises(TransportError) as caught:
            transport.send(Request("GET", "ftp://registry.example/"), Scope())
        assert caught.value.kind == "request"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("expired", "check this machine's clock"),
        ("not-yet-valid", "set this machine's clock"),
        ("wrong-name", "use a name"),
        ("no-authorities", "install ca-certificates"),
        ("certificate", "trust the authority"),
        ("client-certificate", "get one from its owner"),
        ("client-refused", "ask its owner for another"),
        ("certificate-file", "name a file in PEM format"),
        ("refused", "nothing listens"),
        ("plain-http", "if it is meant to be plain http"),
        ("cut", "a firewall may drop"),
    ],
)
def test_advice_goes_by_the_kind(kind: Any, advice: str) -> None:
    """Whatever the words."""
    assert advice_for("TLS", TransportError("h", "odd words", False, kind=kind), "h").startswith(advice)
