"""Frozen dataclasses of our own making behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from ocidist.frozen import dataclass


def _make(decorate: Any) -> type:
    class Value:
        """Two fields that count, one that does not, one that is not shown."""

        first: int
        second: tuple[str, ...] = ()
        third: int = field(default=0, compare=False)
        secret: str = field(default="", repr=False)

    return decorate(Value)  # type: ignore[no-any-return]


Ours: Any = _make(dataclass(frozen=True))
Theirs: Any = _make(dataclasses.dataclass(frozen=True))
Ours.__qualname__, Ours.__module__ = "Ours", __name__


def test_values_are_made_compared_hashed_and_shown_as_by_dataclasses() -> None:
    """Field by field: what does not count does not, what is not shown is not."""
    for one, other in (
        ((1,), (1,)),
        ((1, ("a",)), (1, ("b",))),
        ((1, (), 2), (1, (), 3)),
        ((1, (), 0, "s"), (1,)),
    ):
        assert (Ours(*one) == Ours(*other)) == (Theirs(*one) == Theirs(*other))
        assert hash(Ours(*one)) == hash(Theirs(*one))
        assert repr(Ours(*one)) == repr(Theirs(*one)).replace(Theirs.__qualname__, "Ours")
    assert Ours(1) != Theirs(1)
    assert [one.name for one in dataclasses.fields(Ours)] == [one.name for one in dataclasses.fields(Theirs)]
    assert dataclasses.asdict(Ours(1)) == dataclasses.asdict(Theirs(1))
    assert dataclasses.replace(Ours(1, ("a",)), first=2) == Ours(2, ("a",))


def test_a_value_does_not_change() -> None:
    """No field is set again or deleted, no attribute is added; copies and pickles are equal."""
    value = Ours(1)
    for name in ("first", "third", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.first
    assert value == copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == Ours(1)


def test_a_class_keeps_methods_of_its_own() -> None:
    """As with dataclasses, what a class defines itself is not replaced."""

    @dataclass(frozen=True)
    class Own:
        """Equal by its size."""

        value: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and len(self.value) == len(other.value)

        def __hash__(self) -> int:
            return len(self.value)

        def __repr__(self) -> str:
            return "own"

    assert Own("a") == Own("b")
    assert (hash(Own("abc")), repr(Own("a"))) == (3, "own")
