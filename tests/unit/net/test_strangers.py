"""Cassettes that come from somebody else: what they may make of files, memory and time."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.cli.main import main
from ocidist.errors import DeadlineExceeded, OcidistError, StoreError, TransportError
from ocidist.net.cassette import LIMIT
from ocidist.net.message import Request
from ocidist.net.recording import Recorder
from ocidist.net.replay import ReplayTransport
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from tests.parts.required import require
from tests.parts.scripted import ScriptedResponse, ScriptedTransport

URL = "https://registry.example/v2/demo/shop/blobs/x"
BODY = bytes(range(256)) * 512


def cassette(folder: Path, **body: Any) -> Path:
    """A cassette with one exchange, whose body is a sidecar of BODY if nothing else is said."""
    found = body or {"digest": str(Digest.of(BODY)), "size": len(BODY)}
    exchange = {"request": {"method": "GET", "url": URL}, "response": {"status": 200, "body": found}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "x.json"
    path.write_text(json.dumps({"format": "ocidist-cassette/1", "exchanges": [exchange]}))
    return path


def sidecar(folder: Path) -> Path:
    """Where BODY is to lie; its folders are made."""
    path = folder / "blobs/sha256" / Digest.of(BODY).hex
    path.parent.mkdir(parents=True)
    return path


def in_time(action: Callable[[], object]) -> None:
    """Run it in a thread, for it may block for ever: that is the failure."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - handed on below
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "it waits for ever"
    if caught:
        raise caught[0]


def make_socket(path: Path) -> None:
    """A socket with a name: made elsewhere, since names of sockets are short."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], object]] = {
    "fifo": lambda path: os.mkfifo(path),
    "socket": make_socket,
    "directory": lambda path: path.mkdir(),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_i82_a_sidecar_is_a_regular_file(kind: str, tmp_path: Path) -> None:
    """Anything else is an error that names it, at once."""
    require("os:mkfifo", "threads")
    path = cassette(tmp_path / "c")
    KINDS[kind](sidecar(tmp_path / "c"))

    def read() -> None:
        ReplayTransport.load(path).send(Request("GET", URL), Scope()).read(1 << 20)

    with pytest.raises(
        TransportError, match=r"recorded body: .*: (a|an) .*, not a regular file|No such file"
    ):
        in_time(read)


@pytest.mark.parametrize("part", ["file", "sha256", "blobs"])
def test_i82_a_sidecar_lies_in_the_folder(part: str, tmp_path: Path) -> None:
    """No link leads out of it, also where the bytes there are right."""
    require("os:symlink")
    path = cassette(tmp_path / "c")
    real = sidecar(tmp_path / "elsewhere")
    real.write_bytes(BODY)
    link = {
        "file": sidecar(tmp_path / "c"),
        "sha256": tmp_path / "c/blobs/sha256",
        "blobs": tmp_path / "c/blobs",
    }[part]
    if part != "file":
        real = real.parent if part == "sha256" else real.parent.parent
        for folder in (tmp_path / "c/blobs/sha256", tmp_path / "c/blobs"):
            if folder == link or part == "blobs":
                folder.rmdir()
    link.symlink_to(real)
    with pytest.raises(TransportError, match="a link"):
        ReplayTransport.load(path).send(Request("GET", URL), Scope()).read(1 << 20)


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "../..:x", "a+b:../x", "sha256:" + "a" * 63 + "/"]
)
def test_i82_a_sidecars_name_leaves_no_folder(digest: str, tmp_path: Path) -> None:
    """A digest is one before it is a path."""
    path = cassette(tmp_path / "c", digest=digest, size=3)
    with pytest.raises(TransportError, match="invalid digest"):
        ReplayTransport.load(path)


def test_i82_a_sidecar_that_goes_on_and_on_is_cut_off(tmp_path: Path) -> None:
    """It is read to the size that the cassette says, and the hashing of a giant one ends with the time limit."""
    require("kernel")
    path = cassette(tmp_path / "c")
    with open(sidecar(tmp_path / "c"), "wb") as file:
        file.truncate(1 << 40)
    request = Request("GET", URL)
    with pytest.raises(TransportError, match="more than"):
        in_time(lambda: ReplayTransport.load(path).send(request, Scope()).read(1 << 20))
    path = cassette(tmp_path / "c", digest=str(Digest.of(BODY)), size=1 << 40)
    with pytest.raises(DeadlineExceeded):
        in_time(
            lambda: (
                ReplayTransport.load(path).send(request, Scope.within(0.5)).readinto(memoryview(bytearray(9)))
            )
        )


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("where", ["itself", "in a folder", "by name"])
def test_i82_a_cassette_is_a_regular_file(
    kind: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a path, in a folder beside a good one, and as a name in ``cassettes``: by the program."""
    require("os:mkfifo", "threads")
    (tmp_path / "cassettes").mkdir()
    monkeypatch.chdir(tmp_path)
    KINDS[kind](tmp_path / "cassettes/b.json")
    (tmp_path / "cassettes/a.json").write_text('{"format": "ocidist-cassette/1", "exchanges": []}')
    name = {"itself": "cassettes/b.json", "in a folder": "cassettes", "by name": "b"}[where]
    codes: list[int] = []
    root = str(tmp_path / "root")
    in_time(lambda: codes.append(main(["--root", root, "--cassette", name, "tags", "registry.example/x"])))
    assert codes == [1]
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "b.json" in said or "no such" in said.lower() or "folder without" in said


def test_i82_a_recording_writes_through_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies where it writes: under the names it used to take for a while, its own, and those of its folders."""
    require("os:symlink")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder, there = tmp_path / "c", tmp_path / "there"
    there.mkdir()
    name = Digest.of(BODY).hex
    for link in (
        "x.json",
        f".x.json.{os.getpid()}.tmp",
        "x.har",
        "x.jsonl",
        f"blobs/sha256/{name}.{os.getpid()}.tmp",
    ):
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        (folder / link).symlink_to(victim)
    recorder = Recorder(ScriptedTransport([ScriptedResponse(200, BODY)]))
    response = recorder.send(Request("GET", URL), Scope())
    while response.readinto(memoryview(bytearray(1 << 16))):
        pass
    response.close()
    recorder.save_cassette(folder / "x.json")
    recorder.trace.to_har(folder / "x.har")
    recorder.trace.to_jsonl(folder / "x.jsonl")
    assert victim.read_text() == "mine"
    assert not any((folder / name).is_symlink() for name in ("x.json", "x.har", "x.jsonl"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/blobs").symlink_to(there)
    with pytest.raises(StoreError, match="a link leads out of the cassette's folder"):
        recorder.save_cassette(tmp_path / "d/x.json")
    assert not [path for path in there.rglob("*") if path.is_file()]
    recorder.close()


HOSTILE = {
    "large": lambda: b"[" + b" " * LIMIT + b"]",
    "many values": lambda: b"[" + b"{}," * 3_000_000 + b"{}]",
    "deep": lambda: b"[" * 100_000 + b"]" * 100_000,
    "long number": lambda: b'{"format": ' + b"9" * 1_000_000 + b"}",
    "not UTF-8": lambda: b'{"format": "\xff"}',
    "infinite": lambda: (
        b'{"format": "ocidist-cassette/1", "exchanges": [{"request": {"method": "GET", "url": "a"}, "response": {"status": 200}, "offset": Infinity}]}'
    ),
    "half a pair": lambda: (
        b'{"format": "ocidist-cassette/1", "exchanges": [{"request": {"method": "GET", "url": "a"}, "response": {"status": 200, "body": {"text": "\\ud800"}}}]}'
    ),
    "a number as reason": lambda: (
        b'{"format": "ocidist-cassette/1", "exchanges": [{"request": {"method": "GET", "url": "a"}, "response": {"status": 200, "reason": 7}}]}'
    ),
    "negative size": lambda: (
        b'{"format": "ocidist-cassette/1", "exchanges": [{"request": {"method": "GET", "url": "a"}, "response": {"status": 200, "body": {"digest": "sha256:00", "size": -1}}}]}'
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_i82_hostile_json_is_one_error(name: str, tmp_path: Path) -> None:
    """No other exception, and no gigabytes."""
    import tracemalloc

    path = tmp_path / "x.json"
    path.write_bytes(HOSTILE[name]())
    tracemalloc.start()
    try:
        with pytest.raises(OcidistError, match=r"x\.json: (not a cassette|exchange 1)"):
            ReplayTransport.load(path)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_i82_a_folder_of_many_cassettes_has_one_limit(tmp_path: Path) -> None:
    """Not each of a thousand its own."""
    for number in range(3):
        (tmp_path / f"{number}.json").write_bytes(b" " * (LIMIT // 2))
    with pytest.raises(TransportError, match="larger than the 32 MiB limit"):
        ReplayTransport.load(tmp_path)


def test_i82_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    """Whoever types its name means it; its sidecars are where the link is."""
    require("os:symlink")
    path = cassette(tmp_path / "c", text="abc")
    (tmp_path / "link.json").symlink_to(path)
    assert ReplayTransport.load(tmp_path / "link.json").send(Request("GET", URL), Scope()).read(9) == b"abc"
