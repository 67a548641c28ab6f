"""Platforms: ``os/architecture/variant``, what they are also called, and which image runs on which.

Sources: OCI image specification, image-index.md, "platform"; Go's names of systems and architectures;
containerd's platforms package for aliases, defaults and the order of fall-backs.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Iterator, Sequence

from ocidist.errors import PlatformNotFound, UsageError, quoted
from ocidist.frozen import dataclass
from ocidist.spec import document, mediatype
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from ocidist.spec.descriptor import Descriptor

__all__ = ["Platform", "fits", "is_attestation", "is_image", "require_fit", "select"]

_NAMES = ("architecture", "os", "os.version", "os.features", "variant", "features")
_PART = re.compile(r"[A-Za-z0-9_.-]+\Z")
_OS_PART = re.compile(r"([A-Za-z0-9_.-]+)(?:\(([A-Za-z0-9_.-]*)((?:\+[A-Za-z0-9_.-]+)*)\))?\Z")
_OS_NAMES = """
aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris wasip1
windows zos
"""
_ARCHITECTURE_NAMES = """
386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc
sparc64 wasm
"""
_KNOWN_OS = frozenset(_OS_NAMES.split())
_KNOWN_ARCHITECTURES = frozenset(_ARCHITECTURE_NAMES.split())
_ALIASES = {"i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
# Two names of Debian's that are an architecture and a variant at once.
_ARM_ALIASES = {"armhf": "v7", "armel": "v6"}
# What uname says where it is neither Go's name nor an alias above.
_MACHINES = {
    **dict.fromkeys(("i486", "i586", "i686"), "386"),
    "loongarch64": "loong64",
    "armv8l": "arm/v8",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "armv5tel": "arm/v5",
    "armv5tejl": "arm/v5",
    "wasm32": "amd64",  # in a browser nothing runs but the interpreter: show what most people would be shown
}


@dataclass(frozen=True)
class Platform:
    """Which machine an image is for. As written; compare ``normalized()`` ones."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        system = self.os or "unknown"
        if self.os_version or self.os_features:
            system += f"({'+'.join([self.os_version, *self.os_features])})"
        parts = [system, self.architecture or "unknown"]
        return "/".join([*parts, self.variant] if self.variant else parts)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux``, ``arm64``, ``linux/arm/v7``, ``windows(10.0.17763+win32k)/amd64``, ``linux(+feature)/amd64``;
        normalised.

        One word is a system (with the host's architecture) or an architecture (of linux). Raises UsageError;
        ``all`` is no platform.
        """
        if text == "all":
            raise UsageError("platform 'all' is not one platform, and one is needed here")
        parts = text.split("/")
        first = _OS_PART.match(parts[0])
        if len(parts) > 3 or first is None or not all(_PART.match(part) for part in parts[1:]):
            raise UsageError(f"platform {quoted(text)} is not OS/ARCH[/VARIANT], as in linux/arm/v7")
        system, version = first.group(1), first.group(2) or ""
        features = tuple((first.group(3) or "").split("+")[1:])
        if len(parts) > 1:
            variant = parts[2] if len(parts) == 3 else ""
            if cls("", system).normalized().architecture in _KNOWN_ARCHITECTURES and system not in _KNOWN_OS:
                raise UsageError(f"platform {quoted(text)} begins with an architecture; write linux/{text}")
            return cls(system, parts[1], variant, version, features).normalized()
        lone = cls(system, "", os_version=version).normalized()
        if lone.os in _KNOWN_OS:
            host = cls.host()
            return cls(lone.os, host.architecture, host.variant, version, features)
        lone = cls("linux", system).normalized()
        if lone.architecture in _KNOWN_ARCHITECTURES and not version and not features:
            return lone
        raise UsageError(f"platform {quoted(text)}: no operating system or architecture has that name")

    @classmethod
    def host(cls) -> Platform:
        """Linux on this machine's architecture: images are for Linux wherever they are looked at."""
        try:
            machine = os.uname().machine
        except AttributeError:  # Windows; the platform module takes its time to load
            import platform

            machine = platform.machine()
        return cls._of_machine(machine)

    @classmethod
    def _of_machine(cls, machine: str) -> Platform:
        name, _, variant = _MACHINES.get(machine.lower(), machine.lower()).partition("/")
        return cls("linux", name or "unknown", variant).normalized()

    def normalized(self) -> Platform:
        """The one spelling: Go's names; ``arm`` with a variant (v7 if none); no ``v8`` on arm64, no ``v1`` on
        amd64."""
        system, name, variant = self.os.lower(), self.architecture.lower(), self.variant.lower()
        name = _ALIASES.get(name, name)
        if name in _ARM_ALIASES:
            name, variant = "arm", _ARM_ALIASES[name]
        elif name == "386":
            variant = "" if self.architecture.lower() == "i386" else variant
        elif name == "amd64":
            variant = "" if variant == "v1" else variant
        elif name == "arm64":
            variant = {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}.get(
                variant, variant
            )
        elif name == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        system = "darwin" if system == "macos" else system
        return Platform(system, name, variant, self.os_version, self.os_features)

    @classmethod
    def from_json(cls, value: Any, what: str = "platform", where: str = "") -> Platform:
        """The ``platform`` of a descriptor, or those members of an image config. Raises InvalidManifest."""
        members = document.as_object(value, what, where)
        document.check_names(members, _NAMES, what, where)
        return cls(
            os=document.get_string(members, "os", what, where),
            architecture=document.get_string(members, "architecture", what, where),
            variant=document.get_string(members, "variant", what, where),
            os_version=document.get_string(members, "os.version", what, where),
            os_features=document.get_strings(members, "os.features", what, where),
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dict, in the specification's order, without empty members."""
        value: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            value["os.version"] = self.os_version
        if self.os_features:
            value["os.features"] = list(self.os_features)
        if self.variant:
            value["variant"] = self.variant
        return value


def select(candidates: Sequence[Descriptor], wanted: Platform) -> Descriptor:
    """The candidate for ``wanted``: the exact platform, else the nearest that such a machine runs too.

    The order is containerd's: arm v7 runs v6 and v5; amd64 v3 runs v2, v1, then 386; arm64 runs arm v8 and
    below. A wanted ``os_version`` must be met exactly; among equals one with the wanted ``os_features`` stands, else
    the first. Where no platform matches, the first candidate that names no platform at all is taken (a
    layout of one image; ``transfer.pick`` asks the configs of several), unless it says that it is an artifact. Raises PlatformNotFound, and InvalidDigest where all
    that there is for the platform has a digest of an unknown algorithm.
    """
    item = _chosen(candidates, wanted)
    Digest(item.digest)
    return item


def _chosen(candidates: Sequence[Descriptor], wanted: Platform) -> Descriptor:
    stated = [(item, item.platform.normalized()) for item in candidates if item.platform is not None]
    features = set(wanted.os_features)
    for choice in _runs(wanted.normalized()):
        found = [(item, have) for item, have in stated if _same(choice, have)]
        if found:
            found = [each for each in found if type(each[0].digest) is Digest] or found
            return next((item for item, have in found if set(have.os_features) == features), found[0][0])
    for item in candidates:
        if item.platform is None and is_image(item):
            return item
    available = dict.fromkeys(str(item.platform) for item, _ in stated if not is_attestation(item))
    raise PlatformNotFound(str(wanted), tuple(available))


def fits(wanted: Platform, have: Platform) -> bool:
    """Return whether an image for ``have`` runs where ``wanted`` is asked for. What ``have`` doesn't say, as old
    configs do of their variant, is taken to fit."""
    if not have.os or not have.architecture:
        return True
    name = have.normalized()
    if not have.variant and name.architecture == wanted.normalized().architecture:
        name = replace(name, variant=wanted.normalized().variant)
    return any(_same(choice, name) for choice in _runs(wanted.normalized()))


def require_fit(wanted: Platform, have: Platform) -> None:
    """Raise PlatformNotFound if a single image, for ``have``, is not for the platform ``wanted``."""
    if not fits(wanted, have):
        raise PlatformNotFound(str(wanted), [str(have.normalized())], index=False)


def is_attestation(item: Descriptor) -> bool:
    """Return whether an entry of an index says of itself that it is BuildKit's attestation of another entry."""
    if item.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return True
    return item.platform is not None and (item.platform.os, item.platform.architecture) == ("unknown",) * 2


def is_image(item: Descriptor) -> bool:
    """Return whether an entry of an index is an image as far as the index tells: a manifest or an index, no attestation,
    and either for a platform or of no other artifact type than an image config's, as crane writes it."""
    if is_attestation(item) or mediatype.kind(item.media_type) not in ("manifest", "index"):
        return False
    return item.platform is not None or not item.artifact_type or mediatype.is_config(item.artifact_type)


def _same(wanted: Platform, have: Platform) -> bool:
    return (
        (wanted.os, wanted.architecture, wanted.variant) == (have.os, have.architecture, have.variant)
    ) and wanted.os_version in ("", have.os_version)


def _runs(host: Platform) -> Iterator[Platform]:
    """What runs on ``host``, best first, all normalised."""

    def with_(architecture: str, variant: str = "") -> Platform:
        return Platform(host.os, architecture, variant, host.os_version).normalized()

    yield host
    if host.architecture == "amd64":
        for level in range(_level(host.variant) - 1, 0, -1):
            yield with_("amd64", f"v{level}")
        yield with_("386")
    elif host.architecture == "arm":
        for level in range(_level(host.variant) - 1, 4, -1):
            yield with_("arm", f"v{level}")
    elif host.architecture == "arm64":
        yield from (with_("arm64", variant) for variant in _arm64_below(host.variant))
        for level in range(8, 4, -1):
            yield with_("arm", f"v{level}")


def _arm64_below(variant: str) -> Iterator[str]:
    """v9.x runs what v9.{x-1} and v8.{x+5} run (Arm's architecture reference, A2.1)."""
    match = re.match(r"v([89])(?:\.([0-9]))?\Z", variant or "v8")
    if match is None:
        return
    major, minor = match.group(1), int(match.group(2) or 0)
    if major == "9":
        yield from (f"v9.{level}" for level in range(minor - 1, -1, -1))
        minor += 6
    yield from (f"v8.{level}" for level in range(minor - 1, -1, -1))


def _level(variant: str) -> int:
    match = re.match(r"v([0-9]{1,2})\Z", variant)
    return int(match.group(1)) if match else 0
