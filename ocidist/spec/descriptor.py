"""Descriptors: what a piece of content is, how large, and which digest it must have.

Source: OCI image specification, descriptor.md.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Mapping

from ocidist.errors import InvalidManifest
from ocidist.frozen import dataclass
from ocidist.spec import document
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform

__all__ = ["MAX_SIZE", "Descriptor"]

MAX_SIZE = 2**63 - 1
"""Bytes: ``size`` is an int64 (descriptor.md, "Properties")."""

_NAMES = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")


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

    def __str__(self) -> str:
        """Return the digest."""
        return str(self.digest)

    @classmethod
    def from_json(
        cls, value: Any, what: str = "descriptor", where: str = "", *, any_algorithm: bool = False
    ) -> Descriptor:
        """The descriptor at ``where`` in the document ``what``. Raises InvalidManifest.

        ``data`` that is not the content of ``digest`` and ``size`` is refused, so it can be used as it is. With
        ``any_algorithm`` a digest may be an :class:`~ocidist.spec.digest.UnsupportedDigest`, without data.
        """
        members = document.as_object(value, what, where)
        document.check_names(members, _NAMES, what, where)
        at = document.path(where, "digest")
        digest = document.get_digest(members.get("digest"), what, at, any_algorithm=any_algorithm)
        size = _size(members.get("size"), what, document.path(where, "size"))
        platform = members.get("platform")
        return cls(
            media_type=_media_type(members, "mediaType", what, where, required=True),
            digest=digest,
            size=size,
            annotations=document.get_string_map(members, "annotations", what, where),
            platform=(
                None
                if platform is None
                else Platform.from_json(platform, what, document.path(where, "platform"))
            ),
            urls=document.get_strings(members, "urls", what, where),
            artifact_type=_media_type(members, "artifactType", what, where),
            data=_data(document.get_string(members, "data", what, where), digest, size, what, where)
            if members.get("data") is not None and type(digest) is Digest
            else None,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``json.dumps``, in the specification's order, without empty members."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            value["urls"] = list(self.urls)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.data is not None:
            import base64

            value["data"] = base64.b64encode(self.data).decode("ascii")
        if self.platform is not None:
            value["platform"] = self.platform.to_json()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value


def _size(value: Any, what: str, where: str) -> int:
    # type(), not isinstance(): True is an int to Python.
    if type(value) is not int:
        raise InvalidManifest(what, "size is a whole number of bytes", where)
    if not 0 <= value <= MAX_SIZE:
        raise InvalidManifest(what, "size is from 0 to 2^63-1 bytes", where)
    return value


def _media_type(members: Mapping[str, Any], name: str, what: str, where: str, required: bool = False) -> str:
    value = document.get_string(members, name, what, where)
    at = document.path(where, name)
    if required and not value:
        raise InvalidManifest(what, "a descriptor names its media type", at)
    # It goes into Accept and Content-Type headers: nothing there may end a line.
    if len(value) > 255 or not all(" " <= character <= "~" for character in value):
        raise InvalidManifest(what, "a media type is up to 255 printable ASCII characters", at)
    return value


def _data(text: str, digest: Digest, size: int, what: str, where: str) -> bytes:
    import base64
    import binascii

    at = document.path(where, "data")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidManifest(what, "data is not base64", at) from None
    if len(data) != size:
        raise InvalidManifest(what, f"data holds {len(data)} bytes, its descriptor says {size}", at)
    if Digest.of(data, digest.algorithm) != digest:
        raise InvalidManifest(what, "data does not have the digest of its descriptor", at)
    return data
