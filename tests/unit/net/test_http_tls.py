"""TLS: who is trusted, and what is said when somebody is not (threat A.19, and A.2 under TLS)."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.diagnosis.advice import advice_for
from ocidist.errors import TransportError
from ocidist.net import tls
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.message import Request
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from tests.parts.required import require
from tests.unit.net.peers import Peer, Server, always, raw

Serve = Callable[..., Server]


def fetch(options: HTTPOptions, url: str) -> bytes:
    with HTTPTransport(options) as transport:
        return transport.send(Request("GET", url), Scope()).read(1 << 20)


def refused(options: HTTPOptions, url: str) -> TransportError:
    with pytest.raises(TransportError) as caught:
        fetch(options, url)
    assert not caught.value.retryable
    return caught.value


def test_known_authority_is_trusted(serve: Serve, ca: Any) -> None:
    """With the CA's file an answer comes, by address and by name; the connection is kept."""
    server = serve(always(body=b"x" * 100_000), context=ca.server_context(["registry.test"]))
    assert len(fetch(HTTPOptions(ca_file=ca.file), server.url)) == 100_000
    named = HTTPOptions(ca_file=ca.file, connect_to={"registry.test:443": ("127.0.0.1", server.port)})
    with HTTPTransport(named) as transport:
        for _ in range(3):
            with transport.send(Request("GET", "https://registry.test/"), Scope()) as answer:
                assert answer.status == 200
    assert server.requests[-1].get("Host") == "registry.test"
    assert server.connections == 4  # a body of 100 kB that nobody read costs its connection


def test_tls_connection_is_kept(serve: Serve, ca: Any) -> None:
    """Ten answers over TLS take one handshake."""
    server = serve(always(body=b"x" * 100_000), context=ca.server_context())
    with HTTPTransport(HTTPOptions(ca_file=ca.file)) as transport:
        for _ in range(10):
            assert len(transport.send(Request("GET", server.url), Scope()).read(1 << 20)) == 100_000
    assert server.connections == 1


def test_loopback_loads_authorities_for_a_peer_that_speaks_tls(
    serve: Serve, ca: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's authorities are loaded once a peer on loopback proves to speak TLS, and never for plain http."""
    made: list[str] = []
    make = tls.make_context
    monkeypatch.setattr(tls, "make_context", lambda *told: made.append(told[2]) or make(*told))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    plain = serve(
        lambda peer: (peer.sock.recv(1), peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), peer.hold())
    )
    server = serve(always(body=b"x"), context=ca.server_context())
    with HTTPTransport(HTTPOptions(ca_file=ca.file)) as transport:
        with pytest.raises(TransportError) as caught:
            transport.send(Request("GET", f"https://127.0.0.1:{plain.port}/"), Scope())
        assert caught.value.kind == "plain-http"
        assert made == []
        for _ in range(3):
            assert transport.send(Request("GET", server.url), Scope()).read(9) == b"x"
    assert len(made) == 1
    assert server.connections == 2  # the one that found TLS, and the one that was believed and kept


def test_a19_unknown_authority(serve: Serve, ca: Any) -> None:
    """An authority that nobody named is refused, with the way out; nothing is sent, and no http is tried."""
    server = serve(always(), context=ca.server_context())
    error = refused(HTTPOptions(), server.url)
    assert error.kind == "certificate"
    assert "certificate refused" in str(error)
    assert "--ca-cert" in str(error)
    assert server.requests == []


def test_a19_wrong_host(serve: Serve, ca: Any) -> None:
    """A certificate for another name is refused."""
    server = serve(always(), context=ca.server_context(["registry.test"]))
    options = HTTPOptions(ca_file=ca.file, connect_to={"other.test:443": ("127.0.0.1", server.port)})
    error = refused(options, "https://other.test/")
    assert "other.test" in str(error)
    assert "certificate refused" in str(error)
    assert server.requests == []


def test_a19_expired(serve: Serve, ca: Any) -> None:
    """A certificate past its time is refused."""
    server = serve(always(), context=ca.server_context(expired=True))
    assert "expired" in str(refused(HTTPOptions(ca_file=ca.file), server.url))
    assert server.requests == []


def test_insecure_checks_nothing(serve: Serve, ca: Any) -> None:
    """With insecure, unknown, wrong and expired certificates are taken."""
    server = serve(always(body=b"x"), context=ca.server_context(["registry.test"], expired=True))
    options = HTTPOptions(insecure=True, connect_to={"other.test:443": ("127.0.0.1", server.port)})
    assert fetch(options, "https://other.test/") == b"x"


def test_peer_without_tls_is_told_apart(serve: Serve) -> None:
    """A peer that answers the hello with plain http is known by that, and nothing was sent to it in the clear."""
    server = serve(
        lambda peer: (peer.sock.recv(1), peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), peer.hold())
    )
    error = refused(HTTPOptions(), f"https://127.0.0.1:{server.port}/")
    assert error.kind == "plain-http"
    assert "does not speak TLS" in str(error)
    assert server.requests == []


def test_a19_other_faults_are_not_taken_for_plain_http(serve: Serve) -> None:
    """A handshake that is cut off, or refused by an alert, is no sign of plain http."""
    alert = b"\x15\x03\x03\x00\x02\x02\x28"  # fatal, handshake_failure
    for script in (
        lambda peer: peer.sock.recv(1),
        lambda peer: (peer.sock.recv(1), peer.send(alert), peer.hold()),
    ):
        server = serve(script)
        with pytest.raises(TransportError) as caught:
            fetch(HTTPOptions(), f"https://127.0.0.1:{server.port}/")
        assert caught.value.kind != "plain-http"


def test_a02_tls_end_without_close_notify(serve: Serve, ca: Any) -> None:
    """TCP's end in mid-TLS ends a body without length, for size and digest to decide; a sized one is cut short."""
    sized = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789"

    def script(message: bytes) -> Callable[[Peer], None]:
        def run(peer: Peer) -> None:
            peer.request()
            peer.send(message)  # then the socket closes, without unwrap()

        return run

    options = HTTPOptions(ca_file=ca.file)
    server = serve(script(b"HTTP/1.1 200 OK\r\n\r\n0123456789"), context=ca.server_context())
    assert fetch(options, server.url) == b"0123456789"
    with pytest.raises(TransportError, match="closed before the end"):
        fetch(options, serve(script(sized), context=ca.server_context()).url)


def test_ca_file_that_is_none(tmp_path: Path) -> None:
    """A missing CA file, and one without certificates, are named."""
    require("sockets")
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    for path, words in ((tmp_path / "missing.pem", "No such file"), (empty, "no certificate in PEM form")):
        error = refused(HTTPOptions(ca_file=path), "https://127.0.0.1:1/")
        assert words in str(error)
        assert path.name in str(error)


def test_machine_without_authorities_says_what_to_do(
    serve: Serve, ca: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without CA files certifi's are used; without certifi too, the error names the package and the option."""
    real = ssl.get_default_verify_paths()
    none = real._replace(cafile=None, capath=str(tmp_path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: none)
    monkeypatch.setitem(sys.modules, "certifi", None)
    server = serve(always(body=b"x"), context=ca.server_context())
    assert "ca-certificates" in str(refused(HTTPOptions(), server.url))

    class Certifi:
        @staticmethod
        def where() -> str:
            return str(ca.file)

    monkeypatch.setitem(sys.modules, "certifi", Certifi)
    assert fetch(HTTPOptions(), server.url) == b"x"


def test_handshake_words_are_plain() -> None:
    """Every kind of ssl.SSLError becomes one line with the host in it."""
    eof = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    other = ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert")
    for error in (eof, other):
        for handshake in (True, False):
            text = str(tls.explain(error, "registry.test", handshake))
            assert text.startswith("registry.test: ")
            assert "\n" not in text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [0, 1 << 20])
def test_a19_a_peer_that_wants_a_certificate_says_so(
    serve: Serve, ca: Any, version: ssl.TLSVersion, size: int
) -> None:
    """Also where TLS 1.3 is done by then and the request could not be written. It is not asked again, nor without TLS."""
    context = ca.server_context()
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    server = serve(always(body=b"x"), context=context)
    session = RegistrySession(HTTPTransport(HTTPOptions(ca_file=ca.file)))
    for _ in range(5):  # the alert comes before the request goes out, or after it
        with pytest.raises(TransportError, match="wants a client certificate") as caught:
            session.send(
                Request("PUT", server.url.replace("http:", "https:") + "/v2/", body=b"x" * size or None),
                Scope(),
            )
        assert not caught.value.retryable
        assert advice_for("/v2/", caught.value, "h").startswith("get one from its owner")
    assert server.connections == 5
    assert session.scheme(f"127.0.0.1:{server.port}") is None


def test_a_client_certificate_that_is_refused_is_told(serve: Serve, ca: Any, tmp_path: Path) -> None:
    """By the peer, for it is of an authority that it does not know."""
    from tests.parts.ca import CertificateAuthority

    context = ca.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca.file)
    other = CertificateAuthority(tmp_path / "other", "other CA").leaf()
    server = serve(always(body=b"x"), context=context)
    error = refused(HTTPOptions(ca_file=ca.file, certificates=(other,)), server.url)
    assert "it refused this client's certificate (unknown ca)" in str(error)


def test_what_is_wrong_with_a_key_is_said_of_it(ca: Any, tmp_path: Path) -> None:
    """It is missing, no file, or of another certificate."""
    require("sockets")
    certificate, _ = ca.leaf()
    _, other = ca.leaf()
    for key, words in (
        (tmp_path / "none.key", "none.key': No such file"),
        (tmp_path, "a directory, not a regular file"),
        (other, f"{certificate.name}': its key is that of another certificate"),
    ):
        error = refused(HTTPOptions(certificates=((certificate, key),)), "https://127.0.0.1:1/")
        assert words in str(error)


def test_modules_load_late() -> None:
    """Importing the transport, and making one, loads neither ssl, http.client, socket nor logging."""
    code = (
        "import sys, ocidist.net.http as h; h.HTTPTransport(h.HTTPOptions()); "
        "print([m for m in ('ssl', 'http.client', 'socket', 'logging', 'urllib.parse', 'ipaddress') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_answer_over_tls_is_no_http_answer(serve: Serve, ca: Any) -> None:
    """Garbage inside TLS is a malformed answer, not a TLS fault."""
    server = serve(raw(b"\x16\x03\x01 garbage\r\n"), context=ca.server_context())
    assert "malformed answer" in str(refused(HTTPOptions(ca_file=ca.file), server.url))


def test_python_without_ssl_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ssl can't be imported, https is refused with that reason, and http works."""
    require("sockets")
    import http.client

    monkeypatch.delattr(http.client, "HTTPSConnection")
    monkeypatch.setitem(sys.modules, "ssl", None)
    assert "no ssl module" in str(refused(HTTPOptions(), "https://127.0.0.1:1/"))
    with pytest.raises(TransportError, match="connection refused"):
        fetch(HTTPOptions(), "http://127.0.0.1:1/")


def test_python_http_server_is_told_apart() -> None:
    """The standard library's own http server, asked for TLS, is seen to speak none."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        error = refused(HTTPOptions(connect_timeout=5), f"https://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert error.kind == "plain-http"
