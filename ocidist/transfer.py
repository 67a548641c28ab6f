"""Fetch and pull an image: resolve, copy, unpack, tag. Layers are unpacked in order while later ones still arrive."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from ocidist.errors import Cancelled, DeadlineExceeded, OcidistError
from ocidist.graph.copy import PlatformChoice, Slots, Watcher, copy_graph, read_small
from ocidist.image import Image, of_reference, open_image
from ocidist.progress import Named
from ocidist.remotes.protocols import Remote, Source
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.platform import Platform, require_fit, select
from ocidist.stores.repairing import LocalFirst, RepairingSink

if TYPE_CHECKING:
    from ocidist.stores.store import Store

__all__ = ["Pulled", "Wanted", "fetch", "pull"]

_JOIN = 0.15  # seconds that an ended pull waits for its unpack to let go


class Pulled(NamedTuple):
    """What a pull came to: the reference it was named, the root descriptor, the ChainID (None: artifact)."""

    reference: str
    descriptor: Descriptor
    chain_id: Digest | None
    image: Image


class Wanted(NamedTuple):
    """Which images of an index to move, and how many objects at once.

    ``asked`` is the platform that the user asked for, None if none was: then an image of another platform that is not in
    an index will do. ``workers`` of 0 does all of it in the calling thread.
    """

    asked: PlatformChoice
    workers: int
    slots: Slots

    @property
    def one(self) -> Platform | None:
        """The platform that a single image has to fit."""
        return self.asked if isinstance(self.asked, Platform) else None


def fetch(remote: Remote, store: Store, wanted: Wanted, scope: Scope) -> Descriptor:
    """Copy all content of an image into the store, without a name; its root descriptor."""
    source = remote.readable()
    scope.emit(Named(remote.name))
    target, raw = source.resolve(remote.object, scope)
    scope.emit(Named(remote.name, target))
    sink = RepairingSink(store)
    with store.fetching(scope), of_reference(remote.name):
        while True:
            try:
                _copy(source, sink, store, target, raw, wanted, Suiting(store, scope, wanted.one), scope)
                return target
            except OcidistError as error:
                if source is store or not sink.suspect(error, scope):
                    raise


def pull(remote: Remote, store: Store, wanted: Wanted, scope: Scope, *, replayed: str = "") -> Pulled:
    """Copy all content of an image, unpack it while it arrives, check the ChainID, and name the image last.

    With platform "all" every image is fetched and this machine's is unpacked. ``replayed`` is as for ``Store.tag``.
    """
    source = remote.readable()
    scope.emit(Named(remote.name))
    target, raw = source.resolve(remote.object, scope)
    scope.emit(Named(remote.name, target))
    sink = RepairingSink(store)
    with store.lease(scope=scope) as lease, of_reference(remote.name):
        while True:
            try:
                with scope.child(lease=lease) as inner, Unpacking(store, inner, wanted) as unpacking:
                    _copy(source, sink, store, target, raw, wanted, unpacking, inner)
                    chain = unpacking.finish()
                    store.tag(remote.name, target, inner, replayed=replayed)
                    image = open_image(store, remote.name, target, None, wanted.one, inner, store)
                    return Pulled(remote.name, target, chain, image)
            except OcidistError as error:
                if source is store or not sink.suspect(error, scope):
                    raise


def _copy(
    source: Source,
    sink: RepairingSink,
    store: Store,
    target: Descriptor,
    raw: bytes | None,
    wanted: Wanted,
    watcher: Watcher,
    scope: Scope,
) -> None:
    copy_graph(
        LocalFirst(source, store),
        sink,
        target,
        scope,
        root_bytes=raw,
        platform=wanted.asked or Platform.host(),
        workers=wanted.workers,
        slots=wanted.slots,
        watcher=watcher,
    )


class Suiting(Watcher):
    """Ends a copy with PlatformNotFound as soon as the config of an image, of no index that told its platform, says
    that it is not for the platform ``asked`` for; None takes every image."""

    def __init__(self, store: Store, scope: Scope, asked: Platform | None) -> None:
        self.store, self.scope, self.asked = store, scope, asked
        self.images: list[tuple[Descriptor, Manifest]] = []
        self.changed = threading.Condition()

    def parsed(self, target: Descriptor, value: Manifest | Index) -> None:
        if isinstance(value, Manifest) and value.config and mediatype.is_config(value.config.media_type):
            with self.changed:
                self.images.append((target, value))

    def arrived(self, target: Descriptor) -> None:
        if self.asked is None:
            return
        with self.changed:
            images = [image for image in self.images if image[0].platform is None]
        for _, value in images:
            if value.config is not None and value.config.digest == target.digest:
                config = ImageConfig.parse(read_small(self.store, value.config, self.scope))
                require_fit(self.asked, config.platform)


class Unpacking(Suiting):
    """Unpacks one image in a thread, starting as soon as its config is in the store. It ends with its block."""

    def __init__(self, store: Store, scope: Scope, wanted: Wanted) -> None:
        super().__init__(store, scope, wanted.one)
        self.threads = wanted.workers > 0
        self.early = self.threads and wanted.asked != "all"
        self.here: set[Digest] = set()
        self.thread: threading.Thread | None = None
        self.chain: Digest | None = None
        self.error: BaseException | None = None

    def arrived(self, target: Descriptor) -> None:
        super().arrived(target)
        with self.changed:
            self.here.add(target.digest)
            self.changed.notify_all()
            if not self.early or self.thread is not None:
                return
            for _, value in self.images:
                if value.config is not None and value.config.digest == target.digest:
                    self.start(value)
                    return

    def start(self, value: Manifest) -> bool:
        thread = threading.Thread(target=self.run, args=[value], name="ocidist-unpack", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # a system without threads
            return False
        self.thread = thread
        return True

    def run(self, value: Manifest) -> None:
        try:
            self.chain = self.unpack(value)
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread
            self.error = error
            self.scope.cancel()

    def unpack(self, value: Manifest) -> Digest | None:
        assert value.config is not None
        config = ImageConfig.parse(read_small(self.store, value.config, self.scope))
        if not value.layers and not config.diff_ids:  # FROM scratch, and nothing more
            return None
        return self.store.unpack(value, config, self.scope, wait=self.wait)

    def wait(self, target: Descriptor) -> None:
        with self.changed:
            while target.digest not in self.here:
                self.scope.check()
                self.changed.wait(0.1)

    def finish(self) -> Digest | None:
        """Return the ChainID once all is unpacked; None for an artifact, and for an image without layers."""
        if self.thread is None:
            if not self.images:
                return None
            value = self.chosen()
            if not self.threads or not self.start(value):
                return self.unpack(value)
        while self.thread is not None and self.thread.is_alive():
            self.scope.tick()
            self.thread.join(0.05)
        if self.error is not None:
            raise self.error
        return self.chain

    def chosen(self) -> Manifest:
        if len(self.images) == 1:
            return self.images[0][1]
        best = select([target for target, _ in self.images], Platform.host())
        return next(value for target, value in self.images if target.digest == best.digest)

    def __enter__(self) -> Unpacking:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        self.scope.cancel()
        with self.changed:
            self.changed.notify_all()
        if self.thread is not None:
            self.thread.join(_JOIN)
        # A bad layer ends the copy as well: what matters is the layer, not the end that followed.
        first = self.error
        if first is None or first is error or isinstance(first, (Cancelled, DeadlineExceeded)):
            return
        if isinstance(error, OcidistError):
            raise first from None
