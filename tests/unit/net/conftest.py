"""The peers of one test."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

from tests.unit.net.peers import Script, Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """``serve(script, ..., context=None)`` starts a server that ends with the test."""
    servers: list[Server] = []

    def start(*scripts: Script, context: Any = None) -> Server:
        servers.append(Server(scripts, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    faults = [fault for server in servers for fault in server.faults]
    assert not faults, faults
