"""Remotes: where images come from and go to, found by a locator.

A locator is ``KIND:BODY`` or ``KIND://BODY``; text without a kind is a reference at a registry, and so is what
reads as ``NAME:TAG``. More kinds plug in through the entry-point group ``ocidist.remotes``: the entry's name is the
kind, and what it loads is called with the locator and a :class:`Context` and returns a :class:`Remote`. Only
packages that are installed count: none of the working directory.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Protocol

from ocidist.errors import Unsupported, UsageError, quoted
from ocidist.frozen import dataclass
from ocidist.remotes.protocols import Remote, Repository
from ocidist.spec.reference import Reference

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ocidist.remotes.registry.hosts_toml import Endpoint
    from ocidist.remotes.registry.session import RegistrySession

    Factory = Callable[["Locator", "Context"], Remote]

__all__ = ["GROUP", "Context", "Locator", "Remote", "open"]

GROUP = "ocidist.remotes"
"""The entry-point group of further kinds."""

_REGISTRY = "registry"
_PREFIXES = {"docker": _REGISTRY, "registry": _REGISTRY}
_BUILT_IN = frozenset({"store", "oci", "oci-archive", "docker-archive"})
_KIND = re.compile(r"([a-z][a-z0-9+-]*):")
_FORMS = "write HOST/NAME:TAG, or store:NAME for an image of the store"
_PORT = re.compile(r"[0-9]+/")
_DIGEST = re.compile(r"sha(?:256|512):[0-9a-f]{7,128}\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(@[a-z0-9+._-]+:[0-9a-f]+)?\Z")


class Context(Protocol):
    """What a factory may use. Each part is made at its first use."""

    @property
    def session(self) -> RegistrySession:
        """Registries, with this client's credentials and transport."""
        ...

    def session_at(self, endpoint: Endpoint, host: str, *, last: bool) -> RegistrySession:
        """The same, for one of the hosts that answer for a registry."""
        ...

    def endpoints(self, host: str) -> tuple[Endpoint, ...]:
        """Return the hosts that answer for a registry; empty if hosts.toml has no entry."""
        ...

    @property
    def store(self) -> Repository:
        """The local store."""
        ...


@dataclass(frozen=True)
class Locator:
    """``kind`` ("registry", "store", "oci", … or a plugged-in one) and what it is about."""

    kind: str
    body: str

    @classmethod
    def parse(cls, text: str) -> Locator:
        """The locator that ``text`` is. What begins with no known kind is a reference: ``redis:7``. That stays one
        whatever is plugged in; a kind whose body looks like a tag is written with slashes: ``shelf://7``.

        Raises UsageError for ``KIND://…`` of an unknown kind, for a bare digest, and for an empty body.
        """
        found = _KIND.match(text)
        kind, rest = (found.group(1), text[found.end() :]) if found is not None else ("", text)
        slashes = rest.startswith("//")
        if kind in _PREFIXES and slashes:
            return cls._of(_PREFIXES[kind], rest[2:], text)
        if kind in _BUILT_IN:
            return cls._of(kind, rest[2:] if slashes and kind == "store" else rest, text)
        # NAME:TAG and a port (localhost:5000/…) have no kind; elsewhere the look-up decides, and is worth its time.
        if kind and not _TAG.match(rest) and not _PORT.match(rest) and _plugged(kind) is not None:
            return cls._of(kind, rest[2:] if slashes else rest, text)
        if _DIGEST.match(text):
            raise UsageError(
                f"{text} is a digest, not a name; write store:{text} for what is in the store, or NAME@{text}"
            )
        if slashes and kind in ("http", "https"):
            rest = rest.strip("/")
            name = "HOST/NAME" if not rest or "@" in rest.partition("/")[0] else quoted(rest)[1:-1]
            spoken = "; --plain-http speaks http" if kind == "http" else ""
            raise UsageError(f"{quoted(text)} is a URL; write {name}, without {kind}://{spoken}")
        if slashes:
            raise UsageError(f"{quoted(text)}: unknown kind of remote {quoted(kind)}; {_FORMS}")
        return cls._of(_REGISTRY, text, text)

    @classmethod
    def _of(cls, kind: str, body: str, text: str) -> Locator:
        if not body:
            raise UsageError(f"{quoted(text)} names no image; {_FORMS}")
        return cls(kind, body)

    def __str__(self) -> str:
        return self.body if self.kind == _REGISTRY else f"{self.kind}:{self.body}"


def open(locator: Locator | str, context: Context, object_: str | None = None) -> Remote:
    """Return what a locator leads to. Sends nothing yet.

    ``object_``, a tag or a digest, takes the place of the one that the locator names. Raises UsageError and
    Unsupported; an entry point that can't be loaded is an Unsupported that names it.
    """
    where = locator if isinstance(locator, Locator) else Locator.parse(locator)
    if where.kind == _REGISTRY:
        return _registry(Reference.of(where.body, object_), context)
    if where.kind == "store":
        name = Reference.of(where.body, object_).image_name if object_ else where.body
        return Remote(name, name, source=context.store, sink=context.store)
    entry = _plugged(where.kind)
    if entry is None:
        if where.kind in _BUILT_IN:
            raise Unsupported(
                f"{where}: images of this kind are not supported yet; copy it to a registry first, as by `skopeo copy`"
            )
        raise UsageError(f"{where}: unknown kind of remote {quoted(where.kind)}; {_FORMS}")
    try:
        factory: Factory = entry.load()
    except Exception as error:  # code of another package: whatever it raises, it can't be used
        raise Unsupported(
            f"the remote {where.kind!r} ({entry.value}) can't be loaded: {error}; reinstall or remove its package"
        ) from error
    remote = factory(where, context)
    if not object_:
        return remote
    return replace(remote, name=f"{where}{'@' if ':' in object_ else ':'}{object_}", object=object_)


def _registry(reference: Reference, context: Context) -> Remote:
    """A repository of a registry, at the registry itself or at the hosts that hosts.toml names for it."""
    endpoints = context.endpoints(reference.domain)
    if endpoints:
        from ocidist.remotes.registry import mirrors

        found = mirrors.repository(reference.name, endpoints, context)
        return Remote(reference.image_name, reference.object, source=found, tags=found)
    from ocidist.remotes.registry.client import RegistryRemote

    single = RegistryRemote(context.session, reference.name)
    return Remote(reference.image_name, reference.object, source=single, tags=single)


def _plugged(kind: str) -> EntryPoint | None:
    """The entry point of a kind, of the packages in ``sys.path``.

    Relative entries and the working directory, which notebooks and ``python -c`` have there, are left out: anybody's
    files may lie in it.
    """
    from importlib.metadata import distributions

    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = ""
    folders = [folder for folder in sys.path if os.path.isabs(folder) and folder != here]
    points = (point for package in distributions(path=folders) for point in package.entry_points)
    return next((point for point in points if point.group == GROUP and point.name == kind), None)
