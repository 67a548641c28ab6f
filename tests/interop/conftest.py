"""Running servers for interop tests; each is made with the options that the test gives and ends with it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from tests.parts.required import require
from tests.parts.secrets import PASSWORD, USER

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority
    from tests.parts.containerd import Containerd
    from tests.parts.registry import BlobHost, RegistryProcess
    from tests.parts.tokens import TokenServer

ALICE = USER


@pytest.fixture
def make_tokens(tmp_path: Path) -> Iterator[Callable[..., TokenServer]]:
    """Starts token servers: ``make_tokens(tls=…, policy=…, algorithm=…, header=…)``."""
    require("module:cryptography")
    from tests.parts.tokens import TokenServer

    with contextlib.ExitStack() as stack:
        made: list[TokenServer] = []

        def make(**options: Any) -> TokenServer:
            server = TokenServer(tmp_path / f"tokens-{len(made)}", **options)
            made.append(server)
            stack.enter_context(server)
            return server

        yield make


@pytest.fixture
def make_registry(tmp_path: Path) -> Iterator[Callable[..., RegistryProcess]]:
    """Starts registries: ``make_registry(auth="htpasswd", users=…, tokens=…, tls=ca, front=…)``."""
    require("docker-registry")
    from tests.parts.registry import RegistryProcess

    with contextlib.ExitStack() as stack:
        made: list[RegistryProcess] = []

        def make(**options: Any) -> RegistryProcess:
            if options.get("auth") == "htpasswd":
                require("htpasswd")
                options.setdefault("users", {ALICE: PASSWORD})
            process = RegistryProcess(tmp_path / f"registry-{len(made)}", **options)
            made.append(process)
            return stack.enter_context(process)

        yield make


@pytest.fixture
def make_redirecting_registry(tmp_path: Path) -> Iterator[Callable[..., tuple[RegistryProcess, BlobHost]]]:
    """Starts registries that redirect blob reads to another port: ``make_redirecting_registry(tls=ca, auth=…)``."""
    require("docker-registry")
    from tests.parts.registry import redirecting_registry

    with contextlib.ExitStack() as stack:
        made: list[RegistryProcess] = []

        def make(
            *, tls: CertificateAuthority | None = None, **options: Any
        ) -> tuple[RegistryProcess, BlobHost]:
            folder = tmp_path / f"redirecting-{len(made)}"
            registry, blobs = stack.enter_context(redirecting_registry(folder, tls=tls, **options))
            made.append(registry)
            return registry, blobs

        yield make


@pytest.fixture
def registry(make_registry: Callable[..., RegistryProcess]) -> RegistryProcess:
    """A registry without authentication, over http."""
    return make_registry()


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Containerd]:
    """A running containerd, empty."""
    require("root", "containerd", "ctr")
    from tests.parts.containerd import Containerd

    with Containerd(tmp_path / "containerd") as daemon:
        yield daemon
