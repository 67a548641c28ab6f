"""Pulls from Debian's registry, loaded by skopeo: every authentication, http and TLS, direct and redirected."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

from ocidist.client import Client
from ocidist.errors import OcidistError, RegistryError, TransferError
from ocidist.remotes.registry.credentials import Credential
from ocidist.spec.digest import Digest
from tests.interop.conftest import ALICE, PASSWORD
from tests.interop.registries import AUTHS, REPOSITORY, TAG, Place, blobs_in, place
from tests.parts import secrets
from tests.parts.images import (
    MANIFEST,
    Blob,
    TestImage,
    push_layout,
    push_with_skopeo,
    sha256,
    small_image,
    small_index,
    to_json,
    write_layout,
)
from tests.parts.processes import Program
from tests.parts.required import require

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority
    from tests.parts.registry import RegistryProcess
    from tests.parts.tokens import TokenServer
    from tests.parts.world import ExampleWorld

AMD64 = ("--platform", "linux/amd64")


def a_client(found: Place, root: Path, **more: Any) -> Client:
    """The Python API, in this process, let in as ``found`` demands."""
    auth: Any = found.credentials
    if found.identity is not None:
        auth = Credential("", "", found.identity)
    ca = found.ca.file if found.ca is not None else None
    return Client(store=root, auth=auth, ca=ca, platform="linux/amd64", **more)


def content_of(root: Path) -> dict[str, bytes]:
    """Digest -> content of a store; each must be what its name says, and nothing is under way."""
    found = blobs_in(root / "content")
    for digest, raw in found.items():
        assert Digest.of(raw, digest.partition(":")[0]) == digest
    assert not list((root / "content/ingest").glob("*"))
    return found


@pytest.mark.parametrize("redirect", [False, True], ids=["direct", "redirected"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
@pytest.mark.parametrize("auth", AUTHS)
def test_a13_what_is_stored_is_what_skopeo_copies(
    tmp_path: Path, ca: CertificateAuthority, auth: str, tls: bool, redirect: bool
) -> None:
    """fetch, pull and Client.pull store skopeo's bytes, digest by digest; the blob host sees no credential."""
    with place(tmp_path, small_index(), auth=auth, tls=ca if tls else None, redirect=redirect) as found:
        one, every = found.skopeo(tmp_path / "one"), found.skopeo(tmp_path / "all", "--all")
        assert set(every) == set(found.image.everything())
        with_index = {**one, found.image.digest: found.image.root.raw}
        found.forget()

        fetch = Program(tmp_path / "home", tmp_path / "fetched", options=found.options)
        assert fetch.ok("fetch", *AMD64, found.remote, TAG).text == f"{found.ref} {found.image.digest}\n"
        assert content_of(tmp_path / "fetched") == with_index

        pull = Program(tmp_path / "home", tmp_path / "pulled", options=found.options)
        done = pull.ok("pull", "--platform", "all", found.ref)
        assert done.lines[0].split()[:2] == [found.ref, found.image.digest]
        assert content_of(tmp_path / "pulled") == every

        pulled = a_client(found, tmp_path / "in-process").pull(found.ref)
        assert (pulled.reference, str(pulled.descriptor.digest)) == (found.ref, found.image.digest)
        assert content_of(tmp_path / "in-process") == with_index
        chain = Program(tmp_path / "home", tmp_path / "pulled").ok(
            "rootfs", "unpack", str(pulled.image.manifest.descriptor().digest)
        )
        assert chain.text == f"{pulled.chain_id}\n"

        if found.blobs is not None:
            assert sum(found.blobs.downloads().values()) == len(every) - 4 + 2 * (len(one) - 1)
            assert found.blobs.authorizations() == []
            assert not found.registry.front.downloads()
        if auth != "none":
            assert found.registry.front.authorizations()
        if auth == "token-post":
            assert found.tokens is not None
            assert {r.status for r in found.tokens.records if r.method == "POST"} == {200}
            assert {r.status for r in found.tokens.records if r.method == "GET"} == {405}
        if auth == "token-identity":
            assert found.tokens is not None
            assert {(r.method, r.status) for r in found.tokens.records} == {("POST", 200)}


def test_docker_media_types_are_stored_as_they_are(
    tmp_path: Path, make_registry: Callable[..., RegistryProcess]
) -> None:
    """A Docker schema 2 image keeps its bytes: the store has what skopeo's byte-exact ``dir:`` has."""
    require("skopeo")
    import subprocess

    from tests.parts.required import program

    registry = make_registry()
    layout = write_layout(tmp_path / "l", {"1": small_image()})
    command = [program("skopeo"), "--insecure-policy", "copy", "--quiet"]
    remote = f"docker://{registry.address}/docker:1"
    subprocess.run(
        [*command, "--dest-tls-verify=false", "--format=v2s2", f"oci:{layout}:1", remote], check=True
    )
    copied = tmp_path / "dir"
    subprocess.run([*command, "--src-tls-verify=false", remote, f"dir:{copied}"], check=True)
    expected = {
        sha256(path.read_bytes()): path.read_bytes() for path in copied.iterdir() if path.name != "version"
    }
    done = Program(tmp_path / "home", tmp_path / "root").ok("pull", f"{registry.address}/docker:1")
    manifest = (copied / "manifest.json").read_bytes()
    assert b"application/vnd.docker.distribution.manifest.v2+json" in manifest
    assert done.text.split()[1] == sha256(manifest)
    assert content_of(tmp_path / "root") == expected


# --- how many requests ------------------------------------------------------------------------------------------


def expected_requests(made: TestImage, *, challenged: bool) -> list[tuple[str, str, int]]:
    """What the protocol needs for a cold pull of the amd64 image behind an index."""
    base = f"/v2/{REPOSITORY}"
    image = made.children[0]
    return [
        *([("GET", f"{base}/manifests/{TAG}", 401)] if challenged else []),
        ("GET", f"{base}/manifests/{TAG}", 200),
        ("GET", f"{base}/manifests/{image.digest}", 200),
        *sorted(("GET", f"{base}/blobs/{blob.digest}", 200) for blob in image.blobs),
    ]


@pytest.mark.parametrize("auth", AUTHS)
def test_a_pull_makes_the_requests_that_the_protocol_needs(tmp_path: Path, auth: str) -> None:
    """Cold: index, manifest, config and layers, once each, and one challenge. Again: the tag alone."""
    with place(tmp_path, small_index(), auth=auth) as found:
        found.forget()
        program = Program(tmp_path / "home", tmp_path / "root", options=found.options)
        first = program.ok("pull", *AMD64, found.ref)
        asked = found.requests()
        needed = expected_requests(found.image, challenged=auth != "none")
        head = len(needed) - len(found.image.children[0].blobs)
        assert [*asked[:head], *sorted(asked[head:])] == needed
        token_requests = {"token-post": 2, "none": 0, "htpasswd": 0}.get(auth, 1)
        if found.tokens is not None:
            assert len(found.tokens.records) == token_requests

        found.forget()
        assert program.ok("pull", *AMD64, found.ref).stdout == first.stdout
        again = [request for request in needed if request[1].endswith(f"/manifests/{TAG}")]
        assert found.requests() == again
        if found.tokens is not None:
            assert len(found.tokens.records) == token_requests


def test_one_client_asks_for_one_token_and_keeps_its_connection(
    tmp_path: Path, ca: CertificateAuthority
) -> None:
    """Two pulls by one client: one challenge, one token, and the second pull is a single request."""
    with place(tmp_path, small_index(), auth="token-get", tls=ca) as found:
        client = a_client(found, tmp_path / "root", workers=1)
        found.forget()
        connections = found.registry.front.connections
        client.pull(found.ref)
        assert found.requests() == expected_requests(found.image, challenged=True)[:3] + found.requests()[3:]
        assert found.registry.front.connections == connections + 1
        found.forget()
        client.pull(found.ref)
        assert found.requests() == [("GET", f"/v2/{REPOSITORY}/manifests/{TAG}", 200)]
        assert found.tokens is not None
        assert found.tokens.records == []


def test_a_digest_that_is_here_is_not_asked_for(tmp_path: Path) -> None:
    """A pull by digest of what the store has downloads nothing again."""
    with place(tmp_path, small_image()) as found:
        program = Program(tmp_path / "home", tmp_path / "root")
        program.ok("pull", found.ref)
        found.forget()
        pinned = f"{found.remote}@{found.image.digest}"
        assert program.ok("pull", pinned).text.split()[:2] == [pinned, found.image.digest]
        assert not found.registry.front.downloads()
        assert len(found.requests()) <= 1


def test_a_layer_of_another_image_is_not_downloaded_again(tmp_path: Path) -> None:
    """Two tags with a layer in common: the second pull downloads what differs."""
    with place(tmp_path, small_image("a", layers=2)) as found:
        more = small_image("a", layers=3)
        layout = write_layout(tmp_path / "more", {"2": more})
        push_with_skopeo(layout, found.registry.loader.address, REPOSITORY, "2")
        program = Program(tmp_path / "home", tmp_path / "root")
        program.ok("pull", found.ref)
        found.forget()
        program.ok("pull", f"{found.remote}:2")
        new = {blob.digest for blob in more.blobs} - {blob.digest for blob in found.image.blobs}
        assert found.registry.front.downloads() == dict.fromkeys(new, 1)
        program.ok("pull", f"{found.remote}:2")
        assert found.registry.front.downloads() == dict.fromkeys(new, 1)


def test_where_gets_are_counted_as_pulls_a_tag_is_looked_up_by_head(
    tmp_path: Path, ca: CertificateAuthority, make_registry: Callable[..., RegistryProcess]
) -> None:
    """Docker Hub: HEAD for the tag; a second pull is that HEAD and no GET."""
    registry = make_registry(tls=ca, names=["registry-1.docker.io"])
    made = small_index()
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": made}), "library/app", "1")
    to = {"registry-1.docker.io:443": ("127.0.0.1", registry.port)}

    def pull() -> list[tuple[str, str]]:
        registry.front.forget()
        client = Client(store=tmp_path / "root", ca=ca.file, connect_to=to, platform="linux/amd64")
        assert client.pull("app:1").reference == "docker.io/library/app:1"
        return [(r.method, r.path.removeprefix("/v2/library/app/")) for r in registry.front.records]

    first = pull()
    assert first[:3] == [
        ("HEAD", "manifests/1"),
        ("GET", f"manifests/{made.digest}"),
        ("GET", f"manifests/{made.children[0].digest}"),
    ]
    assert sorted(first[3:]) == sorted(("GET", f"blobs/{blob.digest}") for blob in made.children[0].blobs)
    assert pull() == [("HEAD", "manifests/1")]


# --- where credentials go ---------------------------------------------------------------------------------------


def test_a13_three_hosts_by_name(tmp_path: Path, example_world: ExampleWorld) -> None:
    """The password goes to the token server alone, the token to the registry alone, the blob host gets nothing."""
    world = example_world
    made = small_index()
    layout = write_layout(tmp_path / "l", {"1": made})
    push_with_skopeo(layout, world.registry.loader.address, "private/app", "1")
    client = Client(
        store=tmp_path / "root",
        auth=(world.user, world.password),
        ca=world.ca_file,
        connect_to=world.connect_to,
        platform="all",
    )
    pulled = client.pull("registry.example/private/app:1")
    assert str(pulled.descriptor.digest) == made.digest
    assert content_of(tmp_path / "root") == {d: b.raw for d, b in made.everything().items()}
    basic = "Basic " + base64.b64encode(f"{world.user}:{world.password}".encode()).decode()
    assert set(world.tokens.authorizations()) == {basic}
    assert {value.partition(" ")[0] for value in world.registry.front.authorizations()} == {"Bearer"}
    assert world.blobs.authorizations() == []
    assert {r.header("Host") for r in world.blobs.records} == {"blobs.example"}
    assert all(r.header("Cookie") is None for r in world.blobs.records)


def test_a13_each_registry_sees_its_own_password(
    tmp_path: Path, make_registry: Callable[..., RegistryProcess]
) -> None:
    """Two registries on one host, told apart by their ports: neither is shown what is the other's."""
    passwords = (secrets.make("one's password "), secrets.make("two's password "))
    home = tmp_path / "home"
    registries = [make_registry(auth="htpasswd", users={ALICE: password}) for password in passwords]
    values = [base64.b64encode(f"{ALICE}:{password}".encode()).decode() for password in passwords]
    (home / ".docker").mkdir(parents=True)
    auths = {r.address: {"auth": value} for r, value in zip(registries, values, strict=True)}
    auths["127.0.0.1"] = {"auth": base64.b64encode(b"alice:nobody's").decode()}
    (home / ".docker/config.json").write_text(json.dumps({"auths": auths}))
    for number, registry in enumerate(registries):
        push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": small_image()}), "app", "1")
        Program(home, tmp_path / f"root-{number}").ok("pull", f"{registry.address}/app:1")
    for registry, value in zip(registries, values, strict=True):
        assert set(registry.front.authorizations()) == {f"Basic {value}"}


@pytest.mark.parametrize("answers", ["content", "challenge"])
def test_b22_a_foreign_layer_url_gets_no_credentials(
    tmp_path: Path, make_registry: Callable[..., RegistryProcess], answers: str
) -> None:
    """A layer elsewhere is asked for without a password; a host that demands one does not get the registry's."""
    from ocidist.server.http import RecordingServer

    require("htpasswd")
    made = small_image()
    layer = made.blobs[1]
    with RecordingServer() as elsewhere:
        document = made.manifest
        document["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        document["layers"][0]["urls"] = [f"{elsewhere.url}/layer"]
        raw = to_json(document)
        registry = make_registry(auth="htpasswd")
        # The registry itself refuses such a manifest, so the front answers with it, once the password is right.
        _push_blobs(registry, [made.blobs[0], *made.blobs[2:]])
        registry.front.answer(
            "/manifests/1", 401, {"WWW-Authenticate": 'Basic realm="test registry"'}, times=1
        )
        registry.front.answer("/manifests/1", 200, {"Content-Type": MANIFEST}, raw, times=None)
        registry.front.answer(f"/blobs/{layer.digest}", 404, times=None)
        if answers == "content":
            elsewhere.answer("/layer", 200, {}, layer.raw, times=None)
        else:
            elsewhere.answer("/layer", 401, {"WWW-Authenticate": 'Basic realm="test registry"'}, times=None)
        client = Client(store=tmp_path / "root", auth=(ALICE, PASSWORD), platform="linux/amd64")
        if answers == "content":
            client.pull(f"{registry.address}/app:1")
            assert layer.digest in content_of(tmp_path / "root")
        else:
            with pytest.raises(TransferError, match="401"):
                client.pull(f"{registry.address}/app:1")
            assert sha256(raw) not in blobs_in(tmp_path / "root/content"), "a parent without its child"
        assert elsewhere.records
        assert elsewhere.authorizations() == []
        assert registry.front.authorizations()


def _push_blobs(registry: RegistryProcess, blobs: list[Blob]) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", registry.loader.port, timeout=20)
    for blob in blobs:
        connection.request("POST", "/v2/app/blobs/uploads/", b"")
        answer = connection.getresponse()
        answer.read()
        place = answer.headers["Location"].partition(f":{registry.loader.port}")[2]
        connection.request("PUT", f"{place}&digest={blob.digest}", blob.raw)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
    connection.close()


def test_b21_a_token_server_on_http_gets_no_password_of_a_registry_on_https(
    tmp_path: Path,
    ca: CertificateAuthority,
    make_registry: Callable[..., RegistryProcess],
    make_tokens: Callable[..., TokenServer],
) -> None:
    """An https registry that names an http realm is refused, and no credentials are handed on."""
    from ocidist.server.tokens import Policy

    tokens = make_tokens(policy=Policy(users={ALICE: PASSWORD}))
    registry = make_registry(auth="token", tokens=tokens, tls=ca)
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": small_image()}), "app", "1")
    client = Client(store=tmp_path / "root", auth=(ALICE, PASSWORD), ca=ca.file)
    with pytest.raises(OcidistError, match="token server from https to http"):
        client.pull(f"{registry.address}/app:1")
    assert tokens.records == []
    assert not any("Basic" in value for value in registry.front.authorizations())


def test_a13_a_page_of_tags_on_another_host_gets_no_credentials(
    tmp_path: Path, make_registry: Callable[..., RegistryProcess]
) -> None:
    """A Link to another host is followed without the password, even if that host asks for one."""
    from ocidist.server.http import RecordingServer

    registry = make_registry(auth="htpasswd")
    with RecordingServer() as elsewhere:
        elsewhere.answer("/tags/list", 200, {}, b'{"tags":["2"]}')
        elsewhere.answer("/tags/list", 401, {"WWW-Authenticate": 'Basic realm="x"'}, times=None)
        link = f'<{elsewhere.url}/v2/app/tags/list?last=1>; rel="next"'
        registry.front.answer("/tags/list", 401, {"WWW-Authenticate": 'Basic realm="x"'}, times=1)
        registry.front.answer("/tags/list", 200, {"Link": link}, b'{"tags":["1"]}', times=None)
        client = Client(store=tmp_path / "root", auth=(ALICE, PASSWORD))
        assert list(client.tags(f"{registry.address}/app")) == ["1", "2"]
        with pytest.raises(RegistryError, match="401"):
            list(client.tags(f"{registry.address}/app"))
        assert len(elsewhere.records) == 2
        assert elsewhere.authorizations() == []
        assert registry.front.authorizations()


@pytest.mark.parametrize("auth", ["htpasswd", "token-get", "token-identity"])
def test_b29_no_secret_is_in_what_a_run_leaves_behind(tmp_path: Path, auth: str) -> None:
    """Cassette, HAR, JSON lines, debug lines and progress have no password, token or signature; the cassette replays."""
    with place(tmp_path / "place", small_index(), auth=auth, redirect=True) as found:
        ours = tmp_path / "ours"
        ours.mkdir()
        said = ""
        for number, trace in enumerate(("run.har", "run.jsonl")):
            program = Program(tmp_path / "home", ours / f"root-{number}", options=[*AMD64, *found.options])
            written = ["--record", str(ours / f"cassette-{number}"), "--trace", str(ours / trace)]
            said += program.ok("pull", found.ref, *written, "--debug", "--progress", "json").stderr
        secrets = {PASSWORD, base64.b64encode(f"{ALICE}:{PASSWORD}".encode()).decode()}
        secrets |= {value.partition(" ")[2] for value in found.registry.front.authorizations()}
        secrets |= {found.identity} if found.identity is not None else set()
        assert found.blobs is not None
        secrets |= {r.target.rpartition("X-Amz-Signature=")[2] for r in found.blobs.records}
        files = [path for path in ours.rglob("*") if path.is_file()]
        assert {"run.har", "run.jsonl"} <= {path.name for path in files}
        for secret in secrets:
            assert len(secret) > 8
            assert secret not in said
            for path in files:
                assert secret.encode() not in path.read_bytes(), path
        stored = content_of(ours / "root-0")
    replayed = Program(tmp_path / "home", tmp_path / "replayed", options=[*AMD64, *found.options])
    replayed.ok("--cassette", str(ours / "cassette-0"), "pull", found.ref)
    assert content_of(tmp_path / "replayed") == stored


# --- trust ------------------------------------------------------------------------------------------------------


def test_a19_an_unknown_certificate_is_refused_and_http_is_never_tried(
    tmp_path: Path, ca: CertificateAuthority
) -> None:
    """Without --ca-cert the registry is not trusted, on loopback too; with -k it is."""
    with place(tmp_path, small_image(), auth="htpasswd", tls=ca) as found:
        found.forget()
        who = ["-u", f"{ALICE}:{PASSWORD}"]
        line = Program(tmp_path / "home", tmp_path / "root", options=who).fails("pull", found.ref)
        assert found.registry.address in line
        assert "certificate" in line
        assert found.requests() == []
        Program(tmp_path / "home", tmp_path / "root", options=[*who, "-k"]).ok("pull", found.ref)


def test_a10_a_wrong_manifest_for_a_digest_is_refused(tmp_path: Path) -> None:
    """Other bytes under the right header are not what was asked for: exit 1 and nothing stored."""
    with place(tmp_path, small_image()) as found:
        wrong = found.image.root.raw + b"\n"
        headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": found.image.digest}
        found.registry.front.answer("/manifests/", 200, headers, wrong, times=None)
        program = Program(tmp_path / "home", tmp_path / "root")
        line = program.fails("pull", f"{found.remote}@{found.image.digest}")
        assert found.image.digest in line
        assert blobs_in(tmp_path / "root/content") == {}


def test_a06_a_wrong_layer_is_refused_after_one_more_try(tmp_path: Path) -> None:
    """Content that does not verify is fetched once more, then refused; the image gets no name."""
    with place(tmp_path, small_image()) as found:
        layer = found.image.blobs[1]
        wrong = bytes([layer.raw[0] ^ 1]) + layer.raw[1:]
        found.registry.front.answer(f"/blobs/{layer.digest}", 200, {}, wrong, times=None)
        program = Program(tmp_path / "home", tmp_path / "root")
        line = program.fails("pull", found.ref)
        assert layer.digest in line
        assert found.registry.front.downloads()[layer.digest] == 2
        assert program.ok("images", "-q").text == ""
        assert layer.digest not in blobs_in(tmp_path / "root/content")
        found.registry.front.clear_rules()
        program.ok("pull", found.ref)
        assert set(content_of(tmp_path / "root")) == set(found.image.everything())


@pytest.mark.parametrize("redirect", [False, True], ids=["direct", "redirected"])
def test_a01_a_connection_that_breaks_in_a_layer_is_resumed(tmp_path: Path, redirect: bool) -> None:
    """A blob cut in the middle goes on from there: every byte is sent once."""
    from tests.parts.images import Entry, image, noise

    made = image([[Entry("noise", noise(3_000_000))]])
    with place(tmp_path, made, auth="token-get", redirect=redirect) as found:
        layer = made.blobs[1]
        server = found.blobs if found.blobs is not None else found.registry.front
        name = layer.digest.partition(":")[2]
        server.cut(name, 1_000_000)
        Program(tmp_path / "home", tmp_path / "root", options=found.options).ok("pull", found.ref)
        assert content_of(tmp_path / "root")[layer.digest] == layer.raw
        sent = [r for r in server.records if r.digest == layer.digest]
        assert [r.complete for r in sent] == [False, True]
        assert sent[1].start > 0, "it began anew"
        assert sent[1].start + sent[1].sent == len(layer.raw)
