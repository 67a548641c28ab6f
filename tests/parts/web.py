"""An HTTP(S) server on loopback that records what it is asked and can be told to misbehave.

The registry's front, the blob host and the token server are all one of these. A test says how it misbehaves:
``rate`` slows bodies, ``cut`` ends a connection at a byte, ``gate`` holds a body at a byte until the test has
done what it came for, ``answer`` replies in the server's place.
"""

from __future__ import annotations

import collections
import http.server
import re
import socket
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator

from tests.parts import watched

BLOCK = 256 * 1024
_V2_BLOB = re.compile(r"/blobs/(sha\d+):([0-9a-f]+)$")
_STORED_BLOB = re.compile(r"/blobs/(sha\d+)/[0-9a-f]{2}/([0-9a-f]+)/data$")


@dataclass(frozen=True)
class Record:
    """One exchange as the server saw it; ``sent`` counts the body bytes handed to the socket."""

    method: str
    target: str
    status: int
    request_headers: tuple[tuple[str, str], ...]
    response_headers: tuple[tuple[str, str], ...]
    received: int
    sent: int
    complete: bool
    connection: int
    at: float = 0.0
    """When it began, by the monotonic clock."""

    def header(self, name: str) -> str | None:
        """The first request header of that name."""
        return next((value for key, value in self.request_headers if key.lower() == name.lower()), None)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def digest(self) -> str | None:
        """The blob this exchange is about, in the registry's spelling or the storage's."""
        found = _V2_BLOB.search(self.path) or _STORED_BLOB.search(self.path)
        return f"{found[1]}:{found[2]}" if found else None

    @property
    def start(self) -> int:
        """Where the body that was sent begins within the blob."""
        value = next((v for k, v in self.response_headers if k.lower() == "content-range"), "")
        found = re.match(r"bytes (\d+)-", value)
        return int(found[1]) if found and self.status == 206 else 0


@dataclass
class Gate:
    """A body held at a byte: wait for ``reached``, do the deed, then ``open()``."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: list[Callable[[int], None]] = field(default_factory=list)

    def open(self) -> None:
        """Let the body go on. Its exchange is under way again when this returns, whenever its thread wakes."""
        with self._lock:
            held, self._held = self._held, []
            for busy in held:
                busy(1)
            self.opened.set()

    def hold(self, busy: Callable[[int], None]) -> None:
        """What the server's thread does at the gate: wait, not counted as ``busy``; two minutes open any gate."""
        with self._lock:
            if not self.opened.is_set():
                busy(-1)
                self._held.append(busy)
        self.reached.set()
        if not self.opened.wait(120):
            self.open()


@dataclass
class Rule:
    """What happens to the next ``times`` exchanges that match (None: to all)."""

    method: str
    pattern: re.Pattern[str]
    times: int | None
    at: int = 0
    gate: Gate | None = None
    cut: bool = False
    answer: tuple[int, dict[str, str], bytes] | None = None


class Dropped(ConnectionError):
    """The connection was ended on purpose, or the client went away."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: reads a request, lets the server's rules and then ``server.serve`` answer it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: RecordingServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # gone clients, failed handshakes, cut connections
            self.close_connection = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._any
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Records take the place of log lines."""

    def send_response(self, code: int, message: str | None = None) -> None:
        self.send_response_only(code, message)

    def _any(self) -> None:
        self.status, self.sent, self.received = 0, 0, 0
        self.answer_headers: list[tuple[str, str]] = []
        self.rules = self.server.take(self.command, self.path)
        complete = False
        began = time.monotonic()
        self.server.busy(1)
        try:
            answered = next((rule.answer for rule in self.rules if rule.answer is not None), None)
            if answered is not None:
                for _ in self.request_body():
                    pass
                self.reply(answered[0], answered[1].items(), answered[2])
            else:
                self.server.serve(self)
            complete = True
        except OSError:
            self.close_connection = True
        finally:
            self.server.note(
                Record(
                    self.command,
                    self.path,
                    self.status,
                    tuple((str(k), str(v)) for k, v in self.headers.items()),
                    tuple(self.answer_headers),
                    self.received,
                    self.sent,
                    complete,
                    id(self.connection),
                    began,
                )
            )

    def request_body(self) -> Iterator[bytes]:
        """The request's body in blocks, whether counted or chunked."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            while True:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline(8192).strip():
                        pass
                    return
                yield from self._exactly(size)
                self.rfile.readline(8)
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            block = self.rfile.read(min(size, BLOCK))
            if not block:
                raise Dropped("the request's body ended early")
            size -= len(block)
            self.received += len(block)
            yield block

    def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the status line and ``headers``."""
        self.status, self.answer_headers = status, list(headers)
        self.send_response(status)
        for name, value in self.answer_headers:
            self.send_header(name, value)
        self.end_headers()

    def reply(self, status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """A whole answer; HEAD gets its length alone."""
        self.begin(status, [*headers, ("Content-Length", str(len(body)))])
        if self.command != "HEAD":
            self.write_body([body])

    def write_body(self, blocks: Iterable[bytes]) -> None:
        """The answer's body, as slow, as late and as short as the rules say."""
        stops = sorted((r for r in self.rules if r.cut or r.gate), key=lambda rule: rule.at)
        for block in blocks:
            view = memoryview(block)
            while len(view) or (stops and stops[0].at <= self.sent):
                if stops and stops[0].at <= self.sent:
                    self._stop(stops.pop(0))
                    continue
                room = stops[0].at - self.sent if stops else len(view)
                self._send(view[: min(room, len(view))])
                view = view[min(room, len(view)) :]

    def _stop(self, rule: Rule) -> None:
        if rule.gate is not None:
            rule.gate.hold(self.server.busy)
        if rule.cut:
            self.server.drop(self.connection)
            raise Dropped("cut by a rule")

    def _send(self, view: memoryview) -> None:
        rate = self.server.rate
        step = len(view) if not rate else max(1, min(len(view), int(rate / 20)))
        while len(view):
            self.wfile.write(view[:step])
            self.sent += min(step, len(view))
            view = view[step:]
            if rate:
                time.sleep(step / rate)


class RecordingServer(http.server.ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 while it is entered; ``serve`` is what a subclass answers."""

    daemon_threads = True
    block_on_close = False
    trusted = True  # False: no header of any request here may hold a secret, and the run is watched for that
    request_queue_size = 256

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.tls = tls
        self.rate: float | None = None
        self._rules: list[Rule] = []
        self._records: list[Record] = []
        self._lock = threading.Lock()
        self._busy = 0
        self._idle = threading.Condition(self._lock)
        self._open: set[socket.socket] = set()
        self._thread: threading.Thread | None = None
        self.connections = 0

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Answer from now on."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        for rule in self._rules:
            if rule.gate is not None:
                rule.gate.open()
        if self._thread is not None:
            self.shutdown()
            self._thread.join(5)
        self.server_close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            self.drop(connection)

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls is not None:  # the handshake happens in the connection's own thread, at its first read
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self.connections += 1
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is the client's to report; a broken handler shows as a dropped exchange."""

    def drop(self, connection: socket.socket) -> None:
        """End ``connection`` under its reader, without a TLS goodbye."""
        try:
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError:
            pass

    def serve(self, handler: Handler) -> None:
        """Answer one request."""
        handler.reply(404)

    # --- addresses ----------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """``http(s)://127.0.0.1:PORT``."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    # --- rules --------------------------------------------------------------------------------------------

    def _rule(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def cut(self, pattern: str, at: int, *, times: int | None = 1, method: str = "GET") -> None:
        """End the connection after byte ``at`` of the next ``times`` bodies whose target matches."""
        self._rule(Rule(method, re.compile(pattern), times, at=at, cut=True))

    def gate(self, pattern: str, at: int, *, times: int | None = 1, method: str = "GET") -> Gate:
        """Hold the next matching body after byte ``at``."""
        gate = Gate()
        self._rule(Rule(method, re.compile(pattern), times, at=at, gate=gate))
        return gate

    def answer(
        self,
        pattern: str,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        times: int | None = 1,
        method: str = "GET",
    ) -> None:
        """Answer the next ``times`` matching requests with this instead."""
        self._rule(Rule(method, re.compile(pattern), times, answer=(status, headers or {}, body)))

    def clear_rules(self) -> None:
        """Behave again."""
        with self._lock:
            self._rules.clear()
            self.rate = None

    def take(self, method: str, target: str) -> list[Rule]:
        """The rules that apply to this exchange, each used once."""
        taken: list[Rule] = []
        with self._lock:
            for rule in self._rules:
                if rule.method == method and rule.times != 0 and rule.pattern.search(target):
                    taken.append(rule)
                    rule.times = None if rule.times is None else rule.times - 1
        return taken

    # --- records ------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """Keep a finished exchange."""
        if not self.trusted:
            watched.look(repr(record.request_headers), f"a request to {type(self).__name__}")
        with self._lock:
            self._records.append(record)
        self.busy(-1)

    def busy(self, change: int) -> None:
        """Count exchanges under way; one that waits at a gate is not."""
        with self._idle:
            self._busy += change
            self._idle.notify_all()

    @property
    def records(self) -> list[Record]:
        """All exchanges that have ended, in that order.

        A client has its answer a moment before the exchange ends here: those under way get up to 2 s.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=2)
            return list(self._records)

    def forget(self) -> None:
        """Start counting anew."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=2)
            self._records.clear()

    def select(self, test: Callable[[Record], bool]) -> list[Record]:
        """Those records that pass ``test``."""
        return [record for record in self.records if test(record)]

    def downloads(self) -> collections.Counter[str]:
        """For each blob digest the number of GETs that sent its content (200 or 206)."""
        return collections.Counter(
            r.digest for r in self.records if r.method == "GET" and r.digest and r.status in (200, 206)
        )

    def downloaded_bytes(self) -> collections.Counter[str]:
        """For each blob digest the content bytes handed to clients."""
        counted: collections.Counter[str] = collections.Counter()
        for record in self.records:
            if record.method == "GET" and record.digest and record.status in (200, 206):
                counted[record.digest] += record.sent
        return counted

    def authorizations(self) -> list[str]:
        """Every Authorization header that this host was given."""
        return [value for r in self.records if (value := r.header("Authorization")) is not None]


def query(target: str) -> dict[str, list[str]]:
    """The query of a request target, each name with its values."""
    return urllib.parse.parse_qs(target.partition("?")[2], keep_blank_values=True)
