"""Manifests, indices and configs: bytes, and well-formed JSON of the wrong shape."""

from __future__ import annotations

import json
from typing import Any, Callable

from hypothesis import strategies as st

from ocidist.documents import shown
from ocidist.errors import InvalidManifest, Unsupported
from ocidist.image import Image
from ocidist.remotes.registry import wire
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from tests.fuzz.harness import Target, mutated, refused_or, seeds

__all__ = ["CONFIGS", "LISTINGS", "MANIFESTS"]

TYPES = ("", "application/json", *mediatype.ACCEPT)


def check_manifest(raw: bytes) -> None:
    """Refused, or one document: a manifest or an index, every descriptor as it stands in the JSON, its bytes kept."""
    for media_type in TYPES:
        try:
            found = refused_or(manifests.parse, raw, media_type, by=InvalidManifest)
        except Unsupported:
            continue
        if found is not None:
            _agrees(found, json.loads(raw))
            assert found.raw == raw
            assert found.descriptor().digest == Digest.of(raw)
            _shows(shown(found))
            if isinstance(found, Manifest):
                image = Image("registry.example/a:1", found.descriptor(), found)
                _shows(image)
                assert len(image.layers) == len(found.layers)


def _agrees(found: Manifest | Index, value: dict[str, Any]) -> None:
    assert isinstance(found, Index) == ("manifests" in value)
    listed = found.manifests if isinstance(found, Index) else found.layers
    written = value["manifests" if isinstance(found, Index) else "layers"] or []
    assert [each.digest for each in listed] == [each["digest"] for each in written]
    assert [each.size for each in listed] == [each["size"] for each in written]
    for each in listed:
        assert Descriptor.from_json(each.to_json()) == each
        assert str(each.digest).partition(":")[2].isalnum()
        assert each.media_type.isprintable()


def _shows(value: Any) -> None:
    text, markup = repr(value), value._repr_html_()
    assert all(line.isprintable() for line in text.split("\n"))
    assert "<script" not in markup.lower()


def check_config(raw: bytes) -> None:
    """Refused, or DiffIDs that are digests, times in UTC, and something to show."""
    found = refused_or(ImageConfig.parse, raw, by=InvalidManifest)
    if found is None:
        return
    value = json.loads(raw)
    assert [str(each) for each in found.diff_ids] == ((value.get("rootfs") or {}).get("diff_ids") or [])
    assert len(found.history) == len(value.get("history") or [])
    _shows(shown(found))
    manifest = Manifest(b"{}", mediatype.OCI_MANIFEST, found.descriptor(mediatype.OCI_CONFIG), ())
    image = Image("registry.example/a:1", manifest.descriptor(), manifest, found, platform=found.platform)
    _shows(image)
    image.history.to_json()


def check_listing(raw: bytes) -> None:
    """Error bodies never raise and stay short; pages of tags are words or refused."""
    said = wire.parse_errors(raw)
    assert len(said) <= 16
    assert all(len(part) <= 500 for pair in said for part in pair)
    str(wire.error_for("GET", "https://registry.example/v2/", 404, said)).encode("utf-8")
    for parse in (wire.parse_tags, wire.parse_catalog):
        names = refused_or(parse, raw, by=InvalidManifest)
        assert names is None or all(isinstance(name, str) for name in names)


# -- well-formed documents, a member changed --

_WORDS = st.sampled_from(
    [
        "mediaType", "digest", "size", "layers", "Layers", "manifests", "config", "subject", "fsLayers", "data", "urls",
        "annotations", "platform", "artifactType", "schemaVersion", "os", "rootfs", "diff_ids", "type", "history",
        "created", "empty_layer", "Labels", "Env", "Cmd", "\u017fize", "errors", "tags", "<script>", "\x1b[31m",
    ]
)  # fmt: skip
_LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | _WORDS | st.sampled_from(
        ["sha256:../../x", f"sha256:{'a' * 64}", f"sha256:{'A' * 64}", "0001-01-01T00:00:00Z", "9999-12-31T23:59:60-14:00",
         *TYPES, mediatype.DOCKER_SCHEMA1, mediatype.OCI_ARTIFACT]
    )
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: Callable[[st.SearchStrategy[Any]], Any], kept: list[bytes]) -> bytes:
    """A kept document with a few members replaced, added or taken away, anywhere in it."""
    value = json.loads(draw(st.sampled_from(kept)))
    for _ in range(draw(st.integers(1, 4))):
        _change(draw, value)
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _change(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> None:
    places: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        places += [(node, key) for key in keys]
        todo += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    if not places:
        return
    node, key = draw(st.sampled_from(range(len(places))).map(lambda number: places[number]))
    kind = draw(st.sampled_from(["replace", "add", "remove", "copy"]))
    if kind == "replace":
        node[key] = draw(_VALUES)
    elif kind == "remove":
        del node[key]
    elif isinstance(node, dict):
        node[draw(_WORDS)] = node[key] if kind == "copy" else draw(_VALUES)
    elif len(node) < 50:
        node.append(json.loads(json.dumps(node[key])) if kind == "copy" else draw(_VALUES))


def _well_formed(name: str) -> list[bytes]:
    found = []
    for raw in seeds(name):
        try:
            if isinstance(json.loads(raw), dict):
                found.append(raw)
        except ValueError:
            continue
    return found


_PARTS = (
    b"{",
    b"[",
    b'"',
    b",",
    b":",
    b"null",
    b"true",
    b"1e400",
    b"NaN",
    b"-0",
    b"9" * 30,
    b"\\ud800",
    b"\xff",
    b"\\",
)


def _inputs(name: str) -> st.SearchStrategy[bytes]:
    return changed(_well_formed(name)) | mutated(seeds(name), *_PARTS) | st.binary(max_size=40)


MANIFESTS = Target("manifests", _inputs("manifests"), check_manifest)
CONFIGS = Target("configs", _inputs("configs"), check_config)
LISTINGS = Target("listings", _inputs("listings"), check_listing)
