"""Strict JSON: one reading of a document, or none.

What ``json`` lets through and other readers of the same bytes see differently is refused, and every failure is
one :class:`~ocidist.errors.InvalidManifest`: other encodings than UTF-8, a BOM, NaN and Infinity, numbers
beyond a double, integers of thousands of digits, lone surrogates, endless nesting, duplicate keys
(RFC 8259, sections 4, 8 and 9; I-JSON, RFC 7493).

The typed getters below read one member of an object. ``null`` reads as absent, as Go's encoding/json, which
wrote most of these documents, means it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Collection, Mapping

from ocidist.errors import InvalidDigest, InvalidManifest, quoted
from ocidist.spec.digest import Digest, UnsupportedDigest

__all__ = [
    "MAX_DEPTH",
    "MAX_SIZE",
    "MAX_VALUES",
    "as_object",
    "check_depth",
    "check_names",
    "decode",
    "decode_value",
    "get_array",
    "get_digest",
    "get_object",
    "get_string",
    "get_string_map",
    "get_strings",
    "path",
]

MAX_SIZE = 4 * 1024 * 1024
"""Bytes; what registries accept for a manifest (distribution-spec, "Pushing Manifests": at least 4 MB)."""

MAX_DEPTH = 256
"""Arrays and objects inside each other. Real documents stay under ten; the same limit on every Python."""

MAX_VALUES = 100_000
"""Values of a document, keys not counted. Real ones have thousands at most; an object takes up to 500 times its bytes."""

MAX_DIGITS = 100
"""Digits of an integer. No field needs more than 19; converting thousands takes quadratic time."""

_STRING = re.compile(r'"[^"]*"')
_BRACKET = re.compile(r"[\[\]{}]")
_OPENING = ("[", "{", ",")  # a value stands behind each, but for an empty one's
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode(raw: bytes, what: str, limit: int = MAX_SIZE, values: int = MAX_VALUES) -> dict[str, Any]:
    """The JSON object that ``raw`` is. ``what`` names the document in errors; ``limit`` is in bytes, ``values`` how many
    it may hold."""
    value = decode_value(raw, what, limit, values)
    if not isinstance(value, dict):
        raise InvalidManifest(what, f"expected a JSON object, found {_named(value)}")
    return value


def decode_value(raw: bytes, what: str, limit: int = MAX_SIZE, values: int = MAX_VALUES) -> Any:
    """Any JSON value, under the same rules."""
    if len(raw) > limit:
        raise InvalidManifest(what, f"{len(raw)} bytes are more than the {limit} that are read")
    text = _text(raw, what)
    check_depth(text, what)
    _check_values(text, what, values)
    import json

    try:
        value = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise InvalidManifest(
            what, f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except UnicodeEncodeError:
        raise InvalidManifest(what, "a string holds half of a surrogate pair") from None
    except RecursionError:
        raise InvalidManifest(what, "nested too deeply") from None
    except _Refused as error:
        raise InvalidManifest(what, str(error)) from None
    return value


class _Refused(Exception):
    """What a hook says to ``decode_value``; never leaves this module."""


def _text(raw: bytes, what: str) -> str:
    if raw[:3] == b"\xef\xbb\xbf" or raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InvalidManifest(what, "it starts with a byte order mark; JSON is UTF-8 without one")
    try:
        return bytes(raw).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidManifest(what, f"not UTF-8 (byte {error.start})") from None


def check_depth(text: str | bytes, what: str) -> None:
    """Raise InvalidManifest for JSON nested deeper than MAX_DEPTH.

    To be called before ``json.loads`` on anything that came from outside: CPython raises RecursionError for it, but
    in WebAssembly its scanner ends the interpreter.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")  # brackets and quotes stand for themselves in UTF-8
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(_bare(text)):
        depth += 1 if match.group() in "[{" else -1
        if depth > MAX_DEPTH:
            raise InvalidManifest(what, f"nested more than {MAX_DEPTH} deep")


def _check_values(text: str, what: str, most: int) -> None:
    """Raise InvalidManifest for more values than any reader needs, before objects are made of them."""
    if sum(map(text.count, _OPENING)) > most and sum(map(_bare(text).count, _OPENING)) > most:
        raise InvalidManifest(what, f"more than {most} values")


def _bare(text: str) -> str:
    """JSON without what its strings hold."""
    # Escapes go first, so that one plain pattern finds the strings: a pattern with alternatives inside a
    # repeat would keep a frame for each character of a 4 MiB string.
    return _STRING.sub("", text.replace("\\\\", "").replace('\\"', ""))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {quoted(key)} is there twice")
            seen.add(key)
    return members


def _constant(text: str) -> Any:
    raise _Refused(f"{text} is not a JSON number")


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise _Refused(f"the number {quoted(text, 40)} is out of range")
    return number


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS or not text.isascii():
        raise _Refused(f"the number {quoted(text, 40)} is out of range")
    return int(text)


# -- members ----------------------------------------------------------------------------------------


def path(where: str, name: str | int) -> str:
    """``where`` with one step more: ``layers[2]``, ``layers[2].size``."""
    if isinstance(name, int):
        return f"{where}[{name}]"
    return f"{where}.{name}" if where else name


def check_names(value: Mapping[str, Any], names: Collection[str], what: str, where: str = "") -> None:
    """Refuse keys that are a specified name but for case.

    Go's readers take ``Layers`` for ``layers``, and fold U+017F and U+212A to s and k as well, so they and we
    would see two different documents. Never call this on maps of the user's own keys (labels, annotations).
    """
    folded = {name.casefold(): name for name in names}
    for key in value:
        meant = folded.get(key.casefold())
        if meant is not None and meant != key:
            raise InvalidManifest(what, f"the key {quoted(key)} is {meant!r} in other letters", where)


def as_object(value: Any, what: str, where: str = "") -> dict[str, Any]:
    """``value``, which must be a JSON object."""
    if not isinstance(value, dict):
        raise InvalidManifest(what, f"expected an object, found {_named(value)}", where)
    return value


def get_object(value: Mapping[str, Any], name: str, what: str, where: str = "") -> dict[str, Any]:
    """The object at ``name``; empty if absent."""
    member = value.get(name)
    return {} if member is None else as_object(member, what, path(where, name))


def get_array(value: Mapping[str, Any], name: str, what: str, where: str = "") -> list[Any]:
    """The array at ``name``; empty if absent."""
    member = value.get(name)
    if member is None:
        return []
    if not isinstance(member, list):
        raise InvalidManifest(what, f"expected an array, found {_named(member)}", path(where, name))
    return member


def get_string(value: Mapping[str, Any], name: str, what: str, where: str = "") -> str:
    """The string at ``name``; empty if absent."""
    member = value.get(name)
    if member is None:
        return ""
    if not isinstance(member, str):
        raise InvalidManifest(what, f"expected a string, found {_named(member)}", path(where, name))
    return member


def get_strings(value: Mapping[str, Any], name: str, what: str, where: str = "") -> tuple[str, ...]:
    """The array of strings at ``name``; empty if absent."""
    members = get_array(value, name, what, where)
    for number, member in enumerate(members):
        if not isinstance(member, str):
            at = path(path(where, name), number)
            raise InvalidManifest(what, f"expected a string, found {_named(member)}", at)
    return tuple(members)


def get_string_map(value: Mapping[str, Any], name: str, what: str, where: str = "") -> dict[str, str]:
    """The map from strings to strings at ``name``; empty if absent; a null in it reads as ""."""
    members = get_object(value, name, what, where)
    for key, member in members.items():
        if member is not None and not isinstance(member, str):
            at = path(path(where, name), quoted(key, 60))
            raise InvalidManifest(what, f"expected a string, found {_named(member)}", at)
    return {key: member or "" for key, member in members.items()}


def get_digest(value: Any, what: str, where: str, *, any_algorithm: bool = False) -> Digest:
    """``value`` as a digest; with ``any_algorithm`` one of an algorithm that is not supported as UnsupportedDigest."""
    try:
        return Digest(value)
    except InvalidDigest as error:
        if any_algorithm:
            with suppress(InvalidDigest):
                return UnsupportedDigest(value)
        raise InvalidManifest(what, str(error), where) from None


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
