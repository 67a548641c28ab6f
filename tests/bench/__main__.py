"""``python -m tests.bench``: see the package."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import tests.bench
from tests.bench import growing, moving, place, starting
from tests.bench.measure import Failed, Track
from tests.bench.report import Report
from tests.parts.required import missing

GIB = 1 << 30


class Entry(NamedTuple):
    """A bench: what runs it, the parts it needs, and how many bytes of tmpfs."""

    run: Callable[[Track, Report, str, int], None]
    parts: tuple[str, ...] = ()
    space: int = GIB // 8


BENCHES = {
    "start": Entry(starting.start),
    "import": Entry(starting.imports),
    "fetch": Entry(moving.fetch, ("docker-registry", "skopeo", "mmdebstrap", "pigz", "root"), 5 * GIB),
    "pull": Entry(
        moving.pull,
        ("docker-registry", "skopeo", "umoci", "containerd", "ctr", "mmdebstrap", "pigz", "root"),
        4 * GIB,
    ),
    "unpack": Entry(
        moving.unpack, ("docker-registry", "umoci", "mmdebstrap", "pigz", "tar", "root"), 5 * GIB
    ),
    "growth": Entry(growing.growth, (), 3 * GIB),
}


def main() -> int:
    """0; 1 if in a soak a bound did not hold or was not measured; 2 for a place that will not do."""
    soak = os.environ.get("OCIDIST_SOAK") == "1"
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=tests.bench.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"{', '.join(BENCHES)} (all)")
    parser.add_argument(
        "--rounds", type=int, default=11 if soak else 5, help="rounds that count (%(default)s)"
    )
    parser.add_argument("--dir", default=place.DEFAULT, help="a folder on tmpfs (%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="what runs ocidist (this interpreter)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown or options.rounds < 1:
        parser.error(
            f"no bench {unknown[0]!r}; they are {', '.join(BENCHES)}" if unknown else "at least one round"
        )
    chosen = {name: BENCHES[name] for name in options.names or BENCHES}
    report = Report()
    try:
        with place.tmpfs(options.dir, max(entry.space for entry in chosen.values())) as folder:
            report.machine(options.dir, describe(options.python))
            for name, entry in chosen.items():
                run(name, entry, Track(folder / name), report, options)
    except place.Refused as refused:
        print(f"tests.bench: {refused}", file=sys.stderr)
        return 2
    for line in report.broken:
        print(f"\nDOES NOT HOLD  {line}")
    return 1 if soak and report.broken else 0


def run(name: str, entry: Entry, track: Track, report: Report, options: argparse.Namespace) -> None:
    """One bench; what the machine lacks for it is said."""
    lacking = [reason for reason in map(missing, entry.parts) if reason]
    if lacking:
        report.begin(name, "")
        report.skipped("; ".join(lacking))
        return
    try:
        entry.run(track, report, options.python, options.rounds)
    except Failed as error:
        report.skipped(str(error))


def describe(python: str) -> str:
    """The version of an interpreter, and which accelerator of ocidist's it has."""
    code = (
        "import sys, importlib.util as u\n"
        "fast = [n for n in ('isal', 'zlib_ng') if u.find_spec(n)]\n"
        "print('Python', sys.version.split()[0], 'with ' + fast[0] if fast else 'without accelerators')"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
