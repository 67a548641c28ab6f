"""Store: content, names, leases and snapshots as one. The only public writer of any of them."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Mapping

from ocidist.content.fill import fill, ref_key
from ocidist.content.labels import SNAPSHOT_LABEL, SOURCE_LABEL
from ocidist.content.verify import read_all
from ocidist.errors import (
    BlobNotFound,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    Locked,
    OcidistError,
    StoreError,
    Unsupported,
    UsageError,
)
from ocidist.images.leases import SqliteLeases
from ocidist.images.protocols import DAY, LEASED, UNNAMED, ImageRecord, Images, Leases, lease_of
from ocidist.images.replayed import marking
from ocidist.images.sqlite import SqliteImages
from ocidist.remotes import Locator
from ocidist.remotes.protocols import Origin
from ocidist.scope import Scope
from ocidist.settings import store_root
from ocidist.spec import mediatype
from ocidist.spec.chain import chain_id, chain_ids
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.document import MAX_SIZE
from ocidist.spec.manifest import parse
from ocidist.spec.prefix import complete, is_prefix
from ocidist.spec.reference import Reference
from ocidist.stores.absent import Absent
from ocidist.stores.leased import LeasedContent
from ocidist.stores.local import LocalPlace, local_applier
from ocidist.stores.place import Place

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.content.protocols import Body, Content, Writer
    from ocidist.remotes.protocols import Source
    from ocidist.rows import Rows
    from ocidist.snapshots.protocols import Applier, LocalTrees, Snapshotter
    from ocidist.spec.config import ImageConfig
    from ocidist.spec.manifest import Manifest
    from ocidist.stores.upkeep.check import DamageRow
    from ocidist.stores.upkeep.collect import CollectReport
    from ocidist.stores.upkeep.inventory import ActiveRow, BlobRow, ImageRow
    from ocidist.stores.upkeep.usage import UsageRow

__all__ = ["Store"]


class Store:
    """A Source and a Sink, made of its parts: see :meth:`at` for the one in a directory.

    ``names`` are what ``images`` lists. ``snapshots``, ``trees`` and ``applier`` are called at first use; without ``trees``
    the snapshots are not directories of this machine.
    """

    def __init__(
        self,
        *,
        content: Content,
        names: Images,
        leases: Leases,
        snapshots: Callable[[], Snapshotter],
        applier: Callable[[Store], Applier],
        trees: Callable[[], LocalTrees] | None = None,
        place: Place | None = None,
    ) -> None:
        self.content, self.names, self.leases = content, names, leases
        self.place = place or Place()
        self._open_snapshots, self._open_applier, self._open_trees = snapshots, applier, trees
        self._snapshots: Snapshotter | None = None
        self._trees: LocalTrees | None = None

    @classmethod
    def at(
        cls,
        root: str | os.PathLike[str] | None = None,
        *,
        readonly: bool = False,
        snapshotter: str | None = None,
        shared: bool = False,
    ) -> Store:
        """The store in the directory ``root`` (default: the settings' root). Nothing is made by opening it.

        ``readonly`` refuses every write, and takes no locks and no leases: for a root that another owns. One of
        containerd's, or the content directory in it, is always opened so. Where ``root`` is itself a content directory
        its blobs can be read. ``snapshotter`` names the one that a new root is to have from now on.

        A new root is its owner's alone, or with ``shared`` one whose blobs and names other users may read.
        """
        place = LocalPlace(store_root() if root is None else os.fspath(root), readonly, snapshotter, shared)
        leases = SqliteLeases(place.database)
        return cls(
            content=LeasedContent(place.blobs, leases),
            names=SqliteImages(place.database),
            leases=leases,
            snapshots=place.trees,
            applier=local_applier,
            trees=place.trees,
            place=place,
        )

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Store]:
        """A store in a temporary directory, removed at the end of the block."""
        import shutil
        import tempfile

        root = tempfile.mkdtemp(prefix="ocidist-")
        try:
            with cls.at(root) as store:
                yield store
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def within(self, scope: Scope) -> Store:
        """The same store, where also what takes no scope of its own ends with ``scope``."""
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.content, bound.names = self.content.within(scope), self.names.within(scope)
        bound.leases = self.leases.within(scope)
        return bound

    def close(self) -> None:
        """Let go of what is open. The store can be used again."""
        self.place.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.place.name!r}{', read-only' if self.place.readonly else ''}>"

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[str, bool, str | None, bool]]:
        if self.place.options is None:
            raise UsageError(f"the store in {self.place.name} can't be sent to another process")
        return _reopened, self.place.options

    @property
    def readonly(self) -> bool:
        """Whether every write is refused."""
        return self.place.readonly

    @property
    def root(self) -> Path:
        """The directory that holds everything. Raises StoreError for a store that is not in one."""
        return self.place.root

    @property
    def snapshots(self) -> Snapshotter:
        """The snapshotter. Raises StoreError, UsageError."""
        if self._snapshots is None:
            self._snapshots = self._open_snapshots()
        return self._snapshots

    @property
    def trees(self) -> LocalTrees | None:
        """The trees of snapshots, if they are directories of this machine. Raises StoreError, UsageError."""
        if self._trees is None and self._open_trees is not None:
            self._trees = self._open_trees()
        return self._trees

    def local_trees(self) -> LocalTrees:
        """:attr:`trees`. Raises StoreError if they are not directories of this machine."""
        if self.trees is None:
            raise StoreError(self.place.name, "its snapshots are not directories of this machine")
        return self.trees

    def applier(self, scope: Scope) -> Applier:
        """What applies layers of this store to its snapshots."""
        return self._open_applier(self.within(scope))

    # -- Source --

    host = ""

    def origin(self, target: Descriptor) -> Origin | None:
        """Return the first repository of those that the blob's labels name."""
        for key, value in self.content.labels(target.digest).items():
            if key.startswith(SOURCE_LABEL):
                return Origin(key[len(SOURCE_LABEL) :], value.partition(",")[0])
        return None

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        """Return what an image's name, or a digest of any object, stands for here, without its bytes.

        Raises BlobNotFound.
        """
        scope.check()
        bound = self.within(scope)
        found = bound.find_image(name)
        if found is not None:
            return bound.get_image(found), None
        digest, start = _digest_in(name), name.rpartition("@")[2]
        if digest is None and ":" in start and is_prefix(start):
            digest = complete(start, (info.digest for info in self.content.walk()), "blob")
        if digest is None or not self.content.has(digest):
            raise BlobNotFound(name, "no image of that name in the store; pull it first")
        return bound._describe(digest, scope), None

    def _describe(self, digest: Digest, scope: Scope) -> Descriptor:
        """A descriptor for a bare digest: a name's, else what the content shows itself to be."""
        for record in self.names.of(digest):
            return record.target
        size = self.content.info(digest).size
        media_type = mediatype.OCTET_STREAM
        target = Descriptor(media_type, digest, size)
        if size <= MAX_SIZE:
            try:
                media_type = parse(read_all(self.open(target, scope), target, MAX_SIZE)).media_type
            except (InvalidManifest, Unsupported):
                return target
        return Descriptor(media_type, digest, size)

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        """The bytes of a blob, unverified. Raises BlobNotFound, SizeMismatch."""
        return self.content.open(target, scope, offset=offset, length=length)

    # -- Sink --

    def exists(self, target: Descriptor, scope: Scope) -> bool:
        """True if it is here; from then on the scope's lease holds it, so that no collector takes it."""
        content = self.content.within(scope)
        if not content.hold(target.digest, target.size):
            return False
        with suppress(Locked, StoreError):  # what a killed writer left of it
            content.abort(ref_key(target))
        return True

    def push(self, target: Descriptor, source: Source, scope: Scope) -> None:
        """Fetch ``target`` from ``source``, resuming, verified before it is visible; see ``content.fill``.

        A label says in which repository ``source`` knows it.
        """
        self.place.require_writable()
        labels = _origin_label(source, target)
        content = self.content.within(scope)
        while fill(content, content, target, source, scope, labels=labels) == "exists":
            if content.hold(target.digest, target.size, labels):
                return
            # The collector took it between our look and our hold: it has to be fetched after all.

    def replace(self, target: Descriptor, source: Source, scope: Scope) -> None:
        """Fetch ``target`` whatever lies in its place, and put it there once it is verified. Raises as :meth:`push`."""
        self.place.require_writable()
        again = Absent(self.content.within(scope))
        labels = _origin_label(source, target)
        try:
            fill(again, again, target, source, scope, key=f"repair-{target.digest}", labels=labels)
        except StoreError as error:
            if isinstance(error.__cause__, IsADirectoryError):
                raise StoreError(str(error.path), "a directory lies in its place; move it away") from error
            raise

    def finalize(self, scope: Scope) -> None:
        """Do nothing: each blob and name is durable by itself."""

    def tag(self, name: str, target: Descriptor, scope: Scope, *, replayed: str = "") -> None:
        """``name``, normalised, stands for ``target`` from now on. Raises BlobNotFound if that is not here.

        A locator of another kind than a registry's is a name as it is written. ``replayed`` is the cassette that
        answered in place of the registry: such a name bears a mark, and takes no other's place (StoreError).
        """
        where = Locator.parse(name)
        full = Reference.parse(where.body).image_name if where.kind == "registry" else name
        self.place.require_writable()
        revise = marking(self.place.name, full, target.digest, replayed)
        with self.leases.within(scope).adding():
            if not self.content.has(target.digest, target.size):
                raise BlobNotFound(target, f"not in the store, so {full} can't stand for it")
            self.names.within(scope).put(full, target, revise=revise)

    @contextmanager
    def lease(self, seconds: float = DAY, scope: Scope | None = None) -> Iterator[str]:
        """The id of a lease, for ``scope.lease``. It ends with the block; after an error, or a crash, only when
        ``seconds`` have passed, so that what was fetched is still here for the next try. While the block runs a
        lock tells ``gc --all`` that the lease is in use."""
        self.place.require_writable()
        id_ = f"{LEASED}{os.urandom(8).hex()}"
        leases = self.leases if scope is None else self.leases.within(scope)
        with leases.using(id_):
            leases.create(id_, time.time() + seconds)
            yield id_
            with suppress(StoreError):  # it ends by itself
                leases.delete([id_])

    @contextmanager
    def fetching(self, scope: Scope) -> Iterator[None]:
        """While the block runs, ``gc --all`` leaves what has no name alone."""
        with self.leases.within(scope).using(UNNAMED):
            yield

    def hold_trees(self, chains: Iterable[str], scope: Scope) -> None:
        """The scope's lease holds trees, by ChainID, here or to be made. A collector under way has ended by then: one
        that is still here afterwards stays. Raises StoreError, the scope's end."""
        leases = self.leases.within(scope)
        with leases.adding():
            leases.hold(*lease_of(scope), [("snapshot", chain) for chain in chains])

    # -- names --

    def find_image(self, ref: str) -> str | None:
        """The name under which ``ref``, as written or normalised, is known."""
        for name in (ref, _normal(ref)):
            if name is not None and self.names.has(name):
                return name
        return None

    def get_image(self, name: str) -> Descriptor:
        """What ``name`` stands for. Raises BlobNotFound."""
        found = self.find_image(name)
        record = self.names.get(found) if found is not None else None
        if record is None:
            raise BlobNotFound(name, "no image of that name in the store; pull it first")
        return record.target

    def remove_image(self, name: str) -> bool:
        """Forget a name; True if it was known. Its content goes at :meth:`gc`."""
        self.place.require_writable()
        found = self.find_image(name)
        return found is not None and self.names.delete(found)

    def image_records(self) -> Iterator[ImageRecord]:
        """Every name whose record can be read, sorted."""
        return iter(self.names.all()[0])

    # -- blobs --

    def ingest(self, key: str, *, total: int = 0, expected: Digest | None = None) -> Writer:
        """A writer under ``key``; what it commits is held for 24 hours. Raises AlreadyExists, Locked."""
        self.place.require_writable()
        return self.content.writer(key, total=total, expected=expected)

    def delete_blob(self, digest: Digest) -> None:
        """Remove a blob. Raises BlobNotFound."""
        self.place.require_writable()
        self.content.delete(digest)

    def labels(self, digest: Digest) -> dict[str, str]:
        """The labels of a blob. Raises BlobNotFound."""
        return self.content.labels(digest)

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels, None removes one; returns all that the blob has then. Raises BlobNotFound."""
        self.place.require_writable()
        return self.content.set_labels(digest, changes)

    def damaged(self, roots: Iterable[Descriptor], scope: Scope) -> list[Digest]:
        """Return the blobs of ``roots`` that are here and are not what their digests say. All of them are hashed."""
        from ocidist.stores.upkeep.damage import damaged

        return list(damaged(self.content, roots, scope))

    # -- snapshots --

    def unpack(
        self,
        manifest: Manifest,
        config: ImageConfig,
        scope: Scope,
        *,
        wait: Callable[[Descriptor], None] | None = None,
    ) -> Digest:
        """The image's layers in a snapshot; its ChainID. ``wait`` returns once a layer's blob is here.

        The config blob gets the label that keeps the snapshot as long as the image.
        """
        if manifest.config is None:
            raise UsageError("an artifact without a config has no root filesystem")
        self.place.require_writable()
        if config.diff_ids:
            self.hold_trees(map(str, chain_ids(config.diff_ids)), scope)
        chain = self.applier(scope).unpack(manifest.layers, config.diff_ids, scope, wait=wait)
        self.content.within(scope).set_labels(
            manifest.config.digest, {SNAPSHOT_LABEL + self.snapshots.name: str(chain)}
        )
        return chain

    def chain_of(self, config: ImageConfig) -> Digest | None:
        """The ChainID of an image that is unpacked here, else None."""
        if not config.diff_ids:
            return None
        chain = chain_id(config.diff_ids)
        try:
            return chain if self.snapshots.stat(str(chain)).kind == "committed" else None
        except OcidistError:
            return None

    def gc(self, scope: Scope, *, dry_run: bool = False, everything: bool = False) -> CollectReport:
        """Remove what no name, lease or label holds; see ``collect``. ``dry_run`` only says what would go.

        ``everything``: also what only the leases of 24 hours hold that fetch, ingest and interrupted pulls leave,
        and every ingest that nobody is writing.
        """
        from ocidist.stores.upkeep.collect import CollectReport, collect

        if not dry_run or self.place.foreign:  # of what its own database names nothing is known
            self.place.require_writable()
        if not self.place.exists():
            return CollectReport(dry_run=dry_run)
        try:
            return collect(self.within(scope), scope, dry_run=dry_run, everything=everything)
        except OSError as error:
            raise StoreError(self.place.name, error.strerror or str(error)) from error

    # -- listings --

    @property
    def blobs(self) -> Rows[BlobRow]:
        """Every blob: digest, size (bytes), age."""
        from ocidist.stores.upkeep.inventory import blobs

        return blobs(self.content)

    @property
    def active(self) -> Rows[ActiveRow]:
        """Ingests under way or interrupted: ref, size (bytes so far), age."""
        from ocidist.stores.upkeep.inventory import active

        return active(self.content)

    @property
    def images(self) -> Rows[ImageRow]:
        """Every name: ref, type, digest, size of its content here (bytes), platforms that are whole here."""
        from ocidist.stores.upkeep.inventory import images

        return images(self)

    def check(self, scope: Scope | None = None, *, trees: bool = False) -> Rows[DamageRow]:
        """What is damaged: every blob is hashed, every name, label and snapshot followed. Empty if all is well.
        With ``trees`` the files of unpacked trees are compared with what their layers say.
        Columns: kind, name, problem, images (that are not whole because of it), sources (repositories that have
        it). :func:`ocidist.repair.repair` repairs what is available again.
        """
        from ocidist.stores.upkeep.check import check

        return check(self, scope or Scope(), trees=trees).rows

    def du(self, scope: Scope | None = None) -> Rows[UsageRow]:
        """Where the disk went: kind, name, files, size and disk (bytes), and of images the bytes in blobs that are
        unique to one or shared with others."""
        from ocidist.stores.upkeep.usage import usage

        return usage(self, scope or Scope())

    def require_writable(self) -> None:
        """Raise StoreError, with the reason, where nothing can be written here."""
        self.place.require_writable()


def _reopened(root: str, readonly: bool, snapshotter: str | None, shared: bool) -> Store:
    return Store.at(root, readonly=readonly, snapshotter=snapshotter, shared=shared)


def _origin_label(source: Source, target: Descriptor) -> dict[str, str] | None:
    origin = source.origin(target)
    return None if origin is None else {SOURCE_LABEL + origin.host: origin.repository}


def _normal(ref: str) -> str | None:
    try:
        return Reference.parse(ref).image_name
    except InvalidReference:
        return None


def _digest_in(text: str) -> Digest | None:
    """The digest that a text is, or ends in after an ``@``."""
    try:
        return Digest(text.rpartition("@")[2])
    except InvalidDigest:
        return None
