"""One budget for the retries of a transfer, whatever loop meets the failure; and few tries of a host that says nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ocidist.client import Client
from ocidist.errors import OcidistError, TransportError
from ocidist.net import dial
from ocidist.progress import Retrying
from ocidist.scope import PROGRESS, Retries, Scope
from tests.parts.faulty import FaultyRegistry
from tests.parts.images import Entry, image

IMAGE = image([[Entry("a", bytes(range(256)) * 40)]])


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each retry would have waited; none does."""
    found: list[float] = []
    real = Scope.sleep
    monkeypatch.setattr(Scope, "sleep", lambda self, seconds: (found.append(seconds), real(self, 0))[1])
    return found


@pytest.mark.parametrize("fault", ["truncate@10", "500", "close", "garbage"])
def test_a8_a_registry_that_always_fails_is_asked_ten_times_for_a_blob(
    fault: str, tmp_path: Path, slept: list[float]
) -> None:
    """In all: the loops of the request, of the body and of the fill share one budget. Its numbers only count up."""
    with FaultyRegistry({"1": IMAGE}, f"{fault};on=layer,resume;times=always") as own:
        events: list[Any] = []
        client = Client(store=tmp_path, hosts_dirs=[], plain_http=True, platform="linux/amd64")
        with pytest.raises(OcidistError), Scope(observer=events.append) as scope:
            client.fetch(f"{own.name}:1", scope=scope)
        layer = IMAGE.manifest["layers"][0]["digest"]
        asked = [record for record in own.registry.records if record.path.endswith(layer)]
    attempts = [event.attempt for event in events if isinstance(event, Retrying)]
    assert attempts == ([] if fault == "garbage" else list(range(2, 11)))
    assert (
        len(asked) <= 1 + len(attempts) + 2
    )  # to send again at once on a kept connection that had died is no try


def test_a_host_that_says_nothing_is_tried_twice(monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
    """Each try has the connect timeout; a registry into a black hole fails after two of them and a pause."""
    tried: list[float] = []

    def opened(link: dial.Link, candidate: tuple[Any, ...], seconds: float) -> socket.socket:
        tried.append(seconds)
        raise TimeoutError("timed out")

    monkeypatch.setattr(dial.Link, "_open", opened)
    client = Client(hosts_dirs=[], plain_http=True, connect_timeout=2)
    with pytest.raises(TransportError, match="no connection within 2 seconds"):
        client.resolve("127.0.0.1:5000/a:1")
    assert len(tried) == 2
    assert max(tried) <= 2
    assert sum(slept) < 1


def test_all_addresses_of_a_name_share_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets a part of it, so that the last one is tried as well."""
    now = [100.0]
    tried: list[float] = []

    def look_up(host: str, port: int, *rest: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))] * 5

    def opened(link: dial.Link, candidate: tuple[Any, ...], seconds: float) -> socket.socket:
        assert seconds > 0
        tried.append(seconds)
        now[0] += seconds
        raise TimeoutError("timed out")

    monkeypatch.setattr(dial, "look_up", look_up)
    monkeypatch.setattr(dial.Link, "_open", opened)
    monkeypatch.setattr(dial.time, "monotonic", lambda: now[0])
    link = dial.Link(
        dial.Route("http", "registry.example", 80), Scope(), connect_timeout=2, connect_to={}, context=None
    )
    with pytest.raises(TimeoutError):
        link._dial(("registry.example", 80))
    assert len(tried) == 5
    assert sum(tried) <= 2.001


def test_retries_end_by_number_and_by_time_and_begin_again_with_progress() -> None:
    """Ten tries without progress, or half a minute, but always two; what the peer asks to wait for does not count."""
    now = [0.0]
    slow = Retries(clock=lambda: now[0])
    now[0] = 500
    assert slow.again() == 0.5
    now[0] = 600
    assert slow.again() is None
    assert slow.spent
    slow.moved(PROGRESS)
    assert not slow.spent
    assert slow.again() == 0.5
    assert slow.attempt == 3
    patient = Retries(clock=lambda: now[0])
    waits = []
    while (seconds := patient.again(wait=60)) is not None:
        waits.append(seconds)
        now[0] += seconds
    assert waits == [60] * 9
    for jitter in (0.0, 0.5, 1.0):
        retries, began = Retries(clock=lambda: now[0]), now[0]
        while (seconds := retries.again(jitter)) is not None:
            now[0] += seconds
        assert now[0] - began <= 30
        assert retries.attempt >= 7
