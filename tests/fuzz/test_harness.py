"""The harness finds what is planted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from ocidist.errors import OcidistError, UsageError
from tests.fuzz import harness
from tests.fuzz.harness import Target, fuzz, grow, refused_or


def planted(check: Any) -> Target:
    """A target with the seeds of references."""
    return Target("references", st.text(max_size=8), check)


def test_a_foreign_exception_is_found() -> None:
    """It is shrunk to the least that raises it."""

    def check(text: str) -> None:
        if len(text) > 3 and "/" not in text and "e" not in text:
            raise KeyError(text)

    with pytest.raises(KeyError):
        fuzz(planted(check))


def test_a_slow_reader_is_found() -> None:
    """Lines that grow with the square of the length."""

    def check(text: str) -> None:
        for _ in text:
            for _ in text:
                pass

    with pytest.raises(AssertionError, match="lines for"):
        grow(planted(check), 1)


def test_a_greedy_reader_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory out of proportion."""
    monkeypatch.setattr(harness, "MEMORY", 1 << 20)
    with pytest.raises(AssertionError, match="bytes of memory"):
        grow(planted(lambda text: bytes(len(text) * 1000)), 1)


def test_a_refusal_is_one_printable_line() -> None:
    """Another kind of error, or control characters in it, are not let through."""

    class Raw(UsageError):
        """One that does not escape its text, as all others do."""

        def __str__(self) -> str:
            return self.text

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    def refuse(error: BaseException) -> None:
        raise error

    assert refused_or(refuse, UsageError("plain")) is None
    for bad in (Raw("two\nlines"), Raw("\x1b[31m"), UsageError("x" * 5000)):
        with pytest.raises(AssertionError, match="an error of"):
            refused_or(refuse, bad)
    with pytest.raises(OcidistError):
        refused_or(refuse, OcidistError("other"), by=UsageError)
