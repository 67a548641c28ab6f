"""The contract of a Store, run on the one in a directory and on one in memory; and the commands on both."""

from __future__ import annotations

import io
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from ocidist.cli.commands import find
from ocidist.cli.context import Context
from ocidist.cli.main import build, global_parser
from ocidist.content.verify import read_all
from ocidist.errors import BlobNotFound, OcidistError
from ocidist.remotes.protocols import Sink, Source
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.images import small_image
from tests.parts.memory_store import memory_store
from tests.parts.sources import MemorySource

DEMO = "registry.example/demo/shop:1.0"
MAKERS: dict[str, Callable[[Path], Store]] = {
    "local": lambda folder: Store.at(folder / "root"),
    "memory": lambda folder: memory_store(),
}


@pytest.fixture(params=list(MAKERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    return MAKERS[request.param](tmp_path)


def put(store: Store, raw: bytes) -> Descriptor:
    with store.ingest("put") as writer:
        writer.write(raw)
        return Descriptor("application/octet-stream", writer.commit(len(raw), None), len(raw))


def test_it_is_a_source_and_a_sink(store: Store) -> None:
    """What is pushed exists, is read, is named, and is found by its name and its digest."""
    sink: Sink = store
    source: Source = store
    image = MemorySource(small_image())
    with store.lease() as lease, Scope(lease=lease) as scope:
        for digest, blob in image.image.everything().items():
            target = Descriptor("application/octet-stream", Digest(digest), len(blob.raw))
            assert not sink.exists(target, scope)
            sink.push(target, image, scope)
            assert sink.exists(target, scope)
            assert read_all(source.open(target, scope), target, 1 << 20) == blob.raw
        sink.tag("redis:7", image.root, scope)
    assert source.resolve("docker.io/library/redis:7", Scope())[0] == image.root
    assert source.resolve(str(image.root.digest), Scope())[0].digest == image.root.digest
    with pytest.raises(BlobNotFound):
        source.resolve("redis:8", Scope())
    assert [row.ref for row in store.images] == ["docker.io/library/redis:7"]
    assert list(store.check()) == []
    assert store.gc(Scope(), everything=True).blobs == ()
    assert store.remove_image("redis:7")
    assert {blob.digest for blob in store.gc(Scope()).blobs} == set(image.image.everything())
    assert list(store.blobs) == []


def test_a_name_needs_its_content(store: Store) -> None:
    """Nothing is named that is not here."""
    with pytest.raises(BlobNotFound):
        store.tag("redis:7", Descriptor("a/b", Digest.of(b"absent"), 6), Scope())
    assert list(store.images) == []


def test_c38_what_is_ingested_is_held_for_a_day(store: Store) -> None:
    """gc leaves it, gc --all does not, unless somebody fetches just now."""
    target = put(store, b"hello")
    assert store.gc(Scope()).blobs == ()
    assert [blob.digest for blob in store.gc(Scope()).held] == [target.digest]
    with store.fetching(Scope()):
        assert store.gc(Scope(), everything=True).blobs == ()
    assert [blob.digest for blob in store.gc(Scope(), dry_run=True, everything=True).blobs] == [target.digest]
    assert store.content.has(target.digest)
    assert [blob.digest for blob in store.gc(Scope(), everything=True).blobs] == [target.digest]


def test_labels_hold_what_they_point_to(store: Store) -> None:
    """A blob that is a root keeps itself and what its label names; deleted, its labels are forgotten."""
    root, other = put(store, b"root"), put(store, b"other")
    store.set_labels(
        root.digest, {"containerd.io/gc.root": "1", "containerd.io/gc.ref.content.0": other.digest}
    )
    assert store.gc(Scope(), everything=True).blobs == ()
    store.delete_blob(root.digest)
    with pytest.raises(BlobNotFound):
        store.labels(root.digest)
    assert store.content.labeled("") == []
    assert [blob.digest for blob in store.gc(Scope(), everything=True).blobs] == [other.digest]


def test_content_is_held_and_surveyed(store: Store) -> None:
    """hold tells whether the blob is here; a survey has it; another copy has another identity."""
    assert not store.content.hold(Digest.of(b"hello"))
    target = put(store, b"hello")
    assert store.content.hold(target.digest, 5, {"a": "b"})
    assert not store.content.hold(target.digest, 6)
    assert store.labels(target.digest) == {"a": "b"}
    assert store.content.survey() == ({target.digest: 5}, (), ())
    first = store.content.identity(target.digest)
    assert first == store.content.identity(target.digest) != ()
    store.delete_blob(target.digest)
    assert store.content.identity(target.digest) == ()


# -- the commands -----------------------------------------------------------------------------------


def run(store: Store, monkeypatch: pytest.MonkeyPatch, *words: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """The exit code and stdout of a command on ``store``."""
    command, rest = find(list(words))
    assert command is not None
    options = global_parser().parse_args(["--cassette", "demo", "--progress", "none"])
    build(command).parse_args(rest, namespace=options)
    out = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(stdin)), isatty=bool)
    )
    with Context(options, store) as context:
        function: Any = getattr(import_module(f"ocidist.cli.{command.module}"), f"run_{command.function}")
        code = function(options, context)
    return code or 0, out.buffer.getvalue()  # type: ignore[attr-defined]


def test_the_commands_run_on_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """From pull to gc, with the cassette that comes along."""

    def ran(*words: str, stdin: bytes = b"") -> bytes:
        code, out = run(store, monkeypatch, *words, stdin=stdin)
        assert code == 0, (words, out)
        return out

    def listed(*words: str) -> Any:
        return json.loads(ran(*words, "--format", "json"))

    assert (listed("list"), listed("images"), listed("active")) == ([], [], [])
    digest = ran("ingest", "key", stdin=b"hello").decode().strip()
    assert digest == Digest.of(b"hello")
    assert ran("get", digest) == b"hello"
    assert ran("label", digest, "owner=me") == b"owner=me\n"
    fetched = ran("fetch", "--quiet", DEMO).decode().strip()
    assert listed("images") == []
    assert ran("pull", "--quiet", DEMO).decode().strip() == fetched
    assert [row["ref"] for row in listed("images")] == [DEMO]
    assert [row["kind"] for row in listed("snapshots")] == ["committed"] * len(listed("snapshots")) != []
    assert listed("check") == []
    sizes = {row["kind"]: row["size"] for row in listed("du")}
    assert sizes["total"] == sum(
        sizes[kind] for kind in ("content", "ingests", "snapshots", "database", "other")
    )
    assert sizes["content"] == sum(row["size"] for row in listed("list"))
    ran("gc")
    assert ran("get", digest) == b"hello"
    assert ran("delete", digest).decode().strip() == digest
    assert ran("rmi", DEMO).decode().strip() == DEMO
    ran("gc", "--all")
    assert (listed("list"), listed("images"), listed("snapshots")) == ([], [], [])
    with pytest.raises(OcidistError):
        ran("get", digest)
