"""Images made in test code, as OCI layouts, and two ways to put a layout into a registry.

All is deterministic: times are fixed, JSON is canonical, gzip headers carry no name and no time.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import ssl
import subprocess
import tarfile
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from tests.parts.required import program

EPOCH = 1_700_000_000  # the time of every file and image here: 2023-11-14T22:13:20Z
CREATED = "2023-11-14T22:13:20Z"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha256(raw: bytes) -> str:
    """``sha256:HEX`` of ``raw``."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def to_json(value: Any) -> bytes:
    """Canonical JSON: no spaces, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# --- tar ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One tar member. A path that ends in ``/`` is a directory; ``link`` a symlink's target, ``hard`` a hardlink's."""

    path: str
    content: bytes = b""
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    link: str | None = None
    hard: str | None = None
    pax: Mapping[str, str] = field(default_factory=dict)
    type: bytes | None = None
    device: tuple[int, int] = (0, 0)

    def member(self) -> tarfile.TarInfo:
        """The header."""
        info = tarfile.TarInfo(self.path.rstrip("/"))
        info.uid, info.gid, info.mtime = self.uid, self.gid, self.mtime
        info.pax_headers = dict(self.pax)
        if self.path.endswith("/"):
            info.type, info.mode = tarfile.DIRTYPE, 0o755
        elif self.link is not None:
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, self.link
        elif self.hard is not None:
            info.type, info.mode, info.linkname = tarfile.LNKTYPE, 0o644, self.hard
        else:
            info.mode, info.size = 0o644, len(self.content)
        if self.type is not None:
            info.type = self.type
            info.devmajor, info.devminor = self.device
        if self.mode is not None:
            info.mode = self.mode
        return info


def tar(entries: Iterable[Entry]) -> bytes:
    """An uncompressed PAX tar of ``entries`` in their order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry.member(), io.BytesIO(entry.content))
    return target.getvalue()


def gz(raw: bytes, level: int = 6) -> bytes:
    """``raw`` gzipped, without a time."""
    return gzip.compress(raw, level, mtime=0)


# --- images ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blob:
    """Bytes and what they are called; ``descriptor()`` is the JSON that refers to them."""

    raw: bytes
    media_type: str
    platform: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None

    @property
    def digest(self) -> str:
        """``sha256:HEX``."""
        return sha256(self.raw)

    def descriptor(self) -> dict[str, Any]:
        """As it stands in a manifest or an index."""
        value: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.raw),
        }
        if self.platform:
            value["platform"] = dict(self.platform)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


@dataclass(frozen=True)
class TestImage:
    """A root (manifest or index) and all that it refers to, children first."""

    __test__ = False  # pytest: this is no test class

    root: Blob
    blobs: tuple[Blob, ...]
    children: tuple[TestImage, ...] = ()

    @property
    def digest(self) -> str:
        """The root's."""
        return self.root.digest

    @property
    def manifest(self) -> dict[str, Any]:
        """The root, parsed."""
        parsed: dict[str, Any] = json.loads(self.root.raw)
        return parsed

    def everything(self) -> dict[str, Blob]:
        """Digest -> blob: configs and layers, then manifests, then the root."""
        found: dict[str, Blob] = {}
        for child in self.children:
            found.update(child.everything())
        for blob in (*self.blobs, self.root):
            found[blob.digest] = blob
        return found


def platform_of(text: str) -> dict[str, str]:
    """``linux/arm/v7`` as the JSON object."""
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return {"architecture": architecture, "os": os, **({"variant": variant} if variant else {})}


def image(
    layers: Sequence[Sequence[Entry] | bytes],
    *,
    platform: str = "linux/amd64",
    run: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    compress: bool = True,
    annotations: Mapping[str, str] | None = None,
) -> TestImage:
    """An image of ``layers`` (entries, or the bytes of a tar), gzipped unless ``compress`` is off."""
    tars = [layer if isinstance(layer, bytes) else tar(layer) for layer in layers]
    media_type = LAYER + ("+gzip" if compress else "")
    packed = [Blob(gz(raw) if compress else raw, media_type) for raw in tars]
    document: dict[str, Any] = {
        "created": CREATED,
        **platform_of(platform),
        "config": dict(run or {}),
        "rootfs": {"type": "layers", "diff_ids": [sha256(raw) for raw in tars]},
        "history": list(history)
        if history is not None
        else [{"created": CREATED, "created_by": f"layer {number}"} for number in range(len(tars))],
    }
    config = Blob(to_json(document), CONFIG)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in packed],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    root = Blob(to_json(manifest), MANIFEST, platform_of(platform))
    return TestImage(root, (config, *packed))


def index(images: Sequence[TestImage], annotations: Mapping[str, str] | None = None) -> TestImage:
    """A multi-platform index of ``images``."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [child.root.descriptor() for child in images],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return TestImage(Blob(to_json(document), INDEX), (), tuple(images))


def small_image(seed: str = "a", *, platform: str = "linux/amd64", layers: int = 2) -> TestImage:
    """A few files in ``layers`` layers; another ``seed`` gives other digests."""
    contents = [
        [
            Entry("etc/"),
            Entry("etc/os-release", f'ID=test\nPRETTY_NAME="{seed} on {platform}"\n'.encode()),
            Entry("bin/"),
            Entry("bin/sh", b"#!/bin/true\n", mode=0o755),
            Entry("bin/ash", link="sh"),
            Entry("bin/hush", hard="bin/sh"),
        ]
    ]
    for number in range(1, layers):
        contents.append([Entry(f"opt/{seed}/"), Entry(f"opt/{seed}/{number}", f"{seed} {number}\n".encode())])
    return image(contents, platform=platform, run={"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]})


def small_index(seed: str = "a") -> TestImage:
    """A :func:`small_image` for amd64, arm64/v8 and arm/v7."""
    return index([small_image(seed, platform=p) for p in ("linux/amd64", "linux/arm64/v8", "linux/arm/v7")])


def noise(size: int, seed: str = "noise") -> bytes:
    """``size`` bytes that do not compress, the same for the same ``seed``."""
    return hashlib.shake_128(seed.encode()).digest(size)


# --- layouts --------------------------------------------------------------------------------------------------


def blob_path(layout: Path, digest: str) -> Path:
    """Where ``digest`` lies in ``layout``."""
    return layout / "blobs" / digest.replace(":", "/", 1)


def write_layout(folder: Path, images: Mapping[str, TestImage]) -> Path:
    """An OCI image layout in ``folder``: tag -> image."""
    for made in images.values():
        for digest, blob in made.everything().items():
            path = blob_path(folder, digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob.raw)
    write_index(folder, {tag: made.root.descriptor() for tag, made in images.items()})
    return folder


def write_index(folder: Path, roots: Mapping[str, Mapping[str, Any]]) -> None:
    """``oci-layout`` and ``index.json`` of a layout: tag -> descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    manifests = [
        {**root, "annotations": {"org.opencontainers.image.ref.name": tag}} for tag, root in roots.items()
    ]
    (folder / "index.json").write_bytes(
        to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    )


def layout_root(layout: Path, tag: str | None = None) -> dict[str, Any]:
    """The descriptor in ``index.json`` that ``tag`` names, or the only one."""
    manifests: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    if tag is None and len(manifests) == 1:
        return manifests[0]
    key = "org.opencontainers.image.ref.name"
    return next(entry for entry in manifests if entry.get("annotations", {}).get(key) == tag)


def layout_graph(layout: Path, tag: str | None = None) -> list[dict[str, Any]]:
    """Descriptors of all that ``tag`` refers to, children first, the root last, each digest once."""
    found: dict[str, dict[str, Any]] = {}

    def walk(entry: dict[str, Any]) -> None:
        if entry["digest"] in found:
            return
        if entry["mediaType"] in (MANIFEST, INDEX) or "docker.distribution.manifest" in entry["mediaType"]:
            document = json.loads(blob_path(layout, entry["digest"]).read_bytes())
            for child in (
                *document.get("manifests", ()),
                document.get("config"),
                *document.get("layers", ()),
            ):
                if child:
                    walk(child)
        found[entry["digest"]] = entry

    walk(layout_root(layout, tag))
    return list(found.values())


# --- into a registry ------------------------------------------------------------------------------------------


def push_with_skopeo(
    layout: Path,
    address: str,
    name: str,
    tag: str,
    *,
    source_tag: str | None = None,
    certs: Path | None = None,
    credentials: str | None = None,
    tls: bool = False,
) -> None:
    """``skopeo copy --all`` of ``layout`` to ``address/name:tag``; ``certs`` is a folder with ca.crt."""
    command = [program("skopeo"), "--insecure-policy", "copy", "--quiet", "--all"]
    command.append(f"--dest-tls-verify={'true' if tls else 'false'}")
    if certs is not None:
        command += ["--dest-cert-dir", str(certs)]
    if credentials is not None:
        command += ["--dest-creds", credentials]
    source = f"oci:{layout}:{source_tag or tag}"
    done = subprocess.run(
        [*command, source, f"docker://{address}/{name}:{tag}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def push_layout(
    url: str,
    layout: Path,
    name: str,
    tag: str,
    *,
    source_tag: str | None = None,
    context: ssl.SSLContext | None = None,
    authorization: str | None = None,
) -> str:
    """Put ``layout`` into the registry at ``url`` byte for byte, with the standard library; returns the root's digest."""
    split = urllib.parse.urlsplit(url)
    assert split.hostname is not None
    connection: http.client.HTTPConnection
    if split.scheme == "https":
        connection = http.client.HTTPSConnection(split.hostname, split.port, timeout=120, context=context)
    else:
        connection = http.client.HTTPConnection(split.hostname, split.port, timeout=120)
    headers = {"Authorization": authorization} if authorization else {}

    def ask(method: str, target: str, body: Any = None, **more: str) -> http.client.HTTPResponse:
        connection.request(
            method, target, body, {**headers, **{k.replace("_", "-"): v for k, v in more.items()}}
        )
        answer = connection.getresponse()
        answer.msg["X-Body"] = answer.read().decode("utf-8", "replace")[:300]
        return answer

    try:
        graph = layout_graph(layout, source_tag or (tag if _has_tag(layout, tag) else None))
        for entry in graph:
            path = blob_path(layout, entry["digest"])
            if entry["mediaType"] in (MANIFEST, INDEX) or "manifest" in entry["mediaType"]:
                target = tag if entry is graph[-1] else entry["digest"]
                answer = ask(
                    "PUT",
                    f"/v2/{name}/manifests/{target}",
                    path.read_bytes(),
                    Content_Type=entry["mediaType"],
                )
            elif ask("HEAD", f"/v2/{name}/blobs/{entry['digest']}").status == 200:
                continue
            else:
                answer = ask("POST", f"/v2/{name}/blobs/uploads/", b"")
                assert answer.status == 202, (answer.status, answer.msg["X-Body"])
                place = urllib.parse.urlsplit(answer.getheader("Location") or "")
                joint = "&" if place.query else "?"
                target = f"{place.path}?{place.query}{joint if place.query else ''}digest={entry['digest']}"
                with path.open("rb") as body:
                    answer = ask(
                        "PUT",
                        target,
                        body,
                        Content_Type="application/octet-stream",
                        Content_Length=str(path.stat().st_size),
                    )
            assert answer.status == 201, (entry, answer.status, answer.msg["X-Body"])
        return str(graph[-1]["digest"])
    finally:
        connection.close()


def _has_tag(layout: Path, tag: str) -> bool:
    key = "org.opencontainers.image.ref.name"
    manifests = json.loads((layout / "index.json").read_bytes())["manifests"]
    return any(entry.get("annotations", {}).get(key) == tag for entry in manifests)
