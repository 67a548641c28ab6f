"""doctor: every step of a pull, made to fail on loopback: it is the one that is named, with the way out."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.diagnosis.examination import examine, is_well
from ocidist.diagnosis.finding import FAILED, NOTE, OK, SKIPPED, Finding
from ocidist.diagnosis.machine import machine
from ocidist.errors import UsageError
from ocidist.scope import Scope
from ocidist.settings import Settings
from tests.parts.faulty import REPOSITORY, FaultyRegistry
from tests.parts.images import Entry, image
from tests.parts.processes import Program
from tests.parts.registry import free_port
from tests.parts.secrets import make

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority

STEPS = ["name", "connection", "TLS", "/v2/", "token", "manifest", "layer"]
HTTP_STEPS = [step for step in STEPS if step != "TLS"]
IMAGE = image([[Entry("a", b"a" * 100_000)], [Entry("b", b"b" * 100)]])
EXAMPLE = f"registry.example/{REPOSITORY}:1"
SECRET = make("doctor-")


class Silent:
    """Accepts connections and says nothing, until it is left."""

    def __enter__(self) -> Silent:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    """A registry that has the image, open to everyone."""
    with FaultyRegistry({"1": IMAGE}) as server:
        server.registry.answer(r"/v2/$", 200, times=None)
        yield server


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    """Examines a reference with a client of these options, and an empty machine: each step -> what came of it."""

    def ask(ref: str, *, environment: dict[str, str] | None = None, **options: Any) -> dict[str, Finding]:
        environ = {"OCIDIST_HOSTS_DIR": str(tmp_path / "certs.d"), **(environment or {})}
        options.setdefault("settings", Settings.load(environ, tmp_path / "home"))
        options.setdefault("platform", "linux/amd64")
        rows = examine(Client(store=tmp_path / "root", **options), ref)
        assert SECRET not in rows.to_csv()
        assert is_well(rows) is all(row.state != FAILED for row in rows)
        found = {row.check: row for row in rows if row.part != "machine"}
        assert list(found) in (STEPS, HTTP_STEPS)
        return found

    return ask


def failed(found: dict[str, Finding], step: str) -> str:
    """That ``step`` alone failed, after good ones, and nothing behind it was tried; what is said of it."""
    at = STEPS.index(step)
    assert found[step].state == FAILED, found
    assert {found[name].state for name in STEPS[:at] if name in found} <= {OK, SKIPPED}
    assert {found[name].state for name in STEPS[at + 1 :] if name in found} <= {SKIPPED}
    assert found[step].advice
    return f"{found[step].found}; {found[step].advice}"


def at(server: Any, **more: tuple[str, int]) -> dict[str, tuple[str, int]]:
    """Where to connect for registry.example."""
    return {"registry.example:443": ("127.0.0.1", server.port), **more}


def test_all_is_well(registry: FaultyRegistry, doctor: Callable[..., dict[str, Finding]]) -> None:
    """Each step says what it found; the store is not touched."""
    found = doctor(f"{registry.name}:1")
    assert [found[step].state for step in HTTP_STEPS] == [OK, OK, OK, SKIPPED, OK, OK]
    assert found["name"].found == "127.0.0.1"
    assert registry.registry.address in found["connection"].found
    assert IMAGE.digest in found["manifest"].found


@pytest.mark.parametrize("options", [{}, {"plain_http": True}])
def test_over_plain_http_nothing_is_said_of_tls(
    registry: FaultyRegistry, tmp_path: Path, options: dict[str, Any]
) -> None:
    """No such step and no word of certificates, whether --plain-http or loopback led to it; also where it fails."""
    settings = Settings.load({"OCIDIST_HOSTS_DIR": str(tmp_path / "certs.d")}, tmp_path)
    client = Client(store=tmp_path / "root", settings=settings, platform="linux/amd64", **options)
    for ref in (f"{registry.name}:1", f"{registry.name}:absent"):
        rows = examine(client, ref)
        assert [row.check for row in rows if row.part != "machine"] == HTTP_STEPS
        assert "plain http" in next(row for row in rows if row.check == "/v2/").found
        said = " ".join(f"{row.check} {row.found} {row.advice}" for row in rows).lower()
        assert not re.search("certificate|authorities|tls" if options else "certificates? |tls", said)
    gone = f"127.0.0.1:{free_port()}"
    rows = examine(client, f"{gone}/a/b:1")
    if options:
        assert [row.check for row in rows if row.part != "machine"] == HTTP_STEPS


def test_no_key_or_url_with_a_password_is_shown(tmp_path: Path) -> None:
    """Keys of auths and credHelpers that somebody wrote as user:password@host, proxies and mirrors with one; escapes."""
    folder, key = tmp_path / "home/.docker", f"bob:{SECRET}@registry.example"
    folder.mkdir(parents=True)
    auths = {
        key: {"auth": "Ym9iOnB3"},
        f"https://bob:{SECRET}@other.example/v1/": {"auth": "Ym9iOnB3"},
        f"bob:{SECRET}": {"auth": "Ym9iOnB3"},
        f"https://x.example/?token={SECRET}": {"auth": "Ym9iOnB3"},
        "\x1b[2Jred.example": {"auth": "Ym9iOnB3"},
        "plain.example:5000": {"auth": "Ym9iOnB3"},
    }
    helpers = {f"me:{SECRET}@helped.example": "pass"}
    (folder / "config.json").write_text(json.dumps({"auths": auths, "credHelpers": helpers}))
    mirrors = tmp_path / "certs.d/registry.example"
    mirrors.mkdir(parents=True)
    environment = {
        "OCIDIST_HOSTS_DIR": str(tmp_path / "certs.d"),
        "https_proxy": f"http://me:{SECRET}@127.0.0.1:1",
        "http_proxy": f"socks5://me:{SECRET}@127.0.0.1:1",
        "no_proxy": "127.0.0.1",
    }
    for toml in (
        f'server = "https://bob:{SECRET}@registry.example"\n',
        f'[host."https://bob:{SECRET}@mirror.example"]\n[host."https://bob:{SECRET}@mirror.example".header]\nx = "{SECRET}"\n',
        f'[host."https://mirror.example".header]\nx = ["{SECRET}", 1]\n',
        f'[host."https://mirror.example".header]\n"x\\n" = "{SECRET}\\n"\n',
        f'[host."https://mirror.example".header]\nx = {SECRET}\n',
        f'[host."https://mirror.example".header.{SECRET}]\nx = 1\n"',
    ):
        (mirrors / "hosts.toml").write_text(toml)
        settings = Settings.load(environment, tmp_path / "home")
        client = Client(store=tmp_path / "root", settings=settings)
        rows = [*examine(client), *machine(client, "registry.example"), *machine(client, "helped.example")]
        said = "".join(f"{row.found} {row.advice}\n" for row in rows)
        assert SECRET not in said
        assert SECRET not in examine(client).to_csv() + repr(examine(client)) + examine(client)._repr_html_()
        assert "\x1b" not in repr(examine(client))
        (mirrors / "hosts.toml").unlink()  # the run is searched for secrets
    for host in ("registry.example", "other.example", "plain.example:5000", "helped.example"):
        assert host in said


@pytest.mark.parametrize("program", ["/usr/bin/zstd", None])
def test_what_is_missing_is_named_by_what_can_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """Packages of an index, not extras of this project, which is on none; a zstd program will do."""
    monkeypatch.setattr("ocidist.diagnosis.machine._importable", lambda name: False)
    monkeypatch.setattr("ocidist.layers.compression.inflate.zstd_program", lambda: program)
    found = {row.check: row for row in examine(Client(store=tmp_path))}
    assert found["gzip"].advice == "pip install isal"
    assert found["DataFrames"].advice == "pip install pandas"
    assert found["widgets"].advice == "pip install ipywidgets"
    assert found["zstd"].state == (OK if program else NOTE)
    assert found["zstd"].found == ("/usr/bin/zstd" if program else "zstd layers are refused")


def test_all_is_well_over_tls_and_with_a_token(
    ca: CertificateAuthority, doctor: Callable[..., dict[str, Finding]]
) -> None:
    """The certificate's end is told; a token is asked for with the credentials."""
    for tls in (None, ca.server_context()):
        with FaultyRegistry({"1": IMAGE}, tokens=True) as server:
            assert server.tokens is not None
            server.registry.tls = server.tokens.tls = tls
            challenge = f'Bearer realm="{server.tokens.url}/token",service="faulty"'
            server.registry.answer(r"/v2/$", 401, {"WWW-Authenticate": challenge}, times=None)
            if tls is None:
                found = doctor(f"{server.name}:1", auth=("ann", SECRET))
                assert [found[step].state for step in HTTP_STEPS] == [OK] * 6
                assert "bearer" in found["/v2/"].found
                assert "credentials at hand" in found["token"].found
            else:
                found = doctor(f"{server.name}:1", ca=ca.file)
                assert "TLSv1" in found["TLS"].found
                assert "good until" in found["TLS"].found
                assert "anonymously" in found["token"].found


def test_a_name_that_is_not_known(
    doctor: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up says so; nothing is connected."""
    names_are(monkeypatch, lambda: (_ for _ in ()).throw(socket.gaierror(socket.EAI_NONAME, "not known")))
    assert "no such host" in failed(doctor(EXAMPLE), "name")


def test_a_look_up_without_an_answer_takes_no_longer_than_the_time_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--timeout bounds the look-up of a name too, which nothing can interrupt."""
    answered = threading.Event()
    names_are(monkeypatch, lambda: answered.wait(60))
    client = Client(store=tmp_path, settings=Settings.load({"OCIDIST_HOSTS_DIR": str(tmp_path)}, tmp_path))
    started = time.monotonic()
    try:
        rows = examine(client, EXAMPLE, Scope.within(0.3))
    finally:
        answered.set()
    assert time.monotonic() - started < 20
    found = {row.check: row for row in rows if row.part != "machine"}
    assert "--timeout" in failed(found, "name")


def names_are(monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any]) -> None:
    """No look-up leaves this process: names do ``what``, addresses stay themselves."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(host, port, *args, **options)
        what()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_a_port_where_nobody_listens(doctor: Callable[..., dict[str, Finding]]) -> None:
    """The connection is refused."""
    assert "nothing listens" in failed(doctor(f"127.0.0.1:{free_port()}/a/b:1"), "connection")


def test_a_registry_that_accepts_and_says_nothing(doctor: Callable[..., dict[str, Finding]]) -> None:
    """The handshake, or the answer to /v2/, ends in time."""
    with Silent() as server:
        ref = f"{server.address}/a/b:1"
        failed(doctor(ref, connect_timeout=0.5), "TLS")
        assert "does not answer" in failed(doctor(ref, connect_timeout=0.5, plain_http=True), "/v2/")


@pytest.mark.parametrize("fault", ["an unknown authority", "another name", "expired"])
def test_a19_a_certificate_that_is_refused_is_explained(
    fault: str, ca: CertificateAuthority, doctor: Callable[..., dict[str, Finding]], registry: FaultyRegistry
) -> None:
    """Each in its own words; http is not tried in its place."""
    names = ["other.example"] if fault == "another name" else ["registry.example"]
    registry.registry.tls = ca.server_context(names, expired=fault == "expired")
    trusted = None if fault == "an unknown authority" else ca.file
    said = failed(doctor(EXAMPLE, ca=trusted, connect_to=at(registry.registry)), "TLS")
    assert {
        "an unknown authority": "--ca-cert",
        "another name": "a name that the certificate is for",
        "expired": "must renew the certificate",
    }[fault] in said
    assert registry.registry.records == []


@pytest.mark.parametrize(
    ("path", "status", "headers", "step", "words"),
    [
        (r"/v2/$", 404, {}, "/v2/", "no registry answers there"),
        (r"/v2/$", 503, {}, "/v2/", "the registry has failed"),
        (r"/v2/$", 401, {"WWW-Authenticate": 'Basic realm="x"'}, "token", "ocidist login"),
        (r"/manifests/", 404, {}, "manifest", "ocidist tags"),
        (r"/manifests/", 403, {}, "manifest", "log in"),
        (r"/manifests/", 429, {}, "manifest", "wait"),
        (r"/blobs/", 404, {}, "layer", "push it again"),
    ],
)
def test_an_answer_that_stops_a_pull(
    path: str,
    status: int,
    headers: dict[str, str],
    step: str,
    words: str,
    doctor: Callable[..., dict[str, Finding]],
) -> None:
    """The step that got it is named, with what it means there."""
    with FaultyRegistry({"1": IMAGE}) as server:
        server.registry.answer(path, status, headers, times=None)
        server.registry.answer(r"/v2/$", 200, times=None)
        assert words in failed(doctor(f"{server.name}:1"), step)


def test_wrong_credentials_are_found_at_the_token(doctor: Callable[..., dict[str, Finding]]) -> None:
    """A Basic registry that refuses them; they are not shown."""
    with FaultyRegistry({"1": IMAGE}) as server:
        server.registry.answer(r"/v2/$", 401, {"WWW-Authenticate": 'Basic realm="x"'}, times=None)
        assert "refused" in failed(doctor(f"{server.name}:1", auth=("ann", SECRET)), "token")


def test_a18_a_proxy_that_is_down_or_refuses_is_named_without_its_password(
    doctor: Callable[..., dict[str, Finding]], registry: FaultyRegistry
) -> None:
    """Down: the connection fails. Refusing: the way on, where TLS would begin. Of another kind: at once."""
    gone, refusing = free_port(), registry.registry
    refusing.answer(r".", 407, times=None, method="CONNECT")
    for url, step, words in (
        (f"http://me:{SECRET}@127.0.0.1:{gone}", "connection", f"repair the proxy 127.0.0.1:{gone}"),
        (f"http://me:{SECRET}@{refusing.address}", "TLS", f"repair the proxy {refusing.address}"),
        (f"socks5://me:{SECRET}@127.0.0.1:1", "name", "set $https_proxy"),
    ):
        assert words in failed(doctor(EXAMPLE, environment={"https_proxy": url}), step)


def test_a_mirror_that_is_down_is_told_and_the_registry_is_looked_at(
    registry: FaultyRegistry, tmp_path: Path
) -> None:
    """Every host of hosts.toml has its steps, in their order."""
    address, gone = registry.registry.address, free_port()
    folder = tmp_path / "certs.d" / address
    folder.mkdir(parents=True)
    (folder / "hosts.toml").write_text(f'server = "http://{address}"\n[host."http://127.0.0.1:{gone}"]\n')
    settings = Settings.load({"OCIDIST_HOSTS_DIR": str(tmp_path / "certs.d")}, tmp_path)
    client = Client(store=tmp_path / "root", settings=settings, platform="linux/amd64")
    rows = examine(client, f"{registry.name}:1")
    parts = list(dict.fromkeys(row.part for row in rows))
    assert parts == ["machine", f"127.0.0.1:{gone}", address]
    assert [row.part for row in rows if row.state == FAILED] == [f"127.0.0.1:{gone}"]
    assert next(row for row in rows if row.check == "mirrors").found.startswith(
        f"{address}: 127.0.0.1:{gone}"
    )
    (folder / "hosts.toml").write_text("nothing = ")
    bad = next(row for row in examine(client, f"{registry.name}:1") if row.check == "mirrors")
    assert bad.state == FAILED
    assert "hosts.toml" in bad.found


def test_the_command_exits_with_1_and_prints_every_format(program: Program, registry: FaultyRegistry) -> None:
    """0 and a table where all is well; 1 and one line where a step fails; no secret anywhere."""
    config = program.home / ".docker/config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"auths": {registry.registry.address: {"identitytoken": SECRET}}}))
    here = replace(program, options=["--platform", "linux/amd64"])
    good, gone = f"{registry.name}:1", f"127.0.0.1:{free_port()}/a/b:1"
    table = here.ok("doctor", good)
    assert "auths[" in table.text
    assert str(config) in table.text
    rows = json.loads(here.ok("doctor", good, "--format", "json").stdout)
    assert [row["check"] for row in rows[-6:]] == HTTP_STEPS
    lines = here.ok("doctor", "--format", "jsonl").lines
    assert {json.loads(line)["part"] for line in lines} == {"machine"}
    assert here.ok("doctor", "--format", "csv").text.startswith("part,check,state,found,advice")
    assert "connection refused; nothing listens" in here.fails("doctor", gone)
    assert SECRET not in table.text + table.stderr + json.dumps(rows)
    assert "only images at a registry" in here.fails("doctor", "store:a", code=2)
    assert program.root is not None
    assert not program.root.exists()


def test_the_commands_time_is_kept_by_a_registry_that_says_nothing(program: Program) -> None:
    """--timeout ends it, with the table of what was found until then."""
    with Silent() as server:
        started = time.monotonic()
        done = program.run("--timeout", "1s", "doctor", f"{server.address}/a/b:1", "--format", "json")
        assert time.monotonic() - started < 25  # connecting alone may take 30 s
    assert done.code == 1
    states = {row["check"]: row["state"] for row in json.loads(done.stdout)}
    assert states["TLS"] == FAILED
    assert states["layer"] == SKIPPED


def test_what_is_no_reference_of_a_registry_is_refused(tmp_path: Path) -> None:
    """There are no steps to a store, an archive, or nothing."""
    for locator in ("store:a", "oci:folder"):
        with pytest.raises(UsageError):
            examine(Client(store=tmp_path), locator)
