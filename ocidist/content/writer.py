"""One ingest of a LocalContent: append, hash as it goes, commit.

The order of a commit is what makes a blob absent or whole: the data is fsynced, then renamed into
``blobs/``, then the directory is fsynced. All that is hashed, synced and given its mode is the open file; that it is
this one which has the name is looked at before and after the rename. A failed fsync is never tried again and trusted: the kernel may
have dropped the pages and marked them clean.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Callable, Mapping

from ocidist.content.disk import failure, remove_file, sync_folder
from ocidist.content.ingest import remove_ingest
from ocidist.errors import DigestMismatch, SizeMismatch, StoreError, UsageError
from ocidist.files import open_regular
from ocidist.spec.digest import Digest

if TYPE_CHECKING:
    from hashlib import _Hash

    from ocidist.content.lock import FileLock
    from ocidist.content.protocols import IngestStatus

__all__ = ["LocalWriter"]

BLOCK = 1 << 20


class LocalWriter:
    """The one writer of a key; made by ``LocalContent.writer``. For one thread at a time.

    After an error it can be used on: what was written is known to the byte.
    """

    def __init__(
        self,
        place: Callable[[Digest], str],
        folder: str,
        lock: FileLock,
        fd: int,
        status: IngestStatus,
        mode: int = 0o400,
    ) -> None:
        self._mode = mode  # of what is committed
        self._place = place
        self._folder = folder
        self._data = os.path.join(folder, "data")
        self._lock = lock
        self._fd = fd
        self._status = status
        self._offset = status.offset
        self._hasher: _Hash = Digest.hasher_for(status.expected.algorithm if status.expected else "sha256")
        self._hashed = 0  # bytes that the hash has seen; catches up with the offset before it is asked
        self._synced = False

    def status(self) -> IngestStatus:
        """Where it stands; ``offset`` is the next byte to write."""
        return self._status._replace(offset=self._offset)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of ``data``. Raises StoreError (full, too large); what went in is counted and hashed."""
        self.catch_up()
        view = memoryview(data).cast("B")
        size = len(view)
        self._synced = False
        while view:
            try:
                count = os.write(self._fd, view)
            except OSError as error:
                total = self._status.total
                raise failure(self._data, error, total - self._offset if total else None) from error
            if count <= 0:
                raise StoreError(self._data, "nothing was written, without an error")
            self._hasher.update(view[:count])
            self._offset += count
            self._hashed += count
            view = view[count:]
        self._status = self._status._replace(updated_at=time.time())
        return size

    def catch_up(self, check: Callable[[], object] | None = None) -> None:
        """Hash what an earlier writer left, in blocks, calling ``check`` (may raise) before each."""
        self._open()
        if self._hashed == self._offset:
            return
        self._rehash(self._hasher, self._hashed, check)
        self._hashed = self._offset

    def _rehash(self, hasher: _Hash, start: int, check: Callable[[], object] | None = None) -> None:
        buffer = memoryview(bytearray(min(BLOCK, self._offset - start)))
        try:
            # Not by its name. Where this reads makes no difference to where is written (O_APPEND).
            with open(self._fd, "rb", buffering=0, closefd=False) as file:
                file.seek(start)
                while start < self._offset:
                    if check is not None:
                        check()
                    count = file.readinto(buffer[: self._offset - start])
                    if not count:
                        raise StoreError(self._data, "the ingest became shorter while it was held")
                    hasher.update(buffer[:count])
                    start += count
                    self._hashed = start if hasher is self._hasher else self._hashed
        except OSError as error:
            raise failure(self._data, error) from error

    def peek(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of what is written, from ``offset`` on."""
        self._open()
        size = min(size, self._offset - offset)
        if offset < 0 or size <= 0:
            return b""
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise failure(self._data, error) from error

    def truncate(self, size: int) -> None:
        """Cut back to ``size`` bytes; what stays is hashed anew when it is needed."""
        self._open()
        if not 0 <= size <= self._offset:
            raise UsageError(f"can't cut {self._offset} bytes back to {size}")
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise failure(self._data, error) from error
        self._offset, self._hashed, self._synced = size, 0, False
        self._hasher = Digest.hasher_for(self._hasher.name)

    def prepare(self, size: int, expected: Digest | None) -> Digest:
        """All of a commit that needs nobody else: check size and digest, fsync the data. Idempotent.

        Raises SizeMismatch and DigestMismatch with the ingest kept; StoreError, with the data dropped, where
        the disk refuses to keep it.
        """
        self.catch_up()
        named = str(expected or self._status.key)
        if size and size != self._offset:
            raise SizeMismatch(named, f"{self._offset} bytes were written, {size} were promised")
        digest = Digest.from_hash(self._hasher)
        if expected is not None and expected.algorithm != digest.algorithm:
            other = expected.hasher()
            self._rehash(other, 0)
            digest = Digest.from_hash(other)
        if expected is not None and digest != expected:
            raise DigestMismatch(named, f"the bytes hash to {digest}")
        if self._synced:
            return digest
        try:
            found = os.fstat(self._fd).st_size
            if found != self._offset:
                raise SizeMismatch(named, f"the ingest holds {found} bytes, {self._offset} were written")
            os.fsync(self._fd)
        except OSError as error:
            self._distrust()
            raise failure(self._data, error) from error
        self._synced = True
        return digest

    def _distrust(self) -> None:
        # The next fsync may succeed without the bytes: they must be written again.
        try:
            self.truncate(0)
        except StoreError:
            self._drop()

    def commit(self, size: int, expected: Digest | None, labels: Mapping[str, str] | None = None) -> Digest:
        """Check, fsync, rename, fsync the directory. ``labels`` are for stores that keep them.

        A blob that is here already is replaced by these verified bytes: that mends a damaged one.
        """
        digest = self.prepare(size, expected)
        target = ""
        try:
            target = self._place(digest)
            before = os.path.lexists(target)
            if not self._is_mine(self._data):
                raise self._exchanged(self._data)
            os.replace(self._data, target)
        except OSError as error:
            raise failure(target or self._data, error) from error
        try:
            # Else another writer may have committed the same digest over it; if not, it is taken back.
            if not self._is_mine(target) and _digest(target, digest) != digest:
                remove_file(target)
                raise self._exchanged(target)
            self._finish(target)
            sync_folder(os.path.dirname(target))
        except OSError as error:
            self._unpublish(target, before)
            raise failure(target, error) from error
        self._drop()
        return digest

    def _is_mine(self, path: str) -> bool:
        return os.path.samestat(os.lstat(path), os.fstat(self._fd))

    def _exchanged(self, path: str) -> StoreError:
        self._drop()
        return StoreError(path, "another process exchanged the file while it was committed; nothing was kept")

    def _finish(self, target: str) -> None:
        if hasattr(os, "fchmod"):
            os.fchmod(self._fd, self._mode)
        else:
            os.chmod(target, self._mode)
        os.utime(target)

    def _unpublish(self, target: str, before: bool) -> None:
        # Not known to be durable: not to be seen. One that was here before is as durable as it was.
        try:
            if not before:
                os.unlink(target)
        except OSError:
            pass
        finally:
            self._drop()

    def _drop(self) -> None:
        try:
            remove_ingest(self._folder)
        except OSError:
            pass  # the next writer of this key, or the collector, tidies up
        self.close()

    def abort(self) -> None:
        """Drop what was written. After a commit, or twice, it does nothing."""
        if self._fd >= 0:
            self._drop()

    def close(self) -> None:
        """Let go, keeping what was written."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            finally:
                self._lock.release()

    def _open(self) -> None:
        if self._fd < 0:
            raise StoreError(self._data, "this writer is closed")

    def __enter__(self) -> LocalWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _digest(path: str, like: Digest) -> Digest:
    """The digest of a regular file, by the algorithm of ``like``. Raises OSError."""
    hasher = like.hasher()
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            hasher.update(block)
    return Digest.from_hash(hasher)
