"""The program as a user starts it: its own process, an empty home folder, none of this process's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

from tests.parts import watched

CHECKOUT = Path(__file__).resolve().parents[2]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True)
class Result:
    """How a process ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """stdout, decoded."""
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        """stdout's lines."""
        return self.text.splitlines()


def clean_environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """PATH, HOME and a UTF-8 locale, then ``more``: no PYTHON*, OCIDIST_*, XDG_*, DOCKER_* or proxy of ours."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm-256color", **(more or {})}


class _Watched(subprocess.Popen[bytes]):
    """A process whose output may show no secret of the tests."""

    def communicate(self, *arguments: Any, **named: Any) -> tuple[bytes, bytes]:
        out, err = super().communicate(*arguments, **named)
        for name, said in (("stdout", out), ("stderr", err)):
            watched.look(said or b"", f"{name} of {self.args[1:3]}")
        return out, err


@dataclass
class Program:
    """``python -m ocidist`` with a home and a root of its own.

    ``options`` are global options put before each command; ``user`` runs it as that account and its group (as root
    only).
    """

    home: Path
    root: Path | None = None
    python: str = sys.executable
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    cwd: Path = CHECKOUT
    start_with: Sequence[str] = ("-m", "ocidist")

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        root = ["--root", str(self.root)] if self.root is not None else []
        return [self.python, *self.start_with, *root, *self.options, *arguments]

    def start(self, *arguments: str, **popen: Any) -> subprocess.Popen[bytes]:
        """The running process, its own process group; stdin is empty, stdout and stderr are pipes unless given."""
        self.home.mkdir(parents=True, exist_ok=True)
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        if self.user is not None:
            import pwd

            account = pwd.getpwnam(self.user)
            popen.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
        environment = clean_environment(self.home, {**self.environment, **popen.pop("env", {})})
        return _Watched(
            self.command(*arguments), env=environment, cwd=self.cwd, start_new_session=True, **popen
        )

    def run(self, *arguments: str, stdin: bytes | None = None, timeout: float = 120) -> Result:
        """Run to its end; killed, and a TimeoutExpired, after ``timeout`` seconds."""
        how = subprocess.PIPE if stdin is not None else subprocess.DEVNULL
        process = self.start(*arguments, stdin=how)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return Result(process.returncode, out, err.decode("utf-8", "backslashreplace"))

    def ok(self, *arguments: str, stdin: bytes | None = None, timeout: float = 120) -> Result:
        """:meth:`run`, and it must have ended with 0 and without a traceback."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.code == 0, f"{' '.join(arguments)} ended with {done.code}:\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def fails(self, *arguments: str, code: int = 1, stdin: bytes | None = None, timeout: float = 120) -> str:
        """:meth:`run`, and it must end with ``code`` and say why in one line, which is returned."""
        done = self.run(*arguments, stdin=stdin, timeout=timeout)
        assert done.code == code, f"{' '.join(arguments)} ended with {done.code}:\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, done.stderr
        lines = done.stderr.strip().splitlines()
        assert lines, "it failed without a word"
        return lines[-1]


def pythons() -> dict[str, str]:
    """Version (``3.12``) -> path of every supported interpreter of this machine, PATH's and pyenv's."""
    found: dict[str, str] = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    candidates = [
        *(Path(folder) / f"python{version}" for folder in os.get_exec_path() for version in SUPPORTED),
        Path("/usr/bin/python3"),
        *sorted((Path.home() / ".pyenv/versions").glob("3.*/bin/python")),
    ]
    for path in candidates:
        if not path.exists():
            continue
        show = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([str(path), "-I", "-S", "-c", show], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() in SUPPORTED:
            found.setdefault(done.stdout.strip(), str(path))
    return dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split(".")))))
