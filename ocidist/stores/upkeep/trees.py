"""The files of unpacked trees against what their layers say: a power cut may have left some of them empty.

A tree is unpacked once more from its blobs, out of sight on the same file system, and compared. Of an overlay root each
layer's own tree is; those beneath it stay until no tree to come stands on them, so each layer is unpacked once.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Iterator

from ocidist.errors import BlobNotFound, OcidistError, StoreError
from ocidist.graph.walk import reachable, verified
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.chain import chain_ids
from ocidist.spec.config import ImageConfig
from ocidist.spec.manifest import Manifest
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.verify import differences

if TYPE_CHECKING:
    from typing import Sequence

    from ocidist.scope import Scope
    from ocidist.snapshots.protocols import LocalTrees
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest
    from ocidist.stores.store import Store

__all__ = ["TreeProblem", "TreesReport", "check_trees", "remake", "unpackable"]

SHOWN = 20  # differences of one tree that have a row each


@dataclass(frozen=True)
class TreeProblem:
    """One difference in the tree ``chain``: at ``path`` (from its root; "" for the tree as a whole), and the images that
    have the tree."""

    chain: str
    path: str
    text: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class TreesReport:
    """The problems, how many ``trees`` were compared, and those ``skipped`` (ChainID and why)."""

    problems: tuple[TreeProblem, ...] = ()
    trees: int = 0
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Source:
    """The lowest layers of an image, of which a tree is made."""

    image: str
    layers: Sequence[Descriptor]
    diff_ids: Sequence[Digest]


@dataclass
class _Tree:
    key: str
    beneath: tuple[str, ...]  # ChainIDs of its layers, the lowest first, and its own
    sources: dict[Digest, _Source] = field(default_factory=dict)  # by their manifest
    images: dict[str, None] = field(default_factory=dict)


def unpackable(store: Store, scope: Scope) -> Iterator[tuple[str, Manifest, ImageConfig]]:
    """Yield every image in the store that has a root filesystem, with each of its names."""

    def read(target: Descriptor) -> bytes:
        return verified(store.content, target, scope) if target.data is None else target.data

    for record in store.names.all()[0]:
        for item in reachable(store.content, record.target, scope):
            if not mediatype.is_manifest(item.media_type):
                continue
            try:
                manifest = manifests.parse(read(item), item.media_type)
                if (
                    isinstance(manifest, Manifest)
                    and manifest.config
                    and mediatype.is_config(manifest.config.media_type)
                ):
                    yield record.name, manifest, ImageConfig.parse(read(manifest.config))
            except OcidistError:  # not here, or damaged: then it is told as such
                scope.check()


def _trees(store: Store, keys: set[str], scope: Scope) -> dict[str, _Tree]:
    """What the trees ``keys`` are made of; those of no image are left out."""
    found: dict[str, _Tree] = {}
    for image, manifest, config in unpackable(store, scope):
        ids = config.diff_ids
        if len(ids) != len(manifest.layers):
            continue
        beneath: list[str] = []
        for count, chain in enumerate(chain_ids(ids), 1):
            beneath.append(str(chain))
            if beneath[-1] in keys:
                tree = found.setdefault(beneath[-1], _Tree(beneath[-1], tuple(beneath)))
                source = _Source(image, manifest.layers[:count], ids[:count])
                tree.sources.setdefault(manifest.descriptor().digest, source)
                tree.images[image] = None
    return found


def _unpacked(store: Store, scratch: LocalTrees, tree: _Tree, scope: Scope) -> str:
    """Unpack the tree in ``scratch``, from the first image of which that is possible: its name. Raises as unpack."""
    from ocidist.snapshots.unpack import LocalApplier

    trouble: OcidistError = BlobNotFound(tree.key, "no image of the store has this tree")
    for source in tree.sources.values():
        try:
            LocalApplier(store.content, scratch).unpack(source.layers, source.diff_ids, scope)
            return source.image
        except OcidistError as error:
            scope.check()
            trouble = error
    raise trouble


def check_trees(store: Store, scope: Scope) -> TreesReport:
    """Compare every committed tree with its layers. Raises the scope's end, and StoreError where nothing can be written.

    A tree that can't be unpacked again, because a blob is damaged or for want of room, is a problem too.
    """
    store.require_writable()
    snapshots = store.local_trees()
    keys = {info.key for info in snapshots.walk() if info.kind == "committed"}
    if not keys:
        return TreesReport()
    trees = _trees(store, keys, scope)
    skipped = [
        (key, "no image in the store has it, so nothing tells its files")
        for key in sorted(keys - trees.keys())
    ]
    problems: list[TreeProblem] = []
    count = 0
    with snapshots.scratch() as scratch:
        since = os.stat(scratch.begin("the time before")).st_mtime_ns
        for tree in sorted(trees.values(), key=lambda tree: tree.beneath):
            for info in list(scratch.walk()):
                if info.key not in tree.beneath:
                    scratch.remove(info.key, scope)
            owner = _owner(snapshots, tree.key)
            if owner is not None and owner != os.geteuid():
                skipped.append((tree.key, f"user {owner} unpacked it; run `check --trees` as that user"))
                continue
            count += 1
            images = tuple(tree.images)
            try:
                _unpacked(store, scratch, tree, scope)
            except OcidistError as error:
                scope.check()
                problems.append(TreeProblem(tree.key, "", f"can't be compared: {error}", images))
                continue
            found = _differing(snapshots, scratch, tree.key, since, scope)
            problems += [TreeProblem(tree.key, path, text, images) for path, text in found]
    return TreesReport(tuple(problems), count, tuple(skipped))


def _owner(snapshots: LocalTrees, key: str) -> int | None:
    try:
        return os.stat(snapshots.path(key).parent).st_uid if hasattr(os, "geteuid") else None
    except (OSError, StoreError):
        return None


def _differing(
    snapshots: LocalTrees, scratch: LocalTrees, key: str, since: int, scope: Scope
) -> list[tuple[str, str]]:
    """The first differences, and how many more there are. A tree that is replaced meanwhile is looked at again."""
    while True:
        before = _identity(snapshots, key)
        if before is None:  # removed since, or it has no tree: that is told elsewhere
            return []
        try:
            with (
                closing(DirectoryReader(snapshots.path(key))) as tree,
                closing(DirectoryReader(scratch.path(key))) as wanted,
            ):
                every = differences(tree, wanted, since, scope)
                found = [("/" + os.fsdecode(path), text) for path, text in islice(every, SHOWN)]
                more = sum(1 for _ in every)
        except (OSError, StoreError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or error
            found, more = [("", f"can't be read: {why}")], 0
        if found and _identity(snapshots, key) != before:
            continue
        return [*found, *([("", f"and {more:,} more")] if more else [])]


def _identity(snapshots: LocalTrees, key: str) -> tuple[int, int] | None:
    try:
        info = os.stat(snapshots.path(key))
    except (OSError, StoreError):
        return None
    return info.st_dev, info.st_ino


# -- repair -----------------------------------------------------------------------------------------


def remake(store: Store, key: str, scope: Scope) -> str:
    """Unpack the committed tree ``key`` again, in the place of the one that is there: the image that it was made from.

    Raises StoreError where a prepared snapshot stands on it, and as unpack; then it is as it was.
    """
    snapshots = store.local_trees()
    tree = _trees(store, {key}, scope).get(key)
    if tree is None:
        raise StoreError(key, "no image of the store has this tree; pull one that does")
    _refuse_held(snapshots, key)
    with snapshots.scratch() as scratch:
        image = _unpacked(store, scratch, tree, scope)
        _refuse_held(snapshots, key)
        snapshots.replace(key, scratch, scope)
    return image


def _refuse_held(snapshots: LocalTrees, key: str) -> None:
    """Raise StoreError if anything that is prepared stands on ``key``."""
    for above in snapshots.dependents(key):
        raise StoreError(
            key, f"{above} stands on it; `rootfs commit` or `rootfs rm` that first, then repair again"
        )
