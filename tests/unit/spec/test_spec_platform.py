"""Platforms: spellings, and which image runs on which machine."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import InvalidManifest, PlatformNotFound, UsageError
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.platform import Platform, select


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("Linux/AMD64/V2", "linux/amd64/v2"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("arm64", "linux/arm64"),
        ("x86_64", "linux/amd64"),
        ("armhf", "linux/arm/v7"),
        ("s390x", "linux/s390x"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("windows(10.0.17763+win32k)/amd64", "windows(10.0.17763+win32k)/amd64"),
        ("linux(+feature)/x86_64", "linux(+feature)/amd64"),
        ("linux(+b+a)/arm64/v8", "linux(+b+a)/arm64"),
        ("linux(+feature)", f"linux(+feature)/{str(Platform.host()).partition('/')[2]}"),
        ("plan10/pdp11", "plan10/pdp11"),  # two words are taken at their word
    ],
)
def test_aliases_have_one_spelling(text: str, normal: str) -> None:
    """What Docker, Debian and uname say becomes what Go says; normalised text stays."""
    platform = Platform.parse(text)
    assert str(platform) == normal
    assert Platform.parse(normal) == platform == platform.normalized()
    assert pickle.loads(pickle.dumps(platform)) == platform


def test_one_word_takes_the_rest_from_the_host() -> None:
    """A system means this machine's architecture."""
    assert Platform.parse("linux") == Platform.host()
    assert Platform.parse("windows").architecture == Platform.host().architecture
    assert Platform.host().os == "linux"


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("wasm32", "linux/amd64"),
        ("AMD64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("arm64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("armv5tel", "linux/arm/v5"),
        ("armv8l", "linux/arm/v8"),
        ("i686", "linux/386"),
        ("ppc64le", "linux/ppc64le"),
        ("riscv64", "linux/riscv64"),
        ("loongarch64", "linux/loong64"),
        ("", "linux/unknown"),
    ],
)
def test_the_host_is_told_from_uname(machine: str, platform: str) -> None:
    """The kernel's names for architectures are not Go's."""
    assert str(Platform._of_machine(machine)) == platform


@pytest.mark.parametrize(
    "text",
    [
        "all",
        "",
        "/",
        "linux/",
        "/amd64",
        "linux/a/b/c",
        "linux/a b",
        "*",
        "linux/*",
        "pdp11",
        "linux/amd64\n",
    ],
)
def test_what_is_no_platform_is_refused(text: str) -> None:
    """``all`` is a choice of the command line's, not a platform."""
    with pytest.raises(UsageError):
        Platform.parse(text)


def test_a_platform_without_its_system_is_told_the_whole_one() -> None:
    """The second word would be an architecture that nothing has."""
    with pytest.raises(UsageError, match="write linux/arm/v7"):
        Platform.parse("arm/v7")


def entry(platform: str, **options: object) -> Descriptor:
    """A descriptor as an index has it: the platform as written, not normalised."""
    parts = platform.split("/")
    return Descriptor(
        mediatype.OCI_MANIFEST,
        Digest.of(f"{platform}{options}".encode()),
        1,
        platform=Platform(*parts) if platform else None,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("wanted", "have", "chosen"),
    [
        ("linux/amd64", "linux/arm64 linux/amd64", "linux/amd64"),
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v7", "linux/arm/v8 linux/arm/v5", "linux/arm/v5"),
        ("linux/arm/v7", "linux/arm linux/arm/v6", "linux/arm"),
        ("linux/arm64", "linux/arm64/v8 linux/amd64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm/v7 linux/arm64", "linux/arm64"),
        ("linux/arm64", "linux/arm/v6 linux/arm/v7", "linux/arm/v7"),
        ("linux/arm64/v9.1", "linux/arm64/v8.6 linux/arm64/v8.7", "linux/arm64/v8.6"),
        ("linux/arm64/v9", "linux/arm64/v8 linux/arm64/v8.5", "linux/arm64/v8.5"),
        ("linux/amd64/v3", "linux/amd64 linux/amd64/v2", "linux/amd64/v2"),
        ("linux/amd64/v3", "linux/amd64/v4 linux/x86_64", "linux/x86_64"),
        ("linux/amd64", "linux/amd64/v2 linux/amd64/v1", "linux/amd64/v1"),
        ("linux/amd64", "windows/amd64 linux/386", "linux/386"),
        ("linux/s390x", "unknown/unknown linux/s390x", "linux/s390x"),
    ],
)
def test_the_nearest_that_runs_is_chosen(wanted: str, have: str, chosen: str) -> None:
    """containerd's order: the exact one, then the next lower variant, then the 32-bit sibling."""
    candidates = [entry(text) for text in have.split()]
    assert select(candidates, Platform.parse(wanted)) == entry(chosen)


@pytest.mark.parametrize(
    ("wanted", "have"),
    [
        ("linux/amd64", "linux/amd64/v2 linux/arm64"),
        ("linux/arm/v5", "linux/arm/v6 linux/arm/v7"),
        ("linux/386", "linux/amd64"),
        ("linux/arm/v7", "linux/arm64"),
        ("linux/riscv64", "unknown/unknown"),
        ("windows/amd64", "linux/amd64"),
        ("linux/arm64", ""),
    ],
)
def test_what_would_not_run_is_not_chosen(wanted: str, have: str) -> None:
    """A higher variant does not run on a lower; the error lists what there is."""
    candidates = [entry(text) for text in have.split()]
    with pytest.raises(PlatformNotFound) as caught:
        select(candidates, Platform.parse(wanted))
    images = [name for name in have.split() if name != "unknown/unknown"]
    assert caught.value.available == tuple(images)
    assert (images or ["none"])[0] in str(caught.value)


def test_the_first_of_equals_stands() -> None:
    """As containerd's stable sort leaves it."""
    first, second = entry("linux/amd64", urls=("1",)), entry("linux/amd64", urls=("2",))
    assert select([entry("linux/arm64"), first, second], Platform.parse("linux/amd64")) is first


def test_a_windows_build_is_met_exactly() -> None:
    """A version that is asked for counts; one that is not does not."""
    old = Descriptor(
        mediatype.OCI_MANIFEST, Digest.of(b"o"), 1, platform=Platform("windows", "amd64", "", "10.0.1")
    )
    new = Descriptor(
        mediatype.OCI_MANIFEST, Digest.of(b"n"), 1, platform=Platform("windows", "amd64", "", "10.0.2")
    )
    assert select([old, new], Platform.parse("windows(10.0.2)/amd64")) is new
    assert select([old, new], Platform.parse("windows/amd64")) is old
    with pytest.raises(PlatformNotFound, match=r"windows\(10\.0\.1\)/amd64"):
        select([old], Platform.parse("windows(10.0.3)/amd64"))


def test_an_image_that_names_no_platform_is_the_last_choice() -> None:
    """A layout of one image often doesn't; attestations, artifacts, and what is no manifest are never it."""
    lone, text = entry(""), Descriptor("text/plain", Digest.of(b"t"), 1)
    attached = entry("", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    signature = entry("", artifact_type="application/x-signature")
    assert select([attached, signature, text, lone], Platform.parse("linux/amd64")) is lone
    assert select([lone, entry("linux/amd64")], Platform.parse("linux/amd64")) == entry("linux/amd64")
    with pytest.raises(PlatformNotFound):
        select([attached, signature, text], Platform.parse("linux/amd64"))


def test_the_wanted_features_choose_among_equals() -> None:
    """An image without them runs as well, and stands where none has them."""
    plain = entry("linux/amd64")
    featured = replace(plain, platform=Platform.parse("linux(+sev)/amd64"))
    assert select([plain, featured], Platform.parse("linux(+sev)/amd64")) is featured
    assert select([featured, plain], Platform.parse("linux/amd64")) is plain
    assert select([plain], Platform.parse("linux(+sev)/amd64")) is plain


texts = st.text(max_size=8)


@given(texts, texts, texts, texts, st.lists(texts, max_size=3))
def test_json_there_and_back(
    system: str, architecture: str, variant: str, version: str, features: list[str]
) -> None:
    """What to_json writes, from_json reads."""
    platform = Platform(system, architecture, variant, version, tuple(features))
    assert Platform.from_json(platform.to_json()) == platform
    assert platform.normalized().normalized() == platform.normalized()


@pytest.mark.parametrize(
    "value",
    [
        [],
        "linux",
        {"os": 1},
        {"os": "linux", "os.features": "x"},
        {"os": "a", "os.features": [1]},
        {"OS": "linux"},
    ],
)
def test_d43_a_platform_of_the_wrong_shape_is_refused(value: object) -> None:
    """Wrong types, and a specified name in other letters."""
    with pytest.raises(InvalidManifest, match=r"at manifests\[0\]\.platform"):
        Platform.from_json(value, "index", "manifests[0].platform")
