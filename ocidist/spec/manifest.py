"""Manifests and indices. ``parse`` keeps ``raw``: what is stored, hashed or pushed is those bytes.

Sources: OCI image specification, manifest.md and image-index.md; distribution, "Image Manifest Version 2,
Schema 2".
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Mapping

from ocidist.errors import InvalidManifest, Unsupported, quoted
from ocidist.frozen import dataclass
from ocidist.spec import document, mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

__all__ = ["Index", "Manifest", "parse"]

_NAMES = (
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
)
_SCHEMA1 = (
    "schema 1 manifests are not supported: the tag was pushed by a Docker older than 1.10; pull it and push it again "
    "with a tool that still reads them, such as skopeo, as schema 2 or OCI"
)


@dataclass(frozen=True)
class Manifest:
    """One image or artifact. ``config`` is None only in an OCI manifest that has none at all; of an artifact
    it is often not an image config (look at its media type)."""

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    artifact_type: str = ""

    def descriptor(self, algorithm: str = "sha256") -> Descriptor:
        """Of the raw bytes."""
        return _describe(self, algorithm)

    def children(self) -> tuple[Descriptor, ...]:
        """What must be copied before it: config, then layers, each once. Foreign layers too; the subject is
        not among them (distribution-spec: it may be missing)."""
        config = () if self.config is None else (self.config,)
        return tuple(dict.fromkeys(config + self.layers))

    @property
    def is_image(self) -> bool:
        """Whether its config is an image config, so that its layers make a root filesystem."""
        return self.config is not None and mediatype.is_config(self.config.media_type)


@dataclass(frozen=True)
class Index:
    """Manifests, most often one for each platform. Their digests may be of algorithms that are not supported."""

    raw: bytes = field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    artifact_type: str = ""

    def descriptor(self, algorithm: str = "sha256") -> Descriptor:
        """Of the raw bytes."""
        return _describe(self, algorithm)

    def children(self) -> tuple[Descriptor, ...]:
        """What must be copied before it: its manifests, each once, without those that no store can hold (an
        UnsupportedDigest)."""
        return tuple(dict.fromkeys(each for each in self.manifests if type(each.digest) is Digest))


def parse(raw: bytes, media_type: str = "") -> Manifest | Index:
    """The manifest or index that ``raw`` is. ``media_type`` is what its descriptor or Content-Type says;
    parameters are ignored, and a generic type ("", JSON, octet-stream, text) says nothing.

    Raises InvalidManifest for what breaks the specification or could be read in two ways (CVE-2021-41190:
    a type that contradicts the content, layers with manifests); Unsupported for schema 1.
    """
    what = "index" if mediatype.is_index(media_type) else "manifest"
    if mediatype.is_schema1(media_type):
        raise Unsupported(_SCHEMA1)
    members = document.decode(raw, what)
    document.check_names(members, _NAMES, what)
    _check_version(members, what)
    effective = _media_type(members, media_type, what)
    subject = members.get("subject")
    common: dict[str, Any] = {
        "raw": bytes(raw),
        "media_type": effective,
        "subject": None if subject is None else Descriptor.from_json(subject, what, "subject"),
        "annotations": document.get_string_map(members, "annotations", what),
        "artifact_type": document.get_string(members, "artifactType", what),
    }
    if mediatype.is_index(effective):
        return Index(manifests=_descriptors(members, "manifests", "index", any_algorithm=True), **common)
    config = members.get("config")
    if config is None and effective != mediatype.OCI_MANIFEST:
        raise InvalidManifest(what, "it names no config", "config")
    return Manifest(
        config=None if config is None else Descriptor.from_json(config, what, "config"),
        layers=_descriptors(members, "layers", what),
        **common,
    )


def _check_version(members: Mapping[str, Any], what: str) -> None:
    version = members.get("schemaVersion")
    first = type(version) is int and version == 1  # not True, which equals 1 to Python
    if "fsLayers" in members and ("layers" in members or "manifests" in members or not first):
        raise InvalidManifest(what, "fsLayers is of schema 1, the rest is not", "fsLayers")
    declared = members.get("mediaType")
    if first or (isinstance(declared, str) and mediatype.is_schema1(declared)):
        raise Unsupported(_SCHEMA1)
    if type(version) is not int or version != 2:
        raise InvalidManifest(what, "schemaVersion is 2", "schemaVersion")


def _media_type(members: Mapping[str, Any], given: str, what: str) -> str:
    """The one type that the caller, the document and its shape agree on."""
    has_index = "manifests" in members
    has_manifest = "layers" in members or "config" in members
    if has_index and has_manifest:
        other = "layers" if "layers" in members else "config"
        raise InvalidManifest(what, f"it has {other} and manifests; it is one or the other")
    declared = document.get_string(members, "mediaType", what)
    outside = "" if mediatype.is_generic(given) else mediatype.base(given)
    if declared and outside and mediatype.base(declared) != outside:
        raise InvalidManifest(
            what, f"it says that it is {quoted(declared)}, and came as {quoted(outside)}", "mediaType"
        )
    effective = outside or mediatype.base(declared)
    if not effective:
        effective = mediatype.OCI_INDEX if has_index else mediatype.OCI_MANIFEST
    if effective == mediatype.OCI_ARTIFACT:
        raise Unsupported(f"{effective} was withdrawn from the specification; attach it as an image manifest")
    if mediatype.kind(effective) not in ("index", "manifest"):
        raise InvalidManifest(what, f"{quoted(effective)} is not the media type of a manifest", "mediaType")
    wanted = "manifests" if mediatype.is_index(effective) else "layers"
    if (has_manifest and mediatype.is_index(effective)) or (has_index and mediatype.is_manifest(effective)):
        found = "manifests" if has_index else "layers"
        raise InvalidManifest(what, f"it is of type {quoted(effective)}, and has {found}")
    if wanted not in members:
        raise InvalidManifest(what, f"it has no {wanted}")
    return effective


def _descriptors(
    members: Mapping[str, Any], name: str, what: str, *, any_algorithm: bool = False
) -> tuple[Descriptor, ...]:
    return tuple(
        Descriptor.from_json(value, what, document.path(name, number), any_algorithm=any_algorithm)
        for number, value in enumerate(document.get_array(members, name, what))
    )


def _describe(document_: Manifest | Index, algorithm: str) -> Descriptor:
    return Descriptor(
        media_type=document_.media_type,
        digest=Digest.of(document_.raw, algorithm),
        size=len(document_.raw),
        artifact_type=document_.artifact_type,
    )
