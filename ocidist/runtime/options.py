"""What a person asks of a bundle beside what the image says."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal, Mapping, Sequence

from ocidist.errors import UsageError, quoted

__all__ = ["BundleOptions", "Mount", "parse_pair"]

_SYNTAX = "write type=bind,source=PATH,target=PATH[,readonly] or type=tmpfs,target=PATH"
_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    **{name: name for name in ("type", "source", "target", "readonly", "options")},
}
_DEFAULTS = {"bind": ("rbind", "rprivate"), "tmpfs": ("nosuid", "nodev")}


@dataclass(frozen=True)
class Mount:
    """As the runtime specification has it (config.md, "Mounts")."""

    destination: str
    type: str
    source: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Docker's and ctr's ``--mount``: fields of a line of CSV, ``options`` parted by colons.

        A bind's source is made absolute and must exist. Raises UsageError.
        """
        fields = _fields(text)
        kind = fields.get("type", "bind")
        if kind not in _DEFAULTS:
            raise _bad(text, f"{quoted(kind)} is no type of mount here; {_SYNTAX}")
        destination = fields.get("target", "")
        if not destination.startswith("/") or "/../" in f"{destination}/":
            raise _bad(text, f"its target is to be an absolute path in the container; {_SYNTAX}")
        source = fields.get("source", "tmpfs" if kind == "tmpfs" else "")
        if kind == "bind":
            source = os.path.abspath(source) if source else ""
            if not os.path.exists(source):
                raise _bad(text, f"its source {quoted(source)} does not exist; {_SYNTAX}")
        options = tuple(fields["options"].split(":")) if fields.get("options") else _DEFAULTS[kind]
        readonly = fields.get("readonly", "false").lower()
        if readonly not in ("", "1", "true", "0", "false"):
            raise _bad(text, "readonly is true or false")
        if readonly in ("", "1", "true"):
            options = (*options, "ro")
        return cls(destination, kind, source, options)

    def json(self) -> dict[str, object]:
        """The member of ``mounts``."""
        value: dict[str, object] = {
            "destination": self.destination,
            "type": self.type,
            "source": self.source,
        }
        return {**value, "options": list(self.options)} if self.options else value


def _fields(text: str) -> dict[str, str]:
    import csv

    if "\0" in text or "\n" in text:
        raise _bad(text, _SYNTAX)
    try:
        words = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise _bad(text, str(error)) from None
    fields: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        known = _NAMES.get(name)
        if known is None or known in fields:
            raise _bad(text, f"{quoted(name)} is {'given twice' if known else 'not known'}; {_SYNTAX}")
        fields[known] = value
    return fields


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"mount {quoted(text)}: {why}")


def parse_pair(text: str, what: str) -> tuple[str, str]:
    """``NAME=VALUE`` as a pair. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not name or not equals or "\0" in text:
        raise UsageError(f"{what} {quoted(text)}: write NAME=VALUE")
    return name, value


@dataclass(frozen=True)
class BundleOptions:
    """Everything is as the image has it, unless it is given here."""

    args: Sequence[str] | None = None
    """In place of the image's Cmd; its Entrypoint stays in front, as with ``docker run IMAGE ARGS``."""
    entrypoint: Sequence[str] | None = None
    """In place of the image's Entrypoint, whose Cmd then goes too; empty is none."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Set beside the image's variables, or over them."""
    user: str | int | None = None
    """As in an image: ``redis``, ``999``, ``999:999``, ``redis:root``."""
    mounts: tuple[Mount, ...] = ()
    """After the defaults."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Beside those of the image, or over them."""
    read_only: bool = False
    """The root filesystem can't be written; the image's volumes get a tmpfs with their content."""
    rootless: bool = False
    """A user namespace, so that the user who makes the bundle can run it."""
    network: Literal["private", "host"] | None = None
    """None: as runc's own specs: host's for rootless (which may not set up another), else private (loopback alone)."""
    terminal: bool = False
    """A terminal of its own."""

    def __post_init__(self) -> None:
        """Raises UsageError for what a type checker would not let pass, and for an empty user."""
        for name in ("args", "entrypoint"):
            words = getattr(self, name)
            if isinstance(words, str):
                raise UsageError(f"{name} is a list of words, as in {[words]!r}")
            if words is not None:
                object.__setattr__(self, name, tuple(words))
        if self.user == "":
            raise UsageError("an empty user is nobody; write NAME, UID, or either with :GROUP or :GID")
        if self.network not in (None, "private", "host"):
            raise UsageError(f"network {quoted(self.network)}: private or host")
