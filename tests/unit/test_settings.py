"""Settings: what the environment says, and nothing read twice."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist import settings
from ocidist.settings import Settings
from tests.parts.required import require

HOME = Path("/home/someone")


@pytest.fixture
def _user(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user, whoever runs the tests."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234, raising=False)


@pytest.mark.usefixtures("_user")
def test_defaults_of_an_ordinary_user() -> None:
    """Nothing set: XDG's defaults below the home folder."""
    found = Settings.load({}, HOME)
    assert found.root == HOME / ".local/share/ocidist"
    assert found.docker_config == HOME / ".docker/config.json"
    assert found.auth_files == (
        Path("/run/containers/1234/auth.json"),
        HOME / ".config/containers/auth.json",
        HOME / ".docker/config.json",
    )
    assert (found.replay, found.timeout, found.editor, found.ca_file, found.platform) == (None,) * 5
    assert (found.namespace, found.no_proxy, dict(found.proxies), found.no_color) == (
        "default",
        "",
        {},
        False,
    )


def test_root_keeps_its_store_where_systems_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """/var/lib for root; $OCIDIST_ROOT before all."""
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert Settings.load({"XDG_DATA_HOME": "/data"}, HOME).root == Path("/var/lib/ocidist")
    assert Settings.load({"OCIDIST_ROOT": "/o"}, HOME).root == Path("/o")


@pytest.mark.usefixtures("_user")
def test_every_variable_is_heard() -> None:
    """Each of cli.md's table, and where credentials are looked for, in order."""
    found = Settings.load(
        {
            "XDG_DATA_HOME": "/data",
            "XDG_CONFIG_HOME": "/conf",
            "XDG_RUNTIME_DIR": "/run/user/1234",
            "REGISTRY_AUTH_FILE": "/auth.json",
            "DOCKER_CONFIG": "/docker",
            "OCIDIST_REPLAY": "demo",
            "CONTAINERD_FETCH_TIMEOUT": "1m30s",
            "CONTAINERD_NAMESPACE": "k8s.io",
            "EDITOR": "ed -s",
            "VISUAL": "vi",
            "SSL_CERT_FILE": "/ca.pem",
            "OCIDIST_PLATFORM": "linux/arm64",
            "NO_COLOR": "1",
            "TERM": "dumb",
        },
        HOME,
    )
    assert found.root == Path("/data/ocidist")
    assert found.docker_config == Path("/docker/config.json")
    assert found.auth_files == (
        Path("/auth.json"),
        Path("/run/user/1234/containers/auth.json"),
        Path("/conf/containers/auth.json"),
        Path("/docker/config.json"),
    )
    assert (found.replay, found.timeout, found.namespace) == ("demo", "1m30s", "k8s.io")
    assert (found.editor, found.ca_file, found.platform) == ("ed -s", Path("/ca.pem"), "linux/arm64")
    assert (found.no_color, found.term) == (True, "dumb")


@pytest.mark.usefixtures("_user")
def test_empty_and_relative_values_count_as_unset() -> None:
    """A relative XDG folder would be another one in each directory."""
    names = ("OCIDIST_ROOT", "OCIDIST_REPLAY", "CONTAINERD_NAMESPACE", "CONTAINERD_FETCH_TIMEOUT", "EDITOR")
    empty = dict.fromkeys(
        (*names, "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "SSL_CERT_FILE", "XDG_RUNTIME_DIR"), ""
    )
    relative = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"), "somewhere")
    assert Settings.load(empty, HOME) == Settings.load({}, HOME) == Settings.load(relative, HOME)


def test_the_home_folder_is_home_then_the_password_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """$HOME, else the user's entry; a user id without one (a container's random one) still has a place."""
    require("module:pwd")
    import pwd

    assert Settings.load({"HOME": "/h"}).docker_config == Path("/h/.docker/config.json")
    own = pwd.getpwuid(os.getuid()).pw_dir
    assert Settings.load({}).docker_config == Path(own) / ".docker/config.json"

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    assert Settings.load({}).docker_config == Path("/.docker/config.json")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is read when asked, not when imported."""
    monkeypatch.setenv("OCIDIST_ROOT", "/elsewhere")
    assert Settings.load().root == Path("/elsewhere")


NAMES = """
http_proxy HTTP_PROXY Http_Proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY ftp_proxy
_proxy _PROXY PROXY REQUEST_METHOD MY_HTTP_PROXY
"""
names = st.sampled_from(NAMES.split())


@given(st.dictionaries(names, st.sampled_from(["", "http://a:1", "http://b:2", "*", "c,d"])))
def test_a18_proxies_are_those_that_urllib_finds(environ: dict[str, str]) -> None:
    """Lowercase wins, empty clears, and a CGI's HTTP_PROXY is not believed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request.os, "environ", environ)  # type: ignore[attr-defined]
        expected = urllib.request.getproxies_environment()
    found = Settings.load(environ, HOME)
    assert found.no_proxy == expected.pop("no", "")
    assert found.proxies == expected


def test_b29_a_proxy_password_is_not_in_the_repr() -> None:
    """Settings end up in debug output."""
    found = Settings.load({"https_proxy": "http://me:hunter2@proxy:3128"}, HOME)
    assert found.proxies["https"] == "http://me:hunter2@proxy:3128"
    assert "hunter2" not in repr(found)


def test_nothing_is_read_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading settings opens no file and makes no folder."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("settings touched the disk")

    for name in ("open", "stat", "mkdir", "listdir"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert settings.Settings.load({}, HOME).namespace == "default"
