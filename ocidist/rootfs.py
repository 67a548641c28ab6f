"""Root filesystems to work in: prepared over an unpacked image, looked at, and kept as a layer.

A snapshot is named by its target, made absolute, as containerd's early ``dist`` did it: one target, one snapshot.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Callable, Iterator, Sequence

from ocidist.content.disk import failure, place_of
from ocidist.errors import StoreError
from ocidist.rows import Rows, Schema, column
from ocidist.scope import no_check
from ocidist.spec.prefix import complete, is_prefix

if TYPE_CHECKING:
    from ocidist.layers.diff import MadeLayer
    from ocidist.scope import Scope
    from ocidist.snapshots.protocols import Mount, SnapshotInfo
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest
    from ocidist.stores.store import Store
    from ocidist.trees.compare import Change
    from ocidist.trees.protocols import Reader

__all__ = [
    "ChangeRow",
    "CommittedLayer",
    "SnapshotRow",
    "changes",
    "commit",
    "find",
    "make_layer",
    "prepare",
    "remove",
    "snapshots",
]

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class SnapshotRow:
    """One snapshot. ``kind`` is committed, active or view; ``size`` the bytes set aside for its own files, None where
    this user can't look; ``created_at`` seconds since the epoch, UTC."""

    key: str = field(metadata=column("digest", room="whole"))
    parent: str = field(metadata=column("digest"))
    kind: str
    size: int | None = field(metadata=column("bytes"))
    created_at: float = field(metadata=column("age", "AGE"))


@dataclass(frozen=True)
class ChangeRow:
    """One name that differs. ``kind`` is added, modified or deleted; ``type`` that of the entry (before, if it is
    deleted), ``size`` in bytes, None for what is no file."""

    kind: str
    type: str
    size: int | None = field(metadata=column("bytes"))
    path: str


SNAPSHOTS = Schema.of(SnapshotRow, "snapshots")
CHANGES = Schema.of(ChangeRow, "changes")


@dataclass(frozen=True)
class CommittedLayer:
    """A layer in the store, and the snapshot that it makes of its parent."""

    layer: MadeLayer
    chain_id: Digest


def snapshots(store: Store, scope: Scope | None = None) -> Rows[SnapshotRow]:
    """Every snapshot: key, parent, kind, size (bytes), created_at. Raises the scope's end."""
    return Rows(SNAPSHOTS, (_row(store, info, scope) for info in store.snapshots.walk()))


def _row(store: Store, info: SnapshotInfo, scope: Scope | None) -> SnapshotRow:
    try:
        size = store.snapshots.usage(info.key, no_check if scope is None else scope.check).size
    except StoreError:
        size = None
    return SnapshotRow(info.key, info.parent, info.kind, size, info.created_at)


def find(store: Store, name: str) -> SnapshotInfo:
    """The snapshot with this key, or of this target, or with the one ChainID that begins so (``sha256:`` and some
    digits). Raises StoreError, InvalidDigest."""
    for key in (name, os.path.abspath(name)):
        try:
            return store.snapshots.stat(key)
        except StoreError:
            continue
    if ":" in name and is_prefix(name):
        return store.snapshots.stat(_whole(store, name))
    raise StoreError(name, "no such snapshot; `snapshots` lists them")


def _whole(store: Store, chain: str) -> str:
    """A ChainID of which the beginning is enough."""
    if not is_prefix(chain):
        return chain
    keys = (info.key for info in store.snapshots.walk() if info.kind == "committed")
    return str(complete(chain, keys, "unpacked tree"))


def prepare(
    store: Store, chain: str, target: str, scope: Scope, *, readonly: bool = False
) -> Sequence[Mount]:
    """A snapshot over the unpacked ``chain`` ("" for an empty one), for ``target``; what mounts it there.

    It is written to, or a view with ``readonly``. One that is there already over the same chain is as it was left, to be
    mounted again. Raises StoreError for an unknown chain, for a target that has another one, and where it is mounted.
    """
    store.require_writable()
    chain = _whole(store, chain)
    key = os.path.abspath(target)
    kept = store.local_trees()
    claim = kept.claim(f"prepare {key}")
    if claim is None:
        raise StoreError(key, "another process is preparing a snapshot for it")
    with claim, store.fetching(scope):  # or `gc --all` would take the tree that is being copied
        if _is_there(store, key, chain, target, readonly):
            return kept.mounts(key)
        if chain:
            store.hold_trees([chain], scope)  # held first, then looked for
            _require_committed(store, chain)
        if readonly:
            return kept.view(key, chain, scope)
        return kept.prepare(key, chain, scope)


def _is_there(store: Store, key: str, chain: str, target: str, readonly: bool) -> bool:
    """Whether the target has this very snapshot already, not mounted. Raises StoreError for another one."""
    try:
        info = store.snapshots.stat(key)
    except StoreError:
        return False
    if info.kind != ("view" if readonly else "active") or info.parent != chain:
        what = "a view" if info.kind == "view" else "a snapshot"
        raise StoreError(
            key,
            f"there is {what} of {info.parent or 'nothing'} for this target already; `rootfs rm {target}` drops it",
        )
    _refuse_mounted(store, key)
    return True


def _require_committed(store: Store, chain: str) -> None:
    try:
        kind = store.snapshots.stat(chain).kind
    except StoreError:
        raise StoreError(
            chain, "no unpacked tree has this chain ID; `rootfs unpack DIGEST` makes one"
        ) from None
    if kind != "committed":
        raise StoreError(chain, "it is not committed, so nothing can stand on it; `rootfs commit` does that")


def remove(store: Store, name: str) -> str:
    """Remove a snapshot; its key. Raises StoreError where others stand on it."""
    store.require_writable()
    info = find(store, name)
    _refuse_mounted(store, info.key)
    above = sorted(other.key for other in store.snapshots.walk() if other.parent == info.key)
    if above:
        raise StoreError(info.key, f"{above[0]} stands on it; remove that first")
    store.snapshots.remove(info.key)
    return info.key


def _refuse_mounted(store: Store, key: str) -> None:
    """Whoever has it mounted could go on writing into what is committed, or removed; what is mounted in it is not its
    own (proc(5), mountinfo)."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = [line.split(b" ")[4] for line in file]
    except (OSError, IndexError):  # another system: nothing can be told
        return
    points = [_ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), line) for line in lines]
    target, own = (
        os.fsencode(os.path.realpath(place)) for place in (key, store.local_trees().path(key).parent)
    )
    for point in points:  # what is mounted below the target may be anybody's, and has no part in it
        if point in (target, own) or point.startswith(own + b"/"):
            raise StoreError(key, f"it is mounted; `umount {quote(os.fsdecode(point))}` first")


# -- what changed --


@contextmanager
def _trees(store: Store, upper: str, lower: str | None) -> Iterator[tuple[Reader | None, Reader]]:
    """Readers of two trees; without ``lower`` of a snapshot's parent, None for one that has none."""
    with ExitStack() as stack:

        def reader(name: str) -> tuple[Reader, str]:
            found, parent = _reader(store, name)
            stack.callback(found.close)
            return found, parent

        above, parent = reader(upper)
        below = reader(lower)[0] if lower is not None else reader(parent)[0] if parent else None
        yield below, above


def _reader(store: Store, name: str) -> tuple[Reader, str]:
    """A tree by its snapshot's key or target, else by its directory; and the key of the snapshot's parent."""
    from ocidist.trees.directory import DirectoryReader

    try:
        info = find(store, name)
    except StoreError:
        if not os.path.isdir(name):
            raise StoreError(
                name, "neither a snapshot nor a directory; `snapshots` lists snapshots"
            ) from None
        try:
            return DirectoryReader(name), ""
        except OSError as error:
            raise StoreError(name, error.strerror or str(error)) from error
    return store.local_trees().reader(info.key), info.parent


def changes(store: Store, upper: str, lower: str | None, scope: Scope) -> Rows[ChangeRow]:
    """What makes ``upper`` of ``lower``: each a snapshot or a directory; without ``lower`` of the snapshot's parent.

    Columns: kind, type, size (bytes), path. Raises StoreError, the scope's end.
    """
    from ocidist.trees.compare import compare

    with _trees(store, upper, lower) as (below, above):
        try:
            return Rows(CHANGES, [_change(change) for change in compare(below, above, scope)])
        except OSError as error:
            raise failure(place_of(error, upper), error) from error


def _change(change: Change) -> ChangeRow:
    size = change.entry.size if change.entry.type == "file" else None
    return ChangeRow(change.kind, change.entry.type, size, "/" + os.fsdecode(change.path))


def make_layer(
    store: Store,
    upper: str,
    lower: str | None,
    write: Callable[[bytes], object],
    scope: Scope,
    *,
    epoch: int | None = None,
) -> MadeLayer:
    """Write the layer of :func:`changes`, gzip. ``epoch``: SOURCE_DATE_EPOCH, in seconds. Raises as that does, and
    LayerError for what a layer can't hold."""
    from ocidist.layers.diff import write_layer

    with _trees(store, upper, lower) as (below, above):
        return write_layer(below, above, write, scope, epoch=epoch)


def commit(store: Store, name: str, scope: Scope, *, epoch: int | None = None) -> CommittedLayer:
    """Keep what changed in an active snapshot as a layer: its blob in the store, held for 24 hours, and a committed
    snapshot keyed by its ChainID. The active one is gone then.

    Raises StoreError and LayerError; then the active snapshot is as it was.
    """
    from ocidist.errors import AlreadyExists
    from ocidist.spec.chain import child_id
    from ocidist.spec.digest import Digest

    store.require_writable()
    info = find(store, name)
    if info.kind != "active":
        why = "it is committed already" if info.kind == "committed" else "a view is read only"
        raise StoreError(info.key, f"nothing to commit: {why}")
    _refuse_mounted(store, info.key)
    content = store.content.within(scope)
    with content.writer(f"commit {info.key}") as writer:
        writer.truncate(0)
        made = make_layer(store, info.key, None, writer.write, scope, epoch=epoch)
        try:
            writer.commit(made.size, made.digest)
        except AlreadyExists:
            writer.abort()
    chain = child_id(Digest(info.parent), made.diff_id) if info.parent else made.diff_id
    store.hold_trees([str(chain)], scope)
    if made.clamped:  # the tree has other times than the layer gives
        store.applier(scope).apply(_descriptor(made), made.diff_id, info.parent, scope)
        store.snapshots.remove(info.key)
    else:
        store.snapshots.commit(str(chain), info.key)
    return CommittedLayer(made, chain)


def _descriptor(made: MadeLayer) -> Descriptor:
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.mediatype import OCI_LAYER_GZIP

    return Descriptor(OCI_LAYER_GZIP, made.digest, made.size)
