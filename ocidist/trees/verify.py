"""How a tree differs from what it should be, entry by entry and in words.

Nothing is taken for equal by its time and size: the bytes of every file are read. What is missing or too much is told
once, with its topmost name. No link is followed, and only regular files are opened.
"""

from __future__ import annotations

import os
import stat
from typing import Iterator

from ocidist.scope import Scope
from ocidist.trees.compare import TYPES, hardlinks, in_both, same_content
from ocidist.trees.directory import DirectoryReader, of_host
from ocidist.trees.rootless import take_owner

__all__ = ["differences"]

_MARKS = (b"overlay.opaque", b"overlay.whiteout")  # of a layer's own directory, for the kernel


def differences(
    tree: DirectoryReader, wanted: DirectoryReader, since: int, scope: Scope
) -> Iterator[tuple[bytes, str]]:
    """Yield each path (``b""`` for the root) at which ``tree`` is not as ``wanted``, and what is wrong with it.

    Times of ``since`` (nanoseconds) or later in ``wanted`` are those of its making, which no layer gives; they are not
    compared. What can't be read of ``tree`` differs. Raises the scope's end.
    """
    comparison = _Comparison(tree, wanted, since, scope)
    yield from comparison.entry(b"", wanted.stat(b""), tree.stat(b""))
    pending = [comparison.folder(b"")]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        path, text = found
        if text:
            yield path, text
        else:
            pending.append(comparison.folder(path))


class _Comparison:
    def __init__(self, tree: DirectoryReader, wanted: DirectoryReader, since: int, scope: Scope) -> None:
        self.tree, self.wanted, self.since, self.scope = tree, wanted, since, scope
        self.names = hardlinks(wanted, scope)
        try:
            self.found = hardlinks(tree, scope)
        except OSError:  # told where it is met
            self.found = {}

    def folder(self, path: bytes) -> Iterator[tuple[bytes, str]]:
        """Yield what differs in a directory, in the order of names; with no text, a directory to look into."""
        old = self.wanted.names(path, self.scope.check)
        try:
            new = self.tree.names(path, self.scope.check)
        except OSError as error:
            yield path, _unreadable(error)
            return
        for name, is_wanted, is_here in in_both(old, new):
            self.scope.check()
            self.scope.tick()
            inside = path + b"/" + name if path else name
            yield from self.name(inside, is_wanted, is_here)

    def name(self, path: bytes, is_wanted: bool, is_here: bool) -> Iterator[tuple[bytes, str]]:
        """Yield what is wrong with a name, and then, where it is a directory in both, the name with no text."""
        old = self.wanted.stat(path) if is_wanted else None
        try:
            new = self.tree.stat(path) if is_here else None
        except FileNotFoundError:  # removed meanwhile
            new = None
        except OSError as error:
            yield path, _unreadable(error)
            return
        if old is not None and new is not None:
            yield from self.entry(path, old, new)
            if stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode):
                yield path, ""
        elif old is not None:
            yield path, f"missing; there should be a {_type(old)}"
        elif new is not None:
            yield path, f"a {_type(new)} that no layer has"

    def entry(self, path: bytes, old: os.stat_result, new: os.stat_result) -> Iterator[tuple[bytes, str]]:
        """Yield what is wrong with an entry that both have, if anything."""
        if stat.S_IFMT(old.st_mode) != stat.S_IFMT(new.st_mode):
            yield path, f"a {_type(new)}, should be a {_type(old)}"
            return
        try:
            problems = [*self._content(path, old, new), *self._metadata(path, old, new)]
        except OSError as error:
            problems = [_unreadable(error)]
        if problems:
            yield path, "; ".join(problems)

    def _content(self, path: bytes, old: os.stat_result, new: os.stat_result) -> Iterator[str]:
        kind = stat.S_IFMT(old.st_mode)
        if kind == stat.S_IFREG:
            if old.st_size != new.st_size:
                yield f"{f'{new.st_size} bytes' if new.st_size else 'empty'}, should have {old.st_size} bytes"
            elif old.st_size and not same_content(self.wanted, self.tree, path, self.scope):
                yield "its content is not the layer's"
        elif kind == stat.S_IFLNK:
            one, other = self.wanted.readlink(path), self.tree.readlink(path)
            if one != other:
                yield f"a link to {os.fsdecode(other)!r}, should be to {os.fsdecode(one)!r}"
        elif kind in (stat.S_IFCHR, stat.S_IFBLK) and old.st_rdev != new.st_rdev:
            yield f"device {_device(new)}, should be {_device(old)}"
        yield from self._links(path)

    def _links(self, path: bytes) -> Iterator[str]:
        """Whether it is the same file as the names that it should share one with, and no others."""
        names, found = self.names.get(path, (path,)), self.found.get(path, (path,))
        if names[0] != path and names[0] not in found and self._exists(names[0]):
            yield f"not the same file as {_shown(names[0])}"
        strange = [name for name in found if name not in names]
        if strange and found[0] != path:
            yield f"the same file as {_shown(strange[0])}, should be another"

    def _exists(self, path: bytes) -> bool:
        try:
            self.tree.stat(path)
        except OSError:  # told by itself
            return False
        return True

    def _metadata(self, path: bytes, old: os.stat_result, new: os.stat_result) -> Iterator[str]:
        one, other = stat.S_IMODE(old.st_mode), stat.S_IMODE(new.st_mode)
        if one != other:
            yield f"mode {other:04o}, should be {one:04o}"
        before, after = self._xattrs(self.wanted, path), self._xattrs(self.tree, path)
        owner, found = take_owner(old, before), take_owner(new, after)
        if owner != found:
            yield f"owner {found[0]}:{found[1]}, should be {owner[0]}:{owner[1]}"
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                what = "missing" if name not in after else "another" if name in before else "too much"
                yield f"extended attribute {os.fsdecode(name)}: {what}"
        if old.st_mtime_ns < self.since and old.st_mtime_ns != new.st_mtime_ns:
            yield f"time {_time(new)}, should be {_time(old)}"

    def _xattrs(self, reader: DirectoryReader, path: bytes) -> dict[bytes, bytes]:
        found = reader.raw_xattrs(path)
        return {name: found[name] for name in found if not of_host(name) or name.endswith(_MARKS)}


def _type(info: os.stat_result) -> str:
    return TYPES.get(stat.S_IFMT(info.st_mode), "unknown")


def _device(info: os.stat_result) -> str:
    return f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"


def _time(info: os.stat_result) -> str:
    seconds, fraction = divmod(info.st_mtime_ns, 10**9)
    return f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".")


def _shown(path: bytes) -> str:
    return "/" + os.fsdecode(path)


def _unreadable(error: OSError) -> str:
    return f"can't be read: {error.strerror or error}"
