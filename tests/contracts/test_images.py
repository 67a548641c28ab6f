"""The contracts of Images and Leases, run on every implementation."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Callable

import pytest

from ocidist.images.connection import DatabaseFile
from ocidist.images.leases import SqliteLeases
from ocidist.images.protocols import LEASED, ImageRecord, Images, Leases, lease_of
from ocidist.images.sqlite import SqliteImages
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.memory_store import MemoryImages, MemoryLeases
from tests.parts.required import require

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
A = Descriptor(MANIFEST, Digest.of(b"a"), 1, annotations={"k": "v"})
B = Descriptor(MANIFEST, Digest.of(b"b"), 2)
SOURCE = "containerd.io/distribution.source.docker.io"

IMAGES: dict[str, Callable[[Path], Images]] = {
    "sqlite": lambda folder: SqliteImages(DatabaseFile(folder / "meta.db")),
    "memory": lambda folder: MemoryImages(),
}
LEASES: dict[str, Callable[[Path], Leases]] = {
    "sqlite": lambda folder: SqliteLeases(DatabaseFile(folder / "meta.db")),
    "memory": lambda folder: MemoryLeases(),
}


@pytest.fixture(params=list(IMAGES))
def images(request: pytest.FixtureRequest, tmp_path: Path) -> Images:
    """No names."""
    return IMAGES[request.param](tmp_path)


@pytest.fixture(params=list(LEASES))
def leases(request: pytest.FixtureRequest, tmp_path: Path) -> Leases:
    """No leases and no labels."""
    return LEASES[request.param](tmp_path)


def test_a_name_stands_for_what_was_put_last(images: Images) -> None:
    """Its labels and the first time stay when it moves; deleted, it is unknown."""
    assert (images.get("a"), images.has("a"), images.all(), images.problems()) == (None, False, ([], []), [])
    images.put("b", A, {"owner": "me"})
    images.put("a", B)
    first = images.get("b")
    assert first is not None
    assert (first.target, first.target.annotations, first.labels) == (A, {"k": "v"}, {"owner": "me"})
    images.put("b", B)
    second = images.within(Scope()).get("b")
    assert second is not None
    assert (second.target, second.labels, second.created_at) == (B, {"owner": "me"}, first.created_at)
    assert [record.name for record in images.all()[0]] == ["a", "b"]
    assert [record.name for record in images.of(B.digest)] == ["a", "b"]
    assert images.of(A.digest) == []
    assert (images.delete("b"), images.delete("b"), images.has("b"), images.has("a")) == (
        True,
        False,
        False,
        True,
    )


def test_labels_are_made_of_the_record_there_is(images: Images) -> None:
    """None leaves it as it is; an error leaves it too."""
    seen: list[ImageRecord | None] = []

    def revise(old: ImageRecord | None) -> dict[str, str] | None:
        seen.append(old)
        return {"n": str(len(seen))} if len(seen) < 3 else None

    for target in (A, B, A):
        images.put("a", target, revise=revise)
    assert [None if old is None else (old.target, old.labels) for old in seen] == [
        None,
        (A, {"n": "1"}),
        (B, {"n": "2"}),
    ]

    def refuse(old: ImageRecord | None) -> dict[str, str] | None:
        raise KeyError

    with pytest.raises(KeyError):
        images.put("a", A, revise=refuse)
    found = images.get("a")
    assert found is not None
    assert (found.target, found.labels) == (B, {"n": "2"})


def test_what_was_put_is_younger_than_the_place(images: Images) -> None:
    """So nothing of it is taken for unknown."""
    images.put("a", A)
    assert images.since() <= time.time()


def test_labels_of_blobs(leases: Leases) -> None:
    """Set, changed, removed by None or nothing; found by their beginning, taken literally."""
    assert leases.set_labels(A.digest, {"x": "1", "y": "2"}) == {"x": "1", "y": "2"}
    assert leases.set_labels(A.digest, {"x": None, "y": "3", "z": ""}) == {"y": "3"}
    leases.set_labels(B.digest, {"a_b": "1", "aXb": "2"})
    assert leases.labeled("a_") == [(str(B.digest), "a_b", "1")]
    leases.forget([A.digest])
    assert leases.labels(A.digest) == {}
    assert leases.labels(B.digest) == {"a_b": "1", "aXb": "2"}


def test_a_hold_has_lease_resources_and_labels_at_once(leases: Leases) -> None:
    """Sources of a blob add up; a lease is never shortened; what is forgotten is held no longer."""
    now = time.time()
    leases.hold("l", now + 9000, [("content", str(A.digest))], {SOURCE: "library/b"})
    leases.hold("l", now + 8000, [("content", str(B.digest)), ("snapshot", "s")])
    leases.hold("m", now + 9000, [("content", str(A.digest))], {SOURCE: "library/a"})
    leases.hold("m", now + 9000, [("content", str(A.digest))], {SOURCE: "library/b"})
    held = {lease.id: lease for lease in leases.all()}
    assert held["l"].expires_at == now + 9000
    assert held["l"].resources == {
        ("content", str(A.digest)),
        ("content", str(B.digest)),
        ("snapshot", "s"),
    }
    assert leases.labels(A.digest) == {SOURCE: "library/a,library/b"}
    leases.forget([B.digest])
    assert ("content", str(B.digest)) not in {lease.id: lease for lease in leases.all()}["l"].resources
    leases.delete(["l", "unknown"])
    assert [lease.id for lease in leases.all()] == ["m"]
    leases.create("n", now + 5)
    leases.create("n", now + 3)
    assert {lease.id: lease.expires_at for lease in leases.all()}["n"] == now + 5


def test_a_lease_is_in_use_while_its_block_runs(leases: Leases) -> None:
    """That of what has no name, of whichever hour, too; by several at once."""
    unnamed = lease_of(None)[0]
    for id_ in (f"{LEASED}1", unnamed):
        assert not leases.in_use(id_)
        with leases.using(id_):
            assert leases.in_use(id_)
            leases.sweep()
            assert leases.in_use(id_)
        assert not leases.in_use(id_)
    assert lease_of(Scope(lease="mine"))[0] == "mine"


@pytest.mark.parametrize("looking", [False, True])
def test_c38_who_is_alone_keeps_out_who_adds(leases: Leases, looking: bool) -> None:
    """Until the block ends; what was added before is seen."""
    require("threads", "kernel")
    with leases.adding():
        leases.hold("l", time.time() + 9000, [("content", str(A.digest))])
    entered = threading.Event()

    def add() -> None:
        with leases.adding():
            entered.set()

    adding = threading.Thread(target=add)
    with leases.alone(looking=looking):
        adding.start()
        assert not entered.wait(0.2)
        assert [lease.id for lease in leases.all()] == ["l"]
    adding.join(10)
    assert entered.is_set()
