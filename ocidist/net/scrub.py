"""What of an exchange may be written down: :func:`exchange` of what passed, :func:`learn` of its secrets before.

Places that hold secrets are known by allow-lists: a query parameter, a form field or a header that nobody has judged
harmless becomes ``scrubbed``, and so do the values of keys such as "token" in JSON. What they held is searched for in
all else (:mod:`ocidist.redaction`), since a server may send it back anywhere. The rules give the same result when they
are applied twice, and the same URL always becomes the same text, so a recorded ``Location`` still names the recorded
request that follows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from itertools import islice
from typing import Any, Callable, Iterable, Iterator
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from ocidist.net.exchange import BLOCK, Exchange, Fields, Payload, first, readable
from ocidist.redaction import PLACEHOLDER, RECEIVED, SECRETS, Redactor
from ocidist.spec import document

__all__ = [
    "PLACEHOLDER",
    "exchange",
    "form",
    "headers",
    "is_form",
    "learn",
    "learn_form",
    "learn_request",
    "path",
    "request_body",
    "response_body",
    "url",
]

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
BODY_LIMIT = 32 << 20
"""Bytes of a body that is rewritten where it shows a secret; of a larger one nothing is kept."""
_OVERLAP = 64 << 10  # bytes; no secret is as long in any form
_MANY = 32  # values; no signed URL and no token answer has as many, and each costs a search

_REALM = re.compile(r'(\brealm\s*=\s*)(?:"([^"]*)"|([^\s,"]+))', re.IGNORECASE)
_KEY = re.compile(r"(?<=/)(?=[^/]*[A-Z])(?!sha512%3[aA])[A-Za-z0-9._~=%-]{129,}(?=/|\Z)")
_BRACKETED = re.compile(r"<([^<>]*)>")
_SECRET_KEY = re.compile(f'"(?:{"|".join(sorted(SECRET_KEYS))})"', re.IGNORECASE)
_ESCAPED = re.compile(r"\\u00([0-7][0-9a-f])", re.IGNORECASE)
_SIGNING = re.compile(r"sig|token|key|secret|cred|pass|auth|policy|hmac|jwt|session|assertion", re.IGNORECASE)
_MIXED = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])(?!.*/)(?!(?:sha256:|sha512:)?[0-9a-fA-F]+\Z)")


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


def learn_request(fields: Iterable[tuple[str, str]], address: str, redactor: Redactor = SECRETS) -> None:
    """Tell ``redactor`` the secrets of a request's header fields and URL: credentials, configured headers (any that
    nobody has judged harmless), signatures."""
    for name, value in fields:
        name = name.lower()
        if name in ("authorization", "proxy-authorization"):
            scheme, _, rest = value.partition(" ")
            redactor.learn([value, rest.strip()])
            if scheme.lower() == "basic":
                redactor.learn(_pair(rest))
        elif name == "cookie" or not (name in _ADDRESSED or _is_kept(name)):
            redactor.learn([value, *(value.partition("=")[2:] if name == "cookie" else ())])
    redactor.learn(islice(_signatures(address), _MANY), RECEIVED)


def learn_form(data: bytes, redactor: Redactor = SECRETS) -> None:
    """Tell ``redactor`` the password or refresh token of a form body."""
    for piece in data.decode("latin-1").split("&"):
        name, _, value = piece.partition("=")
        if name.lower() not in FORM_KEPT | {"username"}:
            redactor.learn([unquote_plus(value)])


def learn(raw: Exchange, redactor: Redactor) -> None:
    """Tell ``redactor`` every secret that ``raw``, an exchange as it passed, is known to hold."""
    learn_request(raw.request_headers, raw.url, redactor)
    sent, received = _small(raw.request_body), _small(raw.body)
    if is_form(raw.asked("content-type")):
        learn_form(sent, redactor)
    for name, value in raw.headers:
        if name.lower() == "location":
            redactor.learn(islice(_signatures(value), _MANY), RECEIVED)
        elif name.lower() == "set-cookie":
            redactor.learn([value.partition(";")[0].partition("=")[2]], RECEIVED)
    if not _is_content(raw, raw.body, by_url=True):
        redactor.learn(islice(_values(received), _MANY), RECEIVED)


def _signatures(address: str) -> Iterator[str]:
    """What of a URL opens what it leads to: values that are not shown and look like a key, and keys in its path."""
    try:
        _, netloc, place, query, _ = urlsplit(address)
    except ValueError:
        return
    yield netloc.rpartition("@")[0].partition(":")[2]
    for piece in query.split("&"):
        name, _, value = piece.rpartition("=")
        name, value = unquote_plus(name).lower(), unquote_plus(value)
        if name not in QUERY_KEPT | {"account"} and (_SIGNING.search(name) or _MIXED.match(value)):
            yield value
    yield from _KEY.findall(place)


def _pair(encoded: str) -> tuple[str, ...]:
    import base64
    import binascii

    try:
        decoded = base64.b64decode(encoded.strip()).decode()
    except (binascii.Error, ValueError):
        return ()
    return decoded, decoded.partition(":")[2]


def headers(items: Iterable[tuple[str, str]]) -> Fields:
    """Header fields that may be written down: unknown ones keep their name only."""
    return tuple((name, _header(name.lower(), value)) for name, value in items)


_ADDRESSED = frozenset(
    ["location", "content-location", "referer", "link", "www-authenticate", "proxy-authenticate"]
)


def _is_kept(name: str) -> bool:
    return name in HEADERS_KEPT or name.startswith(PREFIXES_KEPT)


def _header(name: str, value: str) -> str:
    if name in ("authorization", "proxy-authorization"):
        scheme = value.partition(" ")[0]
        return f"{scheme} {PLACEHOLDER}" if scheme.lower() in ("basic", "bearer") else PLACEHOLDER
    if name in ("location", "content-location", "referer"):
        return url(value)
    if name == "link":
        return _BRACKETED.sub(lambda match: f"<{url(match[1])}>", value)
    if name in _ADDRESSED:
        return _REALM.sub(lambda match: f'{match[1]}"{_realm(match[2] or match[3] or "")}"', value)
    return value if _is_kept(name) else PLACEHOLDER


def _realm(text: str) -> str:
    return url(text) if "://" in text else text  # a Basic realm is a sentence


def is_form(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"


def request_body(data: bytes, content_type: str | None) -> bytes:
    """A request body that may be written down: form fields by allow-list, secrets in JSON replaced."""
    return form(data.decode("latin-1")).encode("latin-1") if is_form(content_type) else response_body(data)


def response_body(data: bytes) -> bytes:
    """A body with the values of token keys in JSON replaced, however the keys are written and the text is encoded.

    ``issued_at`` beside them goes too: a recorded time would make every replayed token look expired. One that is cut
    short or no JSON, and speaks of tokens, is dropped.
    """
    if not _speaks_of_tokens(data):
        return data
    value = _parsed(data)
    if value is None:
        return b""
    return json.dumps(_without_secrets(value), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )


def _speaks_of_tokens(data: bytes) -> bool:
    text = data.decode("latin-1").replace("\0", "")
    if "\\u00" in text:
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    return _SECRET_KEY.search(text) is not None


def _parsed(data: bytes) -> Any:
    """JSON as the client reads a token (any encoding and byte order mark); of a key's values all, as a :class:`_Object`."""
    try:
        document.check_depth(data, "body")
        return json.loads(data, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return None


class _Object(tuple):  # type: ignore[type-arg]
    """Members of an object, in order, repeated ones too."""


def _values(data: bytes) -> Iterator[str]:
    """Every text at a token key."""
    todo: list[tuple[Any, bool]] = [(_parsed(data), False)] if _speaks_of_tokens(data) else []
    while todo:
        value, secret = todo.pop()
        if isinstance(value, _Object):
            todo += [(item, secret or key.lower() in SECRET_KEYS) for key, item in value]
        elif isinstance(value, list):
            todo += [(item, secret) for item in value]
        elif secret and isinstance(value, str):
            yield value


def _without_secrets(value: object, secret: bool = False) -> object:
    if isinstance(value, list):
        return [_without_secrets(item, secret) for item in value]
    if isinstance(value, _Object):
        known = {key for key, _ in value if key.lower() in SECRET_KEYS}
        return {
            key: _without_secrets(item, secret or key in known)
            for key, item in value
            if not (known and key == "issued_at")
        }
    return PLACEHOLDER if secret and value and value is not True else value


# -- a whole exchange -------------------------------------------------------------------------------


class _Cleaner:
    """Bodies that may be written down; None for one that is withheld: it shows a secret, and is content or no text."""

    def __init__(self, redactor: Redactor, besides: str, files: bool) -> None:
        self._redactor, self._besides, self._files = redactor, besides, files

    def __call__(self, body: Payload, rules: Callable[[bytes], bytes] | None) -> Payload | None:
        """``rules`` is what is done beside searching; None for content."""
        data = body.data
        if data is None:
            if not (self._files and body.kept):
                return body
            if rules is None or body.size > BODY_LIMIT:
                return None if self._shown(body) else body
            with body.open() as file:
                data = file.read()
        ruled = data if rules is None else rules(data)
        if body.data is None and not self._redactor.shown_in(ruled):
            cleaned = ruled
        else:
            cleaned = self._redactor.data(ruled, self._besides)
        if cleaned == data:
            return body
        if rules is None or (cleaned != ruled and readable(ruled) is None):
            return None
        return Payload(cleaned)

    def _shown(self, body: Payload) -> bool:
        before = b""
        with body.open() as file:
            while block := file.read(BLOCK):
                if self._redactor.shown_in(before + block):
                    return True
                before = block[-_OVERLAP:]
        return False


def _small(body: Payload) -> bytes:
    """A body that may be a token answer, a form or an error; b"" for a larger one."""
    if body.data is not None or not body.kept or body.size > BODY_LIMIT:
        return body.data or b""
    with body.open() as file:
        return file.read()


def _is_content(raw: Exchange, body: Payload, *, by_url: bool = False) -> bool:
    """Whether a body is named by its digest (or is a part of such a one), and is worth nothing if a byte is changed."""
    named = raw.url if by_url else f"{raw.url} {first(raw.headers, 'docker-content-digest')}"
    return raw.status == 206 or (body.digest is not None and body.digest.hex in named)


def exchange(raw: Exchange, redactor: Redactor, besides: str = "", *, files: bool = True) -> Exchange:
    """What of ``raw``, an exchange as it passed, may be written down. ``redactor`` has learned from all of them.

    A body named by its digest is content: it stays as it is, or, where it shows a secret, is withheld as a whole.
    Bodies in files are looked into if ``files``. Secrets that ``besides`` shows are words like others.
    """

    def text(value: str) -> str:
        return redactor.text(value, besides)

    def fields(items: Fields) -> Fields:
        return tuple((text(name), text(value)) for name, value in headers(items))

    content, stored = _is_content(raw, raw.body), _is_content(raw, raw.request_body)
    kind = raw.asked("content-type")
    clean = _Cleaner(redactor, besides, files)
    body = clean(raw.body, None if content else response_body)
    sent = clean(raw.request_body, None if stored else lambda data: request_body(data, kind))
    answered = fields(raw.headers)
    if body is not None and body.size != raw.body.size:  # the head announces another length
        answered = tuple((k, str(body.size) if k.lower() == "content-length" else v) for k, v in answered)
    return replace(
        raw,
        url=text(url(raw.url)),
        meant=text(url(raw.meant)),
        request_headers=fields(raw.request_headers),
        request_body=sent if sent is not None else Payload(size=raw.request_body.size),
        reason=text(raw.reason),
        headers=answered,
        body=body if body is not None else Payload(size=raw.body.size),
        error=text(raw.error),
        withheld=body is None or sent is None,
    )
