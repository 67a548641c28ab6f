"""``WWW-Authenticate``, parsed. Pure.

Source: RFC 9110, 11.2 and 11.6.1; RFC 6750, 3 (Bearer errors). Lenient where registries in use are sloppy
(unquoted URLs as values), strict where leniency would guess: a challenge with an unterminated string is
dropped.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Iterable, Mapping

from ocidist.frozen import dataclass

__all__ = ["Challenge", "merge_scopes", "parse_challenges", "split_scopes"]

_LIMIT = 16384  # characters of all fields together; what is longer is no challenge that we can meet
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_BARE = re.compile(r"[^\s,\"]*")
_SPACE = re.compile(r"[ \t]*")
_GAP = re.compile(r"[ \t,]*")


@dataclass(frozen=True)
class Challenge:
    """One challenge: ``scheme`` in lowercase, parameters with lowercase names."""

    scheme: str
    params: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""

    @property
    def realm(self) -> str:
        """For Bearer, the URL of the token server."""
        return self.params.get("realm", "")

    @property
    def service(self) -> str:
        return self.params.get("service", "")

    @property
    def scopes(self) -> frozenset[str]:
        """What the resource asked for, as single scopes."""
        return split_scopes(self.params.get("scope", ""))

    @property
    def error(self) -> str:
        """``insufficient_scope``, ``invalid_token``, … or empty."""
        return self.params.get("error", "").lower()


def parse_challenges(values: Iterable[str]) -> tuple[Challenge, ...]:
    """Every challenge of all ``WWW-Authenticate`` fields, in order. Never raises."""
    found: list[Challenge] = []
    room = _LIMIT
    for value in values:
        if len(value) > room:
            break
        room -= len(value)
        # obs-fold (RFC 9112, 5.2) is a space; no other control character belongs into a field.
        unfolded = re.sub(r"\r?\n[ \t]+", " ", value)
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", unfolded):
            continue
        found.extend(_parse(unfolded))
    return tuple(found)


def _parse(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    scheme, params, token68 = "", dict[str, str](), ""
    position = 0

    def finish() -> None:
        if scheme:
            found.append(Challenge(scheme, dict(params), token68))

    while True:
        position = _end(_GAP, text, position)
        if position >= len(text):
            finish()
            return found
        word = _TOKEN.match(text, position)
        if word is None:  # not in the grammar: go on behind the next comma
            comma = text.find(",", position)
            position = len(text) if comma < 0 else comma
            continue
        after = _end(_SPACE, text, word.end())
        if text[after : after + 1] == "=":
            value, position = _value(text, _end(_SPACE, text, after + 1))
            if position < 0:  # unterminated: what it would have meant is a guess
                return found
            params.setdefault(word.group().lower(), value)
            continue
        finish()
        scheme, params, token68, position = word.group().lower(), {}, "", after
        blob = _TOKEN68.match(text, position) if after > word.end() else None
        if blob is not None:
            token68, position = blob.group().rstrip(), blob.end()


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return position if found is None else found.end()


def _value(text: str, position: int) -> tuple[str, int]:
    """A token or quoted-string and where it ends; -1 where the string is unterminated."""
    if text[position : position + 1] != '"':
        end = _end(_BARE, text, position)
        # A stray quote inside a bare value would otherwise stop the scan where it stands.
        return text[position:end], end + 1 if text[end : end + 1] == '"' else end
    value: list[str] = []
    position += 1
    while position < len(text):
        char = text[position]
        if char == '"':
            return "".join(value), position + 1
        if char == "\\" and position + 1 < len(text):
            position += 1
            char = text[position]
        value.append(char)
        position += 1
    return "", -1


# -- scopes -----------------------------------------------------------------------------------------


def split_scopes(text: str) -> frozenset[str]:
    """The space-separated scopes of a ``scope`` parameter."""
    return frozenset(text.split())


def merge_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Scopes sorted, with the actions of one resource united: ``repository:a:pull`` and ``…:push`` are one.

    Source: the token scope grammar of the distribution project (``type:name:action[,action…]``; a name may
    hold colons). What does not fit it is kept as it is.
    """
    actions: dict[str, set[str]] = {}
    others: set[str] = set()
    for scope in scopes:
        resource, _, listed = scope.rpartition(":")
        if ":" in resource:
            actions.setdefault(resource, set()).update(part for part in listed.split(",") if part)
        elif scope:
            others.add(scope)
    merged = {f"{resource}:{','.join(sorted(parts))}" for resource, parts in actions.items()}
    return tuple(sorted(merged | others))
