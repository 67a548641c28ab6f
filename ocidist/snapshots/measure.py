"""The cost of a directory tree on disk."""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path
from typing import Callable

from ocidist.scope import no_check
from ocidist.snapshots.protocols import Usage
from ocidist.trees.directory import DirectoryReader, on_disk

__all__ = ["tree_usage"]


def tree_usage(path: Path, check: Callable[[], object] = no_check) -> Usage:
    """What a tree takes, the root included. What vanishes meanwhile doesn't count; OSErrors come as they are.
    ``check`` is called for each directory and each thousandth name; what it raises ends it."""
    seen: set[tuple[int, int]] = set()
    folders = [b""]
    with closing(DirectoryReader(path)) as reader:
        size, inodes = on_disk(reader.lstat(b"")), 1
        for folder in folders:  # grows while it runs
            try:
                for name, found in reader.scan(folder, check):  # one by one: there may be a million
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(folder + b"/" + name if folder else name)
                    elif found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    size += on_disk(found)
                    inodes += 1
            except (FileNotFoundError, NotADirectoryError):
                continue
    return Usage(inodes, size)
