"""A repository with mirrors: each host is asked in turn until one has what is wanted.

Source: containerd, docs/hosts.md. ``ns`` tells a mirror which registry is meant; it gets no credentials but its own.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Iterator, NamedTuple, Sequence, TypeVar
from urllib.parse import quote

from ocidist.content.protocols import Body
from ocidist.content.verify import MemoryBody
from ocidist.errors import (
    ContentError,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    OcidistError,
    RegistryError,
    TransportError,
    Unsupported,
)
from ocidist.net.message import Request, Response, Transport
from ocidist.progress import Retrying
from ocidist.remotes.protocols import Origin
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.client import RegistryRemote
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.scope import Retries, Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.remotes import Context

__all__ = ["EndpointTransport", "Mirrored", "Place", "is_own", "repository"]

T = TypeVar("T")
FAILURES = (RegistryError, TransportError, ContentError, InvalidManifest, InvalidDigest, Unsupported)
"""Errors of one place after which the next is asked: no answer, or a wrong one."""


def is_own(endpoint: Endpoint, host: str) -> bool:
    """Return whether the endpoint is the registry ``host`` itself, not a mirror of it."""
    return not endpoint.url or endpoint.host in (host.lower(), wire.endpoint_host(host))


def repository(name: str, endpoints: Sequence[Endpoint], context: Context) -> Mirrored:
    """Return the repository ``name`` (host first) at these endpoints."""
    host, _, path = name.partition("/")
    places = []
    for number, endpoint in enumerate(endpoints, 1):
        plain = endpoint == Endpoint()
        session = (
            context.session if plain else context.session_at(endpoint, host, last=number == len(endpoints))
        )
        here = name if is_own(endpoint, host) else f"{endpoint.host}/{path}"
        places.append(Place(RegistryRemote(session, here), endpoint.capabilities))
    return Mirrored(name, places)


class EndpointTransport:
    """A Transport that adds to requests to an endpoint: its path in place of ``/v2``, ``ns``, and its header."""

    def __init__(self, inner: Transport, endpoint: Endpoint, authority: str, namespace: str) -> None:
        self.inner = inner
        self._endpoint = endpoint
        self._authority = authority.lower()
        self._namespace = namespace

    def send(self, request: Request, scope: Scope) -> Response:
        """Send ``request``. Requests to where a host led us (tokens, redirects, foreign URLs) go as they are."""
        scheme, _, rest = request.url.partition("://")
        authority, slash, target = rest.partition("/")
        if request.led_by or authority.lower() != self._authority:
            return self.inner.send(request, scope)
        path, mark, query = (slash + target).partition("?")
        own = wire.endpoint_host(self._namespace) if self._namespace else authority
        meant = f"{scheme}://{own}{slash}{target}"
        prefix = self._endpoint.path
        if not request.placed and prefix != "/v2" and (path == "/v2" or path.startswith("/v2/")):
            path = prefix + path[3:]
        # A redirect may lead to its storage.
        inside = not request.placed or f"{path}/".startswith(f"{prefix}/")
        namespace = f"ns={quote(self._namespace, safe=':')}"
        if self._namespace and inside and namespace not in query.split("&"):
            query = f"{query}&{namespace}" if query else namespace
            mark = "?"
        headers = request.headers.copy()
        for name, value in self._endpoint.header:
            headers.add(name, value)
        url = f"{scheme}://{authority}{path}{mark}{query}"
        return self.inner.send(replace(request, url=url, headers=headers, meant=meant), scope)


class Place(NamedTuple):
    """The repository at one of the hosts, and what it may be asked for."""

    remote: RegistryRemote
    capabilities: frozenset[str]


class Mirrored:
    """A repository as a Source over its places, in the order to ask them. Threads may share it.

    Whoever opens an object again was not served well: the next place is asked first.
    """

    def __init__(self, name: str, places: Sequence[Place]) -> None:
        self.name = name
        self.host, _, self.repository = name.partition("/")
        self.places = tuple(places)
        self._lock = threading.Lock()
        self._begun: dict[Digest, int] = {}

    def __repr__(self) -> str:
        return f"Mirrored({self.name!r}, {len(self.places)} places)"

    def origin(self, target: Descriptor) -> Origin:
        """Return the registry's repository, whichever host sends what is read from it."""
        return Origin(self.host, self.repository)

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        """As :meth:`RegistryRemote.resolve`, at the first place that answers.

        A blob's size stays unknown where several hosts may have it: the word of the first would be what the others
        are measured by.
        """
        blob = hint is not None and ":" in name
        asking = self._asking("pull" if blob else "resolve", scope)
        found = asking.ask(lambda remote: remote.resolve(name, scope, need_bytes=need_bytes, hint=hint))
        if blob and found[1] is None and len(self._able("pull")) > 1:
            return replace(found[0], size=-1), None
        return found

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        """As :meth:`RegistryRemote.open`, at the first place that answers. The next call for it begins at the next place."""
        with self._lock:
            first = self._begun.get(target.digest, 0)
        asking = self._asking("pull", scope, target.digest, first)
        if scope.retries is not None:
            scope.retries.hosts = len(asking.order)
        body = asking.ask(lambda remote: _opened(remote, target, scope, offset, length))
        with self._lock:
            self._begun[target.digest] = first + asking.number + 1
        return body

    def ping(self, scope: Scope) -> None:
        """As :meth:`RegistryRemote.ping`."""
        self._asking("resolve", scope).ask(lambda remote: remote.ping(scope))

    def tags(self, scope: Scope) -> Iterator[str]:
        """Yield every tag, as the first place that answers lists them.

        Where one fails in the middle, the next one's list follows, without the names that were given out.
        """
        asking = self._asking("resolve", scope)
        before: frozenset[str] = frozenset()
        while True:
            remote = asking.next()
            given = list(before)
            try:
                for tag in remote.tags(scope):
                    if tag in before:
                        continue
                    if asking.more:
                        given.append(tag)
                    yield tag
                return
            except FAILURES as error:
                asking.failed(error)
            before = frozenset(given)

    def _able(self, what: str) -> list[RegistryRemote]:
        return [place.remote for place in self.places if what in place.capabilities]

    def _asking(self, what: str, scope: Scope, digest: Digest | None = None, first: int = 0) -> Asking:
        """Return a question to the places with the capability ``what``. Raises Unsupported if there is none."""
        able = self._able(what)
        if not able:
            raise Unsupported(f"{self.host}: none of its hosts has the capability {what!r} in hosts.toml")
        return Asking(able, first % len(able), scope, digest)


class Asking:
    """One question to several places, from number ``first`` on, and why those that were asked have failed.

    If all fail, the error is that of the last of the list: that is the registry itself.
    """

    def __init__(
        self, places: Sequence[RegistryRemote], first: int, scope: Scope, digest: Digest | None
    ) -> None:
        self.order, self.number = (*places[first:], *places[:first]), -1
        self._own = places[-1]
        self._scope, self._digest = scope, digest
        self._retries = scope.retries or Retries()
        self._error: OcidistError | None = None
        self._reasons: list[str] = []

    @property
    def more(self) -> bool:
        """True if there is a place left to ask."""
        return self.number + 1 < len(self.order)

    def ask(self, call: Callable[[RegistryRemote], T]) -> T:
        """Return what ``call`` does of the first place where it succeeds. Raises an error that names each, and why."""
        while True:
            remote = self.next()
            try:
                return call(remote)
            except FAILURES as error:
                self.failed(error)

    def next(self) -> RegistryRemote:
        """Return the place to ask now."""
        self.number += 1
        return self.order[self.number]

    def failed(self, error: OcidistError) -> None:
        """Report that the next place is asked; if none is left, raise an error with what each said.

        The end of the scope is not a failure of a place.
        """
        self._scope.check()
        remote = self.order[self.number]
        why = f"{remote.host}: {_reason(error)}"
        if remote is self._own:
            self._error = error
        else:
            self._reasons.append(why)
        if self.more:
            text = f"{why}; asking {self.order[self.number + 1].host}"
            self._scope.emit(Retrying(self._digest, self._retries.elsewhere(), 0.0, text))
            return
        error = self._error or error
        if not self._reasons:
            raise error
        named = isinstance(error, (TransportError, RegistryError)) and error.host == self._own.host
        who = "" if named else f" ({self._own.host})"
        raise error.extended(f"{who}; asked before it: {'; '.join(self._reasons)}") from error


def _opened(
    remote: RegistryRemote, target: Descriptor, scope: Scope, offset: int, length: int | None
) -> Body:
    """Return the body at one place. An object of unknown size was located by its digest: that it is a blob, and not a
    manifest, is the word of the first place."""
    try:
        return remote.open(target, scope, offset=offset, length=length)
    except NotFound:
        if target.size >= 0:
            raise
        raw = remote.resolve(target.digest, scope, need_bytes=True)[1]
        return MemoryBody(raw or b"", offset, None if length is None else offset + length, host=remote.host)


def _reason(error: OcidistError) -> str:
    if isinstance(error, RegistryError):
        return f"it answered {error.status}"
    return error.reason if isinstance(error, (TransportError, ContentError)) else str(error)
