"""Every cassette, twice: through the real HTTP transport with vcrpy beneath, and through ReplayTransport.

Sockets are blocked. What is expected is said here; that the cassettes are what a real registry answers is
shown by ``tests/interop/test_rerecording.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any, Callable

import pytest

from ocidist.net.http import HTTPTransport
from ocidist.net.replay import ReplayTransport
from ocidist.spec.digest import Digest
from tests.parts.demo_image import demo_image
from tests.parts.required import missing
from tests.recorded.conftest import CASSETTES
from tests.recorded.scenarios import SCENARIOS, TAGS, Seen, quick, session_over

pytestmark = [pytest.mark.vcr, pytest.mark.block_network]

PLATFORMS = ("linux/amd64", "linux/arm64")


@pytest.fixture
def seen(default_cassette_name: str) -> Callable[[], Seen]:
    """Runs the scenario of the test's cassette over HTTP and over replay, which must agree; what it saw.

    Where vcrpy is missing, over replay alone.
    """

    def run() -> Seen:
        scenario = SCENARIOS[default_cassette_name]
        live = None
        if missing("module:pytest_recording") is None:
            with quick(), HTTPTransport() as transport:
                live = scenario.run(session_over(transport, scenario))
        with quick():
            replay = ReplayTransport.load(CASSETTES / f"{scenario.name}.json")
            replayed = scenario.run(session_over(replay, scenario))
            # a second run is answered, too; only what was waited out is not waited out again
            again = scenario.run(session_over(replay, scenario))
        assert live is None or live == replayed
        assert again == ({**replayed, "waited": []} if "waited" in replayed else replayed)
        return replayed

    return run


def configs() -> dict[str, str]:
    """Platform -> digest of the demo image's config, which depends on no compressor."""
    return {platform: demo_image(platform).blobs[0].digest for platform in PLATFORMS}


@pytest.mark.default_cassette("first-pull")
def test_first_pull(seen: Callable[[], Seen]) -> None:
    """An anonymous token, an index, two platforms: every object by its digest, shared layers once."""
    found = seen()
    assert {platform: digests[0] for platform, digests in found["images"].items()} == configs()
    assert [len(digests) for digests in found["images"].values()] == [7, 7]
    assert found["images"]["linux/amd64"][3:] == found["images"]["linux/arm64"][3:]
    assert len(found["sizes"]) == 13
    assert found["tags"] == sorted(TAGS)


@pytest.mark.default_cassette("basic-auth")
def test_basic_auth(seen: Callable[[], Seen]) -> None:
    """401 with a Basic challenge, then the password."""
    assert seen() == {"config": configs()["linux/amd64"]}


@pytest.mark.default_cassette("token-auth")
def test_token_auth(seen: Callable[[], Seen]) -> None:
    """A user's token, by GET."""
    assert seen() == {"config": configs()["linux/amd64"]}


@pytest.mark.default_cassette("identity-token")
def test_identity_token(seen: Callable[[], Seen]) -> None:
    """A token by POST with a refresh token."""
    assert seen() == {"config": configs()["linux/amd64"]}


@pytest.mark.default_cassette("unauthorized")
def test_unauthorized(seen: Callable[[], Seen]) -> None:
    """A wrong password ends as Unauthorized, with the token server's words."""
    assert seen() == {"error": "Unauthorized", "status": 401, "codes": ["UNAUTHORIZED"]}


@pytest.mark.default_cassette("anonymous-denied")
def test_anonymous_denied(seen: Callable[[], Seen]) -> None:
    """A token that grants nothing ends in the registry's own 401, without a loop."""
    assert seen() == {"error": "Unauthorized", "status": 401, "codes": ["UNAUTHORIZED"]}


@pytest.mark.default_cassette("index")
def test_index(seen: Callable[[], Seen]) -> None:
    """An index is resolved, and each platform gets its own image."""
    found = seen()
    assert found["media_type"] == "application/vnd.oci.image.index.v1+json"
    assert found["platforms"] == list(PLATFORMS)
    assert len(set(found["chosen"].values())) == 2


@pytest.mark.default_cassette("ranges")
def test_ranges(seen: Callable[[], Seen]) -> None:
    """Parts of a blob are parts of the blob."""
    found = seen()
    assert sum(found["parts"]) == found["size"]
    assert all(found["parts"])


@pytest.mark.default_cassette("not-found")
def test_not_found(seen: Callable[[], Seen]) -> None:
    """404 is NotFound, with the registry's code."""
    found = seen()
    assert (found["tag"]["error"], found["tag"]["codes"]) == ("NotFound", ["MANIFEST_UNKNOWN"])
    assert found["repository"]["error"] == "NotFound"
    assert (found["blob"]["error"], found["blob"]["codes"]) == ("NotFound", ["BLOB_UNKNOWN"])


@pytest.mark.default_cassette("rate-limited")
@pytest.mark.vcr(allow_playback_repeats=False)  # the second answer is another
def test_a8_rate_limited(seen: Callable[[], Seen]) -> None:
    """429 is waited out as Retry-After says."""
    found = seen()
    assert found["waited"] == [1]
    assert Digest(found["root"])


@pytest.mark.default_cassette("paged-tags")
def test_paged_tags(seen: Callable[[], Seen]) -> None:
    """Pages are followed to the last."""
    assert seen() == {"tags": list(TAGS)}
    pages = [e["response"] for e in everything("paged-tags") if "/tags/list" in e["request"]["url"]]
    assert ["Link" in page["headers"] for page in pages] == [True, True, False]


@pytest.mark.default_cassette("catalog")
def test_catalog(seen: Callable[[], Seen]) -> None:
    """Repositories, page by page."""
    assert seen() == {"repositories": ["demo/shop", "demo/spare", "private/shop"]}
    assert sum("Link" in e["response"]["headers"] for e in everything("catalog")) == 1


@pytest.mark.default_cassette("head-resolve")
def test_head_resolve(seen: Callable[[], Seen]) -> None:
    """HEAD tells digest, size and type, and no bytes."""
    found = seen()
    assert found["raw"] is None
    assert found["size"] > 0
    assert found["media_type"] == "application/vnd.oci.image.index.v1+json"


@pytest.mark.default_cassette("schema2")
def test_schema2(seen: Callable[[], Seen]) -> None:
    """Docker's media types are as good as OCI's."""
    found = seen()
    assert found["media_types"][0] == "application/vnd.docker.distribution.manifest.v2+json"
    assert all(kind.startswith("application/vnd.docker.") for kind in found["media_types"])


def everything(name: str) -> list[dict[str, Any]]:
    """The exchanges of a cassette, as JSON."""
    exchanges: list[dict[str, Any]] = json.loads((CASSETTES / f"{name}.json").read_bytes())["exchanges"]
    return exchanges


@pytest.mark.default_cassette("first-pull")
def test_the_layers_of_first_pull_are_the_demo_image() -> None:
    """Uncompressed, each recorded layer is a DiffID of the config that the image's script makes today."""
    wanted = {
        diff_id
        for platform in PLATFORMS
        for diff_id in json.loads(demo_image(platform).blobs[0].raw)["rootfs"]["diff_ids"]
    }
    found = set()
    for exchange in ReplayTransport.load(CASSETTES / "first-pull.json").exchanges:
        with exchange.body.open() as file:
            raw = file.read()
        if raw.startswith(b"\x1f\x8b"):
            assert hashlib.sha256(raw).hexdigest() in exchange.url
            found.add("sha256:" + hashlib.sha256(gzip.decompress(raw)).hexdigest())
    assert wanted == found
    assert len(wanted) == 8


@pytest.mark.default_cassette("first-pull")
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_b29_no_cassette_holds_a_secret(name: str) -> None:
    """No password, no JWT, no signature; tokens are the word "scrubbed"."""
    text = (CASSETTES / f"{name}.json").read_text()
    for secret in ("correct horse", "not the password", "eyJ", "refresh.", "Y29ycmVjdC"):
        assert secret not in text
    for exchange in everything(name):
        asked = exchange["request"]["headers"].get("Authorization", "Bearer scrubbed")
        assert asked in ("Bearer scrubbed", "Basic scrubbed")
        assert "Signature=" not in exchange["request"]["url"].replace("Signature=scrubbed", "")


@pytest.mark.default_cassette("first-pull")
def test_each_cassette_has_a_scenario_and_a_line_in_the_readme() -> None:
    """Nothing is in the folder that nobody can record again."""
    assert sorted(path.stem for path in CASSETTES.glob("*.json")) == sorted(SCENARIOS)
    readme = (CASSETTES / "README.md").read_text()
    for name in SCENARIOS:
        assert f"`{name}.json`" in readme
