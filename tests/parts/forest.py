"""Random small trees with every type of entry, so alike that two of them have much in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from hypothesis import strategies as st

NAMES = [b"a", b"b", b"c.d", b"\xc3\xa4", b"\xff", b"-", b"n" * 101, b"wh." + b"m" * 150]
TIMES = [0, 1_000_000_000, 1_234_567_890_123_456_789, 1_600_000_000_500_000_000, 981_173_106_000_000_000]
CONTENTS = [b"", b"x", b"y", b"x" * 512, b"xy" * 700, b"z" * 70_000]
TARGETS = [b"a", b"../b", b"/etc/passwd", b"t" * 120, b"\xff"]
XATTRS: list[dict[str, bytes]] = [{}, {}, {"user.one": b"1"}, {"user.one": b"\0\n=\xff", "user.two": b""}]
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@dataclass(frozen=True)
class Sprig:
    """One entry: a ``kind`` (file, link, symlink, fifo, char, block) with what it has of content or target."""

    kind: str
    mode: int
    mtime: int
    owner: tuple[int, int]
    content: bytes
    target: bytes
    xattrs: int
    device: tuple[int, int]


@dataclass(frozen=True)
class Branch:
    """A directory."""

    entries: Mapping[bytes, Any]
    mode: int
    mtime: int
    owner: tuple[int, int]
    xattrs: int


_MODES = st.sampled_from([0o644, 0o755, 0o600, 0o444] + ([0o4755, 0o2711, 0o1777, 0o000] if ROOT else []))
_OWNERS = st.sampled_from([(0, 0), (1000, 1000), (2_097_152, 70_000)] if ROOT else [(-1, -1)])
_KINDS = ["file"] * 4 + ["link"] * 3 + ["symlink", "fifo"] + (["char", "block"] if ROOT else [])
_SPRIGS = st.builds(
    Sprig,
    st.sampled_from(_KINDS),
    _MODES,
    st.sampled_from(TIMES),
    _OWNERS,
    st.sampled_from(CONTENTS),
    st.sampled_from(TARGETS),
    st.integers(0, len(XATTRS) - 1),
    st.sampled_from([(1, 3), (8, 300), (0, 1)]),
)
SPRIGS: st.SearchStrategy[Sprig] = st.deferred(lambda: _SPRIGS)  # with a short repr


def _branches(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Branch]:
    return st.builds(
        Branch,
        st.dictionaries(st.sampled_from(NAMES), inside, max_size=5),
        st.sampled_from([0o755, 0o700, 0o1777] if ROOT else [0o755, 0o700]),
        st.sampled_from(TIMES),
        _OWNERS,
        st.integers(0, len(XATTRS) - 1),
    )


TREES = _branches(st.recursive(SPRIGS, _branches, max_leaves=14))


def plant(branch: Branch, path: Path) -> Path:
    """Make the tree at ``path``; a "link" is a further name of the file made last, or a file if there is none."""
    path.mkdir()
    _fill(branch, os.fsencode(path), [])
    return path


def _fill(branch: Branch, path: bytes, made: list[bytes]) -> None:
    for name, entry in branch.entries.items():
        inside = path + b"/" + name
        if isinstance(entry, Branch):
            os.mkdir(inside)
            _fill(entry, inside, made)
        elif entry.kind == "link" and made:
            os.link(made[len(entry.content) % len(made)], inside, follow_symlinks=False)
        else:
            _sprout(entry, inside)
            made.append(inside)
    _finish(path, branch.mode, branch.mtime, branch.owner, branch.xattrs)


def _sprout(entry: Sprig, path: bytes) -> None:
    if entry.kind == "symlink":
        os.symlink(entry.target, path)
        if ROOT:
            os.chown(path, *entry.owner, follow_symlinks=False)
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
        return
    if entry.kind == "fifo":
        os.mkfifo(path)
    elif entry.kind in ("char", "block"):
        os.mknod(path, 0o020000 if entry.kind == "char" else 0o060000, os.makedev(*entry.device))
    else:
        with open(path, "wb") as file:
            file.write(entry.content)
    regular = entry.kind in ("file", "link")
    _finish(path, entry.mode, entry.mtime, entry.owner, entry.xattrs if regular else 0)


def _finish(path: bytes, mode: int, mtime: int, owner: tuple[int, int], xattrs: int) -> None:
    if ROOT:
        os.chown(path, *owner)
    for name, value in XATTRS[xattrs].items():
        try:
            os.setxattr(path, name, value)
        except (OSError, AttributeError):
            break  # a file system, or a system, without them
    os.chmod(path, mode)
    os.utime(path, ns=(mtime, mtime))
