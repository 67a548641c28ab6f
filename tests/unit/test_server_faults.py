"""Faults as they are asked for, and what they make of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import UsageError
from ocidist.server.faults import KINDS, PHASES, Fault, Reply, misbehave, parse_faults
from ocidist.server.script import Script

BODY = bytes(range(100))
DIGEST = ("Docker-Content-Digest", "sha256:" + "1" * 64)
RIGHT = Reply(200, (("Content-Type", "text/x"), ("Content-Length", "100"), DIGEST), BODY, 0, 100)
PART = Reply(
    206, (("Content-Length", "60"), ("Content-Range", "bytes 40-99/100"), DIGEST), BODY, start=40, end=100
)


def test_a_spec_is_a_list_of_faults() -> None:
    """Bytes, phases, times and Retry-After as they are written; what is left out has a default."""
    assert parse_faults("") == ()
    first, second = parse_faults(
        "drop@1024;on=layer,config;times=2  429;times=always;retry-after=Fri,_01_Jan"
    )
    assert first == Fault("drop", 1024, frozenset({"layer", "config"}), 2)
    assert second == Fault("429", 0, frozenset(PHASES), None, "Fri, 01 Jan")


@given(
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda kind: st.builds(
            Fault,
            st.just(kind),
            st.integers(0, 10**9),
            st.frozensets(st.sampled_from(sorted(KINDS[kind].phases)), min_size=1),
            st.none() | st.integers(1, 99),
        )
    )
)
def test_a_fault_reads_as_it_is_written(fault: Fault) -> None:
    """str() and parse_faults() are each other's inverse."""
    assert parse_faults(str(fault)) == (fault,)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("boom", "no fault 'boom'; there are drop, "),
        ("drop@x", "no fault 'drop@x'"),
        ("416;on=tags", "416 can't happen on 'tags', but on resume, redirect"),
        ("drop;times=0", "neither a number from 1 on nor always"),
        ("drop;never", "no option 'never'"),
        ("429;retry-after=\r", "no value that can be sent"),
    ],
)
def test_a_spec_that_is_none_is_an_error_with_the_way_out(spec: str, said: str) -> None:
    """It names the fault, and what there is instead."""
    with pytest.raises(UsageError, match=said):
        parse_faults(spec)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("right", [RIGHT, PART], ids=["whole", "part"])
def test_every_fault_makes_something_else_of_an_answer(kind: str, right: Reply) -> None:
    """None leaves the answer as it was, but for those of ranges where no range was asked for."""
    wrong = misbehave(Fault(kind, 3, KINDS[kind].phases), right, "http://h/x")
    ranged = kind in ("ignore-range", "wrong-range", "no-range")
    assert (wrong == right) == (ranged and right is RIGHT)


def test_what_some_faults_make_of_a_part() -> None:
    """Lengths, ranges and bytes are those that the words promise."""
    made = {kind: misbehave(Fault(kind, 5, KINDS[kind].phases), PART, "http://h/x") for kind in KINDS}
    assert (made["drop"].ends_at, made["drop"].resets, made["truncate"].resets) == (5, True, False)
    assert (made["short"].body, made["short"].header("content-length")) == (BODY[40:45], "5")
    assert (made["long"].body[:60], made["long"].header("Content-Length")) == (BODY[40:], "65")
    assert [at for at in range(60) if made["flip"].body[at] != PART.body[at]] == [5]
    assert (made["ignore-range"].status, made["ignore-range"].body) == (200, BODY)
    assert made["wrong-range"].header("Content-Range") == "bytes 41-99/100"
    assert (made["416"].status, made["416"].header("Content-Range")) == (416, "bytes */100")
    assert made["unframed"].header("Content-Length") is None
    assert made["loop"].header("Location") == "http://h/x"
    assert (made["hang-up"].ends_at, made["hang-up"].body) == (60, PART.body)
    assert made["extra"].body.startswith(PART.body + b"HTTP/1.1 200 OK\r\n")
    assert made["extra"].header("Content-Length") == "60"
    assert made["no-digest"].header("Docker-Content-Digest") is None
    assert [value for name, value in made["framing"].headers if name == "Content-Length"] == ["60", "65"]
    assert made["chunk-size"].body == b"3c_0\r\n" + BODY[40:] + b"\r\n0\r\n\r\n"


def test_what_never_ends() -> None:
    """Before the answer, in its head, in its body and after it; as fast as may be, or N bytes a second."""
    made = {
        what: misbehave(Fault(f"endless-{what}", 7), PART, "http://h/x")
        for what in ("interim", "headers", "body", "trailers")
    }
    assert (made["interim"].raw, made["interim"].for_ever[:13]) == (b"", b"HTTP/1.1 102 ")
    assert (made["headers"].raw, made["headers"].for_ever[-2:]) == (b"HTTP/1.1 200 OK\r\n", b"\r\n")
    for what, then in (("body", b"1000\r\n\0"), ("trailers", b"X-Filler")):
        assert made[what].header("Content-Length") is None
        assert made[what].header("Transfer-Encoding") == "chunked"
        assert made[what].body.startswith(b"3c\r\n" + BODY[40:] + b"\r\n")
        assert made[what].for_ever.startswith(then)
    assert {reply.rate for reply in made.values()} == {7}
    assert misbehave(Fault("endless-body", 0), PART, "").rate is None
    assert misbehave(Fault("503", retry_after="9"), RIGHT, "").header("Retry-After") == "9"


def test_a_script_uses_its_faults_up_in_order() -> None:
    """Each in its phases, as often as it says; what happened is told in order."""
    script = Script(parse_faults("drop;on=layer 429;times=2 close;on=layer;times=always"))
    phases = ["layer", "tags", "layer", "layer", "tags", "layer"]
    kinds = [fault.kind if (fault := script.next(phase)) else None for phase in phases]
    assert kinds == ["drop", "429", "429", "close", None, "close"]
    assert [(where, fault.kind) for where, fault in script.happened] == [
        (where, kind) for where, kind in zip(phases, kinds, strict=True) if kind
    ]
