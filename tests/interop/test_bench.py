"""The benches' own machinery: what it refuses, what it measures, and when it says that a bound does not hold."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.bench import place
from tests.bench.measure import Contender, Cost, Failed, Track, plain
from tests.bench.report import MIB, Report, if_built
from tests.bench.starting import loaded
from tests.parts import gobuilt
from tests.parts.required import require


@pytest.fixture(autouse=True)
def a_system_with_processes() -> None:
    """Benches start programs and read /proc."""
    require("processes")


def contender(name: str, *walls: float, peak: int = 10 * MIB) -> Contender:
    """One that took these seconds."""
    return Contender(name, plain(), [Cost(wall, wall, peak) for wall in walls])


def test_another_file_system_than_tmpfs_is_refused() -> None:
    """/proc is certainly none; what to do about it is said."""
    with pytest.raises(place.Refused, match="/proc is on proc, and these benches need tmpfs; name another"):
        place.tmpfs("/proc", 0).__enter__()


def test_a_place_without_room_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Running out in the middle would look like a slow peer."""
    monkeypatch.setattr(place, "file_system", lambda _: "tmpfs")
    with pytest.raises(place.Refused, match="less than"):
        place.tmpfs(str(tmp_path), 1 << 60).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_the_place_is_empty_and_goes_at_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two benches at once do not meet."""
    monkeypatch.setattr(place, "file_system", lambda _: "tmpfs")
    with place.tmpfs(str(tmp_path), 1) as one, place.tmpfs(str(tmp_path), 1) as two:
        assert one != two
        (one / "left").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_process_tree_is_measured_whole(tmp_path: Path) -> None:
    """The memory of a grandchild counts, and so does its CPU time; commands follow one another."""
    work = "x = bytearray(96 << 20); s = sum(range(3_000_000))"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    mark = tmp_path / "mark"
    cost = Track(tmp_path / "track").once(
        Contender("two", plain([sys.executable, "-c", nested], ["touch", str(mark)])), every=0.005
    )
    assert mark.exists()
    assert cost.peak > 96 * MIB
    assert cost.cpu > 0
    assert cost.wall > 0


def test_a_contender_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    """A peer that did nothing must not win."""
    broken = Contender("broken", plain([sys.executable, "-c", "raise SystemExit('out of luck')"]))
    with pytest.raises(Failed, match="broken: ended with 1: out of luck"):
        Track(tmp_path / "track").once(broken)


def test_contenders_take_turns_and_the_first_round_does_not_count(tmp_path: Path) -> None:
    """A B A B: what disturbs the machine for a while disturbs both."""
    log = tmp_path / "log"
    both = [Contender(name, plain(["sh", "-c", f"echo {name} >> {log}"])) for name in "AB"]
    Track(tmp_path / "track").race(both, 2, every=0)
    assert log.read_text().split() == ["A", "B"] * 3
    assert [len(one.costs) for one in both] == [2, 2]


def test_bounds_are_on_medians_and_stand_beside_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """One slow round does not break a bound; a slow median does, and a bound may be met exactly."""
    report = Report()
    report.begin("race", "")
    report.ratio(contender("ours", 0.7, 0.7, 9.0), contender("peer", 1.0), 0.7)
    assert report.broken == []
    report.ratio(contender("ours", 0.1, 0.8, 0.8), contender("peer", 1.0), 0.7)
    assert report.broken == ["race: 0.80 × peer, bound 0.7 ×"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "bound" in line]
    assert [line.split("bound")[1].split("×")[1].strip() for line in lines] == ["holds", "DOES NOT HOLD"]


def test_the_largest_peak_counts_and_its_bound_excludes_itself() -> None:
    """ "Under 64 MiB" is not 64 MiB."""
    report = Report()
    one = contender("ours", 1.0, peak=64 * MIB - 1)
    report.peak(one, "", 64 * MIB)
    assert report.broken == []
    one.costs.append(Cost(1.0, 1.0, 64 * MIB))
    report.peak(one, "", 64 * MIB)
    assert len(report.broken) == 1


def test_modules_that_are_loaded_are_found(tmp_path: Path) -> None:
    """The list of what must not be loaded can fail."""
    report = Report()
    found = loaded(Track(tmp_path), sys.executable, "-c", "import ocidist, tarfile")
    report.absent("it", found, ("logging", "tarfile"))
    assert report.broken == [": it loads tarfile of logging, tarfile, bound none"]


def test_what_was_not_measured_does_not_hold() -> None:
    """A missing peer is no success."""
    report = Report()
    report.skipped("no peer")
    assert report.broken == [": not run: no peer"]


@pytest.mark.parametrize("required", ["", "all"])
def test_a_peer_that_go_does_not_build_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, required: str
) -> None:
    """Whether there is no Go or it fails, the others are measured; a build that failed leaves nothing in the cache."""
    cache, programs = tmp_path / "cache", tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("OCIDIST_REQUIRE", required)
    monkeypatch.setenv("OCIDIST_TEST_CACHE", str(cache))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("tests.parts.required._found", shutil.which)
    report = Report()
    assert if_built(report, lambda: contender(gobuilt.crane())) == []
    (programs / "go").write_text("#!/bin/sh\necho no such version >&2\nexit 1\n")
    (programs / "go").chmod(0o755)
    assert if_built(report, lambda: contender(gobuilt.crane())) == []
    assert report.broken == [
        ": not run: missing part: go (1.23 or later) is not installed",
        f": not run: missing part: go could not build {gobuilt.CRANE.path} {gobuilt.CRANE.version}: no such version",
    ]
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []
