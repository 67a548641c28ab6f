"""A transfer as lines: they never wrap, never scroll, and say what is going on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.progress import (
    Advanced,
    Event,
    Failed,
    Finished,
    Named,
    ProgressState,
    Queued,
    Resumed,
    Retrying,
    Waiting,
)
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.view.progress import (
    ASCII,
    BLOCKS,
    choose,
    event_line,
    event_object,
    label,
    lines,
    summary,
    unpacking,
)
from ocidist.view.text import width

TYPES = [
    mediatype.OCI_INDEX,
    mediatype.OCI_MANIFEST,
    mediatype.OCI_CONFIG,
    mediatype.OCI_LAYER_GZIP,
    "application/x-other",
]


def descriptor(at: int, size: int = 1000, media_type: str = mediatype.OCI_LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type, Digest.of(b"%d" % at), size)


def after(*events: Event) -> ProgressState:
    state = ProgressState()
    for event in events:
        state = state.apply(event)
    return state


INDEX, MANIFEST, LAYER = (
    descriptor(0, 1800, mediatype.OCI_INDEX),
    descriptor(1, 1200, mediatype.OCI_MANIFEST),
    descriptor(2, 40_000_000),
)
BEGUN = (Named("docker.io/library/redis:7", INDEX), Queued(INDEX), Finished(INDEX.digest, "copied"))


def test_a_pull_at_eighty_columns() -> None:
    """One line each for the reference, the manifests and the layers, then the sum."""
    state = after(
        *BEGUN, Queued(MANIFEST), Queued(LAYER), Finished(MANIFEST.digest, "exists"),
        Advanced(LAYER.digest, "fetch", 10_000_000),
    )  # fmt: skip
    index, manifest, layer = (target.digest.short for target in (INDEX, MANIFEST, LAYER))
    full = f"|{'+' * 23}|"
    assert lines(state, 80, 24, 1.0, glyphs=ASCII) == [
        "docker.io/library/redis:7    resolved",
        f"index-sha256:{index}    fetched   {full}          1.8 kB",
        f"manifest-sha256:{manifest} exists    {full}          1.2 kB",
        f"layer-sha256:{layer}    fetching  |{'+' * 5}{'-' * 18}| 10.0 MB/40.0 MB",
        "elapsed: 1.0 s  total: 10.0 MB of 40.0 MB (10.0 MB/s)",
    ]


def test_words_of_the_reference() -> None:
    """Resolving until it has a descriptor; failed when the whole did."""
    assert lines(after(Named("r:1")), 80, 24, 0.0)[0].split() == ["r:1", "resolving"]
    assert lines(after(*BEGUN), 80, 24, 0.0)[0].split()[1] == "resolved"
    assert lines(after(*BEGUN, Failed(None, "no")), 80, 24, 0.0)[0].split()[1] == "failed"
    long = lines(after(Named("r" * 200, INDEX)), 80, 24, 0.0)[0]
    assert width(long) <= 80
    assert long.endswith(" resolved")


def test_notes_stand_where_the_bar_was() -> None:
    """Why something waits, is tried again or failed is on its line, with escapes."""
    for event, words in (
        (Waiting(LAYER.digest, "another process has it"), "waiting   another process has it"),
        (Retrying(LAYER.digest, 2, 1.0, "connection reset"), "retrying  connection reset"),
        (Failed(LAYER.digest, "digest\x1b[31m"), "failed    digest\\x1b[31m"),
    ):
        assert words in lines(after(*BEGUN, Queued(LAYER), event), 80, 24, 0.0)[2]


def test_layers_beyond_the_screen_are_counted() -> None:
    """Those that failed or move are shown, in their order; the rest is one line."""
    layers = [descriptor(at, 1000) for at in range(10, 40)]
    state = after(
        *BEGUN,
        *map(Queued, layers),
        Advanced(layers[20].digest, "fetch", 1),
        Failed(layers[25].digest, "no"),
        *(Finished(layer.digest, "copied") for layer in layers[:10]),
    )
    shown = lines(state, 80, 7, 1.0)
    assert len(shown) == 7
    assert [line.split()[1] for line in shown[1:5]] == ["fetched", "fetched", "fetching", "failed"]
    assert layers[9].digest.short in shown[2]
    assert shown[5] == "+ 27 more: 18 queued, 9 fetched"
    assert shown[6].startswith("elapsed: 1.0 s")


def test_the_sum_says_what_was_there() -> None:
    """Bytes that did not move are told apart at the end; time left only while it is known."""
    state = after(*BEGUN, Queued(LAYER))
    assert summary(state, 1.0) == "elapsed: 1.0 s  total: 1.8 kB of 40.0 MB (1.8 kB/s)"
    moving = state.apply(Advanced(LAYER.digest, "fetch", 10_000_000))
    assert summary(moving, 10.0).endswith("(1.0 MB/s)  left: 30 s")
    assert summary(state.apply(Finished(LAYER.digest, "exists")), 1.0) == (
        "elapsed: 1.0 s  total: 40.0 MB (1.8 kB/s), 40.0 MB already there"
    )
    assert summary(ProgressState(), 0.0) == "elapsed: 0.0 s  total: 0 B"


def test_the_rate_does_not_decay_while_layers_are_unpacked() -> None:
    """It is over the seconds that bytes moved in, or left out where those are not known."""
    state = after(*BEGUN, Queued(LAYER), Finished(LAYER.digest, "copied"))
    assert summary(state, 10.0) == "elapsed: 10 s  total: 40.0 MB (4.0 MB/s)"
    assert unpacking(state) == ""
    state = state.apply(Advanced(LAYER.digest, "unpack", 8_000_000))
    assert summary(state, 60.0, 10.0) == "elapsed: 1 min 00 s  total: 40.0 MB (4.0 MB/s)"
    assert summary(state, 60.0) == "elapsed: 1 min 00 s  total: 40.0 MB"
    assert unpacking(state) == f"unpacking layer-sha256:{LAYER.digest.short}, 8.0 MB of 40.0 MB"


DESCRIPTORS = st.builds(
    descriptor, st.integers(0, 40), st.integers(0, 2**63 - 1), st.sampled_from([*TYPES, "\x1b[2J"])
)
DIGESTS = st.integers(0, 40).map(lambda at: descriptor(at).digest)
EVENTS = st.one_of(
    st.builds(Named, st.text(), st.none() | DESCRIPTORS),
    st.builds(Queued, DESCRIPTORS),
    st.builds(Waiting, DIGESTS, st.text()),
    st.builds(
        Advanced, DIGESTS, st.sampled_from(["fetch", "push", "unpack", "o\x00dd"]), st.integers(0, 2**64)
    ),
    st.builds(Retrying, st.none() | DIGESTS, st.integers(1, 9), st.floats(0, 99), st.text()),
    st.builds(Resumed, DIGESTS, st.integers(0, 2**63)),
    st.builds(Finished, DIGESTS, st.sampled_from(["copied", "exists", "mounted", "unpacked"])),
    st.builds(Failed, st.none() | DIGESTS, st.text()),
)


@given(
    st.lists(EVENTS, max_size=60), st.integers(0, 130), st.integers(0, 30), st.floats(0, 1e7), st.booleans()
)
def test_lines_never_wrap_and_never_scroll(
    events: list[Event], cells: int, height: int, elapsed: float, blocks: bool
) -> None:
    """For any events and any screen: at most so wide, at most so many, all printable, the sum last."""
    state = after(*events)
    shown = lines(state, cells, height, elapsed, glyphs=BLOCKS if blocks else ASCII)
    assert len(shown) <= height
    assert all(width(line) <= cells and line.isprintable() for line in shown)
    if cells > 20 and height:
        assert shown[-1].startswith("elapsed: ")
    rows = len(state.rows)
    if cells > 20 and height > rows + 1:
        assert len(shown) == rows + 1 + bool(state.reference)
        assert not any(line.startswith("+ ") for line in shown)


@given(st.lists(EVENTS, max_size=60), st.integers(0, 50))
def test_choosing_loses_no_row(events: list[Event], room: int) -> None:
    """Shown and left out are all rows, each in its order, and no idle row is shown for a moving one."""
    rows = tuple(after(*events).rows.values())
    shown, left = choose(rows, room)
    assert len(shown) == min(room, len(rows))
    assert set(shown) | set(left) == set(rows)
    assert [row for row in rows if row in shown] == list(shown)
    if any(row.status == "failed" for row in left):
        assert all(row.status == "failed" for row in shown)


@given(st.integers(0, 100), st.floats())
def test_a_bar_has_its_cells(cells: int, part: float) -> None:
    """A bar is as wide as asked for, and full only when all is there."""
    if part != part:
        part = 0.0
    for glyphs in (BLOCKS, ASCII):
        bar = glyphs.bar(cells, part)
        assert len(bar) == max(cells, 2)
        if cells > 2:
            assert (set(bar[1:-1]) == {glyphs.parts[-1]}) == (part >= 1.0)


def test_a_label_names_kind_and_digest() -> None:
    """The kind by its media type, twelve hexadecimal digits, and the algorithm where there is room."""
    row = after(Queued(LAYER)).rows[LAYER.digest]
    assert label(row) == f"layer-sha256:{LAYER.digest.short}"
    assert label(row, short=True) == f"layer-{LAYER.digest.short}"


@pytest.mark.parametrize(
    ("event", "line", "found"),
    [
        (
            Named("r:1", INDEX),
            f"r:1: resolved to {INDEX.digest}",
            {
                "event": "named",
                "reference": "r:1",
                "descriptor": {"mediaType": INDEX.media_type, "digest": INDEX.digest, "size": 1800},
            },
        ),
        (
            Finished(LAYER.digest, "copied"),
            f"layer-sha256:{LAYER.digest.short}: fetched, 40.0 MB",
            {"event": "finished", "digest": LAYER.digest, "outcome": "copied", "phase": "fetch"},
        ),
        (
            Advanced(LAYER.digest, "fetch", 5),
            "",
            {"event": "advanced", "digest": LAYER.digest, "phase": "fetch", "done": 5, "total": 0},
        ),
        (
            Failed(None, "no\x1b"),
            "r:1: failed: no\\x1b",
            {"event": "failed", "digest": None, "error": "no\x1b", "interrupted": False},
        ),
        (
            Retrying(LAYER.digest, 2, 0.5, "reset"),
            f"layer-sha256:{LAYER.digest.short}: attempt 2 in 0.5 s: reset",
            {"event": "retrying", "digest": LAYER.digest, "attempt": 2, "after": 0.5, "why": "reset"},
        ),
        (
            Resumed(LAYER.digest, 7_000_000),
            f"layer-sha256:{LAYER.digest.short}: resumed at 7.0 MB of 40.0 MB",
            {"event": "resumed", "digest": LAYER.digest, "at": 7_000_000},
        ),
    ],
)
def test_events_as_words_and_as_objects(event: Event, line: str, found: dict[str, Any]) -> None:
    """Each event has a line for a log, or none, and an object that JSON takes."""
    state = after(Named("r:1"), Queued(LAYER), event)
    assert event_line(event, state) == line
    assert json.loads(json.dumps(event_object(event))) == found


@given(st.lists(EVENTS, max_size=20))
def test_g67_lines_of_a_log_are_printable(events: list[Event]) -> None:
    """No event's line holds what a terminal would obey."""
    state = ProgressState()
    for event in events:
        state = state.apply(event)
        assert event_line(event, state).isprintable()
        json.dumps(event_object(event))
