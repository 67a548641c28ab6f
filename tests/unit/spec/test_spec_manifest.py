"""Descriptors, manifests, indices and media types."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import InvalidDigest, InvalidManifest, Unsupported
from ocidist.spec import manifest, mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.platform import Platform

HEX = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"


def of(content: bytes = b"x", media_type: str = mediatype.OCI_LAYER_GZIP, **more: Any) -> dict[str, Any]:
    """A descriptor as JSON."""
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image(**more: Any) -> dict[str, Any]:
    """An OCI manifest as JSON."""
    layers = [of(b"one"), of(b"two")]
    return {"schemaVersion": 2, "config": of(b"{}", mediatype.OCI_CONFIG), "layers": layers, **more}


def index(**more: Any) -> dict[str, Any]:
    """An OCI index as JSON."""
    entry = of(b"m", mediatype.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    return {"schemaVersion": 2, "manifests": [entry], **more}


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


# -- descriptors --


@pytest.mark.parametrize(
    "size", [-1, 1.0, 1.5, True, False, "1", 2**63, 10**30, None, [], {}, 1e3], ids=lambda size: repr(size)
)
def test_d45_a_size_is_a_whole_number_of_bytes(size: object) -> None:
    """Negative, float, true, string, 2^63, missing: refused, with the place."""
    with pytest.raises(InvalidManifest, match=r"invalid manifest at layers\[0\]\.size"):
        manifest.parse(raw(image(layers=[{**of(), "size": size}])))


@pytest.mark.parametrize("size", [0, 1, 2**53 + 1, 2**63 - 1])
def test_a_size_up_to_an_int64_is_kept_exactly(size: int) -> None:
    """Zero is legal, and no double stands between."""
    parsed = manifest.parse(raw(image(layers=[{**of(), "size": size}])))
    assert isinstance(parsed, Manifest)
    assert parsed.layers[0].size == size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (base64.b64encode(b"y").decode(), "digest"),
        (base64.b64encode(b"xx").decode(), "2 bytes"),
        ("", "0 bytes"),
        ("eA", "base64"),
        ("e A=", "base64"),
        ("eA==\n", "base64"),
        ("é", "base64"),
        (5, "string"),
    ],
)
def test_d45_data_is_the_content_or_refused(data: object, said: str) -> None:
    """Embedded content is checked like any other, so that it can be used as it is."""
    with pytest.raises(InvalidManifest, match=said):
        Descriptor.from_json({**of(b"x"), "data": data})


def test_data_that_matches_is_kept() -> None:
    """sha256 and sha512, and the empty blob."""
    for content, algorithm in ((b"x", "sha256"), (b"xyz", "sha512"), (b"", "sha256")):
        value = {**of(content), "digest": Digest.of(content, algorithm)}
        value["data"] = base64.b64encode(content).decode()
        assert Descriptor.from_json(value).data == content


EVIL = [
    "sha256:../../x",
    "../../../etc/passwd",
    f"sha256:{HEX}/../../x",
    f"sha256:{HEX.upper()}",
    f"sha256:{HEX}\n",
    f"sha384:{HEX}",
    "",
    None,
    7,
]


@pytest.mark.parametrize("digest", EVIL, ids=repr)
@pytest.mark.parametrize("place", ["config", "layers[1]", "subject", "manifests[0]"])
def test_d42_every_digest_field_of_a_manifest_is_checked(place: str, digest: object) -> None:
    """Path steps never become a path (CVE-2024-3727)."""
    bad = {**of(), "digest": digest}
    value = index() if place == "manifests[0]" else image()
    field = place.partition("[")[0]
    value[field] = {"layers": [of(), bad], "manifests": [bad]}.get(field, bad)
    if field == "manifests" and str(digest).startswith("sha384:"):  # shown, and unusable
        kept = manifest.parse(raw(value))
        assert isinstance(kept, Index)
        assert (kept.manifests[0].digest, kept.children()) == (digest, ())
        with pytest.raises(InvalidDigest, match="sha384"):
            Digest(kept.manifests[0].digest)
        return
    with pytest.raises(InvalidManifest) as caught:
        manifest.parse(raw(value))
    assert caught.value.where == f"{place}.digest"


@pytest.mark.parametrize(
    "media_type", ["", None, 5, "a\r\nX-Evil: 1", "a/b\x00", "application/é", "a/" + "b" * 300], ids=repr
)
def test_a_media_type_can_stand_in_a_header(media_type: object) -> None:
    """It goes into Accept and Content-Type."""
    with pytest.raises(InvalidManifest, match="mediaType"):
        Descriptor.from_json({**of(), "mediaType": media_type})
    if media_type:
        with pytest.raises(InvalidManifest, match="artifactType"):
            Descriptor.from_json({**of(), "artifactType": media_type})


@pytest.mark.parametrize(
    "change",
    [
        {"urls": "x"},
        {"urls": [1]},
        {"annotations": []},
        {"annotations": {"a": 1}},
        {"platform": "linux"},
        {"Size": 1},
    ],
)
def test_a_descriptor_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    """Every member has one type."""
    with pytest.raises(InvalidManifest):
        Descriptor.from_json({**of(), **change})
    with pytest.raises(InvalidManifest, match="expected an object, found an array"):
        Descriptor.from_json([])


def test_descriptors_go_to_json_and_back() -> None:
    """All members, in the specification's order; and through pickle."""
    value = of(
        b"x",
        urls=["https://h/x"],
        annotations={"a": "b"},
        data=base64.b64encode(b"x").decode(),
        platform={
            "architecture": "arm",
            "os": "linux",
            "os.version": "1",
            "os.features": ["f"],
            "variant": "v7",
        },
        artifactType="application/x",
    )
    parsed = Descriptor.from_json(value)
    assert parsed.to_json() == value
    assert list(parsed.to_json()) == list(value)
    again = pickle.loads(pickle.dumps(parsed))
    assert again == parsed
    assert again.platform == Platform("linux", "arm", "v7", "1", ("f",))
    assert Descriptor.from_json(of()).to_json() == of()
    assert hash(Descriptor.from_json(of())) == hash(Descriptor.from_json({**of(), "annotations": {"a": "b"}}))


# -- manifests and indices --


def test_a_manifest_keeps_its_bytes() -> None:
    """Odd spacing, unknown keys and order change nothing: the descriptor is that of the raw bytes."""
    data = json.dumps(image(unknown=[1], annotations={"k": "v"}), indent=7).encode() + b"\n \t"
    parsed = manifest.parse(data, mediatype.OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert parsed.raw == data
    assert parsed.descriptor() == Descriptor(mediatype.OCI_MANIFEST, Digest.of(data), len(data))
    assert parsed.descriptor("sha512").digest == f"sha512:{hashlib.sha512(data).hexdigest()}"
    assert parsed.config is not None
    assert parsed.children() == (parsed.config, *parsed.layers)
    assert parsed.annotations == {"k": "v"}
    assert parsed.is_image
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_an_index_keeps_its_bytes() -> None:
    """The same for an index."""
    data = raw(index(mediaType=mediatype.OCI_INDEX))
    parsed = manifest.parse(data)
    assert isinstance(parsed, Index)
    assert (parsed.raw, parsed.media_type) == (data, mediatype.OCI_INDEX)
    assert parsed.children() == parsed.manifests
    assert parsed.manifests[0].platform == Platform("linux", "amd64")
    assert parsed.descriptor().size == len(data)


def test_each_child_is_named_once() -> None:
    """Images repeat their empty layer, and artifacts use the empty config as a layer."""
    parsed = manifest.parse(raw(image(layers=[of(b"a"), of(b"b"), of(b"a")])))
    assert isinstance(parsed, Manifest)
    assert len(parsed.layers) == 3
    assert len(parsed.children()) == 3


@pytest.mark.parametrize(
    ("given_type", "declared", "effective"),
    [
        ("", None, mediatype.OCI_MANIFEST),
        ("", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (mediatype.OCI_MANIFEST, None, mediatype.OCI_MANIFEST),
        (mediatype.DOCKER_MANIFEST, mediatype.DOCKER_MANIFEST, mediatype.DOCKER_MANIFEST),
        ("application/json", mediatype.DOCKER_MANIFEST, mediatype.DOCKER_MANIFEST),
        ("application/octet-stream", None, mediatype.OCI_MANIFEST),
        ("text/plain; charset=utf-8", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (f"{mediatype.OCI_MANIFEST}; charset=utf-8", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (mediatype.OCI_MANIFEST.upper(), mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
    ],
)
def test_a11_parameters_and_generic_types_are_no_conflict(
    given_type: str, declared: str | None, effective: str
) -> None:
    """The body's own type stands where the server says nothing."""
    value = image() if declared is None else image(mediaType=declared)
    assert manifest.parse(raw(value), given_type).media_type == effective


def test_shape_decides_where_nothing_else_does() -> None:
    """An OCI document needs no mediaType."""
    assert manifest.parse(raw(index()), "application/json").media_type == mediatype.OCI_INDEX
    assert manifest.parse(raw(index(manifests=[]))).children() == ()
    assert manifest.parse(raw(index()), mediatype.DOCKER_LIST).media_type == mediatype.DOCKER_LIST


TWO_FACES = [
    (image(manifests=[of()]), "", "it has layers and manifests"),
    (image(manifests=[]), mediatype.OCI_MANIFEST, "it has layers and manifests"),
    (image(manifests=None), mediatype.OCI_MANIFEST, "it has layers and manifests"),
    (index(config=of()), mediatype.OCI_INDEX, "it has config and manifests"),
    (index(layers=None), mediatype.OCI_INDEX, "it has layers and manifests"),
    (image(), mediatype.OCI_INDEX, "and has layers"),
    (index(), mediatype.OCI_MANIFEST, "and has manifests"),
    (index(), mediatype.DOCKER_MANIFEST, "and has manifests"),
    (image(mediaType=mediatype.OCI_INDEX), "", "and has layers"),
    (index(mediaType=mediatype.DOCKER_MANIFEST), "", "and has manifests"),
    (image(mediaType=mediatype.OCI_MANIFEST), mediatype.OCI_INDEX, "came as"),
    (image(mediaType=mediatype.OCI_MANIFEST), mediatype.DOCKER_MANIFEST, "came as"),
    (image(mediaType=mediatype.OCI_INDEX), mediatype.OCI_MANIFEST, "came as"),
    (index(mediaType=mediatype.OCI_INDEX), mediatype.DOCKER_LIST, "came as"),
    (image(mediaType=mediatype.OCI_CONFIG), "", "not the media type of a manifest"),
    (image(), mediatype.OCI_LAYER_GZIP, "not the media type of a manifest"),
    (image(), "text/html", "not the media type of a manifest"),
    (image(mediaType=5), "", "mediaType"),
    (image(fsLayers=[]), "", "fsLayers"),
    (index(fsLayers=[]), "", "fsLayers"),
    (image(fsLayers=None, schemaVersion=1), "", "fsLayers"),
    (image(Layers=[]), "", "in other letters"),
    (image(FSLayers=[]), "", "in other letters"),
    (index(Manifests=[]), "", "in other letters"),
    (image(MediaType=mediatype.OCI_INDEX), "", "in other letters"),
    (image(layers=[{**of(), "Digest": str(Digest.of(b"evil"))}]), "", "in other letters"),
    ({"schemaVersion": 2}, "", "no layers"),
    ({"schemaVersion": 2}, mediatype.OCI_INDEX, "no manifests"),
    ({"schemaVersion": 2, "config": of()}, "", "no layers"),
    (image(config=None), mediatype.DOCKER_MANIFEST, "no config"),
    (image(schemaVersion=3), "", "schemaVersion"),
    (image(schemaVersion=2.0), "", "schemaVersion"),
    (image(schemaVersion="2"), "", "schemaVersion"),
    (image(schemaVersion=None), "", "schemaVersion"),
    (image(schemaVersion=True), "", "schemaVersion"),
    (image(layers={}), "", "expected an array"),
    (image(layers=[None]), "", "expected an object"),
    (image(subject=[]), "", "expected an object"),
    (image(annotations={"a": []}), "", "expected a string"),
]


@pytest.mark.parametrize(("value", "media_type", "said"), TWO_FACES, ids=range(len(TWO_FACES)))
def test_d43_a_document_with_two_faces_is_refused(value: dict[str, Any], media_type: str, said: str) -> None:
    """What could be read as a manifest and as an index, or contradicts its type (CVE-2021-41190)."""
    with pytest.raises(InvalidManifest) as caught:
        manifest.parse(raw(value), media_type)
    assert said in str(caught.value)


def test_d43_duplicate_keys_are_refused_before_anything_is_believed() -> None:
    """A second ``layers``, in the document or in a descriptor."""
    data = raw(image())
    for evil in (data[:-1] + b', "layers": []}', data.replace(b'"size"', b'"size": 5, "size"', 1)):
        with pytest.raises(InvalidManifest, match="twice"):
            manifest.parse(evil)


def test_d43_labels_and_annotations_hold_any_key() -> None:
    """Case variants are refused among specified names only."""
    keys = {"layers": "a", "Layers": "b", "SIZE": "c", "digest": "d", "Digest": "e"}
    parsed = manifest.parse(raw(image(annotations=keys, layers=[of(annotations=keys)])))
    assert isinstance(parsed, Manifest)
    assert parsed.annotations == keys
    assert parsed.layers[0].annotations == keys


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "name": "a", "tag": "b"}, ""),
        ({"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}]}, "application/json"),
        ({"schemaVersion": 1, "fsLayers": []}, mediatype.DOCKER_SCHEMA1),
        ({"schemaVersion": 1, "fsLayers": []}, mediatype.DOCKER_SCHEMA1_SIGNED),
        (image(), mediatype.DOCKER_SCHEMA1_SIGNED + "; charset=utf-8"),
        (image(mediaType=mediatype.DOCKER_SCHEMA1), ""),
    ],
)
def test_schema_1_is_refused_by_name(value: dict[str, Any], media_type: str) -> None:
    """Well formed, but not read: the message says what would help."""
    with pytest.raises(Unsupported, match="schema 1"):
        manifest.parse(raw(value), media_type)


def test_the_withdrawn_artifact_manifest_is_refused_by_name() -> None:
    """Only a release candidate had it."""
    with pytest.raises(Unsupported, match="withdrawn"):
        manifest.parse(raw({"schemaVersion": 2, "mediaType": mediatype.OCI_ARTIFACT, "blobs": []}))


def test_artifacts_are_manifests() -> None:
    """The empty config, a config of its own type, a subject, or no config at all."""
    empty = of(b"{}", mediatype.OCI_EMPTY, data=base64.b64encode(b"{}").decode())
    parsed = manifest.parse(
        raw(image(config=empty, artifactType="application/x-sbom", subject=of(b"m", mediatype.OCI_MANIFEST)))
    )
    assert isinstance(parsed, Manifest)
    assert not parsed.is_image
    assert parsed.config is not None
    assert parsed.config.data == b"{}"
    assert parsed.subject is not None
    assert parsed.subject not in parsed.children()
    assert parsed.descriptor().artifact_type == "application/x-sbom"
    bare = manifest.parse(raw({"schemaVersion": 2, "artifactType": "a/b", "layers": None}))
    assert isinstance(bare, Manifest)
    assert (bare.config, bare.layers, bare.children(), bare.is_image) == (None, (), (), False)


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))
)
def test_d44_any_value_in_any_place_is_one_error_type(value: Any) -> None:
    """No TypeError or KeyError from a member of another type."""
    for field in ("schemaVersion", "config", "layers", "subject", "annotations", "mediaType", "artifactType"):
        for document in (image(**{field: value}), index(**{field: value})):
            try:
                manifest.parse(raw(document))
            except (InvalidManifest, Unsupported):
                continue


# -- media types --


def test_kinds_of_media_types() -> None:
    """Each constant is of one kind; parameters and case do not matter."""
    kinds = {
        "index": (mediatype.OCI_INDEX, mediatype.DOCKER_LIST),
        "manifest": (mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST),
        "config": (mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG),
        "layer": (
            mediatype.OCI_LAYER,
            mediatype.OCI_LAYER_GZIP,
            mediatype.OCI_LAYER_ZSTD,
            mediatype.DOCKER_LAYER,
            mediatype.DOCKER_LAYER_GZIP,
            mediatype.DOCKER_LAYER_FOREIGN_GZIP,
            mediatype.OCI_LAYER_FOREIGN_GZIP,
        ),
        "blob": (mediatype.OCI_EMPTY, mediatype.DOCKER_SCHEMA1, "application/json", "", "layer"),
    }
    for kind, types in kinds.items():
        for media_type in types:
            assert mediatype.kind(media_type) == kind
            assert mediatype.kind(media_type.upper() + " ; a=b") == kind
    assert mediatype.is_foreign(mediatype.DOCKER_LAYER_FOREIGN_GZIP)
    assert not mediatype.is_foreign(mediatype.OCI_LAYER_GZIP)
    assert [mediatype.kind(item) for item in mediatype.ACCEPT] == ["index", "manifest", "index", "manifest"]
