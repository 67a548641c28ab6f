"""Tests of this folder run against ``cassettes/``, played back by vcrpy, with sockets blocked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CASSETTES = Path(__file__).resolve().parents[2] / "cassettes"


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
