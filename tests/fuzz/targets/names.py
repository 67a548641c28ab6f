"""References and digests: grammars with an independent second reading, as regular expressions of the specifications."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from ocidist.errors import InvalidDigest, InvalidReference
from ocidist.spec.digest import Digest
from ocidist.spec.reference import Reference
from tests.fuzz.harness import Target, mutated, refused_or, seeds

__all__ = ["DIGESTS", "REFERENCES"]

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def legal_reference(text: str) -> bool:
    """Whether Docker's grammar (distribution/reference, normalised names) has ``text``, for the digests that we have."""
    if re.fullmatch(r"[a-f0-9]{64}", text):
        return False
    first, slash, rest = text.partition("/")
    domain = ""
    if slash and (set(".:") & set(first) or first == "localhost" or first.lower() != first):
        domain, text = first, rest
    name, at, digest = text.partition("@")
    path, colon, tag = name.partition(":")
    if domain in ("", "docker.io", "index.docker.io") and "/" not in path:
        path = "library/" + path
    return (
        (not domain or _DOMAIN.fullmatch(domain) is not None)
        and _PATH.fullmatch(path) is not None
        and len(path) <= 255
        and (not colon or _TAG.fullmatch(tag) is not None)
        and (not at or _DIGEST.fullmatch(digest) is not None)
    )


def check_reference(text: str) -> None:
    """Taken where the grammar has it, and then it means the same however it is written."""
    found = refused_or(Reference.parse, text, by=InvalidReference)
    assert (found is not None) == legal_reference(text)
    if found is not None:
        assert Reference.parse(str(found)) == Reference.parse(found.familiar) == found
        assert str(found).isascii()
        assert not {"", ".", ".."} & set(found.path.split("/"))


def check_digest(text: str) -> None:
    """Taken where it is an algorithm that we have, a colon and its hexadecimal digits, in lowercase."""
    found = refused_or(Digest, text, by=InvalidDigest)
    assert (found is not None) == (_DIGEST.fullmatch(text) is not None)
    assert found is None or found == text


_LETTERS = st.text(alphabet="aA0f./:@-_[]% \n\x00é", max_size=30)

REFERENCES = Target(
    "references",
    mutated(
        seeds("references"), "/", ":", "@", ".", "..", "_", "-", "[::1]", "localhost", "library/", "\n", "%2e"
    )
    | _LETTERS
    | st.text(max_size=40),
    check_reference,
)
DIGESTS = Target(
    "digests",
    mutated(seeds("digests"), ":", "+", "/", "..", "\n", "A", "sha512:", "\u0663")
    | st.from_regex(r"sha(256|512):[0-9a-fA-F/.]{60,66}\n?", fullmatch=True)
    | st.text(max_size=80),
    check_digest,
)
