"""The contracts of Source, Sink and Tags, each on every kind: a registry, mirrors of one, stores, memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.content.verify import read_all
from ocidist.errors import DigestMismatch, NotFound, OcidistError
from ocidist.net.message import Request, Response
from ocidist.remotes.protocols import Origin, Repository, Sink, Source, Tags
from ocidist.remotes.registry import mirrors
from ocidist.remotes.registry.client import RegistryRemote
from ocidist.remotes.registry.hosts_toml import CAPABILITIES
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.repairing import LocalFirst, RepairingSink
from ocidist.stores.store import Store
from tests.parts.images import TestImage, small_image
from tests.parts.memory_store import memory_store
from tests.parts.scripted import ScriptedResponse
from tests.parts.sources import MemorySource
from tests.unit.registry.fake import FakeRegistry

IMAGE = small_image()
ROOT = MemorySource(IMAGE).root
NAME = "registry.example/a:1"


def registry() -> RegistryRemote:
    """A repository with the one image, tagged 1."""
    fake = FakeRegistry()
    for digest, blob in IMAGE.everything().items():
        if digest == IMAGE.digest:
            fake.manifests[digest] = fake.manifests["1"] = (blob.media_type, blob.raw)
        else:
            fake.blobs[digest] = blob.raw
    listing = json.dumps({"name": "a", "tags": ["1"]}).encode()

    def answer(request: Request) -> Response | BaseException:
        if "/tags/list" in request.url:
            return ScriptedResponse(200, listing, [("Content-Type", "application/json")])
        return fake.answer(request)

    fake.transport.handler = answer
    return RegistryRemote(fake.session(), "registry.example/a")


def filled(store: Store) -> Store:
    """A store with the one image, named."""
    source = MemorySource(IMAGE)
    with store.lease() as lease, Scope(lease=lease) as scope:
        for digest, blob in IMAGE.everything().items():
            store.push(Descriptor(blob.media_type, Digest(digest), len(blob.raw)), source, scope)
        store.tag(NAME, ROOT, scope)
    return store


SOURCES: dict[str, Callable[[Path], tuple[Source, str]]] = {
    "registry": lambda folder: (registry(), "1"),
    "mirrored": lambda folder: (
        mirrors.Mirrored("registry.example/a", [mirrors.Place(registry(), CAPABILITIES)] * 2),
        "1",
    ),
    "store": lambda folder: (filled(Store.at(folder / "root")), NAME),
    "memory store": lambda folder: (filled(memory_store()), NAME),
    "memory": lambda folder: (MemorySource(IMAGE), "1"),
    "local first": lambda folder: (LocalFirst(registry(), filled(memory_store())), "1"),
}
SINKS: dict[str, Callable[[Path], Sink]] = {
    "store": lambda folder: Store.at(folder / "root"),
    "memory store": lambda folder: memory_store(),
    "repairing": lambda folder: RepairingSink(memory_store()),
}


@pytest.fixture(params=list(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Source, str]:
    """A source of each kind, and what its image is called there."""
    return SOURCES[request.param](tmp_path)


@pytest.fixture(params=list(SINKS))
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    """An empty sink of each kind."""
    return SINKS[request.param](tmp_path)


def blobs(image: TestImage = IMAGE) -> list[tuple[Descriptor, bytes]]:
    """Every object of an image, children first."""
    every = image.everything().items()
    found = [(Descriptor(blob.media_type, Digest(digest), len(blob.raw)), blob.raw) for digest, blob in every]
    return sorted(found, key=lambda pair: pair[0].digest == ROOT.digest)


def test_a_name_and_a_digest_resolve_to_the_same(source: tuple[Source, str]) -> None:
    """The bytes, if they are at hand, verify; a digest of any object is found with a hint."""
    found, name = source
    for asked in (name, str(ROOT.digest)):
        for options in ({}, {"need_bytes": True}, {"hint": ""}, {"hint": ROOT.media_type}):
            target, raw = found.resolve(asked, Scope(), **options)  # type: ignore[arg-type]
            assert target.digest == ROOT.digest
            if raw is not None:
                assert Digest.of(raw) == ROOT.digest
            else:
                assert target.size in (ROOT.size, -1)


def test_every_object_is_read_from_any_byte(source: tuple[Source, str]) -> None:
    """A body tells where it begins, at or before the byte asked for, and how large the object is."""
    found, _ = source
    for target, raw in blobs():
        assert read_all(found.open(target, Scope()), target, 1 << 20) == raw
        body = found.open(target, Scope(), offset=3)
        try:
            assert body.start in (0, 3)
            assert body.size in (None, len(raw))
            buffer = memoryview(bytearray(len(raw)))
            filled = 0
            while count := body.readinto(buffer[filled:]):
                filled += count
            assert bytes(buffer[:filled]) == raw[body.start :]
            assert isinstance(body.host, str)
        finally:
            body.close()


def test_hosts_and_origins(source: tuple[Source, str]) -> None:
    """A source of a registry says which; its origin is a repository there, or unknown."""
    found, _ = source
    origin = found.origin(ROOT)
    assert origin in (None, Origin("registry.example", "a"))
    assert found.host in ("", "registry.example")
    assert bool(found.host) == (origin is not None)


@pytest.mark.parametrize("kind", sorted(SOURCES.keys() - {"memory"}))  # which answers to every name
def test_what_is_missing_is_not_found(kind: str, tmp_path: Path) -> None:
    """By its name, and when it is opened: NotFound, or the store's BlobNotFound."""
    found, _ = SOURCES[kind](tmp_path)
    missing = Descriptor(mediatype.OCI_LAYER, Digest.of(b"missing"), 7)
    with pytest.raises((NotFound, LookupError)):
        found.resolve("no-such-name", Scope())
    with pytest.raises((NotFound, LookupError)):
        found.open(missing, Scope()).close()


def test_a_sink_takes_children_then_parents_then_the_name(sink: Sink) -> None:
    """Nothing exists before it was pushed; a name needs what it stands for; wrong bytes are refused."""
    source = MemorySource(IMAGE)
    with pytest.raises(OcidistError):
        sink.tag(NAME, ROOT, Scope())
    for target, _ in blobs():
        assert not sink.exists(target, Scope())
        sink.push(target, source, Scope())
        assert sink.exists(target, Scope())
        sink.push(target, source, Scope())  # again is no error
    sink.tag(NAME, ROOT, Scope())
    sink.finalize(Scope())


def test_a_sink_refuses_wrong_bytes(sink: Sink) -> None:
    """What does not hash to its digest is not there afterwards."""

    class Liar(MemorySource):
        def open(
            self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
        ) -> Any:
            return super().open(ROOT, scope, offset=offset, length=length)

    wrong = Descriptor(mediatype.OCI_LAYER, Digest.of(b"x" * ROOT.size), ROOT.size)
    with pytest.raises(DigestMismatch):
        sink.push(wrong, Liar(IMAGE), Scope())
    assert not sink.exists(wrong, Scope())


@pytest.mark.parametrize("kind", ["registry", "mirrored"])
def test_tags_are_listed(kind: str, tmp_path: Path) -> None:
    """Each once, in the remote's order."""
    found = SOURCES[kind](tmp_path)[0]
    tags: Tags = found  # type: ignore[assignment]
    assert list(tags.tags(Scope())) == ["1"]


def test_a_store_is_a_repository(tmp_path: Path) -> None:
    """Source and Sink in one, which mypy holds here."""
    both: Repository = Store.at(tmp_path / "root")
    other: Repository = memory_store()
    assert not both.exists(ROOT, Scope())
    assert not other.exists(ROOT, Scope())
