"""Images of real files: busybox as others published it, Debian with layers of this machine's files, one huge layer.

The large ones are built once and kept in :func:`cache_folder`; given the same inputs the bytes are the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any, Callable, Iterator

from tests.parts.images import (
    CONFIG,
    CREATED,
    EPOCH,
    INDEX,
    LAYER,
    MANIFEST,
    Entry,
    blob_path,
    noise,
    sha256,
    to_json,
    write_index,
)
from tests.parts.required import lacking, program, require

# What the two layers on top of Debian hold, each: about 290 MB in 11,000 entries of this machine's files.
LAYER_BYTES, LAYER_ENTRIES = 290_000_000, 11_200
LAYER_SOURCES = (("/usr/lib/python3", "/usr/share"), ("/usr/lib", "/usr/include", "/usr/bin"))
LARGE_SOURCES, LARGEST = ("/usr/lib", "/usr/bin"), 12_000_000
BUILD = "4"  # raise it when what is built changes, so that older caches are not used


def cache_folder() -> Path:
    """``$OCIDIST_TEST_CACHE``, else a folder of this user's in the system's temporary directory."""
    named = os.environ.get("OCIDIST_TEST_CACHE")
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"ocidist-test-cache-{os.geteuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, built by one process if it isn't there."""
    final = cache_folder() / f"{name}-{BUILD}"
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.is_dir():
            work = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=cache_folder()))
            try:
                build(work)
                work.chmod(0o755)
                work.rename(final)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
    return final


# --- busybox --------------------------------------------------------------------------------------------------


def busybox_index(images: Path, layout: Path, tag: str = "latest") -> dict[str, Any]:
    """Put the three musl images of ``images/busybox`` behind one index in ``layout``; returns its descriptor.

    Their blobs are links to files beside ``blobs/``; a copy that lost its links has files holding the target.
    Either way the bytes that arrive here have the digest of their name.
    """
    entries = []
    for name in ("musl-amd64", "musl-arm64v8", "musl-arm32v7"):
        source = images / "busybox" / name
        for blob in sorted((source / "blobs/sha256").iterdir()):
            raw = blob.read_bytes()
            if sha256(raw) != f"sha256:{blob.name}" and len(raw) < 256:
                raw = (blob.parent / raw.decode()).read_bytes()
            assert sha256(raw) == f"sha256:{blob.name}", blob
            path = blob_path(layout, f"sha256:{blob.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        (entry,) = json.loads((source / "index.json").read_bytes())["manifests"]
        entries.append({key: entry[key] for key in ("mediaType", "digest", "size", "platform")})
    raw = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    blob_path(layout, sha256(raw)).write_bytes(raw)
    root = {"mediaType": INDEX, "digest": sha256(raw), "size": len(raw)}
    write_index(layout, {tag: root})
    return root


# --- large ----------------------------------------------------------------------------------------------------


def big_image() -> Path:
    """A layout (tag ``latest``): Debian's minbase and two layers of thousands of real files.

    About 280 MB of blobs, 810 MB and 31,000 entries when unpacked; the third layer has a whiteout of the first's.
    ``size.json`` beside ``index.json`` says what it came to: ``{"entries", "unpacked", "stored"}``.
    """
    require("mmdebstrap", "pigz", "root")
    return cached("debian", _build_big)


bench_image = big_image  # one image serves both: what is pulled in the tests is what the benches measure


def _build_big(layout: Path) -> None:
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    base = layout / "base.tar"
    _debootstrap(base)
    layers, diff_ids, totals = [], [], {"entries": 0, "unpacked": 0, "stored": 0}
    for number in range(3):
        with _Packer(blobs) as packer:
            if number == 0:
                with base.open("rb") as source:
                    shutil.copyfileobj(source, packer, 1 << 20)
            else:
                _tar_of_this_machine(packer, number)
        layers.append({"mediaType": LAYER + "+gzip", "digest": packer.digest, "size": packer.size})
        diff_ids.append(packer.diff_id)
        totals["stored"] += packer.size
        totals["unpacked"] += packer.unpacked
        listing = subprocess.run(
            [program("tar"), "-tzf", str(blob_path(layout, packer.digest))], capture_output=True, check=True
        )
        totals["entries"] += listing.stdout.count(b"\n")
    base.unlink()
    _finish(layout, layers, diff_ids)
    (layout / "size.json").write_bytes(to_json(totals))


def _debootstrap(target: Path) -> None:
    command = [program("mmdebstrap"), "--quiet", "--variant=minbase", "bookworm", str(target)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    for _ in range(2):  # a mirror may stumble once
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        if done.returncode == 0:
            return
    lacking("mmdebstrap could not make a base system: " + done.stderr.strip()[-300:])


class _Packer:
    """A write-only file: what goes in is hashed, gzipped by pigz and lands in ``blobs`` under its digest."""

    def __init__(self, blobs: Path) -> None:
        self._blobs = blobs
        self._plain = hashlib.sha256()
        self.unpacked = self.size = 0
        self.digest = self.diff_id = ""

    def __enter__(self) -> _Packer:
        self._file = (self._blobs / "under-way").open("wb")
        self._pigz = subprocess.Popen(
            [program("pigz"), "-n", "-6", "-p", "2", "-c"], stdin=subprocess.PIPE, stdout=self._file
        )
        assert self._pigz.stdin is not None
        self._pipe: IO[bytes] = self._pigz.stdin
        return self

    def write(self, data: bytes) -> int:
        self._plain.update(data)
        self.unpacked += len(data)
        return self._pipe.write(data)

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        assert self._pigz.wait() == 0, "pigz failed"
        self._file.close()
        path = Path(self._file.name)
        with path.open("rb") as packed:
            whole = hashlib.sha256()
            while block := packed.read(1 << 20):
                whole.update(block)
        self.digest, self.size = f"sha256:{whole.hexdigest()}", path.stat().st_size
        self.diff_id = f"sha256:{self._plain.hexdigest()}"
        path.rename(self._blobs / whole.hexdigest())


def _tar_of_this_machine(target: Any, number: int) -> None:
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        if number == 2:
            archive.addfile(Entry("etc/.wh.issue").member())
        for path, info in _chosen(number):
            member = tarfile.TarInfo(f"opt/layer{number}{path}")
            member.mode, member.mtime = stat.S_IMODE(info.st_mode), int(info.st_mtime)
            if stat.S_ISREG(info.st_mode):
                member.size = info.st_size
                with open(path, "rb") as source:
                    archive.addfile(member, source)
                continue
            if stat.S_ISLNK(info.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
            else:
                member.type = tarfile.DIRTYPE
            archive.addfile(member)


def _chosen(number: int) -> list[tuple[str, os.stat_result]]:
    """What goes into layer ``number``: most entries in walking order, then large files until the bytes come right.

    In walking order alone the files are small; a real image has a few large ones that make up most of its bytes.
    """
    walked = list(itertools.islice(_walk(LAYER_SOURCES[number - 1]), LAYER_ENTRIES))
    bytes_left = LAYER_BYTES - sum(_size(info) for _, info in walked)
    taken = {path for path, _ in walked}
    large = sorted(
        ((_size(info), path, info) for path, info in _walk(LARGE_SOURCES) if path not in taken),
        key=lambda found: (-found[0], found[1]),
    )
    for size, path, info in large[number::2]:
        if size <= 0 or bytes_left <= 0:
            break
        if size <= bytes_left:
            bytes_left -= size
            walked.append((path, info))
    return walked


def _walk(sources: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Directories, files and links below ``sources``, in a fixed order, that this user may read."""
    for source in sources:
        for folder, names, files in os.walk(source):
            names.sort()
            links = [name for name in names if os.path.islink(os.path.join(folder, name))]
            for path in [folder, *(os.path.join(folder, name) for name in sorted(files + links))]:
                with contextlib.suppress(OSError):
                    info = os.lstat(path)
                    if _plain(path, info) and _size(info) <= LARGEST:
                        yield path, info


def _size(info: os.stat_result) -> int:
    return info.st_size if stat.S_ISREG(info.st_mode) else 0


def _plain(path: str, info: os.stat_result) -> bool:
    if stat.S_ISREG(info.st_mode):
        return os.access(path, os.R_OK)
    return stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode)


def _finish(layout: Path, layers: list[dict[str, Any]], diff_ids: list[str]) -> None:
    config = to_json(
        {
            "created": CREATED,
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": CREATED, "created_by": f"layer {n}"} for n in range(len(layers))],
        }
    )
    described = {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)}
    manifest = to_json(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers},
    )
    for raw in (config, manifest):
        blob_path(layout, sha256(raw)).write_bytes(raw)
    write_index(
        layout, {"latest": {"mediaType": MANIFEST, "digest": sha256(manifest), "size": len(manifest)}}
    )


def huge_layer(size: int = 2 << 30) -> Path:
    """A layout (tag ``latest``) with one uncompressed layer of one file of ``size`` bytes that do not compress."""

    def build(layout: Path) -> None:
        blobs = layout / "blobs/sha256"
        blobs.mkdir(parents=True)
        whole = hashlib.sha256()
        with (blobs / "under-way").open("wb") as target:

            def put(data: bytes) -> None:
                whole.update(data)
                target.write(data)

            member = tarfile.TarInfo("huge")
            member.size, member.mtime = size, EPOCH
            put(member.tobuf(tarfile.GNU_FORMAT))
            for at in range(0, size, 1 << 20):
                put(noise(min(1 << 20, size - at), f"huge {at}"))
            put(bytes(-size % 512 + 1024))
            total = target.tell()
        (blobs / "under-way").rename(blobs / whole.hexdigest())
        digest = f"sha256:{whole.hexdigest()}"
        _finish(layout, [{"mediaType": LAYER, "digest": digest, "size": total}], [digest])

    return cached(f"huge-{size}", build)
