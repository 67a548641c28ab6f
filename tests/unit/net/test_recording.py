"""The recorder, and the three ways in which what it collected is written."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Iterator

import pytest

from ocidist.errors import StoreError, TransportError
from ocidist.net.exchange import TEXT_LIMIT
from ocidist.net.message import Headers, Request
from ocidist.net.recording import Recorder, Trace
from ocidist.net.replay import ReplayTransport
from ocidist.scope import Scope
from tests.parts.scripted import ScriptedResponse, ScriptedTransport

URL = "https://registry.example/v2/demo/shop/manifests/1.0"
LARGE = bytes(range(256)) * 1024  # 256 KiB, no text


def drain(response: object, block: int = 1000) -> bytes:
    """The body, by readinto."""
    data, buffer = bytearray(), bytearray(block)
    while count := response.readinto(memoryview(buffer)):  # type: ignore[attr-defined]
        data += buffer[:count]
    return bytes(data)


class Source:
    """A request body that can be sent twice."""

    size = 6

    def chunks(self) -> Iterator[bytes]:
        yield b"abc"
        yield b"def"


def recorded(*answers: object, requests: list[Request] | None = None) -> Recorder:
    """A recorder that has sent a GET for each answer and read it whole."""
    recorder = Recorder(ScriptedTransport(list(answers)))  # type: ignore[arg-type]
    for request in requests or [Request("GET", URL) for _ in answers]:
        response = recorder.send(request, Scope())
        drain(response)
        response.close()
    return recorder


def test_what_passes_through_is_unchanged_and_collected() -> None:
    """The caller gets the very bytes, head and length; the exchange has them, too."""
    inner = ScriptedResponse(200, b'{"a": 1}', [("Content-Type", "application/json")])
    recorder = Recorder(ScriptedTransport([inner]))
    response = recorder.send(Request("GET", URL, Headers([("Accept", "*/*")])), Scope())
    assert (response.status, response.length, response.url) == (200, 8, URL)
    assert drain(response, 3) == b'{"a": 1}'
    response.close()
    assert inner.closed == 1
    (exchange,) = recorder.exchanges
    assert (exchange.method, exchange.url, exchange.status) == ("GET", URL, 200)
    assert exchange.body.data == b'{"a": 1}'
    assert exchange.complete
    assert exchange.asked("accept") == "*/*"
    assert 0 <= exchange.waited <= exchange.seconds


def test_read_counts_as_read_to_the_end() -> None:
    """read() takes the whole body."""
    recorder = Recorder(ScriptedTransport([ScriptedResponse(404, b"gone")]))
    assert recorder.send(Request("GET", URL), Scope()).read(100) == b"gone"
    assert recorder.exchanges[0].complete
    assert recorder.exchanges[0].body.data == b"gone"


def test_a_large_body_goes_to_a_file_and_its_digest_is_known() -> None:
    """Past 64 KiB nothing stays in memory; the bytes can be read again until the recorder is closed."""
    recorder = recorded(ScriptedResponse(200, [LARGE[:100], LARGE[100:]]))
    (exchange,) = recorder.exchanges
    assert exchange.body.data is None
    assert exchange.body.size == len(LARGE)
    with exchange.body.open() as file:
        assert file.read() == LARGE
    recorder.close()
    with pytest.raises(StoreError):
        exchange.body.open()


def test_a_trace_keeps_no_large_bodies(tmp_path: Path) -> None:
    """A trace counts them; a cassette can't be made of it, and says so."""
    trace = Trace()
    response = Recorder(ScriptedTransport([ScriptedResponse(200, LARGE)]), trace).send(
        Request("GET", URL), Scope()
    )
    drain(response, 1 << 16)
    response.close()
    assert trace.exchanges[0].body.size == len(LARGE)
    assert not trace.exchanges[0].body.kept
    with pytest.raises(StoreError, match="counted and not kept"):
        trace.save_cassette(tmp_path / "x.json")


def test_a_body_that_was_not_read_to_its_end_is_flagged(tmp_path: Path) -> None:
    """It is recorded as far as it was read, and its replay ends with an error in the same place."""
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, b"0123456789", [("Content-Length", "10")])]))
    response = recorder.send(Request("GET", URL), Scope())
    assert response.readinto(memoryview(bytearray(4))) == 4
    response.close()
    assert not recorder.exchanges[0].complete
    replay = ReplayTransport.load(recorder.save_cassette(tmp_path / "x.json"))
    again = replay.send(Request("GET", URL), Scope())
    assert again.length == 10
    buffer = bytearray(10)
    assert again.readinto(memoryview(buffer)) == 4
    assert buffer[:4] == b"0123"
    with pytest.raises(TransportError, match="recording ends"):
        again.readinto(memoryview(buffer))


def test_a_body_that_was_read_to_its_announced_length_is_complete() -> None:
    """Who counts bytes need not ask for the zero at the end."""
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, b"0123456789")]))
    response = recorder.send(Request("GET", URL), Scope())
    response.readinto(memoryview(bytearray(10)))
    response.close()
    assert recorder.exchanges[0].complete


def test_a_head_is_complete_without_a_body() -> None:
    """The answer to HEAD has no body, whatever its Content-Length says."""
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, b"", announced=None)]))
    recorder.send(Request("HEAD", URL), Scope()).close()
    assert recorder.exchanges[0].complete


def test_failures_are_in_the_trace_and_not_in_the_cassette(tmp_path: Path) -> None:
    """What got no answer is shown as such; there is nothing to replay."""
    recorder = Recorder(ScriptedTransport([TransportError("registry.example", "refused")]))
    with pytest.raises(TransportError):
        recorder.send(Request("GET", URL), Scope())
    (exchange,) = recorder.exchanges
    assert exchange.status == 0
    assert "refused" in exchange.error
    assert json.loads(recorder.save_cassette(tmp_path / "x.json").read_text())["exchanges"] == []
    har = json.loads(Path(recorder.trace.to_har(tmp_path / "x.har")).read_text())
    assert "refused" in har["log"]["entries"][0]["comment"]


def test_memory_stays_flat_while_a_large_body_is_recorded() -> None:
    """64 MiB pass through in blocks; the recorder holds no more than a few of them."""
    import tracemalloc

    block = bytes(1 << 20)
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, (block for _ in range(64)))]))
    response = recorder.send(Request("GET", URL), Scope())
    buffer = memoryview(bytearray(1 << 20))
    tracemalloc.start()
    while response.readinto(buffer):
        pass
    response.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert recorder.exchanges[0].body.size == 64 << 20
    assert peak < 4 << 20
    recorder.close()


def test_many_threads_record_at_once() -> None:
    """Each exchange has the body of its own request."""

    def answer(request: Request) -> ScriptedResponse:
        return ScriptedResponse(200, [request.url.encode(), LARGE[: 100 << 10]])

    recorder = Recorder(ScriptedTransport([answer] * 160))

    def work(number: int) -> None:
        for step in range(10):
            response = recorder.send(Request("GET", f"https://a.example/{number}-{step}"), Scope())
            drain(response, 8192)
            response.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({exchange.url for exchange in recorder.exchanges}) == 160
    for exchange in recorder.exchanges:
        with exchange.body.open() as file:
            assert file.read() == exchange.url.encode() + LARGE[: 100 << 10]
    recorder.close()


def test_exchanges_stand_in_the_order_of_their_starts() -> None:
    """A slow first answer still comes first."""
    gate, started = threading.Event(), threading.Event()

    def slow(request: Request) -> ScriptedResponse:
        started.set()
        gate.wait(5)
        return ScriptedResponse(200, b"slow")

    recorder = Recorder(ScriptedTransport([slow, ScriptedResponse(200, b"fast")]))
    thread = threading.Thread(target=lambda: recorder.send(Request("GET", URL), Scope()).read(10))
    thread.start()
    assert started.wait(5)
    recorder.send(Request("GET", URL), Scope()).read(10)
    gate.set()
    thread.join()
    assert [exchange.body.data for exchange in recorder.exchanges] == [b"slow", b"fast"]


def test_request_bodies_are_recorded_once_however_often_they_are_sent(tmp_path: Path) -> None:
    """A body that is sent again from its start replaces what was noted."""
    body = Source()

    def twice(request: Request) -> ScriptedResponse:
        assert not isinstance(request.body, (bytes, type(None)))
        assert b"".join(request.body.chunks()) == b"abcdef"
        return ScriptedResponse(201)

    recorder = recorded(twice, requests=[Request("PUT", URL, body=body)])
    assert recorder.exchanges[0].request_body.data == b"abcdef"
    document = json.loads(recorder.save_cassette(tmp_path / "x.json").read_text())
    assert document["exchanges"][0]["request"]["body"] == {"text": "abcdef"}


def test_b29_a_cassette_holds_no_secret(tmp_path: Path) -> None:
    """Header, form, token answer, echo and signed URL: the secrets are in none of the three files."""
    secret = "s3cr3t-s3cr3t-s3cr3t"
    token = json.dumps({"token": secret, "expires_in": 60}).encode()
    location = f"https://blobs.example/x?sig={secret}"
    recorder = recorded(
        ScriptedResponse(200, token, [("Content-Length", str(len(token))), ("Set-Cookie", secret)]),
        ScriptedResponse(307, b"", [("Location", location)]),
        ScriptedResponse(200, f"you said {secret}".encode()),
        requests=[
            Request(
                "POST",
                "https://auth.example/token",
                Headers([("Content-Type", "application/x-www-form-urlencoded")]),
                f"password={secret}".encode(),
            ),
            Request("GET", URL, Headers([("Authorization", f"Bearer {secret}")])),
            Request("GET", location, Headers([("Authorization", f"Bearer {secret}")])),
        ],
    )
    texts = [
        recorder.save_cassette(tmp_path / "x.json").read_text(),
        Path(recorder.trace.to_har(tmp_path / "x.har")).read_text(),
        Path(recorder.trace.to_jsonl(tmp_path / "x.jsonl")).read_text(),
        repr(recorder.trace.rows()),
    ]
    assert all(secret not in text for text in texts)
    answer = json.loads(texts[0])["exchanges"][0]["response"]
    assert int(answer["headers"]["Content-Length"]) == len(answer["body"]["text"])


def test_bodies_are_text_base64_or_sidecars(tmp_path: Path) -> None:
    """Text up to 64 KiB and tiny binaries stand in the file, all else beside it; each replays byte for byte."""
    bodies = [b"", "grün\n".encode(), b"\x00\xff", LARGE, b"x" * (TEXT_LIMIT + 1), b"\x1b[0m", LARGE[:1000]]
    answers = [ScriptedResponse(200, body) for body in bodies]
    requests = [Request("GET", f"{URL}-{n}") for n in range(len(bodies))]
    path = recorded(*answers, requests=requests).save_cassette(tmp_path / "x.json")
    found = [e["response"].get("body", {}) for e in json.loads(path.read_text())["exchanges"]]
    assert [sorted(body) for body in found] == [
        [],
        ["text"],
        ["base64"],
        ["digest", "size"],
        ["digest", "size"],
        ["base64"],
        ["digest", "size"],
    ]
    assert len(list((tmp_path / "blobs/sha256").iterdir())) == 3
    replay = ReplayTransport.load(path)
    for request, body in zip(requests, bodies, strict=True):
        assert drain(replay.send(request, Scope())) == body


def test_a_cassette_written_twice_is_the_same_text(tmp_path: Path) -> None:
    """Keys have one order, and nothing of it depends on the moment of writing."""
    recorder = recorded(ScriptedResponse(200, b"x", [("B", "1"), ("Accept-Ranges", "bytes")]))
    texts = [recorder.save_cassette(tmp_path / name).read_text() for name in ("a.json", "b.json")]
    assert texts[0] == texts[1]
    assert list(json.loads(texts[0])) == ["format", "recorded", "exchanges"]
    assert json.loads(texts[0])["format"] == "ocidist-cassette/1"


def test_har_has_what_a_viewer_needs(tmp_path: Path) -> None:
    """HAR 1.2: creator, start, timings, headers, content; large bodies only by size."""
    recorder = recorded(
        ScriptedResponse(200, b"{}", [("Content-Type", "application/json")]),
        ScriptedResponse(200, LARGE),
        requests=[Request("GET", URL + "?n=2"), Request("GET", URL)],
    )
    log = json.loads(Path(recorder.trace.to_har(tmp_path / "x.har")).read_text())["log"]
    assert log["version"] == "1.2"
    assert log["creator"]["name"] == "ocidist"
    first, second = log["entries"]
    assert first["startedDateTime"].endswith("Z")
    assert first["request"]["queryString"] == [{"name": "n", "value": "2"}]
    assert first["response"]["content"] == {"size": 2, "mimeType": "application/json", "text": "{}"}
    assert set(first["timings"]) == {"send", "wait", "receive"}
    assert first["time"] >= first["timings"]["wait"]
    assert second["response"]["content"]["size"] == len(LARGE)
    assert "text" not in second["response"]["content"]
    assert json.loads(recorder.trace.to_har())["log"]["entries"] == log["entries"]


def test_jsonl_has_a_line_for_each_exchange(tmp_path: Path) -> None:
    """Sizes and times without bodies."""
    recorder = recorded(ScriptedResponse(200, b"abc"), ScriptedResponse(404, b""))
    lines = Path(recorder.trace.to_jsonl(tmp_path / "x.jsonl")).read_text().splitlines()
    assert recorder.trace.to_jsonl().splitlines() == lines
    assert [(json.loads(line)["status"], json.loads(line)["bytes"]) for line in lines] == [(200, 3), (404, 0)]


def test_rows_of_a_trace() -> None:
    """Method, url, status, bytes and time, a row each."""
    rows = recorded(ScriptedResponse(200, b"abc")).trace.rows()
    assert [(row.method, row.url, row.status, row.bytes) for row in rows] == [("GET", URL, 200, 3)]
    assert rows[0].milliseconds == round(rows[0].seconds * 1000)
    assert rows.schema.names == ("method", "url", "status", "bytes", "milliseconds")


def test_a_trace_shows_as_a_waterfall_over_its_table() -> None:
    """The picture, and the plain table beneath that survives where pictures are dropped."""
    html = recorded(ScriptedResponse(200, b"abc"), ScriptedResponse(404)).trace._repr_html_()
    assert html.index("<svg") < html.rindex("<table")
    assert "404 GET registry.example 1.0" in html
    assert "waterfall of 2 requests" in html


def test_an_exchange_under_way_is_shown_as_partial() -> None:
    """Looking at a trace while it grows is no error."""
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, b"abc")]))
    response = recorder.send(Request("GET", URL), Scope())
    assert [(e.status, e.complete) for e in recorder.exchanges] == [(200, False)]
    response.read(10)
    assert recorder.exchanges[0].complete


def test_a_folder_that_can_not_be_written_is_a_store_error(tmp_path: Path) -> None:
    """The error names the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        recorded(ScriptedResponse(200)).save_cassette(tmp_path / "file" / "x.json")


def test_a_path_without_json_is_a_folder(tmp_path: Path) -> None:
    """``--record DIR`` writes DIR/recording.json, and DIR loads."""
    path = recorded(ScriptedResponse(200, b"abc")).save_cassette(tmp_path / "run")
    assert path == tmp_path / "run/recording.json"
    assert ReplayTransport.load(str(tmp_path / "run")).send(Request("GET", URL), Scope()).read(9) == b"abc"
