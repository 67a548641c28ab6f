"""Progress on a terminal, looked at through a small terminal of our own."""

from __future__ import annotations

import io
import json
import re
import threading

import pytest

from ocidist.progress import Advanced, Event, Failed, Finished, Named, Queued
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.mediatype import OCI_INDEX, OCI_LAYER_GZIP
from ocidist.terminal.bars import MODES, Bars, Json, Plain, Quiet, glyphs_for, make
from ocidist.view.progress import ASCII, BLOCKS

INDEX = Descriptor(OCI_INDEX, Digest.of(b"index"), 1800)
LAYERS = [Descriptor(OCI_LAYER_GZIP, Digest.of(b"%d" % at), 1_000_000) for at in range(40)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A screen that knows carriage return, line feed, cursor up, and both erasures; it counts scrolls."""

    encoding = "utf-8"

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows
        self.screen = [""]
        self.y = self.x = 0
        self.scrolled: list[str] = []
        self.widest = 0

    def size(self) -> tuple[int, int]:
        return self.columns, self.rows

    def write(self, text: str) -> int:
        super().write(text)
        for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            self._obey(part)
        return len(text)

    def _obey(self, part: str) -> None:
        if part == "\r":
            self.x = 0
        elif part == "\n":
            self.x, self.y = 0, self.y + 1
            if self.y == len(self.screen):
                self.screen.append("")
            if len(self.screen) > self.rows:
                self.scrolled.append(self.screen.pop(0))
                self.y -= 1
        elif part.startswith("\x1b["):
            number, letter = part[2:-1], part[-1]
            if letter == "A":
                self.y = max(self.y - int(number), 0)
            elif letter == "K":
                self.screen[self.y] = self.screen[self.y][: self.x]
            elif letter == "J":
                self.screen[self.y :] = [self.screen[self.y][: self.x]]
            else:
                assert letter == "m", part
        else:
            line = self.screen[self.y].ljust(self.x)
            self.screen[self.y] = line[: self.x] + part + line[self.x + len(part) :]
            self.x += len(part)
            self.widest = max(self.widest, self.x)

    def fold(self, columns: int) -> None:
        """Made narrower, as terminals that fold long lines do it."""
        new: list[str] = []
        for at, line in enumerate(self.screen):
            if at == self.y:
                self.y = len(new)
            new += [line[i : i + columns] for i in range(0, len(line), columns)] or [""]
        self.screen, self.columns = new, columns


def painted(terminal: Terminal, clock: Clock, *, colour: bool = True) -> Bars:
    bars = Bars(terminal, size=terminal.size, clock=clock, colour=colour)
    feed(bars, Named("r:1", INDEX), Queued(INDEX), *map(Queued, LAYERS[:3]), Finished(INDEX.digest, "copied"))
    return bars


def feed(progress: Quiet, *events: Event) -> None:
    for event in events:
        progress.observe(event)


def step(bars: Bars, clock: Clock, *events: Event) -> None:
    feed(bars, *events)
    clock.now += 0.2
    bars.tick()


def test_the_block_is_painted_in_place() -> None:
    """Paints replace each other; what stood above stays; the cursor ends below the block at the left."""
    terminal, clock = Terminal(), Clock()
    terminal.write("$ ocidist pull r:1\n")
    bars = painted(terminal, clock)
    for done in range(0, 1_000_001, 100_000):
        step(bars, clock, Advanced(LAYERS[0].digest, "fetch", done))
    assert terminal.screen[0] == "$ ocidist pull r:1"
    assert len(terminal.screen) == 1 + 1 + 4 + 1 + 1
    assert terminal.screen[3].endswith("█|   1.0 MB/1.0 MB")
    assert (terminal.x, terminal.screen[terminal.y]) == (0, "")
    assert terminal.scrolled == []
    assert terminal.widest <= 79


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 10), (40, 5), (20, 3), (200, 60), (10, 2)])
def test_a_block_never_wraps_and_never_scrolls(columns: int, rows: int) -> None:
    """With forty layers on any screen, up to the last paint."""
    terminal, clock = Terminal(columns, rows), Clock()
    bars = Bars(terminal, size=terminal.size, clock=clock)
    feed(bars, Named("docker.io/library/redis:7", INDEX), *map(Queued, LAYERS))
    for layer in LAYERS:
        step(bars, clock, Advanced(layer.digest, "fetch", 10), Finished(layer.digest, "copied"))
    assert terminal.scrolled == []
    assert len(terminal.screen) <= rows
    assert terminal.widest < columns


def test_the_last_paint_hides_nothing() -> None:
    """At the end every row is written, also where that scrolls, without waiting for the next paint."""
    terminal, clock = Terminal(80, 10), Clock()
    bars = Bars(terminal, size=terminal.size, clock=clock)
    feed(bars, Named("r:1", INDEX), *map(Queued, LAYERS))
    bars.tick()
    feed(bars, *(Finished(layer.digest, "copied") for layer in LAYERS))
    bars.tick()  # too soon to paint
    assert "fetched" not in "\n".join(terminal.screen)
    bars.final()
    text = "\n".join(terminal.scrolled + terminal.screen)
    assert all(f"layer-sha256:{layer.digest.short}" in text for layer in LAYERS)
    assert text.count(" fetched ") == 40
    assert "more:" not in text
    before = terminal.getvalue()
    bars.final()
    bars.tick()
    assert terminal.getvalue() == before


def test_paints_are_at_most_ten_a_second() -> None:
    """A hundred ticks in a second write about ten times."""
    terminal, clock = Terminal(), Clock()
    bars = painted(terminal, clock)
    writes = 0
    for _ in range(100):
        before = len(terminal.getvalue())
        bars.tick()
        writes += len(terminal.getvalue()) > before
        clock.now += 0.01
    assert 9 <= writes <= 11


@pytest.mark.parametrize("columns", [60, 40, 79, 120])
def test_a_resize_leaves_no_rubbish(columns: int) -> None:
    """After a fold to fewer columns the next paint starts at the block's first line."""
    terminal, clock = Terminal(80, 40), Clock()
    terminal.write("before\n")
    bars = painted(terminal, clock)
    step(bars, clock)
    terminal.fold(columns)
    step(bars, clock)
    assert terminal.screen[0] == "before"
    assert [line.split()[0] for line in terminal.screen[1:-1]] == [
        "r:1", *(line.split()[0] for line in terminal.screen[2:-2]), "elapsed:",
    ]  # fmt: skip
    assert len(terminal.screen) == 8
    assert all(len(line) < columns for line in terminal.screen)


def test_g67_a_warning_goes_above_the_block() -> None:
    """What is said while bars stand is kept above them, with escapes visible."""
    terminal, clock = Terminal(), Clock()
    bars = painted(terminal, clock)
    step(bars, clock)
    bars.say("warning: \x1b[31mslow")
    step(bars, clock)
    step(bars, clock)
    assert terminal.screen[0] == "warning: \\x1b[31mslow"
    assert terminal.screen[1].startswith("r:1")
    assert len(terminal.screen) == 8


def test_colour_only_where_it_is_asked_for() -> None:
    """Without colour no SGR sequence is written; with it the words are the same."""
    plain, coloured = Terminal(), Terminal()
    for terminal, colour in ((plain, False), (coloured, True)):
        bars = painted(terminal, Clock(), colour=colour)
        bars.final()
    assert not re.search(r"\x1b\[[0-9]*m", plain.getvalue())
    assert "\x1b[32mfetched\x1b[0m" in coloured.getvalue()
    assert plain.screen == coloured.screen


def test_bars_are_ascii_where_the_encoding_is() -> None:
    """A stream that can't take blocks gets plus signs, and no error for anything else."""

    def stream(encoding: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(), encoding=encoding)

    assert glyphs_for(stream("utf-8")) is BLOCKS
    assert glyphs_for(stream("ascii")) is glyphs_for(stream("latin-1")) is ASCII
    out = stream("ascii")
    bars = Bars(out, clock=Clock(), colour=False)
    feed(bars, Named("r:1", INDEX), Queued(INDEX), Failed(INDEX.digest, "naïve 漢字"))
    bars.final()
    out.seek(0)
    assert "failed    na?ve ??" in out.read()


def test_a_terminal_that_goes_away_ends_only_the_painting() -> None:
    """A closed pipe is no error."""

    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    terminal, clock = Gone(), Clock()
    bars = painted(terminal, clock)
    step(bars, clock)
    bars.final()
    assert bars.state.rows[INDEX.digest].status == "fetched"


def test_plain_lines() -> None:
    """A line for each thing that is done, a status line every five seconds, the sum at the end."""
    out, clock = io.StringIO(), Clock()
    plain = Plain(out, clock=clock)
    feed(plain, Named("r:1"), Named("r:1", INDEX), Queued(INDEX), *map(Queued, LAYERS[:2]))
    for _ in range(100):
        feed(plain, Advanced(LAYERS[0].digest, "fetch", 500_000))
        plain.tick()
        clock.now += 0.06
    feed(plain, *(Finished(found.digest, "copied") for found in (INDEX, *LAYERS[:2])))
    plain.final()
    first, second = (layer.digest.short for layer in LAYERS[:2])
    assert out.getvalue().splitlines() == [
        "r:1: resolving",
        f"r:1: resolved to {INDEX.digest}",
        "elapsed: 5.0 s  total: 500 kB of 2.0 MB (99.2 kB/s)  left: 15 s  0 of 3 done",
        f"index-sha256:{INDEX.digest.short}: fetched, 1.8 kB",
        f"layer-sha256:{first}: fetched, 1.0 MB",
        f"layer-sha256:{second}: fetched, 1.0 MB",
        "elapsed: 6.0 s  total: 2.0 MB (334 kB/s)",
    ]


def test_plain_says_what_is_unpacked() -> None:
    """Once all is here, the status line names the layer under way, and the rate stays as it was."""
    out, clock = io.StringIO(), Clock()
    plain = Plain(out, clock=clock)
    layer = LAYERS[0]
    feed(plain, Queued(layer))
    clock.now += 2
    feed(plain, Finished(layer.digest, "copied"))
    plain.tick()
    for done in (100_000, 500_000):
        clock.now += 5
        feed(plain, Advanced(layer.digest, "unpack", done))
        plain.tick()
    feed(plain, Finished(layer.digest, "unpacked", "unpack"))
    plain.final()
    name = f"layer-sha256:{layer.digest.short}"
    assert out.getvalue().splitlines() == [
        f"{name}: fetched, 1.0 MB",
        f"elapsed: 7.0 s  total: 1.0 MB (500 kB/s)  0 of 1 done, unpacking {name}, 100 kB of 1.0 MB",
        f"elapsed: 12 s  total: 1.0 MB (500 kB/s)  0 of 1 done, unpacking {name}, 500 kB of 1.0 MB",
        f"{name}: unpacked, 1.0 MB",
        "elapsed: 12 s  total: 1.0 MB (500 kB/s)",
    ]


def test_json_lines() -> None:
    """Each event is an object on a line of its own, ASCII, and the last says how it ended."""
    out, clock = io.StringIO(), Clock()
    progress = Json(out, clock=clock)
    feed(progress, Named("r:1\u202e", INDEX), Queued(INDEX), Finished(INDEX.digest, "copied"))
    progress.say("warning: x")
    clock.now += 1.5
    progress.final()
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [each["event"] for each in found] == ["named", "queued", "finished", "said", "ended"]
    assert found[1]["descriptor"] == {"mediaType": OCI_INDEX, "digest": str(INDEX.digest), "size": 1800}
    assert found[-1] == {
        "event": "ended", "done": 1800, "total": 1800, "transferred": 1800, "error": None, "elapsed": 1.5,
    }  # fmt: skip
    assert out.getvalue().isascii()


def test_modes() -> None:
    """auto is bars on a terminal and lines elsewhere; a dumb terminal gets lines; an unknown mode says which there are."""
    out = io.StringIO()
    kinds = {(mode, tty): type(make(mode, out, tty)) for mode in MODES for tty in (True, False)}
    assert kinds[("auto", True)] is kinds[("bar", True)] is kinds[("bar", False)] is Bars
    assert kinds[("auto", False)] is kinds[("plain", True)] is Plain
    assert kinds[("json", True)] is Json
    assert kinds[("none", True)] is Quiet
    assert type(make("bar", out, True, dumb=True)) is type(make("auto", out, True, dumb=True)) is Plain
    with pytest.raises(ValueError, match="plain"):
        make("fancy", out, True)
    with make("none", out, True) as quiet:
        feed(quiet, Queued(INDEX))
    assert INDEX.digest in quiet.state.rows
    assert out.getvalue() == ""


def test_events_come_from_any_thread() -> None:
    """Eight threads post while one paints; nothing is lost."""
    terminal, clock = Terminal(), Clock()
    bars = painted(terminal, clock)
    feed(bars, *map(Queued, LAYERS))

    def work(layer: Descriptor) -> None:
        for done in range(0, 1_000_000, 10_000):
            bars.observe(Advanced(layer.digest, "fetch", done))
        bars.observe(Finished(layer.digest, "copied"))

    threads = [threading.Thread(target=work, args=(layer,)) for layer in LAYERS[:8]]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        clock.now += 0.1
        bars.tick()
    for thread in threads:
        thread.join()
    bars.final()
    assert [bars.state.rows[layer.digest].status for layer in LAYERS[:8]] == ["fetched"] * 8
    assert bars.state.transferred == 8_000_000 + 1800


def test_plain_leaves_the_error_to_the_line_that_ends_the_command() -> None:
    """A failure is said once: not as progress and then again as the error."""
    out = io.StringIO()
    with make("plain", out, False) as plain:
        plain.observe(Failed(None, "no such host"))
        plain.tick()
    assert "no such host" not in out.getvalue()
    assert plain.state.error == "no such host"
