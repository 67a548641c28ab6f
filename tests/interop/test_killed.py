"""Pulls killed with SIGKILL and run again: whole, identical, and only what was missing is asked for.

What a kill costs is bounded, not nothing: what a registry has handed over and the program has not yet put on
disk is fetched again. For each of the four connections that is at most a block in the program (1 MiB and the
256 KiB gathered before it) and what the kernel holds of a connection, which the front below keeps small.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from tests.interop import roots
from tests.parts.images import TestImage, layout_graph, push_layout
from tests.parts.processes import Program
from tests.parts.required import require
from tests.parts.trees import Node, assert_same

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

CONNECTIONS = 4  # the program's, at once
LOST_AT_MOST = CONNECTIONS * (2 << 20)  # bytes, for one kill
RATE = 6e6  # bytes a second of one connection


@dataclass
class Scene:
    """A registry with one image, and what an undisturbed pull of it comes to."""

    registry: RegistryProcess
    ref: str
    root: str  # the manifest's digest: it is asked for by its tag, and is no blob to the registry
    sizes: dict[str, int]  # of all that is fetched
    line: str = ""
    chain: str = ""
    tree: dict[str, Node] | None = field(default=None, repr=False)

    @property
    def front(self) -> Any:
        return self.registry.front

    @property
    def size(self) -> int:
        return sum(self.sizes.values())

    def undisturbed(self, program: Program) -> None:
        assert program.root is not None
        self.line = program.ok("pull", self.ref).text
        self.chain = self.line.split()[2]
        self.tree = roots.tree(program.root, self.chain)
        self.front.forget()


def small_buffers(registry: RegistryProcess) -> None:
    """What the front has handed over is soon at the client, or was never sent."""
    registry.front.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 << 10)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """12 MB in four layers behind a front with a rate, so that a pull takes a while."""
    require("docker-registry")
    from tests.parts.registry import RegistryProcess

    folder = tmp_path_factory.mktemp("killed")
    made: TestImage = roots.layered("one", "two", "three", "four")
    with RegistryProcess(folder / "registry") as registry:
        roots.load(registry, folder, {"team/app": made})
        registry.front.rate = RATE
        small_buffers(registry)
        sizes = {digest: len(blob.raw) for digest, blob in made.everything().items()}
        found = Scene(registry, f"{registry.address}/team/app:latest", made.digest, sizes)
        found.undisturbed(Program(folder / "home", folder / "whole"))
        yield found


def here(root: Path) -> int:
    """Bytes of content on disk, finished or under way."""
    total = 0
    for path in (*(root / "content/blobs").glob("*/*"), *(root / "content/ingest").glob("*/data")):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # committed between the look and this one
            continue
    return total


def unpacked(root: Path) -> int:
    """Entries of the tree that is being unpacked."""
    active = root / "snapshots/native/active"
    return sum(len(folders) + len(files) for _, folders, files in os.walk(active))


def killed(process: subprocess.Popen[bytes], due: Callable[[], bool], pause: float) -> bool:
    """Kill ``process`` a ``pause`` after ``due`` says so; False if it ended before."""
    while process.poll() is None:
        if due():
            time.sleep(pause)
            process.kill()
            break
        time.sleep(0.002)
    process.communicate()
    return process.returncode == -9


def disturbed(scene: Scene, program: Program, point: float, pause: float = 0.0) -> bool:
    """A pull killed at ``point``: 0 to 1, of the bytes fetched; 1 to 2, of the entries unpacked."""
    root, tree = program.root, scene.tree
    assert root is not None
    assert tree is not None

    def due() -> bool:
        if point <= 1:
            return here(root) >= point * scene.size
        return unpacked(root) >= (point - 1) * len(tree) or bool(roots.snapshots(root))

    return killed(program.start("pull", scene.ref), due, pause)


def asked_for_the_rest(scene: Scene, root: Path) -> Callable[[], None]:
    """To be called after the next run: it asked for no blob that is here, and of others from the right byte."""
    begun, done = roots.partial(root), set(roots.blobs(root))
    before = len(scene.front.records)  # those of the killed run have ended when this returns

    def check() -> None:
        asked = [r for r in scene.front.records[before:] if r.method == "GET" and r.digest in scene.sizes]
        assert [r.digest for r in asked if r.digest in done] == []
        assert {r.digest: r.start for r in asked} == {
            digest: begun.get(digest, 0)
            for digest, size in scene.sizes.items()
            if digest not in done and begun.get(digest, 0) < size and digest != scene.root
        }
        assert len(asked) == len({r.digest for r in asked}), "a blob was asked for twice"

    return check


def ends_well(scene: Scene, program: Program) -> None:
    """Run again: as an undisturbed pull in every respect."""
    root = program.root
    assert root is not None
    check = asked_for_the_rest(scene, root)
    assert program.ok("pull", scene.ref).text == scene.line
    check()
    assert {digest: digest for digest in scene.sizes} == roots.blobs(root)
    assert roots.leftovers(root) == []
    assert roots.snapshots(root) == [scene.chain]
    assert scene.tree is not None
    assert_same(scene.tree, roots.tree(root, scene.chain))


def rounds(scene: Scene, folder: Path, seeds: range, most: int) -> int:
    """A root for each seed, killed up to ``most`` times, then run to the end; the number of kills."""
    kills = 0
    for seed in seeds:
        dice = random.Random(seed)
        program = Program(folder / "home", folder / f"root-{seed}")
        assert program.root is not None
        scene.front.forget()
        mine = 0
        for _ in range(dice.randint(1, most)):
            mine += disturbed(scene, program, dice.uniform(0, 2), dice.uniform(0, 0.03))
        ends_well(scene, program)
        received = sum(scene.front.downloaded_bytes().values())
        assert received <= scene.size + mine * LOST_AT_MOST
        kills += mine
    return kills


def test_a_pull_killed_anywhere_and_run_again_is_whole(tmp_path: Path, scene: Scene) -> None:
    """Eight seeded kills, while fetching or unpacking: content, tree and name as if nothing had happened."""
    assert rounds(scene, tmp_path, range(8), 1) >= 4, "too few were still running when they were to be killed"


def test_a_large_pull_killed_again_and_again_fetches_each_byte_once(tmp_path: Path) -> None:
    """280 MB, killed at a third and at two thirds of the bytes and in mid-unpack: little more than that was sent."""
    with roots.scratch(tmp_path) as folder, big_scene(folder) as scene:
        root = folder / "root"
        program = Program(folder / "home", root)
        last_layer = "snapshots/native/active/*/*/opt/layer2/usr"
        moments: list[Callable[[], bool]] = [
            lambda: here(root) >= scene.size / 3,
            lambda: here(root) >= scene.size * 2 / 3,
            lambda: any(root.glob(last_layer)),
        ]
        for due in moments:
            assert killed(program.start("pull", scene.ref), due, 0.0)
        check = asked_for_the_rest(scene, root)
        scene.line = program.ok("pull", scene.ref).text
        check()
        assert {digest: digest for digest in scene.sizes} == roots.blobs(root)
        assert roots.leftovers(root) == []
        assert roots.snapshots(root) == [scene.line.split()[2]]
        received = sum(scene.front.downloaded_bytes().values())
        assert scene.size * 0.99 < received <= scene.size + 3 * LOST_AT_MOST


@contextlib.contextmanager
def big_scene(folder: Path) -> Iterator[Scene]:
    """The image of real files."""
    require("docker-registry")
    from tests.parts.realimages import big_image
    from tests.parts.registry import RegistryProcess

    layout = big_image()
    with RegistryProcess(folder / "registry") as registry:
        root = push_layout(registry.loader.url, layout, "big", "latest")
        small_buffers(registry)
        sizes = {entry["digest"]: entry["size"] for entry in layout_graph(layout)}
        yield Scene(registry, f"{registry.address}/big:latest", root, sizes)


@pytest.mark.soak
def test_a_hundred_kills(tmp_path: Path, scene: Scene) -> None:
    """A hundred roots, each killed up to three times in a row."""
    assert rounds(scene, tmp_path, range(1000, 1100), 3) >= 100
