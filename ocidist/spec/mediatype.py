"""Media types of OCI and of Docker's schema 2, and what each is.

Sources: OCI image specification, media-types.md; distribution, "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

__all__ = [
    "ACCEPT",
    "DOCKER_CONFIG",
    "DOCKER_LAYER",
    "DOCKER_LAYER_FOREIGN_GZIP",
    "DOCKER_LAYER_GZIP",
    "DOCKER_LAYER_ZSTD",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "DOCKER_SCHEMA1",
    "DOCKER_SCHEMA1_SIGNED",
    "OCI_ARTIFACT",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_FOREIGN",
    "OCI_LAYER_FOREIGN_GZIP",
    "OCI_LAYER_FOREIGN_ZSTD",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "OCTET_STREAM",
    "base",
    "is_config",
    "is_foreign",
    "is_generic",
    "is_index",
    "is_layer",
    "is_manifest",
    "is_schema1",
    "kind",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_LAYER_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_LAYER_FOREIGN_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_LAYER_FOREIGN_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
"""The artifact manifest of a release candidate, withdrawn before image-spec 1.1: refused by name."""

OCTET_STREAM = "application/octet-stream"
"""Content of an unknown type (RFC 2046, section 4.5.1)."""

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_LAYER_FOREIGN_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
"""Manifest media types to ask a registry for; the order is that of preference."""

_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
_FOREIGN = frozenset(
    {
        OCI_LAYER_FOREIGN,
        OCI_LAYER_FOREIGN_GZIP,
        OCI_LAYER_FOREIGN_ZSTD,
        DOCKER_LAYER_FOREIGN_GZIP,
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    }
)
_LAYERS = _FOREIGN | {
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
}
# What servers say when they do not know, or do not tell (threat A.11).
_GENERIC = frozenset({"", "application/json", OCTET_STREAM, "binary/octet-stream", "text/plain", "text/json"})


def base(media_type: str) -> str:
    """The type without parameters, in lowercase (RFC 9110, section 8.3.1: it is case-insensitive)."""
    return media_type.partition(";")[0].strip().lower()


def is_index(media_type: str) -> bool:
    """An OCI index or a Docker manifest list."""
    return base(media_type) in _INDEXES


def is_manifest(media_type: str) -> bool:
    """An image manifest, OCI or Docker schema 2 (not an index)."""
    return base(media_type) in _MANIFESTS


def is_config(media_type: str) -> bool:
    """An image config; the configs of artifacts are something else."""
    return base(media_type) in _CONFIGS


def is_layer(media_type: str) -> bool:
    """A filesystem layer, foreign ones too. Encrypted layers are not: nothing here can read them."""
    return base(media_type) in _LAYERS


def is_foreign(media_type: str) -> bool:
    """A nondistributable layer: its bytes are at its ``urls``, and it is not pushed."""
    return base(media_type) in _FOREIGN


def is_schema1(media_type: str) -> bool:
    """Docker's schema 1, which is refused."""
    return base(media_type) in _SCHEMA1


def is_generic(media_type: str) -> bool:
    """A type that says nothing of the content, so that it can't contradict it."""
    return base(media_type) in _GENERIC


def kind(media_type: str) -> str:
    """``index``, ``manifest``, ``config``, ``layer``, or ``blob`` for all else."""
    if is_index(media_type):
        return "index"
    if is_manifest(media_type):
        return "manifest"
    if is_config(media_type):
        return "config"
    return "layer" if is_layer(media_type) else "blob"
