"""config.json from an image's config and a person's options, before any file is looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocidist.errors import BundleError, InvalidManifest, UsageError
from ocidist.runtime.accounts import Account
from ocidist.runtime.annotations import left_out, of_config
from ocidist.runtime.mappings import Mappings, Range, parse
from ocidist.runtime.options import BundleOptions, Mount, parse_pair
from ocidist.runtime.spec import runtime_config
from ocidist.spec.config import ImageConfig
from tests.parts.images import to_json

ROOT = Account(0, 0, (0,))
ALONE = Mappings((Range(0, 1000, 1),), (Range(0, 1000, 1),))


def config(run: dict[str, Any] | None = None, **more: Any) -> ImageConfig:
    document = {"architecture": "arm64", "os": "linux", **more, "config": {"Cmd": ["sh"], **(run or {})}}
    return ImageConfig.parse(to_json(document))


def made(run: dict[str, Any] | None = None, options: BundleOptions | None = None, **more: Any) -> Any:
    document = runtime_config(config(run), ROOT, options or BundleOptions(), **more)
    return json.loads(json.dumps(document))


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "options", "args"),
    [
        (None, ["sh", "-c", "x"], {}, ["sh", "-c", "x"]),
        (["run"], ["all"], {}, ["run", "all"]),
        (["run"], None, {}, ["run"]),
        (["run"], ["all"], {"args": ("one", "two")}, ["run", "one", "two"]),
        (["run"], ["all"], {"args": ()}, ["run"]),
        (None, ["all"], {"args": ("ls", "--", "-l")}, ["ls", "--", "-l"]),
        (["run"], ["all"], {"entrypoint": ("sh",)}, ["sh"]),
        (["run"], ["all"], {"entrypoint": (), "args": ("sh",)}, ["sh"]),
        (None, None, {"args": ("ls",)}, ["ls"]),
    ],
)
def test_what_is_run(entrypoint: Any, cmd: Any, options: Any, args: list[str]) -> None:
    """Entrypoint, then Cmd or what is given in its place (conversion.md, note 2)."""
    document = made({"Entrypoint": entrypoint, "Cmd": cmd}, BundleOptions(**options))
    assert document["process"]["args"] == args


@pytest.mark.parametrize("run", [{"Cmd": None}, {"Cmd": []}, {"Cmd": [""]}])
def test_an_image_without_a_program(run: Any) -> None:
    """It is refused with the way out."""
    with pytest.raises(BundleError, match="write one behind --"):
        made(run)


def test_the_environment() -> None:
    """The image's in its order, the last of a name; the options' over it; a PATH only where there is none."""
    assert made()["process"]["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    options = BundleOptions(env={"B": "new=", "C": ""}, terminal=True)
    document = made({"Env": ["B=1", "PATH=", "A=x=y", "A=z"]}, options)
    assert document["process"]["env"] == ["B=new=", "PATH=", "A=z", "C=", "TERM=xterm"]
    assert document["process"]["terminal"] is True


@pytest.mark.parametrize("entry", ["A", "=b", "", "A=b\0c"])
def test_a_variable_that_no_process_can_have(entry: str) -> None:
    """Named, and refused here instead of by the runtime."""
    with pytest.raises(InvalidManifest, match=r"config\.Env"):
        made({"Env": [entry]})


def test_other_strings_with_nul_are_refused() -> None:
    """exec and chdir would cut them."""
    with pytest.raises(InvalidManifest, match="NUL"):
        made({"Cmd": ["a\0b"]})
    with pytest.raises(InvalidManifest, match="NUL"):
        made({"WorkingDir": "/a\0b"})


@pytest.mark.parametrize(
    ("written", "cwd"), [("", "/"), ("/srv/x", "/srv/x"), ("srv", "/srv"), ("/a/../b", "/a/../b")]
)
def test_the_working_directory_is_as_written_and_absolute(written: str, cwd: str) -> None:
    """The runtime makes it where it is missing."""
    assert made({"WorkingDir": written})["process"]["cwd"] == cwd


def test_groups_and_namespaces_with_and_without_root() -> None:
    """With root: all groups, a network of its own. Without: mapped ids, the host's network and /sys, no gid=5."""
    account = Account(0, 7, (7, 8))
    rootful = runtime_config(config(), account, BundleOptions())
    rootless = runtime_config(config(), account, BundleOptions(rootless=True), mappings=ALONE)
    assert rootful["process"]["user"] == {"uid": 0, "gid": 7, "additionalGids": [7, 8]}
    assert rootless["process"]["user"] == {"uid": 0, "gid": 7}
    kinds = [{each["type"] for each in document["linux"]["namespaces"]} for document in (rootful, rootless)]
    assert kinds == [{"pid", "network", "ipc", "uts", "mount"}, {"pid", "ipc", "uts", "mount", "user"}]
    assert rootless["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert "resources" not in rootless["linux"]
    mounts = [{m["destination"]: m for m in document["mounts"]} for document in (rootful, rootless)]
    assert "gid=5" in mounts[0]["/dev/pts"]["options"]
    assert "gid=5" not in mounts[1]["/dev/pts"]["options"]
    assert mounts[0]["/sys"]["type"] == "sysfs"
    assert (mounts[1]["/sys"]["source"], mounts[1]["/sys"]["options"][0]) == ("/sys", "rbind")


def test_the_network_can_be_chosen() -> None:
    """The other one of each."""
    host = runtime_config(config(), ROOT, BundleOptions(network="host"))
    assert "network" not in {each["type"] for each in host["linux"]["namespaces"]}
    private = runtime_config(config(), ROOT, BundleOptions(network="private"), mappings=ALONE)
    assert "network" in {each["type"] for each in private["linux"]["namespaces"]}
    assert {m["destination"]: m["type"] for m in private["mounts"]}["/sys"] == "sysfs"


def test_a_read_only_root_and_mounts() -> None:
    """The options' mounts come last, so that they may cover a default."""
    options = BundleOptions(read_only=True, mounts=(Mount("/dev/shm", "tmpfs", "tmpfs", ("size=1m",)),))
    document = made(options=options)
    assert document["root"] == {"path": "rootfs", "readonly": True}
    assert document["mounts"][-1] == {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["size=1m"],
    }
    assert made()["root"]["readonly"] is False


# -- annotations --


def test_annotations_by_the_conversion_rules() -> None:
    """Each field of conversion.md's table under its name; labels take precedence; what is empty is left out."""
    image = config(
        {
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"6379/tcp": {}, "53/udp": {}},
            "Labels": {"org.opencontainers.image.author": "the label", "org.opencontainers.image.title": "t"},
        },
        author="the config",
        created="2023-11-14T22:13:20.5+01:00",
        variant="v8",
        **{"os.version": "10", "os.features": ["a", "b"]},
    )
    assert of_config(image) == {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "arm64",
        "org.opencontainers.image.variant": "v8",
        "org.opencontainers.image.os.version": "10",
        "org.opencontainers.image.os.features": "a,b",
        "org.opencontainers.image.author": "the label",
        "org.opencontainers.image.created": "2023-11-14T22:13:20.5+01:00",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
        "org.opencontainers.image.exposedPorts": "6379/tcp,53/udp",
        "org.opencontainers.image.title": "t",
    }
    assert left_out(image) == ()
    assert of_config(config()) == {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "arm64",
    }


HOSTILE = {
    "run.oci.hooks.stdout": "/etc/cron.d/x",
    "run.oci.handler": "wasm",
    "run.oci.keep_original_groups": "1",
    "org.systemd.property.ExecStart": "'/bin/sh'",
    "io.katacontainers.config.hypervisor.path": "/x",
    "io.kubernetes.cri-o.userns-mode": "auto",
    "org.opencontainers.runc.x": "y",
    "org.opencontainers.image": "not below the prefix",
    "module.wasm.image/variant": "compat",
    "terminal": "true",
    "hooks": '{"prestart": [{"path": "/bin/sh"}]}',
    "privileged": "true",
}


def test_d49_labels_never_become_runtime_options() -> None:
    """With and without them the document is the same; they are told, and a person may set one by hand."""
    assert made({"Labels": HOSTILE}) == made()
    assert set(left_out(config({"Labels": HOSTILE}))) == set(HOSTILE)
    asked = made({"Labels": HOSTILE}, BundleOptions(annotations={"run.oci.handler": "mine"}))
    assert asked["annotations"]["run.oci.handler"] == "mine"
    assert len(asked["annotations"]) == len(made()["annotations"]) + 1


def test_d49_members_that_no_image_specification_has_are_not_taken_over() -> None:
    """Only fields that the conversion names reach the document."""
    run = {"Hooks": {}, "Privileged": True, "CapAdd": ["ALL"], "Devices": ["/dev/sda"], "Binds": ["/:/host"]}
    run |= {"Healthcheck": {"Test": ["CMD", "x"]}, "OnBuild": ["RUN x"], "Shell": ["x"]}
    assert made(run) == made()


# -- what a person writes --


def test_mounts_as_they_are_written(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's words and ctr's, with defaults for each type."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    here = str(tmp_path)
    assert Mount.parse(f"type=bind,source={here},target=/x") == Mount(
        "/x", "bind", here, ("rbind", "rprivate")
    )
    assert Mount.parse("src=.,dst=/x,ro") == Mount("/x", "bind", here, ("rbind", "rprivate", "ro"))
    assert Mount.parse("src=.,destination=/x,readonly=false").options == ("rbind", "rprivate")
    assert Mount.parse("type=bind,src=.,dst=/x,options=bind:ro:noexec").options == ("bind", "ro", "noexec")
    assert Mount.parse('"src=a,b",dst=/x').source == f"{here}/a,b"
    assert Mount.parse("type=tmpfs,dst=/tmp") == Mount("/tmp", "tmpfs", "tmpfs", ("nosuid", "nodev"))
    assert Mount.parse("type=tmpfs,dst=/tmp,options=size=1m:mode=1777").options == ("size=1m", "mode=1777")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "absolute path"),
        ("/a:/b", "'/a:/b' is not known"),
        ("type=bind,src=.,dst=x", "absolute path"),
        ("type=bind,src=.,dst=/a/../../b", "absolute path"),
        ("type=bind,dst=/x", "does not exist"),
        ("type=bind,src=/no/such/place,dst=/x", "does not exist"),
        ("type=overlay,dst=/x", "no type of mount"),
        ("type=tmpfs,dst=/x,dst=/y", "given twice"),
        ("type=tmpfs,dst=/x,readonly=perhaps", "true or false"),
        ("type=tmpfs,dst=/x,propagation=shared", "'propagation' is not known"),
        ("type=tmpfs,dst=/x\0", "write type="),
        ('"type=tmpfs', "mount"),
    ],
)
def test_mounts_that_can_not_be_meant(text: str, said: str) -> None:
    """Each is one line that shows what to write."""
    with pytest.raises(UsageError) as caught:
        Mount.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs() -> None:
    """NAME=VALUE; the value may have more signs and may be empty."""
    assert parse_pair("A=b=c", "--env") == ("A", "b=c")
    assert parse_pair("A=", "--env") == ("A", "")
    for text in ("A", "=b", "", "A=b\0"):
        with pytest.raises(UsageError, match="--env"):
            parse_pair(text, "--env")


def test_ranges_of_subordinate_ids() -> None:
    """Those of the user, by name or number, one behind the other; what is malformed is none."""
    text = b"other:1:9\nann:100000:65536\n\nann:x:1\nann:1:-1\n1000:500000:10\nann:1:0\nann:4294967290:9\nann:1\n"
    text += b"ann:99999999999:1\nann:7:4294967295\n# ann:3:3\nann:\xd9\xa1:1\n"
    assert parse(text, 1000, [b"1000", b"ann"]) == (
        Range(0, 1000, 1),
        Range(1, 100000, 65536),
        Range(65537, 500000, 10),
    )
    ranges = parse(text, 1000, [b"1000", b"ann"])
    both = Mappings(ranges, ranges[:2])
    assert both.has(0, 0)
    assert both.has(65546, 65536)
    assert not both.has(65547, 0)
    assert not both.has(0, 65537)
