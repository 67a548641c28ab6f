"""The wire format: pure functions from text to values and back."""

from __future__ import annotations

import json

import pytest

from ocidist.errors import (
    Denied,
    InvalidManifest,
    NotFound,
    RateLimited,
    RegistryError,
    Unauthorized,
)
from ocidist.net import scrub
from ocidist.remotes.registry import wire


def test_urls_quote_what_could_change_their_meaning() -> None:
    """A tag, digest or name never reaches out of its place in the path."""
    assert (
        wire.manifest_url("h:5000", "a/b", "v1?x#y/../z")
        == "https://h:5000/v2/a/b/manifests/v1%3Fx%23y%2F..%2Fz"
    )
    assert wire.blob_url("h", "a/b", "sha256:ab") == "https://h/v2/a/b/blobs/sha256:ab"
    assert wire.tags_url("h", "a", 10, "x&y") == "https://h/v2/a/tags/list?n=10&last=x%26y"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:5000", True),
        ("127.0.0.1:1", True),
        ("127.9.8.7", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0", False),
        ("128.0.0.1", False),
        ("[::2]:5000", False),
        ("127.0.0.²", False),
    ],
)
def test_loopback_is_told_by_the_whole_host(host: str, expected: bool) -> None:
    """Only localhost, 127.0.0.0/8 and [::1] are loopback."""
    assert wire.is_loopback(host) is expected


def test_docker_hub_answers_at_another_host() -> None:
    """docker.io is a name; registry-1.docker.io is the host."""
    assert wire.endpoint_host("docker.io") == "registry-1.docker.io"
    assert wire.endpoint_host("ghcr.io") == "ghcr.io"


def test_origins_know_default_ports_and_refuse_other_schemes() -> None:
    """https://h and https://H:443 are one origin; file: has none."""
    assert wire.same_origin("https://h/a", "https://H:443/b")
    assert not wire.same_origin("https://h/a", "http://h/a")
    assert not wire.same_origin("https://h/a", "https://h:444/a")
    assert wire.origin_of("file:///etc/passwd") is None
    assert wire.origin_of("https://h:port/") is None
    assert wire.origin_of("https://[::1/") is None


def test_a13_b29_a_user_at_no_host_does_not_make_a_host_of_the_path() -> None:
    """Taken away alone, ``ann:s3cret@`` would leave ``//`` in front of what it hid."""
    for url in ("https://x@//ann:s3cret@other.example/", "//ann@//other.example/"):
        assert wire.clean_url("https://registry.example/", url) == ""
        assert "s3cret" not in wire.redact(url)
    assert "s3cret" not in scrub.url("https://x@//ann:s3cret@other.example/")


def test_a_cleaned_location_has_no_user_fragment_or_control() -> None:
    """What a Location smuggles in is dropped or percent-encoded."""
    assert wire.clean_url("https://h/a/b", "../c?d=e#f") == "https://h/c?d=e"
    assert wire.clean_url("https://h/", "https://u:p@x/y z") == "https://x/y%20z"
    assert "\r" not in wire.clean_url("https://h/", "/a\r\nHost: evil")
    assert wire.clean_url("https://h/", "/é") == "https://h/%C3%A9"


def test_b29_queries_are_redacted_by_an_allow_list() -> None:
    """Only harmless query values are shown; user names and signatures never."""
    shown = wire.redact("https://u:p@h/x?scope=repository:a:pull&X-Amz-Signature=abc&n=5&sig=def#frag")
    assert shown == "https://h/x?scope=repository:a:pull&X-Amz-Signature=***&n=5&sig=***"
    assert "secret" not in wire.redact("https://h/x?secret")
    assert "secret" not in wire.redact("https://h/x?;secret&;")
    assert "Secret" not in wire.redact("https://h/downloads/" + "Secret" * 30 + "/x")


@pytest.mark.parametrize(
    "value",
    [
        "bytes 5-9/*",
        "bytes 5-9/10",
        "BYTES 5-9/10",
    ],
)
def test_a4_a_content_range_is_read(value: str) -> None:
    """Start, end and total of a well-formed Content-Range."""
    found = wire.parse_content_range([value])
    assert found is not None
    assert (found.start, found.end) == (5, 9)


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["bytes 5-9/10", "bytes 5-9/10"],
        ["bytes 9-5/10"],
        ["bytes 5-10/10"],
        ["bytes=5-9/10"],
        ["bytes 5-/10"],
        ["bytes -5-9/10"],
        ["bytes 5-9/1_0"],
        ["bytes ٥-٩/10"],
        ["items 5-9/10"],
        ["bytes 5-9/10\n"],
        ["bytes */10"],
        [""],
    ],
)
def test_a4_a_wrong_content_range_is_none(values: list[str]) -> None:
    """Whatever contradicts itself, repeats or breaks the grammar is no range."""
    if values == ["bytes 5-9/10\n"]:  # surrounding white space alone is no fault
        assert wire.parse_content_range(values) is not None
    else:
        assert wire.parse_content_range(values) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("0", 0.0),
        ("600", 60.0),
        ("9" * 5000, 60.0),
        ("-1", None),
        ("1_0", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
        ("Thu, 99 Foo 1970 00:00:30 GMT", None),
        ("A" * 5000, None),
    ],
)
def test_a8_retry_after_is_bounded(value: str | None, expected: float | None) -> None:
    """Seconds or a date, at most a minute; what can't be read is None."""
    assert wire.retry_after(value, now=10.0) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('</v2/a/tags/list?n=1&last=x>; rel="next"', "https://h/v2/a/tags/list?n=1&last=x"),
        ("</p>; rel=next", "https://h/p"),
        ('</q>; rel="prev", </p>; title="a,b; c"; REL="last Next"', "https://h/p"),
        ('<https://other/p>; rel="next"', "https://other/p"),
        ('</p>; rel="nextish"', None),
        ("</p>", None),
        ("<", None),
        ("", None),
    ],
)
def test_a_link_to_the_next_page_is_found(value: str, expected: str | None) -> None:
    """rel=next among other links and parameters, resolved against the page's own address."""
    assert wire.next_link([value], "https://h/v2/a/tags/list?n=1") == expected


def test_error_bodies_of_every_shape_give_what_they_can() -> None:
    """The specification's shape, those of token servers, plain text; HTML and depth give nothing."""
    listed = json.dumps({"errors": [{"code": "DENIED", "message": "no"}, 7, {"code": 5}, {"message": "m"}]})
    assert wire.parse_errors(listed.encode()) == (("DENIED", "no"), ("m", ""))
    assert wire.parse_errors(b'{"details": "wrong password"}') == (("wrong password", ""),)
    assert wire.parse_errors(b'{"error": "invalid_grant", "error_description": "x"}') == (
        ("invalid_grant", "x"),
    )
    assert wire.parse_errors(b"too many\nrequests") == (("too many", ""),)
    for nothing in (b"", b"<html>", b"[]", b"{", b"[" * 100_000, b'{"errors": {}}', b"\xff\xfe"):
        assert all(isinstance(code, str) for code, _ in wire.parse_errors(nothing))


def test_h70_an_error_body_over_a_mebibyte_is_not_read() -> None:
    """Nothing is parsed beyond the limit, and what is kept is short."""
    assert wire.parse_errors(b" " * (wire.ERROR_LIMIT + 1)) == ()
    (found,) = wire.parse_errors(json.dumps({"errors": [{"code": "A", "message": "m" * 90_000}]}).encode())
    assert len(found[1]) <= 500


def test_listings_are_strings_or_nothing() -> None:
    """null is an empty list; anything else than strings is refused."""
    assert wire.parse_tags(b'{"name":"a","tags":["1","2"]}') == ("1", "2")
    assert wire.parse_tags(b'{"name":"a","tags":null}') == ()
    assert wire.parse_catalog(b'{"repositories":["a/b"]}') == ("a/b",)
    for wrong in (b'{"tags":[1]}', b'{"tags":"x"}', b"[]", b"<html>"):
        with pytest.raises(InvalidManifest):
            wire.parse_tags(wrong)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorized), (403, Denied), (404, NotFound), (429, RateLimited), (500, RegistryError)],
)
def test_each_status_has_its_error(status: int, kind: type[RegistryError]) -> None:
    """401, 403, 404, 429 and the rest; the URL in it is redacted."""
    error = wire.error_for("GET", "https://h/x?sig=hidden", status, [("CODE", "message")], wait=3.0)
    assert type(error) is kind
    assert "hidden" not in str(error)
    assert "CODE: message" in str(error)
    if isinstance(error, RateLimited):
        assert error.retry_after == 3.0
