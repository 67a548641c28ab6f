"""rootfs prepare, view, diff, commit, rm and snapshots: on the command line, with either snapshotter."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ocidist.cli.main import main
from ocidist.errors import OcidistError, StoreError
from ocidist.layers.apply.layer import apply_layer
from ocidist.rootfs import commit, find, prepare, remove
from ocidist.scope import Scope
from ocidist.snapshots import native
from ocidist.snapshots.copying import copy_tree
from ocidist.snapshots.protocols import Mount
from ocidist.spec.chain import chain_ids
from ocidist.spec.config import ImageConfig
from ocidist.spec.digest import Digest
from ocidist.spec.manifest import Manifest, parse
from ocidist.stores.store import Store
from ocidist.stores.upkeep import collect
from ocidist.trees.protocols import Reader
from tests.parts.processes import CHECKOUT, Program
from tests.parts.required import require
from tests.parts.tars import directory, entry, layer, symlink
from tests.parts.trees import whole_tree

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
Run = Callable[..., tuple[int, str, str]]

LAYERS = [
    layer(
        directory("etc", mtime=1), entry("etc/passwd", b"root"), entry("gone", b"g"), symlink("l", "etc")
    ).getvalue(),
    layer(directory("etc", mtime=2), entry("etc/hosts", b"h"), entry(".wh.gone")).getvalue(),
]


@pytest.fixture(params=["native", "overlay"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A root of this kind."""
    require("kernel", "os:mkfifo")
    return Store.at(tmp_path / "root", snapshotter=request.param)


def put(store: Store, media_type: str, data: bytes) -> dict[str, object]:
    digest = Digest.of(data)
    if not store.content.has(digest):
        with store.ingest(f"put {digest}", total=len(data), expected=digest) as writer:
            writer.write(data)
            writer.commit(len(data), digest)
    return {"mediaType": media_type, "digest": str(digest), "size": len(data)}


def unpack(store: Store, layers: list[bytes]) -> str:
    """An image of these layers, unpacked: its ChainID."""
    blobs = [put(store, LAYER, gzip.compress(raw, mtime=0)) for raw in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(raw)) for raw in layers]},
        }
    ).encode()
    manifest = json.dumps(
        {"schemaVersion": 2, "config": put(store, CONFIG, config), "layers": blobs}
    ).encode()
    parsed = parse(manifest, "application/vnd.oci.image.manifest.v1+json")
    assert isinstance(parsed, Manifest)
    return str(store.unpack(parsed, ImageConfig.parse(config), Scope()))


@pytest.fixture
def run(store: Store, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command on that root: exit code, stdout, stderr."""

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["--root", str(store.root), *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def change(store: Store, key: str) -> None:
    """A new file in an active snapshot's root, at a time that does not change."""
    root = store.snapshots.path(key)
    (root / "new").write_text("new")
    os.utime(root / "new", ns=(0, 3_000_000_000_500_000_000))
    os.utime(root, ns=(0, 4_000_000_000))


@pytest.mark.parametrize("everything", [False, True], ids=["gc", "gc --all"])
def test_c38_a_collector_takes_no_tree_that_is_being_copied(
    everything: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process collects while prepare copies: the copy is whole."""
    require("kernel", "threads")
    with Store.at(tmp_path / "root", snapshotter="native") as store, Store.at(store.root) as other:
        chain = unpack(store, LAYERS)
        other.leases.delete([lease.id for lease in other.leases.all()])

        def copying(source: Reader, target: int, check: Callable[[], object]) -> None:
            other.gc(Scope(), everything=everything)
            copy_tree(source, target, check)

        monkeypatch.setattr(native, "copy_tree", copying)
        prepare(store, chain, str(tmp_path / "mnt"), Scope())
        assert (store.snapshots.path(str(tmp_path / "mnt")) / "etc/hosts").read_bytes() == b"h"


def test_c38_a_collector_that_has_marked_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """prepare begins between its marking and its sweep: the tree is gone, and prepare says so."""
    require("kernel", "threads")
    said: list[object] = []
    with Store.at(tmp_path / "root", snapshotter="native") as store, Store.at(store.root) as other:
        chain = unpack(store, LAYERS)
        other.leases.delete([lease.id for lease in other.leases.all()])

        def late() -> None:
            try:
                said.append(prepare(store, chain, str(tmp_path / "mnt"), Scope()))
            except OcidistError as error:
                said.append(error)

        thread = threading.Thread(target=late, daemon=True)
        sweep = collect._sweep

        def sweeping(*words: Any) -> list[str]:
            thread.start()
            thread.join(0.5)  # as far as it comes
            return sweep(*words)

        monkeypatch.setattr(collect, "_sweep", sweeping)
        other.gc(Scope())
        thread.join(30)
        (found,) = said
        assert isinstance(found, StoreError)
        assert "no unpacked tree has this chain ID" in str(found)


def test_prepare_prints_how_to_mount_what_is_there_too(store: Store, run: Run, tmp_path: Path) -> None:
    """The key is the target made absolute; a second time prints the same, and what was written stays."""
    chain = unpack(store, LAYERS)
    target = tmp_path / "a target"
    code, out, err = run("rootfs", "prepare", chain, str(target))
    assert (code, err) == (0, "")
    assert out.startswith("mount -t ")
    assert out.endswith(f" '{target}'\n")
    if store.snapshots.name == "overlay":
        assert out.startswith("mount -t overlay -o lowerdir=")
        assert ",upperdir=" in out
        assert ",workdir=" in out
        assert " overlay " in out
    else:
        assert out.startswith("mount -t bind -o rbind,rw ")
    assert store.snapshots.stat(str(target)).parent == chain
    change(store, str(target))
    assert run("rootfs", "prepare", chain, f"{target}/../{target.name}") == (0, out, "")
    assert (store.snapshots.path(str(target)) / "new").read_text() == "new"
    run("rootfs", "view", chain, str(tmp_path / "v"))
    for words in (["view", chain, str(target)], ["prepare", chain, str(tmp_path / "v")]):
        code, out, err = run("rootfs", *words)
        assert (code, out) == (1, "false\n")
        assert f"for this target already; `rootfs rm {words[2]}` drops it" in err


def test_an_unknown_chain_is_named_with_the_way_out(store: Store, run: Run, tmp_path: Path) -> None:
    """Nothing is made."""
    unknown = str(Digest.of(b"unknown"))
    for verb in ("prepare", "view"):
        code, out, err = run("rootfs", verb, unknown, str(tmp_path / "t"))
        assert (code, out) == (1, "false\n")
        assert run("rootfs", verb, unknown, str(tmp_path / "t"), "--format", "json")[:2] == (1, "")
        assert unknown in err
        assert "rootfs unpack" in err
    assert list(store.snapshots.walk()) == []


def test_a_failure_fails_inside_a_shell(store: Store, tmp_path: Path) -> None:
    """``sh -c "$(ocidist rootfs prepare …)"``: an unknown chain, words that are missing, mounts that fail."""
    require("processes")
    program = Program(tmp_path / "home", store.root, cwd=CHECKOUT)
    chain = unpack(store, LAYERS)

    def shell(*words: str) -> int:
        line = 'sh -c "$("$@")"'
        command = ["sh", "-c", line, "sh", *program.command(*words)]
        return subprocess.run(command, cwd=CHECKOUT, capture_output=True).returncode

    assert shell("rootfs", "prepare", str(Digest.of(b"unknown")), str(tmp_path / "t")) != 0
    assert shell("rootfs", "prepare", chain) != 0
    assert shell("rootfs", "prepare", chain, str(tmp_path / "not there")) != 0


def test_of_several_mounts_the_first_that_fails_ends_them(
    store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are one command of the shell."""
    mounts = (Mount("none", "one", ("ro",)), Mount("none", "two", ()))
    monkeypatch.setattr(type(store.snapshots), "mounts", lambda self, key: mounts)
    _, out, _ = run("rootfs", "prepare", unpack(store, LAYERS), str(tmp_path / "t"))
    assert out == f"mount -t none -o ro one {tmp_path}/t &&\nmount -t none -o '' two {tmp_path}/t\n"


def test_snapshots_lists_what_there_is(store: Store, run: Run, tmp_path: Path) -> None:
    """KEY PARENT KIND SIZE AGE; a view is one too."""
    chain = unpack(store, LAYERS)
    run("rootfs", "prepare", chain, str(tmp_path / "a"))
    assert run("rootfs", "view", chain, str(tmp_path / "v"))[0] == 0
    code, out, _ = run("snapshots")
    assert code == 0
    assert out.split("\n")[0].split() == ["KEY", "PARENT", "KIND", "SIZE", "AGE"]
    found = {row["key"]: row for row in json.loads(run("snapshots", "--format", "json")[1])}
    chains = [str(each) for each in chain_ids([Digest.of(raw) for raw in LAYERS])]
    committed = chains if store.snapshots.name == "overlay" else [chain]
    assert sorted(found) == sorted([*committed, str(tmp_path / "a"), str(tmp_path / "v")])
    assert found[str(tmp_path / "a")]["kind"] == "active"
    assert found[str(tmp_path / "v")]["kind"] == "view"
    assert found[str(tmp_path / "v")]["parent"] == chain
    assert found[chain]["kind"] == "committed"
    assert found[chain]["size"] > 0


def test_diff_tells_what_changed_and_writes_it_as_a_layer(store: Store, run: Run, tmp_path: Path) -> None:
    """Rows, or with -o the bytes: the same each time, and they apply."""
    chain = unpack(store, LAYERS)
    target = str(tmp_path / "t")
    run("rootfs", "prepare", chain, target)
    code, out, _ = run("rootfs", "diff", target, "--format", "json")
    assert (code, json.loads(out)) == (0, [])
    change(store, target)
    rows = json.loads(run("rootfs", "diff", target, "--format", "json")[1])
    assert [(row["kind"], row["path"]) for row in rows] == [("modified", "/"), ("added", "/new")]
    for name in ("one", "two"):
        assert run("rootfs", "diff", target, "-o", str(tmp_path / name))[0] == 0
    raw = (tmp_path / "one").read_bytes()
    assert raw == (tmp_path / "two").read_bytes()
    (tmp_path / "applied").mkdir()
    apply_layer(io.BytesIO(raw), tmp_path / "applied", Scope())
    assert os.listdir(tmp_path / "applied") == ["new"]
    reverse = json.loads(run("rootfs", "diff", target, chain, "--format", "json")[1])
    assert [(row["kind"], row["path"]) for row in reverse] == [("modified", "/"), ("deleted", "/new")]


def test_diff_takes_directories_as_well(store: Store, run: Run, tmp_path: Path) -> None:
    """Neither has to be of the store."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (5, 5))
    (tmp_path / "b/x").write_text("x")
    os.utime(tmp_path / "b", (5, 5))
    rows = json.loads(run("rootfs", "diff", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "json")[1])
    assert [(row["kind"], row["type"], row["size"], row["path"]) for row in rows] == [
        ("added", "file", 1, "/x")
    ]
    code, _, err = run("rootfs", "diff", str(tmp_path / "nothing"))
    assert code == 1
    assert "nothing" in err


def test_diff_writes_into_what_is_no_regular_file(store: Store, run: Run, tmp_path: Path) -> None:
    """A device or a FIFO is never replaced; a file is, at the end, and keeps its mode."""
    (tmp_path / "d").mkdir()
    pipe, plain, link = tmp_path / "pipe", tmp_path / "plain", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("rootfs", "diff", str(tmp_path / "d"), "-o", str(pipe))[0] == 0
        assert os.read(reader, 1 << 16)[:2] == b"\x1f\x8b"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)
    plain.write_text("before")
    os.chmod(plain, 0o640)
    os.symlink("plain", link)
    assert run("rootfs", "diff", str(tmp_path / "d"), "-o", str(link))[0] == 0
    assert link.is_symlink()
    assert plain.read_bytes()[:2] == b"\x1f\x8b"
    assert stat.S_IMODE(plain.stat().st_mode) == 0o640
    assert run("rootfs", "diff", str(tmp_path / "nothing"), "-o", str(plain))[0] == 1
    assert plain.read_bytes()[:2] == b"\x1f\x8b"
    assert sorted(os.listdir(tmp_path)) == ["d", "link", "pipe", "plain", "root"] or not store.root.exists()


def test_commit_keeps_the_change_as_a_layer(
    store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blob and its DiffID are in the store, the tree is committed under the ChainID, and gc leaves both."""
    chain = unpack(store, LAYERS)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    made = {}
    for name in ("one", "two"):
        run("rootfs", "prepare", chain, str(tmp_path / name))
        change(store, str(tmp_path / name))
        code, out, err = run("rootfs", "commit", str(tmp_path / name))
        assert (code, err) == (0, "")
        made[name] = out
    assert made["one"] == made["two"]
    digest, diff_id, top = made["one"].split()
    assert Digest.of(gzip.decompress(store.content.path(Digest(digest)).read_bytes())) == diff_id
    assert top == str(Digest.of(f"{chain} {diff_id}".encode()))
    assert find(store, top).parent == chain
    store.gc(Scope())
    assert store.content.has(Digest(digest))
    with whole_tree(store.snapshots, top) as tree:
        assert sorted(os.listdir(tree)) == ["etc", "l", "new"]
        assert sorted(os.listdir(tree / "etc")) == ["hosts", "passwd"]
        assert os.stat(tree / "new").st_mtime_ns == 3_000_000_000_500_000_000
    code, _, err = run("rootfs", "commit", str(tmp_path / "one"))
    assert code == 1
    assert "no such snapshot" in err


def test_commit_honours_source_date_epoch(
    store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time in the layer is later, nor in the tree that is kept; nonsense is refused."""
    chain = unpack(store, LAYERS)
    run("rootfs", "prepare", chain, str(tmp_path / "t"))
    change(store, str(tmp_path / "t"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    code, _, err = run("rootfs", "commit", str(tmp_path / "t"))
    assert code == 2
    assert "SOURCE_DATE_EPOCH" in err
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    code, out, err = run("rootfs", "commit", str(tmp_path / "t"))
    assert (code, err) == (0, "")
    with whole_tree(store.snapshots, out.split()[2]) as tree:
        assert os.stat(tree / "new").st_mtime == 1000
    assert [info.kind for info in store.snapshots.walk()].count("active") == 0


def test_rm_drops_snapshots_but_not_what_others_stand_on(store: Store, run: Run, tmp_path: Path) -> None:
    """A bad one does not stop the rest; the exit code tells."""
    chain = unpack(store, LAYERS)
    run("rootfs", "prepare", chain, str(tmp_path / "t"))
    code, out, err = run("rootfs", "rm", chain, "nothing", str(tmp_path / "t"))
    assert code == 1
    assert out == f"{tmp_path / 't'}\n"
    assert "stands on it" in err
    assert "nothing" in err
    assert run("rootfs", "rm", chain)[:2] == (0, f"{chain}\n")


def test_a_root_keeps_its_snapshotter(store: Store, run: Run) -> None:
    """Said once; another one is refused while there are trees, and a name that is none at any time."""
    name = store.snapshots.name
    other = "native" if name == "overlay" else "overlay"
    unpack(store, LAYERS)
    assert Store.at(store.root).snapshots.name == name
    code, _, err = run("--snapshotter", other, "snapshots")
    assert code == 1
    assert f"{name}'s" in err
    assert run("--snapshotter", "aufs", "snapshots")[0] == 2
    for info in list(store.snapshots.walk())[::-1]:
        store.snapshots.remove(info.key)
    assert run("--snapshotter", other, "snapshots")[0] == 0
    assert Store.at(store.root).snapshots.name == other


def test_gc_takes_layers_that_nothing_holds(store: Store, tmp_path: Path) -> None:
    """With the lease gone they go, top first; an active snapshot holds what it stands on."""
    chain = unpack(store, LAYERS)
    prepare(store, chain, str(tmp_path / "t"), Scope())
    assert store.gc(Scope(), everything=True).snapshots == ()
    remove(store, str(tmp_path / "t"))
    gone = store.gc(Scope(), everything=True).snapshots
    assert gone[0] == chain
    assert list(store.snapshots.walk()) == []


def test_views_are_not_written_and_committed_ones_not_mounted(store: Store, run: Run, tmp_path: Path) -> None:
    """Commit says why not."""
    chain = unpack(store, LAYERS)
    run("rootfs", "view", chain, str(tmp_path / "v"))
    code, _, err = run("rootfs", "commit", str(tmp_path / "v"))
    assert code == 1
    assert "read only" in err
    with pytest.raises(OcidistError):
        store.snapshots.mounts(chain)


def test_what_is_mounted_is_neither_committed_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing would go on in what is committed. A mount point is told from the kernel's list, with its escapes."""
    target = tmp_path / "a place"

    def listed(point: Path) -> bytes:
        return b"1 2 0:1 / %s rw - none none rw\n" % os.fsencode(point).replace(b" ", b"\\040")

    (tmp_path / "mountinfo").write_bytes(b"1 2 0:1 / / rw - none none rw\n" + listed(target))
    opened = open
    monkeypatch.setattr(
        "builtins.open",
        lambda path, *more, **options: opened(
            tmp_path / "mountinfo" if path == "/proc/self/mountinfo" else path, *more, **options
        ),
    )
    with Store.at(tmp_path / "root") as store:
        prepare(store, "", str(target), Scope())
        for refused in (
            lambda: prepare(store, "", str(target), Scope()),
            lambda: commit(store, str(target), Scope()),
            lambda: remove(store, str(target)),
        ):
            with pytest.raises(OcidistError, match="it is mounted; `umount "):
                refused()
        # Mounted in the target by a container, it is in the snapshot too where mounts are shared.
        inside = store.snapshots.path(str(target)) / "proc"
        (tmp_path / "mountinfo").write_bytes(listed(inside))
        with pytest.raises(OcidistError, match=f"it is mounted; `umount {inside}` first"):
            remove(store, str(target))
        # A system mount below the target, as a stick below /mnt, is nobody's reason.
        (tmp_path / "mountinfo").write_bytes(listed(target / "usb"))
        remove(store, str(target))
        (tmp_path / "mountinfo").write_bytes(b"odd\n")
        prepare(store, "", str(target), Scope())
        remove(store, str(target))


@contextmanager
def nobody() -> Iterator[None]:
    """This process as an ordinary user."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_gc_goes_on_where_root_has_written_in_an_ordinary_user_s_tree(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not the user's stays and is named once, with the way out; all else goes, and new trees are made."""
    require("root", "kernel", "os:mkfifo")
    with tempfile.TemporaryDirectory(prefix="ocidist-gc-") as place:
        os.chmod(place, 0o777)
        root = Path(place, "root")

        def gc() -> tuple[int, str]:
            capsys.readouterr()
            with nobody():
                code = main(["--root", str(root), "gc", "--all"])
            return code, capsys.readouterr().err

        with Store.at(Path(place, "warm"), snapshotter=kind) as store:  # who is nobody may find no module
            unpack(store, LAYERS)
        main(["--root", str(store.root), "gc", "--all"])
        with nobody(), Store.at(root, snapshotter=kind) as store:
            first, second = unpack(store, LAYERS[:1]), unpack(store, LAYERS)
            tree = store.snapshots.path(first)
            store.snapshots.prepare("mounted")
            if kind == "overlay":
                work = store.snapshots.path("mounted").parent / "work"
        (tree / "etc/rooted/deep").mkdir(parents=True)
        (tree / "etc/rooted/file").write_text("root's")
        if kind == "overlay":
            (work / "work").mkdir(mode=0)  # as a mount by root leaves it
        code, said = gc()
        removed = root / "snapshots" / kind / "removed"
        stuck = list(removed.iterdir())
        assert code == 1
        assert said.count("is not yours") == 1
        assert f"`sudo rm -rf {stuck[0]}` removes it" in said
        assert len(stuck) == 1
        left = [name for _, folders, files in os.walk(stuck[0]) for name in [*folders, *files]]
        assert {"rooted", "deep", "file"} <= set(left)
        assert not {"passwd", "gone", "l", "info"} & set(left)
        with nobody(), Store.at(root) as store:
            assert [info.key for info in store.snapshots.walk()] == ["mounted"]
            assert unpack(store, LAYERS) == second
            remove(store, "mounted")
        code, said = gc()
        assert (code, said.count("is not yours")) == (1, 1)
        shutil.rmtree(stuck[0])
        assert gc()[0] == 0
        assert list(removed.iterdir()) == []
