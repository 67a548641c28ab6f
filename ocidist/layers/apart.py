"""A layer extracted into an empty directory of its own, before those beneath it are known.

Whiteouts are noted, not done, and so are directories that lead to an entry and that the archive doesn't describe: what
they look like is for the layers beneath to say. A layer that needs more of them than that (a symlink on the way, the
target of a hardlink) can't be extracted so, and is applied in its turn.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable

from ocidist.errors import LayerError
from ocidist.layers.tree import Directory, Tree

__all__ = ["Apart", "Mark"]

MOST = 8 << 20
"""Bytes of whiteouts, and of directories that no entry describes, that are noted. A layer with more of them is applied in
its turn, where they need not be remembered."""

_EACH = 64  # bytes around a name


@dataclass(frozen=True)
class Mark:
    """A whiteout of ``name`` in ``parent``, both as archived; an opaque marker without ``name``."""

    parent: bytes
    name: bytes


class Apart:
    """A Layering that notes ``marks``, and the real paths of ``implied`` directories, without leading slash.

    The root is one of them until an entry describes it. A path may by now be something else than a directory.
    """

    def __init__(self, privileged: bool) -> None:
        self._privileged = privileged
        self._size = 0
        self.marks: list[Mark] = []
        self.implied: dict[bytes, None] = {b"": None}  # in order

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        self._note(parent, name)
        self.marks.append(Mark(parent, name))

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        self._note(parent)
        self.marks.append(Mark(parent, b""))

    def bring_up(self, at: Directory, name: bytes) -> bool:
        os.mkdir(name, 0o755, dir_fd=at.fd)
        if self._privileged:
            os.chown(name, 0, 0, dir_fd=at.fd, follow_symlinks=False)
        os.chmod(name, 0o755, dir_fd=at.fd)
        self._note(at.real, name)
        self.implied[(at.real + b"/" + name)[1:]] = None
        return True

    def _note(self, *names: bytes) -> None:
        self._size += _EACH + sum(map(len, names))
        if self._size > MOST:
            raise LayerError("layer", "", "too much of it is about the layers beneath")

    def described(self, real: bytes) -> None:
        self.implied.pop(real[1:], None)

    def finish(self, tree: Tree) -> None:
        pass
