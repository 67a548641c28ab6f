"""Prefixes of digests: what a listing shows of one is enough to name it."""

from __future__ import annotations

from typing import Iterable

from ocidist.errors import InvalidDigest
from ocidist.spec.digest import ALGORITHMS, DIGITS, Digest

__all__ = ["complete", "is_prefix"]

SHORTEST = 4  # hexadecimal digits
_SHOWN = 5  # candidates in an error


def is_prefix(text: str) -> bool:
    """Return whether a text may be the beginning of a digest, with its algorithm or without; a whole one is not."""
    return SHORTEST <= _digits(text) < _longest(text)


def complete(text: str, digests: Iterable[str], what: str) -> Digest:
    """Return the digest that ``text`` is, or the one of ``digests`` that begins with it, with or without
    ``sha256:``. ``what`` says in errors what they are of. Raises InvalidDigest, which lists the candidates."""
    if 0 < _digits(text) < SHORTEST:
        raise InvalidDigest(text, f"write at least {SHORTEST} hexadecimal digits of it")
    if not is_prefix(text):
        return Digest(text)
    found = sorted(
        {each for each in digests if (each if ":" in text else each.partition(":")[2]).startswith(text)}
    )
    if not found:
        raise InvalidDigest(text, f"no {what} of this store begins with it")
    if len(found) > 1:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InvalidDigest(text, f"{', '.join(found[:_SHOWN])}{more} begin with it; write more of it")
    return Digest(found[0])


def _digits(text: str) -> int:
    """Return how many hexadecimal digits a text is, after an algorithm or without one; 0 if it is anything else."""
    algorithm, colon, start = text.rpartition(":")
    return len(start) if DIGITS.issuperset(start) and (not colon or algorithm in ALGORITHMS) else 0


def _longest(text: str) -> int:
    algorithm, colon, _ = text.rpartition(":")
    return ALGORITHMS[algorithm] if colon else max(ALGORITHMS.values()) + 1
