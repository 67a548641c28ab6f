"""What of an exchange may be written down. Pure: strings and bytes in, strings and bytes out.

Everything is decided by allow-lists: a query parameter, a form field or a header that nobody has judged
harmless becomes ``scrubbed``. The rules give the same result when they are applied twice, and the same URL
always becomes the same text, so a recorded ``Location`` still names the recorded request that follows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Iterable, Sequence
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from ocidist.spec import document

__all__ = ["PLACEHOLDER", "form", "headers", "path", "request_body", "response_body", "secrets_of", "url"]

PLACEHOLDER = "scrubbed"

QUERY_KEPT = frozenset(
    # the token protocol (account is left out: a name is nobody's business either), distribution-spec
    [
        "service",
        "scope",
        "client_id",
        "offline_token",
        "n",
        "last",
        "digest",
        "mount",
        "from",
        "ns",
        "artifacttype",
    ]
)
FORM_KEPT = frozenset(["grant_type", "service", "scope", "client_id", "access_type"])
HEADERS_KEPT = frozenset(
    [
        "accept", "accept-encoding", "accept-ranges", "age", "allow", "cache-control", "connection", "date",
        "etag", "expires", "host", "if-range", "keep-alive", "last-modified", "range", "retry-after", "server",
        "strict-transport-security", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary",
        "via", "warning", "x-content-type-options",
        # by these a provider finds the exchange in its own logs
        "cf-ray", "x-amz-id-2", "x-amz-request-id", "x-cache", "x-github-request-id", "x-request-id", "x-served-by",
    ]
)  # fmt: skip
PREFIXES_KEPT = ("content-", "docker-", "oci-", "ratelimit-", "x-ratelimit-")
SECRET_KEYS = frozenset(
    [
        "token", "access_token", "refresh_token", "id_token", "identitytoken", "identity_token", "password",
        "secret", "client_secret", "assertion", "authorization",
    ]
)  # fmt: skip
BODY_LIMIT = 1 << 20
"""Bytes of a body that are looked into; no token answer is larger (threats H.70)."""

_REALM = re.compile(r'(\brealm\s*=\s*)(?:"([^"]*)"|([^\s,"]+))', re.IGNORECASE)
_KEY = re.compile(r"(?<=/)(?=[^/]*[A-Z])(?!sha512%3[aA])[A-Za-z0-9._~=%-]{129,}(?=/|\Z)")
_BRACKETED = re.compile(r"<([^<>]*)>")
_SECRET_KEY = re.compile(
    rb'"(?:%s)"\s*:' % b"|".join(key.encode() for key in sorted(SECRET_KEYS)), re.IGNORECASE
)


def _pairs(query: str, kept: frozenset[str]) -> str:
    pieces = []
    for piece in query.split("&") if query else ():
        name, equals, value = piece.partition("=")
        if not equals:  # a bare word may be the secret itself
            pieces.append(PLACEHOLDER if piece else piece)
        elif not value or unquote_plus(name).lower() in kept:
            pieces.append(piece)
        else:
            pieces.append(f"{name}={PLACEHOLDER}")
    return "&".join(pieces)


def path(text: str) -> str:
    """``text``, a path or a URL without its query, with no key in it that opens what it leads to.

    Google's registries redirect to ``/artifacts-downloads/…/downloads/KEY``. A segment with capitals that is
    longer than any tag may be (128 characters) is such a key; a name made of its hash takes its place.
    """
    return _KEY.sub(lambda match: _hidden(match[0]), text)


def _hidden(key: str) -> str:
    return f"{PLACEHOLDER}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def url(text: str) -> str:
    """``text``, absolute or relative, with no user, no fragment, no key and only harmless query values.

    Scheme and host are lowercased and a default port is dropped, so that equal URLs are equal texts.
    """
    try:
        scheme, netloc, place, query, _ = urlsplit(text)
    except ValueError:
        return PLACEHOLDER
    if netloc.endswith("@"):  # a user at no host: the path could be read as one
        return PLACEHOLDER
    netloc = netloc.rpartition("@")[2].lower()
    for name, port in (("https", ":443"), ("http", ":80")):
        if scheme == name and netloc.endswith(port):
            netloc = netloc[: -len(port)]
    return urlunsplit((scheme, netloc, path(place), _pairs(query, QUERY_KEPT), ""))


def form(data: str) -> str:
    """A ``application/x-www-form-urlencoded`` body with only harmless values."""
    return _pairs(data, FORM_KEPT)


def secrets_of(items: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The credentials that request headers carry, so that an answer that echoes them can be cleaned."""
    found: list[str] = []
    for name, value in items:
        if name.lower() not in ("authorization", "proxy-authorization", "cookie"):
            continue
        scheme, _, rest = value.partition(" ")
        found += [value, rest.strip()]
        if scheme.lower() == "basic":
            found.append(_password(rest))
    return tuple(text for text in found if len(text) >= 6 and text != PLACEHOLDER)


def _password(encoded: str) -> str:
    import base64
    import binascii

    try:
        decoded = base64.b64decode(encoded.strip()).decode()
    except (binascii.Error, ValueError):
        return ""
    return decoded.partition(":")[2]


def headers(items: Iterable[tuple[str, str]], secrets: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Header fields that may be written down: unknown ones keep their name only."""
    return tuple((name, _header(name.lower(), value, secrets)) for name, value in items)


def _header(name: str, value: str, secrets: Sequence[str]) -> str:
    if name in ("authorization", "proxy-authorization"):
        scheme = value.partition(" ")[0]
        return f"{scheme} {PLACEHOLDER}" if scheme.lower() in ("basic", "bearer") else PLACEHOLDER
    if name in ("location", "content-location", "referer"):
        value = url(value)
    elif name == "link":
        value = _BRACKETED.sub(lambda match: f"<{url(match[1])}>", value)
    elif name in ("www-authenticate", "proxy-authenticate"):
        value = _REALM.sub(lambda match: f'{match[1]}"{_realm(match[2] or match[3] or "")}"', value)
    elif name not in HEADERS_KEPT and not name.startswith(PREFIXES_KEPT):
        return PLACEHOLDER
    for secret in secrets:
        value = value.replace(secret, PLACEHOLDER)
    return value


def _realm(text: str) -> str:
    return url(text) if "://" in text else text  # a Basic realm is a sentence


def request_body(data: bytes, content_type: str, secrets: Sequence[str] = ()) -> bytes:
    """A request body that may be written down: form fields by allow-list, secrets in JSON replaced."""
    if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        return form(data.decode("latin-1")).encode("latin-1")
    return _clean(data, secrets)


def response_body(data: bytes, addresses: Iterable[str], secrets: Sequence[str] = ()) -> bytes:
    """An answer's body that may be written down.

    ``addresses`` are texts that may name the body's digest: the URL, ``Docker-Content-Digest``. A body that
    hashes to what it was asked for by is public content and stays as it is; otherwise the values of token
    keys in JSON are replaced (``issued_at`` beside them goes too: a recorded time would make every replayed
    token look expired), and so is every echo of the request's credentials.
    """
    if not data:
        return data
    digest = hashlib.sha256(data).hexdigest()
    if any(digest in text for text in addresses):
        return data
    return _clean(data, secrets)


def _clean(data: bytes, secrets: Sequence[str]) -> bytes:
    for secret in secrets:
        data = data.replace(secret.encode("utf-8", "replace"), PLACEHOLDER.encode())
    if not _SECRET_KEY.search(data):
        return data
    try:
        document.check_depth(data, "body")
        value = json.loads(data)
    except (ValueError, RecursionError):
        return b""  # cut short or no JSON, and it speaks of tokens: nothing of it is kept
    return json.dumps(_without_secrets(value), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )


def _without_secrets(value: object) -> object:
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    secret = {key for key in value if key.lower() in SECRET_KEYS}
    return {
        key: (PLACEHOLDER if isinstance(item, str) and item else item)
        if key in secret
        else _without_secrets(item)
        for key, item in value.items()
        if not (secret and key == "issued_at")
    }
