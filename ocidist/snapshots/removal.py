"""Directory trees removed, whatever modes, depths and entry types are in them.

Every step is one component from a directory's descriptor, and nothing is changed or removed through a link: a process
that exchanges a directory meanwhile (a container that still runs, another user of a bundle's parent) gets an error out of
it, and nothing beyond.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable

from ocidist.layers.apply.contained import listed
from ocidist.scope import no_check
from ocidist.trees.directory import FOLDER, PATH_ONLY

__all__ = ["BY_DESCRIPTOR", "remove_tree"]

BY_DESCRIPTOR = hasattr(os, "O_DIRECTORY") and os.rename in os.supports_dir_fd


def remove_tree(path: Path | str, at: int | None = None, check: Callable[[], object] = no_check) -> None:
    """Remove a directory and all in it; missing is no error. Depth costs neither descriptors nor stack.

    ``at`` is a descriptor of the directory that ``path`` counts from. What can't be removed (another user's, or
    something that is mounted there) stays, all else goes; then the first OSError comes as it is. ``check`` is called for
    each directory and each thousand names; what it raises ends it there.
    """
    if not BY_DESCRIPTOR:
        if os.path.lexists(path):
            shutil.rmtree(path)
        return
    try:
        top = _open_folder(path, at)
    except FileNotFoundError:
        return
    removal = _Removal(top, check)
    try:
        removal.run()
    finally:
        os.close(top)
    if removal.trouble is not None:
        raise removal.trouble
    os.rmdir(path, dir_fd=at)


class _Removal:
    """Instead of descending, the directories of each level are moved up beside the others and emptied there.

    A mount point can't be renamed, so what is mounted in the tree is never looked into.
    """

    def __init__(self, top: int, check: Callable[[], object]) -> None:
        self._check = check
        self.trouble: OSError | None = None
        self._top = top
        self._prefix = f".{os.urandom(8).hex()}-"  # no name of the tree
        self._count = 0
        self._todo: list[str] = []

    def run(self) -> None:
        self._empty(self._top)
        while self._todo:
            name = self._todo.pop()
            try:
                inner = _open_folder(name, self._top)
                try:
                    self._empty(inner)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=self._top)
            except OSError as error:
                self._note(error)

    def _note(self, error: OSError) -> None:
        if self.trouble is None:
            self.trouble = error

    def _empty(self, fd: int) -> None:
        """Unlink all but directories, and move those up."""
        try:
            found = listed(fd, self._check)
        except OSError as error:
            self._note(error)
            return
        for number, (name, is_folder) in enumerate(found):
            if not number % 1000:
                self._check()
            try:
                if is_folder:
                    self._move_up(name, fd)
                else:
                    os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note(error)

    def _move_up(self, name: bytes, fd: int) -> None:
        self._count += 1
        new = f"{self._prefix}{self._count}"
        try:
            os.rename(name, new.encode(), src_dir_fd=fd, dst_dir_fd=self._top)
        except PermissionError as error:  # another user's: that needs its consent, unless it is empty
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError:
                raise error from None
        else:
            self._todo.append(new)


def _open_folder(name: Path | str, at: int | None) -> int:
    """A descriptor of a directory, which isn't followed; an ordinary user's own gets a mode that lets in."""
    try:
        fd = os.open(name, FOLDER, dir_fd=at)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            os.chmod(name, 0o700, dir_fd=at, follow_symlinks=False)
            return os.open(name, FOLDER, dir_fd=at)
        held = os.open(name, PATH_ONLY | os.O_DIRECTORY, dir_fd=at)
        try:
            os.chmod(f"/proc/self/fd/{held}", 0o700)
            fd = os.open(".", FOLDER, dir_fd=held)
        finally:
            os.close(held)
    try:
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)
    except PermissionError:  # another user's: whether it can be emptied will be seen
        pass
    return fd
