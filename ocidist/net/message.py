"""Request, Response and Transport: one HTTP exchange, as every layer above sees it.

A :class:`Transport` is the network, a cassette, a scripted list in a test or our own server. It does one
exchange: it follows no redirect, retries nothing and knows no credential.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterable, Iterator, Protocol

from ocidist.redaction import SECRETS
from ocidist.scope import Scope

__all__ = ["Headers", "Held", "Request", "Response", "Transport"]


class Headers:
    """Header fields in order, names case-insensitive, repeats kept."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items: list[tuple[str, str]] = [(str(name), str(value)) for name, value in items]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of ``name``."""
        wanted = name.lower()
        for key, value in self._items:
            if key.lower() == wanted:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """Every value of ``name``, in order."""
        wanted = name.lower()
        return [value for key, value in self._items if key.lower() == wanted]

    def set(self, name: str, value: str) -> None:
        """Replace every ``name`` by one."""
        self.remove(name)
        self._items.append((name, value))

    def add(self, name: str, value: str) -> None:
        """One more ``name``."""
        self._items.append((name, value))

    def remove(self, name: str) -> None:
        """Drop every ``name``; none is no error."""
        wanted = name.lower()
        self._items = [item for item in self._items if item[0].lower() != wanted]

    def copy(self) -> Headers:
        """An independent copy."""
        return Headers(self._items)

    def items(self) -> list[tuple[str, str]]:
        """All fields, as a list of pairs."""
        return list(self._items)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self._items == other._items

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:  # values may be secrets
        return f"Headers({[SECRETS.text(name) for name, _ in self._items]})"


class BodySource(Protocol):
    """A request body that can be sent again from its start (a token expired, a connection was stale)."""

    @property
    def size(self) -> int: ...

    def chunks(self) -> Iterator[bytes]: ...


@dataclass
class Request:
    """What is sent. ``url`` is absolute. It and ``headers`` may hold credentials: never print them.

    ``led_by`` is the URL of the host that named this one, in a redirect, a realm, a link or a manifest: such a request
    carries no configured header, and reaches loopback or link-local addresses only if that host is at one itself.
    With ``certified`` this client's certificates may be shown. ``placed``: the host itself gave the URL, in a redirect or a
    link, so its path is the whole one. ``meant`` is what was asked by the registry's own name, where a mirror answers for it.
    """

    method: str
    url: str = field(repr=False)
    headers: Headers = field(default_factory=Headers)
    body: bytes | BodySource | None = field(default=None, repr=False)
    led_by: str = field(default="", repr=False)
    certified: bool = True
    placed: bool = False
    meant: str = field(default="", repr=False)


class Response(Protocol):
    """What came back. The body is read through :meth:`readinto` and must be closed.

    ``readinto`` returns 0 only where the message, by its own framing, is complete; a body that is cut
    short raises :class:`~ocidist.errors.TransportError`.
    """

    status: int
    reason: str
    headers: Headers
    url: str

    @property
    def length(self) -> int | None:
        """Bytes of the body as the framing announces them; None where it does not (chunked, close)."""
        ...

    def readinto(self, buffer: memoryview) -> int: ...

    def read(self, limit: int) -> bytes:
        """The whole body, which must be at most ``limit`` bytes (more raises TransportError); then closed."""
        ...

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it. Idempotent."""
        ...


class Held:
    """An answer whose body has been read to its end: nothing about it can fail any more.

    Reads ``inner`` and closes it. Raises TransportError for a body that is cut short or longer than ``limit`` bytes.
    """

    def __init__(self, inner: Response, limit: int) -> None:
        self.status, self.reason = inner.status, inner.reason
        self.headers, self.url = inner.headers, inner.url
        self._raw = inner.read(limit)
        self._at = 0

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self._raw)

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as there are bytes; 0 at the end."""
        part = self._raw[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def read(self, limit: int) -> bytes:
        """The whole body: it was bounded when it was read."""
        return self._raw

    def close(self) -> None:
        """Nothing to do: the connection went back when the body had been read."""


class Transport(Protocol):
    """One exchange. Raises only :class:`~ocidist.errors.TransportError`, or the scope's own end."""

    def send(self, request: Request, scope: Scope) -> Response: ...
