"""Whole directory trees removed, measured or copied, whatever modes, depths and entry types are in them.

Every step is one component from a directory's descriptor, and what is made, changed or removed is never reached
through a link: a process that exchanges a directory meanwhile (a container that still runs, another user of a
bundle's parent) gets an error out of it, and nothing beyond.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Callable

from ocidist.files import forget_acls
from ocidist.layers.apply import links
from ocidist.layers.apply.contained import listed
from ocidist.layers.apply.policy import Policy
from ocidist.snapshots.protocols import Usage
from ocidist.trees.directory import FOLDER, PATH_ONLY, Reader, TreeReader, nothing
from ocidist.trees.file_data import copy_file

__all__ = ["BY_DESCRIPTOR", "copy_entry", "copy_metadata", "copy_tree", "remove_tree", "tree_usage"]

_NEW = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_REFUSED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL})  # of extended attributes
BY_DESCRIPTOR = hasattr(os, "O_DIRECTORY") and os.rename in os.supports_dir_fd


# -- removing --


def remove_tree(path: Path | str, at: int | None = None, check: Callable[[], object] = nothing) -> None:
    """Remove a directory and all in it; missing is no error. Depth costs neither descriptors nor stack.

    ``at`` is a descriptor of the directory that ``path`` counts from. What can't be removed (another user's, or
    something that is mounted there) stays, all else goes; then the first OSError comes as it is. ``check`` is called for
    each directory and each thousand names; what it raises ends it there.
    """
    if not BY_DESCRIPTOR:
        if os.path.lexists(path):
            shutil.rmtree(path)
        return
    try:
        top = _open_folder(path, at)
    except FileNotFoundError:
        return
    removal = _Removal(top, check)
    try:
        removal.run()
    finally:
        os.close(top)
    if removal.trouble is not None:
        raise removal.trouble
    os.rmdir(path, dir_fd=at)


class _Removal:
    """Instead of descending, the directories of each level are moved up beside the others and emptied there.

    A mount point can't be renamed, so what is mounted in the tree is never looked into.
    """

    def __init__(self, top: int, check: Callable[[], object]) -> None:
        self._check = check
        self.trouble: OSError | None = None
        self._top = top
        self._prefix = f".{os.urandom(8).hex()}-"  # no name of the tree
        self._count = 0
        self._todo: list[str] = []

    def run(self) -> None:
        self._empty(self._top)
        while self._todo:
            name = self._todo.pop()
            try:
                inner = _open_folder(name, self._top)
                try:
                    self._empty(inner)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=self._top)
            except OSError as error:
                self._note(error)

    def _note(self, error: OSError) -> None:
        if self.trouble is None:
            self.trouble = error

    def _empty(self, fd: int) -> None:
        """Unlink all but directories, and move those up."""
        try:
            found = listed(fd, self._check)
        except OSError as error:
            self._note(error)
            return
        for number, (name, is_folder) in enumerate(found):
            if not number % 1000:
                self._check()
            try:
                if is_folder:
                    self._move_up(name, fd)
                else:
                    os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note(error)

    def _move_up(self, name: bytes, fd: int) -> None:
        self._count += 1
        new = f"{self._prefix}{self._count}"
        try:
            os.rename(name, new.encode(), src_dir_fd=fd, dst_dir_fd=self._top)
        except PermissionError as error:  # another user's: that needs its consent, unless it is empty
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError:
                raise error from None
        else:
            self._todo.append(new)


def _open_folder(name: Path | str, at: int | None) -> int:
    """A descriptor of a directory, which isn't followed; an ordinary user's own gets a mode that lets in."""
    try:
        fd = os.open(name, FOLDER, dir_fd=at)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            os.chmod(name, 0o700, dir_fd=at, follow_symlinks=False)
            return os.open(name, FOLDER, dir_fd=at)
        held = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=at)
        try:
            os.chmod(f"/proc/self/fd/{held}", 0o700)
            fd = os.open(".", FOLDER, dir_fd=held)
        finally:
            os.close(held)
    try:
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)
    except PermissionError:  # another user's: whether it can be emptied will be seen
        pass
    return fd


# -- measuring --


def tree_usage(path: Path, check: Callable[[], object] = nothing) -> Usage:
    """What a tree takes, the root included. What vanishes meanwhile doesn't count; OSErrors come as they are.
    ``check`` is called for each directory and each thousandth name; what it raises ends it."""
    seen: set[tuple[int, int]] = set()
    folders = [b""]
    reader = TreeReader(path)
    try:
        size, inodes = _disk(reader.stat(b"")), 1
        for folder in folders:  # grows while it runs
            try:
                for name, found in reader.entries(folder, check):  # one by one: there may be a million
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(folder + b"/" + name if folder else name)
                    elif found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    size += _disk(found)
                    inodes += 1
            except (FileNotFoundError, NotADirectoryError):
                continue
    finally:
        reader.close()
    return Usage(inodes, size)


def _disk(found: os.stat_result) -> int:
    blocks = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else int(blocks) * 512


# -- copying --


def copy_tree(source: Reader, target: Path | int, check: Callable[[], object] = nothing) -> None:
    """Copy all of ``source`` into the empty directory ``target``, a path or a descriptor: all types but sockets,
    modes, times, extended attributes and hardlinks; as root owners too.

    ``check`` is called before each entry and within large files; what it raises comes as it is, and OSErrors too,
    their ``filename`` the path from the root of the tree.
    """
    privileged = Policy.of_process().privileged
    names: dict[tuple[int, int], bytes] = {}
    folders, path = [b""], b""
    into, first_in = TreeReader(target), TreeReader(target)
    try:
        forget_acls(into.folder(b""))  # they are those of where the target is
        for folder in folders:  # grows while it runs
            path = folder
            at = into.folder(folder)
            for name, info in source.entries(folder, check):
                check()
                path = folder + b"/" + name if folder else name
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(name, 0o700, dir_fd=at)
                    folders.append(path)
                    continue
                if stat.S_ISSOCK(info.st_mode):
                    continue  # without its program
                if info.st_nlink > 1:
                    first = names.setdefault((info.st_dev, info.st_ino), path)
                    if first != path:
                        above, _, other = first.rpartition(b"/")
                        links.link(other, name, first_in.folder(above), at)
                        continue
                copy_entry(source, path, info, name, at, privileged, check)
        for path in reversed(folders):
            check()
            copy_metadata(source, path, source.stat(path), into.folder(path), privileged)
    except OSError as error:
        error.filename, error.filename2 = os.fsdecode(path), None
        raise
    finally:
        into.close()
        first_in.close()


def copy_entry(
    source: Reader,
    path: bytes,
    info: os.stat_result,
    name: bytes,
    at: int,
    privileged: bool,
    check: Callable[[], object],
) -> None:
    """Make ``name`` in the directory open as ``at`` what ``source`` has at ``path``; of a directory nothing that is
    in it. Raises FileExistsError if something is there; other OSErrors, and what ``check`` raises, come as they are.
    """
    mode = info.st_mode
    if stat.S_ISLNK(mode):
        _copy_symlink(source, path, info, name, at, privileged)
        return
    if stat.S_ISREG(mode):
        content = source.open(path)
        try:
            fd = os.open(name, _NEW, 0o600, dir_fd=at)
            try:
                copy_file(content, fd, check)
                copy_metadata(source, path, info, fd, privileged)
            finally:
                os.close(fd)
        finally:
            os.close(content)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(name, 0o700, dir_fd=at)
        fd = os.open(name, FOLDER, dir_fd=at)
    else:
        os.mknod(name, stat.S_IFMT(mode) | 0o600, info.st_rdev, dir_fd=at)
        fd = os.open(name, PATH_ONLY, dir_fd=at)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(mode):
            raise FileExistsError(errno.EEXIST, "exchanged by another process", os.fsdecode(name))
        by_path = hasattr(os, "O_PATH") and not stat.S_ISDIR(mode)
        copy_metadata(source, path, info, f"/proc/self/fd/{fd}" if by_path else fd, privileged)
    finally:
        os.close(fd)


def _copy_symlink(
    source: Reader, path: bytes, info: os.stat_result, name: bytes, at: int, privileged: bool
) -> None:
    links.symlink(source.readlink(path), name, at)
    if privileged:
        os.chown(name, info.st_uid, info.st_gid, dir_fd=at, follow_symlinks=False)
    # There is no call for a name in a directory; the one component behind the descriptor isn't followed.
    _copy_xattrs(source, path, b"/proc/self/fd/%d/%s" % (at, name), follow=False)
    links.set_times(name, info.st_atime_ns, info.st_mtime_ns, at)


def copy_metadata(
    source: Reader, path: bytes, info: os.stat_result, where: int | str, privileged: bool
) -> None:
    """Give what is open as ``where`` (or the path of such a descriptor) the owner, as root, the extended attributes,
    the mode and the times that ``source`` has at ``path``. Raises OSError."""
    if privileged:
        os.chown(where, info.st_uid, info.st_gid)  # before the mode: it clears setuid
    _copy_xattrs(source, path, where)
    os.chmod(where, stat.S_IMODE(info.st_mode))
    os.utime(where, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_xattrs(source: Reader, path: bytes, where: int | str | bytes, follow: bool = True) -> None:
    for key, value in source.xattrs(path).items():
        try:
            os.setxattr(where, key, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _REFUSED:  # a file system without them, or names that only root may set
                raise
