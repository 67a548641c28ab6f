"""A replayed pull of the demo by the command line's own main, and all that it left: the same text on every system.

``python -m tests.pyodide.demo ROOT`` prints it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import sys
from pathlib import Path
from typing import Iterator

DEMO = "registry.example/demo/shop:1.0"
PLATFORM = "linux/amd64"


def run(*arguments: str) -> str:
    """stdout of one command, in this process; anything but 0 is the end, with what it said."""
    from ocidist.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    if code != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {code}: {err.getvalue()}")
    return out.getvalue()


def tree(root: Path) -> Iterator[str]:
    """A line for each entry under ``root``, sorted: kind, permissions, size or target, content's digest, path."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            found = path.lstat()
            shown = path.relative_to(root).as_posix()
            if stat.S_ISLNK(found.st_mode):
                yield f"link {shown} -> {os.readlink(path)}"
            elif stat.S_ISDIR(found.st_mode):
                yield f"dir {stat.S_IMODE(found.st_mode):04o} {shown}"
            elif stat.S_ISREG(found.st_mode):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                mode = stat.S_IMODE(found.st_mode)
                yield f"file {mode:04o} {found.st_size} {int(found.st_mtime)} {digest[:16]} {shown}"
            else:
                yield f"other {shown}"


def pulled(root: Path) -> str:
    """Name, digest and ChainID; the store's blobs and images; every entry of the unpacked tree."""
    here = ["--root", str(root)]
    line = run(*here, "--cassette", "demo", "--platform", PLATFORM, "pull", DEMO)
    chain = line.split()[2].partition(":")[2]
    blobs = sorted(run(*here, "list", "-q").split())
    (unpacked,) = [path.parents[1] for path in root.rglob("etc/os-release") if chain in str(path)]
    lines = [line.rstrip(), *blobs, run(*here, "images", "-q").rstrip(), *sorted(tree(unpacked))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(pulled(Path(sys.argv[1])), end="")
