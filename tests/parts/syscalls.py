"""System calls of a real process, through strace: observed in order, failed, or the last ones it makes.

What a process changes on disk it changes by one of :data:`CHANGING`, so ending it at each of these in turn passes
through every state that the disk can be left in.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from tests.parts.required import program

CHANGING = (
    *("openat", "mkdir", "mkdirat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync"),
    *(
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "symlinkat",
        "unlink",
        "unlinkat",
        "rmdir",
    ),
    *("chmod", "fchmod", "fchmodat", "fchown", "fchownat", "utimensat", "flock"),
)
_CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<[^>]*>)?(?: (\w+))?")
_UNFINISHED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)(?:<[^>]*>)?(?: (\w+))?")


@dataclass(frozen=True)
class Call:
    """One call as it ended. ``text`` is its arguments as strace shows them, ``error`` a name such as ENOENT."""

    thread: int
    name: str
    text: str
    result: int
    error: str = ""

    @property
    def paths(self) -> list[str]:
        """The paths in its arguments, and those of its descriptors."""
        return re.findall(r'"(/[^"]*)"', self.text) + re.findall(r"\d<(/[^>]*)>", self.text)


def run(
    command: Sequence[str],
    *options: str,
    calls: Sequence[str] = CHANGING,
    log: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """``command`` under strace, which ends as it ended (killed where that was)."""
    tracer = [program("strace"), "-f", "-y", "-s", "5000", "-o", str(log or "/dev/null")]
    if not options:  # much faster, but strace 6.1 then sends no signals
        tracer.append("--seccomp-bpf")
    return subprocess.run(
        [*tracer, "-e", f"trace={','.join(calls)}", *options, *command],
        input=stdin,
        capture_output=True,
        env=env,
        cwd=cwd,
        timeout=180,
    )


def parse(log: Path) -> list[Call]:
    """The calls of a log, in the order in which they ended."""
    found: list[Call] = []
    begun: dict[tuple[str, str], str] = {}
    for line in log.read_text(errors="replace").splitlines():
        if match := _UNFINISHED.match(line):
            begun[match[1], match[2]] = match[3]
        elif match := _RESUMED.match(line):
            text = begun.pop((match[1], match[2]), "") + match[3]
            found.append(Call(int(match[1]), match[2], text, int(match[4]), match[5] or ""))
        elif match := _CALL.match(line):
            found.append(Call(int(match[1]), match[2], match[3], int(match[4]), match[5] or ""))
    return found


def killing(name: str, number: int) -> tuple[str, str]:
    """Options that end the process as one of its threads makes its ``number``-th call of that name."""
    return "-e", f"inject={name}:signal=KILL:when={number}"


def failing(error: str, when: str, calls: Sequence[str]) -> tuple[str, str]:
    """Options that make calls fail with ``error``; ``when`` as strace has it, for each name: ``3``, ``1+``."""
    return "-e", f"inject={','.join(calls)}:error={error}:when={when}"


def places(calls: Sequence[Call], root: Path) -> list[tuple[str, int]]:
    """Each call from the first about ``root`` on, as its name and the number that it is in its thread."""
    found: dict[tuple[str, int], None] = {}
    counts: dict[tuple[int, str], int] = {}
    for call in calls:
        key = call.thread, call.name
        counts[key] = counts.get(key, 0) + 1
        if found or any(path.startswith(str(root)) for path in call.paths):
            found[call.name, counts[key]] = None
    assert found, f"nothing was done in {root}"
    return list(found)
