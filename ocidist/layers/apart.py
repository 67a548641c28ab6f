"""A layer extracted into an empty directory of its own, before those beneath it are known.

Whiteouts are noted, not done. A directory that leads to an entry and that the archive doesn't describe gets a time
that nothing else has: if it still has it at the end, what it looks like is for the layers beneath to say. A layer that
needs more of them than that (a symlink on the way, the target of a hardlink) can't be extracted so, and is applied
in its turn.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Callable

from ocidist.layers.tree import Directory, Tree

__all__ = ["UNKNOWN", "Apart", "Mark", "is_implied"]

UNKNOWN = -1_141_592_653 * 10**9
"""The time of a directory that no entry describes, in nanoseconds: in October 1933.

A whole second after 1901, so that every file system can hold it: ext4 and xfs know no earlier one.
"""


@dataclass(frozen=True)
class Mark:
    """A whiteout of ``name`` in ``parent``, both as archived; an opaque marker without ``name``."""

    parent: bytes
    name: bytes


def is_implied(info: os.stat_result) -> bool:
    """Whether an entry of a tree extracted so is a directory that the archive doesn't describe."""
    return stat.S_ISDIR(info.st_mode) and info.st_mtime_ns == UNKNOWN


class Apart:
    """A Layering that notes ``marks``, and the real paths of ``implied`` directories, without leading slash."""

    def __init__(self, privileged: bool) -> None:
        self._privileged = privileged
        self.marks: list[Mark] = []
        self.implied: list[bytes] = []

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        self.marks.append(Mark(parent, name))

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        self.marks.append(Mark(parent, b""))

    def bring_up(self, at: Directory, name: bytes) -> bool:
        os.mkdir(name, 0o755, dir_fd=at.fd)
        if self._privileged:
            os.chown(name, 0, 0, dir_fd=at.fd, follow_symlinks=False)
        os.chmod(name, 0o755, dir_fd=at.fd)
        os.utime(name, ns=(UNKNOWN, UNKNOWN), dir_fd=at.fd, follow_symlinks=False)
        self.implied.append((at.real + b"/" + name)[1:])
        return True

    def finish(self, tree: Tree) -> None:
        pass
