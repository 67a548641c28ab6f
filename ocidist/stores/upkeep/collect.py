"""Garbage collection: what no name, no lease and no label holds is removed.

Roots are the images' targets, the content of unexpired leases, and blobs labelled ``containerd.io/gc.root``.
From them manifests and indices are followed, each only if its bytes are what its digest says. A damaged one, or
one that can't be parsed, hides what it names: then all digests that it spells and all content of the same origin
stay, a problem is reported, and the rest is collected. The collector is alone inside the gate that every commit
passes, so it never sees a blob before the lease that holds it.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Iterable, Iterator

from ocidist.content.labels import CONTENT_LABEL, ROOT_LABEL, SNAPSHOT_LABEL, SOURCE_LABEL
from ocidist.errors import BlobNotFound, DigestMismatch, InvalidDigest, OcidistError, SizeMismatch, StoreError
from ocidist.graph.walk import children, mentioned, walk
from ocidist.images.protocols import DAY, LEASED, UNNAMED
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.reference import Reference
from ocidist.stores.upkeep.usage import measure

if TYPE_CHECKING:
    from ocidist.content.protocols import Content, Info, Remover
    from ocidist.images.protocols import Lease
    from ocidist.scope import Scope
    from ocidist.snapshots.protocols import SnapshotInfo, Snapshotter
    from ocidist.stores.store import Store

__all__ = ["CollectReport", "Removed", "collect"]


@dataclass(frozen=True)
class Removed:
    """A blob that went. ``size`` is in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True)
class CollectReport:
    """What went, or with ``dry_run`` would go; ``kept`` counts the blobs that stay. ``held`` are those among them
    that stay for up to 24 hours only: nothing but the leases of fetch, ingest and interrupted pulls holds them.
    ``snapshot_bytes`` is the size of the files in the trees that went, those of interrupted unpacking (``unpackings``)
    among them, and ``ingest_bytes`` that of the ingests; ``kept_ingests`` and ``kept_ingest_bytes`` are those that stay,
    under way or to be resumed. ``unknown`` and ``unknown_snapshots`` stay because they are
    older than the database of names, which knows nothing of them: it may have been lost. ``problems`` are sentences, one for each
    manifest that can't be followed, with the image or lease that holds it and what to do, and each tree that can't be
    removed."""

    blobs: tuple[Removed, ...] = ()
    ingests: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    leases: tuple[str, ...] = ()
    kept: int = 0
    dry_run: bool = False
    held: tuple[Removed, ...] = ()
    snapshot_bytes: int = 0
    problems: tuple[str, ...] = ()
    ingest_bytes: int = 0
    unpackings: int = 0
    unknown: tuple[Removed, ...] = ()
    unknown_snapshots: tuple[str, ...] = ()
    kept_ingests: tuple[str, ...] = ()
    kept_ingest_bytes: int = 0

    @property
    def freed(self) -> int:
        """All bytes that went."""
        return self.bytes + self.snapshot_bytes + self.ingest_bytes

    @property
    def bytes(self) -> int:
        """The sum of the blobs' sizes."""
        return sum(blob.size for blob in self.blobs)

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The blobs' digests."""
        return tuple(blob.digest for blob in self.blobs)


def collect(store: Store, scope: Scope, *, dry_run: bool = False, everything: bool = False) -> CollectReport:
    """Remove garbage: blobs, ingests that nobody holds and that are a day old, snapshots, expired leases, what killed
    processes left of their unpacking. With ``everything`` also the leases of 24 hours that nobody is using, ingests
    of any age, and what the database of names is too young to know.

    Waits for commits under way, and they for it. Raises the scope's end, or StoreError.
    """
    content, snapshots = store.content, store.snapshots
    with content.alone(scope, looking=dry_run) as remover:
        now = time.time()
        leases = store.leases.all()
        live = [lease for lease in leases if lease.expires_at > now]
        loose = [lease for lease in live if _left_behind(store, lease)]
        if everything:
            live = [lease for lease in live if lease not in loose]
        staying = {lease.id for lease in live}
        ended = tuple(lease.id for lease in leases if lease.id not in staying)
        marking = _Marking(store, scope)
        marking.names_and_labels()
        marking.leases([lease for lease in live if lease not in loose])
        firmly = set(marking.kept)
        marking.leases(live)
        kept = marking.kept
        here = list(content.walk())
        strange = _Unknown(content, leases, 0 if everything else store.names.since())
        garbage = [info for info in here if info.digest not in kept]
        unknown = _removed(info for info in garbage if strange.blob(info))
        blobs = tuple(blob for blob in _removed(garbage) if blob not in unknown)
        keys = [ref for lease in live for kind, ref in lease.resources if kind == "ingest"]
        unseen: list[str] = []
        try:
            names, lost = _garbage_snapshots(content, snapshots, live, kept, strange)
            stale = store.trees.stale() if store.trees is not None else []
        except StoreError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            names, lost, stale = [], [], []  # the trees of another user are out of sight
            unseen = [] if dry_run else [f"{error}; until it can be read no tree is removed"]
        in_trees = sum(_tree_size(store, name, scope) for name in names)
        sizes_of_stale = {path: measure(os.fspath(path), scope).size for path in stale}
        sizes = {status.key: status.offset for status in content.statuses()}
        before = float("inf") if everything else now - DAY
        ingests = tuple(content.sweep(before, keep=keys, dry_run=dry_run))
        left = [key for key in sizes if key not in ingests]
        stuck: list[str] = unseen
        if not dry_run:
            strangers = list(_strangers(content, kept, {info.digest for info in here}))
            stays: list[Digest] = []
            stuck += _sweep(store, remover, blobs, names, ended, strangers, scope, stays)
            blobs = tuple(blob for blob in blobs if blob.digest not in stays)
            stale = [path for path in stale if not os.path.lexists(path)]
        return CollectReport(
            blobs=blobs,
            ingests=ingests,
            snapshots=tuple(names),
            leases=ended,
            kept=len(here) - len(blobs),
            dry_run=dry_run,
            held=_removed(info for info in here if info.digest in kept and info.digest not in firmly),
            snapshot_bytes=in_trees + sum(sizes_of_stale[path] for path in stale),
            problems=(*marking.problems.values(), *dict.fromkeys(stuck)),
            ingest_bytes=sum(sizes.get(key, 0) for key in ingests),
            kept_ingests=tuple(left),
            kept_ingest_bytes=sum(sizes[key] for key in left),
            unpackings=len(stale),
            unknown=unknown,
            unknown_snapshots=tuple(lost),
        )


def _removed(infos: Iterable[Info]) -> tuple[Removed, ...]:
    return tuple(Removed(info.digest, info.size) for info in infos)


class _Unknown:
    """What the database, made at ``made_at``, is too young to know, and has no word of."""

    def __init__(self, content: Content, leases: Iterable[Lease], made_at: float) -> None:
        self._made_at = made_at
        resources = {ref for lease in leases for _, ref in lease.resources}
        labels = content.labeled("")
        trees = {value for _, key, value in labels if key.startswith(SNAPSHOT_LABEL)}
        self._known = resources | {digest for digest, _, _ in labels} | trees

    def blob(self, info: Info) -> bool:
        return info.created_at < self._made_at and info.digest not in self._known

    def tree(self, info: SnapshotInfo) -> bool:
        return info.created_at < self._made_at and info.key not in self._known


def _left_behind(store: Store, lease: Lease) -> bool:
    """Whether a lease is one of those that fetch, ingest and pulls take by themselves, and nobody is at it."""
    return lease.id.startswith((UNNAMED, LEASED)) and not store.leases.in_use(lease.id)


@dataclass(frozen=True)
class _Step:
    """Something to keep; ``holder`` is what holds it, in words, ``way_out`` what can be done about it, and ``image``
    the name that led to it."""

    target: Descriptor
    holder: str
    way_out: str
    image: str = ""


class _Marking:
    """All that is held, found from roots; more roots can follow. ``problems`` are manifests that can't be followed."""

    def __init__(self, store: Store, scope: Scope) -> None:
        self.names, self.content, self.scope = store.names, store.content, scope
        self.kept: set[Digest] = set()
        self.problems: dict[str, str] = {}
        self._seen: set[tuple[Digest, str]] = set()
        self._references: dict[str, list[str]] = {}
        for digest, _, value in self.content.labeled(CONTENT_LABEL):
            self._references.setdefault(digest, []).append(value)

    def names_and_labels(self) -> None:
        """The images' targets, and what is labelled as a root."""
        records, damaged = self.names.all()
        todo = [
            _Step(record.target, record.name, f"pull {record.name} again, or rmi it", record.name)
            for record in records
        ]
        for name, digest, problem in damaged:
            self.problems[name] = f"{problem}; what is known to come from where it did is kept"
            found = (_unknown(self.content, digest), *self._of_origins(_repository(name) or {""}))
            todo += [_Step(item, name, f"rmi {name}", name) for item in found]
        for digest, key, _ in self.content.labeled(ROOT_LABEL):
            if key == ROOT_LABEL:
                way_out = f"fetch it again, or delete {digest}"
                todo.append(_Step(_unknown(self.content, digest), f"the label {ROOT_LABEL}", way_out))
        self._follow(todo)

    def leases(self, leases: Iterable[Lease]) -> None:
        """The content of leases."""
        self._follow(
            [
                _Step(_unknown(self.content, ref), f"lease {lease.id}", f"pull again, or delete {ref}")
                for lease in leases
                for kind, ref in lease.resources
                if kind == "content"
            ]
        )

    def _follow(self, steps: Iterable[_Step]) -> None:
        for step in steps:
            for target in walk(step.target, lambda item, step=step: self._held(item, step), self._seen):  # type: ignore[misc]
                self.kept.add(target.digest)

    def _held(self, target: Descriptor, step: _Step) -> Iterator[Descriptor]:
        """Yield what ``target`` holds: what it names, and what its labels refer to."""
        self.scope.check()
        yield from self._named(target, step)
        for ref in self._references.get(str(target.digest), ()):
            yield _unknown(self.content, ref)

    def _named(self, target: Descriptor, step: _Step) -> Iterable[Descriptor]:
        """Return what a manifest names; of one that is damaged, or can't be read as one, all that it might."""
        try:
            return children(self.content, target, self.scope)
        except BlobNotFound:
            return ()
        except OcidistError as error:
            self.scope.check()
            damaged = isinstance(error, (DigestMismatch, SizeMismatch))
            return self._spared(target, step, "is damaged" if damaged else f"can't be read ({error})")

    def _spared(self, target: Descriptor, step: _Step, why: str) -> Iterator[Descriptor]:
        """Yield what a manifest that can't be followed may name: the digests in its bytes, and all content of its origin."""
        kind = "content" if mediatype.is_generic(target.media_type) else mediatype.kind(target.media_type)
        problem = f"the {kind} {target.digest}, held by {step.holder}, {why}"
        self.problems.setdefault(target.digest, f"{problem}; what it may name is kept: {step.way_out}")
        for digest in mentioned(self.content, target.digest, self.scope):
            yield _unknown(self.content, digest)
        yield from self._of_origins({*self._origins.get(target.digest, [""]), *_repository(step.image)})

    def _of_origins(self, repositories: set[str]) -> Iterator[Descriptor]:
        """The blobs that came from any of them; "" is a place that is not known."""
        for info in self.content.walk():
            if not repositories.isdisjoint(self._origins.get(info.digest, [""])):
                yield _unknown(self.content, info.digest)

    @cached_property
    def _origins(self) -> dict[str, list[str]]:
        return origins(self.content)


def origins(content: Content) -> dict[str, list[str]]:
    """Digest -> the repositories that a blob is known to come from."""
    found: dict[str, list[str]] = {}
    for digest, key, value in content.labeled(SOURCE_LABEL):
        host = key[len(SOURCE_LABEL) :]
        found.setdefault(digest, []).extend(f"{host}/{part}" for part in value.split(",") if part)
    return found


def _repository(name: str) -> set[str]:
    """The repository in an image's name; empty for any other name."""
    try:
        reference = Reference.parse(name)
    except OcidistError:
        return set()
    return {f"{reference.domain}/{reference.path}"}


def _unknown(content: Content, text: str) -> Descriptor:
    """A descriptor for a digest of which nothing else is known; a text that is none stands for nothing."""
    try:
        digest = Digest(text)
        size = content.info(digest).size
    except BlobNotFound:
        size = 0
    except OcidistError:
        digest, size = Digest.of(b""), 0
    return Descriptor(mediatype.OCTET_STREAM, digest, size)


def _garbage_snapshots(
    content: Content,
    snapshots: Snapshotter,
    live: Iterable[Lease],
    kept: set[Digest],
    strange: _Unknown,
) -> tuple[list[str], list[str]]:
    """Committed snapshots that nothing refers to, children before parents; and those that are not known."""
    wanted = {ref for lease in live for kind, ref in lease.resources if kind == "snapshot"}
    for digest, key, value in content.labeled(SNAPSHOT_LABEL):
        if digest in kept and key == SNAPSHOT_LABEL + snapshots.name:
            wanted.add(value)
    every = list(snapshots.walk())
    parents = {info.key: info.parent for info in every}
    for info in every:
        if info.kind != "committed":  # being prepared, or a container's: its user removes it
            wanted.add(info.key)
    lost = [info.key for info in every if info.key not in wanted and strange.tree(info)]
    held: set[str] = set()
    for key in (*wanted, *lost):
        while key and key not in held:
            held.add(key)
            key = parents.get(key, "")
    garbage = [info.key for info in every if info.key not in held]
    return sorted(garbage, key=lambda key: -_depth(key, parents)), lost


def _tree_size(store: Store, key: str, scope: Scope) -> int:
    """Bytes of the files in a snapshot, hardlinks once; 0 where that can't be seen."""
    try:
        if store.trees is None:
            return store.snapshots.usage(key, scope.check).size
        return measure(os.fspath(store.trees.path(key)), scope).size
    except OcidistError:
        return 0


def _depth(key: str, parents: dict[str, str]) -> int:
    seen: set[str] = set()
    while key and key not in seen:
        seen.add(key)
        key = parents.get(key, "")
    return len(seen)


def _sweep(
    store: Store,
    remover: Remover,
    blobs: Iterable[Removed],
    names: Iterable[str],
    ended: Iterable[str],
    forgotten: Iterable[Digest],
    scope: Scope,
    stays: list[Digest],
) -> list[str]:
    """Remove all that; what is wrong with trees, and with blobs (which ``stays`` gets), that can't be: they stop nothing
    else."""
    gone, stuck = list(forgotten), []
    try:
        for blob in blobs:
            scope.check()
            try:
                remover.delete(blob.digest)
            except BlobNotFound:  # deleted by hand meanwhile
                pass
            except StoreError as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno != errno.EPERM:
                    raise
                stuck.append(f"{error}; it may be immutable: `chattr -i` it, then gc")
                stays.append(blob.digest)
                continue
            gone.append(blob.digest)
    finally:
        if gone:  # before the trees go: a config that is fetched again must not say that its tree is here
            remover.forget(gone)
    for name in names:
        scope.check()
        try:
            store.snapshots.remove(name)
        except StoreError as error:
            stuck.append(str(error))
    try:
        if store.trees is not None:
            store.trees.remove_stale()
    except StoreError as error:
        stuck.append(str(error))
    ids = list(ended)
    if ids:
        store.leases.delete(ids)
    store.leases.sweep()
    return stuck


def _strangers(content: Content, kept: set[Digest], here: set[Digest]) -> Iterator[Digest]:
    """Blobs that are neither here nor held, and yet have labels: a collector was killed before it forgot them."""
    for text, _, _ in content.labeled(""):
        try:
            digest = Digest(text)
        except InvalidDigest:
            continue
        if digest not in kept and digest not in here:
            yield digest
