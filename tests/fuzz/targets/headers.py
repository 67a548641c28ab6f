"""Header fields of a registry's answers: challenges, links, ranges, pauses."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

from hypothesis import strategies as st

from ocidist.remotes.registry import wire
from ocidist.remotes.registry.challenge import merge_scopes, parse_challenges
from tests.fuzz.harness import Target, mutated, seeds

__all__ = ["CHALLENGES", "LINKS", "PAUSES", "RANGES"]

URL = "https://registry.example/v2/a/tags/list?n=5"
NOW = 1_700_000_000.0


def check_challenge(text: str) -> None:
    """Never raises; names and schemes are tokens in lowercase; a well-formed one reads as the standard library reads it."""
    found = parse_challenges([text])
    assert len(found) <= len(text)
    for challenge in found:
        assert challenge.scheme == challenge.scheme.lower() != ""
        for name, value in challenge.params.items():
            assert name == name.lower()
            assert not any(ord(character) < 32 and character != "\t" for character in name + value)
        merged = merge_scopes(challenge.scopes)
        assert merge_scopes(merged) == merged
    assert len(text) > 8000 or parse_challenges([text, text]) == found + found


_TOKENS = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,8}", fullmatch=True)
_VALUES = st.text(alphabet='aZ09 :/,=?&.;\\"', max_size=20)


def check_made_challenge(made: tuple[str, dict[str, str]]) -> None:
    """What is written by the grammar is read back, by us and by ``urllib``."""
    scheme, params = made
    fields = [f'{name}="{value}"' for name, value in params.items()]
    quoted = ", ".join(
        name + '="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in params.items()
    )
    (found,) = parse_challenges([f"{scheme} {quoted}"])
    assert (found.scheme, dict(found.params)) == (scheme.lower(), params)
    if not any(set('"\\') & set(value) for value in params.values()):
        assert parse_keqv_list(parse_http_list(", ".join(fields))) == params


def check_link(text: str) -> None:
    """None, or an absolute URL in ASCII that a request can be sent to; relations in quotes are words."""
    found = wire.next_link([text], URL)
    if found is not None:
        assert "next" in text.lower()
        assert found.isascii()
        assert all(character > " " and character != "\x7f" for character in found)
        assert "@" not in found.partition("://")[2].partition("/")[0]


def check_range(text: str) -> None:
    """As a plain reading by hand has it: ``bytes FIRST-LAST/TOTAL`` in decimal digits that agree."""
    assert wire.parse_content_range([text]) == _range_by_hand(text)
    assert wire.parse_content_range([text, text]) is None
    length = wire.length_of(text)
    digits = text.strip()
    assert (length is not None) == (digits.isascii() and digits.isdigit() and len(digits) <= 18)


def _range_by_hand(text: str) -> wire.ContentRange | None:
    unit, _, rest = text.strip().partition(" ")
    span, slash, total = rest.partition("/")
    first, dash, last = span.partition("-")
    numbers = [first, last, *([] if total == "*" else [total])]
    plain = all(number.isascii() and number.isdigit() and len(number) <= 18 for number in numbers)
    if unit.lower() != "bytes" or not unit.isascii() or not slash or not dash or not plain:
        return None
    start, end, whole = int(first), int(last), None if total == "*" else int(total)
    if end < start or (whole is not None and end >= whole):
        return None
    return wire.ContentRange(start, end, whole)


def check_pause(text: str) -> None:
    """None, or seconds from 0 to the cap; of a date, those that ``email.utils`` counts."""
    found = wire.retry_after(text, NOW)
    assert found is None or 0 <= found <= wire.RETRY_AFTER_CAP
    if found is not None and not text.strip().isdigit():
        seconds = parsedate_to_datetime(text.strip()).timestamp() - NOW
        assert found == min(max(seconds, 0), wire.RETRY_AFTER_CAP)


def _either(value: Any) -> None:
    check_challenge(value) if isinstance(value, str) else check_made_challenge(value)


CHALLENGES = Target(
    "challenges",
    mutated(
        seeds("challenges"), '"', "\\", ",", "=", " ", "Bearer ", "Basic ", 'realm="', "\r\n ", "\t", "a=b"
    )
    | st.text(alphabet='aB= ,"\\\t', max_size=40)
    | st.tuples(_TOKENS, st.dictionaries(_TOKENS.map(str.lower), _VALUES, min_size=1, max_size=4)),
    _either,
)
LINKS = Target(
    "links",
    mutated(
        seeds("links"), "<", ">", ";", ",", '"', "\\", "rel=next", ' rel="', "//h", "\r\n", "@", "\x00", "é"
    ),
    check_link,
)
RANGES = Target(
    "ranges",
    mutated(seeds("ranges"), "-", "/", "*", "0", "9" * 18, "+", "_", " ", "\n", "\u0663", "²"),
    check_range,
)
PAUSES = Target(
    "pauses",
    mutated(seeds("pauses"), "0", "9" * 9, "-", "GMT", ":", " ", "+9999", "\u0663", "²")
    | st.text(alphabet="0123456789 :,JanMonGMT+-", max_size=40),
    check_pause,
)
