"""What many processes on one store have shown to go wrong, one interleaving each, made to happen."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.content.lock import FileLock, Gate, is_held
from ocidist.errors import BlobNotFound, DeadlineExceeded, Locked
from ocidist.images.connection import DatabaseFile
from ocidist.images.leases import SqliteLeases
from ocidist.remotes.protocols import Origin
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require

RAW = b"some layer"
TARGET = Descriptor("application/octet-stream", Digest.of(RAW), len(RAW))
FOLLOWS = "containerd.io/gc.ref.content.0"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.at(tmp_path / "root") as made:
        yield made


def put(store: Store, raw: bytes = RAW, lease: str | None = None) -> Digest:
    with Scope(lease=lease) as scope:
        writer = store.content.within(scope).writer("k", total=len(raw))
        with writer:
            writer.write(raw)
            return writer.commit(len(raw), None)


class Source:
    """Has the one blob."""

    host = ""

    def origin(self, target: Descriptor) -> Origin | None:
        return None

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        return TARGET, RAW

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Any:
        from ocidist.content.verify import MemoryBody

        return MemoryBody(RAW, offset)


def test_c38_what_another_brought_and_the_collector_took_is_brought_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look that finds a blob here and the hold on it, it goes."""
    put(store)
    hold = type(store.content).hold

    def late(self: Any, *arguments: Any) -> bool:
        monkeypatch.setattr(type(store.content), "hold", hold)
        store.gc(Scope(), everything=True)
        return bool(hold(self, *arguments))

    monkeypatch.setattr(type(store.content), "hold", late)
    store.push(TARGET, Source(), Scope())
    assert store.content.has(TARGET.digest)
    assert store.gc(Scope()).blobs == ()


def test_c38_a_blob_that_goes_over_from_one_lease_to_another_is_always_held(store: Store) -> None:
    """Whoever lists the leases sees it in the one or in the other, or in both."""
    digest = put(store, lease="old")

    class Interrupted(SqliteLeases):
        def read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
            rows = super().read(statement, *values)
            store.leases.hold("new", time.time() + 9000, [("content", str(digest))])
            store.leases.delete(["old"])
            return rows

    reader = Interrupted(DatabaseFile(store.names.place))
    assert ("content", str(digest)) in {held for lease in reader.all() for held in lease.resources}
    reader.file.close()
    assert [lease.id for lease in store.leases.all()] == ["new"]


def test_c38_what_is_brought_while_another_deletes_it_stays_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delete forgets labels and leases before anybody can commit the blob anew."""
    put(store)
    forget, seen = store.leases.forget, []

    def watched(*arguments: Any) -> None:
        seen.append(is_held(str(store.root / "gc.lock")))
        forget(*arguments)

    monkeypatch.setattr(store.leases, "forget", watched)
    store.delete_blob(TARGET.digest)
    assert seen == [True]
    with pytest.raises(BlobNotFound):
        store.delete_blob(TARGET.digest)


def test_c38_the_collector_looks_at_a_lock_just_as_it_is_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease, or an ingest, whose lock it holds for a moment, gets it all the same; another writer's it does not."""
    acquire, refused = FileLock.acquire, []

    def probed(self: FileLock) -> bool:
        if self.path not in refused:
            refused.append(self.path)
            return False
        return acquire(self)

    monkeypatch.setattr(FileLock, "acquire", probed)
    with store.lease() as lease:
        assert is_held(str(store.root / "leases" / lease))
    with store.ingest("k"):
        assert len(refused) == 2
        with pytest.raises(Locked):
            store.ingest("k")


def test_c38_locks_that_killed_pulls_left_are_swept(store: Store) -> None:
    """Those without a lease as well, but not those that are held."""
    put(store)
    (store.root / "leases").mkdir()
    (store.root / "leases" / "lease-left").write_bytes(b"")
    with store.lease() as lease:
        store.gc(Scope())
        assert os.listdir(store.root / "leases") == [lease]
    store.gc(Scope())
    assert os.listdir(store.root / "leases") == []


def test_c38_labels_that_a_killed_collector_left_are_forgotten(store: Store) -> None:
    """Of a blob that is gone; but not of one that is held, or here."""
    here = put(store)
    held, gone = Digest.of(b"held"), Digest.of(b"gone")
    store.leases.hold("mine", time.time() + 9000, [("content", str(held))])
    for digest in (here, held, gone):
        store.leases.set_labels(digest, {FOLLOWS: str(here)})
    store.gc(Scope(), dry_run=True)
    assert store.leases.labels(gone)
    store.gc(Scope())
    assert store.leases.labels(gone) == {}
    assert store.leases.labels(held) == store.leases.labels(here) == {FOLLOWS: str(here)}


def test_c38_who_waits_to_be_alone_is_not_overtaken(tmp_path: Path) -> None:
    """With one inside and one waiting to be alone, nobody else gets in before; then all do."""
    require("threads", "kernel")
    gate, order = Gate(str(tmp_path / "gate")), []

    def alone() -> None:
        with gate.exclusive():
            order.append("alone")

    with gate.shared():
        waiting = threading.Thread(target=alone)
        waiting.start()
        while not is_held(gate.queue):
            time.sleep(0.001)
        with pytest.raises(DeadlineExceeded), Scope.within(0.05) as scope, gate.shared(scope):
            order.append("overtook")
    waiting.join(60)
    with gate.shared(), gate.shared():
        order.append("together")
    assert order == ["alone", "together"]
