"""A registry in memory that misbehaves as a script says: the token server, the registry, and the host that it
redirects blob reads to. All three are on loopback; ``ocidist.server.faults`` says what can go wrong."""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from contextlib import ExitStack
from dataclasses import replace
from typing import Callable

from ocidist.server.faults import Reply, misbehave, parse_faults
from ocidist.server.http import Handler, RecordingServer
from ocidist.server.script import Script
from tests.parts import secrets, watched
from tests.parts.images import TestImage, sha256

REPOSITORY = "demo/shop"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")


class FaultyRegistry:
    """``images`` by tag, behind tokens if ``tokens``; blob reads are redirected to another port if ``redirect``.

    ``base`` takes the place of ``/v2`` in its paths.
    """

    def __init__(
        self,
        images: dict[str, TestImage],
        faults: str = "",
        *,
        tokens: bool = False,
        redirect: bool = False,
        base: str = "/v2",
    ) -> None:
        self.path = re.compile(rf"{base}/{REPOSITORY}/(manifests|blobs|tags)/(.+)\Z")
        self.script = Script(parse_faults(faults))
        self.tags = {tag: made.root.raw for tag, made in images.items()}
        self.documents: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.configs: set[str] = set()
        for made in images.values():
            for blob in made.everything().values():
                self._add(blob.media_type, blob.raw)
        self.given: set[str] = set()
        self.signatures: list[str] = []
        self.lock = threading.Lock()
        self.registry = _Server(self, self._registry)
        self.storage = _Server(self, self._storage) if redirect else None
        self.tokens = _Server(self, self._tokens) if tokens else None
        if self.storage is not None:
            self.storage.observer = watched.look_at_request
        self._stack = ExitStack()

    def _add(self, media_type: str, raw: bytes) -> None:
        digest = sha256(raw)
        if "manifest" in media_type or "index" in media_type:
            self.documents[digest] = (media_type, raw)
        else:
            self.blobs[digest] = raw
            if "config" in media_type:
                self.configs.add(digest)

    def __enter__(self) -> FaultyRegistry:
        for server in (self.registry, self.storage, self.tokens):
            if server is not None:
                self._stack.enter_context(server)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def name(self) -> str:
        """What the repository is called by its clients."""
        return f"{self.registry.address}/{REPOSITORY}"

    # -- right answers, with the phase that each belongs to --

    def _registry(self, handler: Handler) -> tuple[str, Reply]:
        match = self.path.match(urllib.parse.unquote(handler.path.partition("?")[0]))
        if match is None:
            return "tags", _document(404, "application/json", b"{}")
        kind, name = match.groups()
        phase, right = getattr(self, f"_{kind}")(handler, name)
        if self.tokens is not None:
            challenge = f'Bearer realm="{self.tokens.url}/token",service="faulty",scope="repository:{REPOSITORY}:pull"'
            right = right.with_header("WWW-Authenticate", challenge)
            sent = (handler.headers.get("Authorization") or "").partition(" ")[2]
            with self.lock:
                if sent not in self.given:
                    refused = _document(401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED"}]}')
                    return "", refused.with_header("WWW-Authenticate", challenge)
        return phase, right

    def _manifests(self, handler: Handler, name: str) -> tuple[str, Reply]:
        phase = "manifest" if ":" in name else "head" if handler.command == "HEAD" else "resolve"
        raw = self.tags[name] if name in self.tags else self.documents.get(name, ("", b""))[1]
        if not raw:
            return phase, _document(404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
        digest = sha256(raw)
        return phase, _document(200, self.documents[digest][0], raw).with_header(
            "Docker-Content-Digest", digest
        )

    def _blobs(self, handler: Handler, digest: str) -> tuple[str, Reply]:
        content = self.blobs.get(digest)
        phase = "config" if digest in self.configs else "layer"
        asked = _RANGE.match(handler.headers.get("Range") or "")
        if asked is not None and phase == "layer":
            phase = "resume"
        if content is None:
            return phase, _document(404, "application/json", b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        if self.storage is not None:
            signature = secrets.make("")
            self.signatures.append(signature)
            there = f"{self.storage.url}/{digest}?X-Signature={signature}"
            return phase, _document(307, "text/plain", b"").with_header("Location", there)
        return phase, _part(content, asked)

    def _tags(self, handler: Handler, name: str) -> tuple[str, Reply]:
        return "tags", _document(
            200, "application/json", json.dumps({"name": REPOSITORY, "tags": sorted(self.tags)}).encode()
        )

    def _storage(self, handler: Handler) -> tuple[str, Reply]:
        content = self.blobs[handler.path.partition("?")[0].lstrip("/")]
        return "redirect", _part(content, _RANGE.match(handler.headers.get("Range") or ""))

    def _tokens(self, handler: Handler) -> tuple[str, Reply]:
        token = secrets.make("")
        with self.lock:
            self.given.add(token)
        return "token", _document(
            200, "application/json", json.dumps({"token": token, "expires_in": 300}).encode()
        )

    def forget_tokens(self) -> None:
        """Take none of the tokens that were given so far."""
        with self.lock:
            self.given.clear()


class _Server(RecordingServer):
    def __init__(self, owner: FaultyRegistry, right: Callable[[Handler], tuple[str, Reply]]) -> None:
        super().__init__()
        self.owner, self.right = owner, right

    def serve(self, handler: Handler) -> None:
        for _ in handler.request_body():
            pass
        phase, reply = self.right(handler)
        fault = self.owner.script.next(phase)
        if fault is not None:
            if fault.kind == "token-expires":
                self.owner.forget_tokens()
            reply = misbehave(fault, reply, self.url + handler.path)
        if reply.status < 400:
            reply = reply.with_header("WWW-Authenticate", None)
        handler.send(reply)


def _document(status: int, media_type: str, raw: bytes) -> Reply:
    return Reply(status, (), b"").with_body(status, media_type, raw)


def _part(content: bytes, asked: re.Match[str] | None) -> Reply:
    whole = _document(200, "application/octet-stream", content).with_header("Accept-Ranges", "bytes")
    if asked is None:
        return whole
    first = int(asked[1])
    last = min(int(asked[2]) if asked[2] else len(content) - 1, len(content) - 1)
    if first > last:
        return _document(416, "text/plain", b"").with_header("Content-Range", f"bytes */{len(content)}")
    part = whole.with_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
    part = part.with_header("Content-Length", str(last + 1 - first))
    return replace(part, status=206, start=first, end=last + 1)
