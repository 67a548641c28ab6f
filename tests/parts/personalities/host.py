"""A server on loopback that behaves as the facts of a registry say: its API, its token server and its storage.

All hosts of one registry are one server, told apart by ``Host``; a client reaches it by ``connect_to``.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ocidist.server.http import Handler, RecordingServer, query
from ocidist.server.records import Record
from tests.parts import secrets
from tests.parts.ca import CertificateAuthority
from tests.parts.images import TestImage
from tests.parts.names import OnlyThese
from tests.parts.personalities.facts import Personality, Refusal

ANYBODY = "ann"
"""The user where a registry lets people choose their names."""


class PersonalityServer(RecordingServer):
    """``personality`` with one image, ``tags`` names for it, and ``repositories`` in its catalog."""

    def __init__(
        self,
        personality: Personality,
        image: TestImage,
        ca: CertificateAuthority,
        *,
        tags: tuple[str, ...] = ("1",),
        repositories: tuple[str, ...] = (),
        allowance: int = 1 << 30,
    ) -> None:
        super().__init__(tls=self._context(ca, personality.hosts))
        self.is_like, self.image = personality, image
        self.tags = tags
        self.repositories = repositories or (personality.repository.value,)
        self.user = personality.user.value or ANYBODY
        self.secret = secrets.make(f"{self.user}:")
        self.refresh_tokens: set[str] = set()
        self.cloud_token = secrets.make("cloud-token-")
        self.allowance = allowance
        self._content = image.everything()
        self._tokens: dict[str, tuple[frozenset[str], bool]] = {}
        self._keys: dict[str, str] = {}  # of signed URLs -> digest
        self._guard = threading.Lock()

    @staticmethod
    def _context(ca: CertificateAuthority, hosts: tuple[str, ...]) -> ssl.SSLContext:
        return ca.server_context(hosts)

    @property
    def connect_to(self) -> OnlyThese:
        """Where the registry's hosts are, and that there are no others."""
        return OnlyThese({f"{host}:443": self.port for host in self.is_like.hosts})

    def at(self, host: str) -> list[Record]:
        """What was asked of one of the hosts."""
        return self.select(lambda record: record.header("Host") == host)

    def expire(self) -> None:
        """Let every token given so far run out."""
        with self._guard:
            self._tokens.clear()

    def refresh_token(self) -> str:
        """A new identity token."""
        made = secrets.make("refresh-")
        with self._guard:
            self.refresh_tokens.add(made)
        return made

    # --- HTTP ---------------------------------------------------------------------------------------------

    def serve(self, handler: Handler) -> None:
        body = b"".join(handler.request_body())
        like, host, path = self.is_like, handler.headers.get("Host", ""), urlsplit(handler.path).path
        if like.exchange is not None and path == like.exchange.value:
            return self._exchange(handler, parse_qs(body.decode()))
        if not like.basic and host == like.token_host and path == urlsplit(like.realm).path:
            return self._token(handler, parse_qs(body.decode()))
        if self._is_storage(host, path):
            return self._stored(handler)
        if host == like.host.value and path.startswith("/v2/"):
            return self._api(handler, unquote(path.removeprefix("/v2/")))
        return handler.reply(404)

    def _is_storage(self, host: str, path: str) -> bool:
        where = urlsplit(self.is_like.storage.value)
        prefix = where.path.partition("{")[0]
        return bool(where.path) and host == self.is_like.storage_host and path.startswith(prefix)

    # --- the API ------------------------------------------------------------------------------------------

    def _api(self, handler: Handler, path: str) -> None:
        like = self.is_like
        found = re.fullmatch(r"(.+)/(manifests|blobs|tags)/([^/]+)", path)
        scope = f"repository:{found[1]}:pull" if found else ""
        template = like.challenge.value
        if path == "_catalog":
            scope, template = "registry:catalog:*", like.catalog_challenge.value
        refused = self._refusal(handler, scope, template)
        if refused is not None:
            return self._refuse(handler, refused)
        if path == "_catalog":
            if like.catalog.value is not None:
                return self._refuse(handler, like.catalog.value)
            link = (like.catalog_link or like.link).value
            return self._page(handler, "repositories", self.repositories, link, {})
        if found is None or found[1] != like.repository.value:
            return handler.reply(404, body=b'{"errors":[{"code":"NAME_UNKNOWN","message":"not known"}]}')
        if found[2] == "tags":
            return self._page(handler, "tags", self.tags, like.link.value, {"name": found[1]})
        return self._manifest(handler, found[3]) if found[2] == "manifests" else self._blob(handler, found[3])

    def _refusal(self, handler: Handler, scope: str, template: str) -> Refusal | None:
        """What is said to a request that does not show that it may have ``scope``."""
        like = self.is_like
        sent = handler.headers.get("Authorization", "")
        if not like.challenge.value or self._has(sent, scope, template):
            return None
        challenge = template.format(host=like.host.value, scope=scope)
        if sent and like.challenge_again is not None:
            challenge = like.challenge_again.value
        elif sent.startswith("Bearer ") and sent[7:] in self._tokens and "scope=" in challenge:
            challenge += ',error="insufficient_scope"'
        return Refusal(401, like.unauthorized.value, challenge)

    def _has(self, sent: str, scope: str, template: str) -> bool:
        if template.startswith("Basic") or (sent.startswith("Basic") and self.is_like.challenge_again):
            return self._user_of(sent) is not None
        with self._guard:
            scopes, known = self._tokens.get(sent.removeprefix("Bearer "), (None, False))
        if scopes is None:
            return False
        return scope in scopes or not scope or (known and "{scope}" not in template)

    def _user_of(self, sent: str) -> str | None:
        try:
            user, _, secret = (
                base64.b64decode(sent.removeprefix("Basic "), validate=True).decode().partition(":")
            )
        except ValueError:
            return None
        good = secret == self.secret or secret in self.refresh_tokens
        return user if good and user == self.user and sent.startswith("Basic ") else None

    def _refuse(self, handler: Handler, refusal: Refusal) -> None:
        headers = [("Content-Type", "application/json"), ("Docker-Distribution-Api-Version", "registry/2.0")]
        if refusal.challenge:
            headers.append(("WWW-Authenticate", refusal.challenge.format(host=self.is_like.host.value)))
        headers += [("Set-Cookie", f"{name}={secrets.make()}; Path=/") for name in self.is_like.cookies.value]
        handler.reply(refusal.status, headers, refusal.body)

    def _manifest(self, handler: Handler, name: str) -> None:
        like = self.is_like
        digest = name if ":" in name else self.image.digest if name in self.tags else ""
        blob = self._content.get(digest)
        if blob is None:
            return handler.reply(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not known"}]}')
        if handler.command in like.counts.value:
            with self._guard:
                self.allowance -= 1
                spent = self.allowance < 0
            if spent:
                body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
                return handler.reply(429, [("Content-Type", "application/json")], body)
        headers = [("Content-Type", blob.media_type), ("Docker-Content-Digest", digest)]
        headers += [(key, value.format(left=self.allowance)) for key, value in like.limits.value.items()]
        return handler.reply(200, headers, blob.raw)

    def _blob(self, handler: Handler, digest: str) -> None:
        like = self.is_like
        blob = self._content.get(digest)
        if blob is None:
            return handler.reply(404, body=b'{"errors":[{"code":"BLOB_UNKNOWN","message":"not known"}]}')
        if not like.storage.value:
            return handler.reply(200, [("Docker-Content-Digest", digest)], blob.raw)
        key = secrets.make()
        with self._guard:
            self._keys[key] = digest
        hexadecimal = digest.partition(":")[2]
        target = like.storage.value.format(hex=hexadecimal, key=key, repository=like.repository.value)
        return handler.reply(like.redirect.value, [("Location", target)])

    def _stored(self, handler: Handler) -> None:
        """Content to who holds a signed URL; an object store refuses a second kind of credentials beside it."""
        like = self.is_like
        held = re.search(f"secret{secrets.MARK}[0-9a-f]{{8}}", handler.path)
        with self._guard:
            digest = self._keys.get(held[0]) if held is not None else None
        if digest is None:
            return handler.reply(403, body=b"<Error><Code>AccessDenied</Code></Error>")
        if like.storage_host != like.host.value and handler.headers.get("Authorization") is not None:
            return handler.reply(400, body=b"<Error><Code>InvalidAuthenticationInfo</Code></Error>")
        if handler.command == "HEAD" and like.storage_head.value != 200:
            return handler.reply(like.storage_head.value)
        return handler.reply(200, (), self._content[digest].raw)

    # --- pages --------------------------------------------------------------------------------------------

    def _page(
        self, handler: Handler, key: str, names: tuple[str, ...], link: str, more: dict[str, Any]
    ) -> None:
        like, asked = self.is_like, query(handler.path)
        limit = like.page.value
        n = int(asked.get("n", [str(limit)])[0]) or limit
        if n > limit and like.too_many is not None:
            return self._refuse(handler, like.too_many.value)
        last = asked.get("last", asked.get("next_page", [""]))[0]
        rest = names[names.index(last) + 1 :] if last else names
        page = rest[: min(n, limit)] if link else rest
        headers = [("Content-Type", "application/json")]
        if len(page) < len(rest):
            path, after = urlsplit(handler.path).path, quote(page[-1], safe="")
            filled = link.format(host=like.host.value, path=path, n=min(n, limit), last=after)
            headers.append(("Link", filled))
        return handler.reply(200, headers, json.dumps({**more, key: list(page)}).encode())

    # --- tokens -------------------------------------------------------------------------------------------

    def _token(self, handler: Handler, form: dict[str, list[str]]) -> None:
        like = self.is_like
        grant = "get" if handler.command == "GET" else form.get("grant_type", [""])[0]
        if grant not in like.grants.value:
            return handler.reply(405 if grant != "get" else 404)
        asked = query(handler.path) if grant == "get" else form
        scopes = [one for value in asked.get("scope", []) for one in value.split()]
        known = False
        sent = handler.headers.get("Authorization", "")
        if grant == "refresh_token":
            known = form.get("refresh_token", [""])[0] in self.refresh_tokens
        elif grant == "get" and sent:
            known = self._user_of(sent) is not None
        if not known and (sent or grant != "get" or not like.anonymous.value):
            return self._refuse(handler, Refusal(401, UNAUTHENTICATED))
        if like.scopes.value and any(re.fullmatch(like.scopes.value, one) is None for one in scopes):
            return self._refuse(handler, Refusal(400, UNDECODABLE))
        return self._give(handler, scopes, known)

    def _give(self, handler: Handler, scopes: list[str], known: bool) -> None:
        """A token for what may be had: the catalog is for those whom it is not refused to."""
        like = self.is_like
        given = {
            one for one in scopes if not one.startswith("registry:") or (known and like.catalog.value is None)
        }
        token = secrets.make("token-")
        with self._guard:
            self._tokens[token] = (frozenset(given), known)
        answer: dict[str, Any] = dict.fromkeys(like.answers.value, token)
        if like.expires_in.value is not None:
            answer["expires_in"] = like.expires_in.value
        handler.reply(200, [("Content-Type", "application/json")], json.dumps(answer).encode())

    def _exchange(self, handler: Handler, form: dict[str, list[str]]) -> None:
        if form.get("grant_type") != ["access_token"] or form.get("access_token") != [self.cloud_token]:
            return self._refuse(handler, Refusal(401, UNAUTHENTICATED))
        answer = {"refresh_token": self.refresh_token()}
        return handler.reply(200, [("Content-Type", "application/json")], json.dumps(answer).encode())


UNAUTHENTICATED = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication failed"}]}'
UNDECODABLE = b'{"errors":[{"code":"INVALID_REQUEST","message":"a scope that is not understood"}]}'
