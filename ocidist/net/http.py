"""HTTP/1.1 over ``http.client``: one exchange, on a kept-alive connection where there is one.

No redirect is followed, no credential is known, and nothing is tried twice, with one exception: a kept-alive
connection may have been closed by its peer just before the request went out, so an idempotent request is
then sent once more, on a fresh connection (RFC 9110, section 9.2.2).
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ocidist.errors import OcidistError, TransportError, quoted
from ocidist.frozen import dataclass
from ocidist.net.framing import Malformed, check_field, check_method
from ocidist.net.message import Headers, Request
from ocidist.net.proxy import Route, is_local, route
from ocidist.redaction import SECRETS
from ocidist.scope import Scope

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from ocidist.net.body import Answer
    from ocidist.net.dial import Link

__all__ = ["HTTPOptions", "HTTPTransport"]

_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
_BLOCK = 1 << 20
_LAST_WORDS = 1.0  # seconds
_NEVER_SENT = frozenset({"proxy-authorization", "connection", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class HTTPOptions:
    """How to connect.

    ``connect_timeout`` (seconds) is for one connection with its TLS handshake, ``idle_timeout`` (seconds) for
    each wait for bytes; the whole is bounded by the scope. An answer that comes slower than ``least_rate`` (bytes a second; 0
    switches it off) over ``rate_window`` (seconds spent waiting for it) is cut off, which can be retried. ``ca_file`` and ``ca_files`` add authorities to the system's; ``certificates``
    are this client's own, each with the file of its key (None: in the same file).
    ``proxies`` and ``no_proxy``: see :mod:`ocidist.net.proxy`. ``connect_to`` maps "host:port" to the address and
    port to dial in its place; the name in TLS and in Host stays. ``max_idle`` connections are kept.
    """

    connect_timeout: float = 30.0
    idle_timeout: float = 60.0
    least_rate: float = 256.0
    rate_window: float = 60.0
    ca_file: Path | None = None
    ca_files: tuple[Path, ...] = ()
    certificates: tuple[tuple[Path, Path | None], ...] = ()
    insecure: bool = False
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # their URLs may hold passwords
    no_proxy: str = ""
    connect_to: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    max_idle: int = 16
    user_agent: str = "ocidist"


@dataclass(frozen=True)
class _Call:
    """A request, checked, in the form that goes out."""

    request: Request = field(repr=False)
    route: Route
    target: str = field(repr=False)
    fields: dict[str, str] = field(repr=False)

    @property
    def repeatable(self) -> bool:
        return self.request.method in _IDEMPOTENT


class _SourceFailed(Exception):
    """Reading the request's body failed: no fault of the network."""


class _Stale(Exception):
    """A kept-alive connection turned out to be closed before anything was answered."""


class _Unbelieved(Exception):
    """A peer on loopback speaks TLS, with a certificate that was not looked at yet."""


class HTTPTransport:
    """The network, as a :class:`~ocidist.net.message.Transport`. Thread-safe."""

    def __init__(self, options: HTTPOptions | None = None) -> None:
        from ocidist.net.pool import Pool

        self.options = options if options is not None else HTTPOptions()
        self._pool = Pool(self.options.max_idle)
        self._lock = Lock()
        self._contexts: dict[bool, ssl.SSLContext] = {}  # with and without this client's certificates
        self._near: set[tuple[str, int]] = set()  # hosts that were found on loopback or link-local addresses

    def send(self, request: Request, scope: Scope) -> Answer:
        """One exchange: the answer, its body unread. Raises TransportError, or the scope's own end."""
        scope.check()
        call = self._prepare(request)
        link = self._idle(call.route, scope)
        if link is not None:
            try:
                return self._exchange(call, link)
            except _Stale:
                scope.check()
        try:
            return self._exchange(call, self._fresh(call.route, scope))
        except _Unbelieved:
            self._trusting(call.route)
            return self._exchange(call, self._fresh(call.route, scope))

    def close(self) -> None:
        """Close the idle connections. Answers under way go on."""
        self._pool.close()

    def __enter__(self) -> HTTPTransport:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- before --

    def _prepare(self, request: Request) -> _Call:
        try:
            check_method(request.method)
            way, target = route(request.url, self.options.proxies, self.options.no_proxy)
            way = self._led(way, request)
            fields = self._fields(request, way)
        except Malformed as error:
            raise TransportError(
                _host(request.url), f"the request can't be sent: {error}", False, kind=error.kind
            ) from None
        if way.proxy is not None and way.scheme == "http":
            target = f"http://{way.authority}{target}"
        self._learn(replace(request, headers=Headers(fields.items())))
        return _Call(request, way, target, fields)

    def _led(self, way: Route, request: Request) -> Route:
        """``way``, with who sent us there, and whether certificates may be shown there."""
        certified = request.certified or not self.options.certificates
        if not request.led_by and certified:
            return way
        sender = route(request.led_by, {}, "")[0] if request.led_by else way
        same = (sender.scheme, sender.host, sender.port) == (way.scheme, way.host, way.port)
        return replace(way, led_by=None if same else (sender.host, sender.port), certified=certified)

    @staticmethod
    def _learn(request: Request) -> None:
        """What goes out and is secret is kept out of errors and logs from here on."""
        from ocidist.net import scrub

        scrub.learn_request(request.headers, request.url)
        body = request.body
        if isinstance(body, bytes) and scrub.is_form(request.headers.get("content-type")):
            scrub.learn_form(body)

    def _fields(self, request: Request, way: Route) -> dict[str, str]:
        """Repeated fields are joined into one (RFC 9110, section 5.3); framing is ours to say."""
        fields: dict[str, str] = {}
        names: dict[str, str] = {}
        for name, value in request.headers:
            check_field(name, value)
            if name.lower() in _NEVER_SENT:
                continue
            name = names.setdefault(name.lower(), name)
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        if "user-agent" not in names:
            check_field("User-Agent", self.options.user_agent)
            fields["User-Agent"] = self.options.user_agent
        if way.proxy is not None:  # of a tunnel it goes to the proxy alone, which may say it back
            self._learn(Request("CONNECT", "", Headers([("Proxy-Authorization", way.proxy.authorization)])))
        if way.proxy is not None and way.scheme == "http" and way.proxy.authorization:
            fields["Proxy-Authorization"] = way.proxy.authorization
        body = request.body
        if body is not None:
            fields["Content-Length"] = str(len(body) if isinstance(body, bytes) else body.size)
        elif request.method in ("POST", "PUT", "PATCH"):
            fields["Content-Length"] = "0"
        return fields

    def _idle(self, way: Route, scope: Scope) -> Link | None:
        import http.client

        # A Python without ssl has no HTTPSConnection; what to say about it is said where the context is made.
        kind = getattr(http.client, "HTTPSConnection" if way.scheme == "https" else "HTTPConnection", None)
        link = self._pool.take(way, kind)
        if link is not None:
            link.scope = scope
        return link

    def _fresh(self, way: Route, scope: Scope) -> Link:
        from ocidist.net.body import answer_class
        from ocidist.net.dial import Link

        context = self._tls(way) if way.scheme == "https" else None
        link = Link(
            way,
            scope,
            connect_timeout=self.options.connect_timeout,
            connect_to=self.options.connect_to,
            context=context,
            near=self._near,
        )
        connection: Any = link.connection
        paced: Any = answer_class()
        connection.response_class = partial(
            paced, least_rate=self.options.least_rate, rate_window=self.options.rate_window
        )
        return link

    def _tls(self, way: Route) -> ssl.SSLContext:
        """What a connection is made with. On loopback, where plain http is as likely, the system's authorities
        are loaded only for a peer that turns out to speak TLS."""
        from ocidist.net.tls import read_anyway, unbelieving_context

        options = self.options
        named = (*options.ca_files, *([options.ca_file] if options.ca_file is not None else ()))
        known = options.insecure or options.certificates or not all(map(read_anyway, named))
        if not self._contexts and not known and is_local(way.host):
            return unbelieving_context(way.authority)
        return self._trusting(way)

    def _trusting(self, way: Route) -> ssl.SSLContext:
        from ocidist.net.tls import make_context

        with self._lock:
            if way.certified not in self._contexts:
                options = self.options
                certificates = options.certificates if way.certified else ()
                self._contexts[way.certified] = make_context(
                    options.ca_file, options.insecure, way.authority, options.ca_files, certificates
                )
            return self._contexts[way.certified]

    # -- the exchange --

    def _exchange(self, call: _Call, link: Link) -> Answer:
        watch = link.scope.on_cancel(link.kill)
        watch.__enter__()
        try:
            answer = self._talk(call, link, watch)
        except BaseException as error:
            watch.__exit__(None, None, None)
            link.close()
            if not isinstance(error, Exception):
                raise
            link.scope.check()
            if link.reused and call.repeatable and _closed_by_peer(error):
                raise _Stale from error
            known = link.context is None or link.context in self._contexts.values()
            if not known and _unverified(error):
                raise _Unbelieved from error
            told = self._explain(error, link)
            if told is error:
                raise
            raise told from error
        _log(call, answer.status)
        return answer

    def _talk(self, call: _Call, link: Link, watch: AbstractContextManager[None]) -> Answer:
        from ocidist.net.body import Answer, answer_class

        connection, scope = link.connection, link.scope
        if link.reused:
            connection.sock.settimeout(scope.remaining(self.options.idle_timeout))
        whole = True
        try:
            connection.request(call.request.method, call.target, self._body(call, link), call.fields)
        except OSError as error:
            # A peer that refuses an upload answers, and hangs up without reading on.
            hung_up = isinstance(error, (BrokenPipeError, ConnectionResetError))
            if not hung_up or not call.request.body or connection.sock is None:
                _last_words(link)
                raise
            whole = False
        link.talking = True
        sock: Any = connection.sock  # http.client lets go of it where the answer says "close"
        if sock is not None:
            sock.settimeout(scope.remaining(self.options.idle_timeout))
        raw = connection.getresponse()
        ours = isinstance(raw, answer_class())  # else it comes from a cassette, with nothing to keep
        try:
            return Answer(
                raw,
                link,
                call.request,
                sock=sock,
                idle_timeout=self.options.idle_timeout,
                watch=watch,
                keep=self._pool.put if ours and whole else None,
                explain=self._explain,
            )
        except BaseException:
            raw.close()  # http.client forgets an answer that ends its connection: nobody else would
            raise

    def _body(self, call: _Call, link: Link) -> bytes | Iterator[bytes] | None:
        body = call.request.body
        if body is None or (isinstance(body, bytes) and len(body) <= 64 << 10):
            return body
        return self._chunks(call, link)

    def _chunks(self, call: _Call, link: Link) -> Iterator[bytes]:
        """The body in blocks, counted; each has the idle timeout to go out."""
        body, scope = call.request.body, link.scope
        if isinstance(body, bytes):
            view = memoryview(body)
            size = len(body)
            source: Iterator[bytes] = (bytes(view[at : at + _BLOCK]) for at in range(0, size, _BLOCK))
        else:
            assert body is not None
            size, source = body.size, body.chunks()
        sent = 0
        while True:
            try:
                block = next(source, None)
            except OSError as error:
                raise _SourceFailed(error.strerror or str(error)) from error
            if block is None:
                break
            sent += len(block)
            if sent > size:
                raise _SourceFailed(f"there are more than the {size} bytes announced")
            sock = link.connection.sock
            if sock is not None:
                sock.settimeout(scope.remaining(self.options.idle_timeout))
            yield block
        if sent < size:
            raise _SourceFailed(f"it ends after {sent} of {size} bytes")

    # -- what went wrong --

    def _explain(self, error: BaseException, link: Link) -> OcidistError:
        """The one place where errors of the network become ours. Raises the scope's end, if it has ended."""
        link.scope.check()
        if isinstance(error, OcidistError):
            return error
        from ocidist.net.reasons import reason_for

        if isinstance(error, _SourceFailed):
            return TransportError(
                link.route.authority, f"reading what is to be sent: {error}", False, kind="request"
            )
        told = reason_for(
            error, link, self.options.connect_timeout, self.options.idle_timeout, self.options.ca_file
        )
        if told is None:
            assert isinstance(error, Exception)
            raise error
        return told


def _last_words(link: Link) -> None:
    """Raise the alert of a peer that hung up as soon as its handshake was done: in TLS 1.3 one that wants a client's
    certificate says so only then, and what is written meanwhile fails first."""
    sock: Any = link.connection.sock
    if link.reused or link.context is None or not hasattr(sock, "getpeercert"):
        return
    link.talking = True
    sock.settimeout(link.scope.remaining(_LAST_WORDS))
    try:
        sock.recv(1)
    except OSError as error:
        if "ALERT" in (getattr(error, "reason", None) or ""):
            raise


def _closed_by_peer(error: BaseException) -> bool:
    # http.client.RemoteDisconnected is a ConnectionResetError: an end before the first byte of an answer.
    return isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError))


def _unverified(error: BaseException) -> bool:
    import ssl

    return isinstance(error, ssl.SSLCertVerificationError)


def _host(url: str) -> str:
    """Something to call the host of a URL that may be malformed, without anything secret."""
    rest = url.partition("://")[2] or url
    authority = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    return quoted(authority)[1:-1] or "URL"


def _log(call: _Call, status: int) -> None:
    if "logging" in sys.modules:  # who has not asked for logging does not pay for it
        import logging

        from ocidist.net import scrub

        way = call.route
        path = scrub.path(call.target.partition("?")[0].removeprefix(f"http://{way.authority}"))
        text = SECRETS.text(f"{way.scheme}://{way.authority}{path}")
        logging.getLogger("ocidist.net").debug("%s %s %d", call.request.method, text, status)
