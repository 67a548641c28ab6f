"""Answer as a registry does: its API, its token server and its storage, by the facts of a personality.

:class:`Registry` gives the right answers and :class:`RegistryServer` puts them on the wire, with the faults of a script.
Servers may share a registry, each answering as one of its hosts; one server may answer as all of them.
"""

from __future__ import annotations

import json
import re
import secrets
import ssl
import threading
from dataclasses import replace
from typing import Any, Callable, Iterable, Mapping, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ocidist.server.faults import Reply, misbehave
from ocidist.server.http import Handler, RecordingServer, query
from ocidist.server.personalities.facts import Personality, Refusal
from ocidist.server.script import Script
from ocidist.server.tokens import basic

__all__ = ["Registry", "RegistryServer", "Stored"]

ANYBODY = "ann"
"""The user where a registry lets people choose their names."""

_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
_JSON = "application/json"
_UNAUTHENTICATED = Refusal(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication failed"}]}')
_BAD_SCOPE = Refusal(400, b'{"errors":[{"code":"INVALID_REQUEST","message":"malformed scope"}]}')


class Stored(NamedTuple):
    """The bytes of a manifest or blob, and their media type."""

    media_type: str
    raw: bytes


class Registry:
    """One repository of ``content`` by digest and ``tags`` to digests, behind the manners of ``like``.

    ``user`` and ``secret`` are the credentials that are accepted; with an empty ``secret``, any are. ``allowance`` is
    how many pulls are answered where ``like`` counts them; ``base`` takes the place of ``/v2``. ``make_secret`` makes tokens and keys of a label.
    """

    def __init__(
        self,
        like: Personality,
        content: Mapping[str, Stored],
        tags: Mapping[str, str],
        *,
        repositories: Iterable[str] = (),
        allowance: int = 1 << 30,
        base: str = "/v2",
        script: Script | None = None,
        secret: str | None = None,
        make_secret: Callable[[str], str] = lambda label: label + secrets.token_hex(16),
    ) -> None:
        self.is_like, self.content, self.tags = like, dict(content), dict(tags)
        self.repositories = tuple(repositories) or (like.repository.value,)
        self.allowance, self.base, self.make_secret = allowance, base, make_secret
        self.script = script or Script()
        self.user = like.user.value or ANYBODY
        self.secret = make_secret(f"{self.user}:") if secret is None else secret
        self.cloud_token = make_secret("cloud-token-")
        self.refresh_tokens: set[str] = set()
        self.given: dict[str, tuple[frozenset[str], bool]] = {}
        """Access tokens, with their scopes and whether their holder showed credentials."""
        self.signatures: dict[str, str] = {}
        """Keys of signed URLs, with the digests that they open."""
        self._lock = threading.Lock()

    def expire(self) -> None:
        """Accept none of the access tokens given so far."""
        with self._lock:
            self.given.clear()

    def refresh_token(self) -> str:
        """Return a new identity token."""
        made = self.make_secret("refresh-")
        with self._lock:
            self.refresh_tokens.add(made)
        return made

    def answer(self, handler: Handler, host: str, body: bytes) -> tuple[str, Reply]:
        """Return the right answer of ``host``, after the phase that the request is part of ("" is none)."""
        like, path = self.is_like, urlsplit(handler.path).path
        if like.exchange is not None and path == like.exchange.value:
            return "token", self._exchange(parse_qs(body.decode()))
        if not like.basic and host == like.token_host and path == urlsplit(like.realm).path:
            return "token", self._token(handler, parse_qs(body.decode()))
        where = urlsplit(like.storage.value).path.partition("{")[0]
        if where and host == like.storage_host and path.startswith(where):
            return "redirect", self._from_storage(handler)
        if host == like.host.value and path.startswith(f"{self.base}/"):
            return self._api(handler, unquote(path.removeprefix(f"{self.base}/")))
        return "", _document(404)

    # -- the API --

    def _api(self, handler: Handler, path: str) -> tuple[str, Reply]:
        like = self.is_like
        found = re.fullmatch(r"(.+)/(manifests|blobs|tags)/([^/]+)", path)
        scope = f"repository:{found[1]}:pull" if found else ""
        template = like.challenge.value
        if path == "_catalog":
            scope, template = "registry:catalog:*", like.catalog_challenge.value
        refused = self._refusal(handler, scope, template)
        if refused is not None:
            return "", self._refuse(refused)
        if path == "_catalog":
            if like.catalog.value is not None:
                return "", self._refuse(like.catalog.value)
            link = (like.catalog_link or like.link).value
            return "", self._page(handler, "repositories", self.repositories, link, {})
        if found is None or found[1] != like.repository.value:
            return "tags", _error(404, "NAME_UNKNOWN")
        if found[2] == "tags":
            right = self._page(handler, "tags", tuple(self.tags), like.link.value, {"name": found[1]})
            phase = "tags"
        elif found[2] == "manifests":
            phase = "manifest" if ":" in found[3] else "head" if handler.command == "HEAD" else "resolve"
            right = self._manifest(handler, found[3])
        else:
            phase, right = self._blob(handler, found[3])
        challenge = template.format(host=like.host.value, scope=scope)
        return phase, right.with_header("WWW-Authenticate", challenge or None)  # sent by a fault's 401 alone

    def _refusal(self, handler: Handler, scope: str, template: str) -> Refusal | None:
        """Return the refusal of a request that doesn't show that it may have ``scope``."""
        like = self.is_like
        sent = handler.headers.get("Authorization", "")
        if not like.challenge.value or self._has(sent, scope, template):
            return None
        challenge = template.format(host=like.host.value, scope=scope)
        if sent and like.challenge_again is not None:
            challenge = like.challenge_again.value
        elif sent.startswith("Bearer ") and sent[7:] in self.given and "scope=" in challenge:
            challenge += ',error="insufficient_scope"'
        return Refusal(401, like.unauthorized.value, challenge)

    def _has(self, sent: str, scope: str, template: str) -> bool:
        if template.startswith("Basic") or (sent.startswith("Basic") and self.is_like.challenge_again):
            return self._accepts(sent)
        with self._lock:
            scopes, known = self.given.get(sent.removeprefix("Bearer "), (None, False))
        if scopes is None:
            return False
        return scope in scopes or not scope or (known and "{scope}" not in template)

    def _accepts(self, sent: str) -> bool:
        """Tell whether an ``Authorization`` holds the credentials."""
        found = basic(sent)
        return found is not None and self._knows(*found)

    def _knows(self, user: str, secret: str) -> bool:
        known = user == self.user and (secret == self.secret or secret in self.refresh_tokens)
        return known or not self.secret

    def _refuse(self, refusal: Refusal) -> Reply:
        reply = _document(refusal.status, _JSON, refusal.body)
        told = [("Docker-Distribution-Api-Version", "registry/2.0")]
        if refusal.challenge:
            told.append(("WWW-Authenticate", refusal.challenge.format(host=self.is_like.host.value)))
        told += [
            ("Set-Cookie", f"{name}={self.make_secret('')}; Path=/") for name in self.is_like.cookies.value
        ]
        return replace(reply, headers=(*reply.headers, *told))

    def _manifest(self, handler: Handler, name: str) -> Reply:
        like = self.is_like
        digest = name if ":" in name else self.tags.get(name, "")
        found = self.content.get(digest)
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN")
        if handler.command in like.counts.value:
            with self._lock:
                self.allowance -= 1
                spent = self.allowance < 0
            if spent:
                return _error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
        reply = _document(200, *found).with_header("Docker-Content-Digest", digest)
        for key, value in like.limits.value.items():
            reply = reply.with_header(key, value.format(left=self.allowance))
        return reply

    def _blob(self, handler: Handler, digest: str) -> tuple[str, Reply]:
        like, found = self.is_like, self.content.get(digest)
        asked = _RANGE.match(handler.headers.get("Range") or "")
        phase = "resume" if asked else "layer"
        if found is not None and "config" in found.media_type:
            phase = "config"
        if found is None:
            return phase, _error(404, "BLOB_UNKNOWN")
        if not like.storage.value:
            return phase, _part(found.raw, asked).with_header("Docker-Content-Digest", digest)
        key = self.make_secret("")
        with self._lock:
            self.signatures[key] = digest
        hexadecimal = digest.partition(":")[2]
        target = like.storage.value.format(hex=hexadecimal, key=key, repository=like.repository.value)
        return phase, _document(like.redirect.value).with_header("Location", target)

    def _from_storage(self, handler: Handler) -> Reply:
        """Answer the holder of a signed URL; object stores refuse other credentials beside it."""
        like = self.is_like
        with self._lock:
            digest = next((held for key, held in self.signatures.items() if key in handler.path), "")
        if not digest:
            return _document(403, "application/xml", b"<Error><Code>AccessDenied</Code></Error>")
        if like.storage_host != like.host.value and handler.headers.get("Authorization") is not None:
            return _document(400, "application/xml", b"<Error><Code>InvalidAuthenticationInfo</Code></Error>")
        if handler.command == "HEAD" and like.storage_head.value != 200:
            return _document(like.storage_head.value)
        return _part(self.content[digest].raw, _RANGE.match(handler.headers.get("Range") or ""))

    def _page(
        self, handler: Handler, key: str, names: tuple[str, ...], link: str, more: dict[str, Any]
    ) -> Reply:
        like, asked = self.is_like, query(handler.path)
        limit = like.page.value
        n = int(asked.get("n", [str(limit)])[0]) or limit
        if n > limit and like.too_many is not None:
            return self._refuse(like.too_many.value)
        last = asked.get("last", asked.get("next_page", [""]))[0]
        rest = names[names.index(last) + 1 :] if last else names
        page = rest[: min(n, limit)] if link else rest
        reply = _document(200, _JSON, json.dumps({**more, key: list(page)}).encode())
        if len(page) == len(rest):
            return reply
        path, after = urlsplit(handler.path).path, quote(page[-1], safe="")
        filled = link.format(host=like.host.value, path=path, n=min(n, limit), last=after)
        return reply.with_header("Link", filled)

    # -- tokens --

    def _token(self, handler: Handler, form: dict[str, list[str]]) -> Reply:
        like = self.is_like
        grant = "get" if handler.command == "GET" else form.get("grant_type", [""])[0]
        if grant not in like.grants.value:
            return _document(405 if grant != "get" else 404)
        asked = query(handler.path) if grant == "get" else form
        scopes = [one for value in asked.get("scope", []) for one in value.split()]
        sent = handler.headers.get("Authorization", "")
        if grant == "refresh_token":
            known = form.get("refresh_token", [""])[0] in self.refresh_tokens or not self.secret
        elif grant == "password":
            known = self._knows(form.get("username", [""])[0], form.get("password", [""])[0])
        else:
            known = grant == "get" and bool(sent) and self._accepts(sent)
        if not known and (sent or grant != "get" or not like.anonymous.value):
            return self._refuse(_UNAUTHENTICATED)
        if like.scopes.value and any(re.fullmatch(like.scopes.value, one) is None for one in scopes):
            return self._refuse(_BAD_SCOPE)
        return self._give(scopes, known)

    def _give(self, scopes: list[str], known: bool) -> Reply:
        """Return a token for those of ``scopes`` that are granted; the catalog only where it isn't refused."""
        like = self.is_like
        catalog = known and like.catalog.value is None
        token = self.make_secret("token-")
        with self._lock:
            self.given[token] = (
                frozenset(s for s in scopes if catalog or not s.startswith("registry:")),
                known,
            )
        answer: dict[str, Any] = dict.fromkeys(like.answers.value, token)
        if like.expires_in.value is not None:
            answer["expires_in"] = like.expires_in.value
        return _document(200, _JSON, json.dumps(answer).encode())

    def _exchange(self, form: dict[str, list[str]]) -> Reply:
        if form.get("grant_type") != ["access_token"] or form.get("access_token") != [self.cloud_token]:
            return self._refuse(_UNAUTHENTICATED)
        return _document(200, _JSON, json.dumps({"refresh_token": self.refresh_token()}).encode())


class RegistryServer(RecordingServer):
    """Serve ``registry`` with the faults of its script, as its host ``name``; "" is the one that ``Host`` names."""

    def __init__(
        self,
        registry: Registry,
        *,
        name: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls=tls)
        self.registry, self.name = registry, name

    def serve(self, handler: Handler) -> None:
        """Answer one request."""
        self.respond(handler, b"".join(handler.request_body()))

    def respond(self, handler: Handler, body: bytes) -> None:
        """Answer one request whose body has been read."""
        phase, reply = self.registry.answer(handler, self.name or handler.headers.get("Host", ""), body)
        fault = self.registry.script.next(phase)
        if fault is not None:
            if fault.kind == "token-expires":
                self.registry.expire()
            reply = misbehave(fault, reply, self.url + handler.path)
        handler.send(reply if reply.status == 401 else reply.with_header("WWW-Authenticate", None))


def _document(status: int, media_type: str = "text/plain", raw: bytes = b"") -> Reply:
    return Reply(status, ()).with_body(status, media_type, raw)


def _error(status: int, code: str, message: str = "not known") -> Reply:
    return _document(status, _JSON, json.dumps({"errors": [{"code": code, "message": message}]}).encode())


def _part(content: bytes, asked: re.Match[str] | None) -> Reply:
    whole = _document(200, "application/octet-stream", content).with_header("Accept-Ranges", "bytes")
    if asked is None:
        return whole
    first = int(asked[1])
    last = min(int(asked[2]) if asked[2] else len(content) - 1, len(content) - 1)
    if first > last:
        return _document(416).with_header("Content-Range", f"bytes */{len(content)}")
    part = whole.with_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
    part = part.with_header("Content-Length", str(last + 1 - first))
    return replace(part, status=206, start=first, end=last + 1)
