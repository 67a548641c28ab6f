"""Servers that say back what they were told: nothing of it is written, wherever and however they say it."""

from __future__ import annotations

import base64
import json
import logging
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator
from urllib.parse import quote

import pytest

from ocidist.cli.main import main
from ocidist.errors import RegistryError, UsageError, quoted
from ocidist.net.http import HTTPTransport
from ocidist.net.message import Headers, Request
from ocidist.net.recording import Recorder
from ocidist.net.replay import ReplayTransport
from ocidist.redaction import SECRETS
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.credentials import Credential, StaticCredentials
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from tests.parts import secrets, watched
from tests.parts.required import require
from tests.parts.scripted import ScriptedResponse, ScriptedTransport

URL = "https://registry.example/v2/demo/shop/tags/list"


def utf16(secret: str) -> bytes:
    return json.dumps({"token": secret}).encode("utf-16")


TOKENS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda secret: json.dumps({"token": secret}).encode(),
    "key escaped": lambda secret: b'{"\\u0074oken": "%s"}' % secret.encode(),
    "key escaped in capitals": lambda secret: b'{"access\\u005FTOKEN": "%s"}' % secret.encode(),
    "UTF-16": utf16,
    "UTF-16 without a mark": lambda secret: json.dumps({"token": secret}).encode("utf-16-be"),
    "UTF-32": lambda secret: json.dumps({"token": secret}).encode("utf-32"),
    "byte order mark": lambda secret: b"\xef\xbb\xbf" + json.dumps({"token": secret}).encode(),
    "two keys": lambda secret: b'{"token": "%s", "token": "short"}' % secret.encode(),
    "value escaped": lambda secret: b'{"token": "%s"}' % "".join(f"\\u{ord(c):04x}" for c in secret).encode(),
    "a list": lambda secret: json.dumps({"token": ["x", {"y": secret}]}).encode(),
}


def texts(recorder: Recorder, folder: Path) -> Iterator[bytes]:
    """All that is written of what was recorded."""
    with warnings.catch_warnings(record=True):
        recorder.save_cassette(folder / "x.json")
    yield recorder.trace.to_har().encode()
    yield recorder.trace.to_jsonl().encode()
    yield recorder.trace._repr_html_().encode()
    yield repr(recorder.trace).encode()
    yield repr(recorder.exchanges).encode()
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


@pytest.mark.parametrize("form", list(TOKENS))
@pytest.mark.parametrize("pinned", [False, True])
def test_i81_b29_a_token_is_in_no_recording_however_it_came(form: str, pinned: bool, tmp_path: Path) -> None:
    """Nor where the answer claims to be content by its digest, nor in an exchange before or after."""
    secret = secrets.make("tok")
    body = TOKENS[form](secret)
    names = [("Docker-Content-Digest", str(Digest.of(body)))] if pinned else []
    recorder = Recorder(
        ScriptedTransport(
            [
                ScriptedResponse(200, f"before {secret}".encode()),
                ScriptedResponse(200, body, names),
                ScriptedResponse(404, quote(f"no {secret}".encode()).encode()),
            ]
        )
    )
    for url in (URL, "https://auth.example/token?service=x", URL):
        recorder.send(Request("GET", url), Scope()).read(1 << 20)
    assert not any(map(watched.shows_a_secret, texts(recorder, tmp_path)))
    if not pinned:
        replay = ReplayTransport.load(tmp_path / "x.json")
        again = replay.send(Request("GET", "https://auth.example/token?service=x"), Scope()).read(1 << 20)
        assert json.loads(again)


@pytest.mark.parametrize("size", [100, 100 << 10, 1500 << 10])
@pytest.mark.parametrize("bodies", [True, False])
def test_i81_a_secret_that_is_cut_by_chunks_is_found(size: int, bodies: bool, tmp_path: Path) -> None:
    """The body is looked at as a whole, also one that went to a file."""
    from ocidist.net.recording import Trace

    secret = secrets.make("cut")
    head, tail = f"{'x' * size} {secret[:9]}".encode(), f"{secret[9:]} {'y' * size}".encode()
    trace = Trace(bodies=bodies)
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, [head, tail])]), trace)
    response = recorder.send(Request("GET", URL, Headers([("X-Key", secret)])), Scope())
    while response.readinto(memoryview(bytearray(len(head)))):
        pass
    response.close()
    found = [recorder.trace.to_har().encode(), recorder.trace.to_jsonl().encode()]
    if bodies:
        found = list(texts(recorder, tmp_path))
        assert any(b"y" * 50 in text for text in found), "the rest of it is there"
    assert not any(map(watched.shows_a_secret, found))


@pytest.mark.parametrize("size", [10, 300 << 10])
def test_i81_content_with_a_secret_is_left_out_of_a_cassette(size: int, tmp_path: Path) -> None:
    """Changed bytes would have another digest. Who records is told, and the rest is there."""
    secret = secrets.make("content")
    layer = bytes(range(256)) * (size // 256) + secret.encode("utf-16-le") + b"\xff\x00"
    manifest = json.dumps(
        {"annotations": {"x": base64.b64encode(f"bob:{secret}".encode()).decode()}}
    ).encode()
    requests = [
        Request("GET", f"https://registry.example/v2/demo/blobs/{Digest.of(layer)}"),
        Request("GET", "https://registry.example/v2/demo/manifests/1"),
        Request("GET", URL),
    ]
    named = [("Docker-Content-Digest", str(Digest.of(manifest)))]
    answers = [
        ScriptedResponse(200, layer),
        ScriptedResponse(200, manifest, named),
        ScriptedResponse(200, b"{}"),
    ]
    recorder = Recorder(ScriptedTransport(answers))
    for request in requests:
        request.headers.set("Authorization", f"Bearer {secret}")
        response = recorder.send(request, Scope())
        while response.readinto(memoryview(bytearray(1 << 16))):
            pass
        response.close()
    with pytest.warns(UserWarning, match="left out GET .*: their bodies show a secret of this session"):
        recorder.save_cassette(tmp_path / "x.json")
    assert not any(map(watched.shows_a_secret, texts(recorder, tmp_path)))
    exchanges = json.loads((tmp_path / "x.json").read_text())["exchanges"]
    assert [exchange["request"]["url"] for exchange in exchanges] == [URL]
    assert [exchange.withheld for exchange in recorder.exchanges] == [True, True, False]


def test_i81_a_password_that_is_the_name_that_was_asked_for_is_a_word(tmp_path: Path) -> None:
    """Else what was recorded could not be asked for again."""
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, b"{}")]))
    basic = base64.b64encode(b"bob:registry").decode()
    recorder.send(Request("GET", URL, Headers([("Authorization", f"Basic {basic}")])), Scope()).read(9)
    replay = ReplayTransport.load(recorder.save_cassette(tmp_path / "x.json"))
    assert replay.send(Request("GET", URL), Scope()).read(9) == b"{}"


def test_i81_configured_headers_and_signatures_are_secrets(tmp_path: Path) -> None:
    """A header that is not one of HTTP's own, a cookie, a signed URL's values, a form's password."""
    found = [secrets.make(label) for label in ("key", "cookie", "sig", "form", "set", "link")]
    echo = " ".join(found).encode()
    headers = Headers([("X-Api-Key", found[0]), ("Cookie", f"a={found[1]}")])
    form = Headers([("Content-Type", "application/x-www-form-urlencoded")])
    answers: list[Any] = [
        ScriptedResponse(307, echo, [("Location", f"https://b.example/?X-Amz-Signature={found[2]}")]),
        ScriptedResponse(200, echo, [("Set-Cookie", f"s={found[4]}; path=/"), ("Server", found[0])]),
        ScriptedResponse(400, echo, [("Link", f"</v2/x?state={found[5]}>; rel=next")], reason=found[3]),
        ScriptedResponse(200, echo),
    ]
    recorder = Recorder(ScriptedTransport(answers))
    for request in (
        Request("GET", URL, headers),
        Request("GET", f"https://b.example/?X-Amz-Signature={found[2]}"),
        Request("POST", "https://auth.example/token", form, f"password={found[3]}&service=x".encode()),
        Request("GET", f"https://registry.example/v2/x?state={found[5]}"),
    ):
        recorder.send(request, Scope()).read(1 << 20)
    assert not any(map(watched.shows_a_secret, texts(recorder, tmp_path)))


# -- the program against such a server ---------------------------------------------------------------


class Echo(BaseHTTPRequestHandler):
    """Wants a token, and then says what it was told in the way that the repository's name tells."""

    protocol_version = "HTTP/1.1"
    told: list[str]  # of the server: what it knows

    def do_GET(self) -> None:
        server: Any = self.server
        host = f"127.0.0.1:{server.server_address[1]}"
        sent = self.headers.get("Authorization", "")
        if self.path.startswith("/token"):
            basic = sent.partition(" ")[2]
            server.told[:] = [basic, base64.b64decode(basic).decode().partition(":")[2], server.token]
            self.say(200, utf16(server.token))
            return
        if not sent.startswith("Bearer "):
            self.say(401, b"", ("WWW-Authenticate", f'Bearer realm="http://{host}/token",service="x"'))
            return
        basic, password, token = server.told
        shown = " ".join([quote(password, safe=""), token, basic])
        name = self.path.split("/")[2]
        if name == "reason":
            self.say(400, b"", reason=shown)
        elif name == "header-name":
            self.say(400, b"", (token, "1"), (f"X-{quote(password, safe='')}", "1"))
        elif name == "header-value":
            self.say(400, b"", ("Server", shown), ("Docker-Distribution-Api-Version", shown))
        elif name == "error":
            errors = [{"code": "DENIED", "message": f"{password} {basic}"}, {"code": token, "message": "x"}]
            self.say(403, json.dumps({"errors": errors}).encode())
        elif name == "text":
            self.say(503, "".join(f"\\u{ord(c):04x}" for c in f"{password} {token}").encode())
        elif name == "redirect":
            self.say(307, b"", ("Location", f"ftp://{token}.example/{quote(password)}?{token}"))
        elif name == "redirected" and "there" not in self.path:
            self.say(307, b"", ("Location", f"http://{host}/v2/redirected/there/{token}/{quote(password)}"))
        elif name == "tag":
            self.say(
                200, json.dumps({"tags": [token, base64.b64encode(password.encode()).decode()]}).encode()
            )
        elif name == "link" and "last" not in self.path:
            self.say(
                200,
                b'{"tags": ["a"]}',
                ("Link", f'</v2/link/{token}?n=1&last={quote(password)}>; rel="next"'),
            )
        elif name == "malformed":
            self.wfile.write(f"HTTP/1.1 200 OK\r\n{token} {password}\r\n\r\n".encode())
            self.close_connection = True
        else:
            self.say(404, shown.encode(), ("Content-Type", "text/plain"))

    def say(self, status: int, body: bytes, *headers: tuple[str, str], reason: str | None = None) -> None:
        self.send_response(status, reason)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


WAYS = ["reason", "header-name", "header-value", "error", "text", "redirect", "redirected", "tag", "link", "malformed", "body"]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_i81_a_server_that_says_secrets_back_is_not_repeated(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In no cassette, HAR, line of JSON, error or log. (Logs and errors are seen by the watch over the run.)"""
    require("threads")
    monkeypatch.setattr("ocidist.scope.Scope.sleep", lambda scope, seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.token, server.told = secrets.make("bearer"), []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        root = [
            "--root",
            str(tmp_path / "root"),
            "--timeout",
            "20s",
            "-u",
            f"bob:{secrets.make('pass word ')}",
        ]
        files = ["--record", str(tmp_path / "x.json"), "--trace", str(tmp_path / "x.har")]
        code = main([*root, *files, "tags", f"127.0.0.1:{server.server_address[1]}/{way}"])
        main(
            [
                *root,
                "--trace",
                str(tmp_path / "x.jsonl"),
                "tags",
                f"127.0.0.1:{server.server_address[1]}/{way}",
            ]
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert code == (0 if way == "tag" else 1)
    assert not watched.shows_a_secret(capsys.readouterr().err)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "root" not in path.parts]
    assert {path.name for path in written} >= {"x.json", "x.har", "x.jsonl"}
    for path in written:
        assert not watched.shows_a_secret(path.read_bytes()), path.name


@pytest.mark.parametrize("at", range(0, 560, 8))
def test_i81_no_secret_is_cut_before_it_is_found(at: int) -> None:
    """What is shortened for a message is cleaned first: half a secret is not recognised any more."""
    secret = secrets.make("half")
    SECRETS.learn([secret])
    text = "." * at + secret + "." * 600
    bodies = (json.dumps({"errors": [{"code": text, "message": text}]}), json.dumps({"error": text}), text)
    said = [str(wire.error_for("GET", URL, 400, wire.parse_errors(body.encode()))) for body in bodies]
    said += [str(UsageError(quoted(text))), wire.refusal(URL, f"ftp://{text}/{text}")]
    for line in said:
        assert f"half{secrets.MARK[:4]}" not in line
        assert secret[-6:] not in line


def test_i81_debug_shows_no_secret_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Of whatever module, and in tracebacks."""
    from ocidist.cli.streams import log_to_stderr

    secret = secrets.make("debug")
    SECRETS.learn([secret])
    root = logging.getLogger()
    kept, root.handlers, level = root.handlers, [], root.level
    try:
        log_to_stderr()
        try:
            raise ValueError(secret)
        except ValueError:
            logging.getLogger("somebody.else").exception("failed with %s", secret)
    finally:
        root.handlers = kept
        root.setLevel(level)
    said = capsys.readouterr().err
    assert "failed with scrubbed" in said
    assert not watched.shows_a_secret(said)


def test_i81_reprs_of_messages_show_no_secret() -> None:
    """A request's URL may be signed; a header's name may be an echo."""
    secret = secrets.make("repr")
    SECRETS.learn([secret])
    request = Request("GET", f"https://b.example/?sig={secret}", Headers([(secret, secret)]), secret.encode())
    assert not watched.shows_a_secret(f"{request!r} {request.headers!r}")


def test_i81_a_redirect_full_of_signatures_hides_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen hundred of them made it forgotten, and the error showed it where the server said it back."""
    secret = secrets.make("echo")
    signed = "&".join(f"sig{number}=A{number:015d}z" for number in range(1500))
    challenge = ScriptedResponse(401, b"", [("WWW-Authenticate", 'Basic realm="x"')])
    moved = ScriptedResponse(307, b"", [("Location", f"/v2/elsewhere?{signed}")])
    said = ScriptedResponse(400, json.dumps({"errors": [{"code": "X", "message": secret}]}).encode())
    script = ScriptedTransport([challenge, moved, said])

    def send(self: HTTPTransport, request: Request, scope: Scope) -> Any:
        self._prepare(request)
        return script.send(request, scope)

    monkeypatch.setattr(HTTPTransport, "send", send)
    with HTTPTransport() as transport:
        session = RegistrySession(transport, StaticCredentials(Credential("bob", secret)))
        with pytest.raises(RegistryError) as caught:
            session.send(Request("GET", "https://registry.example/v2/"), Scope())
    assert secret not in str(caught.value)
    assert "scrubbed" in str(caught.value)


def test_i74_i81_a_recording_of_hostile_urls_is_cleaned_in_time(tmp_path: Path) -> None:
    """Each value of a URL that looks like a signature was searched for in all that was written, without an end."""
    urls = [
        f"{URL}?" + "&".join(f"sig{number}=A{page}{number:015d}z" for number in range(1500))
        for page in range(9)
    ]
    recorder = Recorder(ScriptedTransport([ScriptedResponse(307, b"", [("Location", url)]) for url in urls]))
    for url in urls:
        recorder.send(Request("GET", url), Scope()).close()
    assert len(recorder.trace._redactor.secrets()) < 1500
    for text in texts(recorder, tmp_path):
        assert b"000000z" not in text
