"""Authentication: from a challenge and a credential to an ``Authorization`` header.

Sources: RFC 7617 (Basic), RFC 6750 (Bearer), and the token protocols of the distribution project: by GET
("Token Authentication Specification") and by POST ("Oauth2 Token Authentication"). Rules beyond them:

* a registry's credential goes to its token server only over https, or where both are plain http by
  configuration or on loopback; an http token server of an https registry gets none;
* a challenge is remembered, so that after the first 401 of a host each request carries its token at once;
* one token request per realm, service, scopes and credential, however many threads need it; a failure is
  shared with those who waited for it, and forgotten.
"""

from __future__ import annotations

import json
import threading
import time
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Collection, Iterable, NamedTuple, Sequence
from urllib.parse import urlencode

from ocidist.errors import Cancelled, DeadlineExceeded, OcidistError, RegistryError, TransportError, quoted
from ocidist.net.message import Headers, Request, Response
from ocidist.redaction import LONGEST, RECEIVED, SECRETS
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.challenge import Challenge, merge_scopes
from ocidist.remotes.registry.credentials import Credential, CredentialSource
from ocidist.scope import POLL, Scope
from ocidist.spec import document

if TYPE_CHECKING:
    Exchange = Callable[[Request, Scope], Response]

__all__ = ["Authenticator", "Grant", "Site"]

MINIMUM_LIFE = 60.0
"""Seconds that a token is taken to live at least, whatever the server says."""
_MARGIN = 10.0  # seconds before its end at which a token is not used any more
_KEPT = 256  # tokens, before those that have run out are dropped
_CLIENT_ID = "ocidist"
_VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True)
class Site:
    """A registry as it is spoken to: its name (``docker.io``) and the scheme that it is reached by."""

    host: str
    scheme: str


class Claim(NamedTuple):
    """What a token is asked for: where, by which service, to do what, and as whom (None: anonymous)."""

    realm: str
    service: str
    scopes: tuple[str, ...]
    credential: Credential | None


@dataclass(frozen=True)
class Grant:
    """An ``Authorization`` value and what it stands for. ``claim`` is that of a token from a token server.

    ``fresh``: made for the very call that got it; ``known``: with credentials, which ``credentials`` describes.
    """

    header: str = field(repr=False)
    claim: Claim | None = field(default=None, repr=False)
    fresh: bool = False
    known: bool = True
    credentials: str = ""


@dataclass
class _Token:
    value: str = field(repr=False)
    until: float


class _Flight:
    """One token request under way, and those who wait for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.token: _Token | None = None
        self.error: OcidistError | None = None


class Authenticator:
    """Answers challenges. ``exchange(request, scope)`` sends with retries, and adds no credentials."""

    def __init__(
        self,
        credentials: CredentialSource,
        exchange: Exchange,
        *,
        plain_http: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._exchange = exchange
        self._plain_http = plain_http
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Site, Challenge] = {}
        self._asked: dict[tuple[Site, str], frozenset[str]] = {}  # scopes that challenges named
        self._found: dict[tuple[Site, str], Credential | None] = {}
        self._tokens: dict[Claim, _Token] = {}
        self._flights: dict[Claim, _Flight] = {}

    def forget(self) -> None:
        """Drop tokens, challenges and looked-up credentials (after a login or logout)."""
        with self._lock:
            self._known.clear()
            self._asked.clear()
            self._found.clear()
            self._tokens.clear()

    def header(self, site: Site, repository: str, wanted: Iterable[str], scope: Scope) -> Grant | None:
        """Return what to send to ``site`` at once: None before its first challenge, or without credentials."""
        with self._lock:
            challenge = self._known.get(site)
            asked = self._asked.get((site, repository), frozenset())
        if challenge is None:
            return None
        credential = self._credential(site, repository, scope)
        if challenge.scheme == "basic":
            basic = credential.basic if credential is not None else ""
            return Grant(basic, credentials=credential.described) if credential and basic else None
        if credential is not None and credential.registry_token:
            ready = _checked_token(credential.registry_token, site.host)
            return Grant("Bearer " + ready, credentials=credential.described)
        scopes = merge_scopes([*wanted, *asked])
        if not self._may_send(site, challenge.realm):
            credential = None
        claim = Claim(challenge.realm, challenge.service, scopes, credential)
        token, fresh = self._token(claim, site, scope)
        described = credential.described if credential is not None else ""
        return Grant("Bearer " + token.value, claim, fresh, credential is not None, described)

    def answer(
        self, site: Site, repository: str, challenges: Sequence[Challenge], used: Grant | None, scope: Scope
    ) -> bool:
        """Take in a 401's (or 403's) challenges; True where sending again may now succeed."""
        challenge = _choose(challenges)
        if challenge is None:
            return False
        key = (site, repository)
        # Harbor names Basic to whoever shows a token that has run out: another token comes first.
        stale = used is not None and used.claim is not None and not used.fresh
        if challenge.scheme == "bearer":
            with self._lock:
                self._known[site] = challenge
                self._asked[key] = self._asked.get(key, frozenset()) | challenge.scopes
        elif not stale:
            credential = self._credential(site, repository, scope)
            basic = credential.basic if credential is not None else ""
            if not basic or (used is not None and used.header == basic):
                return False
            with self._lock:
                self._known[site] = challenge
            return True
        if used is None:
            return True
        if used.claim is None:  # a ready registry token, or Basic before: nothing newer is available
            return used.header.startswith("Basic ")
        if not used.fresh:
            self._drop(used.claim, used.header)
            return True
        return merge_scopes([*used.claim.scopes, *challenge.scopes]) != used.claim.scopes

    # -- credentials --

    def _credential(self, site: Site, repository: str, scope: Scope) -> Credential | None:
        key = (site, repository)
        with self._lock:
            if key in self._found:
                return self._found[key]
        found = self._credentials.get(site.host, repository, scheme=site.scheme, scope=scope)
        if found is not None:
            pair = f"{found.username}:{found.password}"
            SECRETS.learn([found.password, pair, found.identity_token, found.registry_token])
        with self._lock:
            return self._found.setdefault(key, found)

    def _may_send(self, site: Site, realm: str) -> bool:
        origin = wire.origin_of(realm)
        if origin is None:
            return False
        if origin[0] == "https":
            return True
        if site.scheme != "http":
            return False
        host = wire.host_of(realm)
        same = wire.origin_of(f"http://{site.host}")
        return (
            wire.is_loopback(host) or host in self._plain_http or (same is not None and same[1] == origin[1])
        )

    # -- tokens --

    def _drop(self, claim: Claim, header: str) -> None:
        with self._lock:
            token = self._tokens.get(claim)
            if token is not None and "Bearer " + token.value == header:
                del self._tokens[claim]

    def _token(self, claim: Claim, site: Site, scope: Scope) -> tuple[_Token, bool]:
        """Return the token of ``claim``, and whether it was fetched within this call."""
        while True:
            with self._lock:
                token = self._tokens.get(claim)
                if token is not None and token.until > self._clock():
                    return token, False
                flight = self._flights.get(claim)
                leads = flight is None
                if flight is None:
                    flight = self._flights[claim] = _Flight()
            if leads:
                return self._lead(claim, flight, site, scope), True
            while not flight.done.wait(POLL):
                scope.check()
            if flight.token is not None:
                return flight.token, True
            if flight.error is not None and not isinstance(flight.error, (Cancelled, DeadlineExceeded)):
                raise copy(flight.error)
            scope.check()  # the leader was interrupted, we were not: lead in its place

    def _lead(self, claim: Claim, flight: _Flight, site: Site, scope: Scope) -> _Token:
        try:
            flight.token = self._fetch(claim, site, scope)
            with self._lock:
                self._prune()
                self._tokens[claim] = flight.token
            return flight.token
        except OcidistError as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                self._flights.pop(claim, None)
            flight.done.set()

    def _prune(self) -> None:
        """A session that lives for days and reads thousands of repositories forgets what has run out."""
        if len(self._tokens) >= _KEPT:
            now = self._clock()
            self._tokens = {key: token for key, token in self._tokens.items() if token.until > now}

    def _fetch(self, claim: Claim, site: Site, scope: Scope) -> _Token:
        if wire.origin_of(claim.realm) is None or wire.clean_url(claim.realm, claim.realm) != claim.realm:
            raise TransportError(
                site.host,
                "the registry names a token server that is not at an http(s) URL",
                False,
                kind="redirect",
            )
        started = self._clock()
        method, response = self._ask(claim, wire.address(site.scheme, site.host), scope)
        if response.status != 200:
            raise _no_token(method, response, site, claim.credential)
        return self._read_token(method, response, started)

    def _ask(self, claim: Claim, here: str, scope: Scope) -> tuple[str, Response]:
        """Return the token server's answer, and to which method: that which suits the credential, else the other one."""
        credential = claim.credential
        if credential is not None and credential.identity_token:
            response = self._exchange(_post(claim, credential, here), scope)
            if response.status not in (400, 404, 405) or not credential.password:
                return "POST", response
            response.close()
            return "GET", self._exchange(_get(claim, here), scope)
        response = self._exchange(_get(claim, here), scope)
        if response.status not in (404, 405) or credential is None:
            return "GET", response
        response.close()
        return "POST", self._exchange(_post(claim, credential, here), scope)

    def _read_token(self, method: str, response: Response, started: float) -> _Token:
        url, status = response.url, response.status
        body = response.read(wire.ERROR_LIMIT)
        try:
            document.check_depth(body, "token")
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            encoding = response.headers.get("Content-Encoding") or ""
            came = (
                f" (it came with Content-Encoding {quoted(encoding, 40)}, which was not asked for)"
                if encoding
                else ""
            )
            raise RegistryError(
                method, wire.redact(url), status, (), f"the token server's answer is not a JSON object{came}"
            )
        value = data.get("token") or data.get("access_token")
        given = [data.get(key) for key in ("token", "access_token", "refresh_token")]
        SECRETS.learn([text for text in given if isinstance(text, str)], RECEIVED)
        if not isinstance(value, str):
            raise RegistryError(
                method, wire.redact(url), status, (), "the token server's answer has no token"
            )
        life = data.get("expires_in")
        if isinstance(life, bool) or not isinstance(life, (int, float)) or not 0 < life < 1e9:
            life = MINIMUM_LIFE
        return _Token(
            _checked_token(value, wire.host_of(url)), started + max(MINIMUM_LIFE, float(life) - _MARGIN)
        )


def _get(claim: Claim, here: str) -> Request:
    query = [("service", claim.service)] if claim.service else []
    query += [("scope", wanted) for wanted in claim.scopes]
    headers = Headers([("Accept", "application/json")])
    if claim.credential is not None and claim.credential.basic:
        headers.set("Authorization", claim.credential.basic)
        query.append(("account", claim.credential.username))
    glue = "&" if "?" in claim.realm else "?"
    url = claim.realm + (glue + urlencode(query, safe=":/,") if query else "")
    return Request("GET", url, headers, led_by=here)


def _post(claim: Claim, credential: Credential, here: str) -> Request:
    form = [("service", claim.service), ("client_id", _CLIENT_ID), ("scope", " ".join(claim.scopes))]
    if credential.identity_token:
        form += [("grant_type", "refresh_token"), ("refresh_token", credential.identity_token)]
    else:
        form += [("grant_type", "password"), ("username", credential.username)]
        form += [("password", credential.password)]
    headers = Headers([("Accept", "application/json")])
    headers.set("Content-Type", "application/x-www-form-urlencoded")
    # The secret is in the body: a redirect, which could take it anywhere, is not followed for a POST.
    return Request("POST", claim.realm, headers, urlencode(form).encode(), here)


def _no_token(method: str, response: Response, site: Site, credential: Credential | None) -> RegistryError:
    """Return the error for a token server's refusal; only some are about the credentials."""
    try:
        said = wire.parse_errors(response.read(wire.ERROR_LIMIT))
    except TransportError:  # its status is enough
        said = ()
    finally:
        response.close()
    hint = f"the token server of {site.host} gives no token"
    if credential is not None and response.status in (400, 401, 403):
        hint = f"the token server of {site.host} refused the credentials {credential.described}"
    wait = wire.retry_after(response.headers.get("Retry-After"), time.time())
    return wire.error_for(method, response.url, response.status, said, hint, wait)


def _checked_token(value: str, host: str) -> str:
    if len(value) > LONGEST:
        raise TransportError(host, f"the token is longer than {LONGEST} characters", False, kind="protocol")
    if not value or not _VISIBLE.issuperset(value):
        raise TransportError(
            host, "the token holds characters that no header may hold", False, kind="protocol"
        )
    return value


def _choose(challenges: Sequence[Challenge]) -> Challenge | None:
    """The one to answer: Bearer with a token server before Basic."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.realm:
            return challenge
    return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)
