"""Shells on a terminal, with the completion of ocidist loaded: what is typed, and what is run in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from tests.parts.processes import CHECKOUT, clean_environment

_STUB = """#!{python}
import os, sys
if sys.argv[1:2] == ["completion"] or "-q" in sys.argv:
    sys.path.insert(0, {checkout!r})
    from ocidist.cli.main import console
    console()
with open({ran!r} + ".part", "wb") as file:
    file.write(b"\\0".join(map(os.fsencode, sys.argv[1:])))
os.rename({ran!r} + ".part", {ran!r})
"""
_START = {
    "bash": ["bash", "--noprofile", "--rcfile", "{rc}", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
_RC = {
    "bash": "bind 'set enable-bracketed-paste off'\nset +o history\nsource <(ocidist completion bash)\n",
    "zsh": "autoload -U compinit; compinit -u -D; unsetopt zle_bracketed_paste 2>/dev/null; source <(ocidist completion zsh)\n",
    "fish": "ocidist completion fish | source\n",
}
_PATIENCE = 60.0


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Shell:
    """An interactive shell in ``folder``; ``ocidist`` completes there, and otherwise only notes its arguments."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        programs = folder / "programs"
        programs.mkdir(parents=True)
        self._ran, self._ready = folder / "ran", folder / "ready"
        stub = programs / "ocidist"
        stub.write_text(_STUB.format(python=sys.executable, checkout=str(CHECKOUT), ran=str(self._ran)))
        stub.chmod(0o755)
        self.work = folder / "work"
        self.work.mkdir()
        rc = folder / "rc"
        rc.write_text(_RC[name] + f"echo > '{self._ready}'\n")
        environment = clean_environment(folder / "home")
        environment["PATH"] = f"{programs}:{environment['PATH']}"
        (folder / "home").mkdir()
        self._terminal, theirs = pty.openpty()
        self.screen = b""
        self._process = subprocess.Popen(
            [word.format(rc=rc) for word in _START[name]],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.work,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        if name != "bash":
            self.type(f"source '{rc}'\r")
        self._until(self._ready)

    def type(self, text: str) -> None:
        """Keys, one after the other."""
        os.write(self._terminal, text.encode())

    def completed(self, typed: str, after: str = "") -> list[str]:
        """The arguments that the program got after ``typed``, a Tab, ``after``, and a Return."""
        self._ran.unlink(missing_ok=True)
        self.type(f"{typed}\t{after}\r")
        self._until(self._ran)
        return [os.fsdecode(word) for word in self._ran.read_bytes().split(b"\0")]

    def _until(self, path: Path) -> None:
        end = time.monotonic() + _PATIENCE
        while not path.exists():
            assert time.monotonic() < end, f"{self.name} shows {self.screen[-2000:]!r}"
            if select.select([self._terminal], [], [], 0.05)[0]:
                self.screen += os.read(self._terminal, 1 << 16)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and what it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._terminal)
