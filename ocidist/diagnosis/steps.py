"""Each step of a pull, tried by itself: name, connection, TLS (not over plain http), ``/v2/``, token, manifest, first
bytes of a layer.

The first step of a host that fails ends the way to it: what comes after could only fail for the same reason.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Callable, Iterator

from ocidist.diagnosis.advice import advice_for
from ocidist.diagnosis.finding import FAILED, OK, SKIPPED, Finding
from ocidist.errors import Cancelled, DeadlineExceeded, OcidistError, TransportError, UsageError
from ocidist.graph.copy import MAX_DEPTH, pick, read_small
from ocidist.net import probe
from ocidist.net.message import Headers, Request
from ocidist.net.proxy import host_port
from ocidist.remotes import Locator
from ocidist.remotes.registry import mirrors, wire
from ocidist.remotes.registry.auth import Site
from ocidist.remotes.registry.challenge import Challenge, parse_challenges
from ocidist.remotes.registry.client import RegistryRemote
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.scope import Scope
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.manifest import Index
from ocidist.spec.platform import Platform
from ocidist.spec.reference import Reference
from ocidist.view.sizes import human

if TYPE_CHECKING:
    from ocidist.client import Client
    from ocidist.net.proxy import Route
    from ocidist.spec.manifest import Manifest

__all__ = ["reference_of", "steps"]

_FIRST_BYTES = 64 << 10


class _Nothing(Exception):
    """There is nothing to try in this step; the text says why."""


def reference_of(locator: str) -> Reference:
    """The reference at a registry that ``locator`` is. Raises UsageError for any other kind."""
    where = Locator.parse(locator)
    if where.kind != "registry":
        raise UsageError(f"{where}: only images at a registry have steps to look at; write HOST/NAME:TAG")
    return Reference.parse(where.body)


def steps(client: Client, reference: Reference, scope: Scope) -> Iterator[Finding]:
    """The steps to ``reference``, at each host that answers for its registry, as they are done.

    None takes longer than the client's connect_timeout, all together no longer than ``scope``. Raises Cancelled.
    """
    host = reference.name.partition("/")[0]
    for endpoint in client.endpoints(host) or (Endpoint(),):
        way = _Way(client, reference, endpoint)
        failed = ""
        for step, attempt in way.steps():
            if failed:
                finding = Finding(way.host, step, SKIPPED, f"after {failed} failed")
            else:
                finding = _tried(way, step, attempt, client.connect_timeout, scope)
            if step == "TLS" and way.scheme == "http":
                continue  # there is no such step
            failed = step if finding.state == FAILED else failed
            yield finding


def _tried(way: _Way, step: str, attempt: Callable[[Scope], str], seconds: float, scope: Scope) -> Finding:
    try:
        with scope.child(deadline=monotonic() + seconds) as part:
            return Finding(way.host, step, OK, attempt(part))
    except _Nothing as nothing:
        return Finding(way.host, step, SKIPPED, str(nothing))
    except Cancelled:
        raise
    except DeadlineExceeded as error:
        if scope.ended:
            return Finding(
                way.host,
                step,
                FAILED,
                "the time for the whole command (--timeout) is over",
                way.advice(step, error),
            )
        return Finding(way.host, step, FAILED, f"no result within {seconds:g} s", way.advice(step, error))
    except OcidistError as error:
        reason = (
            error.reason if isinstance(error, TransportError) and error.host == way.authority else str(error)
        )
        return Finding(way.host, step, FAILED, reason, way.advice(step, error))


class _Way:
    """The way to one host, and what its steps learn for those after them."""

    def __init__(self, client: Client, reference: Reference, endpoint: Endpoint) -> None:
        host, _, self.repository = reference.name.partition("/")
        self.object = reference.object
        self.endpoint = endpoint
        self.host = host if mirrors.is_own(endpoint, host) else endpoint.host
        self.authority = wire.endpoint_host(self.host)
        self.client = client
        self.options = client.network_options(endpoint)
        # Asked once: what fails now and then is to be seen, not to be got over.
        self.session = client.session if client.offline else client.session_at(endpoint, host, last=False)
        self.remote = RegistryRemote(self.session, f"{self.host}/{self.repository}")
        self.scheme = self.session.scheme(self.host.lower()) or ""
        self.challenges: tuple[Challenge, ...] = ()
        self.known = False
        self.manifest: Manifest | None = None

    def steps(self) -> tuple[tuple[str, Callable[[Scope], str]], ...]:
        return (
            ("name", self.name),
            ("connection", self.connection),
            ("TLS", self.tls),
            ("/v2/", self.ping),
            ("token", self.token),
            ("manifest", self.read_manifest),
            ("layer", self.first_bytes),
        )

    def advice(self, step: str, error: OcidistError) -> str:
        proxy = ""
        if not self.client.offline and step in ("name", "connection", "TLS"):
            try:
                way = self.route()
            except TransportError:
                pass  # it is what failed
            else:
                proxy = "" if way.proxy is None else host_port(way.proxy.host, way.proxy.port)
        return advice_for(step, error, self.host, proxy=proxy, known=self.known)

    def route(self) -> Route:
        if self.client.offline:
            raise _Nothing("answers come from a cassette")
        return probe.way_to(f"{self.scheme or 'https'}://{self.authority}/", self.options)

    # -- the network --

    def name(self, scope: Scope) -> str:
        way = self.route()
        found = probe.name(way, self.options, scope)
        return ", ".join(found) + ("" if way.proxy is None else f" (the proxy {way.proxy.host})")

    def connection(self, scope: Scope) -> str:
        way = self.route()
        found = probe.connect(way, self.options, scope)
        return f"to {found}" + ("" if way.proxy is None else ", a proxy")

    def tls(self, scope: Scope) -> str:
        way = self.route()
        if self.scheme == "http":
            return ""
        try:
            version, until = probe.handshake(way, self.options, scope)
        except TransportError as error:
            if self.scheme or error.kind not in ("plain-http", "hung-up"):
                raise
            self.scheme = "http"  # not known yet: so it is on loopback, where http is spoken as well
            return ""
        self.scheme = "https"
        return f"{version}, " + (
            f"its certificate is good until {until}" if until else "unchecked (--insecure)"
        )

    # -- the registry --

    def ping(self, scope: Scope) -> str:
        url = f"{self.scheme or 'https'}://{self.authority}/v2/"
        if self.client.offline:
            raise _Nothing("answers come from a cassette")
        response = self.session.transport.send(Request("GET", url, Headers()), scope)
        try:
            status = response.status
            self.challenges = parse_challenges(response.headers.get_all("WWW-Authenticate"))
            body = b"" if 200 <= status < 300 or status == 401 else response.read(wire.ERROR_LIMIT)
        finally:
            response.close()
        over = " over plain http" if self.scheme == "http" else ""
        if 200 <= status < 300:
            return f"{status}: a registry{over}, open to everyone"
        if status == 401:
            wanted = self.challenges[0].scheme if self.challenges else "credentials of an unknown kind"
            return f"401: a registry{over} that wants {wanted}"
        raise wire.error_for("GET", url, status, wire.parse_errors(body), "")

    def token(self, scope: Scope) -> str:
        if not self.challenges:
            raise _Nothing("no token is needed")
        auth, site = self.session.auth, Site(self.host.lower(), self.scheme or "https")
        if not auth.answer(site, self.repository, self.challenges, None, scope):
            raise wire.error_for("GET", wire.ping_url(self.host), 401, (), "no credentials are at hand")
        grant = auth.header(site, self.repository, [f"repository:{self.repository}:pull"], scope)
        self.known = grant is not None and grant.known
        if grant is not None and grant.header.startswith("Basic "):
            self.remote.ping(scope)
            return "user and password are accepted"
        return f"given{' for the credentials at hand' if self.known else ' anonymously'}"

    # -- the image --

    def read_manifest(self, scope: Scope) -> str:
        what = "pull" if ":" in self.object else "resolve"
        if what not in self.endpoint.capabilities:
            raise _Nothing(f"hosts.toml does not give it the capability {what!r}")
        root, raw = self.remote.resolve(self.object, scope, need_bytes=True)
        target = root
        value = manifests.parse(raw or b"", root.media_type)
        for _ in range(MAX_DEPTH):
            if not isinstance(value, Index):
                break
            wanted = self.client.platform()
            platform = Platform.host() if wanted == "all" else wanted
            target = pick(value.manifests, platform, lambda item: read_small(self.remote, item, scope))
            value = manifests.parse(read_small(self.remote, target, scope), target.media_type)
        self.manifest = None if isinstance(value, Index) else value
        return f"{root.digest}" + ("" if target is root else f", of it {target.digest} for {target.platform}")

    def first_bytes(self, scope: Scope) -> str:
        layers = self.manifest.layers if self.manifest is not None else ()
        own = [layer for layer in layers if not mediatype.is_foreign(layer.media_type) and layer.size > 0]
        if not own:
            raise _Nothing("the image has no layer to ask for")
        if "pull" not in self.endpoint.capabilities:
            raise _Nothing("hosts.toml does not give it the capability 'pull'")
        buffer = memoryview(bytearray(min(own[0].size, _FIRST_BYTES)))
        started = monotonic()
        body = self.remote.open(own[0], scope, offset=0, length=len(buffer))
        try:
            count = 0
            while count < len(buffer):
                got = body.readinto(buffer[count:])
                if not got:
                    break
                count += got
        finally:
            body.close()
        seconds = max(monotonic() - started, 1e-3)
        return f"{human(count)} of {len(layers)} layers' {human(sum(item.size for item in layers))} came in {seconds:.1f} s"
