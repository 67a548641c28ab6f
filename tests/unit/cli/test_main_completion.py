"""Completion scripts: accepted by their shells, and completing what is typed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ocidist.cli.commands import COMMANDS
from ocidist.cli.main import main


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script of the shell that the test is about, in a file."""
    assert main(["completion", request.param]) == 0
    path = tmp_path / f"completion.{request.param}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"], indirect=True)
def test_the_shell_accepts_its_script(script: Path) -> None:
    """``bash -n``, ``zsh -n``, ``fish -n``, where the shell is here; every verb is in it anyway."""
    text = script.read_text()
    for command in COMMANDS:
        for word in command.name.split():
            assert word in text
    shell = script.suffix[1:]
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to read its script; the verbs are in it")
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of ``words``, with ``ocidist`` itself answering for digests and images."""
    line = "\n".join(
        (
            f"source {script}",
            'ocidist() { case "$1 $2" in "images -q") echo redis:7;; "list -q") echo sha256:aa;; esac; }',
            f"COMP_LINE='ocidist {' '.join(words)}'",
            "COMP_POINT=${#COMP_LINE}",
            "_ocidist",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        )
    )
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", line], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_verbs_options_and_names(script: Path) -> None:
    """A verb's beginning, its options, a shell's name, images for rmi, digests for get."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    assert complete(script, "pul") == ["pull"]
    assert set(complete(script, "fet")) == {"fetch", "fetch-object"}
    assert set(complete(script, "")) >= {command.name.split()[0] for command in COMMANDS}
    assert complete(script, "ingest", "--expected-") == ["--expected-size", "--expected-digest"]
    assert "--dry-run" in complete(script, "gc", "--dr")
    assert "--timeout" in complete(script, "pull", "--time")
    assert complete(script, "--debug", "comp") == ["completion"]
    assert complete(script, "completion", "z") == ["zsh"]
    assert complete(script, "rootfs", "un") == ["unpack"]
    assert complete(script, "rmi", "red") == ["redis:7"]
    assert complete(script, "get", "sha") == ["sha256:aa"]
    assert complete(script, "get", "sha256:") == ["aa"], "bash puts what stands before the colon itself"
    assert complete(script, "-u", "me:secret", "rmi", "redis:7") == ["7"]
    assert complete(script, "--root", "/some/where", "pul") == ["pull"]
    assert complete(script, "--format", "") == ["csv", "json", "jsonl", "table"]
