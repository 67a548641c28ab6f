"""How a tree differs from what it should be, entry by entry and in words.

Nothing is taken for equal by its time and size: the bytes of every file are read. What is missing or too much is told
once, with its topmost name. No link is followed, and only regular files are opened.
"""

from __future__ import annotations

import os
import stat
from typing import Iterator

from ocidist.scope import Scope
from ocidist.trees.compare import hardlinks, in_both, same_content
from ocidist.trees.directory import DirectoryReader
from ocidist.trees.protocols import Entry

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
            if stat.S_ISDIR(old.mode) and stat.S_ISDIR(new.mode):
                yield path, ""
        elif old is not None:
            yield path, f"missing; there should be a {old.type}"
        elif new is not None:
            yield path, f"a {new.type} that no layer has"

    def entry(self, path: bytes, old: Entry, new: Entry) -> Iterator[tuple[bytes, str]]:
        """Yield what is wrong with an entry that both have, if anything."""
        if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
            yield path, f"a {new.type}, should be a {old.type}"
            return
        try:
            problems = [*self._content(path, old, new), *self._metadata(path, old, new)]
        except OSError as error:
            problems = [_unreadable(error)]
        if problems:
            yield path, "; ".join(problems)

    def _content(self, path: bytes, old: Entry, new: Entry) -> Iterator[str]:
        kind = stat.S_IFMT(old.mode)
        if kind == stat.S_IFREG:
            if old.size != new.size:
                yield f"{f'{new.size} bytes' if new.size else 'empty'}, should have {old.size} bytes"
            elif old.size and not same_content(self.wanted, self.tree, path, self.scope):
                yield "its content is not the layer's"
        elif kind == stat.S_IFLNK:
            one, other = self.wanted.readlink(path), self.tree.readlink(path)
            if one != other:
                yield f"a link to {os.fsdecode(other)!r}, should be to {os.fsdecode(one)!r}"
        elif kind in (stat.S_IFCHR, stat.S_IFBLK) and old.device != new.device:
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

    def _metadata(self, path: bytes, old: Entry, new: Entry) -> Iterator[str]:
        one, other = stat.S_IMODE(old.mode), stat.S_IMODE(new.mode)
        if one != other:
            yield f"mode {other:04o}, should be {one:04o}"
        if old.owner != new.owner:
            yield f"owner {new.uid}:{new.gid}, should be {old.uid}:{old.gid}"
        before, after = self.wanted.xattrs(path, _MARKS), self.tree.xattrs(path, _MARKS)
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                what = "missing" if name not in after else "another" if name in before else "too much"
                yield f"extended attribute {os.fsdecode(name)}: {what}"
        if old.mtime < self.since and old.mtime != new.mtime:
            yield f"time {_time(new)}, should be {_time(old)}"


def _device(info: Entry) -> str:
    return f"{os.major(info.device)}:{os.minor(info.device)}"


def _time(info: Entry) -> str:
    seconds, fraction = divmod(info.mtime, 10**9)
    return f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".")


def _shown(path: bytes) -> str:
    return "/" + os.fsdecode(path)


def _unreadable(error: OSError) -> str:
    return f"can't be read: {error.strerror or error}"
