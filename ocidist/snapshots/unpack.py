"""The layers of an image into one snapshot, keyed by its ChainID.

Each layer is read, inflated, hashed and applied in one pass, while later ones may still be arriving. The
DiffID of every layer is checked against the config before the snapshot becomes visible; it covers the bytes
that were applied, so blobs are not hashed a second time.

Source: OCI image specification, config.md, "Layer DiffID" and "Layer ChainID".
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Sequence

from ocidist.content.disk import failure, place_of
from ocidist.content.protocols import Provider
from ocidist.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidManifest,
    LayerError,
    LimitExceeded,
    OcidistError,
)
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.apply.layering import InPlace, Layering
from ocidist.layers.apply.policy import Policy
from ocidist.layers.apply.space import require
from ocidist.progress import Advanced, Finished, Waiting
from ocidist.scope import Scope
from ocidist.snapshots.apart import Marks, NeedsOrder
from ocidist.snapshots.folders import UNPACKING, make_place
from ocidist.snapshots.parallel import Worker, Workers
from ocidist.snapshots.protocols import Claim, LocalTrees, Site
from ocidist.snapshots.removal import remove_tree
from ocidist.spec.chain import chain_id, chain_ids, child_id
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

__all__ = ["LocalApplier"]

_STEP = 1 << 20  # bytes of a blob between two reports
_WAIT = 0.05  # seconds between looks at another's unpack


class LocalApplier:
    """An Applier over trees on this machine: in this process, and in processes of their own where that is faster.

    Each layer is read, inflated, hashed and applied in one pass. The constructor does no I/O.
    """

    def __init__(self, provider: Provider, trees: LocalTrees) -> None:
        self._provider, self._trees = provider, trees

    def unpack(
        self,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[Digest],
        scope: Scope,
        *,
        wait: Callable[[Descriptor], None] | None = None,
    ) -> Digest:
        """Apply ``layers``, the lowest first; return the ChainID that their snapshot is committed by.

        One that exists already is returned at once; while another thread or process unpacks the same, this waits.
        Raises InvalidManifest if layers and DiffIDs differ in number, else as the protocol says.
        """
        if len(layers) != len(diff_ids):
            raise InvalidManifest(
                "image",
                f"{len(layers)} layers, but {len(diff_ids)} diff_ids in its config",
                "rootfs.diff_ids",
            )
        if scope.limits is not None and len(layers) > scope.limits.layers:
            raise LimitExceeded("image", f"{len(layers)} layers, more than {scope.limits.layers}")
        chain = chain_id(diff_ids)
        done: set[Digest] = set()
        if not _committed(self._trees, str(chain)):
            rows = [_Row(*row) for row in zip(layers, diff_ids, chain_ids(diff_ids), strict=True)]
            work = _Work(self._provider, self._trees, scope, wait, rows)
            work.run(self._parts(rows))
            done = work.done
        for layer in layers:
            if layer.digest not in done:
                scope.emit(Finished(layer.digest, "exists", "unpack"))
        return chain

    def _parts(self, rows: Sequence[_Row]) -> list[_Part]:
        """The layers of each snapshot."""
        kept = set(self._trees.kept([str(row.chain) for row in rows]))
        parts, parent, some = list[_Part](), "", list[_Row]()
        for row in rows:
            some.append(row)
            if str(row.chain) in kept:
                parts.append(_Part(str(row.chain), parent, tuple(some)))
                parent, some = str(row.chain), []
        return parts

    def apply(self, layer: Descriptor, diff_id: Digest, parent: str, scope: Scope) -> Digest:
        """Apply one layer over the committed ``parent`` ("" for none); return the ChainID it is committed by."""
        chain = child_id(Digest(parent), diff_id) if parent else diff_id
        row = _Row(layer, diff_id, chain)
        if parent:
            self._trees.stat(parent)
        if not _committed(self._trees, str(chain)):
            work = _Work(self._provider, self._trees, scope, None, [row])
            work.run([_Part(str(chain), parent, (row,))])
        return chain


def _committed(trees: LocalTrees, chain: str) -> bool:
    try:
        return trees.stat(chain).kind == "committed"
    except OcidistError:
        return False


def _claimed(trees: LocalTrees, part: _Part, scope: Scope) -> Claim:
    waiting = False
    while True:
        scope.check()
        claim = trees.claim(part.key)
        if claim is not None:
            return claim
        if not waiting:
            waiting = True
            for row in part.rows:
                scope.emit(Waiting(row.layer.digest, "unpacked by another"))
        _tick(scope)
        scope.sleep(_WAIT)


@contextmanager
def _dropped_on_error(trees: LocalTrees, keys: Sequence[str], scope: Scope) -> Iterator[None]:
    """Remove what was being prepared, where the block fails."""
    try:
        yield
    except (Cancelled, DeadlineExceeded):
        raise  # removing takes its time; the next to prepare a snapshot does it
    except OcidistError:
        for key in keys:
            try:
                trees.remove(key, scope)
            except OcidistError:
                pass  # what went wrong first is what is to be told
        raise


def _tick(scope: Scope) -> None:
    # Painting is for the thread that the user waits in; a pull unpacks in another.
    if threading.current_thread() is threading.main_thread():
        scope.tick()


class _Row(NamedTuple):
    """A layer, its DiffID, and the ChainID of the stack that it is the top of."""

    layer: Descriptor
    diff_id: Digest
    chain: Digest


class _Part(NamedTuple):
    """A snapshot to be committed as ``chain``, and the layers that it takes, the lowest first."""

    chain: str
    parent: str
    rows: tuple[_Row, ...]

    @property
    def key(self) -> str:
        return f"{UNPACKING}{self.chain}"


class _Step(NamedTuple):
    """One layer on its way into ``site``, the ``number``-th there; extracted by ``worker`` if there is one."""

    row: _Row
    part: _Part
    site: Site
    number: int
    worker: Worker | None


class _Work:
    """Layers to be unpacked: each is extracted apart, here or by a worker, then settled over those beneath it."""

    def __init__(
        self,
        provider: Provider,
        trees: LocalTrees,
        scope: Scope,
        wait: Callable[[Descriptor], None] | None,
        rows: Sequence[_Row],
    ) -> None:
        self._provider, self._trees, self._scope, self._wait = provider, trees, scope, wait
        self._privileged = Policy.of_process().privileged
        self.done: set[Digest] = set()
        self._entries = self._unpacked = 0
        self._blobs = sum({row.layer.digest: row.layer.size for row in rows}.values())

    def run(self, parts: Sequence[_Part]) -> None:
        """Commit every part that is not there yet. What others unpack is waited for."""
        with ExitStack() as stack:
            missing, claims = list[_Part](), list[Claim]()
            for part in parts:  # the lowest first, for all: so nobody waits in a circle
                if not _committed(self._trees, part.chain):
                    claim = stack.enter_context(_claimed(self._trees, part, self._scope))
                    if not _committed(self._trees, part.chain):
                        missing.append(part)
                        claims.append(claim)
            if not missing:
                return
            stack.enter_context(_dropped_on_error(self._trees, [part.key for part in missing], self._scope))
            layers = [row.layer for part in missing for row in part.rows]
            workers = Workers(self._scope, lambda: _tick(self._scope), layers, claims)
            stack.callback(workers.end)
            started: deque[_Step] = deque()
            for part in missing:
                site = self._trees.site(part.key, part.parent, self._scope)
                if part is missing[0]:
                    self._require(site.root, layers)
                for number, row in enumerate(part.rows):
                    if self._wait is not None:
                        self._wait(row.layer)
                    worker = self._begin(workers, row, site, number)
                    started.append(_Step(row, part, site, number, worker))
                    if not workers.useful:
                        self._finish(workers, started.popleft())
            while started:  # all that could be begun is
                self._finish(workers, started.popleft())

    def _begin(self, workers: Workers, row: _Row, site: Site, number: int) -> Worker | None:
        """Have a worker extract the layer, if that is worth it and possible."""
        if not workers.suits(row.layer, row.diff_id):
            return None
        blob = self._provider.file(row.layer, self._scope)
        if blob is None:
            return None
        try:
            report, place = _Report(row.layer, self._scope), site.place(number)
            return workers.start(row.layer, place, report, blob, site.is_lowest(number), self._entries)
        except (OSError, ValueError):  # no process can be started
            return None
        finally:
            os.close(blob)

    def _finish(self, workers: Workers, step: _Step) -> None:
        """Settle a layer; commit its snapshot if it is the uppermost there."""
        row, part, site, number, worker = step
        layer, place = str(row.layer.digest), site.place(number)
        with _failures(place):
            done = False
            if worker is not None:
                workers.finish(worker)
                if worker.diff_id is not None:
                    _check_diff_id(row, worker.diff_id)
                    with suppress(NeedsOrder):
                        site.settle(number, worker.marks, self._scope, layer)
                        self._count(worker.entries, worker.size)
                        done = True
                if not done:
                    _empty(place, self._scope)
            if not done:
                site.settle(number, self._extract(step), self._scope, layer)
        if row is part.rows[-1]:
            self._trees.commit(part.chain, part.key, part.parent)
        self.done.add(row.layer.digest)
        self._scope.emit(Finished(row.layer.digest, "unpacked", "unpack"))

    def _extract(self, step: _Step) -> Marks:
        """Extract a layer in this process, over what is beneath it."""
        row, site, number = step.row, step.site, step.number
        with ExitStack() as stack:
            layering: Layering = InPlace()
            marks = Marks()
            if not site.is_lowest(number):
                # Each layer that has a further name of a file beneath may have a copy of it.
                count = partial(self._count, 0)
                over = stack.enter_context(site.over(number, self._scope, count))
                layering, marks = over, over.marks
            body = stack.enter_context(closing(self._provider.open(row.layer, self._scope)))
            report = _Report(row.layer, self._scope)
            result = apply_layer(
                body,
                site.place(number),
                self._scope,
                layer=str(row.layer.digest),
                policy=Policy(self._privileged, layering),
                progress=report,
                tick=report.tick,
                algorithm=row.diff_id.algorithm,
                before=self._entries,
            )
        self._count(result.entries + result.made, result.size)
        _check_diff_id(row, result.diff_id)
        return marks

    def _require(self, root: Path, layers: Sequence[Descriptor]) -> None:
        """Raise StoreError where ``layers`` can't have room beside ``root``: no tree is smaller than its blobs."""
        with _failures(root):
            needed = sum(layer.size for layer in layers)
            require(root, str(root), needed, self._scope.limits, "unpacking")

    def _count(self, entries: int, unpacked: int) -> None:
        """A layer more, with so many entries, and bytes of plain tar. Raises LimitExceeded."""
        self._entries += entries
        self._unpacked += unpacked
        limits = self._scope.limits
        if limits is None:
            return
        if self._entries > limits.entries:
            raise LimitExceeded("image", f"more than {limits.entries} entries")
        if self._unpacked > limits.floor and self._unpacked > limits.ratio * self._blobs:
            raise LimitExceeded(
                "image", f"{self._blobs} bytes of layers unpack to more than the {limits.ratio}-fold"
            )


def _empty(place: Path, scope: Scope) -> None:
    remove_tree(place, check=scope.check)
    make_place(place)


def _check_diff_id(row: _Row, found: Digest) -> None:
    if found != row.diff_id:
        raise LayerError(
            str(row.layer.digest), "", f"its DiffID is {found}, but the config says {row.diff_id}"
        )


@contextmanager
def _failures(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(place_of(error, str(root)), error) from error


class _Report:
    """Called with the bytes read so far, from the inflating thread: an event about every MiB."""

    def __init__(self, layer: Descriptor, scope: Scope) -> None:
        self._layer = layer
        self._scope = scope
        self._next = 0
        self._painted = time.monotonic()

    def __call__(self, done: int) -> None:
        if done >= self._next or done >= self._layer.size:
            self._next = done + _STEP
            self._scope.emit(Advanced(self._layer.digest, "unpack", done, self._layer.size))

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._painted >= 0.1:
            self._painted = now
            _tick(self._scope)
