"""What commands say beside their result: what was recorded, which platform it was, where else to look."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocidist.cli import main as cli
from ocidist.cli.main import main
from ocidist.scope import Scope
from ocidist.stores.store import Store

DEMO = "registry.example/demo/shop:1.0"
REMOTE = DEMO.rpartition(":")[0]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of its own, and nothing from the environment."""
    for name in ("OCIDIST_REPLAY", "OCIDIST_PLATFORM", "CONTAINERD_FETCH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, list[str]]:
    """stdout, and the lines on stderr, of a run from the demo."""
    assert main(["--cassette", "demo", "--progress", "none", *words]) == code
    found = capsys.readouterr()
    return found.out, found.err.splitlines()


# --- --record and --trace ---------------------------------------------------------------------------------------


def test_what_was_recorded_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of exchanges and the file; of the blobs beside it only where there are any."""
    small, whole = tmp_path / "small.json", tmp_path / "new" / "lesson.json"
    whole.parent.mkdir()
    _, (line,) = run(capsys, "resolve", DEMO, "--record", str(small))
    number = len(json.loads(small.read_text())["exchanges"])
    assert line.startswith(f"ocidist: recorded {number} exchange")
    assert line.endswith(f" in {small}")
    _, (line,) = run(capsys, "fetch", DEMO, "--record", str(whole))
    number = len(json.loads(whole.read_text())["exchanges"])
    assert (whole.parent / "blobs").is_dir()
    assert line == f"ocidist: recorded {number} exchanges in {whole}; large bodies are in blobs/ beside it"
    run(capsys, "resolve", DEMO, "--record", str(whole.with_name("other.json")))


def test_a_recording_without_what_was_here_already_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It can't be replayed into an empty store; one made with a new root can."""
    part, whole, fresh = tmp_path / "part.json", tmp_path / "whole.json", str(tmp_path / "fresh")
    run(capsys, "pull", DEMO)
    with Store.at(tmp_path / "root") as store:
        count = len(store.blobs)
    _, (lacking, line) = run(capsys, "pull", DEMO, "--record", str(part))
    found = f"ocidist: {count - 1} blobs were in the store already, which this recording lacks"
    assert lacking == f"{found}; with a new --root it has all"
    assert line.startswith("ocidist: recorded ")
    run(capsys, "--root", fresh, "--cassette", str(part), "pull", DEMO, code=1)
    _, (line,) = run(capsys, "--root", str(tmp_path / "other"), "pull", DEMO, "--record", str(whole))
    assert line.startswith("ocidist: recorded ")
    run(capsys, "--root", fresh, "--cassette", str(whole), "pull", DEMO)


def test_a_recording_is_not_recorded_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that holds one is refused before the network is used; in a folder each run has a file of its own."""
    one, folder = tmp_path / "one.json", tmp_path / "lesson"
    one.write_text('{"format": "ocidist-cassette/1", "exchanges": []}')
    run(capsys, "resolve", DEMO, "--record", str(one))
    before = one.read_bytes()
    _, (line,) = run(capsys, "tags", "registry.example/demo/shop", "--record", str(one), code=2)
    assert "exchanges; remove it, or name a folder: each run adds a file there" in line
    assert one.read_bytes() == before
    for _ in range(3):
        run(capsys, "tags", "registry.example/demo/shop", "--record", str(folder))
    run(capsys, "resolve", DEMO, "--record", str(folder))
    names = ["recording.json", "recording002.json", "recording003.json", "recording004.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert main(["--cassette", str(folder), "resolve", DEMO]) == 0
    assert main(["--cassette", str(folder), "tags", "registry.example/demo/shop"]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--trace", "t.txt"], ".har or in .jsonl"),
        (["--trace", "har"], ".har or in .jsonl"),
        (["--trace", "folder.har"], "it is a folder"),
        (["--record", "notes.txt"], "a cassette's name ends in .json"),
        (["--record", "package.json"], "no cassette"),
        (["--record", "other.json"], "no cassette"),
        (["--record", "folder.json"], "it is a folder"),
    ],
    ids=lambda found: " ".join(found) if isinstance(found, list) else "",
)
def test_a_recording_that_cant_be_meant_is_refused_at_once(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A usage error, before a request is sent; what is there stays as it is."""
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    Path("package.json").write_text('{"name": "mine"}')
    Path("other.json").write_text("mine")
    Path("folder.har").mkdir()
    Path("folder.json").mkdir()
    before = sorted((path.name, path.is_file() and path.read_text()) for path in tmp_path.iterdir())
    out, (line,) = run(capsys, "pull", DEMO, *words, code=2)
    assert out == ""
    assert says in line
    assert sorted((path.name, path.is_file() and path.read_text()) for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("words", [["--record", "file/c.json"], ["--trace", "file/t.har"]])
def test_a_recording_that_cant_be_written_is_refused_at_once(
    words: list[str],
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line and 1, with nothing fetched."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    out, (line,) = run(capsys, "pull", DEMO, *words, code=1)
    assert out == ""
    assert "directory" in line or "exists" in line
    assert not root.exists()


# --- platforms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_an_image_of_another_platform_is_said_to_be_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    """pull, fetch and inspect of a single image: where none was asked for it is said, else it is an error."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine=machine), raising=False)
    index = json.loads(run(capsys, "manifest", DEMO)[0])
    digest = next(
        item["digest"] for item in index["manifests"] if item["platform"]["architecture"] == "amd64"
    )
    ref = f"{REMOTE}@{digest}"
    said = [f"ocidist: {ref}: it is for linux/amd64, and this machine runs linux/arm64"]
    for command in ("inspect", "fetch", "pull"):
        out, lines = run(capsys, command, ref, "--platform", "linux/arm64", code=1)
        assert (out, lines) == (
            "",
            [f"ocidist: {ref}: no image for linux/arm64; the image is for linux/amd64"],
        )
        assert run(capsys, command, ref, "--platform", "linux/amd64")[1] == []
        assert run(capsys, command, DEMO, "--platform", "linux/arm64")[1] == []
        out, lines = run(capsys, command, ref)
        assert out
        assert lines == (said if machine == "aarch64" else [])


def test_a_pull_of_all_platforms_says_which_it_unpacked(capsys: pytest.CaptureFixture[str]) -> None:
    """The chain ID that is printed is of one of them."""
    out, (line,) = run(capsys, "pull", DEMO, "--platform", "all")
    assert len(out.split()) == 3
    chosen = json.loads(run(capsys, "inspect", DEMO, "--format", "json")[0])
    assert chosen["chain_id"] == out.split()[2]
    assert line.startswith(f"ocidist: unpacked {chosen['platform']}; ")


# --- where things are -------------------------------------------------------------------------------------------


def test_path_finds_a_tree_by_its_chain_id(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside blobs; a digest that is neither is an error."""
    _, digest, chain = run(capsys, "pull", DEMO, "--platform", "linux/amd64")[0].split()
    lines = run(capsys, "path", digest, chain)[0].splitlines()
    assert [line.split()[0] for line in lines] == [digest, chain]
    blob, tree = (Path(line.split(" ", 1)[1]) for line in lines)
    assert blob.is_file()
    assert (tree / "etc/os-release").is_file()
    rows = json.loads(run(capsys, "path", chain, "--format", "json")[0])
    assert rows == [{"digest": chain, "path": str(tree)}]
    out, (line,) = run(capsys, "path", "sha256:" + "0" * 64, code=1)
    assert (out, "neither a blob nor an unpacked tree" in line) == ("", True)


@pytest.mark.parametrize("command", ["resolve", "manifest", "inspect"])
def test_what_the_store_has_is_said_where_the_registry_is_away(
    command: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way out is in the error's line, and works; where the store has nothing, none is promised."""
    run(capsys, "pull", DEMO)
    unknown = f"{REMOTE}:away"
    _, (line,) = run(capsys, command, unknown, code=1)
    assert "store:" not in line
    with Store.at(root) as store:
        scope = Scope()
        store.tag(unknown, store.resolve(DEMO, scope)[0], scope)
    out, (line,) = run(capsys, command, unknown, code=1)
    assert out == ""
    assert line.endswith(f"; the store has it: store:{unknown}")
    assert run(capsys, command, f"store:{unknown}")[0]


@pytest.mark.parametrize("command", [["images"], ["images", "-q"], ["du"]])
def test_the_names_of_containerds_root_are_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Nothing is listed, and stderr says why; of a root of ours nothing is said. gc guesses nothing there."""
    root = tmp_path / "containerd"
    (root / "io.containerd.content.v1.content" / "blobs" / "sha256").mkdir(parents=True)
    _, (line,) = run(capsys, "--root", str(root), *command)
    assert "containerd's: it keeps the names of images in a bolt database of its own" in line
    assert "ctr images ls" in line
    assert run(capsys, *command)[1] == []
    for words in (["gc"], ["gc", "--dry-run"]):
        assert "owned by containerd" in run(capsys, "--root", str(root), *words, code=1)[1][0]


@pytest.mark.parametrize(
    ("end", "code"), [(KeyboardInterrupt, 130), (cli._Signalled("terminated", 143), 143)]
)
def test_a_signal_while_a_module_makes_a_class_ends_as_any_other(
    end: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before Python 3.12 it comes wrapped in a RuntimeError: a traceback, and 1."""

    class Ending:
        def __set_name__(self, owner: type, name: str) -> None:
            raise end

    def importing(words: list[str]) -> int:
        type("Made", (), {"at": Ending()})
        return 0

    monkeypatch.setattr(cli, "_run", importing)
    assert main(["list"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
