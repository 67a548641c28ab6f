"""Store: what it composes, and what its collector may take."""

from __future__ import annotations

import errno
import json
import os
import pickle
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.content.fill import ref_key
from ocidist.content.local import LocalContent
from ocidist.content.verify import MemoryBody, read_all
from ocidist.errors import AlreadyExists, BlobNotFound, InvalidReference, StoreError
from ocidist.graph.copy import copy_graph
from ocidist.remotes.protocols import Origin
from ocidist.rootfs import snapshots
from ocidist.scope import Scope
from ocidist.snapshots.protocols import SnapshotInfo
from ocidist.spec import mediatype
from ocidist.spec.chain import chain_id
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Manifest, parse
from ocidist.stores.repairing import LocalFirst
from ocidist.stores.store import Store
from ocidist.view.table import render
from tests.parts.images import TestImage, small_image, small_index

NAME = "docker.io/library/redis:7"


@dataclass
class Source:
    """An image in memory, with where it comes from."""

    image: TestImage
    known: Origin | None = field(default_factory=lambda: Origin("docker.io", "library/redis"))
    opened: list[Digest] = field(default_factory=list)

    @property
    def root(self) -> Descriptor:
        raw = self.image.everything()[self.image.digest].raw
        media_type = parse(raw).media_type
        return Descriptor(media_type, Digest(self.image.digest), len(raw))

    host = ""

    def origin(self, target: Descriptor) -> Origin | None:
        return self.known

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        return self.root, None

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Any:
        self.opened.append(target.digest)
        return MemoryBody(self.image.everything()[target.digest].raw, offset)


class Snapshots:
    """A snapshotter that only remembers keys."""

    name = "native"

    def __init__(self, *infos: SnapshotInfo) -> None:
        self.infos = {info.key: info for info in infos}

    def walk(self) -> Iterator[SnapshotInfo]:
        return iter(list(self.infos.values()))

    def path(self, key: str) -> Path:
        raise StoreError(key, "only its key is kept")

    def stale(self) -> list[Path]:
        return []

    def remove_stale(self) -> int:
        return 0

    def remove(self, key: str) -> None:
        assert not any(info.parent == key for info in self.infos.values()), "a child is left"
        del self.infos[key]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store with a snapshotter that only remembers keys."""
    with Store.at(tmp_path / "root") as store:
        store._snapshots = store._trees = Snapshots()  # type: ignore[assignment]
        yield store


def pull(store: Store, image: TestImage, name: str = NAME, platform: Any = "all") -> Source:
    source = Source(image)
    with store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(LocalFirst(source, store), store, source.root, scope, platform=platform)
        store.tag(name, source.root, scope)
    return source


def digests(store: Store) -> set[str]:
    return {str(info.digest) for info in store.content.walk()}


def drop_leases(store: Store) -> None:
    store.leases.delete([lease.id for lease in store.leases.all()])


def test_making_and_reading_a_store_makes_no_file(tmp_path: Path) -> None:
    """The root appears with the first write."""
    store = Store.at(tmp_path / "root")
    assert (list(store.blobs), list(store.active), list(store.images)) == ([], [], [])
    assert store.find_image("redis") is None
    with pytest.raises(BlobNotFound):
        store.resolve("redis", Scope())
    assert store.gc(Scope()).kept == 0
    assert not (tmp_path / "root").exists()


def test_a_pull_into_it(store: Store) -> None:
    """Every blob is here with where it came from; the name resolves however it is written; no lease is left."""
    image = small_index()
    source = pull(store, image)
    assert digests(store) == set(image.everything())
    for digest in digests(store):
        assert store.labels(Digest(digest)) == {
            "containerd.io/distribution.source.docker.io": "library/redis"
        }
    for text in ("redis:7", NAME, "library/redis:7", f"{NAME}@{image.digest}", image.digest):
        if "@" in text:
            continue
        assert store.resolve(text, Scope()) == (source.root, None)
    assert store.get_image("redis:7") == source.root
    assert [record.name for record in store.image_records()] == [NAME]
    assert store.leases.all() == []
    again = pull(store, image)
    assert again.opened == []


def test_a_digest_resolves_by_its_content(store: Store) -> None:
    """A manifest that no name stands for is seen to be one; other bytes are octets."""
    image = small_image()
    pull(store, image)
    store.remove_image(NAME)
    target, raw = store.resolve(image.digest, Scope())
    assert (target.media_type, raw) == (parse(image.everything()[image.digest].raw).media_type, None)
    with store.ingest("k") as writer:
        writer.write(b"hello")
        digest = writer.commit(5, None)
    assert store.resolve(digest, Scope())[0] == Descriptor("application/octet-stream", digest, 5)
    assert store.resolve(f"redis@{digest}", Scope())[0].digest == digest
    with pytest.raises(BlobNotFound):
        store.resolve(Digest.of(b"absent"), Scope())


def test_names(store: Store) -> None:
    """Normalised; a name for what is not here is refused, and so is what can't be a name."""
    image = small_image()
    source = pull(store, image, "redis")
    assert [record.name for record in store.image_records()] == ["docker.io/library/redis:latest"]
    absent = Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"absent"), 6)
    with pytest.raises(BlobNotFound):
        store.tag("redis:8", absent, Scope())
    with pytest.raises(InvalidReference):
        store.tag("Not A Name", source.root, Scope())
    assert store.remove_image("redis")
    assert not store.remove_image("redis")


def test_rows(store: Store) -> None:
    """Sizes are of what is here; platforms are those that are whole here."""
    image = small_index()
    pull(store, image)
    everything = image.everything()
    [row] = store.images
    assert row.ref == NAME
    assert row.size == sum(len(blob.raw) for blob in everything.values())
    assert len(row.platforms) >= 2
    assert {blob.digest for blob in store.blobs} == set(everything)
    index = parse(everything[image.digest].raw)
    manifest = parse(everything[index.children()[0].digest].raw)
    gone = next(item for item in manifest.children() if mediatype.is_config(item.media_type))
    store.delete_blob(gone.digest)
    [less] = store.images
    assert less.size == row.size - gone.size
    assert less.platforms == row.platforms[1:]
    with store.ingest("k", total=9) as writer:
        writer.write(b"abc")
    assert [(item.ref, item.size) for item in store.active] == [("k", 3)]


def test_a_single_image_has_its_configs_platform(store: Store) -> None:
    """Where no index names it."""
    pull(store, small_image(platform="linux/arm64"))
    assert [platform.startswith("linux/arm64") for platform in store.images[0].platforms] == [True]


def test_an_ingest_that_is_killed_after_its_commit_is_tidied(store: Store) -> None:
    """When the same content is asked for again."""
    source = pull(store, small_image())
    folder = store.root / "content" / "ingest"
    from ocidist.content.ingest import folder_name

    left = folder / folder_name(ref_key(source.root))
    left.mkdir()
    (left / "ref").write_text(ref_key(source.root))
    assert store.exists(source.root, Scope())
    assert os.listdir(folder) == []


def test_a_blob_of_the_wrong_size_is_not_here_and_is_mended(store: Store) -> None:
    """A push brings it anew."""
    source = pull(store, small_image())
    path = store.content.path(source.root.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert not store.exists(source.root, Scope())
    store.push(source.root, source, Scope())
    assert len(read_all(store.open(source.root, Scope()), source.root, 1 << 20)) == source.root.size


def test_origins_add_up(store: Store) -> None:
    """A blob that came from two repositories says so, whether it was moved or was here."""
    image = small_image()
    pull(store, image)
    other = Source(image, Origin("docker.io", "library/copy"))
    store.push(other.root, other, Scope())
    assert other.opened == []
    assert set(store.labels(other.root.digest).values()) == {"library/copy,library/redis"}


# -- the collector --


def test_gc_takes_what_nothing_holds(store: Store) -> None:
    """A name keeps all that it names; without it all goes, labels too; a dry run only says so."""
    one, two = small_image("one"), small_index("two")
    pull(store, one, "one")
    pull(store, two, "two")
    report = store.gc(Scope())
    assert (report.blobs, report.kept) == ((), len(set(one.everything()) | set(two.everything())))
    store.remove_image("two")
    garbage = set(two.everything()) - set(one.everything())
    dry = store.gc(Scope(), dry_run=True)
    assert (set(dry.digests), dry.dry_run) == (garbage, True)
    assert dry.bytes == sum(len(two.everything()[digest].raw) for digest in garbage)
    assert digests(store) == set(one.everything()) | set(two.everything())
    wet = store.gc(Scope())
    assert wet.blobs == dry.blobs
    assert digests(store) == set(one.everything())
    assert store.leases.labeled("containerd.io/") != []
    assert {digest for digest, _, _ in store.leases.labeled("")} == set(one.everything())


def test_c38_what_has_no_name_is_held_for_a_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ingest and fetch leave; after a day and an hour at most it goes."""
    image = small_image()
    source = Source(image)
    copy_graph(source, store, source.root, Scope(), platform="all")
    with store.ingest("k") as writer:
        writer.write(b"hello")
        writer.commit(5, None)
    assert store.gc(Scope()).kept == len(image.everything()) + 1
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 23.9 * 3600)
    assert store.gc(Scope()).blobs == ()
    monkeypatch.setattr(time, "time", lambda: now + 25.1 * 3600)
    report = store.gc(Scope())
    assert (len(report.blobs), report.kept) == (len(image.everything()) + 1, 0)
    assert len(report.leases) == 1
    assert store.leases.all() == []


def test_c38_exists_holds_what_it_says_is_here(store: Store) -> None:
    """Garbage that a pull finds and does not move again is its own from then on."""
    source = pull(store, small_image())
    store.remove_image(NAME)
    with store.lease() as lease, Scope(lease=lease) as scope:
        for digest in digests(store):
            size = store.content.info(Digest(digest)).size
            assert store.exists(Descriptor("application/octet-stream", Digest(digest), size), scope)
        assert store.gc(Scope()).blobs == ()
        store.tag(NAME, source.root, scope)
    assert store.gc(Scope()).blobs == ()


def test_c38_an_ingest_of_what_is_here_holds_it(store: Store) -> None:
    """AlreadyExists is a promise that lasts."""
    with store.ingest("k") as writer:
        writer.write(b"hello")
        digest = writer.commit(5, None)
    drop_leases(store)
    with pytest.raises(AlreadyExists):
        store.ingest("again", total=5, expected=digest)
    assert store.gc(Scope()).blobs == ()


def test_c38_a_failed_pull_keeps_what_came_for_the_next(store: Store) -> None:
    """The lease of a block that raised lasts until it expires."""
    source = Source(small_image())

    def failing() -> None:
        with store.lease() as lease, Scope(lease=lease) as scope:
            store.push(source.root, source, scope)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert store.gc(Scope()).blobs == ()


def test_c38_garbage_collection_during_pulls_and_ingests(tmp_path: Path) -> None:
    """A collector that never stops takes nothing from pulls, fetches and ingests under way."""
    root = tmp_path / "root"
    errors: list[BaseException] = []
    stop = threading.Event()

    def guarded(work: Any, *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001 - whatever a thread meets fails the test
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def collecting() -> None:
        store = Store.at(root)
        store._snapshots = store._trees = Snapshots()  # type: ignore[assignment]
        while not stop.is_set():
            store.gc(Scope())
        store.close()

    def pulling(number: int) -> None:
        store = Store.at(root)
        for turn in range(3):
            name = f"image{number}:{turn}"
            pull(store, small_index(f"{turn}"), name)
            pull(store, small_index(f"{turn}-{number}"), name)
            assert set(small_index(f"{turn}-{number}").everything()) <= digests(store)
            store.remove_image(name)
        pull(store, small_index(f"last{number}"), f"last{number}")
        store.close()

    def ingesting(number: int) -> None:
        store = Store.at(root)
        for turn in range(10):
            raw = f"{number} {turn}".encode()
            with store.ingest(f"{number}-{turn}") as writer:
                writer.write(raw[:1])
                time.sleep(0.005)
                writer.write(raw[1:])
                digest = writer.commit(len(raw), None)
            assert store.content.has(digest)
        store.close()

    collector = guarded(collecting)
    workers = [guarded(pulling, n) for n in range(3)] + [guarded(ingesting, n) for n in range(3)]
    for worker in workers:
        worker.join(100)
    stop.set()
    collector.join(30)
    assert errors == []
    with Store.at(root) as store:
        wanted: set[str] = {str(Digest.of(f"{n} {turn}".encode())) for n in range(3) for turn in range(10)}
        for number in range(3):
            wanted |= set(small_index(f"last{number}").everything())
        assert wanted <= digests(store)
        assert list(store.active) == []


def test_c38_a_commit_waits_for_the_collector(store: Store) -> None:
    """It is not visible, and holds no lease, while a collector is inside; then it is both."""
    writer = store.ingest("k")
    writer.write(b"hello")
    done = threading.Event()

    def commit() -> None:
        writer.commit(5, None)
        done.set()

    with store.leases.alone():
        thread = threading.Thread(target=commit)
        thread.start()
        assert not done.wait(0.2)
        assert digests(store) == set()
        assert store.leases.all() == []
    assert done.wait(10)
    thread.join()
    assert store.gc(Scope()).blobs == ()


def test_gc_takes_stale_ingests_alone(store: Store) -> None:
    """Those that nobody holds and that are a day old; damaged ones too."""
    for key in ("old", "fresh", "held", "damaged"):
        with store.ingest(key) as writer:
            writer.write(b"abc")
    ingest = store.root / "content" / "ingest"
    old = time.time() - 25 * 3600
    from ocidist.content.ingest import folder_name

    for key in ("old", "held", "damaged"):
        os.utime(ingest / folder_name(key) / "data", (old, old))
    (ingest / folder_name("damaged") / "ref").unlink()
    with store.ingest("held"):
        expected = tuple(sorted(["old", folder_name("damaged")]))
        assert tuple(sorted(store.gc(Scope()).ingests)) == expected
    assert sorted(status.key for status in store.content.statuses()) == ["fresh", "held"]


def test_gc_follows_labels(store: Store) -> None:
    """gc.root keeps a blob and what it names; gc.ref.content one more; gc.ref.snapshot a snapshot and its
    parents. What can't be parsed is a leaf."""
    image = small_image()
    source = pull(store, image)
    manifest = parse(image.everything()[image.digest].raw)
    config = next(item for item in manifest.children() if mediatype.is_config(item.media_type))
    kept = []
    for text in (b"referred", b"garbage", b'{"schemaVersion": 2, "layers": 7}'):
        with store.ingest(str(text)) as writer:
            writer.write(text)
            kept.append(writer.commit(len(text), None))
    drop_leases(store)
    store.remove_image(NAME)
    store.set_labels(source.root.digest, {"containerd.io/gc.root": "now"})
    store.set_labels(kept[2], {"containerd.io/gc.root": "now"})
    store.set_labels(
        config.digest,
        {"containerd.io/gc.ref.snapshot.native": "top", "containerd.io/gc.ref.content.x": str(kept[0])},
    )
    snapshots = Snapshots(
        SnapshotInfo("base", "", "committed", time.time()),
        SnapshotInfo("top", "base", "committed", time.time()),
        SnapshotInfo("orphan-base", "", "committed", time.time()),
        SnapshotInfo("orphan", "orphan-base", "committed", time.time()),
        SnapshotInfo("under", "", "committed", time.time()),
        SnapshotInfo("container", "under", "active", time.time()),
    )
    store._snapshots = store._trees = snapshots  # type: ignore[assignment]
    report = store.gc(Scope())
    assert report.digests == (kept[1],)
    assert set(report.snapshots) == {"orphan", "orphan-base"}
    assert set(snapshots.infos) == {"base", "top", "under", "container"}
    store.set_labels(source.root.digest, {"containerd.io/gc.root": None})
    assert set(store.gc(Scope()).snapshots) == {"base", "top"}


def test_gc_is_not_misled_by_a_manifest_that_another_calls_a_layer(store: Store) -> None:
    """An image that names another's manifest as its layer does not cost that other its children."""
    image = small_image()
    pull(store, image, "victim")
    everything = image.everything()
    manifest = parse(everything[image.digest].raw)
    config = next(item for item in manifest.children() if mediatype.is_config(item.media_type))
    layer = Descriptor(mediatype.OCI_LAYER_GZIP, Digest(image.digest), len(everything[image.digest].raw))
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json()],
        }
    ).encode()
    target = Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw), data=raw)
    for name in ("a/attacker", "zz/attacker"):
        store.push(target, Source(image), Scope())
        store.tag(name, target, Scope())
    drop_leases(store)
    assert store.gc(Scope()).blobs == ()
    assert set(everything) <= digests(store)


def test_a_leased_snapshot_stays(store: Store) -> None:
    """While it is being unpacked nothing else refers to it."""
    store.leases.hold("l", time.time() + 9000, [("snapshot", "s")])
    snapshots = Snapshots(SnapshotInfo("s", "", "committed", time.time()))
    store._snapshots = store._trees = snapshots  # type: ignore[assignment]
    assert store.gc(Scope()).snapshots == ()
    drop_leases(store)
    assert store.gc(Scope()).snapshots == ("s",)


def test_unpack_and_its_snapshot(tmp_path: Path) -> None:
    """The real snapshotter: unpacked once, kept as long as the image, gone with it."""
    image = small_image()
    with Store.at(tmp_path / "root") as store:
        pull(store, image)
        manifest = parse(image.everything()[image.digest].raw)
        assert isinstance(manifest, Manifest)
        assert manifest.config is not None
        config = ImageConfig.parse(image.everything()[manifest.config.digest].raw)
        assert store.chain_of(config) is None
        waited: list[Digest] = []
        chain = store.unpack(manifest, config, Scope(), wait=lambda layer: waited.append(layer.digest))
        assert waited == [layer.digest for layer in manifest.layers]
        assert chain == chain_id(config.diff_ids) == store.chain_of(config)
        assert store.labels(manifest.config.digest)["containerd.io/gc.ref.snapshot.native"] == chain
        drop_leases(store)
        assert store.gc(Scope()).snapshots == ()
        assert any(store.snapshots.path(str(chain)).iterdir())
        store.remove_image(NAME)
        assert store.gc(Scope()).snapshots == (chain,)
        assert list(store.snapshots.walk()) == []
        assert store.chain_of(config) is None


# -- read-only and others' roots --


def test_c41_a_store_opened_read_only(store: Store) -> None:
    """Reads work and leave no trace; each write is a StoreError."""
    source = pull(store, small_image())
    reader = Store.at(store.root, readonly=True)
    before = sorted(os.listdir(store.root))
    assert reader.exists(source.root, Scope())
    assert reader.resolve(NAME, Scope())[0] == source.root
    assert [row.ref for row in reader.images] == [NAME]
    assert reader.find_image("redis:7") == NAME
    absent = Source(small_image("other"))
    for write in (
        lambda: reader.tag("x", source.root, Scope()),
        lambda: reader.remove_image(NAME),
        lambda: reader.gc(Scope()),
        lambda: reader.ingest("k"),
        lambda: reader.delete_blob(source.root.digest),
        lambda: reader.set_labels(source.root.digest, {"a": "b"}),
        lambda: reader.push(absent.root, absent, Scope()),
        lambda: reader.lease().__enter__(),
    ):
        with pytest.raises(StoreError):
            write()
    assert sorted(os.listdir(store.root)) == before
    reader.close()


def test_a_content_directory_of_another_is_read(tmp_path: Path) -> None:
    """Such as containerd's own, which has blobs/ at its top."""
    content = LocalContent(tmp_path / "theirs")
    with content.writer("k") as writer:
        writer.write(b"hello")
        digest = writer.commit(5, None)
    with Store.at(tmp_path / "theirs", readonly=True) as store:
        assert [row.digest for row in store.blobs] == [digest]
        target, _ = store.resolve(digest, Scope())
        assert read_all(store.open(target, Scope()), target, 100) == b"hello"
    assert sorted(os.listdir(tmp_path / "theirs")) == ["blobs", "ingest"]


def test_a_temporary_store_is_gone_afterwards() -> None:
    """With all that was put into it."""
    with Store.temporary() as store:
        pull(store, small_image())
        root = store.root
        assert root.is_dir()
    assert not root.exists()


def test_a_store_survives_pickle(store: Store) -> None:
    """As its root."""
    pull(store, small_image())
    again = pickle.loads(pickle.dumps(store))
    assert [record.name for record in again.image_records()] == [NAME]
    again.close()


# -- damage --


def flip(store: Store, digest: Any, at: int = 20) -> None:
    """One bit of a blob turns over, as on a bad disk: same size, other bytes."""
    path = store.content.path(Digest(digest))
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


def test_gc_passes_over_what_is_missing(store: Store) -> None:
    """An image without its manifest keeps nothing but its name."""
    image = small_image()
    source = pull(store, image)
    store.delete_blob(source.root.digest)
    assert len(store.gc(Scope()).blobs) == len(image.everything()) - 1


# -- gc --all --


def test_c38_gc_all_takes_what_only_a_day_holds(store: Store) -> None:
    """Of a fetch, an ingest, an interrupted pull and its partial ingest; plain gc tells how much that is."""
    named, fetched, broken = small_image("named"), small_image("fetched"), small_image("broken")
    pull(store, named)
    source = Source(fetched)
    copy_graph(source, store, source.root, Scope(), platform="all")
    left = Source(broken)
    store.leases.hold("lease-of-a-pull", time.time() + 9000, [("content", str(left.root.digest))])
    with Scope(lease="lease-of-a-pull") as scope:
        store.push(left.root, left, scope)
    with store.ingest("partial") as writer:
        writer.write(b"abc")
    mine = store.leases
    with store.ingest("kept") as writer:
        writer.write(b"hello")
        kept = writer.commit(5, None)
    mine.hold("mine", time.time() + 9000, [("content", str(kept))])
    plain = store.gc(Scope())
    wanted = (set(fetched.everything()) | {str(left.root.digest)}) - set(named.everything())
    assert (plain.blobs, plain.ingests) == ((), ())
    assert {str(blob.digest) for blob in plain.held} == wanted
    with store.ingest("under way") as writer:
        writer.write(b"x")
        dry = store.gc(Scope(), dry_run=True, everything=True)
        assert {item.key for item in store.content.statuses()} == {"partial", "under way"}
        report = store.gc(Scope(), everything=True)
        assert {item.key for item in store.content.statuses()} == {"under way"}
    assert report.ingests == dry.ingests == ("partial",)
    assert set(report.digests) == set(dry.digests) == wanted
    assert report.held == ()
    assert digests(store) == set(named.everything()) | {str(kept)}
    assert [lease.id for lease in store.leases.all()] == ["mine"]


def test_c38_gc_all_leaves_what_is_under_way(store: Store) -> None:
    """The lease of a block that runs, here or in another process's eyes, and a fetch that is not done."""
    source = Source(small_image())
    other = Store.at(store.root)
    other._snapshots = other._trees = Snapshots()  # type: ignore[assignment]
    with store.lease() as lease, Scope(lease=lease) as scope:
        store.push(source.root, source, scope)
        assert other.gc(Scope(), everything=True).blobs == ()
        assert other.gc(Scope()).held == ()
        store.tag(NAME, source.root, scope)
    store.remove_image(NAME)
    assert len(store.gc(Scope(), everything=True).blobs) == 1
    with store.fetching(Scope()):
        store.push(source.root, source, Scope())
        assert other.gc(Scope(), everything=True).blobs == ()
    assert len(other.gc(Scope(), everything=True).blobs) == 1
    other.close()


def test_c38_gc_all_knows_a_killed_pull_from_a_running_one(store: Store) -> None:
    """Its lock is the system's, so it ends with the process."""
    source = Source(small_image())
    code = (
        "import sys; from ocidist.stores.store import Store; store = Store.at(sys.argv[1])\n"
        "with store.lease() as lease: print(lease, flush=True); sys.stdin.read()"
    )
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lease = process.stdout.readline().strip()
        with Scope(lease=lease) as scope:
            store.push(source.root, source, scope)
        assert store.gc(Scope(), everything=True).blobs == ()
        process.kill()
        process.wait(30)
        assert len(store.gc(Scope()).held) == 1
        assert len(store.gc(Scope(), everything=True).blobs) == 1
    assert store.leases.all() == []
    assert os.listdir(store.root / "leases") == []


# -- a store that can't be written --


def test_c41_a_dry_run_of_gc_writes_nothing(store: Store) -> None:
    """Also over a store that is opened read-only, and where no lock file was made yet."""
    image = small_image()
    pull(store, image)
    store.remove_image(NAME)
    (store.root / "gc.lock").unlink(missing_ok=True)
    before = sorted(map(str, store.root.rglob("*")))
    with Store.at(store.root, readonly=True) as reader:
        for looked_at in (store, reader):
            looked_at._snapshots = looked_at._trees = Snapshots()  # type: ignore[assignment]
            assert set(looked_at.gc(Scope(), dry_run=True).digests) == set(image.everything())
    assert sorted(map(str, store.root.rglob("*"))) == before


def test_c41_a_store_that_another_owns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write says so, naming the root; reads go on. (Permissions are played: root passes all of them.)"""
    image = small_image()
    source = pull(store, image)
    mine = os.access
    theirs = str(store.root / "meta.db")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != theirs and mine(path, mode))
    absent = Source(small_image("other"))
    for write in (
        lambda: store.tag("x", source.root, Scope()),
        lambda: store.remove_image(NAME),
        lambda: store.gc(Scope()),
        lambda: store.ingest("k"),
        lambda: store.delete_blob(source.root.digest),
        lambda: store.set_labels(source.root.digest, {"a": "b"}),
        lambda: store.push(absent.root, absent, Scope()),
        lambda: store.lease().__enter__(),
    ):
        with pytest.raises(StoreError) as caught:
            write()
        assert str(caught.value) == f"{store.root}: the store can't be written to by this user"
    assert [row.ref for row in store.images] == [NAME]
    assert store.gc(Scope(), dry_run=True).kept == len(image.everything())


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    """Is no empty store."""
    (tmp_path / "root").write_text("")
    with Store.at(tmp_path / "root") as store:
        for use in (
            lambda: store.images,
            lambda: store.gc(Scope()),
            lambda: store.gc(Scope(), dry_run=True),
            lambda: store.remove_image(NAME),
            lambda: store.find_image(NAME),
        ):
            with pytest.raises(StoreError, match="Not a directory"):
                use()


def test_a_look_makes_no_tables(tmp_path: Path) -> None:
    """A database that a full disk left empty is read as one without names, and stays as it is."""
    (tmp_path / "meta.db").write_bytes(b"")
    with Store.at(tmp_path) as store:
        assert list(store.images) == []
        assert store.find_image(NAME) is None
        assert (tmp_path / "meta.db").stat().st_size == 0
        assert os.listdir(tmp_path) == ["meta.db"]
        pull(store, small_image())
        assert [row.ref for row in store.images] == [NAME]


def test_listings_at_80_columns_keep_what_is_typed_again(store: Store) -> None:
    """images: the name and the digest's beginning, without the type; active: the key, with the size that it will have;
    snapshots and du: enough of a ChainID to name it."""
    name = "registry.example/app:26"
    image = small_image()
    pull(store, image, name)
    key = f"registry.example/some/team/application@{image.digest}"
    with store.ingest(key, total=5000) as writer:
        writer.write(b"half")
    with store.ingest("k") as writer:
        writer.write(b"half")
    head, line = render(store.images.schema, store.images, 80).splitlines()
    assert head.split()[:4] == ["REF", "DIGEST", "SIZE", "PLATFORMS"]
    assert line.split()[:2] == [name, image.digest[:19]]
    assert len(line) <= 80
    active = store.active
    assert {(row.ref, row.size, row.total) for row in active} == {(key, 4, 5000), ("k", 4, None)}
    head, *lines = render(active.schema, active, 80).splitlines()
    assert head.split() == ["REF", "SIZE", "AGE", "TOTAL"]
    assert {line.split()[0] for line in lines} == {key, "k"}
    assert {line.split()[-1] for line in lines} == {"kB", "-"}
    store._snapshots = store._trees = None
    chain = str(chain_id([Digest.of(b"a"), Digest.of(b"b")]))
    store.snapshots.prepare("k1")
    store.snapshots.commit(chain, "k1")
    store.snapshots.prepare("/mnt/of:a-long-directory-name", chain)
    rows = snapshots(store)
    lines = render(rows.schema, rows, 80).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [chain[:19], "/mnt/of:a-long-directory-name"]
    assert all(len(line) <= 80 for line in lines)
    used = store.du()
    assert f" {chain[:19]} " in render(used.schema, used, 80)
    assert f" {name} " in render(used.schema, used, 80)
    assert "…" not in render(used.schema, used, 80)  # a size without its unit, half a digest
    assert line.split()[1] in render(store.images.schema, store.images, 70)


def test_c36_a_full_disk_says_how_much_is_needed_and_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what an ingest still lacks, where its size is known; the way out comes with it."""
    with Store.at(tmp_path / "root") as store, store.ingest("key", total=5000) as writer:
        writer.write(b"x" * 1000)

        def full(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(
            StoreError, match=r"No space left on device \(4.0 kB more are needed, .* are free\); free some"
        ):
            writer.write(b"y" * 1000)
