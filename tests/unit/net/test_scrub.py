"""What may be written down of an exchange."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.net import scrub
from ocidist.net.exchange import Exchange, Payload
from ocidist.redaction import Redactor
from ocidist.spec.digest import Digest

SIGNED = "https://blobs.example/data?X-Amz-Signature=0123abcd&X-Amz-Expires=1200"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (SIGNED, "https://blobs.example/data?X-Amz-Signature=scrubbed&X-Amz-Expires=scrubbed"),
        ("https://alice:pw@registry.example/v2/", "https://registry.example/v2/"),
        ("HTTPS://Registry.Example:443/v2/#frag", "https://registry.example/v2/"),
        ("http://registry.example:80/v2/?n=2&last=b", "http://registry.example/v2/?n=2&last=b"),
        ("/v2/demo/tags/list?last=b&n=2", "/v2/demo/tags/list?last=b&n=2"),
        (
            "https://a/token?service=r&scope=repository%3Ax%3Apull&account=alice",
            "https://a/token?service=r&scope=repository%3Ax%3Apull&account=scrubbed",
        ),
        ("https://a/?c2VjcmV0", "https://a/?scrubbed"),
        ("https://a/?signature=", "https://a/?signature="),
        ("https://[bad/", "scrubbed"),
    ],
)
def test_b29_urls_keep_only_allowed_query_values(text: str, scrubbed: str) -> None:
    """Query values survive by allow-list; users and fragments never do."""
    assert scrub.url(text) == scrubbed


@given(st.text(alphabet="abc/?&=:@#%2F[]. \u0430", max_size=60))
def test_scrubbing_a_url_twice_changes_nothing(text: str) -> None:
    """A replayed Location is scrubbed again when it is looked up, and must still match."""
    once = scrub.url("https://registry.example/" + text)
    assert scrub.url(once) == once


def test_b29_headers_keep_only_allowed_values() -> None:
    """Credentials, cookies and unknown headers lose their value, and URLs in headers their signature."""
    basic = base64.b64encode(b"alice:hunter2-hunter2").decode()
    kept = dict(
        scrub.headers(
            [
                ("Authorization", f"Basic {basic}"),
                ("Cookie", "session=abcdef"),
                ("X-Vault-Token", "abcdef"),
                ("Location", SIGNED),
                ("Link", '</v2/x/tags/list?n=2&last=b&state=abcdef>; rel="next"'),
                ("WWW-Authenticate", 'Bearer realm="https://auth.example/t?key=abcdef",service="r"'),
                ("Content-Type", "application/json"),
                ("Docker-Content-Digest", "sha256:00"),
            ]
        )
    )
    assert kept["Authorization"] == "Basic scrubbed"
    assert kept["Cookie"] == kept["X-Vault-Token"] == "scrubbed"
    assert kept["Location"] == scrub.url(SIGNED)
    assert kept["Link"] == '</v2/x/tags/list?n=2&last=b&state=scrubbed>; rel="next"'
    assert kept["WWW-Authenticate"] == 'Bearer realm="https://auth.example/t?key=scrubbed",service="r"'
    assert kept["Content-Type"] == "application/json"
    assert kept["Docker-Content-Digest"] == "sha256:00"
    assert "abcdef" not in str(kept)
    assert basic not in str(kept)


def test_a_basic_realm_stays_the_sentence_that_it_is() -> None:
    """A realm that is no URL is text for people."""
    field = ("WWW-Authenticate", 'Basic realm="Sign in here"')
    assert scrub.headers([field]) == (field,)


@pytest.mark.parametrize("key", ["token", "access_token", "refresh_token", "id_token"])
def test_b29_token_values_are_replaced(key: str) -> None:
    """Token values go, and issued_at beside them; all else of the answer stays."""
    raw = json.dumps({key: "eyJhbGciOi", "expires_in": 300, "issued_at": "2020-01-01T00:00:00Z"}).encode()
    assert json.loads(scrub.response_body(raw)) == {key: "scrubbed", "expires_in": 300}


def test_content_that_is_named_by_its_digest_is_public() -> None:
    """A blob that happens to have a "token" key must keep its digest."""
    raw = b'{"token": "a name in a config"}'
    address = f"https://registry.example/v2/x/blobs/{Digest.of(raw)}"
    redactor = Redactor()
    passed = Exchange("GET", address, status=200, body=Payload(raw))
    scrub.learn(passed, redactor)
    assert scrub.exchange(passed, redactor).body is passed.body
    assert redactor.secrets() == ()


def test_a_token_answer_that_is_cut_short_is_dropped() -> None:
    """What can't be parsed can't be cleaned."""
    assert scrub.response_body(b'{"expires_in": 3, "token": "eyJhbGciOi') == b""


def test_b29_an_error_that_echoes_the_credentials_is_cleaned() -> None:
    """Servers quote bad tokens and passwords back."""
    basic = base64.b64encode(b"alice:hunter2-hunter2").decode()
    redactor = Redactor()
    scrub.learn_request([("Authorization", f"Basic {basic}"), ("Accept", "*/*")], "", redactor)
    body = redactor.data(f"bad password hunter2-hunter2 in {basic}".encode())
    assert body == b"bad password scrubbed in scrubbed"


def test_b29_form_fields_survive_by_allow_list() -> None:
    """The OAuth2 POST has the password in its body."""
    raw = b"grant_type=password&service=r&scope=repository%3Ax%3Apull&username=alice&password=hunter2"
    assert scrub.request_body(raw, "application/x-www-form-urlencoded; charset=utf-8") == (
        b"grant_type=password&service=r&scope=repository%3Ax%3Apull&username=scrubbed&password=scrubbed"
    )


def test_secrets_deep_in_json_are_replaced() -> None:
    """Nested objects and lists are looked into; empty values stay empty."""
    raw = b'{"data":[{"Password":"x","note":"y"}],"token":""}'
    assert json.loads(scrub.request_body(raw, "application/json")) == {
        "data": [{"Password": "scrubbed", "note": "y"}],
        "token": "",
    }


KEY = "AI3WYFYe_-" + "Qg" * 80


@pytest.mark.parametrize(
    "text",
    [
        "https://registry.example/v2/a/blobs/sha512:" + "ab" * 64,
        "https://registry.example/v2/a/blobs/sha512%3A" + "ab" * 64,
        "https://registry.example/v2/" + "a" * 200 + "/manifests/V" + "1" * 127,
        "/docker/registry/v2/blobs/sha512/ab/" + "ab" * 64 + "/data",
    ],
)
def test_b29_digests_tags_and_names_are_no_keys(text: str) -> None:
    """What a reference may hold is kept, however long it is."""
    assert scrub.url(text) == text


def test_b29_a_key_in_a_path_is_replaced() -> None:
    """By the same name for the same key, another for another, and by itself for what was replaced before."""
    base = "https://us-docker.pkg.dev/artifacts-downloads/namespaces/p/repositories/r/downloads/"
    once = scrub.url(base + KEY)
    assert once.startswith(base + "scrubbed-")
    assert KEY not in once
    assert once == scrub.url(once) == scrub.url(base + KEY)
    assert once != scrub.url(base + KEY + "Qg")
    assert scrub.url(f"/downloads/{KEY}/x?n=1").endswith("/x?n=1")
    assert scrub.headers([("Location", f"/downloads/{KEY}")])[0][1] == scrub.path(f"/downloads/{KEY}")
