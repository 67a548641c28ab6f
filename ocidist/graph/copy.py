"""The single mover: :func:`copy_graph` walks a graph of descriptors from a source to a sink.

Pull, fetch, copy, import and push are this walk with other ends. What it holds to:

* a child is at the sink before any parent that names it, so that a sink never has half an image by name;
* what the sink has is not moved again, but its children are still looked at: a manifest that someone
  ingested alone does not stand for its layers;
* each digest moves once, however many parents name it;
* the calling thread waits, ticks and can be interrupted; workers are daemons, and a failure of one ends
  its siblings, each keeping what it wrote.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Callable, Iterator, Literal, Sequence, Union

from ocidist.content import resume
from ocidist.content.protocols import Body
from ocidist.errors import (
    Cancelled,
    ContentError,
    DeadlineExceeded,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    OcidistError,
    PlatformNotFound,
    SizeMismatch,
    TransferError,
)
from ocidist.progress import Failed, Finished, Queued
from ocidist.remotes.protocols import Sink, Source
from ocidist.scope import POLL, Scope
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.document import MAX_SIZE
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.platform import Platform, fits, is_image, select

__all__ = ["DEFAULT_WORKERS", "MAX_DEPTH", "Slots", "Watcher", "copy_graph", "pick", "read_small"]

DEFAULT_WORKERS = 4
MAX_DEPTH = 16  # of indices in indices; real ones nest once
MAX_NODES = 100_000
_LEAVES = frozenset({"blob", "config", "layer"})
_ASKED = 16  # images of an index without platforms whose configs are read
_JOIN = 0.2  # seconds that an ended copy waits for its workers to let go of their ingests

PlatformChoice = Union[Platform, Literal["all"], None]


class Watcher:
    """What a caller may want to know while a graph is copied; the base does nothing with it.

    Called from worker threads, one call at a time for each descriptor.
    """

    def parsed(self, target: Descriptor, value: Manifest | Index) -> None:
        """A manifest or index was read and verified; its children come next."""

    def arrived(self, target: Descriptor) -> None:
        """``target`` is whole at the sink."""


class Slots:
    """How many objects are moved at once from one host, over all copies that share this object.

    Whoever waits for another writer of the same blob keeps its slot; that writer, if it is of this process, has
    one too, so someone always moves on.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextmanager
    def one(self, scope: Scope) -> Iterator[None]:
        """Hold a slot for the block; waiting for it ends with the scope."""
        while not self._free.acquire(timeout=POLL):
            scope.check()
        try:
            yield
        finally:
            self._free.release()


@dataclass(eq=False)
class _Node:
    target: Descriptor
    depth: int
    raw: bytes | None = None
    parents: list[_Node] = field(default_factory=list)
    pending: int = 0
    expanded: bool = False
    done: bool = False


def copy_graph(
    source: Source,
    sink: Sink,
    root: Descriptor,
    scope: Scope,
    *,
    root_bytes: bytes | None = None,
    platform: PlatformChoice = None,
    workers: int = DEFAULT_WORKERS,
    slots: Slots | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Copy ``root`` and all that it names; of an index, the image for ``platform`` ("all": every one).

    ``workers`` threads move content at once; 0 moves it in the calling thread. ``slots`` bounds what all copies
    that share it move at once. Raises
    :class:`~ocidist.errors.TransferError` with the cause chained, or the end of ``scope``; KeyboardInterrupt
    ends it within half a second. After any of these the same call goes on from what was kept.
    """
    with scope.child() as inner:
        walk = _Walk(source, sink, inner, platform, slots or Slots(max(workers, 1)), watcher or Watcher())
        walk.named[root.digest] = root
        node = walk.add(root, None, 0)
        node.raw = root_bytes
        walk.run(workers)


class _Watched:
    """A Source that remembers whether it was the side that failed."""

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self.host = inner.host
        self.origin, self.resolve = inner.origin, inner.resolve
        self.error: OcidistError | None = None

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        try:
            body = _WatchedBody(self._inner.open(target, scope, offset=offset, length=length), self)
        except OcidistError as error:
            self.error = error
            raise
        self.error = None  # what failed before has been made good
        return body


class _WatchedBody:
    def __init__(self, inner: Body, owner: _Watched) -> None:
        self._inner, self._owner = inner, owner
        self._readinto = inner.readinto
        self.close = inner.close

    @property
    def start(self) -> int:
        return self._inner.start

    @property
    def host(self) -> str:
        return self._inner.host

    @property
    def size(self) -> int | None:
        return self._inner.size

    def readinto(self, buffer: memoryview) -> int:
        try:
            return self._readinto(buffer)
        except OcidistError as error:
            self._owner.error = error
            raise


class _Walk:
    def __init__(
        self,
        source: Source,
        sink: Sink,
        scope: Scope,
        platform: PlatformChoice,
        slots: Slots,
        watcher: Watcher,
    ) -> None:
        self.source, self.sink, self.scope = source, sink, scope
        self.platform, self.slots, self.watcher = platform, slots, watcher
        self.nodes: dict[Digest, _Node] = {}
        self.named: dict[Digest, Descriptor] = {}
        self.ready: deque[_Node] = deque()
        self.busy = 0
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    # -- the graph --

    def add(self, target: Descriptor, parent: _Node | None, depth: int) -> _Node:
        """The node of ``target``; queued if it is new."""
        with self.changed:
            node = self.nodes.get(target.digest)
            fresh = node is None
            if node is None:
                if len(self.nodes) >= MAX_NODES:
                    raise InvalidManifest("image", f"more than {MAX_NODES} objects in one graph")
                node = self.nodes[target.digest] = _Node(target, depth)
            if parent is not None and not node.done:
                node.parents.append(parent)
                parent.pending += 1
        if fresh:
            self.scope.emit(Queued(target, parent.target.digest if parent else None))
            with self.changed:
                if _is_parent(target):
                    self.ready.appendleft(node)  # manifests first: they tell what else there is to do
                else:
                    self.ready.append(node)
                self.changed.notify_all()
        return node

    def process(self, node: _Node) -> None:
        """Expand a manifest, or push what has all its children at the sink."""
        if _is_parent(node.target) and not node.expanded:
            self.expand(node)
            with self.changed:
                node.expanded = True
                if node.pending:
                    return
        self.push(node)
        with self.changed:
            node.done = True
            for parent in node.parents:
                parent.pending -= 1
                if parent.pending == 0 and parent.expanded:
                    self.ready.appendleft(parent)
            self.changed.notify_all()

    def expand(self, node: _Node) -> None:
        if node.depth > MAX_DEPTH:
            raise InvalidManifest("index", f"indices nested more than {MAX_DEPTH} deep")
        if node.raw is None:
            node.raw = self.read(node.target)
        value = manifests.parse(node.raw, node.target.media_type)
        self.agree(value)
        self.watcher.parsed(node.target, value)
        for child in self.children(value):
            if child.digest == node.target.digest:
                raise InvalidManifest("index", "it contains itself")
            self.add(child, node, node.depth + 1)

    def agree(self, value: Manifest | Index) -> None:
        """Raise InvalidManifest if one digest is named as two kinds of content, or with two sizes, in this graph:
        also by entries of an index that are not chosen, which whatever walks the store would follow."""
        what = "index" if isinstance(value, Index) else "manifest"
        for child in value.children():
            with self.changed:
                other = self.named.setdefault(child.digest, child)
            one, two = mediatype.kind(other.media_type), mediatype.kind(child.media_type)
            if one != two and not {one, two} <= _LEAVES:
                raise InvalidManifest(what, f"{child.digest} is named as a {one} and as a {two}")
            if other.size not in (child.size, -1):
                raise InvalidManifest(
                    what, f"{child.digest} is named with {other.size} bytes and with {child.size}"
                )

    def children(self, value: Manifest | Index) -> tuple[Descriptor, ...]:
        if isinstance(value, Index):
            if value.manifests and self.platform != "all":
                return (pick(value.manifests, self.platform or Platform.host(), self.read),)
            for entry in value.manifests:
                Digest(entry.digest)  # all are wanted: refuse an algorithm that can't be verified
        return value.children()

    def read(self, target: Descriptor) -> bytes:
        """Return a manifest's or config's bytes."""
        with self.slots.one(self.scope):
            return read_small(self.source, target, self.scope)

    def push(self, node: _Node) -> None:
        target = node.target
        if self.sink.exists(target, self.scope):
            self.scope.emit(Finished(target.digest, "exists"))
        else:
            source = _Watched(self.source)
            try:
                if node.raw is not None:  # read and verified by us
                    self.sink.push(replace(target, data=node.raw), source, self.scope)
                else:
                    with self.slots.one(self.scope):
                        self.sink.push(target, source, self.scope)
            except OcidistError as error:
                # What does not verify is what the source sent: the destination only found it out.
                foreign = isinstance(error, (DigestMismatch, SizeMismatch))
                side = "source" if foreign or source.error is not None else "destination"
                raise self.failure(target, error, side) from error
        node.raw = None
        self.watcher.arrived(target)

    def failure(self, target: Descriptor, error: OcidistError, side: str = "source") -> OcidistError:
        if isinstance(error, (Cancelled, DeadlineExceeded, TransferError, PlatformNotFound)):
            return error
        step = f"copy of {mediatype.kind(target.media_type)}"
        reason = str(error)
        if isinstance(error, ContentError) and str(error.descriptor) == target.digest:
            reason = error.reason  # which names it once more
        return TransferError(step, side, target, reason)

    # -- the workers --

    def run(self, workers: int) -> None:
        threads: list[threading.Thread] = []
        try:
            if workers < 1 or not self.start(threads):
                self.work(alone=True)
            while self.unfinished():
                self.scope.check()
                for _ in range(min(workers - len(threads), self.waiting())):
                    self.start(threads)
                self.scope.tick()
                with self.changed:
                    if self.error is None and (self.ready or self.busy):
                        self.changed.wait(0.05)
            self.scope.check()
        except OcidistError as error:  # the scope's end: of a worker's failure, or its own
            self.fail(error)
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self.join(threads)
        if self.error is not None:
            raise self.error
        if any(not node.done for node in self.nodes.values()):
            raise InvalidManifest("index", "its entries name each other in a circle")

    def unfinished(self) -> bool:
        with self.changed:
            return self.error is None and bool(self.ready or self.busy)

    def waiting(self) -> int:
        with self.changed:
            return len(self.ready)

    def start(self, threads: list[threading.Thread]) -> bool:
        thread = threading.Thread(target=self.work, name=f"ocidist-copy-{len(threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # a system without threads
            return False
        threads.append(thread)
        return True

    def work(self, alone: bool = False) -> None:
        while True:
            with self.changed:
                while not self.ready and self.busy and self.error is None and not alone:
                    self.changed.wait(1)
                if self.error is not None or not self.ready:
                    return
                node = self.ready.popleft()
                self.busy += 1
            try:
                self.scope.check()
                self.process(node)
            except (Cancelled, DeadlineExceeded) as error:  # an end of the whole is no failure of this object
                self.fail(error)
            except OcidistError as error:
                self.scope.emit(Failed(node.target.digest, str(error)))
                failure = self.failure(node.target, error)
                if failure is not error:
                    failure.__cause__ = error
                self.fail(failure)
            except BaseException as error:  # a worker's bug must end the copy, not hang it
                self.fail(error)
                if alone:
                    raise
            finally:
                with self.changed:
                    self.busy -= 1
                    self.changed.notify_all()
            if alone:
                self.scope.tick()

    def fail(self, error: BaseException) -> None:
        with self.changed:
            if self.error is None:
                self.error = error
            self.changed.notify_all()
        self.scope.cancel(error if isinstance(error, DeadlineExceeded) else None)

    def join(self, threads: list[threading.Thread]) -> None:
        until = time.monotonic() + (_JOIN if self.error is not None else 5)
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))


def read_small(source: Source, target: Descriptor, scope: Scope) -> bytes:
    """A manifest's or config's bytes, verified, or its inline ``data`` (which its parser verified)."""
    if target.data is not None:
        return target.data
    if target.size > MAX_SIZE:
        what = mediatype.kind(target.media_type)
        raise InvalidManifest(what, f"{target.size} bytes; at most {MAX_SIZE} are read")
    return resume.read(source, target, MAX_SIZE, scope)


def pick(entries: Sequence[Descriptor], wanted: Platform, read: Callable[[Descriptor], bytes]) -> Descriptor:
    """As :func:`~ocidist.spec.platform.select`; where several images name no platform, of the first some that whose
    config does. ``read`` gives a manifest's or config's bytes; an image that isn't there, or is damaged, is passed over."""
    chosen = select(entries, wanted)
    silent = [entry for entry in entries if entry.platform is None and is_image(entry)]
    if chosen.platform is not None or len(silent) < 2:
        return chosen
    for entry in silent[:_ASKED]:
        try:
            value = manifests.parse(read(entry), entry.media_type)
            config = value.config if isinstance(value, Manifest) else None
            if config is None or not mediatype.is_config(config.media_type):
                continue
            if fits(wanted, ImageConfig.parse(read(config)).platform):
                return entry
        except (ContentError, InvalidDigest, InvalidManifest, NotFound):
            continue
    return chosen


def _is_parent(target: Descriptor) -> bool:
    return mediatype.is_manifest(target.media_type) or mediatype.is_index(target.media_type)
