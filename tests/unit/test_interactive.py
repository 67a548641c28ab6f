"""What a notebook calls, in a plain Python: offline from cassettes, with text bars, and nothing loaded that isn't used."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

import ocidist as oci
from ocidist import interactive
from ocidist.client import Client
from ocidist.errors import MissingExtra, TransportError, UsageError
from ocidist.net.message import Request, Response
from ocidist.scope import Scope
from tests.parts.faulty import REPOSITORY, FaultyRegistry
from tests.parts.images import Entry, image
from tests.parts.required import require
from tests.parts.scripted import ScriptedResponse

ROOT = Path(__file__).resolve().parents[2]
SHOP = "registry.example/demo/shop:1.0"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OCIDIST_REPLAY", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OCIDIST_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(interactive, "_client", None)
    monkeypatch.chdir(ROOT)  # cassettes are found from here


class Refusing:
    """A network that is not to be asked."""

    def send(self, request: Request, scope: Scope) -> Response:
        raise AssertionError(f"asked for {request.url}")

    def close(self) -> None:
        pass


def test_a_replay_as_a_block_goes_back_to_what_was_before() -> None:
    """Offline inside; the transport of before afterwards, also after an error."""
    network = Refusing()
    interactive.client().use(network)
    with oci.replay("demo") as banner:
        assert oci.open(SHOP, platform="linux/arm64").platform == oci.Platform.parse("linux/arm64")
        assert "demo" in repr(banner)
        assert "until oci.online()" in banner._repr_html_()
    assert interactive.client().transport is network
    with pytest.raises(ValueError), oci.replay("demo"):
        raise ValueError
    assert interactive.client().transport is network
    oci.replay("demo")
    oci.online()
    assert not interactive.client().offline


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyRegistry]:
    """The only host that answers for 127.0.0.1:1, by the hosts.toml of the default client."""
    if sys.version_info < (3, 11) and importlib.util.find_spec("tomli") is None:
        pytest.skip("Python 3.10 has no tomllib; what is said then has a test of its own")
    with FaultyRegistry({"1": image([[Entry("a", b"a")]])}) as found:
        folder = tmp_path / "certs.d/127.0.0.1:1"
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'server = "{found.registry.url}"\n')
        monkeypatch.setattr(
            interactive, "_client", Client(store=tmp_path / "own", hosts_dirs=[folder.parent])
        )
        yield found


MIRRORED = f"127.0.0.1:1/{REPOSITORY}:1"


def test_after_a_trace_or_a_replay_mirrors_are_asked_as_before(mirror: FaultyRegistry) -> None:
    """Inside a trace too, which has their exchanges; also where one is inside of the other, and after an error."""
    oci.resolve(MIRRORED)
    sessions = interactive.client().connections
    with oci.trace() as outer, contextlib.suppress(ValueError), oci.trace() as inner:
        oci.resolve(MIRRORED)
        raise ValueError
    assert (len(inner), len(outer)) == (1, 1)
    with oci.replay("demo"), oci.trace() as replayed:
        oci.open(SHOP, platform="linux/arm64")
        assert interactive.client().offline
    assert len(replayed) > 0
    assert interactive.client().connections is sessions
    oci.resolve(MIRRORED)
    assert len(mirror.registry.records) == 3


def test_a_replay_that_begins_within_a_trace_stays() -> None:
    """The banner says until when; and online() within one is for good too."""
    with oci.trace():
        oci.replay("demo")
    assert interactive.client().offline
    with oci.trace():
        oci.online()
    assert not interactive.client().offline


def test_traces_and_replays_end_in_any_order() -> None:
    """As in two threads, or two cells."""
    before = interactive.client().connections
    first, second = oci.replay("demo").__enter__(), oci.trace()
    second.__enter__()
    first.__exit__(None, None, None)
    assert interactive.client().offline  # within the trace, which began in it
    second.__exit__(None, None, None)
    assert interactive.client().connections is before


def test_a_pull_into_another_store_asks_mirrors(mirror: FaultyRegistry, tmp_path: Path) -> None:
    """It is the same client but for the store."""
    found = oci.pull(MIRRORED, platform="linux/amd64", store=tmp_path / "other", progress=False)
    assert found.descriptor.digest in {
        record.path.rpartition("/")[2] for record in mirror.registry.records
    } | {oci.resolve(MIRRORED).digest}
    assert (tmp_path / "other").is_dir()
    assert not (tmp_path / "own").exists()


def test_a_cassette_is_found_by_name_and_shown_by_it() -> None:
    """The banner says what was asked for, not where on this machine it lies."""
    banner = oci.replay("first-pull")
    assert "the cassette first-pull (33 recorded exchanges)" in repr(banner)
    assert str(ROOT) not in repr(banner) + banner._repr_html_()


def test_a_locator_that_is_no_text_is_refused() -> None:
    """None is no image called None."""
    for wrong in (None, 5, b"redis"):
        with pytest.raises(UsageError, match="a locator is text"):
            oci.open(wrong)  # type: ignore[arg-type]
    assert repr(oci.Client(store="somewhere")) == "Client(store='somewhere')"


def test_an_environment_with_a_missing_cassette_never_means_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked twice, it is refused twice: no client is left that would go online."""
    monkeypatch.setenv("OCIDIST_REPLAY", "no-such-cassette")
    for _ in range(2):
        with pytest.raises(TransportError, match="no-such-cassette"):
            oci.open(SHOP)


def test_the_environment_names_the_cassette_of_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """OCIDIST_REPLAY makes the default client offline; tags and resolve answer from it."""
    monkeypatch.setenv("OCIDIST_REPLAY", "demo")
    assert "1.0" in oci.tags("registry.example/demo/shop")
    assert oci.resolve(SHOP).digest == oci.demo().digest


def test_a_trace_collects_the_requests_of_its_block() -> None:
    """And no others."""
    oci.replay("demo")
    with oci.trace() as trace:
        oci.open(SHOP, platform="linux/amd64")
    count = len(trace)
    oci.tags("registry.example/demo/shop")
    assert len(trace) == count == len(trace.rows())
    assert trace.rows()[0].status == 401


def test_pull_into_a_store_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store that was given has the image, the default one has not; lines go to stderr alone."""
    oci.replay("demo")
    with oci.Store.temporary() as store:
        img = oci.pull(SHOP, platform="linux/amd64", store=store)
        assert isinstance(img, oci.Image)
        assert [row.ref for row in store.images] == [SHOP]
        assert img.chain_id is not None
        assert (store.snapshots.path(str(img.chain_id)) / "etc/os-release").exists()
    assert not (tmp_path / "root").exists()
    out, err = capsys.readouterr()
    assert out == ""
    assert "layer-sha256:44705464b2d9: unpacked, 9.1 kB" in err
    assert oci.pull(SHOP, platform="linux/amd64", progress=False) == img
    assert capsys.readouterr() == ("", "")


def test_login_keeps_what_the_registry_took(tmp_path: Path) -> None:
    """The password is sent once to the host that asked, kept where Docker does, and forgotten by logout."""
    sent: list[str | None] = []

    class Registry(Refusing):
        def send(self, request: Request, scope: Scope) -> Response:
            sent.append(request.headers.get("Authorization"))
            if sent[-1] is None:
                return ScriptedResponse(401, headers=[("WWW-Authenticate", 'Basic realm="r"')])
            return ScriptedResponse(200, b"{}")

    interactive.client().use(Registry())
    oci.login("registry.example", "alice", "secret")
    token = base64.b64encode(b"alice:secret").decode()
    assert sent == [None, f"Basic {token}"]
    kept = json.loads((tmp_path / "docker/config.json").read_text())
    assert kept["auths"]["registry.example"]["auth"] == token
    assert oci.logout("registry.example")
    assert not oci.logout("registry.example")
    assert token not in (tmp_path / "docker/config.json").read_text()


def test_without_pandas_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DataFrame is an extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="needs pandas; pip install pandas"):
        oci.demo().layers.to_frame()


def test_completion_offers_the_front_door() -> None:
    """dir() names what is public, each name is there, and nothing private is among them."""
    names = dir(oci)
    assert {"open", "pull", "demo", "replay", "online", "trace", "login", "Client", "Store", "Image"} <= set(
        names
    )
    assert all(getattr(oci, name) is not None for name in names)
    assert [name for name in names if name.startswith("_")] == ["__version__"]


PULL = f"""
import sys
import ocidist as oci
img = oci.pull("{SHOP}", platform="linux/amd64")
print(type(img).__name__, sorted({{"IPython", "ipywidgets", "pandas"}} & set(sys.modules)))
"""


def test_a_script_on_a_terminal_gets_bars(tmp_path: Path) -> None:
    """Bars, in place, on stderr; stdout has what the script prints; NO_COLOR is heeded, TERM=dumb gets lines."""
    require("processes")
    pty = pytest.importorskip("pty")
    for number, (more, coloured, moved) in enumerate(
        [
            ({"TERM": "xterm"}, True, True),
            ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
            ({"TERM": "dumb"}, False, False),
        ]
    ):
        ours, theirs = pty.openpty()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "OCIDIST_REPLAY": "demo",
            "OCIDIST_ROOT": str(tmp_path / f"root-{number}"),
            "PYTHONPATH": str(ROOT),
            **more,
        }
        run = subprocess.Popen([sys.executable, "-c", PULL], stdout=subprocess.PIPE, stderr=theirs, env=env)
        os.close(theirs)
        seen = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux's answer when the other side is closed
                break
            if not block:
                break
            seen += block
        os.close(ours)
        assert run.stdout is not None
        assert run.stdout.read() == b"Image []\n"
        assert run.wait(30) == 0
        run.stdout.close()
        assert b"unpacked" in seen
        assert (b"\x1b[32m" in seen) is coloured
        assert (b"\x1b[K" in seen) is moved


STUCK = f"""
import time
from ocidist import interactive
from ocidist.net import replay
import ocidist as oci
oci.replay("demo")
inner = interactive.client().transport
class Stuck:
    def send(self, request, scope):
        if "blobs" in request.url:
            print("stuck", flush=True)
            scope.sleep(60)
        return inner.send(request, scope)
interactive.client().use(Stuck())
oci.pull("{SHOP}", platform="linux/amd64")
"""


def test_an_interrupted_script_ends_with_a_short_traceback(tmp_path: Path) -> None:
    """KeyboardInterrupt, said to be resumable, without the frames of the mover."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OCIDIST_ROOT": str(tmp_path / "root")}
    env["PYTHONPATH"] = str(ROOT)
    run = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "stuck\n"
    time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == -signal.SIGINT
    assert "interrupted; what was transferred is kept; the same call goes on from there" in err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "graph/copy.py" not in err


def test_doctor_is_a_function_however_often_it_is_called() -> None:
    """Offline too: what the cassette answers for is skipped, the rest is looked at; its module does not hide it."""
    with oci.replay("demo"):
        oci.doctor()
        rows = oci.doctor("registry.example/demo/shop:1.0")
    states = {row.check: row.state for row in rows}
    assert (states["connection"], states["manifest"], states["layer"]) == ("skipped", "ok", "ok")
