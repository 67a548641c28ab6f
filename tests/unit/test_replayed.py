"""A replay changes nothing real: no name, no credential, no helper, no waiting."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

import ocidist
from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.errors import StoreError, UsageError
from ocidist.net import replay as replays
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.required import require

CASSETTES = Path(__file__).resolve().parents[2] / "cassettes"
DEMO = "registry.example/demo/shop:1.0"
OTHER = b"something else"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a credential helper that tells when it is run, and a proxy that nobody answers at."""
    found = tmp_path / "home"
    (found / ".docker").mkdir(parents=True)
    (found / ".docker/config.json").write_text(json.dumps({"credsStore": "tells"}))
    (found / "bin").mkdir()
    helper = found / "bin/docker-credential-tells"
    helper.write_text(f'#!/bin/sh\necho $1 >> {found}/ran\necho \'{{"Username":"real","Secret":"real"}}\'\n')
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    for name in ("OCIDIST_REPLAY", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(found))
    monkeypatch.setenv("PATH", f"{found}/bin{os.pathsep}{os.environ.get('PATH', '')}")
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    return found


def images(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What ``images`` prints."""
    capsys.readouterr()
    assert main(["images", *options]) == 0
    return capsys.readouterr().out


def test_i83_a_replayed_pull_marks_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    """``images`` shows the mark, and shows no column for it where there is none."""
    assert main(["--cassette", "demo", "pull", DEMO]) == 0
    (row,) = [json.loads(line) for line in images(capsys, "--format", "jsonl").splitlines()]
    assert (row["ref"], row["replayed"]) == (DEMO, "demo")
    head, line = images(capsys).splitlines()
    assert head.split()[-1] == "REPLAYED"
    assert line.split()[-1] == "demo"
    store = Store.at()
    store.tag(DEMO, store.get_image(DEMO), Scope())
    assert "REPLAYED" not in images(capsys)
    assert ocidist.Client().store.images[0].replayed == ""


def test_i83_a_replayed_pull_takes_no_name_that_was_pulled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither where the name stands for other content, nor, with its mark, where it stands for the same."""
    store = Store.at()
    target = Descriptor("application/octet-stream", Digest.of(OTHER), len(OTHER))
    with store.ingest("other") as writer:
        writer.write(OTHER)
        writer.commit(target.size, target.digest)
    store.tag(DEMO, target, Scope())
    assert main(["--cassette", "demo", "pull", DEMO]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "was pulled from its registry and stands for other content; replay into another store" in said
    assert store.get_image(DEMO).digest == target.digest
    with pytest.raises(StoreError, match="--root"):
        Client(transport=replays.load_demo(), store=store).pull(DEMO)

    root = str(tmp_path / "other")
    client = Client(transport=replays.load_demo(), store=root)
    client.store.tag(DEMO, client.pull(DEMO).descriptor, Scope())
    assert client.pull(DEMO).reference == DEMO
    assert [row.replayed for row in client.store.images] == [""], "it is what was pulled"


@pytest.mark.parametrize("path", [".", "./", "../here"])
def test_i83_a_cassette_in_the_working_directory_marks_the_name(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its path has no name of its own; without a mark it would take the names that were pulled."""
    shutil.copytree(CASSETTES, tmp_path / "here")
    for other in (tmp_path / "here").glob("*.json"):
        if other.name != "first-pull.json":
            other.unlink()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["--cassette", path, "pull", "registry.example/demo/shop:1.0"]) == 0
    capsys.readouterr()
    assert main(["--format", "json", "images"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["replayed"] == ("here" if "here" in path else "cassette")


@pytest.mark.parametrize("option", ["--cassette", "--record", "--trace"])
def test_i83_an_empty_path_is_not_the_network(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A variable of a script that is not set: who wants a replay does not want the registry."""
    assert main([option, "", "pull", "registry.example/demo/shop:1.0"]) == 2
    assert "the path is empty" in capsys.readouterr().err


@pytest.mark.parametrize("cassette", ["token-auth", "identity-token", "basic-auth"])
def test_i83_a_replay_reads_no_credentials_and_runs_no_helper(
    cassette: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was recorded with credentials replays without any."""
    require("processes")
    path = str(CASSETTES / f"{cassette}.json")
    exchanges = json.loads(Path(path).read_text())["exchanges"]
    repository = exchanges[0]["request"]["url"].partition("/v2/")[2].partition("/manifests/")[0]
    assert main(["--cassette", path, "resolve", f"registry.example/{repository}:1.0"]) == 0
    assert not (home / "ran").exists()


def test_i83_a_replay_waits_for_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Retry-After is told, and not waited out: neither by the program nor in a notebook."""
    document = json.loads((CASSETTES / "rate-limited.json").read_text())
    for exchange in document["exchanges"]:
        if "Retry-After" in exchange["response"]["headers"]:
            exchange["response"]["headers"]["Retry-After"] = "50"
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    slept: list[float] = []
    monkeypatch.setattr("ocidist.scope.Scope.sleep", lambda scope, seconds: slept.append(seconds))
    assert main(["--cassette", str(path), "resolve", DEMO]) == 0
    assert "trying again in 50.0 s" in capsys.readouterr().err
    Client(transport=replays.find(path)).resolve(DEMO)
    client = Client(transport=replays.find(path))
    client.record()
    client.resolve(DEMO)
    assert len(slept) == 3
    assert not any(slept)


@pytest.mark.parametrize("words", [["login", "-u", "bob:secret-of-bob", "registry.example"], ["logout", "registry.example"]])  # fmt: skip
def test_i83_a_replay_changes_no_credentials(
    words: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """login and logout say so."""
    before = (home / ".docker/config.json").read_text()
    assert main(["--cassette", str(CASSETTES / "basic-auth.json"), *words]) == 2
    assert "no credentials are changed while a cassette is replayed" in capsys.readouterr().err
    assert (home / ".docker/config.json").read_text() == before
    assert not (home / "ran").exists()
    with pytest.raises(UsageError, match="replayed"):
        Client(transport=replays.load_demo()).logout("registry.example")
