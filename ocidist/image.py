"""Image: the one object a notebook holds. An immutable view of a manifest, its config and where it came from."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ocidist.documents import shown
from ocidist.errors import BlobNotFound, DigestMismatch, InvalidManifest, PlatformNotFound, SizeMismatch
from ocidist.frozen import dataclass
from ocidist.graph.copy import MAX_DEPTH, pick, read_small
from ocidist.remotes.protocols import Source
from ocidist.rows import Rows, Schema, column
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.chain import chain_id
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.platform import Platform, fits, is_image, require_fit

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from ocidist.runtime.bundle import Bundle
    from ocidist.runtime.options import BundleOptions
    from ocidist.scope import Scope
    from ocidist.stores.store import Store
    from ocidist.view.card import Card

# What only a repr needs is imported there: the command line opens images too.

__all__ = ["HistoryRow", "Image", "LayerRow", "PlatformRow", "of_reference", "open_image"]


@dataclass(frozen=True)
class LayerRow:
    """One layer. ``size`` is in bytes, compressed as it is moved; ``diff_id`` is None and ``created_by``
    empty where the config does not account for the layer."""

    index: int = field(metadata=column(title="#"))
    digest: Digest
    media_type: str
    size: int = field(metadata=column("bytes"))
    diff_id: Digest | None
    created_by: str


@dataclass(frozen=True)
class HistoryRow:
    """One step of the build. ``size`` is its layer's in bytes: 0 for an ``empty`` step, None where history
    and layers disagree in number."""

    created: datetime | None
    created_by: str
    size: int | None = field(metadata=column("bytes"))
    empty: bool
    comment: str


@dataclass(frozen=True)
class PlatformRow:
    """One manifest of the index. ``size`` is the manifest's in bytes; ``note`` says what is no image."""

    platform: str
    digest: Digest
    media_type: str
    size: int = field(metadata=column("bytes", "MANIFEST SIZE"))
    note: str


@dataclass(frozen=True)
class _NameRow:
    name: str
    value: str


LAYERS = Schema.of(LayerRow, "layers")
HISTORY = Schema.of(HistoryRow, "history")
PLATFORMS = Schema.of(PlatformRow, "platforms")
_NAMES = Schema.of(_NameRow, "names")
_CARD_LAYERS = LAYERS.without("media_type", "diff_id")
_ANNOTATION = "org.opencontainers.image."
_TOLD = ("title", "description", "version", "revision", "source", "url", "licenses", "vendor")


_UNSET = Descriptor("", Digest(f"sha256:{0:064}"), 0)


@dataclass(frozen=True, repr=False)
class Image:
    """One image (or artifact) of one platform.

    ``reference`` is the full name it was opened by; ``descriptor`` what that resolved to: the index where
    there is one, else the manifest, which ``manifest_descriptor`` is of. ``config`` is None for artifacts. ``notes``
    are sentences on what does not fit. ``source`` is where its blobs can be read, and ``store`` the store that it is in,
    if it was opened there; neither is compared or pickled. Making an Image, and showing it, does no I/O.
    """

    reference: str
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig | None = None
    index: Index | None = None
    platform: Platform | None = None
    source: Source | None = field(default=None, compare=False)
    manifest_descriptor: Descriptor = field(default=_UNSET, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    store: Store | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.manifest_descriptor is _UNSET:
            found = self.manifest.descriptor(self.digest.algorithm)
            object.__setattr__(self, "manifest_descriptor", found)
        object.__setattr__(self, "manifest", shown(self.manifest))
        if self.config is not None:
            object.__setattr__(self, "config", shown(self.config))
        if self.index is not None:
            object.__setattr__(self, "index", shown(self.index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "source": None, "store": None}  # connections don't pickle

    # -- sizes and names --

    @property
    def digest(self) -> Digest:
        """The digest that the reference resolved to: the index's where there is one."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Bytes of the config and of each layer once, compressed as they are moved."""
        return sum(child.size for child in self.manifest.children())

    @property
    def chain_id(self) -> Digest | None:
        """The name of the unpacked stack of layers; None where the config names no DiffIDs."""
        return chain_id(self.config.diff_ids) if self.config is not None and self.config.diff_ids else None

    @property
    def image_platforms(self) -> list[str]:
        """The platforms of the index's images, without its attestations, or of the one image; "unknown" for what the
        index doesn't say."""
        if self.index is None:
            return [str(self.platform)] if self.platform is not None else []
        images = (item for item in self.index.manifests if is_image(item))
        opened = self.manifest_descriptor.digest
        known = (self.platform if item.digest == opened else item.platform for item in images)
        return list(dict.fromkeys("unknown" if each is None else str(each) for each in known))

    @property
    def annotations(self) -> Mapping[str, str]:
        """The manifest's annotations."""
        return self.manifest.annotations

    @property
    def labels(self) -> Mapping[str, str]:
        """The config's labels; empty for an artifact."""
        return self.config.run.labels if self.config is not None else {}

    # -- running --

    def bundle(
        self,
        path: str | os.PathLike[str],
        options: BundleOptions | None = None,
        *,
        scope: Scope | None = None,
        **choices: Any,
    ) -> Bundle:
        """Make ``path`` an OCI runtime bundle of this image, which ``runc run -b PATH NAME`` runs.

        The image is one of a store, as ``pull`` returns it. What is to differ from what the image says are fields
        of :class:`~ocidist.runtime.options.BundleOptions`, given as such or by name: ``img.bundle("b", user="redis",
        args=("--port", "7000"), rootless=True)``. Raises BundleError if ``path`` is anything but new or empty.
        """
        from dataclasses import replace
        from pathlib import Path

        from ocidist.errors import UsageError
        from ocidist.runtime.bundle import write_bundle
        from ocidist.runtime.options import BundleOptions
        from ocidist.scope import Scope

        if self.store is None:
            raise UsageError(f"{self.reference}: a bundle is made of an image of the store; pull it first")
        if self.config is None:
            raise UsageError(f"{self.reference}: an artifact, not an image; it has no root filesystem")
        asked = replace(options if options is not None else BundleOptions(), **choices)
        return write_bundle(self.store, self.manifest, self.config, Path(path), asked, scope or Scope())

    # -- tables --

    @property
    def layers(self) -> Rows[LayerRow]:
        """The layers, lowest first. DataFrame: index Int64, digest, media_type string, size Int64 (bytes),
        diff_id, created_by string."""
        layers = self.manifest.layers
        diff_ids = self.config.diff_ids if self.config is not None else ()
        paired = len(diff_ids) == len(layers)
        steps = self._steps()
        return Rows(
            LAYERS,
            [
                LayerRow(
                    at,
                    layer.digest,
                    layer.media_type,
                    layer.size,
                    diff_ids[at] if paired else None,
                    steps[at] if steps else "",
                )
                for at, layer in enumerate(layers)
            ],
        )

    def _steps(self) -> list[str]:
        """``created_by`` of each layer; empty where history and layers disagree in number."""
        history = self.config.history if self.config is not None else ()
        steps = [step.created_by for step in history if not step.empty_layer]
        return steps if len(steps) == len(self.manifest.layers) else []

    @property
    def history(self) -> Rows[HistoryRow]:
        """The build's steps, first to last. DataFrame: created datetime64[ns, UTC], created_by string, size
        Int64 (bytes), empty boolean, comment string."""
        history = self.config.history if self.config is not None else ()
        paired = bool(self._steps())
        sizes = iter(self.manifest.layers)
        rows = []
        for step in history:
            size: int | None = 0
            if not step.empty_layer:
                size = next(sizes).size if paired else None
            rows.append(HistoryRow(step.created, step.created_by, size, step.empty_layer, step.comment))
        return Rows(HISTORY, rows)

    @property
    def platforms(self) -> Rows[PlatformRow]:
        """The index's manifests; of an image without an index, itself. DataFrame: platform, digest,
        media_type string, size Int64 (bytes), note string."""
        if self.index is None:
            rows = [_platform_row(self.manifest.descriptor(self.digest.algorithm), self.platform)]
        else:
            rows = [_platform_row(each, each.platform) for each in self.index.manifests]
        return Rows(PLATFORMS, rows)

    # -- showing --

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    def _card(self) -> Card:
        from ocidist.view.card import Card, Part

        layers = self.layers
        parts = [
            Part(_CARD_LAYERS, layers, "layers", "layers, lowest first", share="size"),
            Part(HISTORY, self.history, "history", "steps of the build, first to last", folded=True),
            Part(PLATFORMS, self.platforms, "platforms", self._origin(), folded=True),
            Part(_NAMES, _names(self.labels), "labels", "labels of the config", folded=True),
            Part(_NAMES, _names(self.annotations), "annotations", "of the manifest", folded=True),
        ]
        return Card(self.reference, self._facts(), parts, self._notes())

    def _origin(self) -> str:
        return "manifests of the index" if self.index is not None else "the manifest; there is no index"

    def _facts(self) -> list[tuple[str, object]]:
        from ocidist.view.sizes import human

        number = len(self.manifest.layers)
        config = self.config
        facts: list[tuple[str, object]] = [
            ("digest", self.digest),
            ("media type", self.descriptor.media_type),
            ("platforms", ", ".join(self.image_platforms) if self.index is not None else None),
            ("platform", self._platform_text()),
            ("manifest", self.manifest_descriptor.digest if self.index is not None else None),
            ("size", f"{human(self.size)} in {number:,} layer{'' if number == 1 else 's'} and a config"),
            ("created", _when(config.created) if config is not None else None),
            ("chain ID", self.chain_id),
            ("artifact", self.manifest.artifact_type),
        ]
        if config is not None:
            run = config.run
            facts += [
                ("author", config.author),
                ("entrypoint", _words(run.entrypoint)),
                ("cmd", _words(run.cmd)),
                ("user", run.user),
                ("workdir", run.working_dir),
                ("ports", ", ".join(run.exposed_ports)),
                ("volumes", ", ".join(run.volumes)),
                ("env", ", ".join(entry.partition("=")[0] for entry in run.env)),  # values may be secrets
            ]
        told = {**self.labels, **self.annotations}
        # URLs among them stay text: nothing from an image becomes a link.
        return facts + [(name, told.get(_ANNOTATION + name)) for name in _TOLD]

    def _platform_text(self) -> str:
        name = str(self.platform) if self.platform is not None else ""
        if self.index is None:
            return name
        images = sum(map(is_image, self.index.manifests))
        return f"{name or 'unknown'} (one of {images:,} in the index)"

    def _notes(self) -> list[str]:
        config, layers = self.config, len(self.manifest.layers)
        notes = list(self.notes)
        if config is None:
            return notes
        if len(config.diff_ids) != layers:
            notes.append(f"the config names {len(config.diff_ids):,} layers, the manifest has {layers:,}")
        if config.history and not self._steps():
            steps = sum(not step.empty_layer for step in config.history)
            if steps != layers:
                notes.append(f"the history accounts for {steps:,} layers, the manifest has {layers:,}")
        return notes


def open_image(
    source: Source,
    full: str,
    root: Descriptor,
    raw: bytes | None,
    asked: Platform | None,
    scope: Scope,
    store: Store | None = None,
) -> Image:
    """The image that ``root`` is or leads to, for the platform ``asked`` for or, if None was, for this machine.

    ``raw`` are the root's bytes if they are known, and ``store`` is the store that ``source`` is, if it is one. Raises InvalidManifest, PlatformNotFound, and what ``source`` does.
    """
    wanted = asked or Platform.host()
    index: Index | None = None
    target, depth = root, 0
    value = manifests.parse(raw if raw is not None else read_small(source, root, scope), root.media_type)
    while isinstance(value, Index):
        index = index if index is not None else value
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidManifest("index", f"indices nested more than {MAX_DEPTH} deep")
        with of_reference(full):
            target = pick(value.manifests, wanted, lambda item: read_small(source, item, scope))
        try:
            raw = read_small(source, target, scope)
        except BlobNotFound as error:
            raise BlobNotFound(full, _what_is_here(source, value, target, asked, scope)) from error
        value = manifests.parse(raw, target.media_type)
    config, notes = None, []
    if value.config is not None and mediatype.is_config(value.config.media_type):
        try:
            config = ImageConfig.parse(read_small(source, value.config, scope))
        except BlobNotFound as error:
            reason = f"its config {value.config.digest} is not in the store; pull it again"
            raise BlobNotFound(full, reason) from error
    if config is not None and target.platform is None:
        if asked is not None:
            with of_reference(full):
                require_fit(asked, config.platform)
        elif not fits(wanted, config.platform):
            notes.append(f"it is for {config.platform.normalized()}, and this machine runs {wanted}")
    return Image(
        reference=full,
        descriptor=root,
        index=index,
        manifest=value,
        config=config,
        platform=(config.platform if config is not None else None) or target.platform,
        source=source,
        store=store,
        manifest_descriptor=target,
        notes=tuple(notes),
    )


def _what_is_here(
    source: Source, index: Index, missing: Descriptor, asked: Platform | None, scope: Scope
) -> str:
    """Of an index in a store whose image ``missing`` was not pulled: which were, and the way out."""

    def has(target: Descriptor) -> bool:
        try:
            return bool(read_small(source, target, scope))
        except (BlobNotFound, SizeMismatch, DigestMismatch):
            return False

    here = [
        str(image.platform) for image in index.manifests if is_image(image) and image.platform and has(image)
    ]
    pull = f"pull it with --platform {missing.platform}" if missing.platform else "pull it again"
    if not here:
        return f"{missing.digest} of it is not in the store; {pull}"
    other = f", or choose {here[0]} with --platform" if asked is None else ""
    return f"only {', '.join(here)} of it {'is' if len(here) == 1 else 'are'} in the store; {pull}{other}"


@contextmanager
def of_reference(full: str) -> Iterator[None]:
    """Raise a PlatformNotFound of the block as one of the reference ``full``."""
    try:
        yield
    except PlatformNotFound as error:
        raise error.of(full) from error


def _platform_row(target: Descriptor, platform: Platform | None) -> PlatformRow:
    note = ""
    if not is_image(target):
        note = target.annotations.get("vnd.docker.reference.type") or target.artifact_type or "attestation"
    return PlatformRow(
        str(platform) if platform is not None else "", target.digest, target.media_type, target.size, note
    )


def _names(values: Mapping[str, str]) -> list[_NameRow]:
    return [_NameRow(name, value) for name, value in values.items()]


def _words(words: tuple[str, ...] | None) -> str:
    import json

    return json.dumps(list(words), ensure_ascii=False) if words else ""


def _when(created: datetime | None) -> str:
    # Not strftime: of the year 1, which builders write, it makes "1" on some systems.
    return f"{created.replace(tzinfo=None).isoformat(' ', 'seconds')} UTC" if created is not None else ""
