"""Digests: the grammar, and nothing but the grammar."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import InvalidDigest
from ocidist.spec.digest import ALGORITHMS, Digest

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_digest_of_nothing() -> None:
    """The best known digest there is."""
    assert Digest.of(b"") == EMPTY
    assert (Digest(EMPTY).algorithm, Digest(EMPTY).short) == ("sha256", "e3b0c44298fc")


@given(st.binary(max_size=200), st.sampled_from(sorted(ALGORITHMS)))
def test_of_agrees_with_hashlib_and_parses_again(data: bytes, algorithm: str) -> None:
    """of, from_hash, hasher and the parser tell the same."""
    digest = Digest.of(data, algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest(str(digest)) == digest == Digest.from_hash(hashlib.new(algorithm, data))
    hasher = digest.hasher()
    hasher.update(data)
    assert Digest.from_hash(hasher) == digest
    assert pickle.loads(pickle.dumps(digest)) == digest
    assert type(pickle.loads(pickle.dumps(digest))) is Digest


HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        HEX,
        f"sha256:{HEX}\n",
        f"sha256:{HEX} ",
        f" sha256:{HEX}",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX[:-1]}٣",  # a decimal digit to \d, not a hexadecimal one
        f"sha256:{HEX[:-1]}\x00",
        f"sha512:{HEX}",
        f"sha384:{'0' * 96}",
        f"blake3:{HEX}",
        f"md5:{'0' * 32}",
        f"sha256+b64:{HEX}",
        "sha256:../../x",
        "sha256:../../../../../../../../../../../../../../../../../../../../../../etc/",
        f"../../sha256:{HEX}",
        f"sha256:{HEX}:{HEX}",
        "sha256:" + "a" * 100_000,
    ],
)
def test_d42_what_is_no_digest_is_refused(text: str) -> None:
    """Uppercase, other alphabets, a trailing newline, path steps, unknown algorithms, wrong lengths."""
    with pytest.raises(InvalidDigest) as caught:
        Digest(text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_d42_an_unknown_algorithm_is_refused_by_name() -> None:
    """The message names it, and what is supported."""
    with pytest.raises(InvalidDigest, match="'blake3' is not supported; sha256 and sha512 are"):
        Digest(f"blake3:{HEX}")
    with pytest.raises(InvalidDigest):
        Digest.of(b"", "md5")


@pytest.mark.parametrize("value", [None, 5, b"sha256:" + HEX.encode(), ["sha256"], True])
def test_d42_only_a_string_is_a_digest(value: object) -> None:
    """JSON brings other types in this place."""
    with pytest.raises(InvalidDigest):
        Digest(value)  # type: ignore[arg-type]


@given(st.text(max_size=80) | st.from_regex(r"sha(256|512):[0-9a-fA-F/.]{60,66}\n?", fullmatch=True))
def test_d42_a_digest_holds_only_what_the_grammar_lets_in(text: str) -> None:
    """Whatever is accepted is algorithm, colon, lowercase hexadecimal digits of the right number."""
    try:
        digest = Digest(text)
    except InvalidDigest:
        return
    algorithm, encoded = text.split(":")
    assert digest == text
    assert len(encoded) == ALGORITHMS[algorithm]
    assert set(encoded) <= set("0123456789abcdef")
