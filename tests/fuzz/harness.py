"""How a target is run: seeds first, then random inputs for a time, then inputs that grow, under limits."""

from __future__ import annotations

import ast
import os
import random
import sys
import time
import tracemalloc
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Iterator, TypeVar

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ocidist.errors import OcidistError

__all__ = ["Target", "fuzz", "grow", "mutated", "refused_or", "seeds"]

T = TypeVar("T")

ROUNDS = 3  # at least, each of
ROUND = 50  # examples
MEMORY = 4 << 20  # bytes that any input may take, and
MEMORY_FACTOR = 64  # more for each of its own
LINES = 20_000  # lines of Python that any input may take, and
LINES_FACTOR = 100  # more for each of its characters: a quadratic reader takes thousands
CPU_SECONDS = 10.0  # of one long input; a linear reader takes hundredths, a quadratic one minutes


@dataclass(frozen=True)
class Target:
    """What is fuzzed. ``check`` raises for an input that is not dealt with as it should be.

    ``inputs`` makes some; ``text`` is False where they are neither text nor bytes, so that they can't be grown. ``longest``
    is the size, in characters, that one is grown to.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], object]
    text: bool = True
    longest: int = 256 << 10


def seeds(name: str) -> list[Any]:
    """The kept inputs of a target: a Python literal a line; lines that begin with # say why the next is there."""
    lines = (Path(__file__).parent / "seeds" / f"{name}.txt").read_text("utf-8").splitlines()
    return [ast.literal_eval(line) for line in lines if line.strip() and not line.startswith("#")]


def refused_or(
    function: Callable[..., T], *arguments: Any, by: type[OcidistError] = OcidistError
) -> T | None:
    """What ``function`` returns, or None where it refuses by an error of kind ``by`` that prints as one line."""
    try:
        return function(*arguments)
    except by as error:
        told = str(error)
        assert told.isprintable(), f"an error of more than one line, or with control characters: {told!r}"
        assert len(told) < 4000, f"an error of {len(told)} characters: {told[:200]!r}…"
        return None


@st.composite
def mutated(draw: Callable[[st.SearchStrategy[Any]], Any], kept: list[Any], *parts: Any) -> Any:
    """A seed, cut, repeated, joined with another, and with ``parts`` (or anything) put into it."""
    value = draw(st.sampled_from(kept))
    anything = st.binary(max_size=6) if isinstance(value, bytes) else st.text(max_size=6)
    piece = st.sampled_from(list(parts)) | anything if parts else anything
    for _ in range(draw(st.integers(0, 4))):
        low, high = sorted((draw(st.integers(0, len(value))), draw(st.integers(0, len(value)))))
        kind = draw(st.sampled_from(["insert", "replace", "cut", "repeat", "join"]))
        if kind == "insert":
            value = value[:low] + draw(piece) + value[low:]
        elif kind == "replace":
            value = value[:low] + draw(piece) + value[high:]
        elif kind == "cut":
            value = value[:low] + value[high:]
        elif kind == "repeat":
            value = value[:high] + value[low:high] * draw(st.integers(1, 3)) + value[high:]
        else:
            other = draw(st.sampled_from(kept))
            value = value[:low] + other[draw(st.integers(0, len(other))) :]
        value = value[: 64 << 10]
    return value


def fuzz(target: Target) -> int:
    """Seeds, then rounds of random inputs; how many rounds. Usually a few, the same every time, so that the test run does
    not depend on the machine; with ``OCIDIST_FUZZ_SECONDS``, others each time for as long as that."""
    for value in seeds(target.name):
        target.check(value)
    asked = float(os.environ.get("OCIDIST_FUZZ_SECONDS", "0"))
    until = time.monotonic() + asked
    number = first = random.randrange(2**32) if asked else 0
    while number - first < ROUNDS or time.monotonic() < until:
        _round(target, number)
        number += 1
    return number - first


def _round(target: Target, number: int) -> None:
    @seed(number)
    @settings(max_examples=ROUND, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.inputs)
    def one(value: Any) -> None:
        target.check(value)

    one()


# -- growth -----------------------------------------------------------------------------------------


def grow(target: Target, count: int) -> None:
    """``count`` inputs with a piece repeated more and more: lines of Python that run grow with the length and no faster,
    memory stays in proportion, and the longest does not keep the processor busy."""
    chosen = random.Random(target.name)
    kept = [value for value in seeds(target.name) if len(value)]
    for _ in range(count):
        value = chosen.choice(kept)
        start = chosen.randrange(len(value))
        end = min(start + chosen.choice([1, 1, 2, 7, 40, len(value)]), len(value))

        def pumped(size: int, value: Any = value, start: int = start, end: int = end) -> Any:
            return value[:start] + value[start:end] * max(size // (end - start), 1) + value[end:]

        long = pumped(4000)
        lines = _lines(target.check, long)
        assert lines <= LINES + LINES_FACTOR * len(long), (
            f"{lines} lines for {len(long)} characters: {value!r}, [{start}:{end}] repeated"
        )
        _within(target, long)
        began = time.process_time()
        target.check(pumped(target.longest))
        assert time.process_time() - began < CPU_SECONDS, f"{value!r}, [{start}:{end}] repeated"


def _within(target: Target, value: Any) -> None:
    with measured() as peak:
        target.check(value)
    assert peak[0] < MEMORY + MEMORY_FACTOR * len(value), f"{peak[0]} bytes of memory for {value!r}"


@contextmanager
def measured() -> Iterator[list[int]]:
    """The peak of memory, in bytes, that the block took."""
    peak = [0]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield peak
        peak[0] = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _lines(check: Callable[[Any], object], value: Any) -> int:
    """Lines of Python that ``check`` runs: what a loop costs, on any machine."""
    lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        check(value)
    finally:
        sys.settrace(before)
    return lines
