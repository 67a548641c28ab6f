"""A view of a store in which nothing exists yet: what is written replaces what lies in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

from ocidist.errors import BlobNotFound

if TYPE_CHECKING:
    from ocidist.content.protocols import Body, Info, Ingester, Writer
    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor
    from ocidist.spec.digest import Digest

__all__ = ["Absent"]


class Absent:
    """A Provider without blobs, and an Ingester into ``inner``; the rename of a commit replaces a damaged blob."""

    def __init__(self, inner: Ingester) -> None:
        self._inner = inner

    def info(self, digest: Digest) -> Info:
        raise BlobNotFound(str(digest), "it has to be fetched again")

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        raise BlobNotFound(target, "it has to be fetched again")

    def file(self, target: Descriptor, scope: Scope) -> int | None:
        raise BlobNotFound(target, "it has to be fetched again")

    def writer(
        self,
        key: str,
        *,
        total: int = 0,
        expected: Digest | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Writer:
        return self._inner.writer(key, total=total, labels=labels)
