"""How the time of an unpack grows: with the entries of a layer, and with its bytes."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator

from tests.bench.measure import Contender, Track, plain, remove
from tests.bench.report import Report

ENTRIES = (1_000, 10_000, 50_000, 200_000)
MEGABYTES = (10, 100, 1000)
BOUND = 1.5  # how much more an entry, or a byte, may cost in the largest than in the middle one


def growth(track: Track, report: Report, python: str, rounds: int) -> None:
    """``ocidist apply`` of one layer after the other, each larger; what one entry, or one megabyte, costs."""
    report.begin("growth", f"ocidist apply, uncompressed layers; medians of {rounds} rounds in turns")
    for unit, sizes, make in (
        ("entries", ENTRIES, entries),
        ("MB", MEGABYTES, megabytes),
    ):
        contenders = []
        for size in sizes:
            layer = track.fresh("layer")
            with layer.open("wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
                for member, data in make(size):
                    archive.addfile(member, io.BytesIO(data))
            target = track.fresh("tree")
            script = f'mkdir {target} && "{python}" -m ocidist apply {target} < {layer} && rm -rf {target}'
            contenders.append(Contender(f"{size:,} {unit}", plain(["sh", "-c", script])))
        track.race(contenders, rounds)
        report.contenders(contenders)
        start = contenders[0].cpu  # of a small one: mostly Python's own
        each = [
            (one.cpu - start) / (size - sizes[0]) for one, size in zip(contenders[1:], sizes[1:], strict=True)
        ]
        report.growth(unit, each, BOUND)
        for path in track.folder.glob("layer-*"):
            remove(path)


def entries(count: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """``count`` small files, a hundred to a directory."""
    for number in range(count):
        if number % 100 == 0:
            folder = tarfile.TarInfo(f"d{number // 10_000}/{number // 100}")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            yield folder, b""
        member = tarfile.TarInfo(f"d{number // 10_000}/{number // 100}/file-{number}")
        member.size = 100
        yield member, b"x" * 100


def megabytes(count: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Files of a megabyte."""
    data = random.Random(1).randbytes(1_000_000)
    for number in range(count):
        member = tarfile.TarInfo(f"file-{number}")
        member.size = len(data)
        yield member, data
