"""Client: composition only. One object that knows how to reach registries and where content is kept.

Everything it needs is built at first use, so making one costs nothing and touches nothing.
"""

from __future__ import annotations

import threading
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Literal, Mapping, Union

from ocidist import remotes
from ocidist.errors import InvalidReference, UsageError, quoted
from ocidist.graph.copy import DEFAULT_WORKERS, Slots
from ocidist.image import Image, open_image
from ocidist.limits import DEFAULT, Limits
from ocidist.net.recording import Recorder, Trace
from ocidist.remotes.protocols import Remote, Source
from ocidist.remotes.registry import mirrors, wire
from ocidist.remotes.registry.client import Registry
from ocidist.remotes.registry.connections import Connections
from ocidist.remotes.registry.credentials import (
    Credential,
    CredentialSource,
    CredentialStore,
    StaticCredentials,
)
from ocidist.remotes.registry.hosts import read_hosts
from ocidist.remotes.registry.replayed import ReplayedCredentials
from ocidist.remotes.registry.session import ATTEMPTS, RegistrySession
from ocidist.scope import Scope
from ocidist.settings import Settings
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.platform import Platform
from ocidist.spec.reference import DEFAULT_DOMAIN, Reference
from ocidist.stores.store import Store
from ocidist.transfer import Pulled, Wanted, fetch, pull

if TYPE_CHECKING:
    from ocidist.net.http import HTTPOptions
    from ocidist.net.message import Transport
    from ocidist.remotes.registry.hosts_toml import Endpoint

    Auth = Union[CredentialSource, Credential, tuple[str, str], None]

__all__ = ["Client", "Pulled"]


class Client:
    """Opens, resolves, fetches and pulls images, and logs in.

    ``store`` is a Store or the path of one (default: the settings' root). ``auth`` is ``(user, password)``,
    a Credential, or any object that gives one for a host; without it Docker's and podman's files are read. ``timeout`` (seconds)
    bounds each call as a whole; a host that sends less than ``least_rate`` (bytes a second; 0: any) for a minute is cut off.
    ``connect_to`` maps "host:port" to an address, as curl's option does. ``transport`` replaces the network (a cassette, a test). ``limits`` bound what an image may cost to unpack; None lifts them.
    """

    def __init__(
        self,
        *,
        store: Store | Path | str | None = None,
        auth: Auth = None,
        ca: Path | str | None = None,
        timeout: float | None = None,
        connect_timeout: float = 30.0,
        least_rate: float = 256.0,
        insecure: bool = False,
        plain_http: bool = False,
        platform: Platform | str | None = None,
        connect_to: Mapping[str, tuple[str, int]] | None = None,
        workers: int = DEFAULT_WORKERS,
        hosts_dirs: Iterable[Path | str] | None = None,
        transport: Transport | None = None,
        settings: Settings | None = None,
        note: Callable[[str], object] | None = None,
        limits: Limits | None = DEFAULT,
    ) -> None:
        self.limits = limits
        self.timeout, self.connect_timeout, self.least_rate = timeout, connect_timeout, least_rate
        self.insecure, self.plain_http = insecure, plain_http
        self.workers = workers
        self._ca = Path(ca) if ca is not None else None
        self._connect_to = dict(connect_to or {})
        self._platform = platform
        self._auth = auth
        self._store = store
        self.connections = Connections.over(transport)
        self._hosts_dirs = None if hosts_dirs is None else tuple(map(Path, hosts_dirs))
        self._settings, self._note = settings, note
        self._slots: dict[str, Slots] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        store = self._store if self._store is not None else self.settings.root
        root = store if isinstance(store, (str, Path)) else store.place.name
        return f"Client(store={str(root)!r})"

    # -- the parts, each made at first use --

    @property
    def settings(self) -> Settings:
        """Where things are on this machine, as the environment says."""
        with self._lock:
            if self._settings is None:
                self._settings = Settings.load()
            return self._settings

    @property
    def store(self) -> Store:
        """The local store; its folders are made when something is first written."""
        with self._lock:
            if not isinstance(self._store, Store):
                root = self._store if self._store is not None else self.settings.root
                self._store = Store.at(root)
            return self._store

    @property
    def transport(self) -> Transport:
        """The network, or what stands in for it."""
        with self._lock:
            if self.connections.transport is None:
                self.connections.transport = self._network()
            return self.connections.transport

    def network_options(self, endpoint: Endpoint | None = None) -> HTTPOptions:
        """How the network is reached; with an endpoint's certificates, if one is given."""
        from ocidist import __version__
        from ocidist.net.http import HTTPOptions

        own = endpoint.dial_timeout if endpoint is not None else None
        by = endpoint.proxy if endpoint is not None else ""
        return HTTPOptions(
            connect_timeout=min(own or self.connect_timeout, self.connect_timeout),
            least_rate=self.least_rate,
            ca_file=self._ca or self.settings.ca_file,
            ca_files=endpoint.ca if endpoint is not None else (),
            certificates=endpoint.client if endpoint is not None else (),
            insecure=self.insecure or (endpoint is not None and endpoint.skip_verify),
            proxies={"all": by} if by else self.settings.proxies,
            no_proxy="" if by else self.settings.no_proxy,
            connect_to=self._connect_to,
            user_agent=f"ocidist/{__version__}",
        )

    def _network(self, endpoint: Endpoint | None = None) -> Transport:
        from ocidist.net.http import HTTPTransport

        return HTTPTransport(self.network_options(endpoint))

    @property
    def offline(self) -> bool:
        """True where something stands in for the network: a cassette, a test."""
        return self.connections.offline

    @property
    def hosts_dirs(self) -> tuple[Path, ...]:
        """Where HOST/hosts.toml is looked for; the folders may not exist."""
        return self._hosts_dirs if self._hosts_dirs is not None else self.settings.hosts_dirs

    def record(self, *, bodies: bool = True) -> Trace:
        """From here on collect every exchange; the trace saves them as a cassette (which needs ``bodies``),
        HAR or JSON lines."""
        with self._lock:
            trace = Trace(bodies=bodies)
            self.connections = self.connections.traced(self.transport, trace)
            return trace

    def use(self, transport: Transport | None) -> None:
        """Another transport from here on (a cassette); None is the network again. Tokens are forgotten."""
        self.connections = Connections.over(transport)

    def with_store(self, store: Store | Path | str) -> Client:
        """The same client, over the same connections, with another store."""
        other = copy(self)
        other._store = store
        return other

    @property
    def session(self) -> RegistrySession:
        """Authentication, redirects and retries, shared by all registries of this client."""
        with self._lock:
            if self.connections.session is None:
                self.connections.session = RegistrySession(
                    self.transport, self.credentials, plain_http=self.plain_http
                )
            return self.connections.session

    def endpoints(self, host: str) -> tuple[Endpoint, ...]:
        """Who answers for the registry ``host`` by the hosts.toml files of this machine; () where nothing is said.

        Nothing is where a cassette is replayed. Raises UsageError where what is said can't be read.
        """
        if self.offline:
            return ()
        folders = [folder for folder in self.hosts_dirs if folder.is_dir()]
        for folder in self._hosts_dirs or ():  # the caller's; the settings' are only usual places
            if folder not in folders:
                raise UsageError(f"{folder}: no such folder of hosts.toml files; correct --hosts-dir")
        if not folders:
            return ()
        return read_hosts(host, folders) if self._note is None else read_hosts(host, folders, self._note)

    def session_at(self, endpoint: Endpoint, host: str, *, last: bool) -> RegistrySession:
        """A session that asks ``endpoint`` for what is of the registry ``host``.

        Only the registry itself gets the credentials that were given to this client; another host gets those that are
        kept for it. One that is not the ``last`` to be asked is asked once.
        """
        with self._lock:
            sessions = self.connections.sessions
            if (endpoint, host) not in sessions:
                sessions[endpoint, host] = self._new_session_at(endpoint, host, last)
            return sessions[endpoint, host]

    def _new_session_at(self, endpoint: Endpoint, host: str, last: bool) -> RegistrySession:
        own = mirrors.is_own(endpoint, host)
        name = host if own else endpoint.host
        network = self._network(endpoint)
        for trace in self.connections.traces:
            network = Recorder(network, trace)
        plain: Iterable[str] | bool = self.plain_http if own else False
        return RegistrySession(
            mirrors.EndpointTransport(
                network, endpoint, wire.endpoint_host(name), namespace="" if own else host
            ),
            self.credentials if own else self._credential_files(),
            plain_http=(name,) if endpoint.scheme == "http" else plain,
            schemes={name: endpoint.scheme} if endpoint.scheme else None,
            attempts=ATTEMPTS if last else 1,
        )

    @property
    def credentials(self) -> CredentialSource:
        """Who tells a registry's credentials: what was given, else Docker's and podman's files."""
        auth = self._auth
        replay = self.connections.replay
        if auth is None and replay is not None:
            return ReplayedCredentials(replay.exchanges)
        if auth is None:
            return self._credential_files()
        if isinstance(auth, tuple):
            return StaticCredentials(Credential(*auth))
        return StaticCredentials(auth) if isinstance(auth, Credential) else auth

    def _credential_files(self) -> CredentialStore:
        return CredentialStore(self.settings.auth_files, write_path=self.settings.docker_config)

    def _scope(self, scope: Scope | None) -> Scope:
        scope = scope if scope is not None else Scope.within(self.timeout, limits=self.limits)
        return scope if self.connections.replay is None or scope.replayed else scope.child(replayed=True)

    def platform(self, given: Platform | str | None = None) -> Platform | Literal["all"]:
        """The platform to choose of an index: as given, else this client's, else linux and this machine's."""
        return self.asked(given) or Platform.host()

    def asked(self, given: Platform | str | None = None) -> Platform | Literal["all"] | None:
        """Return the platform that was asked for: as given, else this client's or the settings'; None if none was."""
        wanted = given if given is not None else self._platform
        if wanted is None:
            wanted = self.settings.platform
        if wanted is None or isinstance(wanted, Platform):
            return wanted
        return "all" if wanted == "all" else Platform.parse(wanted)

    # -- where a locator leads --

    def remote(self, locator: str | Reference, object_: str | None = None) -> Remote:
        """Return what a locator leads to: its parts, and its full name (``docker.io/library/redis:7``).

        ``object_``, a tag or a digest, takes the place of what ``locator`` itself asks for.
        """
        if not isinstance(locator, (str, Reference)):
            raise UsageError(f"a locator is text or a Reference, not {type(locator).__name__}")
        return remotes.open(str(locator), self, object_)

    def registry(self, host: str) -> Registry:
        """Return a registry as a whole: ``catalog(scope)`` and ``ping(scope)``."""
        return Registry(self.session, _host(host))

    # -- looking --

    def resolve(
        self,
        locator: str | Reference,
        *,
        platform: Platform | str | None = None,
        scope: Scope | None = None,
    ) -> Descriptor:
        """The descriptor that a reference stands for, in one request beside authentication; where a platform was
        asked for that of its manifest, as :meth:`open` chooses it. With "all" an index stands for itself."""
        if self.asked(platform) not in (None, "all"):
            return self.open(locator, platform=platform, scope=scope).manifest_descriptor
        remote = self.remote(locator)
        target, _ = remote.readable().resolve(remote.object, self._scope(scope))
        return target

    def open(
        self,
        locator: str | Reference,
        *,
        platform: Platform | str | None = None,
        scope: Scope | None = None,
    ) -> Image:
        """An :class:`~ocidist.image.Image`, in at most three requests beside authentication; no layer is read.

        Of an index the image for ``platform`` is opened; "all" is refused (UsageError). Raises PlatformNotFound where
        the index, or a single image, has none for a platform that was asked for. A single image that does not fit
        this machine, where none was, says so in its ``notes``.
        """
        scope, asked = self._scope(scope), self.asked(platform)
        if asked == "all":
            raise UsageError(
                "platform 'all' is several images, and one is needed here; name one, as in linux/arm64"
            )
        remote = self.remote(locator)
        source = remote.readable()
        target, raw = source.resolve(remote.object, scope, need_bytes=True)
        store = self.store if source is self.store else None
        return open_image(source, remote.name, target, raw, asked, scope, store)

    def tags(self, remote: str, *, scope: Scope | None = None) -> Iterator[str]:
        """The tags of a repository, in the registry's order, page by page."""
        found = self.remote(remote).tags
        if found is None:
            raise UsageError(f"{remote!s}: only a registry lists tags; write HOST/NAME")
        return found.tags(self._scope(scope))

    # -- moving --

    def fetch(
        self,
        locator: str | Reference,
        object_: str | None = None,
        *,
        platform: Platform | str | None = None,
        scope: Scope | None = None,
    ) -> tuple[str, Descriptor]:
        """All content of an image into the store, without a name: it is held for 24 hours."""
        remote = self.remote(locator, object_)
        return remote.name, fetch(
            remote, self.store, self._wanted(platform, remote.readable()), self._scope(scope)
        )

    def pull(
        self,
        locator: str | Reference,
        *,
        platform: Platform | str | None = None,
        scope: Scope | None = None,
    ) -> Pulled:
        """Fetch all content, unpack the layers while they arrive, check the ChainID, and name the image last."""
        remote, replay = self.remote(locator), self.connections.replay
        wanted = self._wanted(platform, remote.readable())
        mark = "" if replay is None else replay.mark
        return pull(remote, self.store, wanted, self._scope(scope), replayed=mark)

    def _wanted(self, platform: Platform | str | None, source: Source) -> Wanted:
        """Return what a transfer moves. All those of this client from one host share a limit."""
        with self._lock:
            slots = self._slots.setdefault(source.host, Slots(max(self.workers, 1)))
        return Wanted(self.asked(platform), self.workers, slots)

    # -- credentials --

    def login(self, host: str, username: str, password: str, *, scope: Scope | None = None) -> str:
        """Check credentials at the registry, then keep them where Docker does; the file's path or helper.

        Raises UsageError while a cassette is replayed, as :meth:`logout` does.
        """
        self._refuse_replayed("login")
        host, credential = _host(host), Credential(username, password)
        session = RegistrySession(self.transport, StaticCredentials(credential), plain_http=self.plain_http)
        Registry(session, host).ping(self._scope(scope))
        where = str(self._credential_files().put(host, credential))
        self.session.forget()
        return where

    def _refuse_replayed(self, what: str) -> None:
        if self.connections.replay is not None:
            raise UsageError(
                f"{what}: no credentials are changed while a cassette is replayed; leave out --cassette"
            )

    def logout(self, host: str) -> bool:
        """Forget the credentials of a host; False where there were none."""
        self._refuse_replayed("logout")
        return bool(self._credential_files().delete(_host(host)))


def _host(text: str) -> str:
    """The registry that ``text`` names. Raises UsageError for anything but ``HOST[:PORT]``."""
    try:
        host = Reference.parse(f"{text}/name").domain
    except InvalidReference as error:
        raise UsageError(f"{quoted(text)} is not a registry host: {error.reason}") from None
    if host.lower() != text.lower() and not (host == DEFAULT_DOMAIN and text == "index.docker.io"):
        raise UsageError(f"{quoted(text)} is not a registry host; write HOST or HOST:PORT, as in ghcr.io")
    return host
