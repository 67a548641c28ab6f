"""A root directory that nothing leads out of: every step is one component, from a directory descriptor.

No call here takes a path of more than one component, and none follows a link. Where a parent directory is a
symlink made by a lower layer (``lib -> usr/lib`` is in every merged-usr image), the link is read and walked
by hand, component by component; absolute links and ``..`` count from the root, never from above it. A
directory that another process swaps for a link meanwhile is refused by the kernel at that step.

Descriptors of open directories are kept, 64 at most, and forgotten whenever a directory or a link is
replaced. A directory is settled when its descriptor is closed: it gets the owner, mode and times of its entry,
or, where the layer only passed through it, the times that it had before.

Looking a directory up costs a step for each component, of links too. What one entry and one layer may take is bounded:
links that lead through links and ``..`` multiply.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Callable, Protocol

from ocidist.errors import LayerError, LimitExceeded, UnsafeEntry
from ocidist.files import forget_acls, has_default_acl
from ocidist.layers.tar.records import Member
from ocidist.layers.whiteouts import MAX_PATH
from ocidist.scope import Scope
from ocidist.trees.directory import FOLDER

__all__ = ["CREATE", "Directory", "Tree", "listed", "spare_nothing"]

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW
CREATE |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags that open a new file."""

_MAX_OPEN = 64
_MAX_LINKS = 255
_MAX_STEPS = 10_000  # for one entry
_STEPS_EACH = 100  # for an entry on the average, beyond what Limits say
_STEPS_GONE = (
    3  # that it takes to read, or remove, one directory of those to be removed: who made it has paid
)
_LOOK = 4096  # names between two looks at the scope


def listed(fd: int, check: Callable[[], object]) -> list[tuple[bytes, bool]]:
    """Return the names in the directory open as ``fd``, each with whether it is a directory. ``check`` may end it."""
    found: list[tuple[bytes, bool]] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if not len(found) % _LOOK:
                check()
            found.append((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)))
    return found


class Settler(Protocol):
    """Gives directories their owner, mode, times and attributes, and asks for what is beneath."""

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        """Settle the directory of an entry; ``merged`` if it was there before."""
        ...

    def implied(self, fd: int) -> None:
        """Settle a directory without an entry of its own."""
        ...

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        """Nothing is at ``at/name``: return whether it is there now, from layers beneath that this tree doesn't hold.

        Without ``create`` the way may lead on through what isn't there: then ``name`` has further components.
        """
        ...

    def replaced(self, real: bytes) -> None:
        """Note that what was at a real path gave way to an entry."""
        ...


class Directory:
    """An open directory. ``real`` is its path below the root, without links: ``b""``, ``b"/usr/lib"``."""

    __slots__ = ("aliases", "entry", "fd", "gives", "inherits", "merged", "real", "times")

    def __init__(self, fd: int, real: bytes) -> None:
        self.fd = fd
        self.real = real
        self.aliases: list[bytes] = []
        self.times: tuple[int, int] | None = None  # to be given back, in nanoseconds
        self.entry: Member | None = None  # whose metadata it gets
        self.merged = False
        self.gives: tuple[int, int] | None = None  # the owner and group of what is made in it, once seen
        self.inherits = False  # whether what is made in it gets an access control list, which no archive says

    def was_there(self) -> None:
        found = os.fstat(self.fd)
        self.times = (found.st_atime_ns, found.st_mtime_ns)
        self.merged = True
        self.inherits = has_default_acl(self.fd)


class Tree:
    """See above. Raises UnsafeEntry, LayerError, LimitExceeded and the scope's end; an OSError comes as it is.

    Whoever uses it counts ``entries``, and says in ``member`` which one it is at.
    """

    def __init__(self, root: Path | int, layer: str, settler: Settler, scope: Scope) -> None:
        fd = os.dup(root) if isinstance(root, int) else os.open(root, FOLDER & ~_NOFOLLOW)
        self.root = Directory(fd, b"")
        self.root.was_there()
        self.member = b""  # for errors
        self.entries = 0
        self.made = 0  # directories that no entry describes
        self._steps = self._started = 0  # in all; before the entry
        self._limit = scope.limits.steps if scope.limits is not None else sys.maxsize
        self._check = scope.check
        self.changes = 0  # how often what was resolved before may have come to lead elsewhere
        self._layer = layer
        self._settler = settler
        self._open: dict[bytes, Directory] = {}  # by real path; oldest first
        self._aliases: dict[bytes, Directory] = {}  # by the path as archived
        self._pinned: Directory | None = None

    def is_empty(self) -> bool:
        """Return whether the root has nothing in it."""
        with os.scandir(self.root.fd) as entries:
            return next(entries, None) is None

    def close(self) -> None:
        """Settle and let go of everything, also when that fails for some."""
        trouble: OSError | OverflowError | None = None
        for directory in [*self._open.values(), self.root]:
            try:
                self._close(directory)
            except (OSError, OverflowError) as error:  # the latter for a time that no clock has
                trouble = error
        self._open.clear()
        self._aliases.clear()
        if trouble is not None:
            raise trouble

    def _close(self, directory: Directory) -> None:
        fd, directory.fd = directory.fd, -1
        if fd < 0:
            return
        try:
            if directory.entry is not None:
                self._settler.entry(fd, directory.entry, directory.merged)
            elif directory.times is not None:
                try:
                    os.utime(fd, ns=directory.times)
                except PermissionError:  # another user's directory that we may write to
                    pass
        finally:
            os.close(fd)

    def _evict(self, directory: Directory) -> None:
        del self._open[directory.real]
        for alias in directory.aliases:
            self._aliases.pop(alias, None)
        directory.aliases.clear()
        self._close(directory)

    # -- finding --

    def at(self, path: bytes, create: bool = True) -> Directory | None:
        """Return the directory at a normalised path, through links inside the root.

        With ``create`` what is missing is made, and a file in the way is replaced (a layer that puts
        something beneath a name says that it is a directory); without, None.
        """
        found, missing = self.reach(path, create)
        return None if missing else found

    def reach(self, path: bytes, create: bool = False) -> tuple[Directory, list[bytes]]:
        """As :meth:`at`; return the last directory that exists, and the names after it that don't."""
        if not path:
            return self.root, []
        known = self._aliases.get(path)
        if known is not None:
            return known, []
        self._spend()
        head, _, name = path.rpartition(b"/")
        base = self._aliases.get(head)
        if base is not None:
            found, missing = self._walk(base, [name], create)
        else:
            found, missing = self._walk(self.root, path.split(b"/")[::-1], create)
        if not missing and found is not self.root:
            self._aliases[path] = found
            found.aliases.append(path)
        return found, missing

    def need(self, path: bytes) -> Directory:
        """As :meth:`at`, making what is missing."""
        found = self.at(path)
        assert found is not None
        return found

    def also(self, keep: Directory, path: bytes) -> Directory | None:
        """``at`` without making anything, while ``keep`` stays open."""
        self._pinned = keep
        try:
            return self.at(path, create=False)
        finally:
            self._pinned = None

    def exactly(self, real: bytes) -> Directory | None:
        """Return the directory at a real path, brought up from beneath if need be; None where there is none."""
        at = self.root
        self._spend()
        for part in real.split(b"/")[1:]:
            self._steps += 1
            path = at.real + b"/" + part
            found = self._open.get(path) or self._enter(at, part, path, create=False)
            if not isinstance(found, Directory):
                return None
            at = found
        return at

    def _spend(self) -> None:
        """Check the scope and the layer's budget of steps; the steps of an entry count from here."""
        self._check()
        self._started = self._steps
        if self._steps > self._limit + _STEPS_EACH * self.entries:
            raise LimitExceeded(
                self._layer,
                f"{self.entries} entries took more than {self._limit + _STEPS_EACH * self.entries} steps through "
                "its directories and links",
                self._shown(),
            )

    def _walk(
        self, at: Directory, todo: list[bytes], create: bool, links: bool = True
    ) -> tuple[Directory, list[bytes]]:
        """Walk ``todo`` (last component first) from ``at``; return the last directory that exists, and the missing names."""
        hops = 0
        missing: list[bytes] = []
        while todo:
            part = todo.pop()
            if not part or part == b".":
                continue
            self._steps += 1
            if self._steps - self._started > _MAX_STEPS:
                raise UnsafeEntry(
                    self._layer,
                    self._shown(),
                    f"its directory is a maze of links, of more than {_MAX_STEPS} steps",
                )
            if missing:
                if part == b"..":
                    missing.pop()
                else:
                    missing.append(part)
                    self._settler.bring_up(at, b"/".join(missing), create=False)
                continue
            if part == b"..":
                above = self._real(at.real.rpartition(b"/")[0])
                if above is None:  # removed by somebody else
                    return at, [part]
                at = above
                continue
            real = at.real + b"/" + part
            known = self._open.get(real)
            if known is not None:
                self._open[real] = self._open.pop(real)  # youngest again
                at = known
                continue
            entered = self._enter(at, part, real, create)
            if isinstance(entered, bytes):
                hops += 1
                if not links or hops > _MAX_LINKS:
                    raise UnsafeEntry(self._layer, self._shown(), "its directory is a maze of links")
                if entered[:1] == b"/":
                    at = self.root
                todo.extend(reversed(entered.split(b"/")))
                continue
            if entered is None:
                missing.append(part)
                continue
            at = entered
        return at, missing

    def _real(self, real: bytes) -> Directory | None:
        """Return the directory of a real path; a link on the way was put there meanwhile, by another process."""
        known, todo = self.root, []
        while real:
            found = self._open.get(real)
            if found is not None:
                known = found
                break
            real, _, name = real.rpartition(b"/")
            todo.append(name)
        found, missing = self._walk(known, todo, False, links=False)
        return None if missing else found

    def _enter(
        self, at: Directory, name: bytes, real: bytes, create: bool, ask: bool = True
    ) -> Directory | bytes | None:
        """Take one step; return the directory, a link's target, or None where nothing is and nothing is to be made."""
        if len(real) > MAX_PATH:
            raise LayerError(self._layer, self._shown(), "its directories are nested too deeply")
        try:
            fd = os.open(name, FOLDER, dir_fd=at.fd)
        except FileNotFoundError:
            if ask and self._settler.bring_up(at, name, create):
                self.made += 1
                return self._enter(at, name, real, create, ask=False)
            if not create:
                return None
            return self._make(at, name, real)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            try:
                return os.readlink(name, dir_fd=at.fd)
            except OSError as other:
                if other.errno != errno.EINVAL:
                    raise
            if not create:
                return None
            self.replace(at, name)
            return self._make(at, name, real)
        directory = self._keep(fd, real, at)
        directory.was_there()
        return directory

    def _make(self, at: Directory, name: bytes, real: bytes) -> Directory:
        os.mkdir(name, 0o700, dir_fd=at.fd)
        self.made += 1
        directory = self._keep(os.open(name, FOLDER, dir_fd=at.fd), real, at)
        if at.inherits:
            forget_acls(directory.fd)
        self._settler.implied(directory.fd)
        return directory

    def _keep(self, fd: int, real: bytes, parent: Directory) -> Directory:
        directory = Directory(fd, real)
        if len(self._open) >= _MAX_OPEN:
            for old in self._open.values():
                if old is not parent and old is not self._pinned:
                    self._evict(old)
                    break
        self._open[real] = directory
        return directory

    def directory(self, at: Directory, name: bytes, member: Member) -> Directory:
        """Return the directory of an entry, made or merged with the one that is there."""
        real = at.real + b"/" + name
        if len(real) > MAX_PATH:
            raise LayerError(self._layer, self._shown(), "its directories are nested too deeply")
        found = self._open.get(real)
        if found is None:
            merged = False
            try:
                os.mkdir(name, 0o700, dir_fd=at.fd)
            except FileExistsError:
                mode = os.stat(name, dir_fd=at.fd, follow_symlinks=False).st_mode
                merged = stat.S_ISDIR(mode)
                if not merged:
                    self.replace(at, name)
                    os.mkdir(name, 0o700, dir_fd=at.fd)
            found = self._keep(os.open(name, FOLDER, dir_fd=at.fd), real, at)
            found.merged = merged
            if merged:
                found.inherits = has_default_acl(found.fd)
            elif at.inherits:
                forget_acls(found.fd)
        found.entry = member
        return found

    def _shown(self) -> str:
        return os.fsdecode(self.member)

    # -- removing --

    def replace(self, at: Directory, name: bytes) -> None:
        """Make room for an entry."""
        if self.remove(at, name):
            self._settler.replaced(at.real + b"/" + name)

    def remove(self, at: Directory, name: bytes) -> bool:
        """Remove ``name`` whatever it is, with all that is in it; True if something was there."""
        return self.hide(at, name, spare_nothing)

    def hide(self, at: Directory, name: bytes, spared: Callable[[bytes], bool]) -> bool:
        """Remove ``name``, but for what is ``spared`` (by real path) and the directories that lead there."""
        try:
            mode = os.stat(name, dir_fd=at.fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        real = at.real + b"/" + name
        if not stat.S_ISDIR(mode):
            if not spared(real):
                os.unlink(name, dir_fd=at.fd)
                if stat.S_ISLNK(mode):
                    self._changed(at)
            return True
        self._pinned = at
        try:
            self._clear(real, spared, itself=True)
        finally:
            self._pinned = None
            self._changed(at)
        return True

    def empty(self, at: Directory, spared: Callable[[bytes], bool]) -> None:
        """Remove what is in ``at``, but for what is ``spared`` and the directories that lead there."""
        self._pinned = at
        try:
            self._clear(at.real, spared, itself=False)
        finally:
            self._pinned = None
            self._changed(at)

    def _changed(self, keep: Directory) -> None:
        """Forget all directories but ``keep``, which the caller goes on with."""
        self.changes += 1
        for directory in list(self._open.values()):
            if directory is not keep:
                self._evict(directory)
        self._aliases.clear()
        keep.aliases.clear()

    def _clear(self, top: bytes, spared: Callable[[bytes], bool], itself: bool) -> None:
        folders = [top]
        for folder in folders:  # grows while it runs: parents before their children
            self._spend()
            names = self._names(folder)
            self._steps -= min(_STEPS_GONE, self._steps - self._started)
            for number, (name, is_folder) in enumerate(names):
                if not number % _LOOK:
                    self._check()
                inside = folder + b"/" + name
                if is_folder:
                    folders.append(inside)
                elif spared(inside):
                    self._steps += 1  # what is removed was paid for by who made it
                elif (directory := self._real(folder)) is not None:
                    os.unlink(name, dir_fd=directory.fd)
        for folder in reversed(folders if itself else folders[1:]):
            self._spend()
            if spared(folder):
                self._steps += 1
            elif self._rmdir(folder):
                self._steps -= min(_STEPS_GONE, self._steps - self._started)

    def _names(self, folder: bytes) -> list[tuple[bytes, bool]]:
        directory = self._real(folder)
        if directory is None:
            return []
        return listed(directory.fd, self._check)

    def _rmdir(self, folder: bytes) -> bool:
        above, _, name = folder.rpartition(b"/")
        directory = self._real(above)
        if directory is None:
            return False
        try:
            os.rmdir(name, dir_fd=directory.fd)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Something spared is in it: it stays, as a directory that this layer made in passing.
            kept = self._real(folder)
            if kept is not None:
                kept.times = kept.gives = None
                self._settler.implied(kept.fd)
                os.utime(kept.fd)
            return False
        gone = self._open.get(folder)
        if gone is not None:
            gone.entry = gone.times = None
            self._evict(gone)
        return True


def spare_nothing(real: bytes) -> bool:
    """A ``spared`` of :meth:`Tree.hide` and :meth:`Tree.empty` for whoever removes all."""
    return False
