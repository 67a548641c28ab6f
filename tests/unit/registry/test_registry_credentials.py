"""Credentials in Docker's and podman's files, and in helpers."""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.errors import Cancelled, CredentialError
from ocidist.remotes.registry import helper
from ocidist.remotes.registry.credentials import Credential, CredentialStore, StaticCredentials
from ocidist.scope import Scope
from tests.parts.required import require

Install = Callable[[str, str], Path]


def auth(user: str = "ann", password: str = "s3cret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def store(path: Path, data: Any) -> CredentialStore:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return CredentialStore([path], path)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Writes a helper as a shell script and puts it on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def write(name: str, script: str) -> Path:
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


# -- files --


def test_a_password_is_read_from_auth(config: Path) -> None:
    """base64 of user:password; the password may hold colons; trailing NULs are Docker's padding."""
    found = store(config, {"auths": {"h:5000": auth("ann", "a:b\0\0")}}).get("h:5000")
    assert found == Credential("ann", "a:b")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_base64_may_be_wrapped(config: Path, end: str) -> None:
    """As the program of that name writes what is long; Docker and skopeo read it."""
    text = auth("ann", "x" * 80)["auth"]
    found = store(config, {"auths": {"h": {"auth": f"{text[:76]}{end}{text[76:]}{end}"}}}).get("h")
    assert found == Credential("ann", "x" * 80)


def test_nothing_is_anonymous(config: Path, tmp_path: Path) -> None:
    """No file, an empty file, no entry and an empty entry all mean no credentials."""
    assert CredentialStore([tmp_path / "none", config]).get("h") is None
    assert store(config, "").get("h") is None
    assert store(config, {"auths": {"h": {}}}).get("h") is None
    assert store(config, {"auths": None}).get("h") is None


@pytest.mark.parametrize(
    ("key", "host", "scheme", "matches"),
    [
        ("h", "h", "https", True),
        ("H", "h", "https", True),
        ("h:443", "h", "https", True),
        ("h", "h:443", "https", True),
        ("h:80", "h", "http", True),
        ("h:443", "h", "http", False),
        ("https://h", "h", "https", True),
        ("https://h/v1/", "h", "https", True),
        ("https://h/v2/", "h", "http", False),
        ("http://h:5000", "h:5000", "http", True),
        ("http://h:5000", "h:5000", "https", False),
        ("h:5000", "h", "https", False),
        ("h", "h:5000", "https", False),
        ("h", "evil-h", "https", False),
        ("h", "x.h", "https", False),
        ("example.com", "example.com.evil.example", "https", False),
        ("https://index.docker.io/v1/", "docker.io", "https", True),
        ("index.docker.io", "docker.io", "https", True),
        ("docker.io", "docker.io", "https", True),
        ("https://index.docker.io/v1/", "index.docker.io.evil.example", "https", False),
    ],
)
def test_b28_a_key_matches_by_whole_host_port_and_scheme(
    config: Path, key: str, host: str, scheme: str, matches: bool
) -> None:
    """Never by a suffix; default ports and Docker Hub's names are the same; https keys are not used over http."""
    found = store(config, {"auths": {key: auth()}}).get(host, scheme=scheme)
    assert (found is not None) is matches


def test_podmans_longest_path_wins(config: Path) -> None:
    """host/path keys hold for repositories inside, component by component."""
    files = store(
        config,
        {"auths": {"h": auth("host"), "h/team": auth("team"), "h/team/app": auth("app")}},
    )
    users = {
        name: getattr(files.get("h", name), "username", None)
        for name in ("team/app", "team/app/x", "team/application", "team", "teams", "")
    }
    assert users == {
        "team/app": "app",
        "team/app/x": "app",
        "team/application": "team",
        "team": "team",
        "teams": "host",
        "": "host",
    }


def test_the_first_file_with_an_answer_wins(tmp_path: Path) -> None:
    """Files are asked in their order; one that has nothing passes on."""
    one, two, three = (tmp_path / name for name in "abc")
    one.write_text("{}")
    two.write_text(json.dumps({"auths": {"h": auth("two")}}))
    three.write_text(json.dumps({"auths": {"h": auth("three")}}))
    found = CredentialStore([one, two, three]).get("h")
    assert found is not None
    assert found.username == "two"


def test_identity_and_registry_tokens_are_read(config: Path) -> None:
    """identitytoken beside an auth without password, and registrytoken."""
    files = store(
        config,
        {"auths": {"h": {**auth("ann", ""), "identitytoken": "idt"}, "g": {"registrytoken": "rt"}}},
    )
    assert files.get("h") == Credential("ann", "", "idt")
    assert files.get("g") == Credential(registry_token="rt")


@pytest.mark.parametrize(
    "entry",
    [
        {"auth": "not base64!"},
        {"auth": "YW5uOnMzY3JldA"},
        {"auth": "YW5u OnMzY3JldA=="},
        {"auth": base64.b64encode(b"no colon s3cret").decode()},
        {"auth": base64.b64encode(b"\xff\xfe:s3cret").decode()},
        {"auth": 7},
        "s3cret",
    ],
)
def test_b28_bad_base64_is_refused_without_showing_it(config: Path, entry: Any) -> None:
    """A CredentialError that names file and key; neither it nor its causes hold the text."""
    with pytest.raises(CredentialError) as caught:
        store(config, {"auths": {"h": entry}}).get("h")
    assert "config.json" in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ['{"auths": ', "[]", '{"auths": []}', "\x00", "[" * 100_000])
def test_b28_a_corrupt_file_is_loud_and_never_overwritten(config: Path, text: str) -> None:
    """get, put and delete refuse; the file stays byte for byte."""
    files = store(config, text)
    for action in (
        lambda: files.get("h"),
        lambda: files.put("h", Credential("ann", "s3cret")),
        lambda: files.delete("h"),
    ):
        with pytest.raises(CredentialError):
            action()
    assert config.read_text() == text


def test_b28_login_keeps_unknown_keys_and_writes_0600(config: Path) -> None:
    """Everything else in the file stays; the file is its owner's alone, and nothing is left beside it."""
    files = store(config, {"psFormat": "x", "auths": {"g": auth("other"), "https://h/v1/": auth("old")}})
    config.chmod(0o644)
    assert files.put("h", Credential("ann", "pä:ss")) == str(config)
    data = json.loads(config.read_text())
    assert data["psFormat"] == "x"
    assert data["auths"]["g"] == auth("other")
    assert set(data["auths"]) == {"g", "h"}
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert os.listdir(config.parent) == ["config.json"]
    assert files.get("h") == Credential("ann", "pä:ss")


def test_b28_login_replaces_in_one_step(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rename fails the old file is whole, and no temporary file stays."""
    files = store(config, {"auths": {"g": auth()}})
    before = config.read_bytes()

    def fail(*_: Any, **at: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CredentialError, match="No space left"):
        files.put("h", Credential("ann", "s3cret"))
    assert config.read_bytes() == before
    assert os.listdir(config.parent) == ["config.json"]


def test_login_makes_the_folder_and_follows_a_link(tmp_path: Path) -> None:
    """A missing folder is made for its owner alone; a link stays a link."""
    target = tmp_path / "real" / "config.json"
    link = tmp_path / "config.json"
    link.symlink_to(target)
    CredentialStore([link], link).put("docker.io", Credential("ann", "s3cret"))
    assert link.is_symlink()
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
    assert list(json.loads(target.read_text())["auths"]) == ["https://index.docker.io/v1/"]


def test_logout_removes_every_spelling_of_the_host_and_no_other(config: Path) -> None:
    """Scheme and version variants go; paths below the host and other hosts stay."""
    files = store(
        config,
        {"auths": {"h": auth(), "https://h/v1/": auth(), "h/team": auth("team"), "h:5000": auth("port")}},
    )
    assert files.delete("h") is True
    assert set(json.loads(config.read_text())["auths"]) == {"h/team", "h:5000"}
    assert files.delete("h") is False


# -- helpers --


def test_b27_a_helper_answers_for_its_host(config: Path, install: Install, tmp_path: Path) -> None:
    """credHelpers goes before credsStore; the server's name comes on stdin; the action is the argument."""
    install(
        "own",
        f'cat > {tmp_path}/asked; echo "$1" >> {tmp_path}/action; echo \'{{"Username":"u","Secret":"s"}}\'',
    )
    install("all", 'cat >/dev/null; echo \'{"Username":"<token>","Secret":"idt"}\'')
    files = store(config, {"credHelpers": {"h": "own"}, "credsStore": "all"})
    assert files.get("h") == Credential("u", "s")
    assert (tmp_path / "asked").read_text() == "h"
    assert (tmp_path / "action").read_text() == "get\n"
    assert files.get("g") == Credential(identity_token="idt")


def test_b27_docker_hub_is_asked_for_by_its_old_name(config: Path, install: Install, tmp_path: Path) -> None:
    """Helpers know Docker Hub as https://index.docker.io/v1/."""
    install("all", f'cat > {tmp_path}/asked; echo \'{{"Username":"u","Secret":"s"}}\'')
    store(config, {"credsStore": "all"}).get("docker.io")
    assert (tmp_path / "asked").read_text() == "https://index.docker.io/v1/"


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_b27_not_found_is_anonymous(config: Path, install: Install, stream: str) -> None:
    """The protocol's words for none, on stdout or stderr, pass on to the file's own entries."""
    install("all", f'cat >/dev/null; echo "credentials not found in native keychain"{stream}; exit 1')
    files = store(config, {"credsStore": "all", "auths": {"g": auth()}})
    assert files.get("h") is None
    assert files.get("g") == Credential("ann", "s3cret")


def test_b27_a_missing_helper_is_a_warning_and_anonymous(
    config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A configuration copied to a machine without the helper still pulls public images."""
    assert store(config, {"credsStore": "no-such-helper-here"}).get("h") is None
    assert "docker-credential-no-such-helper-here" in caplog.text


@pytest.mark.parametrize("entry", ["", ".", "bin"])
def test_i79_a_helper_in_the_working_directory_is_not_run(
    config: Path, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """By an empty or a relative entry of the PATH; one in an absolute entry that comes later is."""
    planted = install(
        "all", f'cat >/dev/null; touch {tmp_path}/run; echo \'{{"Username":"u","Secret":"s3cret"}}\''
    )
    monkeypatch.chdir(tmp_path if entry == "bin" else planted.parent)
    usual = os.environ["PATH"].partition(os.pathsep)[2]
    monkeypatch.setenv("PATH", os.pathsep.join([entry, usual]))
    assert store(config, {"credsStore": "all"}).get("h") is None
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("PATH", os.pathsep.join([entry, usual, str(planted.parent)]))
    assert store(config, {"credsStore": "all"}).get("h") == Credential("u", "s3cret")


def test_b27_a_helper_that_can_not_be_run_is_loud(config: Path, install: Install) -> None:
    """It is there, so it is meant to be used."""
    install("all", "exit 0").write_bytes(b"\x7fELF not really")
    with pytest.raises(CredentialError, match="docker-credential-all"):
        store(config, {"credsStore": "all"}).get("h")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'the keychain is locked' >&2; exit 1", "the keychain is locked"),
        ("exit 7", "exit code 7"),
        ('echo \'{"Username":"u","Secret":"s3cret"}\'; exit 1', "exit code 1"),
        ("echo s3cret", "not understood"),
        ('echo \'{"Username":1,"Secret":"s3cret"}\'', "not understood"),
        ("echo '[\"s3cret\"]'", "not understood"),
    ],
)
def test_b27_another_failure_is_loud_and_shows_no_secret(
    config: Path, install: Install, script: str, said: str
) -> None:
    """A CredentialError that names the helper."""
    install("all", f"cat >/dev/null; {script}")
    with pytest.raises(CredentialError, match="docker-credential-all") as caught:
        store(config, {"credsStore": "all"}).get("h")
    assert said in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_b27_a_helper_that_hangs_is_ended_with_its_children(
    config: Path, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit nothing of it runs, although a child holds its pipes."""
    monkeypatch.setattr(helper, "TIMEOUT", 0.3)
    install("all", f"sleep 600 & echo $! > {tmp_path}/child; sleep 600")
    with pytest.raises(CredentialError, match="did not answer"):
        store(config, {"credsStore": "all"}).get("h")
    child = int((tmp_path / "child").read_text())
    assert gone(child)


@pytest.mark.parametrize("stream", ["", " >&2"])
def test_b27_a_helper_that_answers_without_end_is_ended(
    config: Path, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """At a mebibyte, long before its time is over: it would fill the memory."""
    monkeypatch.setattr(helper, "TIMEOUT", 600)
    install("all", f"echo $$ > {tmp_path}/self; exec yes{stream}")
    with pytest.raises(CredentialError, match="docker-credential-all: get answered with more than 1 MiB"):
        store(config, {"credsStore": "all"}).get("h")
    assert gone(int((tmp_path / "self").read_text()))


def test_b27_what_a_helper_leaves_running_is_not_waited_for(
    config: Path, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that it started holds its pipes; the answer is there."""
    require("processes")
    monkeypatch.setattr(helper, "_GRACE", 0.1, raising=False)
    install("all", f'sleep 600 & echo $! > {tmp_path}/agent; echo \'{{"Username":"u","Secret":"s3cret"}}\'')
    try:
        assert store(config, {"credsStore": "all"}).get("h") == Credential("u", "s3cret")
    finally:
        os.kill(int((tmp_path / "agent").read_text()), signal.SIGKILL)


def test_b27_a_helper_need_not_read_what_it_is_told(config: Path, install: Install) -> None:
    """A secret that fills no pipe, and one that does."""
    install("all", "exec 0<&-; exit 0")
    files = store(config, {"credsStore": "all"})
    for size in (10, 1 << 20):
        assert files.put("h", Credential("u", "s" * size)) == "helper docker-credential-all"


def test_b27_a_scope_that_ends_ends_the_helper(config: Path, install: Install, tmp_path: Path) -> None:
    """Cancelling does not wait for the helper's time limit."""
    install("all", f"echo x > {tmp_path}/started; sleep 600")
    scope = Scope()

    def cancel() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        scope.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        store(config, {"credsStore": "all"}).get("h", scope=scope)
    thread.join()


@pytest.mark.parametrize("name", ["../x", "/bin/sh", "a b", "a;b", "-x", "", "x\n", 7, ["a"], "a" * 200])
def test_b27_a_helper_name_is_no_path_and_no_shell(config: Path, name: Any) -> None:
    """Only letters, digits, dot, dash and underscore make a program's name."""
    files = store(config, {"credHelpers": {"h": name}})
    with pytest.raises(CredentialError, match="no name of a credential helper"):
        files.get("h")


def test_login_and_logout_go_through_the_helper(config: Path, install: Install, tmp_path: Path) -> None:
    """The secret goes to the helper's stdin; the file gets an empty entry, as Docker writes it."""
    install("all", f"cat > {tmp_path}/$1")
    files = store(config, {"credsStore": "all"})
    assert "docker-credential-all" in files.put("h", Credential("ann", "s3cret"))
    assert json.loads((tmp_path / "store").read_text()) == {
        "ServerURL": "h",
        "Username": "ann",
        "Secret": "s3cret",
    }
    assert "s3cret" not in config.read_text()
    assert json.loads(config.read_text())["auths"] == {"h": {}}
    assert files.delete("h") is True
    assert (tmp_path / "erase").read_text() == "h"


def test_b29_a_credential_shows_no_secret() -> None:
    """Neither repr nor str of values and sources; a pickle round trip keeps them."""
    credential = Credential("ann", "s3cret", "idt-s3cret", "rt-s3cret")
    for value in (credential, StaticCredentials(credential), StaticCredentials({"h": credential})):
        assert "s3cret" not in repr(value)
        assert "s3cret" not in str(value)
    assert pickle.loads(pickle.dumps(credential)) == credential


def test_credentials_given_per_host_go_to_no_other() -> None:
    """A mapping answers for its hosts; a single credential for whichever is asked."""
    credential = Credential("ann", "s3cret")
    per_host = StaticCredentials({"docker.io": credential})
    assert per_host.get("index.docker.io") == credential
    assert per_host.get("h") is None
    assert StaticCredentials(credential).get("h") == credential


def gone(pid: int) -> bool:
    """True once a process has ended (it may be left for init to reap)."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def test_b28_half_of_a_surrogate_pair_in_the_file_survives_a_login(tmp_path: Path) -> None:
    """JSON can say it, UTF-8 can't: it stays the escape that it was."""
    path = tmp_path / "config.json"
    path.write_bytes(b'{"auths":{},"x":"\\ud800"}')
    CredentialStore([path], path).put("registry.example", Credential("ann", "s3cret"))
    assert json.loads(path.read_bytes())["x"] == "\ud800"
    assert CredentialStore([path]).get("registry.example") == Credential("ann", "s3cret")


def test_b28_a_password_that_is_no_utf8_is_refused_without_showing_it(tmp_path: Path) -> None:
    """An argument of the command line can be any bytes."""
    path = tmp_path / "config.json"
    with pytest.raises(CredentialError, match="not valid UTF-8") as caught:
        CredentialStore([path], path).put("registry.example", Credential("ann", "s3cret\udcff"))
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(CredentialError):
        assert Credential("ann", "s3cret\udcff").basic
    assert not path.exists()
