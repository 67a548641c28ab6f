"""Which ids a user namespace has: the user's own as root, and the ranges that /etc/subuid and /etc/subgid give.

A range is of use only with the two setuid programs that may write it, newuidmap and newgidmap, which runtimes call.

Sources: user_namespaces(7); subuid(5), subgid(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Iterable

__all__ = ["Mappings", "Range", "of_process", "parse"]

_MAX_ID = 2**32 - 2
_MAX_FILE = 1 << 20
_PROGRAMS = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Range:
    """``size`` ids from ``container`` on are those from ``host`` on."""

    container: int
    host: int
    size: int


@dataclass(frozen=True)
class Mappings:
    """Of a user namespace."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    def has(self, uid: int, gid: int) -> bool:
        """Whether a process in the namespace can be both."""
        return _has(self.uids, uid) and _has(self.gids, gid)


def _has(ranges: tuple[Range, ...], number: int) -> bool:
    return any(each.container <= number < each.container + each.size for each in ranges)


def parse(text: bytes, owner: int, names: Iterable[bytes]) -> tuple[Range, ...]:
    """Root is ``owner``, then come the ranges of the lines ``NAME:START:COUNT`` for any of ``names``."""
    wanted = set(names)
    found = [Range(0, owner, 1)]
    following = 1
    for line in text.split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) != 3 or fields[0] not in wanted or not all(each.isdigit() for each in fields[1:]):
            continue
        if max(len(each) for each in fields[1:]) > 10:
            continue
        start, size = int(fields[1]), int(fields[2])
        if size and start + size - 1 <= _MAX_ID and following + size - 1 <= _MAX_ID:
            found.append(Range(following, start, size))
            following += size
    return tuple(found)


def of_process() -> Mappings:
    """For this process's user: what a runtime that it starts can map."""
    uid, gid = os.geteuid(), os.getegid()
    names = [str(uid).encode()]
    try:
        import pwd

        names.append(os.fsencode(pwd.getpwuid(uid).pw_name))
    except (ImportError, KeyError):  # an id without an account
        pass
    return Mappings(
        parse(_ranges("/etc/subuid", "newuidmap"), uid, names),
        parse(_ranges("/etc/subgid", "newgidmap"), gid, names),
    )


def _ranges(path: str, program: str) -> bytes:
    from shutil import which

    if which(program, path=_PROGRAMS) is None:
        return b""
    try:
        with open(path, "rb") as source:
            return source.read(_MAX_FILE)
    except OSError:
        return b""
