"""Another process that exchanges a path for a link, at one chosen moment, or without pause.

:func:`each_moment` goes through them all: the file system's calls of this process are counted by an audit hook, and at
the nth of them the path becomes a link to the victim, for every n. :func:`without_pause` is a real second process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

_NOBODY = 65534


class _Moment:
    """What the audit hook of this process does; there is one, since none can be removed."""

    def __init__(self) -> None:
        self.count = 0
        self.at = -1
        self.begin = ""
        self.act: Callable[[int], object] | None = None

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.act is None or not (event == "open" or event.startswith("os.")):
            return
        if self.begin and not (event == "os.mkdir" and os.path.basename(os.fsdecode(args[0])) == self.begin):
            return
        self.begin = ""
        self.count += 1
        act, self.act = self.act, None  # not for what it does itself
        try:
            act(self.count - self.at)
        finally:
            self.act = act


_MOMENT = _Moment()
_hooked: list[bool] = []


def each_moment(
    work: Callable[[], object],
    path: Callable[[], Path | None],
    target: Path,
    *,
    back: bool,
    ready: Callable[[], object] = lambda: None,
    begin: str = "",
) -> Iterator[int]:
    """Run ``ready`` and ``work`` again and again; before the nth call of ``work`` the ``path()``, if it is there,
    becomes a link to ``target``.

    With ``back`` it is itself again at the next call. Calls count from the one that makes a directory called
    ``begin``. Yields n after each run; ends once ``work`` has fewer calls. Exceptions of ``work`` are its own business.
    """
    if not _hooked:
        sys.addaudithook(_MOMENT.hook)
        _hooked.append(True)
    done = 0
    number = 0
    while True:
        number += 1
        put: list[Path] = []
        ready()

        def act(offset: int, put: list[Path] = put) -> None:
            where = path() if offset == 0 else None
            if where is not None and os.path.lexists(where):
                os.rename(where, f"{where}.away")
                os.symlink(target, where)
                if hasattr(os, "geteuid") and os.geteuid() == 0:
                    os.chown(where, _NOBODY, _NOBODY, follow_symlinks=False)
                put.append(where)
            elif offset == 1 and back and put and os.path.islink(put[0]):
                os.unlink(put[0])
                os.rename(f"{put[0]}.away", put[0])

        _MOMENT.count, _MOMENT.at, _MOMENT.begin, _MOMENT.act = 0, number, begin, act
        try:
            work()
        except Exception:  # noqa: BLE001 - it may end in any way, but for what is outside
            pass
        finally:
            _MOMENT.act = None
        done += bool(put)
        yield number
        if _MOMENT.count < number:
            assert done, "nothing was exchanged"
            return


_SWAPPER = """
import ctypes, os, select, sys
folder, victim, start = sys.argv[1:]
exchange = ctypes.CDLL(None).renameat2
at = os.open(folder, os.O_DIRECTORY)
count = 0
os.symlink(victim, "trap", dir_fd=at)
os.chown("trap", 65534, 65534, dir_fd=at, follow_symlinks=False)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for name in os.listdir(at):
        if name.startswith(start):
            for _ in range(2):  # there, and back
                count += exchange(at, b"trap", at, os.fsencode(name), 2) == 0
print(count, flush=True)
"""


@contextmanager
def without_pause(folder: Path, start: str, victim: Path) -> Iterator[None]:
    """While the block runs, all in ``folder`` whose name begins with ``start`` is exchanged for a link and back."""
    command = [sys.executable, "-c", _SWAPPER, str(folder), str(victim), start]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            said, _ = process.communicate("end", timeout=60)
        assert int(said) > 0, "nothing was exchanged"
