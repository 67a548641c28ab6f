"""A store on a bad disk: what is damaged is told from what is whole, and a pull brings it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.content.protocols import Body
from ocidist.errors import BlobNotFound, OcidistError
from ocidist.graph.copy import Slots
from ocidist.net.replay import load_demo
from ocidist.progress import Event, Retrying
from ocidist.remotes.protocols import Remote, Source
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform
from ocidist.stores.store import Store
from ocidist.transfer import Wanted, fetch, pull
from tests.parts.images import TestImage, small_index
from tests.parts.required import require
from tests.parts.sources import MemorySource

DEMO = "registry.example/demo/shop:1.0"
AMD64 = Platform("linux", "amd64")
PARTS = ["index", "manifest", "config", "layer", "layers", "everything"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root of its own for each test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))


def client(root: Path) -> Client:
    return Client(store=root, transport=load_demo(), platform="linux/amd64")


def flip(store: Store, digest: Digest) -> None:
    """One bit of a blob turns over: same size, other bytes."""
    path = store.content.path(digest)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


class Gone:
    """A Source that has lost one blob."""

    def __init__(self, inner: Source, lost: Digest) -> None:
        self.inner, self.lost = inner, lost
        self.host, self.origin, self.resolve = inner.host, inner.origin, inner.resolve

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        if target.digest == self.lost:
            raise BlobNotFound(target, "gone from the registry")
        return self.inner.open(target, scope, offset=offset, length=length)


class Opened(MemorySource):
    """A Source that remembers what was read from it."""

    def __init__(self, image: TestImage) -> None:
        super().__init__(image)
        self.opened: list[Digest] = []

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Any:
        self.opened.append(target.digest)
        return super().open(target, scope, offset=offset, length=length)


def parts(pulled: Any) -> dict[str, list[Digest]]:
    """The digests of an image by what they are."""
    image = pulled.image
    layers = [layer.digest for layer in image.manifest.layers]
    single = {
        "index": pulled.descriptor.digest,
        "manifest": image.manifest.descriptor().digest,
        "config": image.manifest.config.digest,
    }
    found = {name: [digest] for name, digest in single.items()}
    return {**found, "layer": layers[:1], "layers": layers, "everything": [*single.values(), *layers]}


def without_snapshot(store: Store) -> None:
    for info in list(store.snapshots.walk()):
        store.snapshots.remove(info.key)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("workers", [0, 4])
def test_a_pull_mends_what_is_damaged_in_the_store(part: str, workers: int, tmp_path: Path) -> None:
    """Whatever part of the image it is; each is told once, and after it all is whole."""
    here = client(tmp_path / "root")
    here.workers = workers
    store = here.store
    pulled = here.pull(DEMO)
    damaged = parts(pulled)[part]
    without_snapshot(store)
    for digest in damaged:
        flip(store, digest)
    events: list[Event] = []
    again = here.pull(DEMO, scope=Scope(observer=events.append))
    assert again.chain_id == pulled.chain_id
    told = [event for event in events if isinstance(event, Retrying)]
    assert sorted(str(event.digest) for event in told) == sorted(map(str, damaged))
    assert {(event.after, event.why) for event in told} == {
        (0, "the copy in the store is damaged; fetching it again")
    }
    assert store.damaged([again.descriptor], Scope()) == []
    assert store.gc(Scope()).blobs == ()


@pytest.mark.parametrize("part", ["index", "manifest"])
def test_a_fetch_mends_damaged_manifests(part: str, tmp_path: Path) -> None:
    """Those are what it reads."""
    here = client(tmp_path / "root")
    pulled = here.pull(DEMO)
    flip(here.store, parts(pulled)[part][0])
    here.fetch(DEMO)
    assert here.store.damaged([pulled.descriptor], Scope()) == []


def test_what_can_not_be_had_again_is_kept(tmp_path: Path) -> None:
    """A pull from the store itself deletes nothing, however damaged."""
    here = client(tmp_path / "root")
    pulled = here.pull(DEMO)
    without_snapshot(here.store)
    [layer] = parts(pulled)["layer"]
    flip(here.store, layer)
    with pytest.raises(OcidistError):
        here.pull(f"store:{DEMO}")
    assert here.store.damaged([pulled.descriptor], Scope()) == [layer]


def test_a_damaged_layer_that_can_not_be_fetched_again_stays(tmp_path: Path) -> None:
    """A pull that fails over it deletes nothing: only a verified copy takes its place."""
    here = client(tmp_path / "root")
    pulled = here.pull(DEMO)
    [layer] = parts(pulled)["layer"]
    without_snapshot(here.store)
    flip(here.store, layer)
    source = Gone(here.remote(DEMO).readable(), layer)
    with pytest.raises(OcidistError, match="gone from the registry"):
        pull(Remote(DEMO, "1.0", source=source), here.store, Wanted(AMD64, 0, Slots(1)), Scope())
    assert here.store.damaged([pulled.descriptor], Scope()) == [layer]


def test_a_manifest_of_the_store_costs_no_request_unless_it_is_damaged(tmp_path: Path) -> None:
    """LocalFirst reads the store's copy if that is whole."""
    image = small_index()
    source = Opened(image)
    store = Store.at(tmp_path / "root")
    wanted = Wanted(Platform("linux", "arm64"), 0, Slots(1))
    fetch(Remote("registry.example/a:1", source=source), store, wanted, Scope())
    assert image.digest in source.opened
    source.opened.clear()
    fetch(Remote("registry.example/a:1", source=source), store, wanted, Scope())
    assert source.opened == []
    flip(store, Digest(image.digest))
    fetch(Remote("registry.example/a:1", source=source), store, wanted, Scope())
    assert set(source.opened) == {image.digest}
    assert store.damaged([source.root], Scope()) == []


def test_a_failure_that_is_not_the_stores_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is damaged the error is raised after one round; one of the network costs no hashing."""
    here = client(tmp_path / "root")
    here.pull(DEMO)
    tries: list[int] = []

    def failing(*arguments: object, **options: object) -> None:
        tries.append(1)
        raise BlobNotFound("sha256:0", "no such blob")

    monkeypatch.setattr("ocidist.transfer.copy_graph", failing)
    with pytest.raises(BlobNotFound, match="no such blob"):
        here.pull(DEMO)
    assert len(tries) == 1


def test_reading_what_is_damaged_says_so_and_how_it_is_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """get and rootfs unpack name the store's copy, and what they advise works."""
    words = ["--cassette", "demo", "--platform", "linux/amd64", "--progress", "none"]
    assert main([*words, "pull", DEMO]) == 0
    with client(tmp_path / "root").store as store:
        root = store.get_image(DEMO)
        pulled = client(tmp_path / "root").open(f"store:{DEMO}")
        assert pulled.manifest.config is not None
        layer = pulled.manifest.layers[0].digest
        flip(store, layer)
        capsys.readouterr()
        assert main(["get", layer]) == 1
        told = capsys.readouterr().err
        assert f"the copy in the store is damaged: delete {layer}, then pull {DEMO} again" in told
        assert main(["delete", layer]) == 0
        assert main([*words, "pull", DEMO]) == 0
        assert store.damaged([root], Scope()) == []
        for name in (DEMO, str(pulled.manifest.descriptor().digest)):
            for digest in (layer, pulled.manifest.config.digest, pulled.manifest.descriptor().digest):
                without_snapshot(store)
                flip(store, digest)
                capsys.readouterr()
                assert main([*words, "rootfs", "unpack", name]) == 1
                told = capsys.readouterr().err
                assert f"{digest}: the copy in the store is damaged; pull {DEMO} again" in told
                assert main([*words, "pull", DEMO]) == 0
                assert main([*words, "rootfs", "unpack", name]) == 0


def test_only_what_does_not_hash_is_damaged(tmp_path: Path) -> None:
    """What is missing is not; a blob of another size is."""
    here = client(tmp_path / "root")
    pulled = here.pull(DEMO)
    first, *rest = parts(pulled)["layers"]
    here.store.delete_blob(first)
    assert here.store.damaged([pulled.descriptor], Scope()) == []
    path = here.store.content.path(rest[0])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert here.store.damaged([pulled.descriptor], Scope()) == [rest[0]]


def test_gc_counts_what_the_trees_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blobs and files of snapshots in one sum, hardlinks once; words in the singular where they should be."""
    require("os:link")
    from ocidist.view.sizes import human

    words = ["--cassette", "demo", "--platform", "linux/amd64", "--progress", "none"]
    assert main([*words, "pull", DEMO]) == 0
    with Store.at(tmp_path / "root") as store:
        [info] = store.snapshots.walk()
        tree = store.snapshots.path(info.key)
        (tree / "one").write_bytes(b"x" * 3_000_000)
        (tree / "two").hardlink_to(tree / "one")
        files = {
            f.lstat().st_ino: f.lstat().st_size for f in tree.rglob("*") if f.is_file() and not f.is_symlink()
        }
        blobs = list(store.blobs)
    assert main(["rmi", DEMO]) == 0
    capsys.readouterr()
    assert main(["gc"]) == 0
    size = human(sum(files.values()) + sum(blob.size for blob in blobs))
    told = capsys.readouterr().err
    assert told == f"ocidist: freed {size}: {len(blobs)} blobs, 1 snapshot, 0 stale ingests\n"


def test_gc_says_which_ingests_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupted ones take room until they are a day old; with --all those alone that somebody is writing."""
    with Store.at(tmp_path / "root") as store:
        for key in ("one", "two"):
            with store.ingest(key, total=100) as writer:
                writer.write(b"x" * 50)
    stay = "under way or can be resumed; `active` lists them, gc --all removes what nobody is writing"
    for words in (["gc"], ["gc", "--dry-run"]):
        assert main(words) == 0
        assert f"2 ingests (100 B) are {stay}\n" in capsys.readouterr().err
    with Store.at(tmp_path / "root") as store, store.ingest("two", total=100) as writer:
        assert main(["gc", "--all", "--dry-run"]) == 0
        assert "1 ingest (50 B) is under way; `active` lists it\n" in capsys.readouterr().err
    assert main(["gc", "--all"]) == 0
    told = capsys.readouterr().err
    assert "2 stale ingests" in told
    assert "active" not in told


def test_gc_says_what_a_day_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a fetch; --all removes it, and then nothing more is said."""
    words = ["--cassette", "demo", "--platform", "linux/amd64", "--progress", "none"]
    assert main([*words, "fetch", *DEMO.rsplit(":", 1)]) == 0
    capsys.readouterr()
    with Store.at(tmp_path / "root") as store:
        count = len(store.blobs)
    assert main(["gc"]) == 0
    assert f"{count} blobs (" in (told := capsys.readouterr().err)
    assert "are held for up to 24 hours; gc --all removes them too" in told
    assert main(["gc", "--all"]) == 0
    told = capsys.readouterr().err
    assert f": {count} blobs, 0 snapshots, " in told
    assert "24 hours" not in told
    with Store.at(tmp_path / "root") as store:
        assert len(store.blobs) == 0
