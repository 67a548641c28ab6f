"""Texts without the secrets that the process knows, in whatever form they are shown."""

from __future__ import annotations

import base64
import html
import json
import pickle
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import RegistryError, StoreError, TransportError
from ocidist.redaction import GIVEN, PLACEHOLDER, RECEIVED, SECRETS, Redactor
from tests.parts import secrets

SECRET = 'p%41ss/w+r d\\"ä😀'


def escaped(text: str, pattern: str) -> str:
    """Each UTF-16 unit of ``text`` by ``pattern``."""
    raw = text.encode("utf-16-be")
    return "".join(pattern % int.from_bytes(raw[n : n + 2], "big") for n in range(0, len(raw), 2))


FORMS = {
    "raw": SECRET,
    "json": json.dumps(SECRET)[1:-1],
    "json, not ASCII": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "json, all escaped": escaped(SECRET, "\\u%04x"),
    "json, all escaped, capitals": escaped(SECRET, "\\u%04X"),
    "json twice": json.dumps(json.dumps(SECRET)[1:-1])[1:-1],
    "percent": quote(SECRET, safe=""),
    "percent, small": quote(SECRET, safe="").lower(),
    "percent, slashes kept": quote(SECRET),
    "percent, plus": quote_plus(SECRET),
    "percent, all": "".join(f"%{byte:02X}" for byte in SECRET.encode()),
    "percent twice": quote(quote(SECRET, safe=""), safe=""),
    "capitals": SECRET.upper(),
    "as repr writes bytes": "".join(f"\\x{byte:02x}" for byte in SECRET.encode()),
    "html": html.escape(SECRET),
    "html, all": "".join(f"&#{ord(char)};" for char in SECRET),
    "html, all, hexadecimal": "".join(f"&#x{ord(char):X};" for char in SECRET),
    "html in json": json.dumps("".join(f"&#{ord(char)};" for char in SECRET))[1:-1],
    "json in percent": quote(json.dumps(SECRET)[1:-1], safe=""),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_i81_a_secret_is_found_in_every_escaped_form(form: str) -> None:
    """What is around it stays, to the character."""
    redactor = Redactor()
    redactor.learn([SECRET])
    assert redactor.text(f"said {FORMS[form]} again") == f"said {PLACEHOLDER} again"
    twice = redactor.text(f"{FORMS[form]}{FORMS[form]}%20x")
    assert twice.replace(PLACEHOLDER, "") == "%20x"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_i81_a_secret_is_found_in_every_encoding(encoding: str) -> None:
    """And what stands for it is of the same encoding."""
    redactor = Redactor()
    redactor.learn([SECRET])
    data = f'{{"a": "{SECRET}", "b": 1}}'.encode(encoding)
    assert redactor.data(data) == f'{{"a": "{PLACEHOLDER}", "b": 1}}'.encode(encoding)
    assert redactor.shown_in(data)
    assert redactor.shown_in(b"\xff\x00\x80" + data)


@pytest.mark.parametrize("user", ["", "a", "al", "ali", "alice"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_i81_a_secret_is_found_in_base64(user: str, encode: object) -> None:
    """Alone and as part of ``user:password``, padded or not, in both alphabets, percent-encoded and in JSON."""
    redactor = Redactor()
    redactor.learn(["pass?word>>~~"])
    whole = encode(f"{user}:pass?word>>~~".encode()).decode()  # type: ignore[operator]
    for text in (whole, whole.rstrip("="), quote(whole, safe=""), whole.replace("/", "\\/")):
        shown = redactor.text(f"Basic {text}.")
        assert PLACEHOLDER in shown
        rest = shown.replace(PLACEHOLDER, "").removeprefix("Basic ").removesuffix(".")
        assert "cGFzcz" not in rest
        assert "d29yZD" not in rest


@given(st.text(min_size=GIVEN, max_size=40), st.text(max_size=20))
def test_i81_no_text_holds_a_secret_afterwards(secret: str, around: str) -> None:
    """Whatever both are made of; a text without it is the very same object."""
    redactor = Redactor()
    redactor.learn([secret])
    shown = redactor.text(f"{around}{secret}{around}")
    assert secret not in shown or secret in PLACEHOLDER or PLACEHOLDER in secret or not redactor.secrets()
    other = "0"
    assert redactor.text(other) is other


def test_i81_short_secrets_are_words_like_others() -> None:
    """A password "admin" does not blot out every admin; with its user name it is long enough."""
    redactor = Redactor()
    redactor.learn(["admin", "admin:admin", "scrubbed", ""])
    assert redactor.secrets() == ("admin:admin",)
    assert redactor.text("the admin of library/admin") == "the admin of library/admin"
    assert redactor.text("Basic YWRtaW46YWRtaW4=") == "Basic scrubbed="


def test_i81_the_oldest_secrets_go_first() -> None:
    """A process that lives for months keeps a bounded number."""
    redactor = Redactor(kept=3)
    redactor.learn([f"secret-{number}" for number in range(5)])
    assert redactor.secrets() == ("secret-2", "secret-3", "secret-4")
    redactor.learn(["secret-2"])  # is used again
    redactor.learn(["secret-5"])
    assert redactor.secrets() == ("secret-4", "secret-2", "secret-5")


def test_i81_no_server_makes_a_password_forgotten() -> None:
    """It may give as many secrets of its own as it likes, also after the password was received once."""
    redactor = Redactor(kept=3)
    redactor.learn(["password of a server"], RECEIVED)
    redactor.learn(["password", "password of a server"])
    redactor.learn([f"signature number {number}" for number in range(9)], RECEIVED)
    redactor.learn(["password of a server"], RECEIVED)
    assert redactor.secrets()[:2] == ("password", "password of a server")
    assert redactor.secrets()[2:] == tuple(f"signature number {number}" for number in (6, 7, 8))
    recording = Redactor(kept=3)
    recording.learn_from(redactor)
    assert recording.secrets() == redactor.secrets()


@given(st.text(max_size=30), st.integers(0, 39))
def test_i81_many_secrets_are_found_as_few_are(around: str, number: int) -> None:
    """Among many only those are looked for whose beginning is there."""
    few, many = Redactor(), Redactor()
    all_ = [f"{chr(0x61 + n % 26)}{n}-secret-ä" for n in range(40)]
    few.learn([all_[number]])
    many.learn(all_)
    for shown in (all_[number], quote(all_[number]), base64.b64encode(f"x{all_[number]}".encode()).decode()):
        text = f"{around} {shown} {around}"
        if not any(secret in around for secret in all_):
            assert many.text(text) == few.text(text) != text


def test_i81_an_error_holds_no_secret_in_use() -> None:
    """Neither its text, its repr, its attributes nor its pickle, whoever made it of what a server said."""
    secret = secrets.make("errors")
    SECRETS.learn([secret])
    basic = base64.b64encode(f"bob:{secret}".encode()).decode()
    for error in (
        RegistryError("GET", f"https://r.example/{secret}", 400, ((quote(secret), basic),), f"hint {secret}"),
        TransportError(f"{secret}.example", f"said {escaped(secret, '%%%02x')}"),
        StoreError(f"/tmp/{secret}", secret.upper()),
    ):
        for text in (str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))):
            assert secrets.MARK not in secrets.undone(text.encode()).decode("latin-1")
            assert basic not in text


def test_i81_a_secret_that_was_taken_for_latin_1_is_found_in_bytes() -> None:
    """A server that reads UTF-8 so, and answers in UTF-8."""
    redactor = Redactor()
    redactor.learn(["pässwörd1234"])
    body = "you said pässwörd1234, and ü".encode().decode("latin-1").encode()
    assert redactor.data(body) == b"you said scrubbed, and " + "ü".encode().decode("latin-1").encode()
    assert redactor.data(clean := "ü and ä".encode()) is clean
