"""Directory trees and single entries copied, with all that they are.

Every step is one component from a directory's descriptor, and nothing is made or changed through a link.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing
from pathlib import Path
from typing import Callable, Hashable

from ocidist.files import forget_acls
from ocidist.layers.apply import links
from ocidist.layers.apply.contained import CREATE
from ocidist.layers.apply.policy import XATTR_REFUSED, Policy
from ocidist.scope import no_check
from ocidist.trees.directory import FOLDER, PATH_ONLY, DirectoryReader
from ocidist.trees.protocols import Entry, Reader
from ocidist.trees.rootless import ATTRIBUTE, encode_owner

__all__ = ["copy_entry", "copy_metadata", "copy_tree"]


def copy_tree(source: Reader, target: Path | int, check: Callable[[], object] = no_check) -> None:
    """Copy all of ``source`` into the empty directory ``target``, a path or a descriptor: all types but sockets,
    modes, times, extended attributes and hardlinks; as root owners too.

    ``check`` is called before each entry and within large files; what it raises comes as it is, and OSErrors too,
    their ``filename`` the path from the root of the tree.
    """
    privileged = Policy.of_process().privileged
    names: dict[tuple[Hashable, ...], bytes] = {}
    folders, path = [b""], b""
    into, first_in = DirectoryReader(target), DirectoryReader(target)
    try:
        forget_acls(into.folder(b""))  # they are those of where the target is
        for folder in folders:  # grows while it runs
            path = folder
            at = into.folder(folder)
            for name, info in source.entries(folder, check):
                check()
                path = folder + b"/" + name if folder else name
                if stat.S_ISDIR(info.mode):
                    os.mkdir(name, 0o700, dir_fd=at)
                    folders.append(path)
                    continue
                if stat.S_ISSOCK(info.mode):
                    continue  # without its program
                if info.links > 1:
                    first = names.setdefault(info.identity, path)
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
    info: Entry,
    name: bytes,
    at: int,
    privileged: bool,
    check: Callable[[], object],
) -> None:
    """Make ``name`` in the directory open as ``at`` what ``source`` has at ``path``; of a directory nothing that is
    in it. Raises FileExistsError if something is there; other OSErrors, and what ``check`` raises, come as they are.
    """
    mode = info.mode
    if stat.S_ISLNK(mode):
        _copy_symlink(source, path, info, name, at, privileged)
        return
    if stat.S_ISREG(mode):
        with closing(source.open(path)) as content:
            fd = os.open(name, CREATE, 0o600, dir_fd=at)
            try:
                content.copy_to(fd, check)
                copy_metadata(source, path, info, fd, privileged)
            finally:
                os.close(fd)
        return
    if stat.S_ISDIR(mode):
        os.mkdir(name, 0o700, dir_fd=at)
        fd = os.open(name, FOLDER, dir_fd=at)
    else:
        os.mknod(name, stat.S_IFMT(mode) | 0o600, info.device, dir_fd=at)
        fd = os.open(name, PATH_ONLY, dir_fd=at)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(mode):
            raise FileExistsError(errno.EEXIST, "exchanged by another process", os.fsdecode(name))
        by_path = hasattr(os, "O_PATH") and not stat.S_ISDIR(mode)
        copy_metadata(source, path, info, f"/proc/self/fd/{fd}" if by_path else fd, privileged)
    finally:
        os.close(fd)


def _copy_symlink(source: Reader, path: bytes, info: Entry, name: bytes, at: int, privileged: bool) -> None:
    links.symlink(source.readlink(path), name, at)
    if privileged:
        os.chown(name, info.uid, info.gid, dir_fd=at, follow_symlinks=False)
    # There is no call for a name in a directory; the one component behind the descriptor isn't followed.
    _copy_xattrs(source, path, b"/proc/self/fd/%d/%s" % (at, name), follow=False)
    links.set_times(name, info.mtime, info.mtime, at)


def copy_metadata(source: Reader, path: bytes, info: Entry, where: int | str, privileged: bool) -> None:
    """Give what is open as ``where`` (or the path of such a descriptor) the owner, as root, the extended attributes,
    the mode and the times that ``source`` has at ``path``. Raises OSError."""
    if privileged:
        os.chown(where, info.uid, info.gid)  # before the mode and capabilities: it clears setuid, and those
    _copy_xattrs(source, path, where)
    if not privileged and (info.uid or info.gid) and stat.S_IFMT(info.mode) in (stat.S_IFREG, stat.S_IFDIR):
        _set_xattr(where, ATTRIBUTE, encode_owner(info.uid, info.gid))
    os.chmod(where, stat.S_IMODE(info.mode))
    os.utime(where, ns=(info.mtime, info.mtime))


def _copy_xattrs(source: Reader, path: bytes, where: int | str | bytes, follow: bool = True) -> None:
    for key, value in source.xattrs(path).items():
        _set_xattr(where, key, value, follow)


def _set_xattr(where: int | str | bytes, key: bytes, value: bytes, follow: bool = True) -> None:
    """Set an extended attribute, but on a file system without them, and for names that only root may set."""
    try:
        os.setxattr(where, key, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in XATTR_REFUSED:
            raise
