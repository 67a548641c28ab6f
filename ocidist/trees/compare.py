"""What changed between two trees, in one order for all: directories before what is in them, names by their bytes.

A name is unchanged if all that a layer can say of it is the same: type, owner, mode, time, size, content, link
target, device number, extended attributes, and which other names are the same file. The names of one file change
together or not at all, so a layer never has to name a file that is not in it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Iterator

from ocidist.scope import Scope
from ocidist.trees.local_file import next_data
from ocidist.trees.protocols import Reader
from ocidist.trees.rootless import take_owner

__all__ = ["TYPES", "Change", "compare", "hardlinks", "in_both", "same_content"]

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_BLOCK = 1 << 18

Names = dict[bytes, "tuple[bytes, ...]"]


@dataclass(frozen=True)
class Change:
    """``kind`` is "added", "modified" or "deleted"; ``info`` what the name is now, before for "deleted".

    ``first`` is the name, earlier in the order, of which this is a further one; else None.
    """

    kind: str
    path: bytes
    info: os.stat_result
    first: bytes | None = None

    @property
    def type(self) -> str:
        """The type of the entry, in a word."""
        return TYPES.get(stat.S_IFMT(self.info.st_mode), "unknown")


def compare(lower: Reader | None, upper: Reader, scope: Scope) -> Iterator[Change]:
    """The changes that make ``upper`` of ``lower`` (None: of an empty directory, whatever its metadata).

    A socket counts as nothing, for no layer can hold one. OSErrors come as they are, and the scope's end.
    """
    before = hardlinks(lower, scope) if lower is not None else {}
    after = hardlinks(upper, scope)
    comparison = _Comparison(lower, upper, scope, before, after)
    info = upper.stat(b"")
    if lower is not None and comparison.differs(b"", lower.stat(b""), info):
        yield Change("modified", b"", info)
    pending = [comparison.folder(b"", lower is not None)]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        change, inside = found
        if change is not None:
            yield change
        if inside is not None:
            pending.append(comparison.folder(*inside))


# A change or none, and a directory to look into, with whether both trees have it.
Step = tuple["Change | None", "tuple[bytes, bool] | None"]


class _Comparison:
    def __init__(
        self, lower: Reader | None, upper: Reader, scope: Scope, before: Names, after: Names
    ) -> None:
        self.lower, self.upper, self.scope = lower, upper, scope
        self.before, self.after = before, after

    def folder(self, path: bytes, both: bool) -> Iterator[Step]:
        """The steps for what is in a directory, in order."""
        lower = self.lower if both else None
        before = lower.names(path, self.scope.check) if lower is not None else []
        after = self.upper.names(path, self.scope.check)
        for name, was, is_there in in_both(before, after):
            self.scope.check()
            inside = path + b"/" + name if path else name
            old = _stat(lower, inside) if was and lower is not None else None
            yield self.step(inside, old, _stat(self.upper, inside) if is_there else None)

    def step(self, path: bytes, old: os.stat_result | None, new: os.stat_result | None) -> Step:
        if new is None:
            return (Change("deleted", path, old), None) if old is not None else (None, None)
        folder = stat.S_ISDIR(new.st_mode)
        both = folder and old is not None and stat.S_ISDIR(old.st_mode)
        change = None
        if old is None or self.differs(path, old, new):
            names = self.after.get(path, (path,))
            first = names[0] if names[0] != path else None
            change = Change("added" if old is None else "modified", path, new, first)
        return change, ((path, both) if folder else None)

    def differs(self, path: bytes, old: os.stat_result, new: os.stat_result) -> bool:
        lower, upper = self.lower, self.upper
        assert lower is not None
        if self.before.get(path) != self.after.get(path):
            return True
        if (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino):
            return False
        if old.st_mode != new.st_mode or old.st_mtime_ns != new.st_mtime_ns:
            return True
        if stat.S_ISREG(new.st_mode) and old.st_size != new.st_size:
            return True
        if stat.S_ISLNK(new.st_mode) and lower.readlink(path) != upper.readlink(path):
            return True
        if (stat.S_ISCHR(new.st_mode) or stat.S_ISBLK(new.st_mode)) and old.st_rdev != new.st_rdev:
            return True
        before, after = lower.xattrs(path), upper.xattrs(path)
        if take_owner(old, before) != take_owner(new, after) or before != after:
            return True
        return stat.S_ISREG(new.st_mode) and not same_content(lower, upper, path, self.scope)


def in_both(before: list[bytes], after: list[bytes]) -> Iterator[tuple[bytes, bool, bool]]:
    """Yield all names of two sorted lists in their order, each with whether the one and the other has it."""
    first = second = 0
    while first < len(before) or second < len(after):
        one, other = before[first : first + 1], after[second : second + 1]
        name = min(one + other)
        was, is_there = one == [name], other == [name]
        first, second = first + was, second + is_there
        yield name, was, is_there


def _stat(reader: Reader, path: bytes) -> os.stat_result | None:
    """What an entry is; None for a socket, and for one that was removed meanwhile."""
    try:
        info = reader.stat(path)
    except FileNotFoundError:
        return None
    return None if stat.S_ISSOCK(info.st_mode) else info


def same_content(lower: Reader, upper: Reader, path: bytes, scope: Scope) -> bool:
    """Whether a regular file has the same bytes in both trees: all are read but for what is a hole in both."""
    with open(lower.open(path), "rb", buffering=0) as one, open(upper.open(path), "rb", buffering=0) as two:
        files = one.fileno(), two.fileno()
        size = os.fstat(files[0]).st_size
        if os.fstat(files[1]).st_size != size:
            return False
        at = 0
        while at < size:
            scope.check()
            at = min(next_data(fd, at, size) for fd in files)
            one.seek(at)
            two.seek(at)
            left, right = one.read(_BLOCK), two.read(_BLOCK)
            if left != right:
                return False
            if not left:
                return True
            at += len(left)
        return True


def hardlinks(reader: Reader, scope: Scope) -> Names:
    """Name -> all names of the same file in the tree, in order; files with one name are left out."""
    groups: dict[tuple[int, int], list[bytes]] = {}
    folders = [b""]
    for folder in folders:  # grows while it runs
        scope.check()
        for name, info in reader.entries(folder, scope.check):
            path = folder + b"/" + name if folder else name
            if stat.S_ISDIR(info.st_mode):
                folders.append(path)
            elif info.st_nlink > 1 and not stat.S_ISSOCK(info.st_mode):
                groups.setdefault((info.st_dev, info.st_ino), []).append(path)
    found: Names = {}
    for names in groups.values():
        if len(names) > 1:
            ordered = tuple(sorted(names, key=lambda name: name.split(b"/")))
            found.update(dict.fromkeys(ordered, ordered))
    return found
