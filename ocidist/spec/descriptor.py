"""Descriptors: what a piece of content is, how large, and which digest it must have.

Source: OCI image specification, descriptor.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Mapping

from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.spec.platform import Platform

__all__ = ["Descriptor"]

_NONE: Mapping[str, str] = {}


@dataclass(frozen=True)
class Descriptor:
    """One node of the graph of content. ``size`` is in bytes; two descriptors of one digest, size and
    media type are equal whatever else they carry."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)
    urls: tuple[str, ...] = field(default=(), compare=False)
    artifact_type: str = field(default="", compare=False)
    data: bytes | None = field(default=None, compare=False, repr=False)
