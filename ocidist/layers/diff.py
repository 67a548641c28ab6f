"""The layer between two trees: what applied to the one gives the other, the same bytes each time.

Every change is preceded by the directories that lead to it, so that a program which makes missing ones, or sets
the times of those it passes through, ends at the same tree. A deleted name is a whiteout; opaque markers are not
needed. Owners are numbers, as they are meant where an ordinary user
can't give them (see trees.rootless). With ``epoch`` no time is later than that (SOURCE_DATE_EPOCH, as
reproducible-builds.org specifies it).

Source: OCI image specification, layer.md, "Representing Changes".
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import closing
from dataclasses import dataclass
from typing import Callable

from ocidist.content.disk import failure, place_of
from ocidist.errors import LayerError, StoreError
from ocidist.layers.compression.deflate import GzipWriter
from ocidist.layers.tar.packing import END, pack_header, padding
from ocidist.layers.whiteouts import MAX_PATH, PREFIX
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from ocidist.trees.compare import Change, compare
from ocidist.trees.protocols import Entry, FileBody, Reader

__all__ = ["MadeLayer", "write_layer"]

_READ = 1 << 18
_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


@dataclass(frozen=True)
class MadeLayer:
    """A layer that was written. ``size`` and ``plain_size`` are in bytes; ``clamped`` counts the entries that got
    an earlier time than they have."""

    digest: Digest
    size: int
    diff_id: Digest
    plain_size: int
    entries: int
    clamped: int


def write_layer(
    lower: Reader | None,
    upper: Reader,
    write: Callable[[bytes], object],
    scope: Scope,
    *,
    epoch: int | None = None,
    compress: bool = True,
) -> MadeLayer:
    """Write the layer that makes ``upper`` of ``lower`` (None: of nothing), with gzip unless told otherwise.

    ``epoch`` is in seconds. Raises LayerError for a name that a layer can't hold and for a file that changes while
    it is read, StoreError where a tree can't be read, the scope's end; what ``write`` raises comes as it is.
    """
    packer = _Packer(upper, write, epoch, compress)
    steps = compare(lower, upper, scope)
    while True:
        try:
            change = next(steps, None)
        except OSError as error:
            raise _unreadable(error, b"") from error
        if change is None:
            return packer.finish()
        packer.add(change, scope)


def _unreadable(error: OSError, path: bytes) -> StoreError:
    return failure(place_of(error, os.fsdecode(path or b"the tree")), error)


class _Packer:
    def __init__(
        self, upper: Reader, write: Callable[[bytes], object], epoch: int | None, compress: bool
    ) -> None:
        self._upper = upper
        self._limit = None if epoch is None else epoch * 1_000_000_000
        self._write = write
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._plain_size = self._size = self._entries = self._clamped = 0
        self._gzip = GzipWriter(self._out) if compress else None
        self._above: list[bytes] = []  # directories written that lead to the last entry

    def _out(self, data: bytes) -> None:
        self._packed.update(data)
        self._size += len(data)
        self._write(data)

    def _put(self, data: bytes) -> None:
        self._plain.update(data)
        self._plain_size += len(data)
        (self._gzip.write if self._gzip is not None else self._out)(data)

    def add(self, change: Change, scope: Scope) -> None:
        """One change, after the directories that lead to it."""
        path = change.path
        above, slash, name = path.rpartition(b"/")
        shown = os.fsdecode(path)
        if name.startswith(PREFIX):
            raise LayerError("layer", shown, "the name means a whiteout in a layer; rename or remove it")
        if len(path) >= MAX_PATH:
            raise LayerError(
                "layer", shown, f"a layer holds no path of more than {MAX_PATH} bytes; move it up"
            )
        self._lead_to(path)
        if change.kind == "deleted":
            self._entry(pack_header(above + slash + PREFIX + name, b"0", mode=0o600))
        else:
            self._member(path, change.entry, scope, change.first)
            if stat.S_ISDIR(change.entry.mode) and path:
                self._above.append(path)

    def _lead_to(self, path: bytes) -> None:
        while self._above and not path.startswith(self._above[-1] + b"/"):
            self._above.pop()
        start = len(self._above[-1]) + 1 if self._above else 0
        while (cut := path.find(b"/", start)) >= 0:
            folder = path[:cut]
            try:
                info = self._upper.stat(folder)
            except OSError as error:
                raise _unreadable(error, folder) from error
            self._member(folder, info, None)
            self._above.append(folder)
            start = cut + 1

    def _time(self, info: Entry) -> int:
        if self._limit is not None and info.mtime > self._limit:
            self._clamped += 1
            return self._limit
        return info.mtime

    def _entry(self, header: bytes) -> None:
        self._entries += 1
        self._put(header)

    def _member(self, path: bytes, info: Entry, scope: Scope | None, first: bytes | None = None) -> None:
        kind = _KINDS[stat.S_IFMT(info.mode)] if first is None else b"1"
        name = {b"5": (path or b".") + b"/"}.get(kind, path)
        size = info.size if kind == b"0" else 0
        device = (os.major(info.device), os.minor(info.device)) if kind in (b"3", b"4") else (0, 0)
        try:
            xattrs = self._upper.xattrs(path)
            header = pack_header(
                name,
                kind,
                mode=info.mode,
                uid=info.uid,
                gid=info.gid,
                size=size,
                mtime=self._time(info),
                link=self._upper.readlink(path) if kind == b"2" else first or b"",
                device=device,
                xattrs=xattrs,
            )
            body = self._upper.open(path) if kind == b"0" else None
        except OSError as error:
            raise _unreadable(error, path) from error
        self._entry(header)
        if body is not None:
            with closing(body):
                self._data(body, path, size, scope)

    def _data(self, body: FileBody, path: bytes, size: int, scope: Scope | None) -> None:
        left = size
        view = memoryview(bytearray(min(size, _READ)))
        while left:
            if scope is not None:
                scope.check()
            try:
                count = body.readinto(view[:left])
            except OSError as error:
                raise _unreadable(error, path) from error
            if not count:
                raise LayerError("layer", os.fsdecode(path), "the file became shorter while it was read")
            self._put(bytes(view[:count]))
            left -= count
        self._put(padding(size))

    def finish(self) -> MadeLayer:
        """The end of the archive, and what was made."""
        self._put(END)
        if self._gzip is not None:
            self._gzip.finish()
        return MadeLayer(
            Digest.from_hash(self._packed),
            self._size,
            Digest.from_hash(self._plain),
            self._plain_size,
            self._entries,
            self._clamped,
        )
