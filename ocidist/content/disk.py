"""What the store asks of the file system beyond the everyday: durable directories, and one kind of error."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from ocidist.errors import StoreError
from ocidist.files import forget_acls, set_mode

__all__ = [
    "CLOEXEC",
    "NOFOLLOW",
    "PRIVATE",
    "SHARED",
    "close_to_writers",
    "failure",
    "make_folder",
    "make_folders",
    "place_of",
    "refuse_links",
    "remove_file",
    "settle_folders",
    "sync_folder",
    "unwritable",
]

PRIVATE, SHARED = 0o700, 0o755
"""Modes of a store's folders: of its owner's alone, and of one that others may read."""

CLOEXEC = getattr(os, "O_CLOEXEC", 0)
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def failure(path: str, error: OSError, needed: int | None = None) -> StoreError:
    """The StoreError for an ``OSError`` on ``path``; ``needed`` is how many bytes were still to be written there."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno == errno.ENOSPC:
        reason += _room(path, needed)
    elif error.errno == errno.EACCES:
        reason += _whose(path)
    return StoreError(path, reason)


def place_of(error: OSError, otherwise: str) -> str:
    """The path that an error tells, if that is one and no descriptor."""
    name = error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) and name else otherwise


def _whose(path: str) -> str:
    """Say which folder on the way, or what itself, is another user's."""
    wanted = path
    while hasattr(os, "geteuid"):
        try:
            owner = os.lstat(path).st_uid
        except OSError:
            above = os.path.dirname(path)
            if above == path:
                break
            path = above
            continue
        what = "it" if path == wanted else path
        return "" if owner == os.geteuid() else f"; {what} is for its owner alone, user {owner}"
    return ""


def _room(path: str, needed: int | None) -> str:
    from ocidist.view.sizes import human

    free = inodes = None
    while free is None and hasattr(os, "statvfs"):
        try:
            found = os.statvfs(path or ".")
            free = found.f_bavail * found.f_frsize
            inodes = found.f_favail if found.f_files else None
        except OSError:
            above = os.path.dirname(path)
            if above == path:
                break
            path = above
    if inodes == 0:
        return " (no more files can be made: it has no inodes left); remove some (rmi, gc, gc --all), or use another disk (--root)"
    parts = [] if needed is None else [f"{human(needed)} more are needed"]
    parts += [] if free is None else [f"{human(free)} are free"]
    return (
        f" ({', '.join(parts)}); free some (rmi, gc, gc --all), or use another disk (--root)" if parts else ""
    )


def unwritable(path: str) -> str:
    """Why this user can't write to ``path``."""
    if hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY:
        return "its file system is read-only"
    return "the store can't be written to by this user"


def make_folder(path: str, mode: int = PRIVATE) -> None:
    """``mkdir`` with exactly ``mode``, whatever the umask, and whatever the folder above hands down."""
    os.mkdir(path, mode)
    forget_acls(path)
    if stat.S_IMODE(os.lstat(path).st_mode) != mode:
        with suppress(PermissionError):  # a file system that has no modes
            set_mode(path, mode)


def close_to_writers(path: str) -> None:
    """Take the right to write into a folder of this user's from others, who could exchange what is in it."""
    found = os.lstat(path)
    if hasattr(os, "geteuid") and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o022:
        with suppress(PermissionError):
            set_mode(path, stat.S_IMODE(found.st_mode) & ~0o022)


def refuse_links(*folders: str) -> None:
    """Raise StoreError if one of a store's own folders is a link. Who prepared the store chose where it leads, and what
    is there would be taken for the store's, and removed."""
    for path in folders:
        if os.path.islink(path):
            raise StoreError(
                path,
                "a link in the place of a folder of the store; put the folder itself there, or choose another --root",
            )


def make_folders(path: str, mode: int = PRIVATE) -> None:
    """``makedirs`` that makes each new entry durable: the parent of a new directory is fsynced. What is there keeps
    its mode."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_folders(parent, mode)
    made = True
    try:
        make_folder(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        made = False
    try:
        sync_folder(parent)  # also where another made it just now: whose fsync comes first is not known
    except OSError:
        if made:  # else the next to come would find it, and take it for durable
            with suppress(OSError):
                os.rmdir(path)
        raise


def settle_folders(path: str, depth: int) -> None:
    """fsync the ``depth`` folders above ``path``. Whoever made them may have been killed before its own fsync."""
    for _ in range(depth):
        path = os.path.dirname(path)
        try:
            sync_folder(path)
        except PermissionError:  # above the root: what may not be read can't be fsynced
            return


def sync_folder(path: str) -> None:
    """fsync of a directory; file systems that have no such thing are no error."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def remove_file(path: str) -> None:
    """Unlink; missing is no error, and a directory goes with all that is in it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        import shutil

        shutil.rmtree(path)
