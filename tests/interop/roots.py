"""Roots as pulls leave them, and images of a size at which a pull has a middle to be ended in."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from tests.parts.images import Entry, TestImage, image, noise, push_layout, write_layout
from tests.parts.trees import Node, snapshot

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

STARTED = time.time_ns() - 60_000_000_000


@contextlib.contextmanager
def scratch(otherwise: Path) -> Iterator[Path]:
    """A folder for large roots, in memory where there is room (disks take their time to forget a gigabyte)."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 6 << 30:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="ocidist-test-", dir=memory) as folder:
        yield Path(folder)


def layered(*seeds: str, size: int = 3_000_000, files: int = 250) -> TestImage:
    """A layer for each seed, of ``files`` files with ``size`` bytes together that do not compress.

    Images that share a seed share the layer: its paths and bytes follow from the seed alone.
    """
    layers = []
    for seed in seeds:
        entries = [Entry(f"srv/{seed}/"), Entry(f"srv/{seed}/run", b"#!/bin/sh\n", mode=0o4755)]
        stuff = noise(size, seed)
        # Few large files make up most of the bytes, as in real images; the rest are small.
        cuts = [0, size // 2, size * 3 // 4]
        cuts += [size * 3 // 4 + (size // 4) * step // files for step in range(1, files + 1)]
        for number, (begin, end) in enumerate(itertools.pairwise(cuts)):
            folder = f"srv/{seed}/{number % 16:x}/"
            if number < 16:
                entries.append(Entry(folder, mode=0o750))
            entries.append(
                Entry(f"{folder}{number}", stuff[begin:end], uid=number % 3, mtime=1_600_000_000 + number)
            )
        entries.append(Entry(f"srv/{seed}/link", link="run"))
        entries.append(Entry(f"srv/{seed}/hard", hard=f"srv/{seed}/run"))
        layers.append(entries)
    return image(layers)


def load(registry: RegistryProcess, folder: Path, images: dict[str, TestImage]) -> None:
    """Put ``images`` (repository -> image) into ``registry`` as ``latest``, uncounted."""
    for name, made in images.items():
        layout = write_layout(folder / "made" / name.replace("/", "-"), {"latest": made})
        push_layout(registry.loader.url, layout, name, "latest")
    registry.front.forget()


def total(made: TestImage) -> int:
    """Bytes of all that a pull of ``made`` fetches."""
    return sum(len(blob.raw) for blob in made.everything().values())


def blobs(root: Path) -> dict[str, str]:
    """Digest -> what the blob's bytes hash to, of every file in the content store."""
    found = {}
    for path in sorted((root / "content/blobs").glob("*/*")):
        with path.open("rb") as source:
            found[f"{path.parent.name}:{path.name}"] = f"{path.parent.name}:{_hash(source)}"
    return found


def _hash(source: Any) -> str:
    whole = hashlib.sha256()
    while block := source.read(1 << 20):
        whole.update(block)
    return whole.hexdigest()


def partial(root: Path) -> dict[str, int]:
    """Digest -> bytes on disk, of what is under way or was interrupted."""
    found = {}
    for folder in (root / "content/ingest").glob("*"):
        data, ref = folder / "data", folder / "ref"
        if data.is_file() and ref.is_file():
            found["sha256:" + ref.read_text().rpartition("sha256:")[2]] = data.stat().st_size
    return found


def snapshots(root: Path) -> list[str]:
    """The ChainIDs that are whole and visible."""
    found = (root / "snapshots/native/committed").glob("*")
    return sorted(path.name.replace("-", ":", 1) for path in found)


def tree(root: Path, chain: str) -> dict[str, Node]:
    """The root filesystem of a ChainID. A directory that no layer names has the time of its making: here 0."""
    found = snapshot(root / "snapshots/native/committed" / chain.replace(":", "-", 1) / "fs")
    return {
        path: replace(node, mtime_ns=0) if node.type == "directory" and node.mtime_ns > STARTED else node
        for path, node in found.items()
    }


def leftovers(root: Path) -> list[str]:
    """What no root has after its pulls have ended well: ingests, locks, trees that nobody finished or removed."""
    native = root / "snapshots/native"
    places = [root / "content/ingest", native / "active", native / "locks", native / "removed"]
    return [str(path.relative_to(root)) for place in places for path in sorted(place.glob("*"))]


def assert_whole(root: Path, *images: TestImage) -> None:
    """The content store holds exactly these images, each blob hashing to its name, and nothing is left over."""
    wanted = {digest for made in images for digest in made.everything()}
    found = blobs(root)
    assert {digest for digest, hashed in found.items() if digest != hashed} == set()
    assert set(found) == wanted
    assert leftovers(root) == []
