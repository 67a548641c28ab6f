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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, Sequence

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
from ocidist.layers.apply.policy import Policy
from ocidist.layers.apply.space import require
from ocidist.progress import Advanced, Finished, Waiting
from ocidist.scope import Scope
from ocidist.snapshots.folders import UNPACKING
from ocidist.snapshots.parallel import SMALL, Worker, Workers, worthwhile
from ocidist.snapshots.protocols import Claim, Snapshotter
from ocidist.spec.chain import chain_id, chain_ids
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.snapshots.layering import Over

__all__ = ["unpack", "unpack_layer"]

_STEP = 1 << 20  # bytes of a blob between two reports
_WAIT = 0.05  # seconds between looks at another's unpack


def unpack(
    provider: Provider,
    snapshotter: Snapshotter,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest],
    scope: Scope,
    *,
    wait: Callable[[Descriptor], None] | None = None,
) -> Digest:
    """Unpack ``layers`` (lowest first) into a committed snapshot; returns its ChainID, which is its key.

    One that exists already is returned at once; while another thread or process unpacks the same, this
    waits. ``wait(descriptor)`` returns when that layer's blob is here. Raises InvalidManifest if layers and
    DiffIDs differ in number, LayerError for a wrong DiffID or a layer that can't be applied, LimitExceeded by the
    scope's limits, BlobNotFound, StoreError, Cancelled. After a failure nothing is visible.
    """
    if len(layers) != len(diff_ids):
        raise InvalidManifest(
            "image", f"{len(layers)} layers, but {len(diff_ids)} diff_ids in its config", "rootfs.diff_ids"
        )
    if scope.limits is not None and len(layers) > scope.limits.layers:
        raise LimitExceeded("image", f"{len(layers)} layers, more than {scope.limits.layers}")
    chain = chain_id(diff_ids)
    done: set[Digest] = set()
    if not _committed(snapshotter, chain):
        job = _Job(provider, snapshotter, scope, wait, layers)
        rows = list(zip(layers, diff_ids, chain_ids(diff_ids), strict=True))
        if snapshotter.apart:
            _each(job, rows)
        else:
            _together(job, rows)
        done = job.done
    for layer in layers:
        if layer.digest not in done:
            scope.emit(Finished(layer.digest, "exists", "unpack"))
    return chain


def unpack_layer(
    provider: Provider,
    snapshotter: Snapshotter,
    layer: Descriptor,
    diff_id: Digest,
    chain: Digest,
    parent: str,
    scope: Scope,
) -> None:
    """One layer over the committed ``parent`` ("" for none) into the committed ``chain``. Raises as :func:`unpack`."""
    job = _Job(provider, snapshotter, scope, None, [layer])
    key = f"{UNPACKING}{chain}"
    with _claimed(snapshotter, key, [layer], scope), _dropped_on_error(snapshotter, [key], scope):
        root = snapshotter.prepare(key, parent, scope)
        job.apply(layer, diff_id, root, parent)
        snapshotter.commit(str(chain), key, parent)


def _committed(snapshotter: Snapshotter, chain: Digest) -> bool:
    try:
        return snapshotter.stat(str(chain)).kind == "committed"
    except OcidistError:
        return False


def _claimed(snapshotter: Snapshotter, key: str, layers: Sequence[Descriptor], scope: Scope) -> Claim:
    waiting = False
    while True:
        scope.check()
        claim = snapshotter.claim(key)
        if claim is not None:
            return claim
        if not waiting:
            waiting = True
            for layer in layers:
                scope.emit(Waiting(layer.digest, "unpacked by another"))
        _tick(scope)
        scope.sleep(_WAIT)


@contextmanager
def _dropped_on_error(snapshotter: Snapshotter, keys: Sequence[str], scope: Scope) -> Iterator[None]:
    """Remove what was being prepared, where the block fails."""
    try:
        yield
    except (Cancelled, DeadlineExceeded):
        raise  # removing takes its time; the next to prepare a snapshot does it
    except OcidistError:
        for key in keys:
            try:
                snapshotter.remove(key, scope)
            except OcidistError:
                pass  # what went wrong first is what is to be told
        raise


def _tick(scope: Scope) -> None:
    # Painting is for the thread that the user waits in; a pull unpacks in another.
    if threading.current_thread() is threading.main_thread():
        scope.tick()


# A layer, its DiffID, and the ChainID of the stack that it is the top of.
Row = tuple[Descriptor, Digest, Digest]


def _together(job: _Job, rows: Sequence[Row]) -> None:
    """All layers in one tree."""
    snapshotter, layers = job.snapshotter, [layer for layer, _, _ in rows]
    chain = rows[-1][2]
    key = f"{UNPACKING}{chain}"
    with _claimed(snapshotter, key, layers, job.scope) as claim:
        if _committed(snapshotter, chain):  # done by whom we waited for
            return
        with _dropped_on_error(snapshotter, [key], job.scope):
            root = snapshotter.prepare(key, scope=job.scope)
            with _failures(root), job.crew(layers, [claim]) as crew:
                job.require(root, layers)
                started: list[tuple[Worker | None, Row]] = []
                for number, row in enumerate(rows):
                    job.arrived(row[0])
                    place = root if not number else _beside(root, number)
                    started.append((crew.extract(row, place, number), row))
                    if crew.useful and row is not rows[-1]:
                        continue  # all that can be begun first
                    while started:
                        worker, (layer, diff_id, _) = started.pop(0)
                        _one_of_them(job, crew, worker, layer, diff_id, root)
            snapshotter.commit(str(chain), key)


def _beside(root: Path, number: int) -> Path:
    return root.parent / f"apart-{number}"


def _one_of_them(
    job: _Job, crew: Crew, worker: Worker | None, layer: Descriptor, diff_id: Digest, root: Path
) -> None:
    """A layer onto the tree of those beneath it: merged where a process extracted it, else applied."""
    from ocidist.layers.apply.merge import fits, merge
    from ocidist.snapshots.whole_trees import remove_tree

    if worker is not None:
        crew.finish(worker)
        done = worker.diff_id is not None
        if done and worker.diff_id is not None:
            _check_diff_id(layer, worker.diff_id, diff_id)
            job.counted(worker.entries, worker.size)
        if worker.root == root:
            if not done:
                _empty(root, job.scope)
        else:
            done = done and fits(root, worker.marks, worker.implied, job.scope)
            if done:
                merge(root, worker.root, worker.marks, worker.implied, job.scope, str(layer.digest))
            remove_tree(worker.root, check=job.scope.check)
        if done:
            job.finished(layer)
            return
    job.apply(layer, diff_id, root, None)
    job.finished(layer)


def _empty(root: Path, scope: Scope) -> None:
    from ocidist.snapshots.whole_trees import remove_tree

    remove_tree(root, check=scope.check)
    os.mkdir(root, 0o755)
    os.chmod(root, 0o755)


def _each(job: _Job, rows: Sequence[Row]) -> None:
    """Each layer in a snapshot of its own, over the one before."""
    snapshotter, scope = job.snapshotter, job.scope
    parents = ["", *(str(chain) for _, _, chain in rows)]
    with ExitStack() as stack:
        claims: dict[Digest, Claim] = {}
        for layer, _, chain in rows:  # the lowest first, for all: so nobody waits in a circle
            if not _committed(snapshotter, chain):
                claim = _claimed(snapshotter, f"{UNPACKING}{chain}", [layer], scope)
                stack.enter_context(claim)
                if not _committed(snapshotter, chain):
                    claims[chain] = claim
        missing = [(row, parent) for row, parent in zip(rows, parents, strict=False) if row[2] in claims]
        keys = [f"{UNPACKING}{row[2]}" for row, _ in missing]
        with _dropped_on_error(snapshotter, keys, scope):
            layers = [row[0] for row, _ in missing]
            crew = stack.enter_context(job.crew(layers, list(claims.values())))
            started: list[tuple[Worker | None, Row, str]] = []
            for row, parent in missing:
                job.arrived(row[0])
                # Not over its parent yet, which may not be here.
                root = snapshotter.prepare(f"{UNPACKING}{row[2]}", scope=scope)
                if row is missing[0][0]:
                    with _failures(root):
                        job.require(root, layers)
                started.append((crew.extract(row, root, int(bool(parent))), row, parent))
                if crew.useful and row is not missing[-1][0]:
                    continue  # all that can be begun first
                while started:
                    _one_over(job, crew, *started.pop(0))


def _one_over(job: _Job, crew: Crew, worker: Worker | None, row: Row, parent: str) -> None:
    """A layer that has a directory of its own: settled where a process extracted it, else applied."""
    from ocidist.snapshots.layering import NeedsOrder, settle

    layer, diff_id, chain = row
    snapshotter, key = job.snapshotter, f"{UNPACKING}{row[2]}"
    done = False
    if worker is not None:
        crew.finish(worker)
        done = worker.diff_id is not None
        if worker.diff_id is not None:
            _check_diff_id(layer, worker.diff_id, diff_id)
            job.counted(worker.entries, worker.size)
            try:
                with _failures(worker.root), job.over(parent) as over:
                    settle(worker.root, worker.marks, worker.implied, over, job.scope, str(layer.digest))
            except NeedsOrder:
                done = False
    if not done:
        job.apply(layer, diff_id, snapshotter.prepare(key, parent, job.scope), parent)
    snapshotter.commit(str(chain), key, parent)
    job.finished(layer)


def _check_diff_id(layer: Descriptor, found: Digest, wanted: Digest) -> None:
    if found != wanted:
        raise LayerError(str(layer.digest), "", f"its DiffID is {found}, but the config says {wanted}")


@contextmanager
def _failures(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise failure(place_of(error, str(root)), error) from error


class _Job:
    """Where layers come from and go to."""

    def __init__(
        self,
        provider: Provider,
        snapshotter: Snapshotter,
        scope: Scope,
        wait: Callable[[Descriptor], None] | None,
        layers: Sequence[Descriptor],
    ) -> None:
        self.provider, self.snapshotter, self.scope, self._wait = provider, snapshotter, scope, wait
        self.privileged = Policy.of_process().privileged
        self.done: set[Digest] = set()
        self.entries = self._unpacked = 0
        self._blobs = sum({layer.digest: layer.size for layer in layers}.values())

    def require(self, root: Path, layers: Sequence[Descriptor]) -> None:
        """Raise StoreError where ``layers`` can't have room beside ``root``: no tree is smaller than its blobs."""
        needed = sum(layer.size for layer in layers)
        require(root, str(root), needed, self.scope.limits, "unpacking")

    def counted(self, entries: int, unpacked: int) -> None:
        """A layer more, with so many entries, and bytes of plain tar. Raises LimitExceeded."""
        self.entries += entries
        self._unpacked += unpacked
        limits = self.scope.limits
        if limits is None:
            return
        if self.entries > limits.entries:
            raise LimitExceeded("image", f"more than {limits.entries} entries")
        if self._unpacked > limits.floor and self._unpacked > limits.ratio * self._blobs:
            raise LimitExceeded(
                "image", f"{self._blobs} bytes of layers unpack to more than the {limits.ratio}-fold"
            )

    def finished(self, layer: Descriptor) -> None:
        """It is where it belongs."""
        self.done.add(layer.digest)
        self.scope.emit(Finished(layer.digest, "unpacked", "unpack"))

    def arrived(self, layer: Descriptor) -> None:
        """Wait until its blob is here."""
        if self._wait is not None:
            self._wait(layer)

    @contextmanager
    def over(self, parent: str) -> Iterator[Over]:
        """What becomes of a layer over ``parent``'s tree ("" for none), where it has a directory of its own."""
        from ocidist.snapshots.layering import Over

        lower = self.snapshotter.reader(parent) if parent else None
        try:
            # Each layer that has a further name of a file beneath has a copy of it.
            yield Over(lower, self.privileged, self.scope, lambda taken: self.counted(0, taken))
        finally:
            if lower is not None:
                lower.close()

    def apply(self, layer: Descriptor, diff_id: Digest, root: Path, parent: str | None) -> None:
        """Apply a layer to ``root``, in this process; over ``parent`` where the snapshotter keeps layers apart."""
        from ocidist.layers.apply.layer import apply_layer

        with ExitStack() as stack:
            policy = Policy(self.privileged)
            if self.snapshotter.apart:
                policy = Policy(self.privileged, stack.enter_context(self.over(parent or "")))
            body = self.provider.open(layer, self.scope)
            stack.callback(body.close)
            report = _Report(layer, self.scope)
            result = apply_layer(
                body,
                root,
                self.scope,
                layer=str(layer.digest),
                policy=policy,
                progress=report,
                tick=report.tick,
                algorithm=diff_id.algorithm,
                before=self.entries,
            )
        self.counted(result.entries + result.made, result.size)
        _check_diff_id(layer, result.diff_id, diff_id)

    @contextmanager
    def crew(self, layers: Sequence[Descriptor], claims: Sequence[Claim]) -> Iterator[Crew]:
        """Processes for these layers, ended with the block; none where they are not worth it."""
        crew = Crew(self, worthwhile(layers), claims)
        try:
            yield crew
        finally:
            crew.end()


class Crew:
    """The processes that extract layers, if any."""

    def __init__(self, job: _Job, useful: bool, claims: Sequence[Claim]) -> None:
        self.useful = useful
        self._job, self._claims = job, claims
        self._workers = Workers(job.scope, lambda: _tick(job.scope))

    def extract(self, row: Row, root: Path, number: int) -> Worker | None:
        """Begin to extract the layer of ``row`` into ``root``, made if it is missing; None where it is to be applied
        in its turn. ``number`` is 0 for the lowest."""
        layer, diff_id, _ = row
        if not self.useful or layer.size <= SMALL or diff_id.algorithm != "sha256":  # a worker says that one
            return None
        body = self._job.provider.open(layer, self._job.scope)
        try:
            fileno = getattr(body, "fileno", None)
            if fileno is None:
                return None
            self._workers.room()
            root.mkdir(mode=0o755, exist_ok=True)
            report = _Report(layer, self._job.scope)
            worker = Worker(layer, root, report)
            held = [claim.fileno() for claim in self._claims]
            worker.start(fileno(), not number, self._job.entries, self._job.scope, held)
            self._workers.add(worker)
            return worker
        except (OSError, ValueError):  # no process can be had, or what is read is no file
            return None
        finally:
            body.close()

    def finish(self, worker: Worker) -> None:
        """Wait until it has ended."""
        self._workers.finish(worker)

    def end(self) -> None:
        """End what still runs."""
        self._workers.end()


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
