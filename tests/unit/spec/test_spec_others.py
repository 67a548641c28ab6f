"""The values, on images that others made."""

from __future__ import annotations

from pathlib import Path

from ocidist.spec import manifest, mediatype
from ocidist.spec.chain import chain_id
from ocidist.spec.config import ImageConfig
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.platform import Platform, select


def test_the_official_busybox_images_are_read(images_of_others: Path) -> None:
    """Four layouts: index, manifest and config agree by digest, size, platform and number of layers."""
    found = set()
    for folder in sorted((images_of_others / "busybox").iterdir()):
        index = manifest.parse((folder / "index.json").read_bytes())
        assert isinstance(index, Index)
        raw = (folder / "image-manifest.json").read_bytes()
        image = manifest.parse(raw, mediatype.OCI_MANIFEST)
        assert isinstance(image, Manifest)
        assert image.config is not None
        assert index.children() == (image.descriptor(),)
        data = (folder / "image-config.json").read_bytes()
        config = ImageConfig.parse(data)
        assert (Digest.of(data), len(data)) == (image.config.digest, image.config.size)
        assert len(image.layers) == len(config.diff_ids) == 1
        assert chain_id(config.diff_ids) == config.diff_ids[0]
        assert config.created is not None
        platform = config.platform.normalized()
        assert select(index.manifests, platform).digest == image.descriptor().digest
        found.add(platform)
    assert found == {Platform.parse(text) for text in ("amd64", "arm64", "linux/arm/v7")}
