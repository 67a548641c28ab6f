"""``bundle`` on the command line: its own words and another program's, what it says, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli.main import main
from ocidist.graph.copy import copy_graph
from ocidist.scope import Scope
from ocidist.spec.platform import Platform
from ocidist.stores.store import Store
from tests.parts.images import Entry, TestImage, image, index, small_image
from tests.parts.required import require
from tests.parts.sources import MemorySource

REF = "registry.example/app:1"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program keeps its things, with an image under :data:`REF`."""
    for name in ("OCIDIST_REPLAY", "OCIDIST_PLATFORM", "CONTAINERD_FETCH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "root", app())
    return tmp_path / "root"


def app(**run: Any) -> TestImage:
    return image([[Entry("bin/"), Entry("bin/app", b"x", mode=0o755)]], run={"Cmd": ["/bin/app"], **run})


def put(root: Path, made: TestImage, name: str = REF) -> None:
    source = MemorySource(made)
    with Store.at(root) as store, store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(source, store, source.root, scope, platform="all", workers=0)
        store.tag(name, source.root, scope)


def document(place: str = "b") -> Any:
    return json.loads(Path(place, "config.json").read_bytes())


def test_it_prints_the_path_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Bare for scripts, an object with ``--format json``; global options go behind the command too."""
    assert main(["bundle", REF, "b", "--platform", "linux/amd64"]) == 0
    assert capsys.readouterr().out == "b\n"
    assert main(["bundle", f"store:{REF}", "./c", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "./c"}
    assert document()["process"]["args"] == ["/bin/app"]


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (
            ["--", "sh", "-c", "a b", "--", "--help", "--root", "-u"],
            ["sh", "-c", "a b", "--", "--help", "--root", "-u"],
        ),
        (["--"], None),
        (["--entrypoint", "/bin/sh", "--", "-x"], ["/bin/sh", "-x"]),
        (["--entrypoint", "", "--", "-x"], ["-x"]),
    ],
)
def test_words_behind_two_dashes_are_not_ours(
    words: list[str], args: list[str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """They reach the program as they are, options of the same name and further dashes included."""
    code = main(["bundle", REF, "b", *words])
    if args is None:  # an image with a Cmd alone, and nothing in its place
        assert code == 1
        assert "write one behind --" in capsys.readouterr().err
    else:
        assert code == 0
        assert document()["process"]["args"] == args


def test_u_is_the_account_behind_the_command_and_credentials_before_it() -> None:
    """A password never becomes a group."""
    assert main(["-u", "alice:secret", "bundle", REF, "b", "-u", "7:8"]) == 0
    assert (document()["process"]["user"]["uid"], document()["process"]["user"]["gid"]) == (7, 8)
    assert main(["--user", "alice:secret", "bundle", REF, "c"]) == 0
    assert document("c")["process"]["user"]["uid"] == 0


def test_options_reach_the_document(tmp_path: Path) -> None:
    """Each of them."""
    words = ["--env", "A=b=c", "--env", "D=", "--read-only", "--network", "host", "-t", "--annotation", "x=y"]
    assert main(["bundle", REF, "b", *words, "--mount", "src=.,dst=/here,ro"]) == 0
    made = document()
    assert made["process"]["env"][1:] == ["A=b=c", "D=", "TERM=xterm"]
    assert made["process"]["terminal"] is True
    assert made["root"]["readonly"] is True
    assert made["annotations"]["x"] == "y"
    assert {"type": "network"} not in made["linux"]["namespaces"]
    assert made["mounts"][-1]["source"] == str(tmp_path)


def test_labels_that_are_left_out_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The specification asks for it; names from outside are shown with escapes."""
    put(root, app(Labels={"run.oci.handler": "x", "a\x1b[31m": "y", "org.opencontainers.image.title": "t"}))
    assert main(["bundle", REF, "b"]) == 0
    said = capsys.readouterr().err
    assert "2 labels of the image are no annotation" in said
    assert "run.oci.handler" in said
    assert "\x1b" not in said
    assert "run.oci.handler" not in document()["annotations"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["registry.example/other:1", "b"],
            1,
            "registry.example/other:1: no image of that name in the store; pull it first",
        ),
        (["sha256:" + "0" * 64, "b"], 1, "pull it first"),
        ([REF, "root"], 1, "root: the directory is not empty"),
        ([REF, "b", "-u", "bob"], 1, "user 'bob'"),
        ([REF, "b", "-u", ""], 2, "an empty user"),
        ([REF, "b", "--env", "A"], 2, "--env 'A': write NAME=VALUE"),
        ([REF, "b", "--mount", "src=/no/such,dst=/x"], 2, "'/no/such' does not exist"),
        ([REF, "b", "--network", "bridge"], 2, "--network"),
        ([REF], 2, "DIR"),
        ([REF, ""], 2, "DIR is empty"),
        ([REF, "b", "sh"], 2, "behind --"),
        ([REF, "b", "--env", "A=\udcff"], 1, "is no UTF-8"),
        ([REF, "b", "--", "\udcff"], 1, "is no UTF-8"),
    ],
)
def test_refusals_are_one_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the thing and the way out; nothing is made."""
    assert main(["bundle", *words]) == code
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = found.err.splitlines()
    assert said in line
    assert not Path("b").exists()


def test_a_platform_that_was_not_pulled_is_asked_for(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an index the content of one image may be here alone."""
    source = MemorySource(index([small_image(platform=each) for each in ("linux/amd64", "linux/arm64")]))
    amd64 = Platform.parse("linux/amd64")
    with Store.at(root) as store, store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(source, store, source.root, scope, platform=amd64, workers=0)
        store.tag(REF, source.root, scope)
    assert main(["bundle", REF, "b", "--platform", "linux/amd64"]) == 0
    capsys.readouterr()  # an ordinary user is warned that it takes root to run it
    assert main(["bundle", REF, "c", "--platform", "linux/arm64"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f"ocidist: {REF}: only linux/amd64 of it is in the store; pull it with --platform linux/arm64"
    )
    assert not Path("c").exists()
    for words in (["inspect", f"store:{REF}"], ["rootfs", "unpack", REF], ["manifest", f"store:{REF}"]):
        assert main(["--platform", "linux/arm64", *words]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == line
    monkeypatch.setattr(Platform, "host", lambda: Platform.parse("linux/arm64"))
    assert main(["inspect", f"store:{REF}"]) == 1
    assert capsys.readouterr().err.strip() == f"{line}, or choose linux/amd64 with --platform"


def test_an_image_for_another_system_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No runtime here runs it."""
    put(root, image([[Entry("x", b"y")]], run={"Cmd": ["x"]}, platform="windows/amd64"))
    assert main(["bundle", REF, "b"]) == 1
    assert "is for windows" in capsys.readouterr().err


def test_a_bundle_that_only_root_can_run_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary user meant ``--rootless``, most likely."""
    from ocidist.cli import bundle

    require("os:geteuid")
    monkeypatch.setattr(bundle, "_is_root", lambda: False)
    assert main(["bundle", REF, "b"]) == 0
    assert "--rootless" in capsys.readouterr().err
    assert main(["bundle", REF, "c", "--rootless"]) == 0
    assert capsys.readouterr().err == ""
