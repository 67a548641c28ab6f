"""Stores of thousands of images: what one event, one small blob and one name cost does not grow with them."""

from __future__ import annotations

import gc
import io
import tracemalloc
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.cli.main import main
from ocidist.content import verify
from ocidist.content.local import FileBody
from ocidist.errors import Cancelled
from ocidist.progress import Advanced, Event, Finished, ProgressRow, ProgressState, Queued
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from ocidist.stores.upkeep import inventory
from tests.parts.images import small_image
from tests.unit.test_store import pull


def target(number: int) -> Descriptor:
    return Descriptor("a/b", Digest.of(b"%d" % number), number)


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python has taken at once meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def events(count: int) -> Iterator[Event]:
    """Of ``count`` descriptors, told twice, moved in another order, one of them unknown."""
    for number in [*range(count), *range(0, count, 3)]:
        yield Queued(target(number))
    for number in range(count, -1, -2):
        yield Advanced(target(number).digest, "check", number // 2, number)
        yield Finished(target(number).digest, "checked", "check")


def test_an_event_costs_the_same_however_many_rows_there_are() -> None:
    """`check` queues every blob: with 20,000 all rows were copied 60,000 times, in half of its time."""
    state = ProgressState()
    for event in events(5000):
        state = state.apply(event)
    assert len(state.rows) == 5000
    assert peak(lambda: state.apply(Advanced(target(7).digest, "check", 1, 7))) < 20_000
    assert peak(lambda: state.apply(Queued(target(5001)))) < 20_000


def test_states_stay_what_they_were_whatever_came_of_them() -> None:
    """Row by row as a plain dictionary; two that came of one have nothing to do with each other."""
    state, states, wanted = ProgressState(), [], []
    rows: dict[Digest, ProgressRow] = {}
    for number, event in enumerate(events(700)):
        state = state.apply(event)
        rows = dict(ProgressState(rows=rows).apply(event).rows)
        if not number % 50:
            states.append(state)
            wanted.append(rows)
    for one, other in zip([*states, state], [*wanted, rows], strict=True):
        assert list(one.rows.items()) == list(other.items())
        left, right = one.apply(Queued(target(1000))), one.apply(Queued(target(2000)))
        assert list(left.rows) == [*other, target(1000).digest]
        assert list(right.rows) == [*other, target(2000).digest]
        assert target(1000).digest not in right.rows
        assert target(1000).digest not in one.rows
        assert dict(one.rows) == other


@pytest.mark.parametrize("size", [0, 1, 400, verify.BLOCK - 1, verify.BLOCK, verify.BLOCK + 1])
def test_a_small_blob_is_verified_in_little_memory(size: int, tmp_path: Path) -> None:
    """Each manifest took two blocks of a MiB, emptied first."""
    raw = bytes(size)
    (tmp_path / "blob").write_bytes(raw)
    wanted, found = Descriptor("a/b", Digest.of(raw), size), io.BytesIO()

    def work() -> None:
        file = io.FileIO(tmp_path / "blob")
        verify.stream(FileBody(file, 0, size, None), wanted, found.write, Scope())

    taken = peak(work)
    assert found.getvalue() == raw
    if size < 1000:
        assert taken < 20_000


def test_one_name_is_looked_up_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`images NAME` read every image's manifests, and `images -q` too; both end with the command's time."""
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    names = [f"registry.example/app:{number}" for number in range(3)]
    with Store.at(tmp_path / "root") as store:
        for name in names:
            pull(store, small_image(name[-1]), name)
        with Scope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                inventory.images(store, scope)
    looked: list[Descriptor] = []
    reachable = inventory.reachable

    def watched(content: object, target: Descriptor, scope: Scope) -> object:
        looked.append(target)
        return reachable(content, target, scope)  # type: ignore[arg-type]

    monkeypatch.setattr(inventory, "reachable", watched)
    assert main(["images", "--format", "csv", names[1]]) == 0
    assert names[1] in (said := capsys.readouterr().out)
    assert names[0] not in said
    assert len(looked) == 1
    assert main(["images", "-q"]) == 0
    assert capsys.readouterr().out.split() == names
    assert main(["images", "-q", names[2]]) == 0
    assert capsys.readouterr().out.split() == [names[2]]
    assert len(looked) == 1
