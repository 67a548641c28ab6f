"""A bundle: a directory with an image's tree to be written in, and the config.json that a runtime starts it by.

The directory is 0700: setuid programs of an image are out of reach of other users (CVE-2021-41103). ``rootfs`` is
made first and config.json last, by a rename, so that what has one is whole; after an error nothing is left.

Source: OCI runtime specification, bundle.md.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Mapping

from ocidist.errors import BundleError, quoted
from ocidist.runtime import accounts, spec
from ocidist.runtime import mappings as maps
from ocidist.runtime.annotations import left_out
from ocidist.runtime.inside import Inside
from ocidist.runtime.options import BundleOptions, Mount
from ocidist.runtime.place import claimed, refuse_full

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.config import ImageConfig
    from ocidist.spec.manifest import Manifest
    from ocidist.stores.store import Store
    from ocidist.trees.protocols import Reader

__all__ = ["Bundle", "write_bundle"]

_KERNEL = ("/proc", "/dev")  # what is there belongs to the host, and no image has a say in it
_MOUNTED = (*_KERNEL, "/sys")


@dataclass(frozen=True)
class Bundle:
    """``config`` is what config.json says; ``left_out`` the labels that are no annotations, because a runtime could
    take them for options."""

    path: Path
    config: Mapping[str, Any] = field(repr=False)
    left_out: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)


def write_bundle(
    store: Store,
    manifest: Manifest,
    config: ImageConfig,
    path: Path,
    options: BundleOptions,
    scope: Scope,
) -> Bundle:
    """Make ``path`` a bundle of an image of ``store``, unpacking it first where that is not done yet.

    ``path`` may be an empty directory. Raises BundleError if it is anything else, or for an account or a program
    that the image does not have; what unpacking raises; and leaves nothing then.
    """
    refuse_full(path)
    if config.platform.os not in ("", "linux"):
        raise BundleError("the image", f"is for {config.platform.os}; runc and crun run linux")
    with _unpacked(store, manifest, config, scope) as tree:
        document = _document(Inside(tree), config, options)
        _write(path, tree, document, scope)
    return Bundle(path, document, left_out(config))


def _document(inside: Inside, config: ImageConfig, options: BundleOptions) -> dict[str, Any]:
    """config.json, after all that can be refused has been looked at."""
    user = options.user if options.user is not None else config.run.user
    account = accounts.find(str(user), inside.read)
    mappings = maps.of_process() if options.rootless else None
    if mappings is not None and not mappings.has(account.uid, account.gid):
        raise BundleError(
            f"user {account.uid}:{account.gid}",
            "no ranges of /etc/subuid and /etc/subgid map it for you (newuidmap has to be there for them); "
            "--user 0 runs as yourself",
        )
    cwd = _working_directory(inside, spec.working_directory(config.run))
    volumes = _volumes(inside, config, options) if options.read_only else []
    return spec.runtime_config(config, account, options, cwd=cwd, mappings=mappings, volumes=volumes)


@contextmanager
def _unpacked(store: Store, manifest: Manifest, config: ImageConfig, scope: Scope) -> Iterator[Reader]:
    """The committed tree of the image, which no collector takes while the block runs."""
    if store.readonly:
        chain = store.chain_of(config)
        if chain is None:
            raise BundleError(store.place.name, "opened read-only, and the image is not unpacked in it")
        with closing(store.local_trees().reader(str(chain))) as tree:
            yield tree
        return
    with store.lease(scope=scope) as lease, scope.child(lease=lease) as inner:
        chain = store.unpack(manifest, config, inner)
        with closing(store.local_trees().reader(str(chain))) as tree:
            yield tree


def _working_directory(inside: Inside, path: str) -> str:
    """Where ``path`` leads: a process that starts in /proc/self/fd/N starts on the host (CVE-2024-21626), and in
    /proc/self/fd/N/.. above that. So the runtime gets no link and no ``..`` to follow."""
    real = inside.real(path)
    if any(_is_in(real, each) for each in _KERNEL):
        raise BundleError(
            "the image", f"its working directory {quoted(path)} leads into {real[:5].rstrip('/')}"
        )
    return real


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _volumes(inside: Inside, config: ImageConfig, options: BundleOptions) -> list[Mount]:
    """The image's volumes, each a tmpfs that starts with its content, mode and owner."""
    taken = {posixpath.normpath(mount.destination) for mount in options.mounts}
    found = []
    for volume in config.run.volumes:
        path = posixpath.normpath(posixpath.join("/", volume))
        path = "/" + path.lstrip("/")
        if path == "/" or "\0" in path or path in taken:
            continue
        real = inside.real(path)
        if any(_is_in(where, each) for where in (path, real) for each in _MOUNTED):
            continue
        taken.add(path)
        info = inside.stat(path)
        how = ["nosuid", "nodev", "tmpcopyup"]
        if info is not None:
            if not stat.S_ISDIR(info.mode):  # nothing can be mounted over it
                continue
            how.append(f"mode={stat.S_IMODE(info.mode):o}")
            if not options.rootless:  # there all files are root's
                how += [f"uid={info.uid}", f"gid={info.gid}"]
        found.append(Mount(path, "tmpfs", "tmpfs", tuple(how)))
    return found


def _write(path: Path, tree: Reader, document: Mapping[str, Any], scope: Scope) -> None:
    from ocidist.snapshots.copying import copy_tree

    try:
        raw = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError as error:  # of the command line: JSON has no other bytes
        raise BundleError(quoted(error.object[error.start : error.start + 20]), "is no UTF-8") from None
    with claimed(path) as place:
        try:
            copy_tree(tree, place.rootfs, scope.check)
        except OSError as error:
            where = os.path.join(path, "rootfs", os.fsdecode(error.filename or ""))
            raise BundleError(where.rstrip("/"), error.strerror or str(error)) from error
        place.publish("config.json", raw)
