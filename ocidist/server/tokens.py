"""Give tokens for registries, by both forms of the distribution project's token specification.

GET with Basic credentials or none, and OAuth2 POST with the grants ``password`` and ``refresh_token``:
https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/.
"""

from __future__ import annotations

import base64
import fnmatch
import hmac
import json
import secrets
import ssl
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Callable

from ocidist.server.http import Handler, RecordingServer, query

__all__ = ["Policy", "TokenServer", "basic"]


def basic(value: str) -> tuple[str, str] | None:
    """Return user and password of an ``Authorization`` header; None if it is not well-formed Basic."""
    scheme, _, rest = value.partition(" ")
    try:
        user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if scheme.lower() == "basic" else None


@dataclass
class Policy:
    """Who may do what, and what the answers hold. It may change while the server runs."""

    users: dict[str, str] = field(default_factory=dict)
    anonymous: tuple[str, ...] = ()  # patterns of repositories that anyone may pull
    lifetime: int = 300  # seconds from now to the token's own expiry; the registry allows 60 s more
    expires_in: int | None = 300  # what the answer says; None leaves it out
    fields: tuple[str, ...] = ("token", "access_token")  # under which names a GET answer has the token
    post: bool = True  # whether OAuth2 POST is offered (else 405)
    rights: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)  # user -> pattern -> actions


class TokenServer(RecordingServer):
    """Give the tokens of ``issuer`` for ``service``, made of their claims by ``sign``.

    ``realm`` is the URL that the challenge of a registry names. ``make_secret`` makes identity tokens of a label.
    """

    def __init__(
        self,
        sign: Callable[[dict[str, Any]], str],
        *,
        issuer: str,
        service: str,
        policy: Policy | None = None,
        realm: str | None = None,
        tls: ssl.SSLContext | None = None,
        make_secret: Callable[[str], str] = lambda label: label + secrets.token_hex(16),
    ) -> None:
        super().__init__(tls=tls)
        self.sign, self.issuer, self.service = sign, issuer, service
        self.policy = policy or Policy()
        self.realm = realm or f"{self.url}/token"
        self.make_secret = make_secret
        self.refresh_tokens: dict[str, str] = {}

    def refresh_token(self, user: str) -> str:
        """Return an identity token for ``user``, valid until the server stops."""
        token = self.make_secret("refresh.")
        self.refresh_tokens[token] = user
        return token

    def issue(self, user: str, scopes: list[str]) -> str:
        """Return a signed token for ``user`` ("" is anyone) with what the policy grants of ``scopes``."""
        now = int(time.time())
        access = [grant for scope in scopes if (grant := self._grant(user, scope))]
        return self.sign(
            {
                "iss": self.issuer,
                "sub": user,
                "aud": self.service,
                "exp": now + self.policy.lifetime,
                "nbf": now - 600,
                "iat": now,
                "jti": self.make_secret(""),
                "access": access,
            }
        )

    def _grant(self, user: str, scope: str) -> dict[str, Any] | None:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        asked = actions.split(",")
        if user and user not in self.policy.rights:
            allowed = set(asked)
        elif user:
            patterns = self.policy.rights[user]
            allowed = {a for p, acts in patterns.items() if fnmatch.fnmatchcase(name, p) for a in acts}
        else:
            anyone = kind == "repository" and any(fnmatch.fnmatchcase(name, p) for p in self.policy.anonymous)
            allowed = {"pull"} if anyone else set()
        granted = [action for action in asked if action in allowed]
        return {"type": kind, "name": name, "actions": granted} if granted else None

    def serve(self, handler: Handler) -> None:
        """Answer GET and POST at the realm's path."""
        body = b"".join(handler.request_body())
        if handler.path.partition("?")[0] != urllib.parse.urlsplit(self.realm).path:
            handler.reply(404)
        elif handler.command == "GET":
            self._get(handler)
        elif handler.command == "POST" and self.policy.post:
            self._post(handler, {k: v[-1] for k, v in urllib.parse.parse_qs(body.decode()).items()})
        else:
            handler.reply(405, [("Allow", "GET")])

    def _get(self, handler: Handler) -> None:
        asked = query(handler.path)
        user = ""
        if (value := handler.headers.get("Authorization")) is not None:
            user = self._basic(value)
            if not user:
                return self._refuse(handler, 401, "incorrect username or password")
        token = self.issue(user, [s for value in asked.get("scope", []) for s in value.split(" ") if s])
        answer: dict[str, Any] = dict.fromkeys(self.policy.fields, token)
        self._stamp(answer)
        if user and asked.get("offline_token") == ["true"]:
            answer["refresh_token"] = self.refresh_token(user)
        return self._json(handler, 200, answer)

    def _post(self, handler: Handler, form: dict[str, str]) -> None:
        grant = form.get("grant_type")
        if not form.get("service") or not form.get("client_id"):
            return self._refuse(handler, 400, "service and client_id are required")
        refresh = form.get("refresh_token", "")
        if grant == "password":
            user = self._check(form.get("username", ""), form.get("password", ""))
            refresh = self.refresh_token(user) if user and form.get("access_type") == "offline" else ""
        elif grant == "refresh_token":
            user = self.refresh_tokens.get(refresh, "")
        else:
            return self._refuse(handler, 400, "unsupported grant_type")
        if not user:
            return self._refuse(handler, 401, "incorrect credentials")
        scopes = form.get("scope", "").split()
        answer: dict[str, Any] = {
            "access_token": self.issue(user, scopes),
            "token_type": "Bearer",
            "scope": " ".join(scopes),
        }
        self._stamp(answer)
        if refresh:
            answer["refresh_token"] = refresh
        return self._json(handler, 200, answer)

    def _stamp(self, answer: dict[str, Any]) -> None:
        if self.policy.expires_in is not None:
            answer["expires_in"] = self.policy.expires_in
            answer["issued_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def _basic(self, value: str) -> str:
        found = basic(value)
        return self._check(*found) if found is not None else ""

    def _check(self, user: str, password: str) -> str:
        known = self.policy.users.get(user)
        good = known is not None and hmac.compare_digest(known.encode(), password.encode())
        return user if good else ""

    def _refuse(self, handler: Handler, status: int, why: str) -> None:
        headers = [("WWW-Authenticate", 'Basic realm="tokens"')] if status == 401 else []
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": why}]}).encode()
        handler.reply(status, [*headers, ("Content-Type", "application/json")], body)

    def _json(self, handler: Handler, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        handler.reply(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")], body)
