"""Locators, and the remotes that they lead to."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from ocidist import remotes
from ocidist.errors import InvalidReference, Unsupported, UsageError
from ocidist.remotes import Locator, Remote
from ocidist.remotes.registry.client import RegistryRemote
from tests.unit.registry.fake import FakeRegistry


class Context:
    """What the front door hands to a factory."""

    store = "the store"
    session = FakeRegistry().session()

    def endpoints(self, host: str) -> tuple[Any, ...]:
        """Nothing is said of any registry here."""
        return ()


def plugged_in(locator: Locator, context: Any) -> Remote:
    """A factory, as another package would bring it."""
    return Remote(str(locator), context.session.__class__.__name__)


class Package:
    """An installed package with two entry points, one of them broken."""

    entry_points = (
        EntryPoint("tape", f"{__name__}:plugged_in", remotes.GROUP),
        EntryPoint("broken", "no_such_package_at_all:factory", remotes.GROUP),
        EntryPoint("redis", f"{__name__}:plugged_in", remotes.GROUP),
        EntryPoint("other", f"{__name__}:plugged_in", "another.group"),
    )


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The package, and for each look-up the folders that were looked at."""
    asked: list[list[str]] = []

    def distributions(*, path: list[str]) -> list[Package]:
        asked.append(path)
        return [Package()]

    monkeypatch.setattr("importlib.metadata.distributions", distributions)
    return asked


@pytest.mark.parametrize(
    ("text", "kind", "body"),
    [
        ("redis", "registry", "redis"),
        ("redis:7", "registry", "redis:7"),
        ("docker.io/library/redis:7", "registry", "docker.io/library/redis:7"),
        ("docker://redis:7", "registry", "redis:7"),
        ("docker:7", "registry", "docker:7"),
        ("localhost:5000/a", "registry", "localhost:5000/a"),
        ("registry:2", "registry", "registry:2"),
        ("store:redis:7", "store", "redis:7"),
        ("store://redis:7", "store", "redis:7"),
        ("oci:dir:ref", "oci", "dir:ref"),
        ("oci-archive:/a/b.tar:ref", "oci-archive", "/a/b.tar:ref"),
        ("docker-archive:x.tar", "docker-archive", "x.tar"),
        ("tape:/left", "tape", "/left"),
        ("tape:left#1", "tape", "left#1"),
        ("tape:left:1", "tape", "left:1"),
        ("tape://left", "tape", "left"),
        ("tape:left", "registry", "tape:left"),
        ("redis:7@sha256:" + 64 * "a", "registry", "redis:7@sha256:" + 64 * "a"),
        ("other:/left", "registry", "other:/left"),
    ],
)
def test_locators_are_read(plugins: list[list[str]], text: str, kind: str, body: str) -> None:
    """A kind and what it is about; without a kind it is a reference."""
    assert Locator.parse(text) == Locator(kind, body)


def test_i79_plugins_are_looked_up_only_where_they_could_matter(plugins: list[list[str]]) -> None:
    """Not for built-in kinds, references or ports; and only in whole paths that are not the working directory."""
    for text in (
        "docker.io/library/redis:7",
        "redis",
        "redis:7",
        "localhost:5000/a",
        "store:x",
        "oci:dir",
        "docker://redis:7",
    ):
        Locator.parse(text)
    assert plugins == []
    Locator.parse("tape:/left")
    (folders,) = plugins
    assert folders
    assert all(os.path.isabs(folder) and folder != os.getcwd() for folder in folders)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://ghcr.io/owner/name:1", "write ghcr.io/owner/name:1, without https://"),
        ("http://localhost:5000/a", "write localhost:5000/a, without http://; --plain-http speaks http"),
        ("https://bob:pw@ghcr.io/name", "write HOST/NAME, without https://"),
        ("https://", "write HOST/NAME, without https://"),
    ],
)
def test_a_url_is_told_to_be_written_as_a_name(text: str, said: str) -> None:
    """What was pasted from a browser."""
    with pytest.raises(UsageError) as caught:
        Locator.parse(text)
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("text", ["", "store:", "docker://", "ftp://host/x", "tape:", "tape://"])
def test_locators_that_mean_nothing_are_refused(plugins: list[list[str]], text: str) -> None:
    """An unknown kind with slashes, or nothing behind a kind."""
    with pytest.raises(UsageError):
        Locator.parse(text)


def test_open_leads_to_each_kind(plugins: list[list[str]]) -> None:
    """A registry's repository by its normal name, the store, and a plug-in's factory with its two arguments."""
    context = Context()
    remote = remotes.open("redis:7", context)
    assert (remote.name, remote.object) == ("docker.io/library/redis:7", "7")
    assert isinstance(remote.source, RegistryRemote)
    assert remote.tags is remote.source
    assert remote.source.name == "docker.io/library/redis"
    assert remotes.open("redis:7", context, "8").object == "8"
    store = remotes.open(Locator.parse("store:x"), context)
    assert (store.name, store.object, store.source, store.tags) == ("x", "x", "the store", None)
    assert remotes.open("tape://left", context) == Remote("tape:left", "RegistrySession")
    other = remotes.open("tape://left", context, "right")
    assert (other.name, other.object) == ("tape:left:right", "right")
    with pytest.raises(UsageError, match="can't be read from"):
        other.readable()


def test_what_cannot_be_opened_says_why(plugins: list[list[str]]) -> None:
    """A kind to come, a plug-in that does not load, a kind that is gone, a bad reference."""
    context = Context()
    with pytest.raises(Unsupported, match="oci-archive"):
        remotes.open("oci-archive:x.tar", context)
    with pytest.raises(Unsupported, match="no_such_package_at_all"):
        remotes.open("broken://x", context)
    with pytest.raises(UsageError):
        remotes.open(Locator("gone", "x"), context)
    with pytest.raises(InvalidReference):
        remotes.open("UPPER", context)


def test_locators_print_as_they_are_read(plugins: list[list[str]]) -> None:
    """str and parse are inverse."""
    for text in ("redis:7", "oci:dir:ref", "tape:left"):
        assert str(Locator.parse(text)) == text


@pytest.mark.parametrize("text", ["sha256:" + 64 * "a", "sha512:" + 128 * "0", "sha256:0123abc"])
def test_a_bare_digest_is_no_name_at_docker_hub(text: str) -> None:
    """Nobody is asked for docker.io/library/sha256; what can be meant is said."""
    with pytest.raises(UsageError, match=f"is a digest, not a name; write store:{text}"):
        Locator.parse(text)
