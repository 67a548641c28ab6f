"""Everything in a store against what it should be: blobs hashed, names and labels followed, trees looked for.

Nothing is written and nobody is kept waiting: a store that others work on can be checked. What they remove or
replace meanwhile is no damage; whatever seems to be missing is looked for once more at the end.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Iterable, Iterator

from ocidist.content.labels import CONTENT_LABEL, SNAPSHOT_LABEL
from ocidist.content.verify import BLOCK, fill_buffer
from ocidist.errors import BlobNotFound, ContentError, InvalidDigest, OcidistError, StoreError
from ocidist.graph.walk import children, walk
from ocidist.progress import Advanced, Failed, Finished, Queued
from ocidist.rows import Column, Rows, Schema
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.upkeep.collect import origins
from ocidist.stores.upkeep.trees import TreesReport, check_trees

if TYPE_CHECKING:
    from ocidist.content.protocols import Content
    from ocidist.scope import Scope
    from ocidist.snapshots.protocols import Snapshotter
    from ocidist.stores.store import Store

__all__ = ["CheckReport", "DamageRow", "check", "references"]

DAMAGE = Schema(
    "damage",
    (
        Column("kind"),
        Column("name"),
        Column("problem"),
        Column("images", "list"),
        Column("sources", "list"),
    ),
)


@dataclass(frozen=True)
class DamageRow:
    """One thing that is not as it should be.

    ``kind`` is blob (``name`` is its digest: not what that says, or missing), image (a name), snapshot (a ChainID),
    tree (a ChainID; ``path`` is what differs in it, from its root), stray (a path below the content directory that is
    none of the store's) or database. ``images`` are the names
    that are not whole because of it, and ``sources`` the repositories from which it can be had again.
    """

    kind: str
    name: str
    problem: str
    images: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    target: Descriptor | None = None
    path: str = ""


@dataclass(frozen=True)
class CheckReport:
    """The damage, and how many ``blobs`` of how many ``bytes`` were hashed for it; how many ``trees`` were compared, and
    those ``skipped`` (ChainID and why). ``unseen`` says of what other users keep for themselves why it was not looked at."""

    rows: Rows[DamageRow]
    blobs: int
    bytes: int
    trees: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    unseen: tuple[str, ...] = ()


def check(store: Store, scope: Scope, *, trees: bool = False) -> CheckReport:
    """Hash every blob, and follow every name, label and snapshot; with ``trees`` compare unpacked trees with their
    layers, which needs a store that can be written and room to unpack the largest image once more.

    Raises the scope's end, or StoreError where a directory can't be read. Emits Queued, Advanced, Finished and Failed.
    """
    found, strays, hidden = store.content.survey()
    unseen = list(hidden)
    todo = sorted(found)
    for digest in todo:
        scope.emit(Queued(Descriptor(mediatype.OCTET_STREAM, digest, found[digest])))
    bad: dict[Digest, str] = {}
    for digest in todo:
        problem = _hashed(store.content, digest, scope)
        if problem:
            bad[digest] = problem
            scope.emit(Failed(digest, problem))
        else:
            scope.emit(Finished(digest, "checked", "check"))
    rows = [DamageRow("stray", path, "nothing of the store has such a name") for path in strays]
    rows += references(store, bad, scope, unseen)
    compared = check_trees(store, scope) if trees and not unseen else TreesReport()
    for each in compared.problems:
        text = f"{each.path}: {each.text}" if each.path else each.text
        rows.append(DamageRow("tree", each.chain, text, each.images, path=each.path))
    size = sum(found.values())
    return CheckReport(Rows(DAMAGE, rows), len(found), size, compared.trees, compared.skipped, tuple(unseen))


def _hashed(content: Content, digest: Digest, scope: Scope) -> str:
    """What is wrong with a blob, "" if nothing. One that is replaced while it is read is read again."""
    while True:
        before = content.identity(digest)
        try:
            problem = _read(content, digest, scope)
        except BlobNotFound:  # deleted since it was listed; whether something wants it is seen later
            return ""
        except OcidistError as error:
            scope.check()
            problem = error.reason if isinstance(error, (ContentError, StoreError)) else str(error)
        if not problem or content.identity(digest) == before:
            return problem


def _read(content: Content, digest: Digest, scope: Scope) -> str:
    size = content.info(digest).size  # refuses all but regular files
    hasher, block, done = digest.hasher(), memoryview(bytearray(min(BLOCK, size + 1))), 0
    with closing(content.open(Descriptor(mediatype.OCTET_STREAM, digest, -1), scope)) as body:
        while True:
            scope.check()
            count = fill_buffer(body, block)
            if not count:
                break
            hasher.update(block[:count])
            done += count
            scope.emit(Advanced(digest, "check", done, size))
            scope.tick()
    real = Digest.from_hash(hasher)
    return "" if real == digest else f"its {done} bytes hash to {real}"


# -- what refers to them ----------------------------------------------------------------------------


@dataclass
class _Wanted:
    """A blob that names or labels lead to."""

    target: Descriptor
    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def references(
    store: Store,
    bad: dict[Digest, str],
    scope: Scope,
    unseen: list[str] | None = None,
) -> Iterator[DamageRow]:
    """The ``bad`` blobs (digest -> problem) with what needs them, then whatever names, labels and snapshots lead to
    and is missing. Nothing is hashed but manifests. What another user keeps for himself is added to ``unseen``."""
    try:
        problem = "; ".join(store.names.problems())
        following = _Following(store, bad, scope)
        following.images()
        following.labels()
        exact = SNAPSHOT_LABEL + store.snapshots.name
        labelled = [entry for entry in store.content.labeled(exact) if entry[1] == exact]
    except StoreError as error:
        problem, following, labelled = error.reason, _Following(store, bad, scope), []
    if problem:
        yield DamageRow("database", os.path.basename(store.names.place), problem)
    yield from following.rows()
    yield from _trees(store, labelled, [] if unseen is None else unseen)


class _Following:
    """From names and labels to blobs."""

    def __init__(self, store: Store, bad: dict[Digest, str], scope: Scope) -> None:
        self.names, self.content = store.names, store.content
        self.bad, self.scope = bad, scope
        self.wanted: dict[Digest, _Wanted] = {}
        self.of_images: list[DamageRow] = []
        self._parsed: dict[tuple[Digest, str], tuple[Descriptor, ...]] = {}

    def images(self) -> None:
        """Each name's target and all below it that must be here."""
        records, damaged = self.names.all()
        self.of_images += [DamageRow("image", each.name, each.problem) for each in damaged]
        for record in records:
            name = record.name
            for target in walk(record.target, lambda item, name=name: self._needed(item, name)):  # type: ignore[misc]
                self.scope.check()
                self._want(target).images.append(name)
                size = self._other_size(target)
                if size and target.digest not in self.bad:
                    problem = (
                        f"{target.digest} is whole with {size} bytes, but its descriptor says {target.size}"
                    )
                    self.of_images.append(DamageRow("image", name, problem))

    def _want(self, target: Descriptor) -> _Wanted:
        return self.wanted.setdefault(target.digest, _Wanted(target))

    def _needed(self, target: Descriptor, image: str) -> list[Descriptor]:
        """What must be here if ``target`` is: of an index those of its images that are, and one at least."""
        try:
            parts = self._children(target)
        except OcidistError as error:
            self.scope.check()
            kind = mediatype.kind(target.media_type)
            self.of_images.append(
                DamageRow("image", image, f"its {kind} {target.digest} can't be read: {error}")
            )
            return []
        parts = tuple(part for part in parts if not mediatype.is_foreign(part.media_type))
        if not mediatype.is_index(target.media_type):
            return list(parts)
        here = [part for part in parts if part.digest in self.bad or self.content.has(part.digest)]
        if parts and not here:
            self.of_images.append(
                DamageRow("image", image, f"none of the images that its index {target.digest} names is here")
            )
        return here

    def _children(self, target: Descriptor) -> tuple[Descriptor, ...]:
        if target.digest in self.bad or not self.content.has(target.digest):
            return ()
        key = target.digest, mediatype.base(target.media_type)
        if key not in self._parsed:
            self._parsed[key] = children(self.content, target, self.scope)
        return self._parsed[key]

    def labels(self) -> None:
        """What the labels of blobs that are here hold, and where each blob came from."""
        for holder, key, value in self.content.labeled(CONTENT_LABEL):
            try:
                owner, digest = Digest(holder), Digest(value)
            except InvalidDigest:  # it holds nothing
                continue
            if self.content.has(owner):
                wanted = self._want(Descriptor(mediatype.OCTET_STREAM, digest, -1))
                wanted.labels.append(f"the label {key} of {holder} points to it")
        for digest in self.bad:
            self._want(Descriptor(mediatype.OCTET_STREAM, digest, -1))
        repositories = origins(self.content)
        for digest, wanted in self.wanted.items():
            wanted.sources += repositories.get(str(digest), [])

    def rows(self) -> Iterator[DamageRow]:
        """Blobs that are damaged or missing, then images that can't be whole for another reason."""
        for digest in sorted(self.bad):
            wanted = self.wanted.get(digest) or _Wanted(Descriptor(mediatype.OCTET_STREAM, digest, -1))
            size = self._other_size(wanted.target)
            yield self._row(wanted, f"{self.bad[digest]}{size and f'; there should be {wanted.target.size}'}")
        for digest, wanted in sorted(self.wanted.items()):
            if digest not in self.bad and not self.content.has(digest):
                names = [name for name in wanted.images if self.names.get(name) is not None]
                if names or wanted.labels:
                    yield self._row(wanted, "; ".join(["missing", *wanted.labels[:1]]))
        yield from self.of_images

    def _other_size(self, target: Descriptor) -> str:
        """The size of the file, if it is another than the descriptor's."""
        try:
            size = self.content.info(target.digest).size
        except OcidistError:
            return ""
        return "" if target.size in (size, -1) else str(size)

    def _row(self, wanted: _Wanted, problem: str) -> DamageRow:
        names = tuple(dict.fromkeys(wanted.images))
        sources = tuple(dict.fromkeys(wanted.sources))
        return DamageRow("blob", str(wanted.target.digest), problem, names, sources, wanted.target)


# -- trees ------------------------------------------------------------------------------------------


def _trees(store: Store, labelled: Iterable[tuple[str, str, str]], unseen: list[str]) -> Iterator[DamageRow]:
    """Snapshots without their tree or their parent, and those that a config says are here and that are not."""
    snapshots = store.snapshots
    try:
        every = list(snapshots.walk())
    except StoreError as error:
        if isinstance(error.__cause__, PermissionError):
            unseen.append(str(error))
        else:
            yield DamageRow("snapshot", error.path, f"can't be looked at: {error.reason}")
        return
    committed = {info.key for info in every if info.kind == "committed"}
    for info in every:
        if info.parent and info.parent not in committed and _stands(snapshots, info.key):
            yield DamageRow("snapshot", info.key, f"its parent {info.parent} is missing")
        elif info.kind == "committed" and not _has_tree(store, info.key) and _stands(snapshots, info.key):
            yield DamageRow("snapshot", info.key, "its tree is missing")
    for digest, _, chain in labelled:
        try:
            here = store.content.has(Digest(digest))
        except InvalidDigest:
            continue
        if here and chain not in committed and not _stands(snapshots, chain):
            yield DamageRow("snapshot", chain, f"missing, but the config {digest} says that it is unpacked")


def _stands(snapshots: Snapshotter, key: str) -> bool:
    try:
        snapshots.stat(key)
    except OcidistError:
        return False
    return True


def _has_tree(store: Store, key: str) -> bool:
    try:
        return store.trees is None or os.path.isdir(store.trees.path(key))
    except OcidistError:
        return False
