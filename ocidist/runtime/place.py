"""The directory of a bundle, held by descriptors from the moment it is claimed to the end.

Another user who may write to its parent can exchange it at any time. So each step is one component from a
descriptor, a link is followed only where root or this user made it, and the last component is never one: what is
written, given a mode or removed is in the directory that was claimed, wherever it is by then.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ocidist.errors import BundleError
from ocidist.files import forget_acls, locate, replacing
from ocidist.trees.directory import FOLDER

__all__ = ["Place", "claimed", "refuse_full"]

_BEING_MADE = "a bundle is being made there; if that was killed, remove the directory"


@dataclass(frozen=True)
class Place:
    """A claimed directory and the empty ``rootfs`` in it, as descriptors."""

    fd: int
    rootfs: int

    def publish(self, name: str, data: bytes) -> None:
        """Write a file under a name of its own, and rename it to ``name``. Raises OSError."""
        with replacing(name, dir_fd=self.fd) as target:
            target.write(data)


def refuse_full(path: Path) -> None:
    """Raise BundleError unless ``path`` is missing or an empty directory, before anything else is done."""
    if os.path.islink(path):
        raise _link(path)
    try:
        found = os.listdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(str(path), error.strerror or str(error)) from error
    _refuse(path, found)


def _refuse(path: Path, found: list[str]) -> None:
    if "rootfs" in found and "config.json" not in found:
        raise BundleError(str(path), _BEING_MADE)
    if found:
        raise BundleError(str(path), "the directory is not empty; a bundle needs one of its own")


def _link(path: Path) -> BundleError:
    return BundleError(str(path), "it is a symbolic link; write where it leads")


@contextmanager
def claimed(path: Path) -> Iterator[Place]:
    """``path``, made or empty, 0700, with an empty rootfs: who makes that has the directory. After an error it is as
    it was before. Raises BundleError, also for an OSError of the block."""
    try:
        parent, name = locate(path)
    except OSError as error:
        raise BundleError(str(path), error.strerror or str(error)) from error
    try:
        with _claimed(path, parent, name) as place:
            yield place
            here = os.stat(name, dir_fd=parent, follow_symlinks=False)
            mine = os.fstat(place.fd)
            if (here.st_dev, here.st_ino) != (mine.st_dev, mine.st_ino):
                raise BundleError(str(path), "another process exchanged the directory while it was written")
    except OSError as error:
        raise BundleError(str(path), error.strerror or str(error)) from error
    finally:
        os.close(parent)


@contextmanager
def _claimed(path: Path, parent: int, name: str) -> Iterator[Place]:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        before = None
    except FileExistsError:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            raise _link(path) from None
        before = stat.S_IMODE(info.st_mode)
    fd = os.open(name, FOLDER, dir_fd=parent)
    try:
        if (
            hasattr(os, "geteuid") and os.fstat(fd).st_uid != os.geteuid()
        ):  # its owner can let anybody in again
            raise BundleError(str(path), "the directory belongs to another user")
        _refuse(path, os.listdir(fd))
        if before is None:
            forget_acls(fd)
        os.chmod(fd, 0o700)
        try:
            os.mkdir("rootfs", 0o700, dir_fd=fd)
        except FileExistsError:
            raise BundleError(str(path), _BEING_MADE) from None
        try:
            rootfs = os.open("rootfs", FOLDER, dir_fd=fd)
            try:
                yield Place(fd, rootfs)
            finally:
                os.close(rootfs)
        except BaseException:
            _clear(fd, parent, name, before)
            raise
    finally:
        os.close(fd)


def _clear(fd: int, parent: int, name: str, mode: int | None) -> None:
    from ocidist.snapshots.removal import remove_tree

    try:
        with suppress(FileNotFoundError):
            os.unlink("config.json", dir_fd=fd)
        remove_tree("rootfs", fd)
        if mode is not None:
            os.chmod(fd, mode)
        elif os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=parent, follow_symlinks=False)):
            os.rmdir(name, dir_fd=parent)
    except OSError:
        pass  # what went wrong first is what is to be told
