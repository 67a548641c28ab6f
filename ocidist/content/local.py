"""A content store in a directory, in containerd's layout: ``blobs/ALG/HEX`` and ``ingest/HASH/…``.

A commit is: check, fsync the data, rename, fsync the directory; so a blob is absent or whole, also after
a crash. The committed blob is read-only and never opened for writing again.

Folders are 0700, as is what lies in them, so that no other user reads a private image; those of a shared store are
0755 and its blobs 0444. A content directory that is open already keeps its mode, and what is added has the like.
Nobody else may write to it: what is exchanged in an ingest would be published under our digest.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Iterable, Iterator, Mapping

from ocidist.content.disk import (
    CLOEXEC,
    NOFOLLOW,
    PRIVATE,
    SHARED,
    close_to_writers,
    failure,
    make_folder,
    make_folders,
    refuse_links,
    remove_file,
    settle_folders,
)
from ocidist.content.foreign import REFUSAL, containerd_content
from ocidist.content.ingest import folder_name, read_status, remove_ingest, write_status
from ocidist.content.lock import FileLock, is_held
from ocidist.content.protocols import Info, IngestStatus, Survey
from ocidist.content.survey import survey
from ocidist.content.writer import LocalWriter
from ocidist.errors import (
    AlreadyExists,
    BlobNotFound,
    ContentError,
    InvalidDigest,
    Locked,
    SizeMismatch,
    StoreError,
)
from ocidist.files import regular, tighten
from ocidist.spec.digest import ALGORITHMS, Digest

if TYPE_CHECKING:
    from pathlib import Path

    from ocidist.scope import Scope
    from ocidist.spec.descriptor import Descriptor

__all__ = ["FileBody", "LocalContent"]

LEVELS = 4  # folders above blobs/ALGORITHM: blobs, the content directory, the root, and what that lies in


class FileBody:
    """Bytes of a committed blob from ``start`` on, ``length`` of them at most. Closed by :meth:`close`."""

    host = ""

    def __init__(self, file: io.FileIO, start: int, size: int, length: int | None) -> None:
        self.start = start
        self.size = size
        self._left = max(size - start, 0) if length is None else max(min(length, size - start), 0)
        self._file = file

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        want = min(len(buffer), self._left)
        if not want:
            return 0
        try:
            count = self._file.readinto(buffer[:want]) or 0
        except OSError as error:
            raise failure(str(self._file.name), error) from error
        self._left -= count
        return count

    def fileno(self) -> int:
        """The descriptor, positioned at what is read next; for ``os.sendfile``."""
        return self._file.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def __enter__(self) -> FileBody:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LocalContent:
    """Provider, Ingester and Manager over ``root``. The constructor does no I/O.

    Labels are not kept here: ``metadata.content`` adds them. A root written by containerd can be read
    (``readonly=True``); one that it owns is never written, its collector deletes what it does not know.
    """

    def __init__(self, root: str | os.PathLike[str], *, readonly: bool = False, shared: bool = False) -> None:
        self._root = os.fspath(root)
        self.readonly = readonly
        self._shared, self._looked = shared, False
        self._guarded = False  # whether nobody else may write to the folders
        self._settled = False  # whether the folders above the blobs are known to be durable
        self._owned: bool | None = None  # by containerd; looked for before the first write
        base = os.path.abspath(self._root)
        self._base = base
        self._blobs = os.path.join(base, "blobs")
        self._ingest = os.path.join(base, "ingest")

    def __repr__(self) -> str:
        return f"LocalContent({str(self.root)!r}{', readonly=True' if self.readonly else ''})"

    @property
    def root(self) -> Path:
        """The directory. pathlib is loaded where a Path is asked for: a listing starts without it."""
        from pathlib import Path

        return Path(self._root)

    # -- Provider --

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, or would."""
        from pathlib import Path

        return Path(self._path(digest))

    @property
    def folder_mode(self) -> int:
        """The mode of the folders that lead to blobs: as the content directory's is, without others' writing."""
        if self._shared:
            return SHARED
        try:
            return stat.S_IMODE(os.stat(self._base).st_mode) & SHARED | PRIVATE
        except OSError:
            return PRIVATE

    def _path(self, digest: Digest) -> str:
        checked = Digest(digest)  # the grammar of a digest is what keeps paths inside the root
        return os.path.join(self._blobs, checked.algorithm, checked.hex)

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """True if a regular file of that size (None: any) is in the blob's place. Nothing is hashed."""
        try:
            found = os.stat(self._path(digest), follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)

    def info(self, digest: Digest) -> Info:
        """Size and times. Raises BlobNotFound."""
        path = self._path(digest)
        try:
            found = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise BlobNotFound(str(digest), "no such blob in this store") from None
        except OSError as error:
            raise failure(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise ContentError(str(digest), "what lies in the blob's place is no regular file")
        return Info(Digest(digest), found.st_size, found.st_mtime, found.st_mtime)

    def open(
        self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None
    ) -> FileBody:
        """The blob's bytes, unverified but for the size.

        Raises BlobNotFound; SizeMismatch where the file has another size than ``target`` (a negative
        ``target.size`` is unknown); ContentError where a link or a directory is in the blob's place.
        """
        scope.check()
        path = self._path(target.digest)
        try:
            # O_NONBLOCK: a FIFO in the blob's place must be refused, not waited for.
            fd = os.open(path, os.O_RDONLY | CLOEXEC | NOFOLLOW | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, NotADirectoryError):
            raise BlobNotFound(target, "no such blob in this store") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, getattr(errno, "EMLINK", -1)):
                raise ContentError(target, "a link or a socket lies in the blob's place") from None
            raise failure(path, error) from error
        file: io.FileIO | None = None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise ContentError(target, "what lies in the blob's place is no regular file")
            if 0 <= target.size != found.st_size:
                raise SizeMismatch(target, f"the blob is {found.st_size} bytes, not {target.size}")
            file = io.FileIO(fd, "rb")
            if offset:
                file.seek(offset)
            return FileBody(file, offset, found.st_size, length)
        except OSError as error:
            raise failure(path, error) from error
        finally:
            if file is None:
                os.close(fd)

    def file(self, target: Descriptor, scope: Scope) -> int | None:
        """Return a descriptor of the blob's file; the caller closes it. Raises as :meth:`open`."""
        with self.open(target, scope) as body:
            return os.dup(body.fileno())

    # -- Ingester --

    def writer(
        self,
        key: str,
        *,
        total: int = 0,
        expected: Digest | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> LocalWriter:
        """The writer of ``key``; what an earlier one left is kept, and hashed before the next byte is added.

        What was left under another ``total`` or ``expected`` is dropped. Raises AlreadyExists, Locked,
        UsageError for a key that can't be, StoreError.
        """
        folder = os.path.join(self._ingest, folder_name(key))
        expected = None if expected is None else Digest(expected)
        self.require_writable()
        if expected is not None and self.has(expected, total or None):
            self._tidy(folder)
            raise AlreadyExists(str(expected), "already in the store")
        lock = FileLock(os.path.join(folder, "lock"))
        try:
            self._lock(lock, folder, key)
            if expected is not None and self.has(expected, total or None):  # committed while we came
                remove_ingest(folder)
                raise AlreadyExists(str(expected), "already in the store")
            return self._begin(folder, lock, key, total, expected)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError):
                raise failure(folder, error) from error
            raise

    def _lock(self, lock: FileLock, folder: str, key: str) -> None:
        make_folders(self._base, self.folder_mode)
        if not self._guarded:
            for path in (self._base, self._blobs, self._ingest):
                if os.path.isdir(path) and not os.path.islink(path):
                    close_to_writers(path)
            self._guarded = True
        # The collector holds each ingest for a moment to see whether it is anybody's: that is nobody else's writer.
        for pause in (0.01, 0.03, 0.06, 0):
            if self._taken(lock, folder):
                return
            time.sleep(pause)
        raise Locked(key, "another writer holds this ingest")

    def _taken(self, lock: FileLock, folder: str) -> bool:
        while True:
            try:
                made = self._make_ingest(folder)
                taken = lock.acquire()
                if made and not taken:
                    # Its holder, on the way out, has removed the directory before: nobody would remove this one.
                    with suppress(OSError):  # not empty: somebody came in between
                        os.rmdir(folder)
                if taken and not self._own(folder):
                    remove_ingest(folder)
                    lock.release()
                    if not os.path.lexists(folder):
                        continue
                    raise PermissionError(errno.EPERM, "another user's folder; remove it", folder)
                return taken
            except (FileNotFoundError, NotADirectoryError):
                if any(os.path.lexists(path) and not os.path.isdir(path) for path in (self._ingest, folder)):
                    raise
                continue  # the last holder removed the directory just now

    def _make_ingest(self, folder: str) -> bool:
        # Not fsynced: an ingest that is lost in a crash is fetched again.
        try:
            make_folder(folder)
            return True
        except FileExistsError:  # also if its last holder removes it just now; the lock will tell
            pass
        except FileNotFoundError:
            with suppress(FileExistsError):  # and the caller comes again
                make_folder(self._ingest)
        return False

    def _own(self, folder: str) -> bool:
        """Whether an ingest is this user's, or of the one whose store this is; then no other may write to it."""
        found = os.lstat(folder)
        if not hasattr(os, "geteuid"):
            return True
        close_to_writers(folder)
        return found.st_uid in (os.geteuid(), os.lstat(self._ingest).st_uid)

    def _begin(
        self, folder: str, lock: FileLock, key: str, total: int, expected: Digest | None
    ) -> LocalWriter:
        data = os.path.join(folder, "data")
        if os.path.lexists(data) and not _private(os.lstat(data), os.lstat(folder)):
            remove_file(data)
        known = read_status(folder)
        fd, found = regular(data, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            tighten(fd, found, 0o600)
            offset, started, now = 0, None, time.time()
            if known is not None:
                offset, started = known.offset, known.started_at
                other = bool(total and known.total and total != known.total)
                if other or (expected and known.expected and expected != known.expected):
                    os.ftruncate(fd, 0)
                    offset, started = 0, None
                total, expected = total or known.total, expected or known.expected
            status = IngestStatus(key, offset, total, started or now, now, expected)
            if (known is None or started is None or known.key != key) or (
                (known.total, known.expected) != (total, expected)
            ):
                write_status(folder, status)
            return LocalWriter(self._place, folder, lock, fd, status, self.folder_mode & 0o444)
        except BaseException:
            os.close(fd)
            raise

    def _place(self, digest: Digest) -> str:
        # OSErrors as they come: the writer maps them.
        path = self._path(digest)
        make_folders(os.path.dirname(path), self.folder_mode)
        if not self._settled:
            close_to_writers(os.path.dirname(path))
            settle_folders(os.path.dirname(path), LEVELS)
            self._settled = True
        return path

    # -- Manager --

    def walk(self) -> Iterator[Info]:
        """Every blob, ordered by digest within its algorithm. Names that are no digest, links and
        directories are passed over."""
        for algorithm in sorted(ALGORITHMS):
            folder = os.path.join(self._blobs, algorithm)
            try:
                with os.scandir(folder) as entries:
                    names = sorted(entries, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise failure(folder, error) from error
            for entry in names:
                try:
                    digest = Digest(f"{algorithm}:{entry.name}")
                    found = entry.stat(follow_symlinks=False)
                except (InvalidDigest, OSError):  # a stray name, or deleted since the directory was read
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield Info(digest, found.st_size, found.st_mtime, found.st_mtime)

    def delete(self, digest: Digest) -> None:
        """Remove a blob. Raises BlobNotFound, StoreError."""
        path = self._path(digest)
        self.require_writable()
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            raise BlobNotFound(str(digest), "no such blob in this store") from None
        except OSError as error:
            raise failure(path, error) from error

    def statuses(self, keys: Iterable[str] = ()) -> Iterator[IngestStatus]:
        """Ingests under way, or interrupted, oldest first; of ``keys`` alone if any are given.

        One whose ``ref`` is damaged is listed under the name of its directory.
        """
        wanted = {folder_name(key) for key in keys} if keys else None
        found: list[IngestStatus] = []
        for name in self._folders():
            if wanted is None or name in wanted:
                status = read_status(os.path.join(self._ingest, name))
                if status is not None:
                    found.append(status)
        yield from sorted(found, key=lambda status: (status.started_at, status.key))

    def _folders(self) -> list[str]:
        try:
            with os.scandir(self._ingest) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # of a shared store, ingests are not
            return []
        except OSError as error:
            raise failure(self._ingest, error) from error

    def abort(self, key: str) -> None:
        """Drop the ingest of ``key`` (or of a directory's name, as :meth:`statuses` shows damaged ones).

        One that is not there is no error. Raises Locked while a writer holds it.
        """
        self.require_writable()
        folder = os.path.join(self._ingest, folder_name(key))
        if not os.path.lexists(folder) and key in self._folders():
            folder = os.path.join(self._ingest, key)
        if not self._tidy(folder):
            raise Locked(key, "a writer holds this ingest")

    def _tidy(self, folder: str) -> bool:
        if not os.path.isdir(folder) or os.path.islink(folder):
            return True
        lock = FileLock(os.path.join(folder, "lock"))
        try:
            if not lock.acquire():
                return False
            remove_ingest(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failure(folder, error) from error
        finally:
            lock.release()
        return True

    def sweep(self, before: float, *, keep: Iterable[str] = (), dry_run: bool = False) -> list[str]:
        """Drop the ingests that nobody holds and that were last written ``before``, damaged ones too.

        Returns their keys; those of ``keep`` stay. Times are seconds since the epoch. With ``dry_run`` nothing is
        written.
        """
        kept = {folder_name(key) for key in keep}
        dropped: list[str] = []
        for name in self._folders():
            folder = os.path.join(self._ingest, name)
            status = read_status(folder)
            try:
                updated = status.updated_at if status else os.stat(folder).st_mtime
            except OSError:
                continue
            if name in kept or updated >= before:
                continue
            if is_held(os.path.join(folder, "lock")) if dry_run else not self._tidy(folder):
                continue
            dropped.append(status.key if status else name)
        return dropped

    def survey(self) -> Survey:
        """All that lies in the directory. Raises StoreError."""
        return survey(self._base)

    def identity(self, digest: Digest) -> tuple[int, ...]:
        """What tells this file in the blob's place from another; () if there is none."""
        try:
            found = os.stat(self._path(digest), follow_symlinks=False)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def require_writable(self) -> None:
        """Raise StoreError, with the reason, where nothing is to be written here."""
        if self._owned is None:
            self._owned = containerd_content(self._root) is not None
        if self._owned:
            raise StoreError(str(self.root), REFUSAL)
        if self.readonly:
            raise StoreError(str(self.root), "opened read-only")
        refuse_links(self._ingest, self._blobs, *(os.path.join(self._blobs, name) for name in ALGORITHMS))
        if self._shared and not self._looked:
            self._looked = True  # once: while another thread makes it, its mode may be on the way
            self._require_shared()

    def _require_shared(self) -> None:
        if not os.path.isdir(self._base) or os.stat(self._base).st_mode & 0o005 or not hasattr(os, "geteuid"):
            return
        from shlex import quote

        above, here, blobs = map(quote, (os.path.dirname(self._base), self._base, self._blobs))
        way_out = f"chmod go+rx {above} {here}; chmod -R go+rX {blobs}"
        raise StoreError(self._base, f"it was made private; leave --shared out, or open it: `{way_out}`")


def _private(data: os.stat_result, folder: os.stat_result) -> bool:
    """Whether only its owner can have written to what an earlier writer left: a file without another name."""
    if not stat.S_ISREG(data.st_mode):
        return False
    if not hasattr(os, "geteuid"):
        return True
    mine = data.st_uid in (os.geteuid(), folder.st_uid)
    return mine and data.st_nlink == 1 and not stat.S_IMODE(data.st_mode) & 0o022
