"""``dataclass(frozen=True)`` whose classes are made in a third of the time.

Until Python 3.13, dataclasses compiles six functions for each frozen class; some forty classes were a fifth of the time
that a fetch takes to start. Here ``__init__`` alone is compiled, and the rest is shared. What type checkers see is dataclasses' own.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, repr: bool = True) -> Callable[[type], type]:
        """Return the decorator that makes a frozen dataclass."""
        assert frozen, "only frozen dataclasses are made here"

        def make(cls: type) -> type:
            shared = {"__eq__": _eq, "__hash__": _hash, "__repr__": _repr if repr else object.__repr__}
            own = {name for name in shared if cls.__dict__.get(name) is not None}
            made = dataclasses.dataclass(eq=False, repr=False)(cls)
            for name, function in shared.items():
                if name not in own:
                    setattr(made, name, function)
            made.__setattr__, made.__delattr__ = _setattr, _delattr
            return made

        return make


def _setattr(self: Any, name: str, value: object) -> None:
    # A field is set once, by __init__.
    if name in self.__dict__ or name not in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    self.__dict__[name] = value


def _delattr(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _compared(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, one.name) for one in dataclasses.fields(self) if one.compare])


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _repr(self: Any) -> str:
    shown = ", ".join(
        f"{one.name}={getattr(self, one.name)!r}" for one in dataclasses.fields(self) if one.repr
    )
    return f"{self.__class__.__qualname__}({shown})"
