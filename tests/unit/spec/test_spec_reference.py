"""References, read as Docker and containerd read them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocidist.errors import InvalidDigest, InvalidReference
from ocidist.spec.digest import Digest
from ocidist.spec.reference import Reference

HEX = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa"
D = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("redis", "docker.io/library/redis", "redis"),
        ("redis:7", "docker.io/library/redis:7", "redis:7"),
        ("me/redis", "docker.io/me/redis", "me/redis"),
        ("docker.io/redis", "docker.io/library/redis", "redis"),
        ("docker.io/library/redis", "docker.io/library/redis", "redis"),
        ("library/redis", "docker.io/library/redis", "redis"),
        ("index.docker.io/redis:7", "docker.io/library/redis:7", "redis:7"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("docker.io/a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("docker.io", "docker.io/library/docker.io", "docker.io"),
        ("localhost", "docker.io/library/localhost", "localhost"),
        ("localhost/redis", "localhost/redis", "localhost/redis"),
        ("localhost:5000/redis", "localhost:5000/redis", "localhost:5000/redis"),
        ("redis:5000", "docker.io/library/redis:5000", "redis:5000"),
        ("host:5000/redis:7", "host:5000/redis:7", "host:5000/redis:7"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a", "127.0.0.1:5000/a"),
        ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
        ("[fd00:1:2::3]/a", "[fd00:1:2::3]/a", "[fd00:1:2::3]/a"),
        ("ghcr.io/a/b/c:v1.0", "ghcr.io/a/b/c:v1.0", "ghcr.io/a/b/c:v1.0"),
        ("Foo/bar", "Foo/bar", "Foo/bar"),  # uppercase can't be a path, so it is a host
        ("xn--n3h.com/myimage", "xn--n3h.com/myimage", "xn--n3h.com/myimage"),
        (f"redis@{D}", f"docker.io/library/redis@{D}", f"redis@{D}"),
        (f"redis:7@{D}", f"docker.io/library/redis:7@{D}", f"redis:7@{D}"),
        (f"h:1/a:7@{D}", f"h:1/a:7@{D}", f"h:1/a:7@{D}"),
        ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f", "a__b/c---d.e_f"),
        ("redis:_X.y-Z", "docker.io/library/redis:_X.y-Z", "redis:_X.y-Z"),
        ("redis:" + "t" * 128, "docker.io/library/redis:" + "t" * 128, "redis:" + "t" * 128),
        (f"{HEX}a", f"docker.io/library/{HEX}a", f"{HEX}a"),
        (f"{HEX}:latest", f"docker.io/library/{HEX}:latest", f"{HEX}:latest"),
        (f"me/{HEX}", f"docker.io/me/{HEX}", f"me/{HEX}"),
    ],
)
def test_names_are_normalised_as_docker_does(text: str, full: str, familiar: str) -> None:
    """The full form, the short form, and each parses to the same again."""
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == familiar
    assert Reference.parse(full) == Reference.parse(reference.familiar) == reference
    assert pickle.loads(pickle.dumps(reference)) == reference


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("", None, "empty"),
        ("Redis", 0, "lowercase, not 'R'"),
        ("me/reDis:7", 5, "lowercase, not 'D'"),
        ("host:5000/Redis", 10, "lowercase, not 'R'"),
        ("redis ", 5, "spaces"),
        (" redis", 0, "spaces"),
        ("redis\n", 5, "spaces"),
        ("redis:7\n", 7, "tag"),
        ("redis:", 6, "tag is empty"),
        ("redis:-a", 6, "tag"),
        ("redis:.a", 6, "tag"),
        ("redis:a b", 7, "tag"),
        ("redis:a:b", 7, "tag"),
        ("host/redis:a/b", 12, "tag"),
        ("redis:" + "t" * 129, 134, "128"),
        ("redis:é", 6, "tag"),
        ("rédis", 1, "can't stand"),
        ("a..b", 1, "between letters or digits"),
        ("a___b", 1, "between letters or digits"),
        ("a._b", 1, "between letters or digits"),
        ("a-", 1, "between letters or digits"),
        ("-a", 0, "between letters or digits"),
        ("a/-b", 2, "between letters or digits"),
        ("a//b", 2, "empty"),
        ("a/", 2, "empty"),
        ("/a", 0, "empty"),
        ("host.io/", 8, "empty"),
        ("../../etc/passwd", 0, "host"),
        ("a/../b", 2, "between letters or digits"),
        ("-h.io/a", 0, "host"),
        ("h-.io/a", 1, "host"),
        ("h..io/a", 1, "host"),
        ("h_x.io/a", 1, "host"),
        ("h.io:/a", 4, "host"),
        ("h.io:x/a", 4, "host"),
        ("[::1/a", 0, "host"),
        ("[fe80::1%eth0]/a", 0, "host"),
        ("::1/a", 0, "host"),
        ("user:pw@h.io/a", 8, "digest"),
        ("https://h.io/a", 5, "scheme"),
        ("docker://redis", 6, "scheme"),
        (HEX, None, "64 hexadecimal digits"),
        ("redis@", 6, "digest"),
        ("@" + D, 0, "empty"),
        (f"redis@{D}@{D}", 6, "digest"),
        (f"redis@{D}\n", 6, "digest"),
        (f"redis@sha256:{HEX.upper()}", 6, "lowercase"),
        (f"redis@md5:{HEX[:32]}", 6, "'md5' is not supported"),
        ("redis@sha256:../../x", 6, "digest"),
    ],
)
def test_d42_bad_references_point_at_the_character(text: str, position: int | None, said: str) -> None:
    """One error type, the place in what was typed, and a reason."""
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert caught.value.position == position
    assert said in caught.value.reason


def test_a_name_has_at_most_255_characters() -> None:
    """Counted without the domain, and with the library/ that is added."""
    assert len(Reference.parse("a/" + "b" * 253).path) == 255
    assert len(Reference.parse("b" * 247).path) == 255
    for text in ("a/" + "b" * 254, "b" * 248, "host.io/" + "b" * 256, "a/" * 5000 + "a"):
        with pytest.raises(InvalidReference, match="at most 255 characters"):
            Reference.parse(text)


def test_the_object_is_the_digest_then_the_tag_then_latest() -> None:
    """What a registry is asked for."""
    assert Reference.parse("redis").object == "latest"
    assert Reference.parse("redis:7").object == "7"
    assert Reference.parse(f"redis:7@{D}").object == D
    assert Reference.parse("redis").tag is None
    assert Reference.parse(f"redis:7@{D}").name == "docker.io/library/redis"


def test_an_image_in_a_store_has_a_tag_or_a_digest() -> None:
    """``image_name`` adds the tag that Docker would."""
    assert Reference.parse("redis").image_name == "docker.io/library/redis:latest"
    assert Reference.parse("redis:7").image_name == "docker.io/library/redis:7"
    assert Reference.parse(f"redis@{D}").image_name == f"docker.io/library/redis@{D}"


def test_the_two_word_spelling() -> None:
    """REMOTE OBJECT, where the object replaces what the remote said."""
    assert Reference.of("redis", "7") == Reference.parse("redis:7")
    assert Reference.of("redis:6", "7") == Reference.parse("redis:7")
    assert Reference.of("redis:6", D) == Reference.parse(f"redis@{D}")
    assert Reference.of("redis:6") == Reference.of("redis:6", "") == Reference.parse("redis:6")
    assert Reference.of(f"redis@{D}", "7").digest is None
    for bad in ("sha256:abc", "a b", "-", "a/b", "t" * 129, "7\n", "sha256:../../x"):
        with pytest.raises(InvalidReference):
            Reference.of("redis", bad)


def test_a_reference_is_valid_however_it_is_made() -> None:
    """Its parts go into URLs and file names, so the constructor checks them too."""
    assert Reference("docker.io", "redis") == Reference.parse("redis")
    assert isinstance(Reference("h.io", "a", None, D).digest, Digest)  # type: ignore[arg-type]
    for domain, path, tag in (
        ("h.io", "../a", None),
        ("h.io/x", "a", None),
        ("", "a", None),
        ("h.io", "a", ""),
    ):
        with pytest.raises(InvalidReference):
            Reference(domain, path, tag)
    with pytest.raises(InvalidDigest):
        Reference("h.io", "a", None, "sha256:../x")  # type: ignore[arg-type]


words = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
paths = st.lists(words, min_size=1, max_size=4).map("/".join)
domains = st.none() | st.from_regex(
    r"([a-zA-Z0-9]{1,4}(\.[a-z0-9]{1,4}){1,2}|localhost|\[[0-9a-f]{0,4}:[0-9a-f:]{1,7}\])(:[0-9]{1,5})?",
    fullmatch=True,
)
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(domains, paths, tags, st.booleans())
def test_normalising_is_idempotent(domain: str | None, path: str, tag: str | None, pinned: bool) -> None:
    """The full and the familiar text of any reference stand for the same reference."""
    if domain is None:
        path = "a" + path.replace(".", "-", path.partition("/")[0].count("."))  # a dot would make it a domain
    text = (f"{domain}/" if domain else "") + path
    text += (f":{tag}" if tag else "") + (f"@{D}" if pinned else "")
    reference = Reference.parse(text)
    assert reference.tag == tag
    assert (reference.digest == D) is pinned
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert reference.path.endswith(path.rpartition("/")[2])


@given(st.text(max_size=40) | st.text(alphabet="aA0./:@-_[]% \n", max_size=30))
def test_d42_any_text_is_a_reference_or_refused(text: str) -> None:
    """Nothing else is raised, and what is accepted holds no step, space or uppercase path."""
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        position = error.position or 0
    else:
        position = 0
        assert str(reference).isascii()
        assert not {"", ".", ".."}.intersection(reference.path.split("/"))
        assert reference.path == reference.path.lower()
        assert not any(character.isspace() for character in str(reference))
    assert 0 <= position <= len(text)
