"""Bytes and times in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.view.sizes import age, count, duration, human, utc


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1800, "1.8 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (31_400_000, "31.4 MB"),
        (2**63 - 1, "9.2 EB"),
        (10**22, "10000 EB"),
        (-1800, "-1.8 kB"),
    ],
)
def test_bytes_are_decimal_with_two_or_three_digits(size: int, text: str) -> None:
    """Every unit's edge rounds into the next form, never to "1000 kB"."""
    assert human(size) == text


@given(st.integers(0, 10**21 - 1))
def test_bytes_are_short_and_close(size: int) -> None:
    """At most seven cells, and within five percent of the number."""
    text = human(size)
    assert len(text) <= 7
    number, unit = text.split()
    factor = 1000 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert abs(float(number) * factor - size) <= max(size * 0.05, 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a second"),
        (-0.5, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (180, "3 minutes"),
        (3600, "1 hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (3 * 365 * 86400, "3 years"),
        (-3 * 86400, "in 3 days"),
    ],
)
def test_spans_in_words(seconds: float, text: str) -> None:
    """Each step of the ladder, the future included."""
    assert age(seconds) == text


def test_measured_spans() -> None:
    """Tenths under ten seconds, then whole seconds, minutes, hours."""
    spans = [duration(s) for s in (-1, 0, 1.234, 9.94, 9.96, 59.7, 187, 7500)]
    assert spans == ["0.0 s", "0.0 s", "1.2 s", "9.9 s", "10 s", "1 min 00 s", "3 min 07 s", "2 h 05 min"]


def test_times_are_iso_8601_in_utc() -> None:
    """The zero times of Unix and Go, and no error for what no calendar has."""
    assert utc(0) == "1970-01-01T00:00:00Z"
    assert utc(-62135596800) == "0001-01-01T00:00:00Z"
    assert utc(1e300) == utc(float("nan")) == utc(float("inf")) == ""
    assert count(1_000_000) == "1,000,000"


@given(st.floats())
def test_times_never_raise(epoch: float) -> None:
    """Any float is a date or nothing."""
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?", utc(epoch), re.ASCII)
