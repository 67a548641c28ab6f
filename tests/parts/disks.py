"""A small disk of its own: a tmpfs in a mount namespace that ends with the process that holds it.

Nothing is mounted where others could see it, and nothing needs to be undone: when the holder's stdin closes, also
because the test was killed, it ends, and the disk with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.parts.processes import CHECKOUT, Program
from tests.parts.required import lacking, program, require

_HOLDER = 'mount -t tmpfs -o "$2" tmpfs "$1" && echo ready && exec cat'


class Disk:
    """``size`` bytes (and ``inodes``, 0: plenty) at ``folder``, for programs started through :meth:`program`."""

    def __init__(self, folder: Path, *, size: int, inodes: int = 0) -> None:
        self.folder, self.size, self.inodes = folder, size, inodes
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Disk:
        require("root", "unshare", "nsenter")
        self.folder.mkdir(parents=True)
        options = f"size={self.size},nr_inodes={self.inodes}"
        command = [program("unshare"), "--mount", "--propagation", "private", "sh", "-c", _HOLDER, "sh"]
        self._process = subprocess.Popen(
            [*command, str(self.folder), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            _, why = self._process.communicate()
            lacking(f"no disk can be mounted in a namespace: {why.decode()[:200]}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate()  # closes its stdin

    @property
    def inside(self) -> Path:
        """The disk's files as the test sees them. (Not for sqlite3, which resolves the link in it.)"""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root{self.folder}")

    def _enter(self) -> list[str]:
        assert self._process is not None
        return [f"--mount=/proc/{self._process.pid}/ns/mnt", f"--wd={CHECKOUT}", "--"]

    def program(self, home: Path, root: str, **options: object) -> Program:
        """ocidist with its root on the disk."""
        start = [*self._enter(), sys.executable, "-m", "ocidist"]
        where = self.folder / root
        return Program(home, where, python=program("nsenter"), start_with=start, **options)  # type: ignore[arg-type]

    def remount(self, options: str) -> None:
        """With ``ro`` or ``rw``."""
        command = [program("nsenter"), *self._enter(), "mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self, free: int) -> None:
        """Leave ``free`` bytes, rounded down to whole pages; any earlier filling goes first."""
        self.empty()
        room = os.statvfs(self.inside)
        with (self.inside / "filling").open("wb") as file:
            os.posix_fallocate(
                file.fileno(), 0, room.f_bavail * room.f_bsize - free // room.f_bsize * room.f_bsize
            )

    def fill_inodes(self, free: int) -> None:
        """Leave ``free`` inodes."""
        self.empty()
        (self.inside / "filling").write_bytes(b"")
        number = 0
        while os.statvfs(self.inside).f_favail > free:
            number += 1
            (self.inside / f"filling-{number}").write_bytes(b"")

    def empty(self) -> None:
        """Remove the filling."""
        for path in self.inside.glob("filling*"):
            path.unlink()
