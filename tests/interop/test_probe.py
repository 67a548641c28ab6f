"""Hosts that keep every byte they are sent: wherever a registry points, no secret goes that was not meant to.

A registry and its token server on https, and probes by names that are other, alike, below or behind them, by other
ports and by http. Secrets here are passwords, identity and registry tokens, the tokens that are given for them, and
the keys of signed URLs; each bears the mark of :mod:`tests.parts.secrets`, so a probe looks for that.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.errors import OcidistError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.remotes.registry.credentials import Credential
from ocidist.scope import Scope
from ocidist.server.http import Handler, RecordingServer
from ocidist.server.personalities.facts import Fact, Personality
from tests.parts import secrets
from tests.parts.images import MANIFEST, TestImage, small_image, to_json
from tests.parts.required import require
from tests.parts.watched import shows_a_secret

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority

require("module:cryptography", "sockets")
from tests.parts.names import OnlyThese  # noqa: E402
from tests.parts.personality import PersonalityServer  # noqa: E402

REGISTRY, AUTH, PROBE, STORAGE = "registry.example", "auth.example", "probe.example", "storage.example"
PROBES = (PROBE, f"sub.{REGISTRY}", f"{REGISTRY}.{PROBE}", STORAGE)
OURS = "the tests' own: these tests"
LIKE = Personality(
    name="probed",
    reference=f"{REGISTRY}/team/app:1",
    host=Fact(REGISTRY, OURS),
    repository=Fact("team/app", OURS),
    challenge=Fact(f'Bearer realm="https://{AUTH}/token",service="{REGISTRY}",scope="{{scope}}"', OURS),
    catalog_challenge=Fact(
        f'Bearer realm="https://{AUTH}/token",service="{REGISTRY}",scope="{{scope}}"', OURS
    ),
    user=Fact("", OURS),
    anonymous=Fact(False, OURS),
    storage=Fact("", OURS),
    link=Fact("", OURS),
    catalog=Fact(None, OURS),
    grants=Fact(("get", "refresh_token"), OURS),
)

ELSEWHERE = (
    f"https://{PROBE}/v2/team/app/x",
    f"http://{PROBE}/v2/team/app/x",
    f"//{PROBE}/x",
    f"https://{REGISTRY}:444/v2/team/app/x",
    f"http://{REGISTRY}/v2/team/app/x",
    f"https://sub.{REGISTRY}/x",
    f"https://{REGISTRY}.{PROBE}/x",
    f"https://user:word@{PROBE}/x",
    f"https://{REGISTRY}@{PROBE}/x",
    f"https://{REGISTRY}:443@{PROBE}/x",
    f"https://{PROBE}\\@{REGISTRY}/x",
    f"https://{PROBE}#@{REGISTRY}/x",
)
CHALLENGES = (
    ("WWW-Authenticate", f'Basic realm="x", Bearer realm="https://{PROBE}/token",service="{REGISTRY}"'),
    (
        "WWW-Authenticate",
        f'Bearer realm="https://{AUTH}/token",service="{REGISTRY}",scope="repository:team/app:pull"',
    ),
    ("Set-Cookie", f"session=1; Domain={REGISTRY}; Path=/"),
)

Route = Callable[[Handler], None]


class Everything:
    """What came where: ``scheme://host[:port]`` and all that was sent, in order; shared by the servers."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def add(self, scheme: str, handler: Handler, body: bytes) -> None:
        """Keep one request: its line, its headers, its body."""
        text = "\n".join([handler.requestline, str(handler.headers), body.decode("latin-1")])
        with self._lock:
            self._seen.append((f"{scheme}://{handler.headers.get('Host', '')}", text))

    @property
    def seen(self) -> list[tuple[str, str]]:
        """All of it so far."""
        with self._lock:
            return list(self._seen)

    def clear(self) -> None:
        """Forget."""
        with self._lock:
            self._seen.clear()


class Probed(PersonalityServer):
    """The registry, its token server, and every https probe; ``routes`` say where requests are pointed elsewhere."""

    def __init__(
        self, like: Personality, image: TestImage, ca: CertificateAuthority, kept: Everything
    ) -> None:
        super().__init__(like, image, ca, hosts=PROBES)
        self.kept = kept
        self.routes: list[tuple[str, Route]] = []
        self.probe_says = 401
        self.ready = secrets.make("ready-")
        self.holds.given[self.ready] = (frozenset({"repository:team/app:pull", "registry:catalog:*"}), True)

    def serve(self, handler: Handler) -> None:
        host = handler.headers.get("Host", "")
        sent = handler.headers.get("Authorization")
        for pattern, route in self.routes:
            if re.search(pattern, f"{host}{handler.path}") and (sent is not None or host != REGISTRY):
                body = b"".join(handler.request_body())
                self.kept.add("https", handler, body)
                return route(handler)
        body = b"".join(handler.request_body())
        self.kept.add("https", handler, body)
        if host in (REGISTRY, AUTH):
            return self.respond(handler, body)
        return handler.reply(self.probe_says, CHALLENGES, b'{"tags":[],"repositories":[]}')


class PlainProbe(RecordingServer):
    """The probe that is spoken to without TLS, by whatever name."""

    def __init__(self, kept: Everything) -> None:
        super().__init__()
        self.kept = kept

    def serve(self, handler: Handler) -> None:
        self.kept.add("http", handler, b"".join(handler.request_body()))
        handler.reply(401, CHALLENGES, b"{}")


class World:
    """All servers, and clients of three kinds."""

    def __init__(self, https: Probed, http: PlainProbe, ca: CertificateAuthority, root: Path) -> None:
        self.https, self.http, self.ca, self.root = https, http, ca, root
        self.kept = https.kept
        names = (REGISTRY, AUTH, *PROBES)
        self.places = {f"{name}:443": https.port for name in names} | {
            f"{name}:80": http.port for name in names
        }
        self.places[f"{REGISTRY}:444"] = https.port

    def credential(self, kind: str) -> Credential:
        """A password, an identity token, or a token that is ready for the registry."""
        if kind == "password":
            return Credential(self.https.user, self.https.secret)
        if kind == "identity":
            return Credential(identity_token=self.https.holds.refresh_token())
        return Credential(registry_token=self.https.ready)

    def client(self, kind: str) -> Client:
        """A client that is let in."""
        transport = HTTPTransport(HTTPOptions(ca_file=self.ca.file, connect_to=OnlyThese(self.places)))
        return Client(
            store=self.root, auth=self.credential(kind), transport=transport, platform="linux/amd64"
        )

    def ask(self, kind: str) -> None:
        """Pull, list tags and the catalog; how that ends is not the question here."""
        client = self.client(kind)
        for work in (
            lambda: client.pull(LIKE.reference),
            lambda: list(client.tags(f"{REGISTRY}/team/app")),
            lambda: list(client.registry(REGISTRY).catalog(Scope())),
        ):
            with suppress(OcidistError):
                work()

    def leaks(self, *meant: str) -> list[tuple[str, str]]:
        """What came with a secret to where none was meant for."""
        return [
            (where, text) for where, text in self.kept.seen if where not in meant and shows_a_secret(text)
        ]

    def reached(self) -> set[str]:
        """Where anything came."""
        return {where for where, _ in self.kept.seen}


MEANT = (f"https://{REGISTRY}", f"https://{AUTH}")
KINDS = ("password", "identity", "ready")


@pytest.fixture
def make(ca: CertificateAuthority, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """``make(personality)``: a world."""
    started: list[RecordingServer] = []

    def build(like: Personality = LIKE, image: TestImage | None = None) -> World:
        kept = Everything()
        https, http = Probed(like, image or small_image(), ca, kept), PlainProbe(kept)
        for server in (https, http):
            server.start()
            started.append(server)
        return World(https, http, ca, tmp_path / f"root-{len(started)}")

    yield build
    for server in started:
        server.stop()


def redirect(target: str, status: int) -> Route:
    """An answer that points elsewhere, in every field that could."""
    fields = ("Location", "Content-Location", "Refresh", "Alt-Svc")
    return lambda handler: handler.reply(status, [(name, target) for name in fields])


def link(target: str, body: bytes) -> Route:
    """A page whose next one is elsewhere."""
    return lambda handler: handler.reply(200, [("Link", f'<{target}>; rel="next"')], body)


PLACES: dict[str, tuple[str, Callable[[str, int], Route]]] = {
    "manifest": (rf"^{REGISTRY}/v2/team/app/manifests/", redirect),
    "blob": (rf"^{REGISTRY}/v2/team/app/blobs/", redirect),
    "tags": (rf"^{REGISTRY}/v2/team/app/tags/", redirect),
    "catalog": (rf"^{REGISTRY}/v2/_catalog", redirect),
    "tags-link": (rf"^{REGISTRY}/v2/team/app/tags/", lambda to, _: link(to, b'{"tags":["1"]}')),
    "catalog-link": (rf"^{REGISTRY}/v2/_catalog", lambda to, _: link(to, b'{"repositories":["a/b"]}')),
    "token": (rf"^{AUTH}/token", redirect),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a12_no_answer_takes_a_secret_elsewhere(make: Callable[..., World], place: str, kind: str) -> None:
    """Redirects of every request, and Links, to a dozen kinds of elsewhere that demand credentials."""
    world = make()
    pattern, route = PLACES[place]
    reached: set[str] = set()
    for number, target in enumerate(ELSEWHERE):
        world.https.routes[:] = [(pattern, route(target, (307, 302, 303, 301, 308)[number % 5]))]
        world.https.probe_says = 401 if number % 3 else 200
        world.kept.clear()
        world.ask(kind)
        assert world.leaks(*MEANT) == [], target
        reached |= world.reached()
    if place == "token" and kind != "password":  # a POST is not redirected; a ready token needs no server
        assert reached <= set(MEANT)
    else:
        assert f"https://{PROBE}" in reached
        assert not {where for where in reached if where.startswith("http://")}, "https never becomes http"


@pytest.mark.parametrize("kind", KINDS)
def test_b21_a_realm_that_is_no_https_url_gets_no_secret(make: Callable[..., World], kind: str) -> None:
    """http at the token server's own name, at the registry's, at a probe; other schemes; names that deceive."""
    for realm in (
        f"http://{AUTH}/token",
        f"http://{REGISTRY}/token",
        f"http://{PROBE}/token",
        f"http://{AUTH}@{PROBE}/token",
        f"ftp://{PROBE}/token",
        f"https:///{PROBE}/token",
        f"//{PROBE}/token",
    ):
        challenge = Fact(f'Bearer realm="{realm}",service="{REGISTRY}",scope="{{scope}}"', OURS)
        world = make(replace(LIKE, challenge=challenge, catalog_challenge=challenge))
        world.ask(kind)
        assert world.leaks(*MEANT) == [], realm
        assert kind == "ready" or not shows_a_secret(repr(world.kept.seen)), realm


def test_b21_a_realm_over_https_is_the_registrys_to_name(make: Callable[..., World]) -> None:
    """Docker Hub's is at another host too: the password goes there, the token to the registry, nothing elsewhere."""
    world = make()
    assert world.client("password").pull(LIKE.reference)
    by_host: dict[str, str] = {}
    for where, text in world.kept.seen:
        by_host[where] = by_host.get(where, "") + text
    assert set(by_host) == set(MEANT)
    assert "Basic " in by_host[f"https://{AUTH}"]
    assert "Basic " not in by_host[f"https://{REGISTRY}"]
    assert world.https.secret not in by_host[f"https://{REGISTRY}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a13_a_hop_back_to_the_registry_comes_without_secrets(make: Callable[..., World], kind: str) -> None:
    """registry → probe → registry: what the probe wrote into the URL is asked for by nobody in particular."""
    world = make()
    world.https.routes = [
        (rf"^{REGISTRY}/v2/team/app/blobs/", redirect(f"https://{PROBE}/hop", 307)),
        (rf"^{PROBE}/hop", redirect(f"https://{REGISTRY}/v2/team/app/back", 307)),
    ]
    world.ask(kind)
    back = [text for where, text in world.kept.seen if where == MEANT[0] and "/v2/team/app/back" in text]
    assert back
    assert not any(shows_a_secret(text) for text in back)
    assert world.leaks(*MEANT) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a13_a_signed_url_tells_its_key_to_its_own_host_alone(make: Callable[..., World], kind: str) -> None:
    """registry → storage with a key → probe: no Referer, no cookie, no key."""
    world = make()
    signed = f"https://{STORAGE}/blob?sig={secrets.make()}"
    world.https.routes = [
        (rf"^{REGISTRY}/v2/team/app/blobs/", redirect(signed, 307)),
        (rf"^{STORAGE}/blob", redirect(f"https://{PROBE}/x", 302)),
    ]
    world.ask(kind)
    assert {f"https://{STORAGE}", f"https://{PROBE}"} <= world.reached()
    assert world.leaks(*MEANT, f"https://{STORAGE}") == []
    assert not any(
        "Authorization" in text for where, text in world.kept.seen if where == f"https://{STORAGE}"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_b22_a_layers_own_urls_get_no_secret(make: Callable[..., World], kind: str) -> None:
    """Foreign layers at a dozen kinds of elsewhere, which answer 401, and redirect back to the registry."""
    image = small_image()
    for targets in (ELSEWHERE[:6], ELSEWHERE[6:]):
        document: dict[str, Any] = image.manifest
        layer = document["layers"][0]
        layer["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        layer["urls"] = [*targets, f"https://{PROBE}/back"]
        raw = to_json(document)
        world = make(LIKE, image)
        world.https.routes = [
            (
                rf"^{REGISTRY}/v2/team/app/manifests/",
                lambda handler, raw=raw: handler.reply(200, [("Content-Type", MANIFEST)], raw),
            ),
            (rf"^{REGISTRY}/v2/team/app/blobs/{layer['digest']}", lambda handler: handler.reply(404)),
            (
                rf"^{PROBE}/back",
                redirect(f"https://{REGISTRY}/v2/team/app/blobs/{image.blobs[1].digest}", 307),
            ),
        ]
        world.ask(kind)
        assert f"https://{PROBE}" in world.reached()
        assert world.leaks(*MEANT) == []
        asked = [text for where, text in world.kept.seen if where == MEANT[0] and layer["digest"] in text]
        assert [shows_a_secret(text) for text in asked].count(True) <= 1, (
            "once by its name, never by its urls"
        )


def test_a_leak_would_be_seen(make: Callable[..., World]) -> None:
    """The probe itself: a secret that is sent to it in a header, a query or a body is found."""
    from ocidist.net.message import Headers, Request

    world = make()
    transport = HTTPTransport(HTTPOptions(ca_file=world.ca.file, connect_to=OnlyThese(world.places)))
    basic = Credential("ann", secrets.make()).basic
    for request in (
        Request("GET", f"https://{PROBE}/", Headers([("Authorization", basic)])),
        Request("GET", f"http://{PROBE}/?token={secrets.make()}"),
        Request("POST", f"https://{PROBE}/", Headers(), f"refresh_token={secrets.make()}".encode()),
    ):
        transport.send(request, Scope()).close()
    assert len(world.leaks(*MEANT)) == 3
