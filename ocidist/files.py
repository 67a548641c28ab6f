"""Files in places that others may write to: only regular ones are opened, and new ones are exclusive.

A FIFO would block, a device may do something when it is opened and never end, and a link leads anywhere. A new file
has a random name, is made with ``O_EXCL`` and ``O_NOFOLLOW``, has its mode from the first moment, and replaces the
one it is meant for in one step.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress
from typing import BinaryIO, Collection, Iterator

__all__ = [
    "RELATIVE",
    "NotRegular",
    "StrangersLink",
    "create",
    "forget_acls",
    "has_default_acl",
    "locate",
    "named",
    "open_regular",
    "random_name",
    "read_small",
    "regular",
    "replacing",
    "set_mode",
    "tighten",
    "within",
]

_PLAIN = 0
for _name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY"):
    _PLAIN |= getattr(os, _name, 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _PLAIN
_THROUGH = _FOLDER | _NOFOLLOW | getattr(os, "O_PATH", 0)  # a directory that only lets through
_MAX_LINKS = 40  # as the kernel's own limit
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
RELATIVE = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd
"""Whether names can be relative to a directory that is open."""


class NotRegular(OSError):
    """A FIFO, a link, a directory, a device or a socket in the place of a file."""


class StrangersLink(OSError):
    """A link of another user's on the way to a file: it may lead to any file of ours."""


def open_regular(path: str | os.PathLike[str], *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading. Raises OSError: NotRegular for anything else. A link is opened only if
    ``follow``."""
    handle, _ = regular(path, os.O_RDONLY, follow=follow)
    return os.fdopen(handle, "rb")


def regular(
    path: str | os.PathLike[str], flags: int, mode: int = 0o600, *, follow: bool = False
) -> tuple[int, os.stat_result]:
    """``os.open`` of a regular file, and its status. Never blocks. Raises OSError: NotRegular for anything else.

    With ``O_CREAT`` in ``flags`` a missing file is made, with at most ``mode``.
    """
    name = os.fspath(path)
    try:
        _require_regular(os.stat(name) if follow else os.lstat(name), name)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    handle = os.open(name, flags | _PLAIN | _NONBLOCK | (0 if follow else _NOFOLLOW), mode)
    try:
        found = os.fstat(handle)
        _require_regular(found, name)  # it may have been exchanged
        return handle, found
    except BaseException:
        os.close(handle)
        raise


def read_small(path: str | os.PathLike[str], limit: int) -> bytes:
    """All of a regular file of at most ``limit`` bytes. Raises OSError, also where it is larger."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than the {limit}-byte limit", os.fspath(path))
    return data


def random_name() -> str:
    """A name for a file or folder that nobody can guess, and that listings pass over."""
    return f".{os.urandom(12).hex()}.tmp"


def create(path: str | os.PathLike[str], mode: int | None = None, *, dir_fd: int | None = None) -> int:
    """A descriptor of a new file, to be read and written. Raises FileExistsError for anything that is there.

    ``mode`` is its mode whatever the umask; None is what the umask makes of 0666.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _PLAIN
    handle = os.open(path, flags, 0o666 if mode is None else mode, dir_fd=dir_fd)
    if mode is not None:
        tighten(handle, os.fstat(handle), mode)
    return handle


@contextmanager
def replacing(
    path: str | os.PathLike[str], mode: int | None = None, *, durable: bool = False, dir_fd: int | None = None
) -> Iterator[BinaryIO]:
    """A new file, which replaces ``path`` at the end of the block: a reader sees the old bytes or the new. After an
    error ``path`` is as it was.

    ``mode`` as for :func:`create`. ``durable`` has the bytes fsynced before they have the name. ``path`` is relative
    to ``dir_fd`` if that is given. Raises OSError.
    """
    name = os.fspath(path)
    new = os.path.join(os.path.dirname(name), random_name())
    handle = create(new, mode, dir_fd=dir_fd)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(new, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(new, dir_fd=dir_fd)
        raise


# -- the way to a file ------------------------------------------------------------------------------


def locate(path: str | os.PathLike[str], *, follow: bool = False) -> tuple[int, str]:
    """Return a descriptor of the directory that ``path`` is in, and its name there.

    Each step is one component from a descriptor. A link is followed only where root or this user made it; the last
    component is a name, also of a link, unless ``follow``. Raises OSError: StrangersLink for a link of another user's.
    """
    text = os.fspath(path)
    if sys.platform != "linux":  # a system that can't hold a link: by path up to the last component
        if follow and os.path.islink(text):
            text = os.path.realpath(text)
        above, name = os.path.split(text)
        return os.open(above or ".", _FOLDER), name or "."
    todo = text.split(os.sep)[::-1]
    at, hops = os.open(os.sep if text.startswith(os.sep) else ".", _THROUGH), 0
    try:
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            last = not todo and part != ".."
            target = _followed(part, at, text) if follow or not last else None
            if target is None and last:
                return at, part
            if target is not None:
                hops += 1
                if hops > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), text)
                todo += target.split(os.sep)[::-1]
                if not target.startswith(os.sep):
                    continue
            inner = os.open(part if target is None else os.sep, _THROUGH, dir_fd=at)
            os.close(at)
            at = inner
        return at, "."
    except BaseException:
        os.close(at)
        raise


def _followed(part: str, at: int, path: str) -> str | None:
    """Where a link of root or this user leads; None for anything else, or nothing."""
    try:
        held = os.open(part, os.O_PATH | _NOFOLLOW | _PLAIN, dir_fd=at)
    except OSError:
        return None
    try:
        info = os.fstat(held)
        if not stat.S_ISLNK(info.st_mode):
            return None
        if info.st_uid not in (0, os.geteuid()):
            reason = f"{part} on the way is another user's symbolic link; write where it leads"
            raise StrangersLink(errno.ELOOP, reason, path)
        return os.readlink("", dir_fd=held)
    finally:
        os.close(held)


@contextmanager
def within(folder: str | os.PathLike[str]) -> Iterator[int | None]:
    """Hold a directory, found as :func:`locate` finds it; its descriptor, or None on a system where names can't be
    relative to one. Raises OSError."""
    if not RELATIVE:
        yield None
        return
    above, name = locate(folder, follow=True)
    try:
        held = os.open(name, _FOLDER | _NOFOLLOW, dir_fd=above)
    finally:
        os.close(above)
    try:
        yield held
    finally:
        os.close(held)


def named(path: str | os.PathLike[str], at: int | None) -> str:
    """Return the name by which ``path`` is found from the directory :func:`within` holds as ``at``."""
    return os.fspath(path) if at is None else os.path.basename(path)


def tighten(handle: int, found: os.stat_result, mode: int) -> None:
    """Give an open file of status ``found`` exactly ``mode``, if it is this user's and its file system has modes.

    One with a second name stays as it is: another user may have linked a file of root's into its place.
    """
    if stat.S_IMODE(found.st_mode) != mode and found.st_nlink < 2 and hasattr(os, "fchmod"):
        with suppress(PermissionError):
            os.fchmod(handle, mode)


def forget_acls(where: int | str | bytes, kept: Collection[bytes] = ()) -> None:
    """Take from a new file or folder, a descriptor or a path that isn't followed, the access control lists that it has
    inherited from its folder, but for those ``kept``. They would open what its mode closes, or close what it opens."""
    if not hasattr(os, "removexattr"):
        return
    for name in _ACLS:
        if name not in kept:
            with suppress(OSError):  # it has none, or its file system hasn't
                os.removexattr(where, name, follow_symlinks=isinstance(where, int))


def has_default_acl(folder: int) -> bool:
    """Whether what is made in an open folder inherits an access control list."""
    try:
        return bool(os.getxattr(folder, _ACLS[1]))
    except (OSError, AttributeError):
        return False


def set_mode(path: str, mode: int) -> None:
    """chmod of this user's own file or folder; a link that has taken its place is not followed. Raises OSError."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(path, mode, follow_symlinks=False)
        return
    if sys.platform != "linux":
        os.chmod(path, mode)
        return
    held = os.open(path, os.O_PATH | _NOFOLLOW | _PLAIN)
    try:
        if stat.S_ISLNK(os.fstat(held).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        os.chmod(f"/proc/self/fd/{held}", mode)
    finally:
        os.close(held)


def _require_regular(found: os.stat_result, name: str) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"))
    kind = next((kind for test, kind in kinds if test(found.st_mode)), "a device or socket")
    raise NotRegular(errno.EINVAL, f"{kind}, not a regular file", name)
