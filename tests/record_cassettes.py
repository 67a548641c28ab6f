"""Record every cassette again: ``python -m tests.record_cassettes [FOLDER]`` (default: cassettes/).

Starts Debian's docker-registry, a token server and a blob host on loopback, under the names registry.example,
auth.example and blobs.example, puts the demo image into it with skopeo, runs each scenario of
``tests/recorded/scenarios.py`` with a recorder, and writes what passed. The first of them also becomes the demo
inside the package. Needs docker-registry, skopeo, htpasswd and the test extra.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Iterator

from ocidist.integrations.vcr import sidecars
from ocidist.net.cassette import save_cassette
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.net.recording import Recorder
from tests.parts.ca import CertificateAuthority
from tests.parts.demo_image import DOCKER_TAG, TAG, demo_index, docker_image
from tests.parts.images import push_layout, push_with_skopeo, write_layout
from tests.parts.registry import RegistryProcess
from tests.parts.world import ExampleWorld
from tests.recorded.scenarios import HOST, PASSWORD, SCENARIOS, TAGS, USER, Scenario, session_over

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "ocidist/demo"
COMMAND = "python -m tests.record_cassettes"
FROM = {
    "token": "docker-registry with token authentication over TLS, blobs by redirect",
    "htpasswd": "docker-registry with htpasswd over TLS",
}


def fill(registry: RegistryProcess, layout: Path) -> None:
    """The demo image under several names and tags, the Docker one too."""
    loader = registry.loader
    for repository in ("demo/shop", "demo/spare", "private/shop"):
        push_with_skopeo(layout, loader.address, repository, TAG)
    for tag in TAGS:
        if tag == DOCKER_TAG:  # byte for byte: skopeo would write the manifest anew
            push_layout(loader.url, layout, "demo/shop", tag)
        else:
            push_with_skopeo(layout, loader.address, "demo/shop", tag, source_tag=TAG)


@contextlib.contextmanager
def parts(folder: Path) -> Iterator[dict[str, tuple[RegistryProcess, HTTPOptions, ExampleWorld]]]:
    """The two registries, filled, each with the options that reach it."""
    layout = write_layout(folder / "layout", {TAG: demo_index(), DOCKER_TAG: docker_image()})
    ca = CertificateAuthority(folder / "ca")
    with (
        ExampleWorld(folder / "world", ca=ca, anonymous=("demo/*",)) as world,
        RegistryProcess(
            folder / "htpasswd",
            auth="htpasswd",
            users={USER: PASSWORD},
            tls=ca,
            names=[HOST],
            public=f"https://{HOST}",
        ) as closed,
    ):
        assert (world.user, world.password) == (USER, PASSWORD)
        fill(world.registry, layout)
        fill(closed, layout)
        local = {f"{HOST}:443": ("127.0.0.1", closed.port)}
        yield {
            "token": (world.registry, HTTPOptions(ca_file=ca.file, connect_to=world.connect_to), world),
            "htpasswd": (closed, HTTPOptions(ca_file=ca.file, connect_to=local), world),
        }


def record(
    scenario: Scenario, folder: Path, registry: RegistryProcess, options: HTTPOptions, token: str
) -> Path:
    """Run one scenario and write its cassette."""
    for pattern, status, headers, body in scenario.answers:
        registry.front.answer(pattern, status, headers, body)
    network = HTTPTransport(options)
    recorder = Recorder(network)
    try:
        scenario.run(session_over(recorder, scenario, token))
        about = {"from": FROM[scenario.registry], "command": COMMAND}
        if scenario.answers:
            about["from"] += "; the front before it answers some requests in its place"
        return save_cassette(recorder.exchanges, folder / f"{scenario.name}.json", **about)
    finally:
        recorder.close()
        network.close()
        registry.front.clear_rules()


def record_all(folder: Path) -> list[Path]:
    """Every cassette, into ``folder``; sidecars that no cassette needs any more are removed."""
    with tempfile.TemporaryDirectory() as scratch, parts(Path(scratch)) as world:
        paths = []
        for scenario in SCENARIOS.values():
            registry, options, example = world[scenario.registry]
            paths.append(record(scenario, folder, registry, options, example.refresh_token))
    prune(folder)
    return paths


def prune(folder: Path) -> None:
    """Remove sidecars that no cassette of ``folder`` points to."""
    needed = {p for file in folder.glob("*.json") for p in sidecars(json.loads(file.read_bytes()), folder)}
    for path in folder.glob("blobs/*/*"):
        if path not in needed:
            path.unlink()


def copy_demo(cassette: Path, demo: Path) -> None:
    """Make ``cassette`` the demo: the same file, and the sidecars that it needs."""
    shutil.rmtree(demo, ignore_errors=True)
    demo.mkdir(parents=True)
    shutil.copyfile(cassette, demo / "demo.json")
    for path in sidecars(json.loads(cassette.read_bytes()), cassette.parent):
        target = demo / path.relative_to(cassette.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="where to write (default: cassettes/, and the demo)"
    )
    folder = parser.parse_args(arguments).folder
    for path in record_all(folder or ROOT / "cassettes"):
        print(path)
    if folder is None:
        copy_demo(ROOT / "cassettes/first-pull.json", DEMO)
        print(DEMO)
    return 0


if __name__ == "__main__":
    sys.exit(main())
