"""Strict JSON: one reading, or one error type."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import InvalidManifest
from ocidist.spec import document

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=6), values, max_size=5), st.booleans(), st.sampled_from([None, 2]))
def test_every_json_object_is_read_as_json_reads_it(
    value: dict[str, Any], ascii_: bool, indent: int | None
) -> None:
    """Strictness costs no legal document."""
    raw = json.dumps(value, ensure_ascii=ascii_, indent=indent).encode("utf-8")
    assert document.decode(raw, "manifest") == value


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ u0dD8eE+-.1NaIf', max_size=40).map(str.encode))
def test_d44_any_bytes_are_an_object_or_invalid_manifest(raw: bytes) -> None:
    """No other exception leaves the decoder, and what it accepts json accepts too."""
    try:
        value = document.decode(raw, "manifest")
    except InvalidManifest:
        return
    assert value == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"\x00", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":1_0}', "not JSON"),
        (b'{"a":"\n"}', "not JSON"),
        (b'{"a":"\\x41"}', "not JSON"),
        (b"[]", "found an array"),
        (b"null", "found null"),
        (b'"x"', "found a string"),
        (b"3", "found a number"),
        (b"true", "found true"),
        ('{"a":1}'.encode("utf-16"), "byte order mark"),
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":1}'.encode("utf-32-be"), "not JSON"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":"\xff"}', "not UTF-8 (byte 6)"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),  # a surrogate, encoded
        (b'{"a":"\xc0\xaf"}', "not UTF-8"),  # overlong
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\udc00\\ud800"}', "surrogate"),
        (b'{"\\uD800x":1}', "surrogate"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":[Infinity]}', "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e400}', "out of range"),
        (b'{"a":-1e400}', "out of range"),
        (b'{"a":' + b"9" * 5000 + b"}", "out of range"),
        (b'{"a":-' + b"9" * 5000 + b"}", "out of range"),
        (b'{"a":' + b"[" * 100_000, "nested more than 256 deep"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 256 deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 256 deep"),
        (b'{"a":"\\\\",' + b'"b":' + b"[" * 100_000, "nested more than 256 deep"),
    ],
)  # fmt: skip
def test_d44_what_readers_disagree_about_is_refused(raw: bytes, said: str) -> None:
    """Encodings, numbers, surrogates, depth: one error type each, with a reason."""
    with pytest.raises(InvalidManifest) as caught:
        document.decode(raw, "manifest")
    assert said in str(caught.value)


def test_d44_brackets_in_strings_are_no_depth() -> None:
    """Only structure counts, whatever escapes stand before it."""
    for text in ("[" * 1000, '\\"' + "[" * 1000, "\\" * 7 + "{" * 1000, '"' * 9 + "[" * 1000):
        assert document.decode(json.dumps({"a": text, "b": []}).encode(), "config") == {"a": text, "b": []}
    deep = b'{"a":' + b"[" * 255 + b"]" * 255 + b"}"
    assert document.decode(deep, "config")["a"]
    with pytest.raises(InvalidManifest):
        document.decode(deep.replace(b"[]", b"[[]]"), "config")


def test_d44_a_surrogate_pair_is_one_character() -> None:
    """Only halves are refused."""
    assert document.decode(b'{"a":"\\ud83d\\ude00"}', "config") == {"a": "\U0001f600"}


def test_h70_size_is_checked_before_the_document_is_read() -> None:
    """More than 4 MiB is not even decoded; a caller may allow more or less."""
    raw = b'{"a":"' + b"x" * (document.MAX_SIZE - 8) + b'"}'
    assert len(raw) == document.MAX_SIZE
    assert len(document.decode(raw, "manifest")["a"]) == document.MAX_SIZE - 8
    with pytest.raises(InvalidManifest, match="more than the 4194304 that are read"):
        document.decode(raw + b" ", "manifest")
    with pytest.raises(InvalidManifest, match="5 bytes are more than the 4"):
        document.decode(b'\xff"{}x', "token", limit=4)


@pytest.mark.parametrize(
    "raw",
    [b'{"a":1,"a":1}', b'{"x":{"a":1,"b":2,"a":3}}', b'{"a":1,"\\u0061":2}', b'{"labels":{"A":"","A":""}}'],
)
def test_d43_a_key_that_is_there_twice_is_refused(raw: bytes) -> None:
    """Readers keep the first or the last; at any depth, also if spelled with an escape."""
    with pytest.raises(InvalidManifest, match="twice"):
        document.decode(raw, "manifest")


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "layerS", "layer\u017f"])
def test_d43_a_specified_name_in_other_letters_is_refused(key: str) -> None:
    """Also in the two letters beyond ASCII that Go folds."""
    with pytest.raises(InvalidManifest, match="in other letters"):
        document.check_names({"layers": [], key: []}, ("layers", "config"), "manifest")
    document.check_names({"layers": [], "layer": [], "x-Layers": []}, ("layers", "config"), "manifest")


def test_members_say_where_they_are_wrong() -> None:
    """The path inside the document is in the error."""
    value: dict[str, Any] = {"a": {"b": ["x", 1]}, "n": None, "m": {"k": 5}}
    inner = document.get_object(value, "a", "config")
    with pytest.raises(
        InvalidManifest, match=r"invalid config at a\.b\[1\]: expected a string, found a number"
    ):
        document.get_strings(inner, "b", "config", "a")
    with pytest.raises(InvalidManifest, match=r"at a: expected a string, found an object"):
        document.get_string(value, "a", "config")
    with pytest.raises(InvalidManifest, match=r"at a: expected an array, found an object"):
        document.get_array(value, "a", "config")
    with pytest.raises(InvalidManifest, match=r"at m\.'k': expected a string, found a number"):
        document.get_string_map(value, "m", "config")


def test_null_reads_as_absent() -> None:
    """As Go's reader takes it."""
    value = {"n": None}
    assert document.get_string(value, "n", "x") == ""
    assert document.get_array(value, "n", "x") == []
    assert document.get_object(value, "n", "x") == {}
    assert document.get_strings(value, "n", "x") == ()
    assert document.get_string_map({"m": {"a": None, "b": "c"}}, "m", "x") == {"a": "", "b": "c"}


@pytest.mark.parametrize("value", ["{}", "[]", "0", '""', '{"a":0}', "[[]]"])
def test_i77_the_number_of_values_is_bounded_before_objects_are_made(value: str) -> None:
    """A document of 4 MiB could be a million objects, or one string with as many commas."""
    count = document.MAX_SIZE // (len(value) + 1) - 10
    raw = f'{{"history":[{",".join([value] * count)}]}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidManifest, match="more than 100000 values"):
            document.decode(raw, "config")
        assert tracemalloc.get_traced_memory()[1] < 16 * len(raw)  # copies of the text without its strings
    finally:
        tracemalloc.stop()
    few = f'{{"history":[{",".join([value] * 30_000)}]}}'.encode()
    assert len(document.decode(few, "config")["history"]) == 30_000
    text = json.dumps({"labels": {"sbom": json.dumps(["a"] * 200_000)}}).encode()
    assert json.loads(document.decode(text, "config")["labels"]["sbom"]) == ["a"] * 200_000
