"""Serve HTTP/1.1 on a port of loopback, record every exchange, and misbehave on request.

A caller bends the answers by rules: ``rate`` slows bodies, ``cut`` ends a connection at a byte, ``gate`` holds a body
at a byte, ``answer`` takes the place of the right answer. :meth:`Handler.send` writes a :class:`Reply` with its faults.
"""

from __future__ import annotations

import collections
import http.server
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from typing import Any, Callable, Iterable, Iterator

from ocidist.server.faults import Reply
from ocidist.server.records import Gate, Record, Rule

__all__ = ["BLOCK", "Dropped", "Handler", "RecordingServer", "query"]

BLOCK = 256 * 1024


class Dropped(ConnectionError):
    """Raised where a rule, a fault or the client ended the connection."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Read the requests of one connection; a rule of the server or ``server.serve`` answers each."""

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
        """Write no log line: the server keeps records."""

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
        """Yield the request's body in blocks, with a Content-Length or chunked."""
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
        """Write the status line and ``headers``."""
        self.status, self.answer_headers = status, list(headers)
        self.send_response(status)
        for name, value in self.answer_headers:
            self.send_header(name, value)
        self.end_headers()

    def reply(self, status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Write a whole answer; to HEAD, without the body."""
        self.begin(status, [*headers, ("Content-Length", str(len(body)))])
        if self.command != "HEAD":
            self.write_body([body])

    def write_body(self, blocks: Iterable[bytes], rate: float | None = None) -> None:
        """Write the answer's body, held and cut by the rules, at ``rate`` or the server's bytes per second."""
        stops = sorted((r for r in self.rules if r.cut or r.gate), key=lambda rule: rule.at)
        for block in blocks:
            view = memoryview(block)
            while len(view) or (stops and stops[0].at <= self.sent):
                if stops and stops[0].at <= self.sent:
                    self._stop(stops.pop(0))
                    continue
                room = stops[0].at - self.sent if stops else len(view)
                self._write(view[: min(room, len(view))], rate or self.server.rate)
                view = view[min(room, len(view)) :]

    def _stop(self, rule: Rule) -> None:
        if rule.gate is not None:
            rule.gate.hold(self.server.busy)
        if rule.cut:
            self.server.drop(self.connection)
            raise Dropped("cut by a rule")

    def _write(self, view: memoryview, rate: float | None) -> None:
        step = len(view) if not rate else max(1, min(len(view), int(rate / 20)))
        while len(view):
            self.wfile.write(view[:step])
            self.sent += min(step, len(view))
            view = view[step:]
            if rate:
                time.sleep(step / rate)

    def send(self, reply: Reply) -> None:
        """Write ``reply`` with its faults. Raises Dropped where a fault ends the connection."""
        if reply.raw is not None:
            self.connection.sendall(reply.raw)
        else:
            headers = list(reply.headers)
            if reply.ends_at is not None and reply.header("Content-Length") is None:
                headers.append(("Connection", "close"))
            self.begin(reply.status, headers)
            if self.command == "HEAD":
                return
            ends = [end for end in (reply.ends_at, reply.stalls_at) if end is not None]
            self.write_body([reply.body[: min(ends)] if ends else reply.body], reply.rate)
        self._repeat(reply.for_ever, reply.rate)
        if reply.stalls_at is not None:
            self.connection.settimeout(120)
            self.connection.recv(1)  # until the client gives up
        if reply.raw is None and reply.ends_at is None and reply.stalls_at is None:
            return
        if reply.resets:  # a reset discards what the kernel still holds
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.server.drop(self.connection)
        raise Dropped("cut by a fault")

    def _repeat(self, block: bytes, rate: int | None) -> None:
        """Write ``block`` again and again, until the client closes, for up to a minute."""
        until = time.monotonic() + 60
        step = max(rate // 20, 1) if rate else 1 << 16
        if not rate:
            block *= max(step // max(len(block), 1), 1)
        while block and time.monotonic() < until:
            for at in range(0, len(block), step):
                self.connection.sendall(block[at : at + step])
                if rate:
                    time.sleep(step / rate)


class RecordingServer(http.server.ThreadingHTTPServer):
    """Listen on 127.0.0.1 while entered, each connection in a thread; a subclass answers in ``serve``.

    Port 0 is any free port. ``observer`` is called with the record of each exchange.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        observer: Callable[[Record], None] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.tls, self.observer = tls, observer
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
        """Start to answer."""
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
        """Report nothing: clients report broken connections, and records show incomplete exchanges."""

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
        """Return the port listened on."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Return ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Return ``http(s)://127.0.0.1:PORT``."""
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
        """Drop all rules and the rate."""
        with self._lock:
            self._rules.clear()
            self.rate = None

    def take(self, method: str, target: str) -> list[Rule]:
        """Return the rules for this exchange, and count one use of each."""
        taken: list[Rule] = []
        with self._lock:
            for rule in self._rules:
                if rule.method == method and rule.times != 0 and rule.pattern.search(target):
                    taken.append(rule)
                    rule.times = None if rule.times is None else rule.times - 1
        return taken

    # --- records ------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """Keep the record of a finished exchange."""
        if self.observer is not None:
            self.observer(record)
        with self._lock:
            self._records.append(record)
        self.busy(-1)

    def busy(self, change: int) -> None:
        """Change the number of exchanges under way; one at a gate is not counted."""
        with self._idle:
            self._busy += change
            self._idle.notify_all()

    @property
    def records(self) -> list[Record]:
        """Return all exchanges in the order of their ends. Waits up to 2 s for those under way."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=2)
            return list(self._records)

    def forget(self) -> None:
        """Drop all records."""
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=2)
            self._records.clear()

    def select(self, test: Callable[[Record], bool]) -> list[Record]:
        """Return the records that pass ``test``."""
        return [record for record in self.records if test(record)]

    def downloads(self) -> collections.Counter[str]:
        """Return, by blob digest, the number of GETs answered with content (200 or 206)."""
        return collections.Counter(
            r.digest for r in self.records if r.method == "GET" and r.digest and r.status in (200, 206)
        )

    def downloaded_bytes(self) -> collections.Counter[str]:
        """Return, by blob digest, the content bytes sent."""
        counted: collections.Counter[str] = collections.Counter()
        for record in self.records:
            if record.method == "GET" and record.digest and record.status in (200, 206):
                counted[record.digest] += record.sent
        return counted

    def authorizations(self) -> list[str]:
        """Return every Authorization header received."""
        return [value for r in self.records if (value := r.header("Authorization")) is not None]


def query(target: str) -> dict[str, list[str]]:
    """Return the query of a request target, as lists of values by name."""
    return urllib.parse.parse_qs(target.partition("?")[2], keep_blank_values=True)
