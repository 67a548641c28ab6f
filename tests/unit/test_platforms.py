"""The platform that was asked for, or not, against what an index or a single image has."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.errors import PlatformNotFound, UsageError
from ocidist.spec import mediatype
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform
from tests.unit.registry.fake import FakeRegistry
from tests.unit.test_hostile_images import image

NAME = "registry.example/a:1"
OTHER = "s390x" if Platform.host().architecture != "s390x" else "riscv64"
DEMO = "registry.example/demo/shop:1.0"
REMOTE = DEMO.rpartition(":")[0]


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def client(registry: FakeRegistry, tmp_path: Path) -> Client:
    return Client(store=tmp_path / "root", transport=registry.transport, auth=("ann", "s3cret"), workers=0)


def entry(registry: FakeRegistry, digest: Digest, **more: Any) -> dict[str, Any]:
    media_type, raw = registry.manifests[digest]
    return {"mediaType": media_type, "digest": digest, "size": len(raw), **more}


def index(registry: FakeRegistry, *entries: dict[str, Any]) -> Digest:
    return registry.add_manifest({"mediaType": mediatype.OCI_INDEX, "manifests": list(entries)}, "1")


def two(registry: FakeRegistry, **more: Any) -> tuple[Digest, list[Digest]]:
    """An index of this machine's image and one for another."""
    ours, other = image(registry), image(registry, architecture=OTHER, layers=1)
    names = [Platform.host().architecture, OTHER]
    entries = [
        entry(registry, digest, platform={"os": "linux", "architecture": name}, **more)
        for digest, name in zip((ours, other), names, strict=True)
    ]
    return index(registry, *entries), [ours, other]


# -- resolve --


def test_resolve_of_a_platform_is_its_manifest(registry: FakeRegistry, client: Client) -> None:
    """With none asked for, and with all, the index stands for itself."""
    root, (ours, other) = two(registry)
    assert client.resolve(NAME).digest == root
    assert client.resolve(NAME, platform="all").digest == root
    assert client.resolve(NAME, platform=f"linux/{OTHER}").digest == other
    assert client.resolve(NAME, platform=Platform.host()).digest == ours
    assert mediatype.is_manifest(client.resolve(NAME, platform=Platform.host()).media_type)
    with pytest.raises(PlatformNotFound, match=rf"{NAME}: no image for plan9/386; the index has linux/"):
        client.resolve(NAME, platform="plan9/386")
    client = Client(store=client.store, transport=registry.transport, platform=f"linux/{OTHER}")
    assert client.resolve(NAME).digest == other


def test_resolve_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By option and by environment: the digest that the index names."""
    monkeypatch.delenv("OCIDIST_PLATFORM", raising=False)

    def run(*words: str) -> str:
        assert main(["--cassette", "demo", *words]) == 0
        return capsys.readouterr().out

    named = json.loads(run("manifest", DEMO))["manifests"]
    for item in named:
        name = f"linux/{item['platform']['architecture']}"
        line = f"{DEMO} {item['mediaType']} {item['digest']} {item['size']}\n"
        assert run("resolve", DEMO, "--platform", name) == line
        with monkeypatch.context() as environment:
            environment.setenv("OCIDIST_PLATFORM", name)
            assert run("resolve", DEMO) == line
    assert run("resolve", DEMO).split()[1] == mediatype.OCI_INDEX


# -- a single image --


def test_a_single_image_of_another_platform_than_asked_for_is_refused(
    registry: FakeRegistry, client: Client
) -> None:
    """By open, resolve, fetch and pull, with what it is for; no tree, no name, no layer is left."""
    image(registry, "1", architecture=OTHER)
    for act in (client.open, client.resolve, client.fetch, client.pull):
        with pytest.raises(PlatformNotFound) as caught:
            act(NAME, platform="linux/386/v1")
        assert str(caught.value) == f"{NAME}: no image for linux/386/v1; the image is for linux/{OTHER}"
        assert (caught.value.wanted, caught.value.available) == ("linux/386/v1", (f"linux/{OTHER}",))
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert list(client.store.image_records()) == []
    assert list(client.store.snapshots.walk()) == []
    assert len(list(client.store.blobs)) <= 2  # the config, and no layer
    assert client.pull(NAME, platform=f"linux/{OTHER}").image.notes == ()


@pytest.mark.parametrize("workers", [0, 4])
def test_the_layers_of_a_single_image_that_does_not_fit_are_not_unpacked(
    registry: FakeRegistry, tmp_path: Path, workers: int
) -> None:
    """With worker threads as well the error is the platform's, not the end that it brought others."""
    image(registry, "1", architecture=OTHER, layers=6)
    client = Client(store=tmp_path / "root", transport=registry.transport, workers=workers)
    with pytest.raises(PlatformNotFound, match=f"the image is for linux/{OTHER}"):
        client.pull(NAME, platform="linux/386")
    assert list(client.store.snapshots.walk()) == []


def test_what_was_not_asked_for_and_does_not_fit_is_said(registry: FakeRegistry, client: Client) -> None:
    """A note, in the card as well; with all platforms nothing is said."""
    image(registry, "1", architecture=OTHER)
    note = f"it is for linux/{OTHER}, and this machine runs {Platform.host()}"
    for opened in (client.open(NAME), client.pull(NAME).image):
        assert opened.notes == (note,)
        assert f"note: {note}" in repr(opened)
        assert note in opened._repr_html_()
        assert pickle.loads(pickle.dumps(opened)).notes == (note,)
    client.pull(NAME, platform="all")


def test_an_image_that_does_not_say_its_variant_fits(registry: FakeRegistry, client: Client) -> None:
    """As old arm images do not."""
    image(registry, "1", architecture="arm")
    assert client.open(NAME, platform="linux/arm/v6").notes == ()
    with pytest.raises(PlatformNotFound):
        client.open(NAME, platform="linux/amd64")


@pytest.mark.parametrize("workers", [0, 4])
def test_of_images_whose_platform_no_index_tells_the_one_whose_config_fits_is_taken(
    registry: FakeRegistry, tmp_path: Path, workers: int
) -> None:
    """By pull, and by open from the registry and from the store, which has the config of the chosen one alone; what can't
    be read is passed over. Where none fits it is the first, with a note."""
    client = Client(store=tmp_path / "root", transport=registry.transport, workers=workers)
    other, broken, ours = image(registry, architecture=OTHER), image(registry, os=7), image(registry)
    gone = {**entry(registry, other), "digest": Digest.of(b"gone")}
    index(registry, gone, *(entry(registry, digest) for digest in (other, broken, ours)))
    pulled = client.pull(NAME).image
    for opened in (pulled, client.open(NAME), client.open(f"store:{NAME}")):
        assert opened.manifest_descriptor.digest == ours
        assert opened.notes == ()
    assert client.open(NAME, platform=f"linux/{OTHER}").manifest_descriptor.digest == other
    index(registry, *(entry(registry, image(registry, architecture=OTHER, author=who)) for who in "ab"))
    assert "it is for" in client.open(NAME).notes[0]


def test_an_image_without_layers_has_a_name_and_no_tree(registry: FakeRegistry, client: Client) -> None:
    """FROM scratch, and nothing more; what its config says can be looked at, and check has no trouble with it."""
    root = image(registry, "1", layers=0)
    pulled = client.pull(NAME)
    assert (pulled.image.descriptor.digest, pulled.chain_id) == (root, None)
    assert [record.name for record in client.store.image_records()] == [NAME]
    assert list(client.open(f"store:{NAME}").layers) == []
    assert list(client.store.check(trees=True)) == []


def test_all_is_refused_where_one_image_is_meant(
    registry: FakeRegistry,
    client: Client,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """open, inspect, manifest and bundle; fetch and pull take it."""
    monkeypatch.delenv("OCIDIST_PLATFORM", raising=False)
    two(registry)
    with pytest.raises(UsageError, match="several images"):
        client.open(NAME, platform="all")
    client.fetch(NAME, platform="all")
    assert len(client.pull(NAME, platform="all").image.platforms) == 2
    root = str(client.store.root)
    for words in (
        ["--cassette", "demo", "inspect", DEMO],
        ["--cassette", "demo", "manifest", DEMO],
        ["--root", root, "bundle", NAME, root + "-bundle"],
    ):
        assert main([*words, "--platform", "all"]) == 2
        assert "several images" in capsys.readouterr().err


# -- what an index tells --


def test_the_card_of_an_index_tells_the_index(registry: FakeRegistry, client: Client) -> None:
    """Its digest beside its type, its platforms, and the manifest that was chosen."""
    root, (ours, _) = two(registry)
    opened = client.open(NAME)
    lines = [line.strip() for line in repr(opened).splitlines()]
    facts = {name: " ".join(words) for name, *words in (line.split() for line in lines[1:8])}
    host = str(Platform.host())
    assert facts["digest"] == root
    assert facts["media"] == f"type {mediatype.OCI_INDEX}"
    assert facts["platforms"] == f"{host}, linux/{OTHER}"
    assert facts["platform"] == f"{host} (one of 2 in the index)"
    assert facts["manifest"] == ours == opened.manifest_descriptor.digest


@pytest.mark.parametrize("artifact_type", [mediatype.DOCKER_CONFIG, mediatype.OCI_CONFIG, "a/b"])
def test_entries_with_an_artifact_type_are_images(
    registry: FakeRegistry, client: Client, artifact_type: str
) -> None:
    """As crane's are. Only what says that it is an attestation, or is for an unknown platform, is one."""
    ours = image(registry)
    host = {"os": "linux", "architecture": Platform.host().architecture}
    unknown = {"os": "unknown", "architecture": "unknown"}
    attestation = {"vnd.docker.reference.type": "attestation-manifest"}
    index(
        registry,
        entry(registry, image(registry, layers=1), annotations=attestation),
        entry(registry, image(registry, layers=3), platform=unknown),
        entry(registry, ours, platform=host, artifactType=artifact_type),
    )
    opened = client.open(NAME)
    assert opened.manifest_descriptor.digest == ours
    assert "(one of 1 in the index)" in repr(opened)
    assert opened.image_platforms == [str(Platform.host())]
    assert [bool(row.note) for row in opened.platforms] == [True, True, False]


def test_an_index_by_crane_without_platforms(registry: FakeRegistry, client: Client) -> None:
    """Its one entry has the type of its config as artifact type, and no platform: the config tells that."""
    index(registry, entry(registry, image(registry), artifactType=mediatype.DOCKER_CONFIG))
    opened = client.open(NAME)
    assert "(one of 1 in the index)" in repr(opened)
    assert opened.image_platforms == [str(Platform.host())]
    for act in (client.open, client.fetch, client.pull):
        with pytest.raises(PlatformNotFound, match=f"the image is for {Platform.host()}"):
            act(NAME, platform="plan9/386")
