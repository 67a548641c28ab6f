"""The command line without a network: words to commands, values of options, errors to exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli import blobs
from ocidist.cli import main as program
from ocidist.cli.commands import COMMANDS, GROUPS, find
from ocidist.cli.main import main
from ocidist.cli.options import duration
from ocidist.errors import OcidistError, UsageError
from ocidist.spec.digest import Digest
from tests.parts.processes import CHECKOUT, clean_environment

DEMO = "registry.example/demo/shop:1.0"


@pytest.fixture(autouse=True)
def _no_settings_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCIDIST_ROOT", "OCIDIST_REPLAY", "OCIDIST_PLATFORM", "CONTAINERD_FETCH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr, which must be one line by this program."""
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = found.err.splitlines()
    assert line.startswith("ocidist: ")
    return line


@pytest.mark.parametrize("words", [["--root", "", "images"], ["images", "--root="]])
def test_an_empty_root_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is a script's unset variable, and must not mean the usual place."""
    assert main(words) == 2
    assert "--root: the path is empty" in one_line(capsys)


def test_a_hosts_dir_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the registry would be asked where a mirror was meant. Nothing is sent."""
    assert main(["resolve", "registry.example/a:1", "--hosts-dir", str(tmp_path / "none")]) == 2
    assert "none: no such folder of hosts.toml files" in one_line(capsys)


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1m30s", 90),
        ("2h", 7200),
        ("1h1m1s1ms", 3661.001),
        ("45", 45),
        ("0.5", 0.5),
        (" 1.5S ", 1.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """As cli.md has them: units, or plain seconds."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1d",
        "1 m",
        "-1s",
        "1e3",
        "٣s",
        "1_0",
        "1..5s",
        ".",
        "0",
        "0ms",
        "nan",
        "inf",
        "8761h",
        "9" * 400,
    ],
)
def test_what_is_no_duration(text: str) -> None:
    """Refused with an example, never read as something else."""
    with pytest.raises(ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize(
    "words",
    [
        ["pul"],
        ["rootfs"],
        ["rootfs", "pack"],
        ["--nope"],
        ["pull"],
        ["pull", "--nope", "x"],
        ["pull", "a:1", "b:1"],
        ["list", "--format", "xml"],
        ["--format", "xml", "list"],
        ["--timeout", "soon", "list"],
        ["list", "--timeout", "0s"],
        ["--timeout"],
        ["completion", "tcsh"],
        ["ingest"],
        ["ingest", "--expected-size", "-1", "key"],
        ["ingest", "--expected-size", "1k", "key"],
        ["pull", "--connect-to", "here", "a:1"],
        ["pull", "--platform", "linux amd64", "--cassette", "demo", DEMO],
        ["pull", "zzz://x"],
        ["pull", ""],
        ["-u", "alice", "pull", "a:1"],
    ],
    ids=" ".join,
)
def test_a_usage_error_is_one_line_and_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong with the words themselves; nothing was begun."""
    assert main(["--progress", "none", *words]) == 2
    one_line(capsys)


def test_a_mistyped_verb_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest one; none where nothing is near."""
    assert main(["fetch-objct", "x"]) == 2
    assert "did you mean fetch-object?" in one_line(capsys)
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in one_line(capsys)


def test_options_stand_before_the_command_or_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The later one wins; one given before is not lost by a command that could take it too."""
    assert main(["--format", "json", "list"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["list", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "digest,size,created_at\r\n"
    assert main(["--format", "json", "list", "--format", "csv"]) == 0
    assert capsys.readouterr().out == "digest,size,created_at\r\n"
    assert main(["--", "list"]) == 0
    assert capsys.readouterr().out.split() == ["DIGEST", "SIZE", "AGE"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"content")))
    assert main(["--root", str(tmp_path / "one"), "ingest", "--root", str(tmp_path / "two"), "key"]) == 0
    digest = capsys.readouterr().out.strip()
    assert not (tmp_path / "one").exists()
    assert main(["--root", str(tmp_path / "two"), "list", "-q"]) == 0
    assert capsys.readouterr().out.split() == [digest]


def test_options_are_never_guessed_from_their_beginnings(capsys: pytest.CaptureFixture[str]) -> None:
    """``--form`` is not ``--format``: a later option could take its place."""
    assert main(["list", "--form", "json"]) == 2
    assert "--form" in one_line(capsys)


# --- help -------------------------------------------------------------------------------------------------------


def test_help_shows_every_command_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each; the same without words, but with exit 2."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command.name} " in text
        assert command.summary in text
        assert command.group in GROUPS
    for title in GROUPS.values():
        assert f"{title}:\n" in text
    assert main([]) == 2
    assert capsys.readouterr().out == text
    assert main(["help"]) == 0
    assert capsys.readouterr().out == text
    assert "\n  --version " in text
    assert "\nExit codes: 0 done; 1 " in text
    assert "\n  --timeout DUR " in text


@pytest.mark.parametrize(
    "words", [["rootfs", "--help"], ["--help", "rootfs"], ["help", "rootfs"]], ids=" ".join
)
def test_a_group_of_commands_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It lists the second words."""
    assert main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ocidist rootfs ")
    assert "  rootfs unpack  " in text


def test_help_of_what_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped verb is one there, too."""
    assert main(["help", "pul"]) == 2
    assert "did you mean pull?" in one_line(capsys)


@pytest.mark.parametrize("name", ["ingest", "active", "label", "gc", "apply", "rootfs unpack"])
def test_a_command_that_needs_it_says_what_it_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A paragraph, folded at the terminal's width; unpacking says what an ordinary user gets."""
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    about = text.split("\n\n")[1]
    assert len(about.splitlines()) >= 3
    assert max(map(len, text.splitlines())) < 80
    if name in ("apply", "rootfs unpack"):
        assert "ordinary user" in " ".join(about.split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_explains_itself(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """``COMMAND --help``, ``--help COMMAND``, and each alias; a function stands behind every entry."""
    assert main([*command.name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: ocidist {command.name} ")
    assert "--timeout" not in text, "the shared options are explained once"
    assert text.endswith("\nEvery command also takes the options that `ocidist --help` lists.\n")
    for words in (["--help"], ["help"]):
        assert main([*words, *command.name.split()]) == 0
        assert capsys.readouterr().out == text
    for name in (command.name, *command.aliases):
        assert find([*name.split(), "x"]) == (command, ["x"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line: the program's name and version."""
    import ocidist

    for word in ("--version", "version"):
        assert main([word]) == 0
        assert capsys.readouterr().out == f"ocidist {ocidist.__version__}\n"


# --- ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OcidistError("it went wrong"), 1, "it went wrong"),
        (UsageError("write it so"), 2, "write it so"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RecursionError(), 1, "nested too deeply"),
        (OcidistError("name \x1b[31m\u202eevil\nsecond line"), 1, "\\x1b[31m"),
    ],
    ids=["error", "usage", "interrupt", "recursion", "d67 control characters"],
)
def test_g67_each_end_has_its_code_and_its_line(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Control characters of a text from outside are shown, not obeyed."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(blobs, "run_list", fail)
    assert main(["list"]) == code
    line = one_line(capsys)
    assert says in line
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no OcidistError is a defect, and shows its traceback."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(blobs, "run_list", fail)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


@pytest.mark.parametrize("cause", [False, True], ids=["plain", "wrapped"])
def test_a_closed_pipe_is_no_error(
    cause: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the write itself fails, or what it was part of."""
    let_go = []

    def fail(*_: object) -> None:
        if not cause:
            raise BrokenPipeError
        try:
            raise BrokenPipeError
        except BrokenPipeError as error:
            raise OcidistError("the reader is gone") from error

    monkeypatch.setattr(blobs, "run_list", fail)
    monkeypatch.setattr(program, "let_go_of_stdout", lambda: let_go.append(1))
    assert main(["list"]) == 0
    assert let_go == [1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "words", [["--help"], ["pull", "--help"], ["list"], ["completion", "bash"]], ids=" ".join
)
def test_a_reader_who_is_gone_before_the_first_byte(tmp_path: Path, words: list[str]) -> None:
    """A real process with a closed pipe for stdout: no word, no error."""
    import os

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "ocidist", *words],
            env=clean_environment(tmp_path),
            cwd=CHECKOUT,
            stdout=out,
            stderr=subprocess.PIPE,
        )
    assert (done.returncode, done.stderr) == (0, b"")


# --- a whole run, from the demo ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pull", "fetch"])
def test_quiet_prints_the_digest_alone(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """-q: one digest on stdout, as docker does, and no progress; what the next command can take."""
    assert main(["--cassette", "demo", "--progress", "plain", verb, "-q", DEMO]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    (digest,) = found.out.splitlines()
    assert main(["get", str(Digest(digest))]) == 0


def test_the_demo_is_pulled_from_its_cassette(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pull, images, inspect, get and gc in one process, each exit 0; progress is on stderr, data on stdout."""
    assert main(["--cassette", "demo", "--platform", "linux/amd64", "pull", DEMO, "--format", "json"]) == 0
    found = capsys.readouterr()
    pulled = json.loads(found.out)
    assert pulled["ref"] == DEMO
    assert "fetched" in found.err
    assert "total:" in found.err
    assert main(["images", "--format", "jsonl"]) == 0
    (named,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (named["ref"], named["digest"], named["platforms"]) == (DEMO, pulled["digest"], ["linux/amd64"])
    assert main(["list", "-q"]) == 0
    digests = capsys.readouterr().out.split()
    assert pulled["digest"] in digests
    assert main(["rmi", DEMO]) == 0
    capsys.readouterr()
    assert main(["gc", "--format", "jsonl"]) == 0
    gone = [json.loads(line)["digest"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(gone) == sorted(digests)


@pytest.mark.parametrize("progress", ["bar", "plain", "json", "none"])
def test_every_form_of_progress_ends_with_the_whole(
    progress: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bars, lines, JSON objects or nothing, all on stderr; stdout is the same."""
    words = ["--cassette", "demo", "--platform", "linux/arm64", "--progress", progress]
    assert main([*words, "pull", DEMO]) == 0
    found = capsys.readouterr()
    assert found.out.split()[0] == DEMO
    assert len(found.out.split()) == 3
    if progress == "none":
        assert found.err == ""
    elif progress == "json":
        events = [json.loads(line) for line in found.err.splitlines()]
        assert events[-1]["event"] == "ended"
        assert events[-1]["error"] is None
        assert events[-1]["done"] == events[-1]["total"] > 0
    else:
        assert "elapsed" in found.err


def test_a_run_is_recorded_and_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--record makes a cassette that replays; --trace a HAR or JSON lines, as its name ends."""
    cassette, har, lines = tmp_path / "c", tmp_path / "t.har", tmp_path / "t.jsonl"
    words = ["--cassette", "demo", "--platform", "linux/amd64"]
    assert main([*words, "resolve", DEMO, "--record", str(cassette), "--trace", str(har)]) == 0
    resolved = capsys.readouterr().out
    assert main([*words, "resolve", DEMO, "--trace", str(lines)]) == 0
    assert capsys.readouterr().out == resolved
    assert main(["--cassette", str(cassette), *words[2:], "resolve", DEMO]) == 0
    assert capsys.readouterr().out == resolved
    entries = json.loads(har.read_text())["log"]["entries"]
    assert len(entries) >= 1
    assert all(
        "url" in json.loads(line).get("request", json.loads(line)) for line in lines.read_text().splitlines()
    )


def test_what_is_not_recorded_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """No socket is opened for it: one line that names the request."""
    assert main(["--cassette", "demo", "--progress", "none", "pull", "registry.example/demo/other:1"]) == 1
    assert "demo/other" in one_line(capsys)


def test_objects_come_on_stdin_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """``fetch-object REMOTE -``: empty lines are skipped, hints stand behind the object."""
    assert main(["--cassette", "demo", "manifest", DEMO]) == 0
    raw = capfdbinary.readouterr().out
    remote = DEMO.rpartition(":")[0]
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("1.0\n\n1.0 mediatype:application/vnd.oci.image.index.v1+json -\n")
    )
    assert main(["--cassette", "demo", "fetch-object", remote, "-"]) == 0
    assert capfdbinary.readouterr().out == raw + raw


# --- ingest -----------------------------------------------------------------------------------------------------


def ingest(monkeypatch: pytest.MonkeyPatch, data: bytes, *words: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return main(["ingest", *words, "key"])


def test_c33_a_key_is_not_spoilt_by_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong content is kept and refused; the right one, under the same key, takes its place."""
    right = Digest.of(b"hi\n")
    for wrong in (b"hello\n", b"hi", b"hi\nthere", b""):
        assert ingest(monkeypatch, wrong, "--expected-digest", right) == 1
        assert "hash to" in one_line(capsys)
    assert ingest(monkeypatch, b"hello\n", "--expected-digest", right) == 1
    capsys.readouterr()
    assert ingest(monkeypatch, b"hi\n", "--expected-digest", right) == 0
    assert capsys.readouterr().out.split() == [right]


@pytest.mark.parametrize(
    "data", [b"completely different text", b"hello, ", b"hello, worlds", b"hello, world", b"Hello, world"]
)
def test_c33_two_streams_are_never_spliced(
    data: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever was kept, what is stored is stdin's bytes."""
    assert ingest(monkeypatch, b"hello, world", "--expected-size", "40") == 1
    one_line(capsys)
    assert ingest(monkeypatch, data) == 0
    assert capsys.readouterr().out.split() == [Digest.of(data)]
