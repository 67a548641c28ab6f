"""Store: content, names and snapshots under one root. The only public writer of any of them.

``ROOT/content`` (containerd's layout), ``ROOT/meta.db`` (names, labels, leases), ``ROOT/snapshots``,
``ROOT/gc.lock``. Many processes may use one root at once; folders are made when something is first written.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Mapping

from ocidist.content.disk import PRIVATE, SHARED, make_folders, refuse_links, unwritable
from ocidist.content.fill import fill, ref_key
from ocidist.content.foreign import REFUSAL, containerd_content
from ocidist.content.labels import SNAPSHOT_LABEL, SOURCE_LABEL
from ocidist.content.local import LocalContent
from ocidist.content.lock import FileLock, Gate
from ocidist.content.verify import read_all
from ocidist.errors import (
    BlobNotFound,
    InvalidDigest,
    InvalidManifest,
    InvalidReference,
    OcidistError,
    StoreError,
    Unsupported,
    UsageError,
)
from ocidist.images.replayed import marking
from ocidist.images.sqlite import ImageRecord, Metadata
from ocidist.remotes import Locator
from ocidist.remotes.protocols import Origin
from ocidist.scope import Scope
from ocidist.settings import store_root
from ocidist.spec.chain import chain_id, chain_ids
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import parse
from ocidist.spec.prefix import complete, is_prefix
from ocidist.spec.reference import Reference
from ocidist.stores.absent import Absent
from ocidist.stores.leased import DAY, LEASED, LeasedContent, LeasedWriter

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.content.local import FileBody
    from ocidist.remotes.protocols import Source
    from ocidist.rows import Rows
    from ocidist.snapshots.protocols import Snapshotter
    from ocidist.spec.config import ImageConfig
    from ocidist.spec.manifest import Manifest
    from ocidist.stores.upkeep.check import DamageRow
    from ocidist.stores.upkeep.collect import CollectReport
    from ocidist.stores.upkeep.inventory import ActiveRow, BlobRow, ImageRow
    from ocidist.stores.upkeep.usage import UsageRow

__all__ = ["Store"]


class Store:
    """A Source and a Sink over ``root`` (default: the settings' root). The constructor makes nothing.

    ``readonly`` refuses every write, and takes no locks and no leases: for a root that another owns. One of
    containerd's, or the content directory in it, is always opened so. Where ``root`` is itself a content directory
    its blobs can be read. ``snapshotter`` names the one that a new root is to have from now on.

    A new root is its owner's alone, or with ``shared`` one whose blobs and names other users may read.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        readonly: bool = False,
        snapshotter: str | None = None,
        shared: bool = False,
    ) -> None:
        if root is None:
            root = store_root()
        self._root = base = os.fspath(root)
        folder = os.path.join(base, "content")
        theirs = containerd_content(base)
        if theirs is not None:
            folder, readonly = theirs, True
        elif readonly and not os.path.exists(folder) and os.path.isdir(os.path.join(base, "blobs")):
            folder = base
        self.readonly = readonly
        self.foreign = theirs is not None
        """Whether the root is one of containerd's, which keeps the names of images in a database of its own."""
        self._refusal = REFUSAL if self.foreign else "opened read-only"
        self.metadata = Metadata(os.path.join(base, "meta.db"), readonly=readonly, shared=shared)
        self.content = LeasedContent(
            LocalContent(folder, readonly=readonly, shared=shared),
            self.metadata,
            Gate(os.path.abspath(os.path.join(base, "gc.lock")), SHARED if shared else PRIVATE),
        )
        self._snapshotter = snapshotter
        self._shared = shared
        self._snapshots: Snapshotter | None = None

    @property
    def root(self) -> Path:
        """The directory that holds everything. pathlib is loaded where a Path is asked for, not by a listing."""
        from pathlib import Path

        return Path(self._root)

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Store]:
        """A store in a temporary directory, removed at the end of the block."""
        import shutil
        import tempfile

        root = tempfile.mkdtemp(prefix="ocidist-")
        try:
            with cls(root) as store:
                yield store
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def within(self, scope: Scope) -> Store:
        """The same store, where also what takes no scope of its own ends with ``scope``."""
        bound = object.__new__(Store)
        bound.__dict__.update(self.__dict__)
        bound.metadata, bound.content = self.metadata.within(scope), self.content.within(scope)
        return bound

    def close(self) -> None:
        """Let go of the database. The store can be used again."""
        self.metadata.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r}{', readonly=True' if self.readonly else ''})"

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[str, bool, str | None, bool]]:
        return _reopened, (str(self.root), self.readonly, self._snapshotter, self._shared)

    @property
    def snapshots(self) -> Snapshotter:
        """The snapshotter under ``ROOT/snapshots``, the root's own choice. Raises StoreError, UsageError."""
        if self._snapshots is None:
            from ocidist.snapshots.choice import choose

            self._snapshots = choose(self.root / "snapshots", self._snapshotter)
        return self._snapshots

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
        for record in self.metadata.images_of(digest):
            return record.target
        size = self.content.local.info(digest).size
        media_type = "application/octet-stream"
        target = Descriptor(media_type, digest, size)
        if size <= 4 << 20:
            try:
                media_type = parse(read_all(self.open(target, scope), target, 4 << 20)).media_type
            except (InvalidManifest, Unsupported):
                return target
        return Descriptor(media_type, digest, size)

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> FileBody:
        """The bytes of a blob, unverified. Raises BlobNotFound, SizeMismatch."""
        return self.content.open(target, scope, offset=offset, length=length)

    # -- Sink --

    def exists(self, target: Descriptor, scope: Scope) -> bool:
        """True if it is here; from then on the scope's lease holds it, so that no collector takes it."""
        content = self.content.within(scope)
        if not content.hold(target.digest, target.size):
            return False
        content.local.tidy(ref_key(target))
        return True

    def push(self, target: Descriptor, source: Source, scope: Scope) -> None:
        """Fetch ``target`` from ``source``, resuming, verified before it is visible; see ``content.fill``.

        A label says in which repository ``source`` knows it.
        """
        self.require_writable()
        labels = _origin_label(source, target)
        content = self.content.within(scope)
        while fill(content, content, target, source, scope, labels=labels) == "exists":
            if content.hold(target.digest, target.size, labels):
                return
            # The collector took it between our look and our hold: it has to be fetched after all.

    def replace(self, target: Descriptor, source: Source, scope: Scope) -> None:
        """Fetch ``target`` whatever lies in its place, and put it there once it is verified. Raises as :meth:`push`."""
        self.require_writable()
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
        self.require_writable()
        revise = marking(str(self.root), full, target.digest, replayed)
        try:
            with self.content.gate.shared(scope):
                if not self.content.has(target.digest, target.size):
                    raise BlobNotFound(target, f"not in the store, so {full} can't stand for it")
                self.metadata.set_image(full, target, check=scope.check, revise=revise)
        except OSError as error:
            raise StoreError(str(self.root), error.strerror or str(error)) from error

    @contextmanager
    def lease(self, seconds: float = DAY, scope: Scope | None = None) -> Iterator[str]:
        """The id of a lease, for ``scope.lease``. It ends with the block; after an error, or a crash, only when
        ``seconds`` have passed, so that what was fetched is still here for the next try. While the block runs a
        lock tells ``gc --all`` that the lease is in use."""
        self.require_writable()
        id_, check = f"{LEASED}{os.urandom(8).hex()}", None if scope is None else scope.check
        with self._in_use(id_, scope):
            self.metadata.create_lease(id_, time.time() + seconds, check)
            yield id_
            with suppress(StoreError):  # it ends by itself
                self.metadata.delete_leases([id_], check)

    @contextmanager
    def _in_use(self, id_: str, scope: Scope | None) -> Iterator[None]:
        lock = FileLock(os.path.join(os.path.abspath(self._root), "leases", id_))
        try:
            self._make_leases()
            while not lock.acquire():  # a collector looks whether it is anybody's
                if scope is not None:
                    scope.check()
                time.sleep(0.001)
        except OSError as error:
            raise StoreError(str(self.root), error.strerror or str(error)) from error
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(lock.path)
            lock.release()

    def _make_leases(self) -> None:
        make_folders(os.path.abspath(self._root), SHARED if self._shared else PRIVATE)
        make_folders(os.path.abspath(os.path.join(self._root, "leases")))

    @contextmanager
    def fetching(self, scope: Scope) -> Iterator[None]:
        """While the block runs, ``gc --all`` leaves what has no name alone. A store that can't be written needs no
        such care."""
        gate = Gate(os.path.join(os.path.abspath(self._root), "leases", "unnamed"))
        with ExitStack() as stack:
            if not self.readonly:
                with suppress(OSError):
                    self._make_leases()
                    stack.enter_context(gate.shared(scope))
            yield

    # -- names --

    def find_image(self, ref: str) -> str | None:
        """The name under which ``ref``, as written or normalised, is known."""
        for name in (ref, _normal(ref)):
            if name is not None and self.metadata.has_image(name):
                return name
        return None

    def get_image(self, name: str) -> Descriptor:
        """What ``name`` stands for. Raises BlobNotFound."""
        found = self.find_image(name)
        record = self.metadata.get_image(found) if found is not None else None
        if record is None:
            raise BlobNotFound(name, "no image of that name in the store; pull it first")
        return record.target

    def remove_image(self, name: str) -> bool:
        """Forget a name; True if it was known. Its content goes at :meth:`gc`."""
        self.require_writable()
        found = self.find_image(name)
        return found is not None and self.metadata.delete_image(found)

    def image_records(self) -> Iterator[ImageRecord]:
        """Every name whose record can be read, sorted."""
        return iter(self.metadata.sorted_images()[0])

    # -- blobs --

    def ingest(self, key: str, *, total: int = 0, expected: Digest | None = None) -> LeasedWriter:
        """A writer under ``key``; what it commits is held for 24 hours. Raises AlreadyExists, Locked."""
        self.require_writable()
        return self.content.writer(key, total=total, expected=expected)

    def delete_blob(self, digest: Digest) -> None:
        """Remove a blob. Raises BlobNotFound."""
        self.require_writable()
        self.content.delete(digest)

    def labels(self, digest: Digest) -> dict[str, str]:
        """The labels of a blob. Raises BlobNotFound."""
        return self.content.labels(digest)

    def set_labels(self, digest: Digest, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set labels, None removes one; returns all that the blob has then. Raises BlobNotFound."""
        self.require_writable()
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
        from ocidist.snapshots.unpack import unpack

        if manifest.config is None:
            raise UsageError("an artifact without a config has no root filesystem")
        self.require_writable()
        content = self.content.within(scope)
        if config.diff_ids:
            content.hold_trees(map(str, chain_ids(config.diff_ids)))
        chain = unpack(content, self.snapshots, manifest.layers, config.diff_ids, scope, wait=wait)
        content.set_labels(manifest.config.digest, {SNAPSHOT_LABEL + self.snapshots.name: str(chain)})
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

        if not dry_run or self.foreign:  # of what its own database names nothing is known
            self.require_writable()
        if not self._is_folder():
            return CollectReport(dry_run=dry_run)
        try:
            content = self.content.within(scope)
            return collect(content, self.snapshots, scope, dry_run=dry_run, everything=everything)
        except OSError as error:
            raise StoreError(str(self.root), error.strerror or str(error)) from error

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

        return images(self.content)

    def check(self, scope: Scope | None = None, *, trees: bool = False) -> Rows[DamageRow]:
        """What is damaged: every blob is hashed, every name, label and snapshot followed. Empty if all is well.
        With ``trees`` the files of unpacked trees are compared with what their layers say.
        Columns: kind, name, problem, images (that are not whole because of it), sources (repositories that have
        it). :func:`ocidist.repair.repair` repairs what is available again.
        """
        from ocidist.stores.upkeep.check import check

        return check(self.content, self.snapshots, scope or Scope(), trees=trees).rows

    def du(self, scope: Scope | None = None) -> Rows[UsageRow]:
        """Where the disk went: kind, name, files, size and disk (bytes), and of images the bytes in blobs that are
        unique to one or shared with others."""
        from ocidist.stores.upkeep.usage import usage

        return usage(self._root, self.content, self.snapshots, scope or Scope())

    def _is_folder(self) -> bool:
        """False if there is nothing. Raises StoreError for anything else than a directory."""
        there = os.path.lexists(self._root)
        if there and not os.path.isdir(self._root):
            raise StoreError(str(self.root), "Not a directory")
        return there

    def require_writable(self) -> None:
        """Raise StoreError, with the reason, where nothing can be written here."""
        if self.readonly:
            raise StoreError(str(self.root), self._refusal)
        base = os.path.abspath(self._root)
        if not self._is_folder():
            return  # the folder alone may be writable, and what another user made in it not
        for path in (base, self.metadata.path, os.path.join(base, "content"), self.content.gate.path):
            if os.path.lexists(path) and not os.access(path, os.W_OK):
                raise StoreError(str(self.root), unwritable(path))
        refuse_links(os.path.join(base, "content"), os.path.join(base, "leases"))
        self.content.local.require_writable()


def _reopened(root: str, readonly: bool, snapshotter: str | None, shared: bool) -> Store:
    return Store(root, readonly=readonly, snapshotter=snapshotter, shared=shared)


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
