"""Layers that are small and cost much: refused by a limit that the error names, or ended with the time limit.

Each is run by the command line in a process of its own, whose memory and time are measured.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import pytest

from ocidist.cli import bundle as cli_bundle
from ocidist.cli import move as cli_move
from ocidist.cli import rootfs as cli_rootfs
from ocidist.cli.context import Context
from ocidist.errors import Cancelled, LimitExceeded, StoreError, UnsafeEntry
from ocidist.layers.apply.contained import Directory, Tree
from ocidist.layers.apply.layer import apply_layer
from ocidist.layers.apply.policy import Policy
from ocidist.layers.tar.records import Member
from ocidist.limits import Limits
from ocidist.scope import Scope
from ocidist.snapshots import apart, parallel
from ocidist.snapshots.apart import Marks, require_fitting
from ocidist.snapshots.measure import tree_usage
from ocidist.snapshots.merge import merge
from ocidist.snapshots.stack import stack
from ocidist.snapshots.unpack import LocalApplier
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from ocidist.trees.directory import DirectoryReader
from tests.parts.required import require
from tests.parts.tars import END, directory, entry, hardlink, header, layer, pax, record, symlink

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MEMORY = 80 << 20  # bytes, of which Python and its modules are about 40
GRACE = 4.0  # seconds after the time limit: half of one is what is wanted, but this machine may be busy


def deflated(pieces: Iterable[bytes], level: int = 1) -> bytes:
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=level, mtime=0) as packed:
        for piece in pieces:
            packed.write(piece)
    return target.getvalue()


@dataclass(frozen=True)
class Ended:
    """How a command came to its end: its code, what it said, seconds of time, and bytes of memory at most."""

    code: int
    said: str
    seconds: float
    memory: int


def run(*words: str, stdin: bytes | None = None, interrupt: Path | None = None) -> Ended:
    """A command, alone; interrupted once a tree is begun under ``interrupt``, if that is given."""
    code = (
        "import resource, sys\n"
        "sys.argv = ['ocidist', *sys.argv[1:]]\n"
        "from ocidist.cli.main import main\n"
        "try:\n    code = main()\nexcept KeyboardInterrupt:\n    code = 130\n"
        "own = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]\n"
        "most = max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.stderr.flush(); print(code, most, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--progress", "none"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if interrupt is not None:
        while not list(interrupt.glob("snapshots/*/active/*/fs")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
    out, err = process.communicate(stdin)
    seconds = time.monotonic() - started
    assert process.returncode == 0, err.decode()
    ended, most = out.split()[-2:]
    return Ended(int(ended), err.decode(), seconds, int(most) * 1024)


def many(count: int, name: Callable[[int], bytes], width: int) -> Iterable[bytes]:
    """Headers of ``count`` empty files, whose names all have ``width`` bytes."""
    model = bytearray(header(bytes(width).replace(b"\0", b"x"), size=0))
    fixed = sum(model) - sum(model[:width]) - sum(model[148:156]) + 8 * 32
    for number in range(count):
        model[:width] = name(number)
        model[148:156] = b"%06o\0 " % (fixed + sum(model[:width]))
        yield bytes(model)


def store_image(root: Path, layers: list[bytes], *, kind: str = "native", **config: object) -> Digest:
    """An image of these blobs in a store; its manifest's digest. ``config`` takes the place of its parts."""
    unpacked = {blob: Digest.of(gzip.decompress(blob)) for blob in layers} if "rootfs" not in config else {}
    wanted: dict[str, object] = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [unpacked[blob] for blob in layers] if unpacked else []},
        **config,
    }
    with Store.at(root, snapshotter=kind) as store:

        def put(data: bytes, media_type: str) -> dict[str, object]:
            digest = Digest.of(data)
            if not any(info.digest == digest for info in store.content.walk()):
                with store.ingest(f"put {digest}", total=len(data), expected=digest) as writer:
                    writer.write(data)
                    writer.commit(len(data), digest)
            return {"mediaType": media_type, "digest": digest, "size": len(data)}

        raw = json.dumps(wanted).encode() if config.get("raw") is None else config["raw"]
        assert isinstance(raw, bytes)
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put(raw, "application/vnd.oci.image.config.v1+json"),
            "layers": [put(blob, LAYER) for blob in layers],
        }
        return Digest(put(json.dumps(manifest).encode(), str(manifest["mediaType"]))["digest"])


@pytest.fixture(scope="module")
def whiteouts() -> list[bytes]:
    """A large layer, and one that hides 250,000 names."""
    noise = os.urandom(parallel.SMALL + 100_000)
    marks = many(250_000, lambda number: b".wh.%016x" % (number * 0x9E3779B97F4A7C15 % 2**64), 20)
    return [deflated([entry("big", noise), END]), deflated([*marks, END])]


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_i77_whiteouts_take_little_memory(whiteouts: list[bytes], tmp_path: Path, kind: str) -> None:
    """250,000 of them, in a layer that a process of its own would extract: none is remembered."""
    require("processes", "kernel", "root")
    assert len(whiteouts[1]) > parallel.SMALL
    digest = store_image(tmp_path / "root", whiteouts, kind=kind)
    ended = run("--root", str(tmp_path / "root"), "rootfs", "unpack", digest)
    assert ended.code == 0, ended.said
    assert ended.memory < MEMORY


@pytest.mark.parametrize("kind", ["native", "overlay"])
@pytest.mark.parametrize("how", ["time limit", "interrupt"])
def test_i74_whiteouts_end_in_time(whiteouts: list[bytes], tmp_path: Path, kind: str, how: str) -> None:
    """Wherever the command is when the time is over."""
    require("processes", "kernel", "root")
    digest = store_image(tmp_path / "root", whiteouts, kind=kind)
    words = ["--root", str(tmp_path / "root"), "rootfs", "unpack", digest]
    if how == "interrupt":
        ended = run(*words, interrupt=tmp_path / "root")
        assert ended.seconds < GRACE
        assert ended.code == 130
    else:
        ended = run(*words, "--timeout", "1s")
        assert ended.seconds < 1 + GRACE
        assert (ended.code, "--timeout" in ended.said) == (1, True)


def maze(links: int, entries: int) -> bytes:
    """Files in directories behind a link that takes ``links`` times about 1,500 steps."""
    deep = b"d/" * 60
    there_and_back = (deep + b"../" * 60) * 12
    return layer(
        directory(deep),
        symlink("l", there_and_back),
        symlink("m", b"/".join([b"l"] * links)),
        *(entry(f"m/{number}/file") for number in range(entries)),
    ).getvalue()


def test_i77_links_and_dots_of_one_entry_are_bounded(tmp_path: Path) -> None:
    """However they multiply; the entry is named."""
    require("kernel")
    with pytest.raises(UnsafeEntry, match=r"'m/0/file'.*10000 steps"):
        apply_layer(io.BytesIO(maze(100, 1)), tmp_path, Scope(limits=None))


def test_i77_links_and_dots_of_a_layer_are_bounded(tmp_path: Path) -> None:
    """Each entry is just below its own bound. Without limits it goes on."""
    require("kernel")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    raw = maze(5, 100)
    few = Limits(steps=300_000)
    with pytest.raises(LimitExceeded, match=r"entry 'm/4\d/file': 4\d entries took more than 30\d{4} steps"):
        apply_layer(io.BytesIO(raw), tmp_path / "a", Scope(limits=few))
    assert apply_layer(io.BytesIO(raw), tmp_path / "b", Scope(limits=None)).entries == 103


def test_i74_a_maze_ends_with_the_time_limit(tmp_path: Path) -> None:
    """15 kB of it would take minutes."""
    require("processes", "kernel")
    ended = run("apply", str(tmp_path), "--no-limits", "--timeout", "1s", stdin=gzip.compress(maze(5, 5000)))
    assert (ended.code, "--timeout" in ended.said) == (1, True)
    assert ended.seconds < 1 + GRACE


def test_i77_opaque_markers_over_a_layers_own_files_are_bounded(tmp_path: Path) -> None:
    """Each has to spare all of them."""
    require("kernel")
    (tmp_path / "old").write_bytes(b"")
    files = [entry(f"d/{number}") for number in range(1000)]
    raw = layer(*files, *[entry("d/.wh..wh..opq")] * 2000).getvalue()
    with pytest.raises(LimitExceeded, match="steps"):
        apply_layer(io.BytesIO(raw), tmp_path, Scope())


def test_i77_a_removal_of_a_deep_tree_takes_steps_by_its_depth(tmp_path: Path) -> None:
    """Not by its square: 900 directories within each other, and one whiteout."""
    require("kernel")
    apply_layer(layer(entry("a/" * 900 + "file")), tmp_path, Scope())
    apply_layer(layer(entry(".wh.a")), tmp_path, Scope(limits=Limits(steps=20_000)))
    assert os.listdir(tmp_path) == []


def test_a_wide_tree_is_removed_whatever_one_entry_may_take(tmp_path: Path) -> None:
    """12,000 empty directories, by one whiteout, in a layer that may take no step more than its entries."""
    require("kernel")
    (tmp_path / "a").mkdir()
    for number in range(12_000):
        (tmp_path / "a" / str(number)).mkdir()
    apply_layer(layer(entry(".wh.a")), tmp_path, Scope(limits=Limits(steps=2000)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("raw", [
    layer(*(entry(f"file{number}") for number in range(101))).getvalue(),
    layer(entry("a/" * 120 + "file")).getvalue(),
    layer(*(entry(f"{number}/file") for number in range(60))).getvalue(),
], ids=["entries", "deep", "directories"])  # fmt: skip
def test_i77_entries_are_counted_with_the_directories_that_they_need(tmp_path: Path, raw: bytes) -> None:
    """Those of the layers beneath too."""
    require("kernel")
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(LimitExceeded, match="more than 100 entries; --no-limits"):
        apply_layer(io.BytesIO(raw), tmp_path / "0", Scope(limits=Limits(entries=100)))
    with pytest.raises(LimitExceeded, match="more than 1000 entries"):
        apply_layer(io.BytesIO(raw), tmp_path / "1", Scope(limits=Limits(entries=1000)), before=900)


@pytest.mark.parametrize("threads", [True, False])
def test_i77_expansion_is_bounded(tmp_path: Path, threads: bool) -> None:
    """Whether the zeros are a file's, or stand behind the archive's end."""
    require("kernel")
    few = Limits(floor=8 << 20, ratio=900)
    for raw in (deflated([entry("f", bytes(24 << 20))], 9), deflated([END, bytes(24 << 20)], 9)):
        with pytest.raises(LimitExceeded, match="bytes of it unpack to more than the 900-fold; --no-limits"):
            apply_layer(io.BytesIO(raw), tmp_path, Scope(limits=few), threads=threads)
        apply_layer(io.BytesIO(raw), tmp_path, Scope(limits=None), threads=threads)


def put(store: Store, blobs: list[bytes]) -> tuple[list[Descriptor], list[Digest]]:
    """Blobs of a store, as layers with their DiffIDs."""
    found = []
    for blob in blobs:
        digest = Digest.of(blob)
        if not any(info.digest == digest for info in store.content.walk()):
            with store.ingest("put", total=len(blob), expected=digest) as writer:
                writer.write(blob)
                writer.commit(len(blob), digest)
        found.append(Descriptor(LAYER, digest, len(blob)))
    return found, [Digest.of(gzip.decompress(blob)) for blob in blobs]


def refused(root: Path, layers: list[bytes], limits: Limits, kind: str = "native") -> str:
    """The message with which the image is refused."""
    with Store.at(root, snapshotter=kind) as store:
        found, diff_ids = put(store, layers)
        with pytest.raises((LimitExceeded, StoreError)) as caught:
            LocalApplier(store.content, store.snapshots).unpack(found, diff_ids, Scope(limits=limits))
        assert [info.key for info in store.snapshots.walk() if info.kind == "active"] == []
        return str(caught.value)


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_i77_a_layer_that_is_listed_again_and_again_is_bounded(tmp_path: Path, kind: str) -> None:
    """By the number of layers, by entries, and by what all of them unpack to, for each byte that is stored."""
    require("kernel")
    blob = deflated([entry(f"file{number}", b"some content") for number in range(50)] + [END])
    assert refused(tmp_path / "a", [blob] * 501, Limits()).startswith("image: 501 layers, more than 500;")
    assert "more than 120 entries" in refused(tmp_path / "b", [blob] * 9, Limits(entries=120), kind)
    few = Limits(floor=100_000, ratio=500)
    assert f"{len(blob)} bytes of layers unpack to more than the 500-fold" in refused(
        tmp_path / "c", [blob] * 400, few, kind
    )


def test_i77_workers_count_for_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on its own, and all of them together."""
    require("processes", "kernel", "root")
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    blobs = [
        deflated(
            [
                entry(f"big{n}", os.urandom(parallel.SMALL + 9999)),
                *(entry(f"{n}-{i}") for i in range(60)),
                END,
            ]
        )
        for n in range(2)
    ]
    assert "more than 50 entries" in refused(tmp_path / "a", blobs, Limits(entries=50))
    assert "more than 100 entries" in refused(tmp_path / "b", blobs, Limits(entries=100))


def test_i77_what_needs_the_layers_beneath_is_noted_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer with more of it is applied in its turn, and comes to the same tree."""
    require("processes", "kernel", "root")
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    noted = apart.Apart(True)
    monkeypatch.setattr(apart, "MOST", 100)
    with pytest.raises(Exception, match="too much of it"):
        apply_layer(
            layer(*(entry(f".wh.{number}") for number in range(9))),
            tmp_path,
            Scope(),
            policy=Policy(True, noted),
        )
    assert len(noted.marks.hidden) == 1


def test_i77_copies_that_hardlinks_need_count_as_what_an_image_unpacks_to(tmp_path: Path) -> None:
    """Each layer of a stack that gives a file beneath another name holds a copy of it: 90 bytes or so stand for it all."""
    require("kernel", "root")
    blobs = [deflated([entry("f", bytes(1 << 20)), END], level=9)]
    blobs += [deflated([hardlink(f"l{number}", "f"), END], level=9) for number in range(30)]
    few = Limits(floor=4 << 20, ratio=800)
    said = refused(tmp_path / "overlay", blobs, few, "overlay")
    assert "bytes of layers unpack to more than the 800-fold" in said
    taken = sum(path.stat().st_blocks * 512 for path in (tmp_path / "overlay").rglob("*") if path.is_file())
    assert taken < 8 << 20


class Ending(dict[bytes, None]):
    """A million marks; when the tenth is taken, the scope ends."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.taken = scope, 0

    def __iter__(self) -> Iterator[bytes]:
        for number in range(1_000_000):
            self.taken += 1
            if self.taken == 10:
                self.scope.cancel()
            yield b"/d/%d" % number


LOOPS: dict[str, Callable[[Path, Path, dict[bytes, None], Scope], object]] = {
    "merge hidden": lambda base, above, ending, scope: merge(base, above, Marks(ending), scope, "layer"),
    "merge opaque": lambda base, above, ending, scope: merge(
        base, above, Marks(opaque=ending), scope, "layer"
    ),
    "assumed": lambda base, above, ending, scope: require_fitting(
        Marks(assumed=ending), DirectoryReader(base), scope
    ),
    "stack hidden": lambda base, above, ending, scope: stack(
        above, DirectoryReader(base), Marks(ending), True, scope, "layer"
    ),
    "stack opaque": lambda base, above, ending, scope: stack(
        above, DirectoryReader(base), Marks(opaque=ending), True, scope, "layer"
    ),
}


@pytest.mark.parametrize("what", LOOPS)
def test_i74_loops_over_what_a_worker_noted_end_with_the_scope(tmp_path: Path, what: str) -> None:
    """At the next one."""
    require("kernel")
    for name in ("base", "apart"):
        (tmp_path / name / "d").mkdir(parents=True)
    scope = Scope()
    ending = Ending(scope)
    with pytest.raises(Cancelled):
        LOOPS[what](tmp_path / "base", tmp_path / "apart", ending, scope)
    assert ending.taken == 10


def test_i74_removing_a_large_directory_ends_with_the_scope(tmp_path: Path) -> None:
    """Within its names, not behind them."""
    require("kernel")
    (tmp_path / "d").mkdir()
    for number in range(9000):
        (tmp_path / "d" / str(number)).touch()
    scope = Scope()
    tree = Tree(tmp_path, "layer", Merging(), scope)
    asked: list[bytes] = []

    def spared(real: bytes) -> bool:
        asked.append(real)
        if len(asked) == 10:
            scope.cancel()
        return False

    with pytest.raises(Cancelled):
        tree.hide(tree.root, b"d", spared)
    tree.close()
    assert len(asked) < 5000
    assert len(os.listdir(tmp_path / "d")) > 4000


class Merging:
    """A Settler to whom nothing matters."""

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        raise AssertionError

    def implied(self, fd: int) -> None:
        raise AssertionError

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        return False

    def replaced(self, real: bytes) -> None:
        raise AssertionError


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_i77_an_image_larger_than_the_disks_room_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What is needed and what is free are named, and so is the way out."""
    require("kernel")
    blob = deflated([entry("f", os.urandom(300_000)), END])
    found = os.statvfs(tmp_path)
    few = os.statvfs_result([*found[:2], 10**12, 10**12, 200_000 // found.f_frsize, *found[5:]])
    monkeypatch.setattr(os, "statvfs", lambda place: few)
    said = refused(tmp_path / "a", [blob], Limits(reserve=0), kind)
    assert re.search(
        r"No space left on device for unpacking: 30\d kB at least are needed, \d+ kB free; .*--no-limits",
        said,
    )


def test_i77_the_room_is_looked_at_while_a_tree_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many bytes stay free; holes cost none."""
    require("kernel")
    found = os.statvfs(tmp_path)
    free = iter([10_000, 10_000, 10])
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda place: os.statvfs_result([*found[:2], 10**12, 10**12, next(free), *found[5:]]),
    )
    raw = layer(entry("f", bytes(100 << 20))).getvalue()
    with pytest.raises(StoreError, match=r"No space left on device after .*to stay so; .*--no-limits"):
        apply_layer(io.BytesIO(raw), tmp_path, Scope(limits=Limits(reserve=1 << 20)))
    assert next(free, None) is None


@pytest.mark.parametrize(
    "words", [["pull", "a"], ["rootfs", "unpack", "a"], ["apply", "d"], ["bundle", "a", "b"]]
)
def test_the_command_line_lifts_limits(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the commands that unpack: whatever they make of their scope has none, and has some without the option."""
    from ocidist.cli import main

    seen: list[Limits | None] = []

    def noting(function: Any) -> Any:
        def run(args: Any, context: Context) -> None:
            for make in (context.quiet, context.progress):
                with make() as scope, scope.child() as inner:
                    seen.append(inner.limits)

        return run

    for module in (cli_rootfs, cli_move, cli_bundle):
        for name in [name for name in vars(module) if name.startswith("run_")]:
            monkeypatch.setattr(module, name, noting(name))
    assert main.main(words) == 0
    assert main.main([*words, "--no-limits"]) == 0
    assert seen == [Limits(), Limits(), None, None]


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_i77_holes_cost_nothing_however_often_they_are_linked(tmp_path: Path, kind: str) -> None:
    """A file of 4 GB that holds five bytes, and in each of ten layers one more name of it."""
    require("kernel")
    sparse = pax(
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.minor", "0"),
        record("GNU.sparse.name", "big"),
        record("GNU.sparse.realsize", str(4 << 30)),
    ) + entry("GNUSparseFile.0/big", b"1\n0\n5\n".ljust(512, b"\0") + b"hello")
    blobs = [deflated([sparse, END]), *(deflated([hardlink(f"name{n}", "big"), END]) for n in range(10))]
    with Store.at(tmp_path / "root", snapshotter=kind) as store:
        layers, diff_ids = put(store, blobs)
        chain = LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
        reader = store.snapshots.reader(str(chain))
        assert {reader.stat(f"name{n}".encode()).size for n in range(10)} == {4 << 30}
        reader.close()
        assert sum(path.lstat().st_blocks for path in (tmp_path / "root").rglob("*")) * 512 < 4 << 20


def test_i77_a_copy_of_a_file_is_refused_where_the_disk_has_no_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million bytes of a kilobyte of layers, on overlay, where each layer has a directory of its own."""
    require("kernel")
    blobs = [deflated([entry("big", bytes(1_000_000)), END], 9), deflated([hardlink("more", "big"), END])]
    found = os.statvfs(tmp_path)
    few = os.statvfs_result([*found[:2], 10**12, 10**12, 900_000 // found.f_frsize, *found[5:]])
    monkeypatch.setattr(os, "statvfs", lambda place: few)
    said = refused(tmp_path / "a", blobs, Limits(reserve=0), "overlay")
    assert re.search(
        r"/(more|big): No space left on device for a copy of it in the layer: 1.0 MB at least", said
    )


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_i74_what_an_ended_one_left_is_removed_as_long_as_the_next_may_run(tmp_path: Path, kind: str) -> None:
    """The time limit holds for that too; the one after goes on with it."""
    require("kernel")
    with Store.at(tmp_path / "root", snapshotter=kind) as store:
        layers, diff_ids = put(store, [deflated([entry("file", b"x"), END])])
        for number, key in enumerate(
            [diff_ids[0], "sha256:" + "a" * 64]
        ):  # of the same image, and of another
            left = store.snapshots.begin(f"unpack {key}")
            (left / "file").touch()
            ended = Scope()
            ended.cancel()
            with pytest.raises(Cancelled):
                store.snapshots.prepare(f"unpack {diff_ids[0]}", scope=ended)
            assert len(list((tmp_path / "root").rglob("file"))) == 1, number
            if number:
                LocalApplier(store.content, store.snapshots).unpack(layers, diff_ids, Scope())
            else:
                store.snapshots.prepare(f"unpack {diff_ids[0]}", scope=Scope())
        assert [path.read_bytes() for path in (tmp_path / "root").rglob("file")] == [b"x"]


def test_i77_what_a_wide_tree_takes_is_counted_without_holding_it(tmp_path: Path) -> None:
    """Hundreds of bytes for each name were kept: gigabytes at the limit of entries."""
    for number in range(5000):
        (tmp_path / f"{number}").touch()
    tracemalloc.start()
    try:
        assert tree_usage(tmp_path).inodes == 5001
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
