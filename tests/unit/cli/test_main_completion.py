"""Completion: how a line is read, and what is offered at its end. The shells themselves are in tests/interop."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from ocidist.cli.commands import COMMANDS
from ocidist.cli.completion import _escaped
from ocidist.cli.main import main
from ocidist.cli.offers import Offers, offers, read
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require

REDIS, BLOB = "docker.io/library/redis:7", Digest.of(b"{}")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_accepts_its_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``bash -n``, ``zsh -n``, ``fish -n``."""
    assert main(["completion", shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    require("processes", shell)
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "words", "current"),
    [
        ("ocidist pul", ["ocidist"], "pul"),
        ("ocidist pull ", ["ocidist", "pull"], ""),
        ("ocidist  get\t'a b' \"c d\" e\\ f ", ["ocidist", "get", "a b", "c d", "e f"], ""),
        ("ocidist get 'it''s", ["ocidist", "get"], "its"),
        ('ocidist get "a\\"b\\c', ["ocidist", "get"], 'a"b\\c'),
        ("ocidist --root $R/x ${R} rm", ["ocidist", "--root", "/root dir/x", "/root dir"], "rm"),
        ("ocidist '$R' \"$R", ["ocidist", "$R"], "/root dir"),
        ("ocidist $UNKNOWN ${R:-x} $(touch x", ["touch"], "x"),
        ("ocidist list | ocidist get ", ["ocidist", "get"], ""),
        ("make; ocidist get sha256:", ["ocidist", "get"], "sha256:"),
        ("x=`ocidist get s", ["ocidist", "get"], "s"),
        ("A=1 ocidist get > a -", ["A=1", "ocidist", "get"], "-"),
        ("ocidist ''", ["ocidist"], ""),
        ("ocidist \\", ["ocidist"], ""),
        ("", [], ""),
    ],
)
def test_lines_are_read_as_shells_read_them(text: str, words: list[str], current: str) -> None:
    """Quotes, backslashes, variables that are known, and where the last command begins."""
    line = read(text, {"R": "/root dir"})
    assert (line.words, line.current) == (words, current)


@pytest.mark.parametrize("text", ["redis:7", "$(touch x)", "it's", "~", "a b\\", "ü!"])
def test_i78_what_bash_gets_reads_back(text: str) -> None:
    """An escaped name is one word, itself."""
    line = read(f"ocidist rmi {_escaped(text)}")
    assert (line.words, line.current, line.quote) == (["ocidist", "rmi"], text, "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with an image, a blob, and a snapshot."""
    root = tmp_path / "root"
    with Store.at(root) as store:
        with store.ingest("put", total=2, expected=BLOB) as writer:
            writer.write(b"{}")
            writer.commit(2, BLOB)
        target = Descriptor("application/vnd.oci.image.manifest.v1+json", BLOB, 2)
        for name in (REDIS, "ghcr.io/a/b:1", "-q", "new\nline"):
            store.names.put(name, target)
        with store.ingest("half", total=9) as writer:
            writer.write(b"{")
    return root


def offered(text: str, root: Path | None = None) -> Offers:
    """For a line, with a store that it doesn't name itself."""
    return offers(
        read(f"ocidist {text}"), lambda named: Store.at(named or root or "/nonexistent", readonly=True)
    )


def words(text: str, root: Path | None = None) -> list[str]:
    return [word for word, _ in offered(text, root).words]


def test_every_command_is_offered_and_no_option_on_an_empty_word() -> None:
    """Commands alone, with what they do; options once a hyphen is typed."""
    found = dict(offered("").words)
    assert set(found) >= {
        word.split()[0] for command in COMMANDS for word in (command.name, *command.aliases)
    }
    assert found["pull"] == "fetch an image, unpack it, and name it"
    assert not any(word.startswith("-") for word in found)
    assert {"--root", "--debug"} <= set(words("-"))
    assert "--connect-to" not in words("--c")
    assert words("fet") == ["fetch", "fetch-object"]
    assert words("--debug --root /some/where pul") == ["pull"]
    assert words("help rootfs un") == ["unpack"]
    assert words("rootfs un") == ["unpack"]
    assert words("rootfs ") == ["unpack", "prepare", "view", "diff", "commit", "rm"]
    assert words("completion ") == ["bash", "zsh", "fish"]
    assert words("nonsense ") == []


def test_options_and_their_values() -> None:
    """Of the command and of all; choices after it or behind an equals sign; files where a path goes."""
    assert words("ingest --expected-") == ["--expected-size", "--expected-digest"]
    assert words("--format ") == words("list --format ") == ["table", "json", "jsonl", "csv"]
    assert words("list --format=j") == ["--format=json", "--format=jsonl"]
    for path in (
        "--root ",
        "list --trace x",
        "--ca-cert=",
        "apply ",
        "bundle redis ",
        "bundle r d -- ls ",
        "list > ",
    ):
        assert offered(path).files, path
    assert offered("--timeout ") == Offers()
    assert not offered("rmi ").files


@pytest.mark.parametrize("way", ["--root {root} {verb}", "--root={root} {verb}", "{verb} --root {root}"])
def test_names_come_from_the_root_that_the_line_names(root: Path, way: str) -> None:
    """Wherever --root stands, and whatever the environment says."""

    def at(verb: str, current: str) -> list[str]:
        return words(way.format(root=root, verb=verb) + f" {current}")

    for verb in ("rmi", "bundle", "pull", "images", "inspect"):
        assert at(verb, "") == [REDIS, "ghcr.io/a/b:1"], verb
        assert at(verb, "red") == ["redis:7"]
    assert at("inspect", "store:g") == ["store:ghcr.io/a/b:1"]
    assert at("inspect", "st") == ["store:-q", f"store:{REDIS}", "store:ghcr.io/a/b:1"]
    assert at("rmi", "store:") == []
    assert at("rootfs unpack", "red") == ["redis:7"]
    for verb in ("get", "delete", "rm", "label", "path", "list"):
        assert at(verb, "sha256:") == [str(BLOB)], verb
    assert at("label", f"{BLOB} ") == []
    assert at("active", "") == ["half"]
    assert at("rmi", f"{REDIS} gh") == ["ghcr.io/a/b:1"]


def test_a_variable_and_a_home_name_the_root(root: Path) -> None:
    """OCIDIST_ROOT before the program, $NAME with a value, and ~/."""
    opened: list[str | None] = []

    def open_store(named: str | None) -> Store:
        opened.append(named)
        return Store.at(named or "/nonexistent", readonly=True)

    for text in (
        f"OCIDIST_ROOT={root} ocidist rmi g",
        "ocidist --root $R rmi g",
        "ocidist --root ~/root rmi g",
    ):
        found = offers(read(text, {"R": str(root)}), open_store, str(root.parent))
        assert found.words == (("ghcr.io/a/b:1", ""),), text
    assert opened == [str(root)] * 3


def test_snapshots_are_offered(root: Path) -> None:
    """ChainIDs where an image is mounted, what is written in where it is committed, both where it is removed."""
    with Store.at(root) as store:
        store.snapshots.prepare("/mnt/my tree", "")
        made = Digest.of(b"chain")
        store.snapshots.prepare("making", "")
        store.snapshots.commit(str(made), "making")
    assert words("rootfs prepare ", root) == words("rootfs view sha", root) == [str(made)]
    assert words("rootfs commit ", root) == ["/mnt/my tree"]
    assert words("rootfs rm ", root) == ["/mnt/my tree", str(made)]
    assert set(words("path ", root)) == {str(made), str(BLOB)}
    assert offered("rootfs diff ", root).files
    assert offered("rootfs prepare sha256:aa ", root) == Offers(files=True)


def test_without_a_store_nothing_is_offered_and_nothing_is_made(tmp_path: Path) -> None:
    """A root that isn't there, or is no store."""
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        for verb in ("rmi", "get", "active", "rootfs rm", "rootfs prepare"):
            assert words(f"--root {root} {verb} ") == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_i74_a_key_press_waits_for_no_other_process(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that holds the database of names: nothing is offered then."""
    with closing(sqlite3.connect(root / "meta.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        line = f"ocidist --root {root} rmi red"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{line}\0red\0".encode())))
        began = time.monotonic()
        assert main(["completion", "bash", "--offer"]) == 0
        assert time.monotonic() - began < 8  # sqlite3's own patience is 30 s
    assert capsys.readouterr().out == "words\n"
