"""A tree written out as one directory, wherever its parts lie."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ocidist.layers.links import link
from ocidist.layers.reading import Reader, TreeReader
from ocidist.layers.tree import Directory
from ocidist.scope import Scope
from ocidist.snapshots.layering import Over

__all__ = ["flatten"]


def flatten(source: Reader, target: Path, scope: Scope, *, privileged: bool) -> None:
    """Copy all of ``source`` into the empty directory ``target``, hardlinks as such; sockets are left out.

    OSErrors come as they are, and the scope's end.
    """
    writer, placed = TreeReader(target), Over(source, privileged)
    names: dict[tuple[int, int], bytes] = {}
    folders = [b""]
    try:
        for folder in folders:  # grows while it runs
            at = Directory(writer.folder(folder), b"/" + folder if folder else b"")
            for name, info in sorted(source.list(folder).items()):
                scope.check()
                path = folder + b"/" + name if folder else name
                if stat.S_ISDIR(info.st_mode):
                    folders.append(path)
                elif stat.S_ISSOCK(info.st_mode):
                    continue
                elif info.st_nlink > 1:
                    first = names.setdefault((info.st_dev, info.st_ino), path)
                    if first != path:
                        link(os.fsencode(target) + b"/" + first, os.fsencode(target) + b"/" + path)
                        continue
                placed.bring_up(at, name)
        for folder in reversed(folders):
            info = source.stat(folder)
            fd = writer.folder(folder)
            if not folder:
                os.chmod(fd, stat.S_IMODE(info.st_mode))
                if privileged:
                    os.chown(fd, info.st_uid, info.st_gid)
            os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        writer.close()
