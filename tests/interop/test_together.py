"""Many pulls into one root at once, and pulls over connections that stall, break and expire."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator

import pytest

from tests.interop import roots
from tests.parts.images import TestImage
from tests.parts.processes import CHECKOUT, Program, clean_environment
from tests.parts.required import require
from tests.parts.trees import assert_same

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

# Every two of them overlap: all have the base, and each layer beside it is in two or three of them.
IMAGES = {
    "team/a": ("base", "x"),
    "team/b": ("base", "x", "y"),
    "team/c": ("base", "y", "z"),
    "team/d": ("base", "z"),
    "team/e": ("base", "x", "y", "z"),
    "team/f": ("base", "z", "x"),
}

# Eight threads with one client, each with its own order of the images.
EIGHT_THREADS = """
import sys, threading, json
from ocidist.client import Client
root, number, *references = sys.argv[1:]
client, failed, chains = Client(store=root), [], {}
start = threading.Barrier(8)
def run(turn):
    at = (int(number) + turn) % len(references)
    start.wait()
    for reference in references[at:] + references[:at]:
        try:
            chains[reference] = str(client.pull(reference).chain_id)
        except BaseException as error:
            failed.append(f"{reference}: {error!r}")
threads = [threading.Thread(target=run, args=[turn]) for turn in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([failed, chains]))
"""


class Scene:
    """A registry with the six images, and what is told of them when each is pulled alone."""

    def __init__(self, registry: RegistryProcess, folder: Path) -> None:
        self.registry, self.front = registry, registry.front
        self.images: dict[str, TestImage] = {}
        for name, seeds in IMAGES.items():
            self.images[f"{registry.address}/{name}:latest"] = roots.layered(
                *seeds, size=1_500_000, files=100
            )
        roots.load(registry, folder, {ref.partition("/")[2][:-7]: made for ref, made in self.images.items()})
        self.alone = folder / "alone"
        program = Program(folder / "home", self.alone)
        self.lines = {ref: program.ok("pull", ref).text for ref in self.images}
        self.front.forget()

    @property
    def refs(self) -> list[str]:
        return list(self.images)

    @property
    def chains(self) -> dict[str, str]:
        return {ref: line.split()[2] for ref, line in self.lines.items()}

    def assert_each_once(self) -> None:
        """Each blob of all images was asked for once, and sent once."""
        sizes = {d: len(b.raw) for made in self.images.values() for d, b in made.everything().items()}
        for made in self.images.values():
            del sizes[made.digest]  # manifests come by their tags
        assert self.front.downloads() == dict.fromkeys(sizes, 1)
        assert self.front.downloaded_bytes() == sizes

    def assert_all_whole(self, root: Path, home: Path) -> None:
        """Content, names and trees as if each had been pulled alone; nothing left over."""
        roots.assert_whole(root, *self.images.values())
        assert Program(home, root).ok("images", "-q").lines == sorted(self.refs)
        assert roots.snapshots(root) == sorted(self.chains.values())
        for chain in self.chains.values():
            assert_same(roots.tree(self.alone, chain), roots.tree(root, chain))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require("docker-registry")
    from tests.parts.registry import RegistryProcess

    folder = tmp_path_factory.mktemp("together")
    with RegistryProcess(folder / "registry") as registry:
        yield Scene(registry, folder)


@pytest.fixture
def scene(loaded: Scene) -> Iterator[Scene]:
    """Behaving, and counting anew."""
    loaded.front.forget()
    yield loaded
    loaded.front.clear_rules()


def until(test: Callable[[], object]) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + 60
    while not test():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def finished(process: subprocess.Popen[bytes]) -> str:
    """What it printed; it must have ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()[-2000:]
    return out.decode()


def eight_by_eight(scene: Scene, folder: Path) -> None:
    """8 processes of 8 threads, each thread pulling every image."""
    root = folder / "root"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", EIGHT_THREADS, str(root), str(number), *scene.refs],
            env=clean_environment(folder / "home"),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(8)
    ]
    for process in running:
        failed, chains = json.loads(finished(process))
        assert failed == []
        assert chains == scene.chains
    scene.assert_each_once()
    scene.assert_all_whole(root, folder / "home")


def test_c37_eight_processes_of_eight_threads_download_each_blob_once(tmp_path: Path, scene: Scene) -> None:
    """64 threads pull six overlapping images into one root; one client serves the eight threads of a process."""
    eight_by_eight(scene, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(20))
def test_c37_again_and_again(tmp_path: Path, scene: Scene, number: int) -> None:
    """The same, twenty times."""
    eight_by_eight(scene, tmp_path)


def test_c37_eight_commands_at_once(tmp_path: Path, scene: Scene) -> None:
    """Eight processes of the command line, two on some images, while a collector runs again and again."""
    program = Program(tmp_path / "home", tmp_path / "root", options=["--progress", "none"])
    refs = list(itertools.islice(itertools.cycle(scene.refs), 8))
    scene.front.rate = 4e6
    running = [program.start("pull", ref) for ref in refs]
    while any(process.poll() is None for process in running):
        program.ok("gc")  # c38: it never takes what a pull has brought
    for ref, process in zip(refs, running, strict=True):
        assert finished(process) == scene.lines[ref]
    scene.assert_each_once()
    scene.assert_all_whole(tmp_path / "root", tmp_path / "home")


def test_c32_who_waited_goes_on_where_a_killed_one_was(tmp_path: Path, scene: Scene) -> None:
    """A second process waits for the first's layer; SIGKILL frees it, and the second asks for the rest."""
    ref, made = next(iter(scene.images.items()))
    layer = made.manifest["layers"][0]["digest"]
    gate = scene.front.gate(layer, 1_200_000)
    program = Program(tmp_path / "home", tmp_path / "root", options=["--progress", "json"])
    first = program.start("pull", ref)
    until(lambda: gate.reached.is_set() and roots.partial(tmp_path / "root").get(layer, 0) > 500_000)
    second = program.start("pull", ref)
    assert second.stderr is not None
    for line in second.stderr:
        found = json.loads(line)
        if (found["event"], found.get("digest")) == ("waiting", layer):
            break
    first.kill()
    first.communicate()
    kept = roots.partial(tmp_path / "root")[layer]
    assert finished(second) == scene.lines[ref]
    gate.open()  # the front notices now that the first is gone

    def asked() -> list[int]:
        return sorted(r.start for r in scene.front.records if r.digest == layer)

    until(lambda: len(asked()) > 1)
    assert asked() == [0, kept]
    roots.assert_whole(tmp_path / "root", made)


def test_a20_one_stalled_blob_never_stops_the_others(tmp_path: Path, scene: Scene) -> None:
    """While one layer stands still, all else arrives, and other pulls that do not need it end."""
    ref = next(ref for ref in scene.refs if "/e:" in ref)
    made = scene.images[ref]
    stalled = made.manifest["layers"][1]["digest"]  # x
    gate = scene.front.gate(stalled, 1000)
    program = Program(tmp_path / "home", tmp_path / "root", options=["--progress", "none"])
    process = program.start("pull", ref)
    others = set(made.everything()) - {stalled, made.digest}
    until(lambda: set(roots.blobs(tmp_path / "root")) == others)
    without = next(ref for ref in scene.refs if "/c:" in ref)
    assert program.ok("pull", without).text == scene.lines[without]
    assert process.poll() is None
    gate.open()
    assert finished(process) == scene.lines[ref]
    roots.assert_whole(tmp_path / "root", made, scene.images[without])


def test_a1_cuts_in_every_layer_are_made_good_without_a_byte_twice(tmp_path: Path, scene: Scene) -> None:
    """Each layer's connection is cut twice: it goes on at the byte, and the sum is the image's size."""
    ref = next(ref for ref in scene.refs if "/e:" in ref)
    made = scene.images[ref]
    layers = {layer["digest"]: layer["size"] for layer in made.manifest["layers"]}
    for digest in layers:
        scene.front.cut(digest, 400_000, times=2)
    program = Program(tmp_path / "home", tmp_path / "root")
    assert program.ok("pull", ref).text == scene.lines[ref]
    for digest, size in layers.items():
        read = [record for record in scene.front.records if record.digest == digest]
        assert [record.start for record in read] == [0, 400_000, 800_000]
        assert sum(record.sent for record in read) == size
    roots.assert_whole(tmp_path / "root", made)


def test_a_token_that_expires_in_mid_pull_is_refreshed(tmp_path: Path) -> None:
    """The connection breaks after the token's time: one more token, and the pull goes on at the byte."""
    require("docker-registry", "module:cryptography")
    from ocidist.server.tokens import Policy
    from tests.parts.registry import RegistryProcess
    from tests.parts.tokens import TokenServer

    # The registry grants 60 s more than the token says; the answer to the client claims five minutes.
    policy = Policy(users={"alice": "secret"}, lifetime=-57, expires_in=300)
    made = roots.layered("one", "two")
    with (
        TokenServer(tmp_path / "tokens", policy=policy) as tokens,
        RegistryProcess(tmp_path / "registry", auth="token", tokens=tokens) as registry,
    ):
        roots.load(registry, tmp_path, {"team/app": made})
        layer = made.manifest["layers"][0]["digest"]
        gate = registry.front.gate(layer, 1_000_000)
        registry.front.cut(layer, 1_000_001)
        program = Program(tmp_path / "home", tmp_path / "root", options=["-u", "alice:secret"])
        process = program.start("pull", f"{registry.address}/team/app")
        until(gate.reached.is_set)
        time.sleep(4)  # the token's three seconds are over
        policy.lifetime = 300
        gate.open()
        finished(process)
        read = [r for r in registry.front.records if r.digest == layer]
        assert [(r.status, r.start) for r in read] == [(200, 0), (401, 0), (206, 1_000_001)]
        assert len(tokens.records) == 2
    roots.assert_whole(tmp_path / "root", made)
