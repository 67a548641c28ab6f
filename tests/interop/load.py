"""One process of the load on a store: eight threads that pull, forget, collect, label, ingest and delete at random.

``python -m tests.interop.load ROOT JOURNAL NUMBER SEED PAUSE REGISTRY REPOSITORY…``, until its stdin closes. What a
name or a lease of its own holds it writes into its journal, after it is held and before it is let go, so whoever
comes after it, though it was killed, knows what must still be there.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ocidist.client import Client
from ocidist.content.verify import read_all
from ocidist.errors import AlreadyExists, BlobNotFound, Locked, OcidistError
from ocidist.graph.walk import reachable
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store

THREADS = 8
LONGEST = 240.0  # seconds for one action, on a machine that does much else
BUSY = "other processes held the database"
POINTS_TO = "containerd.io/gc.ref.content.next"


class Journal:
    """Lines of JSON, each written at once: ``held`` and ``letting-go`` of a name or a digest, ``did``, ``failed``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, what: str, about: str, more: Any = None) -> None:
        os.write(self._fd, json.dumps([what, about, more]).encode() + b"\n")

    @staticmethod
    def read(path: Path) -> list[tuple[str, str, Any]]:
        """Every whole line."""
        if not path.exists():
            return []
        return [tuple(json.loads(line)) for line in path.read_text().splitlines() if line.endswith("]")]


@dataclass
class Held:
    """What a journal says must be there: names with their digests, and blobs with the leases that hold them."""

    names: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, journal: Path) -> Held:
        """The last word on each counts."""
        held = cls()
        for what, about, more in Journal.read(journal):
            place = held.names if about.count(":") and "/" in about else held.blobs
            if what == "held":
                place[about] = str(more)
            elif what == "letting-go":
                place.pop(about, None)
        return held

    def assert_there(self, store: Store) -> None:
        """Every name stands for what it did, whole to the last blob; every blob is whole."""
        scope = Scope()
        for name, digest in self.names.items():
            target = store.get_image(name)
            assert target.digest == digest, name
            for item in reachable(store.content, target, scope):
                _read(store, item.digest, scope)
        for blob in self.blobs:
            _read(store, Digest(blob), scope)


def _read(store: Store, digest: Digest, scope: Scope) -> bytes:
    target = Descriptor("application/octet-stream", digest, store.content.info(digest).size)
    return read_all(store.open(target, scope), target, 1 << 30)


class Process:
    """What the threads share."""

    def __init__(
        self, root: str, journal: Path, number: int, pause: float, registry: str, repositories: list[str]
    ):
        self.store, self.number, self.pause = Store.at(root), number, pause
        self.client = Client(store=self.store, workers=2)
        self.refs = [f"{registry}/{name}:latest" for name in repositories]
        self.mine = f"{registry}/keep/{number}:latest"
        self.held, self.journal = Held.of(journal), Journal(journal)
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def run(self, seed: int) -> None:
        self.held.assert_there(self.store)  # what the one before held that was killed
        threads = [threading.Thread(target=Actor(self, seed + turn, turn).run) for turn in range(THREADS)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self.ended.set()
        for thread in threads:
            thread.join()


class Actor:
    """One thread. Thread 0 alone pulls and forgets the process's own name, each its own blobs."""

    def __init__(self, process: Process, seed: int, turn: int) -> None:
        self.process, self.turn, self.random = process, turn, random.Random(seed)
        self.count = 0
        self.actions: list[Callable[[Scope], None]] = [
            *(self.pull,) * 8,
            *(self.forget,) * 4,
            *(self.ingest, self.chain, self.release, self.verify, self.label, self.leave, self.lease) * 3,
            *(self.collect, self.collect_all, self.delete, self.look),
        ]
        if turn == 0:
            self.actions += [self.keep] * 6 + [self.drop] * 3

    def run(self) -> None:
        process = self.process
        # The first ones are dealt out, so that the last processes alone do each once, on however slow a machine.
        action = (
            self.keep
            if self.turn == 0
            else self.actions[(process.number * THREADS + self.turn) % len(self.actions)]
        )
        while True:
            began = time.monotonic()
            try:
                with Scope.within(LONGEST) as scope:
                    action(scope)
            except OcidistError as error:
                if BUSY in str(error):  # an answer, if not a good one
                    process.journal.write("did", "wait in vain for the database", 0)
                else:
                    process.journal.write("failed", action.__name__, repr(error))
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to tell it
                process.journal.write("failed", action.__name__, repr(error))
            else:
                process.journal.write("did", action.__name__, round(time.monotonic() - began, 3))
            if process.ended.wait(self.random.uniform(0, 2 * process.pause)):
                return
            action = self.random.choice(self.actions)

    # -- images --

    def pull(self, scope: Scope) -> None:
        ref = self.random.choice(self.process.refs)
        self.process.client.pull(ref, scope=scope)

    def forget(self, scope: Scope) -> None:
        self.process.store.remove_image(self.random.choice(self.process.refs))

    def keep(self, scope: Scope) -> None:
        """A name that none but this thread takes away."""
        process = self.process
        pulled = process.client.pull(process.mine, scope=scope)
        process.journal.write("held", process.mine, str(pulled.descriptor.digest))
        process.held.names[process.mine] = str(pulled.descriptor.digest)

    def drop(self, scope: Scope) -> None:
        process = self.process
        process.journal.write("letting-go", process.mine)
        process.held.names.pop(process.mine, None)
        process.store.remove_image(process.mine)

    def collect(self, scope: Scope) -> None:
        self.process.store.gc(scope)

    def collect_all(self, scope: Scope) -> None:
        self.process.store.gc(scope, everything=True)

    # -- blobs --

    def _raw(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 10, 5000, 150_000))) + os.urandom(16)

    def _put(self, raw: bytes, lease: str | None, scope: Scope) -> Digest:
        """The blob by an ingest in pieces, held by ``lease`` (None: for a day)."""
        self.count += 1
        key = f"{self.process.number}-{self.turn}-{self.count}-{os.getpid()}"
        with Scope(lease=lease, parent=scope) as inner:
            content = self.process.store.content.within(inner)
            writer = content.writer(key, total=len(raw))
            with writer:
                for at in range(0, len(raw), 60_000):
                    writer.write(raw[at : at + 60_000])
                return writer.commit(len(raw), Digest.of(raw))

    def ingest(self, scope: Scope) -> None:
        """A blob that a lease of this process's own holds."""
        process = self.process
        lease = f"load-{os.urandom(8).hex()}"
        digest = self._put(self._raw(), lease, scope)
        process.journal.write("held", str(digest), lease)
        with process.lock:
            process.held.blobs[str(digest)] = lease

    def chain(self, scope: Scope) -> None:
        """A held blob, whose label holds another."""
        process, store = self.process, self.process.store
        lease, last = f"load-{os.urandom(8).hex()}", self._raw()
        first = Digest.of(last)
        self._put(last, lease, scope)
        second = self._put(self._raw(), lease, scope)
        store.set_labels(second, {POINTS_TO: str(first)})
        final = f"load-{os.urandom(8).hex()}"
        leases = store.leases.within(scope)
        leases.hold(final, time.time() + 86_400, [("content", str(second))])
        leases.delete([lease])
        process.journal.write("held", str(second), final)
        process.journal.write("held", str(first), final)
        with process.lock:
            process.held.blobs.update({str(first): final, str(second): final})

    def _some(self) -> tuple[str, str] | None:
        with self.process.lock:
            held = sorted(self.process.held.blobs.items())
        return self.random.choice(held) if held else None

    def release(self, scope: Scope) -> None:
        """Let go of a lease, and of all that it holds."""
        process, found = self.process, self._some()
        if found is None:
            return
        with process.lock:
            gone = [digest for digest, lease in process.held.blobs.items() if lease == found[1]]
            for digest in gone:
                process.journal.write("letting-go", digest)
                del process.held.blobs[digest]
        process.store.leases.within(scope).delete([found[1]])

    def verify(self, scope: Scope) -> None:
        """A held blob is whole, in the middle of it all; if it is still held afterwards."""
        found = self._some()
        if found is None:
            return
        try:
            _read(self.process.store, Digest(found[0]), scope)
        except BlobNotFound:
            with self.process.lock:
                if found[0] in self.process.held.blobs:
                    raise

    def delete(self, scope: Scope) -> None:
        """A blob that nobody else knows of."""
        digest = self._put(self._raw(), None, scope)
        try:
            self.process.store.delete_blob(digest)
        except BlobNotFound:
            pass  # gc --all was first

    def label(self, scope: Scope) -> None:
        found = self._some()
        if found is None:
            return
        try:
            self.process.store.set_labels(Digest(found[0]), {"load": str(self.random.random())})
        except BlobNotFound:
            with self.process.lock:
                if found[0] in self.process.held.blobs:
                    raise

    def leave(self, scope: Scope) -> None:
        """An ingest that is begun and left; another thread or process may be at it, or go on from there."""
        raw = bytes([self.random.randrange(4)]) * 100_000
        try:
            with self.process.store.ingest(
                f"left-{raw[0]}", total=len(raw), expected=Digest.of(raw)
            ) as writer:
                offset = writer.status().offset
                writer.write(raw[offset : offset + 40_000])
                if writer.status().offset == len(raw):
                    writer.commit(len(raw), Digest.of(raw))
        except (Locked, AlreadyExists):
            pass

    # -- the rest --

    def look(self, scope: Scope) -> None:
        store = self.process.store
        for rows in (store.blobs, store.images, store.active):
            repr(rows)
        store.gc(scope, dry_run=True)

    def lease(self, scope: Scope) -> None:
        """Inside a lease's block nobody takes away what it holds."""
        store = self.process.store
        with store.lease(scope=scope) as lease:
            digest = self._put(self._raw(), lease, scope)
            scope.sleep(self.random.uniform(0, 0.3))
            _read(store, digest, scope)


if __name__ == "__main__":
    root, journal, number, seed, pause, registry, *repositories = sys.argv[1:]
    os.nice(10)
    Process(root, Path(journal), int(number), float(pause), registry, repositories).run(int(seed))
