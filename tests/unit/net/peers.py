"""Scripted peers on 127.0.0.1: raw sockets, so that a test can send what no honest server would."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import Any, Callable


@dataclass
class Got:
    """A request as it came over the wire."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock, self.server = sock, server
        self._pending = b""

    def request(self) -> Got | None:
        """The next request, kept in ``server.requests``; None if the client hung up."""
        while b"\r\n\r\n" not in self._pending:
            data = self.sock.recv(65536)
            if not data:
                return None
            self._pending += data
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        got = Got(method, target, fields, b"")
        size = int(got.get("Content-Length") or 0)
        while len(self._pending) < size:
            self._pending += self.sock.recv(65536)
        got.body, self._pending = self._pending[:size], self._pending[size:]
        self.server.requests.append(got)
        return got

    def send(self, *parts: bytes) -> None:
        self.sock.sendall(b"".join(parts))

    def answer(self, *fields: str, body: bytes = b"", status: str = "200 OK") -> None:
        """A well-framed answer."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"), body)

    def hold(self) -> None:
        """Say nothing more until the client hangs up or the test ends."""
        while True:
            try:
                if not self.sock.recv(65536):
                    return
            except OSError:
                return


@dataclass
class Server:
    """A listener whose n-th connection is handled by the n-th script, later ones by the last."""

    scripts: tuple[Script, ...]
    context: Any = None
    requests: list[Got] = field(default_factory=list)
    connections: int = 0
    faults: list[BaseException] = field(default_factory=list)
    closing: bool = False

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        # Only the thread that uses a socket closes it: the number of one that is closed under its reader
        # goes to whatever is opened next, and TLS would write into that. These duplicates are for shutdown.
        self._lock = threading.Lock()
        self._twins: dict[int, socket.socket] = {-1: self.listener.dup()}
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self.listener:
            while True:
                try:
                    sock, _ = self.listener.accept()
                except OSError:
                    return
                script = self.scripts[min(self.connections, len(self.scripts) - 1)]
                self.connections += 1
                with self._lock:
                    self._twins[self.connections] = sock.dup()
                self._start(self._run, sock, script, self.connections)

    def _run(self, sock: socket.socket, script: Script, number: int) -> None:
        try:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
            script(Peer(sock, self))
        except OSError:
            pass  # the client hung up, as many tests make it
        except Exception as error:  # noqa: BLE001 - shown at the end of the test
            self.faults.append(error)
        finally:
            with self._lock:
                self._twins.pop(number).close()
            sock.close()

    def close(self) -> None:
        """End: no more connections, and every script's next read or write fails."""
        self.closing = True
        while any(thread.is_alive() for thread in self._threads):
            with self._lock:
                for twin in self._twins.values():
                    try:
                        twin.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            for thread in tuple(self._threads):
                thread.join(0.1)
        for twin in self._twins.values():
            twin.close()
        self._twins.clear()


Script = Callable[[Peer], object]


def always(*fields: str, body: bytes = b"", status: str = "200 OK") -> Script:
    """Answer every request of a connection alike."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.answer(*fields, body=body, status=status)

    return script


def raw(*parts: bytes) -> Script:
    """Read one request, send these bytes, hang up."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(*parts)

    return script
