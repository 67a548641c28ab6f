"""The layers of an image into one snapshot, keyed by its ChainID.

Each layer is read, inflated, hashed and applied in one pass, while later ones may still be arriving. The
DiffID of every layer is checked against the config before the snapshot becomes visible; it covers the bytes
that were applied, so blobs are not hashed a second time.

Source: OCI image specification, config.md, "Layer DiffID" and "Layer ChainID".
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Sequence

from ocidist.content.protocols import Provider
from ocidist.errors import Cancelled, DeadlineExceeded, InvalidManifest, LayerError, OcidistError
from ocidist.progress import Advanced, Finished, Waiting
from ocidist.scope import Scope
from ocidist.snapshots.protocols import Claim, Snapshotter
from ocidist.spec.chain import chain_id
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

__all__ = ["unpack"]

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
    DiffIDs differ in number, LayerError for a wrong DiffID or a layer that can't be applied, BlobNotFound,
    StoreError, Cancelled. After a failure nothing is visible.
    """
    if len(layers) != len(diff_ids):
        raise InvalidManifest(
            "image", f"{len(layers)} layers, but {len(diff_ids)} diff_ids in its config", "rootfs.diff_ids"
        )
    chain = chain_id(diff_ids)
    if not _committed(snapshotter, chain):
        key = f"unpack {chain}"
        with _claimed(snapshotter, key, layers, scope):
            if not _committed(snapshotter, chain):  # done by whom we waited for
                _unpack(provider, snapshotter, key, chain, layers, diff_ids, scope, wait)
                return chain
    for layer in layers:
        scope.emit(Finished(layer.digest, "unpacked", "unpack"))
    return chain


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


def _tick(scope: Scope) -> None:
    # Painting is for the thread that the user waits in; a pull unpacks in another.
    if threading.current_thread() is threading.main_thread():
        scope.tick()


def _unpack(
    provider: Provider,
    snapshotter: Snapshotter,
    key: str,
    chain: Digest,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest],
    scope: Scope,
    wait: Callable[[Descriptor], None] | None,
) -> None:
    from ocidist.layers.apply import apply_layer

    root = snapshotter.prepare(key)
    try:
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if wait is not None:
                wait(layer)
            body = provider.open(layer, scope)
            try:
                report = _Report(layer, scope)
                result = apply_layer(
                    body, root, scope, layer=str(layer.digest), progress=report, tick=report.tick
                )
            finally:
                body.close()
            if result.diff_id != diff_id:
                raise LayerError(
                    str(layer.digest), "", f"its DiffID is {result.diff_id}, but the config says {diff_id}"
                )
            scope.emit(Finished(layer.digest, "unpacked", "unpack"))
        snapshotter.commit(str(chain), key)
    except (Cancelled, DeadlineExceeded):
        raise  # removing takes its time; the next to prepare a snapshot does it
    except OcidistError:
        try:
            snapshotter.remove(key)
        except OcidistError:
            pass  # what went wrong first is what is to be told
        raise


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
