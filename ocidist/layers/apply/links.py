"""Links and their times, also on a system that lacks the calls (WebAssembly).

There a symlink is made by path, which is safe where nothing runs beside this program; a further name of a file
becomes a file of its own with the same content, for there are no hard links; a symlink has no time of its own.
"""

from __future__ import annotations

import os
import stat
from typing import Union

from ocidist.scope import no_check
from ocidist.trees.local_file import copy_file

__all__ = ["link", "rename", "set_times", "symlink"]

Name = Union[str, bytes, "os.PathLike[str]"]
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_SYMLINK_AT = os.symlink in os.supports_dir_fd
_RENAME_AT = os.rename in os.supports_dir_fd
_LINK = hasattr(os, "link")
_TIMES_OF_LINKS = os.utime in os.supports_follow_symlinks


def symlink(target: bytes | str, name: bytes, at: int) -> None:
    """Make ``name`` in the directory open as ``at``, pointing to ``target``. Raises OSError."""
    if _SYMLINK_AT:
        os.symlink(target, name, dir_fd=at)
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.fchdir(at)
        os.symlink(target, os.fsdecode(name))
    finally:
        os.fchdir(here)
        os.close(here)


def link(source: Name, name: Name, source_at: int | None = None, at: int | None = None) -> None:
    """Give the file ``source``, which isn't followed if it is a symlink, a further name. Raises OSError."""
    if _LINK:
        os.link(source, name, src_dir_fd=source_at, dst_dir_fd=at, follow_symlinks=False)
        return
    found = os.stat(source, dir_fd=source_at, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        to = os.readlink(os.fsencode(source), dir_fd=source_at)
        if at is None:
            os.symlink(to, name)
        else:
            symlink(to, os.fsencode(name), at)
        return
    _copy(source, name, source_at, at)


def _copy(source: Name, name: Name, source_at: int | None, at: int | None) -> None:
    reader = os.open(source, os.O_RDONLY | _FLAGS, dir_fd=source_at)
    try:
        found = os.fstat(reader)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(1, "no file", os.fsdecode(source))
        writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=at)
        try:
            copy_file(reader, writer, no_check)
            os.fchmod(writer, stat.S_IMODE(found.st_mode))
            os.utime(writer, ns=(found.st_atime_ns, found.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def rename(name: bytes, source: int, target: int) -> None:
    """Move ``name`` from one open directory to another, over a file there. Raises OSError."""
    if _RENAME_AT:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.fchdir(source)
        old = os.path.join(os.getcwdb(), name)
        os.fchdir(target)
        os.rename(old, name)
    finally:
        os.fchdir(here)
        os.close(here)


def set_times(name: Name, accessed: int, modified: int, at: int | None = None) -> None:
    """Set the times, in nanoseconds, of an entry that isn't followed; not of a symlink where the system can't."""
    if _TIMES_OF_LINKS:
        os.utime(name, ns=(accessed, modified), dir_fd=at, follow_symlinks=False)
    elif not stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
        os.utime(name, ns=(accessed, modified), dir_fd=at)
