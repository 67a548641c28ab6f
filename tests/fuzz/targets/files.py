"""Files that others write: cassettes, Docker's configuration, the database of names."""

from __future__ import annotations

import base64
import functools
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ocidist.errors import CredentialError, StoreError, TransportError, UsageError
from ocidist.images.connection import DatabaseFile
from ocidist.images.leases import SqliteLeases
from ocidist.images.sqlite import SqliteImages
from ocidist.net.cassette import read_cassette
from ocidist.net.message import Headers, Request
from ocidist.net.replay import ReplayTransport
from ocidist.remotes.registry.credentials import Credential, CredentialStore
from ocidist.remotes.registry.hosts_toml import parse_hosts
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.fuzz.harness import Target, mutated, refused_or, seeds
from tests.fuzz.targets.documents import changed

__all__ = ["CASSETTES", "CREDENTIALS", "DATABASES", "HOSTS"]

PASSWORD = "s3cret-w0rd"


class _File:
    """What a cassette is read from."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)

    def __str__(self) -> str:
        return "recording.json"


def check_cassette(raw: bytes) -> None:
    """Refused as a whole, or every exchange in it is found again and read, or refused, by the request that it is for."""
    folder = Path(__file__).parent  # sidecars are missing there
    replay = refused_or(lambda: ReplayTransport(read_cassette(_File(raw), folder)), by=TransportError)
    if replay is None:
        return
    for exchange in replay.exchanges[:50]:
        for method in (exchange.method, "HEAD"):
            for more in ([], [("Range", "bytes=1-2")]):
                request = Request(method, exchange.url, Headers([*exchange.request_headers, *more]))
                answer = refused_or(replay.send, request, Scope(), by=TransportError)
                if answer is not None:
                    assert answer.length is None or answer.length >= 0
                    refused_or(answer.read, 1 << 20, by=TransportError)


def check_credentials(raw: bytes) -> None:
    """Credentials, none, or a CredentialError that shows no secret; what can't be read is never overwritten."""
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(temporary, "config.json")
        path.write_bytes(raw)
        store = CredentialStore([path], path)

        def careful(*call: Any) -> Any:
            try:
                return refused_or(*call, by=CredentialError)
            except CredentialError as error:  # pragma: no cover - refused_or has caught it
                raise AssertionError from error

        for host in ("registry.example", "docker.io", "localhost:5000"):
            found = careful(store.get, host, "team/app")
            assert found is None or PASSWORD not in repr(found)
            careful(store.where, host, "team/app")
        readable = isinstance(_json(raw), dict)
        kept = careful(store.put, "registry.example", Credential("ann", PASSWORD))
        if kept is None:
            assert path.read_bytes() == raw
        else:
            assert readable or not raw.strip()
            careful(store.delete, "registry.example")


def check_hosts(text: str) -> None:
    """Endpoints that requests can be sent to, or a UsageError that names the file."""
    found = refused_or(parse_hosts, text, Path("hosts.toml"), by=UsageError)
    for endpoint in found or ():
        assert endpoint.scheme in ("http", "https", "")
        assert endpoint.url.isprintable()
        assert bool(endpoint.host) == bool(endpoint.url)
        assert not any(set("\r\n\0") & set(name + value) for name, value in endpoint.header)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


@functools.cache
def _database() -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        file = DatabaseFile(Path(temporary, "meta.db"))
        names, leases = SqliteImages(file), SqliteLeases(file)
        for number in range(20):
            target = Descriptor(
                "application/vnd.oci.image.manifest.v1+json", Digest.of(b"%d" % number), number
            )
            names.put(f"registry.example/app:{number}", target, {"label": "x" * number})
            leases.set_labels(target.digest, {"containerd.io/gc.root": "true"})
            leases.hold("lease", 4e9, [("content", str(target.digest))])
        file.close()
        return Path(temporary, "meta.db").read_bytes()


def check_database(edits: list[tuple[int, bytes]]) -> None:
    """A file with bytes changed answers, or is a StoreError that says so; writing to it too."""
    raw = bytearray(_database())
    for at, piece in edits:
        at %= len(raw)
        raw[at : at + len(piece)] = piece
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "meta.db")
        path.write_bytes(raw[: max(edits)[0]] if len(edits) % 5 == 4 else raw)
        file = DatabaseFile(path)
        names, leases = SqliteImages(file), SqliteLeases(file)
        target = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"1"), 1)
        for use in (
            names.all,
            leases.all,
            names.problems,
            lambda: names.get("registry.example/app:1"),
            lambda: names.of(target.digest),
            lambda: leases.labels(target.digest),
            lambda: leases.labeled("containerd.io/"),
            lambda: names.put("registry.example/new:1", target),
            lambda: names.delete("registry.example/app:2"),
            lambda: leases.hold("lease", 5e9, [("content", str(target.digest))], {"a": "b"}),
        ):
            refused_or(use, by=StoreError)  # type: ignore[arg-type]
        file.close()


_JSON = (
    b"{",
    b"[",
    b'"',
    b",",
    b":",
    b"null",
    b"1e400",
    b"NaN",
    b"9" * 400,
    b"\\ud800",
    b"\xff",
    b"-1",
    b"\xc2\xb2",
)
CASSETTES = Target(
    "cassettes",
    changed(seeds("cassettes")[:3]) | mutated(seeds("cassettes"), *_JSON),
    check_cassette,
    longest=64 << 10,
)
CREDENTIALS = Target(
    "credentials",
    changed(seeds("credentials")[:3]) | mutated(seeds("credentials"), *_JSON, base64.b64encode(b"no colon")),
    check_credentials,
    longest=64 << 10,
)
DATABASES = Target(
    "databases",
    st.lists(
        st.tuples(st.integers(0, 120) | st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=8,
    ),
    check_database,
    text=False,
)
HOSTS = Target(
    "hosts",
    mutated(
        seeds("hosts"),
        '"',
        "[",
        "]",
        "=",
        "\n",
        "[host.",
        "{",
        "}",
        "true",
        "1",
        "#",
        "\\u0000",
        "http://",
        ".",
        "'" * 3,
    ),
    check_hosts,
    longest=32 << 10,
)
