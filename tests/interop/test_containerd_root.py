"""The root of a real containerd, opened beside it: read as it is, written never."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocidist.errors import StoreError
from ocidist.scope import Scope
from ocidist.stores.store import Store
from tests.parts.images import index, push_layout, small_image, write_layout
from tests.parts.processes import Program
from tests.parts.trees import snapshot

if TYPE_CHECKING:
    from tests.parts.containerd import Containerd
    from tests.parts.registry import RegistryProcess

PLUGIN = "io.containerd.content.v1.content"
# What ctr calls an age: units.HumanDuration of docker/go-units, as far as a test lives.
UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


def seconds(text: str) -> tuple[float, float]:
    """The ages, from and to, that ctr shows as ``text``."""
    if text == "Less than a second":
        return 0, 1
    if text == "About a minute":
        return 60, 120
    if text == "About an hour":
        return 1800, 5400
    found = re.fullmatch(r"(\d+) (second|minute|hour)s?", text)
    assert found is not None, text
    number, unit = int(found[1]), UNITS[found[2]]
    return number * unit, (number + 1) * unit


def listed(daemon: Containerd) -> dict[str, tuple[str, str]]:
    """Digest -> size and age, as ``ctr content ls`` prints them."""
    lines = daemon.ctr("content", "ls").splitlines()[1:]
    return {line.split("\t")[0]: (line.split("\t")[1], line.split("\t")[2]) for line in lines}


def size(text: str) -> tuple[float, float]:
    """The bytes, from and to, that ctr shows as ``text``: four digits of decimal units."""
    found = re.fullmatch(r"([\d.]+) ?(B|kB|MB)", text)
    assert found is not None, text
    unit = {"B": 1, "kB": 1e3, "MB": 1e6}[found[2]]
    return (float(found[1]) - 0.05) * unit, (float(found[1]) + 0.05) * unit


@pytest.fixture
def filled(
    tmp_path: Path, containerd: Containerd, registry: RegistryProcess
) -> tuple[set[str], float, float]:
    """containerd with one image pulled and one imported: the digests, and between which times they came."""
    pulled, imported = small_image("pulled", layers=3), index([small_image("imported")])
    push_layout(registry.loader.url, write_layout(tmp_path / "one", {"1": pulled}), "team/app", "1")
    began = time.time()
    containerd.ctr("images", "pull", "--plain-http", f"{registry.address}/team/app:1")
    layout = write_layout(tmp_path / "two", {"2": imported})
    import tarfile

    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for path in sorted(layout.rglob("*")):
            archive.add(path, path.relative_to(layout).as_posix(), recursive=False)
    containerd.ctr("images", "import", "--all-platforms", "--no-unpack", str(tmp_path / "two.tar"))
    ended = time.time()
    # What import wrote only for a moment goes now, and not in the middle of a test.
    lease = containerd.ctr("leases", "create").strip()
    containerd.ctr("leases", "rm", "--sync", lease)
    return {*pulled.everything(), *imported.everything()}, began, ended


def test_the_same_blobs_sizes_and_ages(
    tmp_path: Path, containerd: Containerd, filled: tuple[set[str], float, float]
) -> None:
    """As ``ctr content ls`` lists them; the bytes verify; opened by its root or by the content directory."""
    digests, began, ended = filled
    before = time.time()
    theirs = listed(containerd)
    after = time.time()
    assert digests <= set(theirs)
    program = Program(tmp_path / "home", containerd.root, options=["--progress", "none"])
    ours = {row["digest"]: row for row in json.loads(program.ok("list", "--format", "json").text)}
    assert set(ours) == set(theirs)
    for digest, (shown, age) in theirs.items():
        least, most = size(shown)
        assert least <= ours[digest]["size"] <= most
        created = datetime.fromisoformat(ours[digest]["created_at"].replace("Z", "+00:00")).timestamp()
        assert began - 1 <= created <= ended  # times are printed in whole seconds
        low, high = seconds(age)
        assert before - created < high + 2
        assert after - created > low - 2
    assert program.ok("check").stderr == f"ocidist: {len(ours)} blobs ({_sum(ours)}): all is well\n"
    for root in (containerd.root, containerd.root / PLUGIN):
        with Store.at(root) as store:
            assert {str(info.digest): info.size for info in store.content.walk()} == {
                digest: row["size"] for digest, row in ours.items()
            }
            assert list(store.check()) == []


def _sum(rows: dict[str, dict[str, int]]) -> str:
    from ocidist.view.sizes import human

    return human(sum(row["size"] for row in rows.values()))


def test_c41_writing_to_it_is_refused_with_the_way_out(
    tmp_path: Path, containerd: Containerd, filled: tuple[set[str], float, float]
) -> None:
    """Every command that writes ends in one line, whichever of its directories is the root, and nothing changes."""
    digest = sorted(filled[0])[0]
    link = tmp_path / "link"
    link.symlink_to(containerd.root / PLUGIN)
    before = snapshot(containerd.root / PLUGIN)
    names = sorted(os.listdir(containerd.root))
    for root in (containerd.root, containerd.root / PLUGIN, link):
        program = Program(tmp_path / "home", root, options=["--cassette", "demo"])
        for command in (
            ("pull", "registry.example/demo/shop:1.0"),
            ("fetch", "registry.example/demo/shop:1.0"),
            ("ingest", "key"),
            ("delete", digest),
            ("label", digest, "a=b"),
            ("gc",),
        ):
            said = program.fails(*command)
            assert "owned by containerd" in said, (command, said)
            assert "give another --root" in said
            assert str(root) in said
        assert program.ok("get", digest).stdout
    assert snapshot(containerd.root / PLUGIN) == before
    assert sorted(os.listdir(containerd.root)) == names


def test_our_own_content_in_its_directory_is_refused_below_the_store_as_well(containerd: Containerd) -> None:
    """A content store alone looks at whose it is before it writes."""
    from ocidist.content.local import LocalContent

    content = LocalContent(containerd.root / PLUGIN)
    with pytest.raises(StoreError, match="owned by containerd"):
        content.writer("k")
    with Store.at(containerd.root) as store:
        assert store.readonly
        with pytest.raises(StoreError, match="owned by containerd"):
            store.gc(Scope())
