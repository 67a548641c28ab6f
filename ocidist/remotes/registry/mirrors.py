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
from ocidist.content.verify import MemoryBody, read_all
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
from ocidist.progress import Resumed, Retrying
from ocidist.remotes.protocols import Origin
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.client import RegistryRemote
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.remotes.registry.wire import MANIFEST_LIMIT
from ocidist.scope import Retries, Scope
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.remotes.registry.session import RegistrySession

__all__ = ["EndpointTransport", "Mirrored", "Place", "Sessions", "is_own", "repository"]

T = TypeVar("T")
FAILURES = (RegistryError, TransportError, ContentError, InvalidManifest, InvalidDigest, Unsupported)
"""What a place that answers wrongly, or not at all, comes to; the next one is asked then."""


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
        own = wire.endpoint_host(self._namespace) if self._namespace else authority
        meant = f"{scheme}://{own}{slash}{target}"
        prefix = self._endpoint.path
        if not request.placed and prefix != "/v2" and (path == "/v2" or path.startswith("/v2/")):
            path = prefix + path[3:]
        inside = not request.placed or f"{path}/".startswith(
            f"{prefix}/"
        )  # a redirect may lead to its storage
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
        found = self._ask(
            "pull" if blob else "resolve",
            scope,
            lambda remote: remote.resolve(name, scope, need_bytes=need_bytes, hint=hint),
        )
        if blob and found[1] is None and len(self._able("pull")) > 1:
            return replace(found[0], size=-1), None
        return found

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        """As :meth:`RegistryRemote.open`, at the first place that answers; where one fails in the middle the next goes on.

        A document (manifest, index, config) is read and verified here, so that wrong bytes lead to the next place too.
        """
        able = self._able("pull")
        with self._lock:
            first = self._begun.get(target.digest, 0) % max(len(able), 1)
        order = [*able[first:], *able[:first]]
        kind = mediatype.kind(target.media_type)
        if target.data is None and kind in ("manifest", "index", "config") and not offset and length is None:
            raw = self._ask(
                "pull",
                scope,
                lambda remote: read_all(remote.open(target, scope), target, MANIFEST_LIMIT),
                order,
            )
            return MemoryBody(raw)
        body = MirroredBody(self, order, target, scope, offset, length)
        with self._lock:
            self._begun[target.digest] = (first + body.number + 1) % len(able)
        return body

    def ping(self, scope: Scope) -> None:
        """As :meth:`RegistryRemote.ping`."""
        self._ask("resolve", scope, lambda remote: remote.ping(scope))

    def tags(self, scope: Scope) -> Iterator[str]:
        """Every tag, as the first place lists them that does. Where one fails in the middle the next one's list is
        begun anew, without the names that were given out."""
        asking = Asking(self._able("resolve"), scope)
        before: frozenset[str] = frozenset()
        while True:
            remote = asking.next(self._nobody("resolve"))
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

    def _nobody(self, what: str) -> str:
        return f"{self.host}: none of its hosts has the capability {what!r} in hosts.toml"

    def _able(self, what: str) -> list[RegistryRemote]:
        return [place.remote for place in self.places if what in place.capabilities]

    def _ask(
        self,
        what: str,
        scope: Scope,
        call: Callable[[RegistryRemote], T],
        order: Sequence[RegistryRemote] | None = None,
    ) -> T:
        """``call`` of each place that may be asked, until one succeeds; else an error that names each, and why."""
        asking = Asking(self._able(what) if order is None else order, scope)
        while True:
            remote = asking.next(self._nobody(what))
            try:
                return call(remote)
            except FAILURES as error:
                asking.failed(error)


class Asking:
    """The places of one question in their order, and why those that were asked have failed."""

    def __init__(self, order: Sequence[RegistryRemote], scope: Scope, digest: Digest | None = None) -> None:
        self.order, self.number = tuple(order), -1
        self._scope, self._digest = scope, digest
        self._retries = scope.retries or Retries()
        self._reasons: list[str] = []

    @property
    def host(self) -> str:
        """Whoever is being asked."""
        return self.order[self.number].host

    @property
    def more(self) -> bool:
        """True while there is one to ask after whoever is being asked."""
        return self.number + 1 < len(self.order)

    def next(self, nobody: str) -> RegistryRemote:
        """The next place. Raises Unsupported with ``nobody`` if there is none at all."""
        if not self.order:
            raise Unsupported(nobody)
        self.number += 1
        return self.order[self.number]

    def failed(self, error: OcidistError) -> None:
        """Report that the next place is asked; raise ``error``, with what the others said, if there is none.

        What ends the scope is no failure of a place.
        """
        self._scope.check()
        if not self.more:
            if not self._reasons:
                raise error
            who = "" if self.host in str(error) else f" ({self.host})"
            raise error.extended(f"{who}; asked before it: {'; '.join(self._reasons)}") from error
        why = f"it answered {error.status}" if isinstance(error, RegistryError) else _reason(error)
        self._reasons.append(f"{self.host}: {why}")
        following = self.order[self.number + 1].host
        text = f"{self._reasons[-1]}; asking {following}"
        self._scope.emit(Retrying(self._digest, self._retries.elsewhere(), 0.0, text))


class MirroredBody:
    """The bytes of one object from ``start`` on. Where a place fails the next one goes on at the same byte."""

    def __init__(
        self,
        owner: Mirrored,
        order: Sequence[RegistryRemote],
        target: Descriptor,
        scope: Scope,
        offset: int,
        length: int | None,
    ) -> None:
        self._asking = Asking(order, scope, target.digest)
        self._nobody = owner._nobody("pull")
        self._target, self._scope = target, scope
        self._position, self._end = offset, None if length is None else offset + length
        self._known = 0  # bytes to drop: a place that ignores ranges sends them again
        self._body = self._open()
        self.start = self._position = self._body.start
        self._known = 0
        self.number = self._asking.number

    @property
    def size(self) -> int | None:
        """Bytes of the whole object."""
        return self._body.size

    @property
    def host(self) -> str:
        """Who sends at present."""
        return self._asking.host

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end. Raises what the last place did, naming them all."""
        while True:
            try:
                self._drop()
                count = self._body.readinto(buffer)
            except FAILURES as error:
                self._body.close()
                self._asking.failed(error)
                self._body = self._open()
                self._scope.emit(Resumed(self._target.digest, self._position))
                continue
            self._position += count
            return count

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._body.close()

    def _open(self) -> Body:
        length = None if self._end is None else self._end - self._position
        while True:
            remote = self._asking.next(self._nobody)
            try:
                body = self._at(remote, length)
            except FAILURES as error:
                self._asking.failed(error)
                continue
            self._known = self._position - body.start
            return body

    def _at(self, remote: RegistryRemote, length: int | None) -> Body:
        """The body at one place. An object of unknown size was located by its digest: that it is a blob, and no manifest,
        is the word of the first place."""
        try:
            return remote.open(self._target, self._scope, offset=self._position, length=length)
        except NotFound:
            if self._target.size >= 0:
                raise
            raw = remote.resolve(self._target.digest, self._scope, need_bytes=True)[1]
            return MemoryBody(raw or b"", self._position, self._end)

    def _drop(self) -> None:
        scratch = memoryview(bytearray(min(max(self._known, 0), 64 << 10)))
        while self._known > 0:
            count = self._body.readinto(scratch[: self._known])
            if not count:
                raise TransportError(self.host, "the body ended before the byte to go on from")
            self._known -= count


def _reason(error: OcidistError) -> str:
    return error.reason if isinstance(error, (TransportError, ContentError)) else str(error)
