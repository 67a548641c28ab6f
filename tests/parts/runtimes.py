"""runc and crun, as root and as an ordinary user, whatever cgroups this machine has.

crun 1.8 refuses machines with both versions of cgroups, so it is given a view of its own: a mount namespace with
version 2 alone, and no manager. Nothing of that is seen outside, and it ends with the process.
"""

from __future__ import annotations

import contextlib
import json
import pwd
import shutil
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Sequence

from tests.parts.processes import CHECKOUT, Program, clean_environment
from tests.parts.required import lacking, program, require

USER = "nobody"
DEBIAN_PYTHON = "/usr/bin/python3"  # an ordinary user may not be able to read where the tests' own lies
_CGROUP2_ALONE = "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || mount -t tmpfs none /sys/fs/cgroup"


@dataclass
class Runtime:
    """``name`` is runc or crun; ``state`` its folder of running containers; ``user`` whom it runs as, root if None.

    ``view`` are shell commands, run as root in a mount namespace of its own before the runtime is.
    """

    name: str
    state: Path
    user: str | None = None
    view: Sequence[str] = ()

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        words = [program(self.name), "--root", str(self.state)]
        view = list(self.view)
        if self.name == "crun":
            words += ["--cgroup-manager=disabled"]
            view.append(_CGROUP2_ALONE)
        return seen_through(view, as_user(self.user, [*words, *arguments]))

    def call(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run to its end; stdout and stderr are text."""
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        """Nothing of ours, and a runtime folder of its own."""
        return clean_environment(self.state, {"XDG_RUNTIME_DIR": str(self.state)})

    def run(self, bundle: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """``run`` in the foreground to its end; nothing of the container is left, also where that fails."""
        with self.started(bundle) as container:
            code = container.process.wait(timeout)
            return subprocess.CompletedProcess([], code, container.out.read_text(), container.err.read_text())

    @contextlib.contextmanager
    def started(self, bundle: Path) -> Iterator[Container]:
        """A container that runs in the foreground of a process of ours, until the end of the block."""
        name = f"ocidist-{uuid.uuid4().hex[:12]}"
        with tempfile.TemporaryDirectory(prefix="ocidist-run-") as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(
                    self.command("run", "--bundle", str(bundle), name),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=self.environment(),
                )
            try:
                yield Container(self, name, process, out, err)
            finally:
                self._end(name, process)

    def _end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """The container's first process is not ours: only the runtime knows it, once it has made it."""
        for _ in range(60):
            if process.poll() is not None:
                break
            self.call("delete", "--force", name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        process.kill()
        process.wait()
        if self.call("state", name).returncode == 0:
            self.call("delete", "--force", name)


@dataclass
class Container:
    """One that was started; ``out`` and ``err`` are files with what it says."""

    runtime: Runtime
    name: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A further process in it."""
        return self.runtime.call("exec", self.name, *words)

    def until(self, condition: Any, what: str, timeout: float = 180) -> Any:
        """What ``condition()`` returns once it is true; fails if the container ends or time runs out before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended = self.process.poll()
            found = condition()
            if found:
                return found
            assert ended is None, f"it ended with {ended} before {what}:\n{self.said()}"
            time.sleep(0.05)
        raise AssertionError(f"no {what} within {timeout} s:\n{self.said()}")

    def said(self) -> str:
        """All of its output so far, its end."""
        return (self.out.read_text("utf-8", "replace") + self.err.read_text("utf-8", "replace"))[-3000:]

    def pid(self) -> int:
        """The first process's id on this machine."""
        done = self.runtime.call("state", self.name)
        assert done.returncode == 0, done.stderr
        found: int = json.loads(done.stdout)["pid"]
        return found

    def status(self) -> dict[str, str]:
        """``/proc/PID/status`` of that process."""
        lines = Path(f"/proc/{self.pid()}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def terminate(self, timeout: float = 180) -> int:
        """Send SIGTERM to the first process; how the runtime in the foreground ended."""
        done = self.runtime.call("kill", self.name, "TERM")
        assert done.returncode == 0, done.stderr
        return self.process.wait(timeout)


def as_user(user: str | None, words: Sequence[str]) -> list[str]:
    """``words`` run as an account, its group alone, without a session."""
    if user is None:
        return list(words)
    account = pwd.getpwnam(user)
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return [program("setpriv"), *ids, "--", *words]


def seen_through(view: Sequence[str], words: Sequence[str]) -> list[str]:
    """``words`` run in a mount namespace in which the shell commands of ``view`` have been run before."""
    if not view:
        return list(words)
    script = f'set -e; {"; ".join(view)}; exec "$@"'
    return [program("unshare"), "--mount", "sh", "-c", script, "sh", *words]


def require_runtimes(*names: str) -> None:
    """Skip (or fail) where root can't make mount namespaces here, or lacks a runtime."""
    require("root", "unshare", "setpriv", *names)
    done = subprocess.run(
        [program("unshare"), "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lacking(f"this machine lets root mount nothing: {done.stderr.strip()[-200:]}")


def require_user_namespaces() -> None:
    """Skip (or fail) where an ordinary user can't make the namespaces that a rootless container has."""
    words = [program("unshare"), "--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", "--fork"]
    words += ["--mount-proc", "true"]
    done = subprocess.run(as_user(USER, words), capture_output=True, text=True, cwd="/")
    if done.returncode != 0:
        lacking(f"this machine lets an ordinary user make no namespaces: {done.stderr.strip()[-200:]}")


def with_ranges(folder: Path, text: str) -> list[str]:
    """A view in which /etc/subuid and /etc/subgid say ``text``."""
    ranges = folder / "ranges"
    ranges.write_text(text)
    for name in ("/etc/subuid", "/etc/subgid"):
        if not Path(name).exists():
            lacking(f"no {name}, which Debian's passwd makes")
    return [f"mount --bind {ranges} {name}" for name in ("/etc/subuid", "/etc/subgid")]


@dataclass
class Home:
    """A folder of an ordinary user's, with a copy of the program that this user can read."""

    folder: Path
    program: Program = field(init=False)

    def __post_init__(self) -> None:
        self.program = Program(
            self.folder / "home",
            self.folder / "root",
            python=DEBIAN_PYTHON,
            user=USER,
            cwd=self.folder / "program",
            start_with=("-S", "-m", "ocidist"),
            environment={"PYTHONDONTWRITEBYTECODE": "1"},
        )

    def call(self, view: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """The program, run to its end by this user in a view of its own."""
        return subprocess.run(
            seen_through(view, as_user(USER, self.program.command(*arguments))),
            cwd=self.program.cwd,
            env=clean_environment(self.program.home, self.program.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def runtime(self, name: str, view: Sequence[str] = ()) -> Runtime:
        """A runtime that this user runs."""
        return Runtime(name, self.folder / "run", USER, view)


@contextlib.contextmanager
def users_home() -> Iterator[Home]:
    """A :class:`Home` outside pytest's folders, which are root's alone; removed at the end."""
    if not Path(DEBIAN_PYTHON).exists():
        lacking("no Python of Debian's, that an ordinary user could run")
    account = pwd.getpwnam(USER)
    folder = Path(tempfile.mkdtemp(prefix="ocidist-user-"))
    try:
        folder.chmod(0o755)
        source, copy = CHECKOUT / "ocidist", folder / "program" / "ocidist"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for name in ("home", "root", "run", "bundles"):
            (folder / name).mkdir(mode=0o700)
            shutil.chown(folder / name, account.pw_uid, account.pw_gid)
        yield Home(folder)
    finally:
        shutil.rmtree(folder)
