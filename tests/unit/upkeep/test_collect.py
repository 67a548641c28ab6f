"""The collector beside images that can't be followed: theirs stays, the rest goes, and what is wrong is reported."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Iterator

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.content.disk import failure
from ocidist.content.labels import SNAPSHOT_LABEL
from ocidist.errors import InvalidManifest, OcidistError, StoreError
from ocidist.images.leases import SqliteLeases
from ocidist.remotes.protocols import Origin
from ocidist.scope import Scope
from ocidist.snapshots import folders
from ocidist.snapshots.folders import UNPACKING
from ocidist.snapshots.protocols import SnapshotInfo
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import parse
from ocidist.spec.platform import Platform
from ocidist.stores.store import Store
from tests.parts.images import MANIFEST, Blob, TestImage, index, small_image, small_index, to_json
from tests.parts.required import require
from tests.unit.registry.fake import FakeRegistry
from tests.unit.test_hostile_images import image as hosted
from tests.unit.test_hostile_images import of
from tests.unit.test_store import NAME, Snapshots, Source, digests, drop_leases, flip, pull

HOSTILE = "registry.example/a:1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store with a snapshotter that only remembers keys."""
    with Store.at(tmp_path / "root") as store:
        store._snapshots = store._trees = Snapshots()  # type: ignore[assignment]
        yield store


def parents_of(image: TestImage) -> list[str]:
    """The image's index, if any, and its manifests."""
    found = []
    for digest, blob in image.everything().items():
        try:
            parse(blob.raw)
        except InvalidManifest:
            continue
        found.append(str(digest))
    return found


def garbage(store: Store, image: TestImage) -> set[str]:
    """An image of another repository that nothing names or leases any more: its blobs."""
    source = Source(image, Origin("registry.example", "other"))
    for target in (
        source.root,
        *[Descriptor("a/b", Digest(d), len(b.raw)) for d, b in image.everything().items()],
    ):
        store.push(target, source, Scope())
    drop_leases(store)
    return set(image.everything())


def test_i80_a_damaged_image_stops_neither_gc_nor_du_of_the_rest(store: Store) -> None:
    """Wherever on the way the damage lies and whether it still parses: all of that image stays, the rest goes, and a
    problem says whose it is."""
    image, other = small_index(), small_image("other")
    source = pull(store, image)
    assert len(parents_of(image)) >= 3
    for digest in parents_of(image):
        for at in (0, image.everything()[digest].raw.index(b"sha256:") + 8):
            rest = garbage(store, other)
            flip(store, Digest(digest), at)
            assert store.du(Scope())
            for dry_run in (True, False):
                store._snapshots = store._trees = Snapshots(SnapshotInfo("s", "", "committed", time.time()))  # type: ignore[assignment]
                report = store.gc(Scope(), dry_run=dry_run)
                assert set(report.digests) == rest, (digest, at)
                assert report.snapshots == ("s",)
                [problem] = report.problems
                for part in (digest, NAME, f"pull {NAME} again, or rmi it", "is damaged"):
                    assert part in problem
            assert digests(store) == set(image.everything())
            flip(store, Digest(digest), at)
    assert store.gc(Scope()).problems == ()
    path = store.content.path(source.root.digest)
    path.chmod(0o644)
    path.write_bytes(b"")  # what it named is known by where it came from alone
    report = store.gc(Scope())
    assert (report.blobs, len(report.problems)) == ((), 1)
    store.remove_image(NAME)
    assert set(store.gc(Scope()).digests) == set(image.everything())


def test_i80_damage_under_a_label_or_a_lease_keeps_what_came_with_it(store: Store) -> None:
    """The label or the lease is named; another image's content goes."""
    image = small_image()
    source = pull(store, image)
    store.remove_image(NAME)
    rest = garbage(store, small_image("other"))
    store.set_labels(source.root.digest, {"containerd.io/gc.root": "now"})
    flip(store, source.root.digest)
    report = store.gc(Scope())
    assert set(report.digests) == rest
    assert "gc.root" in report.problems[0]
    store.set_labels(source.root.digest, {"containerd.io/gc.root": None})
    store.leases.hold("mine", time.time() + 9000, [("content", str(source.root.digest))])
    report = store.gc(Scope())
    assert (report.blobs, digests(store)) == ((), set(image.everything()))
    assert "lease mine" in report.problems[0]
    store.delete_blob(source.root.digest)
    assert len(store.gc(Scope()).blobs) == len(image.everything()) - 1


def test_i80_what_is_called_a_manifest_and_is_none_keeps_what_it_spells(store: Store) -> None:
    """A newer program may know how to read it. A lease on the same bytes alone makes no problem."""
    blobs = []
    for raw in (b"named by it", b"named by nothing"):
        with store.ingest(str(raw)) as writer:
            writer.write(raw)
            blobs.append(writer.commit(len(raw), None))
    image = small_image()  # its blobs have an origin; those ingested have none
    pull(store, image)
    raw = b'{"schemaVersion": 9, "parts": ["%s"]}' % blobs[0].encode()
    store.push(target := Descriptor(mediatype.OCI_MANIFEST, Digest.of(raw), len(raw)), _Raw(raw), Scope())
    assert store.gc(Scope()).problems == ()
    store.tag("registry.example/odd:1", target, Scope())
    drop_leases(store)
    report = store.gc(Scope())
    assert report.digests == (blobs[1],)
    assert "can't be read" in report.problems[0]
    assert "rmi it" in report.problems[0]
    store.remove_image("registry.example/odd:1")
    assert set(store.gc(Scope()).digests) == {blobs[0], target.digest}


class _Raw(Source):
    """One blob, of a repository of its own."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.known = raw, Origin("registry.example", "odd")

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> object:
        from ocidist.content.verify import MemoryBody

        return MemoryBody(self.raw, offset)


def test_i80_a_manifest_that_another_calls_a_layer_is_counted_and_checked_whole(store: Store) -> None:
    """An index of one that names the second as its layer hides nothing of the second."""
    second = small_image("second")
    first = json.loads(small_image("first").root.raw)
    first["layers"] = [{**second.root.descriptor(), "mediaType": mediatype.OCI_LAYER}]
    outer = TestImage(Blob(to_json(first), MANIFEST), small_image("first").blobs[:1])
    image = index([outer, second])
    source = Source(image)
    for digest, blob in image.everything().items():
        store.push(Descriptor(blob.media_type, Digest(digest), len(blob.raw)), source, Scope())
    store.tag(NAME, source.root, Scope())
    [row] = [row for row in store.du(Scope()) if row.kind == "image"]
    assert row.files == len(image.everything())
    gone = Digest(second.blobs[-1].digest)
    store.delete_blob(gone)
    assert [row.name for row in store.check() if row.kind == "blob"] == [gone]


# -- one digest that is named as two things --


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def client(registry: FakeRegistry, tmp_path: Path) -> Client:
    return Client(store=tmp_path / "root", transport=registry.transport, auth=("ann", "s3cret"), workers=0)


def conflicting(
    registry: FakeRegistry, media_type: str, *, extra: int = 0, architecture: str = "sparc64"
) -> Digest:
    """An index whose second entry names the first one's config as ``media_type``, ``extra`` bytes longer."""
    inner = hosted(registry)
    raw = registry.manifests[inner][1]
    config = json.loads(raw)["config"]
    ours = {"os": "linux", "architecture": Platform.host().architecture}
    entries = [
        {"mediaType": mediatype.OCI_MANIFEST, "digest": inner, "size": len(raw), "platform": ours},
        {
            **config,
            "mediaType": media_type,
            "size": config["size"] + extra,
            "platform": {"os": "linux", "architecture": architecture},
        },
    ]
    return registry.add_manifest({"mediaType": mediatype.OCI_INDEX, "manifests": entries}, "1")


def test_i80_one_digest_as_config_and_as_manifest_is_refused(registry: FakeRegistry, client: Client) -> None:
    """At pull and at fetch, also by an entry that is not the one chosen: no name is left."""
    conflicting(registry, mediatype.OCI_MANIFEST)
    for move in (client.pull, client.fetch):
        with pytest.raises(
            OcidistError, match=r"is named as a (config and as a manifest|manifest and as a config)"
        ):
            move(HOSTILE)
    assert list(client.store.image_records()) == []


def test_i80_one_digest_with_two_sizes_is_refused(registry: FakeRegistry, client: Client) -> None:
    """Its two sizes are in the error."""
    conflicting(registry, mediatype.OCI_CONFIG, extra=1)
    with pytest.raises(OcidistError, match=r"is named with \d+ bytes and with \d+"):
        client.pull(HOSTILE)


def test_i80_one_digest_as_two_leaves_is_taken(registry: FakeRegistry, client: Client) -> None:
    """The empty config of an artifact that is its layer as well, under another type."""
    empty = of(registry, b"{}", mediatype.OCI_EMPTY)
    registry.add_manifest({"config": empty, "layers": [{**empty, "mediaType": "application/json"}]}, "1")
    client.fetch(HOSTILE)


def test_i80_an_image_that_is_here_already_does_not_stop_the_commands(
    registry: FakeRegistry, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """gc removes the rest, names the image and the way out, and exits 1; check reports it; du, images and list work."""
    root = conflicting(registry, mediatype.OCI_MANIFEST)
    store = client.store
    for digest, (media_type, raw) in registry.manifests.items():
        if digest != "1":
            store.push(Descriptor(media_type, Digest(digest), len(raw), data=raw), _Raw(raw), Scope())
    for digest, raw in registry.blobs.items():
        store.push(Descriptor("application/octet-stream", Digest(digest), len(raw)), _Raw(raw), Scope())
    raw = registry.manifests[root][1]
    store.tag(HOSTILE, Descriptor(mediatype.OCI_INDEX, root, len(raw)), Scope())
    kept = digests(store)
    with store.ingest("loose") as writer:
        writer.write(b"loose")
        loose = writer.commit(5, None)
    store.close()

    def run(*args: str) -> tuple[int, str, str]:
        code = main(["--root", str(store.root), *args])
        return code, *capsys.readouterr()

    for command in ("du", "images", "list", "active"):
        assert run(command)[0] == 0
    code, out, err = run("check")
    assert (code, "can't be read" in out) == (1, True)
    code, out, err = run("gc", "--all")
    assert (code, loose in out) == (1, True)
    assert f"held by {HOSTILE}" in err
    assert digests(store) == kept
    assert run("rmi", HOSTILE)[0] == 0
    assert run("gc", "--all")[0] == 0
    assert digests(store) == set()


# -- a database that was lost --


def lose(store: Store) -> None:
    """The file of names is gone, as after the advice to move a damaged one away."""
    store.close()
    os.unlink(store.names.place)


@pytest.mark.parametrize("how", ["gone", "empty", "of an older version"])
def test_gc_keeps_what_a_lost_database_would_have_named(
    registry: FakeRegistry, client: Client, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain gc removes no blob and no tree, and says how names come back; gc --all removes them."""
    hosted(registry, "1")
    chain = client.pull(HOSTILE).chain_id
    store = client.store
    before, trees = digests(store), [info.key for info in store.snapshots.walk()]
    assert trees == [chain]
    lose(store)
    if how == "empty":
        Path(store.names.place).touch()
    elif how != "gone":
        store.leases.create("x", 0)
        with sqlite3.connect(store.names.place) as connection:
            for table in ("leases", "labels"):
                connection.execute(f"DELETE FROM {table}")
        connection.close()
    for words in (["gc", "--dry-run"], ["gc"]):
        assert main(["--root", str(store.root), *words]) == 0
        said = capsys.readouterr()
        assert "sha256:" not in said.out
        assert f"{len(before)} blobs (" in said.err
        assert "and 1 snapshot are older than the database of names" in said.err
        assert "pull their images again to name them, or remove them with gc --all" in said.err
    assert digests(store) == before
    assert [info.key for info in store.snapshots.walk()] == trees
    assert main(["--root", str(store.root), "gc", "--all"]) == 0
    assert (digests(store), list(store.snapshots.walk())) == (set(), [])


def test_gc_keeps_what_a_new_database_does_not_know(registry: FakeRegistry, client: Client) -> None:
    """One image was pulled again since: the other is kept, and goes once its name came and went."""
    hosted(registry, "1")
    hosted(registry, "2", layers=3)
    store = client.store
    client.pull(HOSTILE)
    first = digests(store)
    client.pull("registry.example/a:2")
    lose(store)
    client.pull("registry.example/a:2")
    report = store.gc(Scope())
    assert (report.blobs, report.snapshots) == ((), ())
    assert {blob.digest for blob in report.unknown} < first
    assert len(report.unknown_snapshots) == 1
    client.pull(HOSTILE)
    assert (store.gc(Scope()).unknown, store.gc(Scope()).unknown_snapshots) == ((), ())


def test_gc_of_a_store_whose_database_is_whole_keeps_nothing_back(
    registry: FakeRegistry, client: Client
) -> None:
    """Of what was pulled, fetched or ingested since the database was made nothing is unknown."""
    hosted(registry, "1")
    client.pull(HOSTILE)
    client.store.remove_image(HOSTILE)
    drop_leases(client.store)
    report = client.store.gc(Scope())
    assert (report.unknown, report.unknown_snapshots, digests(client.store)) == ((), (), set())
    assert len(report.snapshots) == 1


# -- what was freed --


def test_gc_counts_all_that_it_removes(registry: FakeRegistry, client: Client) -> None:
    """Blobs, trees, ingests and what a killed unpack left: as much as du tells less afterwards, in a dry run as well."""
    hosted(registry, "1")
    client.pull(HOSTILE)
    store = client.store
    left = store.snapshots.begin(f"{UNPACKING}killed")
    (left / "file").write_bytes(bytes(200_000))
    folder = store.snapshots.root / "removed" / "1-2-of-a-killed-process"  # type: ignore[attr-defined]
    folder.mkdir()
    (folder / "file").write_bytes(bytes(100_000))
    with store.ingest("partial") as writer:
        writer.write(bytes(50_000))
    store.remove_image(HOSTILE)

    def size() -> int:
        return sum(row.size for row in store.du() if row.kind in ("content", "snapshots", "ingests"))

    before = size()
    dry = store.gc(Scope(), dry_run=True, everything=True)
    assert size() == before
    report = store.gc(Scope(), everything=True)
    fell = before - size()
    assert report.freed == dry.freed
    assert fell > 350_000
    assert abs(report.freed - fell) < 2_000  # what is kept beside the trees and ingests
    assert report.unpackings == dry.unpackings == 2


def test_i80_a_tree_that_can_not_be_removed_stops_nothing_else(store: Store) -> None:
    """It is a problem; blobs, other trees and leases go."""
    rest = garbage(store, small_image("other"))

    class Stuck(Snapshots):
        def remove(self, key: str) -> None:
            if key == "stuck":
                raise StoreError(key, "another user's")
            super().remove(key)

        def remove_stale(self) -> int:
            raise StoreError("left", "another user's")

    made = Stuck(*(SnapshotInfo(key, "", "committed", time.time()) for key in ("a", "stuck", "z")))
    store._snapshots = store._trees = made  # type: ignore[assignment]
    report = store.gc(Scope())
    assert set(report.digests) == rest
    assert digests(store) == set()
    assert set(made.infos) == {"stuck"}
    assert [problem.partition(":")[0] for problem in report.problems] == ["stuck", "left"]


@pytest.mark.parametrize("damage", ["digest = 'sha256:x'", "size = 'many'", "annotations = '{'"])
def test_i80_a_damaged_record_stops_no_look_at_the_rest(
    registry: FakeRegistry, client: Client, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came from where that image did stays; garbage of other places goes; images, du and check tell of the rest,
    and all of them name it and exit 1, until it is removed."""
    store = client.store
    pull(store, small_image("named"), "registry.example/named:1")
    rest = garbage(store, small_image("other"))
    hosted(registry, "1")
    client.pull(HOSTILE)
    kept = digests(store) - rest
    with sqlite3.connect(store.names.place) as connection:
        connection.execute(f"UPDATE images SET {damage} WHERE name = ?", (HOSTILE,))
    connection.close()
    trees = [info.key for info in store.snapshots.walk()]

    def run(*words: str, code: int) -> str:
        assert main(["--root", str(store.root), *words]) == code
        found = capsys.readouterr()
        assert (f"the record of the image '{HOSTILE}' is damaged" in found.out + found.err) == bool(code)
        return found.out

    for command in ("images", "du", "check"):
        assert command == "check" or "registry.example/named:1" in run(command, code=1)
        run(command, code=1)
    assert set(rest) <= set(run("gc", "--dry-run", code=1).split())
    run("gc", code=1)
    assert (digests(store), [info.key for info in store.snapshots.walk()]) == (kept, trees)
    run("rmi", HOSTILE, code=0)
    for command in ("images", "du", "check", "gc"):
        run(command, code=0)
    assert len(digests(store)) == len(small_image("named").everything())


def test_i80_a_blob_that_can_t_be_deleted_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """chattr +i, for one: it is named, stays counted as kept, and all else goes."""
    with Store.at(tmp_path / "root") as store:
        for text in (b"one", b"two", b"three"):
            with store.ingest("key") as into:
                into.write(text)
                into.commit(0, None)
        fast, unlink = store.content.path(Digest.of(b"two")), os.unlink

    def refusing(path: object, **how: object) -> None:
        if str(path) == str(fast):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(fast))
        unlink(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", refusing)
    assert main(["--root", str(tmp_path / "root"), "gc", "--all"]) == 1
    monkeypatch.undo()
    said = capsys.readouterr()
    assert f"{fast}: {os.strerror(errno.EPERM)}; it may be immutable" in said.err
    assert "2 blobs" in said.err
    assert Digest.of(b"two") not in said.out
    assert [info.digest for info in Store.at(tmp_path / "root").content.walk()] == [Digest.of(b"two")]


@pytest.mark.parametrize("lost", ["committed", "active", "locks", "removed"])
def test_a_folder_of_the_snapshots_that_is_lost_is_made_again(tmp_path: Path, lost: str) -> None:
    """Whatever is done next."""
    for used in ("gc", "prepare"):
        with Store.at(tmp_path / used) as store:
            store.snapshots.prepare("key")
            shutil.rmtree(tmp_path / used / "snapshots" / "native" / lost)
            if used == "gc":
                assert store.gc(Scope()).problems == ()
            store.snapshots.prepare("key")
            store.snapshots.commit(str(Digest.of(b"chain")), "key")


def test_a_collector_that_is_killed_leaves_no_config_that_names_a_tree_that_went(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its image may be fetched again before the next one runs: `check` would call the tree missing."""
    image = small_image()
    source = pull(store, image)
    config = Digest(image.manifest["config"]["digest"])
    store._snapshots = store._trees = Snapshots(SnapshotInfo("chain", "", "committed", time.time()))  # type: ignore[assignment]
    store.set_labels(config, {SNAPSHOT_LABEL + "native": "chain"})
    store.remove_image(NAME)
    drop_leases(store)

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLeases, "forget", killed)
        with pytest.raises(SystemExit):
            store.gc(Scope())
    assert not store.content.has(config)
    store.push(Descriptor("a/b", config, len(image.everything()[str(config)].raw)), source, Scope())
    for digest, _, chain in store.leases.labeled(SNAPSHOT_LABEL):
        assert Digest(digest) == config
        assert chain in [info.key for info in store.snapshots.walk()]


def test_i80_what_is_immutable_in_a_tree_is_told_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root can remove all else: it is not another user's."""
    require("os:geteuid")
    with Store.at(tmp_path / "root") as store:
        store.snapshots.begin(f"{UNPACKING}chain").joinpath("file").write_bytes(b"12345")

    def refusing(path: object, at: int | None = None, check: object = None) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), "file")

    monkeypatch.setattr(folders, "remove_tree", refusing)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for _ in range(2):
        assert main(["--root", str(tmp_path / "root"), "gc"]) == 1
        said = capsys.readouterr().err
        assert "some of it is immutable; `chattr -R -f -i -a " in said
        assert "sudo" not in said
    assert "freed 0 B" in said
    monkeypatch.undo()
    assert main(["--root", str(tmp_path / "root"), "gc"]) == 0
    assert "1 interrupted unpack" in capsys.readouterr().err


def test_c36_a_disk_without_inodes_is_not_told_as_full_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The free bytes would mislead."""
    require("os:statvfs")
    free = os.statvfs("/")
    fields = {name: getattr(free, name) for name in dir(free) if name.startswith("f_")}
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**{**fields, "f_files": 9, "f_favail": 0}))
    error = failure("/x", OSError(errno.ENOSPC, "No space left on device"))
    assert "it has no inodes left" in str(error)
    assert "are free" not in str(error)
