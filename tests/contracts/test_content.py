"""The contract of Provider, Ingester and Manager, run on every implementation."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.content.local import LocalContent
from ocidist.content.memory import MemoryContent
from ocidist.content.verify import read_all
from ocidist.errors import (
    AlreadyExists,
    BlobNotFound,
    ContentError,
    DigestMismatch,
    Locked,
    OcidistError,
    SizeMismatch,
    UsageError,
)
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.memory_store import memory_store

Content = Any
MAKERS: dict[str, Callable[[Path], Content]] = {
    "local": lambda folder: LocalContent(folder / "content"),
    "memory": lambda folder: MemoryContent(),
    "store": lambda folder: Store.at(folder / "root").content,
    "memory store": lambda folder: memory_store().content,
}
RAW = bytes(range(256)) * 40


@pytest.fixture(params=list(MAKERS))
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Content:
    """An empty content store of each kind."""
    return MAKERS[request.param](tmp_path)


def descriptor(raw: bytes) -> Descriptor:
    """Of some bytes that are nothing in particular."""
    return Descriptor("application/octet-stream", Digest.of(raw), len(raw))


def put(content: Content, raw: bytes, key: str = "put") -> Descriptor:
    """Commit ``raw``."""
    with content.writer(key) as writer:
        writer.write(raw)
        writer.commit(len(raw), None)
    return descriptor(raw)


def get(content: Content, target: Descriptor) -> bytes:
    """The verified bytes of ``target``."""
    return read_all(content.open(target, Scope()), target, 1 << 30)


def test_c31_what_is_not_committed_is_invisible(content: Content) -> None:
    """A digest is absent until its commit, and whole after it."""
    target = descriptor(RAW)
    with content.writer("k", total=len(RAW), expected=target.digest) as writer:
        assert writer.write(RAW) == len(RAW)
        assert list(content.walk()) == []
        with pytest.raises(BlobNotFound):
            content.info(target.digest)
        with pytest.raises(BlobNotFound):
            content.open(target, Scope())
        assert writer.commit(len(RAW), target.digest) == target.digest
    assert get(content, target) == RAW
    assert content.info(target.digest).size == len(RAW)
    assert [info.digest for info in content.walk()] == [target.digest]
    assert list(content.statuses()) == []


def test_the_file_of_a_blob_is_the_callers_to_close(content: Content) -> None:
    """Another process reads it from its start; where blobs are not files there is none."""
    target = put(content, RAW)
    fd = content.file(target, Scope())
    if fd is not None:
        with open(fd, "rb") as file:
            assert file.read() == RAW
    for look in (content.file, content.open):
        with pytest.raises(BlobNotFound):
            look(descriptor(b"not here"), Scope())


def test_c31_a_writer_of_what_is_here_is_told_so(content: Content) -> None:
    """AlreadyExists, and no ingest is left by asking."""
    target = put(content, RAW)
    with pytest.raises(AlreadyExists):
        content.writer("again", total=len(RAW), expected=target.digest)
    assert list(content.statuses()) == []


def test_c31_a_commit_of_what_came_meanwhile_succeeds(content: Content) -> None:
    """Two keys, one digest: both commits succeed and one blob is here."""
    target = descriptor(RAW)
    with content.writer("a", expected=target.digest) as first, content.writer("b") as second:
        first.write(RAW)
        second.write(RAW)
        first.commit(len(RAW), target.digest)
        assert second.commit(len(RAW), target.digest) == target.digest
    assert get(content, target) == RAW
    assert len(list(content.walk())) == 1
    assert list(content.statuses()) == []


def test_c31_resume_from_every_truncation_point(content: Content) -> None:
    """Whatever was written is kept at close, and the next writer goes on from there."""
    raw = RAW[:97]
    for cut in range(len(raw) + 1):
        target = descriptor(raw + bytes([cut]))
        full = raw + bytes([cut])
        with content.writer(f"k{cut}", total=len(full), expected=target.digest) as writer:
            writer.write(full[:cut])
        assert [(s.key, s.offset, s.total) for s in content.statuses()] == [(f"k{cut}", cut, len(full))]
        with content.writer(f"k{cut}", total=len(full), expected=target.digest) as writer:
            assert writer.status().offset == cut
            writer.write(full[cut:])
            writer.commit(len(full), target.digest)
        assert get(content, target) == full
        assert list(content.statuses()) == []


def test_c31_truncate_cuts_back_and_what_stays_is_hashed_anew(content: Content) -> None:
    """After a cut to the middle or to nothing the digest is that of what is there."""
    with content.writer("k") as writer:
        writer.write(b"good")
        writer.write(b"bad")
        writer.truncate(4)
        writer.write(b"end")
        assert writer.commit(7, Digest.of(b"goodend")) == Digest.of(b"goodend")
    with content.writer("k") as writer:
        writer.write(b"bad")
        writer.truncate(0)
        assert writer.status().offset == 0
        writer.write(b"new")
        with pytest.raises(UsageError):
            writer.truncate(4)
        assert writer.commit(0, None) == Digest.of(b"new")


def test_c31_what_is_kept_can_be_looked_at(content: Content) -> None:
    """peek shows what is written, also by an earlier writer, and no byte more; it moves nothing."""
    with content.writer("k") as writer:
        assert writer.peek(0, 10) == b""
        writer.write(b"abcdef")
        assert writer.peek(0, 3) == b"abc"
    with content.writer("k") as writer:
        assert [writer.peek(2, 10), writer.peek(6, 1), writer.peek(9, 1), writer.peek(0, 0)] == [
            b"cdef",
            b"",
            b"",
            b"",
        ]
        writer.truncate(4)
        assert writer.peek(2, 10) == b"cd"
        writer.write(b"!")
        assert writer.peek(0, 10) == b"abcd!"
        assert writer.commit(5, None) == Digest.of(b"abcd!")
        with pytest.raises(OcidistError):
            writer.peek(0, 1)


def test_c31_abort_drops_and_close_keeps(content: Content) -> None:
    """An abort leaves nothing; both may be called again, and a closed writer refuses to write."""
    writer = content.writer("k")
    writer.write(b"abc")
    writer.abort()
    writer.abort()
    writer.close()
    with pytest.raises(OcidistError):
        writer.write(b"more")
    assert list(content.statuses()) == []
    with content.writer("k") as again:
        assert again.status().offset == 0
        again.write(b"ab")
    content.abort("k")
    content.abort("k")
    assert list(content.statuses()) == []


def test_c31_abort_after_commit_spares_the_blob(content: Content) -> None:
    """What is committed is not taken back."""
    with content.writer("k") as writer:
        writer.write(RAW)
        writer.commit(len(RAW), None)
        writer.abort()
    assert get(content, descriptor(RAW)) == RAW


def test_c31_a_writer_of_another_object_starts_over(content: Content) -> None:
    """A key that was used for another digest or size does not lend its bytes."""
    with content.writer("tag", total=10, expected=Digest.of(b"old")) as writer:
        writer.write(b"old")
    with content.writer("tag", total=10, expected=Digest.of(b"new")) as writer:
        assert writer.status().offset == 0
        writer.write(b"new")
    with content.writer("tag", total=11) as writer:
        assert writer.status().offset == 0


def test_c32_a_second_writer_is_locked_out(content: Content) -> None:
    """In a thread, at once; another key is free; after close the key is."""
    first = content.writer("k")
    first.write(b"abc")
    seen: list[object] = []

    def second() -> None:
        try:
            content.writer("k")
        except Locked as error:
            seen.append(error)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(10)
    assert len(seen) == 1
    with pytest.raises(Locked):
        content.abort("k")
    content.writer("other").close()
    first.close()
    with content.writer("k") as again:
        assert again.status().offset == 3


@pytest.mark.parametrize(
    ("size", "digest", "error"),
    [
        (len(RAW) + 1, None, SizeMismatch),
        (len(RAW) - 1, Digest.of(RAW), SizeMismatch),
        (len(RAW), Digest.of(b"other"), DigestMismatch),
        (0, Digest.of(b"other", "sha512"), DigestMismatch),
    ],
)
def test_c33_a_wrong_size_or_digest_is_refused_and_the_ingest_kept(
    content: Content, size: int, digest: Digest | None, error: type[ContentError]
) -> None:
    """Nothing becomes visible; the same writer can still commit what it should."""
    with content.writer("k") as writer:
        writer.write(RAW)
        with pytest.raises(error):
            writer.commit(size, digest)
        assert list(content.walk()) == []
        assert writer.status().offset == len(RAW)
    assert [s.offset for s in content.statuses()] == [len(RAW)]
    with content.writer("k") as writer:
        writer.commit(len(RAW), Digest.of(RAW))
    assert get(content, descriptor(RAW)) == RAW


def test_c37_many_threads_commit_one_digest(content: Content) -> None:
    """64 threads, some of one key: one blob, nothing left over, no error but Locked and AlreadyExists."""
    target = descriptor(RAW)
    errors: list[BaseException] = []
    barrier = threading.Barrier(64)

    def work(number: int) -> None:
        barrier.wait(30)
        while True:
            try:
                with content.writer(f"k{number % 16}", total=len(RAW), expected=target.digest) as writer:
                    writer.truncate(0)
                    writer.write(RAW)
                    writer.commit(len(RAW), target.digest)
                return
            except AlreadyExists:
                return
            except Locked:
                continue
            except BaseException as error:  # noqa: BLE001 - whatever a thread meets fails the test
                errors.append(error)
                return

    threads = [threading.Thread(target=work, args=[number]) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert get(content, target) == RAW
    assert len(list(content.walk())) == 1
    assert list(content.statuses()) == []


@pytest.mark.parametrize(
    "key",
    ["../x", "/etc/passwd", "a/b/../..", "k" * 10_240, "\udcff", "line\nbreak", "日本", ".", "ref data"],
)
def test_c40_any_text_is_a_key(content: Content, key: str) -> None:
    """It is listed as it was given, resumed and dropped."""
    with content.writer(key, total=5) as writer:
        writer.write(b"abc")
    assert [(s.key, s.offset, s.total) for s in content.statuses()] == [(key, 3, 5)]
    assert [s.key for s in content.statuses([key])] == [key]
    assert list(content.statuses(["another"])) == []
    content.abort(key)
    assert list(content.statuses()) == []


@pytest.mark.parametrize("key", ["", "a\0b", "k" * 10_241])
def test_c40_keys_that_can_not_be(content: Content, key: str) -> None:
    """Empty, with a NUL, too long: refused, and nothing is made."""
    with pytest.raises(UsageError):
        content.writer(key)
    assert list(content.statuses()) == []


def test_c41_a_zero_byte_blob_is_legal(content: Content) -> None:
    """It is committed, listed and read."""
    target = put(content, b"")
    assert get(content, target) == b""
    assert [(info.digest, info.size) for info in content.walk()] == [(target.digest, 0)]


def test_reads_of_a_part(content: Content) -> None:
    """Offset and length, past the end too; ``start`` and ``size`` tell where it is."""
    target = put(content, RAW)
    for offset, length, wanted in [
        (0, 10, RAW[:10]),
        (5, None, RAW[5:]),
        (len(RAW), None, b""),
        (len(RAW) - 3, 99, RAW[-3:]),
        (7, 0, b""),
    ]:
        body = content.open(target, Scope(), offset=offset, length=length)
        assert (body.start, body.size) == (offset, len(RAW))
        found = b""
        buffer = memoryview(bytearray(1000))
        while count := body.readinto(buffer):
            found += buffer[:count]
        body.close()
        assert found == wanted


def test_a_body_outlives_the_blob(content: Content) -> None:
    """A reader that is under way ends well when the blob is deleted."""
    target = put(content, RAW)
    body = content.open(target, Scope())
    content.delete(target.digest)
    with pytest.raises(BlobNotFound):
        content.delete(target.digest)
    with pytest.raises(BlobNotFound):
        content.open(target, Scope())
    assert read_all(body, target, 1 << 20) == RAW


def test_a_descriptor_of_another_size_is_refused(content: Content) -> None:
    """The size is part of what is asked for."""
    target = put(content, RAW)
    with pytest.raises(SizeMismatch):
        content.open(Descriptor("text/plain", target.digest, len(RAW) + 1), Scope())


def test_sha512(content: Content) -> None:
    """The other registered algorithm works, also where only the commit names it."""
    digest = Digest.of(RAW, "sha512")
    with content.writer("a", expected=digest) as writer:
        writer.write(RAW)
        assert writer.commit(len(RAW), digest) == digest
    content.delete(digest)
    with content.writer("b") as writer:
        writer.write(RAW)
        assert writer.commit(len(RAW), digest) == digest
    assert get(content, Descriptor("text/plain", digest, len(RAW))) == RAW


@pytest.mark.parametrize("kind", ["store", "memory store"])
def test_labels_are_kept_where_the_store_keeps_them(kind: str, tmp_path: Path) -> None:
    """Those given to the writer and those given to the commit."""
    content = MAKERS[kind](tmp_path)
    with content.writer("k", labels={"a": "1"}) as writer:
        writer.write(RAW)
        digest = writer.commit(len(RAW), None, {"b": "2"})
    assert content.labels(digest) == {"a": "1", "b": "2"}
