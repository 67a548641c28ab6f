"""Threats E.50 to E.55 and E.58: layers that want out, on a victim directory beside the root."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Callable, Iterator

import pytest

from ocidist.errors import LayerError, OcidistError, UnsafeEntry
from ocidist.layers.apply import layer as apply_module
from ocidist.layers.apply.contained import Directory, Tree
from ocidist.layers.apply.layer import ApplyResult, Policy, apply_layer
from ocidist.layers.apply.links import symlink as symlink_at
from ocidist.scope import Scope
from ocidist.snapshots.removal import remove_tree
from tests.parts.required import require
from tests.parts.tars import directory, entry, hardlink, header, layer, pax, record, symlink
from tests.parts.trees import snapshot

SECRET = b"a secret of the host"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """``root`` to unpack into; ``victim`` beside it, ``root-evil`` with a name that begins alike."""
    (tmp_path / "root").mkdir()
    for name in ("victim", "root-evil"):
        folder = tmp_path / name
        (folder / "deep").mkdir(parents=True)
        (folder / "secret").write_bytes(SECRET)
        (folder / "deep" / "file").write_bytes(b"deep")
        os.chmod(folder / "secret", 0o600)
    return tmp_path


@pytest.fixture(autouse=True)
def _victims_are_untouched(box: Path) -> Iterator[None]:
    """Nothing is written, chmodded, removed, touched or linked outside, and nothing of it is inside."""
    before = {name: snapshot(box / name) for name in ("victim", "root-evil")}
    links = {name: os.stat(box / name / "secret").st_nlink for name in before}
    yield
    assert {name: snapshot(box / name) for name in before} == before
    assert {name: os.stat(box / name / "secret").st_nlink for name in before} == links
    assert sorted(os.listdir(box)) == ["root", "root-evil", "victim"]
    for _, _, files, fd in os.fwalk(box / "root"):  # by descriptor: some paths are too long to name
        for name in files:
            mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) and (mode & 0o400 or os.geteuid() == 0):
                with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), "rb") as source:
                    assert source.read() != SECRET


def run(box: Path, stream: io.BytesIO, **options: object) -> ApplyResult:
    return apply_layer(stream, box / "root", Scope(), **options)  # type: ignore[arg-type]


# Where the link in layer 1 leads: absolute, relative, to a sibling that begins alike.
def outs(box: Path) -> list[str]:
    return [str(box / "victim"), "../victim", "../root-evil", "../../../../../../../.." + str(box / "victim")]


PAYLOADS = [
    entry("link/secret", b"overwritten"),
    entry("link/new", b"new"),
    directory("link/deep", mode=0o777, mtime=5),
    directory("link/secret/", mode=0o777),
    symlink("link/secret", "elsewhere"),
    entry("link/pipe", kind="6"),
    entry("link/.wh.secret"),
    entry("link/.wh.deep"),
    entry("link/.wh..wh..opq"),
    entry("link/deep/.wh.file"),
    hardlink("inside", "link/secret"),
    hardlink("link/secret", "inside-file"),
    directory("link/", mode=0o777, uid=1, gid=1, mtime=5),
    directory("link/.", mode=0o777, uid=1, gid=1, mtime=5),
    entry("link", b"file over the link"),
    entry("link/deep/file", b"overwritten"),
    pax(record("SCHILY.xattr.user.a", "1")) + directory("link/deep"),
    pax(record("SCHILY.xattr.user.a", "1")) + directory("link/"),
    pax(record("SCHILY.xattr.trusted.a", "1")) + symlink("link", "victim"),
    hardlink("hard", "link") + entry("hard/secret", b"overwritten"),
    hardlink("hard", "link/deep") + directory("hard", mode=0o777),
    entry("link/null", kind="3", device=(1, 3)),
]


@pytest.mark.parametrize("payload", range(len(PAYLOADS)))
@pytest.mark.parametrize("out", range(4))
def test_e50_nothing_goes_through_a_link_that_leads_out(box: Path, payload: int, out: int) -> None:
    """Writes, whiteouts, hardlinks, attributes and metadata through a link of the same layer."""
    attempt(box, [entry("inside-file", b"inside"), symlink("link", outs(box)[out]), PAYLOADS[payload]])


@pytest.mark.parametrize("payload", range(len(PAYLOADS)))
@pytest.mark.parametrize("out", range(4))
@pytest.mark.parametrize("hops", [1, 3])
def test_e53_nothing_goes_through_a_link_of_the_layer_beneath(
    box: Path, payload: int, out: int, hops: int
) -> None:
    """The same in a second layer, over one link and over a chain of them."""
    chain = [symlink(f"hop{number}", f"hop{number + 1}") for number in range(1, hops)]
    last = f"hop{hops}" if hops > 1 else "link"
    first = [entry("inside-file", b"inside"), *chain, symlink(last, outs(box)[out])]
    if hops > 1:
        first.append(symlink("link", "hop1"))
    attempt(box, first, [PAYLOADS[payload]])


def attempt(box: Path, *layers: list[bytes]) -> None:
    """Refused, or contained: what is outside is looked at in every case."""
    try:
        for entries in layers:
            run(box, layer(*entries))
    except OcidistError:
        pass


def test_e50_a_link_that_leads_out_means_a_place_inside(box: Path) -> None:
    """As the image's own programs would see it: absolute from the root, .. at the root is the root."""
    run(
        box,
        layer(
            symlink("abs", "/etc/deep"),
            symlink("up", "../../../etc"),
            entry("abs/a", b"1"),
            entry("up/b", b"2"),
            symlink("usr/lib64", "../lib"),
            entry("usr/lib64/c", b"3"),
        ),
    )
    root = box / "root"
    assert (root / "etc/deep/a").read_bytes() == b"1"
    assert (root / "etc/b").read_bytes() == b"2"
    assert (root / "lib/c").read_bytes() == b"3"


@pytest.mark.parametrize(
    "name", ["../victim/secret", "/../victim/secret", "a/../../victim/secret", "..", "./../x"]
)
@pytest.mark.parametrize("kind", ["0", "5", "2", "1", "6"])
def test_e50_dot_dot_in_names_is_refused(box: Path, name: str, kind: str) -> None:
    """For every type of entry."""
    with pytest.raises(UnsafeEntry):
        run(box, layer(entry("a/x"), entry(name, kind=kind, link="x")))


def test_e50_absolute_names_count_from_the_root(box: Path) -> None:
    """As tar and the engines take them."""
    victim = box / "victim" / "secret"
    run(box, layer(entry(str(victim), b"mine")))
    assert (box / "root" / str(victim).lstrip("/")).read_bytes() == b"mine"


OUT = [
    "../victim/secret",
    "/../victim/secret",
    "a/../../victim/secret",
    "up/victim/secret",
    "up/../victim/secret",
]


@pytest.mark.parametrize("target", OUT)
def test_e50_hardlinks_out_name_a_place_inside(box: Path, target: str) -> None:
    """As containerd and umoci have it: nothing is above the root. What is outside is neither linked nor read."""
    require("os:link")
    with pytest.raises(LayerError, match="isn't there"):
        run(box, layer(entry("a/x"), symlink("up", ".."), hardlink("inside", target)))
    run(box, layer(entry("victim/secret", b"own"), hardlink("inside", target)))
    assert (box / "root/inside").read_bytes() == b"own"
    assert (box / "root/inside").stat().st_nlink == 2


@pytest.mark.parametrize(
    "target",
    [
        *("d/e/../../etc/file", "none/../etc/file", "/./d//../etc/file", "l/file", "l/../etc/file"),
        *("up/etc/file", "d/deep/../file", "d/up/l/file"),
    ],
)
def test_hardlinks_go_through_links_and_dot_dot(box: Path, target: str) -> None:
    """A link on the way is followed before ``..`` is, as the kernel and containerd do it."""
    require("os:link")
    above = [directory("d/e"), entry("etc/file", b"1"), directory("etc/sub"), symlink("l", "etc")]
    above += [symlink("up", "../../.."), symlink("d/deep", "../etc/sub"), symlink("d/up", "..")]
    run(box, layer(*above, hardlink("d/e/hard", target)))
    assert os.path.samefile(box / "root/d/e/hard", box / "root/etc/file")


@pytest.mark.parametrize("target", ["..", "d/..", "d/e/../..", ".", "", "/"])
def test_e50_a_hardlink_to_a_directory_above_is_refused(box: Path, target: str) -> None:
    """The last component is a name."""
    with pytest.raises(LayerError, match="isn't there"):
        run(box, layer(directory("d/e"), hardlink("d/e/hard", target)))


PLNK = ".wh..wh.plnk"


def aufs(*entries: bytes) -> io.BytesIO:
    """A layer as AUFS had it: its own files first."""
    own = entry(".wh..wh.aufs") + directory(".wh..wh.orph") + directory(PLNK, mode=0o700)
    held = entry(f"{PLNK}/12.34", b"held", mode=0o4755, uid=5, gid=6, mtime=7) + symlink(f"{PLNK}/no", "/etc")
    return layer(own, held, entry(f"{PLNK}/.wh.x", b"?"), hardlink(".wh..wh.aufs", f"{PLNK}/12.34"), *entries)


def test_hardlinks_of_aufs_are_the_file_that_it_held_for_them(box: Path) -> None:
    """Docker wrote such layers until 2019: the file has no other name. Of AUFS's own nothing stays."""
    require("os:link")
    root = box / "root"
    linked = hardlink("one", f"{PLNK}/12.34"), hardlink("d/two", f"/{PLNK}/12.34"), entry("f", b"f")
    run(box, aufs(directory("./", mtime=9), *linked))
    assert sorted(os.listdir(root)) == ["d", "f", "one"]
    assert os.path.samefile(root / "one", root / "d/two")
    found = os.stat(root / "one")
    assert ((root / "one").read_bytes(), found.st_nlink, found.st_mtime) == (b"held", 2, 7)
    if Policy.of_process().privileged:
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o4755, 5, 6)
    assert os.stat(root).st_mtime == 9


@pytest.mark.parametrize("target", [f"{PLNK}/56.78", f"{PLNK}/no", ".wh..wh.orph/x"])
def test_hardlinks_of_aufs_to_what_it_did_not_hold_are_refused(box: Path, target: str) -> None:
    """Nor does anything of it stay."""
    with pytest.raises(LayerError, match="isn't there"):
        run(box, aufs(entry("before"), hardlink("one", target)))
    assert os.listdir(box / "root") == ["before"]


def test_e50_an_absolute_hardlink_names_an_entry(box: Path) -> None:
    """The host's file of that name is neither linked nor read."""
    require("os:link")
    with pytest.raises(LayerError, match="isn't there"):
        run(box, layer(hardlink("inside", str(box / "victim" / "secret"))))


def test_e50_a_hardlink_to_a_symlink_is_the_symlink(box: Path) -> None:
    """Its target isn't followed; nor are mode and owner set through it."""
    run(box, layer(symlink("link", str(box / "victim/secret")), hardlink("hard", "link", mode=0o777, uid=1)))
    assert os.readlink(box / "root" / "hard") == str(box / "victim/secret")


def test_e50_the_root_can_not_be_replaced(box: Path) -> None:
    """Only a directory entry may describe it."""
    for kind in "01236":
        with pytest.raises(UnsafeEntry):
            run(box, layer(entry("./", kind=kind, link=str(box / "victim"))))
    run(box, layer(directory("./", mode=0o711, mtime=77)))
    assert stat.S_IMODE(os.stat(box / "root").st_mode) == 0o711
    assert os.stat(box / "root").st_mtime == 77


def test_e51_long_chains_of_links_are_contained(box: Path) -> None:
    """Many links of long components that grow past PATH_MAX, with .. at the end (CVE-2025-4517)."""
    long = "d" * 247
    entries, path = [], ""
    for letter in "abcdefghijklmnop":
        entries += [directory(path + long), symlink(path + letter, long)]
        path += long + "/"
    chain = "/".join("abcdefghijklmnop")
    entries += [
        symlink(f"{chain}/{'l' * 254}", "../" * 16),
        symlink("escape", f"{chain}/{'l' * 254}/../victim"),
        entry("escape/secret", b"overwritten"),
    ]
    try:
        run(box, layer(*entries))
    except OcidistError:
        pass


def test_e51_a_maze_of_links_is_bounded(box: Path) -> None:
    """Loops, and links that double at every step."""
    with pytest.raises(UnsafeEntry, match="maze"):
        run(box, layer(symlink("a", "b"), symlink("b", "a"), entry("a/x")))
    with pytest.raises(UnsafeEntry, match="maze"):
        run(box, layer(symlink("self", "self/self"), entry("self/x")))
    doubling = [symlink("l0", ".")] + [symlink(f"l{n}", f"l{n - 1}/l{n - 1}") for n in range(1, 40)]
    with pytest.raises(UnsafeEntry, match="maze"):
        run(box, layer(*doubling, entry("l39/x")))


def test_e51_directories_nested_too_deeply_are_refused(box: Path) -> None:
    """A link can make real paths longer than any name in the archive."""
    require("kernel")
    deep = "d/" * 1000
    try:
        with pytest.raises(LayerError, match="too deeply"):
            run(
                box,
                layer(
                    directory(deep),
                    symlink("a", deep),
                    directory("a/" + deep),
                    symlink("b", "a/" + deep),
                    directory("b/" + deep),
                ),
            )
    finally:
        remove_tree(box / "root")  # as deep as that, shutil.rmtree and os.fwalk run out of stack
        (box / "root").mkdir()


def test_e51_a_sibling_whose_name_begins_alike_is_outside(box: Path) -> None:
    """A comparison of prefixes would let it through."""
    with pytest.raises(UnsafeEntry):
        run(box, layer(entry("../root-evil/secret", b"overwritten")))


def test_e52_a_directory_swapped_for_a_link_while_unpacking(box: Path) -> None:
    """Another thread swaps directories for links to the victim all the time; what is outside stays."""
    root, stop = box / "root", threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for number in range(8):
                try:
                    os.rename(root / f"d{number}", root / f"away{number}")
                    os.symlink(box / "victim", root / f"d{number}")
                    os.unlink(root / f"d{number}")
                    os.rename(root / f"away{number}", root / f"d{number}")
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for turn in range(30):
            entries = [
                part
                for number in range(8)
                for part in (
                    directory(f"d{number}", mode=0o777),
                    entry(f"d{number}/secret", b"overwritten"),
                    directory(f"d{number}/deep", mtime=turn),
                    entry(f"d{number}/deep/file", b"x"),
                    entry(f"d{number}/.wh.deep" if turn % 2 else f"d{number}/.wh..wh..opq"),
                )
            ]
            try:
                run(box, layer(*entries))
            except OcidistError:
                continue
    finally:
        stop.set()
        thread.join()


SWAPPER = """
import ctypes, os, select, sys
root, victim = sys.argv[1:]
exchange = getattr(ctypes.CDLL(None), "renameat2", None)
count = 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for folder, name in (("", b"d0"), ("", b"d1"), ("/d0", b"deep"), ("/d1", b"deep")):
        try:  # not through a link that was left there: this process itself would reach the victim
            at = os.open(root + folder, os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        for _ in range(2):  # there, and back: at every moment the name is a directory or the link
            if exchange and exchange(-100, os.fsencode(root + "/trap"), at, name, 2) == 0:
                count += 1
        os.close(at)
    if not os.path.lexists(root + "/trap"):  # at first, and where a layer has emptied the root
        os.symlink(victim, root + "/trap")
print(count, flush=True)
"""


def test_e52_another_process_exchanges_directories_for_links_without_pause(box: Path) -> None:
    """renameat2(RENAME_EXCHANGE) in a second process: no moment is safe, and what is outside stays."""
    require("processes", "kernel")
    root = box / "root"
    entries = [
        part
        for name in ("d0", "d1")
        for part in (
            directory(name, mode=0o777),
            entry(f"{name}/secret", b"overwritten"),
            pax(record("SCHILY.xattr.user.a", "1")) + directory(f"{name}/deep", mode=0o777, mtime=7),
            entry(f"{name}/deep/file", b"overwritten"),
            hardlink(f"{name}/hard", f"{name}/secret"),
            symlink(f"{name}/deep/link", "x"),
        )
    ]
    run(box, layer(*entries))
    ends = [".wh..wh..opq", "d0/.wh..wh..opq", "d1/deep/.wh.file", "d0/.wh.secret", "d0/.wh.deep"]
    command = [sys.executable, "-c", SWAPPER, str(root), str(box / "victim")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == "ready\n"
        for turn in range(60):
            try:
                run(box, layer(*entries, entry(ends[turn % len(ends)])), threads=False)
            except OcidistError:
                continue
        said, _ = swapper.communicate("end", timeout=60)
    assert swapper.returncode == 0
    assert int(said) > 0, "nothing was exchanged"


def test_e52_a_link_put_in_the_way_of_a_known_directory(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministically: between two entries of one directory, it is swapped for a link."""
    require("kernel")
    root = box / "root"
    original = apply_module.Records.next
    done: list[bool] = []

    def swapping(self: apply_module.Records) -> object:
        member = original(self)
        if member is not None and member.name == b"d/e/second" and not done:
            done.append(True)
            os.rename(root / "d", root / "away")
            os.symlink(box / "victim", root / "d")
        return member

    monkeypatch.setattr(apply_module.Records, "next", swapping)
    run(box, layer(directory("d"), directory("d/e"), entry("d/e/first", b"1"), entry("d/e/second", b"2")))
    assert done
    assert (root / "away/e/second").read_bytes() == b"2"


# -- whiteouts --


def lower(box: Path) -> Path:
    run(
        box,
        layer(
            directory("a"),
            entry("a/old", b"old"),
            directory("a/b"),
            entry("a/b/old", b"old"),
            directory("a/b/c"),
            entry("a/b/c/old", b"old"),
            entry("top", b"top"),
        ),
    )
    return box / "root"


def tree(root: Path) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, names, files in os.walk(root)
        for name in names + files
    )


OWN = [directory("a"), directory("a/b"), entry("a/b/new", b"new"), entry("a/new", b"new")]


@pytest.mark.parametrize(
    ("marker", "left"),
    [
        ("a/.wh..wh..opq", ["a", "a/b", "a/b/new", "a/new", "top"]),
        ("a/b/.wh..wh..opq", ["a", "a/b", "a/b/new", "a/new", "a/old", "top"]),
        ("a/.wh.b", ["a", "a/b", "a/b/new", "a/new", "a/old", "top"]),
        (".wh.a", ["a", "a/b", "a/b/new", "a/new", "top"]),
        (".wh.top", ["a", "a/b", "a/b/c", "a/b/c/old", "a/b/new", "a/b/old", "a/new", "a/old"]),
        (".wh..wh..opq", ["a", "a/b", "a/b/new", "a/new"]),
        ("a/.wh.new", ["a", "a/b", "a/b/c", "a/b/c/old", "a/b/new", "a/b/old", "a/new", "a/old", "top"]),
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_e54_markers_work_in_any_order_and_spare_their_own_layer(
    box: Path, marker: str, left: list[str], place: int
) -> None:
    """First, in the middle or last: what is beneath goes, what the layer itself has stays."""
    root = lower(box)
    run(box, layer(*OWN[:place], entry(marker), *OWN[place:]))
    assert tree(root) == left


@pytest.mark.parametrize("place", [0, 1])
def test_e54_a_directory_spared_for_what_is_in_it_is_a_fresh_one(box: Path, place: int) -> None:
    """Without an entry of its own it doesn't keep the mode of the directory that was whited out."""
    run(box, layer(directory("a", mode=0o700), entry("a/old")))
    entries = [entry("a/new"), entry("a/new2")]
    entries.insert(place * 2, entry(".wh.a"))
    run(box, layer(*entries))
    assert tree(box / "root") == ["a", "a/new", "a/new2"]
    assert stat.S_IMODE(os.stat(box / "root/a").st_mode) == 0o755


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", "a/.wh..", "a/.wh..."])
def test_e54_whiteouts_of_nothing_are_refused(box: Path, name: str) -> None:
    """Also where there is nothing to hide; what is there stays."""
    root = lower(box)
    before = tree(root)
    with pytest.raises(UnsafeEntry):
        run(box, layer(entry(name)))
    assert tree(root) == before


def test_e54_whiteouts_without_anything_to_hide_make_nothing(box: Path) -> None:
    """No directory appears for a marker, and a file in the way is left."""
    root = lower(box)
    before = tree(root)
    run(
        box,
        layer(
            entry("x/y/.wh.z"),
            entry("x/.wh..wh..opq"),
            entry("top/.wh.z"),
            entry("a/.wh..wh.aufs"),
            entry(".wh..wh.plnk/1", b"x"),
        ),
    )
    assert tree(root) == before


def test_e54_a_name_that_only_holds_the_text_of_a_marker_is_a_name(box: Path) -> None:
    """AUFS's directories begin with it: what is in ``x.wh..wh.y`` is put there, and hides nothing."""
    run(box, layer(directory("x.wh..wh.y"), entry("x.wh..wh.y/filename", b"1")))
    assert tree(box / "root") == ["x.wh..wh.y", "x.wh..wh.y/filename"]


def test_e54_a_whiteout_of_a_link_removes_the_link(box: Path) -> None:
    """Not what it leads to."""
    run(box, layer(directory("d"), entry("d/f", b"1"), symlink("l", "d")))
    run(box, layer(entry(".wh.l")))
    assert tree(box / "root") == ["d", "d/f"]


# -- replacing --


def test_e55_rewriting_one_name_of_a_file_leaves_the_other(box: Path) -> None:
    """The other hardlink keeps content, mode and time."""
    run(box, layer(entry("a", b"old", mode=0o640), hardlink("b", "a"), hardlink("c", "a")))
    run(box, layer(entry("a", b"newer", mode=0o600), symlink("c", "b")))
    root = box / "root"
    assert (root / "b").read_bytes() == b"old"
    assert stat.S_IMODE(os.stat(root / "b").st_mode) == 0o640
    assert (root / "a").read_bytes() == b"newer"
    assert os.stat(root / "b").st_nlink == 1


def test_e55_a_hardlink_to_itself_keeps_the_file(box: Path) -> None:
    """Making room for the new name must not remove what it names."""
    run(box, layer(entry("d/a", b"kept"), hardlink("d/a", "d/a"), hardlink("./d//a", "/d/./a")))
    assert (box / "root/d/a").read_bytes() == b"kept"


def test_e55_every_type_replaces_every_other(box: Path) -> None:
    """File over directory, directory over link, and so on; a link's target stays."""
    require("os:mkfifo")
    kinds = {
        "file": lambda name: [entry(name, b"new")],
        "directory": lambda name: [directory(name), entry(f"{name}/child", b"c")],
        "symlink": lambda name: [symlink(name, "target")],
        "hardlink": lambda name: [hardlink(name, "target/kept")],
        "fifo": lambda name: [entry(name, kind="6")],
    }
    for old in kinds.values():
        for new in kinds.values():
            base = [directory("target"), entry("target/kept", b"kept")]
            run(box, layer(*base, *old("name")))
            run(box, layer(*new("name"), entry("after", b"")))
            root = box / "root"
            assert (root / "target/kept").read_bytes() == b"kept"
            expected = new("name")
            found = os.lstat(root / "name").st_mode
            assert stat.S_ISDIR(found) == (len(expected) == 2)
            assert not os.path.lexists(root / "target/child")
            run(box, layer(entry(".wh.name")))
            assert not os.path.lexists(root / "name")


def test_e55_a_child_under_a_file_makes_a_directory_of_it(box: Path) -> None:
    """A layer that has f/x says that f is a directory; another name of the file keeps its content."""
    run(box, layer(entry("f", b"file"), hardlink("g", "f")))
    run(box, layer(entry("f/x/y", b"child")))
    assert (box / "root/f/x/y").read_bytes() == b"child"
    assert (box / "root/g").read_bytes() == b"file"


def test_e55_a_directory_over_a_link_forgets_where_the_link_led(box: Path) -> None:
    """Entries that follow go into the directory, not where the path led before."""
    run(
        box,
        layer(
            directory("real"),
            symlink("lib", "real"),
            entry("lib/one", b"1"),
            directory("lib"),
            entry("lib/two", b"2"),
        ),
    )
    assert tree(box / "root") == ["lib", "lib/two", "real", "real/one"]


def test_e55_a_link_replaced_from_within_is_forgotten_too(box: Path) -> None:
    """An entry can replace the very link that its own name goes through."""
    run(box, layer(symlink("l", "."), entry("l/a", b"1"), entry("l/l", b"2"), entry("l/b", b"3")))
    assert tree(box / "root") == ["a", "l", "l/b"]


def test_e55_a_directory_in_place_of_a_directory_merges(box: Path) -> None:
    """Content stays; mode and time are the new entry's, set after its children."""
    root = lower(box)
    run(box, layer(directory("a", mode=0o700, mtime=99), entry("a/added", b"1")))
    assert {"a/old", "a/b/old", "a/added"} <= set(tree(root))
    found = os.stat(root / "a")
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o700, 99)


# -- archives that aren't whole --


def test_e58_a_layer_cut_anywhere_is_refused(box: Path) -> None:
    """Cut inside a header or a member: an error, with what came before in place."""
    whole = b"".join([entry("one", b"1" * 600), entry("two", b"2" * 600)])
    for cut in (100, 600, 1100, 1600, 2100, 2600, len(whole) - 425):
        with pytest.raises(LayerError):
            run(box, io.BytesIO(whole[:cut]))
    assert run(box, io.BytesIO(whole)).entries == 2
    assert (box / "root/two").read_bytes() == b"2" * 600


def test_e58_a_bad_second_header_is_refused(box: Path) -> None:
    """The first member doesn't make the rest good."""
    bad = bytearray(header("two"))
    bad[3] ^= 0xFF
    with pytest.raises(LayerError, match="damaged header"):
        run(box, layer(entry("one", b"1"), bytes(bad)))


@pytest.mark.parametrize("value", [b"a\0b", b"x" * 5000, b"y" * 256])
def test_e59_names_that_no_file_can_have(box: Path, value: bytes) -> None:
    """A NUL, past PATH_MAX, past NAME_MAX: one kind of error."""
    if b"\0" not in value:
        require("kernel")
    with pytest.raises(LayerError):
        run(box, layer(pax(record("path", value)), entry("x")))


@pytest.mark.parametrize("key", ["linkpath", "SCHILY.xattr.user.a\0b"])
def test_e59_links_and_attributes_with_nul(box: Path, key: str) -> None:
    """A symlink with a NUL is refused; so is an attribute's name."""
    if key != "linkpath":
        require("os:setxattr")
    with pytest.raises(LayerError):
        run(box, layer(pax(record(key, b"a\0b")), symlink("x", "y") if key == "linkpath" else entry("x")))


def test_e59_times_that_no_clock_has(box: Path) -> None:
    """Past what the system can hold: refused, not a crash; before 1970 is fine."""
    with pytest.raises(LayerError):
        run(box, layer(entry("x", mtime=1 << 80)))
    # A directory gets its time at the end, also where something else went wrong before.
    for more in ([], [entry("../out")]):
        with pytest.raises(LayerError):
            run(box, layer(directory("d", mtime=1 << 80), directory("e"), *more))
    run(box, layer(entry("x", mtime=-5)))
    assert os.stat(box / "root/x").st_mtime == -5


def test_e56_a_directory_that_gives_its_group_away_gives_it_to_no_entry(box: Path) -> None:
    """Setgid directories, in the archive and around it: owner and group are the archive's."""
    require("root", "kernel")
    root = box / "root"
    os.chown(root, 0, 7)
    os.chmod(root, 0o2755)
    entries = [
        entry("a", b"1"),
        entry("b", b"1", gid=7),
        entry("c", b"1", uid=5, gid=6),
        symlink("l", "a"),
        directory("s", mode=0o2775, gid=9),
        entry("s/a", b"1"),
        entry("s/b", b"1", gid=9),
        entry("implied/a", b"1"),
    ]
    for _ in range(2):  # made, and replaced
        run(box, layer(*entries))
        found = {path: (node.uid, node.gid) for path, node in snapshot(root).items()}
        assert found.pop(".") == (0, 7)
        assert found == {
            **dict.fromkeys(["a", "l", "s/a", "implied", "implied/a"], (0, 0)),
            **dict.fromkeys(["s", "s/b"], (0, 9)),
            "b": (0, 7),
            "c": (5, 6),
        }


def test_h71_a_layer_of_many_entries_takes_memory_that_does_not_follow(box: Path) -> None:
    """Entries and markers over a tree that has something: what is remembered is a few dozen bytes for each."""
    run(box, layer(entry("something")))
    names = [f"d{number % 50}/{'n' * 60}{number}" for number in range(3000)]
    data = layer(*map(entry, names), *(entry(f"d{number % 50}/.wh.x{number}") for number in range(3000)))
    tracemalloc.start()
    try:
        assert run(box, data, threads=False).entries == 6000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20  # a million bytes of it are pieces of the stream


def test_e56_an_ordinary_user_s_rule(box: Path) -> None:
    """Owners stay the user's, setuid goes, devices are skipped and counted, directories stay open to their owner."""
    require("os:mkfifo")
    result = run(
        box,
        layer(
            directory("d", mode=0o2555, uid=7),
            entry("d/su", b"x", mode=0o4755, uid=7, gid=8),
            entry("d/none", b"x", mode=0),
            entry("null", kind="3", device=(1, 3)),
            entry("disk", kind="4", device=(8, 0)),
            entry("pipe", kind="6", mode=0o600),
            symlink("l", "d", uid=7),
        ),
        policy=Policy(privileged=False),
    )
    root = box / "root"
    assert result.skipped == 2
    assert tree(root) == ["d", "d/none", "d/su", "l", "pipe"]
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(root / "d/su").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(root / "d/none").st_mode) == 0
    assert {os.lstat(root / name).st_uid for name in ("d", "d/su", "l", "pipe")} == {os.geteuid()}


def test_a_layering_of_its_own_hears_of_whiteouts_and_brings_up_what_is_beneath(box: Path) -> None:
    """Each layer in a directory of its own: markers, missing directories, links and hardlink targets are asked for."""
    heard: list[tuple[object, ...]] = []

    class Apart:
        in_place = False

        def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
            heard.append(("whiteout", parent, name, own(b"/" + parent + b"/" + name)))

        def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
            heard.append(("opaque", parent))

        def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
            heard.append(("bring up", at.real, name))
            if at.real + name == b"lib":
                symlink_at("usr/lib", name, at.fd)
                return True
            return False

        def bring_target(self, at: Directory, name: bytes) -> bool:
            heard.append(("bring target", at.real, name))
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=at.fd))
            return True

        def replaced(self, real: bytes) -> None:
            heard.append(("replaced", real))

        def described(self, real: bytes) -> None:
            heard.append(("described", real))

    run(
        box,
        layer(
            entry("d/new", b"new"),
            entry("d/.wh.new"),
            entry("d/.wh.old"),
            entry("d/.wh..wh..opq"),
            entry("lib/file", b"1"),
            hardlink("d/hard", "beneath"),
            directory("d/e"),
            directory("./"),
        ),
        policy=Policy(privileged=False, layering=Apart()),
    )
    assert heard == [
        ("bring up", b"", b"d"),
        ("whiteout", b"d", b"new", True),
        ("whiteout", b"d", b"old", False),
        ("opaque", b"d"),
        ("bring up", b"", b"lib"),
        ("bring up", b"", b"usr"),
        ("bring up", b"/usr", b"lib"),
        ("bring target", b"", b"beneath"),
        ("described", b"/d/e"),
        ("described", b""),
    ]
    root = box / "root"
    assert os.readlink(root / "lib") == "usr/lib"
    assert (root / "usr/lib/file").read_bytes() == b"1"
    assert stat.S_IMODE(os.stat(root / "d/hard").st_mode) == 0o640
