"""A repository as a Source: what is asked, what is believed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from ocidist.errors import (
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    OcidistError,
    RegistryError,
    TransportError,
    Unauthorized,
    Unsupported,
)
from ocidist.net.message import Request, Response
from ocidist.remotes.protocols import Origin
from ocidist.remotes.registry.client import Registry, RegistryRemote
from ocidist.remotes.registry.credentials import Credential, CredentialStore, StaticCredentials
from ocidist.remotes.registry.session import RegistrySession
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.document import MAX_SIZE
from tests.parts.scripted import ScriptedResponse
from tests.unit.registry.fake import (
    PASSWORD,
    FakeRegistry,
    FunctionTransport,
    QuickScope,
    missing,
    read,
    unauthorized,
)

ANN = StaticCredentials(Credential("ann", PASSWORD))
MANIFEST: dict[str, Any] = {"mediaType": mediatype.OCI_MANIFEST, "config": None, "layers": []}


def remote_of(fake: FakeRegistry, credentials: Any = None) -> RegistryRemote:
    return RegistryRemote(fake.session(credentials), f"{fake.host}/a")


def answering(*headers: tuple[str, str], body: bytes = b"", status: int = 200) -> RegistryRemote:
    """A remote whose registry has one answer to everything."""
    transport = FunctionTransport(lambda request: ScriptedResponse(status, body, headers))
    return RegistryRemote(RegistrySession(transport), "registry.example/a")


def document(**members: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": None, "layers": [], **members}).encode()


# -- resolve --


def test_a_tag_is_one_request_and_brings_its_bytes() -> None:
    """Type, digest and size of the body that came."""
    fake = FakeRegistry()
    digest = fake.add_manifest(MANIFEST, "v1")
    found, raw = remote_of(fake).resolve("v1", QuickScope())
    assert raw == fake.manifests["v1"][1]
    assert (found.media_type, found.digest, found.size) == (mediatype.OCI_MANIFEST, digest, len(raw))
    assert fake.transport.lines == ["GET https://registry.example/v2/a/manifests/v1"]
    accepted = fake.transport.requests[0].headers.get("Accept") or ""
    assert all(media_type in accepted for media_type in mediatype.ACCEPT)


def test_no_name_is_latest_and_a_missing_tag_is_not_found() -> None:
    """The default tag; 404 with the registry's words."""
    fake = FakeRegistry()
    fake.add_manifest(MANIFEST, "latest")
    remote_of(fake).resolve("", QuickScope())
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        remote_of(fake).resolve("none", QuickScope())


def test_a_digest_is_resolved_in_its_own_algorithm() -> None:
    """sha512 stays sha512, although Docker-Content-Digest is sha256."""
    fake = FakeRegistry()
    fake.add_manifest(MANIFEST, "v1")
    raw = fake.manifests["v1"][1]
    long = Digest.of(raw, "sha512")
    fake.manifests[long] = fake.manifests["v1"]
    found, _ = remote_of(fake).resolve(long, QuickScope())
    assert found.digest == long


def hub(fake: FakeRegistry) -> RegistryRemote:
    fake.host = "registry-1.docker.io"
    return RegistryRemote(fake.session(), "docker.io/library/redis")


def test_docker_hub_is_asked_with_head() -> None:
    """A GET would count as a pull; the descriptor comes from the headers, without bytes."""
    fake = FakeRegistry()
    digest = fake.add_manifest(MANIFEST, "7")
    found, raw = hub(fake).resolve("7", QuickScope())
    assert raw is None
    assert found == Descriptor(mediatype.OCI_MANIFEST, digest, len(fake.manifests["7"][1]))
    assert fake.transport.lines == ["HEAD https://registry-1.docker.io/v2/library/redis/manifests/7"]


def test_docker_hub_is_asked_with_get_where_the_bytes_are_wanted() -> None:
    """One request instead of two."""
    fake = FakeRegistry()
    fake.add_manifest(MANIFEST, "7")
    _, raw = hub(fake).resolve("7", QuickScope(), need_bytes=True)
    assert raw is not None
    assert len(fake.transport.requests) == 1


@pytest.mark.parametrize(
    ("status", "drop"),
    [
        (405, ()),
        (501, ()),
        (200, ("Docker-Content-Digest",)),
        (200, ("Content-Length",)),
        (200, ("Content-Type",)),
    ],
)
def test_a9_head_that_says_too_little_is_followed_by_get(status: int, drop: tuple[str, ...]) -> None:
    """405, or no digest, size or type: GET, and the digest is computed."""
    fake = FakeRegistry()
    digest = fake.add_manifest(MANIFEST, "7")
    usual = fake.manifest

    def manifest(request: Request, name: str) -> Response:
        answer = usual(request, name)
        if request.method == "HEAD":
            answer.status = status
            for header in drop:
                answer.headers.remove(header)
        return answer

    fake.manifest = manifest  # type: ignore[method-assign]
    found, raw = hub(fake).resolve("7", QuickScope())
    assert found.digest == digest
    assert raw is not None
    assert [request.method for request in fake.transport.requests] == ["HEAD", "GET"]


def test_a9_a_head_without_a_usable_digest_is_followed_by_get() -> None:
    """A Docker-Content-Digest that is none is as good as missing."""
    fake = FakeRegistry()
    fake.add_manifest(MANIFEST, "7")
    usual = fake.manifest

    def manifest(request: Request, name: str) -> Response:
        answer = usual(request, name)
        answer.headers.set("Docker-Content-Digest", "sha256:../../x")
        return answer

    fake.manifest = manifest  # type: ignore[method-assign]
    assert hub(fake).resolve("7", QuickScope())[1] is not None


def test_a_page_in_place_of_a_document_is_named_for_what_it_is() -> None:
    """A guest network's page: which image, or whose tags, were asked for, and what came."""
    html = b"<!doctype html><title>Welcome</title>"
    remote = answering(("Content-Type", "text/html"), body=html)
    with pytest.raises(InvalidManifest, match=r"of registry.example/a:v1: .*it came as 'text/html'"):
        remote.resolve("v1", QuickScope())
    with pytest.raises(InvalidManifest, match=r"invalid tag list of registry.example/a: not JSON"):
        list(remote.tags(QuickScope()))
    with pytest.raises(InvalidManifest, match=r"invalid catalog of registry.example: not JSON"):
        list(Registry(remote.session, "registry.example").catalog(QuickScope()))


@pytest.mark.parametrize("hint", ["", mediatype.OCI_MANIFEST])
def test_a9_5xx_on_a_manifest_never_tries_the_blob_path(hint: str) -> None:
    """A server's trouble is no 404."""
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.url)
        if "/blobs/" in request.url and len(asked) == 1:
            return missing()
        return ScriptedResponse(500)

    remote = RegistryRemote(RegistrySession(FunctionTransport(answer)), "registry.example/a")
    with pytest.raises(RegistryError, match="500"):
        remote.resolve(Digest.of(b"x"), QuickScope(), hint=hint)
    assert all("/manifests/" in url for url in asked[0 if hint else 1 :])


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a9_only_404_of_a_blob_leads_to_the_manifests(status: int) -> None:
    """A blob that may be there is not looked for elsewhere."""
    transport = FunctionTransport(lambda request: ScriptedResponse(status))
    remote = RegistryRemote(RegistrySession(transport), "registry.example/a")
    with pytest.raises(RegistryError, match=str(status)):
        remote.resolve(Digest.of(b"x"), QuickScope(), hint="")
    assert all("/blobs/" in line for line in transport.lines)


@pytest.mark.parametrize("by", ["digest", "tag"])
def test_a10_a_wrong_body_under_a_right_header_is_refused(by: str) -> None:
    """The body is hashed; for a digest that was asked for, the header is no witness."""
    right = Digest.of(document())
    remote = answering(
        ("Content-Type", mediatype.OCI_MANIFEST),
        ("Docker-Content-Digest", right),
        body=document(annotations={}),
    )
    with pytest.raises(DigestMismatch):
        remote.resolve(right if by == "digest" else "v1", QuickScope())


def test_a10_a_right_body_under_a_wrong_header_counts_for_a_pinned_digest() -> None:
    """What was asked for came; what the header says of it does not matter."""
    raw = document()
    remote = answering(
        ("Content-Type", mediatype.OCI_MANIFEST), ("Docker-Content-Digest", Digest.of(b"x")), body=raw
    )
    assert remote.resolve(Digest.of(raw), QuickScope())[1] == raw


@pytest.mark.parametrize(
    ("content_type", "inside", "result"),
    [
        (mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (mediatype.OCI_MANIFEST.upper() + "; charset=utf-8", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (mediatype.OCI_MANIFEST, None, mediatype.OCI_MANIFEST),
        ("application/json", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        ("application/octet-stream", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        ("text/plain; charset=utf-8", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        ("", mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (mediatype.OCI_INDEX, mediatype.OCI_MANIFEST, None),
        (mediatype.DOCKER_MANIFEST, mediatype.OCI_MANIFEST, None),
        (mediatype.OCI_INDEX, None, None),
        ("image/png", None, None),
    ],
)
def test_a11_content_type_and_media_type_must_not_conflict(
    content_type: str, inside: str | None, result: str | None
) -> None:
    """Parameters are ignored, generic types say nothing, a contradiction is refused."""
    raw = document(**({} if inside is None else {"mediaType": inside}))
    remote = answering(("Content-Type", content_type), body=raw)
    if result is None:
        with pytest.raises(InvalidManifest):
            remote.resolve("v1", QuickScope())
    else:
        assert remote.resolve("v1", QuickScope())[0].media_type == result


def test_schema_1_is_refused_by_name() -> None:
    """Unsupported, whatever else it says."""
    raw = json.dumps({"schemaVersion": 1, "fsLayers": []}).encode()
    for content_type in (mediatype.DOCKER_SCHEMA1_SIGNED, "application/json"):
        with pytest.raises(Unsupported, match="schema 1"):
            answering(("Content-Type", content_type), body=raw).resolve("v1", QuickScope())


def test_h70_a_manifest_over_four_mebibytes_is_refused() -> None:
    """By its announced length before a byte is read, or by counting."""
    huge = FunctionTransport(lambda request: ScriptedResponse(200, b"", announced=10**12))
    with pytest.raises(OcidistError, match="4 MiB"):
        RegistryRemote(RegistrySession(huge), "registry.example/a").resolve("v1", QuickScope())
    served: list[int] = []

    def endless() -> Any:
        while True:
            served.append(1)
            yield b" " * 65536

    chunked = FunctionTransport(lambda request: ScriptedResponse(200, endless()))
    with pytest.raises(TransportError):
        RegistryRemote(RegistrySession(chunked), "registry.example/a").resolve("v1", QuickScope())
    assert len(served) <= (MAX_SIZE >> 16) + 2


@pytest.mark.parametrize("body", [b"<html>log in here</html>", b"", b"[]", b"{}", b"\xff\xfe"])
def test_a_page_that_is_no_manifest_is_refused(body: bytes) -> None:
    """A portal's 200 is not an image."""
    with pytest.raises(InvalidManifest):
        answering(("Content-Type", "text/plain"), body=body).resolve("v1", QuickScope())


def test_a7_an_encoded_manifest_is_refused() -> None:
    """Identity was asked for; the digest is of the bytes as they are."""
    remote = answering(
        ("Content-Encoding", "gzip"), ("Content-Type", mediatype.OCI_MANIFEST), body=document()
    )
    with pytest.raises(RegistryError, match="Content-Encoding"):
        remote.resolve("v1", QuickScope())


def test_a_digest_outside_the_grammar_is_not_sent() -> None:
    """Nothing goes to the registry."""
    fake = FakeRegistry()
    with pytest.raises(InvalidDigest):
        remote_of(fake).resolve("sha256:../../x", QuickScope())
    assert fake.transport.requests == []


# -- locate --


def test_locate_limits_a_tag_to_the_hint() -> None:
    """Accept has the one type that was hinted at, and the bytes come along."""
    fake = FakeRegistry()
    fake.add_manifest(MANIFEST, "latest")
    _, raw = remote_of(fake).resolve("latest", QuickScope(), hint=mediatype.OCI_MANIFEST)
    assert raw is not None
    assert fake.transport.requests[0].headers.get("Accept") == mediatype.OCI_MANIFEST


def test_locate_by_digest_takes_as_few_requests_as_it_can() -> None:
    """A manifest hint goes to manifests; without one blobs are asked first, then manifests."""
    fake = FakeRegistry()
    manifest, blob = fake.add_manifest(MANIFEST), fake.add_blob(b"layer")
    remote = remote_of(fake)
    base = "https://registry.example/v2/a"

    def asked(text: str, hint: str) -> tuple[Descriptor, bytes | None, list[str]]:
        before = len(fake.transport.requests)
        found, raw = remote.resolve(text, QuickScope(), hint=hint)
        return found, raw, fake.transport.lines[before:]

    found, raw, lines = asked(manifest, mediatype.OCI_MANIFEST)
    assert raw is not None
    assert lines == [f"GET {base}/manifests/{manifest}"]
    found, raw, lines = asked(blob, "")
    assert (found.media_type, found.size, raw) == ("application/octet-stream", 5, None)
    assert lines == [f"HEAD {base}/blobs/{blob}"]
    found, raw, lines = asked(blob, mediatype.OCI_LAYER_GZIP)
    assert found.media_type == mediatype.OCI_LAYER_GZIP
    found, raw, lines = asked(manifest, "")
    assert found.media_type == mediatype.OCI_MANIFEST
    assert lines == [f"HEAD {base}/blobs/{manifest}", f"GET {base}/manifests/{manifest}"]
    with pytest.raises(NotFound):
        remote.resolve(Digest.of(b"nowhere"), QuickScope(), hint="")


def test_a9_a_blob_without_head_has_an_unknown_size_and_can_be_read() -> None:
    """405 to HEAD: the size is negative until the GET tells it."""
    fake = FakeRegistry()
    digest = fake.add_blob(b"layer")
    usual = fake.content
    fake.content = (  # type: ignore[method-assign]
        lambda request, data: ScriptedResponse(405) if request.method == "HEAD" else usual(request, data)
    )
    remote = remote_of(fake)
    found, _ = remote.resolve(digest, QuickScope(), hint="")
    assert found.size < 0
    body = remote.open(found, QuickScope())
    assert body.size == 5
    assert read(body) == b"layer"


# -- open --


def test_manifests_and_blobs_have_their_own_paths() -> None:
    """Manifests and indices come from /manifests/, configs, layers and all else from /blobs/."""
    fake = FakeRegistry()
    remote = remote_of(fake)
    manifest = fake.add_manifest(MANIFEST)
    raw = fake.manifests[manifest][1]
    assert read(remote.open(Descriptor(mediatype.OCI_MANIFEST, manifest, len(raw)), QuickScope())) == raw
    assert fake.transport.requests[-1].headers.get("Accept") == mediatype.OCI_MANIFEST
    for media_type in (mediatype.OCI_CONFIG, mediatype.OCI_LAYER, mediatype.OCI_EMPTY, "application/x-thing"):
        digest = fake.add_blob(media_type.encode())
        target = Descriptor(media_type, digest, len(media_type))
        assert read(remote.open(target, QuickScope())) == media_type.encode()
    assert all("/blobs/" in line for line in fake.transport.lines[1:])


def test_embedded_data_and_finished_blobs_need_no_request() -> None:
    """A descriptor's data is the content; at the end of a blob there is nothing to ask for."""
    fake = FakeRegistry()
    remote = remote_of(fake)
    inline = Descriptor(mediatype.OCI_EMPTY, Digest.of(b"{}"), 2, data=b"{}")
    assert read(remote.open(inline, QuickScope())) == b"{}"
    assert read(remote.open(inline, QuickScope(), offset=1)) == b"}"
    ended = remote.open(Descriptor("x/y", Digest.of(b"abc"), 3), QuickScope(), offset=3)
    assert (ended.start, read(ended)) == (3, b"")
    assert read(remote.open(Descriptor("x/y", Digest.of(b""), 0), QuickScope())) == b""
    assert fake.transport.requests == []


def foreign(data: bytes, *urls: str) -> Descriptor:
    return Descriptor(mediatype.OCI_LAYER_FOREIGN_GZIP, Digest.of(data), len(data), urls=urls)


def test_a_foreign_layer_is_read_from_its_urls_without_credentials() -> None:
    """After the registry's 404; the registry's own credentials stay with the registry."""
    fake = FakeRegistry(guard="basic")
    fake.elsewhere = lambda request: ScriptedResponse(200, b"layer")  # type: ignore[method-assign]
    target = foreign(b"layer", "file:///etc/passwd", "https://vendor.example/layer")
    assert read(remote_of(fake, ANN).open(target, QuickScope())) == b"layer"
    last = fake.transport.requests[-1]
    assert last.url == "https://vendor.example/layer"
    assert "Authorization" not in last.headers


def test_a_foreign_layer_that_the_registry_has_comes_from_there() -> None:
    """Its urls are not asked."""
    fake = FakeRegistry()
    fake.add_blob(b"layer")
    assert (
        read(remote_of(fake).open(foreign(b"layer", "https://vendor.example/layer"), QuickScope()))
        == b"layer"
    )
    assert len(fake.transport.requests) == 1


@pytest.mark.parametrize("challenge", ['Basic realm="registry"', 'Bearer realm="https://auth.example/token"'])
def test_b22_a_foreign_url_that_answers_401_gets_no_credentials(challenge: str) -> None:
    """CVE-2020-15157: neither a password nor a token is sent, also not to the token server for it."""
    fake = FakeRegistry(guard="bearer")
    fake.elsewhere = lambda request: unauthorized(challenge)  # type: ignore[method-assign]
    remote = remote_of(fake, ANN)
    with pytest.raises(Unauthorized, match="no credentials are sent there"):
        remote.open(foreign(b"layer", "https://vendor.example/layer"), QuickScope())
    sent = [request for request in fake.transport.requests if "vendor.example" in request.url]
    assert len(sent) == 1
    assert "Authorization" not in sent[0].headers
    assert fake.tokens_given == 1  # the registry's own


def test_a_blob_that_is_nowhere_is_not_found() -> None:
    """404, and no urls."""
    with pytest.raises(NotFound, match="BLOB_UNKNOWN"):
        remote_of(FakeRegistry()).open(Descriptor("x/y", Digest.of(b"x"), 1), QuickScope())


# -- listings --


def paged(*pages: tuple[list[str], str | None], guard: str = "") -> FakeRegistry:
    """A registry whose k-th tag page has these tags and this Link."""
    fake = FakeRegistry(guard=guard)
    rest = list(pages)

    def answer(request: Request) -> Response | BaseException:
        if request.url.startswith(fake.realm):
            return fake.token(request)
        refused = fake.refusal(request) if fake.host in request.url else None
        if refused is not None:
            return refused
        names, link = rest.pop(0)
        headers = [] if link is None else [("Link", f'<{link}>; rel="next"')]
        return ScriptedResponse(200, json.dumps({"tags": names, "repositories": names}).encode(), headers)

    fake.transport.handler = answer
    return fake


def test_tags_come_page_by_page() -> None:
    """Links are followed as the list is read, not before."""
    fake = paged((["1", "2"], "/v2/a/tags/list?n=2&last=2"), (["3"], None), guard="bearer")
    tags = remote_of(fake).tags(QuickScope())
    assert next(tags) == "1"
    assert len(fake.transport.requests) == 3  # 401, token, page
    assert list(tags) == ["2", "3"]
    assert fake.transport.lines[-1] == "GET https://registry.example/v2/a/tags/list?n=2&last=2"
    assert fake.transport.requests[-1].headers.get("Authorization") == "Bearer " + fake.token_of(1)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, [("Content-Encoding", "gzip")], "Content-Encoding 'gzip' was not asked for"),
        (204, [], "answered 204: not an answer to a GET of the whole"),
        (206, [("Content-Range", "bytes 0-9/20")], "answered 206: not an answer to a GET of the whole"),
    ],
)
def test_a07_a_list_or_a_manifest_is_taken_whole_and_not_encoded(
    status: int, headers: list[tuple[str, str]], words: str
) -> None:
    """What is none of that is said, and not what of its bytes is no JSON."""
    fake = FakeRegistry()
    fake.transport.handler = lambda request: ScriptedResponse(
        status, b"{}" if status == 206 else b"", headers
    )
    remote = remote_of(fake)
    asked: list[Callable[[], object]] = [
        lambda: list(remote.tags(QuickScope())),
        lambda: list(Registry(remote.session, fake.host).catalog(QuickScope())),
        lambda: remote.resolve("1", QuickScope()),
    ]
    for ask in asked:
        with pytest.raises(RegistryError, match=words):
            ask()


def test_a_link_of_docker_hub_leads_to_docker_hub() -> None:
    """Links are relative to the host that answered, and authenticated by the registry's name."""
    pages = paged((["1"], "/v2/a/tags/list?last=1"), (["2"], None))
    remote = RegistryRemote(pages.session(), "docker.io/a")
    assert list(remote.tags(QuickScope())) == ["1", "2"]
    assert pages.transport.lines[-1] == "GET https://registry-1.docker.io/v2/a/tags/list?last=1"


def test_a13_a_link_to_another_host_gets_no_credentials() -> None:
    """It is followed bare, and stays bare also where it leads back."""
    fake = paged(
        (["1"], "https://other.example/v2/a/tags/list?last=1"),
        (["2"], "https://other.example/v2/a/tags/list?last=2"),
        (["3"], None),
        guard="basic",
    )
    assert list(remote_of(fake, ANN).tags(QuickScope())) == ["1", "2", "3"]
    assert [("Authorization" in request.headers) for request in fake.transport.requests] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "link", ["file:///etc/passwd", "http://registry.example/v2/a/tags/list?last=1", "ftp://x/"]
)
def test_a13_a_link_to_another_scheme_is_refused(link: str) -> None:
    """file: is no page, and https does not become http."""
    fake = paged((["1"], link))
    with pytest.raises(TransportError, match="next page"):
        list(remote_of(fake).tags(QuickScope()))
    assert len(fake.transport.requests) == 1


@pytest.mark.parametrize("cycle", [("?n=1",), ("?last=b", "?last=a", "?last=b")])
def test_a13_link_cycles_are_bounded(cycle: tuple[str, ...]) -> None:
    """A page that was seen is not asked for again."""
    pages: list[tuple[list[str], str | None]] = [
        ([str(n)], f"/v2/a/tags/list{link}") for n, link in enumerate(cycle)
    ]
    pages.append((["x"], f"/v2/a/tags/list{cycle[0]}"))
    with pytest.raises(TransportError, match="circle"):
        list(remote_of(paged(*pages)).tags(QuickScope()))


def test_the_catalog_asks_for_its_own_scope() -> None:
    """registry:catalog:*, page by page."""
    fake = paged((["a", "b/c"], "/v2/_catalog?last=b"), (["d"], None), guard="bearer")
    assert list(Registry(fake.session(), fake.host).catalog(QuickScope())) == ["a", "b/c", "d"]
    (asked,) = [line for line in fake.transport.lines if "auth.example" in line]
    assert "scope=registry:catalog:" in asked


def test_a_remote_tells_its_origin() -> None:
    """What the store labels blobs with, and a repr that sends nothing."""
    fake = FakeRegistry()
    remote = remote_of(fake)
    assert remote.origin(Descriptor(mediatype.OCI_LAYER, Digest.of(b""), 0)) == Origin(
        "registry.example", "a"
    )
    assert "registry.example/a" in repr(remote)
    assert fake.transport.requests == []


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["latest"], "no tag 'nosuch' in registry.example/team/app; there is: latest"),
        ([], "no tag 'nosuch' in registry.example/team/app; there is none"),
        (
            ["1", "2", "3", "4", "5", "6", "nosuc", "7\x1b[31m"],
            "no tag 'nosuch' in registry.example/team/app; there are: nosuc, 1, 2, 3, 4 and 3 more",
        ),
    ],
)
def test_a_tag_that_is_not_there_is_told_with_those_that_are(there: list[str], said: str) -> None:
    """The nearest first, by one request more."""
    fake = FakeRegistry()
    usual = fake.answer
    fake.transport.handler = lambda request: (
        ScriptedResponse(200, json.dumps({"tags": there}).encode())
        if "/tags/list" in request.url
        else usual(request)
    )
    with pytest.raises(NotFound) as caught:
        RegistryRemote(fake.session(), "registry.example/team/app").resolve("nosuch", QuickScope())
    assert str(caught.value) == said
    assert caught.value.status == 404
    assert len(fake.transport.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        ScriptedResponse(500),
        ScriptedResponse(200, b"no JSON"),
        ScriptedResponse(200, b'{"tags": ["nosuch"]}'),
        ScriptedResponse(404),
        TransportError("registry.example", "connection refused"),
        ValueError("of another library, in whose cassette it is not"),
    ],
)
def test_where_tags_are_not_to_be_had_the_404_is_what_is_told(answer: Any) -> None:
    """One request, tried once, which never fails the error."""
    fake = FakeRegistry()
    usual = fake.answer
    fake.transport.handler = lambda request: answer if "/tags/list" in request.url else usual(request)
    scope = QuickScope()
    with pytest.raises(NotFound, match="answered 404: MANIFEST_UNKNOWN"):
        RegistryRemote(fake.session(), "registry.example/team/app").resolve("nosuch", scope)
    assert len(fake.transport.requests) == 2
    assert scope.slept == []


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (
            StaticCredentials(Credential("bob", PASSWORD, origin="given with -u")),
            "the credentials given with -u (user bob) were refused",
        ),
        (
            StaticCredentials(Credential("bob", PASSWORD)),
            "the credentials given for this call (user bob) were refused",
        ),
    ],
)
def test_credentials_that_are_refused_are_told_by_where_they_came_from(credentials: Any, said: str) -> None:
    """And by the user's name, never by the password."""
    fake = FakeRegistry(guard="basic")
    fake.users = {}
    with pytest.raises(Unauthorized) as caught:
        RegistryRemote(fake.session(credentials), "registry.example/team/app").resolve("1", QuickScope())
    assert str(caught.value).endswith(said)


def test_credentials_of_a_file_are_told_by_its_path(tmp_path: Path) -> None:
    """And by the key in it."""
    file = tmp_path / "config.json"
    CredentialStore([file]).put("registry.example", Credential("bob", PASSWORD))
    fake = FakeRegistry(guard="basic")
    fake.users = {}
    with pytest.raises(Unauthorized) as caught:
        RegistryRemote(fake.session(CredentialStore([file])), "registry.example/a").resolve("1", QuickScope())
    assert f"the credentials of {file}, auths['registry.example'] (user bob) were refused" in str(
        caught.value
    )
