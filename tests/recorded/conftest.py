"""Tests of this folder run against ``cassettes/``, played back by vcrpy, with sockets blocked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parts.required import missing

CASSETTES = Path(__file__).resolve().parents[2] / "cassettes"


@pytest.hookimpl(optionalhook=True)
def pytest_recording_configure(config: pytest.Config, vcr: Any) -> None:
    """vcrpy reads this project's format: serializer, persister for the sidecars, matchers."""
    from ocidist.integrations import vcr as integration

    integration.register(vcr)


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    """Match on Range, Accept and credentials, too; the same request may be played twice."""
    from ocidist.integrations import vcr as integration

    return dict(integration.CONFIG)


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    """The project's cassettes, not a folder beside each test."""
    return str(CASSETTES)


if missing("module:pytest_recording"):

    @pytest.fixture
    def default_cassette_name(request: pytest.FixtureRequest) -> str:
        """The name that the test's mark gives, as the plugin's fixture of that name says."""
        mark = request.node.get_closest_marker("default_cassette")
        assert mark is not None
        return str(mark.args[0])
