"""One answer of a registry as a Body: its bytes are those of the positions that they are delivered for, or it is refused.

Source: RFC 9110, 14 (ranges). What is delivered is unverified, and ends where the answer does; ``content.resume`` goes on.
"""

from __future__ import annotations

from typing import Callable

from ocidist.errors import RegistryError, SizeMismatch, TransportError
from ocidist.net.message import Response
from ocidist.redaction import SECRETS
from ocidist.remotes.registry import wire
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor

__all__ = ["RegistryBody", "ask"]


class RegistryBody:
    """The bytes of ``response`` from ``start`` on, up to ``stop`` if that is given; ``size`` is that of the whole object."""

    def __init__(
        self, host: str, response: Response, start: int, size: int | None, stop: int | None = None
    ) -> None:
        self.host, self.start, self.size = host, start, size
        self._response: Response | None = response
        self._position, self._stop = start, stop

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end. Raises TransportError where the answer ends before the object does."""
        room = memoryview(buffer).cast("B")
        if self._stop is not None:
            room = room[: max(self._stop - self._position, 0)]
        if self._response is None or not len(room):
            return 0
        count = self._response.readinto(room)
        self._position += count
        end = self.size if self._stop is None else self._stop
        if not count and end is not None and self._position < end:
            # Whole by its framing: one that is framed by the connection's end was cut, or it is another object.
            where = wire.host_of(self._response.url)
            raise TransportError(where, f"the body ended before byte {end}", kind="cut")
        return count

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        response, self._response = self._response, None
        if response is not None:
            response.close()


def ask(
    request: Callable[[str], Response],
    host: str,
    target: Descriptor,
    scope: Scope,
    *,
    offset: int = 0,
    length: int | None = None,
    ranges: bool = True,
) -> RegistryBody:
    """Return the answer of ``host`` to ``request(range)``, which sends a GET with a Range header or with "" for none.

    Where the range is refused, or another one comes, the whole is asked for; with ``ranges`` False (manifests) it is at
    once. Raises RegistryError, SizeMismatch.
    """
    size = target.size if target.size >= 0 else None
    stop = None if length is None else offset + length
    stop = stop if stop is None or size is None else min(stop, size)
    asked = wire.range_header(offset, length) if ranges and (offset or stop is not None) else ""
    response = request(asked)
    try:
        _check_encoding(response)
        if response.status == 200:
            return RegistryBody(host, response, 0, _whole_size(response, target), stop)
        part = wire.parse_content_range(response.headers.get_all("Content-Range"))
        why = wire.part_refusal(response.status, part, response.length, offset, size, stop)
        if part is not None and asked and not why:
            return RegistryBody(host, response, offset, size if size is not None else part.total, stop)
        if response.status not in (206, 416) or not asked or not offset:
            raise _refused(response, why or "without a Range header in the request there is no Content-Range")
    except BaseException:
        response.close()
        raise
    response.close()
    if scope.retries is not None:
        scope.retries.elsewhere()
    return ask(request, host, target, scope, length=stop, ranges=False)


def _whole_size(response: Response, target: Descriptor) -> int | None:
    size = response.length
    if size is not None and 0 <= target.size != size:
        raise SizeMismatch(target, f"the registry has {size} bytes, the descriptor says {target.size}")
    return size if target.size < 0 else target.size


def _check_encoding(response: Response) -> None:
    encodings = [value.strip().lower() for value in response.headers.get_all("Content-Encoding")]
    if any(encoding not in ("", "identity") for encoding in encodings):
        said = SECRETS.text(", ".join(encodings))[:40]
        raise _refused(response, f"Content-Encoding {said!r} was not asked for")


def _refused(response: Response, hint: str) -> RegistryError:
    return RegistryError("GET", wire.redact(response.url), response.status, (), hint)
