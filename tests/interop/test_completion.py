"""Completion in bash, zsh and fish themselves, on a terminal: what a Tab puts into the line, and what it never runs."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require
from tests.parts.shells import Shell

# Names that only a remote of another kind, or another program's store, can have.
HOSTILE = (
    "$(touch ran)",
    "`touch ran`",
    "a;touch ran",
    "a|touch ran",
    "a&touch ran",
    "a>ran",
    "a:b:$(touch ran)",
    "two words",
    "it's",
    'quo"te',
    "back\\slash",
    "$HOME",
    "*",
    "[x]",
    "{a,b}",
    "=ls",
    "!!",
    "#comment",
    "%1",
    "ü-ö",
)
# They stay out: control characters, and what a program takes for an option. Tildes, which fish doesn't quote, there.
LEFT_OUT = ("new\nline", "\x1b]0;title\x07", "-rf", "--help")
TILDES = ("~", "~root")


def store_with(root: Path, *names: str) -> Digest:
    """A store with one small blob, which each of the names stands for; its digest."""
    raw = b"{}"
    digest = Digest.of(raw)
    with Store.at(root) as store:
        with store.ingest("put", total=len(raw), expected=digest) as writer:
            writer.write(raw)
            writer.commit(len(raw), digest)
        target = Descriptor("application/vnd.oci.image.manifest.v1+json", digest, len(raw))
        for name in names:
            store.names.put(name, target)
    return digest


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """The shell, with the script loaded."""
    require(request.param)
    with Shell(request.param, tmp_path / request.param) as shell:
        yield shell


def test_i78_no_name_is_evaluated_by_completion(shell: Shell, tmp_path: Path) -> None:
    """Each hostile name, alone in a store, goes into the line as itself, or stays out of it; nothing is run."""
    wrong = []
    for at, name in enumerate((*HOSTILE, *TILDES, *LEFT_OUT)):
        root = tmp_path / f"root-{at}"
        store_with(root, name)
        shell.type(f"export OCIDIST_ROOT={root}\r")
        got = shell.completed("ocidist rmi ")
        out = name in LEFT_OUT or (shell.name == "fish" and name in TILDES)
        if got != ["rmi", *([] if out else [name])]:
            wrong.append((name, got))
    assert list(shell.work.iterdir()) == [], "something was run"
    assert wrong == []


@pytest.mark.parametrize("quote", ["'", '"'])
def test_i78_no_name_is_evaluated_in_an_open_quote(shell: Shell, tmp_path: Path, quote: str) -> None:
    """zsh and fish quote for the quote that is open; bash leaves such names out."""
    for at, name in enumerate(("$(touch ran)", "`touch ran`", "it's", 'quo"te', "two words")):
        root = tmp_path / f"root-{at}"
        store_with(root, name)
        if shell.name == "bash":
            assert shell.completed(f"ocidist --root {root} rmi {quote}", quote)[2:] == ["rmi", ""]
        else:
            assert shell.completed(f"ocidist --root {root} rmi {quote}")[2:] == ["rmi", name]
    assert list(shell.work.iterdir()) == []


def test_a_tab_completes_what_the_line_asks_for(shell: Shell, tmp_path: Path) -> None:
    """Commands, options, values, digests, and names of the root that the line names, in whatever way."""
    one, other = tmp_path / "one", tmp_path / "two words"
    digest = store_with(one, "docker.io/library/redis:7")
    store_with(other, "ghcr.io/a/b:1", "docker.io/library/busybox:latest")
    done = shell.completed
    assert done("ocidist pul") == ["pull"]
    assert done("ocidist help comp") == ["help", "completion"]
    assert done("ocidist rootfs prep") == ["rootfs", "prepare"]
    assert done("ocidist ingest --expected-s") == ["ingest", "--expected-size"]
    assert done("ocidist --format jsonl gc --dr") == ["--format", "jsonl", "gc", "--dry-run"]
    assert done("ocidist --progress pl") == ["--progress", "plain"]
    assert done(f"ocidist --root {one} rmi redis:") == ["--root", str(one), "rmi", "redis:7"]
    assert done(f"ocidist rmi --root={one} docker.io/l")[2:] == ["docker.io/library/redis:7"]
    assert done(f"ocidist --root '{other}' bundle gh")[2:] == ["bundle", "ghcr.io/a/b:1"]
    assert done(f"ocidist --root {one} inspect store:re")[2:] == ["inspect", "store:redis:7"]
    assert done(f"ocidist --root {one} get ")[2:] == ["get", str(digest)]
    assert done(f"ocidist --root {one} get {digest[:13]}")[2:] == ["get", str(digest)]
    assign = f"set root '{other}'" if shell.name == "fish" else f"root='{other}'"
    shell.type(f"{assign}\r")
    assert done('ocidist --root "$root" rmi gh')[2:] == ["rmi", "ghcr.io/a/b:1"]
    if shell.name != "bash":  # whose completion never sees what stands before the program
        assert done(f"OCIDIST_ROOT={one} ocidist rmi r") == ["rmi", "redis:7"]
    (shell.work / "layer.tar").touch()
    assert done(f"ocidist --root {one} rootfs diff -o lay")[-1] == "layer.tar"
    assert done("ocidist -u me:secret --timeout 3s ver")[-1] == "ver"
