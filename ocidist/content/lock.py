"""Locks that hold over threads and processes, and that end with whoever held them.

``flock`` and not ``lockf``: POSIX record locks never block their own process, and are lost when any
descriptor of the file is closed. A lock is let go by closing its descriptor alone, never by ``LOCK_UN``,
which in a forked child would take it from the parent. Where ``fcntl`` is missing, locks hold within the
process.

A lock's file is its owner's alone, 0600 whatever the umask: who can open it can hold it, for ever.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator

from ocidist.content.disk import PRIVATE, make_folders, remove_file
from ocidist.files import NotRegular, regular, tighten

try:
    import fcntl

    if sys.platform == "emscripten":  # Pyodide: the module is there, but no lock ever keeps anyone out
        fcntl = None
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from ocidist.scope import Scope

__all__ = ["FileLock", "Gate", "is_held", "keeps_locks"]

NO_LOCKS = "its file system keeps no locks (flock), so nothing is written there; choose a root on another"
_MAKE = os.O_RDWR | os.O_CREAT
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}

_guard = threading.Lock()
_held: set[str] = set()  # paths locked by this process
_inside: dict[str, int] = {}  # gates passed where fcntl is missing: how many share one, -1 for one alone


def _forget_after_fork() -> None:
    # A child holds none of its parent's locks, and another thread may have been inside the guard.
    global _guard
    _guard = threading.Lock()
    _held.clear()
    _inside.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


class FileLock:
    """An exclusive lock on a path, taken at once or not at all. The constructor does no I/O.

    The holder may unlink the file; whoever opened it before that notices, and starts over.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._mine = False

    def acquire(self) -> bool:
        """True if it is held now, False if another holds it.

        Raises FileNotFoundError where the directory is missing, other OSErrors as they come.
        """
        with _guard:
            if self.path in _held:
                return False
            _held.add(self.path)
            self._mine = True
        try:
            while True:
                try:
                    self._fd = _opened(self.path, _MAKE)
                except NotRegular:  # nobody holds that
                    if os.path.isdir(self.path) and not os.path.islink(self.path):
                        raise
                    remove_file(self.path)
                    continue
                if not _flock(self._fd, exclusive=True):
                    self.release()
                    return False
                if self._current():
                    return True
                os.close(self._fd)
                self._fd = -1
        except BaseException:
            self.release()
            raise

    def _current(self) -> bool:
        # The last holder may have removed the file between our open and our lock.
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._fd)
        return (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev)

    def fileno(self) -> int:
        """The descriptor that holds it. A child that inherits it holds the lock too, until it ends."""
        return self._fd

    def release(self) -> None:
        """Let go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._mine:
            self._mine = False
            with _guard:
                _held.discard(self.path)


def is_held(path: str) -> bool:
    """Whether somebody, of this process or another, holds the lock on ``path``. Nothing is written."""
    with _guard:
        if path in _held or path in _inside:
            return True
    try:
        fd = _opened(path, os.O_RDONLY)
    except PermissionError:  # another user's, who alone can know
        return True
    except OSError:  # no such file: nobody's
        return False
    try:
        return not _flock(fd, exclusive=True)
    finally:
        os.close(fd)


class Gate:
    """Many may be inside together (``shared``), or one alone (``exclusive``). No I/O in the constructor.

    Writers pass the gate, shared, around each commit; the collector of garbage takes it alone. In front of it is a
    queue of one, so that whoever waits to be alone lets nobody else in before: with many writers there would always
    be one inside. For that reason nobody may pass the same gate twice at a time.
    """

    def __init__(self, path: str, mode: int = PRIVATE) -> None:
        self.path = path
        self.queue = f"{path}.next"
        self._mode = mode  # of the folder that it lies in, where that has to be made

    @contextmanager
    def shared(self, scope: Scope | None = None) -> Iterator[None]:
        """Inside together with others; waits, looking at ``scope``. OSErrors come as they are."""
        with self._passed(scope, exclusive=False):
            yield

    @contextmanager
    def exclusive(self, scope: Scope | None = None) -> Iterator[None]:
        """Inside alone; waits, looking at ``scope``. OSErrors come as they are."""
        with self._passed(scope, exclusive=True):
            yield

    @contextmanager
    def looking(self, scope: Scope | None = None) -> Iterator[None]:
        """As ``exclusive``, without writing anything; where nobody has written, nobody needs to be kept out. Another
        user's gate is not held: who may only read must not keep writers waiting."""
        if fcntl is not None and not os.path.lexists(self.path):
            yield
            return
        with self._passed(scope, exclusive=True, flags=os.O_RDONLY):
            yield

    @contextmanager
    def _passed(self, scope: Scope | None, *, exclusive: bool, flags: int = _MAKE) -> Iterator[None]:
        if fcntl is None:
            _poll(lambda: _enter(self.path, exclusive), scope)
            try:
                yield
            finally:
                _leave(self.path)
            return
        if flags & os.O_CREAT:
            make_folders(os.path.dirname(os.path.abspath(self.path)), self._mode)
        inside = -1
        try:
            queued = _locked(self.queue, scope, exclusive, flags)
            try:
                inside = _locked(self.path, scope, exclusive, flags)
            finally:
                if queued >= 0:
                    os.close(queued)
            yield
        finally:
            if inside >= 0:
                os.close(inside)


def _locked(path: str, scope: Scope | None, exclusive: bool, flags: int) -> int:
    """A descriptor that has the lock on ``path``, once it is to be had; -1 if there is no such file to look at."""
    try:
        fd = _opened(path, flags)
    except (FileNotFoundError, PermissionError):
        if flags & os.O_CREAT:
            raise
        return -1
    try:
        _poll(lambda: _flock(fd, exclusive=exclusive), scope)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _opened(path: str, flags: int) -> int:
    fd, found = regular(path, flags)
    if flags & os.O_CREAT:  # also one that an older version left open to others
        tighten(fd, found, 0o600)
    return fd


def _enter(path: str, exclusive: bool) -> bool:
    with _guard:
        count = _inside.get(path, 0)
        if count < 0 or (exclusive and count):
            return False
        _inside[path] = -1 if exclusive else count + 1
        return True


def _leave(path: str) -> None:
    with _guard:
        count = _inside.pop(path, 0)  # empty after a fork
        if count > 1:
            _inside[path] = count - 1


def _poll(attempt: Callable[[], bool], scope: Scope | None) -> None:
    delay = 0.001
    while not attempt():
        if scope is not None:
            scope.check()
        time.sleep(delay)
        delay = min(delay * 2, 0.05)


def keeps_locks(folder: str) -> bool:
    """True if files below ``folder`` can be locked against other processes. Tries it on a file without a name.

    Raises OSError where no file can be made.
    """
    import tempfile

    if fcntl is None:
        return False
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            return _flock(file.fileno(), exclusive=True)
        except OSError:
            return False


def _flock(fd: int, *, exclusive: bool) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise OSError(error.errno, f"{error.strerror}: {NO_LOCKS}") from None
        raise
    return True
