"""Images in memory as a Source, for tests that need no registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.parts.images import TestImage

if TYPE_CHECKING:
    from ocidist.remotes.protocols import Origin
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor


@dataclass
class MemorySource:
    """``image``, whatever name is asked for."""

    image: TestImage

    @property
    def root(self) -> Descriptor:
        """What every name stands for."""
        from ocidist.spec.descriptor import Descriptor
        from ocidist.spec.digest import Digest
        from ocidist.spec.manifest import parse

        raw = self.image.everything()[self.image.digest].raw
        return Descriptor(parse(raw).media_type, Digest(self.image.digest), len(raw))

    host = ""

    def origin(self, target: Descriptor) -> Origin | None:
        return None

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        return self.root, None

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Any:
        from ocidist.content.verify import MemoryBody

        return MemoryBody(self.image.everything()[target.digest].raw, offset)
