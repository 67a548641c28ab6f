"""A layer that was extracted apart, moved onto the tree of those beneath it. Nothing is copied.

What it hides goes first: the layer's own entries are still elsewhere. Then whatever is not a directory on both sides is
renamed into its place, whole subtrees at once.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing
from pathlib import Path

from ocidist.layers.apply import links
from ocidist.layers.apply.contained import Directory, Tree, listed, spare_nothing
from ocidist.layers.tar.records import Member
from ocidist.scope import Scope
from ocidist.snapshots.apart import Marks, require_fitting
from ocidist.trees.directory import DirectoryReader, of_host

__all__ = ["merge"]


_A_DIRECTORY = frozenset({errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST})


class _Passing:
    """A Settler for directories that are only passed through."""

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        raise AssertionError("nothing is archived here")

    def implied(self, fd: int) -> None:
        os.chmod(fd, 0o755)

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        return False

    def replaced(self, real: bytes) -> None:
        pass


def merge(base: Path, apart: Path, marks: Marks, scope: Scope, layer: str) -> None:
    """Make ``base`` what it would be had the ``layer`` been applied to it. ``apart``, which has it, is used up.

    Both are on one file system. Raises NeedsOrder, before anything is changed; LayerError, LimitExceeded, the scope's
    end; OSErrors come as they are.
    """
    with closing(DirectoryReader(base)) as below:
        require_fitting(marks, below, scope)
    _hide(base, marks, scope, layer)
    with closing(DirectoryReader(base)) as below, closing(DirectoryReader(apart)) as above:
        _move(below, above, marks, scope)


def _hide(base: Path, marks: Marks, scope: Scope, layer: str) -> None:
    tree = Tree(base, layer, _Passing(), scope)
    try:
        for real in marks.opaque:
            scope.check()
            tree.entries += 1
            at = tree.exactly(real)
            if at is not None:
                tree.empty(at, spare_nothing)
        for real in marks.hidden:
            scope.check()
            tree.entries += 1
            above, _, name = real.rpartition(b"/")
            at = tree.exactly(above)
            if at is not None:
                tree.remove(at, name)
    finally:
        tree.close()


def _move(below: DirectoryReader, above: DirectoryReader, marks: Marks, scope: Scope) -> None:
    """Everything of ``above`` into ``below``, directories that both have settled after what is in them."""
    folders = [b""]
    shared = list[tuple[bytes, os.stat_result, os.stat_result]]()
    for folder in folders:  # grows while it runs
        source, target = above.folder(folder), below.folder(folder)
        shared.append((folder, os.fstat(source), os.fstat(target)))
        for name, is_folder in listed(source, scope.check):
            scope.check()
            if not is_folder:
                try:
                    links.rename(name, source, target)
                except OSError as error:
                    if error.errno not in _A_DIRECTORY:
                        raise
                    _remove(target, name, scope)
                    links.rename(name, source, target)
                continue
            there = _mode(name, target)
            if stat.S_ISDIR(there):
                folders.append(folder + b"/" + name if folder else name)
                continue
            if there:
                os.unlink(name, dir_fd=target)
            links.rename(name, source, target)
    for folder, mine, theirs in reversed(shared):
        scope.check()
        fd = below.folder(folder)
        if (b"/" + folder if folder else folder) in marks.implied:  # it stays as it was
            os.utime(fd, ns=(theirs.st_atime_ns, theirs.st_mtime_ns))
        else:
            _settle(fd, above.folder(folder), mine, theirs)


def _mode(name: bytes, at: int) -> int:
    """Return the mode of what has the name, 0 if nothing has."""
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _remove(at: int, name: bytes, scope: Scope) -> None:
    tree = Tree(at, "layer", _Passing(), scope)
    try:
        tree.remove(tree.root, name)
    finally:
        tree.close()


def _settle(fd: int, source: int, mine: os.stat_result, theirs: os.stat_result) -> None:
    """Give a directory of both trees the look that the layer's has."""
    if (mine.st_uid, mine.st_gid) != (theirs.st_uid, theirs.st_gid):
        os.chown(fd, mine.st_uid, mine.st_gid)
    wanted, found = _xattrs(source), _xattrs(fd)
    for name in found.keys() - wanted.keys():
        os.removexattr(fd, name)
    for name, value in wanted.items():
        if found.get(name) != value:
            os.setxattr(fd, name, value)
    os.chmod(fd, stat.S_IMODE(mine.st_mode))
    os.utime(fd, ns=(mine.st_atime_ns, mine.st_mtime_ns))


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """Return the extended attributes of an open directory, but for the host's own."""
    try:
        names = [os.fsencode(name) for name in os.listxattr(fd)]
        return {name: os.getxattr(fd, name) for name in names if not of_host(name)}
    except (AttributeError, OSError):  # a system, or a file system, without them
        return {}
