"""What the command line says where it refuses: the thing, the reason, and a way out that can be gone."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from ocidist.cli.commands import COMMANDS
from ocidist.cli.main import build, main
from tests.parts.processes import Program
from tests.parts.required import require


@pytest.fixture(autouse=True)
def _no_settings_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCIDIST_REPLAY", "OCIDIST_PLATFORM", "CONTAINERD_FETCH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rootfs"], "write rootfs unpack|prepare|view|diff|commit|rm"),
        (["--timeout", "x", "list"], "'x' is not a duration; write 30s, 1m30s, 500ms or 2h"),
        (["--timeout", "0", "list"], "'0' is not longer than 0; write 30s, 1m30s, 500ms or 2h"),
        (["ingest", "--expected-size", "1k", "key"], "'1k' is not a number of bytes"),
        (["pull", "foo://x"], "unknown kind of remote 'foo'; write HOST/NAME:TAG, or store:NAME"),
        (["pull", "store:"], "names no image; write HOST/NAME:TAG"),
        (["pull", "oci:folder"], "oci:folder: images of this kind are not supported yet; copy it to a registry"),
        (["tags", "store:x"], "store:x: only a registry lists tags; write HOST/NAME"),
        (["catalog", "a/b"], "'a/b' is not a registry host; write HOST or HOST:PORT"),
        (["login"], "login needs a user; write -u USER"),
        (["login", "-u", "bob"], "use --password-stdin, or write -u bob:PASSWORD"),
        (["-u", "bob", "pull", "a.example/b"], "write -u bob:PASSWORD, or log in first"),
        (["inspect", "store:nosuch"], "nosuch: no image of that name in the store; pull it first"),
        (["rootfs", "unpack", "nosuch"], "nosuch: no image of that name in the store; pull it first"),
        (["rootfs", "diff", "nosuch"], "nosuch: neither a snapshot nor a directory; `snapshots` lists snapshots"),
        (["rootfs", "diff", "a", "b", "c"], "takes one tree or two; write [LOWER] UPPER"),
        (["rootfs", "commit", "x"], "$SOURCE_DATE_EPOCH: 'soon' is not a number of seconds since 1970; correct it or unset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_errors_name_the_thing_and_the_way_out(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line; what it advises is an option or a command of this program."""
    assert main(words) in (1, 2)
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = found.err.splitlines()
    assert said in line


def test_the_help_of_every_command_explains_every_argument() -> None:
    """None but those whose name says it all: DIGEST, REF."""
    bare = [
        f"{command.name} {action.metavar or action.dest}"
        for command in COMMANDS
        for action in build(command)._actions
        if not action.help and action.metavar not in ("DIGEST", "REF")
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ingest", "key"], "reading the blob from the terminal"),
        (["apply", "."], "reading a layer (a tar, compressed or not) from the terminal"),
        (["--cassette", "demo", "fetch-object", "registry.example/demo/shop", "-"], "one on each line"),
    ],
)
def test_what_is_waited_for_on_a_terminal_is_said(tmp_path: Path, words: list[str], said: str) -> None:
    """Before anything is typed; nothing of it where stdin is a pipe."""
    require("processes", "os:openpty")
    program = Program(tmp_path / "home", tmp_path / "root")
    mine, theirs = os.openpty()
    process = program.start(*words, stdin=theirs)
    os.close(theirs)
    assert process.stderr is not None
    text, end = b"", time.monotonic() + 60
    while b"\n" not in text and time.monotonic() < end:
        if select.select([process.stderr], [], [], 0.1)[0]:
            text += os.read(process.stderr.fileno(), 1 << 16)
    process.kill()
    process.communicate()
    os.close(mine)
    assert said in text.decode()
    assert "Ctrl-D ends it" in text.decode()
    assert "terminal" not in program.run(*words, stdin=b"").stderr
