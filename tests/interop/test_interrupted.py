"""Ctrl-C, SIGTERM, a kernel's interrupt and --timeout, in every phase of a pull: a quick end, one line, a resume.

How long an end takes is measured while the peer holds still for two minutes, or trickles; of three tries the
quickest counts, since the machine may be busy with other things.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.stores.store import Store
from tests.interop import roots
from tests.parts.images import TestImage
from tests.parts.processes import Program
from tests.parts.required import require

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

AT_ONCE = 0.5  # seconds
ENDS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGHUP, 129, "hung up"),
]
by_signal = pytest.mark.parametrize(("sign", "code", "word"), ENDS, ids=["int", "term", "hup"])


@pytest.fixture(autouse=True)
def signals_as_usual() -> Iterator[None]:
    """A run under ``nohup`` ignores SIGHUP, and what it starts inherits that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Scene:
    """A registry with one image of three layers, the last one of many files."""

    def __init__(self, registry: RegistryProcess, made: TestImage) -> None:
        self.registry, self.front, self.made = registry, registry.front, made
        self.ref = f"{registry.address}/team/app:latest"
        self.layers = [layer["digest"] for layer in made.manifest["layers"]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    require("docker-registry")
    from tests.parts.registry import RegistryProcess

    folder = tmp_path_factory.mktemp("interrupted")
    made = roots.layered("one", "two", "many", files=8_000)
    with RegistryProcess(folder / "registry") as registry:
        roots.load(registry, folder, {"team/app": made})
        yield Scene(registry, made)


@pytest.fixture
def scene(loaded: Scene) -> Iterator[Scene]:
    """Behaving, and counting anew."""
    loaded.front.forget()
    yield loaded
    loaded.front.clear_rules()


def until(test: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for what must come; the process must not have ended before."""
    deadline = time.monotonic() + 60
    while not test():
        assert time.monotonic() < deadline, "it did not come to that"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.002)


def unread(port: int) -> bool:
    """Whether a client of ``port`` has bytes in a socket that it has not read yet (proc(5), /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and int(row[4].partition(":")[2], 16) for row in rows)


def end(process: subprocess.Popen[bytes], sign: int, code: int, word: str) -> float:
    """Send the signal; the process must end with ``code`` and one line. The seconds that it took."""
    begun = time.monotonic()
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    took = time.monotonic() - begun
    assert (process.returncode, out) == (code, b""), err
    assert err.decode() == f"ocidist: {word}; run it again to go on\n"
    return took


def best_of_three(attempt: Callable[[int], float]) -> None:
    """The quickest of at most three ends is at once."""
    took = []
    for number in range(3):
        took.append(attempt(number))
        if took[-1] <= AT_ONCE:
            return
    pytest.fail(f"it took {took} seconds to end")


def quiet(folder: Path, number: int = 0) -> Program:
    return Program(folder / "home", folder / f"root-{number}", options=["--progress", "none"])


def whole(scene: Scene, program: Program) -> None:
    """Run again without disturbance: all is there and nothing is left over."""
    assert program.root is not None
    scene.front.clear_rules()
    line = program.ok("pull", scene.ref).text
    roots.assert_whole(program.root, scene.made)
    assert roots.snapshots(program.root) == [line.split()[2]]


@by_signal
def test_an_end_while_resolving(tmp_path: Path, scene: Scene, sign: int, code: int, word: str) -> None:
    """The registry has taken the request for the manifest and says nothing."""

    def attempt(number: int) -> float:
        gate = scene.front.gate("/manifests/", 0)
        process = quiet(tmp_path, number).start("pull", scene.ref)
        until(gate.reached.is_set, process)
        took = end(process, sign, code, word)
        gate.open()
        return took

    best_of_three(attempt)
    whole(scene, quiet(tmp_path))


def test_an_end_while_connecting(tmp_path: Path, scene: Scene) -> None:
    """A host that takes no connection: its queue is full, and it says nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # what the queue takes, and more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        ref = f"127.0.0.1:{listener.getsockname()[1]}/team/app"

        def attempt(number: int) -> float:
            process = quiet(tmp_path, number).start("pull", ref)
            until(lambda: connecting(listener.getsockname()[1], process.pid), process)
            return end(process, signal.SIGINT, 130, "interrupted")

        best_of_three(attempt)


def connecting(port: int, pid: int) -> bool:
    """Whether the process has a socket that waits for ``port`` to answer (SYN_SENT)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    waiting = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "02"}
    mine = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            mine.add(os.readlink(link))
    return bool(waiting & mine)


@pytest.mark.parametrize("limit", [False, True], ids=["int", "timeout"])
def test_an_end_while_another_holds_the_database(tmp_path: Path, scene: Scene, limit: bool) -> None:
    """Names and leases are locked by a process that stands still: Ctrl-C and the time limit hold there too."""
    program = quiet(tmp_path)
    program.ok("pull", scene.ref)
    with contextlib.closing(sqlite3.connect(tmp_path / "root-0/meta.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")

        def attempt(number: int) -> float:
            scene.front.forget()
            if limit:
                begun = time.monotonic()
                assert program.fails("--timeout", "2s", "pull", scene.ref).startswith(
                    "ocidist: the time limit"
                )
                return time.monotonic() - begun - 2
            process = program.start("pull", scene.ref)
            until(lambda: scene.front.records, process)
            time.sleep(0.2)  # from the manifest to the database
            return end(process, signal.SIGINT, 130, "interrupted")

        best_of_three(attempt)
        other.execute("ROLLBACK")
    whole(scene, program)


@by_signal
def test_an_end_while_fetching_is_resumed_where_it_was(
    tmp_path: Path, scene: Scene, sign: int, code: int, word: str
) -> None:
    """Two layers hang in mid-body; what came of them is kept, and the next run asks for the rest."""
    last = 0

    def attempt(number: int) -> float:
        nonlocal last
        last = number
        gates = [scene.front.gate(digest, 1_000_000 + at) for at, digest in enumerate(scene.layers[:2])]
        process = quiet(tmp_path, number).start("pull", scene.ref)
        until(lambda: all(gate.reached.is_set() for gate in gates), process)
        until(lambda: not unread(scene.front.port), process)
        took = end(process, sign, code, word)
        for gate in gates:
            gate.open()
        return took

    best_of_three(attempt)
    root = tmp_path / f"root-{last}"
    kept = roots.partial(root)
    assert [kept[digest] for digest in scene.layers[:2]] == [1_000_000, 1_000_001], (
        "no byte that came was lost"
    )
    scene.front.clear_rules()
    scene.front.forget()
    whole(scene, quiet(tmp_path, last))
    starts = {
        r.digest: r.start for r in scene.front.records if r.method == "GET" and r.digest in scene.layers[:2]
    }
    assert starts == {digest: kept[digest] for digest in scene.layers[:2]}


def test_an_end_while_waiting_for_another_that_fetches(tmp_path: Path, scene: Scene) -> None:
    """The one who waits for another's ingest ends at once; the other is not disturbed."""
    gate = scene.front.gate(scene.layers[0], 500_000)
    first = quiet(tmp_path).start("pull", scene.ref)
    until(gate.reached.is_set, first)

    def attempt(number: int) -> float:
        second = Program(tmp_path / "home", tmp_path / "root-0", options=["--progress", "json"])
        process = second.start("pull", scene.ref)
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "waiting":
                break
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        took = time.monotonic() - begun
        assert process.returncode == 130
        *_, ended, said = err.decode().splitlines()
        assert json.loads(ended)["error"] == "interrupted"
        assert json.loads(said)["text"] == "interrupted; run it again to go on"
        return took

    best_of_three(attempt)
    gate.open()
    first.communicate(timeout=60)
    assert first.returncode == 0
    roots.assert_whole(tmp_path / "root-0", scene.made)
    assert set(scene.front.downloads().values()) == {1}


def unpacking(root: Path) -> bool:
    """In the middle of the layer of many files."""
    return any((root / "snapshots/native/active").glob("*/*/srv/many/f"))


@by_signal
def test_an_end_while_unpacking(tmp_path: Path, scene: Scene, sign: int, code: int, word: str) -> None:
    """Files are being written: nothing is visible afterwards, and the next run tidies up."""

    def attempt(number: int) -> float:
        program = quiet(tmp_path, number)
        process = program.start("pull", scene.ref)
        until(lambda: unpacking(tmp_path / f"root-{number}"), process)
        took = end(process, sign, code, word)
        assert roots.snapshots(tmp_path / f"root-{number}") == []
        whole(scene, program)
        return took

    best_of_three(attempt)


def test_an_end_while_waiting_for_another_that_unpacks(tmp_path: Path, scene: Scene) -> None:
    """Another process holds the unpack and stands still."""
    first = quiet(tmp_path).start("pull", scene.ref)
    until(lambda: unpacking(tmp_path / "root-0"), first)
    first.send_signal(signal.SIGSTOP)
    try:

        def attempt(number: int) -> float:
            second = quiet(tmp_path).start("--progress", "json", "pull", scene.ref)
            assert second.stderr is not None
            for line in second.stderr:
                found = json.loads(line)
                if found["event"] == "waiting" and "unpacked" in found["why"]:
                    break
            begun = time.monotonic()
            second.send_signal(signal.SIGINT)
            second.communicate(timeout=60)
            took = time.monotonic() - begun
            assert second.returncode == 130
            return took

        best_of_three(attempt)
    finally:
        first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == 0
    roots.assert_whole(tmp_path / "root-0", scene.made)


def test_two_interrupts_in_a_row_are_one(tmp_path: Path, scene: Scene) -> None:
    """An impatient reader gets no traceback."""
    for pause in (0, 0.005, 0.02, 0.05):
        gate = scene.front.gate(scene.layers[0], 100_000)
        process = quiet(tmp_path).start("pull", scene.ref)
        until(gate.reached.is_set, process)
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        gate.open()
        assert process.returncode == 130
        assert b"Traceback" not in err
    whole(scene, quiet(tmp_path))


def test_a_time_limit_in_the_middle_of_unpacking_is_told_as_such(tmp_path: Path, scene: Scene) -> None:
    """It is no fault of a layer or a disk, and what was begun is left to the next run to remove."""
    from ocidist.errors import DeadlineExceeded
    from ocidist.scope import Scope

    root = tmp_path / "root-0"
    with Store.at(root) as store, Scope() as scope:
        watch = threading.Thread(
            target=lambda: (until(lambda: unpacking(root)), scope.cancel(DeadlineExceeded()))
        )
        watch.start()
        with pytest.raises(DeadlineExceeded):
            Client(store=store).pull(scene.ref, scope=scope)
        watch.join()
    assert roots.snapshots(root) == []
    whole(scene, quiet(tmp_path))


@pytest.mark.parametrize("phase", ["manifest", "layer", "trickle"])
def test_a17_a_time_limit_bounds_the_whole(tmp_path: Path, scene: Scene, phase: str) -> None:
    """A silent or trickling server: exit 1 with one line as soon as the time is over, and a resume."""
    limit = 2.0

    def attempt(number: int) -> float:
        if phase == "trickle":
            scene.front.rate = 20_000
        else:
            scene.front.gate("/manifests/" if phase == "manifest" else scene.layers[1], 0)
        begun = time.monotonic()
        process = quiet(tmp_path, number).start("--timeout", f"{limit}s", "pull", scene.ref)
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - begun
        scene.front.clear_rules()
        assert (process.returncode, out) == (1, b"")
        assert err.decode().startswith("ocidist: the time limit passed")
        assert err.count(b"\n") == 1
        assert took >= limit
        return took - limit  # the program's start is in it as well

    best_of_three(attempt)
    whole(scene, quiet(tmp_path))


@pytest.mark.parametrize("phase", ["manifest", "layer"])
def test_a_kernels_interrupt_leaves_a_client_that_goes_on(tmp_path: Path, scene: Scene, phase: str) -> None:
    """KeyboardInterrupt in the calling thread; the same client pulls again at once, from where it was."""
    where, at = ("/manifests/", 0) if phase == "manifest" else (scene.layers[0], 700_000)
    with Store.at(tmp_path / "root") as store:
        client = Client(store=store)

        def attempt(number: int) -> float:
            gate = scene.front.gate(where, at)
            sent: list[float] = []

            def interrupt() -> None:
                gate.reached.wait(60)
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)  # what Jupyter sends

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                client.pull(scene.ref)
            took = time.monotonic() - sent[0]
            thread.join()
            gate.open()
            return took

        best_of_three(attempt)
        kept = roots.partial(tmp_path / "root")
        scene.front.clear_rules()
        scene.front.forget()
        pulled = client.pull(scene.ref)
    assert [str(pulled.chain_id)] == roots.snapshots(tmp_path / "root")
    roots.assert_whole(tmp_path / "root", scene.made)
    for record in scene.front.records:
        assert record.start == kept.get(record.digest or "", 0), "it went on where it was"
