"""Several layers unpacked at once, in processes of their own."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from ocidist.errors import Cancelled, LayerError
from ocidist.progress import Advanced, Event, Finished
from ocidist.scope import Scope
from ocidist.snapshots import parallel
from ocidist.snapshots.unpack import LocalApplier
from ocidist.spec.chain import chain_id
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require
from tests.parts.tars import directory, entry, hardlink, layer, symlink
from tests.parts.trees import assert_same, snapshot, whole_tree

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NOISE = [random.Random(number).randbytes(parallel.SMALL + 100_000) for number in range(3)]
LAYERS = [
    layer(
        directory("./", mode=0o755, mtime=3),
        directory("usr", mtime=4),
        directory("usr/lib", mtime=5, mode=0o711),
        symlink("lib", "usr/lib"),
        entry("usr/old", b"o"),
        entry("big-1", NOISE[0]),
    ).getvalue(),
    layer(entry("usr/.wh.old"), entry("usr/lib/so", b"elf"), entry("big-2", NOISE[1])).getvalue(),
    layer(entry("small", b"s"), entry(".wh.big-1")).getvalue(),
    layer(entry("lib/through", b"t"), hardlink("again", "small"), entry("big-3", NOISE[2])).getvalue(),
]


@pytest.fixture(params=["native", "overlay"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A root with the layers' blobs, on what looks like a machine with two cores."""
    require("processes", "kernel", "root")
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    return Store.at(tmp_path / "root", snapshotter=request.param)


def put(store: Store, layers: list[bytes]) -> list[Descriptor]:
    found = []
    for raw in layers:
        data = gzip.compress(raw, 1, mtime=0)
        digest = Digest.of(data)
        with store.ingest(f"put {digest}", total=len(data), expected=digest) as writer:
            writer.write(data)
            writer.commit(len(data), digest)
        found.append(Descriptor(LAYER, digest, len(data)))
    return found


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[parallel.Worker]:
    """The workers that were started."""
    workers: list[parallel.Worker] = []
    start = parallel.Worker.start

    def noting(self: parallel.Worker, *words: object) -> None:
        start(self, *words)  # type: ignore[arg-type]
        workers.append(self)

    monkeypatch.setattr(parallel.Worker, "start", noting)
    return workers


def test_it_comes_to_the_tree_that_one_after_the_other_makes(
    store: Store, started: list[parallel.Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large layers in processes, a small one in its turn, and one again that needs those beneath it."""
    diff_ids = [Digest.of(raw) for raw in LAYERS]
    layers, events = put(store, LAYERS), list[Event]()
    chain = LocalApplier(store.content, store.snapshots).unpack(
        layers, diff_ids, Scope(observer=events.append)
    )
    assert chain == chain_id(diff_ids)
    assert len(started) == 3
    assert not any(worker.running for worker in started)
    finished = [event.digest for event in events if isinstance(event, Finished)]
    assert finished == [target.digest for target in layers]
    for target in layers:
        done = [
            event.done for event in events if isinstance(event, Advanced) and event.digest == target.digest
        ]
        assert done[-1] == target.size
    with whole_tree(store.snapshots, str(chain)) as tree:
        found = snapshot(tree)
    for info in list(store.snapshots.walk())[::-1]:
        store.snapshots.remove(info.key)
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
    assert len(started) == 3
    with whole_tree(store.snapshots, str(chain)) as tree:
        # What no entry describes was made just now.
        assert_same(snapshot(tree), found, ignore={"hardlinks"} if store.snapshots.name == "overlay" else ())
    assert sorted(path for path in found if "/" not in path) == [
        ".", "again", "big-2", "big-3", "lib", "small", "usr"
    ]  # fmt: skip
    assert "usr/lib/through" in found


def test_a_wrong_diff_id_is_told_and_nothing_is_visible(store: Store, started: list[parallel.Worker]) -> None:
    """Of whatever layer."""
    layers = put(store, [LAYERS[0], LAYERS[1]])
    wrong = [Digest.of(LAYERS[0]), Digest.of(b"another")]
    with pytest.raises(LayerError, match="DiffID"):
        LocalApplier(store.content, store.snapshots).unpack(layers, wrong, Scope())
    assert len(started) == 2
    assert [info for info in store.snapshots.walk() if info.kind == "active"] == []
    assert str(chain_id(wrong)) not in [info.key for info in store.snapshots.walk()]
    assert not any(worker.running for worker in started)


def test_a_worker_that_ends_is_done_without(
    store: Store, started: list[parallel.Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, or unable to start Python: the layers are applied here."""
    monkeypatch.setattr(parallel, "_START", "import os; os._exit(9)  # {path}")
    layers, diff_ids = put(store, LAYERS[:2]), [Digest.of(raw) for raw in LAYERS[:2]]
    chain = LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
    assert [worker.failed for worker in started] == ["its process ended"] * 2
    with whole_tree(store.snapshots, str(chain)) as tree:
        assert sorted(os.listdir(tree)) == ["big-1", "big-2", "lib", "usr"]


def test_without_processes_it_is_done_here(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started."""

    def refuse(self: parallel.Worker, *words: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(parallel.Worker, "start", refuse)
    layers, diff_ids = put(store, LAYERS[:2]), [Digest.of(raw) for raw in LAYERS[:2]]
    chain = LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
    with whole_tree(store.snapshots, str(chain)) as tree:
        assert (tree / "big-2").read_bytes() == NOISE[1]


def test_a_cancelled_one_leaves_no_process_and_is_redone(
    store: Store, started: list[parallel.Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is visible; the next one starts afresh."""
    layers, diff_ids = put(store, LAYERS[:2]), [Digest.of(raw) for raw in LAYERS[:2]]
    scope = Scope()
    start = parallel.Worker.start

    def cancelling(self: parallel.Worker, *words: object) -> None:
        start(self, *words)  # type: ignore[arg-type]
        scope.cancel()

    with monkeypatch.context() as patch:
        patch.setattr(parallel.Worker, "start", cancelling)
        with pytest.raises(Cancelled):
            LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, scope)
    assert started
    assert not any(worker.running for worker in started)
    assert [info for info in store.snapshots.walk() if info.kind == "committed"] == []
    chain = LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
    with whole_tree(store.snapshots, str(chain)) as tree:
        assert sorted(os.listdir(tree)) == ["big-1", "big-2", "lib", "usr"]


def test_a_damaged_layer_is_told_as_ever(store: Store) -> None:
    """The error is the one that the layer in its turn gives."""
    bad = LAYERS[1][:-5000]
    layers, diff_ids = put(store, [LAYERS[0], bad]), [Digest.of(LAYERS[0]), Digest.of(bad)]
    with pytest.raises(LayerError, match="big-2"):
        LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
    assert [info for info in store.snapshots.walk() if info.kind == "active"] == []
