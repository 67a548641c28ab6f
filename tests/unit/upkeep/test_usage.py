"""du: sums that agree with the system's own, and what images share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ocidist.client import Client
from ocidist.net.replay import load_demo
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.stores.store import Store
from ocidist.stores.upkeep.usage import Space, UsageRow, measure
from tests.parts.required import program, require

DEMO = "registry.example/demo/shop:1.0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With the demo image in it."""
    client = Client(store=tmp_path / "root", transport=load_demo(), platform="linux/amd64")
    client.pull(DEMO)
    return client.store


def rows(store: Store) -> dict[tuple[str, str], UsageRow]:
    return {(row.kind, row.name): row for row in store.du()}


def of(found: dict[tuple[str, str], UsageRow], kind: str) -> UsageRow:
    [row] = [row for (what, _), row in found.items() if what == kind]
    return row


def test_the_sum_is_what_du_says(store: Store) -> None:
    """To the byte, hardlinks counted once, also where they lie in two places."""
    require("du", "os:link")
    with store.ingest("under way") as writer:
        writer.write(bytes(100_000))
    blob = max((store.root / "content/blobs").glob("*/*"), key=lambda path: path.stat().st_size)
    os.link(blob, store.root / "snapshots" / "a-hardlink")
    found = rows(store)
    done = subprocess.run(
        [program("du"), "-s", "-B1", str(store.root)], capture_output=True, text=True, check=True
    )
    assert of(found, "total").disk == int(done.stdout.split()[0])
    parts = [of(found, kind) for kind in ("content", "ingests", "snapshots", "database", "other")]
    for what in ("files", "size", "disk"):
        assert getattr(of(found, "total"), what) == sum(getattr(part, what) for part in parts)
    assert of(found, "ingests").size > 100_000


def test_what_images_share(store: Store) -> None:
    """A second name for all, a third for one layer, and a blob without a name."""
    image = store.get_image(DEMO)
    found = rows(store)
    whole = of(found, "image")
    assert (whole.size, whole.unique, whole.shared) == (of(found, "content").size, whole.size, 0)
    layer = Client(store=store).open(f"store:{DEMO}").manifest.layers[0]
    store.tag("registry.example/one:1", Descriptor(layer.media_type, layer.digest, layer.size), Scope())
    with store.ingest("k") as writer:
        writer.write(b"hello")
        writer.commit(5, None)
    found = rows(store)
    assert found["image", DEMO].shared == layer.size
    assert found["image", DEMO].unique == whole.size - layer.size
    one = found["image", "registry.example/one:1"]
    assert (one.files, one.size, one.unique, one.shared) == (1, layer.size, 0, layer.size)
    assert (of(found, "unnamed").files, of(found, "unnamed").size) == (1, 5)
    store.tag("registry.example/two:1", image, Scope())
    assert rows(store)["image", DEMO].unique == 0
    assert of(rows(store), "content").size == whole.size + 5


def test_a_snapshot_is_told_by_its_chain(store: Store) -> None:
    """With the bytes of its files; the sum of all has its records as well."""
    [info] = store.snapshots.walk()
    found = rows(store)
    tree = Path(store.snapshots.path(info.key))
    files = [path for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()]
    links = {(path.lstat().st_ino, path.lstat().st_size) for path in files}
    row = found["snapshot", info.key]
    assert (row.files, row.size) == (len(links), sum(size for _, size in links))
    assert of(found, "snapshots").size > row.size


def test_an_empty_root_and_one_that_is_not_there(tmp_path: Path) -> None:
    """Use nothing but themselves; nothing is made."""
    for root in (tmp_path / "absent", tmp_path):
        with Store.at(root) as store:
            found = rows(store)
            assert of(found, "total").files == of(found, "total").size == 0
    assert os.listdir(tmp_path) == []


def test_places_inside_places(tmp_path: Path) -> None:
    """Count in both; what is a link counts as a link, and is not followed."""
    require("os:symlink")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"12345")
    (tmp_path / "a/link").symlink_to(tmp_path / "a/b")
    places = {str(tmp_path / "a"): Space(), str(tmp_path / "a/b"): Space()}
    total = measure(str(tmp_path), Scope(), places=places)
    outer, inner = places.values()
    assert (inner.files, inner.size) == (1, 5)
    assert (outer.files, outer.size) == (total.files, total.size)
    assert outer.files == 2
