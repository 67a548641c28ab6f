"""login and logout: what is kept, where, how it is used, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

from tests.interop.conftest import ALICE, PASSWORD
from tests.interop.registries import Place, place
from tests.parts.images import small_image
from tests.parts.processes import Program
from tests.parts.secrets import WRONG_PASSWORD

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority

HELPER = """#!{python}
import json, os, sys
state = os.environ["HELPER_STATE"]
verb, text = sys.argv[1], sys.stdin.read()
with open(state + ".log", "a") as log:
    log.write(verb + "\\n")
kept = json.load(open(state)) if os.path.exists(state) else {{}}
if verb == "store":
    given = json.loads(text)
    kept[given["ServerURL"]] = given
elif verb == "get":
    if text.strip() not in kept:
        sys.exit("credentials not found in native keychain")
    print(json.dumps(kept[text.strip()]))
elif verb == "erase":
    if kept.pop(text.strip(), None) is None:
        sys.exit("credentials not found in native keychain")
json.dump(kept, open(state, "w"))
"""


@pytest.fixture(params=["htpasswd", "token-get", "token-post"])
def locked(request: pytest.FixtureRequest, tmp_path: Path, ca: CertificateAuthority) -> Any:
    """A registry over TLS that lets alice in alone."""
    with place(tmp_path / "place", small_image(), auth=request.param, tls=ca) as found:
        yield found


def user(found: Place, tmp_path: Path, **environment: str) -> Program:
    """A program that trusts the registry and knows no password."""
    assert found.ca is not None
    return Program(
        tmp_path / "home",
        tmp_path / "root",
        options=("--ca-cert", str(found.ca.file)),
        environment=environment,
    )


def config_of(tmp_path: Path) -> Path:
    """Docker's configuration in the program's home."""
    return tmp_path / "home/.docker/config.json"


def test_b28_login_keeps_credentials_where_docker_does_and_pull_uses_them(
    locked: Place, tmp_path: Path
) -> None:
    """Refused before, then kept with mode 0600 in Docker's form, used by the next pull, and forgotten by logout."""
    program, host = user(locked, tmp_path), locked.registry.address
    refusal = "405" if locked.oauth_alone else "401"  # a server without GET has nothing for anyone
    before = program.fails("pull", locked.ref)
    assert refusal in before
    assert locked.oauth_alone or f"ocidist login {host}" in before

    done = program.ok("login", "-u", ALICE, "--password-stdin", host, stdin=f"{PASSWORD}\n".encode())
    assert done.stdout == b""
    assert PASSWORD not in done.stderr
    config = config_of(tmp_path)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert json.loads(config.read_bytes())["auths"] == {
        host: {"auth": base64.b64encode(f"{ALICE}:{PASSWORD}".encode()).decode()}
    }
    assert os.listdir(config.parent) == ["config.json"]
    program.ok("pull", locked.ref)

    program.ok("logout", host)
    assert json.loads(config.read_bytes()).get("auths") == {}
    assert refusal in program.fails("pull", locked.ref)
    assert "no credentials" in program.ok("logout", host).stderr


def test_a_wrong_password_is_refused_and_not_kept(locked: Place, tmp_path: Path) -> None:
    """Exit 1, one line without the password, and what was kept before stays."""
    program, host = user(locked, tmp_path), locked.registry.address
    program.ok("login", "-u", f"{ALICE}:{PASSWORD}", host)
    kept = config_of(tmp_path).read_bytes()
    done = program.run("login", "-u", ALICE, "--password-stdin", host, stdin=WRONG_PASSWORD.encode())
    assert done.code == 1
    (line,) = done.stderr.splitlines()
    assert "401" in line
    assert WRONG_PASSWORD not in line
    assert config_of(tmp_path).read_bytes() == kept
    line = program.fails("-u", f"{ALICE}:{WRONG_PASSWORD}", "pull", locked.ref)
    assert "401" in line
    assert WRONG_PASSWORD not in line
    assert base64.b64encode(f"{ALICE}:{WRONG_PASSWORD}".encode()).decode() not in line


def test_b28_login_leaves_the_rest_of_a_configuration_alone(tmp_path: Path) -> None:
    """Unknown keys and other hosts stay; a file that is not JSON is never overwritten."""
    with place(tmp_path / "place", small_image(), auth="htpasswd") as found:
        program, host = Program(tmp_path / "home", tmp_path / "root"), found.registry.address
        config = config_of(tmp_path)
        config.parent.mkdir(parents=True)
        other = {"auth": base64.b64encode(b"bob:secret").decode()}
        before = {"auths": {"ghcr.io": other}, "HttpHeaders": {"User-Agent": "x"}, "experimental": "on"}
        config.write_text(json.dumps(before))
        config.chmod(0o644)
        program.ok("login", "-u", f"{ALICE}:{PASSWORD}", host)
        after = json.loads(config.read_bytes())
        assert after["auths"].pop(host)
        assert after == before
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        config.write_text('{"auths": {')
        line = program.fails("login", "-u", f"{ALICE}:{PASSWORD}", host)
        assert str(config) in line
        assert config.read_text() == '{"auths": {'
        assert str(config) in program.fails("pull", found.ref)


def test_credentials_of_podman_are_used(tmp_path: Path) -> None:
    """skopeo login writes auth.json; pull finds it there, also for one repository alone."""
    import subprocess

    from tests.parts.required import program as executable

    with place(tmp_path / "place", small_image(), auth="token-get") as found:
        file = tmp_path / "home/.config/containers/auth.json"
        subprocess.run(
            [executable("skopeo"), "login", "--authfile", str(file), "--tls-verify=false", "-u", ALICE,
             "-p", PASSWORD, found.registry.address],
            check=True, capture_output=True,
        )  # fmt: skip
        program = Program(tmp_path / "home", tmp_path / "root")
        program.ok("pull", found.ref)
        value = json.loads(file.read_bytes())["auths"][found.registry.address]
        file.write_text(json.dumps({"auths": {f"{found.registry.address}/team/other": value}}))
        assert "401" in program.fails("pull", found.ref)
        file.write_text(json.dumps({"auths": {found.remote: value}}))
        program.ok("pull", found.ref)


def test_an_identity_token_in_the_configuration_is_used(tmp_path: Path) -> None:
    """``identitytoken``: OAuth2 POST with the refresh token, no password anywhere."""
    with place(tmp_path / "place", small_image(), auth="token-identity") as found:
        config = config_of(tmp_path)
        config.parent.mkdir(parents=True)
        entry = {
            "auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(),
            "identitytoken": found.identity,
        }
        config.write_text(json.dumps({"auths": {found.registry.address: entry}}))
        assert found.tokens is not None
        found.forget()
        Program(tmp_path / "home", tmp_path / "root").ok("pull", found.ref)
        assert [(r.method, r.status) for r in found.tokens.records] == [("POST", 200)]
        entry["identitytoken"] = "made-up"
        config.write_text(json.dumps({"auths": {found.registry.address: entry}}))
        line = Program(tmp_path / "home", tmp_path / "other").fails("pull", found.ref)
        assert "401" in line
        assert "made-up" not in line


@pytest.fixture
def with_helper(tmp_path: Path) -> Callable[..., tuple[Program, Path]]:
    """A program with ``docker-credential-vault`` on its PATH, and the file that the helper keeps things in."""

    def make(config: dict[str, Any]) -> tuple[Program, Path]:
        folder = tmp_path / "bin"
        folder.mkdir()
        helper = folder / "docker-credential-vault"
        helper.write_text(HELPER.format(python=sys.executable))
        helper.chmod(0o755)
        file = config_of(tmp_path)
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(config))
        state = tmp_path / "kept-secrets.json"
        path = f"{folder}:{os.environ['PATH']}"
        program = Program(
            tmp_path / "home", tmp_path / "root", environment={"PATH": path, "HELPER_STATE": str(state)}
        )
        return program, state

    return make


@pytest.mark.parametrize("how", ["credsStore", "credHelpers"])
def test_b27_a_helper_keeps_and_gives_credentials(
    tmp_path: Path, with_helper: Callable[..., tuple[Program, Path]], how: str
) -> None:
    """login stores through the helper, pull gets from it, logout erases; the file itself holds no secret."""
    with place(tmp_path / "place", small_image(), auth="token-get") as found:
        host = found.registry.address
        program, state = with_helper({how: "vault" if how == "credsStore" else {host: "vault"}})
        assert "401" in program.fails("pull", found.ref), "not found is anonymous"
        program.ok("login", "-u", ALICE, "--password-stdin", host, stdin=PASSWORD.encode())
        assert json.loads(state.read_text()) == {
            host: {"ServerURL": host, "Username": ALICE, "Secret": PASSWORD}
        }
        text = config_of(tmp_path).read_text()
        assert PASSWORD not in text
        assert base64.b64encode(f"{ALICE}:{PASSWORD}".encode()).decode() not in text
        program.ok("pull", found.ref)
        program.ok("logout", host)
        assert json.loads(state.read_text()) == {}
        asked = (tmp_path / "kept-secrets.json.log").read_text().split()
        assert asked[0] == "get"
        assert set(asked) == {"get", "store", "erase"}


def test_b27_a_helper_gives_an_identity_token(
    tmp_path: Path, with_helper: Callable[..., tuple[Program, Path]]
) -> None:
    """The user name ``<token>`` means that the secret is a refresh token."""
    with place(tmp_path / "place", small_image(), auth="token-identity") as found:
        host = found.registry.address
        program, state = with_helper({"credHelpers": {host: "vault"}})
        state.write_text(
            json.dumps({host: {"ServerURL": host, "Username": "<token>", "Secret": found.identity}})
        )
        program.ok("pull", found.ref)
        assert found.tokens is not None
        assert [r.method for r in found.tokens.records if r.status == 200][-1] == "POST"


def test_b27_a_missing_helper_is_a_warning_and_a_broken_one_an_error(
    tmp_path: Path, with_helper: Callable[..., tuple[Program, Path]]
) -> None:
    """What is public is pulled without the helper's program; a helper that fails otherwise is said."""
    with place(tmp_path / "place", small_image()) as found:
        host = found.registry.address
        program, _ = with_helper({"credHelpers": {host: "absent"}})
        program.ok("pull", found.ref)
    with place(tmp_path / "token", small_image(), auth="token-anonymous") as found:
        host = found.registry.address
        config_of(tmp_path).write_text(json.dumps({"credHelpers": {host: "absent"}}))
        done = program.ok("--root", str(tmp_path / "second"), "pull", found.ref)
        assert "docker-credential-absent" in done.stderr
        (tmp_path / "bin/docker-credential-vault").write_text("#!/bin/sh\necho the vault is sealed\nexit 3\n")
        config_of(tmp_path).write_text(json.dumps({"credHelpers": {host: "vault"}}))
        line = program.fails("--root", str(tmp_path / "third"), "pull", found.ref)
        assert "the vault is sealed" in line
        config_of(tmp_path).write_text(json.dumps({"credHelpers": {host: "../bin/docker-credential-vault"}}))
        assert "../bin" in program.fails("--root", str(tmp_path / "fourth"), "pull", found.ref)


def test_login_without_a_terminal_wants_the_password_given(tmp_path: Path) -> None:
    """Usage errors: no user, no password, what is no registry."""
    program = Program(tmp_path / "home", tmp_path / "root")
    for words in (
        ["login", "localhost:1"],
        ["login", "-u", "alice", "localhost:1"],
        ["login", "-u", "alice:x", "https://localhost:1/v2/"],
        ["login", "-u", "alice:x", "no registry"],
        ["logout", "localhost:1/team"],
        ["catalog", ""],
    ):
        line = program.fails(*words, code=2, stdin=b"")
        assert line.startswith("ocidist: ")
    assert not config_of(tmp_path).exists()
