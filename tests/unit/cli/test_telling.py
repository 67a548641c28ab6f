"""What a transfer is called when it was there, was ended, or is told in JSON."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.net import replay as replays
from ocidist.notebook.live import Live
from ocidist.progress import Advanced, Event, Failed, Finished, Named, ProgressState, Queued
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.terminal.bars import INTERVAL, Bars, Json, Plain
from ocidist.view.progress import lines, status
from ocidist.view.progress_html import progress_html

DEMO = "registry.example/demo/shop:1.0"
CASSETTES = Path(__file__).resolve().parents[3] / "cassettes"
LAYERS = [
    Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(bytes([number])), 10_000)
    for number in range(3)
]


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OCIDIST_REPLAY", "OCIDIST_PLATFORM", "CONTAINERD_FETCH_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))


def statuses(client: Client) -> list[str]:
    """How each layer ended in a pull."""
    state = ProgressState()

    def observe(event: Event) -> None:
        nonlocal state
        state = state.apply(event)

    client.pull(DEMO, scope=Scope(observer=observe))
    return [row.status for row in state.rows.values() if "layer" in row.media_type]


def test_a_repeated_pull_says_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the program in words and in JSON, and in the rows that a notebook shows; "unpacked" is what was unpacked."""
    client = Client(transport=replays.load_demo(), store=tmp_path / "other", workers=0)
    assert set(statuses(client)) == {"unpacked"}
    assert set(statuses(client)) == {"exists"}
    pull = ["--cassette", "demo", "pull", DEMO, "--progress"]
    assert main([*pull, "plain"]) == 0
    assert "unpacked" in capsys.readouterr().err
    assert main([*pull, "plain"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("layer-")]
    assert said
    assert len({line.partition(":")[2] for line in said}) == len(said), "each once"
    assert all(": exists, " in line for line in said)
    assert main([*pull, "json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {event["outcome"] for event in found if event["event"] == "finished"} == {"exists"}


def test_a_blob_that_was_fetched_for_a_tree_that_exists_is_fetched() -> None:
    """What was done is what is said."""
    state = ProgressState()
    for outcome in ("copied", "exists"):
        state = state.apply(Queued(LAYERS[0])).apply(Finished(LAYERS[0].digest, outcome, "fetch"))
        state = state.apply(Finished(LAYERS[0].digest, "exists", "unpack"))
        assert state.rows[LAYERS[0].digest].status == {"copied": "fetched", "exists": "exists"}[outcome]


# -- interrupted ---------------------------------------------------------------------------------------


def under_way(observe: Any) -> None:
    """One layer is here, one half, one is queued."""
    for event in (
        Named(DEMO),
        *map(Queued, LAYERS),
        Finished(LAYERS[0].digest, "copied"),
        Advanced(LAYERS[1].digest, "fetch", 5_000, 10_000),
    ):
        observe(event)


def test_an_interrupted_transfer_is_not_called_failed() -> None:
    """Neither the whole nor its parts, in text and in HTML; what is here counts."""
    state = ProgressState()

    def observe(event: Event) -> None:
        nonlocal state
        state = state.apply(event)

    under_way(observe)
    observe(Failed(None, "interrupted", True))
    assert status(state) == "interrupted"
    assert [row.status for row in state.rows.values()] == ["fetched", "stopped", "queued"]
    assert state.done == 15_000
    for columns in (20, 30, 60, 80, 200):
        shown = lines(state, columns, 20, 1.0)
        assert all(len(line) <= columns for line in shown)
        assert "failed" not in "".join(shown)
    assert "interrupted" in "".join(lines(state, 80, 20, 1.0))
    assert "failed" not in progress_html(state, 1.0, "pull", "interrupted")


@pytest.mark.parametrize("mode", ["bar", "plain", "json", "none"])
def test_ctrl_c_says_interrupted(
    mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last picture and the last line; exit 130."""

    def pull(client: Client, locator: str, *, platform: Any = None, scope: Scope) -> None:
        assert scope.observer is not None
        under_way(scope.observer)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "pull", pull)
    assert main(["--cassette", "demo", "--progress", mode, "pull", DEMO]) == 130
    said = capsys.readouterr().err
    assert "interrupted; run it again to go on" in said.splitlines()[-1]
    if mode == "json":
        last = [json.loads(line) for line in said.splitlines()][-3:]
        assert [event["event"] for event in last] == ["failed", "ended", "interrupted"]
        assert (last[0]["interrupted"], last[1]["error"], last[2]["code"]) == (True, "interrupted", 130)
    else:
        assert "failed" not in said


def test_ctrl_c_in_a_notebook_says_interrupted() -> None:
    """In the table that stays in a saved notebook; a failure is still one."""
    for error, word in ((KeyboardInterrupt(), "interrupted"), (ValueError("x"), "failed")):
        display = Live("pull")
        under_way(display.observe)
        display.__exit__(type(error), error, None)
        assert status(display.state) == word
        for text in (repr(display), display._repr_html_()):
            assert word in text
            assert ("failed" in text) == (word == "failed")


# -- JSON ----------------------------------------------------------------------------------------------


class Sink:
    """A stream that keeps lines."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing."""

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_json_progress_is_throttled() -> None:
    """Ten lines a second for each descriptor, and always the last before what comes after."""
    now, sink = 0.0, Sink()
    painter = Json(sink, clock=lambda: now)  # type: ignore[arg-type]
    for layer in LAYERS:
        painter.observe(Queued(layer))
    for step in range(1, 2001):
        now = step / 1000
        for layer in LAYERS[:2]:
            painter.observe(Advanced(layer.digest, "fetch", step, 2000))
        if step % 7 == 0:
            painter.tick()
    painter.observe(Finished(LAYERS[0].digest, "copied"))
    painter.observe(Advanced(LAYERS[0].digest, "unpack", 1, 2000))
    painter.final()
    found = sink.objects()
    for layer in LAYERS[:2]:
        told = [
            e
            for e in found
            if e["event"] == "advanced" and e["digest"] == layer.digest and e["phase"] == "fetch"
        ]
        assert 10 <= len(told) <= 2 / INTERVAL + 2
        assert told[-1]["done"] == 2000
        assert [e["done"] for e in told] == sorted(e["done"] for e in told)
    of_first = [(e["event"], e.get("phase")) for e in found if e.get("digest") == LAYERS[0].digest]
    assert of_first[-3:] == [("advanced", "fetch"), ("finished", "fetch"), ("advanced", "unpack")]
    assert found[-1]["event"] == "ended"


def test_json_progress_of_a_transfer_that_stands_still_is_up_to_date() -> None:
    """What was held back is said at a later tick, though nothing more comes."""
    now, sink = 0.0, Sink()
    painter = Json(sink, clock=lambda: now)  # type: ignore[arg-type]
    painter.observe(Queued(LAYERS[0]))
    painter.observe(Advanced(LAYERS[0].digest, "fetch", 1, 9))
    painter.observe(Advanced(LAYERS[0].digest, "fetch", 2, 9))
    painter.tick()
    now = 2 * INTERVAL
    painter.tick()
    assert [e["done"] for e in sink.objects() if e["event"] == "advanced"] == [1, 2]


RUNS = {
    "a pull": (["--cassette", "demo", "pull", DEMO], 0),
    "an error": (["--cassette", "demo", "pull", "registry.example/no\u202e/x:1"], 1),
    "not recorded": (["--cassette", "demo", "pull", "registry.example/demo/other:1"], 1),
    "usage": (["pull"], 2),
    "an unknown option": (["pull", "--nonsense", DEMO], 2),
    "an unknown command": (["frobnicate"], 2),
    "a warning": (["rmi", "registry.example/no/such:1"], 0),
    "a retry": (["--cassette", str(CASSETTES / "rate-limited.json"), "resolve", DEMO], 0),
    "a collection": (["gc"], 0),
    "debug": (["--cassette", "demo", "--debug", "pull", DEMO], 0),
}


@pytest.mark.parametrize("run", list(RUNS))
@pytest.mark.parametrize("option", [["--progress", "json"], ["--progress=json"]])
def test_json_progress_is_all_json(run: str, option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each line on stderr is an object: progress, warnings, logs, and the error that ends it, with its code."""
    words, code = RUNS[run]
    root = logging.getLogger()
    kept, root.handlers, level = root.handlers, [], root.level
    try:
        found = main([*option, *words])
        logging.getLogger("ocidist.x").warning("a line\nand another")
    finally:
        root.handlers = kept
        root.setLevel(level)
    said = [
        json.loads(line)
        for line in capsys.readouterr().err.splitlines()
        if line != "a line" and line != "and another"
    ]
    assert found == code
    assert all(isinstance(each, dict) and each["event"] for each in said)
    if found:
        assert said[-1]["event"] == "error"
        assert said[-1]["code"] == found
    elif run == "a retry":
        assert "trying again in" in said[0]["text"]
    assert main(["frobnicate"]) == 2
    assert capsys.readouterr().err.startswith("ocidist: "), "it holds for one run"


def test_the_other_painters_take_an_interrupt() -> None:
    """Bars and plain lines."""
    for kind in (Bars, Plain):
        sink = Sink()
        painter = kind(sink)  # type: ignore[arg-type]
        under_way(painter.observe)
        painter.observe(Failed(None, "interrupted", True))
        painter.final()
        assert "failed" not in sink.text
