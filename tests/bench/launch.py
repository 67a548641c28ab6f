"""Run commands one after the other and print what they took, as JSON. Started by ``measure`` with ``-I -S``.

A process of its own, and a small one: Linux counts the memory of whoever spawns a program to the program's own
peak, so a large parent would hide a small child.

stdin: ``{"commands": [[…], …], "every": SECONDS, "watch": [PID, …], "log": PATH}``
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The processes that any thread of ``pid`` started."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def resident(pid: int) -> int:
    """Bytes in memory of ``pid`` and all below it; pages that two of them share count twice."""
    total = 0
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
        total = int(file.read().split()[1]) * PAGE
    return total + sum(resident(child) for child in children(pid))


def cpu_so_far(pid: int) -> float:
    """Seconds of user and system time of a running process and of those of its children that it has waited for."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def run(command: list[str], every: float, watch: list[int], log: str) -> tuple[float, int]:
    """CPU seconds and peak memory in bytes of one command. SystemExit if it fails."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
    ]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    peak = 0
    if every:
        ended = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        while not poll.poll(every * 1000):
            peak = max(peak, sum(map(resident, [pid, *watch])))
        os.close(ended)
    _, status, used = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        with open(log, "rb") as file:
            said = file.read().decode(errors="replace").strip()
        sys.exit(f"{said}\nended with {code}: {said.rpartition(chr(10))[2]}")
    return used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss * 1024)


def main() -> None:
    """As the module says."""
    asked: dict[str, Any] = json.load(sys.stdin)
    watch = asked["watch"]
    before = sum(map(cpu_so_far, watch))
    start = time.perf_counter()
    ran = [run(command, asked["every"], watch, asked["log"]) for command in asked["commands"]]
    wall = time.perf_counter() - start
    cpu = sum(each[0] for each in ran) + sum(map(cpu_so_far, watch)) - before
    json.dump({"wall": wall, "cpu": cpu, "peak": max(each[1] for each in ran)}, sys.stdout)


if __name__ == "__main__":
    main()
