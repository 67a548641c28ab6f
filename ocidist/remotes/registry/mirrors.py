"""A repository that several hosts answer for: each is asked in turn until one has what is wanted.

Source: containerd, docs/hosts.md. A mirror is told by ``ns`` for which registry it is asked, and gets no credentials
but its own.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Iterator, NamedTuple, Protocol, Sequence, TypeVar
from urllib.parse import quote

from ocidist.content.protocols import Body
from ocidist.errors import OcidistError, RegistryError, TransportError, Unsupported
from ocidist.net.message import Request, Response, Transport
from ocidist.progress import Retrying
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.client import ORIGIN_LABEL, RegistryRemote
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.remotes.registry.session import RegistrySession

__all__ = ["EndpointTransport", "Mirrored", "Place", "Sessions", "is_own", "repository"]

T = TypeVar("T")


class Sessions(Protocol):
    """What makes the sessions that a repository needs."""

    @property
    def session(self) -> RegistrySession:
        """The one for registries of which nothing is said."""
        ...

    def session_at(self, endpoint: Endpoint, host: str, *, last: bool) -> RegistrySession:
        """One that asks ``endpoint`` for what is of the registry ``host``; patient if it is the ``last`` to ask."""
        ...


def is_own(endpoint: Endpoint, host: str) -> bool:
    """True if the endpoint is the registry ``host`` itself, and not another that stands for it."""
    return not endpoint.url or endpoint.host in (host.lower(), wire.endpoint_host(host))


def repository(name: str, endpoints: Sequence[Endpoint], sessions: Sessions) -> Mirrored:
    """The repository ``name`` (host first) at these endpoints."""
    host, _, path = name.partition("/")
    places = []
    for number, endpoint in enumerate(endpoints, 1):
        plain = endpoint == Endpoint()
        session = (
            sessions.session if plain else sessions.session_at(endpoint, host, last=number == len(endpoints))
        )
        here = name if is_own(endpoint, host) else f"{endpoint.host}/{path}"
        places.append(Place(RegistryRemote(session, here), endpoint.capabilities))
    return Mirrored(name, places)


class EndpointTransport:
    """What an endpoint adds to requests to its host: its path in place of ``/v2``, ``ns``, and its header."""

    def __init__(self, inner: Transport, endpoint: Endpoint, authority: str, namespace: str) -> None:
        self.inner = inner
        self._endpoint = endpoint
        self._authority = authority.lower()
        self._namespace = namespace

    def send(self, request: Request, scope: Scope) -> Response:
        """The inner transport's answer. Requests to where a host led us (tokens, redirects, foreign URLs) go as they are."""
        scheme, _, rest = request.url.partition("://")
        authority, slash, target = rest.partition("/")
        if request.led_by or authority.lower() != self._authority:
            return self.inner.send(request, scope)
        path, mark, query = (slash + target).partition("?")
        prefix = self._endpoint.path
        if prefix != "/v2" and (path == "/v2" or path.startswith("/v2/")):
            path = prefix + path[3:]
        namespace = f"ns={quote(self._namespace, safe=':')}"
        if self._namespace and namespace not in query.split("&"):
            query = f"{query}&{namespace}" if query else namespace
            mark = "?"
        headers = request.headers.copy()
        for name, value in self._endpoint.header:
            headers.add(name, value)
        return self.inner.send(
            replace(request, url=f"{scheme}://{authority}{path}{mark}{query}", headers=headers), scope
        )


class Place(NamedTuple):
    """One of the hosts: the repository there, and what it may be asked for."""

    remote: RegistryRemote
    capabilities: frozenset[str]


class Mirrored:
    """A repository as a Source over its places, in the order to ask them. Threads may share it.

    An object whose bytes did not do is asked for at the next place the next time.
    """

    def __init__(self, name: str, places: Sequence[Place]) -> None:
        self.name = name
        self.host, _, self.repository = name.partition("/")
        self.places = tuple(places)
        self._lock = threading.Lock()
        self._begun: dict[Digest, int] = {}

    def __repr__(self) -> str:
        return f"Mirrored({self.name!r}, {len(self.places)} places)"

    @property
    def origin(self) -> tuple[str, str]:
        """Label key and value of blobs from here: the registry's, whichever host sent them."""
        return ORIGIN_LABEL + self.host, self.repository

    def resolve(
        self, name: str, scope: Scope, *, media_types: tuple[str, ...] = (), want_bytes: bool = False
    ) -> tuple[Descriptor, bytes | None]:
        """As :meth:`RegistryRemote.resolve`, at the first place that answers."""
        return self._ask(
            "resolve",
            scope,
            lambda remote: remote.resolve(name, scope, media_types=media_types, want_bytes=want_bytes),
        )

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        """As :meth:`RegistryRemote.open`."""
        with self._lock:
            first = self._begun.get(target.digest, 0)

        def ask(remote: RegistryRemote) -> Body:
            body = remote.open(target, scope, offset=offset, length=length)
            at = next(at for at, place in enumerate(self.places) if place.remote is remote)
            with self._lock:
                self._begun[target.digest] = (at + 1) % len(self.places)
            return body

        return self._ask("pull", scope, ask, first)

    def locate(self, text: str, hint: str, scope: Scope) -> tuple[Descriptor, bytes | None]:
        """As :meth:`RegistryRemote.locate`."""
        return self._ask(
            "pull" if ":" in text else "resolve", scope, lambda remote: remote.locate(text, hint, scope)
        )

    def ping(self, scope: Scope) -> None:
        """As :meth:`RegistryRemote.ping`."""
        self._ask("resolve", scope, lambda remote: remote.ping(scope))

    def tags(self, scope: Scope) -> Iterator[str]:
        """Every tag, as the first place lists them that does."""

        def begin(remote: RegistryRemote) -> Iterator[str]:
            found = remote.tags(scope)
            first = next(found, None)
            return iter(()) if first is None else _with_first(first, found)

        yield from self._ask("resolve", scope, begin)

    def _ask(self, what: str, scope: Scope, call: Callable[[RegistryRemote], T], first: int = 0) -> T:
        """``call`` of each place that may be asked, until one succeeds; else the last one's error."""
        order = [*self.places[first:], *self.places[:first]]
        able = [place.remote for place in order if what in place.capabilities]
        for attempt, remote in enumerate(able, 1):
            try:
                return call(remote)
            except (RegistryError, TransportError) as error:
                if attempt == len(able):
                    raise
                scope.check()
                scope.emit(Retrying(None, attempt + 1, 0.0, _failed(remote, error, able[attempt])))
        raise Unsupported(f"{self.host}: none of its hosts has the capability {what!r} in hosts.toml")


def _failed(remote: RegistryRemote, error: OcidistError, following: RegistryRemote) -> str:
    why = (
        f"it answered {error.status}"
        if isinstance(error, RegistryError)
        else getattr(error, "reason", str(error))
    )
    return f"{remote.host}: {why}; asking {following.host}"


def _with_first(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
