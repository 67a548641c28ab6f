"""What changed between two trees, in one order for all: directories before what is in them, names by their bytes.

A name is unchanged if all that a layer can say of it is the same: type, owner, mode, time, size, content, link
target, device number, extended attributes, and which other names are the same file. The names of one file change
together or not at all, so a layer never has to name a file that is not in it.
"""

from __future__ import annotations

import stat
from contextlib import closing
from dataclasses import dataclass
from typing import Hashable, Iterator

from ocidist.scope import Scope
from ocidist.trees.protocols import Entry, FileBody, Reader

__all__ = ["Change", "compare", "hardlinks", "in_both", "same_content"]

_BLOCK = 1 << 18

Names = dict[bytes, "tuple[bytes, ...]"]


@dataclass(frozen=True)
class Change:
    """``kind`` is "added", "modified" or "deleted"; ``entry`` what the name is now, before for "deleted".

    ``first`` is the name, earlier in the order, of which this is a further one; else None.
    """

    kind: str
    path: bytes
    entry: Entry
    first: bytes | None = None


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

    def step(self, path: bytes, old: Entry | None, new: Entry | None) -> Step:
        if new is None:
            return (Change("deleted", path, old), None) if old is not None else (None, None)
        folder = stat.S_ISDIR(new.mode)
        both = folder and old is not None and stat.S_ISDIR(old.mode)
        change = None
        if old is None or self.differs(path, old, new):
            names = self.after.get(path, (path,))
            first = names[0] if names[0] != path else None
            change = Change("added" if old is None else "modified", path, new, first)
        return change, ((path, both) if folder else None)

    def differs(self, path: bytes, old: Entry, new: Entry) -> bool:
        lower, upper = self.lower, self.upper
        assert lower is not None
        if self.before.get(path) != self.after.get(path):
            return True
        if old.identity == new.identity:
            return False
        if old.mode != new.mode or old.mtime != new.mtime:
            return True
        if stat.S_ISREG(new.mode) and old.size != new.size:
            return True
        if stat.S_ISLNK(new.mode) and lower.readlink(path) != upper.readlink(path):
            return True
        if (stat.S_ISCHR(new.mode) or stat.S_ISBLK(new.mode)) and old.device != new.device:
            return True
        if old.owner != new.owner or lower.xattrs(path) != upper.xattrs(path):
            return True
        return stat.S_ISREG(new.mode) and not same_content(lower, upper, path, self.scope)


def in_both(before: list[bytes], after: list[bytes]) -> Iterator[tuple[bytes, bool, bool]]:
    """Yield all names of two sorted lists in their order, each with whether the one and the other has it."""
    first = second = 0
    while first < len(before) or second < len(after):
        one, other = before[first : first + 1], after[second : second + 1]
        name = min(one + other)
        was, is_there = one == [name], other == [name]
        first, second = first + was, second + is_there
        yield name, was, is_there


def _stat(reader: Reader, path: bytes) -> Entry | None:
    """What an entry is; None for a socket, and for one that was removed meanwhile."""
    try:
        info = reader.stat(path)
    except FileNotFoundError:
        return None
    return None if stat.S_ISSOCK(info.mode) else info


def same_content(lower: Reader, upper: Reader, path: bytes, scope: Scope) -> bool:
    """Return whether a regular file has the same bytes in both trees: all are read but for what is a hole in both."""
    with closing(lower.open(path)) as one, closing(upper.open(path)) as two:
        size = one.size
        if two.size != size:
            return False
        left, right = bytearray(min(size, _BLOCK)), bytearray(min(size, _BLOCK))
        at = 0
        while at < size:
            scope.check()
            at = min(one.next_data(at), two.next_data(at))
            one.seek(at)
            two.seek(at)
            count = _read(one, left)
            if count != _read(two, right) or left[:count] != right[:count]:
                return False
            if not count:
                return True
            at += count
        return True


def _read(body: FileBody, buffer: bytearray) -> int:
    """Fill ``buffer``, but at the end; return the bytes read."""
    done = 0
    with memoryview(buffer) as view:
        while done < len(buffer):
            count = body.readinto(view[done:])
            if not count:
                break
            done += count
    return done


def hardlinks(reader: Reader, scope: Scope) -> Names:
    """Name -> all names of the same file in the tree, in order; files with one name are left out."""
    groups: dict[tuple[Hashable, ...], list[bytes]] = {}
    folders = [b""]
    for folder in folders:  # grows while it runs
        scope.check()
        for name, info in reader.entries(folder, scope.check):
            path = folder + b"/" + name if folder else name
            if stat.S_ISDIR(info.mode):
                folders.append(path)
            elif info.links > 1 and not stat.S_ISSOCK(info.mode):
                groups.setdefault(info.identity, []).append(path)
    found: Names = {}
    for names in groups.values():
        if len(names) > 1:
            ordered = tuple(sorted(names, key=lambda name: name.split(b"/")))
            found.update(dict.fromkeys(ordered, ordered))
    return found
