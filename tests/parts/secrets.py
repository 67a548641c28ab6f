"""The secrets of a test run. Each bears one mark that nobody can guess, so that looking for all of them is cheap.

Whatever a test makes up as a password, token, signature or key goes through :func:`make`. The mark is made anew in
each process that runs tests; a text that holds it, plain or in base64, holds a secret, and no other text does.
"""

from __future__ import annotations

import base64
import os
import re

MARK = os.urandom(12).hex()
"""Part of every secret. Letters and digits alone: it looks the same in a URL, a header, JSON and a form."""


def make(label: str = "secret") -> str:
    """A secret that begins with ``label`` and ends with the mark and some random digits."""
    return f"{label}{MARK}{os.urandom(4).hex()}"


def _in_base64(text: bytes) -> list[bytes]:
    """What ``text`` looks like inside of base64, by where in a group of three bytes it begins.

    The characters at the ends, which hold bits of their neighbours too, are left out.
    """
    found = []
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text)
        first = (before * 8 + 5) // 6
        last = (before + len(text)) * 8 // 6
        found.append(whole[first:last])
    return found


def forms(mark: str = MARK) -> tuple[bytes, ...]:
    """How the mark may look: plain, in base64 (``Basic``, JWTs, recorded bodies), and in base64 of base64."""
    plain = mark.encode()
    once = _in_base64(plain)
    return (plain, *once, *(twice for text in once for twice in _in_base64(text)))


FORMS = forms()

_ESCAPED = re.compile(rb"(?:%|\\u00|\\x|&#x)([0-9a-fA-F]{2});?")


def undone(data: bytes) -> bytes:
    """``data`` in lowercase, its percent and backslash escapes undone, and no longer in UTF-16 or UTF-32."""
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), data.replace(b"\0", b"").lower())


USER, PASSWORD = "alice", make("correct horse battery ")
WRONG_PASSWORD = make("not the password ")
