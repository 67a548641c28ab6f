"""What a bench prints: a line for each contender, then each figure with its bound."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import pytest

from tests.bench.measure import Contender

MIB = 1 << 20


class Report:
    """Prints as it goes; ``broken`` are the bounds that did not hold."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._bench = ""

    def line(self, text: str = "") -> None:
        """One line, at once."""
        print(text, flush=True)

    def machine(self, place: str, python: str) -> None:
        """What the figures were measured on."""
        cores = len(os.sched_getaffinity(0))
        load = os.getloadavg()[0]
        busy = "  (busy: wall ratios are not to be trusted)" if load > cores / 2 else ""
        self.line(
            f"{cores} cores, load {load:.1f}{busy}; {place} is tmpfs; {python}, run by {sys.version.split()[0]}"
        )

    def begin(self, bench: str, what: str) -> None:
        """The heading of a bench."""
        self._bench = bench
        self.line(f"\n{bench}: {what}")

    def contenders(self, contenders: Sequence[Contender]) -> None:
        """A line for each: medians, and the spread of the wall clock."""
        width = max(len(contender.name) for contender in contenders)
        for one in contenders:
            walls = sorted(cost.wall for cost in one.costs)
            self.line(
                f"  {one.name:<{width}}  wall {_time(one.wall)} ({_time(walls[0]).strip()} to "
                f"{_time(walls[-1]).strip()})  cpu {_time(one.cpu)}  peak {one.peak / MIB:5.0f} MiB"
            )

    def ratio(self, ours: Contender, peer: Contender, bound: float | None = None) -> None:
        """Our wall clock over the peer's, with its bound; CPU for information."""
        found = ours.wall / peer.wall
        self._figure("wall", f"{found:.2f} × {peer.name}", found, bound, f"{bound} ×")
        self._figure("cpu", f"{ours.cpu / peer.cpu:.2f} × {peer.name}", 0, None, "")

    def above(self, ours: Contender, bare: Contender, budget: float) -> None:
        """Our wall clock beyond that of ``bare``, with a budget in seconds."""
        found = ours.wall - bare.wall
        figure = f"{_time(found).strip()} over {bare.name}"
        self._figure("budget", figure, found, budget, f"{budget * 1000:.0f} ms")

    def peak(self, ours: Contender, what: str, bound: int) -> None:
        """Our peak memory, in bytes, with its bound (exclusive)."""
        figure = f"{ours.peak / MIB:.1f} MiB {what}"
        self._figure("peak", figure, ours.peak, bound - 1, f"under {bound // MIB} MiB")

    def growth(self, unit: str, each: Sequence[float], bound: float) -> None:
        """What one of ``unit`` costs in seconds of CPU, in ever larger runs: the last over the first, with its bound."""
        shown = ", ".join(f"{1e6 * cost:.1f}" for cost in each)
        figure = f"{each[-1] / each[0]:.2f} × (µs each of {unit}: {shown})"
        self._figure("growth", figure, each[-1] / each[0], bound, f"{bound} ×")

    def absent(self, what: str, loaded: set[str], unwanted: Sequence[str]) -> None:
        """That none of the ``unwanted`` modules is among the ``loaded``."""
        found = [name for name in unwanted if name in loaded]
        figure = f"{what} loads {', '.join(found) or 'none'} of {', '.join(unwanted)}"
        self._figure("modules", figure, len(found), 0, "none")

    def _figure(self, kind: str, text: str, value: float, bound: float | None, said: str) -> None:
        if bound is None:
            self.line(f"  {kind:<7} {text}")
            return
        holds = value <= bound
        self.line(f"  {kind:<7} {text:<46} bound {said:<13} {'holds' if holds else 'DOES NOT HOLD'}")
        if not holds:
            self.broken.append(f"{self._bench}: {text}, bound {said}")

    def skipped(self, why: str) -> None:
        """A bench, or a part of one, that could not run: a bound that nobody measured does not hold."""
        self.line(f"  not run: {why}")
        self.broken.append(f"{self._bench}: not run: {why}")


def _time(seconds: float) -> str:
    return f"{seconds * 1000:6.1f} ms" if seconds < 0.5 else f"{seconds:6.2f} s "


def if_built(report: Report, make: Callable[[], Contender]) -> list[Contender]:
    """The contender alone; without what builds it, none, and the report says why."""
    try:
        return [make()]
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        report.skipped(str(error))
        return []
