"""Fetch and unpack as one: layers are unpacked in order while later ones still arrive."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable, TypeVar

from ocidist.errors import (
    Cancelled,
    ContentError,
    DeadlineExceeded,
    DigestMismatch,
    InvalidManifest,
    LayerError,
    OcidistError,
    RegistryError,
    StoreError,
    TransferError,
    TransportError,
)
from ocidist.graph.copy import DAMAGED, PlatformChoice, Slots, Watcher, copy_graph, read_small
from ocidist.progress import Event, Queued, Retrying
from ocidist.remotes.protocols import Source
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.platform import Platform, require_fit, select

if TYPE_CHECKING:
    from ocidist.stores.local import Store

T = TypeVar("T")

__all__ = ["Suiting", "explained", "mended", "pull_graph"]

ROUNDS = 4  # times that damaged blobs are looked for and fetched again
_JOIN = 0.15  # seconds that an ended pull waits for its unpack to let go


def pull_graph(
    source: Source,
    store: Store,
    root: Descriptor,
    scope: Scope,
    *,
    root_bytes: bytes | None,
    platform: PlatformChoice,
    workers: int,
    slots: Slots | None = None,
    asked: Platform | None = None,
) -> Digest | None:
    """All content of ``root`` into ``store``, and the chosen image's layers into a snapshot: its ChainID.

    None for an artifact and for an image without layers, which have nothing to unpack. With platform "all" every image
    is fetched and this machine's is unpacked. ``workers`` of 0 does all of it in the calling thread. ``asked`` is as for
    :class:`Suiting`.
    """
    unpacking = _Unpacking(store, scope, asked, early=platform != "all" and workers > 0)
    try:
        copy_graph(
            source,
            store,
            root,
            scope,
            root_bytes=root_bytes,
            platform=platform,
            workers=workers,
            slots=slots,
            watcher=unpacking,
        )
        return unpacking.finish(threads=workers > 0)
    except OcidistError:
        # A bad layer ends the copy as well: what is to be told is the layer, not the end that followed.
        unpacking.end()
        error = unpacking.error
        if error is not None and not isinstance(error, (Cancelled, DeadlineExceeded)):
            raise error from None
        raise
    except BaseException:
        unpacking.end()
        raise


def mended(attempt: Callable[[Scope], T], source: Source, store: Store, root: Descriptor, scope: Scope) -> T:
    """What ``attempt`` returns, called with a child of ``scope``. Where it fails over content, the blobs that it
    wanted and that are in the store are hashed; if some are damaged they are deleted, and it is tried again. Else
    its error is raised."""
    wanted = {root: None}  # a damaged index does not tell what it names, but what was queued does

    def observe(event: Event) -> None:
        if isinstance(event, Queued):
            wanted[event.descriptor] = None
        scope.emit(event)

    def once() -> T:
        with scope.child(observer=observe) as inner:
            return attempt(inner)

    for number in range(1, ROUNDS + 1):
        try:
            return once()
        except OcidistError as error:
            # A blob that can't be had anywhere else is not deleted, however damaged.
            if source is store or not _over_content(error):
                raise
            gone = store.discard_damaged(list(wanted), scope)
            if not gone:
                raise
            for digest in gone:
                scope.emit(Retrying(digest, number, 0, DAMAGED))
    return once()


def _over_content(error: BaseException) -> bool:
    """Whether the store's content may be why, and not the network, a registry or the disk."""
    if not isinstance(error, (ContentError, LayerError, TransferError, InvalidManifest)):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (TransportError, RegistryError, StoreError, Cancelled, DeadlineExceeded)):
            return False
        cause = cause.__cause__
    return True


def explained(error: OcidistError, store: Store, name: str, scope: Scope) -> OcidistError:
    """``error``, or where the store's copy of the image ``name`` is damaged one that says so, and the way out."""
    try:
        bad = store.damaged(store.resolve(name, scope)[0], scope)
    except DigestMismatch as mismatch:  # of a manifest that no name stands for
        bad = [mismatch.descriptor.digest] if isinstance(mismatch.descriptor, Descriptor) else []
    except OcidistError:
        bad = []
    if not bad:
        return error
    image = store.find_image(name) or next(iter(store.holders(bad[0])), "its image")
    return ContentError(str(bad[0]), f"the copy in the store is damaged; pull {image} again")


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


class _Unpacking(Suiting):
    """Unpacks one image, starting as soon as its config is here."""

    def __init__(self, store: Store, scope: Scope, asked: Platform | None, *, early: bool) -> None:
        super().__init__(store, scope, asked)
        self.early = early
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

    def finish(self, *, threads: bool) -> Digest | None:
        """Wait for the unpack, or do it now."""
        if self.thread is None:
            if not self.images:
                return None
            value = self.chosen()
            if not threads or not self.start(value):
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

    def end(self) -> None:
        """Stop, and wait a moment for the thread to see it."""
        self.scope.cancel()
        with self.changed:
            self.changed.notify_all()
        if self.thread is not None:
            self.thread.join(_JOIN)
