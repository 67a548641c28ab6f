"""Replay: which recorded answer a request gets, and how it reads."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ocidist.errors import Cancelled, TransportError
from ocidist.net.exchange import Exchange, Payload
from ocidist.net.message import Headers, Request, Response
from ocidist.net.replay import ReplayTransport, find
from ocidist.scope import Scope

URL = "https://registry.example/v2/demo/shop/manifests/1.0"
BLOB = "https://blobs.example/data"
WHOLE = bytes(range(256)) * 40


def exchange(body: bytes = b"", status: int = 200, url: str = URL, **options: Any) -> Exchange:
    """A recorded exchange; ``asked`` are the request's headers."""
    asked = tuple(options.pop("asked", ()))
    return Exchange(
        method=options.pop("method", "GET"),
        url=url,
        request_headers=asked,
        status=status,
        body=Payload(body),
        headers=tuple(options.pop("headers", [("Content-Length", str(len(body)))])),
        **options,
    )


def ask(replay: ReplayTransport, url: str = URL, method: str = "GET", **headers: str) -> Response:
    """Send a request."""
    return replay.send(Request(method, url, Headers(headers.items())), Scope())


def test_served_in_recorded_order_then_the_last_again() -> None:
    """A cell can be run twice."""
    replay = ReplayTransport([exchange(b"", 429), exchange(b"a"), exchange(b"b")])
    found = [(ask(replay).status, ask(replay).read(9)), ask(replay).read(9), ask(replay).read(9)]
    assert found == [(429, b"a"), b"b", b"b"]


MIRROR = "https://mirror.example/proxy/v2/demo/shop/manifests/1.0?ns=registry.example"


def test_what_a_mirror_answered_is_the_registrys_where_that_was_not_asked() -> None:
    """A success before a challenge, no refusal, and nothing where the registry itself answered. What the answer leads to
    is as seen from the mirror."""
    recorded = [
        exchange(b"", 404, MIRROR, meant=URL),
        exchange(b"", 401, MIRROR, meant=URL),
        exchange(b"there", 200, MIRROR, meant=URL),
    ]
    found = ask(ReplayTransport(recorded))
    assert (found.status, found.url, found.read(9)) == (200, MIRROR, b"there")
    assert ask(ReplayTransport([*recorded, exchange(b"own")])).read(9) == b"own"
    with pytest.raises(TransportError, match="not recorded"):
        ask(ReplayTransport(recorded[:1]))


def test_a_registry_on_loopback_is_spoken_to_as_its_mirror_was() -> None:
    """It is tried both ways, and which way counts for what may follow; any other registry is asked by https."""
    url = MIRROR.replace("https", "http")
    near = ReplayTransport([exchange(b"x", url=url, meant=URL.replace("registry.example", "localhost:1"))])
    with pytest.raises(TransportError) as caught:
        ask(near, "https://localhost:1/v2/demo/shop/manifests/1.0")
    assert caught.value.kind == "plain-http"
    assert ask(near, "http://localhost:1/v2/demo/shop/manifests/1.0").read(9) == b"x"
    assert ask(ReplayTransport([exchange(b"x", url=url, meant=URL.replace("https", "http"))])).read(9) == b"x"


def test_accept_is_a_set_and_must_match() -> None:
    """Order, case and blanks don't matter; another set is another request."""
    replay = ReplayTransport([exchange(b"x", asked=[("Accept", "a/b, c/d")])])
    assert ask(replay, Accept="C/D,a/b").read(9) == b"x"
    with pytest.raises(TransportError):
        ask(replay, Accept="a/b")
    with pytest.raises(TransportError):
        ask(replay)
    assert ask(ReplayTransport([exchange(b"x")]), Accept="*/*").read(9) == b"x"


def test_another_accept_is_answered_only_where_the_answer_is_certain() -> None:
    """The recorded type was chosen from more, or the URL is a digest; else other bytes might have come."""
    head = [("Content-Type", "a/b; charset=utf-8")]
    tag = ReplayTransport([exchange(b"x", asked=[("Accept", "a/b, c/d")], headers=head)])
    assert ask(tag, Accept="a/b").read(9) == b"x"
    for accept in ("c/d", "a/b, e/f"):
        with pytest.raises(TransportError):
            ask(tag, Accept=accept)
    url = "https://registry.example/v2/x/manifests/sha256:" + "0" * 64
    pinned = ReplayTransport([exchange(b"x", url=url, asked=[("Accept", "a/b")], headers=head)])
    assert ask(pinned, url, Accept="a/b, e/f").read(9) == b"x"
    assert ask(pinned, url).read(9) == b"x"
    with pytest.raises(TransportError):
        ask(pinned, url, Accept="e/f")


def test_repeated_accept_fields_are_one_set() -> None:
    """Accept may come in several fields."""
    replay = ReplayTransport([exchange(b"x", asked=[("Accept", "a/b"), ("Accept", "c/d")])])
    assert ask(replay, Accept="a/b, c/d").read(9) == b"x"


def test_credentials_choose_among_equals() -> None:
    """The 401 is for those who bring nothing, however often they ask."""
    granted = exchange(b"ok", asked=[("Authorization", "Bearer scrubbed")])
    replay = ReplayTransport([exchange(b"", 401), granted])
    assert ask(replay, Authorization="Bearer anything").status == 200
    assert [ask(replay).status, ask(replay).status] == [401, 401]
    assert ask(replay, Authorization="Bearer other").read(9) == b"ok"
    assert ask(ReplayTransport([granted])).read(9) == b"ok", "recorded with, asked without: still an answer"


def test_a_signed_location_still_leads_to_the_recorded_blob() -> None:
    """Recorded and asked URLs are scrubbed alike."""
    replay = ReplayTransport([exchange(b"x", url=f"{BLOB}?sig=scrubbed&e=scrubbed")])
    assert ask(replay, f"{BLOB}?sig=live&e=1").read(9) == b"x"
    assert ask(replay, f"{BLOB}?sig=scrubbed&e=scrubbed").read(9) == b"x"


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-", 0, len(WHOLE)),
        ("bytes=5-", 5, len(WHOLE)),
        ("bytes=5-5", 5, 6),
        ("bytes=10-99999999", 10, len(WHOLE)),
        ("bytes=-7", len(WHOLE) - 7, len(WHOLE)),
        ("bytes=-99999999", 0, len(WHOLE)),
        ("Bytes = 3 - 8", 3, 9),
    ],
)
def test_a_range_is_cut_from_the_recorded_whole(wanted: str, start: int, end: int) -> None:
    """A 206 with the right Content-Range and length."""
    response = ask(ReplayTransport([exchange(WHOLE, url=BLOB)]), BLOB, Range=wanted)
    assert response.status == 206
    assert response.headers.get("Content-Range") == f"bytes {start}-{end - 1}/{len(WHOLE)}"
    assert response.length == end - start == int(response.headers.get("Content-Length") or 0)
    assert response.read(len(WHOLE)) == WHOLE[start:end]


@pytest.mark.parametrize("wanted", [f"bytes={len(WHOLE)}-", "bytes=9-3", "bytes=-0", "bytes=-"])
def test_a_range_outside_is_a_416(wanted: str) -> None:
    """As a server answers."""
    response = ask(ReplayTransport([exchange(WHOLE, url=BLOB)]), BLOB, Range=wanted)
    assert response.status == 416
    assert response.headers.get("Content-Range") == f"bytes */{len(WHOLE)}"
    assert response.read(10) == b""


def test_an_exact_range_goes_before_a_cut_one() -> None:
    """What was recorded is served as it was recorded."""
    partial = exchange(b"exact", 206, BLOB, asked=[("Range", "bytes=0-4")])
    replay = ReplayTransport([exchange(WHOLE, url=BLOB), partial])
    assert ask(replay, BLOB, Range="bytes=0-4").read(9) == b"exact"
    assert ask(replay, BLOB).read(len(WHOLE)) == WHOLE


def test_a_range_recorded_alone_does_not_answer_for_the_whole() -> None:
    """vcrpy's default would serve these wrong bytes."""
    replay = ReplayTransport([exchange(b"part", 206, BLOB, asked=[("Range", "bytes=0-3")])])
    for headers in ({}, {"Range": "bytes=0-4"}):
        with pytest.raises(TransportError):
            ask(replay, BLOB, **headers)


def test_several_ranges_and_cut_recordings_are_not_cut_again() -> None:
    """Only what is certain is made up."""
    with pytest.raises(TransportError):
        ask(ReplayTransport([exchange(WHOLE, url=BLOB)]), BLOB, Range="bytes=0-1,5-6")
    with pytest.raises(TransportError):
        ask(ReplayTransport([exchange(WHOLE, url=BLOB, complete=False)]), BLOB, Range="bytes=0-1")


def test_a_redirect_answers_a_range_as_it_is() -> None:
    """Where to go does not depend on the range."""
    replay = ReplayTransport([exchange(b"", 307, headers=[("Location", BLOB)])])
    response = ask(replay, Range="bytes=5-")
    assert (response.status, response.headers.get("Location")) == (307, BLOB)


def test_a_head_is_answered_from_a_get() -> None:
    """The head without the body."""
    response = ask(ReplayTransport([exchange(b"abc")]), method="HEAD")
    assert (response.status, response.headers.get("Content-Length"), response.length) == (200, "3", 0)
    assert response.read(10) == b""


def test_a_miss_names_the_request_and_the_nearest() -> None:
    """One line says what was asked, and what there is."""
    near = exchange(url=URL, asked=[("Accept", "application/x, application/y")])
    far = [exchange(url=f"https://elsewhere.example/{n}") for n in range(5)]
    replay = ReplayTransport([*far, near], "first-pull.json")
    with pytest.raises(TransportError) as caught:
        ask(replay, URL, Range="bytes=0-1", Authorization="Bearer secret-secret")
    message = str(caught.value)
    assert caught.value.retryable is False
    assert caught.value.host == "registry.example"
    assert f"GET {URL} (Range bytes=0-1, Accept */*) is not recorded in first-pull.json" in message
    assert message.endswith(f"nearest: GET {URL} (Accept application/x,application/y)")
    assert "secret" not in message
    assert "\n" not in message


def test_a_miss_of_another_url_lists_the_likest_ones() -> None:
    """Those that share most of the URL, at most three, without their headers."""
    others = [exchange(url=f"https://elsewhere.example/{n}", asked=[("Accept", "a/b")]) for n in range(5)]
    tags = exchange(url=URL.replace("manifests/1.0", "tags/list"), asked=[("Accept", "a/b")])
    with pytest.raises(TransportError) as caught:
        ask(ReplayTransport([*others, tags], "x"), URL)
    assert f"GET {URL} is not recorded in x; nearest: GET {tags.url}; GET https://else" in str(caught.value)
    assert str(caught.value).count("; GET") == 2


def test_a_miss_in_an_empty_cassette_says_so() -> None:
    """There is nothing near."""
    with pytest.raises(TransportError, match="which is empty"):
        ask(ReplayTransport([]))


def test_readinto_fills_any_buffer_and_ends_with_zero() -> None:
    """Small, large and empty buffers; also one that is no bytes buffer by format."""
    response = ask(ReplayTransport([exchange(WHOLE)]))
    buffer, data = bytearray(7), bytearray()
    assert response.readinto(memoryview(b"x" * 0)) == 0
    while count := response.readinto(memoryview(buffer)):
        data += buffer[:count]
    assert data == WHOLE
    assert response.readinto(memoryview(buffer)) == 0
    response.close()
    response.close()


def test_a_limit_holds() -> None:
    """More than the limit is refused, not cut."""
    with pytest.raises(TransportError, match="more than 3 bytes"):
        ask(ReplayTransport([exchange(b"abcd")])).read(3)


def test_an_ended_scope_ends_a_replay() -> None:
    """Before a request, and in the middle of a body."""
    replay, scope = ReplayTransport([exchange(WHOLE)]), Scope()
    response = replay.send(Request("GET", URL), scope)
    scope.cancel()
    with pytest.raises(Cancelled):
        response.readinto(memoryview(bytearray(1)))
    with pytest.raises(Cancelled):
        replay.send(Request("GET", URL), scope)


def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay is offline."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert ask(ReplayTransport([exchange(b"x")])).read(1) == b"x"


# -- files --


def cassette(folder: Path, name: str, *exchanges: dict[str, Any], **head: Any) -> Path:
    """A cassette written by hand."""
    document = {"format": "ocidist-cassette/1", "exchanges": list(exchanges), **head}
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def entry(body: dict[str, Any], url: str = URL) -> dict[str, Any]:
    """An exchange as the file has it."""
    return {"request": {"method": "GET", "url": url}, "response": {"status": 200, "body": body}}


def test_a_folder_is_all_its_cassettes(tmp_path: Path) -> None:
    """By name; what is not JSON is left alone."""
    cassette(tmp_path, "b.json", entry({"text": "b"}))
    cassette(tmp_path, "a.json", entry({"text": "a"}), entry({"text": "c"}, URL + "x"))
    (tmp_path / "README.md").write_text("not a cassette")
    replay = ReplayTransport.load(tmp_path)
    assert [ask(replay).read(1), ask(replay).read(1), ask(replay, URL + "x").read(1)] == [b"a", b"b", b"c"]


def test_a_cassette_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path as it is; a bare name in ``cassettes`` here or in a folder above."""
    (tmp_path / "cassettes").mkdir()
    path = cassette(tmp_path / "cassettes", "tour.json", entry({"text": "a"}))
    (tmp_path / "notebooks/deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks/deep")
    for name in ("tour", "tour.json", path, str(path), "../../cassettes"):
        assert ask(find(name)).read(1) == b"a"
    with pytest.raises(TransportError, match="'no-such-tour': no such file"):
        find("no-such-tour")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a cassette"),
        ("\ufeff{}", "not a cassette"),
        ("[]", "it has no format"),
        ('{"format": "ocidist-cassette/2"}', "ocidist-cassette/2"),
        ('{"format": "ocidist-cassette/1", "exchanges": {}}', "not a list"),
        ('{"format": "ocidist-cassette/1", "exchanges": [1]}', "exchange 1"),
        ("[" * 100_000, "not a cassette"),
    ],
)
def test_what_is_no_cassette_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """One error type, which names the file."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(TransportError, match=said) as caught:
        ReplayTransport.load(path)
    assert "x.json" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"base64": "!"},
        {"digest": "sha256:../../x", "size": 1},
        {"digest": "md5:00", "size": 1},
        {"digest": "sha256:" + "0" * 64},
        {"digest": "sha256:" + "0" * 64, "size": -1},
        {"digest": "sha256:" + "0" * 64, "size": True},
        {},
        [],
    ],
)
def test_d42_a_body_that_is_none_is_refused(tmp_path: Path, body: Any) -> None:
    """A digest is the only way to a sidecar, and digests have a grammar."""
    with pytest.raises(TransportError, match="exchange 1"):
        ReplayTransport.load(cassette(tmp_path, "x.json", entry(body)))


def test_missing_places_are_refused(tmp_path: Path) -> None:
    """No file, an empty folder."""
    with pytest.raises(TransportError, match="No such file"):
        ReplayTransport.load(str(tmp_path / "none.json"))
    with pytest.raises(TransportError, match="without a cassette"):
        ReplayTransport.load(tmp_path)


@pytest.mark.parametrize("spoil", ["flip", "append", "cut", "remove"])
def test_c39_a_spoiled_sidecar_is_never_served(tmp_path: Path, spoil: str) -> None:
    """Digest and size are checked before the first byte."""
    import hashlib

    digest = hashlib.sha256(WHOLE).hexdigest()
    blob = tmp_path / "blobs/sha256" / digest
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WHOLE)
    path = cassette(tmp_path, "x.json", entry({"digest": f"sha256:{digest}", "size": len(WHOLE)}))
    assert ask(ReplayTransport.load(path)).read(len(WHOLE)) == WHOLE
    if spoil == "remove":
        blob.unlink()
    else:
        blob.write_bytes({"flip": b"\x01" + WHOLE[1:], "append": WHOLE + b"x", "cut": WHOLE[:-1]}[spoil])
    response = ask(ReplayTransport.load(path))
    with pytest.raises(TransportError, match="recorded body") as caught:
        response.readinto(memoryview(bytearray(10)))
    assert caught.value.retryable is False


def test_a_cassette_inside_a_zip(tmp_path: Path) -> None:
    """A Traversable of a zip file is a place like any other, sidecars and ranges included."""
    import hashlib

    folder = tmp_path / "in"
    folder.mkdir()
    digest = hashlib.sha256(WHOLE).hexdigest()
    cassette(folder, "x.json", entry({"digest": f"sha256:{digest}", "size": len(WHOLE)}, BLOB))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "x.json", "cassette/x.json")
        archive.writestr(f"cassette/blobs/sha256/{digest}", WHOLE)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        replay = ReplayTransport.load(zipfile.Path(archive) / "cassette")
        assert ask(replay, BLOB).read(len(WHOLE)) == WHOLE
        assert ask(replay, BLOB, Range="bytes=300-309").read(10) == WHOLE[300:310]


def test_replay_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    """Isolated, without site-packages, and without ssl or http.client."""
    path = cassette(tmp_path, "x.json", entry({"text": "hello"}))
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from ocidist.net.replay import ReplayTransport\n"
        "from ocidist.net.message import Request\n"
        "from ocidist.scope import Scope\n"
        f"print(ReplayTransport.load(sys.argv[1]).send(Request('GET', {URL!r}), Scope()).read(9))\n"
        "print(sorted({'ssl', 'http.client', 'socket', 'vcr'} & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(path), str(root)], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["b'hello'", "[]"], done.stderr


def test_a_host_that_was_recorded_by_http_speaks_no_tls() -> None:
    """A client that tries https first falls back as it did when it recorded; a host recorded by https does not."""
    plain = exchange(b"x", url="http://127.0.0.1:5000/v2/a/manifests/1")
    with pytest.raises(TransportError, match="not recorded") as caught:
        ask(ReplayTransport([plain]), "https://127.0.0.1:5000/v2/a/manifests/1")
    assert caught.value.kind == "plain-http"
    both = [plain, exchange(b"y", url="https://127.0.0.1:5000/v2/a/blobs/x")]
    for exchanges, port in (([plain], 5001), (both, 5000)):
        with pytest.raises(TransportError) as found:
            ask(ReplayTransport(exchanges), f"https://127.0.0.1:{port}/v2/a/manifests/1")
        assert found.value.kind != "plain-http"
