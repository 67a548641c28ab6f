"""Where images come from and go to: Source, Sink and Tags, each bound to one repository.

Registries, the store, and whatever plugs in implement them; ``graph.copy`` knows nothing else of a remote.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple, Protocol

from ocidist.content.protocols import Body
from ocidist.errors import UsageError
from ocidist.frozen import dataclass
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor

__all__ = ["Origin", "Remote", "Repository", "Sink", "Source", "Tags"]


class Origin(NamedTuple):
    """A repository of a registry that has a blob: ``docker.io`` and ``library/redis``."""

    host: str
    repository: str


class Source(Protocol):
    """Reads. Nothing it returns is verified, except the bytes that ``resolve`` returns."""

    @property
    def host(self) -> str:
        """Return the host whose load counts, ``docker.io``; "" for none: copies from one host share their limits."""
        ...

    def origin(self, target: Descriptor) -> Origin | None:
        """Return the repository of a registry that has ``target``, if one is known."""
        ...

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        """Return what ``name`` (a tag or a digest; "" is the default) stands for, and its bytes if they are at hand.

        The bytes verify against the descriptor. ``need_bytes`` says that the caller reads them next. ``hint`` of None
        asks for a manifest or an index; a media type, or "" if it is unknown, asks for any object, whose size is
        negative where it can't be told. Raises NotFound.
        """
        ...

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        """Return the bytes of ``target`` from ``offset`` on, unverified. Raises NotFound."""
        ...


class Sink(Protocol):
    """Writes. A parent is pushed after its children, and tagged last."""

    def exists(self, target: Descriptor, scope: Scope) -> bool:
        """Return whether ``target`` is here, whole."""
        ...

    def push(self, target: Descriptor, source: Source, scope: Scope) -> None:
        """Write ``target``'s verified bytes, resuming where that is possible.

        ``source.origin`` tells where the object is known: a registry may mount it from there.
        """
        ...

    def tag(self, name: str, target: Descriptor, scope: Scope) -> None:
        """Let ``name`` stand for ``target`` from now on. Raises NotFound if that is not here."""
        ...


class Repository(Source, Sink, Protocol):
    """A Source and a Sink in one, as a store is."""


class Tags(Protocol):
    """Lists the tags of a repository."""

    def tags(self, scope: Scope) -> Iterator[str]:
        """Yield every tag, in the remote's order."""
        ...


@dataclass(frozen=True)
class Remote:
    """What a locator leads to: ``name``, in full, ``object``, a tag or a digest in it, and the parts that its kind has.

    ``docker.io/library/redis:7`` names the object ``7``; "" is the kind's default.
    """

    name: str
    object: str = ""
    source: Source | None = None
    sink: Sink | None = None
    tags: Tags | None = None

    def readable(self) -> Source:
        """Return the source. Raises UsageError for a kind that can't be read from."""
        if self.source is None:
            raise UsageError(f"{self.name}: images can't be read from a remote of this kind")
        return self.source
