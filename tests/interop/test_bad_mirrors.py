"""A mirror that answers wrongly in any way is passed over for the next host (threat I.85)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.errors import OcidistError
from ocidist.net.replay import ReplayTransport
from ocidist.progress import Resumed, Retrying
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.scope import Scope
from ocidist.server.registry import Stored
from ocidist.stores.store import Store
from tests.parts.faulty import FaultyRegistry
from tests.parts.images import Entry, image, sha256

IMAGE = image([[Entry("a", bytes(range(256)) * 900)]])
LAYER = IMAGE.manifest["layers"][0]["digest"]
ALWAYS = ";times=always"


class Hosts:
    """Servers, the last one of which is the registry itself, as a client's hosts.toml would name them."""

    def __init__(self, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stack, self.monkeypatch = stack, monkeypatch
        self.servers: list[FaultyRegistry] = []

    def of(self, *faults: str) -> list[FaultyRegistry]:
        self.servers = [self.stack.enter_context(FaultyRegistry({"1": IMAGE}, fault)) for fault in faults]
        found = tuple(Endpoint(f"{server.registry.url}/v2") for server in self.servers)
        self.monkeypatch.setattr(Client, "endpoints", lambda self, host: found)
        return self.servers

    @property
    def names(self) -> list[str]:
        return [server.registry.address for server in self.servers]

    def fetch(self, root: Path) -> list[Any]:
        """The events of a fetch into ``root``, which has all of it then."""
        events: list[Any] = []
        with Scope(observer=events.append) as scope:
            client = Client(store=root, platform="linux/amd64")
            client.fetch(f"{self.servers[-1].name}:1", scope=scope)
            for blob in IMAGE.everything():
                assert client.store.content.info(blob).digest == blob  # type: ignore[arg-type]
        return events


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Until the end of the test."""
    with contextlib.ExitStack() as stack:
        yield Hosts(stack, monkeypatch)


MANIFEST = [
    "flip@3;on=resolve", "html;on=resolve", "wrong-digest;on=resolve", "wrong-type;on=resolve", "truncate@40;on=resolve",
    "short@0;on=resolve", "short@40;on=resolve", "long@9;on=resolve", "loop;on=resolve", "framing;on=resolve",
    "encoded;on=resolve", "garbage;on=resolve", "close;on=resolve", "404;on=resolve", "503;on=resolve",
]  # fmt: skip
BLOBS = [
    "flip@3;on=layer,config", "html;on=layer,config", "truncate@70;on=layer,config,resume", "short@0;on=layer,config,resume",
    "short@99;on=layer,config,resume", "long@9;on=layer,config,resume", "loop;on=layer,config", "drop@70;on=layer,config",
    "unframed@70;on=layer,config", "framing;on=layer,config", "encoded;on=layer,config", "chunk-size;on=layer,config",
    "403;on=layer,config", "500;on=layer,config",
]  # fmt: skip


@pytest.mark.parametrize("fault", [*MANIFEST, *BLOBS])
@pytest.mark.parametrize("bad", [1, 2])
def test_i85_a_mirror_that_answers_wrongly_is_passed_over(
    fault: str, bad: int, hosts: Hosts, tmp_path: Path
) -> None:
    """One, and two after each other; the image is whole, and each is said of the mirror by its name."""
    hosts.of(*[fault + ALWAYS] * bad, "")
    told = [event.why for event in hosts.fetch(tmp_path) if isinstance(event, Retrying)]
    for name in hosts.names[:bad]:
        assert any(why.startswith(f"{name}: ") for why in told), told


def test_i85_a_mirror_with_a_manifest_of_schema_1_is_passed_over(hosts: Hosts, tmp_path: Path) -> None:
    """It is well formed, and of no use."""
    mirror, _ = hosts.of("", "")
    raw = json.dumps({"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": [], "history": []}).encode()
    mirror.tags["1"] = sha256(raw)
    mirror.content[sha256(raw)] = Stored("application/vnd.docker.distribution.manifest.v1+prettyjws", raw)
    assert any(isinstance(event, Retrying) for event in hosts.fetch(tmp_path))


def test_i85_what_a_mirror_cut_is_gone_on_with_at_the_next_from_the_same_byte(
    hosts: Hosts, tmp_path: Path
) -> None:
    """No byte is asked for twice."""
    _, own = hosts.of(f"truncate@70;on=layer{ALWAYS}", "")
    events = hosts.fetch(tmp_path)
    (resumed,) = [event.at for event in events if isinstance(event, Resumed)]
    assert resumed == 70
    (asked,) = [record for record in own.registry.records if record.path.endswith(LAYER)]
    assert asked.header("Range").startswith("bytes=70-")


@pytest.mark.parametrize("fault", ["flip@3;on=layer", "404;on=layer", "html;on=resolve", "404;on=resolve"])
def test_i85_where_all_fail_the_error_names_each_host_and_why(
    fault: str, hosts: Hosts, tmp_path: Path
) -> None:
    """The last one's error, and what those before it did."""
    hosts.of(*[fault + ALWAYS] * 3)
    with pytest.raises(OcidistError) as caught:
        hosts.fetch(tmp_path)
    for name in hosts.names:
        assert name in str(caught.value)


@pytest.mark.parametrize("size", [5, 1 << 20])
@pytest.mark.parametrize("digest", [LAYER, sha256(IMAGE.root.raw)])
def test_i85_what_a_mirror_says_of_a_blob_that_it_has_not_got_binds_no_other_host(
    size: int, digest: str, hosts: Hosts, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A wrong size, and that it is a blob at all: the registry was measured by it, and asked for a blob alone."""
    mirror, own = hosts.of("", "")
    mirror.content.clear()
    mirror.registry.answer(digest, 200, {}, bytes(size), method="HEAD", times=None)
    code = main(["--root", str(tmp_path), "fetch-object", own.name, digest])
    out, err = capfdbinary.readouterr()
    assert (code, sha256(out)) == (0, digest), err


@pytest.mark.parametrize("fault", ["", "404;on=resolve", "503;on=layer", "flip@3;on=layer"])
def test_what_was_recorded_through_mirrors_is_replayed_without_them(
    fault: str, hosts: Hosts, tmp_path: Path
) -> None:
    """By the same command, on a machine that knows of none; also where the mirror failed and the registry went on."""
    hosts.of(fault and fault + ALWAYS, "")
    own = hosts.servers[-1].name
    client = Client(store=tmp_path / "recorded", platform="linux/amd64")
    with client.record() as trace:
        client.fetch(f"{own}:1")
        assert list(client.tags(own)) == ["1"]
        trace.save_cassette(tmp_path / "x.json")
    hosts.monkeypatch.undo()
    store = Store.at(tmp_path / "replayed")
    again = Client(store=store, platform="linux/amd64", transport=ReplayTransport.load(tmp_path / "x.json"))
    again.fetch(f"{own}:1")
    assert list(again.tags(own)) == ["1"]
    for blob in IMAGE.everything():
        assert store.content.info(blob).digest == blob  # type: ignore[arg-type]
