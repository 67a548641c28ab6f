"""A registry in memory, for tests of the client: a Transport that is a function, and a Scope that never sleeps."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any, Callable, Iterable, Union
from urllib.parse import parse_qs, urlsplit

from ocidist.errors import TransportError
from ocidist.net.message import Request, Response
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.digest import Digest
from tests.parts import secrets
from tests.parts.scripted import ScriptedResponse

PASSWORD = secrets.make("s3cret")

Handler = Callable[[Request], Union[Response, BaseException]]


class QuickScope(Scope):
    """Remembers how long it was asked to sleep, and what was reported, and sleeps not at all."""

    def __init__(self, **options: Any) -> None:
        self.slept: list[float] = []
        self.events: list[Any] = []
        super().__init__(observer=self.events.append, **options)

    def sleep(self, seconds: float) -> None:
        self.check()
        self.slept.append(seconds)


class FunctionTransport:
    """Answers each request by a function; what it returns as an exception is raised. Keeps the requests."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self._lock = threading.Lock()

    def send(self, request: Request, scope: Scope) -> Response:
        scope.check()
        with self._lock:
            self.requests.append(request)
        answer = self.handler(request)
        if isinstance(answer, BaseException):
            raise answer
        answer.url = request.url
        return answer

    @property
    def lines(self) -> list[str]:
        """``METHOD URL`` of every request."""
        return [f"{request.method} {request.url}" for request in self.requests]


class FakeRegistry:
    """What a registry holds, and how it is guarded: ``guard`` is "", "basic" or "bearer".

    ``host`` is where it answers. Blobs may be cut (``drops``: bytes of the k-th answer), or redirected.
    """

    def __init__(self, host: str = "registry.example", *, guard: str = "", scheme: str = "https") -> None:
        self.host, self.guard, self.scheme = host, guard, scheme
        self.manifests: dict[str, tuple[str, bytes]] = {}  # tag or digest -> type, bytes
        self.blobs: dict[str, bytes] = {}
        self.users = {"ann": PASSWORD}
        self.realm = "https://auth.example/token"
        self.tokens_given = 0
        self.valid: dict[str, set[str]] = {}  # token -> scopes
        self.drops: list[int] = []
        self.ranges = True
        self.redirect_to = ""
        self.transport = FunctionTransport(self.answer)

    # -- content --

    def add_blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.blobs[digest] = data
        return digest

    def add_manifest(self, members: dict[str, Any], *tags: str, media_type: str = "") -> Digest:
        media_type = media_type or members.get("mediaType", mediatype.OCI_MANIFEST)
        raw = json.dumps({"schemaVersion": 2, **members}).encode()
        digest = Digest.of(raw)
        for name in (digest, *tags):
            self.manifests[name] = (media_type, raw)
        return digest

    def session(self, credentials: Any = None, **options: Any) -> RegistrySession:
        return RegistrySession(self.transport, credentials, jitter=lambda: 0.5, **options)

    # -- answers --

    def answer(self, request: Request) -> Response | BaseException:
        parts = urlsplit(request.url)
        if request.url.startswith(self.realm):
            return self.token(request)
        if parts.netloc != self.host or parts.scheme != self.scheme:
            return self.elsewhere(request)
        refused = self.refusal(request)
        if refused is not None:
            return refused
        path = parts.path
        if path == "/v2/":
            return ScriptedResponse(200, b"{}")
        kind, _, name = path.rpartition("/")[0].rpartition("/")[2], "", path.rpartition("/")[2]
        if kind == "manifests":
            return self.manifest(request, name)
        if kind == "blobs":
            return self.blob(request, name)
        return missing()

    def elsewhere(self, request: Request) -> Response | BaseException:
        return TransportError(urlsplit(request.url).netloc, "no such host", False)

    def manifest(self, request: Request, name: str) -> Response:
        if name not in self.manifests:
            return missing("MANIFEST_UNKNOWN")
        media_type, raw = self.manifests[name]
        headers = [("Content-Type", media_type), ("Docker-Content-Digest", Digest.of(raw))]
        headers.append(("Content-Length", str(len(raw))))
        return ScriptedResponse(200, b"" if request.method == "HEAD" else raw, headers)

    def blob(self, request: Request, name: str) -> Response:
        if name not in self.blobs:
            return missing("BLOB_UNKNOWN")
        if self.redirect_to:
            return ScriptedResponse(307, headers=[("Location", self.redirect_to + name)])
        return self.content(request, self.blobs[name])

    def content(self, request: Request, data: bytes) -> Response:
        if request.method == "HEAD":
            return ScriptedResponse(200, headers=[("Content-Length", str(len(data)))], announced=None)
        asked = request.headers.get("Range")
        start, status, headers = 0, 200, []
        end = len(data)
        if asked is not None and self.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(data)
            if start >= len(data):
                return ScriptedResponse(416, headers=[("Content-Range", f"bytes */{len(data)}")])
            status, headers = 206, [("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")]
        part = data[start:end]
        kept = self.drops.pop(0) if self.drops else len(part)
        return ScriptedResponse(status, part[:kept], headers, announced=len(part))

    # -- guards --

    def refusal(self, request: Request) -> Response | None:
        sent = request.headers.get("Authorization", "") or ""
        if self.guard == "basic" and self.user_of(sent) is None:
            return unauthorized('Basic realm="registry"')
        if self.guard == "bearer":
            wanted = self.scope_of(request)
            held = self.valid.get(sent.removeprefix("Bearer "))
            if held is None or (wanted and not any(covers(one, wanted) for one in held)):
                scope = f',scope="{wanted}"' if wanted else ""
                return unauthorized(f'Bearer realm="{self.realm}",service="{self.host}"{scope}')
        return None

    def scope_of(self, request: Request) -> str:
        path = urlsplit(request.url).path.removeprefix("/v2/")
        if path.startswith("_catalog"):
            return "registry:catalog:*"
        for end in ("/manifests/", "/blobs/", "/tags/"):
            if end in path:
                return f"repository:{path.partition(end)[0]}:pull"
        return ""

    def user_of(self, header: str) -> str | None:
        if not header.startswith("Basic "):
            return None
        user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        return user if self.users.get(user) == password else None

    def token(self, request: Request) -> Response:
        sent = request.headers.get("Authorization")
        if sent is not None and self.user_of(sent) is None:
            return ScriptedResponse(401, b'{"details":"incorrect username or password"}')
        return self.give(parse_qs(urlsplit(request.url).query).get("scope", []))

    @staticmethod
    def token_of(number: int) -> str:
        """The token that is given as that one."""
        return f"token-{secrets.MARK}-{number}"

    def give(self, scopes: Iterable[str], **extra: Any) -> Response:
        self.tokens_given += 1
        value = self.token_of(self.tokens_given)
        self.valid[value] = set(scopes)
        return ScriptedResponse(200, json.dumps({"token": value, "expires_in": 300, **extra}).encode())


def covers(held: str, wanted: str) -> bool:
    """True where a held scope gives all actions of a wanted one."""
    resource, _, actions = held.rpartition(":")
    needed_of, _, needed = wanted.rpartition(":")
    return resource == needed_of and set(needed.split(",")) <= set(actions.split(","))


def unauthorized(challenge: str, status: int = 401, code: str = "UNAUTHORIZED") -> ScriptedResponse:
    body = json.dumps({"errors": [{"code": code, "message": "authentication required"}]}).encode()
    return ScriptedResponse(status, body, [("WWW-Authenticate", challenge)])


def missing(code: str = "NAME_UNKNOWN") -> ScriptedResponse:
    body = json.dumps({"errors": [{"code": code, "message": "not here"}]}).encode()
    return ScriptedResponse(404, body)


def read(body: Any, block: int = 7) -> bytes:
    """Everything that a body gives, in small reads."""
    data = bytearray()
    buffer = bytearray(block)
    while count := body.readinto(memoryview(buffer)):
        data += buffer[:count]
    body.close()
    return bytes(data)
