"""The answer of a link, its body read by its own framing and counted.

``http.client`` hands out short data in silence where a body is cut off, and reads chunk sizes with ``int()``.
So the body is read here, over the response's file object: what ``http.client`` read ahead first, and from
then on straight from the socket into the caller's buffer.
"""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager

from ocidist.errors import OcidistError, TransportError
from ocidist.net.dial import Link, readable
from ocidist.net.framing import CHUNKED, UNTIL_CLOSE, Malformed, body_length, chunk_size
from ocidist.net.message import Headers, Request
from ocidist.net.pace import PacedFile

if TYPE_CHECKING:
    import http.client

__all__ = ["Answer", "CutShort", "answer_class"]

_LINE = 4096  # bytes of a chunk's first line, or of one trailer
_TRAILERS = 64
_INTERIM = 100
_DRAIN_BYTES = 64 << 10
_DRAIN_SECONDS = 0.2
_GATHER = 0.1  # seconds
_FOLD = re.compile(r"\r?\n[ \t]+|\r[ \t]+")
_LOST = frozenset(
    {"MissingHeaderBodySeparatorDefect", "InvalidHeaderDefect", "FirstHeaderLineIsContinuationDefect"}
)

_answer_class: type[http.client.HTTPResponse] | None = None


class CutShort(Exception):
    """The connection ended before the body did."""


def answer_class() -> type[http.client.HTTPResponse]:
    """``http.client.HTTPResponse``, with every interim answer (1xx) skipped, and not for ever. A head that breaks off is no
    answer: ``http.client`` takes the end of the connection for that of the header fields.

    ``least_rate`` (bytes a second, 0: any) has to be kept over each ``rate_window`` (seconds of waiting).
    """
    global _answer_class
    if _answer_class is None:
        import http.client

        class StrictResponse(http.client.HTTPResponse):
            def __init__(
                self, *args: Any, least_rate: float = 0, rate_window: float = 60, **options: Any
            ) -> None:
                super().__init__(*args, **options)
                self._paced = PacedFile(self.fp.detach(), least_rate, rate_window)
                self.fp = io.BufferedReader(self._paced)

            def begin(self) -> None:
                try:
                    super().begin()
                except http.client.HTTPException as error:
                    if self._paced.ended and _begins_an_answer(error):
                        raise CutShort from error
                    raise
                if self._paced.ended:
                    raise CutShort

            def _read_status(self) -> tuple[str, int, str]:
                for _ in range(_INTERIM):
                    version, status, reason = super()._read_status()  # type: ignore[misc]
                    if not 100 <= status < 200 or status == 101:
                        return version, status, reason
                    http.client.parse_headers(self.fp)
                raise Malformed("endless interim answers (1xx)")

        _answer_class = StrictResponse
    return _answer_class


def _begins_an_answer(error: http.client.HTTPException) -> bool:
    """Whether what ``http.client`` does not understand may be a part of an answer. Nothing at all is told apart by itself."""
    import http.client

    if not isinstance(error, http.client.BadStatusLine):
        return True
    line = "" if isinstance(error, http.client.RemoteDisconnected) else str(error.args[0])
    return line.startswith("HTTP/1.") or (line != "" and "HTTP/1.".startswith(line))


class Answer:
    """A :class:`~ocidist.net.message.Response` on a link.

    ``length`` is 0 for the answer to a HEAD: the size of what was asked about is in its Content-Length.
    ``keep`` is called with the link when it can be used again; ``explain`` turns what went wrong into a
    TransportError; ``watch`` is the registration with the scope, which ends with the exchange.
    """

    def __init__(
        self,
        raw: http.client.HTTPResponse,
        link: Link,
        request: Request,
        *,
        sock: Any,
        idle_timeout: float,
        watch: ContextManager[None],
        keep: Callable[[Link], None] | None,
        explain: Callable[[BaseException, Link], OcidistError],
    ) -> None:
        self.status: int = raw.status
        self.reason: str = raw.reason or ""
        self.url = request.url
        self.headers = _fields(raw)
        framing = body_length(request.method, raw.status, self.headers)
        self._raw, self._link, self._sock = raw, link, sock
        self._file: Any = getattr(raw, "fp", None)  # None in a vcrpy cassette, which has read the body
        if framing == CHUNKED and self._file is None:
            framing = UNTIL_CLOSE
        self._framing = framing
        self._left = max(framing, 0)
        self._ahead: int | None = None  # bytes in the file's own buffer, None where unknown
        self._between = False  # chunked: the CRLF after a chunk's data is still to come
        self._late: OSError | None = None
        self._idle_timeout = idle_timeout
        self._watch, self._keep, self._explain = watch, keep, explain
        self._complete = self._closed = False
        if framing == 0:
            self._finish()

    @property
    def length(self) -> int | None:
        """Bytes of the body as its framing announces them; None where it does not (chunked, close)."""
        return self._framing if self._framing >= 0 else None

    # -- reading --

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end of the message. Raises TransportError, or the scope's end."""
        if self._complete:
            return 0
        if self._closed:
            raise TransportError(
                self._link.route.authority, "the answer was closed before it was read", False
            )
        view = memoryview(buffer)
        if not len(view):
            return 0
        try:
            self._prepare()
            count = self._pull(view)
        except BaseException as error:
            self._drop()
            if isinstance(error, Exception):
                raise self._explain(error, self._link) from error
            raise
        if self._complete:
            self._finish()
        return count

    def read(self, limit: int) -> bytes:
        """The whole body; more than ``limit`` bytes raises TransportError. Closes."""
        try:
            if self.length is not None and self.length > limit:
                raise self._too_long(limit)
            data = bytearray(self.length if self.length is not None else min(limit + 1, 64 << 10))
            filled = 0
            while not self._complete:
                if filled == len(data):
                    if filled > limit:
                        raise self._too_long(limit)
                    data.extend(bytes(min(max(filled, 1), limit + 1 - filled)))
                with memoryview(data) as view:
                    filled += self.readinto(view[filled:])
            if filled > limit:
                raise self._too_long(limit)
            del data[filled:]
            return bytes(data)
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back if the body was read to its end (a short rest is read now), else drop it.

        For the thread that reads; to end the exchange from another, cancel the scope.
        """
        if self._closed:
            return
        try:
            if not self._complete and self._keep is not None and not self._link.scope.ended:
                self._drain()
        except (OSError, OcidistError, ValueError, CutShort):
            pass
        finally:
            if self._complete:
                self._finish()
            else:
                self._drop()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _too_long(self, limit: int) -> TransportError:
        return TransportError(
            self._link.route.authority, f"the answer is longer than {limit} bytes", False, kind="protocol"
        )

    def _drain(self) -> None:
        if self._left > _DRAIN_BYTES or self._framing == UNTIL_CLOSE:
            return
        until, budget = time.monotonic() + _DRAIN_SECONDS, _DRAIN_BYTES
        scratch = memoryview(bytearray(16 << 10))
        while not self._complete and budget > 0:
            self._sock.settimeout(max(until - time.monotonic(), 0.001))
            budget -= self._pull(scratch)

    def _prepare(self) -> None:
        scope = self._link.scope
        if scope.deadline is not None and self._sock is not None:
            self._sock.settimeout(scope.remaining(self._idle_timeout))
        else:
            scope.check()

    def _pull(self, view: memoryview) -> int:
        """Some bytes of the body; sets ``_complete`` at its end."""
        if self._framing == UNTIL_CLOSE:
            count = self._some(view)
            if not count:
                self._link.scope.check()  # an end that we made ourselves is none
                self._complete = True
            return count
        if self._framing == CHUNKED and not self._left and not self._next_chunk():
            self._complete = True
            return 0
        count = self._some(view[: self._left])
        if not count:
            raise CutShort
        self._left -= count
        if not self._left:
            if self._framing == CHUNKED:
                self._between = True
            else:
                self._complete = True
        return count

    def _some(self, view: memoryview) -> int:
        """At least one byte, unless the peer is at its end; then as many as are there without waiting."""
        if self._late is not None:
            raise self._late
        if self._file is None:
            return self._raw.readinto(view)
        if self._ahead is None:
            self._ahead = len(self._file.peek())
        if self._ahead:
            count = min(self._ahead, len(view))
            self._file.readinto(view[:count])
            self._ahead -= count
            return count
        paced: PacedFile = self._file.raw
        source: Any = paced.source
        began = paced.begin()
        filled: int = source.readinto(view)
        # A TLS record is at most 16 KiB: gather those that have come, so that the caller writes large blocks.
        # Part of a record makes it readable and the read wait, so they are gathered for a moment only.
        while 0 < filled < len(view) and readable(source.fileno()) and time.monotonic() - began < _GATHER:
            try:
                count = source.readinto(view[filled:])
            except OSError as error:
                self._late = error  # what came before it counts
                break
            if not count:
                break
            filled += count
        paced.end(began, filled)
        return filled

    # -- the chunked coding --

    def _next_chunk(self) -> bool:
        if self._between:
            if self._line() != b"\r\n":
                raise Malformed("a chunk is longer than its size")
            self._between = False
        self._left = chunk_size(self._line())
        if self._left:
            return True
        for _ in range(_TRAILERS):
            if self._line() == b"\r\n":
                return False
        raise Malformed("endless trailers")

    def _line(self) -> bytes:
        line: bytes = self._file.readline(_LINE)
        self._ahead = None
        if not line.endswith(b"\n"):
            if len(line) < _LINE:
                raise CutShort
            raise Malformed("a line of the chunked coding is too long")
        return line

    # -- the end --

    def _finish(self) -> None:
        """The message is complete: let the connection go, back to the pool if it can be used again."""
        if self._closed:
            return
        self._complete = self._closed = True
        self._watch.__exit__(None, None, None)
        if self._keep is None or self._raw.will_close or not self._at_boundary():
            self._let_go()
            return
        self._raw.close()
        self._keep(self._link)

    def _drop(self) -> None:
        if not self._closed:
            self._closed = True
            self._watch.__exit__(None, None, None)
            self._let_go()

    def _let_go(self) -> None:
        try:
            self._raw.close()
        except OSError:
            pass
        self._link.close()

    def _at_boundary(self) -> bool:
        """False if the peer sent more than its answer: those bytes must never begin the next one."""
        if self._ahead is None:
            try:
                self._sock.settimeout(0)
                self._ahead = len(self._file.peek())
            except OSError as error:
                if type(error).__name__ not in ("SSLWantReadError", "BlockingIOError"):
                    return False
                self._ahead = 0
        return not self._ahead


def _fields(raw: http.client.HTTPResponse) -> Headers:
    """The fields of an answer, folded lines joined. A line that is no field hides all after it: refused."""
    message = raw.headers
    for defect in getattr(message, "defects", ()):
        if type(defect).__name__ in _LOST:
            raise Malformed("malformed header line")
    return Headers((name, _FOLD.sub(" ", str(value))) for name, value in message.items())
