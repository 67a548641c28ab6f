"""Two directory trees, compared down to hardlinks, times and extended attributes."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Mapping

if TYPE_CHECKING:
    from ocidist.snapshots.protocols import Snapshotter

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True)
class Node:
    """What one path is. ``hardlinks`` are the paths in the tree that are the same file, () if it is alone."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: str
    sha256: str
    hardlinks: tuple[str, ...]
    device: tuple[int, int] | None
    xattrs: Mapping[str, bytes]


def snapshot(root: Path | str, *, skip: Iterable[str] = ()) -> dict[str, Node]:
    """Path relative to ``root`` -> :class:`Node`, the root itself as ``.``; nothing is followed.

    ``skip`` names top-level entries to leave out. Undecodable names keep their bytes (surrogateescape).
    """
    root = os.fspath(root)
    left_out = set(skip)
    states: dict[str, os.stat_result] = {".": os.lstat(root)}
    for folder, names, files in os.walk(root):
        if folder == root:
            names[:] = [name for name in names if name not in left_out]
            files = [name for name in files if name not in left_out]
        for name in (*names, *files):
            path = os.path.join(folder, name)
            states[os.path.relpath(path, root)] = os.lstat(path)
    groups: dict[tuple[int, int], list[str]] = {}
    for path, info in states.items():
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            groups.setdefault((info.st_dev, info.st_ino), []).append(path)
    alike = {path: tuple(sorted(group)) for group in groups.values() if len(group) > 1 for path in group}
    return {
        path: _node(os.path.join(root, path), info, alike.get(path, ()))
        for path, info in sorted(states.items())
    }


def _node(path: str, info: os.stat_result, hardlinks: tuple[str, ...]) -> Node:
    kind = _TYPES[stat.S_IFMT(info.st_mode)]
    return Node(
        type=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if kind in ("file", "symlink") else 0,
        mtime_ns=info.st_mtime_ns,
        target=os.readlink(path) if kind == "symlink" else "",
        sha256=_hash(path) if kind == "file" else "",
        hardlinks=hardlinks,
        device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in ("char", "block") else None,
        xattrs=_xattrs(path),
    )


def _hash(path: str) -> str:
    whole = hashlib.sha256()
    with open(path, "rb") as source:
        while block := source.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def _xattrs(path: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except (OSError, AttributeError):  # a file system, or a system, without them
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def differences(
    left: Mapping[str, Node], right: Mapping[str, Node], *, ignore: Iterable[str] = (), root: bool = True
) -> list[str]:
    """One readable line for each difference; empty if the trees are equal but for the fields in ``ignore``.

    With ``root=False`` the root directory itself is not compared, only what is in it.
    """
    left_out = set(ignore)
    unknown = left_out - {field.name for field in fields(Node)}
    assert not unknown, f"no such fields: {unknown}"
    lines = []
    for path in sorted({*left, *right}):
        if path == "." and not root:
            continue
        a, b = left.get(path), right.get(path)
        if a is None or b is None:
            lines.append(f"{path!r}: only {'right' if a is None else 'left'}")
            continue
        for field in fields(Node):
            if field.name in left_out:
                continue
            one, two = getattr(a, field.name), getattr(b, field.name)
            if one != two:
                shown = (f"{one:o}", f"{two:o}") if field.name == "mode" else (repr(one), repr(two))
                lines.append(f"{path!r}: {field.name} is {shown[0]} left, {shown[1]} right")
    return lines


def assert_same(
    left: Mapping[str, Node], right: Mapping[str, Node], *, ignore: Iterable[str] = (), root: bool = True
) -> None:
    """Fail with the first differences if the trees differ."""
    lines = differences(left, right, ignore=ignore, root=root)
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:30])


@contextmanager
def whole_tree(snapshots: Snapshotter, key: str) -> Iterator[Path]:
    """All of a snapshot's tree as one directory, wherever its parts lie."""
    from ocidist.snapshots.copying import copy_tree

    with tempfile.TemporaryDirectory() as folder, closing(snapshots.reader(key)) as reader:
        copy_tree(reader, Path(folder))
        yield Path(folder)
