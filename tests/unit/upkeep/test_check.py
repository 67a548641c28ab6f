"""check finds every kind of damage, nothing in a whole store, and repair brings again what can be had."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.content.verify import MemoryBody
from ocidist.net.replay import load_demo
from ocidist.progress import Event, Failed, Finished, ProgressState
from ocidist.remotes.protocols import Remote
from ocidist.repair import repair
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from ocidist.stores.upkeep.check import DamageRow, check
from tests.parts.images import small_image
from tests.parts.required import require
from tests.parts.sources import MemorySource
from tests.unit.upkeep.damages import DAMAGES, DEMO, REPAIRABLE, flip, folder, gone, link, named

REPOSITORY = "registry.example/demo/shop"
CHILDREN = "containerd.io/gc.ref.content.0"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """With the demo image in its store."""
    client = Client(store=tmp_path / "root", transport=load_demo(), platform="linux/amd64")
    client.pull(DEMO)
    return client


def layer(client: Client) -> Digest:
    return client.open(f"store:{DEMO}").manifest.layers[0].digest


def test_a_whole_store_is_well(client: Client) -> None:
    """No rows; every blob is told as checked, and the bytes are those of the blobs."""
    events: list[Event] = []
    store = client.store
    report = check(store, Scope(observer=events.append))
    assert list(report.rows) == []
    assert (report.blobs, report.bytes) == (len(store.blobs), sum(store.blobs["size"]))
    done = [event for event in events if isinstance(event, Finished)]
    assert {event.digest for event in done} == set(store.blobs["digest"])
    state = ProgressState()
    for event in events:
        state = state.apply(event)
    assert {row.status for row in state.rows.values()} == {"checked"}
    assert (state.done, state.total, state.error) == (report.bytes, report.bytes, "")


def test_an_empty_root_and_one_that_is_not_there(tmp_path: Path) -> None:
    """Hold nothing that could be damaged, and stay as they are."""
    for root in (tmp_path, tmp_path / "absent"):
        with Store.at(root) as store:
            assert list(store.check()) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", ["index", "manifest", "config", "layer"])
@pytest.mark.parametrize("damage", DAMAGES, ids=named)
def test_c39_a_damaged_blob_is_reported(client: Client, damage: Callable[[Path], None], part: str) -> None:
    """Under its digest, with what is wrong, the image that is not whole, and where it can be had again."""
    if damage is link:
        require("os:symlink")
    image = client.open(f"store:{DEMO}")
    assert image.manifest.config is not None
    digest = {
        "index": image.descriptor.digest,
        "manifest": image.manifest.descriptor().digest,
        "config": image.manifest.config.digest,
        "layer": image.manifest.layers[0].digest,
    }[part]
    store = client.store
    damage(store.content.path(digest))
    events: list[Event] = []
    rows = store.check(Scope(observer=events.append))
    if (part, damage) == ("manifest", gone):  # an index may name images that are not here, but not only such
        [row] = rows
        assert (row.kind, row.name) == ("image", DEMO)
        assert row.problem == f"none of the images that its index {image.descriptor.digest} names is here"
        return
    [row] = rows
    assert (row.kind, row.name, row.sources) == ("blob", str(digest), (REPOSITORY,))
    # A damaged index or manifest hides what is below it, but itself is named from above.
    assert row.images == (DEMO,)
    assert re.fullmatch(DAMAGES[damage], row.problem)
    failed = [event.digest for event in events if isinstance(event, Failed)]
    assert failed == ([] if damage is gone else [digest])


@pytest.mark.parametrize("damage", REPAIRABLE, ids=named)
def test_repair_fetches_each_layer_again(client: Client, damage: Callable[[Path], None]) -> None:
    """From the label's repository; after it the store is well, and what links led to is as it was."""
    if damage is link:
        require("os:symlink")
    store = client.store
    layers = [item.digest for item in client.open(f"store:{DEMO}").manifest.layers][:2]
    paths = [store.content.path(digest) for digest in layers]
    before = [path.read_bytes() for path in paths]
    damage(paths[0])
    if damage is not link:  # one place to move to is enough
        damage(paths[1])
    rows = repair(client, store.check(), Scope())
    wanted = layers if damage is not link else layers[:1]
    assert {(row.name, row.repaired, row.outcome) for row in rows} == {
        (str(digest), True, f"fetched from {REPOSITORY}") for digest in wanted
    }
    assert list(store.check()) == []
    assert [path.read_bytes() for path in paths] == before
    assert all(not path.is_symlink() for path in paths)
    elsewhere = paths[0].parent.parent.parent / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == before[0]
    assert list(store.active) == []


def test_repair_brings_what_a_damaged_index_hid(client: Client) -> None:
    """The index, then the manifest that it names, then that one's layer: all were damaged or missing."""
    store = client.store
    image = client.open(f"store:{DEMO}")
    manifest = image.manifest.descriptor().digest
    flip(store.content.path(image.descriptor.digest))
    flip(store.content.path(manifest))
    gone(store.content.path(image.manifest.layers[0].digest))
    found = store.check()
    assert {row.name for row in found} == {str(image.descriptor.digest), str(manifest)}
    rows = repair(client, found, Scope())
    assert [row.repaired for row in rows] == [True] * 3
    assert list(store.check()) == []


def test_repair_says_what_it_can_not_do(client: Client) -> None:
    """A blob of unknown origin, a stranger, a directory in a blob's place; each stays as it was."""
    store = client.store
    with store.ingest("mine") as writer:
        writer.write(b"made here")
        mine = writer.commit(9, None)
    flip(store.content.path(mine))
    damaged = store.content.path(mine).read_bytes()
    place = store.content.path(layer(client))
    folder(place)
    (place / "inside").write_text("kept")
    (place.parent / "stranger").write_text("kept")
    rows = {row.name: row for row in repair(client, store.check(), Scope())}
    assert not any(row.repaired for row in rows.values())
    assert rows[str(mine)].outcome == "where it came from is not known: pull an image that has it"
    assert rows[str(layer(client))].outcome.endswith("a directory lies in its place; move it away")
    assert "move it away" in rows[os.path.join("blobs", "sha256", "stranger")].outcome
    assert store.content.path(mine).read_bytes() == damaged
    assert (place / "inside").read_text() == (place.parent / "stranger").read_text() == "kept"


def test_repair_believes_no_source(client: Client) -> None:
    """What a registry sends for a digest is hashed before it takes the damaged one's place."""
    store, digest = client.store, layer(client)
    path = store.content.path(digest)
    flip(path)
    damaged = path.read_bytes()
    [row] = store.check()

    class Liar(MemorySource):
        def open(self, *_: object, **__: object) -> Any:
            return MemoryBody(damaged)

    class Lied(Client):
        def remote(self, *_: object) -> Remote:
            return Remote("", source=Liar(small_image()))

    lied = Lied(store=store)
    [done] = repair(lied, [row], Scope())
    assert not done.repaired
    assert "hash to" in done.outcome
    assert path.read_bytes() == damaged


def test_c40_stray_names_are_reported(client: Client) -> None:
    """In blobs/, in an algorithm's folder, in ingest/; what an ingest under way has is none."""
    store = client.store
    content = store.root / "content"
    (content / "blobs/sha256" / ("0" * 63)).write_bytes(b"")
    (content / "blobs/md5").mkdir()
    (content / "blobs/note").write_text("")
    with store.ingest("under way") as writer:
        writer.write(b"abc")
    (content / "ingest/file").write_text("")
    (content / "ingest/folder").mkdir()
    rows = store.check()
    assert {row.kind for row in rows} == {"stray"}
    wanted = {f"blobs/sha256/{'0' * 63}", "blobs/md5", "blobs/note", "ingest/file", "ingest/folder"}
    assert {Path(row.name).as_posix() for row in rows} == wanted


def test_names_that_stand_for_what_is_not_here(client: Client) -> None:
    """Each image is told; a name that is forgotten is not."""
    store = client.store
    absent = Digest.of(b"absent")
    target = Descriptor("application/vnd.oci.image.manifest.v1+json", absent, 6)
    store.names.put("registry.example/a:1", target)
    store.names.put("registry.example/b:1", target)
    [row] = store.check()
    assert (row.kind, row.name, row.problem) == ("blob", str(absent), "missing")
    assert row.images == ("registry.example/a:1", "registry.example/b:1")
    store.remove_image("registry.example/a:1")
    store.remove_image("registry.example/b:1")
    assert list(store.check()) == []


def test_a_descriptor_with_another_size_than_the_whole_blob(client: Client) -> None:
    """Is the image's fault, not the blob's."""
    store = client.store
    digest = layer(client)
    size = store.content.info(digest).size
    store.names.put("registry.example/a:1", Descriptor("application/octet-stream", digest, size + 1))
    [row] = store.check()
    assert (row.kind, row.name) == ("image", "registry.example/a:1")
    assert row.problem == f"{digest} is whole with {size} bytes, but its descriptor says {size + 1}"


def test_a_manifest_that_can_not_be_read(client: Client) -> None:
    """Whole by its digest, and yet no manifest."""
    store = client.store
    with store.ingest("k") as writer:
        writer.write(b"[]")
        digest = writer.commit(2, None)
    store.names.put("x/y:1", Descriptor("application/vnd.oci.image.manifest.v1+json", digest, 2))
    [row] = store.check()
    assert (row.kind, row.name) == ("image", "x/y:1")
    assert row.problem.startswith(f"its manifest {digest} can't be read: ")


def test_labels_that_point_to_what_is_not_here(client: Client) -> None:
    """The missing blob is told, with the label; what a label of a missing blob says is nobody's loss."""
    store = client.store
    absent = Digest.of(b"absent")
    store.set_labels(layer(client), {CHILDREN: str(absent)})
    store.leases.set_labels(Digest.of(b"another"), {CHILDREN: str(Digest.of(b"third"))})
    [row] = store.check()
    assert (row.kind, row.name, row.images) == ("blob", str(absent), ())
    assert row.problem == f"missing; the label {CHILDREN} of {layer(client)} points to it"


def test_snapshots_without_tree_or_parent(client: Client) -> None:
    """And one that a config says is unpacked. Each is unpacked again, though a layer has to be fetched for it."""
    store = client.store
    [info] = store.snapshots.walk()

    def broken(problem: str) -> None:
        [row] = store.check()
        assert (row.kind, row.name) == ("snapshot", info.key)
        assert row.problem.startswith(problem)
        gone(store.content.path(layer(client)))
        rows = repair(client, store.check(), Scope())
        assert [(row.kind, row.repaired, row.outcome) for row in rows] == [
            ("blob", True, f"fetched from {REPOSITORY}"),
            ("snapshot", True, f"unpacked again, from {DEMO}"),
        ]
        assert list(store.check()) == []
        assert os.listdir(store.snapshots.path(info.key))

    shutil.rmtree(store.snapshots.path(info.key))
    broken("its tree is missing")
    store.snapshots.remove(info.key)
    broken("missing, but the config sha256:")
    record = store.snapshots.path(info.key).parent / "info"
    record.write_text(json.dumps({**json.loads(record.read_text()), "parent": "sha256:" + "0" * 64}))
    broken(f"its parent sha256:{'0' * 64} is missing")


def test_a_tree_of_no_image_is_not_made_again(client: Client) -> None:
    """Its image was forgotten: the row says what to do, and nothing is removed."""
    store = client.store
    [info] = store.snapshots.walk()
    store.remove_image(DEMO)
    shutil.rmtree(store.snapshots.path(info.key))
    [row] = repair(client, store.check(), Scope())
    assert (row.kind, row.repaired) == ("snapshot", False)
    assert row.outcome == "no image of the store has this tree: pull one that does"
    assert [found.key for found in store.snapshots.walk()] == [info.key]


def test_a_damaged_database_does_not_hide_damaged_blobs(client: Client) -> None:
    """Both are told, though no name can be read."""
    store, digest = client.store, layer(client)
    flip(store.content.path(digest))
    store.close()
    Path(store.names.place).write_bytes(b"no database" * 1000)
    kinds = {row.kind: row for row in store.check()}
    assert set(kinds) == {"database", "blob"}
    assert "move the file away" in kinds["database"].problem
    assert kinds["blob"].name == str(digest)


def test_what_another_deletes_meanwhile_is_no_damage(client: Client) -> None:
    """A blob that goes, with its name, while the check runs."""
    store = client.store

    def observe(event: Event) -> None:
        if isinstance(event, Finished):
            store.remove_image(DEMO)
            store.gc(Scope(), everything=True)

    assert list(store.check(Scope(observer=observe))) == []
    assert list(store.blobs) == []


def test_the_command(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0 and one line where all is well; 1 with the rows where not; --repair mends and says so."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = [
        "--root",
        str(client.store.root),
        "--cassette",
        "demo",
        "--progress",
        "none",
        "--format",
        "json",
    ]
    assert main([*options, "check"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert err == "ocidist: 9 blobs (18.5 kB): all is well\n"
    flip(client.store.content.path(layer(client)))
    assert main([*options, "check"]) == 1
    out, err = capsys.readouterr()
    [row] = json.loads(out)
    assert (row["kind"], row["name"], row["sources"]) == ("blob", str(layer(client)), [REPOSITORY])
    assert "check --repair" in err
    assert main([*options, "check", "--repair"]) == 0
    out, err = capsys.readouterr()
    assert [(row["repaired"], row["outcome"]) for row in json.loads(out)] == [
        (True, f"fetched from {REPOSITORY}")
    ]
    assert main([*options, "check"]) == 0


def test_rows_show_in_a_notebook(client: Client) -> None:
    """As every listing does; a row survives pickle."""
    import pickle

    flip(client.store.content.path(layer(client)))
    rows = client.store.check()
    assert rows[0].problem in rows._repr_html_()
    assert pickle.loads(pickle.dumps(rows)) == rows
    assert isinstance(rows[0], DamageRow)
