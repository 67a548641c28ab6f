"""Where images come from and go to.

A remote is bound to one repository; it is a Source, a Sink, or both. Registries, layouts, archives, the
store and a running containerd all are; ``transfer.copy_graph`` knows nothing else of them.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ocidist.content.protocols import Body
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor

__all__ = ["Sink", "Source"]


@runtime_checkable
class Source(Protocol):
    """Reads. Nothing it returns is verified, except what ``resolve`` returns as bytes."""

    def resolve(self, name: str, scope: Scope) -> tuple[Descriptor, bytes | None]:
        """What ``name`` (a tag or a digest; "" is the default) stands for.

        The bytes, where they came along and verify against the descriptor, else None. Raises NotFound.
        """
        ...

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> Body: ...


class Sink(Protocol):
    """Writes. A parent is pushed only after all of its children."""

    def exists(self, target: Descriptor, scope: Scope) -> bool: ...

    def push(
        self, target: Descriptor, source: Source, scope: Scope, *, mount_from: str | None = None
    ) -> None:
        """Bring ``target``'s verified bytes here, resuming where that is possible."""
        ...

    def tag(self, name: str, target: Descriptor, scope: Scope) -> None: ...
