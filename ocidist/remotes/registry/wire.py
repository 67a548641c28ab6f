"""What the distribution API looks like on the wire: URLs, headers, JSON bodies, status codes. Pure.

Sources: OCI distribution specification (endpoints, error codes, pagination), RFC 9110 (ranges,
Retry-After), RFC 8288 (Link). Nothing here does I/O or knows a credential.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable, Sequence
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from ocidist.errors import (
    Denied,
    InvalidManifest,
    NotFound,
    RateLimited,
    RegistryError,
    Unauthorized,
)
from ocidist.frozen import dataclass
from ocidist.net import scrub
from ocidist.redaction import SECRETS
from ocidist.spec import document

__all__ = [
    "ERROR_LIMIT",
    "PAGE_LIMIT",
    "RETRY_AFTER_CAP",
    "ContentRange",
    "accept",
    "address",
    "blob_url",
    "catalog_url",
    "clean_url",
    "endpoint_host",
    "error_for",
    "is_loopback",
    "length_of",
    "manifest_url",
    "next_link",
    "origin_of",
    "parse_catalog",
    "parse_content_range",
    "parse_errors",
    "parse_tags",
    "part_refusal",
    "ping_url",
    "range_header",
    "redact",
    "refusal",
    "retry_after",
    "retryable_status",
    "same_origin",
    "tags_url",
]

ERROR_LIMIT = 1 << 20
"""Bytes of an error or token body that are read at most."""
PAGE_LIMIT = 4 << 20
"""Bytes of one page of tags or of the catalog that are read at most."""
PAGE_VALUES = 1_000_000
"""Names on one page at most: a registry that knows no pages gives all at once."""
RETRY_AFTER_CAP = 60.0
"""Seconds that a Retry-After is followed for at most."""

_HUB = "docker.io"
_HUB_ENDPOINT = "registry-1.docker.io"
_PORTS = {"http": 80, "https": 443}
_SHOWN = frozenset(
    {"n", "last", "scope", "service", "mount", "from", "digest", "client_id", "artifacttype", "ns"}
)
# Visible ASCII but the characters that a URL may not hold: what is outside is percent-encoded.
_NOT_URL = re.compile(r"[^\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]")


# -- addresses --------------------------------------------------------------------------------------


def _root(host: str) -> str:
    return f"https://{host}/v2/"


def ping_url(host: str) -> str:
    """``/v2/``, the end point that tells whether credentials are good (end-1)."""
    return _root(host)


def manifest_url(host: str, repository: str, reference: str) -> str:
    """A manifest by tag or digest (end-3)."""
    return f"{_root(host)}{quote(repository, safe='/')}/manifests/{quote(reference, safe=':')}"


def blob_url(host: str, repository: str, digest: str) -> str:
    """A blob (end-2)."""
    return f"{_root(host)}{quote(repository, safe='/')}/blobs/{quote(digest, safe=':')}"


def tags_url(host: str, repository: str, count: int, last: str = "") -> str:
    """A page of ``count`` tags after ``last`` (end-8)."""
    after = f"&last={quote(last, safe='')}" if last else ""
    return f"{_root(host)}{quote(repository, safe='/')}/tags/list?n={count}{after}"


def catalog_url(host: str, count: int) -> str:
    """A page of ``count`` repositories (of the older Docker registry API; not in the OCI specification)."""
    return f"{_root(host)}_catalog?n={count}"


def endpoint_host(host: str) -> str:
    """The ``host[:port]`` that answers for a registry name: Docker Hub's differs from its name."""
    return _HUB_ENDPOINT if host.lower() in (_HUB, "index.docker.io") else host


def address(scheme: str, host: str) -> str:
    """``SCHEME://HOST[:PORT]`` of what answers for a registry name."""
    return f"{scheme}://{endpoint_host(host)}"


def is_loopback(host: str) -> bool:
    """True for ``localhost``, 127.0.0.0/8 and ``[::1]``, with or without a port. By text, not by look-up."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] in ("[::1", "[0:0:0:0:0:0:0:1")
    name = name.rpartition(":")[0] if ":" in name else name
    if name == "localhost":
        return True
    parts = name.split(".")
    return (
        len(parts) == 4
        and parts[0] == "127"
        and all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts)
    )


def origin_of(url: str) -> tuple[str, str, int] | None:
    """``(scheme, host, port)``, lowercase, default ports filled in; None where the URL has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not host:
        return None
    return scheme, host.lower(), _PORTS[scheme] if port is None else port


def same_origin(one: str, other: str) -> bool:
    """True where two URLs share scheme, host and port: only then credentials may go along."""
    first = origin_of(one)
    return first is not None and first == origin_of(other)


def refusal(here: str, target: str) -> str:
    """Return why one URL may not lead to another: it is not an http(s) URL, or leaves https; empty where it may."""
    before, after = origin_of(here), origin_of(target)
    if after is None:
        return f"to {SECRETS.text(redact(target))[:80]}, which is not an http(s) URL, is refused"
    if before is not None and before[0] == "https" and after[0] != "https":
        return f"from https to http ({after[1]}) is refused"
    return ""


def clean_url(base: str, location: str) -> str:
    """``location`` as seen from ``base``: absolute, without user name and fragment, ASCII, no controls.

    Not restricted to any scheme; look at :func:`origin_of` before use.
    """
    try:
        parts = urlsplit(urljoin(base, location.strip()))
        url = urlunsplit((parts.scheme, _without_user(parts), parts.path, parts.query, ""))
    except ValueError:
        return ""
    return _NOT_URL.sub(lambda found: quote(found.group(), safe="", errors="replace"), url)


def _without_user(parts: SplitResult) -> str:
    """Where a URL leads, without user name and password. Raises ValueError for a user at no host: written again, a
    path that begins with // would become the host, with what it says of a user."""
    netloc = parts.netloc.rpartition("@")[2]
    if parts.netloc and not netloc:
        raise ValueError("a user at no host")
    return netloc


def redact(url: str) -> str:
    """``url`` for a person: no user name, password or key, and only harmless query values.

    Values are shown by an allow-list (n, last, scope, service, mount, from, digest, …); any other becomes
    ``***``, since signed URLs carry their secret there under a hundred names.
    """
    try:
        parts = urlsplit(url)
        netloc = _without_user(parts)
        shown = "&".join(_shown(piece) for piece in parts.query.split("&")[:40]) if parts.query else ""
        text = urlunsplit((parts.scheme, netloc, scrub.path(parts.path), shown, ""))
    except ValueError:
        return "(an invalid URL)"
    return _NOT_URL.sub(lambda found: quote(found.group(), safe="", errors="replace"), text)


def _shown(piece: str) -> str:
    name, equals, value = piece.partition("=")
    if not equals or len(name) > 64:  # a piece without a name is all value
        return "***"
    return f"{name}={value if unquote(name).lower() in _SHOWN else '***'}"


# -- headers ----------------------------------------------------------------------------------------


def accept(media_types: Iterable[str]) -> str:
    """One Accept value for several media types, in their order, without repeats."""
    return ", ".join(dict.fromkeys(media_types))


def length_of(value: str | None) -> int | None:
    """A Content-Length as a number; None where it is missing or no plain decimal number."""
    if value is None or not re.match(r"[0-9]{1,18}\Z", value.strip()):
        return None
    return int(value.strip())


def range_header(offset: int, length: int | None) -> str:
    """A Range from ``offset``, ``length`` bytes or to the end (RFC 9110, 14.1.2)."""
    return f"bytes={offset}-" if length is None else f"bytes={offset}-{offset + length - 1}"


@dataclass(frozen=True)
class ContentRange:
    """``bytes start-end/total``; ``end`` is inclusive, ``total`` None where the server did not say."""

    start: int
    end: int
    total: int | None


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z", re.ASCII | re.IGNORECASE)


def parse_content_range(values: Sequence[str]) -> ContentRange | None:
    """The Content-Range of a 206; None where it is missing, repeated, malformed or contradicts itself."""
    found = _CONTENT_RANGE.match(values[0].strip()) if len(values) == 1 else None
    if found is None:
        return None
    start, end = int(found.group(1)), int(found.group(2))
    total = None if found.group(3) == "*" else int(found.group(3))
    if end < start or (total is not None and end >= total):
        return None
    return ContentRange(start, end, total)


def part_refusal(
    status: int,
    part: ContentRange | None,
    length: int | None,
    offset: int,
    size: int | None,
    stop: int | None,
) -> str:
    """Return why an answer is not the part from ``offset`` on, up to ``stop`` or the end, of ``size`` bytes; empty where it is.

    ``length`` is that of its body. A None is unknown; a part may end before what was asked for does.
    """
    if status == 416:
        return "neither the range nor the whole is available"
    if status != 206:
        return "not an answer to a GET of content"
    if part is None or part.start != offset:
        return f"its Content-Range is not the range from byte {offset}"
    end = size if stop is None else stop
    if (None not in (part.total, size) and part.total != size) or (end is not None and part.end >= end):
        return "its Content-Range is of another size than the descriptor's"
    if length is not None and length != part.end - part.start + 1:
        return "Content-Length and Content-Range differ"
    return ""


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, 0 to 60, from a Retry-After in seconds or as a date; None for nothing usable.

    ``now`` is in seconds since the epoch (RFC 9110, 10.2.3).
    """
    text = (value or "").strip()
    if re.match(r"[0-9]+\Z", text):
        return RETRY_AFTER_CAP if len(text) > 9 else min(float(text), RETRY_AFTER_CAP)
    if not text or len(text) > 64 or not text[0].isalpha():
        return None
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None
    return min(max(when - now, 0.0), RETRY_AFTER_CAP)


def next_link(values: Sequence[str], url: str) -> str | None:
    """The absolute URL of ``rel="next"``, resolved against the ``url`` that answered; None if there is none."""
    for value in values:
        for target, relations in _links(value[:16384]):
            if "next" in relations:
                return clean_url(url, target)
    return None


def _links(text: str) -> Iterable[tuple[str, list[str]]]:
    position = 0
    while True:
        start = text.find("<", position)
        end = text.find(">", start)
        if start < 0 or end < 0:
            return
        position, quoted = end + 1, False
        while position < len(text) and (quoted or text[position] != ","):
            if quoted and text[position] == "\\":
                position += 1
            elif text[position] == '"':
                quoted = not quoted
            position += 1
        relation = re.search(r';[ \t]*rel[ \t]*=[ \t]*("[^"]*"|[^\s;,"]+)', text[end + 1 : position], re.I)
        yield text[start + 1 : end], relation.group(1).strip('"').lower().split() if relation else []


# -- bodies -----------------------------------------------------------------------------------------


def _names(raw: bytes, what: str, key: str) -> tuple[str, ...]:
    names = document.decode(raw, what, PAGE_LIMIT, PAGE_VALUES).get(key)
    if names is None:  # what some registries write for none
        return ()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidManifest(what, "expected a list of strings", key)
    return tuple(names)


def parse_tags(raw: bytes) -> tuple[str, ...]:
    """The tags of one page. Raises InvalidManifest."""
    return _names(raw, "tag list", "tags")


def parse_catalog(raw: bytes) -> tuple[str, ...]:
    """The repository names of one page. Raises InvalidManifest."""
    return _names(raw, "catalog", "repositories")


def parse_errors(raw: bytes) -> tuple[tuple[str, str], ...]:
    """``(code, message)`` pairs of an error body, at most 16; a body of another shape gives what it can.

    Source: distribution-spec, "Error Codes". Token servers write ``details``, ``error`` or ``message``.
    """
    if not raw or len(raw) > ERROR_LIMIT:
        return ()
    try:
        document.check_depth(raw, "error")
        data: Any = json.loads(raw)
    except (ValueError, RecursionError):
        said = SECRETS.text(raw.decode("utf-8", "replace"))  # before it is cut: half a secret is not found
        line = said[:400].strip().partition("\n")[0].strip()
        return ((line[:200], ""),) if line and not line.startswith(("<", "{", "[")) else ()
    if not isinstance(data, dict):
        return ()
    listed = data.get("errors")
    found = []
    for entry in listed[:16] if isinstance(listed, list) else []:
        if isinstance(entry, dict):
            code, message = _text(entry.get("code")), _text(entry.get("message"))
            if code or message:
                found.append((code, message) if code else (message, ""))
    if not found:
        code = _text(data.get("error")) or _text(data.get("code"))
        message = (
            _text(data.get("error_description")) or _text(data.get("details")) or _text(data.get("message"))
        )
        if code or message:
            found.append((code, message) if code else (message, ""))
    return tuple(found)


def _text(value: object) -> str:
    return SECRETS.text(value)[:500] if isinstance(value, str) else ""


def retryable_status(status: int) -> bool:
    """408, 429 and 5xx but 501: the same request may be answered differently later."""
    return status in (408, 429) or (500 <= status <= 599 and status != 501)


def error_for(
    method: str,
    url: str,
    status: int,
    diagnostics: Sequence[tuple[str, str]] = (),
    hint: str = "",
    wait: float | None = None,
) -> RegistryError:
    """The error that stands for ``status``; ``url`` is redacted here. ``wait`` is a Retry-After in seconds."""
    shown = redact(url)
    kind = {401: Unauthorized, 403: Denied, 404: NotFound, 429: RateLimited}.get(status, RegistryError)
    return kind(method, shown, status, diagnostics, hint, wait)


def host_of(url: str) -> str:
    """``host[:port]`` of a URL, for messages; without a user name."""
    try:
        return unquote(urlsplit(url).netloc.rpartition("@")[2])
    except ValueError:
        return "?"
