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
from ocidist.layers.reading import TreeReader
from ocidist.rootfs import whole_tree
from ocidist.runtime import accounts, spec
from ocidist.runtime import mappings as maps
from ocidist.runtime.annotations import left_out
from ocidist.runtime.inside import Inside
from ocidist.runtime.options import BundleOptions, Mount

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.spec.config import ImageConfig
    from ocidist.spec.manifest import Manifest
    from ocidist.store import Store

__all__ = ["Bundle", "write_bundle"]

_KERNEL = ("/proc", "/dev")  # what is there belongs to the host, and no image has a say in it
_BEING_MADE = "a bundle is being made there; if that was killed, remove the directory"
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
    _refuse_full(path)
    if config.platform.os not in ("", "linux"):
        raise BundleError("the image", f"is for {config.platform.os}; runc and crun run linux")
    with _unpacked(store, manifest, config, scope) as tree:
        try:
            reader = TreeReader(tree)
        except OSError as error:
            raise BundleError(str(tree), error.strerror or str(error)) from error
        with closing(reader):
            document = _document(Inside(reader), config, options)
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
    _check_working_directory(inside, spec.working_directory(config.run))
    volumes = _volumes(inside, config, options) if options.read_only else []
    return spec.runtime_config(config, account, options, mappings=mappings, volumes=volumes)


@contextmanager
def _unpacked(store: Store, manifest: Manifest, config: ImageConfig, scope: Scope) -> Iterator[Path]:
    """The committed tree of the image, which no collector takes while the block runs."""
    if store.readonly:
        chain = store.chain_of(config)
        if chain is None:
            raise BundleError(str(store.root), "opened read-only, and the image is not unpacked in it")
        with whole_tree(store, str(chain), scope) as tree:
            yield tree
        return
    with store.lease(scope=scope) as lease, scope.child(lease=lease) as inner:
        chain = store.unpack(manifest, config, inner)
        with whole_tree(store, str(chain), inner) as tree:
            yield tree


def _check_working_directory(inside: Inside, path: str) -> None:
    """A process that starts in /proc/self/fd/N starts on the host (CVE-2024-21626)."""
    real = inside.real(path)
    if any(_is_in(real, each) for each in _KERNEL):
        raise BundleError(
            "the image", f"its working directory {quoted(path)} leads into {real[:5].rstrip('/')}"
        )


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
        if info is not None and stat.S_ISDIR(info.st_mode):
            how.append(f"mode={stat.S_IMODE(info.st_mode):o}")
            if not options.rootless:  # there all files are root's
                how += [f"uid={info.st_uid}", f"gid={info.st_gid}"]
        found.append(Mount(path, "tmpfs", "tmpfs", tuple(how)))
    return found


# -- the directory --


def _refuse_full(path: Path) -> None:
    try:
        found = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(str(path), error.strerror or str(error)) from error
    if "rootfs" in found and "config.json" not in found:
        reason = _BEING_MADE
    else:
        reason = "the directory is not empty; a bundle needs one of its own"
    if found:
        raise BundleError(str(path), reason)


def _write(path: Path, tree: Path, document: Mapping[str, Any], scope: Scope) -> None:
    from ocidist.snapshots.trees import copy_tree

    try:
        raw = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError as error:  # of the command line: JSON has no other bytes
        raise BundleError(quoted(error.object[error.start : error.start + 20]), "is no UTF-8") from None
    with _claimed(path) as rootfs:
        copy_tree(tree, rootfs, scope.check)
        new = path / ".config.json.new"
        new.write_bytes(raw)
        os.replace(new, path / "config.json")


@contextmanager
def _claimed(path: Path) -> Iterator[Path]:
    """``path``, made or empty, 0700, with an empty rootfs: who makes that has the directory. After an error it is
    as it was."""
    before = None
    try:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            found = os.stat(path)
            if (
                hasattr(os, "geteuid") and found.st_uid != os.geteuid()
            ):  # who owns it can let anybody in again
                raise BundleError(str(path), "the directory belongs to another user") from None
            before = stat.S_IMODE(found.st_mode)
            os.chmod(path, 0o700)
        rootfs = path / "rootfs"
        try:
            os.mkdir(rootfs, 0o755)
        except FileExistsError:
            raise BundleError(str(path), _BEING_MADE) from None
    except OSError as error:
        raise BundleError(error.filename or str(path), error.strerror or str(error)) from error
    try:
        yield rootfs
    except BaseException as error:
        _clear(path, before)
        if isinstance(error, OSError):
            raise BundleError(error.filename or str(path), error.strerror or str(error)) from error
        raise


def _clear(path: Path, mode: int | None) -> None:
    from ocidist.snapshots.trees import remove_tree

    try:
        for name in (".config.json.new", "config.json"):
            (path / name).unlink(missing_ok=True)
        remove_tree(path / "rootfs")
        if mode is None:
            os.rmdir(path)
        else:
            os.chmod(path, mode)
    except OSError:
        pass  # what went wrong first is what is to be told
