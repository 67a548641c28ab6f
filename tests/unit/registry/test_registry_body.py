"""Bodies that drop, lie about ranges, or begin elsewhere than they were asked to."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ocidist import scope as scopes
from ocidist.content import verify
from ocidist.content.resume import Resuming
from ocidist.errors import OcidistError, RegistryError, SizeMismatch, TransportError
from ocidist.net.message import Request, Response
from ocidist.progress import Resumed, Retrying
from ocidist.remotes.registry.client import RegistryRemote
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Retries, Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.scripted import ScriptedResponse
from tests.unit.registry.fake import FakeRegistry, FunctionTransport, QuickScope, read

DATA = bytes(range(256)) * 4
LAYER = "application/vnd.oci.image.layer.v1.tar"
TARGET = Descriptor(LAYER, Digest.of(DATA), len(DATA))


def guarded(guard: str = "") -> tuple[FakeRegistry, RegistryRemote]:
    fake = FakeRegistry(guard=guard)
    fake.add_blob(DATA)
    return fake, RegistryRemote(fake.session(), f"{fake.host}/a")


def answering(answer: Callable[[Request], Response]) -> tuple[FunctionTransport, RegistryRemote]:
    transport = FunctionTransport(answer)
    return transport, RegistryRemote(RegistrySession(transport), "registry.example/a")


def resumed(remote: RegistryRemote, target: Descriptor, scope: Scope, **part: Any) -> Resuming:
    """The remote's answers as one body."""
    return Resuming(remote, target, scope, Retries(), **part)


def read_into(got: bytearray, body: Any) -> None:
    """As ``read``, but what came before an error is kept in ``got``."""
    buffer = bytearray(64)
    while count := body.readinto(memoryview(buffer)):
        got += buffer[:count]


def ranges(transport: FunctionTransport) -> list[str | None]:
    return [request.headers.get("Range") for request in transport.requests]


def part(start: int, end: int) -> ScriptedResponse:
    return ScriptedResponse(
        206, DATA[start : end + 1], [("Content-Range", f"bytes {start}-{end}/{len(DATA)}")]
    )


def test_a_body_is_one_request_without_a_range() -> None:
    """All bytes, and the size that the descriptor says."""
    fake, remote = guarded()
    body = remote.open(TARGET, QuickScope())
    assert (body.start, body.size) == (0, len(DATA))
    assert read(body) == DATA
    assert ranges(fake.transport) == [None]


@pytest.mark.parametrize("block", [1, 7, 100, 4096])
def test_a1_a_drop_in_mid_stream_is_resumed_where_it_stood(block: int) -> None:
    """Three drops, three ranges, one body; each drop is reported."""
    fake, remote = guarded()
    fake.drops = [100, 0, 500]
    scope = QuickScope()
    assert read(resumed(remote, TARGET, scope), block) == DATA
    assert ranges(fake.transport) == [None, "bytes=100-", "bytes=100-", "bytes=600-"]
    assert [event.at for event in scope.events if isinstance(event, Resumed)] == [100, 100, 600]
    assert sum(isinstance(event, Retrying) for event in scope.events) == 3


def test_a1_read_all_never_takes_a_short_body_for_whole() -> None:
    """Through verify's read as well as through readinto."""
    fake, remote = guarded()
    fake.drops = [3]
    assert verify.read_all(resumed(remote, TARGET, QuickScope()), TARGET, 1 << 20) == DATA


def test_a2_a_body_framed_by_its_end_is_resumed_where_it_stops_short() -> None:
    """No Content-Length, no error, fewer bytes than the descriptor says: the rest is asked for."""

    def answer(request: Request) -> Response:
        if request.headers.get("Range") is None:
            return ScriptedResponse(200, DATA[:300], announced=None)
        return part(300, len(DATA) - 1)

    transport, remote = answering(answer)
    assert read(resumed(remote, TARGET, QuickScope())) == DATA
    assert ranges(transport) == [None, "bytes=300-"]


def test_drops_without_progress_are_bounded() -> None:
    """A registry that never gets further is given up on, with its own error."""
    fake, remote = guarded()
    fake.drops = [10] + [0] * 100
    with pytest.raises(TransportError, match="ended before"):
        read(resumed(remote, TARGET, QuickScope()))
    assert len(fake.transport.requests) == 10


def test_drops_with_progress_are_made_good_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad line that moves on is not given up on."""
    monkeypatch.setattr(scopes, "PROGRESS", 50)
    fake, remote = guarded()
    fake.drops = [50] * 18
    assert read(resumed(remote, TARGET, QuickScope())) == DATA


def test_a_failure_that_will_not_pass_is_raised_at_once() -> None:
    """Malformed framing in mid-stream is no drop."""

    def blocks() -> Any:
        yield DATA[:10]
        raise TransportError("registry.example", "a chunk size of '+10'", False)

    transport, remote = answering(lambda request: ScriptedResponse(200, blocks()))
    with pytest.raises(TransportError, match="chunk size"):
        read(remote.open(TARGET, QuickScope()))
    assert len(transport.requests) == 1


# -- offsets --


def test_open_at_an_offset_begins_there() -> None:
    """206 from byte 1000 on; .start says so."""
    fake, remote = guarded()
    body = remote.open(TARGET, QuickScope(), offset=1000)
    assert (body.start, read(body)) == (1000, DATA[1000:])
    assert ranges(fake.transport) == ["bytes=1000-"]


def test_open_with_a_length_reads_no_more() -> None:
    """Both ends of the range, and what a drop leaves of it."""
    fake, remote = guarded()
    fake.drops = [4]
    body = resumed(remote, TARGET, QuickScope(), offset=10, length=20)
    assert (body.start, read(body)) == (10, DATA[10:30])
    assert ranges(fake.transport) == ["bytes=10-29", "bytes=14-29"]
    assert read(resumed(remote, TARGET, QuickScope(), offset=len(DATA) - 3, length=50)) == DATA[-3:]
    assert read(resumed(remote, TARGET, QuickScope(), length=5)) == DATA[:5]


def test_a5_open_answered_200_says_that_it_begins_at_zero() -> None:
    """A registry without ranges sends the whole; the caller learns it by .start."""
    fake, remote = guarded()
    fake.ranges = False
    body = remote.open(TARGET, QuickScope(), offset=1000)
    assert (body.start, read(body)) == (0, DATA)


def test_a5_a_resume_answered_200_skips_what_is_known() -> None:
    """In mid-stream the first bytes are dropped, and none comes twice."""
    fake, remote = guarded()
    fake.ranges = False
    fake.drops = [700, 300, len(DATA)]
    assert read(resumed(remote, TARGET, QuickScope())) == DATA
    assert len(fake.transport.requests) == 3


def test_a5_416_starts_over() -> None:
    """A range that is refused: the whole, from byte 0."""

    def answer(request: Request) -> Response:
        if request.headers.get("Range") is not None:
            return ScriptedResponse(416, headers=[("Content-Range", f"bytes */{len(DATA)}")])
        return ScriptedResponse(200, DATA)

    transport, remote = answering(answer)
    body = remote.open(TARGET, QuickScope(), offset=500)
    assert (body.start, read(body)) == (0, DATA)
    assert ranges(transport) == ["bytes=500-", None]


def test_a5_416_to_everything_is_refused() -> None:
    """No loop."""
    transport, remote = answering(lambda request: ScriptedResponse(416))
    with pytest.raises(RegistryError, match="416"):
        remote.open(TARGET, QuickScope(), offset=500)
    assert len(transport.requests) == 2


@pytest.mark.parametrize(
    "headers",
    [
        [("X-None", "")],
        [("Content-Range", "bytes 400-1023/1024")],
        [("Content-Range", "bytes 0-523/1024")],
        [("Content-Range", "bytes 500-1023/2000")],
        [("Content-Range", "bytes 500-1024/*")],
        [("Content-Range", "bytes 500-1000/1024")],
        [("Content-Range", "bytes 500-1023")],
        [("Content-Range", "bytes=500-1023/1024")],
        [("Content-Range", "bytes 500-1023/1024"), ("Content-Range", "bytes 500-1023/1024")],
        [("Content-Type", "multipart/byteranges; boundary=x")],
    ],
)
@pytest.mark.parametrize("when", ["open", "resume"])
def test_a4_a_206_with_a_wrong_content_range_is_never_appended(
    headers: list[tuple[str, str]], when: str
) -> None:
    """Missing, malformed, repeated, of other bytes or another size: no byte of it counts, the whole is asked for."""
    drops = [500] if when == "resume" else []

    def answer(request: Request) -> Response:
        if request.headers.get("Range") is not None:
            return ScriptedResponse(206, b"\xff" * 524, headers)
        return ScriptedResponse(200, DATA[: drops.pop() if drops else None], announced=len(DATA))

    transport, remote = answering(answer)
    body: Any = resumed(remote, TARGET, QuickScope())
    if when == "open":
        body = remote.open(TARGET, QuickScope(), offset=500)
    assert (body.start, read(body)) == (0, DATA)
    assert ranges(transport) == [*([None] if when == "resume" else []), "bytes=500-", None]


def test_a4_a_206_that_nobody_asked_for_is_refused() -> None:
    """Without a Range there is no part."""
    _, remote = answering(lambda request: part(0, 99))
    with pytest.raises(RegistryError, match="Content-Range"):
        remote.open(TARGET, QuickScope())


def test_a_shorter_part_than_asked_is_gone_on_from() -> None:
    """A server may cap its ranges; the rest is asked for."""

    def answer(request: Request) -> Response:
        asked = request.headers.get("Range")
        assert asked is not None
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        return part(start, min(start + 299, len(DATA) - 1))

    _, remote = answering(answer)
    assert read(resumed(remote, TARGET, QuickScope(), offset=200)) == DATA[200:]


# -- sizes and encodings --


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1, 10**12])
def test_h70_another_size_than_the_descriptors_is_refused_before_reading(size: int) -> None:
    """Content-Length contradicts the descriptor: not one byte is read."""
    answer = ScriptedResponse(200, DATA, announced=size)
    _, remote = answering(lambda request: answer)
    with pytest.raises(SizeMismatch):
        remote.open(TARGET, QuickScope())
    assert answer.closed


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "x"])
def test_a7_an_encoded_blob_is_refused(encoding: str) -> None:
    """It would be stored under a digest that it does not have."""
    answer = ScriptedResponse(200, DATA, [("Content-Encoding", encoding)])
    _, remote = answering(lambda request: answer)
    with pytest.raises(RegistryError, match="Content-Encoding"):
        remote.open(TARGET, QuickScope())
    assert answer.closed


def test_a7_identity_is_no_encoding() -> None:
    """Said aloud, it changes nothing."""
    _, remote = answering(lambda request: ScriptedResponse(200, DATA, [("Content-Encoding", "Identity")]))
    assert read(remote.open(TARGET, QuickScope())) == DATA


@pytest.mark.parametrize("status", [201, 202, 204])
def test_an_answer_without_content_is_refused(status: int) -> None:
    """Success of another kind is no blob."""
    _, remote = answering(lambda request: ScriptedResponse(status))
    with pytest.raises(OcidistError):
        remote.open(TARGET, QuickScope())


def test_a_resume_with_an_expired_token_gets_another() -> None:
    """The token is refused in mid-blob: a new one, and the stream goes on."""
    fake, remote = guarded("bearer")
    fake.drops = [400]
    body = resumed(remote, TARGET, QuickScope())
    buffer = bytearray(100)
    assert body.readinto(memoryview(buffer)) == 100
    fake.valid.clear()
    assert bytes(buffer) + read(body) == DATA
    assert fake.tokens_given == 2


def test_a_resume_asks_the_registry_for_a_new_redirect() -> None:
    """Signed URLs serve one stream: they expire."""
    fake, remote = guarded()
    fake.redirect_to = "https://blobs.example/signed?"
    fake.elsewhere = lambda request: fake.content(request, DATA)  # type: ignore[method-assign]
    fake.drops = [10]
    assert read(resumed(remote, TARGET, QuickScope())) == DATA
    assert ["blobs.example" in line for line in fake.transport.lines] == [False, True, False, True]
    assert fake.transport.requests[-1].headers.get("Range") == "bytes=10-"


def test_closing_early_closes_the_answer_and_ends_the_body() -> None:
    """Nothing is read after close, and closing twice is fine."""
    answer = ScriptedResponse(200, DATA)
    _, remote = answering(lambda request: answer)
    body = remote.open(TARGET, QuickScope())
    body.readinto(memoryview(bytearray(5)))
    body.close()
    body.close()
    assert answer.closed == 1
    assert body.readinto(memoryview(bytearray(5))) == 0


def test_a_manifest_is_always_read_whole() -> None:
    """Ranges of manifests are not asked for: what comes again is dropped."""
    from ocidist.spec import mediatype

    fake, remote = guarded()
    digest = fake.add_manifest({"mediaType": mediatype.OCI_MANIFEST, "config": None, "layers": []})
    raw = fake.manifests[digest][1]
    usual, cuts = fake.manifest, [20, 5]

    def manifest(request: Request, name: str) -> Response:
        answer = usual(request, name)
        return (
            ScriptedResponse(200, raw[: cuts.pop()], answer.headers.items(), announced=len(raw))
            if cuts
            else answer
        )

    fake.manifest = manifest  # type: ignore[method-assign]
    body = resumed(remote, Descriptor(mediatype.OCI_MANIFEST, digest, len(raw)), QuickScope(), offset=3)
    assert (body.start, read(body)) == (3, raw[3:])
    assert ranges(fake.transport) == [None, None, None]
