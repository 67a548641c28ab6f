"""A layer that was extracted apart, moved onto the tree of those beneath it. Nothing is copied.

Whiteouts come first: the layer's own entries are still elsewhere, so they spare them by themselves. Then whatever
is not a directory on both sides is renamed into its place, whole subtrees at once.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path
from typing import Collection, Sequence

from ocidist.layers.apply.apart import Mark, ways
from ocidist.layers.apply.contained import Directory, Tree, listed
from ocidist.layers.apply.policy import Merged
from ocidist.layers.tar.records import Member
from ocidist.scope import Scope
from ocidist.trees.directory import TreeReader

__all__ = ["fits", "merge"]


class _Passing:
    """A Settler for directories that are only passed through."""

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        raise AssertionError("nothing is archived here")

    def implied(self, fd: int) -> None:
        os.chmod(fd, 0o755)

    def bring_up(self, at: Directory, name: bytes) -> bool:
        return False

    def replaced(self, real: bytes) -> None:
        pass


def fits(base: Path, marks: Sequence[Mark], implied: Collection[bytes], scope: Scope) -> bool:
    """False where a directory that the layer implies, or that a whiteout of it is in, is a symlink beneath: then what is
    in it belongs elsewhere, and where depends on the entries before it."""
    with closing(TreeReader(base)) as below:
        return not any(stat.S_ISLNK(info.st_mode) for _, info in ways(below, marks, implied, scope.check))


def merge(
    base: Path, apart: Path, marks: Sequence[Mark], implied: Collection[bytes], scope: Scope, layer: str
) -> None:
    """Make ``base`` what it would be had the layer been applied to it; of ``apart`` nothing but directories is left.

    Both are on one file system. Raises LayerError; OSErrors come as they are, and the scope's end.
    """
    _hide(base, marks, scope, layer)
    below, above = TreeReader(base), TreeReader(apart)
    try:
        _move(below, above, frozenset(implied), scope)
    finally:
        below.close()
        above.close()


def _hide(base: Path, marks: Sequence[Mark], scope: Scope, layer: str) -> None:
    if not marks:
        return
    tree, merged = Tree(base, layer, _Passing(), scope), Merged()
    try:
        for tree.entries, mark in enumerate(marks):
            scope.check()
            tree.member = mark.parent + b"/" + mark.name
            if mark.name:
                merged.whiteout(tree, mark.parent, mark.name, _not_own)
            else:
                merged.opaque(tree, mark.parent, _not_own)
    finally:
        tree.close()


def _not_own(real: bytes) -> bool:
    return False


def _move(below: TreeReader, above: TreeReader, implied: frozenset[bytes], scope: Scope) -> None:
    """Everything of ``above`` into ``below``, directories that both have settled after what is in them."""
    folders = [b""]
    shared = []
    for folder in folders:  # grows while it runs
        scope.check()
        mine, theirs = above.stat(folder), below.stat(folder)
        shared.append((folder, mine, theirs))
        source, target = above.folder(folder), below.folder(folder)
        for name, is_folder in listed(source, scope.check):
            scope.check()
            there = _stat(name, target)
            if is_folder and there is not None and stat.S_ISDIR(there.st_mode):
                folders.append(folder + b"/" + name if folder else name)
                continue
            if there is not None:
                _make_room(name, is_folder, there, below, folder, scope)
                target = below.folder(folder)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    for folder, mine, theirs in reversed(shared):
        scope.check()
        if folder in implied:  # it stays as it was
            os.utime(below.folder(folder), ns=(theirs.st_atime_ns, theirs.st_mtime_ns))
        else:
            _settle(below, above, folder, mine, theirs)


def _stat(name: bytes, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _make_room(
    name: bytes, is_folder: bool, there: os.stat_result, below: TreeReader, folder: bytes, scope: Scope
) -> None:
    """A rename puts a file over a file; all else is removed first."""
    if stat.S_ISDIR(there.st_mode):
        fd = os.dup(below.folder(folder))
        try:
            tree = Tree(fd, "layer", _Passing(), scope)
            try:
                tree.remove(tree.root, name)
            finally:
                tree.close()
        finally:
            os.close(fd)
    elif is_folder:
        os.unlink(name, dir_fd=below.folder(folder))


def _settle(
    below: TreeReader, above: TreeReader, folder: bytes, mine: os.stat_result, theirs: os.stat_result
) -> None:
    """What a directory of both looks like: as its entry says."""
    wanted, found = above.xattrs(folder), below.xattrs(folder)
    fd = below.folder(folder)  # last: what is asked for a path by its name moves the reader to the one above
    if (mine.st_uid, mine.st_gid) != (theirs.st_uid, theirs.st_gid):
        os.chown(fd, mine.st_uid, mine.st_gid)
    if hasattr(os, "setxattr"):
        for name in found.keys() - wanted.keys():
            os.removexattr(fd, name)
        for name, value in wanted.items():
            if found.get(name) != value:
                os.setxattr(fd, name, value)
    os.chmod(fd, stat.S_IMODE(mine.st_mode))
    os.utime(fd, ns=(mine.st_atime_ns, mine.st_mtime_ns))
