"""Fixtures that several rooms share. Servers are started by the test or session that asks for them, never before."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

import pytest

from ocidist.redaction import SECRETS, Redactor
from tests.parts import absent, watched
from tests.parts.required import (
    lacking,
    missing,
    pytest_make_collect_report,  # noqa: F401  (a hook)
    pytest_runtest_makereport,  # noqa: F401  (a hook)
    require,
    shared_images,
)
from tests.parts.tables import pytest_terminal_summary, table  # noqa: F401  (a hook, and a fixture)

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority
    from tests.parts.processes import Program
    from tests.parts.world import ExampleWorld


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Full counts (mark ``soak``) run when they are asked for, and with OCIDIST_SOAK=1 only."""
    soak = [item for item in items if item.get_closest_marker("soak") is not None]
    if "soak" in config.option.markexpr:
        if os.environ.get("OCIDIST_SOAK") != "1":
            for item in soak:
                item.add_marker(pytest.mark.skip(reason="full counts run with OCIDIST_SOAK=1"))
    elif soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]


def pytest_configure(config: pytest.Config) -> None:
    """Tests that ask for threads, processes or sockets skip on a system without; no test fails by its time; secrets are watched.

    A shell starts background jobs with SIGINT ignored, which every process that a test interrupts would inherit.
    """
    absent.install(missing, lacking)
    config.pluginmanager.register(watched, "ocidist-watched")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if missing("module:hypothesis") is None:
        import hypothesis

        hypothesis.settings.register_profile("ocidist", deadline=None)
        hypothesis.settings.load_profile("ocidist")


@pytest.fixture(autouse=True)
def no_secrets_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test begins, as a process does, with no secrets used: what another test used is not taken out of its texts."""
    monkeypatch.setattr(SECRETS, "__dict__", vars(Redactor()))


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """A certificate authority for the whole run."""
    require("module:cryptography")
    from tests.parts.ca import CertificateAuthority

    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def example_world(tmp_path: Path, ca: CertificateAuthority) -> Iterator[ExampleWorld]:
    """registry.example, auth.example and blobs.example, on loopback, empty."""
    require("docker-registry")
    from tests.parts.world import ExampleWorld

    with ExampleWorld(tmp_path / "world", ca=ca) as world:
        yield world


@pytest.fixture(scope="session")
def images_of_others() -> Path:
    """The folder of images that others made."""
    require("shared-images")
    found = shared_images()
    assert found is not None
    return found


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """``python -m ocidist`` with an empty home and an empty root."""
    from tests.parts.processes import Program

    return Program(tmp_path / "home", tmp_path / "root")
