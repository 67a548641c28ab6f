"""Trees equal to those of GNU tar and umoci, entry by entry: on archives made here and on real layers."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ocidist.layers.apply.layer import apply_layer
from ocidist.scope import Scope
from tests.parts.required import program, require
from tests.parts.tars import directory, entry, gzipped, hardlink, layer, pax, record, symlink
from tests.parts.trees import assert_same, snapshot

MIXED = [
    directory("./", mode=0o755, mtime=1_500_000_000),
    directory("./d/", mode=0o1777, mtime=1_500_000_001, uid=3, gid=4),
    entry("./d/plain", b"text", mode=0o644, uid=1000, gid=1001),
    entry("./d/suid", b"x" * 5000, mode=0o6755, uid=1000),
    entry("./d/" + "long" * 40, b"long name", mtime=1),
    pax(record("path", "d/päx"), record("mtime", "1600000000.123456789"), record("uid", "70000")),
    entry("./d/short", b"pax"),
    symlink("./abs", "/etc/passwd", uid=5),
    symlink("./d/rel", "../d/plain"),
    hardlink("./hard", "./d/plain", uid=1000, gid=1001),
    entry("./pipe", kind="6", mode=0o622),
    entry("./null", kind="3", device=(1, 3), mode=0o666),
    entry("./disk", kind="4", device=(8, 300), mode=0o660, gid=6),
    directory("./closed", mode=0o000),
    entry("./closed/inside", b"in", mode=0o000),
    entry("./empty"),
    entry("./d/plain2", b"z" * 1_500_000),
    directory("./implied/below", mode=0o700),
]


def by_tar(archive: Path, target: Path) -> Path:
    target.mkdir()
    command = [
        program("tar"),
        "-x",
        "-p",
        "--same-owner",
        "--numeric-owner",
        "--delay-directory-restore",
        "--xattrs",
        "-C",
    ]
    subprocess.run([*command, str(target), "-f", str(archive)], check=True)
    return target


def by_us(archive: Path, target: Path) -> Path:
    target.mkdir()
    with archive.open("rb", buffering=0) as source:
        apply_layer(source, target, Scope())
    return target


@pytest.fixture
def _root_and_tar() -> None:
    require("root", "tar")


@pytest.mark.usefixtures("_root_and_tar")
def test_e56_e57_a_layer_with_every_type_equals_gnu_tar_s_tree(tmp_path: Path) -> None:
    """Types, modes with setuid after chown, owners, devices, nanosecond times, links, content."""
    (tmp_path / "layer.tar.gz").write_bytes(gzipped(*MIXED).getvalue())
    ours = snapshot(by_us(tmp_path / "layer.tar.gz", tmp_path / "ours"))
    theirs = snapshot(by_tar(tmp_path / "layer.tar.gz", tmp_path / "theirs"))
    assert ours["d/suid"].mode == 0o6755
    assert ours["d/päx"].mtime_ns == 1_600_000_000_123_456_789
    del ours["implied"], theirs["implied"]  # made in passing: its time is the present
    assert_same(ours, theirs)


@pytest.mark.usefixtures("_root_and_tar")
@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7", "oldgnu"])
def test_archives_that_gnu_tar_wrote_come_back(tmp_path: Path, form: str) -> None:
    """A random tree, written in each format."""
    source, chance = tmp_path / "source", random.Random(form)
    source.mkdir()
    folders = [source]
    for number in range(120):
        where = chance.choice(folders) / f"{number}-{'n' * chance.randrange(9)}"
        kind = chance.random()
        if kind < 0.3 and len(str(where.relative_to(source))) < 80:
            where.mkdir(mode=chance.choice([0o755, 0o700, 0o1777]))
            folders.append(where)
        elif kind < 0.4:
            where.symlink_to(chance.choice(["x", "../y", "/z"]))
        elif kind < 0.5 and (
            files := [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
        ):
            os.link(chance.choice(files), where)
        else:
            where.write_bytes(chance.randbytes(chance.choice([0, 1, 511, 512, 513, 70_000])))
            where.chmod(chance.choice([0o644, 0o4755, 0o600]))
    for path in source.rglob("*"):
        os.utime(path, (10**9, chance.randrange(2 * 10**9)), follow_symlinks=False)
    archive = tmp_path / "source.tar"
    subprocess.run(
        [program("tar"), "-c", f"--format={form}", "-f", str(archive), "-C", str(source), "."], check=True
    )
    assert_same(snapshot(by_us(archive, tmp_path / "ours")), snapshot(by_tar(archive, tmp_path / "theirs")))


@pytest.mark.usefixtures("_root_and_tar")
def test_real_layers_equal_gnu_tar_s_trees(tmp_path: Path, images_of_others: Path) -> None:
    """The official busybox images (404 hardlinks each) and alpine's layer."""
    archives = sorted((images_of_others / "busybox").glob("*/rootfs.tar.gz"))
    assert archives
    with tarfile.open(images_of_others / "alpine-310.tar.gz") as saved:
        name = next(name for name in saved.getnames() if name.endswith("/layer.tar"))
        inner = saved.extractfile(name)
        assert inner is not None
        (tmp_path / "alpine.tar").write_bytes(inner.read())
    for number, archive in enumerate([*archives, tmp_path / "alpine.tar"]):
        ours, theirs = tmp_path / f"ours{number}", tmp_path / f"theirs{number}"
        # alpine's layer has no entry for the root.
        assert_same(
            snapshot(by_us(archive, ours)), snapshot(by_tar(archive, theirs)), root=number < len(archives)
        )


def test_e54_e55_two_layers_equal_umoci_s_tree(tmp_path: Path) -> None:
    """Whiteouts, opaque directories, replaced types, hardlinks, and a merged usr, through two layers."""
    require("root", "umoci")
    lower = [
        directory("./"),
        directory("usr"),
        directory("usr/lib", mtime=5),
        entry("usr/lib/old", b"old"),
        symlink("lib", "usr/lib"),
        directory("opaque"),
        entry("opaque/gone", b"x"),
        directory("opaque/sub"),
        entry("opaque/sub/gone", b"x"),
        entry("gone", b"x"),
        directory("gone-too"),
        entry("gone-too/x", b"x"),
        entry("a", b"shared"),
        hardlink("b", "a"),
        directory("was-dir"),
        entry("was-dir/x", b"x"),
        symlink("was-link", "usr"),
        directory("merged", mode=0o700),
        entry("merged/kept", b"x"),
    ]
    upper = [
        entry("lib/new", b"new"),
        directory("opaque"),
        entry("opaque/.wh..wh..opq"),
        entry("opaque/mine", b"mine"),
        entry(".wh.gone"),
        entry(".wh.gone-too"),
        entry("a", b"rewritten"),
        entry("was-dir", b"now a file"),
        directory("was-link"),
        entry("was-link/x", b"x"),
        directory("merged", mode=0o755),
        entry("merged/added", b"x"),
    ]
    layout = tmp_path / "layout"
    write_layout(layout, [gzipped(*lower).getvalue(), gzipped(*upper).getvalue()])
    subprocess.run(
        [program("umoci"), "unpack", "--image", f"{layout}:latest", str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
    )
    ours = tmp_path / "ours"
    ours.mkdir()
    for entries in (lower, upper):
        apply_layer(layer(*entries), ours, Scope())
    assert_same(snapshot(ours), snapshot(tmp_path / "bundle/rootfs"), ignore=["mtime_ns", "xattrs"])


def write_layout(layout: Path, layers: list[bytes]) -> None:
    """An OCI layout of one image of gzip layers."""
    from hashlib import sha256

    def put(raw: bytes, media: str) -> dict[str, object]:
        name = sha256(raw).hexdigest()
        (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (layout / "blobs/sha256" / name).write_bytes(raw)
        return {
            "mediaType": f"application/vnd.oci.image.{media}",
            "digest": f"sha256:{name}",
            "size": len(raw),
        }

    diff_ids = [f"sha256:{sha256(gzip.decompress(raw)).hexdigest()}" for raw in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {},
    }
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [put(raw, "layer.v1.tar+gzip") for raw in layers],
    }
    found = put(json.dumps(manifest).encode(), "manifest.v1+json")
    found["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [found]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@pytest.mark.usefixtures("_root_and_tar")
def test_e57_xattrs_are_binary_safe_and_filtered(tmp_path: Path) -> None:
    """user.* and security.capability arrive whole; the host's own labels don't; a merged directory drops old ones."""
    target = tmp_path / "root"
    target.mkdir()
    try:
        os.setxattr(tmp_path, "user.probe", b"x")
    except OSError:
        pytest.skip("missing part: a file system with extended attributes for the tests")
    value = bytes(range(256))
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    attributes = pax(
        record("SCHILY.xattr.user.binary", value),
        record("SCHILY.xattr.security.capability", capability),
        record("SCHILY.xattr.security.selinux", b"host"),
        record("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        record("SCHILY.xattr.user.overlay.redirect", b"/etc"),
    )
    apply_layer(
        layer(
            attributes,
            entry("f", b"x", mode=0o755, uid=3),
            pax(record("SCHILY.xattr.user.old", b"1")),
            directory("d"),
        ),
        target,
        Scope(),
    )
    assert os.getxattr(target / "f", "user.binary") == value
    assert os.getxattr(target / "f", "security.capability") == capability
    assert set(os.listxattr(target / "f")) == {"user.binary", "security.capability"}
    assert os.listxattr(target / "d") == ["user.old"]
    apply_layer(layer(pax(record("SCHILY.xattr.user.new", b"2")), directory("d")), target, Scope())
    assert os.listxattr(target / "d") == ["user.new"]


def test_without_threads_and_with_other_compressions_the_same(tmp_path: Path) -> None:
    """One tree, one DiffID, one count."""
    import bz2
    import lzma

    plain = layer(*MIXED[1:7], entry("big", b"b" * 3_000_000)).getvalue()
    results = []
    trees = []
    for number, data in enumerate(
        [plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain, preset=0)]
    ):
        for threads in (True, False):
            root = tmp_path / f"{number}{threads}"
            root.mkdir()
            results.append(apply_layer(io.BytesIO(data), root, Scope(), threads=threads))
            trees.append(snapshot(root))
    assert results == [results[0]] * 8
    for tree in trees[1:]:
        assert_same(trees[0], tree, root=False)


def test_an_ordinary_user_unpacks_with_debian_s_own_python(tmp_path: Path) -> None:
    """As nobody, by the interpreter of the distribution: owners are the user's, devices are counted."""
    require("root")
    if not Path("/usr/bin/python3").exists():
        require("python3")
    home = Path("/tmp") / f"ocidist-nobody-{os.getpid()}"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    try:
        (home / "layer.tar.gz").write_bytes(gzipped(*MIXED).getvalue())
        shutil.copytree(
            Path(__file__).resolve().parents[2] / "ocidist",
            home / "ocidist",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        code = (
            "import os, sys; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path\n"
            "from ocidist.layers.apply.layer import apply_layer\n"
            "from ocidist.scope import Scope\n"
            "root = Path(sys.argv[1]) / 'root'; root.mkdir()\n"
            "os.umask(0o077)\n"
            "for turn in range(2):\n"
            "    result = apply_layer(open(sys.argv[1] + '/layer.tar.gz', 'rb', buffering=0), root, Scope())\n"
            "print(result.entries, result.skipped)\n"
        )
        child = subprocess.run(
            ["/usr/bin/python3", "-I", "-S", "-c", code, str(home)],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        assert child.stdout == f"{len(MIXED) - 1} 2\n"
        found = snapshot(home / "root")
        assert {node.uid for node in found.values()} == {65534}
        assert not {"null", "disk"} & set(found)
        assert found["d/suid"].mode == 0o755
        assert found["closed"].mode == 0o700
        assert found["d"].mode == 0o1777
        assert found["hard"].hardlinks == ("d/plain", "hard")
    finally:
        shutil.rmtree(home)


def test_cpython_s_own_test_archive_equals_gnu_tar_s_tree(tmp_path: Path) -> None:
    """testtar.tar, but for what is refused: sparse members, and an owner that is "none" to chown."""
    require("root", "tar", "module:test")
    import test as cpython_tests

    folder = Path(cpython_tests.__file__ or "").parent
    sources = [folder / "testtar.tar", folder / "archivetestdata/testtar.tar"]  # since 3.13
    source = next(filter(Path.is_file, sources), None)
    if source is None:
        pytest.skip("missing part: CPython's own testtar.tar")
    archive = tmp_path / "some.tar"
    with (
        tarfile.open(source, encoding="iso8859-1") as whole,
        tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="iso8859-1") as some,
    ):
        for member in whole:
            if not member.issparse() and member.uid != 0xFFFFFFFF:
                some.addfile(member, whole.extractfile(member) if member.isreg() else None)
    assert_same(
        snapshot(by_us(archive, tmp_path / "ours")),
        snapshot(by_tar(archive, tmp_path / "theirs")),
        root=False,
        ignore=["mtime_ns"],
    )
