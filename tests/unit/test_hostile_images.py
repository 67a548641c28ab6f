"""Documents that a hostile registry sends, through the whole client: what is fetched, unpacked, named and kept."""

from __future__ import annotations

import errno
import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ocidist.client import Client
from ocidist.errors import (
    ContentError,
    InvalidManifest,
    LimitExceeded,
    OcidistError,
    StoreError,
    TransferError,
    TransportError,
    Unsupported,
)
from ocidist.graph.copy import copy_graph
from ocidist.limits import Limits
from ocidist.net.message import Request
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform
from ocidist.stores.store import Store
from ocidist.stores.upkeep.damage import holders
from tests.parts.scripted import ScriptedResponse
from tests.parts.tars import entry, layer
from tests.unit.registry.fake import PASSWORD, FakeRegistry

NAME = "registry.example/a:1"
EVIL = (
    "sha256:../../x",
    "../../etc/passwd",
    "sha256:" + "A" * 64,
    f"sha256:{'a' * 64}\n",
    "md5:" + "a" * 32,
    None,
    5,
)


def of(registry: FakeRegistry, data: bytes, media_type: str) -> dict[str, Any]:
    """A descriptor of a blob that the registry has."""
    return {"mediaType": media_type, "digest": registry.add_blob(data), "size": len(data)}


def image(
    registry: FakeRegistry, *tags: str, layers: int = 2, diff_ids: int | None = None, **more: Any
) -> Digest:
    """An image of small layers whose config names ``diff_ids`` of them."""
    plain = [layer(entry(f"file{number}", b"content")).getvalue() for number in range(layers)]
    names = [Digest.of(data) for data in plain] + [Digest.of(b"more")] * 9
    config = {
        "os": "linux",
        "architecture": Platform.host().architecture,
        "rootfs": {"type": "layers", "diff_ids": names[: layers if diff_ids is None else diff_ids]},
        **more,
    }
    return registry.add_manifest(
        {
            "mediaType": mediatype.OCI_MANIFEST,
            "config": of(registry, json.dumps(config).encode(), mediatype.OCI_CONFIG),
            "layers": [
                of(registry, gzip.compress(data, mtime=0), mediatype.OCI_LAYER_GZIP) for data in plain
            ],
        },
        *tags,
    )


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def client(registry: FakeRegistry, tmp_path: Path) -> Client:
    return Client(store=tmp_path / "root", transport=registry.transport, auth=("ann", "s3cret"), workers=0)


def blobs(client: Client) -> set[str]:
    return {str(info.digest) for info in client.store.content.walk()}


def trees(client: Client) -> list[str]:
    return [info.key for info in client.store.snapshots.walk()]


# -- layers and diff_ids --


@pytest.mark.parametrize("diff_ids", [0, 1, 3])
def test_d46_layers_and_diff_ids_that_disagree_are_fetched_and_not_unpacked(
    registry: FakeRegistry, client: Client, diff_ids: int
) -> None:
    """A pull is refused before a tree is made, and leaves no name; a fetch has every byte."""
    image(registry, "1", diff_ids=diff_ids)
    with pytest.raises(InvalidManifest, match=f"2 layers, but {diff_ids} diff_ids"):
        client.pull(NAME)
    assert trees(client) == []
    assert list(client.store.image_records()) == []
    client.fetch(NAME)
    assert blobs(client) == set(registry.blobs) | {name for name in registry.manifests if ":" in name}


def test_d46_an_old_image_keeps_its_name_where_a_new_one_can_not_be_unpacked(
    registry: FakeRegistry, client: Client
) -> None:
    """What was whole before is whole after."""
    image(registry, "1")
    before = client.pull(NAME)
    image(registry, "1", layers=3, diff_ids=1)
    with pytest.raises(InvalidManifest):
        client.pull(NAME)
    assert [(each.name, each.target) for each in client.store.image_records()] == [(NAME, before.descriptor)]
    assert str(before.chain_id) in trees(client)


@pytest.mark.parametrize(
    "config_type", [mediatype.OCI_EMPTY, "application/vnd.example.sbom+json", mediatype.OCI_CONFIG]
)
def test_d46_artifacts_without_diff_ids_fetch_and_copy(
    registry: FakeRegistry, client: Client, tmp_path: Path, config_type: str
) -> None:
    """A signature has layers that are no root filesystem, some under the image config's own type."""
    root = registry.add_manifest(
        {
            "mediaType": mediatype.OCI_MANIFEST,
            "config": of(registry, b"{}", config_type),
            "layers": [of(registry, b"signed", "application/vnd.example.signature")],
        },
        "1",
    )
    client.fetch(NAME)
    assert blobs(client) == {*registry.blobs, root}
    target, _ = client.store.resolve(root, Scope())
    with Store.at(tmp_path / "other") as other:
        copy_graph(client.store, other, target, Scope(), workers=0)
        assert {str(info.digest) for info in other.content.walk()} == blobs(client)
    if config_type != mediatype.OCI_CONFIG:
        assert client.pull(NAME).chain_id is None
        assert trees(client) == []


def test_d46_a_history_of_another_length_stops_nothing(registry: FakeRegistry, client: Client) -> None:
    """It is optional, and only shown."""
    image(registry, "1", history=[{"created_by": "one"}] * 7)
    pulled = client.pull(NAME)
    assert pulled.chain_id is not None
    assert "the history accounts for 7 layers, the manifest has 2" in repr(pulled.image)


# -- indices --


def test_d46_indices_that_name_each_other_end(registry: FakeRegistry, client: Client) -> None:
    """No digest can be its own content's, so a circle ends where the first lie is found."""
    one, two = (f"sha256:{letter * 64}" for letter in "ab")
    for here, there in ((one, two), (two, one)):
        entry_ = {"mediaType": mediatype.OCI_INDEX, "digest": there, "size": 0}
        members = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [entry_]}
        entry_["size"] = len(json.dumps(members)) + 2  # as long as it says, at least
        registry.manifests[here] = (mediatype.OCI_INDEX, json.dumps(members).encode())
    registry.manifests["1"] = registry.manifests[one]
    for use in (client.open, client.fetch, client.pull):
        with pytest.raises(OcidistError, match=r"hash to|digest"):
            use(NAME, platform=None if use == client.open else "all")
    assert len(registry.transport.requests) < 20


@pytest.mark.parametrize("depth", [17, 1000])
def test_d46_indices_in_one_another_are_bounded(registry: FakeRegistry, client: Client, depth: int) -> None:
    """In open, fetch and pull, and by the number of requests."""
    root = image(registry)
    for _ in range(depth):
        size = len(registry.manifests[root][1])
        platform = {"os": "linux", "architecture": Platform.host().architecture}
        kind = registry.manifests[root][0]
        entry_ = {"mediaType": kind, "digest": root, "size": size, "platform": platform}
        root = registry.add_manifest({"mediaType": mediatype.OCI_INDEX, "manifests": [entry_]}, "1")
    for use in (client.open, client.fetch, client.pull):
        registry.transport.requests.clear()
        with pytest.raises(OcidistError, match="indices nested more than 16 deep"):
            use(NAME)
        assert len(registry.transport.requests) <= 20


def test_d46_a_store_that_holds_indices_a_thousand_deep_is_looked_through(tmp_path: Path) -> None:
    """Whoever puts them there by hand, blob by blob, keeps a store that lists, checks and collects."""
    with Store.at(tmp_path / "root") as store:
        raw = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode()
        for _ in range(1001):
            blob = Path(store.content.path(Digest.of(raw)))
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(raw)
            target = Descriptor(mediatype.OCI_INDEX, Digest.of(raw), len(raw))
            raw = json.dumps({"schemaVersion": 2, "manifests": [target.to_json()]}).encode()
        store.tag(NAME, target, Scope())
        assert [row.ref for row in store.images] == [NAME]
        assert list(store.check()) == []
        assert store.gc(Scope(), everything=True).kept == 1001
        assert list(holders(store, target.digest, Scope())) == [NAME]
        assert len(store.du()) > 0
        with pytest.raises(InvalidManifest, match="nested"):
            Client(store=store).open(f"store:{NAME}")


# -- digests --


@pytest.mark.parametrize("evil", EVIL, ids=repr)
@pytest.mark.parametrize("place", ["config", "layers", "subject", "manifests", "diff_ids"])
def test_d42_no_digest_of_a_document_becomes_a_path_or_a_url(
    registry: FakeRegistry, client: Client, tmp_path: Path, place: str, evil: object
) -> None:
    """Nothing is asked for beyond the document it stands in, and nothing is written (CVE-2024-3727)."""
    bad = {"mediaType": mediatype.OCI_LAYER, "digest": evil, "size": 1}
    members: dict[str, Any] = {"config": of(registry, b"{}", mediatype.OCI_CONFIG), "layers": []}
    if place == "manifests":
        members = {"manifests": [bad]}
    elif place == "diff_ids":
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [evil]}}).encode()
        members["config"] = of(registry, config, mediatype.OCI_CONFIG)
        members["layers"] = [of(registry, b"x", mediatype.OCI_LAYER)]
    else:
        members[place] = [bad] if place == "layers" else bad
    kind = mediatype.OCI_INDEX if place == "manifests" else mediatype.OCI_MANIFEST
    registry.add_manifest(members, "1", media_type=kind)
    known = {"1", *registry.blobs, *registry.manifests}
    with pytest.raises(OcidistError, match=r"digest|diff_ids"):
        client.pull(NAME, platform="all")
    for request in registry.transport.requests:
        assert request.url.rpartition("/")[2] in known
    assert {found.name for found in tmp_path.iterdir()} <= {"root"}
    assert blobs(client) <= known


@pytest.mark.parametrize("evil", EVIL[:5], ids=repr)
def test_d42_a_digest_header_that_is_none_is_not_believed(
    registry: FakeRegistry, client: Client, evil: str
) -> None:
    """The digest is computed then; one that is well formed and wrong is refused."""
    root = image(registry, "1")
    sent = {"Docker-Content-Digest": evil.strip() if evil.strip() != evil else evil}

    def answer(request: Request) -> Any:
        response = registry.answer(request)
        if "/manifests/1" in request.url and isinstance(response, ScriptedResponse):
            for name, value in sent.items():
                response.headers.set(name, value)
        return response

    registry.transport.handler = answer
    if evil.strip() == evil:
        assert client.resolve(NAME).digest == root
    sent["Docker-Content-Digest"] = f"sha256:{'a' * 64}"
    with pytest.raises(ContentError, match="sent a manifest with digest"):
        client.resolve(NAME)


# -- sizes --


def test_h70_a_config_over_four_mebibytes_is_refused(registry: FakeRegistry, client: Client) -> None:
    """By what its descriptor says, before it is asked for; or once it is here and can't be unpacked."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}, "x": "y" * (4 << 20)}).encode()
    descriptor = of(registry, config, mediatype.OCI_CONFIG)
    registry.add_manifest({"mediaType": mediatype.OCI_MANIFEST, "config": descriptor, "layers": []}, "1")
    with pytest.raises(InvalidManifest, match="at most 4194304 are read"):
        client.open(NAME)
    assert not any("/blobs/" in request.url for request in registry.transport.requests)
    with pytest.raises(InvalidManifest, match="at most 4194304 are read"):
        client.pull(NAME)
    assert list(client.store.image_records()) == []


def test_h70_a_manifest_over_four_mebibytes_in_an_index_is_refused(
    registry: FakeRegistry, client: Client
) -> None:
    """Its descriptor says so: it is not asked for."""
    entry_ = {"mediaType": mediatype.OCI_MANIFEST, "digest": f"sha256:{'a' * 64}", "size": (4 << 20) + 1}
    registry.add_manifest({"mediaType": mediatype.OCI_INDEX, "manifests": [entry_]}, "1")
    for use in (client.open, client.fetch, client.pull):
        registry.transport.requests.clear()
        with pytest.raises((InvalidManifest, TransferError), match="4194305 bytes; at most 4194304"):
            use(NAME)
        assert len(registry.transport.requests) == 1


@pytest.mark.parametrize("where", ["manifests/1", "token", "tags/list", "blobs/", "error"])
def test_h70_a_content_length_of_a_terabyte_takes_no_memory(
    registry: FakeRegistry, client: Client, tmp_path: Path, where: str
) -> None:
    """Announced, with a few bytes behind it: refused, and no buffer of that size is made."""
    registry.guard = "bearer"
    image(registry, "1")

    def answer(request: Request) -> Any:
        if where in request.url:
            return ScriptedResponse(200, b"{}", [("Content-Length", str(10**12))], announced=10**12)
        if where == "error" and "/manifests/" in request.url:
            return ScriptedResponse(404, b"{}", [("Content-Length", str(10**12))], announced=10**12)
        return registry.answer(request)

    registry.transport.handler = answer
    client.store.names.all()  # imports are not what is measured
    tracemalloc.start()
    try:
        with pytest.raises((OcidistError, TransportError)) as caught:
            list(client.tags("registry.example/a")) if where == "tags/list" else client.pull(NAME)
        assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert sum(found.stat().st_size for found in (tmp_path / "root").rglob("*") if found.is_file()) < 1 << 20
    assert os.listdir(tmp_path) in ([], ["root"])


# -- algorithms --

BLAKE3 = f"blake3:{'ab' * 32}"


def with_blake3(registry: FakeRegistry, architecture: str) -> None:
    """An index whose first entry, for ``architecture``, has a digest of an algorithm that is not supported."""
    digest = image(registry)
    raw = registry.manifests[digest][1]
    ours = {"os": "linux", "architecture": Platform.host().architecture}
    entry_ = {"mediaType": mediatype.OCI_MANIFEST, "size": len(raw)}
    entries = [
        {
            **entry_,
            "digest": BLAKE3,
            "platform": {"os": "linux", "architecture": architecture},
            "data": "QQ==",
        },
        {**entry_, "digest": digest, "platform": ours},
    ]
    registry.add_manifest({"mediaType": mediatype.OCI_INDEX, "manifests": entries}, "1")


def test_d42_an_entry_of_an_unknown_algorithm_refuses_itself_alone(
    registry: FakeRegistry, client: Client
) -> None:
    """It is shown. Chosen, or copied with all, it is refused, and no request has its digest; nor do gc, check and du
    stumble over it."""
    with_blake3(registry, "sparc64")
    opened = client.open(NAME)
    assert next(iter(opened.platforms)).digest == BLAKE3
    assert BLAKE3 in opened.platforms._repr_html_()
    client.pull(NAME)
    for platform in ("linux/sparc64", "all"):
        for move in (client.pull, client.fetch):
            with pytest.raises(OcidistError, match="algorithm 'blake3' is not supported"):
                move(NAME, platform=platform)
    with pytest.raises(OcidistError, match="algorithm 'blake3' is not supported"):
        client.open(NAME, platform="linux/sparc64")
    assert not any("blake3" in line for line in registry.transport.lines)
    store = client.store
    report = store.gc(Scope(), everything=True)
    assert (report.blobs, report.snapshots, report.problems) == ((), (), ())
    assert list(store.check()) == []
    assert [row.ref for row in store.images] == [NAME]
    assert store.du()[0].kind == "total"


def test_d42_of_two_for_one_platform_that_of_a_known_algorithm_is_chosen(
    registry: FakeRegistry, client: Client
) -> None:
    """Whichever comes first."""
    with_blake3(registry, Platform.host().architecture)
    assert client.pull(NAME).image.manifest_descriptor.digest.algorithm == "sha256"


@pytest.mark.parametrize("content_type", [mediatype.DOCKER_SCHEMA1_SIGNED, "application/json"])
def test_a_signed_schema_1_manifest_is_not_taken_for_tampering(
    registry: FakeRegistry, client: Client, content_type: str
) -> None:
    """Its digest is of the part that is signed: what is said is that it is not supported, and what to do."""
    raw = json.dumps(
        {"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [], "signatures": [{}]}
    ).encode()
    signed = Digest.of(raw.partition(b', "signatures"')[0] + b"}")

    def answer(request: Request) -> Any:
        if "/manifests/" not in request.url:
            return registry.answer(request)
        response = ScriptedResponse(200, raw)
        response.headers.set("Content-Type", content_type)
        response.headers.set("Docker-Content-Digest", signed)
        return response

    registry.transport.handler = answer
    for name in (NAME, f"registry.example/a@{signed}"):
        with pytest.raises(Unsupported, match=r"schema 1 .*not supported.*push it again"):
            client.pull(name)


# -- no room for the tree --


@pytest.mark.parametrize("workers", [0, 4])
def test_i77_a_tree_that_has_no_room_leaves_what_was_fetched(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Its blobs are kept, whole or to be resumed, and nothing of the tree; the next pull asks for what is missing."""
    image(registry, "1", layers=4)
    client = Client(
        store=tmp_path / "root", transport=registry.transport, auth=("ann", PASSWORD), workers=workers
    )
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if bytes(data) == b"content" and "/snapshots/" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(
            StoreError, match=r"file0: No space left on device \(\d.* are free\); free some"
        ) as caught:
            client.pull(NAME)
    assert str(tmp_path) in str(caught.value)
    assert trees(client) == []
    assert list((tmp_path / "root").rglob("file0")) == []
    kept = blobs(client)
    if not workers:
        assert set(registry.blobs) <= kept
    requests = len(registry.transport.requests)
    client.pull(NAME)
    again = [line for line in registry.transport.lines[requests:] if "/blobs/" in line]
    assert not [line for line in again if any(digest in line for digest in kept)]


def test_i77_a_pull_by_limits_of_ones_own(registry: FakeRegistry, tmp_path: Path) -> None:
    """Of the client or of a scope; None lifts them. What is refused gets no name and leaves no tree."""
    image(registry, "1", layers=3)

    def client(name: str, limits: Limits | None) -> Client:
        auth = ("ann", PASSWORD)
        return Client(
            store=tmp_path / name, transport=registry.transport, auth=auth, workers=0, limits=limits
        )

    few = client("few", Limits(layers=2))
    for pull in (
        lambda: few.pull(NAME),
        lambda: client("few", None).pull(NAME, scope=Scope(limits=Limits(layers=2))),
    ):
        with pytest.raises(LimitExceeded, match="image: 3 layers, more than 2; --no-limits"):
            pull()
        assert trees(few) == []
        assert list(few.store.image_records()) == []
    assert few.pull(NAME, scope=Scope(limits=None)).chain_id is not None
    assert client("none", None).pull(NAME).chain_id is not None
