"""Snapshotters over directories: a folder for each snapshot, and nothing that is half there.

``ROOT/NAME/committed/ALGORITHM-HEX/{fs,info}`` and ``ROOT/NAME/active/…`` alike; keys that are not digests
are hashed, ``fs`` is a tree and ``info`` a line of JSON. There is no database that could disagree
with the disk. A rename makes a snapshot visible, another makes it vanish, so a process that is
killed leaves only invisible files. The directories above the trees are 0700: setuid programs of an image
are out of reach of other users (CVE-2021-41103).

Trees are not fsynced: they are made from verified blobs and can be made again (``check --trees`` finds what a power cut
damaged).
"""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Any, Callable, Iterator, Sequence

from ocidist.content.disk import failure, make_folder, make_folders, place_of, refuse_links
from ocidist.content.lock import FileLock, is_held
from ocidist.errors import InvalidDigest, StoreError
from ocidist.files import NotRegular, read_small, replacing
from ocidist.scope import Scope, no_check
from ocidist.snapshots.measure import tree_usage
from ocidist.snapshots.protocols import LocalTrees, Mount, Site, SnapshotInfo, Usage
from ocidist.snapshots.removal import BY_DESCRIPTOR, remove_tree
from ocidist.spec.digest import Digest
from ocidist.trees.directory import FOLDER
from ocidist.trees.protocols import Reader

__all__ = ["UNPACKING", "Claim", "FolderSnapshotter", "make_place"]

UNPACKING = "unpack "  # the keys of what is being unpacked begin with it


class Claim:
    """The sole right to prepare a key, until it is closed or its process ends."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        self._held = True

    def fileno(self) -> int:
        """Return the lock's descriptor: a process that inherits it holds the claim as long as it lives."""
        return self._lock.fileno()

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._held:
            self._held = False
            try:
                os.unlink(self._lock.path)  # before letting go: whoever waits for this file looks again
            except OSError:
                pass
            self._lock.release()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def make_place(place: Path) -> None:
    """Make a directory to extract a layer in, whatever the umask; one that is there stays. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(place)
        os.chmod(place, 0o755)


class FolderSnapshotter:
    """LocalTrees, but for what depends on how a tree is kept. The constructor does no I/O; errors are StoreError."""

    name = ""

    def __init__(self, root: Path) -> None:
        self.root = Path(root) / self.name
        self._committed = self.root / "committed"
        self._active = self.root / "active"

    # -- looking --

    def stat(self, key: str) -> SnapshotInfo:
        """Return what is known of a snapshot. Raises StoreError if there is none."""
        name = _folder(key)
        for kind, folder in (("committed", self._committed / name), ("active", self._active / name)):
            info = self._read(folder, kind)
            if info is not None:
                return info
        raise StoreError(key, "no such snapshot")

    def path(self, key: str) -> Path:
        """Return the directory of a snapshot's own files. Raises StoreError if there is none."""
        where = self._committed if self.stat(key).kind == "committed" else self._active
        return where / _folder(key) / "fs"

    def usage(self, key: str, check: Callable[[], object] = no_check) -> Usage:
        """Measure a snapshot's own files. Raises StoreError."""
        tree = self.path(key)
        try:
            return tree_usage(tree, check)
        except OSError as error:
            raise failure(str(tree), error) from error

    def walk(self) -> Iterator[SnapshotInfo]:
        """Yield every snapshot, committed before active, in the order of their names."""
        for kind, folder in (("committed", self._committed), ("active", self._active)):
            try:
                names = sorted(os.listdir(folder))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise failure(str(folder), error) from error
            for name in names:
                info = self._read(folder / name, kind)
                if info is not None:  # not one of ours, or removed meanwhile
                    yield info

    def _read(self, folder: Path, kind: str) -> SnapshotInfo | None:
        try:
            found: dict[str, Any] = json.loads(read_small(folder / "info", 1 << 16))
            if kind == "active" and found.get("kind") == "view":
                kind = "view"
            return SnapshotInfo(str(found["key"]), str(found["parent"]), kind, float(found["created_at"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            NotRegular,
        ):  # damaged: as good as absent, and made again when needed
            return None
        except OSError as error:
            raise failure(str(folder), error) from error

    # -- writing --

    def claim(self, key: str) -> Claim | None:
        """Take the sole right to prepare ``key``, over threads and processes; None while another has it."""
        try:
            self._make_root()
            lock = FileLock(str(self.root / "locks" / _folder(key)))
            return Claim(lock) if lock.acquire() else None
        except OSError as error:
            raise failure(str(self.root), error) from error

    def begin(self, key: str, parent: str = "", scope: Scope | None = None) -> Path:
        """Make a private directory to write in, over the parent's tree; what was there under this key is dropped.

        Leftovers of killed processes are removed first.
        """
        return self._start(key, parent, "active", scope or Scope())

    def prepare(self, key: str, parent: str = "", scope: Scope | None = None) -> Sequence[Mount]:
        """As :meth:`begin`; return its mounts."""
        self._start(key, parent, "active", scope or Scope())
        return self.mounts(key)

    def view(self, key: str, parent: str, scope: Scope | None = None) -> Sequence[Mount]:
        """As :meth:`prepare`, to be read only."""
        self._start(key, parent, "view", scope or Scope())
        return self.mounts(key)

    def mounts(self, key: str) -> Sequence[Mount]:
        """Return what shows the tree of an active snapshot or a view. Raises StoreError for a committed one."""
        raise NotImplementedError

    def kept(self, chains: Sequence[str]) -> Sequence[str]:
        """Return the ChainIDs of an image's layers that get a snapshot of their own."""
        raise NotImplementedError

    def site(self, key: str, parent: str, scope: Scope) -> Site:
        """Begin a snapshot that layers are applied to."""
        raise NotImplementedError

    def reader(self, key: str) -> Reader:
        """Open a snapshot's whole tree for reading. Raises StoreError."""
        raise NotImplementedError

    def dependents(self, key: str) -> list[str]:
        """Return the keys of active snapshots and views that need the files of the committed ``key``."""
        return [info.key for info in self.walk() if info.kind != "committed" and info.parent == key]

    def _start(self, key: str, parent: str, kind: str, scope: Scope) -> Path:
        folder = self._active / _folder(key)
        try:
            self._make_root()
            self._sweep(scope.check, but=key)
            self._discard(folder, scope.check)
            if parent:
                self._committed_path(parent)
            self._make(folder, key, parent, kind, scope)
            return folder / "fs"
        except OSError as error:
            raise failure(place_of(error, str(folder)), error) from error

    def _make(self, folder: Path, key: str, parent: str, kind: str, scope: Scope) -> None:
        """Make the snapshot in ``removed``, where a killed process's leftovers are found, then rename it into place."""
        new, claim = self._aside(folder)
        with claim:
            make_folder(str(new))
            try:
                make_folder(str(new / "fs"), 0o755)
                self._fill(new, parent, kind, scope)
                self._write(new, key, parent, kind)
                os.rename(new, folder)
            except OSError:
                remove_tree(new)
                raise

    def _fill(self, folder: Path, parent: str, kind: str, scope: Scope) -> None:
        """Make what a new snapshot of ``parent`` needs beside or in its empty ``fs``."""
        raise NotImplementedError

    def _committed_path(self, key: str) -> Path:
        folder = self._committed / _folder(key)
        if self._read(folder, "committed") is None:
            raise StoreError(key, "no such committed snapshot")
        return folder / "fs"

    def commit(self, name: str, key: str, parent: str = "") -> None:
        """Make the active ``key`` the committed ``name``, at once and whole."""
        self._refuse_links()
        source, target = self._active / _folder(key), self._committed / _folder(name)
        found = self._read(source, "active")
        if found is None:
            raise StoreError(key, "no such active snapshot")
        if found.kind == "view":
            raise StoreError(key, "a view is read only, so there is nothing to commit")
        try:
            self._write(source, name, parent or found.parent)
            if target.is_dir() and self._read(target, "committed") is None:
                self._discard(target)  # damaged
            try:
                os.rename(source, target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self._discard(source)
        except OSError as error:
            raise failure(place_of(error, str(source)), error) from error

    def remove(self, key: str, scope: Scope | None = None) -> None:
        """Remove a snapshot: it vanishes at once, then its files go. Raises StoreError also where some of them stay.

        Where ``scope`` ends meanwhile, what is left goes with the next thing that is prepared, or with gc.
        """
        info = self.stat(key)
        where = self._committed if info.kind == "committed" else self._active
        try:
            left = self._discard(where / _folder(key), (scope or Scope()).check)
        except OSError as error:
            raise failure(place_of(error, str(where)), error) from error
        if left is not None:
            raise left

    @contextmanager
    def scratch(self) -> Iterator[FolderSnapshotter]:
        """Yield an empty snapshotter of the same kind on the same file system, out of sight. It is removed with the
        block, or with what killed processes left."""
        try:
            self._make_root()
            folder, claim = self._aside(self.root / "scratch")
        except OSError as error:
            raise failure(str(self.root), error) from error
        with claim:
            try:
                make_folder(str(folder))
                yield type(self)(folder)
            finally:
                _removed(folder, no_check)  # gc reports what stays

    def replace(self, key: str, made: LocalTrees, scope: Scope | None = None) -> None:
        """Put ``made``'s committed ``key`` in the place of this one's, whose files are removed then. Raises StoreError."""
        self._refuse_links()
        source, target = made.path(key).parent, self._committed / _folder(key)
        try:
            away, claim = self._aside(target)
            with claim:
                with suppress(FileNotFoundError):
                    os.rename(target, away)
                try:
                    os.rename(source, target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise  # else another process has unpacked it meanwhile
                left = _removed(away, (scope or Scope()).check)
        except OSError as error:
            raise failure(place_of(error, str(target)), error) from error
        if left is not None:
            raise left

    def stale(self) -> list[Path]:
        """The folders that :meth:`remove_stale` would remove."""
        locks, removed = self.root / "locks", self.root / "removed"
        left = [
            _folder(info.key)
            for info in self.walk()
            if info.kind == "active" and info.key.startswith(UNPACKING)
        ]
        try:
            gone = os.listdir(removed) if removed.is_dir() else []
        except OSError as error:
            raise failure(str(removed), error) from error
        found = [(self._active, name) for name in left] + [(removed, name) for name in gone]
        return [folder / name for folder, name in found if not is_held(str(locks / name))]

    def remove_stale(self) -> int:
        """Remove the leftovers of killed processes; return how many there were. Raises StoreError where some can't be removed."""
        try:
            count, left = 0, list[StoreError]()
            if self.root.is_dir():
                self._make_root()
                count, left = self._sweep()
        except OSError as error:
            raise failure(place_of(error, str(self.root)), error) from error
        if len(left) > 1:
            more = f"{left[0].reason}; so it is with {len(left) - 1} more in {self.root / 'removed'}"
            raise StoreError(left[0].path, more)
        if left:
            raise left[0]
        return count

    def _sweep(self, check: Callable[[], object] = no_check, but: str = "") -> tuple[int, list[StoreError]]:
        """Remove the leftovers of killed processes; return how many there were, and what could not be removed."""
        self._refuse_links()
        count, left = 0, []
        for info in list(self.walk()):
            if info.kind == "active" and info.key.startswith(UNPACKING) and info.key != but:
                claim = self.claim(info.key)
                if claim is not None:
                    with claim:
                        self._discard(self._active / _folder(info.key), check)
                        count += 1
        # Also the locks alone: a process that is killed within one leaves its file.
        for name in {*os.listdir(self.root / "removed"), *os.listdir(self.root / "locks")}:
            trouble = self._remove(name, check)
            if trouble is not None:
                left.append(trouble)
        return count, left

    def _discard(self, folder: Path, check: Callable[[], object] = no_check) -> StoreError | None:
        """Move a folder out of sight, then remove it; return the error where some of it stays."""
        self._refuse_links()
        away, claim = self._aside(folder)
        with claim:
            try:
                os.rename(folder, away)
            except FileNotFoundError:
                return None
            return _removed(away, check)

    def _aside(self, folder: Path) -> tuple[Path, Claim]:
        """Return a path in ``removed`` that belongs to this process as long as it has the claim."""
        while True:
            name = f"{os.getpid()}-{time.monotonic_ns()}-{folder.name}"
            lock = FileLock(str(self.root / "locks" / name))
            if lock.acquire():  # else another process's sweep has just seen it
                return self.root / "removed" / name, Claim(lock)

    def _remove(self, name: str, check: Callable[[], object]) -> StoreError | None:
        """Remove ``removed/NAME``, as :meth:`_discard`, unless another process is at work on it."""
        lock = FileLock(str(self.root / "locks" / name))
        if not lock.acquire():
            return None
        with Claim(lock):
            return _removed(self.root / "removed" / name, check)

    def _refuse_links(self) -> None:
        names = ("", "committed", "active", "locks", "removed")
        refuse_links(str(self.root.parent), *(str(self.root / name) for name in names))

    def _make_root(self) -> None:
        self._refuse_links()
        every = self.root, self._committed, self._active, self.root / "locks", self.root / "removed"
        missing = [folder for folder in every if not folder.is_dir()]
        if missing:
            make_folders(str(self.root.parent))
        for folder in missing:
            with suppress(FileExistsError):
                make_folder(str(folder))

    def _write(self, folder: Path, key: str, parent: str, kind: str = "committed") -> None:
        text = json.dumps({"key": key, "parent": parent, "kind": kind, "created_at": time.time()})
        with replacing(folder / "info", 0o600) as target:
            target.write(text.encode())


def _folder(key: str) -> str:
    try:
        digest = Digest(key)
    except InvalidDigest:
        return f"key-{sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}"
    return f"{digest.algorithm}-{digest.hex}"


@contextmanager
def _folder_of(away: Path) -> Iterator[int | None]:
    """Yield a descriptor of the ``removed`` that ``away`` is in, reached from the store's root through no link: the store's
    owner may exchange its folders at any time. None on a system where names can't be relative to it. Raises OSError."""
    if not BY_DESCRIPTOR:
        yield None
        return
    at = os.open(away.parents[3], FOLDER & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        for part in away.parts[-4:-1]:
            inner = os.open(part, FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def _removed(away: Path, check: Callable[[], object]) -> StoreError | None:
    """Remove a tree; return None, or an error that names what stays and the way out."""
    try:
        with _folder_of(away) as at:
            remove_tree(away if at is None else away.name, at, check)
        return None
    except OSError as error:
        where = quote(str(away))
        if error.errno == errno.EBUSY:
            way_out = f"something is mounted in it; umount what is below {where}, then gc"
        elif error.errno == errno.EPERM and os.geteuid() == 0:
            way_out = f"some of it is immutable; `chattr -R -f -i -a {where}`, then gc"
        else:
            way_out = f"part of a removed tree is not yours; `sudo rm -rf {where}` removes it"
        return StoreError(str(away), f"{error.strerror or error}: {way_out}")
