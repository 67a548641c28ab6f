"""The registry client against Debian's registry: tokens, Basic, plain http, redirects and drops, counted at the server."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from ocidist.content import verify
from ocidist.content.resume import resuming
from ocidist.errors import NotFound, OcidistError, TransportError, Unauthorized
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.remotes.registry.client import Registry, RegistryRemote
from ocidist.remotes.registry.credentials import Credential, StaticCredentials
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec import manifest as manifests
from ocidist.spec.descriptor import Descriptor
from tests.parts.images import layout_graph, push_layout, small_image, small_index, write_layout
from tests.parts.registry import RegistryProcess
from tests.parts.required import require
from tests.parts.secrets import PASSWORD
from tests.parts.world import REGISTRY, ExampleWorld


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[RegistryProcess]:
    """A registry on loopback, http, no authentication."""
    require("docker-registry")
    with RegistryProcess(tmp_path / "plain") as running:
        yield running


def everything(remote: RegistryRemote, name: str, scope: Scope) -> dict[str, bytes]:
    """Digest -> verified bytes of all that a tag leads to."""
    root, raw = remote.resolve(name, scope)
    found: dict[str, bytes] = {}

    def walk(target: Descriptor, raw: bytes | None) -> None:
        data = raw if raw is not None else verify.read_all(remote.open(target, scope), target, 1 << 30)
        found[target.digest] = data
        if "manifest" in target.media_type or "index" in target.media_type:
            for child in manifests.parse(data, target.media_type).children():
                if child.digest not in found:
                    walk(child, None)

    walk(root, raw)
    return found


def test_a_cold_anonymous_pull_from_a_guarded_registry(tmp_path: Path, example_world: ExampleWorld) -> None:
    """Every blob of an index, by token, TLS and a redirect to another host, with one token request."""
    layout = write_layout(tmp_path / "layout", {"1": small_index()})
    digest = push_layout(example_world.registry.loader.url, layout, "public/a", "1")
    example_world.forget()
    options = HTTPOptions(ca_file=example_world.ca_file, connect_to=example_world.connect_to)
    with HTTPTransport(options) as transport:
        remote = RegistryRemote(RegistrySession(transport), f"{REGISTRY}/public/a")
        found = everything(remote, "1", Scope())
    assert set(found) == {entry["digest"] for entry in layout_graph(layout)}
    assert digest in found
    asked = example_world.registry.front.records
    assert [request.status for request in asked].count(401) == 1
    assert len(asked) == len(found) + 1
    assert len(example_world.tokens.records) == 1
    assert all(request.header("Authorization") is None for request in example_world.blobs.records)


def test_credentials_by_password_and_by_identity_token(tmp_path: Path, example_world: ExampleWorld) -> None:
    """A private repository: refused to anyone, open to its user either way, and ping tells."""
    layout = write_layout(tmp_path / "layout", {"1": small_image()})
    push_layout(example_world.registry.loader.url, layout, "mine/a", "1")
    options = HTTPOptions(ca_file=example_world.ca_file, connect_to=example_world.connect_to)
    by_password = Credential(example_world.user, example_world.password)
    by_token = Credential(identity_token=example_world.refresh_token)
    with HTTPTransport(options) as transport:
        with pytest.raises(OcidistError):
            RegistryRemote(RegistrySession(transport), f"{REGISTRY}/mine/a").resolve("1", Scope())
        for credential in (by_password, by_token):
            session = RegistrySession(transport, StaticCredentials(credential))
            assert everything(RegistryRemote(session, f"{REGISTRY}/mine/a"), "1", Scope())
        Registry(RegistrySession(transport, StaticCredentials(by_password)), REGISTRY).ping(Scope())
        wrong = StaticCredentials(Credential(example_world.user, "wrong"))
        with pytest.raises(Unauthorized):
            Registry(RegistrySession(transport, wrong), REGISTRY).ping(Scope())


def test_a_loopback_registry_without_tls_is_found_by_itself(tmp_path: Path, plain: RegistryProcess) -> None:
    """https is tried, http answers; tags, catalog, 404 and ranges are as they should be."""
    layout = write_layout(tmp_path / "layout", {"1": small_image(), "2": small_image("b")})
    for tag in ("1", "2"):
        push_layout(plain.url, layout, "team/app", tag)
    with HTTPTransport() as transport:
        session = RegistrySession(transport)
        remote = RegistryRemote(session, f"{plain.address}/team/app")
        found = everything(remote, "1", Scope())
        assert sorted(remote.tags(Scope())) == ["1", "2"]
        assert list(Registry(session, plain.address).catalog(Scope())) == ["team/app"]
        with pytest.raises(NotFound):
            remote.resolve("none", Scope())
        root, raw = remote.resolve("1", Scope())
        assert raw is not None
        layer = manifests.parse(raw, root.media_type).children()[-1]
        body = remote.open(layer, Scope(), offset=10, length=20)
        buffer = bytearray(100)
        assert verify.fill_buffer(body, memoryview(buffer)) == 20
        assert (body.start, bytes(buffer[:20])) == (10, found[layer.digest][10:30])
        located, _ = remote.resolve(layer.digest, Scope(), hint="")
        assert located.size == layer.size


def test_basic_credentials_at_a_registry_with_htpasswd(tmp_path: Path) -> None:
    """401 once, then the password with every request; without it Unauthorized."""
    require("docker-registry")
    with RegistryProcess(tmp_path / "basic", auth="htpasswd", users={"ann": PASSWORD}) as running:
        layout = write_layout(tmp_path / "layout", {"1": small_image()})
        push_layout(running.loader.url, layout, "a", "1")
        with HTTPTransport() as transport:
            good = RegistrySession(transport, StaticCredentials(Credential("ann", PASSWORD)))
            assert everything(RegistryRemote(good, f"{running.address}/a"), "1", Scope())
            with pytest.raises(Unauthorized):
                RegistryRemote(RegistrySession(transport), f"{running.address}/a").resolve("1", Scope())
        assert [request.status for request in running.front.records].count(401) == 2


def test_a19_an_unknown_authority_on_loopback_is_refused(tmp_path: Path, example_world: ExampleWorld) -> None:
    """A TLS registry whose authority nobody vouches for gets no request, not in the clear either."""
    with HTTPTransport() as transport:
        remote = RegistryRemote(RegistrySession(transport), f"{example_world.registry.address}/public/a")
        with pytest.raises(TransportError, match="certificate"):
            remote.resolve("1", Scope())
    assert example_world.registry.front.records == []


def test_a1_drops_at_the_registry_are_resumed_without_a_byte_twice(
    tmp_path: Path, plain: RegistryProcess
) -> None:
    """Two cut connections in one layer: two ranges, and as many bytes as the layer has."""
    layout = write_layout(tmp_path / "layout", {"1": small_image()})
    push_layout(plain.url, layout, "a", "1")
    with HTTPTransport() as transport:
        remote = RegistryRemote(RegistrySession(transport, jitter=lambda: 0.0), f"{plain.address}/a")
        root, raw = remote.resolve("1", Scope())
        assert raw is not None
        layer = manifests.parse(raw, root.media_type).children()[-1]
        plain.front.forget()
        plain.front.cut("/blobs/", 10, times=2)
        with resuming(remote, layer, Scope()) as body:
            assert verify.read_all(body, layer, 1 << 30)
    read = [record for record in plain.front.records if record.digest == layer.digest]
    assert [record.start for record in read] == [0, 10, 20]
    assert sum(record.sent for record in read) == layer.size
