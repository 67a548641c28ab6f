"""Tar archives that other projects test their readers with, from where the machine has them installed."""

from __future__ import annotations

import base64
import bz2
import tarfile
from pathlib import Path
from typing import Callable, Collection

from tests.parts.required import lacking

_GO = ("/usr/local/go/src", "/usr/lib/go/src", "/usr/share/go/src", "/usr/share/go-*/src")
_DECODE: dict[str, Callable[[bytes], bytes]] = {".base64": base64.b64decode, ".bz2": bz2.decompress}


def go_folder() -> Path | None:
    """The archives of Go's ``archive/tar``, of the newest Go in one of the usual places; None without any."""
    found = [
        folder
        for place in _GO
        for folder in sorted(Path("/").glob(f"{place[1:]}/archive/tar/testdata"), reverse=True)
        if any(folder.glob("*.tar"))
    ]
    return found[0] if found else None


def go_archives(folder: Path) -> dict[str, bytes]:
    """Name -> the plain archive."""
    found = {}
    for path in sorted(folder.iterdir()):
        name, decode = path.name, _DECODE.get(path.suffix)
        if decode is not None:
            name = path.stem
        if name.endswith(".tar"):
            data = path.read_bytes()
            found[name] = decode(data) if decode is not None else data
    return found


# Of testtar.tar: its one global header, which stands behind a member. umoci refuses it, containerd makes a directory
# for its name. What it says they ignore, and so do we.
_GLOBAL = b"/tmp/GlobalHead"


def cpython_archive(without: Collection[str]) -> bytes:
    """CPython's own testtar.tar, but for some members, which it has. Skips where there is none."""
    import test as cpython_tests

    folder = Path(cpython_tests.__file__ or "").parent
    # It moved in 3.13.
    source = next(
        filter(Path.is_file, (folder / "testtar.tar", folder / "archivetestdata/testtar.tar")), None
    )
    if source is None:
        lacking("CPython's own testtar.tar")
        return b""
    data = source.read_bytes()
    with tarfile.open(source, encoding="iso8859-1") as archive:
        members = archive.getmembers()
        ends = [*(member.offset for member in members[1:]), archive.offset]
    assert {member.name for member in members} >= set(without)
    pieces = [
        data[member.offset : end].partition(_GLOBAL)[0]
        for member, end in zip(members, ends, strict=True)
        if member.name not in without
    ]
    return b"".join(pieces) + bytes(1024)
