"""A bundle's config.json: runc's own defaults, with what the image and the options say. PURE.

The defaults (mounts, capabilities, masked and read-only paths, and what differs without root) are those that
``runc spec`` and ``runc spec --rootless`` write; a test compares. Left out are the terminal and the 1024 files.

Sources: OCI runtime specification 1.0.2, config.md and config-linux.md; OCI image specification, conversion.md.
"""

from __future__ import annotations

import posixpath
from typing import Any, Mapping, Sequence

from ocidist.errors import BundleError, InvalidManifest, quoted
from ocidist.runtime import annotations as notes
from ocidist.runtime.accounts import Account
from ocidist.runtime.mappings import Mappings, Range
from ocidist.runtime.options import BundleOptions, Mount
from ocidist.spec.config import ImageConfig, RunConfig

__all__ = ["arguments", "environment", "runtime_config", "working_directory"]

VERSION = "1.0.2"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = "ocidist"

CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"),
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_QUIET = ("nosuid", "noexec", "nodev")
_BEFORE_SYS = (
    Mount("/proc", "proc", "proc"),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
)
_PTS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
_AFTER_PTS = (
    Mount("/dev/shm", "tmpfs", "shm", (*_QUIET, "mode=1777", "size=65536k")),
    Mount("/dev/mqueue", "mqueue", "mqueue", _QUIET),
)
_CGROUP = Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_QUIET, "relatime", "ro"))


def runtime_config(
    config: ImageConfig,
    account: Account,
    options: BundleOptions,
    *,
    cwd: str | None = None,
    mappings: Mappings | None = None,
    volumes: Sequence[Mount] = (),
) -> dict[str, Any]:
    """The whole document. ``cwd`` is the working directory, the image's as it is written by default; ``mappings`` are those of a rootless bundle; ``volumes`` come before the options' mounts.

    Raises BundleError for an image that names no program, InvalidManifest for what no process can be given.
    """
    run = config.run
    user: dict[str, Any] = {"uid": account.uid, "gid": account.gid}
    if account.groups and mappings is None:  # without root runc can't set any
        user["additionalGids"] = list(account.groups)
    env = environment(run, options)
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": options.terminal,
            "user": user,
            "args": arguments(run, options),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": working_directory(run) if cwd is None else cwd,
            "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": options.read_only},
        "hostname": HOSTNAME,
        "mounts": [mount.json() for mount in (*_mounts(mappings, options), *volumes, *options.mounts)],
        "annotations": {**notes.of_config(config), **options.annotations},
        "linux": _linux(mappings, options),
    }


def arguments(run: RunConfig, options: BundleOptions) -> list[str]:
    """The image's Entrypoint and Cmd, or what takes their place."""
    entrypoint: Sequence[str] = run.entrypoint or ()
    cmd: Sequence[str] = run.cmd or ()
    if options.entrypoint is not None:
        entrypoint, cmd = options.entrypoint, ()
    if options.args is not None:
        cmd = options.args
    words = [*entrypoint, *cmd]
    if not words or not words[0]:
        raise BundleError("the image", "names no program to run; write one behind --")
    if any("\0" in word for word in words):
        raise InvalidManifest("image config", "an argument has a NUL character", "config.Cmd")
    return words


def environment(run: RunConfig, options: BundleOptions) -> dict[str, str]:
    """The image's variables, the last of one name, with the options' over them, and a PATH where it has none."""
    env: dict[str, str] = {}
    for entry in run.env:
        name, equals, value = entry.partition("=")
        if not name or not equals or "\0" in entry:
            raise InvalidManifest("image config", f"{quoted(entry)} is no NAME=VALUE", "config.Env")
        env[name] = value
    env.update(options.env)
    if options.terminal:
        env.setdefault("TERM", "xterm")
    return env if "PATH" in env else {"PATH": PATH, **env}


def working_directory(run: RunConfig) -> str:
    """The image's, absolute; ``/`` where it has none."""
    if "\0" in run.working_dir:
        raise InvalidManifest("image config", "it has a NUL character", "config.WorkingDir")
    return posixpath.join("/", run.working_dir)


def _private_network(mappings: Mappings | None, options: BundleOptions) -> bool:
    return options.network == "private" if options.network else mappings is None


def _mounts(mappings: Mappings | None, options: BundleOptions) -> list[Mount]:
    pts: tuple[str, ...] = _PTS
    sys = Mount("/sys", "sysfs", "sysfs", (*_QUIET, "ro"))
    if mappings is None:
        pts = (*_PTS, "gid=5")  # a user namespace may not have it
    elif not _private_network(mappings, options):
        # sysfs can be mounted by whom the network belongs to.
        sys = Mount("/sys", "none", "/sys", ("rbind", *_QUIET, "ro"))
    return [*_BEFORE_SYS, Mount("/dev/pts", "devpts", "devpts", pts), *_AFTER_PTS, sys, _CGROUP]


def _linux(mappings: Mappings | None, options: BundleOptions) -> dict[str, Any]:
    linux: dict[str, Any] = {}
    namespaces = ["pid", "ipc", "uts", "mount"]
    if _private_network(mappings, options):
        namespaces.insert(1, "network")
    if mappings is None:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    else:
        namespaces.append("user")
        linux["uidMappings"] = [_mapping(each) for each in mappings.uids]
        linux["gidMappings"] = [_mapping(each) for each in mappings.gids]
    linux["namespaces"] = [{"type": name} for name in namespaces]
    linux["maskedPaths"], linux["readonlyPaths"] = list(MASKED), list(READONLY)
    return linux


def _mapping(each: Range) -> Mapping[str, int]:
    return {"containerID": each.container, "hostID": each.host, "size": each.size}
