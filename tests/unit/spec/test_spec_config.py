"""Image configs, their times, and chain IDs."""

from __future__ import annotations

import hashlib
import json
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import InvalidManifest
from ocidist.spec import mediatype
from ocidist.spec.chain import chain_id, chain_ids
from ocidist.spec.config import History, ImageConfig, RunConfig, parse_time
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform

ONE, TWO, THREE = (Digest.of(text) for text in (b"1", b"2", b"3"))


def config(**more: Any) -> dict[str, Any]:
    """An image config as JSON, as docker build writes it."""
    return {
        "architecture": "arm",
        "os": "linux",
        "variant": "v7",
        "created": "2024-02-03T04:05:06.123456789Z",
        "author": "someone",
        "config": {
            "Hostname": "",
            "User": "1000:100",
            "Env": ["PATH=/bin", "A="],
            "Entrypoint": ["/entry"],
            "Cmd": None,
            "WorkingDir": "/srv",
            "Labels": {"a": "b", "A": "c"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGQUIT",
        },
        "rootfs": {"type": "layers", "diff_ids": [ONE, TWO]},
        "history": [
            {"created": "2024-02-03T04:05:06Z", "created_by": "ADD rootfs.tar / # buildkit"},
            {"created_by": "ENV A=", "empty_layer": True, "comment": "c", "author": "x"},
            {"created_by": "COPY a b"},
        ],
        **more,
    }


def parse(value: Any) -> ImageConfig:
    return ImageConfig.parse(json.dumps(value).encode())


def test_a_config_is_read_whole() -> None:
    """Every member, its bytes kept, and through pickle."""
    raw = json.dumps(config(), indent=1).encode()
    parsed = ImageConfig.parse(raw)
    assert parsed.raw == raw
    assert parsed.data["config"]["Hostname"] == ""
    assert parsed.platform == Platform("linux", "arm", "v7")
    assert parsed.created == datetime(2024, 2, 3, 4, 5, 6, 123456, tzinfo=timezone.utc)
    assert parsed.author == "someone"
    assert parsed.diff_ids == (ONE, TWO)
    assert parsed.history[1] == History(None, "ENV A=", "x", "c", True)
    assert parsed.run == RunConfig(
        user="1000:100",
        env=("PATH=/bin", "A="),
        entrypoint=("/entry",),
        cmd=None,
        working_dir="/srv",
        exposed_ports=("80/tcp", "53/udp"),
        volumes=("/data",),
        stop_signal="SIGQUIT",
    )
    assert parsed.run.labels == {"a": "b", "A": "c"}
    assert parsed.descriptor(mediatype.OCI_CONFIG) == Descriptor(
        mediatype.OCI_CONFIG, Digest.of(raw), len(raw)
    )
    assert pickle.loads(pickle.dumps(parsed)) == parsed


def test_what_is_missing_reads_as_empty() -> None:
    """Signatures and other artifacts travel under the image config's type; an empty list isn't an absent one."""
    parsed = parse({})
    assert (parsed.diff_ids, parsed.history, parsed.created, parsed.run) == ((), (), None, RunConfig())
    assert str(parsed.platform) == "unknown/unknown"
    assert parse({"config": None, "rootfs": None, "history": None, "created": None}) is not None
    assert parse({"config": {"Cmd": [], "Entrypoint": "sh"}}).run.cmd == ()
    assert parse({"config": {"Entrypoint": "sh"}}).run.entrypoint == ("sh",)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"rootfs": []}, "rootfs"),
        ({"rootfs": {"type": "layers", "diff_ids": "x"}}, "rootfs.diff_ids"),
        ({"rootfs": {"type": "layers", "diff_ids": [ONE, "sha256:../../x"]}}, "rootfs.diff_ids[1]"),
        ({"rootfs": {"type": "layers", "diff_ids": [None]}}, "rootfs.diff_ids[0]"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, "rootfs.type"),
        ({"rootfs": {"Type": "layers"}}, "rootfs"),
        ({"rootfs": {"type": "layers", "Diff_IDs": []}}, "rootfs"),
        ({"history": {}}, "history"),
        ({"history": [1]}, "history[0]"),
        ({"history": [{"empty_layer": 1}]}, "history[0].empty_layer"),
        ({"history": [{"created_by": []}]}, "history[0].created_by"),
        ({"history": [{}, {"Empty_Layer": True}]}, "history[1]"),
        ({"config": {"Env": "A=1"}}, "config.Env"),
        ({"config": {"Env": [1]}}, "config.Env[0]"),
        ({"config": {"User": 0}}, "config.User"),
        ({"config": {"user": "root"}}, "config"),
        ({"config": {"Labels": {"a": 1}}}, "config.Labels.'a'"),
        ({"config": {"Cmd": [None]}}, "config.Cmd[0]"),
        ({"config": {"Volumes": ["/a"]}}, "config.Volumes"),
        ({"RootFS": {}}, ""),
        ({"OS": "linux"}, ""),
        ({"os": ["linux"]}, "os"),
        ({"created": 5}, "created"),
    ],
)
def test_d43_a_config_of_the_wrong_shape_is_refused(change: dict[str, Any], where: str) -> None:
    """Wrong types, digests with path steps, specified names in other letters: with the place."""
    with pytest.raises(InvalidManifest, match="invalid image config") as caught:
        parse(config(**change))
    assert caught.value.where == where


def test_d46_a_history_that_does_not_fit_is_no_fault() -> None:
    """It is optional: the config parses."""
    short = parse(config(history=[{"created_by": "RUN x"}]))
    assert short.diff_ids == (ONE, TWO)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2024-02-03T04:05:06Z", "2024-02-03T04:05:06+00:00"),
        ("2024-02-03T04:05:06.1Z", "2024-02-03T04:05:06.100000+00:00"),
        ("2024-02-03T04:05:06.999999999+02:00", "2024-02-03T02:05:06.999999+00:00"),
        ("2024-02-03t04:05:06-07:30", "2024-02-03T11:35:06+00:00"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59+00:00"),
        ("9999-12-31T23:59:59-01:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("2024-02-30T04:05:06Z", None),
        ("2024-02-03T04:05:06", None),
        ("2024-02-03", None),
        ("2024-02-03T04:05:06Z\n", None),
        ("٢٠٢٤-02-03T04:05:06Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_are_utc_or_unknown(text: str, iso: str | None) -> None:
    """RFC 3339 to the microsecond; a date that can't be read does not hide the image."""
    found = parse_time(text)
    assert (found.isoformat() if found else None) == iso


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=offsets))
def test_times_agree_with_datetime(moment: datetime) -> None:
    """What isoformat writes is read back to the same moment."""
    assert parse_time(moment.isoformat()) == moment


def test_chain_ids_are_those_of_the_specification() -> None:
    """Each is the digest of the one below, a space, and the DiffID on top."""
    second = Digest("sha256:" + hashlib.sha256(f"{ONE} {TWO}".encode()).hexdigest())
    third = Digest("sha256:" + hashlib.sha256(f"{second} {THREE}".encode()).hexdigest())
    assert chain_ids([ONE, TWO, THREE]) == (ONE, second, third)
    assert chain_id([ONE]) == ONE
    assert chain_id(iter([ONE, TWO, THREE])) == third
    assert chain_ids([]) == ()


def test_no_layers_have_no_chain_id() -> None:
    """The specification has none; the error says so."""
    with pytest.raises(InvalidManifest, match="without layers"):
        chain_id([])


@given(st.lists(st.binary(max_size=4).map(Digest.of), min_size=1, max_size=6))
def test_a_chain_grows_from_its_base(diff_ids: list[Digest]) -> None:
    """Every prefix of the stack has the same ChainIDs, so images share snapshots."""
    whole = chain_ids(diff_ids)
    assert len(whole) == len(diff_ids)
    for height in range(1, len(diff_ids) + 1):
        assert chain_ids(diff_ids[:height]) == whole[:height]
