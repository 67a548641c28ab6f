"""The stop button: a kernel's pull from a real registry is interrupted, says so, and goes on from there."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.stores.store import Store
from tests.notebooks.execute import VIEW, environment
from tests.notebooks.slow import NAME, SIZES, TAG, large_image, slow_registry
from tests.parts.required import require

LIMIT = 0.5  # seconds from the interrupt to the end of the cell
WAIT = 60.0


class Kernel:
    """A kernel spoken to over its own protocol, as a notebook does."""

    def __init__(self, work: Path) -> None:
        from jupyter_client.manager import KernelManager

        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=environment(work), cwd=str(work))
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def execute(self, code: str) -> Any:
        """Start a cell; its message id."""
        return self.client.execute(code)

    def messages(self, ident: Any) -> list[tuple[str, dict[str, Any]]]:
        """All that a cell says until the kernel is idle again."""
        found = []
        while True:
            message = self.client.get_iopub_msg(timeout=WAIT)
            if message["parent_header"].get("msg_id") != ident:
                continue
            content = message["content"]
            found.append((message["msg_type"], content))
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return found


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    require("docker-registry", "module:jupyter_client", "module:ipykernel", "module:ipywidgets")
    (tmp_path / "kernel").mkdir()
    running = Kernel(tmp_path / "kernel")
    with contextlib.closing(running):
        yield running


def offsets(root: Path) -> dict[str, int]:
    """Digest -> bytes of each unfinished download."""
    with Store.at(root) as store:
        return {row.ref[row.ref.index("sha256:") :]: row.size for row in store.active}


def held(root: Path) -> set[str]:
    """The digests of the blobs that are there."""
    with Store.at(root) as store:
        return {str(row.digest) for row in store.blobs}


def stands_still(root: Path, rest: set[str], before: dict[str, int]) -> None:
    """Wait until ``rest`` is here, and a megabyte more of each in ``before``."""
    deadline = time.monotonic() + WAIT
    while True:
        now = offsets(root)
        if held(root) >= rest and all(now.get(d, 0) > at + 1_000_000 for d, at in before.items()):
            return
        assert time.monotonic() < deadline, now
        time.sleep(0.05)


def test_an_interrupt_ends_the_cell_at_once_and_the_next_pull_resumes(tmp_path: Path, kernel: Kernel) -> None:
    """KeyboardInterrupt within half a second; in the end only what was missing is asked for, by Range."""
    root = tmp_path / "kernel/root"
    whole = large_image().digest
    wanted = {blob.digest: len(blob.raw) for blob in large_image().everything().values()}
    first, second = [d for d, size in wanted.items() if size > 5e6]
    assert wanted[first] > SIZES[0]
    with slow_registry(tmp_path / "slow", rate=None) as registry:
        front = registry.front
        code = f"import ocidist as oci\nimg = oci.pull('{registry.address}/{NAME}:{TAG}', platform='linux/amd64')"
        took, before = [], dict.fromkeys((first, second), 0)
        for _ in range(3):
            gates = [front.gate(first, 3_000_000), front.gate(second, 1_500_000)]
            cell = kernel.execute(code)
            assert all(gate.reached.wait(WAIT) for gate in gates)
            # Both bodies stand still: the kernel waits in recv for bytes that do not come.
            stands_still(root, set(wanted) - {first, second, whole}, before)
            began = time.monotonic()
            kernel.manager.interrupt_kernel()
            said = kernel.messages(cell)
            took.append(time.monotonic() - began)
            for gate in gates:
                gate.open()
            assert_says_interrupted(said)
            now = offsets(root)
            assert set(now) == set(before)
            assert all(before[digest] < now[digest] < wanted[digest] for digest in before)
            before = now
        # One of three: the machine may have been busy with something else.
        print(f"seconds from the interrupt to the end of the cell: {took}")
        assert min(took) < LIMIT
        front.forget()
        said = kernel.messages(kernel.execute(code))
        assert [content["ename"] for kind, content in said if kind == "error"] == []
        assert "done: chain ID sha256:" in last_display(said)["text/plain"]
        asked = {record.digest: record for record in front.records if record.digest}
        assert {digest: record.start for digest, record in asked.items()} == before
        assert {digest: record.sent for digest, record in asked.items()} == {
            digest: wanted[digest] - before[digest] for digest in before
        }
        assert all(record.status == 206 for record in asked.values())
    assert offsets(root) == {}
    assert held(root) == set(wanted)


def last_display(said: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """What the progress output shows at last."""
    data: dict[str, str] = [
        content["data"] for kind, content in said if kind in ("display_data", "update_display_data")
    ][-1]
    return data


def assert_says_interrupted(said: list[tuple[str, dict[str, Any]]]) -> None:
    """The cell ended with KeyboardInterrupt, and its output says so, without a widget that is dead."""
    assert [content["ename"] for kind, content in said if kind == "error"] == ["KeyboardInterrupt"]
    data = last_display(said)
    assert VIEW not in data
    for text in (data["text/plain"], data["text/html"]):
        assert "interrupted; what was transferred is kept; the same call goes on from there" in text
        assert "stopped" in text
        assert "failed" not in text
    opened = {content["comm_id"] for kind, content in said if kind == "comm_open"}
    assert opened == {content["comm_id"] for kind, content in said if kind == "comm_close"}
