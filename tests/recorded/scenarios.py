"""What the cassettes in ``cassettes/`` were recorded from: each a function of a session, run by the recording
command against the real parts, and by the tests against the cassette.

A function returns what it saw as plain values, so that two runs can be compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Callable, Iterator
from unittest import mock

from ocidist.errors import NotFound, OcidistError, RegistryError
from ocidist.remotes.registry import client as client_module
from ocidist.remotes.registry.client import Registry, RegistryRemote
from ocidist.remotes.registry.credentials import Credential
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec import manifest as manifests
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform, select
from tests.parts.secrets import PASSWORD, USER, WRONG_PASSWORD

HOST = "registry.example"
SHOP = f"{HOST}/demo/shop"
PRIVATE = f"{HOST}/private/shop"
PAGE = 2
TAGS = ("1.0", "1.0-docker", "1.1", "2.0", "latest")
ABSENT = Digest("sha256:" + hashlib.sha256(b"nobody has this").hexdigest())
"""The digest of something that no registry here has."""

Seen = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A cassette's name, what it shows, the function, and who asks.

    ``registry`` is "token" (the example world) or "htpasswd"; ``answers`` are what the registry's front answers
    in its place, once each: ``(pattern, status, headers, body)``.
    """

    name: str
    shows: str
    run: Callable[[RegistrySession], Seen]
    credential: Credential | None = None
    registry: str = "token"
    answers: tuple[tuple[str, int, dict[str, str], bytes], ...] = ()
    identity: bool = False


def read(remote: RegistryRemote, target: Descriptor, **span: int) -> bytes:
    """The bytes of ``target``, or of a span of it, by readinto."""
    body = remote.open(target, Scope(), **span)
    data, buffer = bytearray(), bytearray(4096)
    with contextlib.closing(body):
        while count := body.readinto(memoryview(buffer)):
            data += buffer[:count]
    return bytes(data)


def verified(remote: RegistryRemote, target: Descriptor) -> bytes:
    """The bytes of ``target``, which must be what it says."""
    raw = read(remote, target)
    assert (len(raw), Digest.of(raw)) == (target.size, target.digest), target
    return raw


def attempt(action: Callable[[], object]) -> Seen:
    """The error that ``action`` ends with."""
    try:
        action()
    except OcidistError as error:
        status = error.status if isinstance(error, RegistryError) else None
        codes = [code for code, _ in error.diagnostics] if isinstance(error, RegistryError) else []
        return {"error": type(error).__name__, "status": status, "codes": codes}
    return {"error": None, "status": None, "codes": []}


def top(remote: RegistryRemote, tag: str) -> tuple[Descriptor, manifests.Manifest | manifests.Index]:
    """The root that ``tag`` names, parsed."""
    root, raw = remote.resolve(tag, Scope())
    assert raw is not None
    assert Digest.of(raw) == root.digest
    return root, manifests.parse(raw, root.media_type)


def child(remote: RegistryRemote, tag: str = "1.0", platform: str = "linux/amd64") -> manifests.Manifest:
    """The image of one platform behind an index."""
    _, index = top(remote, tag)
    assert isinstance(index, manifests.Index)
    chosen = select(index.manifests, Platform.parse(platform))
    found = manifests.parse(verified(remote, chosen), chosen.media_type)
    assert isinstance(found, manifests.Manifest)
    return found


# -- the scenarios ----------------------------------------------------------------------------------


def first_pull(session: RegistrySession) -> Seen:
    """Everything that one can ask, without a name, of the demo image: both platforms, each object by digest."""
    remote = RegistryRemote(session, SHOP)
    root, index = top(remote, "1.0")
    assert isinstance(index, manifests.Index)
    sizes: dict[str, int] = {str(root.digest): root.size}
    images: dict[str, Any] = {}
    for entry in index.manifests:
        image = manifests.parse(verified(remote, entry), entry.media_type)
        assert isinstance(image, manifests.Manifest)
        assert image.config is not None
        for target in (image.config, *image.layers):
            if str(target.digest) not in sizes:
                sizes[str(target.digest)] = len(verified(remote, target))
        sizes[str(entry.digest)] = entry.size
        images[str(entry.platform)] = [
            str(image.config.digest),
            *(str(layer.digest) for layer in image.layers),
        ]
    for digest in (root.digest, *(entry.digest for entry in index.manifests)):
        found, raw = remote.resolve(
            str(digest), Scope(), hint=""
        )  # a digest of unknown kind: HEAD of a blob first
        assert raw is not None
        assert found.digest == digest
    docker, _ = top(remote, "1.0-docker")
    return {
        "root": str(root.digest),
        "docker": str(docker.digest),
        "images": images,
        "sizes": sizes,
        "tags": sorted(remote.tags(Scope())),  # docker-registry has them in no order
    }


def basic_auth(session: RegistrySession) -> Seen:
    """A registry with htpasswd: 401, then the name and password with each request."""
    remote = RegistryRemote(session, PRIVATE)
    image = child(remote)
    assert image.config is not None
    return {"config": str(Digest.of(verified(remote, image.config)))}


def token_auth(session: RegistrySession) -> Seen:
    """A private repository: a token for a user, by GET with Basic, or by POST with an identity token."""
    remote = RegistryRemote(session, PRIVATE)
    image = child(remote)
    assert image.config is not None
    return {"config": str(Digest.of(verified(remote, image.config)))}


def unauthorized(session: RegistrySession) -> Seen:
    """A wrong password: the token server's 401 is final."""
    return attempt(lambda: RegistryRemote(session, PRIVATE).resolve("1.0", Scope()))


def anonymous_denied(session: RegistrySession) -> Seen:
    """Nobody asks for a private repository: a token that grants nothing, and the registry's 401."""
    return attempt(lambda: RegistryRemote(session, PRIVATE).resolve("1.0", Scope()))


def index(session: RegistrySession) -> Seen:
    """Resolving a tag of several platforms: the index, and which image each platform gets."""
    root, found = top(RegistryRemote(session, SHOP), "1.0")
    assert isinstance(found, manifests.Index)
    chosen = {
        wanted: str(select(found.manifests, Platform.parse(wanted)).digest)
        for wanted in ("linux/amd64", "linux/arm64")
    }
    return {
        "media_type": root.media_type,
        "root": str(root.digest),
        "platforms": [str(entry.platform) for entry in found.manifests],
        "chosen": chosen,
    }


def ranges(session: RegistrySession) -> Seen:
    """Parts of a blob: from its middle, up to its end, its last byte; the parts make the whole."""
    remote = RegistryRemote(session, SHOP)
    layer = child(remote).layers[1]
    half = layer.size // 2
    parts = [read(remote, layer, offset=0, length=half), read(remote, layer, offset=half)]
    whole = read(remote, layer)
    assert b"".join(parts) == whole
    assert read(remote, layer, offset=layer.size - 1) == whole[-1:]
    assert Digest.of(whole) == layer.digest
    return {"size": layer.size, "parts": [len(part) for part in parts]}


def not_found(session: RegistrySession) -> Seen:
    """A tag, a repository and a blob that are not there."""
    remote = RegistryRemote(session, SHOP)
    absent = Descriptor("application/octet-stream", ABSENT, 15)
    return {
        "tag": attempt(lambda: remote.resolve("no-such-tag", Scope())),
        "repository": attempt(
            lambda: RegistryRemote(session, f"{HOST}/demo/no-such-repository").resolve("1.0", Scope())
        ),
        "blob": attempt(lambda: read(remote, absent)),
        "is_not_found": issubclass(NotFound, RegistryError),
    }


def rate_limited(session: RegistrySession) -> Seen:
    """429 with Retry-After, then the answer."""
    events: list[Any] = []
    remote = RegistryRemote(session, SHOP)
    root, _ = remote.resolve("1.0", Scope(observer=events.append))
    return {"root": str(root.digest), "waited": [event.after for event in events]}


def paged_tags(session: RegistrySession) -> Seen:
    """Tags, two at a time, by the Link of each page."""
    with mock.patch.object(client_module, "_PAGE", PAGE):
        return {"tags": list(RegistryRemote(session, SHOP).tags(Scope()))}


def catalog(session: RegistrySession) -> Seen:
    """Repositories of the registry, two at a time; needs a token for the catalog."""
    with mock.patch.object(client_module, "_PAGE", PAGE):
        return {"repositories": list(Registry(session, HOST).catalog(Scope()))}


def head_resolve(session: RegistrySession) -> Seen:
    """Resolving without the manifest, as is done where a registry counts pulls by GET."""
    with mock.patch.object(client_module, "_COUNTS_PULLS", frozenset({HOST})):
        root, raw = RegistryRemote(session, SHOP).resolve("1.0", Scope())
    return {"root": str(root.digest), "size": root.size, "media_type": root.media_type, "raw": raw}


def schema2(session: RegistrySession) -> Seen:
    """An image in Docker's format, manifest schema 2."""
    remote = RegistryRemote(session, SHOP)
    root, image = top(remote, "1.0-docker")
    assert isinstance(image, manifests.Manifest)
    assert image.config is not None
    return {
        "root": str(root.digest),
        "media_types": [root.media_type, image.config.media_type, image.layers[0].media_type],
        "config": len(verified(remote, image.config)),
        "layer": len(verified(remote, image.layers[0])),
    }


def _next(last: str) -> str:
    return f'</v2/demo/shop/tags/list?n={PAGE}&last={last}>; rel="next"'


ALICE = Credential(USER, PASSWORD)
TOO_MANY = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}\n'
JSON = {"Content-Type": "application/json"}
PAGES = tuple(
    (
        rf"/v2/demo/shop/tags/list\?n={PAGE}{f'&last={TAGS[start - 1]}' if start else ''}$",
        200,
        {**JSON, **({"Link": _next(TAGS[start + PAGE - 1])} if start + PAGE < len(TAGS) else {})},
        json.dumps({"name": "demo/shop", "tags": TAGS[start : start + PAGE]}).encode(),
    )
    for start in range(0, len(TAGS), PAGE)
)
"""docker-registry 2.8 has no pages of tags, so the front before it has."""
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first-pull", "an anonymous token, the index, both platforms' manifests, configs, layers by "
                 "redirect, each manifest by its digest, the tags", first_pull),
        Scenario("basic-auth", "401 with a Basic challenge, then the password", basic_auth, ALICE, "htpasswd"),
        Scenario("token-auth", "a user's token by GET with Basic", token_auth, ALICE),
        Scenario("identity-token", "a token by OAuth2 POST with a refresh token", token_auth, identity=True),
        Scenario("unauthorized", "a wrong password, refused by the token server", unauthorized,
                 Credential(USER, WRONG_PASSWORD)),
        Scenario("anonymous-denied", "401 again with a token that grants nothing", anonymous_denied),
        Scenario("index", "a tag of several platforms, resolved", index),
        Scenario("ranges", "206 Partial Content behind a redirect", ranges),
        Scenario("not-found", "404 for a tag, a repository and a blob", not_found),
        Scenario("rate-limited", "429 with Retry-After, then 200", rate_limited,
                 answers=((r"/manifests/1\.0$", 429, {"Retry-After": "1", **JSON}, TOO_MANY),)),
        Scenario("paged-tags", "tags by n= and Link", paged_tags, answers=PAGES),
        Scenario("catalog", "repositories by n= and Link", catalog, ALICE),
        Scenario("head-resolve", "HEAD of a manifest in place of GET", head_resolve),
        Scenario("schema2", "a Docker schema 2 manifest, its config and a layer", schema2),
    )
}  # fmt: skip


def session_over(transport: Any, scenario: Scenario, identity_token: str = "") -> RegistrySession:
    """The session that ``scenario`` runs on. Offline any identity token does."""
    from ocidist.remotes.registry.credentials import StaticCredentials

    credential = scenario.credential
    if scenario.identity:
        credential = Credential(identity_token=identity_token or "any")
    given = StaticCredentials({HOST: credential}) if credential is not None else None
    return RegistrySession(transport, given)


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Waits of retries take no time in here: a replay has nothing to wait for."""
    with mock.patch.object(Scope, "sleep", return_value=None):
        yield
