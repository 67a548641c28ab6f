"""Digests: ``algorithm:hex``, sha256 and sha512.

Source: OCI image specification, descriptor.md, "Digests". A :class:`Digest` is a ``str``, so it prints,
sorts, hashes and goes to JSON or a DataFrame as the text that it is; it can't hold anything else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ocidist.errors import InvalidDigest

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ALGORITHMS", "DIGITS", "Digest", "UnsupportedDigest"]

ALGORITHMS = {"sha256": 64, "sha512": 128}
"""Algorithm -> hex digits (descriptor.md, "Registered Algorithms"; blake3 is refused by name)."""

# \Z, not $ (which accepts a trailing newline); ASCII classes, not \d.
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z")
DIGITS = frozenset("0123456789abcdef")
"""Of the encoded part."""


class Digest(str):
    """A valid digest. Raises :class:`~ocidist.errors.InvalidDigest` for anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        if type(text) is cls:
            return text
        if not isinstance(text, str):
            raise InvalidDigest(str(text), "a digest is a string")
        if len(text) > 300 or not _GRAMMAR.match(text):
            raise InvalidDigest(text, "expected ALGORITHM:HEX, as in sha256:e3b0c442…")
        algorithm, _, encoded = text.partition(":")
        length = ALGORITHMS.get(algorithm)
        if length is None:
            raise InvalidDigest(text, f"algorithm {algorithm!r} is not supported; sha256 and sha512 are")
        if len(encoded) != length:
            raise InvalidDigest(text, f"{algorithm} takes {length} hexadecimal digits, not {len(encoded)}")
        if not DIGITS.issuperset(encoded):
            raise InvalidDigest(text, "hexadecimal digits are 0-9 and lowercase a-f")
        return str.__new__(cls, text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """The digest of some bytes."""
        return cls(f"{algorithm}:{cls.hasher_for(algorithm, data).hexdigest()}")

    @classmethod
    def from_hash(cls, hasher: _Hash) -> Digest:
        """The digest that a ``hashlib`` object has come to."""
        return cls(f"{hasher.name}:{hasher.hexdigest()}")

    @staticmethod
    def hasher_for(algorithm: str, data: bytes | bytearray | memoryview = b"") -> _Hash:
        """A ``hashlib`` object; ``usedforsecurity`` is true, since digests are trusted."""
        if algorithm not in ALGORITHMS:
            raise InvalidDigest(f"{algorithm}:", "sha256 and sha512 are supported")
        import hashlib  # loads OpenSSL, which a listing does without

        return hashlib.new(algorithm, data)

    def hasher(self) -> _Hash:
        """A fresh ``hashlib`` object of this digest's algorithm."""
        return self.hasher_for(self.algorithm)

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The encoded part, lowercase hexadecimal."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first 12 hexadecimal digits, for tables."""
        return self.hex[:12]

    def __repr__(self) -> str:
        return f"Digest({str(self)!r})"

    def __str__(self) -> str:
        return str.__str__(self)


class UnsupportedDigest(Digest):
    """A digest of an algorithm that can't be checked, as an entry of an index may have one. It is shown; whatever takes
    a :class:`Digest` of it, as every path, URL and hash does, raises InvalidDigest."""

    __slots__ = ()

    def __new__(cls, text: str) -> UnsupportedDigest:
        if not isinstance(text, str) or len(text) > 300 or not _GRAMMAR.match(text):
            raise InvalidDigest(str(text), "expected ALGORITHM:HEX, as in sha256:e3b0c442…")
        if text.partition(":")[0] in ALGORITHMS:
            raise InvalidDigest(text, "its algorithm is supported, so its form is wrong")
        return str.__new__(cls, text)
