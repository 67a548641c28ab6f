"""Folders of a store with anything in them: ingests that a crash, another program or an enemy left."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from ocidist.content.ingest import folder_name
from ocidist.content.local import LocalContent
from ocidist.errors import AlreadyExists
from ocidist.spec.digest import Digest
from tests.fuzz.harness import Target, refused_or

__all__ = ["FOLDERS"]

KEYS = ("layer", "../x", "k\u00e9y\n")
DATA = b"what is written"
SECRET = b"nobody's business"


class Item(NamedTuple):
    """Something that lies in a store: ``kind`` is file, folder, link (to a file outside), loop or fifo."""

    folder: str
    name: str
    kind: str
    content: bytes = b""


def check_folder(items: list[Item]) -> None:
    """Everything is listed, resumed, dropped or refused; what a link points at is neither read out nor written."""
    with tempfile.TemporaryDirectory() as temporary:
        outside = Path(temporary, "outside")
        outside.mkdir()
        (outside / "file").write_bytes(SECRET)
        root = Path(temporary, "root")
        for item in map(Item._make, items):
            _place(root, outside / "file", item)
        content = LocalContent(root)
        _listed(content)
        for key in KEYS:
            _written(content, key)
        dropped = content.sweep(float("inf"), dry_run=True)
        assert refused_or(content.sweep, float("inf")) in (None, dropped)
        _listed(content)
        assert [(found.name, found.read_bytes()) for found in outside.iterdir()] == [("file", SECRET)]


def _place(root: Path, outside: Path, item: Item) -> None:
    path = root / item.folder / item.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if item.kind == "folder":
            path.mkdir()
        elif item.kind == "link":
            path.symlink_to(outside)
        elif item.kind == "loop":
            path.symlink_to(path.name)
        elif item.kind == "fifo":
            os.mkfifo(path)
        else:
            with open(path, "xb") as file:
                file.write(item.content)
    except OSError:
        pass  # something else is in its place already


def _listed(content: LocalContent) -> None:
    for info in refused_or(lambda: list(content.walk())) or ():
        assert content.path(info.digest)
        assert info.size >= 0
    for status in refused_or(lambda: list(content.statuses())) or ():
        assert status.offset >= 0
        assert status.total >= 0
        assert refused_or(lambda key=status.key: list(content.statuses([key]))) is not None  # type: ignore[misc]


def _written(content: LocalContent, key: str) -> None:
    """A writer takes over what it finds, and what it commits is what it says."""
    digest = Digest.of(DATA)
    try:
        writer = refused_or(lambda: content.writer(key, total=len(DATA), expected=digest))
    except AlreadyExists:
        return
    if writer is None:
        return
    with writer:
        assert writer.status().offset >= 0
        refused_or(writer.truncate, 0)
        writer.write(DATA)
    refused_or(content.abort, key)


_HEX = [folder_name(key) for key in KEYS]
_BLOB = Digest.of(DATA).hex
_FOLDERS = st.sampled_from(
    [
        "",
        "ingest",
        "blobs",
        "blobs/sha256",
        *[f"ingest/{name}" for name in _HEX] * 2,
        "ingest/other",
        "blobs/md5",
    ]
)
_NAMES = st.sampled_from(
    [
        "ref",
        "data",
        "total",
        "startedat",
        "updatedat",
        "expected",
        "lock",
        *_HEX,
        _BLOB,
        "ingest",
        "blobs",
        "sha256",
        "x",
    ]
) | st.from_regex(r"[a-f0-9.\n\x80-\xff]{1,8}", fullmatch=True)
_CONTENT = st.sampled_from(
    [*(key.encode() for key in KEYS), DATA, b"5", b"-5", b"9" * 30, b"2024-01-01T00:00:00Z", b"0000-00-00T00:00:00Z",
     b"9999-12-31T23:59:59.999999999+23:59", f"sha256:{_BLOB}".encode(), b"sha256:../../x", b"\xff\xfe", b"\x00"]
) | st.binary(max_size=20)  # fmt: skip
_KINDS = st.sampled_from(["file"] * 6 + ["folder", "link", "loop", "fifo"])

FOLDERS = Target(
    "folders",
    st.lists(st.builds(Item, _FOLDERS, _NAMES, _KINDS, _CONTENT), max_size=8),
    check_folder,
    text=False,
)
