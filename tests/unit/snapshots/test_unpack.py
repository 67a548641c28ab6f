"""unpack: every DiffID checked, nothing visible before, one at a time."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ocidist.errors import BlobNotFound, Cancelled, InvalidManifest, LayerError, OcidistError
from ocidist.progress import Advanced, Event, Finished, Waiting
from ocidist.scope import Scope
from ocidist.snapshots.native import NativeSnapshotter
from ocidist.snapshots.unpack import LocalApplier
from ocidist.spec.chain import chain_id
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.tars import directory, entry, layer, symlink

MEDIA = "application/vnd.oci.image.layer.v1.tar+gzip"


class Body(io.BytesIO):
    start = 0
    size = None


class Blobs:
    """A Provider in memory."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.opened: list[Digest] = []
        self.bodies: list[Body] = []

    def add(self, plain: bytes, media_type: str = MEDIA) -> tuple[Descriptor, Digest]:
        data = gzip.compress(plain, mtime=0) if media_type.endswith("gzip") else plain
        digest = Digest.of(data)
        self.blobs[digest] = data
        return Descriptor(media_type, digest, len(data)), Digest.of(plain)

    def info(self, digest: Digest) -> Any:
        raise NotImplementedError

    def file(self, target: Descriptor, scope: Scope) -> None:
        """There are no files."""

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Any:
        self.opened.append(target.digest)
        if target.digest not in self.blobs:
            raise BlobNotFound(target, "not here")
        self.bodies.append(Body(self.blobs[target.digest]))
        return self.bodies[-1]


@pytest.fixture
def image() -> tuple[Blobs, list[Descriptor], list[Digest]]:
    """Three layers; the last one hides a file of the first and goes through a link of the second."""
    blobs = Blobs()
    made = [
        blobs.add(
            layer(
                directory("./", mode=0o711), directory("usr"), directory("usr/lib"), entry("secret", b"s")
            ).getvalue()
        ),
        blobs.add(
            layer(symlink("lib", "usr/lib"), entry("big", b"b" * 3_000_000)).getvalue(),
            "application/vnd.oci.image.layer.v1.tar",
        ),
        blobs.add(layer(entry(".wh.secret"), entry("lib/so", b"elf")).getvalue()),
    ]
    return blobs, [descriptor for descriptor, _ in made], [diff for _, diff in made]


Image = tuple[Blobs, list[Descriptor], list[Digest]]


def test_layers_are_applied_in_order_and_keyed_by_chain_id(tmp_path: Path, image: Image) -> None:
    """The tree, the key, the events, and that wait is asked before each layer is opened."""
    blobs, layers, diff_ids = image
    snapshots, events = NativeSnapshotter(tmp_path), list[Event]()
    waited: list[tuple[Digest, int]] = []
    chain = LocalApplier(blobs, snapshots).unpack(
        layers,
        diff_ids,
        Scope(observer=events.append),
        wait=lambda target: waited.append((target.digest, len(blobs.opened))),
    )
    assert chain == chain_id(diff_ids)
    root = snapshots.path(str(chain))
    assert sorted(os.listdir(root)) == ["big", "lib", "usr"]
    assert (root / "usr/lib/so").read_bytes() == b"elf"
    assert root.stat().st_mode & 0o7777 == 0o711
    assert waited == [(target.digest, number) for number, target in enumerate(layers)]
    assert all(body.closed for body in blobs.bodies)
    for target in layers:
        advanced = [
            event.done for event in events if isinstance(event, Advanced) and event.digest == target.digest
        ]
        assert advanced == sorted(advanced)
        assert advanced[-1] == target.size
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished(target.digest, "unpacked", "unpack") for target in layers
    ]


def test_one_that_exists_is_returned_at_once(tmp_path: Path, image: Image) -> None:
    """No blob is opened, nobody waits; the rows still finish."""
    blobs, layers, diff_ids = image
    snapshots = NativeSnapshotter(tmp_path)
    first = LocalApplier(blobs, snapshots).unpack(layers, diff_ids, Scope())
    blobs.opened.clear()
    events: list[Event] = []
    assert (
        LocalApplier(blobs, snapshots).unpack(
            layers,
            diff_ids,
            Scope(observer=events.append),
            wait=lambda target: pytest.fail("waited"),
        )
        == first
    )
    assert not blobs.opened
    assert len(events) == 3


@pytest.mark.parametrize("number", range(3))
def test_e61_a_wrong_diff_id_leaves_nothing_visible(tmp_path: Path, image: Image, number: int) -> None:
    """In any layer; the message has both digests, and a right config works afterwards."""
    blobs, layers, diff_ids = image
    snapshots = NativeSnapshotter(tmp_path)
    wrong = list(diff_ids)
    wrong[number] = Digest.of(b"something else")
    with pytest.raises(LayerError, match="DiffID") as caught:
        LocalApplier(blobs, snapshots).unpack(layers, wrong, Scope())
    assert caught.value.layer == layers[number].digest
    assert diff_ids[number] in str(caught.value)
    assert list(snapshots.walk()) == []
    LocalApplier(blobs, snapshots).unpack(layers, diff_ids, Scope())


def test_e61_a_failure_in_the_last_layer_leaves_nothing_visible(tmp_path: Path, image: Image) -> None:
    """A missing blob, and an entry that is refused."""
    blobs, layers, diff_ids = image
    snapshots = NativeSnapshotter(tmp_path)
    bad, bad_id = blobs.add(layer(entry("good", b"x"), entry("../out", b"x")).getvalue())
    with pytest.raises(LayerError):
        LocalApplier(blobs, snapshots).unpack([*layers, bad], [*diff_ids, bad_id], Scope())
    del blobs.blobs[layers[2].digest]
    with pytest.raises(BlobNotFound):
        LocalApplier(blobs, snapshots).unpack(layers, diff_ids, Scope())
    assert list(snapshots.walk()) == []


def test_d46_layers_and_diff_ids_that_disagree_in_number(tmp_path: Path, image: Image) -> None:
    """Refused before anything is read or made."""
    blobs, layers, diff_ids = image
    with pytest.raises(InvalidManifest):
        LocalApplier(blobs, NativeSnapshotter(tmp_path / "root")).unpack(layers, diff_ids[:2], Scope())
    with pytest.raises(InvalidManifest):
        LocalApplier(blobs, NativeSnapshotter(tmp_path / "root")).unpack([], [], Scope())
    assert not blobs.opened
    assert os.listdir(tmp_path) == []


def test_threads_that_unpack_one_chain_do_it_once(tmp_path: Path, image: Image) -> None:
    """The others say that they wait, and find it done."""
    blobs, layers, diff_ids = image
    snapshots, waiting = NativeSnapshotter(tmp_path), threading.Event()
    events: list[Event] = []
    results: list[Digest] = []

    def see(event: Event) -> None:
        events.append(event)
        if isinstance(event, Waiting):
            waiting.set()

    def hold(target: Descriptor) -> None:
        if target is layers[-1]:
            assert waiting.wait(20)

    threads = [
        threading.Thread(
            target=lambda: results.append(
                LocalApplier(blobs, snapshots).unpack(layers, diff_ids, Scope(observer=see), wait=hold)
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [chain_id(diff_ids)] * 4
    assert blobs.opened == [target.digest for target in layers]


def test_a_cancelled_scope_ends_an_unpack_soon_and_the_next_one_is_whole(
    tmp_path: Path, image: Image
) -> None:
    """While it waits for another, and while it reads what never comes."""
    blobs, layers, diff_ids = image
    snapshots = NativeSnapshotter(tmp_path)
    scope, release = Scope(), threading.Event()

    class Stalled(Body):
        def readinto(self, buffer: Any) -> int:
            release.wait(20)
            return 0

    original = blobs.open

    def stalling(target: Descriptor, scope: Scope, **options: Any) -> Any:
        return Stalled() if target is layers[1] else original(target, scope, **options)

    blobs.open = stalling  # type: ignore[method-assign]
    ends: list[BaseException] = []

    def work() -> None:
        try:
            LocalApplier(blobs, snapshots).unpack(layers, diff_ids, scope)
        except BaseException as error:  # noqa: BLE001
            ends.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    scope.cancel()
    for thread in threads:
        thread.join(5)
    assert [type(error) for error in ends] == [Cancelled, Cancelled]
    release.set()
    blobs.open = original  # type: ignore[method-assign]
    chain = LocalApplier(blobs, snapshots).unpack(layers, diff_ids, Scope())
    assert [info.key for info in snapshots.walk()] == [chain]


KILLED = """
import os, signal, sys
from pathlib import Path
from ocidist.snapshots.native import NativeSnapshotter
snapshots = NativeSnapshotter(Path(sys.argv[1]))
claim = snapshots.claim(sys.argv[2])
(snapshots.begin(sys.argv[2]) / "half").write_text("x")
print(claim is not None, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_e61_what_a_killed_process_left_is_redone(tmp_path: Path, image: Image) -> None:
    """Its claim ended with it, and its half tree isn't in ours."""
    blobs, layers, diff_ids = image
    key = f"unpack {chain_id(diff_ids)}"
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), key], capture_output=True, check=False
    )
    assert child.stdout == b"True\n", child.stderr
    snapshots = NativeSnapshotter(tmp_path)
    assert [info.kind for info in snapshots.walk()] == ["active"]
    chain = LocalApplier(blobs, snapshots).unpack(layers, diff_ids, Scope())
    assert not (snapshots.path(str(chain)) / "half").exists()
    assert [info.key for info in snapshots.walk()] == [chain]


def test_the_same_without_threads(tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started everything is done by the caller."""
    blobs, layers, diff_ids = image

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    chain = LocalApplier(blobs, NativeSnapshotter(tmp_path)).unpack(layers, diff_ids, Scope())
    assert chain == chain_id(diff_ids)


def test_a_root_that_can_not_be_written_is_one_error(tmp_path: Path, image: Image) -> None:
    """A file where the directory should be."""
    blobs, layers, diff_ids = image
    (tmp_path / "root").write_text("a file")
    with pytest.raises(OcidistError):
        LocalApplier(blobs, NativeSnapshotter(tmp_path / "root")).unpack(layers, diff_ids, Scope())


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_sha512_diff_ids_are_checked_as_such(tmp_path: Path, kind: str) -> None:
    """Alone and among sha256 ones, also where layers are large enough for processes of their own; a wrong one is
    refused."""
    plain = [layer(entry(f"f{at}", os.urandom(1_500_000))).getvalue() for at in range(3)]
    wide = [Digest.of(data, "sha512") for data in plain]
    narrow = [Digest.of(data) for data in plain]
    with Store.at(tmp_path / "root", snapshotter=kind) as store:
        rows = []
        for data in plain:
            with store.ingest("k") as writer:
                writer.write(data)
                digest = writer.commit(len(data), None)
            rows.append(Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(data)))
        for diff_ids in (wide, [narrow[0], wide[1], narrow[2]], wide[:1]):
            chain = LocalApplier(store.content, store.snapshots).unpack(
                rows[: len(diff_ids)], diff_ids, Scope()
            )
            assert chain == chain_id(diff_ids)
            assert store.snapshots.stat(str(chain)).kind == "committed"
        assert chain == wide[0]
        assert (store.snapshots.path(str(chain)) / "f0").stat().st_size == 1_500_000
        with pytest.raises(LayerError, match="DiffID is sha512:"):
            LocalApplier(store.content, store.snapshots).unpack(rows[:2], [wide[0], wide[0]], Scope())
