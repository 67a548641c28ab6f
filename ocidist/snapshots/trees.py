"""Whole directory trees removed or copied, whatever modes, depths and entry types are in them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Callable

from ocidist.layers.links import link, set_times
from ocidist.snapshots.protocols import Usage

__all__ = ["copy_tree", "remove_tree", "tree_usage"]

_FICLONE = 0x40049409
_FOLDER = (
    os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; missing is no error. Depth costs neither descriptors nor stack.

    Instead of descending, the directories of each level are moved up beside the others and emptied there.
    OSErrors come as they are.
    """
    if not hasattr(os, "O_DIRECTORY") or os.rename not in os.supports_dir_fd:
        shutil.rmtree(path, ignore_errors=False)
        return
    try:
        os.chmod(path, 0o700)
        top = os.open(path, _FOLDER)
    except FileNotFoundError:
        return
    try:
        moved = 0
        while folders := _unlink_files(top):
            for name in folders:
                os.chmod(name, 0o700, dir_fd=top)  # an ordinary user's 0000 directories
                inner = os.open(name, _FOLDER, dir_fd=top)
                try:
                    for child in _unlink_files(inner):
                        os.chmod(child, 0o700, dir_fd=inner)
                        moved = _move_up(inner, child, top, moved)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _unlink_files(fd: int) -> list[str]:
    """Unlink all but directories; the directories' names."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=fd)
    return [name for name, is_folder in found if is_folder]


def _move_up(inner: int, child: str, top: int, moved: int) -> int:
    while True:
        moved += 1
        try:
            # Onto nothing, or onto an empty directory that happens to have the name, which is as good.
            os.rename(child, f".moved-{moved}", src_dir_fd=inner, dst_dir_fd=top)
            return moved
        except (FileExistsError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise


def tree_usage(path: Path) -> Usage:
    """What a tree takes, the root included. What vanishes meanwhile doesn't count; OSErrors come as they are."""
    seen: set[tuple[int, int]] = set()
    folders = [os.fspath(path)]
    found = os.lstat(path)
    size, inodes = _disk(found), 1
    for folder in folders:  # grows while it runs
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                size += _disk(found)
                inodes += 1
    return Usage(inodes, size)


def _disk(found: os.stat_result) -> int:
    blocks = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else int(blocks) * 512


def copy_tree(source: Path, target: Path, check: Callable[[], object] = lambda: None) -> None:
    """Copy what is in ``source`` into the existing directory ``target``: all types, owners, modes, times,
    extended attributes and hardlinks. ``check`` is called before each entry; what it raises, and OSErrors, come as
    they are."""
    links: dict[tuple[int, int], str] = {}
    folders = [""]
    for folder in folders:  # grows while it runs
        with os.scandir(source / folder) as entries:
            for entry in entries:
                check()
                name = os.path.join(folder, entry.name)
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(target / name, 0o700)
                    folders.append(name)
                    continue
                first = links.get((info.st_dev, info.st_ino)) if info.st_nlink > 1 else None
                if first is not None:
                    link(target / first, target / name)
                    continue
                links[(info.st_dev, info.st_ino)] = name
                _copy_one(source / name, target / name, info)
    for folder in reversed(folders):
        _copy_metadata(source / folder, target / folder, os.lstat(source / folder))


def _copy_one(source: Path, target: Path, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode):
        _copy_content(source, target, info)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISSOCK(info.st_mode):
        return  # a socket without its program
    else:
        os.mknod(target, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev)
    _copy_metadata(source, target, info)


def _share(source: Path, target: Path) -> bool:
    """Whether ``target`` is now a reflink of ``source``: blocks shared until either is written (FICLONE, ioctl_ficlone(2))."""
    try:
        import fcntl

        with open(source, "rb", buffering=0) as content, open(target, "xb", buffering=0) as copy:
            fcntl.ioctl(copy.fileno(), _FICLONE, content.fileno())
        return True
    except (ImportError, AttributeError, OSError):  # most file systems can't
        return False


def _copy_content(source: Path, target: Path, info: os.stat_result) -> None:
    if info.st_size and sys.platform == "linux" and _share(source, target):
        return
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
    except PermissionError:
        if info.st_mode & 0o400 or not hasattr(os, "geteuid") or info.st_uid != os.geteuid():
            raise
        # Of an ordinary user, who may not read this own file; /etc/shadow often is 0000.
        os.chmod(source, 0o400)
        try:
            fd = os.open(source, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        finally:
            os.chmod(source, stat.S_IMODE(info.st_mode))
        with open(fd, "rb") as content, open(target, "xb") as copy:
            shutil.copyfileobj(content, copy, 1 << 20)


def _copy_metadata(source: Path, target: Path, info: os.stat_result) -> None:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if hasattr(os, "listxattr"):
        try:
            for name in os.listxattr(source, follow_symlinks=False):
                os.setxattr(
                    target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False
                )
        except OSError:  # a file system without them, or names that only root may set
            pass
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
    set_times(target, info.st_atime_ns, info.st_mtime_ns)
