"""Every target: its seeds, random inputs, and inputs that grow."""

from __future__ import annotations

import pytest

from tests.fuzz.harness import Target, fuzz, grow, seeds
from tests.fuzz.targets import TARGETS

GROWING = [target for target in TARGETS if target.text]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_anything_is_taken_or_refused(target: Target) -> None:
    """Only OcidistErrors of one line, and what is taken agrees with the oracle."""
    assert seeds(target.name)
    assert fuzz(target) > 0


@pytest.mark.parametrize("target", GROWING, ids=lambda target: target.name)
def test_time_and_memory_are_in_proportion(target: Target) -> None:
    """Nothing grows faster than its input."""
    grow(target, 12)


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_anything_for_a_minute_each(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, from other random numbers, and for longer."""
    monkeypatch.setenv("OCIDIST_FUZZ_SECONDS", "60")
    assert fuzz(target) > 0
    if target.text:
        grow(target, 300)
