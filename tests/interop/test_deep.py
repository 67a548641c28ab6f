"""Trees as deep and paths as long as an image may have them, and beyond: every command goes on by descriptors."""

from __future__ import annotations

import gzip
import io
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.graph.copy import copy_graph
from ocidist.layers.apply.layer import apply_layer
from ocidist.scope import Scope
from ocidist.snapshots.removal import remove_tree
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.protocols import Reader
from tests.parts.images import Entry, image
from tests.parts.memory_reader import content
from tests.parts.required import require
from tests.parts.sources import MemorySource

NAME = "docker.io/library/deep:1"
DEEP = b"/".join([b"d"] * 1001 + [b"n" * 250] * 8)  # 4,009 bytes
FILE = DEEP + b"/" + b"f" * 80
Run = Callable[..., str]


@pytest.fixture(params=["native", "overlay"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """With an image whose deepest file is beyond PATH_MAX, as seen from outside."""
    require("kernel", "os:link")
    deep, file = DEEP.decode(), FILE.decode()
    lower = [Entry("top", b"t"), Entry(file, b"deep"), Entry(f"{deep}/hard", hard=file), Entry("d/x", b"x")]
    source = MemorySource(image([lower, [Entry("top", b"T")]], run={"Cmd": ["/x"]}))
    with Store.at(tmp_path / "root", snapshotter=request.param) as store:
        with store.lease() as lease, Scope(lease=lease) as scope:
            copy_graph(source, store, source.root, scope, platform="all", workers=0)
            store.tag(NAME, source.root, scope)
        assert store.snapshots.name == request.param  # said once, and kept
        yield store
    for folder in tmp_path.iterdir():  # what shutil.rmtree can't
        if folder.is_dir():
            remove_tree(folder)


@pytest.fixture
def run(store: Store, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command that succeeds: its stdout."""

    def command(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["--root", str(store.root), *words]) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.err if code else said.out

    return command


def assert_whole(reader: Reader, more: int = 0) -> None:
    """All that the image has at its end, and ``more``."""
    with closing(reader):
        assert content(reader, FILE) == b"deep"
        found = dict(reader.entries(DEEP))
        assert len(found) == 2 + more
        assert found[b"hard"].identity == found[b"f" * 80].identity
        assert content(reader, b"top") == b"T"


def put(tree: Path, path: bytes, data: bytes) -> None:
    """A file, and the directories on the way to it that are missing."""
    at = os.open(tree, os.O_RDONLY)
    *folders, name = path.split(b"/")
    for folder in folders:
        try:
            os.mkdir(folder, dir_fd=at)
        except FileExistsError:
            pass
        at, above = os.open(folder, os.O_RDONLY, dir_fd=at), at
        os.close(above)
    with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at), "wb") as file:
        file.write(data)
    os.close(at)


def test_a_deep_tree_through_every_command(store: Store, run: Run, tmp_path: Path) -> None:
    """bundle, prepare, view, diff, commit, du, rm: 1,009 directories deep, 4,090 bytes below the root."""
    image = Client(store=store).open(f"store:{NAME}", platform="linux/amd64")
    chain = run("rootfs", "unpack", NAME).strip()
    assert chain == str(image.chain_id)
    assert_whole(store.snapshots.reader(chain))
    assert run("bundle", NAME, str(tmp_path / "b")) == f"{tmp_path / 'b'}\n"
    assert_whole(DirectoryReader(tmp_path / "b/rootfs"))
    target = str(tmp_path / "t")
    run("rootfs", "prepare", chain, target)
    run("rootfs", "view", chain, str(tmp_path / "v"))
    assert_whole(store.snapshots.reader(target))
    assert_whole(store.snapshots.reader(str(tmp_path / "v")))
    assert run("rootfs", "diff", target).split() == ["KIND", "TYPE", "SIZE", "PATH"]
    put(store.snapshots.path(target), DEEP + b"/third", b"3")
    if store.snapshots.name == "overlay":  # what was made on the way looks as what is beneath
        assert [row["kind"] for row in json.loads(run("rootfs", "diff", target, "--format", "json"))][
            -1
        ] == "added"
    assert_whole(store.snapshots.reader(target), more=1)
    unread = [row for row in json.loads(run("du", "--format", "json")) if row.get("unread")]
    assert unread == []
    trees = {row["key"]: row["size"] for row in json.loads(run("snapshots", "--format", "json"))}
    assert trees[target] > 1000 * 512 or os.statvfs(tmp_path).f_bsize < 512
    digest, _, top = run("rootfs", "commit", target).split()
    assert_whole(store.snapshots.reader(top), more=1)
    layer = gzip.decompress(store.content.path(Digest(digest)).read_bytes())
    (tmp_path / "again").mkdir()
    apply_layer(io.BytesIO(layer), tmp_path / "again", Scope())
    with closing(DirectoryReader(tmp_path / "again")) as reader:
        assert content(reader, DEEP + b"/third") == b"3"
    run("rootfs", "rm", str(tmp_path / "v"))
    run("rootfs", "rm", top)
    run("rmi", NAME)
    run("gc", "--all")
    assert list(store.snapshots.walk()) == []


def test_what_is_deeper_than_a_layer_holds(store: Store, run: Run, tmp_path: Path) -> None:
    """Listed and removed, but no layer is made of it that nobody could apply; the tree stays as it was."""
    target = str(tmp_path / "t")
    run("rootfs", "prepare", run("rootfs", "unpack", NAME).strip(), target)
    deeper = DEEP + b"/m" * 60 + b"/file"
    put(store.snapshots.path(target), deeper, b"x")
    rows = json.loads(run("rootfs", "diff", target, "--format", "json"))
    assert f"/{deeper.decode()}" in [row["path"] for row in rows]
    for words in (["diff", target, "-o", str(tmp_path / "layer")], ["commit", target]):
        assert "a layer holds no path of more than 4096 bytes" in run("rootfs", *words, code=1)
    assert not (tmp_path / "layer").exists()
    with closing(store.snapshots.reader(target)) as reader:
        assert content(reader, deeper) == b"x"
    run("rootfs", "rm", target)
