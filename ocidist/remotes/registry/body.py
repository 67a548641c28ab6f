"""The body of a blob or manifest as it comes from a registry: it reopens itself where a connection drops.

Source: RFC 9110, 14 (ranges). What is delivered is unverified; ``content.verify`` has the last word. What
this class sees to is that the bytes are those of the positions that they are delivered for.
"""

from __future__ import annotations

from typing import Callable, NoReturn

from ocidist.errors import RegistryError, SizeMismatch, TransportError
from ocidist.net.message import Response
from ocidist.progress import Resumed
from ocidist.redaction import SECRETS
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Retries, Scope
from ocidist.spec.descriptor import Descriptor

__all__ = ["RegistryBody"]

_SKIP = 64 << 10


class RegistryBody:
    """Bytes of one object from ``start`` on. ``request(range)`` sends the GET, with a Range header or "".

    ``ranges`` is False for what is always sent whole (manifests). ``start`` is 0 where the server ignored
    the range asked for. A dropped connection is replaced by another that goes on at the same byte, as often as
    ``retries`` allow.
    """

    host = ""

    def __init__(
        self,
        session: RegistrySession,
        request: Callable[[str], Response],
        target: Descriptor,
        scope: Scope,
        retries: Retries,
        *,
        offset: int = 0,
        length: int | None = None,
        ranges: bool = True,
    ) -> None:
        self._session, self._request = session, request
        self._target, self._scope, self._retries = target, scope, retries
        self._ranges = ranges
        self._total: int | None = target.size if target.size >= 0 else None
        self._end = self._total if length is None else offset + length
        if self._end is not None and self._total is not None:
            self._end = min(self._end, self._total)
        self._bounded = length is not None
        self._response: Response | None = None
        self.start = self._position = self._connect(offset if ranges else 0)

    @property
    def size(self) -> int | None:
        """Bytes of the whole object; None if neither descriptor nor server said."""
        return self._total

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end. Raises TransportError where drops can't be made good."""
        room = memoryview(buffer).cast("B")
        if self._bounded and self._end is not None:
            room = room[: max(self._end - self._position, 0)]
        if not len(room):
            return 0
        while self._response is not None:
            try:
                count = self._response.readinto(room)
            except TransportError as error:
                if not error.retryable:
                    self.close()
                    raise
                self._resume(error)
                continue
            if count:
                self._position += count
                self._retries.moved(count)
                return count
            if self._end is None or self._position >= self._end:
                self.close()
                return 0
            # Complete by its framing, and shorter than the descriptor says: a body that is framed by the
            # connection's end was cut, or the object is another one. The server is asked for the rest.
            self._resume(self._cut())
        return 0

    def _cut(self) -> TransportError:
        host = "the registry" if self._response is None else wire.host_of(self._response.url)
        return TransportError(host, f"the body ended before byte {self._end or self._position}", kind="cut")

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    # -- connections --

    def _resume(self, error: TransportError) -> None:
        """Open anew at the position, or raise ``error`` if that was done too often without progress."""
        self.close()
        digest = self._target.digest
        seconds = self._session.again(self._retries)
        if seconds is None:
            raise error
        self._session.pause(self._retries, seconds, error.reason, self._scope, digest)
        begin = self._connect(self._position if self._ranges else 0)
        self._skip(self._position - begin)
        self._scope.emit(Resumed(digest, self._position))

    def _skip(self, count: int) -> None:
        """Drop what is known already, where a server begins anew."""
        scratch = memoryview(bytearray(min(_SKIP, max(count, 0))))
        while count > 0 and self._response is not None:
            # A failure here is one more drop at the same position: the next read meets it.
            try:
                done = self._response.readinto(scratch[: min(count, _SKIP)])
            except TransportError as error:
                if not error.retryable:
                    raise
                self._resume(error)
                return
            if not done:
                self._resume(self._cut())
                return
            count -= done

    def _connect(self, offset: int) -> int:
        """Send the request; returns the offset at which the answer begins."""
        asks = offset > 0 or (self._bounded and self._ranges)
        length = self._end - offset if self._bounded and self._end is not None else None
        if asks and length is not None and length <= 0:
            return offset  # nothing is wanted; such a range can't be written
        response = self._request(wire.range_header(offset, length) if asks else "")
        try:
            self._check_encoding(response)
            if response.status == 206:
                return self._accept_part(response, offset, asks)
            if response.status == 416:
                return self._restart(response, offset, "neither the range nor the whole is to be had")
            self._accept_whole(response)
        except BaseException:
            response.close()
            raise
        self._response = response
        return 0

    def _check_encoding(self, response: Response) -> None:
        encodings = [value.strip().lower() for value in response.headers.get_all("Content-Encoding")]
        if any(encoding not in ("", "identity") for encoding in encodings):
            self._refuse(
                response, f"Content-Encoding {SECRETS.text(', '.join(encodings))[:40]!r} was not asked for"
            )

    def _accept_whole(self, response: Response) -> None:
        if response.status != 200:
            self._refuse(response, "that is no answer to a GET of content")
        announced = response.length
        if self._total is None:
            self._total = announced
            if not self._bounded:
                self._end = announced
        elif announced is not None and announced != self._total:
            raise SizeMismatch(
                self._target, f"the registry has {announced} bytes, the descriptor says {self._total}"
            )

    def _accept_part(self, response: Response, offset: int, asked: bool) -> int:
        """206: never taken for other bytes than it was asked for. Where it says others, the whole is asked for."""
        part = wire.parse_content_range(response.headers.get_all("Content-Range"))
        if not asked or part is None or part.start != offset:
            return self._restart(response, offset, f"its Content-Range is not the range from byte {offset}")
        wrong = part.total is not None and self._total is not None and part.total != self._total
        if wrong or (self._end is not None and part.end >= self._end):
            return self._restart(
                response, offset, "its Content-Range is of another size than the descriptor's"
            )
        if response.length is not None and response.length != part.end - part.start + 1:
            return self._restart(response, offset, "Content-Length and Content-Range differ")
        if self._total is None:
            self._total = part.total
            if not self._bounded:
                self._end = part.total
        self._response = response
        return offset

    def _restart(self, response: Response, offset: int, why: str) -> int:
        """Ranges are not understood here, or what is there is shorter than what was asked for: from the start."""
        response.close()
        if offset <= 0 or not self._ranges:
            self._refuse(response, why)
        self._ranges = False
        return self._connect(0)

    def _refuse(self, response: Response, hint: str) -> NoReturn:
        raise RegistryError("GET", wire.redact(response.url), response.status, (), hint)
