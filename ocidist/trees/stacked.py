"""A stack of layer directories read as the one tree that an overlay mount would show, without mounting it.

The upper directory's entry hides the lower one's, but two directories are one. A whiteout (a character device 0/0,
or an empty file marked by an attribute) hides all beneath it; so does an opaque directory. What a mount with
``redirect_dir`` or ``metacopy`` wrote can't be told without the kernel, and is refused.

Source: Documentation/filesystems/overlayfs.rst of Linux 6.7, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Callable, Iterator, Sequence

from ocidist.errors import StoreError
from ocidist.scope import no_check
from ocidist.trees.directory import DirectoryReader, shared
from ocidist.trees.local_file import LocalFile
from ocidist.trees.protocols import Entry

__all__ = ["OPAQUE", "WHITEOUT", "StackedReader", "is_whiteout"]

OPAQUE, WHITEOUT = "overlay.opaque", "overlay.whiteout"
_SPACES = (b"trusted.", b"user.")  # as root, and with the mount option userxattr
_MAX_OPEN = 256  # descriptors of directories, over all layers
_UNREADABLE = (b"overlay.redirect", b"overlay.metacopy")


def is_whiteout(info: os.stat_result) -> bool:
    """Whether an entry is a whiteout by what it is; those by an attribute are a StackedReader's to see."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


class StackedReader:
    """A Reader of ``layers``, the uppermost first."""

    def __init__(self, layers: Sequence[Path]) -> None:
        keep = max(1, _MAX_OPEN // max(1, len(layers)))
        self._layers: list[DirectoryReader] = []
        try:
            for layer in layers:
                self._layers.append(DirectoryReader(layer, keep))
        except BaseException:
            self.close()
            raise
        # The layers that each directory on the way to this path is made of.
        self._path = b""
        self._found: list[list[DirectoryReader]] = [self._layers]

    def close(self) -> None:
        """Let go of all descriptors. Idempotent."""
        for layer in self._layers:
            layer.close()

    def _parts(self, path: bytes) -> list[DirectoryReader]:
        """The layers that the directory ``path`` is made of, the uppermost first; [] if it is none."""
        depth = shared(self._path, path)
        names = path.split(b"/") if path else []
        if depth < len(names):
            self._path = b"/".join(names[:depth])
            del self._found[depth + 1 :]
            for name in names[depth:]:
                at = self._path + b"/" + name if self._path else name
                self._found.append(self._of(self._found[-1], at))
                self._path = at
        return self._found[len(names)]

    def _of(self, above: list[DirectoryReader], path: bytes) -> list[DirectoryReader]:
        """The layers of the directory ``path``, where those of the one above are known."""
        parts = []
        for layer in above:
            try:
                info = layer.lstat(path)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(info.st_mode):
                break
            parts.append(layer)
            if self._mark(layer, path, b"overlay.opaque") == b"y":
                break
        return parts

    def _mark(self, layer: DirectoryReader, path: bytes, name: bytes) -> bytes | None:
        found = layer.raw_xattrs(path)
        for space in _SPACES:
            for each in _UNREADABLE:
                if space + each in found:
                    raise StoreError(os.fsdecode(path), f"written by a mount with {each[8:].decode()}")
            if space + name in found:
                return found[space + name]
        return None

    def _hides(self, layer: DirectoryReader, path: bytes, info: os.stat_result) -> bool:
        if is_whiteout(info):
            return True
        return (
            stat.S_ISREG(info.st_mode)
            and info.st_size == 0
            and self._mark(layer, path, b"overlay.whiteout") is not None
        )

    def _layer(self, path: bytes) -> DirectoryReader:
        return self._find(path)[0]

    def _find(self, path: bytes) -> tuple[DirectoryReader, os.stat_result]:
        """The layer whose entry ``path`` is, and what that says of it. Raises FileNotFoundError."""
        if not path:
            return self._layers[0], self._layers[0].lstat(path)
        for layer in self._parts(path.rpartition(b"/")[0]):
            try:
                info = layer.lstat(path)
            except FileNotFoundError:
                continue
            if self._hides(layer, path, info):
                break
            return layer, info
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))

    def entries(self, path: bytes, check: Callable[[], object] = no_check) -> Iterator[tuple[bytes, Entry]]:
        above = path + b"/" if path else b""
        for layer, name, info in self._scan(path, check):
            yield name, layer.entry(above + name, info)

    def _scan(
        self, path: bytes, check: Callable[[], object]
    ) -> Iterator[tuple[DirectoryReader, bytes, os.stat_result]]:
        parts = list(self._parts(path))  # the caller may look elsewhere meanwhile
        seen: set[bytes] = set()
        for layer in parts:
            for name, info in layer.scan(path, check):
                if name in seen:
                    continue
                if layer is not parts[-1]:
                    seen.add(name)
                if not self._hides(layer, path + b"/" + name if path else name, info):
                    yield layer, name, info

    def names(self, path: bytes, check: Callable[[], object] = no_check) -> list[bytes]:
        return sorted(name for _, name, _ in self._scan(path, check))

    def stat(self, path: bytes) -> Entry:
        layer, info = self._find(path)
        return layer.entry(path, info)

    def readlink(self, path: bytes) -> bytes:
        return self._layer(path).readlink(path)

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return self._layer(path).xattrs(path)

    def open(self, path: bytes) -> LocalFile:
        return self._layer(path).open(path)
