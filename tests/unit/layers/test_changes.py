"""Names to changes, without a file system."""

from __future__ import annotations

import pytest

from ocidist.errors import LayerError, UnsafeEntry
from ocidist.layers.whiteouts import Nothing, Opaque, Whiteout, in_meta, marker, split, strip


def change(name: bytes) -> object:
    """What an entry of this name hides; its parent and name if it is no marker."""
    parent, last = split(name)
    return marker(parent, last) if last.startswith(b".wh.") or in_meta(parent) else (parent, last)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a", (b"", b"a")),
        (b"a/b/c", (b"a/b", b"c")),
        (b"./a/b", (b"a", b"b")),
        (b"/a/b", (b"a", b"b")),
        (b"//a//b//", (b"a", b"b")),
        (b"a/b//", (b"a", b"b")),
        (b"a///", (b"", b"a")),
        (b"a/./b/.", (b"a", b"b")),
        (b"./", (b"", b"")),
        (b".", (b"", b"")),
        (b"/", (b"", b"")),
        (b"a/.hidden", (b"a", b".hidden")),
        (b"a/..b/c..", (b"a/..b", b"c..")),
        (b"\xff/\xfe", (b"\xff", b"\xfe")),
    ],
)
def test_names_are_normalised(name: bytes, expected: tuple[bytes, bytes]) -> None:
    """Dots and slashes that mean nothing go; bytes stay bytes."""
    assert split(name) == expected


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/..", b"a/../b", b"/../../etc", b"./../a", b"a/../../b"])
def test_e50_dot_dot_is_refused_wherever_it_stands(name: bytes) -> None:
    """Also where it would come out inside: no archiver of layers writes it."""
    with pytest.raises(UnsafeEntry):
        split(name)
    with pytest.raises(UnsafeEntry):
        strip(name)


@pytest.mark.parametrize("name", [b"", b"a\0b", b"a/" * 2100 + b"b"])
def test_e59_names_that_name_nothing(name: bytes) -> None:
    """Empty, with a NUL, or longer than PATH_MAX."""
    with pytest.raises(LayerError):
        split(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"a/b", (b"a", b"b")),
        (b"./", (b"", b"")),
        (b"a/.wh.b", Whiteout(b"a", b"b")),
        (b".wh.b", Whiteout(b"", b"b")),
        (b".wh.b/", Whiteout(b"", b"b")),
        (b"a/.wh.b//", Whiteout(b"a", b"b")),
        (b"a/.wh..hidden", Whiteout(b"a", b".hidden")),
        (b"a/.wh...b", Whiteout(b"a", b"..b")),
        (b"a/.wh..wh..opq", Opaque(b"a")),
        (b".wh..wh..opq", Opaque(b"")),
        (b".wh..wh.aufs", Nothing()),
        (b".wh..wh.plnk/", Nothing()),
        (b".wh..wh.plnk/12.34", Nothing()),
        (b"a/.wh..wh.orph/b/c", Nothing()),
        (b"a/.whb", (b"a", b".whb")),
    ],
)
def test_e54_markers(name: bytes, expected: object) -> None:
    """Whiteouts, the opaque marker, and AUFS's own names."""
    assert change(name) == expected


@pytest.mark.parametrize("name", [b".wh.", b"a/.wh.", b"a/.wh..", b"a/.wh...", b".wh...", b"a/.wh./"])
def test_e54_whiteouts_of_nothing_itself_or_its_parent_are_refused(name: bytes) -> None:
    """``.wh...`` would remove the parent directory."""
    with pytest.raises(UnsafeEntry):
        change(name)


def test_e54_a_directory_with_a_whiteout_s_name_is_refused() -> None:
    """Nothing can be put beneath ``.wh.x``."""
    with pytest.raises(LayerError):
        change(b"a/.wh.b/c")
