"""The parts that other tests stand on, shown to work with skopeo, curl, umoci and ctr: no ocidist in here."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest

from tests.parts.images import (
    MANIFEST,
    Entry,
    blob_path,
    image,
    layout_graph,
    noise,
    push_layout,
    push_with_skopeo,
    small_image,
    small_index,
    write_layout,
)
from tests.parts.required import program, require
from tests.parts.secrets import PASSWORD
from tests.parts.secrets import USER as ALICE

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority
    from tests.parts.containerd import Containerd
    from tests.parts.registry import BlobHost, RegistryProcess
    from tests.parts.tokens import TokenServer
    from tests.parts.world import ExampleWorld


def _curl(*arguments: str) -> tuple[int, str]:
    """(status, body) of a request by curl."""
    require("curl")
    done = subprocess.run(
        [program("curl"), "-sS", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def _copied_back(registry: RegistryProcess, name: str, tag: str, folder: Path, *options: str) -> set[str]:
    """Digests in the layout that skopeo makes of name:tag."""
    source = f"docker://{registry.address}/{name}:{tag}"
    command = [program("skopeo"), "--insecure-policy", "copy", "--quiet", "--all", *options]
    done = subprocess.run(
        [*command, source, f"oci:{folder}:{tag}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {f"sha256:{path.name}" for path in (folder / "blobs/sha256").iterdir()}


@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
@pytest.mark.parametrize("auth", ["none", "htpasswd", "token"])
@pytest.mark.parametrize("front", [True, False], ids=["counted", "bare"])
def test_skopeo_pushes_and_pulls_with_each_authentication(
    tmp_path: Path,
    ca: CertificateAuthority,
    make_registry: Callable[..., RegistryProcess],
    make_tokens: Callable[..., TokenServer],
    auth: str,
    tls: bool,
    front: bool,
) -> None:
    """What skopeo pushes through each kind of registry comes back digest by digest, and not without a password."""
    require("skopeo")
    options: dict[str, Any] = {"auth": auth, "tls": ca if tls else None, "front": front}
    if auth == "token":
        from ocidist.server.tokens import Policy

        context = ca.server_context() if tls else None
        options["tokens"] = make_tokens(tls=context, policy=Policy(users={ALICE: PASSWORD}))
    registry = make_registry(**options)
    made = small_index()
    layout = write_layout(tmp_path / "layout", {"1": made})
    credentials = None if auth == "none" else f"{ALICE}:{PASSWORD}"
    push_with_skopeo(
        layout, registry.address, "a/b", "1", tls=tls, certs=ca.certs_dir, credentials=credentials
    )

    pull = [f"--src-tls-verify={str(tls).lower()}", "--src-cert-dir", str(ca.certs_dir)]
    if credentials:
        status, _ = _curl("--cacert", str(ca.file), f"{registry.url}/v2/a/b/manifests/1")
        assert status == 401
        pull += ["--src-creds", credentials]
    assert _copied_back(registry, "a/b", "1", tmp_path / "back", *pull) == set(made.everything())


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
@pytest.mark.parametrize("header", ["x5c", "kid"])
def test_every_kind_of_signature_is_accepted(
    tmp_path: Path,
    make_registry: Callable[..., RegistryProcess],
    make_tokens: Callable[..., TokenServer],
    algorithm: str,
    header: str,
) -> None:
    """The registry takes tokens signed with either key, named by certificate or by fingerprint."""
    from ocidist.server.tokens import Policy

    tokens = make_tokens(policy=Policy(anonymous=("open/*",)), algorithm=algorithm, header=header)
    registry = make_registry(auth="token", tokens=tokens)
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": small_image()}), "open/a", "1")
    _, body = _curl(f"{tokens.realm}?service={tokens.service}&scope=repository:open/a:pull,push")
    bearer = f"Authorization: Bearer {json.loads(body)['token']}"
    assert _curl("-H", bearer, "-H", f"Accept: {MANIFEST}", f"{registry.url}/v2/open/a/manifests/1")[0] == 200
    assert _curl("-H", bearer, "-X", "POST", f"{registry.url}/v2/open/a/blobs/uploads/")[0] == 401


def test_the_token_flow_step_by_step(
    tmp_path: Path, make_registry: Callable[..., RegistryProcess], make_tokens: Callable[..., TokenServer]
) -> None:
    """Passwords, refresh tokens, expiry and OAuth2 POST work as the token specification has them."""
    from ocidist.server.tokens import Policy

    policy = Policy(users={ALICE: PASSWORD})
    tokens = make_tokens(policy=policy)
    registry = make_registry(auth="token", tokens=tokens)
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": small_image()}), "mine/a", "1")
    scope, wanted = "repository:mine/a:pull", f"{registry.url}/v2/mine/a/tags/list"

    def reads(token: str) -> int:
        return _curl("-H", f"Authorization: Bearer {token}", wanted)[0]

    get = f"{tokens.realm}?service={tokens.service}&scope={scope}"
    assert reads(json.loads(_curl(get)[1])["token"]) == 401, "nobody's token opened a private repository"
    assert _curl("-u", f"{ALICE}:wrong", get)[0] == 401
    answer = json.loads(_curl("-u", f"{ALICE}:{PASSWORD}", f"{get}&offline_token=true")[1])
    assert reads(answer["token"]) == 200
    form = ["-d", f"service={tokens.service}", "-d", "client_id=test", "-d", f"scope={scope}"]
    refresh = ["-d", "grant_type=refresh_token", "-d", f"refresh_token={answer['refresh_token']}"]
    renewed = json.loads(_curl(*form, *refresh, tokens.realm)[1])
    assert renewed["refresh_token"] == answer["refresh_token"]
    assert reads(renewed["access_token"]) == 200
    password = ["-d", "grant_type=password", "-d", f"username={ALICE}", "-d", f"password={PASSWORD}"]
    assert reads(json.loads(_curl(*form, *password, tokens.realm)[1])["access_token"]) == 200
    assert (
        _curl(*form, "-d", "grant_type=refresh_token", "-d", "refresh_token=made-up", tokens.realm)[0] == 401
    )

    policy.lifetime = -120
    assert reads(json.loads(_curl("-u", f"{ALICE}:{PASSWORD}", get)[1])["token"]) == 401, "expired"
    policy.post = False
    assert _curl(*form, *refresh, tokens.realm)[0] == 405
    assert [record.method for record in tokens.records].count("POST") == 4


@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
def test_redirected_blobs_are_counted_where_they_are_served(
    tmp_path: Path,
    ca: CertificateAuthority,
    make_redirecting_registry: Callable[..., tuple[RegistryProcess, BlobHost]],
    tls: bool,
) -> None:
    """skopeo follows the redirect, each blob is sent once, and the blob host saw no Authorization."""
    require("skopeo", "htpasswd")
    registry, blobs = make_redirecting_registry(
        tls=ca if tls else None, auth="htpasswd", users={ALICE: PASSWORD}
    )
    made = small_image()
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": made}), "a", "1")
    options = [f"--src-tls-verify={str(tls).lower()}", "--src-cert-dir", str(ca.certs_dir)]
    options += ["--src-creds", f"{ALICE}:{PASSWORD}"]
    assert _copied_back(registry, "a", "1", tmp_path / "back", *options) == set(made.everything())
    expected = {blob.digest: len(blob.raw) for blob in made.blobs}
    assert dict(blobs.downloads()) == dict.fromkeys(expected, 1)
    assert dict(blobs.downloaded_bytes()) == expected
    assert blobs.authorizations() == []
    assert set(registry.front.authorizations())
    assert not registry.front.downloads(), "the registry sent blobs itself"


def test_the_blob_host_wants_its_signature_and_no_credentials(
    tmp_path: Path, make_redirecting_registry: Callable[..., tuple[RegistryProcess, BlobHost]]
) -> None:
    """A URL without the signature is 403, one with an Authorization header 400, ranges are served."""
    registry, _ = make_redirecting_registry()
    made = small_image()
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": made}), "a", "1")
    layer = made.blobs[1]
    url = f"{registry.url}/v2/a/blobs/{layer.digest}"
    _, location = _curl("-o", os.devnull, "-w", "%{redirect_url}\n%{http_code}", url)
    location = location.strip().splitlines()[0]
    assert "X-Amz-Signature=" in location
    assert _curl(location.partition("?")[0])[0] == 403
    assert _curl("-u", "a:b", "-o", os.devnull, location)[0] == 400
    target = tmp_path / "part"
    assert _curl("-r", "10-19", "-o", str(target), location)[0] == 206
    assert target.read_bytes() == layer.raw[10:20]
    assert _curl("-r", "100000-", location)[0] == 416


def test_the_front_counts_slows_cuts_and_holds(tmp_path: Path, registry: RegistryProcess) -> None:
    """Rules of the front do what they say, and its records tell what was sent from where on."""
    layer = noise(1 << 20)
    made = image([[Entry("noise", layer)]], compress=False)
    push_layout(registry.loader.url, write_layout(tmp_path / "l", {"1": made}), "a", "1")
    front, blob = registry.front, made.blobs[1]
    assert front.records == [], "loading was counted"
    url = f"{registry.url}/v2/a/blobs/{blob.digest}"

    front.cut(blob.digest, 300_000)
    out = tmp_path / "out"
    command = [program("curl"), "-sS", "-o", str(out), url]
    assert subprocess.run(command, capture_output=True).returncode == 18  # partial file
    assert out.stat().st_size == 300_000
    (record,) = front.records
    assert (record.sent, record.complete, record.status, record.start) == (300_000, False, 200, 0)

    assert _curl("-C", "-", "-o", str(out), url)[0] == 206
    assert out.read_bytes() == blob.raw
    assert front.records[-1].start == 300_000
    assert front.records[-1].sent == len(blob.raw) - 300_000
    assert front.downloads() == {blob.digest: 2}
    assert front.downloaded_bytes() == {blob.digest: len(blob.raw)}

    gate = front.gate(blob.digest, 100_000)
    thread = threading.Thread(target=_curl, args=("-o", str(out), url))
    thread.start()
    assert gate.reached.wait(20)
    assert thread.is_alive()
    gate.open()
    thread.join(20)
    assert out.read_bytes() == blob.raw

    front.answer("tags/list", 429, {"Retry-After": "3"}, b"slow down", times=2)
    answers = [_curl(f"{registry.url}/v2/a/tags/list") for _ in range(3)]
    assert [status for status, _ in answers] == [429, 429, 200]
    assert answers[0][1] == "slow down"

    front.rate = 8e6
    assert _curl("-o", str(out), url)[0] == 200
    assert out.read_bytes() == blob.raw


def test_deleting_is_as_configured(tmp_path: Path, make_registry: Callable[..., RegistryProcess]) -> None:
    """A registry with deletion answers 202, one without 405."""
    layout = write_layout(tmp_path / "l", {"1": small_image()})
    for delete, status in ((True, 202), (False, 405)):
        registry = make_registry(delete=delete)
        digest = push_layout(registry.url, layout, "a", "1")
        assert _curl("-X", "DELETE", f"{registry.url}/v2/a/manifests/{digest}")[0] == status
        assert set(registry.stored_blobs()) == {entry["digest"] for entry in layout_graph(layout)}


def test_registries_end_with_their_block(tmp_path: Path) -> None:
    """After the block the process is gone and the port is closed."""
    require("docker-registry")
    from tests.parts.registry import RegistryProcess

    with RegistryProcess(tmp_path / "r") as registry:
        pids, url = (registry.pid, registry.loader.pid), registry.url
        assert _curl(f"{url}/v2/")[0] == 200
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert subprocess.run([program("curl"), "-sS", url], capture_output=True).returncode == 7


def test_the_example_world_by_its_names(tmp_path: Path, example_world: ExampleWorld) -> None:
    """registry.example, auth.example and blobs.example answer by name over TLS, to curl with the CA alone."""
    world = example_world
    made = small_image()
    layout = write_layout(tmp_path / "l", {"1": made})
    push_with_skopeo(layout, world.registry.loader.address, "public/a", "1")
    push_layout(world.registry.loader.url, layout, "private/a", "1")

    def curl(*more: str) -> tuple[int, str]:
        return _curl(*world.curl_options, *more)

    token_url = "https://auth.example/token?service=registry.example&scope=repository:{}:pull"
    anyone = f"Authorization: Bearer {json.loads(curl(token_url.format('public/a'))[1])['token']}"
    manifest = "https://registry.example/v2/{}/manifests/1"
    accept = ["-H", f"Accept: {MANIFEST}"]
    assert curl(*accept, manifest.format("public/a"))[0] == 401
    assert curl(*accept, "-H", anyone, manifest.format("public/a"))[1].encode() == made.root.raw
    assert curl(*accept, "-H", anyone, manifest.format("private/a"))[0] == 401
    _, answer = curl("-u", f"{world.user}:{world.password}", token_url.format("private/a"))
    alice = f"Authorization: Bearer {json.loads(answer)['token']}"
    assert curl(*accept, "-H", alice, manifest.format("private/a"))[1].encode() == made.root.raw

    out = tmp_path / "out"
    blob = f"https://registry.example/v2/public/a/blobs/{made.blobs[1].digest}"
    assert curl("-L", "-H", anyone, "-o", str(out), blob)[0] == 200
    assert out.read_bytes() == made.blobs[1].raw
    (record,) = world.blobs.records
    assert record.header("Host") == "blobs.example"
    assert record.header("Authorization") is None
    assert {record.header("Host") for record in world.registry.front.records} == {"registry.example"}


def test_containerd_runs_and_pulls(tmp_path: Path, containerd: Containerd, registry: RegistryProcess) -> None:
    """ctr reaches the daemon on its own socket, and the image it pulls has our layout's digests."""
    assert "Server:" in containerd.ctr("version")
    made = small_image()
    push_layout(registry.url, write_layout(tmp_path / "l", {"1": made}), "a", "1")
    pull = ["images", "pull", "--plain-http", "--snapshotter", "native", f"{registry.address}/a:1"]
    containerd.ctr(*pull)
    assert set(containerd.ctr("content", "list", "-q").split()) == set(made.everything())
    assert registry.front.downloads() == dict.fromkeys((blob.digest for blob in made.blobs), 1)
    assert not (containerd.root / "io.containerd.grpc.v1.cri").exists()


def test_busybox_index_holds_three_platforms(
    tmp_path: Path, images_of_others: Path, registry: RegistryProcess
) -> None:
    """The images of others behind one index are whole: skopeo copies them to a registry, umoci unpacks each."""
    require("skopeo", "umoci", "root")
    from tests.parts.realimages import busybox_index
    from tests.parts.trees import snapshot

    layout = tmp_path / "layout"
    root = busybox_index(images_of_others, layout)
    push_with_skopeo(layout, registry.address, "library/busybox", "latest")
    assert root["digest"] in registry.stored_blobs()
    document = json.loads(blob_path(layout, root["digest"]).read_bytes())
    found = [(m["platform"]["architecture"], m["platform"].get("variant")) for m in document["manifests"]]
    assert found == [("amd64", None), ("arm64", "v8"), ("arm", "v7")]
    one = tmp_path / "one"
    _copied_back(registry, "library/busybox", "latest", one, "--src-tls-verify=false")
    assert {p.name for p in (one / "blobs/sha256").iterdir()} == {
        p.name for p in (layout / "blobs/sha256").iterdir()
    }
    command = [program("skopeo"), "--insecure-policy", "--override-arch=amd64", "copy", "--quiet"]
    amd64 = tmp_path / "amd64"
    subprocess.run([*command, f"oci:{layout}:latest", f"oci:{amd64}:latest"], check=True)
    bundle = tmp_path / "bundle"
    subprocess.run(
        [program("umoci"), "unpack", "--image", f"{amd64}:latest", str(bundle)],
        check=True,
        capture_output=True,
    )
    tree = snapshot(bundle / "rootfs")
    assert len(tree["bin/busybox"].hardlinks) > 300


def _assert_whole(layout: Path) -> list[dict[str, Any]]:
    """Every blob of a layout has its digest and size, and each layer its DiffID, by tools alone; the layers."""
    graph = layout_graph(layout, "latest")
    for entry in graph:
        path = blob_path(layout, entry["digest"])
        assert path.stat().st_size == entry["size"]
        done = subprocess.run([program("sha256sum"), str(path)], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0].lstrip("\\") == path.name
    config = json.loads(blob_path(layout, graph[0]["digest"]).read_bytes())
    diff_ids = config["rootfs"]["diff_ids"]
    layers = graph[1:-1]
    assert len(diff_ids) == len(layers)
    for diff_id, entry in zip(diff_ids, layers, strict=True):
        opened = f"{'gzip -dc' if entry['mediaType'].endswith('gzip') else 'cat'} {{}} | sha256sum"
        done = subprocess.run(
            ["sh", "-c", opened.format(blob_path(layout, entry["digest"]))], capture_output=True, text=True
        )
        assert f"sha256:{done.stdout.split()[0]}" == diff_id
    return layers


def test_the_big_image_is_large_and_whole() -> None:
    """Debian and two layers of real files: hundreds of megabytes, tens of thousands of entries, all digests right."""
    require("mmdebstrap", "pigz", "root")
    from tests.parts.realimages import big_image

    layout = big_image()
    assert len(_assert_whole(layout)) == 3
    totals = json.loads((layout / "size.json").read_bytes())
    assert totals["stored"] > 150e6
    assert totals["unpacked"] > 400e6
    assert totals["entries"] > 20_000


def test_a_huge_layer_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One uncompressed layer with one file, built twice to the same bytes."""
    require("tar")
    from tests.parts.realimages import huge_layer

    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("OCIDIST_TEST_CACHE", str(tmp_path / name))
        layout = huge_layer(3_000_001)
        assert huge_layer(3_000_001) == layout
        (layer,) = _assert_whole(layout)
        found.append(layer["digest"])
        listing = subprocess.run(
            ["tar", "-tvf", str(blob_path(layout, layer["digest"]))],
            capture_output=True,
            text=True,
            check=True,
        )
        assert " 3000001 " in listing.stdout
    assert found[0] == found[1]
