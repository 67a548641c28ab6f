"""Systems without threads, processes or sockets (WebAssembly): a test that asks for one itself skips, and says so.

Nothing is listed by name. Where the system lacks threads, :func:`install` (called by ``tests/conftest.py``) watches
``Thread.start``: called by a test or its parts, the test skips; called by ocidist, it fails as that system fails, and
ocidist has to do without. Processes and listening sockets skip whoever asks for them, for there is no doing without.
On other systems nothing is touched.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

_TESTS = str(Path(__file__).resolve().parents[1])


def asked_by_a_test() -> bool:
    """Whether the nearest caller outside the standard library is a file of the tests."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in sys.stdlib_module_names:
            break
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(_TESTS)


def install(missing: Callable[[str], str | None], lacking: Callable[[str], Any]) -> None:
    """Make tests skip where they ask for what this system lacks."""
    reason = missing("threads")
    if reason is not None:
        _threads(reason, lacking)
    reason = missing("processes")
    if reason is not None:
        import os
        import subprocess

        _replace(subprocess.Popen, "__init__", reason, lacking)
        _replace(os, "fork", reason, lacking)
    reason = missing("sockets")
    if reason is not None:
        import socket

        _replace(socket.socket, "bind", reason, lacking)
        _replace(socket, "socketpair", reason, lacking)


def _threads(reason: str, lacking: Callable[[str], Any]) -> None:
    import threading

    start = threading.Thread.start

    def watched(self: threading.Thread) -> None:
        if asked_by_a_test():
            lacking(reason)
        start(self)

    threading.Thread.start = watched  # type: ignore[method-assign]


def _replace(owner: Any, name: str, reason: str, lacking: Callable[[str], Any]) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        lacking(reason)

    setattr(owner, name, absent)
