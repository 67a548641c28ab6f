"""A Transport that answers from a list, for tests of what stands on a transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterable, Iterator

from ocidist.errors import TransportError
from ocidist.net.message import Headers, Request, Response
from ocidist.scope import Scope


class ScriptedResponse:
    """An answer made in a test. ``announced`` bytes are promised; a shorter body raises at its end."""

    def __init__(
        self,
        status: int = 200,
        body: bytes | Iterable[bytes] = b"",
        headers: Iterable[tuple[str, str]] = (),
        *,
        announced: int | None = -1,
        reason: str = "OK",
        url: str = "",
    ) -> None:
        self.status, self.reason, self.url = status, reason, url
        self.headers = Headers(headers)
        self._blocks: Iterator[bytes] = iter([body] if isinstance(body, bytes) else body)
        self._announced = (len(body) if isinstance(body, bytes) else None) if announced == -1 else announced
        self._rest = b""
        self._seen = 0
        self.closed = 0

    @property
    def length(self) -> int | None:
        return self._announced

    def readinto(self, buffer: memoryview) -> int:
        if not self._rest:
            self._rest = next(self._blocks, b"")
        count = min(len(self._rest), len(buffer))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._seen += count
        if not count and self._announced is not None and self._seen < self._announced:
            raise TransportError("scripted", "the connection ended before the body did")
        return count

    def read(self, limit: int) -> bytes:
        data = bytearray()
        block = bytearray(64 << 10)
        while count := self.readinto(memoryview(block)):
            data += block[:count]
            if len(data) > limit:
                raise TransportError("scripted", f"more than {limit} bytes", False)
        self.close()
        return bytes(data)

    def close(self) -> None:
        self.closed += 1


@dataclass
class ScriptedTransport:
    """Answers each request with the next of ``answers`` (a response, an error, or a function of the request)."""

    answers: list[Response | BaseException | Callable[[Request], Response]]
    requests: list[Request] = field(default_factory=list)

    def send(self, request: Request, scope: Scope) -> Response:
        scope.check()
        self.requests.append(request)
        if request.body is not None and not isinstance(request.body, bytes):
            for _ in request.body.chunks():
                pass
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer(request)
        answer.url = request.url
        return answer
