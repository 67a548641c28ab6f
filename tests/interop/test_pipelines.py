"""The pipelines that the original tool was shown with, as written, by a real shell on an image of 280 MB."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator

import pytest

from tests.interop import roots
from tests.parts.images import MANIFEST, layout_graph, layout_root, push_layout
from tests.parts.processes import CHECKOUT, clean_environment
from tests.parts.required import require

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

TYPE = f"mediatype:{MANIFEST}"
BY_DIGEST = f"dist fetch-object REMOTE sha256:$(dist fetch-object REMOTE latest {TYPE} | shasum -a256)"
EVERY_LAYER = (
    "dist fetch-object REMOTE DIGEST | jq -r '.layers[] | .digest' "
    "| xargs -n1 -P10 dist fetch-object REMOTE > /dev/null"
)
INGEST = f"""dist fetch-object REMOTE latest {TYPE} | jq -r '.layers[] |
      "dist fetch-object REMOTE "+.digest+" | dist ingest --expected-digest "+.digest+
      " --expected-size "+(.size|tostring)+" REMOTE@"+.digest' | xargs -I{{}} -P10 -n1 sh -c "{{}}"
"""


class Shell:
    """``sh`` with ``dist`` on its PATH, an empty home and a root of its own."""

    def __init__(self, folder: Path, registry: RegistryProcess, layout: Path) -> None:
        self.root, self.registry, self.layout = folder / "root", registry, layout
        self.remote, self.front = f"{registry.address}/big", registry.front
        self.digest = layout_root(layout)["digest"]
        self.blobs = layout_graph(layout)
        self.layers = {
            entry["digest"]: entry["size"] for entry in self.blobs if "layer" in entry["mediaType"]
        }
        folder.joinpath("bin").mkdir(parents=True)
        wrapper = folder / "bin/dist"
        wrapper.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ocidist --root {shlex.quote(str(self.root))} "$@"\n'
        )
        wrapper.chmod(0o755)
        self.environment = clean_environment(folder / "home")
        self.environment["PATH"] = f"{folder / 'bin'}:{self.environment['PATH']}"

    def start(self, line: str) -> subprocess.Popen[bytes]:
        """The line, with REMOTE and DIGEST put in, under way."""
        line = line.replace("REMOTE", self.remote).replace("DIGEST", self.digest)
        return subprocess.Popen(
            ["/bin/sh", "-c", line],
            env=self.environment,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, line: str) -> bytes:
        """What it prints; it must succeed and complain of nothing."""
        process = self.start(line)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, b""), (line, err.decode()[-2000:])
        return out


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, RegistryProcess, Path]]:
    """A folder, a registry, and the layout that it holds as ``big``."""
    require("docker-registry", "jq", "shasum", "watch")
    from tests.parts.realimages import big_image
    from tests.parts.registry import RegistryProcess

    layout = big_image()
    with (
        roots.scratch(tmp_path_factory.mktemp("pipelines")) as folder,
        RegistryProcess(folder / "registry") as registry,
    ):
        push_layout(registry.loader.url, layout, "big", "latest")
        yield folder, registry, layout


@pytest.fixture
def shell(loaded: tuple[Path, RegistryProcess, Path]) -> Iterator[Shell]:
    """With an empty root; nothing is counted yet."""
    folder, registry, layout = loaded
    registry.front.forget()
    with tempfile.TemporaryDirectory(dir=folder) as mine:
        yield Shell(Path(mine), registry, layout)
    registry.front.clear_rules()


def until(test: Callable[[], object]) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + 60
    while not test():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


@contextlib.contextmanager
def watching(shell: Shell) -> Iterator[Callable[[], str]]:
    """``watch -n0.2 dist active`` on a terminal; gives what it has painted since the last look."""
    leader, follower = pty.openpty()
    environment = {**shell.environment, "COLUMNS": "250", "LINES": "24"}
    process = subprocess.Popen(
        ["watch", "-n0.2", "dist", "active"],
        env=environment,
        cwd=CHECKOUT,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)

    def painted() -> str:
        text = b""
        while select.select([leader], [], [], 0.1)[0]:
            text += os.read(leader, 1 << 16)
        return text.decode("utf-8", "replace")

    try:
        yield painted
    finally:
        process.terminate()
        process.wait(10)
        os.close(leader)


def test_a_manifest_by_the_digest_of_its_bytes(shell: Shell) -> None:
    """What shasum leaves behind the digest is no obstacle, and the bytes are exact."""
    raw = (shell.layout / "blobs" / shell.digest.replace(":", "/")).read_bytes()
    assert shell.run(BY_DIGEST) == raw


def test_every_layer_by_xargs(shell: Shell) -> None:
    """All layers at once, each verified, each downloaded once; nothing is stored."""
    assert shell.run(EVERY_LAYER) == b""
    assert shell.front.downloads() == dict.fromkeys(shell.layers, 1)
    assert shell.front.downloaded_bytes() == shell.layers
    assert not shell.root.exists()


def test_layers_go_in_by_xargs_seen_by_active_and_out_again(shell: Shell) -> None:
    """The third pipeline, held in mid-layer: ``active`` and ``watch`` show it; then all layers are in the store,
    a pull takes them from there, and ``list -q | xargs delete`` empties it."""
    gates = {digest: shell.front.gate(digest, size // 2) for digest, size in shell.layers.items()}
    process = shell.start(INGEST)
    until(lambda: all(gate.reached.is_set() for gate in gates.values()))
    shown_under_way(shell)
    for gate in gates.values():
        gate.open()
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, b"")
    assert sorted(out.decode().split()) == sorted(shell.layers), "ingest prints what it stored"
    assert roots.blobs(shell.root) == {digest: digest for digest in shell.layers}
    assert shell.run("dist active").decode().splitlines()[1:] == []
    assert shell.front.downloaded_bytes() == shell.layers
    pulled_from_there(shell)
    listed = shell.run("dist list -q").decode().split()
    assert sorted(listed) == sorted(entry["digest"] for entry in shell.blobs)
    assert sorted(shell.run("dist list -q | xargs dist delete").decode().split()) == sorted(listed)
    assert shell.run("dist list -q") == b""


def shown_under_way(shell: Shell) -> None:
    """``active``, alone and under ``watch``, shows every layer while half of it is here; none is a blob yet."""
    keys = {f"{shell.remote}@{digest}" for digest in shell.layers}

    def under_way() -> dict[str, int]:
        rows = shell.run("dist active --format csv").decode().splitlines()[1:]
        return {row.split(",")[0]: int(row.split(",")[1]) for row in rows}

    # The pipe between the two programs and their blocks hold the rest of the half.
    until(
        lambda: all(
            under_way().get(f"{shell.remote}@{d}", 0) > n // 2 - (4 << 20) for d, n in shell.layers.items()
        )
    )
    table = shell.run("dist active").decode()
    assert table.splitlines()[0].split() == ["REF", "SIZE", "AGE", "TOTAL"]
    assert all(key in table for key in keys)
    one = next(iter(keys))
    assert [line.split()[0] for line in shell.run(f"dist active {one}").decode().splitlines()[1:]] == [one]
    with watching(shell) as painted:
        seen = ""
        deadline = time.monotonic() + 60
        while not all(key in seen for key in keys):
            assert time.monotonic() < deadline, seen[-2000:]
            seen += painted()
    assert shell.run("dist list -q") == b"", "what is under way is no blob yet"


def pulled_from_there(shell: Shell) -> None:
    """Only config and manifest are fetched; the layers are unpacked, the image is named and listed."""
    shell.front.forget()
    done = shell.run("dist --progress none pull REMOTE").decode().split()
    assert done[:2] == [f"{shell.remote}:latest", shell.digest]
    assert not set(shell.front.downloads()) & set(shell.layers)
    assert shell.run("dist images -q").decode().split() == [f"{shell.remote}:latest"]
    assert roots.leftovers(shell.root) == []


def test_ten_at_once_on_one_object(shell: Shell) -> None:
    """The same digest under one key, and a fetch of one image, ten times at once: no error, one blob, one download."""
    size, digest = min((size, digest) for digest, size in shell.layers.items())
    put = f"dist fetch-object REMOTE {digest} | dist ingest --expected-digest {digest} --expected-size {size} the-key"
    out = shell.run(f"seq 10 | xargs -P10 -I{{}} sh -c '{put}'")
    assert out.decode().split() == [digest] * 10
    assert roots.blobs(shell.root) == {digest: digest}
    shell.front.forget()
    out = shell.run("seq 10 | xargs -P10 -I{} dist --progress none fetch REMOTE latest")
    assert out.decode().splitlines() == [f"{shell.remote}:latest {shell.digest}"] * 10
    wanted = {entry["digest"] for entry in shell.blobs} - {digest, shell.digest}
    assert shell.front.downloads() == dict.fromkeys(wanted, 1)
    assert sorted(roots.blobs(shell.root)) == sorted(wanted | {digest, shell.digest})
    assert list((shell.root / "content/ingest").iterdir()) == []
