"""Where the disk went: content by image, ingests, snapshots, the database.

What counts is what the file system has set aside (as ``du`` counts it): a file with many names counts once, and a
directory for itself. What two snapshots share by reflink can't be told apart, so it counts twice.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Iterator, Mapping

from ocidist.errors import OcidistError
from ocidist.graph.walk import reachable
from ocidist.rows import Column, Rows, Schema
from ocidist.spec.digest import Digest
from ocidist.trees.directory import DirectoryReader, on_disk

if TYPE_CHECKING:
    from ocidist.scope import Scope
    from ocidist.snapshots.protocols import Snapshotter
    from ocidist.stores.store import Store

__all__ = ["Space", "UsageRow", "measure", "usage"]

USAGE = Schema(
    "usage",
    (
        Column("kind", room="whole"),
        Column("name", "digest", room="whole"),
        Column("files", "count", room="spare"),
        Column("size", "bytes"),
        Column("disk", "bytes"),
        Column("unique", "bytes"),
        Column("shared", "bytes"),
    ),
)


@dataclass(frozen=True)
class UsageRow:
    """One place. ``kind`` is total, content, image, unnamed, ingests, snapshots, snapshot, database or other.

    Rows of images and ``unnamed`` (blobs that no image has) say what is in ``content``, and ``snapshot`` rows (by
    ChainID) what is in ``snapshots``; total is the sum of the others. ``size`` is the bytes in files, ``disk`` the
    bytes that the file system set aside for them. Of an image ``unique`` bytes of its blobs are in no other image
    of the store, and ``shared`` are. ``unread`` counts folders that this user can't look into.
    """

    kind: str
    name: str
    files: int
    size: int
    disk: int
    unique: int | None = None
    shared: int | None = None
    unread: int = 0


@dataclass
class Space:
    """What was counted so far."""

    files: int = 0
    size: int = 0
    disk: int = 0
    unread: int = 0

    def add(self, found: os.stat_result) -> None:
        """Count one file or directory."""
        self.disk += on_disk(found)
        if not stat.S_ISDIR(found.st_mode):
            self.files += 1
            self.size += found.st_size

    def count(self, size: int) -> None:
        """Count one object that is not a file."""
        self.merge(Space(1, size, size), 1)

    def merge(self, other: Space, sign: int) -> None:
        """Add what was counted elsewhere (``sign`` 1), or take it away (-1)."""
        self.files += sign * other.files
        self.size += sign * other.size
        self.disk += sign * other.disk
        self.unread += sign * other.unread

    def row(self, kind: str, name: str = "") -> UsageRow:
        """As a row."""
        return UsageRow(kind, name, self.files, self.size, self.disk, unread=self.unread)


@dataclass
class _Count:
    """What is counted only once, over all places."""

    scope: Scope
    linked: set[tuple[int, int]] = field(default_factory=set)

    def first(self, found: os.stat_result) -> bool:
        """Whether this file was not met before, under another name."""
        if found.st_nlink < 2 or stat.S_ISDIR(found.st_mode):
            return True
        key = found.st_dev, found.st_ino
        if key in self.linked:
            return False
        self.linked.add(key)
        return True


def measure(top: str, scope: Scope, *, places: Mapping[str, Space] | None = None) -> Space:
    """The space of all at and below ``top``. What lies at or below one of ``places`` counts there as well.

    Nothing is followed out of ``top``; what vanishes meanwhile is passed over. Costs a ``stat`` for each entry.
    """
    places = places or {}
    count, total = _Count(scope), Space()
    try:
        found = os.stat(top, follow_symlinks=False)
        reader = DirectoryReader(top) if stat.S_ISDIR(found.st_mode) else None
    except PermissionError:
        total.add(found)
        total.unread += 1
        return total
    except OSError:
        return total
    base, inside = os.fsencode(top), {os.fsencode(path): space for path, space in places.items()}
    folders: list[tuple[bytes, tuple[Space, ...]]] = []

    def take(path: bytes, found: os.stat_result, spaces: tuple[Space, ...]) -> None:
        where = base + b"/" + path if path else base
        if where in inside:
            spaces = (*spaces, inside[where])
        if not count.first(found):
            return
        for space in spaces:
            space.add(found)
        if stat.S_ISDIR(found.st_mode):
            folders.append((path, spaces))

    take(b"", found, (total,))
    try:
        while folders and reader is not None:
            scope.check()
            path, spaces = folders.pop()
            above = path + b"/" if path else b""
            try:
                for name, entry in reader.scan(path, scope.check):  # one by one: there may be a million
                    take(above + name, entry, spaces)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # a folder that this user can't read
                for space in spaces:
                    space.unread += 1
    finally:
        if reader is not None:
            reader.close()
    return total


def usage(store: Store, scope: Scope) -> Rows[UsageRow]:
    """Every place of a store. Raises the scope's end, or StoreError where the database can't be read."""
    trees = {key: Space() for key in _snapshots(store.snapshots)}
    spaces = {kind: Space() for kind in ("content", "ingests", "snapshots", "database")}
    files = store.place.files()
    if files:
        places = {path: spaces[kind] for kind, paths in files.items() if kind in spaces for path in paths}
        for key, space in trees.items():
            places[os.path.abspath(store.local_trees().path(key))] = space
        total = measure(files["total"][0], scope, places=places)
    else:
        for info in store.content.walk():
            spaces["content"].count(info.size)
        for status in store.content.statuses():
            spaces["ingests"].count(status.offset)
        for key, space in trees.items():
            used = store.snapshots.usage(key, scope.check)
            space.files, space.size, space.disk = used.inodes, used.size, used.size
            spaces["snapshots"].merge(space, 1)
        total = Space()
        for space in spaces.values():
            total.merge(space, 1)
    other = Space()
    other.merge(total, 1)
    for space in spaces.values():
        other.merge(space, -1)
    rows = [total.row("total"), spaces["content"].row("content"), *_by_image(store, scope)]
    rows += [spaces["ingests"].row("ingests"), spaces["snapshots"].row("snapshots")]
    rows += [space.row("snapshot", key) for key, space in sorted(trees.items())]
    rows += [spaces["database"].row("database"), other.row("other")]
    return Rows(USAGE, rows)


def _snapshots(snapshots: Snapshotter) -> list[str]:
    try:
        return [info.key for info in snapshots.walk()]
    except OcidistError:  # another user's: they count as folders that can't be read
        return []


def _by_image(store: Store, scope: Scope) -> Iterator[UsageRow]:
    """The blobs of each image, then those of none."""
    content, here = store.content, dict[Digest, Space]()
    for info in content.walk():
        path, space = content.path(info.digest), Space()
        try:
            if path is None:
                space.count(info.size)
            else:
                space.add(os.stat(path, follow_symlinks=False))
        except OSError:  # deleted meanwhile
            continue
        here[info.digest] = space
    images: dict[str, set[Digest]] = {}
    times: dict[Digest, int] = {}
    for record in store.names.all()[0]:
        scope.check()
        parts = {item.digest for item in reachable(content, record.target, scope)} & here.keys()
        images[record.name] = parts
        for digest in parts:
            times[digest] = times.get(digest, 0) + 1
    for name, parts in images.items():
        unique = sum(here[digest].size for digest in parts if times[digest] == 1)
        yield _of_blobs("image", name, [here[digest] for digest in parts], unique)
    loose = [space for digest, space in here.items() if digest not in times]
    yield _of_blobs("unnamed", "", loose, None)


def _of_blobs(kind: str, name: str, blobs: list[Space], unique: int | None) -> UsageRow:
    size = sum(space.size for space in blobs)
    shared = None if unique is None else size - unique
    return UsageRow(kind, name, len(blobs), size, sum(space.disk for space in blobs), unique, shared)
