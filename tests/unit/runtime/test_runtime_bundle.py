"""Bundles as directories: whole or not there, for their owner alone, and made of what the store has."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Iterator

import pytest

from ocidist.client import Client
from ocidist.errors import BundleError, DeadlineExceeded, LayerError, OcidistError, UsageError
from ocidist.graph.copy import copy_graph
from ocidist.image import Image
from ocidist.runtime.options import BundleOptions
from ocidist.scope import Scope
from ocidist.snapshots import copying
from ocidist.stores.store import Store
from tests.parts.images import Entry, TestImage, image
from tests.parts.required import require
from tests.parts.sources import MemorySource
from tests.parts.trees import assert_same, snapshot

FILES = [
    Entry("etc/"),
    Entry("etc/passwd", b"root:x:0:0::/:\nredis:x:999:998::/data:\n"),
    Entry("etc/group", b"redis:x:998:\nstaff:x:50:redis\n"),
    Entry("bin/"),
    Entry("bin/sh", b"#!/bin/true\n", mode=0o755),
    Entry("bin/ash", hard="bin/sh"),
    Entry("data/", mode=0o750),
    Entry("data/dump", b"content"),
    Entry("lib", link="usr/lib"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.at(tmp_path / "root") as store:
        yield store


def opened(store: Store, made: TestImage, name: str = "docker.io/library/app:1") -> Image:
    """``made`` put into the store, not unpacked, and opened from there."""
    source = MemorySource(made)
    with store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(source, store, source.root, scope, platform="all", workers=0)
        store.tag(name, source.root, scope)
    return Client(store=store).open(f"store:{name}", platform="linux/amd64")


def app(run: dict[str, Any] | None = None, *more: Entry) -> TestImage:
    return image([[*FILES, *more]], run={"Cmd": ["/bin/sh"], "User": "redis", **(run or {})})


def test_a_bundle_is_a_copy_of_the_tree_and_a_config(store: Store, tmp_path: Path) -> None:
    """What was not unpacked is; the tree is the snapshot's to the last field and shares no file with it."""
    img = opened(store, app())
    made = img.bundle(tmp_path / "b", args=("-c", "x"), read_only=True)
    assert os.fspath(made) == str(tmp_path / "b")
    assert sorted(os.listdir(tmp_path / "b")) == ["config.json", "rootfs"]
    document = json.loads((tmp_path / "b/config.json").read_bytes())
    assert document == made.config
    assert document["process"]["user"] == {"uid": 999, "gid": 998, "additionalGids": [998, 50]}
    assert document["process"]["args"] == ["-c", "x"]
    committed = store.snapshots.path(str(img.chain_id))
    assert os.readlink(tmp_path / "b/rootfs/lib") == "usr/lib"  # not all systems can set its time
    assert_same(*(snapshot(tree, skip=["lib"]) for tree in (tmp_path / "b/rootfs", committed)))
    (tmp_path / "b/rootfs/data/dump").write_bytes(b"changed")
    assert (committed / "data/dump").read_bytes() == b"content"


def test_e61_only_the_owner_gets_into_a_bundle(store: Store, tmp_path: Path) -> None:
    """0700 whatever the umask, also for a directory that was there with another mode (CVE-2021-41103)."""
    require("kernel")
    img = opened(store, app())
    (tmp_path / "there").mkdir(mode=0o777)
    (tmp_path / "there").chmod(0o777)
    before = os.umask(0)
    try:
        for name in ("new", "there"):
            img.bundle(tmp_path / name)
            assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_directory_with_something_in_it_is_left_alone(store: Store, tmp_path: Path) -> None:
    """Also with an old bundle, or one that is being made; a file, and a place whose parent is missing, are refused."""
    img = opened(store, app())
    (tmp_path / "full").mkdir()
    (tmp_path / "full/.hidden").touch()
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "killed/rootfs").mkdir(parents=True)
    img.bundle(tmp_path / "old")
    before = snapshot(tmp_path, skip=["root"])
    for name, said in [
        ("full", "not empty"),
        ("old", "not empty"),
        ("killed", "if that was killed, remove the directory"),
        ("file", "Not a directory"),
        ("no/such/parent", "No such file"),
    ]:
        with pytest.raises(BundleError, match=said):
            img.bundle(tmp_path / name)
    assert_same(snapshot(tmp_path, skip=["root"]), before)


@pytest.mark.parametrize("there", [False, True])
def test_e61_a_failure_leaves_no_half_bundle(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A full disk while copying, an interrupt, a time limit: the place is as it was before."""
    require("kernel")
    img = opened(store, app())
    place = tmp_path / "b"
    if there:
        place.mkdir(mode=0o755)
        place.chmod(0o755)
    before = snapshot(tmp_path, skip=["root"])
    copy = copying.copy_tree

    def failing(error: BaseException) -> Any:
        def copy_some(source: Path, target: Path, check: Any) -> None:
            copy(source, target, check)
            raise error

        return copy_some

    for error, expected in [
        (OSError(28, "No space left on device"), BundleError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (LayerError("layer", "", "x"), LayerError),
    ]:
        monkeypatch.setattr(copying, "copy_tree", failing(error))
        with pytest.raises(expected):
            img.bundle(place)
        assert_same(snapshot(tmp_path, skip=["root"]), before, ignore=["mtime_ns"])
    monkeypatch.setattr(copying, "copy_tree", copy)
    img.bundle(tmp_path / "whole")
    with pytest.raises(DeadlineExceeded):
        img.bundle(place, scope=Scope(deadline=0))
    assert place.exists() == there
    img.bundle(place)
    assert (place / "config.json").is_file()


def test_of_two_that_make_one_bundle_one_does(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second, which found the directory empty, is refused and takes nothing away from the first."""
    img = opened(store, app())
    copy = copying.copy_tree
    seen: list[str] = []

    def meanwhile(source: Path, target: Path, check: Any) -> None:
        from ocidist.runtime import bundle

        monkeypatch.setattr(bundle, "refuse_full", lambda path: None)
        with pytest.raises(BundleError, match="is being made there") as caught:
            img.bundle(tmp_path / "b")
        seen.append(str(caught.value))
        copy(source, target, check)

    monkeypatch.setattr(copying, "copy_tree", meanwhile)
    img.bundle(tmp_path / "b")
    assert len(seen) == 1
    assert (tmp_path / "b/rootfs/data/dump").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        ({"User": "nobody"}, {}, "no such account"),
        ({"User": "4294967296"}, {}, "ids go from 0"),
        ({"Cmd": None}, {}, "no program"),
        ({"WorkingDir": "/proc/self/fd/7"}, {}, "leads into /proc"),
        ({"WorkingDir": "lib/../../proc/self/fd/7/.."}, {}, "leads into /proc"),
        ({"WorkingDir": "/dev/fd/7"}, {}, "leads into /dev"),
        ({"WorkingDir": "/way/out/8"}, {}, "leads into /proc"),
        ({}, {"user": "999:none"}, "no group"),
    ],
)
def test_what_can_not_run_is_refused_before_anything_is_made(
    store: Store, tmp_path: Path, run: Any, options: Any, said: str
) -> None:
    """An account that is none, no program, a working directory on the host's side (CVE-2024-21626)."""
    img = opened(store, app(run, Entry("way/"), Entry("way/out", link="../proc/self/fd")))
    with pytest.raises(OcidistError, match=said):
        img.bundle(tmp_path / "b", BundleOptions(**options))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("/proc/self/fd/7/../../../..", "/"),
        ("/dev/fd/7/../../../srv/./x/", "/srv/x"),
        ("/way/out", "/"),
        ("/way/app/new", "/srv/app/new"),
    ],
)
def test_the_runtime_gets_a_working_directory_without_links_and_dots(
    written: str, given: str, store: Store, tmp_path: Path
) -> None:
    """What was looked at is where it starts: ``..`` behind a link of /proc leads above what that stands for."""
    ways = [
        Entry("way/"),
        Entry("way/out", link="/proc/self/fd/7/../../../.."),
        Entry("way/app", link="../srv/app"),
    ]
    made = opened(store, app({"WorkingDir": written}, *ways)).bundle(tmp_path / "b")
    assert json.loads((made.path / "config.json").read_bytes())["process"]["cwd"] == given


def test_h71_hostile_account_files_are_refused_and_a_number_still_runs(store: Store, tmp_path: Path) -> None:
    """A FIFO for /etc/passwd and a ring for /etc/group: named, not waited for; ``--user UID:GID`` reads neither."""
    require("os:mkfifo", "kernel")
    hostile = image(
        [[Entry("etc/"), Entry("etc/passwd", type=b"6"), Entry("etc/group", link="group")]],
        run={"Cmd": ["/x"], "User": "redis"},
    )
    img = opened(store, hostile)
    with pytest.raises(BundleError, match="/etc/passwd: in the image it is a FIFO"):
        img.bundle(tmp_path / "b")
    with pytest.raises(BundleError, match="/etc/group: in the image it is a ring of links"):
        img.bundle(tmp_path / "b", user="7:redis")
    assert img.bundle(tmp_path / "b", user="7:8").config["process"]["user"]["uid"] == 7


def test_volumes_of_a_read_only_bundle_can_be_written(store: Store, tmp_path: Path) -> None:
    """Each is a tmpfs with the content, mode and owner it has in the image; what belongs to the kernel stays, and a
    file."""
    names = [
        "/data",
        "/new",
        "data/",
        "/proc/x",
        "/dev",
        "/",
        "//sys",
        "/etc/../mounted",
        "/../lib/x",
        "/kernel",
        "/etc/passwd",
    ]
    link = Entry("kernel", link="data/../proc/sys")
    img = opened(store, app({"Volumes": {name: {} for name in names}}, link))
    from ocidist.runtime.options import Mount

    mine = Mount("/mounted", "tmpfs", "tmpfs")
    document = img.bundle(tmp_path / "b", read_only=True, mounts=(mine,)).config
    volumes = {mount["destination"]: mount for mount in document["mounts"][7:]}
    assert set(volumes) == {"/data", "/new", "/lib/x", "/mounted"}
    owner = os.stat(tmp_path / "b/rootfs/data")
    assert volumes["/data"]["options"] == [
        *("nosuid", "nodev", "tmpcopyup", "mode=750", f"uid={owner.st_uid}", f"gid={owner.st_gid}")
    ]
    assert volumes["/new"]["options"] == ["nosuid", "nodev", "tmpcopyup"]
    plain = img.bundle(tmp_path / "writable").config
    assert len(plain["mounts"]) == 7


def test_a_user_that_no_namespace_maps_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rootless without ranges: the container has root alone. With ranges redis runs as itself."""
    from ocidist.runtime import mappings

    require("os:geteuid")
    img = opened(store, app())
    monkeypatch.setattr(mappings, "_ranges", lambda path, program: b"")
    with pytest.raises(BundleError, match="--user 0 runs as yourself"):
        img.bundle(tmp_path / "b", rootless=True)
    document = img.bundle(tmp_path / "b", rootless=True, user="0").config
    assert document["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    ranges = f"{os.geteuid()}:100000:65536\n".encode()
    monkeypatch.setattr(mappings, "_ranges", lambda path, program: ranges)
    document = img.bundle(tmp_path / "c", rootless=True).config
    assert document["process"]["user"] == {"uid": 999, "gid": 998}
    assert document["linux"]["gidMappings"][1] == {"containerID": 1, "hostID": 100000, "size": 65536}


def test_a_read_only_store_gives_bundles_of_what_is_unpacked(store: Store, tmp_path: Path) -> None:
    """No lease, no lock; what is not unpacked is refused."""
    img = opened(store, app())
    reader = Store.at(store.root, readonly=True)
    again = Client(store=reader).open("store:docker.io/library/app:1", platform="linux/amd64")
    with pytest.raises(BundleError, match="not unpacked"):
        again.bundle(tmp_path / "b")
    img.bundle(tmp_path / "first")
    again.bundle(tmp_path / "b")
    assert_same(snapshot(tmp_path / "b"), snapshot(tmp_path / "first"), root=False, ignore=["mtime_ns"])


def test_options_as_a_notebook_writes_them(store: Store, tmp_path: Path) -> None:
    """Numbers and lists will do, and names beside a whole; what can't be meant is refused."""
    img = opened(store, app())
    base = BundleOptions(env={"A": "b"}, args=("x",))
    document = img.bundle(tmp_path / "b", base, user=7, entrypoint=["sh"], args=["-c", "y"]).config
    assert document["process"]["user"]["uid"] == 7
    assert document["process"]["args"] == ["sh", "-c", "y"]
    assert "A=b" in document["process"]["env"]
    wrong: list[dict[str, Any]] = [
        {"args": "ls -l"},
        {"entrypoint": "sh"},
        {"user": ""},
        {"network": "bridge"},
    ]
    for choices in wrong:
        with pytest.raises(UsageError):
            img.bundle(tmp_path / "c", **choices)
    with pytest.raises(BundleError, match="no sign"):
        img.bundle(tmp_path / "c", user=-1)
    assert not (tmp_path / "c").exists()


def test_only_images_of_a_store_have_a_bundle(store: Store, tmp_path: Path) -> None:
    """Of a registry's image the error says to pull it; an artifact has no root filesystem."""
    import ocidist

    with pytest.raises(UsageError, match="pull it first"):
        ocidist.demo().bundle(tmp_path / "b")
    img = opened(store, app())
    artifact = Image(img.reference, img.descriptor, img.manifest, None, source=store, store=store)
    with pytest.raises(UsageError, match="artifact"):
        artifact.bundle(tmp_path / "b")
