"""Bundles run: a pulled image under runc and crun, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from tests.parts.images import Entry, image, push_layout, write_layout
from tests.parts.processes import Program
from tests.parts.required import program as executable
from tests.parts.required import require
from tests.parts.runtimes import (
    USER,
    Container,
    Home,
    Runtime,
    require_runtimes,
    require_user_namespaces,
    users_home,
    with_ranges,
)

if TYPE_CHECKING:
    from tests.parts.registry import RegistryProcess

RUNTIMES = pytest.mark.parametrize("name", ["runc", "crun"])
Bundler = Callable[..., Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, images_of_others: Path) -> Iterator[RegistryProcess]:
    """A registry with ``library/busybox`` as its makers published it, and ``redis`` of Debian's packages."""
    require("docker-registry")
    from tests.parts.realimages import busybox_index
    from tests.parts.redis_image import redis_layout
    from tests.parts.registry import RegistryProcess

    folder = tmp_path_factory.mktemp("images")
    busybox_index(images_of_others, folder / "busybox")
    with RegistryProcess(folder / "registry") as registry:
        push_layout(registry.loader.url, folder / "busybox", "library/busybox", "latest")
        push_layout(registry.loader.url, redis_layout(), "redis", "latest")
        yield registry


@pytest.fixture(scope="module")
def by_root(tmp_path_factory: pytest.TempPathFactory, images: RegistryProcess) -> Program:
    """Root's store, with both images pulled."""
    require_runtimes("runc", "crun")
    folder = tmp_path_factory.mktemp("root")
    program = Program(folder / "home", folder / "root", options=("--progress", "none"))
    for name in ("library/busybox", "redis"):
        program.ok("pull", "--platform", "linux/amd64", f"{images.address}/{name}:latest")
    return program


@pytest.fixture(scope="module")
def user_home(images: RegistryProcess) -> Iterator[Home]:
    """An ordinary user's store, with both images pulled by that user."""
    require_runtimes("runc", "crun")
    require_user_namespaces()
    with users_home() as home:
        home.program.options = ("--progress", "none")
        for name in ("library/busybox", "redis"):
            home.program.ok("pull", "--platform", "linux/amd64", f"{images.address}/{name}:latest")
        yield home


@pytest.fixture
def bundle(tmp_path: Path, by_root: Program, images: RegistryProcess) -> Bundler:
    """``bundle(name, *arguments)``: root's bundle of an image."""

    def make(name: str, *arguments: str) -> Path:
        place = tmp_path / "bundle"
        done = by_root.ok("bundle", f"{images.address}/{name}:latest", str(place), *arguments)
        assert done.text == f"{place}\n"
        return place

    return make


@pytest.fixture
def user_bundle(user_home: Home, images: RegistryProcess) -> Iterator[Bundler]:
    """``user_bundle(name, *arguments)``: the ordinary user's, with ``--rootless``."""
    place = user_home.folder / "bundles" / "bundle"

    def make(name: str, *arguments: str) -> Path:
        ref = f"{images.address}/{name}:latest"
        user_home.program.ok("bundle", ref, str(place), "--rootless", *arguments)
        return place

    yield make
    shutil.rmtree(place, ignore_errors=True)


# -- busybox --


@RUNTIMES
def test_busybox_says_what_it_is_told_and_ends_with_its_status(
    tmp_path: Path, bundle: Bundler, name: str
) -> None:
    """``echo``, ``id`` with the groups of the image's /etc/group, the environment, and exit status 7."""
    script = "echo hello; id; pwd; echo $COLOUR; exit 7"
    place = bundle("library/busybox", "--env", "COLOUR=blue", "--", "sh", "-c", script)
    done = Runtime(name, tmp_path / "state").run(place)
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [
        "hello",
        "uid=0(root) gid=0(root) groups=0(root),10(wheel)",
        "/",
        "blue",
    ]


@RUNTIMES
def test_busybox_as_another_user_and_read_only(tmp_path: Path, bundle: Bundler, name: str) -> None:
    """A user and a group by name, a root that can't be written, mounts of both types, no privileges to gain."""
    (tmp_path / "given").write_text("from outside\n")
    (tmp_path / "given").chmod(0o644)
    script = (
        "id; cat /given; touch /tmp/x /new; echo $?; (echo x > /given) 2>/dev/null || echo kept; "
        "ls /tmp; grep -E '^(NoNewPrivs|CapBnd|CapEff)' /proc/self/status"
    )
    place = bundle(
        *("library/busybox", "-u", "www-data:staff", "--read-only"),
        *("--mount", f"type=bind,source={tmp_path}/given,target=/given,readonly"),
        *("--mount", "type=tmpfs,target=/tmp,options=mode=1777", "--", "sh", "-c", script),
    )
    done = Runtime(name, tmp_path / "state").run(place)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == ["uid=33(www-data) gid=50(staff) groups=50(staff)", "from outside", "1", "kept", "x"]
    assert "Read-only file system" in done.stderr
    said = dict(line.split(":\t") for line in lines[5:])
    assert said == {"CapEff": "0" * 16, "CapBnd": f"{1 << 5 | 1 << 10 | 1 << 29:016x}", "NoNewPrivs": "1"}


@RUNTIMES
def test_busybox_without_root(user_home: Home, user_bundle: Bundler, name: str) -> None:
    """The container's root is the user; the kernel's files are masked as with root."""
    script = "id -u; cat /proc/self/uid_map /proc/keys; (echo x > /proc/sysrq-trigger) 2>/dev/null; exit 7"
    place = user_bundle("library/busybox", "--", "sh", "-c", script)
    done = user_home.runtime(name).run(place)
    assert done.returncode == 7, done.stderr
    account = pwd.getpwnam(USER).pw_uid
    assert done.stdout.split()[:4] == ["0", "0", str(account), "1"]
    assert (place.stat().st_uid, place.stat().st_mode & 0o7777) == (account, 0o700)


@RUNTIMES
def test_a_private_network_without_root(user_home: Home, user_bundle: Bundler, name: str) -> None:
    """Loopback alone; /sys is that network's."""
    place = user_bundle("library/busybox", "--network", "private", "--", "ls", "/sys/class/net")
    done = user_home.runtime(name).run(place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lo"]


@RUNTIMES
def test_ranges_of_subordinate_ids_are_used(
    tmp_path: Path, user_home: Home, images: RegistryProcess, name: str
) -> None:
    """With a range in /etc/subuid and newuidmap the image's own user runs, as one of the range outside."""
    require("newuidmap")
    first, uid = 300_000, 33
    view = with_ranges(tmp_path, f"{USER}:{first}:65536\n")
    place = user_home.folder / "bundles" / "ranges"
    ref = f"{images.address}/library/busybox:latest"
    words = ("bundle", ref, str(place), "--rootless", "-u", "www-data", "--", "sleep", "1000")
    try:
        made = user_home.call(view, *words)
        assert made.returncode == 0, made.stderr
        with user_home.runtime(name, view).started(place) as container:
            container.until(lambda: _sleeps(container), "sleep")
            assert container.status()["Uid"].split() == [str(first + uid - 1)] * 4
            assert container.status()["Gid"].split() == [str(first + uid - 1)] * 4
    finally:
        shutil.rmtree(place)


def test_a_user_that_nothing_maps_is_refused(
    tmp_path: Path, user_home: Home, images: RegistryProcess
) -> None:
    """Without a range the container has root alone: redis can't run as itself, and the way out is told."""
    place = user_home.folder / "bundles" / "refused"
    done = user_home.call(
        with_ranges(tmp_path, ""), "bundle", f"{images.address}/redis:latest", str(place), "--rootless"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ocidist: user 999:998: ")
    assert "--user 0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not place.exists()


def _sleeps(container: Container) -> bool:
    state = container.runtime.call("state", container.name)
    if state.returncode != 0 or json.loads(state.stdout)["status"] != "running":
        return False
    return container.status()["Name"] == "sleep"


@RUNTIMES
def test_a_test_that_fails_leaves_no_container(tmp_path: Path, bundle: Bundler, name: str) -> None:
    """The process that a runtime left behind ends with the block, killed if it must be, and so does its state."""
    place = bundle("library/busybox", "--", "sh", "-c", "trap '' TERM INT; while :; do sleep 1; done")
    runtime = Runtime(name, tmp_path / "state")
    with contextlib.suppress(ZeroDivisionError), runtime.started(place) as container:
        container.until(lambda: "running" in runtime.call("state", container.name).stdout, "sh")
        pid = container.pid()
        assert _lives(pid)
        container.process.kill()
        container.process.wait()
        raise ZeroDivisionError
    deadline = time.monotonic() + 60  # the kernel takes its time to end what was killed
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(pid)
    assert os.listdir(tmp_path / "state") == []


def _lives(pid: int) -> bool:
    """A process that has ended may wait for ever for the machine's own init to look at it."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_file_that_its_owner_may_not_read_is_copied(
    tmp_path: Path, user_home: Home, images: RegistryProcess
) -> None:
    """Mode 0000, as /etc/shadow often has, for an ordinary user; in the store it stays as it is."""
    made = image([[Entry("etc/"), Entry("etc/closed", b"root:*::\n", mode=0)]], run={"Cmd": ["x"]})
    push_layout(images.loader.url, write_layout(tmp_path / "made", {"latest": made}), "shadow", "latest")
    ref, place = f"{images.address}/shadow:latest", user_home.folder / "bundles" / "shadow"
    user_home.program.ok("pull", ref)
    try:
        user_home.program.ok("bundle", ref, str(place), "--rootless")
        (stored,) = (user_home.folder / "root").rglob("fs/etc/closed")
        for path in (place / "rootfs/etc/closed", stored):
            assert path.read_bytes() == b"root:*::\n"
            assert path.stat().st_mode & 0o7777 == 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


# -- redis --


def _ready(container: Container) -> None:
    container.until(lambda: "Ready to accept connections" in container.said(), "ready redis")


@RUNTIMES
def test_redis_answers_and_stops_cleanly(tmp_path: Path, bundle: Bundler, name: str) -> None:
    """As the image's redis user with its groups, in a network of its own; SIGTERM saves and ends it with 0."""
    place = bundle("redis")
    with Runtime(name, tmp_path / "state").started(place) as container:
        _ready(container)
        pong = container.exec("redis-cli", "ping")
        assert (pong.returncode, pong.stdout) == (0, "PONG\n"), pong.stderr
        assert container.exec("redis-cli", "set", "key", "value").stdout == "OK\n"
        status = container.status()
        assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("999", "998")
        assert sorted(map(int, status["Groups"].split())) == [50, 998]
        assert container.terminate() == 0, container.said()
        assert "ready to exit" in container.said()
    assert b"value" in (place / "rootfs/data/dump.rdb").read_bytes()
    assert (place / "rootfs/data/dump.rdb").stat().st_uid == 999


@RUNTIMES
def test_redis_read_only(tmp_path: Path, bundle: Bundler, name: str) -> None:
    """Its volume can be written all the same, and belongs to it."""
    place = bundle("redis", "--read-only")
    with Runtime(name, tmp_path / "state").started(place) as container:
        _ready(container)
        assert container.exec("redis-cli", "set", "key", "value").stdout == "OK\n"
        assert container.exec("redis-cli", "save").stdout == "OK\n"
        assert container.terminate() == 0, container.said()
    assert os.listdir(place / "rootfs/data") == []


@RUNTIMES
def test_redis_without_root_answers_on_its_port(user_home: Home, user_bundle: Bundler, name: str) -> None:
    """The user's own process on the machine's loopback, asked from outside the container."""
    from tests.parts.registry import free_port

    for _ in range(8):  # another process may take the port between our look and its bind
        port = free_port()
        place = user_bundle("redis", "-u", "0", "--", "--bind", "127.0.0.1", "--port", str(port))
        with user_home.runtime(name).started(place) as container:
            found = container.until(
                lambda c=container: _ready_or_taken(c), "ready redis, or a port that was taken meanwhile"
            )
            if found == "ready":
                assert _ask(port) == b"+PONG\r\n"
                pong = container.exec("redis-cli", "-p", str(port), "ping")
                assert (pong.returncode, pong.stdout) == (0, "PONG\n"), pong.stderr
                assert container.status()["Uid"].split()[0] == str(place.stat().st_uid)
                assert container.terminate() == 0, container.said()
                return
        shutil.rmtree(place)
    raise AssertionError("eight ports were taken")


def _ready_or_taken(container: Container) -> str:
    said = container.said()
    if "Ready to accept connections" in said:
        return "ready"
    return "taken" if "Address already in use" in said else ""


def _ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"PING\r\n")
        return connection.makefile("rb").readline()


# -- what runc itself writes --


def test_the_defaults_are_runc_s_own(tmp_path: Path, bundle: Bundler) -> None:
    """Mounts, masked and read-only paths, capabilities, namespaces and devices: as ``runc spec`` has them."""
    ours = json.loads((bundle("library/busybox") / "config.json").read_bytes())
    _same_as_runc(ours, _spec(tmp_path / "theirs"))


def test_the_rootless_defaults_are_runc_s_own(tmp_path: Path, bundle: Bundler) -> None:
    """The same for ``runc spec --rootless``."""
    ours = json.loads((bundle("library/busybox", "--rootless") / "config.json").read_bytes())
    theirs = _spec(tmp_path / "theirs", "--rootless")
    _same_as_runc(ours, theirs)
    for name in ("uidMappings", "gidMappings"):
        assert ours["linux"][name][0] == theirs["linux"][name][0]


def _spec(folder: Path, *arguments: str) -> Any:
    folder.mkdir()
    subprocess.run([executable("runc"), "spec", *arguments, "--bundle", str(folder)], check=True)
    return json.loads((folder / "config.json").read_bytes())


def _same_as_runc(ours: Any, theirs: Any) -> None:
    assert ours["mounts"] == theirs["mounts"]
    for name in ("maskedPaths", "readonlyPaths", "namespaces", "resources"):
        assert ours["linux"].get(name) == theirs["linux"].get(name), name
    for name in ("bounding", "effective", "permitted"):
        assert ours["process"]["capabilities"][name] == theirs["process"]["capabilities"][name]
    assert ours["process"]["noNewPrivileges"] == theirs["process"]["noNewPrivileges"]
