"""Archives that Go and CPython test their tar readers with, beside container engines, GNU tar and bsdtar.

Either both make the same tree, or both refuse the archive. What differs is data of this file, with the reason.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterator, Mapping

import pytest

from ocidist.errors import OcidistError
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.tar.records import Records
from ocidist.scope import Scope
from tests.parts.containerd import Containerd
from tests.parts.corpora import cpython_archive, go_archives, go_folder
from tests.parts.peers import by_bsdtar, by_containerd, by_gnu_tar, by_umoci
from tests.parts.required import require
from tests.parts.tables import Add, Table
from tests.parts.trees import Node, differences, snapshot

CORPORA = Table(
    "Archives of others, beside four readers",
    ("archive", "entries", "containerd", "umoci", "GNU tar", "bsdtar"),
)
ENGINES, TARS = ("containerd", "umoci"), ("GNU tar", "bsdtar")
EQUAL, REFUSED = "equal", "refused by both"

# 60 GB in holes: the engines write them out.
HUGE = {"gnu-sparse-big.tar", "pax-sparse-big.tar"}

SPARSE = "it knows no type S, GNU's old sparse file"
LENIENT = "Go refuses it too, and so do both engines"
EXPLAINED: dict[str, dict[tuple[str, ...], str]] = {
    "gnu-incremental.tar": {TARS: "type D, the names in a folder, is of GNU's backups: no layer has it"},
    "gnu-nil-sparse-data.tar": {ENGINES: SPARSE},
    "gnu-nil-sparse-hole.tar": {ENGINES: SPARSE},
    "sparse-formats.tar": {ENGINES: SPARSE, ("GNU tar",): "it lacks the end blocks that it wants"},
    "gnu-sparse-many-zeros.tar": {ENGINES + TARS: "more pieces than our limit; Go has one since 1.25"},
    "invalid-go17.tar": {
        TARS: "a prefix in GNU's header, by Go before 1.8: only Go's readers and we take it"
    },
    "nil-uid.tar": {("bsdtar",): "it takes what stands in the place of a sparse file's size for one"},
    "pax-bad-mtime-file.tar": {TARS: LENIENT},
    "pax-nul-path.tar": {TARS: LENIENT},
    "pax-global-records.tar": {
        ("umoci",): "it knows no global headers",
        ("GNU tar",): "it gives all entries the global header's name",
    },
    "pax-multi-hdrs.tar": {("bsdtar",): "it wants one header before an entry"},
    "pax-path-hdr.tar": {(*ENGINES, "GNU tar"): "it ends behind an extended header: its entry is missing"},
    "xattrs.tar": {
        ("containerd", *TARS): "security.selinux belongs to the host, and is left out by umoci and us"
    },
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    require("root", "containerd", "ctr", "umoci", "tar", "bsdtar", "go-corpus")
    with Containerd(tmp_path_factory.mktemp("containerd") / "daemon") as running:
        yield running


def named(archive: bytes) -> set[str]:
    """The paths that have an entry, as far as the archive can be read."""
    source = io.BytesIO(archive)
    found = set()
    try:
        for member in Records(lambda: source.read(1 << 20)):
            found.add(os.fsdecode(member.name).strip("/").removeprefix("./"))
    except OcidistError:
        pass
    return found


def timed(tree: Mapping[str, Node], entries: set[str]) -> dict[str, Node]:
    """The tree without the times of directories that no entry describes."""
    return {
        path: node if node.type != "directory" or path in entries else replace(node, mtime_ns=0)
        for path, node in tree.items()
    }


def ours(folder: Path, archive: bytes) -> Mapping[str, Node] | None:
    """Our tree; None where we refuse."""
    folder.mkdir()
    try:
        apply_layer(io.BytesIO(archive), folder, Scope())
    except OcidistError:
        return None
    return snapshot(folder)


def outcome(mine: Mapping[str, Node] | None, make: Callable[[], Path], entries: set[str]) -> str:
    """What comes of a peer's ``make``, which fails with an AssertionError where it refuses."""
    try:
        theirs = snapshot(make())
    except AssertionError:
        return REFUSED if mine is None else "refused by it alone"
    if mine is None:
        return "refused by us alone"
    found = differences(timed(mine, entries), timed(theirs, entries), root=False)
    return EQUAL if not found else f"{len(found)} differences"


def test_go_s_archives_are_read_as_the_engines_read_them(
    daemon: Containerd, tmp_path: Path, table: Callable[[Table], Add]
) -> None:
    """Trees compared entry by entry; each difference is explained, and each explanation is of use."""
    add = table(CORPORA)
    folder = go_folder()
    assert folder is not None
    unexplained, unused = [], []
    for name, archive in go_archives(folder).items():
        if name in HUGE:
            continue
        place = tmp_path / name
        place.mkdir()
        mine, entries = ours(place / "ours", archive), named(archive)
        makers: dict[str, Callable[[Path], Path]] = {
            "containerd": lambda at, raw=archive: by_containerd(daemon, at, [raw], [raw]),  # type: ignore[misc]
            "umoci": lambda at, raw=archive: by_umoci(at, [raw]),  # type: ignore[misc]
            "GNU tar": lambda at, raw=archive: by_gnu_tar(at, raw),  # type: ignore[misc]
            "bsdtar": lambda at, raw=archive: by_bsdtar(at, raw),  # type: ignore[misc]
        }
        cells = []
        for peer, make in makers.items():
            at = place / peer.replace(" ", "-") / name
            at.mkdir(parents=True)
            found = outcome(mine, lambda make=make, at=at: make(at), entries)  # type: ignore[misc]
            reason = next((why for peers, why in EXPLAINED.get(name, {}).items() if peer in peers), "")
            if found in (EQUAL, REFUSED):
                unused += [(name, peer)] if reason else []
            elif reason:
                found += f": {reason}"
            else:
                unexplained.append((name, peer, found))
            cells.append(found)
        add(name, "refused" if mine is None else len(mine) - 1, *cells)
    assert (unexplained, unused) == ([], [])


def test_cpython_s_archive_is_read_as_tar_programs_read_it(
    tmp_path: Path, table: Callable[[Table], Add]
) -> None:
    """testtar.tar, with types that no engine knows; but for an owner that is "leave it" to chown (E.56), and for
    names that say to be UTF-8 and are not, of which bsdtar complains."""
    require("root", "tar", "bsdtar", "module:test")
    archive = cpython_archive(
        {"gnu/regtype-gnu-uid", "pax/bad-pax-\xe4\xf6\xfc", "pax/hdrcharset-\xe4\xf6\xfc"}
    )
    mine, entries = ours(tmp_path / "ours", archive), named(archive)
    cells = []
    for make in (by_gnu_tar, by_bsdtar):
        at = tmp_path / make.__name__
        at.mkdir()
        cells.append(outcome(mine, lambda make=make, at=at: make(at, archive), entries))  # type: ignore[misc]
    assert mine is not None
    table(CORPORA)("testtar.tar", len(mine) - 1, "see trees", "see trees", *cells)
    assert cells == [EQUAL, EQUAL]
