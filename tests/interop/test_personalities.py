"""Ten registries as their documentation has them: pull, tags and catalog on each, and what that costs in requests."""

from __future__ import annotations

import collections
import contextlib
import json
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.errors import OcidistError, RateLimited, RegistryError, Unauthorized
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.remotes.registry.credentials import Credential, NoCredentials
from ocidist.scope import Scope
from ocidist.server.personalities import ALL, Personality
from tests.parts.images import TestImage, small_index
from tests.parts.required import require
from tests.parts.tables import Table

if TYPE_CHECKING:
    from ocidist.server.records import Record
    from tests.parts.ca import CertificateAuthority
    from tests.parts.personality import PersonalityServer

BY_NAME = {personality.name: personality for personality in ALL}
HUB, GHCR, QUAY, ECR, ACR = (
    BY_NAME[name] for name in ("Docker Hub", "GHCR", "Quay", "Amazon ECR", "Azure Container Registry")
)
REQUESTS = Table(
    "Registries, as documented", ("registry", "step", "as", "registry asked", "tokens", "storage", "outcome")
)

ANYBODY = NoCredentials()

every_registry = pytest.mark.parametrize("like", ALL, ids=[p.name.replace(" ", "-") for p in ALL])


class Unhurried(Scope):
    """A scope whose pauses are no pauses."""

    def sleep(self, seconds: float) -> None:
        self.check()


@pytest.fixture
def serve(ca: CertificateAuthority) -> Iterator[Callable[..., PersonalityServer]]:
    """Starts a registry: ``serve(personality, tags=…, repositories=…, allowance=…)``."""
    require("module:cryptography")
    from tests.parts.personality import PersonalityServer

    with contextlib.ExitStack() as stack:

        def start(like: Personality, image: TestImage | None = None, **options: Any) -> PersonalityServer:
            server: PersonalityServer = PersonalityServer(like, image or small_index(), ca, **options)
            return stack.enter_context(server)  # type: ignore[no-any-return]

        yield start


def client_of(server: PersonalityServer, ca: CertificateAuthority, root: Path, auth: Any = ANYBODY) -> Client:
    """A client to whom the registry's hosts are on loopback, and for whom there are no others."""
    transport = HTTPTransport(HTTPOptions(ca_file=ca.file, connect_to=server.connect_to))
    return Client(store=root, auth=auth, transport=transport, platform="linux/amd64")


def known(server: PersonalityServer) -> tuple[str, str]:
    """The credentials that the registry takes."""
    return server.user, server.secret


def counted(records: list[Record]) -> str:
    """``2 HEAD, 5 GET``: the requests by method, and how many of them were refused."""
    methods = collections.Counter(record.method for record in records)
    refused = sum(record.status in (401, 403) for record in records)
    text = ", ".join(f"{count} {method}" for method, count in sorted(methods.items(), reverse=True))
    return (text + (f" ({refused} refused)" if refused else "")) or "-"


def is_token(server: PersonalityServer, record: Record) -> bool:
    """Whether a request was one for a token."""
    return bool(server.is_like.token_host) and record.path == urllib.parse.urlsplit(server.is_like.realm).path


def is_stored(server: PersonalityServer, record: Record) -> bool:
    """Whether a request was one with a signed URL."""
    where = urllib.parse.urlsplit(server.is_like.storage.value).path.partition("{")[0]
    return bool(where) and record.path.startswith(where)


def cells(server: PersonalityServer) -> tuple[str, str, str]:
    """What the registry, its token server and its storage were asked since the last count."""
    everything = server.records
    server.forget()
    tokens = [record for record in everything if is_token(server, record)]
    stored = [record for record in everything if is_stored(server, record)]
    rest = [record for record in everything if record not in tokens and record not in stored]
    return counted(rest), counted(tokens), counted(stored)


@every_registry
def test_every_fact_has_its_source(like: Personality) -> None:
    """A document and an address for each, or the words that it is the tests' own."""
    found = list(like.facts())
    assert len(found) > 15
    for about, fact in found:
        assert len(fact.source) > 20, about
        words = ("http", "these tests", "documented", "seen in public")
        assert any(word in fact.source for word in words), (about, fact.source)


@every_registry
def test_pull(
    like: Personality,
    serve: Callable[..., PersonalityServer],
    ca: CertificateAuthority,
    tmp_path: Path,
    table: Any,
) -> None:
    """All content, with as few requests as the registry's rules allow; a second pull asks for the name alone."""
    server = serve(like)
    add = table(REQUESTS)
    who = "anyone" if like.anonymous.value else server.user
    auth = ANYBODY if like.anonymous.value else known(server)
    client = client_of(server, ca, tmp_path / "root", auth)
    pulled = client.pull(like.reference)
    assert str(pulled.descriptor.digest) == server.image.digest
    assert pulled.reference.endswith(f"{like.repository.value}:1")
    records = server.records
    asked = [r for r in records if r.path.startswith(f"/v2/{like.repository.value}/")]
    manifests = [r for r in asked if "/manifests/" in r.path and r.status == 200]
    if like.counts.value:
        assert [r.method for r in manifests] == ["HEAD", "GET", "GET"], (
            "a tag is looked up without being counted"
        )
    else:
        assert [r.method for r in manifests] == ["GET", "GET"]
    assert sum(r.status == 401 for r in asked) == (1 if like.challenge.value else 0)
    blobs = len(server.image.children[0].blobs)
    assert sum("/blobs/" in r.path for r in asked) == blobs
    stored = [r for r in records if is_stored(server, r)]
    assert len(stored) == (blobs if like.storage.value else 0)
    assert sum(is_token(server, r) for r in records) == (1 if like.token_host else 0)
    if like.storage_host != like.host.value:
        assert all(r.header("Authorization") is None and r.header("Cookie") is None for r in stored)
    add(like.name, "1 pull", who, *cells(server), "pulled")
    again = client_of(server, ca, tmp_path / "root", auth)
    again.pull(like.reference)
    names = [r for r in server.records if "/manifests/" in r.path and r.status == 200]
    assert [r.method for r in names] == ["HEAD" if like.counts.value else "GET"]
    assert not any("/blobs/" in r.path for r in server.records)
    add(like.name, "2 pull again", who, *cells(server), "nothing new")


@every_registry
def test_tags(
    like: Personality,
    serve: Callable[..., PersonalityServer],
    ca: CertificateAuthority,
    tmp_path: Path,
    table: Any,
) -> None:
    """More tags than a page holds: all of them, in order, in whatever way the registry links its pages."""
    add = table(REQUESTS)
    size = min(like.page.value, 1000)
    tags = tuple(f"v{number:04}" for number in range(2 * size + 3))
    kinds = [like]
    while kinds[-1].link.differs is not None:
        kinds.append(kinds[-1].instead("link"))
    for number, kind in enumerate(kinds):
        server = serve(kind, tags=tags)
        client = client_of(server, ca, tmp_path / "root", known(server))
        assert tuple(client.tags(like.reference.rpartition(":")[0])) == tags
        pages = [r for r in server.records if r.path.endswith("/tags/list") and r.status == 200]
        limit = kind.page.value if kind.link.value else len(tags)
        assert len(pages) == -(-len(tags) // min(1000, limit))
        if not number:
            add(like.name, "3 tags", server.user, *cells(server), f"{len(tags)} tags, pages: {len(pages)}")


@every_registry
def test_catalog(
    like: Personality,
    serve: Callable[..., PersonalityServer],
    ca: CertificateAuthority,
    tmp_path: Path,
    table: Any,
) -> None:
    """Every name where the registry lists them; where it does not, one error that says who refuses."""
    add = table(REQUESTS)
    names = (*(f"other/app{number:03}" for number in range(130)), like.repository.value)
    server = serve(like, repositories=names)
    client = client_of(server, ca, tmp_path / "root", known(server))
    host = like.reference.partition("/")[0] if "/" in like.reference else "docker.io"
    if like.catalog.value is None:
        assert tuple(client.registry(host).catalog(Scope())) == names
        outcome = f"{len(names)} names"
    else:
        with pytest.raises(Unauthorized) as refused:
            list(client.registry(host).catalog(Scope()))
        assert refused.value.status == 401
        assert f"{like.host.value}/v2/_catalog" in str(refused.value)
        assert "\n" not in str(refused.value)
        outcome = "refused: 401"
    assert len(server.records) < 12
    add(like.name, "4 catalog", server.user, *cells(server), outcome)
    if like.catalog.differs is not None:
        allowed = serve(like.instead("catalog"), repositories=names)
        client = client_of(allowed, ca, tmp_path / "root", known(allowed))
        assert tuple(client.registry(host).catalog(Scope())) == names


@every_registry
def test_the_wrong_password_is_refused_in_one_line(
    like: Personality, serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """Unauthorized, by name, without what was sent, after few requests; what is public needs no password."""
    server = serve(like)
    auth = (server.user, "wrong " + server.secret[::-1])
    client = client_of(server, ca, tmp_path / "root", auth)
    if not like.challenge.value:
        client.pull(like.reference)
        assert all(r.header("Authorization") is None for r in server.records)
        return
    with pytest.raises(RegistryError) as refused:
        client.pull(like.reference)
    assert refused.value.status == 401
    text = str(refused.value)
    assert auth[1] not in text
    assert "\n" not in text
    assert len(server.records) <= 3


@pytest.mark.parametrize(
    ("like", "about"),
    [(p, about) for p in ALL for about in ("challenge", "storage", "user", "redirect", "page", "expires_in",
                                           "catalog_challenge")
     if getattr(p, about).differs is not None],
    ids=lambda value: getattr(value, "name", value).replace(" ", "-"),
)  # fmt: skip
def test_where_sources_disagree_both_are_pulled_from(
    like: Personality,
    about: str,
    serve: Callable[..., PersonalityServer],
    ca: CertificateAuthority,
    tmp_path: Path,
) -> None:
    """The registry as the other source has it: the same content, and the same tags."""
    server = serve(like.instead(about))
    client = client_of(server, ca, tmp_path / "root", known(server))
    assert str(client.pull(like.reference).descriptor.digest) == server.image.digest
    assert list(client.tags(like.reference.rpartition(":")[0])) == ["1"]


# --- what is peculiar to one of them -----------------------------------------------------------------------------


def test_hub_says_when_the_pulls_are_used_up(
    serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """Looking a tag up does not count; the third manifest is refused with 429, and the error says so."""
    server = serve(HUB, allowance=2)
    client = client_of(server, ca, tmp_path / "root")
    for _ in range(3):
        client.resolve(HUB.reference, platform="all")
    client.pull(HUB.reference)
    assert server.holds.allowance == 0
    with pytest.raises(RateLimited, match="pull rate limit"):
        client.open(HUB.reference, scope=Unhurried())


@pytest.mark.parametrize("like", [p for p in ALL if p.storage_head.value != 200], ids=lambda p: p.name)
def test_a_blob_is_found_where_the_storage_takes_no_head(
    like: Personality, serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """A URL signed for GET alone: the blob is there, its size is not known, and it can be read."""
    server = serve(like)
    client = client_of(server, ca, tmp_path / "root")
    layer = server.image.children[0].blobs[1]
    name = like.reference.rpartition(":")[0]
    found, _ = client.remote(name).readable().resolve(layer.digest, Scope(), hint="")
    assert (str(found.digest), found.size) == (layer.digest, -1)


def test_harbor_answers_basic_to_a_token_that_has_run_out(
    serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """In the middle of an anonymous pull: the token server is asked again, though the challenge names none."""
    server = serve(BY_NAME["Harbor"])
    client = client_of(server, ca, tmp_path / "root")
    client.resolve(BY_NAME["Harbor"].reference)
    server.holds.expire()
    assert str(client.pull(BY_NAME["Harbor"].reference).descriptor.digest) == server.image.digest
    assert sum(is_token(server, r) for r in server.records) == 2
    assert all(r.header("Cookie") is None for r in server.records)


@pytest.mark.parametrize("like", [p for p in ALL if p.token_host], ids=lambda p: p.name)
def test_a_token_that_runs_out_is_asked_for_again(
    like: Personality, serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """One more token, with the user's credentials, and the pull goes on."""
    server = serve(like)
    client = client_of(server, ca, tmp_path / "root", known(server))
    client.resolve(like.reference)
    server.holds.expire()
    assert str(client.pull(like.reference).descriptor.digest) == server.image.digest
    assert sum(is_token(server, r) for r in server.records) == 2


def test_ecr_takes_a_password_of_its_api_as_docker_keeps_it(
    serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """``AWS`` and the token of twelve hours in ``auths``, to the registry alone; the bucket sees no password."""
    from ocidist.remotes.registry.credentials import CredentialStore

    server = serve(ECR)
    config = tmp_path / "home/.docker/config.json"
    CredentialStore([config]).put(ECR.host.value, Credential(*known(server)))
    client = client_of(server, ca, tmp_path / "root", CredentialStore([config]))
    client.pull(ECR.reference)
    assert {r.header("Authorization") is not None for r in server.at(ECR.storage_host)} == {False}
    (expired := server).holds.secret = "another"
    client = client_of(expired, ca, tmp_path / "other", CredentialStore([config]))
    with pytest.raises(Unauthorized, match=r"the credentials of .*config\.json.* were refused"):
        client.pull(ECR.reference)


@pytest.mark.parametrize("how", ["identity", "password"])
def test_acr_exchanges_a_token_of_the_cloud(
    serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path, how: str
) -> None:
    """``az acr login`` exchanges; its refresh token pulls as an identity token (POST) and as a password (GET)."""
    from ocidist.net.message import Headers, Request

    server = serve(ACR)
    transport = HTTPTransport(HTTPOptions(ca_file=ca.file, connect_to=server.connect_to))
    form = {"grant_type": "access_token", "service": ACR.host.value, "access_token": server.holds.cloud_token}
    answer = transport.send(
        Request(
            "POST",
            f"https://{ACR.host.value}/oauth2/exchange",
            Headers([("Content-Type", "application/x-www-form-urlencoded")]),
            urllib.parse.urlencode(form).encode(),
        ),
        Scope(),
    )
    refresh = json.loads(answer.read(1 << 16))["refresh_token"]
    credential = Credential(identity_token=refresh) if how == "identity" else Credential(server.user, refresh)
    client = client_of(server, ca, tmp_path / "root", credential)
    client.pull(ACR.reference)
    asked = [r.method for r in server.records if is_token(server, r)]
    assert asked == ["POST" if how == "identity" else "GET"]


def test_quay_is_asked_for_no_scope_that_it_does_not_know(
    serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """Its catalog names no scope, and ``registry:catalog:*`` would be answered 400."""
    server = serve(QUAY)
    client = client_of(server, ca, tmp_path / "root", known(server))
    assert list(client.registry("quay.io").catalog(Scope())) == [QUAY.repository.value]
    tokens = [r for r in server.records if is_token(server, r)]
    assert [("scope=" in r.target, r.status) for r in tokens] == [(False, 200)]
    anyone = client_of(server, ca, tmp_path / "root")
    with pytest.raises(OcidistError, match=r"quay\.io"):
        list(anyone.registry("quay.io").catalog(Scope()))


def test_no_name_is_looked_up(
    serve: Callable[..., PersonalityServer], ca: CertificateAuthority, tmp_path: Path
) -> None:
    """The world of a registry here has its own hosts and no other."""
    server = serve(GHCR)
    with pytest.raises(OcidistError, match="in no test's world"):
        client_of(server, ca, tmp_path / "root").pull("quay.io/a/b:1")
    assert server.records == []
