"""copy_graph: order, deduplication, platforms, failure and interruption, over sources and sinks in memory."""

from __future__ import annotations

import json
import threading
import time

import pytest

from ocidist.content import resume, verify
from ocidist.errors import (
    Cancelled,
    InvalidManifest,
    OcidistError,
    StoreError,
    TransferError,
    TransportError,
)
from ocidist.graph.copy import Slots, copy_graph
from ocidist.progress import Failed, Finished, ProgressState, Queued
from ocidist.remotes.protocols import Source
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform


class Bytes:
    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data, self.at, self.start, self.size = data, offset, offset, len(data)
        self.host = ""

    def readinto(self, buffer: memoryview) -> int:
        part = self.data[self.at : self.at + len(buffer)]
        buffer[: len(part)] = part
        self.at += len(part)
        return len(part)

    def close(self) -> None:
        pass


class Shelf:
    """A source and a sink over a dict; remembers the order of what was pushed and opened."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.opened: list[str] = []
        self.pushed: list[str] = []
        self.lock = threading.Lock()
        self.fail: dict[str, OcidistError] = {}
        self.block: threading.Event | None = None
        self.body = Bytes

    def put(self, data: bytes, media_type: str, platform: Platform | None = None) -> Descriptor:
        target = Descriptor(media_type, Digest.of(data), len(data), platform=platform)
        self.blobs[target.digest] = data
        return target

    host = ""

    def origin(self, target: Descriptor) -> None:
        return None

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        raise NotImplementedError

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Bytes:
        with self.lock:
            self.opened.append(target.digest)
        if target.digest in self.fail:
            raise self.fail[target.digest]
        while self.block is not None and not self.block.wait(0.02):
            scope.check()
        return self.body(self.blobs[target.digest], offset)

    def exists(self, target: Descriptor, scope: Scope) -> bool:
        return target.digest in self.blobs

    def push(self, target: Descriptor, source: Source, scope: Scope) -> None:
        data = target.data or verify.read_all(source.open(target, scope), target, 1 << 20)
        with self.lock:
            self.blobs[target.digest] = data
            self.pushed.append(target.digest)
        scope.emit(Finished(target.digest, "copied"))

    def tag(self, name: str, target: Descriptor, scope: Scope) -> None:
        raise NotImplementedError

    def finalize(self, scope: Scope) -> None:
        raise NotImplementedError


class Sink(Shelf):
    """A sink that can't be read, as most are."""

    open = None  # type: ignore[assignment]


def entry(target: Descriptor) -> dict[str, object]:
    made: dict[str, object] = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
    if target.platform is not None:
        made["platform"] = {"os": target.platform.os, "architecture": target.platform.architecture}
    return made


def image(shelf: Shelf, *layers: bytes, arch: str = "amd64") -> Descriptor:
    config = shelf.put(json.dumps({"architecture": arch, "os": "linux"}).encode(), mediatype.OCI_CONFIG)
    body = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": entry(config),
        "layers": [entry(shelf.put(layer, mediatype.OCI_LAYER)) for layer in layers],
    }
    return shelf.put(json.dumps(body).encode(), mediatype.OCI_MANIFEST, Platform("linux", arch))


def index(shelf: Shelf, *images: Descriptor) -> Descriptor:
    body = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [entry(i) for i in images]}
    return shelf.put(json.dumps(body).encode(), mediatype.OCI_INDEX)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_children_come_before_parents_and_each_digest_moves_once(workers: int) -> None:
    """A shared layer is opened once; a manifest is pushed after its config and layers, the index last."""
    source, sink = Shelf(), Sink()
    one = image(source, b"shared", b"one")
    two = image(source, b"shared", b"two", arch="arm64")
    root = index(source, one, two)
    copy_graph(source, sink, root, Scope(), platform="all", workers=workers)
    assert sink.blobs == source.blobs
    assert len(sink.pushed) == len(set(sink.pushed)) == len(source.blobs)
    assert len(source.opened) == len(set(source.opened))
    order = sink.pushed.index
    assert order(root.digest) == len(sink.pushed) - 1
    for manifest in (one, two):
        for child in json.loads(source.blobs[manifest.digest])["layers"]:
            assert order(child["digest"]) < order(manifest.digest)


def test_one_platform_of_an_index_is_copied_with_the_index() -> None:
    """The index itself and the chosen image come; nothing of another platform does."""
    source, sink = Shelf(), Sink()
    one, two = image(source, b"one"), image(source, b"two", arch="arm64")
    root = index(source, one, two)
    copy_graph(source, sink, root, Scope(), platform=Platform("linux", "arm64"))
    assert root.digest in sink.blobs
    assert two.digest in sink.blobs
    assert one.digest not in sink.blobs


def test_what_the_sink_has_is_not_moved_again_but_its_children_are_looked_at() -> None:
    """A manifest that is there alone does not stand for its layers."""
    source, sink = Shelf(), Sink()
    root = image(source, b"one", b"two")
    sink.blobs[root.digest] = source.blobs[root.digest]
    copy_graph(source, sink, root, Scope())
    assert sink.blobs == source.blobs
    assert root.digest not in sink.pushed


@pytest.mark.parametrize("workers", [0, 4])
def test_a_failure_names_the_side_and_the_object_and_chains_its_cause(workers: int) -> None:
    """The parent of what failed is not pushed; the error says which side and what."""
    source, sink = Shelf(), Sink()
    root = image(source, b"one", b"two")
    bad = Digest.of(b"two")
    source.fail[bad] = TransportError("registry.example", "connection reset")
    events: list[object] = []
    with pytest.raises(TransferError) as caught:
        copy_graph(source, sink, root, Scope(observer=events.append), workers=workers)
    assert caught.value.side == "source"
    assert caught.value.descriptor.digest == bad  # type: ignore[union-attr]
    assert isinstance(caught.value.__cause__, TransportError)
    assert root.digest not in sink.blobs
    assert any(isinstance(event, Failed) and event.digest == bad for event in events)


def test_the_destination_is_named_where_it_failed() -> None:
    """A sink that can't write is the destination, not the source."""

    class Full(Sink):
        def push(self, target: Descriptor, source: object, scope: Scope, **_: object) -> None:
            raise OcidistError("no space left")

    source = Shelf()
    with pytest.raises(TransferError) as caught:
        copy_graph(source, Full(), image(source, b"one"), Scope())
    assert caught.value.side == "destination"


def test_the_destination_is_named_where_the_source_had_recovered() -> None:
    """A cut that was made good is not why the disk is full."""

    class Cut(Bytes):
        left = 1

        def readinto(self, buffer: memoryview) -> int:
            if type(self).left and b"layers" not in self.data:
                type(self).left = 0
                raise TransportError("registry.example", "the connection was reset", kind="cut")
            return super().readinto(buffer)

    class Full(Sink):
        def push(self, target: Descriptor, source: Source, scope: Scope) -> None:
            if target.data is None:
                resume.read(source, target, 1 << 20, scope)
            raise StoreError("/root", "no space left")

    source = Shelf()
    source.body = Cut
    with pytest.raises(TransferError) as caught:
        copy_graph(source, Full(), image(source, b"one"), Scope(replayed=True), workers=0)
    assert Cut.left == 0
    assert caught.value.side == "destination"


def test_wrong_bytes_are_the_sources_fault_and_their_digest_is_said_once() -> None:
    """The destination only found it out."""
    source = Shelf()
    root = image(source, b"one")
    bad = Digest.of(b"one")
    source.blobs[bad] = b"eno"
    with pytest.raises(TransferError) as caught:
        copy_graph(source, Sink(), root, Scope())
    assert (caught.value.side, str(caught.value).count(bad)) == ("source", 1)
    assert f"hash to {Digest.of(b'eno')}" in str(caught.value)


def test_cancelling_ends_waiting_workers_at_once() -> None:
    """A copy whose source hangs ends with the scope, from another thread."""
    source, sink = Shelf(), Sink()
    root = image(source, b"one")
    source.block = threading.Event()
    scope = Scope()
    threading.Timer(0.1, scope.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        copy_graph(source, sink, root, scope)
    assert time.monotonic() - begun < 5
    assert not sink.pushed


def test_an_index_with_a_lying_digest_can_not_make_a_circle() -> None:
    """An index that claims to contain itself is refused rather than walked forever."""
    source = Shelf()
    fake = Digest("sha256:" + "a" * 64)
    body = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [{"mediaType": mediatype.OCI_INDEX, "digest": fake, "size": 10}],
    }
    raw = json.dumps(body).encode()
    target = Descriptor(mediatype.OCI_INDEX, fake, len(raw))
    with pytest.raises((InvalidManifest, TransferError)):
        copy_graph(source, Sink(), target, Scope(), root_bytes=raw, platform="all")


def test_d46_indices_nested_too_deep_are_refused() -> None:
    """A thousand indices in one another end in a named error, not in recursion."""
    source = Shelf()
    root = image(source, b"one")
    for _ in range(1000):
        root = index(source, root)
    with pytest.raises(TransferError, match="nested"):
        copy_graph(source, Sink(), root, Scope(), platform="all")


def test_events_add_up_in_the_reducer() -> None:
    """What the observer saw, reduced, accounts for every byte and every object."""
    source, sink = Shelf(), Sink()
    root = image(source, b"x" * 1000, b"y" * 500)
    state, lock = ProgressState(), threading.Lock()
    queued: list[Digest] = []

    def observe(event: object) -> None:
        nonlocal state
        with lock:
            state = state.apply(event)  # type: ignore[arg-type]
            if isinstance(event, Queued):
                queued.append(event.descriptor.digest)

    copy_graph(source, sink, root, Scope(observer=observe))
    assert len(queued) == len(set(queued)) == 4
    assert state.done == state.total == sum(map(len, source.blobs.values()))
    assert {row.status for row in state.rows.values()} == {"fetched"}


def test_copies_that_share_slots_never_move_more_at_once_than_there_are() -> None:
    """Two copies with four workers each and two slots between them open two objects at a time, no more."""
    source, slots = Shelf(), Slots(2)
    lock, at_once, most = threading.Lock(), 0, 0

    class Counting(Bytes):
        def readinto(self, buffer: memoryview) -> int:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.005)
            with lock:
                at_once -= 1
            return super().readinto(buffer)

    source.body = Counting
    roots = [image(source, *(bytes([n]) * (10 + i) for i in range(6))) for n in (1, 2)]
    sinks = [Sink(), Sink()]
    failures: list[BaseException] = []

    def run(root: Descriptor, sink: Sink) -> None:
        try:
            copy_graph(source, sink, root, Scope(), workers=4, slots=slots)
        except BaseException as error:  # noqa: BLE001 - carried to the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(roots, sinks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert all(root.digest in sink.blobs for root, sink in zip(roots, sinks, strict=True))
    assert most == 2


def test_waiting_for_a_slot_ends_with_the_scope() -> None:
    """A copy that gets no slot is cancelled like any other."""
    source, slots, scope = Shelf(), Slots(1), Scope()
    with slots.one(scope):
        threading.Timer(0.1, scope.cancel).start()
        with pytest.raises(Cancelled):
            copy_graph(source, Sink(), image(source, b"one"), scope, slots=slots)
