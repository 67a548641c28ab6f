"""One session with any number of registries: redirects, retries, plain http, authentication.

A session is shared by all remotes of a client and by all of its threads. A request names a registry by its
own name (``https://docker.io/v2/…``); the session knows where that is and how it is reached.

Rules:

* A redirect that changes scheme, host or port drops Authorization and cookies.
* No redirect, realm, link or foreign URL leaves https, or leads to a loopback or link-local address unless the host that
  names it is at one itself.
* 408, 429, 5xx and failures of the network are retried after growing, jittered pauses: five tries, or as many as the
  scope's :class:`~ocidist.scope.Retries` allow; a host that does not answer is tried twice.
* http is spoken to hosts configured so, and to a loopback host that does not speak TLS; to no other.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from typing import Callable, Collection, Iterable, Mapping

from ocidist.errors import TransportError
from ocidist.net.message import Headers, Held, Request, Response, Transport
from ocidist.progress import Retrying
from ocidist.redaction import SECRETS
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.auth import Authenticator, Grant, Site
from ocidist.remotes.registry.challenge import parse_challenges
from ocidist.remotes.registry.credentials import CredentialSource, NoCredentials
from ocidist.scope import Retries, Scope
from ocidist.spec.digest import Digest

__all__ = ["RegistrySession"]

ATTEMPTS = 5
_NO_TLS = frozenset({"plain-http", "hung-up", "refused"})  # never a certificate that is refused
MAX_REDIRECTS = 10
_AUTH_ROUNDS = 3  # a challenge, a token that was not fresh any more, a scope that was missing
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({400, 401, 403})  # what storage hosts say of a signed URL past its time
_SECRET_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")


class RegistrySession:
    """Sends requests to registries. Threads may share it; it holds no connection itself.

    ``plain_http`` names hosts (``host[:port]``) that are spoken to without TLS; True means every registry. ``schemes``
    are those of hosts on loopback, where both are tried otherwise. ``attempts`` bound a request. ``jitter`` returns
    numbers from 0 to 1.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: CredentialSource | None = None,
        *,
        plain_http: Iterable[str] | bool = (),
        schemes: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.transport = transport
        self._all_plain = plain_http is True
        named: Iterable[str] = () if isinstance(plain_http, bool) else plain_http
        self._plain_http = frozenset(host.lower() for host in named)
        self._attempts = max(attempts, 1)
        self.patient = self._attempts > 1
        self._jitter = jitter
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._schemes = dict(schemes or {})
        self.auth = Authenticator(
            credentials if credentials is not None else NoCredentials(),
            self._for_token,
            plain_http=self._plain_http,
            clock=clock,
        )

    # -- public --

    def send(
        self,
        request: Request,
        scope: Scope,
        *,
        repository: str = "",
        actions: Iterable[str] = ("pull",),
        idempotent: bool | None = None,
        expect: Collection[int] = (),
        expect_elsewhere: Collection[int] = (),
        digest: Digest | None = None,
        limit: int | None = None,
        tries: int | None = None,
    ) -> Response:
        """Return the answer to a request to a registry, authenticated as it demands. Close it.

        Answers below 300 and those in ``expect`` are returned, and those in ``expect_elsewhere`` of a host that was
        redirected to; any other raises RegistryError. ``repository`` and ``actions`` say what a token is asked for, beside
        what challenges name. ``digest`` is the object in reports of retries. ``idempotent`` defaults to what the method
        is. With ``limit`` a body of at most that many bytes has been read when this returns, so that a cut in it was
        retried. With ``tries`` of 1 nothing is retried, but for tokens.
        """
        host = wire.host_of(request.url).lower()
        wanted = [f"repository:{repository}:{','.join(actions)}"] if repository else []
        rounds = 0
        expired = False
        while True:
            site = Site(host, self.scheme(host) or "https")
            grant = self.auth.header(site, repository, wanted, scope)
            response, crossed = self._exchange(
                _authorized(request, grant),
                scope,
                registry=host,
                idempotent=idempotent,
                digest=digest,
                limit=limit,
                tries=tries,
            )
            if response.status in (401, 403) and not crossed and rounds < _AUTH_ROUNDS:
                site = Site(host, self.scheme(host) or "https")
                challenges = parse_challenges(response.headers.get_all("WWW-Authenticate"))
                lacking = any(challenge.error == "insufficient_scope" for challenge in challenges)
                if (response.status == 401 or lacking) and self.auth.answer(
                    site, repository, challenges, grant, scope
                ):
                    _drain(response)
                    rounds += 1
                    continue
            if crossed and response.status in expect_elsewhere:
                return response
            if crossed and response.status in _EXPIRED and not expired:
                expired = True  # a signed URL that has run out: the registry signs another
                _drain(response)
                continue
            return self._checked(response, request, expect, _hint(host, response.status, grant, crossed))

    def read(
        self,
        request: Request,
        scope: Scope,
        limit: int,
        *,
        accept: Callable[[Response], None] = lambda response: None,
        foreign: str = "",
        repository: str = "",
        digest: Digest | None = None,
    ) -> tuple[Response, bytes]:
        """Return an answer as :meth:`send` does (:meth:`fetch` if ``foreign`` names the link), and its body, at most ``limit`` bytes.

        A body that is cut is asked for again. ``accept`` may refuse an answer by its headers.
        """
        if foreign:
            response = self.fetch(request, scope, what=foreign, digest=digest, limit=limit)
        else:
            response = self.send(request, scope, repository=repository, digest=digest, limit=limit)
        try:
            accept(response)
            return response, response.read(limit)
        finally:
            response.close()

    def fetch(
        self,
        request: Request,
        scope: Scope,
        *,
        what: str = "a foreign URL",
        expect: Collection[int] = (),
        digest: Digest | None = None,
        limit: int | None = None,
        tries: int | None = None,
    ) -> Response:
        """Return the answer to a request to a URL that ``request.led_by`` named, sent without credentials of any kind.

        ``what`` names it in the error if it may not lead there.
        """
        bare = self._led(_authorized(request, None), request.led_by, what)
        bare.certified = False
        for name in _SECRET_HEADERS:
            bare.headers.remove(name)
        response, _ = self._exchange(bare, scope, digest=digest, limit=limit, tries=tries)
        return self._checked(response, request, expect, "no credentials are sent there")

    def forget(self) -> None:
        """Drop tokens and credentials at hand (after a login or logout)."""
        self.auth.forget()

    # -- one request, until it is answered --

    def _for_token(self, request: Request, scope: Scope) -> Response:
        """Return the answer of a token server. Asking twice does no harm, by POST neither."""
        led = self._led(request, request.led_by, "sending us to a token server")
        return self._exchange(led, scope, idempotent=True, limit=wire.ERROR_LIMIT)[0]

    def _exchange(
        self,
        request: Request,
        scope: Scope,
        *,
        registry: str | None = None,
        idempotent: bool | None = None,
        digest: Digest | None = None,
        limit: int | None = None,
        tries: int | None = None,
    ) -> tuple[Response, bool]:
        """An answer after retries and redirects, and whether it came from another origin than was asked."""
        again = request.method in ("GET", "HEAD", "PUT", "DELETE") if idempotent is None else idempotent
        tries = self._attempts if tries is None else min(tries, self._attempts)
        retries = Retries(tries) if tries == 1 or scope.retries is None else scope.retries
        while True:
            try:
                response, crossed = self._follow(request, scope, registry)
                # A longer one is for the caller to refuse, and an error is one whatever else it says.
                if limit is not None and response.status < 300 and (response.length or 0) <= limit:
                    response = Held(response, limit)
            except TransportError as error:
                seconds = retries.after(error, self._jitter()) if again else None
                if seconds is None:
                    raise
                why = error.reason
            else:
                status = response.status
                if not wire.retryable_status(status) or not (again or status == 429):
                    return response, crossed
                why = f"{wire.host_of(response.url)} answered {status}"
                wait = wire.retry_after(response.headers.get("Retry-After"), self._wall_clock())
                seconds = retries.again(self._jitter(), wait)
                if seconds is None:
                    return response, crossed
                _drain(response)
            scope.emit(Retrying(digest, retries.attempt, seconds, SECRETS.text(why)))
            scope.pause(seconds)

    def _follow(self, request: Request, scope: Scope, registry: str | None) -> tuple[Response, bool]:
        response = self._first(request, scope, registry)
        start, crossed = response.url, False
        if request.method not in ("GET", "HEAD"):  # a body may be secret, or be wanted elsewhere than there
            return response, False
        for _ in range(MAX_REDIRECTS):
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response, crossed
            here, status = response.url, response.status
            _drain(response)
            target = wire.clean_url(here, location)
            headers = request.headers.copy()
            hop = Request(request.method, target, headers, certified=request.certified, placed=True)
            hop = self._led(hop, here, f"a redirect ({status})")
            crossed = crossed or not wire.same_origin(start, target)
            if crossed:  # for good: a hop back does not bring them back
                hop.certified = False
                for name in _SECRET_HEADERS:
                    headers.remove(name)
            else:
                hop.led_by = request.led_by
            response = self.transport.send(hop, scope)
        if response.status in _REDIRECTS:
            _drain(response)
            raise TransportError(
                wire.host_of(start), f"more than {MAX_REDIRECTS} redirects", False, kind="redirect"
            )
        return response, crossed

    def _led(self, request: Request, here: str, what: str) -> Request:
        """``request``, marked as one to where ``here`` led us. Redirects, realms, links and foreign URLs all pass here.

        Raises TransportError where it may not lead there. Addresses are judged when the connection is made.
        """
        reason = wire.refusal(here, request.url)
        if reason:
            raise TransportError(wire.host_of(here), f"{what} {reason}", False, kind="redirect")
        own = request.certified and wire.same_origin(here, request.url)
        return replace(request, led_by=here, certified=own)

    # -- where a registry is --

    def address(self, host: str) -> str:
        """The URL of the registry ``host``, without a path; https while its scheme is not known."""
        return wire.address(self.scheme(host) or "https", host)

    def scheme(self, host: str) -> str | None:
        """The scheme that ``host`` is reached by; None while that is not known."""
        if self._all_plain or host in self._plain_http:
            return "http"
        if not wire.is_loopback(host):
            return "https"
        with self._lock:
            return self._schemes.get(host)

    def _first(self, request: Request, scope: Scope, registry: str | None) -> Response:
        if registry is None:
            return self.transport.send(request, scope)
        known = self.scheme(registry)
        path = request.url.partition("://")[2].partition("/")[2]
        for scheme in (known,) if known is not None else ("https", "http"):
            try:
                response = self.transport.send(
                    replace(
                        request,
                        url=f"{wire.address(scheme, registry)}/{path}",
                        headers=request.headers.copy(),
                    ),
                    scope,
                )
            except TransportError as error:
                if known is None and scheme == "https" and error.kind in _NO_TLS:
                    continue
                raise
            if known is None:
                with self._lock:
                    self._schemes[registry] = scheme
            return response
        raise AssertionError("unreachable")  # the last scheme returns or raises

    # -- answers --

    def _checked(self, response: Response, request: Request, expect: Collection[int], hint: str) -> Response:
        status = response.status
        if 200 <= status < 300 or status in expect:
            return response
        wait = wire.retry_after(response.headers.get("Retry-After"), self._wall_clock())
        url = response.url
        diagnostics = wire.parse_errors(_drain(response))
        raise wire.error_for(request.method, url, status, diagnostics, hint, wait)


def _authorized(request: Request, grant: Grant | None) -> Request:
    headers: Headers = request.headers.copy()
    if grant is not None:
        headers.set("Authorization", grant.header)
    if "Accept-Encoding" not in headers:
        headers.set("Accept-Encoding", "identity")
    return replace(request, headers=headers)


def _drain(response: Response) -> bytes:
    """The body of an answer that nobody wants, so that its connection serves again; b"" if it is too long."""
    try:
        return response.read(wire.ERROR_LIMIT)
    except TransportError:
        return b""
    finally:
        response.close()


def _hint(host: str, status: int, grant: Grant | None, crossed: bool) -> str:
    if status == 429:
        anonymous = grant is not None and not grant.known
        return "it limits requests; try again later" + (
            f", or log in: ocidist login {host}" if anonymous else ""
        )
    if status == 407:
        return "a proxy on the way wants another user and password; set them in its URL ($http_proxy)"
    if status not in (401, 403, 404):
        return ""
    if crossed:
        return f"{host} redirected there; no credentials are sent to another host"
    if status == 401 and grant is not None and grant.known:
        return f"the credentials {grant.credentials} were refused"
    if status == 401:
        private = "" if grant is None else "there is no such repository, or it is private; "
        return f"{private}log in with: ocidist login {host}"
    return ""
