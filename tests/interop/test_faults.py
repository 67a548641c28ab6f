"""Every fault in every phase of a pull: once, and for ever. All ends in the right bytes or in an error with a name.

:data:`ENDS` says which of both, and why. What ends in an error is whole again with the next try.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import pytest

from ocidist.client import Client
from ocidist.errors import DeadlineExceeded, OcidistError, TransferError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.scope import Scope
from ocidist.server.faults import KINDS, PHASES
from ocidist.server.script import Script
from tests.interop.roots import assert_whole
from tests.parts.faulty import FaultyRegistry
from tests.parts.images import Entry, image, noise, sha256
from tests.parts.tables import Add, Table

pytestmark = pytest.mark.usefixtures("no_waiting")

TABLE = Table("Faults", ("fault", "phase", "times", "ends in", "because"))
IMAGE = image([[Entry("data/"), Entry("data/noise", noise(200_000))]])
RIGHT = "the right bytes"


class End(NamedTuple):
    """How a fault that happens once ends, how one that never ceases does, and why."""

    once: str
    always: str
    why: str


AGAIN = "asked again, five times at most"
PATIENCE = "slow is no fault"
KEPT = "what came is kept, and the rest is asked for"
ANEW = "what came does not verify: dropped, and fetched once more"
WHOLE_INSTEAD = "no range is to be had: the whole is asked for"
FOREIGN = "these are not the bytes that were asked for"
NO_DOCUMENT = "the answer is no such document"
CLEAR = "the answer is clear: another try would not change it"
NO_HTTP = "nobody there speaks HTTP"
REFUSED = "nothing is followed there, and nothing in that form is stored"
TOLD = "the digest that was asked for decides, not the header"
FRESH = "a token that is a moment old is asked for anew only once the server named another scope"
RENEWED = "a new token is asked for"
SIGNED = "the registry is asked once for another signed URL"
OTHER_WAY = "tokens are asked for with POST where GET is not found"
CIRCLE = "ten redirects at most"

BLOBS, DOCUMENTS = ("config", "layer", "resume", "redirect"), ("resolve", "manifest")
DROPS = {
    "*": End(RIGHT, "TransportError", AGAIN),
    **dict.fromkeys(("layer", "resume", "redirect"), End(RIGHT, RIGHT, KEPT)),
}
PASSING = {"*": End(RIGHT, "RegistryError", AGAIN)}
FOREIGN_BYTES = {
    "token": End("RegistryError", "RegistryError", NO_DOCUMENT),
    "tags": End("InvalidManifest", "InvalidManifest", NO_DOCUMENT),
    **dict.fromkeys(DOCUMENTS, End("DigestMismatch", "DigestMismatch", FOREIGN)),
    **dict.fromkeys(BLOBS, End("SizeMismatch", "SizeMismatch", FOREIGN)),
}
NEW_TOKEN = {
    "*": End("Unauthorized", "Unauthorized", FRESH),
    **dict.fromkeys(("config", "layer", "resume"), End(RIGHT, "Unauthorized", RENEWED)),
}

# Kind -> phase -> how it ends; "*" is all other phases.
ENDS: dict[str, dict[str, End]] = {
    "drop": DROPS,
    "truncate": DROPS,
    "stall": DROPS,
    "unframed": {
        **FOREIGN_BYTES,
        "config": End(RIGHT, "TransportError", AGAIN),
        **dict.fromkeys(("layer", "resume", "redirect"), End(RIGHT, RIGHT, KEPT)),
    },
    "short": {**FOREIGN_BYTES, "resume": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "long": {**FOREIGN_BYTES, "resume": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "html": {**FOREIGN_BYTES, "resolve": End("InvalidManifest", "InvalidManifest", NO_DOCUMENT)},
    "flip": {
        **FOREIGN_BYTES,
        **dict.fromkeys(BLOBS, End(RIGHT, "DigestMismatch", ANEW)),
        "resume": End(RIGHT, RIGHT, ANEW),
    },
    "close": {"*": End(RIGHT, "TransportError", AGAIN)},
    "silent": {"*": End(RIGHT, "TransportError", AGAIN)},
    "slow": {"*": End(RIGHT, RIGHT, PATIENCE)},
    "garbage": {"*": End("TransportError", "TransportError", NO_HTTP)},
    "loop": {"*": End(RIGHT, "TransportError", CIRCLE)},
    "downgrade": {"*": End("TransportError", "TransportError", REFUSED)},
    "encoded": {"*": End("RegistryError", "RegistryError", REFUSED)},
    "wrong-digest": {
        "resolve": End("DigestMismatch", "DigestMismatch", FOREIGN),
        "manifest": End(RIGHT, RIGHT, TOLD),
    },
    "wrong-type": {"*": End("InvalidManifest", "InvalidManifest", FOREIGN)},
    "ignore-range": {"*": End(RIGHT, RIGHT, KEPT)},
    "wrong-range": {"*": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "no-range": {"*": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "416": {
        "resume": End(RIGHT, RIGHT, WHOLE_INSTEAD),
        "redirect": End(RIGHT, "RegistryError", WHOLE_INSTEAD),
    },
    "expired": {"*": End(RIGHT, "Denied", SIGNED)},
    "token-expires": NEW_TOKEN,
    "400": {
        "*": End("RegistryError", "RegistryError", CLEAR),
        "redirect": End(RIGHT, "RegistryError", SIGNED),
    },
    "401": {
        **NEW_TOKEN,
        "token": End("Unauthorized", "Unauthorized", CLEAR),
        "redirect": End(RIGHT, "Unauthorized", SIGNED),
    },
    "403": {"*": End("Denied", "Denied", CLEAR), "redirect": End(RIGHT, "Denied", SIGNED)},
    "404": {"*": End("NotFound", "NotFound", CLEAR), "token": End(RIGHT, "NotFound", OTHER_WAY)},
    "408": PASSING,
    "429": {"*": End(RIGHT, "RateLimited", AGAIN)},
    "500": PASSING,
    "502": PASSING,
    "503": PASSING,
    "504": PASSING,
}


def end_of(kind: str, phase: str) -> End:
    """What :data:`ENDS` says."""
    return ENDS[kind].get(phase) or ENDS[kind]["*"]


CELLS = [(kind, phase) for kind in KINDS for phase in PHASES if phase in KINDS[kind].phases]


def asked_for(kind: str, phase: str, times: str) -> str:
    """The SPEC of a cell; a phase that only comes after another fault gets that first."""
    at = "@2000000" if kind == "slow" else ""
    if kind in ("drop", "truncate", "stall", "unframed") and phase in ("layer", "resume", "redirect"):
        at = "@30000"
    spec = f"{kind}{at};on={phase};times={times}"
    if phase == "resume":
        return f"drop@100000;on=layer {spec}"
    if phase == "redirect" and KINDS[kind].phases <= {"resume", "redirect"}:  # config and layer
        return f"drop@100000;on=redirect;times=2 {spec}"
    return spec


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries are a few milliseconds; how long they would have been."""
    asked: list[float] = []
    sleep = Scope.sleep

    def short(scope: Scope, seconds: float) -> None:
        asked.append(seconds)
        sleep(scope, min(seconds, 0.005))

    monkeypatch.setattr(Scope, "sleep", short)
    return asked


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Clients on one root, which wait ``idle`` seconds for bytes."""
    with contextlib.ExitStack() as stack:

        def make(idle: float = 60.0) -> Client:
            transport = stack.enter_context(HTTPTransport(HTTPOptions(idle_timeout=idle)))
            return Client(
                store=tmp_path / "root", plain_http=True, auth=("user", "password"), transport=transport
            )

        yield make


def run(client: Client, registry: FaultyRegistry, phase: str) -> str:
    """Do what has ``phase`` in it: RIGHT, or the name of the error, or of its cause in a transfer."""
    try:
        if phase == "tags":
            assert list(client.tags(registry.name)) == ["1"]
        elif phase == "manifest":
            client.fetch(f"{registry.name}@{IMAGE.digest}")
        else:
            client.fetch(f"{registry.name}:1")
    except OcidistError as error:
        return type(error.__cause__ if isinstance(error, TransferError) else error).__name__
    return RIGHT


@pytest.mark.parametrize("times", ["1", "always"])
@pytest.mark.parametrize(("kind", "phase"), CELLS, ids=lambda value: value)
def test_fault(
    kind: str,
    phase: str,
    times: str,
    tmp_path: Path,
    make_client: Callable[..., Client],
    table: Callable[[Table], Add],
) -> None:
    """The cell's end is the one that is stated; nothing torn is left, and afterwards the same command works."""
    expected = end_of(kind, phase)
    tokens = phase == "token" or kind in ("401", "token-expires")
    spec = asked_for(kind, phase, times)
    with FaultyRegistry({"1": IMAGE}, spec, tokens=tokens, redirect=phase == "redirect") as registry:
        ended = run(make_client(0.15 if kind in ("stall", "silent") else 60.0), registry, phase)
        happened = [where for where, fault in registry.script.happened if fault.kind == kind]
        assert phase in happened
        assert ended == (expected.once if times == "1" else expected.always)
        whole_so_far(tmp_path / "root")
        registry.script = Script()
        assert run(make_client(), registry, phase) == RIGHT
    if phase != "tags":
        assert_whole(tmp_path / "root", IMAGE)
    table(TABLE)(kind, phase, times, ended, expected.why)


def whole_so_far(root: Path) -> None:
    """Every blob that is there is what its name says."""
    for path in (root / "content/blobs/sha256").glob("*"):
        assert sha256(path.read_bytes()) == f"sha256:{path.name}"


def test_every_kind_of_fault_has_an_end() -> None:
    """A new one in the vocabulary is a missing line here."""
    assert set(ENDS) == set(KINDS)


@pytest.mark.parametrize("said", ["7", "Fri,_01_Jan_2100_00:00:00_GMT", "-5", "99999999999", "soon"])
def test_a08_retry_after_is_kept_to_in_bounds(
    said: str, make_client: Callable[..., Client], no_waiting: list[float]
) -> None:
    """Seconds and dates are waited for, up to a cap; what is negative, endless or no time is none."""
    spec = f"429;on=resolve;retry-after={said}"
    with FaultyRegistry({"1": IMAGE}, spec) as registry:
        assert run(make_client(), registry, "resolve") == RIGHT
    assert 0 <= no_waiting[0] <= 300
    if said == "7":
        assert no_waiting[0] == 7


def test_a06_a_partial_file_that_is_longer_than_declared(
    tmp_path: Path, make_client: Callable[..., Client]
) -> None:
    """It is dropped, and the blob fetched anew."""
    with FaultyRegistry(
        {"1": IMAGE}, "403;on=resume;times=always drop@100000;on=layer;times=always"
    ) as registry:
        assert run(make_client(), registry, "layer") == "Denied"
        (data,) = (tmp_path / "root").glob("content/ingest/*/data")
        with data.open("ab") as file:
            file.write(b"x" * 300_000)
        registry.script = Script()
        assert run(make_client(), registry, "layer") == RIGHT
    assert_whole(tmp_path / "root", IMAGE)


def test_a20_a_stalled_blob_does_not_stop_the_others(
    tmp_path: Path, make_client: Callable[..., Client]
) -> None:
    """Of five layers one never comes: the other four are there when the deadline ends it."""
    layers = [[Entry(f"f{number}", noise(20_000, str(number)))] for number in range(5)]
    made = image(layers)
    with FaultyRegistry({"1": made}, "stall;on=layer") as registry:
        scope = Scope.within(8)
        with pytest.raises(DeadlineExceeded):
            make_client().fetch(f"{registry.name}:1", scope=scope)
    blobs = {f"sha256:{path.name}" for path in (tmp_path / "root/content/blobs/sha256").iterdir()}
    assert len(blobs & {blob.digest for blob in made.blobs}) == 5  # the config, and four layers
