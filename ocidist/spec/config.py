"""Image configs: what a container of the image runs as, and the DiffIDs of its layers.

Sources: OCI image specification, config.md; Docker's image specification 1.2 where it differs.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING, Any, Mapping

from ocidist.errors import InvalidManifest, quoted
from ocidist.frozen import dataclass
from ocidist.spec import document
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["History", "ImageConfig", "RunConfig", "parse_time"]

_WHAT = "image config"
_NAMES = (
    "created",
    "author",
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
    "config",
    "rootfs",
    "history",
)
_RUN_NAMES = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
)
_HISTORY_NAMES = ("created", "created_by", "author", "comment", "empty_layer")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))\Z"
)


@dataclass(frozen=True)
class History:
    """One step of the build. ``empty_layer`` steps made no layer. ``created`` is UTC."""

    created: datetime | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True)
class RunConfig:
    """How a container starts. ``entrypoint`` and ``cmd`` are None where the image does not set them."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True)
class ImageConfig:
    """A parsed image config. ``raw`` are its bytes, ``data`` all of its JSON, also what is not specified."""

    raw: bytes = field(repr=False)
    data: Mapping[str, Any] = field(repr=False, compare=False)
    platform: Platform
    created: datetime | None
    author: str
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]
    run: RunConfig

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Only for blobs of an image config's media type (``mediatype.is_config``). Raises InvalidManifest.

        Members that are missing read as empty: signatures and other artifacts travel under this type.
        """
        data = document.decode(raw, _WHAT)
        document.check_names(data, _NAMES, _WHAT)
        return cls(
            raw=bytes(raw),
            data=data,
            platform=Platform.from_json(data, _WHAT),
            created=parse_time(document.get_string(data, "created", _WHAT)),
            author=document.get_string(data, "author", _WHAT),
            diff_ids=_diff_ids(document.get_object(data, "rootfs", _WHAT)),
            history=tuple(
                _history(value, document.path("history", number))
                for number, value in enumerate(document.get_array(data, "history", _WHAT))
            ),
            run=_run(document.get_object(data, "config", _WHAT)),
        )

    def descriptor(self, media_type: str) -> Descriptor:
        """Of the raw bytes, under ``media_type``."""
        return Descriptor(media_type, Digest.of(self.raw), len(self.raw))


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time in UTC, cut to microseconds; None for anything else, and for Go's zero time.

    Lenient by intent: a date that can't be read must not hide an image that can.
    """
    match = _TIME.match(text)
    if match is None or text.startswith("0001-01-01T00:00:00"):
        return None
    from datetime import datetime, timedelta, timezone

    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction = int((match.group(7) or "0")[:6].ljust(6, "0"))
    offset = timedelta(hours=int(match.group(9) or 0), minutes=int(match.group(10) or 0))
    try:
        local = datetime(year, month, day, hour, minute, second, fraction, tzinfo=timezone.utc)
        return local + offset if match.group(8) == "-" else local - offset
    except (ValueError, OverflowError):
        return None


def _diff_ids(rootfs: Mapping[str, Any]) -> tuple[Digest, ...]:
    document.check_names(rootfs, ("type", "diff_ids"), _WHAT, "rootfs")
    kind = document.get_string(rootfs, "type", _WHAT, "rootfs")
    if kind not in ("", "layers"):
        raise InvalidManifest(_WHAT, f"a root filesystem of type {quoted(kind)} is not known", "rootfs.type")
    return tuple(
        document.get_digest(value, _WHAT, document.path("rootfs.diff_ids", number))
        for number, value in enumerate(document.get_array(rootfs, "diff_ids", _WHAT, "rootfs"))
    )


def _history(value: Any, where: str) -> History:
    members = document.as_object(value, _WHAT, where)
    document.check_names(members, _HISTORY_NAMES, _WHAT, where)
    empty = members.get("empty_layer")
    if empty is not None and not isinstance(empty, bool):
        raise InvalidManifest(_WHAT, "empty_layer is true or false", document.path(where, "empty_layer"))
    return History(
        created=parse_time(document.get_string(members, "created", _WHAT, where)),
        created_by=document.get_string(members, "created_by", _WHAT, where),
        author=document.get_string(members, "author", _WHAT, where),
        comment=document.get_string(members, "comment", _WHAT, where),
        empty_layer=bool(empty),
    )


def _run(members: Mapping[str, Any]) -> RunConfig:
    document.check_names(members, _RUN_NAMES, _WHAT, "config")
    return RunConfig(
        user=document.get_string(members, "User", _WHAT, "config"),
        env=document.get_strings(members, "Env", _WHAT, "config"),
        entrypoint=_words(members, "Entrypoint"),
        cmd=_words(members, "Cmd"),
        working_dir=document.get_string(members, "WorkingDir", _WHAT, "config"),
        labels=document.get_string_map(members, "Labels", _WHAT, "config"),
        exposed_ports=tuple(document.get_object(members, "ExposedPorts", _WHAT, "config")),
        volumes=tuple(document.get_object(members, "Volumes", _WHAT, "config")),
        stop_signal=document.get_string(members, "StopSignal", _WHAT, "config"),
    )


def _words(members: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, str):  # Docker's reader takes one string for a list of one
        return (value,)
    return document.get_strings(members, name, _WHAT, "config")
