"""References: ``[DOMAIN/]PATH[:TAG][@DIGEST]``, read as Docker and containerd read them.

Source: the grammar and the normalisation of github.com/distribution/reference, 0.6: a name whose first part is
not a domain (no dot, no port, not ``localhost``) is on docker.io, and one word there is in ``library/``.
"""

from __future__ import annotations

import re

from ocidist.errors import InvalidDigest, InvalidReference
from ocidist.frozen import dataclass
from ocidist.spec.digest import Digest

__all__ = ["DEFAULT_DOMAIN", "DEFAULT_TAG", "MAX_PATH", "Reference"]

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH = 255
"""Characters of the path (the repository's name without its domain)."""

_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_IDENTIFIER = re.compile(r"[0-9a-f]{64}\Z")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|__|_|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_FORM = "expected [HOST[:PORT]/]NAME[:TAG][@DIGEST]"


@dataclass(frozen=True)
class Reference:
    """One repository, and maybe a tag or a digest in it. Always normalised; ``str()`` is its full text,
    with no tag that was not given (``image_name`` adds it)."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        name = f"{self.domain}/{self.path}"
        _check_domain(name, 0, self.domain)
        _check_path(name, len(self.domain) + 1, self.path)
        if self.domain == DEFAULT_DOMAIN and "/" not in self.path:
            object.__setattr__(self, "path", _OFFICIAL + self.path)
        if self.tag is not None:
            _check_tag(self.tag, 0, self.tag)
        if self.digest is not None:
            object.__setattr__(self, "digest", Digest(self.digest))

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference that ``text`` is. Raises InvalidReference, which points at the character."""
        if not text:
            raise InvalidReference(text, f"it is empty; {_FORM}")
        if _IDENTIFIER.match(text):
            raise InvalidReference(
                text, "64 hexadecimal digits are an image's ID, not a name; a digest is NAME@sha256:…"
            )
        scheme = text.find("://")
        if scheme >= 0:
            raise InvalidReference(text, f"a reference has no scheme; {_FORM}", scheme)
        rest, at, digest_text = text.partition("@")
        domain, start = _split_domain(rest)
        path, colon, tag = rest[start:].partition(":")
        if domain is None:
            domain = DEFAULT_DOMAIN
        else:
            _check_domain(text, 0, domain)
            domain = DEFAULT_DOMAIN if domain == _LEGACY_DOMAIN else domain
        _check_path(text, start, path)
        if colon:
            _check_tag(text, start + len(path) + 1, tag)
        return cls(
            domain,
            _normal_path(text, domain, path),
            tag if colon else None,
            _digest(text, len(rest) + 1, digest_text) if at else None,
        )

    @classmethod
    def of(cls, remote: str, object_: str | None = None) -> Reference:
        """The two-word spelling: ``REMOTE OBJECT``, OBJECT being a tag or a digest that replaces REMOTE's."""
        reference = cls.parse(remote)
        return reference.with_object(object_) if object_ else reference

    def with_object(self, text: str) -> Reference:
        """This repository with ``text`` (a tag or a digest) in place of what was asked for."""
        if isinstance(text, Digest) or ":" in text:
            return Reference(self.domain, self.path, None, _digest(text, 0, text))
        _check_tag(text, 0, text)
        return Reference(self.domain, self.path, text, None)

    @property
    def name(self) -> str:
        """``docker.io/library/redis``: the repository, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def object(self) -> str:
        """What is asked of the repository: the digest, else the tag, else ``latest``."""
        return str(self.digest) if self.digest is not None else self.tag or DEFAULT_TAG

    @property
    def image_name(self) -> str:
        """``str()`` with ``:latest`` where there is neither tag nor digest: what an image is named in a store."""
        return str(self) if self.tag or self.digest else f"{self.name}:{DEFAULT_TAG}"

    @property
    def familiar(self) -> str:
        """The shortest text that means the same to Docker: ``redis:7``."""
        return self._with_suffix(_familiar(self.domain, self.path))

    def __str__(self) -> str:
        return self._with_suffix(self.name)

    def _with_suffix(self, name: str) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        return name + tag + ("" if self.digest is None else f"@{self.digest}")


def _split_domain(text: str) -> tuple[str | None, int]:
    """The domain, if the first part is one, and where the path begins."""
    first, slash, _ = text.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        return first, len(first) + 1
    return None, 0


def _normal_path(text: str, domain: str, path: str) -> str:
    normal = _OFFICIAL + path if domain == DEFAULT_DOMAIN and "/" not in path else path
    if len(normal) > MAX_PATH:
        raise InvalidReference(
            text, f"a repository's name has at most {MAX_PATH} characters, this {len(normal)}"
        )
    return normal


def _familiar(domain: str, path: str) -> str:
    if domain != DEFAULT_DOMAIN:
        return f"{domain}/{path}"
    short = path[len(_OFFICIAL) :] if path.startswith(_OFFICIAL) and path.count("/") == 1 else path
    # ``docker.io/library/a.b`` is short as ``a.b``, but ``docker.io/a.b/c`` keeps its domain: ``a.b`` reads as one.
    return f"{domain}/{path}" if _split_domain(short)[0] is not None else short


def _check_domain(text: str, start: int, domain: str) -> None:
    match = _DOMAIN.match(domain)
    end = match.end() if match else 0
    if end != len(domain) or not domain:
        raise InvalidReference(text, "this can't stand in a host name; expected HOST[:PORT]", start + end)


def _check_path(text: str, start: int, path: str) -> None:
    if len(path) > MAX_PATH:
        raise InvalidReference(
            text, f"a repository's name has at most {MAX_PATH} characters, this {len(path)}"
        )
    position = start
    for component in path.split("/"):
        match = _COMPONENT.match(component)
        end = match.end() if match else 0
        if not component:
            raise InvalidReference(text, "a part of the repository's name is empty", position)
        if end != len(component):
            raise InvalidReference(text, _reason(component, end), position + end)
        position += len(component) + 1


def _reason(component: str, position: int) -> str:
    found = component[position]
    if found.isupper():
        return f"a repository's name is lowercase, not {found!r}"
    if found in "._-":
        return f"{found!r} stands only between letters or digits (one '.', one or two '_', any '-')"
    if found.isspace():
        return "a reference has no spaces"
    return f"{found!a} can't stand in a repository's name"


def _check_tag(text: str, start: int, tag: str) -> None:
    match = _TAG.match(tag)
    end = match.end() if match else 0
    if not tag:
        raise InvalidReference(text, "the tag is empty", start)
    if end != len(tag):
        why = "a tag has at most 128 characters" if end == 128 else f"{tag[end]!a} can't stand there in a tag"
        raise InvalidReference(text, why, start + end)


def _digest(text: str, start: int, digest: str) -> Digest:
    try:
        return Digest(digest)
    except InvalidDigest as error:
        raise InvalidReference(text, f"its digest: {error.reason}", start) from None
