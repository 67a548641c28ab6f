"""The secrets that this process has used or received, and texts without them. Pure.

:data:`SECRETS` is the one that errors, logs, progress and ``--debug`` are cleaned by. A recording has one of its own,
with more room, beside it.

A secret is found raw (in any case: a host name is lowercased), in base64 (standard or URL-safe, padded or not, alone
or inside of something longer such as ``user:password``), percent-encoded, JSON- or HTML-escaped, in UTF-16 or UTF-32,
and in mixtures of these, three escapes deep; inside of base64 it is found raw alone. It is not found where it is
compressed, encrypted or cut in two. One shorter than :data:`GIVEN` characters is a word like others and is not searched
for: it goes only where its place says what it is (an Authorization header, a key such as "token", a query value).
"""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Iterable, Iterator, Mapping, Sequence

__all__ = ["GIVEN", "LONGEST", "PLACEHOLDER", "RECEIVED", "RECORDED", "SECRETS", "Redactor"]

PLACEHOLDER = "scrubbed"
GIVEN = 6
"""Characters that a secret of this side must have to be searched for."""
RECEIVED = 16
"""Characters that a secret must have that a server gave: it must not be able to blot out words such as "sha256"."""
LONGEST = 64 << 10
"""Characters of a secret that is searched for at most; a header can't hold a longer one."""
KEPT = 1024  # secrets; the oldest go first, and of those that servers gave before any that was given here
RECORDED = 4 * KEPT  # those of a recording: all of its exchanges are cleaned at its end
_ROUNDS = 3  # encodings on top of each other that are undone
_START = 4  # characters; no form is shorter
_SHORT_TEXT = 4096
_MANY = 8  # secrets

_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class _Forms:
    """``shown``: lowercase. ``encoded``: what base64 has of it for certain, and whether a character before and one
    behind have some bits more. ``raw``: both as bytes."""

    __slots__ = ("encoded", "raw", "shown")

    def __init__(
        self, shown: tuple[str, ...], encoded: tuple[tuple[str, bool, bool], ...], raw: tuple[bytes, ...]
    ) -> None:
        self.shown, self.encoded, self.raw = shown, encoded, raw


class Redactor:
    """Knows secrets and replaces them by :data:`PLACEHOLDER`. Thread-safe.

    Of secrets that servers gave it keeps at most ``kept``, and as many of this side's, so that no server can make it
    forget a password by giving it others.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._kept = kept
        self._given: dict[str, None] = {}
        self._received: dict[str, None] = {}
        self._forms: dict[str, _Forms] = {}
        self._indexed: tuple[Mapping[str, _Forms], Mapping[str, list[str]]] = {}, {}
        self.version = 0
        """Grows with each secret learned."""

    def learn(self, secrets: Iterable[str], least: int = GIVEN) -> None:
        """From here on redact these as well; those shorter than ``least`` characters are left out."""
        wanted = [each for each in secrets if least <= len(each) <= LONGEST and PLACEHOLDER not in each]
        usual = self._given if least <= GIVEN else self._received
        if len(self._forms) < self._kept and all(each in usual for each in wanted):
            return
        made = {each: self._forms.get(each) or _forms(each) for each in dict.fromkeys(wanted)}
        with self._lock:
            known = dict(self._forms)
            for secret, forms in made.items():
                # One in use is the newest; one that was this side's once stays that.
                order = self._given if secret in self._given else usual
                for old in (self._given, self._received):
                    old.pop(secret, None)
                order[secret] = None
                self.version += secret not in known
                known[secret] = forms
                if len(order) > self._kept:
                    oldest = next(iter(order))
                    del order[oldest], known[oldest]
            self._forms = known  # replaced as a whole: readers need no lock

    def learn_from(self, other: Redactor) -> None:
        """From here on redact all that ``other`` knows."""
        with other._lock:
            given, received = tuple(other._given), tuple(other._received)
        self.learn(received, RECEIVED)
        self.learn(given)

    def secrets(self) -> tuple[str, ...]:
        """All that are known."""
        with self._lock:
            return (*self._given, *self._received)

    def text(self, text: str, besides: str = "") -> str:
        """``text`` without the secrets, but for those that ``besides`` shows."""
        forms = self._forms
        if not forms or not text:
            return text
        wanted = (
            {secret: found for secret, found in forms.items() if secret not in besides} if besides else forms
        )
        spans = sorted(_spans(text, wanted, self._starts(forms)))
        if not spans:
            return text
        parts: list[str] = []
        end = 0
        for start, stop in spans:
            if start > end or not parts:
                parts += [text[end:start], _placeholder(text[start:stop])]
            end = max(end, stop)
        return "".join(parts) + text[end:]

    def _starts(self, forms: Mapping[str, _Forms]) -> Mapping[str, list[str]]:
        """The secrets by how their forms begin: with them a short text is looked through once, however many they are."""
        if self._indexed[0] is not forms:
            starts: dict[str, list[str]] = {}
            for secret, each in forms.items():
                for start in {
                    form[:_START] for form in (*each.shown, *(form for form, _, _ in each.encoded))
                }:
                    starts.setdefault(start, []).append(secret)
            self._indexed = forms, starts
        return self._indexed[1]

    def data(self, data: bytes, besides: str = "") -> bytes:
        """``data`` without the secrets; ``data`` itself where it shows none."""
        if not self._forms or not data:
            return data
        # As text too: a server that took a secret's bytes for latin-1 says it back encoded twice.
        for encoding in ("latin-1",) if data.isascii() else ("utf-8", "latin-1"):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            found = self.text(text, besides)
            if found is not text:
                data = found.encode(encoding)
        return data

    def shown_in(self, block: bytes) -> bool:
        """Whether a block of a body shows a secret. In one that is no text only raw, UTF-16 and base64 are looked for:
        a layer of a hundred megabytes passes in a second."""
        forms = self._forms
        if not forms or not block:
            return False
        if _is_text(block):
            return self.data(block) is not block
        views = (block, block.translate(None, b"\0")) if b"\0" in block else (block,)
        return any(raw in view for view in views for each in forms.values() for raw in each.raw)

    def value(self, value: object) -> object:
        """A text, or a tuple of values, without the secrets; anything else as it is."""
        if isinstance(value, str):
            return self.text(value)
        return tuple(map(self.value, value)) if type(value) is tuple else value


SECRETS = Redactor()


def _is_text(block: bytes) -> bool:
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in block


def _placeholder(replaced: str) -> str:
    """What stands for a piece of text, in UTF-16 or UTF-32 where that was."""
    rest = replaced[1:]
    gap = "\0" * (len(rest) - len(rest.lstrip("\0")))
    return "".join(char + gap for char in PLACEHOLDER) if gap else PLACEHOLDER


def _spans(
    text: str, known: Mapping[str, _Forms], starts: Mapping[str, list[str]]
) -> Iterator[tuple[int, int]]:
    """Where ``text`` shows a secret. It is looked at as it is, and with its escapes undone once, twice, …"""
    view, at = text, None
    for left in range(_ROUNDS, -1, -1):
        folded, joined = view.lower(), view.replace("-", "+").replace("_", "/")
        if len(folded) != len(view):  # a few capitals become two letters
            folded = view
        wanted: Iterable[_Forms] = known.values()
        if len(view) <= _SHORT_TEXT and len(known) > _MANY:
            pieces = {place[n : n + _START] for place in (folded, joined) for n in range(len(view))}
            found = {secret for piece in pieces & starts.keys() for secret in starts[piece]}
            wanted = [known[secret] for secret in found if secret in known]
        for forms in wanted:
            places = [place for form in forms.shown for place in _places(folded, form)]
            for form, before, behind in forms.encoded:
                for start, stop in _places(joined, form):
                    places.append((max(start - before, 0), min(stop + behind, len(view))))
            yield from places if at is None else [(at[start], at[stop]) for start, stop in places]
        if not left or _escape().search(view) is None:
            return
        view, at = _undone(view, at if at is not None else range(len(text) + 1))


def _places(text: str, form: str) -> Iterator[tuple[int, int]]:
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + len(form))


@cache
def _escape() -> re.Pattern[str]:
    """Compiled once there is a secret: a listing has none, and starts earlier."""
    return re.compile(
        r"%[0-9A-Fa-f]{2}|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\[\"/\\bfnrt]|\x00+"
        r"|&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});"
    )


def _undone(text: str, at: Sequence[int]) -> tuple[str, Sequence[int]]:
    """``text`` with its escapes undone, and for each character of it (and the end) the place it came from."""
    parts: list[str] = []
    places: list[int] = []
    end = 0
    for match in _escape().finditer(text):
        start, escape = match.start(), match[0]
        parts.append(text[end:start])
        places += at[end:start]
        end = match.end()
        if escape[0] == "&":
            from html import unescape  # its table of entities takes milliseconds to load

            parts.append(unescape(escape) or " ")  # of a number that is no character nothing is left
            places.append(at[start])
        elif escape[0] != "\0":
            digits = escape[2:] if escape[1] in "ux" else escape[1:]
            char = chr(int(digits, 16)) if len(digits) > 1 else _SHORT.get(digits, digits)
            parts.append(char)
            places.append(at[start])
    parts.append(text[end:])
    places += at[end:]
    return "".join(parts), places


def _forms(secret: str) -> _Forms:
    """How a secret may look once escapes are undone, and inside of base64."""
    import base64

    wide = secret.encode("utf-16-be", "surrogatepass")
    units = "".join(chr(int.from_bytes(wide[n : n + 2], "big")) for n in range(0, len(wide), 2))
    shown = {secret, units}
    for text in (secret, secret.replace(" ", "+")):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
            shown.add(text.encode(encoding, "surrogatepass").decode("latin-1").replace("\0", ""))
    for _ in range(_ROUNDS):  # one that looks like an escape itself
        shown |= {_undone(text, range(len(text) + 1))[0] for text in shown}
    shown = {text for text in shown if len(text) >= _START}
    encoded = []
    raw = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        # The characters at the ends hold bits of their neighbours too.
        start, end = before * 8, (before + len(raw)) * 8
        whole = base64.b64encode(b"\0" * before + raw).decode("ascii")
        encoded.append((whole[(start + 5) // 6 : end // 6], start % 6 > 0, end % 6 > 0))
    narrow = {text.encode("latin-1") for text in shown if all(char < "\u0100" for char in text)}
    found = narrow | {text.encode() for text, _, _ in encoded}
    return _Forms(tuple({text.lower() for text in shown}), tuple(encoded), tuple(found))
