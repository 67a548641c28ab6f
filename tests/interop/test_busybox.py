"""The official busybox images behind one index: what others made, read by us and by umoci."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.interop.registries import blobs_in
from tests.parts.images import blob_path, layout_graph, push_with_skopeo, sha256
from tests.parts.processes import Program
from tests.parts.required import program as executable
from tests.parts.required import require

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")


@pytest.fixture(scope="module")
def busybox(tmp_path_factory: pytest.TempPathFactory, images_of_others: Path) -> Iterator[tuple[Any, Path]]:
    """A registry with ``library/busybox:latest`` for three platforms, and the layout that it was loaded from."""
    require("docker-registry", "skopeo")
    from tests.parts.realimages import busybox_index
    from tests.parts.registry import RegistryProcess

    folder = tmp_path_factory.mktemp("busybox")
    layout = folder / "layout"
    busybox_index(images_of_others, layout)
    with RegistryProcess(folder / "registry") as registry:
        push_with_skopeo(layout, registry.loader.address, "library/busybox", "latest")
        yield registry, layout


def raw_of(layout: Path, digest: str) -> bytes:
    """The bytes of a blob, which must be what its name says."""
    raw = blob_path(layout, digest).read_bytes()
    assert sha256(raw) == digest
    return raw


@pytest.mark.parametrize("number", range(3), ids=PLATFORMS)
def test_each_platform_is_pulled_whole_and_unpacks_as_umoci_does(
    tmp_path: Path, busybox: tuple[Any, Path], number: int
) -> None:
    """Digests, DiffIDs and chain ID are checked by hand; the tree is umoci's to the last field."""
    require("root", "umoci", "skopeo")
    from tests.parts.trees import assert_same, snapshot

    registry, layout = busybox
    root = json.loads((layout / "index.json").read_bytes())["manifests"][0]
    entry = json.loads(raw_of(layout, root["digest"]))["manifests"][number]
    manifest = json.loads(raw_of(layout, entry["digest"]))
    config = json.loads(raw_of(layout, manifest["config"]["digest"]))

    program = Program(tmp_path / "home", tmp_path / "root", options=("--platform", PLATFORMS[number]))
    ref = f"{registry.address}/library/busybox:latest"
    name, digest, chain = program.ok("pull", ref).text.split()
    assert (name, digest) == (ref, root["digest"])

    stored = blobs_in(tmp_path / "root/content")
    assert set(stored) == {
        root["digest"], entry["digest"], manifest["config"]["digest"], *(x["digest"] for x in manifest["layers"])
    }  # fmt: skip
    assert all(sha256(raw) == name for name, raw in stored.items())
    unpacked = [sha256(gzip.decompress(stored[layer["digest"]])) for layer in manifest["layers"]]
    assert unpacked == config["rootfs"]["diff_ids"]
    expected = unpacked[0]
    for diff_id in unpacked[1:]:
        expected = sha256(f"{expected} {diff_id}".encode())
    assert chain == expected
    shown = json.loads(program.ok("inspect", ref, "--format", "json").text)
    architecture, variant = config["architecture"], config.get("variant")
    assert shown["config"]["architecture"] == architecture
    assert shown["chain_id"] == chain
    assert PLATFORMS[number].split("/")[1:] in ([architecture], [architecture, variant])

    (tree,) = [folder for folder in (tmp_path / "root").rglob("*") if (folder / "bin/busybox").is_file()]
    theirs = snapshot(_unpacked_by_umoci(tmp_path, layout, entry, number))
    ours = snapshot(tree)
    assert_same(ours, theirs, root=False)
    assert len(ours["bin/busybox"].hardlinks) > 300
    assert {node.type for node in ours.values()} >= {"file", "directory", "symlink"}


def _unpacked_by_umoci(tmp_path: Path, layout: Path, entry: dict[str, Any], number: int) -> Path:
    platform = PLATFORMS[number].split("/")
    command = [executable("skopeo"), "--insecure-policy", f"--override-arch={platform[1]}"]
    command += [f"--override-variant={platform[2]}"] if len(platform) > 2 else []
    one = tmp_path / "one"
    subprocess.run([*command, "copy", "--quiet", f"oci:{layout}:latest", f"oci:{one}:latest"], check=True)
    assert entry["digest"] in {item["digest"] for item in layout_graph(one, "latest")}
    bundle = tmp_path / "bundle"
    subprocess.run(
        [executable("umoci"), "unpack", "--image", f"{one}:latest", str(bundle)],
        check=True,
        capture_output=True,
    )
    return bundle / "rootfs"


def test_all_platforms_at_once_are_what_skopeo_copies(tmp_path: Path, busybox: tuple[Any, Path]) -> None:
    """``--platform all`` stores the whole index, byte for byte."""
    require("skopeo")
    registry, _ = busybox
    ref = f"{registry.address}/library/busybox:latest"
    registry.front.forget()
    Program(tmp_path / "home", tmp_path / "root").ok("pull", "--platform", "all", ref)
    downloads = registry.front.downloads()
    assert set(downloads.values()) == {1}
    copied = tmp_path / "copied"
    command = [
        executable("skopeo"),
        "--insecure-policy",
        "copy",
        "--quiet",
        "--all",
        "--src-tls-verify=false",
    ]
    subprocess.run([*command, f"docker://{ref}", f"oci:{copied}:latest"], check=True)
    assert blobs_in(tmp_path / "root/content") == blobs_in(copied)
