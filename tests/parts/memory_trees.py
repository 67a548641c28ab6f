"""A Snapshotter and an Applier in memory: a tree is a dict of paths, a layer over it a new dict."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import time
from typing import Callable, Iterator, Sequence

from ocidist.content.protocols import Provider
from ocidist.errors import InvalidManifest, LayerError, StoreError
from ocidist.scope import Scope, no_check
from ocidist.snapshots.protocols import Mount, SnapshotInfo, Usage
from ocidist.spec.chain import chain_id, child_id
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

Tree = dict[str, bytes]


class MemorySnapshotter:
    """Keeps whole trees. Its mounts are of no kernel's."""

    name = "memory"

    def __init__(self) -> None:
        self._kept: dict[str, tuple[SnapshotInfo, Tree]] = {}

    def stat(self, key: str) -> SnapshotInfo:
        return self._find(key)[0]

    def tree(self, key: str) -> Tree:
        """The files of a snapshot, to be changed where it is active."""
        return self._find(key)[1]

    def prepare(self, key: str, parent: str = "", scope: Scope | None = None) -> Sequence[Mount]:
        return self._begin(key, parent, "active")

    def view(self, key: str, parent: str, scope: Scope | None = None) -> Sequence[Mount]:
        return self._begin(key, parent, "view")

    def _begin(self, key: str, parent: str, kind: str) -> Sequence[Mount]:
        info, tree = self._find(parent) if parent else (None, {})
        if info is not None and info.kind != "committed":
            raise StoreError(parent, "no such committed snapshot")
        self._kept[key] = SnapshotInfo(key, parent, kind, time.time()), dict(tree)
        return self.mounts(key)

    def mounts(self, key: str) -> Sequence[Mount]:
        kind = self.stat(key).kind
        if kind == "committed":
            raise StoreError(key, "a committed snapshot is not mounted; prepare one over it, or a view")
        return (Mount("memory", key, ("ro" if kind == "view" else "rw",)),)

    def commit(self, name: str, key: str, parent: str = "") -> None:
        info, tree = self._find(key)
        if info.kind != "active":
            raise StoreError(key, f"a {info.kind} snapshot, not an active one")
        del self._kept[key]
        made = SnapshotInfo(name, parent or info.parent, "committed", time.time())
        self._kept.setdefault(name, (made, tree))

    def remove(self, key: str, scope: Scope | None = None) -> None:
        self._find(key)
        del self._kept[key]

    def walk(self) -> Iterator[SnapshotInfo]:
        every = [info for info, _ in self._kept.values()]
        yield from sorted(every, key=lambda info: (info.kind != "committed", info.key))

    def usage(self, key: str, check: Callable[[], object] = no_check) -> Usage:
        tree = self.tree(key)
        check()
        return Usage(1 + len(tree), sum(map(len, tree.values())))

    def _find(self, key: str) -> tuple[SnapshotInfo, Tree]:
        if key not in self._kept:
            raise StoreError(key, "no such snapshot")
        return self._kept[key]


class MemoryApplier:
    """Applies regular files and whiteouts of their names."""

    def __init__(self, provider: Provider, snapshots: MemorySnapshotter) -> None:
        self._provider, self._snapshots = provider, snapshots

    def unpack(
        self,
        layers: Sequence[Descriptor],
        diff_ids: Sequence[Digest],
        scope: Scope,
        *,
        wait: Callable[[Descriptor], None] | None = None,
    ) -> Digest:
        if len(layers) != len(diff_ids):
            raise InvalidManifest("image", "layers and diff_ids differ in number")
        chain, parent = chain_id(diff_ids), ""
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if str(chain) in (info.key for info in self._snapshots.walk()):
                break
            if wait is not None:
                wait(layer)
            parent = str(self.apply(layer, diff_id, parent, scope))
        return chain

    def apply(self, layer: Descriptor, diff_id: Digest, parent: str, scope: Scope) -> Digest:
        scope.check()
        body, packed = self._provider.open(layer, scope), bytearray(layer.size)
        view = memoryview(packed)
        while view:
            view = view[body.readinto(view) :]
        body.close()
        plain = gzip.decompress(packed)
        if hashlib.sha256(plain).hexdigest() != diff_id.hex:
            raise LayerError(str(layer.digest), "", f"its DiffID is not {diff_id}")
        chain = child_id(Digest(parent), diff_id) if parent else diff_id
        self._snapshots.prepare("applying", parent)
        tree = self._snapshots.tree("applying")
        with tarfile.open(fileobj=io.BytesIO(plain)) as members:
            for member in members:
                above, _, name = member.name.rpartition("/")
                if name.startswith(".wh."):
                    tree.pop(f"{above}/{name[4:]}".lstrip("/"), None)
                elif member.isreg() and (file := members.extractfile(member)) is not None:
                    tree[member.name] = file.read()
        self._snapshots.commit(str(chain), "applying", parent)
        return chain
