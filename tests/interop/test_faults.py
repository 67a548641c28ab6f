"""Every fault in every phase of a pull: once, and for ever. All ends in the right bytes or in an error with a name.

:mod:`tests.interop.ends` says which of both, and why. What ends in an error is whole with the next try.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.errors import Cancelled, DeadlineExceeded, OcidistError, TransferError
from ocidist.net.http import HTTPOptions, HTTPTransport
from ocidist.scope import Scope
from ocidist.server.faults import KINDS, PHASES, parse_faults
from ocidist.server.script import Script
from tests.interop import roots
from tests.interop.ends import CELLS, ENDS, ENTRY, RIGHT, end_of, server_phase
from tests.parts.faulty import REPOSITORY, FaultyRegistry
from tests.parts.images import Entry, image, index, noise, sha256
from tests.parts.tables import Add, Table

TABLE = Table("Faults", ("fault", "phase", "times", "ends in", "because"))
KEPT = Table("Faults on what an earlier run left", ("left", "fault", "times", "ends in", "asked for"))
LIMITS = Table("Faults under --timeout", ("fault", "phase", "ends in"))
IMAGE = image([[Entry("data/"), Entry("data/noise", noise(200_000))]])
INDEX = index([IMAGE])
HUB = "registry-1.docker.io:80"


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


MakeClient = Callable[..., Client]


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[MakeClient]:
    """Clients of a registry on one root, which wait ``idle`` seconds for bytes. It is Docker Hub to them, too."""
    with contextlib.ExitStack() as stack:

        def make(registry: FaultyRegistry, idle: float = 60.0, root: str = "root", **more: Any) -> Client:
            to = {HUB: ("127.0.0.1", registry.registry.port)}
            transport = stack.enter_context(HTTPTransport(HTTPOptions(idle_timeout=idle, connect_to=to)))
            return Client(
                store=tmp_path / root,
                plain_http=True,
                auth=("user", "password"),
                platform="linux/amd64",
                transport=transport,
                **more,
            )

        yield make


def name_in(registry: FaultyRegistry, phase: str) -> str:
    """What is pulled so that ``phase`` is in it."""
    if phase == "head":
        return f"docker.io/{REPOSITORY}:1"
    if phase == "manifest":
        return f"{registry.name}@{IMAGE.digest}"
    return f"{registry.name}:{'many' if phase == ENTRY else '1'}"


def run(client: Client, registry: FaultyRegistry, phase: str, scope: Scope | None = None) -> str:
    """Do what has ``phase`` in it: RIGHT, or the name of the error, or of its cause in a transfer."""
    try:
        if phase == "tags":
            assert sorted(client.tags(registry.name, scope=scope)) == ["1", "many"]
        else:
            client.pull(name_in(registry, phase), scope=scope)
    except OcidistError as error:
        assert_clear(error, registry)
        return type(error.__cause__ if isinstance(error, TransferError) else error).__name__
    return RIGHT


def assert_clear(error: OcidistError, registry: FaultyRegistry) -> None:
    """B29: one line that names what it is about, each digest once, and shows no secret."""
    said = str(error)
    assert "\n" not in said
    if not isinstance(error, (Cancelled, DeadlineExceeded)):
        servers = (registry.registry, registry.storage, registry.tokens)
        hosts = [server.address for server in servers if server is not None]
        assert any(name in said for name in (*hosts, "docker.io", "sha256:"))
    for secret in ("password", *registry.given, *registry.signatures):
        assert secret not in said


def spec_of(kind: str, phase: str, times: str) -> str:
    """The SPEC of a cell; a phase that only comes after another fault gets that first."""
    at = "@2000000" if kind == "slow" else ""
    if kind in ("drop", "truncate", "stall", "unframed") and phase in ("layer", "resume", "redirect"):
        at = "@70000"
    spec = f"{kind}{at};on={server_phase(phase)};times={times}"
    if phase == "resume":
        return f"drop@100000;on=layer {spec}"
    if phase == "redirect" and KINDS[kind].phases <= {"resume", "redirect"}:  # config and layer
        return f"drop@100000;on=redirect;times=2 {spec}"
    return spec


def serving(spec: str, phase: str = "", *, tokens: bool = False) -> FaultyRegistry:
    """A registry of the image, alone and in an index, with the parts that ``phase`` takes."""
    tokens = tokens or phase == "token"
    return FaultyRegistry({"1": IMAGE, "many": INDEX}, spec, tokens=tokens, redirect=phase == "redirect")


def assert_nothing_torn(client: Client, registry: FaultyRegistry, phase: str) -> None:
    """Every blob that is there is what its name says; nothing bears the name, and nothing is unpacked."""
    for path in (client.store.root / "content/blobs/sha256").glob("*"):
        assert sha256(path.read_bytes()) == f"sha256:{path.name}"
    assert phase == "tags" or client.store.find_image(name_in(registry, phase)) is None


def assert_right(client: Client, registry: FaultyRegistry, phase: str) -> None:
    """The image is here, whole, named and unpacked, and nothing else is."""
    if phase != "tags":
        wanted = INDEX if phase == ENTRY else IMAGE
        roots.assert_whole(client.store.root, wanted)
        target, _ = client.store.resolve(name_in(registry, phase), Scope())
        assert target.digest == wanted.digest
        assert len(roots.snapshots(client.store.root)) == 1


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("times", ["1", "always"])
@pytest.mark.parametrize(("kind", "phase"), CELLS, ids=lambda value: value)
def test_fault(
    kind: str, phase: str, times: str, make_client: MakeClient, table: Callable[[Table], Add]
) -> None:
    """The cell's end is the one that is stated; nothing torn is left, and afterwards the same command works."""
    expected = end_of(kind, phase).once if times == "1" else end_of(kind, phase).always
    # A wait for bytes that are sure not to come may be short; one that has to be made good must not end others.
    idle = 60.0 if kind not in ("stall", "silent") else 1.0 if expected == RIGHT else 0.15
    tokens = kind in ("401", "token-expires")
    with serving(spec_of(kind, phase, times), phase, tokens=tokens) as registry:
        client = make_client(registry, idle)
        ended = run(client, registry, phase)
        assert server_phase(phase) in [
            where for where, fault in registry.script.happened if fault.kind == kind
        ]
        assert ended == expected
        if ended != RIGHT:
            assert_nothing_torn(client, registry, phase)
            registry.script = Script()
            client = make_client(registry)
            assert run(client, registry, phase) == RIGHT
        assert_right(client, registry, phase)
        if registry.storage is not None:
            assert registry.storage.authorizations() == []
    table(TABLE)(kind, phase, times, ended, end_of(kind, phase).why)


def test_every_kind_of_fault_has_an_end() -> None:
    """A new one in the vocabulary is a missing line here."""
    assert set(ENDS) == set(KINDS)
    assert {phase for _, phase in CELLS} == {*PHASES, ENTRY}


# -- what an earlier run left --

LAYER = IMAGE.blobs[1]
LEFT: dict[str, bytes] = {
    "a part": LAYER.raw[:100_000],
    "all of it": LAYER.raw,
    "more than all": LAYER.raw + b"x" * 300_000,
    "a part of another": b"x" * 100_000,
    "all of another": b"x" * len(LAYER.raw),
}
# What is left, the fault, how it ends, and the statuses of the answers to reads of the layer.
GOES_ON = [
    ("a part", "", RIGHT, "206"),
    ("a part", "ignore-range;on=resume", RIGHT, "200"),
    ("a part", "416;on=resume;times=always", RIGHT, "416 200"),
    ("a part", "wrong-range;on=resume;times=always", RIGHT, "206 200"),
    ("a part", "no-range;on=resume;times=always", RIGHT, "206 200"),
    ("a part", "flip;on=resume;times=always", RIGHT, "206 200"),
    ("a part", "truncate@9;on=resume", RIGHT, "206 206"),
    ("a part", "503;on=resume", RIGHT, "503 206"),
    ("a part", "token-expires;on=resume", RIGHT, "401 206"),
    ("a part", "401;on=resume;times=always", "Unauthorized", "401 401"),
    ("a part", "404;on=resume;times=always", "NotFound", "404"),
    ("all of it", "404;on=layer,resume;times=always", RIGHT, ""),
    ("more than all", "", RIGHT, "200"),
    ("a part of another", "", RIGHT, "206 200"),
    ("a part of another", "flip;on=layer;times=always", "DigestMismatch", "206 200"),
    ("all of another", "", RIGHT, "200"),
    ("all of another", "flip;on=layer;times=always", "DigestMismatch", "200 200"),
]


def leave(client: Client, registry: FaultyRegistry, data: bytes) -> Path:
    """A pull that ends in the middle of the layer, whose ingest then holds ``data``."""
    registry.script = Script(parse_faults("truncate@100000;on=layer 403;on=resume"))
    assert run(client, registry, "layer") == "Denied"
    refs = client.store.root.glob("content/ingest/*/ref")  # the config's may be there, too
    found = next(ref.parent / "data" for ref in refs if ref.read_text().endswith(LAYER.digest))
    assert found.read_bytes() == LAYER.raw[:100_000]
    found.write_bytes(data)
    return found


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("left", "fault", "ends", "asked"), GOES_ON)
def test_a06_what_an_earlier_run_left_is_gone_on_with_or_dropped(
    left: str, fault: str, ends: str, asked: str, make_client: MakeClient, table: Callable[[Table], Add]
) -> None:
    """A5, A6: the rest is asked for, or the whole, once; what never verifies is dropped, what may yet is kept."""
    with serving("", tokens="token" in fault or "401" in fault) as registry:
        data = leave(make_client(registry), registry, LEFT[left])
        registry.script = Script(parse_faults(fault))
        client = make_client(registry)
        client.resolve(name_in(registry, "layer"))  # with what token it takes
        registry.registry.forget()
        assert run(client, registry, "layer") == ends
        statuses = [record.status for record in registry.registry.records if record.digest == LAYER.digest]
        assert " ".join(map(str, statuses)) == asked
        if ends != RIGHT:
            kept = data.read_bytes() if data.exists() else b""
            assert kept == (b"" if ends == "DigestMismatch" else LEFT[left])
            assert_nothing_torn(client, registry, "layer")
            registry.script = Script()
            assert run(make_client(registry), registry, "layer") == RIGHT
        assert_right(client, registry, "layer")
    table(KEPT)(
        left, fault.partition(";")[0] or "none", "always" if "always" in fault else "1", ends, asked or "-"
    )


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("fault", ["404;on=layer", "flip;on=layer;times=always", "wrong-type;on=resolve"])
def test_a_pull_that_fails_leaves_the_old_image_under_its_name(fault: str, make_client: MakeClient) -> None:
    """A tag that moved is what it was, whole, until the new image is here, whole."""
    newer = image([[Entry("data/newer", noise(5_000, "newer"))]])
    with FaultyRegistry({"1": IMAGE, "2": newer}) as registry:
        client = make_client(registry)
        name = f"{registry.name}:1"
        client.pull(name)
        registry.tags["1"] = registry.tags["2"]
        registry.script = Script(parse_faults(fault))
        with pytest.raises(OcidistError):
            client.pull(name)
        assert client.store.get_image(name).digest == IMAGE.digest
        assert set(IMAGE.everything()) <= set(roots.blobs(client.store.root))
        registry.script = Script()
        client.pull(name)
        assert client.store.get_image(name).digest == newer.digest


# -- time --


@pytest.mark.parametrize("said", ["7", "Fri,_01_Jan_2100_00:00:00_GMT", "-5", "99999999999", "soon"])
@pytest.mark.parametrize("phase", ["resolve", "token", "layer"])
def test_a08_retry_after_is_kept_to_within_bounds(
    said: str, phase: str, make_client: MakeClient, no_waiting: list[float]
) -> None:
    """Seconds and dates are waited for, a minute at most; what is negative or no time means the usual pause."""
    with serving(f"429;on={phase};retry-after={said}", phase) as registry:
        assert run(make_client(registry), registry, phase) == RIGHT
    first = next(seconds for seconds in no_waiting if seconds > 0.06)  # shorter ones are looks for something
    if said in ("-5", "soon"):
        assert 0.25 <= first <= 0.75
    else:
        assert first == (7 if said == "7" else 60)


def test_a08_a_pause_ends_with_its_pull(make_client: MakeClient) -> None:
    """However long the registry wants us to wait: who cancels does not."""
    with serving("429;on=layer;retry-after=60;times=always") as registry:
        scope = Scope()
        with ThreadPoolExecutor(1) as pool:
            pulling = pool.submit(run, make_client(registry), registry, "layer", scope)
            until(lambda: registry.script.happened != ())
            scope.cancel()
            assert pulling.result(30) == "Cancelled"


TRICKLES = {"slow": 1, "endless-interim": 8, "endless-headers": 8, "endless-body": 8, "endless-trailers": 8}


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("kind", TRICKLES)
def test_a17_a_time_limit_bounds_the_whole_in_every_phase(
    kind: str, make_client: MakeClient, table: Callable[[Table], Add]
) -> None:
    """Some bytes a second, for ever: no wait for them is long, and all ends when the time is up."""

    def one(phase: str) -> None:
        before = "truncate@100000;on=layer " if phase == "resume" else ""
        spec = f"{before}{kind}@{TRICKLES[kind]};on={server_phase(phase)};times=always"
        for seconds in (1, 8, 40):  # on a busy machine the phase is not reached in a second
            with serving(spec, phase) as registry:
                begin = time.monotonic()
                client = make_client(registry, root=f"{phase}-{seconds}")
                assert run(client, registry, phase, Scope.within(seconds)) == "DeadlineExceeded"
                assert time.monotonic() - begin < seconds + 20
                assert_nothing_torn(client, registry, phase)
                if kind in [fault.kind for _, fault in registry.script.happened]:
                    return
        pytest.fail(f"{phase} was never reached")

    phases = [phase for found, phase in CELLS if found == kind]
    with ThreadPoolExecutor(len(phases)) as pool:
        list(pool.map(one, phases))
    for phase in phases:
        table(LIMITS)(kind, phase, "DeadlineExceeded")


def until(test: Callable[[], bool]) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + 60
    while not test():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


@pytest.mark.parametrize("kind", ["stall", "silent", "slow@1", "endless-interim@8"])
def test_a20_a_fetch_that_stands_still_stops_no_other(kind: str, make_client: MakeClient) -> None:
    """Of five layers one never comes: the others arrive, and so do other pulls of the same client."""
    made = image([[Entry(f"f{number}", noise(20_000, str(number)))] for number in range(5)])
    other = image([[Entry("other", noise(20_000, "other"))]])
    with FaultyRegistry({"1": made, "2": other}) as registry:
        client = make_client(registry, idle=600)
        registry.script = Script(parse_faults(f"{kind};on=layer"))
        scope = Scope()
        with ThreadPoolExecutor(1) as pool:
            pulling = pool.submit(run, client, registry, "layer", scope)
            wanted = {blob.digest for blob in made.blobs}
            until(
                lambda: len(wanted & set(roots.blobs(client.store.root))) == 5
            )  # the config, and four layers
            assert client.pull(f"{registry.name}:2").descriptor.digest == other.digest
            assert not pulling.done()
            scope.cancel()
            assert pulling.result(30) == "Cancelled"
