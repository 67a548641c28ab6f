"""Debian's ``docker-registry`` on loopback, with a counting front before it and a blob host behind its redirects."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.parse
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from ocidist.server.http import BLOCK, Handler, RecordingServer
from tests.parts import secrets, watched
from tests.parts.ca import CertificateAuthority
from tests.parts.required import program
from tests.parts.tokens import TokenServer

_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_NONCE = "X-Test-Nonce"
_SIGNING_KEY = b"a key for tests alone"


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def signed(path: str) -> str:
    """``path`` with a query that looks like, and is checked like, a signed URL of an object store."""
    mac = hmac.new(_SIGNING_KEY, path.encode(), hashlib.sha256).hexdigest()
    return f"{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=1200&X-Amz-Signature={secrets.MARK}{mac}"


class BlobHost(RecordingServer):
    """Where redirects of blobs lead: serves a registry's storage directory to holders of a signed URL.

    As object stores do, it answers 400 to a request that brings an Authorization header with its signature.
    """

    def __init__(
        self, storage: Path, *, tls: ssl.SSLContext | None = None, public: str | None = None
    ) -> None:
        super().__init__(tls=tls, observer=watched.look_at_request)
        self.storage = storage
        self.public = public or self.url

    def serve(self, handler: Handler) -> None:
        """GET and HEAD of a stored blob, with one range."""
        for _ in handler.request_body():
            pass
        path = handler.path.partition("?")[0]
        found = re.fullmatch(
            r"/docker/registry/v2/blobs/sha\d+/[0-9a-f]{2}/[0-9a-f]+/data", urllib.parse.unquote(path)
        )
        file = self.storage / path.lstrip("/")
        if handler.command not in ("GET", "HEAD"):
            return handler.reply(405)
        if handler.headers.get("Authorization") is not None:
            return handler.reply(400, body=b"<Error><Code>InvalidArgument</Code></Error>")
        if signed(path) != handler.path:
            return handler.reply(403, body=b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if not found or not file.is_file():
            return handler.reply(404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        return self._file(handler, file)

    def _file(self, handler: Handler, file: Path) -> None:
        size = file.stat().st_size
        first, last, status = 0, size - 1, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
        headers = [("Content-Type", "application/octet-stream"), ("Accept-Ranges", "bytes")]
        if wanted:
            first = int(wanted[1])
            last = min(last, int(wanted[2] or last))
            if first > last:
                return handler.reply(416, [("Content-Range", f"bytes */{size}")])
            status = 206
            headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        handler.begin(status, [*headers, ("Content-Length", str(last - first + 1))])
        if handler.command == "GET":
            with file.open("rb") as source:
                source.seek(first)
                handler.write_body(_blocks(source, last - first + 1))
        return None


def _blocks(source: Any, length: int) -> Iterator[bytes]:
    while length > 0:
        block = source.read(min(BLOCK, length))
        if not block:
            return
        length -= len(block)
        yield block


class Front(RecordingServer):
    """A reverse proxy before a registry: counts, slows, cuts, and signs redirects to the blob host."""

    def __init__(
        self, backend: int, *, tls: ssl.SSLContext | None = None, blobs: BlobHost | None = None, port: int = 0
    ) -> None:
        super().__init__(tls=tls, port=port)
        self.backend = backend
        self.blobs = blobs

    def serve(self, handler: Handler) -> None:
        """Pass one request on, and its answer back."""
        connection = http.client.HTTPConnection("127.0.0.1", self.backend, timeout=60)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in _HOP and name.lower() != "expect":
                    connection.putheader(name, value)
            connection.putheader("X-Forwarded-Proto", "https" if self.tls else "http")
            chunked = "Transfer-Encoding" in handler.headers
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            for block in handler.request_body():
                connection.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            if chunked:
                connection.send(b"0\r\n\r\n")
            self._pass_back(handler, connection.getresponse())
        finally:
            connection.close()

    def _pass_back(self, handler: Handler, answer: http.client.HTTPResponse) -> None:
        headers = [
            (name, self._location(value) if name.lower() == "location" else value)
            for name, value in answer.getheaders()
            if name.lower() not in _HOP and name != _NONCE
        ]
        bodiless = handler.command == "HEAD" or answer.status in (204, 304)
        if bodiless or answer.length is not None:
            handler.begin(answer.status, headers)
            if not bodiless:
                handler.write_body(_blocks(answer, answer.length or 0))
        else:
            handler.reply(answer.status, headers, answer.read())

    def _location(self, value: str) -> str:
        if self.blobs is not None and value.startswith(self.blobs.public):
            return self.blobs.public + signed(value[len(self.blobs.public) :])
        return value


class RegistryProcess:
    """A registry that runs while it is entered.

    ``auth`` is none, htpasswd or token (then ``tokens`` is the server of its realm). With ``tls`` it is called
    by https, with a leaf of that authority for ``names`` and loopback. ``front=False`` exposes the process itself,
    uncounted. ``blobs`` makes it redirect blob reads there. ``public`` is the URL the world knows it by.
    """

    def __init__(
        self,
        folder: Path,
        *,
        auth: str = "none",
        users: Mapping[str, str] | None = None,
        tokens: TokenServer | None = None,
        tls: CertificateAuthority | None = None,
        names: Sequence[str] = (),
        front: bool = True,
        blobs: BlobHost | None = None,
        public: str | None = None,
        delete: bool = True,
        storage: Path | None = None,
    ) -> None:
        self.folder = folder
        self.auth, self.users, self.tokens = auth, dict(users or {}), tokens
        self.tls, self.names, self.blobs, self.public, self.delete = tls, names, blobs, public, delete
        self.storage = storage or folder / "storage"
        self._with_front = front
        self._front: Front | None = None
        self._loader: RegistryProcess | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._nonce = os.urandom(8).hex()
        self._backend = 0
        self.log = folder / "registry.log"

    # --- life ---------------------------------------------------------------------------------------------

    def __enter__(self) -> RegistryProcess:
        self.storage.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
            if self._with_front:
                context = self.tls.server_context(self.names) if self.tls else None
                self._front = Front(self._backend, tls=context, blobs=self.blobs)
                self._front.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._loader is not None:
            self._loader.__exit__()
        if self._front is not None:
            self._front.stop()
        self._stop_process()

    def _start(self) -> None:
        for _ in range(8):  # another process may take the port between our look and the registry's bind
            self._backend = free_port()
            config = self.folder / "config.yml"
            config.write_text(json.dumps(self._config(), indent=1))  # JSON is YAML
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [program("docker-registry"), "serve", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
                )
            if self._answers():
                return
            self._stop_process()
        raise RuntimeError(f"docker-registry did not start:\n{self.log.read_text()[-2000:]}")

    def _answers(self) -> bool:
        """Wait until it is our process that answers on the port; False if it ended or took 20 s."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = self._direct()
                try:
                    connection.request("GET", "/v2/")
                    answer = connection.getresponse()
                    if answer.getheader(_NONCE) == self._nonce:
                        return True
                finally:
                    connection.close()
            time.sleep(0.02)
        return False

    def _direct(self) -> http.client.HTTPConnection:
        if self.tls is not None and not self._with_front:
            return http.client.HTTPSConnection(
                "127.0.0.1", self._backend, timeout=5, context=self.tls.client_context()
            )
        return http.client.HTTPConnection("127.0.0.1", self._backend, timeout=5)

    def _stop_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process = None

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage), "maxthreads": 100},
                "delete": {"enabled": self.delete},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {
                "addr": f"127.0.0.1:{self._backend}",
                "secret": "shared by a registry and its loader",
                "headers": {_NONCE: [self._nonce], "X-Content-Type-Options": ["nosniff"]},
            },
        }
        if self.public:
            config["http"]["host"] = self.public
        if self.tls is not None and not self._with_front:
            certificate, key = self.tls.leaf(self.names)
            config["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
        if self.blobs is not None:
            options = {"baseurl": self.blobs.public}
            config["middleware"] = {"storage": [{"name": "redirect", "options": options}]}
        if self.auth == "htpasswd":
            config["auth"] = {"htpasswd": {"realm": "test registry", "path": str(self._htpasswd())}}
        elif self.auth == "token":
            assert self.tokens is not None, "token authentication needs a token server"
            config["auth"] = {
                "token": {
                    "realm": self.tokens.realm,
                    "service": self.tokens.service,
                    "issuer": "ocidist test tokens",
                    "rootcertbundle": str(self.tokens.signer.bundle),
                }
            }
        elif self.auth != "none":
            raise ValueError(f"no such authentication: {self.auth}")
        return config

    def _htpasswd(self) -> Path:
        path = self.folder / "htpasswd"
        lines = [
            subprocess.run(
                [program("htpasswd"), "-niBC", "4", user],
                input=password.encode(),
                check=True,
                capture_output=True,
            ).stdout.strip()
            for user, password in self.users.items()
        ]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    # --- use ----------------------------------------------------------------------------------------------

    @property
    def front(self) -> Front:
        """The counting proxy; its records are what clients asked."""
        assert self._front is not None, "this registry runs without a front, or not at all"
        return self._front

    @property
    def port(self) -> int:
        """The port that clients use."""
        return self._front.port if self._front is not None else self._backend

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, the domain of references to it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """``http(s)://127.0.0.1:PORT``."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def loader(self) -> RegistryProcess:
        """A second registry on the same storage: no authentication, http, uncounted. For filling it."""
        if self._loader is None:
            loader = RegistryProcess(self.folder / "loader", storage=self.storage, front=False)
            self._loader = loader.__enter__()
        return self._loader

    @property
    def pid(self) -> int:
        """The process id of the registry."""
        assert self._process is not None
        return self._process.pid

    def stored_blobs(self) -> dict[str, Path]:
        """Digest -> data file of every blob in the storage."""
        root = self.storage / "docker/registry/v2/blobs"
        return {f"{p.parts[-4]}:{p.parts[-2]}": p for p in sorted(root.glob("*/*/*/data"))}


def redirecting_registry(
    folder: Path, *, tls: CertificateAuthority | None = None, **options: Any
) -> contextlib.AbstractContextManager[tuple[RegistryProcess, BlobHost]]:
    """A registry whose blob reads are answered 307 to another port, and the server there."""

    @contextlib.contextmanager
    def run() -> Iterator[tuple[RegistryProcess, BlobHost]]:
        storage = folder / "storage"
        context = tls.server_context() if tls else None
        with (
            BlobHost(storage, tls=context) as blobs,
            RegistryProcess(folder, tls=tls, blobs=blobs, storage=storage, **options) as registry,
        ):
            yield registry, blobs

    return run()
