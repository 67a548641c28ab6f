"""The commands that cassettes/README.md gives for its cassettes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ocidist.cli.main import main

FOLDER = Path(__file__).parents[2] / "cassettes"
ROWS = re.findall(
    r"^\| `(\S+\.json)` \| `(.+)` \| ([01]) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE
)


def test_there_are_some() -> None:
    """The table is found."""
    assert len(ROWS) > 5


@pytest.mark.parametrize(("cassette", "command", "code"), ROWS)
def test_a_cassette_is_replayed_by_the_command_that_its_table_gives(
    cassette: str, command: str, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends as the table says, and never for an exchange that was not recorded."""
    words = ["--root", str(tmp_path / "root"), "--cassette", str(FOLDER / cassette), *shlex.split(command)]
    assert main(words) == int(code)
    assert "not recorded" not in capsys.readouterr().err
