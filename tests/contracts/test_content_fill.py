"""fill and verify: what reaches a store, over sources that break in every way."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ocidist.content.fill import fill, ref_key
from ocidist.content.local import LocalContent
from ocidist.content.memory import MemoryContent
from ocidist.content.verify import BLOCK, MemoryBody, read_all, stream
from ocidist.errors import Cancelled, ContentError, DigestMismatch, SizeMismatch, StoreError, TransportError
from ocidist.progress import Advanced, Finished, Resumed, Retrying, Waiting
from ocidist.scope import Scope
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest

RAW = bytes(range(256)) * 20_000  # about 5 MB
TARGET = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(RAW), len(RAW))
KEY = ref_key(TARGET)


@pytest.fixture(params=["local", "memory"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty store of each kind."""
    return LocalContent(tmp_path) if request.param == "local" else MemoryContent()


@dataclass
class Answer:
    """One body: from ``start`` (None: what was asked for) on, ``end`` bytes of ``raw``, then ``error``."""

    raw: bytes = RAW
    start: int | None = None
    end: int | None = None
    error: BaseException | None = None
    piece: int = 100_000


class Body:
    host = "registry.example"

    def __init__(self, answer: Answer, offset: int) -> None:
        self.answer = answer
        self.start = offset if answer.start is None else answer.start
        self.size = len(answer.raw)
        self.at = self.start
        self.closed = False

    def readinto(self, buffer: memoryview) -> int:
        end = len(self.answer.raw) if self.answer.end is None else self.answer.end
        data = self.answer.raw[self.at : min(self.at + min(len(buffer), self.answer.piece), end)]
        if not data and self.answer.error is not None:
            raise self.answer.error
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self.closed = True


@dataclass
class Source:
    """Gives the answers in turn, and keeps the offsets that it was asked for."""

    answers: list[Answer]
    offsets: list[int] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        self.offsets.append(offset)
        answer = self.answers[min(len(self.offsets), len(self.answers)) - 1]
        self.bodies.append(Body(answer, offset))
        return self.bodies[-1]


def run(content: Any, *answers: Answer, target: Descriptor = TARGET) -> tuple[str, Source, list[Any]]:
    events: list[Any] = []
    source = Source(list(answers))
    outcome = fill(content, content, target, source, Scope(observer=events.append))
    assert all(body.closed for body in source.bodies)
    return outcome, source, events


def keep(content: Any, raw: bytes) -> None:
    """An earlier run that was ended after ``raw``."""
    with content.writer(KEY, total=len(RAW), expected=TARGET.digest) as writer:
        writer.write(raw)


def stored(content: Any) -> bytes:
    return read_all(content.open(TARGET, Scope()), TARGET, 1 << 30)


def test_a_plain_fill(content: Any) -> None:
    """Copied; progress is cumulative and about a megabyte apart; the second time it exists."""
    outcome, source, events = run(content, Answer())
    assert (outcome, source.offsets) == ("copied", [0])
    assert stored(content) == RAW
    done = [event.done for event in events if isinstance(event, Advanced)]
    assert done == sorted(done)
    assert done[-1] == len(RAW)
    assert 4 <= len(done) <= 12
    assert events[-1] == Finished(TARGET.digest, "copied")
    outcome, source, events = run(content, Answer())
    assert (outcome, source.offsets, events) == ("exists", [], [Finished(TARGET.digest, "exists")])
    assert list(content.statuses()) == []


def test_keys_are_containerds() -> None:
    """By the kind of the media type."""
    kinds = {
        mediatype.OCI_INDEX: "index",
        mediatype.DOCKER_LIST: "index",
        mediatype.OCI_MANIFEST: "manifest",
        mediatype.DOCKER_CONFIG: "config",
        mediatype.OCI_LAYER_ZSTD: "layer",
        "text/plain": "unknown",
    }
    for media_type, kind in kinds.items():
        assert ref_key(Descriptor(media_type, TARGET.digest, 1)) == f"{kind}-{TARGET.digest}"


def test_inline_content_is_used_without_asking(content: Any) -> None:
    """A descriptor's own data; and wrong data is refused like any other."""
    raw = b"{}"
    target = Descriptor(mediatype.OCI_EMPTY, Digest.of(raw), 2, data=raw)
    outcome, source, _ = run(content, Answer(), target=target)
    assert (outcome, source.offsets) == ("copied", [])
    wrong = Descriptor(mediatype.OCI_EMPTY, Digest.of(b"[]"), 2, data=raw)
    with pytest.raises(DigestMismatch):
        run(content, Answer(), target=wrong)


def test_an_empty_blob(content: Any) -> None:
    """Zero bytes are a legal blob; a byte too many is refused."""
    target = Descriptor("text/plain", Digest.of(b""), 0)
    with pytest.raises(SizeMismatch):
        run(content, Answer(b"x"), target=target)
    assert run(content, Answer(b""), target=target)[0] == "copied"


@pytest.mark.parametrize("cut", [1, 1000, BLOCK, len(RAW) - 1, len(RAW)])
def test_it_resumes_where_an_earlier_run_ended(content: Any, cut: int) -> None:
    """Only the rest is asked for; where nothing is missing, nothing is."""
    keep(content, RAW[:cut])
    outcome, source, events = run(content, Answer())
    assert outcome == "copied"
    assert source.offsets == ([cut] if cut < len(RAW) else [])
    assert Resumed(TARGET.digest, cut) in events
    assert stored(content) == RAW


def test_a05_a_resume_answered_with_the_whole(content: Any) -> None:
    """What is here already is skipped, not added again."""
    keep(content, RAW[:1_234_567])
    _, source, _ = run(content, Answer(start=0))
    assert source.offsets == [1_234_567]
    assert stored(content) == RAW


def test_a04_a_body_that_begins_too_late_is_never_appended(content: Any) -> None:
    """One fresh fetch, then refused; nothing wrong is left behind."""
    keep(content, RAW[:1000])
    with pytest.raises(SizeMismatch):
        run(content, Answer(start=2000), Answer(start=5))
    assert list(content.walk()) == []
    assert list(content.statuses()) == []
    keep(content, RAW[:1000])
    _, source, _ = run(content, Answer(start=2000), Answer())
    assert source.offsets == [1000, 0]
    assert stored(content) == RAW


def test_a06_a_partial_file_longer_than_declared_is_dropped(content: Any) -> None:
    """It is fetched anew, from the start."""
    keep(content, RAW + b"more")
    outcome, source, _ = run(content, Answer())
    assert (outcome, source.offsets) == ("copied", [0])
    assert stored(content) == RAW


@pytest.mark.parametrize("cut", [1000, len(RAW)])
def test_a06_resumed_bytes_that_do_not_verify_are_fetched_once_more(content: Any, cut: int) -> None:
    """From the start, once, and it is said."""
    keep(content, b"\xff" + RAW[1:cut])
    outcome, source, events = run(content, Answer())
    assert outcome == "copied"
    assert source.offsets == ([1000, 0] if cut == 1000 else [0])
    assert [event.attempt for event in events if isinstance(event, Retrying)] == [2]
    assert stored(content) == RAW


@pytest.mark.parametrize("kept", [b"", b"\xff" + RAW[1:1000]])
def test_a06_bytes_of_this_machine_are_read_once(content: Any, kept: bytes, monkeypatch: Any) -> None:
    """They would be as wrong the next time; but what an earlier run left wrong is dropped."""
    monkeypatch.setattr(Body, "host", "")
    if kept:
        keep(content, kept)
        _, source, _ = run(content, Answer())
        assert source.offsets == [1000, 0]
        assert stored(content) == RAW
        return
    for answer, error in ((Answer(b"\xff" + RAW[1:]), DigestMismatch), (Answer(end=1000), SizeMismatch)):
        source = Source([answer])
        with pytest.raises(error):
            fill(content, content, TARGET, source, Scope())
        assert source.offsets == [0]


@pytest.mark.parametrize(
    ("raw", "error"),
    [(b"\xff" + RAW[1:], DigestMismatch), (RAW + b"x", SizeMismatch), (RAW * 2, SizeMismatch)],
)
def test_a06_a_source_of_wrong_bytes_is_asked_twice_and_refused(
    content: Any, raw: bytes, error: type[ContentError]
) -> None:
    """No loop; nothing is visible, and the bad bytes are not kept for a later run."""
    source = Source([Answer(raw)])
    with pytest.raises(error):
        fill(content, content, TARGET, source, Scope())
    assert source.offsets == [0, 0]
    assert list(content.walk()) == []
    assert list(content.statuses()) == []


def test_a01_a_body_that_ends_early_is_asked_for_the_rest(content: Any) -> None:
    """As long as it brings something; each time from where it ended."""
    _, source, events = run(content, Answer(end=2 << 20), Answer(end=4 << 20), Answer())
    assert source.offsets == [0, 2 << 20, 4 << 20]
    assert len([event for event in events if isinstance(event, Retrying)]) == 2
    assert stored(content) == RAW


def test_a01_a_body_that_never_comes_is_given_up_and_kept(content: Any) -> None:
    """A few tries, then SizeMismatch; the next run goes on from what came."""
    source = Source([Answer(end=3_000_000)])
    with pytest.raises(SizeMismatch):
        fill(content, content, TARGET, source, Scope())
    assert source.offsets[:2] == [0, 3_000_000]
    assert len(source.offsets) <= 5
    assert [status.offset for status in content.statuses()] == [3_000_000]
    assert run(content, Answer())[1].offsets == [3_000_000]


def test_a_dropped_connection_is_taken_up_where_it_broke(content: Any) -> None:
    """Bytes that came before the error are written, the rest is asked for."""
    dropped = TransportError("registry.example", "reset")
    _, source, _ = run(content, Answer(end=1_500_001, error=dropped), Answer())
    assert source.offsets == [0, 1_500_001]
    assert stored(content) == RAW


@pytest.mark.parametrize(
    "error",
    [
        TransportError("registry.example", "no such host", False),
        KeyboardInterrupt(),
        Cancelled(),
        ContentError("x", "odd"),
    ],
)
def test_whatever_ends_it_what_came_is_kept(content: Any, error: BaseException) -> None:
    """The error comes through; the next run goes on, and the key is free."""
    source = Source([Answer(end=1_500_001, error=error)])
    with pytest.raises(type(error)):
        fill(content, content, TARGET, source, Scope())
    assert source.bodies[0].closed
    assert [status.offset for status in content.statuses()] == [1_500_001]
    assert run(content, Answer())[1].offsets == [1_500_001]


def test_a_full_disk_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A StoreError ends it at once; what fitted is kept."""
    import errno
    import os

    content = LocalContent(tmp_path)
    source = Source([Answer()])
    write = os.write

    def full(fd: int, data: Any) -> int:
        if os.fstat(fd).st_size >= 2_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreError):
            fill(content, content, TARGET, source, Scope())
    assert source.offsets == [0]
    [status] = content.statuses()
    assert status.offset >= 2_000_000
    assert run(content, Answer())[1].offsets == [status.offset]


def test_c32_it_waits_for_another_and_takes_its_result(content: Any) -> None:
    """Waiting is said once; the source is never asked; the outcome is exists."""
    other = content.writer(KEY, total=len(RAW), expected=TARGET.digest)
    waiting = threading.Event()
    events: list[Any] = []

    def observe(event: Any) -> None:
        events.append(event)
        if isinstance(event, Waiting):
            waiting.set()

    source = Source([Answer()])
    result: list[str] = []
    thread = threading.Thread(
        target=lambda: result.append(fill(content, content, TARGET, source, Scope(observer=observe)))
    )
    thread.start()
    assert waiting.wait(10)
    time.sleep(0.2)
    other.write(RAW)
    other.commit(len(RAW), TARGET.digest)
    thread.join(10)
    assert result == ["exists"]
    assert source.offsets == []
    assert len([event for event in events if isinstance(event, Waiting)]) == 1
    assert list(content.statuses()) == []


def test_c32_it_takes_over_from_another_that_gave_up(content: Any) -> None:
    """From where that one ended."""
    other = content.writer(KEY, total=len(RAW), expected=TARGET.digest)
    other.write(RAW[:1000])
    timer = threading.Timer(0.2, other.close)
    timer.start()
    assert run(content, Answer())[1].offsets == [1000]
    timer.join()


def test_a_wait_can_be_cancelled(content: Any) -> None:
    """Within its poll, not when the other ends."""
    with content.writer(KEY, total=len(RAW), expected=TARGET.digest):
        scope = Scope()
        timer = threading.Timer(0.1, scope.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            fill(content, content, TARGET, Source([Answer()]), scope)
        timer.join()


def test_bytes_of_a_slow_source_are_written_as_they_come(tmp_path: Path) -> None:
    """`active` sees them, and an interruption loses little, though a block is not full."""
    content = LocalContent(tmp_path)
    seen: list[int] = []

    class Slow(Body):
        def readinto(self, buffer: memoryview) -> int:
            time.sleep(0.1)
            seen.extend(status.offset for status in content.statuses())
            return super().readinto(buffer)

    class SlowSource(Source):
        def open(
            self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
        ) -> Body:
            return Slow(Answer(raw=RAW[:1000], piece=100), offset)

    target = Descriptor("text/plain", Digest.of(RAW[:1000]), 1000)
    fill(content, content, target, SlowSource([]), Scope())
    assert len(set(seen)) >= 3


# -- verify --


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_read_all_and_stream_give_the_verified_bytes(size: int) -> None:
    """At every edge of a block."""
    raw = RAW[:size]
    target = Descriptor("text/plain", Digest.of(raw), size)
    assert read_all(MemoryBody(raw), target, 1 << 30) == raw
    out = bytearray()
    assert stream(MemoryBody(raw), target, out.extend, Scope()) == size
    assert bytes(out) == raw


@pytest.mark.parametrize("size", [1, 1000, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize("damage", ["flip", "cut", "append"])
def test_c39_stream_withholds_the_end_until_all_is_verified(size: int, damage: str) -> None:
    """Whoever reads the output never has as many bytes as the object."""
    raw = RAW[:size]
    target = Descriptor("text/plain", Digest.of(raw), size)
    bad = {"flip": raw[:-1] + bytes([raw[-1] ^ 1]), "cut": raw[:-1], "append": raw + b"x"}[damage]
    out = bytearray()
    body = Body(Answer(bad), 0)
    with pytest.raises(DigestMismatch if damage == "flip" else SizeMismatch):
        stream(body, target, out.extend, Scope())
    assert len(out) < size
    assert body.closed
    with pytest.raises(DigestMismatch if damage == "flip" else SizeMismatch):
        read_all(MemoryBody(bad), target, 1 << 30)


def test_h70_read_all_is_bounded() -> None:
    """By the limit, before and after it is known how long it is; and an endless body ends at its size."""
    target = Descriptor("text/plain", Digest.of(RAW), len(RAW))
    body = Body(Answer(), 0)
    with pytest.raises(ContentError):
        read_all(body, target, len(RAW) - 1)
    assert body.at == 0
    assert body.closed
    unknown = Descriptor("text/plain", Digest.of(RAW), -1)
    assert read_all(MemoryBody(RAW), unknown, len(RAW)) == RAW
    body = Body(Answer(), 0)
    with pytest.raises(ContentError):
        read_all(body, unknown, 1000)
    assert body.at == 1001
    huge = Descriptor("text/plain", Digest.of(b""), 10**12)
    with pytest.raises(ContentError):
        read_all(MemoryBody(b""), huge, 1 << 20)


def test_a_part_can_not_be_verified() -> None:
    """A body that begins later is refused by both readers."""
    for read in (
        lambda body: read_all(body, TARGET, 1 << 30),
        lambda body: stream(body, TARGET, lambda data: None, Scope()),
    ):
        with pytest.raises(ContentError):
            read(MemoryBody(RAW, 1))
