"""One budget for each blob, whatever goes wrong with it, at one host and at mirrors: about ten requests, within 30 s."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.content import resume
from ocidist.errors import OcidistError
from ocidist.progress import Retrying
from ocidist.remotes.registry import session
from ocidist.remotes.registry.hosts_toml import Endpoint
from ocidist.scope import Retries, Scope
from tests.parts.faulty import FaultyRegistry
from tests.parts.images import Entry, image, index, noise

IMAGE = image([[Entry("noise", noise(300_000))]])
INDEX = index([IMAGE])
LAYER, CONFIG = IMAGE.manifest["layers"][0]["digest"], IMAGE.manifest["config"]["digest"]
ALWAYS = ";times=always"


@dataclass
class Clock:
    """Time that only pauses take."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def pause(self, scope: Scope, seconds: float) -> None:
        scope.check()
        self.pauses.append(seconds)
        self.now += seconds

    def retries(self, *told: Any) -> Retries:
        return Retries(*told, clock=lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(Scope, "pause", lambda scope, seconds: made.pause(scope, seconds))
    for module in (resume, session):
        monkeypatch.setattr(module, "Retries", made.retries)
    return made


class Hosts:
    """Servers of one image, the last one of which is the registry itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> None:
        self.monkeypatch, self.stack = monkeypatch, stack
        self.servers: list[FaultyRegistry] = []
        self.events: list[Any] = []

    def of(self, *faults: str, **options: Any) -> None:
        images = {"1": IMAGE, "many": INDEX}
        self.servers = [
            self.stack.enter_context(FaultyRegistry(images, fault, **options)) for fault in faults
        ]
        found = tuple(Endpoint(f"{server.registry.url}/v2") for server in self.servers)
        self.monkeypatch.setattr(Client, "endpoints", lambda self, host: found if len(found) > 1 else ())

    def fetch(self, root: Path, tag: str = "1") -> None:
        client = Client(store=root, plain_http=True, platform="linux/amd64", workers=0)
        with Scope(observer=self.events.append) as scope:
            client.fetch(f"{self.servers[-1].name}:{tag}", scope=scope)

    def asked(self, digest: str) -> int:
        """Requests for a blob, at all hosts."""
        records = [record for server in self.servers for record in server.registry.records]
        return sum(record.path.endswith(digest) for record in records)

    @property
    def tries(self) -> list[Retrying]:
        return [event for event in self.events if isinstance(event, Retrying)]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        yield Hosts(monkeypatch, stack)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("fault", "digest", "tag"),
    [
        ("truncate@10;on=layer,resume", LAYER, "1"),
        ("drop@100;on=layer,resume", LAYER, "1"),
        ("unframed@100;on=layer,resume", LAYER, "1"),
        ("close;on=layer,resume", LAYER, "1"),
        ("503;on=layer,resume", LAYER, "1"),
        ("429;on=layer,resume", LAYER, "1"),
        ("truncate@10;on=config,resume", CONFIG, "1"),
        ("truncate@10;on=manifest", IMAGE.digest, "many"),
        (f"wrong-range;on=resume{ALWAYS} truncate@100;on=layer,resume", LAYER, "1"),
        (f"503;on=resume{ALWAYS} truncate@100;on=layer", LAYER, "1"),
    ],
)
def test_a8_a_server_that_always_fails_is_asked_about_ten_times_within_30_s(
    fault: str, digest: str, tag: str, count: int, hosts: Hosts, clock: Clock, tmp_path: Path
) -> None:
    """In all, at one host and at several, for a blob and for a document. Tries only count up; the error names each host."""
    hosts.of(*[fault + ALWAYS] * count)
    with pytest.raises(OcidistError) as caught:
        hosts.fetch(tmp_path, tag)
    # Each of the list may be asked once more, and a request on a kept connection that had died is sent again.
    assert hosts.asked(digest) <= 10 + count
    assert clock.now <= 30
    attempts = [event.attempt for event in hosts.tries]
    assert attempts == sorted(set(attempts))
    for server in hosts.servers:
        assert server.registry.address in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("fault", "digest", "tag"),
    [
        ("flip@3;on=layer", LAYER, "1"),
        ("flip@3;on=config", CONFIG, "1"),
        ("flip@3;on=manifest", IMAGE.digest, "many"),
        ("endless-body;on=layer", LAYER, "1"),
    ],
)
def test_a06_wrong_bytes_are_asked_for_until_one_host_has_sent_them_twice(
    fault: str, digest: str, tag: str, count: int, hosts: Hosts, clock: Clock, tmp_path: Path
) -> None:
    """A single host is asked twice, and each mirror gets its turn, without a pause."""
    hosts.of(*[fault + ALWAYS] * count)
    with pytest.raises(OcidistError) as caught:
        hosts.fetch(tmp_path, tag)
    assert hosts.asked(digest) == count + 1
    assert clock.now == 0
    for server in hosts.servers:
        assert server.registry.address in str(caught.value)


@pytest.mark.parametrize(
    "fault", ["flip@3;on=layer,config", "truncate@10;on=layer,config,resume", "503;on=layer"]
)
def test_i85_the_next_mirror_is_asked_at_once(fault: str, hosts: Hosts, clock: Clock, tmp_path: Path) -> None:
    """Pauses are for hosts that were asked before."""
    hosts.of(fault + ALWAYS, fault + ALWAYS, "")
    hosts.fetch(tmp_path)
    assert clock.now == 0


def test_a8_pauses_come_after_each_round_of_mirrors(hosts: Hosts, clock: Clock, tmp_path: Path) -> None:
    """And grow as those of one host do."""
    hosts.of(*[f"truncate@10;on=layer,resume{ALWAYS}"] * 3)
    with pytest.raises(OcidistError):
        hosts.fetch(tmp_path)
    pauses = [event.after for event in hosts.tries]
    assert [pause > 0 for pause in pauses] == [False, False, True] * 3
    assert 0.25 <= pauses[2] <= 0.75
    assert 0.5 <= pauses[5] <= 1.5


def test_a8_what_a_host_asks_for_is_waited_for(hosts: Hosts, clock: Clock, tmp_path: Path) -> None:
    """Retry-After, of 503 as of 429; that time is not ours."""
    hosts.of("503;on=layer;retry-after=20;times=5")
    hosts.fetch(tmp_path)
    assert clock.pauses == [20] * 5


def test_a1_an_object_on_its_way_to_a_pipe_is_resumed(
    hosts: Hosts, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], clock: Clock
) -> None:
    """Of known size, and where the registry does not tell it."""
    hosts.of("truncate@100000;on=layer,resume;times=2")
    name = hosts.servers[0].name
    assert main(["--root", str(tmp_path), "--plain-http", "fetch-object", name, LAYER]) == 0
    out, _ = capfdbinary.readouterr()
    assert out == next(blob.raw for blob in IMAGE.blobs if blob.digest == LAYER)
