"""Faults on demand: what can go wrong in one answer of a registry, as data, and a language to ask for it.

A SPEC is a list of faults, separated by spaces: ``KIND[@N][;on=PHASE,…][;times=N|always][;retry-after=…]``::

    drop@1024;on=layer;times=2 429;on=token;retry-after=1 slow@50000;times=always

:func:`misbehave` turns the right answer into the wrong one. It is pure: it says what is to go over the wire, and a
server obeys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Iterator, NamedTuple

from ocidist.errors import UsageError, quoted

__all__ = ["KINDS", "PHASES", "Fault", "Kind", "Reply", "misbehave", "parse_faults"]

PHASES = {
    "token": "a token server is asked for a token",
    "head": "a tag is looked up by HEAD, as where a GET counts as a pull",
    "resolve": "a tag is looked up",
    "manifest": "a manifest is read by its digest",
    "config": "an image's config is read",
    "layer": "a layer is read from its start",
    "resume": "the rest of a layer is read, by a range",
    "redirect": "a blob is read from where the registry sent the client",
    "tags": "tags are listed",
}
"""What a request is part of, in a pull's order."""

_BLOBS = frozenset({"config", "layer", "resume", "redirect"})
_MANIFESTS = frozenset({"head", "resolve", "manifest"})
_REGISTRY = frozenset(PHASES) - {"token", "redirect"}
_BODIES = frozenset(PHASES) - {"head"}  # whose answers have one
_RANGED = frozenset({"resume", "redirect"})


class Kind(NamedTuple):
    """A kind of fault: what it does, in which phases it can, and what ``@N`` is when it is left out."""

    does: str
    phases: frozenset[str]
    default: int = 0


_ALL = frozenset(PHASES)
_STATUSES = {
    "400": "the request is called malformed",
    "401": "credentials are asked for, whatever was sent",
    "403": "it is forbidden",
    "404": "there is no such thing",
    "405": "that method is not offered",
    "408": "the server is tired of waiting",
    "429": "too many requests",
    "500": "the server is broken",
    "502": "a gateway got no proper answer",
    "503": "the server is busy",
    "504": "a gateway got no answer",
}
KINDS: dict[str, Kind] = {
    "drop": Kind("the connection is reset after N bytes of the body", _BODIES, 1),
    "truncate": Kind("the connection is closed after N bytes of the body", _BODIES, 1),
    "unframed": Kind("no length is announced, and the end comes after N bytes", _BODIES, 1),
    "short": Kind("the answer announces N bytes, and is complete with them", _BODIES, 1),
    "long": Kind("N bytes too many are announced and sent", _BODIES, 7),
    "flip": Kind("the byte at N is another", _BODIES, 0),
    "close": Kind("the connection is closed instead of an answer", _ALL),
    "silent": Kind("there is no answer, and no end", _ALL),
    "stall": Kind("after N bytes of the body nothing more comes", _BODIES, 1),
    "slow": Kind("N bytes a second", _BODIES, 1 << 16),
    "endless-interim": Kind(
        "interim answers (1xx) come for ever, N bytes a second, 0 is at full speed", _ALL
    ),
    "endless-headers": Kind("header lines come for ever, N bytes a second, 0 is at full speed", _ALL),
    "endless-body": Kind("the body goes on for ever, N bytes a second, 0 is at full speed", _BODIES),
    "endless-trailers": Kind(
        "trailer lines follow the body for ever, N bytes a second, 0 is at full speed", _BODIES
    ),
    "hang-up": Kind("the connection is closed after the answer, without a word", _BODIES),
    "extra": Kind("another answer, to nothing that was asked, comes behind the answer", _BODIES),
    "framing": Kind("two lengths are announced that differ by N", _ALL, 1),
    "chunk-size": Kind("the body is chunked, with sizes of which one is no number", _BODIES),
    "garbage": Kind("something answers that does not speak HTTP", _ALL),
    "html": Kind("a page for people comes instead, with status 200", _ALL),
    "loop": Kind("a redirect leads to itself", _REGISTRY),
    "downgrade": Kind("a redirect leads to another scheme", _REGISTRY),
    "encoded": Kind(
        "the body claims a content encoding that nobody asked for", _MANIFESTS - {"head"} | _BLOBS
    ),
    "wrong-digest": Kind("Docker-Content-Digest names another digest", _MANIFESTS),
    "no-digest": Kind("Docker-Content-Digest is missing", _MANIFESTS),
    "wrong-type": Kind("Content-Type contradicts the manifest", _MANIFESTS),
    "ignore-range": Kind("the whole comes where a part was asked for", _RANGED),
    "wrong-range": Kind("Content-Range says another part than was asked for", _RANGED),
    "no-range": Kind("status 206 has no Content-Range", _RANGED),
    "416": Kind("the range is called impossible", _RANGED),
    "expired": Kind("the signed URL that the registry redirected to has expired", frozenset({"redirect"})),
    "token-expires": Kind("tokens given so far are no longer taken", _REGISTRY),
    **{status: Kind(does, _ALL) for status, does in _STATUSES.items()},
}
"""Every fault that can be asked for."""


@dataclass(frozen=True)
class Fault:
    """One fault: ``kind`` of :data:`KINDS`, at byte (or with the number) ``at``, in the phases ``on``.

    It happens ``times`` times, None for always. ``retry_after`` is that header as it is sent.
    """

    kind: str
    at: int = 0
    on: frozenset[str] = frozenset()
    times: int | None = 1
    retry_after: str = ""

    def __str__(self) -> str:
        """As it is asked for."""
        at = f"@{self.at}" if self.at != KINDS[self.kind].default else ""
        on = (
            "" if self.on == KINDS[self.kind].phases else ";on=" + ",".join(p for p in PHASES if p in self.on)
        )
        times = "" if self.times == 1 else f";times={'always' if self.times is None else self.times}"
        return f"{self.kind}{at}{on}{times}" + (
            f";retry-after={self.retry_after}" if self.retry_after else ""
        )


@dataclass(frozen=True)
class Reply:
    """An answer, and how it goes over the wire. ``content`` is the body by its own rules, all of it.

    ``start`` and ``end`` bound the part of the content that is sent. Then the accidents: bytes after which the
    connection ends (``ends_at``; ``resets`` says how), or nothing more comes (``stalls_at``); what is sent again
    and again after all else (``for_ever``); bytes a second.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes = b""
    start: int = 0
    end: int = 0
    ends_at: int | None = None
    resets: bool = False
    stalls_at: int | None = None
    for_ever: bytes = b""
    rate: int | None = None
    raw: bytes | None = None
    """What is sent in place of any HTTP; b"" is nothing."""

    @property
    def body(self) -> bytes:
        """The bytes that are meant to be sent."""
        return self.content[self.start : self.end]

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_header(self, name: str, value: str | None) -> Reply:
        """The same with one header set; None drops it."""
        kept = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        return replace(self, headers=(*kept, (name, value)) if value is not None else tuple(kept))

    def with_body(self, status: int, media_type: str, body: bytes) -> Reply:
        """Another answer altogether, of the given body."""
        return Reply(
            status,
            (("Content-Type", media_type), ("Content-Length", str(len(body)))),
            body,
            0,
            len(body),
        )


def misbehave(fault: Fault, right: Reply, url: str) -> Reply:
    """The answer that ``fault`` makes of the ``right`` one to a request of ``url``."""
    kind, at = fault.kind, fault.at
    if kind in _STATUSES:
        return _refused(right, fault)
    if kind in ("drop", "truncate"):
        return replace(right, ends_at=min(at, len(right.body)), resets=kind == "drop")
    if kind == "unframed":
        return replace(right.with_header("Content-Length", None), ends_at=min(at, len(right.body)))
    if kind == "short":
        size = min(at, len(right.body))
        return replace(right.with_header("Content-Length", str(size)), end=right.start + size)
    if kind == "long":
        more = right.body + b"\0" * at
        sent = right.with_header("Content-Length", str(len(more)))
        return replace(sent, content=more, start=0, end=len(more))
    if kind == "flip":
        return replace(right, content=_flipped(right.content, right.start + at))
    if kind == "stall":
        return replace(right, stalls_at=min(at, len(right.body)))
    if kind == "slow":
        return replace(right, rate=max(at, 1))
    return _other(fault, right, url)


def _other(fault: Fault, right: Reply, url: str) -> Reply:
    kind = fault.kind
    if kind == "close":
        return replace(right, raw=b"")
    if kind == "silent":
        return replace(right, raw=b"", stalls_at=0)
    if kind == "garbage":
        return replace(right, raw=b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
    if kind == "html":
        return right.with_body(
            200, "text/html", b"<!doctype html><title>Welcome to our guest network</title>\n"
        )
    if kind.startswith("endless-"):
        return replace(_endless(kind.partition("-")[2], right), rate=fault.at or None)
    if kind == "hang-up":
        return replace(right, ends_at=len(right.body))
    if kind == "extra":
        sent = right.body + _UNASKED
        return replace(right, content=sent, start=0, end=len(sent))
    if kind == "framing":
        length = str(len(right.body) + fault.at)
        return replace(right, headers=(*right.headers, ("Content-Length", length)))
    if kind == "chunk-size":
        return _chunked(right, _chunk(right.body).replace(b"\r\n", b"_0\r\n", 1) + b"0\r\n\r\n")
    if kind in ("loop", "downgrade"):
        there = url if kind == "loop" else "ftp://" + url.partition("://")[2]
        return right.with_body(307, "text/plain", b"").with_header("Location", there)
    if kind == "encoded":
        return right.with_header("Content-Encoding", "gzip")
    if kind == "wrong-digest":
        return right.with_header("Docker-Content-Digest", "sha256:" + "0" * 64)
    if kind == "no-digest":
        return right.with_header("Docker-Content-Digest", None)
    if kind == "wrong-type":
        other = "index" if "manifest.v1" in (right.header("Content-Type") or "") else "manifest"
        return right.with_header("Content-Type", f"application/vnd.oci.image.{other}.v1+json")
    if kind == "expired":
        return right.with_body(
            403,
            "application/xml",
            b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
        )
    if kind == "token-expires":
        return _refused(right, replace(fault, kind="401"))
    return _ranged(kind, right)


_UNASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
_FILLER = b"X-Filler: and on it goes\r\n"


def _endless(what: str, right: Reply) -> Reply:
    if what == "interim":
        return replace(right, raw=b"", for_ever=b"HTTP/1.1 102 Processing\r\n\r\n")
    if what == "headers":
        return replace(right, raw=b"HTTP/1.1 200 OK\r\n", for_ever=_FILLER)
    if what == "body":
        return replace(_chunked(right, _chunk(right.body)), for_ever=_chunk(b"\0" * 4096))
    return replace(_chunked(right, _chunk(right.body) + b"0\r\n"), for_ever=_FILLER)


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body) if body else b""


def _chunked(right: Reply, coded: bytes) -> Reply:
    told = right.with_header("Content-Length", None).with_header("Transfer-Encoding", "chunked")
    return replace(told, content=coded, start=0, end=len(coded))


def _ranged(kind: str, right: Reply) -> Reply:
    total = len(right.content)
    if kind == "416":
        return right.with_body(416, "text/plain", b"").with_header("Content-Range", f"bytes */{total}")
    if right.status != 206:  # nobody asked for a part
        return right
    if kind == "no-range":
        return right.with_header("Content-Range", None)
    if kind == "wrong-range":
        return right.with_header("Content-Range", f"bytes {right.start + 1}-{right.end - 1}/{total}")
    whole = right.with_header("Content-Range", None).with_header("Content-Length", str(total))
    return replace(whole, status=200, start=0, end=total)


def _refused(right: Reply, fault: Fault) -> Reply:
    code = {"401": "UNAUTHORIZED", "403": "DENIED", "404": "NAME_UNKNOWN", "429": "TOOMANYREQUESTS"}.get(
        fault.kind, "UNKNOWN"
    )
    said = f'{{"errors":[{{"code":"{code}","message":"{_STATUSES[fault.kind]}"}}]}}'.encode()
    told = right.with_body(int(fault.kind), "application/json", said)
    challenge = right.header("WWW-Authenticate")
    if fault.kind == "401" and challenge is not None:
        told = told.with_header("WWW-Authenticate", challenge)
    return told.with_header("Retry-After", fault.retry_after) if fault.retry_after else told


def _flipped(content: bytes, at: int) -> bytes:
    if not content:
        return content
    at = min(at, len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


# -- the language --


def parse_faults(spec: str) -> tuple[Fault, ...]:
    """The faults that ``spec`` asks for. Raises UsageError, which names what is wrong and what there is."""
    return tuple(_fault(word) for word in spec.split())


def _fault(word: str) -> Fault:
    head, *options = word.split(";")
    match = re.match(r"([a-z0-9-]+)(?:@([0-9]{1,12}))?\Z", head)
    if match is None or match[1] not in KINDS:
        raise UsageError(f"no fault {quoted(head)}; there are {', '.join(KINDS)}")
    kind = KINDS[match[1]]
    given = dict(_options(word, options))
    on = frozenset(given["on"].split(",")) if "on" in given else kind.phases
    if not on <= kind.phases:
        wrong = sorted(on - kind.phases)[0]
        able = ", ".join(phase for phase in PHASES if phase in kind.phases)
        raise UsageError(f"fault {quoted(word)}: {match[1]} can't happen on {quoted(wrong)}, but on {able}")
    return Fault(
        match[1],
        int(match[2]) if match[2] else kind.default,
        on,
        _times(word, given.get("times", "1")),
        given.get("retry-after", ""),
    )


def _options(word: str, options: list[str]) -> Iterator[tuple[str, str]]:
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in ("on", "times", "retry-after"):
            raise UsageError(
                f"fault {quoted(word)}: no option {quoted(option)}; there are on=, times=, retry-after="
            )
        if not re.match(r"[ -~]+\Z", value):
            raise UsageError(f"fault {quoted(word)}: {name}= has no value that can be sent")
        yield name, value.replace("_", " ") if name == "retry-after" else value


def _times(word: str, text: str) -> int | None:
    if text == "always":
        return None
    if not re.match(r"[1-9][0-9]{0,8}\Z", text):
        raise UsageError(
            f"fault {quoted(word)}: times={quoted(text)} is neither a number from 1 on nor always"
        )
    return int(text)
