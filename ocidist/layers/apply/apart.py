"""A layer extracted into an empty directory of its own, before those beneath it are known.

Whiteouts are noted, not done, and so are directories that lead to an entry and that the archive doesn't describe: what
they look like is for the layers beneath to say. A layer that needs more of them than that (a symlink on the way, the
target of a hardlink) can't be extracted so, and is applied in its turn.

So is one whose tree depends on the order of its entries: one of them in the place of another, a directory described
after what is in it, or a whiteout through a link of its own. What it did to the layers beneath meanwhile is not seen here.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Callable, Collection, Iterator, Sequence

from ocidist.errors import LayerError
from ocidist.files import forget_acls
from ocidist.layers.apply.contained import Directory, Tree
from ocidist.trees.directory import Reader, TreeReader, nothing

__all__ = ["Apart", "Mark", "ways"]

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

    in_place = False

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
        if at.inherits:
            forget_acls(b"/proc/self/fd/%d/%s" % (at.fd, name))
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

    def replaced(self, real: bytes) -> None:
        raise _needs_order()

    def described(self, real: bytes) -> None:
        if not real:
            self.implied.pop(b"", None)
        elif real[1:] in self.implied:  # a link beneath may have led the way until now
            raise _needs_order()

    def finish(self, tree: Tree) -> None:
        with closing(TreeReader(tree.root.fd)) as reader:
            for path in self.implied:
                with os.scandir(reader.folder(path)) as inside:
                    if (
                        path and next(inside, None) is None
                    ):  # on the way to a hardlink's target, and out again
                        raise _needs_order()
            for _, info in ways(reader, self.marks, (), nothing):
                if stat.S_ISLNK(info.st_mode):
                    raise _needs_order()


def ways(
    tree: Reader, marks: Sequence[Mark], implied: Collection[bytes], check: Callable[[], object]
) -> Iterator[tuple[bytes, os.stat_result]]:
    """What a ``tree`` has on the way to a layer's whiteouts, and to directories that it implies. Where one of them is a
    link, of the layer or beneath, the order of the entries says where that way led. OSErrors come as they are."""
    seen, done = set[int](), set[int]()  # hashes of paths, as in apply
    for folder in chain(implied, (mark.parent for mark in marks)):
        check()
        if hash(folder) in done:
            continue
        done.add(hash(folder))
        path = b""
        for part in folder.split(b"/") if folder else ():
            path = path + b"/" + part if path else part
            if hash(path) in seen:
                continue
            try:
                info = tree.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                break
            seen.add(hash(path))
            yield path, info


def _needs_order() -> LayerError:
    return LayerError("layer", "", "its entries have an order")
