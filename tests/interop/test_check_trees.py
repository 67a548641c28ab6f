"""check --trees finds what a power cut took of unpacked trees, and --repair unpacks them again; nothing else is touched."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import Callable

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.errors import Cancelled, StoreError
from ocidist.progress import Event
from ocidist.repair import repair
from ocidist.rootfs import commit, prepare
from ocidist.scope import Scope
from ocidist.spec.config import ImageConfig
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Manifest, parse
from ocidist.stores.store import Store
from ocidist.stores.upkeep.check import check
from tests.parts.images import Entry, TestImage, blob_path, image, noise
from tests.parts.realimages import busybox_index
from tests.parts.required import require, shared_images
from tests.parts.trees import Node, assert_same, snapshot

NAME = "registry.example/made:1"
LAYERS = [
    [
        Entry("etc/", mtime=5),
        Entry("etc/passwd", b"root:x:0:0\n", mode=0o640),
        Entry("etc/link", link="passwd"),
        Entry("etc/hard", hard="etc/passwd"),
        Entry("etc/marked", b"m", pax={"SCHILY.xattr.user.kept": "yes"}),
        Entry("etc/owned", b"o", uid=7, gid=8),
        Entry("secret", b"s", mode=0),
        Entry("gone", b"g"),
        Entry("usr/lib/deep/so", b"elf"),
        Entry("cache/old", b"old"),
        Entry("run/pipe", type=tarfile.FIFOTYPE),
    ],
    [
        Entry("opt/"),
        Entry("opt/one", b"one"),
        Entry("usr/lib/other", b"other"),
        Entry(".wh.gone"),
        Entry("cache/.wh..wh..opq"),
        Entry("cache/new", b"new"),
    ],
    [Entry("srv/two", b"two"), Entry("usr/lib/third", b"third"), Entry("etc/hosts", b"h")],
]
MADE = image(LAYERS)


def put(store: Store, made: TestImage, name: str = NAME) -> str:
    """The image in the store under a name, unpacked: its ChainID."""
    for blob in made.everything().values():
        digest = Digest(blob.digest)
        if not store.content.has(digest):
            with store.ingest(f"put {digest}", total=len(blob.raw), expected=digest) as writer:
                writer.write(blob.raw)
                writer.commit(len(blob.raw), digest)
    manifest = parse(made.root.raw, made.root.media_type)
    assert isinstance(manifest, Manifest)
    target = Descriptor(made.root.media_type, Digest(made.digest), len(made.root.raw))
    store.tag(name, target, Scope())
    return str(store.unpack(manifest, ImageConfig.parse(made.blobs[0].raw), Scope()))


@pytest.fixture(params=["native", "overlay"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """With the image in it."""
    require("kernel", "os:mkfifo", "os:setxattr")
    return Store.at(tmp_path / "root", snapshotter=request.param)


def tree_with(store: Store, path: str) -> tuple[str, Path]:
    """The snapshot in which a path lies, and its directory."""
    for info in store.snapshots.walk():
        root = store.snapshots.path(info.key)
        if os.path.lexists(root / path):
            return info.key, root
    raise LookupError(path)


def keeping_time(path: Path, change: Callable[[Path], object]) -> None:
    info = path.stat()
    mode = stat.S_IMODE(info.st_mode)
    path.chmod(mode | 0o600)
    change(path)
    path.chmod(mode)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def emptied(root: Path) -> None:
    keeping_time(root / "etc/passwd", lambda path: path.write_bytes(b""))


def flipped(root: Path) -> None:
    keeping_time(root / "etc/passwd", lambda path: path.write_bytes(b"rooT:x:0:0\n"))


def unreadable_flipped(root: Path) -> None:
    keeping_time(root / "secret", lambda path: path.write_bytes(b"S"))


def to_fifo(root: Path) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")


def to_link_out(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/etc/passwd")


def to_link_of_folder(root: Path) -> None:
    shutil.rmtree(root / "usr/lib/deep")
    (root / "usr/lib/deep").symlink_to("/")


def relinked(root: Path) -> None:
    (root / "etc/link").unlink()
    (root / "etc/link").symlink_to("/etc/shadow")


def unlinked(root: Path) -> None:
    """A hard link broken apart."""
    content, info = (root / "etc/hard").read_bytes(), (root / "etc/hard").lstat()
    (root / "etc/hard").unlink()
    (root / "etc/hard").write_bytes(content)
    shutil.copystat(root / "etc/passwd", root / "etc/hard")
    os.utime(root / "etc/hard", ns=(info.st_atime_ns, info.st_mtime_ns))


def linked(root: Path) -> None:
    (root / "usr/lib/deep/so").unlink()
    os.link(root / "etc/marked", root / "usr/lib/deep/so")


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "emptied": (emptied, "/etc/hard", "empty, should have 11 bytes"),
    "a byte flipped": (flipped, "/etc/hard", "its content is not the layer's"),
    "a byte of mode 0000": (unreadable_flipped, "/secret", "its content is not the layer's"),
    "missing": (lambda root: (root / "etc/owned").unlink(), "/etc/owned", "missing; there should be a file"),
    "too much": (
        lambda root: (root / "etc/x\x1b[31m").write_bytes(b""),
        "/etc/x\x1b[31m",
        "a file that no layer has",
    ),
    "mode": (lambda root: (root / "etc/marked").chmod(0o666), "/etc/marked", "mode 0666, should be 0644"),
    "mode of a folder": (lambda root: (root / "etc").chmod(0o777), "/etc", "mode 0777, should be 0755"),
    "link": (relinked, "/etc/link", "a link to '/etc/shadow', should be to 'passwd'"),
    "xattr": (
        lambda root: os.setxattr(root / "etc/marked", "user.kept", b"no"),
        "/etc/marked",
        "extended attribute user.kept: another",
    ),
    "xattr gone": (
        lambda root: os.removexattr(root / "etc/marked", "user.kept"),
        "/etc/marked",
        "extended attribute user.kept: missing",
    ),
    "xattr too much": (
        lambda root: os.setxattr(root / "etc/owned", "user.more", b""),
        "/etc/owned",
        "extended attribute user.more: too much",
    ),
    "a FIFO": (to_fifo, "/etc/passwd", "a fifo, should be a file"),
    "a link out": (to_link_out, "/etc/passwd", "a symlink, should be a file"),
    "a folder led out": (to_link_of_folder, "/usr/lib/deep", "a symlink, should be a directory"),
    "a folder missing": (
        lambda root: shutil.rmtree(root / "usr/lib/deep"),
        "/usr/lib/deep",
        "missing; there should be a directory",
    ),
    "all missing": (lambda root: shutil.rmtree(root / "etc"), "/etc", "missing; there should be a directory"),
    "time": (
        lambda root: os.utime(root / "etc/marked", (1, 1)),
        "/etc/marked",
        "time 1, should be 1700000000",
    ),
    "time of a folder": (lambda root: os.utime(root / "etc", (1, 1)), "/etc", "time 1, should be 5"),
    "hard link apart": (unlinked, "/etc/passwd", "not the same file as /etc/hard"),
    "hard link too much": (linked, "/usr/lib/deep/so", "the same file as /etc/marked, should be another"),
}


def damage(store: Store, name: str) -> str:
    """Do it to the tree that has the lowest layer's files: its key. The time of the folder above stays."""
    key, root = tree_with(store, "etc/passwd")
    above = root / DAMAGES[name][1].strip("/").rpartition("/")[0]
    info = above.stat()
    DAMAGES[name][0](root)
    os.utime(above, ns=(info.st_atime_ns, info.st_mtime_ns))
    return key


def looked_at(root: Path) -> dict[str, Node]:
    """The tree, but for the file that an ordinary user may not read; check compares that one too."""
    return snapshot(root, skip=() if os.geteuid() == 0 else ("secret",))


def left_over(store: Store) -> list[str]:
    base = store.root / "snapshots" / store.snapshots.name
    return [*os.listdir(base / "removed"), *os.listdir(base / "locks")]


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_and_repaired(name: str, store: Store) -> None:
    """Under the tree's ChainID, with the path, the image and what is wrong; without trees=True nothing is; a repaired tree
    is that which was there."""
    put(store, MADE)
    _, root = tree_with(store, "etc/passwd")
    implied = {"mtime_ns"}
    before = looked_at(root)
    assert list(store.check(trees=True)) == []
    key = damage(store, name)
    _, path, text = DAMAGES[name]
    assert list(store.check()) == []
    rows = store.check(trees=True)
    assert {(row.kind, row.name, row.images) for row in rows} == {("tree", key, (NAME,))}
    found = {row.path: row.problem for row in rows}
    assert text in found[path]
    assert found[path].startswith(f"{path}: ")
    client = Client(store=store)
    [done] = repair(client, rows, Scope())
    assert (done.kind, done.name, done.repaired) == ("tree", key, True)
    assert done.outcome == f"unpacked again, from {NAME}"
    after = looked_at(store.snapshots.path(key))
    assert_same(before, after, ignore=implied)
    assert list(store.check(trees=True)) == []
    assert left_over(store) == []


def test_a_wrong_owner_is_found(store: Store) -> None:
    require("root")
    put(store, MADE)
    _, root = tree_with(store, "etc/owned")
    os.chown(root / "etc/owned", 0, 8)
    [row] = store.check(trees=True)
    assert row.problem == "/etc/owned: owner 0:8, should be 7:8"


def test_marks_of_an_overlay_layer(tmp_path: Path) -> None:
    """A whiteout that is missing, and a directory that is no longer opaque."""
    require("kernel", "root", "os:mkfifo")
    store = Store.at(tmp_path / "root", snapshotter="overlay")
    put(store, MADE)
    _, root = tree_with(store, "cache/new")
    (root / "gone").unlink()
    os.removexattr(root / "cache", "trusted.overlay.opaque")
    rows = store.check(trees=True)
    assert [row.problem for row in rows] == [
        "/cache: extended attribute trusted.overlay.opaque: missing",
        "/gone: missing; there should be a char",
    ]


def test_layers_that_processes_extract(store: Store) -> None:
    """Large ones, as a pull extracts them side by side, are the same trees as those that check makes one by one."""
    large = [
        [*entries, Entry(f"large{number}", noise(1_500_000, str(number)))]
        for number, entries in enumerate(LAYERS)
    ]
    put(store, image(large))
    assert list(store.check(trees=True)) == []


def real_layers(name: str) -> list[bytes]:
    """The tars of an image that others made, lowest first."""
    require("shared-images")
    images = shared_images()
    assert images is not None
    if name == "alpine":
        with tarfile.open(images / "alpine-310.tar.gz") as archive:

            def read(path: str) -> bytes:
                file = archive.extractfile(path)
                assert file is not None
                return file.read()

            return [read(path) for path in json.loads(read("manifest.json"))[0]["Layers"]]
    with tempfile.TemporaryDirectory() as folder:
        root = busybox_index(images, Path(folder))
        [chosen] = [
            each
            for each in json.loads(blob_path(Path(folder), root["digest"]).read_bytes())["manifests"]
            if each["platform"]["architecture"] == "amd64"
        ]
        manifest = json.loads(blob_path(Path(folder), chosen["digest"]).read_bytes())
        layers = [blob_path(Path(folder), each["digest"]).read_bytes() for each in manifest["layers"]]
        return [gzip.decompress(raw) for raw in layers]


@pytest.mark.parametrize("name", ["busybox", "alpine"])
def test_real_images_are_well(store: Store, name: str) -> None:
    """Whole images of others, unpacked and not touched, have no differences; a file that is emptied is the only one."""
    key = put(store, image(real_layers(name)))
    assert list(store.check(trees=True)) == []
    path = store.snapshots.path(key) / "etc/passwd"
    size = path.stat().st_size
    keeping_time(path, lambda file: file.write_bytes(b""))
    [row] = store.check(trees=True)
    assert row.problem == f"/etc/passwd: empty, should have {size} bytes"


def test_a_shared_tree_is_checked_once_and_named_for_all(store: Store) -> None:
    """Layers of two images: one row with both names; and both images' other layers are compared over it."""
    put(store, MADE)
    put(store, image([LAYERS[0], [Entry("b", b"b")]]), "registry.example/other:1")
    report = check(store, Scope(), trees=True)
    assert (len(report.rows), report.skipped) == (0, ())
    assert (
        report.trees == len(list(store.snapshots.walk())) == (4 if store.snapshots.name == "overlay" else 2)
    )
    if store.snapshots.name == "overlay":
        damage(store, "emptied")
        rows = store.check(trees=True)
        assert {row.images for row in rows} == {(NAME, "registry.example/other:1")}


def test_rows_of_one_tree_are_bounded(store: Store) -> None:
    put(store, MADE)
    key, root = tree_with(store, "etc/passwd")
    for number in range(30):
        (root / f"more-{number:02}").touch()
    rows = store.check(trees=True)
    assert len(rows) == 21
    assert (rows[-1].name, rows[-1].path, rows[-1].problem) == (key, "", "and 10 more")


def test_a_tree_with_a_prepared_child_is_not_replaced(store: Store) -> None:
    """Who holds it is told; once that is gone it is repaired."""
    top = put(store, MADE)
    target = str(store.root / "work")
    prepare(store, top, target, Scope())
    damage(store, "emptied")
    rows = store.check(trees=True)
    child = looked_at(store.snapshots.path(os.path.abspath(target)))
    [done] = repair(Client(store=store), rows, Scope())
    assert not done.repaired
    assert f"{os.path.abspath(target)} stands on it; `rootfs commit` or `rootfs rm`" in done.outcome
    assert looked_at(store.snapshots.path(os.path.abspath(target))) == child
    assert list(store.check(trees=True)) == list(rows)
    store.snapshots.remove(os.path.abspath(target))
    [done] = repair(Client(store=store), rows, Scope())
    assert done.repaired
    assert list(store.check(trees=True)) == []


def test_a_committed_rootfs_has_no_image(store: Store) -> None:
    """So nothing tells its files: skipped, and said."""
    top = put(store, MADE)
    target = os.path.abspath(store.root / "work")
    prepare(store, top, target, Scope())
    (store.snapshots.path(target) / "new").write_bytes(b"new")
    made = commit(store, target, Scope())
    report = check(store, Scope(), trees=True)
    assert list(report.rows) == []
    assert [key for key, _ in report.skipped] == [str(made.chain_id)]
    assert "no image" in report.skipped[0][1]


def test_damaged_blobs_and_trees(store: Store) -> None:
    """A tree whose layer is damaged can't be compared: it is told, and not replaced by what can't be verified."""
    put(store, MADE)
    damage(store, "emptied")
    path = store.content.path(Digest(MADE.blobs[1].digest))
    raw = path.read_bytes()
    keeping_time(path, lambda file: file.write_bytes(raw[:-9]))
    rows = store.check(trees=True)
    trees = [row for row in rows if row.kind == "tree"]
    assert all(row.problem.startswith("can't be compared: ") and row.path == "" for row in trees)
    key, root = tree_with(store, "etc/passwd")
    assert key in {row.name for row in trees}
    assert rows[0].kind == "blob"
    assert not any(row.repaired for row in repair(Client(store=store), trees, Scope()))
    assert (root / "etc/passwd").read_bytes() == b""
    keeping_time(path, lambda file: file.write_bytes(raw))
    assert all(row.repaired for row in repair(Client(store=store), trees, Scope()))
    assert list(store.check(trees=True)) == []


def test_the_scope_ends_it_and_nothing_is_left(store: Store) -> None:
    put(store, MADE)

    def observe(event: Event) -> None:
        if getattr(event, "phase", "") == "unpack":
            scope.cancel()

    scope = Scope(observer=observe)
    with pytest.raises(Cancelled):
        store.check(scope, trees=True)
    assert left_over(store) == []


def test_what_a_killed_check_left_goes(store: Store) -> None:
    """With the next thing that is removed as stale."""
    put(store, MADE)
    base = store.root / "snapshots" / store.snapshots.name / "removed"
    (base / "1-2-scratch/native/committed/x/fs").mkdir(parents=True)
    assert [path.name for path in store.snapshots.stale()] == ["1-2-scratch"]
    store.snapshots.remove_stale()
    assert left_over(store) == []


def test_a_readonly_store_is_refused(store: Store) -> None:
    put(store, MADE)
    with pytest.raises(StoreError):
        Store.at(store.root, readonly=True).check(trees=True)


def test_an_empty_root_stays_empty(tmp_path: Path) -> None:
    with Store.at(tmp_path / "absent") as store:
        assert list(store.check(trees=True)) == []
    assert os.listdir(tmp_path) == []


def test_the_command(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 with rows and the way out, without control characters; --repair in either order; then 0."""
    monkeypatch.setenv("HOME", str(tmp_path))
    put(store, MADE)
    options = ["--root", str(store.root), "--progress", "none"]
    assert main([*options, "check", "--trees"]) == 0
    _, err = capsys.readouterr()
    assert f"and {1 if store.snapshots.name == 'native' else 3} tree" in err
    assert "all is well" in err
    damage(store, "too much")
    assert main([*options, "check"]) == 0
    capsys.readouterr()
    assert main([*options, "check", "--trees"]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "x\\x1b[31m: a file that no layer has" in out
    assert "check --trees --repair" in err
    assert main([*options, "--format", "json", "check", "--repair", "--trees"]) == 0
    out, err = capsys.readouterr()
    assert [(row["kind"], row["repaired"]) for row in json.loads(out)] == [("tree", True)]
    assert main([*options, "check", "--trees"]) == 0
