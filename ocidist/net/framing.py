"""Where a message ends, read strictly (RFC 9112, sections 6 and 7). Pure: no input, no output.

``http.client`` reads numbers with ``int()``, which takes ``1_0``, ``+5`` and `` 5``; it looks at the first of
several Content-Length fields alone. A peer that disagrees with us about where a body ends can put bytes of
its choice into the next answer, so what is ambiguous is refused, never guessed.

Every function raises :class:`Malformed` and nothing else.
"""

from __future__ import annotations

import re
from typing import Iterable

from ocidist.errors import FailureKind, quoted
from ocidist.net.message import Headers

__all__ = ["CHUNKED", "UNTIL_CLOSE", "Malformed", "body_length", "check_field", "check_method", "chunk_size"]

CHUNKED = -1
UNTIL_CLOSE = -2

_DIGITS = re.compile(r"[0-9]{1,18}\Z")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n\Z")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Malformed(ValueError):
    """A message that breaks HTTP's grammar; the text says how. ``kind`` is for a TransportError over a request."""

    kind: FailureKind = "request"


def body_length(method: str, status: int, headers: Headers) -> int:
    """Bytes of an answer's body, or CHUNKED, or UNTIL_CLOSE (RFC 9112, section 6.3).

    The answer to a HEAD, and 1xx, 204 and 304, have none, whatever their fields say; the fields must be
    well formed all the same.
    """
    length = _content_length(headers.get_all("Content-Length"))
    codings = _codings(headers.get_all("Transfer-Encoding"))
    if codings and length is not None:
        raise Malformed("both Content-Length and Transfer-Encoding")
    if method == "HEAD" or status in (204, 304) or 100 <= status < 200:
        return 0
    if codings:
        if codings != ["chunked"]:
            raise Malformed(f"Transfer-Encoding {quoted(', '.join(codings))} was not asked for")
        return CHUNKED
    return UNTIL_CLOSE if length is None else length


def _content_length(values: Iterable[str]) -> int | None:
    found: int | None = None
    for value in values:
        for part in value.split(","):
            text = part.strip(" \t")
            if not _DIGITS.match(text):
                raise Malformed(f"Content-Length {quoted(value)} is not a number of bytes")
            if found is not None and int(text) != found:
                raise Malformed("Content-Length is given twice, and differs")
            found = int(text)
    return found


def _codings(values: Iterable[str]) -> list[str]:
    return [part.strip(" \t").lower() for value in values for part in value.split(",")]


def chunk_size(line: bytes) -> int:
    """The size that a chunk's first line announces; extensions are ignored (RFC 9112, section 7.1)."""
    match = _CHUNK.match(line)
    if match is None:
        raise Malformed(f"chunk size {quoted(line.decode('latin-1'))}")
    return int(match.group(1), 16)


def check_field(name: str, value: str) -> None:
    """Refuse a field that can't be sent as one line: bad name, CR, LF, other controls, beyond Latin-1."""
    if not _TOKEN.match(name):
        raise Malformed(f"header name {quoted(name)}")
    # The value may be a secret, so it is not shown.
    if _FORBIDDEN.search(value) or any(ord(char) > 255 for char in value):
        raise Malformed(f"the value of header {name} has characters that can't be sent")


def check_method(method: str) -> None:
    """Refuse a method that is not a token."""
    if not _TOKEN.match(method):
        raise Malformed(f"method {quoted(method)}")
