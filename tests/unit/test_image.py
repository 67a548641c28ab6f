"""Image: what a notebook holds, and how it looks."""

from __future__ import annotations

import html.parser
import json
import pickle
import re
import socket
from datetime import datetime, timezone
from typing import Any

import pytest

from ocidist import documents
from ocidist.documents import ConfigView, IndexView, ManifestView
from ocidist.image import HistoryRow, Image, LayerRow
from ocidist.remotes.protocols import Origin
from ocidist.rows import Rows
from ocidist.scope import Scope
from ocidist.spec import manifest as manifests
from ocidist.spec.chain import chain_id
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Index, Manifest
from ocidist.spec.mediatype import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from ocidist.spec.platform import Platform
from tests.parts.required import require

HOSTILE = "<script>alert('x')</script>\"\x1b[31m\u202e\x00"
DIFF_IDS = [Digest.of(b"diff%d" % at) for at in range(2)]


def raw(value: Any) -> bytes:
    return json.dumps(value, indent=3).encode()


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def config_json(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-05-01T12:00:00Z",
        "config": {
            "Entrypoint": ["/bin/serve"],
            "Cmd": ["--port", "80"],
            "User": "app",
            "Env": ["PATH=/bin", "MODE=x"],
            "Labels": {"org.opencontainers.image.title": "shop", "note": HOSTILE},
        },
        "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in DIFF_IDS]},
        "history": [
            {"created": "2026-05-01T11:00:00Z", "created_by": "ADD rootfs /"},
            {"created_by": "ENV MODE=x", "empty_layer": True},
            {"created": "2026-05-01T12:00:00Z", "created_by": f"RUN {HOSTILE}", "comment": "c"},
        ],
    }
    return {**value, **changes}


class Source:
    """A source that fails the test when it is asked for anything."""

    host = ""

    def origin(self, target: Descriptor) -> Origin | None:
        return None

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        raise AssertionError("a repr asked the network")

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Any:
        raise AssertionError("a repr asked the network")


def image(
    config: dict[str, Any] | None = None,
    *,
    layers: int = 2,
    with_index: bool = True,
    annotations: dict[str, str] | None = None,
) -> Image:
    config_raw = raw(config if config is not None else config_json())
    manifest_raw = raw(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(config_raw, OCI_CONFIG),
            "layers": [
                {
                    "mediaType": OCI_LAYER_GZIP,
                    "digest": str(Digest.of(b"layer%d" % at)),
                    "size": 1000 * (at + 1),
                }
                for at in range(layers)
            ],
            "annotations": annotations or {"org.opencontainers.image.url": "javascript:alert(1)"},
        }
    )
    manifest = manifests.parse(manifest_raw)
    assert isinstance(manifest, Manifest)
    index = None
    if with_index:
        found = manifests.parse(
            raw(
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_INDEX,
                    "manifests": [
                        described(manifest_raw, OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
                        described(b"{}", OCI_MANIFEST, platform={"os": "linux", "architecture": "arm", "variant": "v7"}),
                        described(
                            b"{ }", OCI_MANIFEST,
                            platform={"os": "unknown", "architecture": "unknown"},
                            annotations={"vnd.docker.reference.type": "attestation-manifest"},
                        ),
                    ],
                }
            )
        )  # fmt: skip
        assert isinstance(found, Index)
        index = found
    return Image(
        reference="registry.example/demo/shop:1.0",
        descriptor=(index or manifest).descriptor(),
        index=index,
        manifest=manifest,
        config=ImageConfig.parse(config_raw),
        platform=Platform("linux", "amd64"),
        source=Source(),
    )


def test_layers_and_history_belong_together() -> None:
    """Each layer has its DiffID and the step that made it; each step its layer's size."""
    img = image()
    assert list(img.layers) == [
        LayerRow(0, Digest.of(b"layer0"), OCI_LAYER_GZIP, 1000, DIFF_IDS[0], "ADD rootfs /"),
        LayerRow(1, Digest.of(b"layer1"), OCI_LAYER_GZIP, 2000, DIFF_IDS[1], f"RUN {HOSTILE}"),
    ]
    noon = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
    assert [row.size for row in img.history] == [1000, 0, 2000]
    assert img.history[2] == HistoryRow(noon, f"RUN {HOSTILE}", 2000, False, "c")
    assert img.history[1].created is None
    assert isinstance(img.layers[1:], Rows)


def test_frames_of_an_image_have_the_stated_dtypes() -> None:
    """Sizes are Int64 of bytes, times are UTC."""
    require("module:pandas")
    img = image()
    layers, history = img.layers.to_frame(), img.history.to_frame()
    assert {name: str(dtype) for name, dtype in layers.dtypes.items()} == {
        "index": "Int64", "digest": "string", "media_type": "string", "size": "Int64",
        "diff_id": "string", "created_by": "string",
    }  # fmt: skip
    assert str(history.dtypes["created"]) == "datetime64[ns, UTC]"
    assert str(history["created"][2]) == "2026-05-01 12:00:00+00:00"
    assert layers["size"].sum() == 3000
    assert list(img.platforms.to_frame()["platform"]) == ["linux/amd64", "linux/arm/v7", "unknown/unknown"]


def test_names_and_sizes() -> None:
    """The digest is what the reference resolved to; the size is of config and layers; bytes stay exact."""
    img = image()
    assert img.index is not None
    assert img.digest == Digest.of(img.index.raw) == img.descriptor.digest
    assert img.config is not None
    assert img.size == 3000 + len(img.config.raw)
    assert img.chain_id == chain_id(DIFF_IDS)
    assert Digest.of(img.manifest.raw) == img.platforms[0].digest
    assert img.labels["org.opencontainers.image.title"] == "shop"
    assert img.annotations == {"org.opencontainers.image.url": "javascript:alert(1)"}
    assert img.platforms[2].note == "attestation-manifest"
    alone = image(with_index=False)
    assert alone.digest == Digest.of(alone.manifest.raw) == alone.platforms[0].digest
    assert [row.platform for row in alone.platforms] == ["linux/amd64"]


def test_a_layer_that_comes_twice_is_counted_once_in_the_size() -> None:
    """A repeated layer moves once."""
    img = image(with_index=False)
    twice = manifests.parse(
        raw(
            {
                "schemaVersion": 2,
                "config": img.manifest.config.to_json() if img.manifest.config else None,
                "layers": [img.manifest.layers[0].to_json()] * 2,
            }
        )
    )
    assert isinstance(twice, Manifest)
    doubled = Image("r", twice.descriptor(), twice, img.config)
    assert doubled.size == img.size - 2000
    assert len(doubled.layers) == 2


def test_d46_a_history_that_does_not_fit_is_shown() -> None:
    """Neither history nor DiffIDs that disagree with the layers are an error; both are told."""
    img = image(layers=3)
    assert [row.diff_id for row in img.layers] == [None] * 3
    assert [row.created_by for row in img.layers] == [""] * 3
    assert [row.size for row in img.history] == [None, 0, None]
    for shown in (repr(img), img._repr_html_()):
        assert "the config names 2 layers, the manifest has 3" in shown
        assert "the history accounts for 2 layers, the manifest has 3" in shown
    bare = image(config_json(history=[]))
    assert len(bare.history) == 0
    assert "accounts for" not in repr(bare)


def test_an_artifact_has_no_config() -> None:
    """Without an image config there are layers, and neither history, labels nor a chain ID."""
    img = image(with_index=False)
    artifact = Image("r", img.descriptor, img.manifest)
    assert artifact.config is None
    assert artifact.chain_id is None
    assert (len(artifact.history), dict(artifact.labels)) == (0, {})
    assert [row.diff_id for row in artifact.layers] == [None, None]
    assert "sha256:" in repr(artifact)
    assert "<table" in artifact._repr_html_()


def test_the_text_card() -> None:
    """Names, platform, sizes and the layers, a line each."""
    text = repr(image())
    lines = text.splitlines()
    assert lines[0] == "registry.example/demo/shop:1.0"
    assert any(line.split()[:2] == ["platform", "linux/amd64"] and "one of 2" in line for line in lines)
    assert any("kB in 2 layers and a config" in line for line in lines)
    assert any(line.endswith('["/bin/serve"]') for line in lines)
    assert sum(f"sha256:{Digest.of(b'layer%d' % at).short}" in text for at in range(2)) == 2


def test_g67_the_cards_escape_and_make_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control character gets out, and neither the source nor a socket is touched."""

    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a repr opened a socket")

    monkeypatch.setattr(socket, "socket", no_socket)
    img = image(annotations={HOSTILE: HOSTILE})
    html_config = img.config._repr_html_() if isinstance(img.config, ConfigView) else ""
    for shown in (repr(img), img._repr_html_(), html_config, img.history._repr_html_(), repr(img.config)):
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert shown


class Tags(html.parser.HTMLParser):
    """The elements of a document, checked for balance."""

    VOID = frozenset({"rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_g66_hostile_names_are_inert_in_the_card() -> None:
    """Markup in labels, annotations and history is text; no script, no link, no handler, no javascript: URL."""
    img = image(annotations={"org.opencontainers.image.url": "javascript:alert(1)", HOSTILE: HOSTILE})
    assert isinstance(img.config, ConfigView)
    for shown in (img._repr_html_(), img.config._repr_html_()):
        tags = Tags(shown)
        names = {name for name, _ in tags.found}
        assert not names & {"script", "a", "iframe", "object", "img", "link", "style", "form"}
        for _, attributes in tags.found:
            assert not any(key.startswith("on") or key in ("href", "src") for key in attributes)
            assert "javascript:" not in "".join(value or "" for value in attributes.values())
    assert "javascript:alert(1)" in img._repr_html_()
    assert "&lt;script&gt;" in img._repr_html_()


def test_the_card_reads_without_its_picture() -> None:
    """What the bars say stands beside them, and every table has a caption and headers."""
    shown = image()._repr_html_()
    tags = Tags(shown)
    assert "<svg" in shown
    without = re.sub(r"<svg.*?</svg>", "", shown)
    for size in ("1.0 kB", "2.0 kB", "67 %"):
        assert f"{size}</td>" in without
    tables = sum(name == "table" for name, _ in tags.found)
    assert sum(name == "caption" for name, _ in tags.found) == tables
    assert all(attributes.get("scope") in ("col", "row") for name, attributes in tags.found if name == "th")
    assert "var(--jp-ui-font-color1, var(--vscode-foreground, inherit))" in shown


def test_the_config_is_a_value_and_a_foldable_tree() -> None:
    """Attributes as parsed, exact bytes, equal to the plain config, and JSON in details elements."""
    data = config_json(history=[])
    img = image(data)
    config = img.config
    assert isinstance(config, ConfigView)
    assert config == ImageConfig.parse(raw(data))
    assert hash(config) == hash(documents.shown(ImageConfig.parse(raw(data))))
    assert config.raw == raw(data)
    assert config.run.user == "app"
    assert config.diff_ids == tuple(DIFF_IDS)
    shown = config._repr_html_()
    assert {"details", "summary"} <= {name for name, _ in Tags(shown).found}
    assert "&quot;amd64&quot;" in shown


def test_an_image_pickles_without_its_source() -> None:
    """A worker process gets an equal image; connections stay here."""
    img = image()
    again = pickle.loads(pickle.dumps(img))
    assert again == img
    assert again.source is None
    assert img.source is not None
    assert again._repr_html_() == img._repr_html_()
    assert again.manifest.raw == img.manifest.raw


def test_an_image_is_immutable() -> None:
    """Nothing on it can be set."""
    with pytest.raises(AttributeError):
        image().reference = "other"  # type: ignore[misc]


def test_a_thousand_layers_are_cut_in_both_cards() -> None:
    """Cards stay short; the count is told."""
    img = image(layers=1000)
    assert len(repr(img).splitlines()) < 90
    assert "940 more of 1,000" in repr(img)
    shown = img._repr_html_()
    assert shown.count("<rect") == 60
    assert (
        max(map(int, re.findall(r"</svg> ([0-9]+) %", shown)), default=0) <= 1
    )  # of all, not of the first sixty
    assert "940 more of 1,000 rows" in shown


def test_a_config_reads_as_json_text() -> None:
    """The repr of a config is its JSON, indented, cut past some hundred lines, with escapes for what doesn't print."""
    raw = json.dumps({"os": "linux", "architecture": "amd64", "author": "a\u202eb", "more": list(range(900))})
    text = repr(documents.shown(ImageConfig.parse(raw.encode())))
    assert text.splitlines()[1] == ' "os": "linux",'
    assert "a\\u202eb" in text
    assert "\u202e" not in text
    assert text.splitlines()[-1] == "… 507 more lines"


def test_manifest_and_index_show_as_json_and_equal_the_plain_values() -> None:
    """The documents of an image read as what they are, byte for byte the values of spec."""
    from ocidist.client import Client
    from ocidist.net.replay import load_demo  # the demo has all three

    img = Client(transport=load_demo()).open("registry.example/demo/shop:1.0", platform="linux/amd64")
    assert isinstance(img.manifest, ManifestView)
    assert isinstance(img.index, IndexView)
    assert '"schemaVersion": 2' in repr(img.manifest)
    assert "<details" in img.index._repr_html_()
    plain = manifests.parse(img.manifest.raw, img.manifest.media_type)
    assert img.manifest == plain
    assert plain == img.manifest
    assert documents.shown(img.manifest) is img.manifest
    assert pickle.loads(pickle.dumps(img)).manifest == img.manifest
