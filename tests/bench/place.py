"""A folder on tmpfs, or a refusal."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import remove

DEFAULT = "/dev/shm"


class Refused(Exception):
    """The folder will not do; says why and what to do."""


def file_system(path: Path) -> str:
    """The type of the file system that holds ``path`` (proc(5), mountinfo)."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind


@contextlib.contextmanager
def tmpfs(folder: str, needed: int) -> Iterator[Path]:
    """A new folder in ``folder`` with ``needed`` bytes free, removed at the end. Raises Refused."""
    how = "name another with --dir, or: mount -t tmpfs none DIR"
    if not os.path.isdir(folder):
        raise Refused(f"{folder} is no folder; {how}")
    kind = file_system(Path(folder))
    if kind not in ("tmpfs", "ramfs"):
        raise Refused(
            f"{folder} is on {kind or 'an unknown file system'}, and these benches need tmpfs; {how}"
        )
    free = os.statvfs(folder)
    if kind == "tmpfs" and free.f_bavail * free.f_frsize < needed:
        raise Refused(f"{folder} has less than {needed >> 30} GiB free; {how}")
    place = Path(tempfile.mkdtemp(prefix="ocidist-bench-", dir=folder))
    try:
        yield place
    finally:
        remove(place)
