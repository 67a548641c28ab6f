"""A token server for registries: real JWTs, signed with keys made at test time.

Speaks both forms of the distribution project's token specification: GET with Basic or nobody's credentials, and
OAuth2 POST with the password and refresh_token grants.
"""

from __future__ import annotations

import base64
import datetime
import fnmatch
import hashlib
import hmac
import json
import ssl
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from ocidist.server.http import Handler, RecordingServer, query
from tests.parts import secrets

ISSUER = "ocidist test tokens"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Signer:
    """A key, its certificate, and JWTs that the registry's ``rootcertbundle`` accepts.

    ``algorithm`` is ES256 or RS256; ``header`` names the key by certificate (``x5c``) or by fingerprint (``kid``).
    """

    def __init__(self, folder: Path, *, algorithm: str = "ES256", header: str = "x5c") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.algorithm, self.header = algorithm, header
        self.key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        if algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "RS256":
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            raise ValueError(f"no such algorithm here: {algorithm}")
        now = datetime.datetime.now(datetime.timezone.utc)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.bundle = folder / f"tokens-{self.certificate.serial_number:x}.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def key_id(self) -> str:
        """The key's fingerprint in the registry's spelling: 30 bytes of SHA-256, base32, in groups of four."""
        public = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = base64.b32encode(hashlib.sha256(public).digest()[:30]).decode()
        return ":".join(text[at : at + 4] for at in range(0, len(text), 4))

    def sign(self, claims: dict[str, Any]) -> str:
        """``claims`` as a compact JWS."""
        head: dict[str, Any] = {"typ": "JWT", "alg": self.algorithm}
        if self.header == "x5c":
            der = self.certificate.public_bytes(serialization.Encoding.DER)
            head["x5c"] = [base64.b64encode(der).decode()]
        else:
            head["kid"] = self.key_id()
        message = f"{_b64(json.dumps(head).encode())}.{_b64(json.dumps(claims).encode())}".encode()
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{message.decode()}.{_b64(signature)}"


@dataclass
class Policy:
    """Who may do what, and what the answers look like; a test changes it while the server runs."""

    users: dict[str, str] = field(default_factory=dict)
    anonymous: tuple[str, ...] = ()  # patterns of repositories that anyone may pull
    lifetime: int = 300  # seconds from now to the token's own expiry; the registry allows 60 s more
    expires_in: int | None = 300  # what the answer says; None leaves it out
    fields: tuple[str, ...] = ("token", "access_token")  # under which names a GET answer has the token
    post: bool = True  # whether OAuth2 POST is offered (else 405)
    rights: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)  # user -> pattern -> actions


class TokenServer(RecordingServer):
    """The token server; ``realm`` is the URL that a registry's challenge names."""

    def __init__(
        self,
        folder: Path,
        *,
        tls: ssl.SSLContext | None = None,
        policy: Policy | None = None,
        algorithm: str = "ES256",
        header: str = "x5c",
        realm: str | None = None,
        service: str = "ocidist-test-registry",
    ) -> None:
        super().__init__(tls=tls)
        self.signer = Signer(folder, algorithm=algorithm, header=header)
        self.policy = policy or Policy()
        self.service = service
        self.realm = realm or f"{self.url}/token"
        self.refresh_tokens: dict[str, str] = {}

    def refresh_token(self, user: str) -> str:
        """An identity token for ``user``, good until the server stops."""
        token = secrets.make("refresh.")
        self.refresh_tokens[token] = user
        return token

    def issue(self, user: str, scopes: list[str]) -> str:
        """A signed token for ``user`` ("" is anyone) with what of ``scopes`` the policy grants."""
        now = int(time.time())
        access = [grant for scope in scopes if (grant := self._grant(user, scope))]
        return self.signer.sign(
            {
                "iss": ISSUER,
                "sub": user,
                "aud": self.service,
                "exp": now + self.policy.lifetime,
                "nbf": now - 600,
                "iat": now,
                "jti": secrets.make(""),
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

    # --- HTTP ---------------------------------------------------------------------------------------------

    def serve(self, handler: Handler) -> None:
        """GET or POST at the realm's path."""
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
        scheme, _, rest = value.partition(" ")
        try:
            user, _, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except ValueError:
            return ""
        return self._check(user, password) if scheme.lower() == "basic" else ""

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
