"""hosts.toml: what it says, in containerd's order; what it can't say; where it is looked for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from ocidist.errors import UsageError
from ocidist.remotes.registry.hosts import folder_of, read_hosts
from ocidist.remotes.registry.hosts_toml import CAPABILITIES, Endpoint, parse_hosts

HERE = Path("/certs.d/registry.example/hosts.toml")
readable = pytest.mark.skipif(
    sys.version_info < (3, 11) and importlib.util.find_spec("tomli") is None,
    reason="Python 3.10 has no tomllib; what is said then has a test of its own",
)


@readable
def test_hosts_come_in_the_order_of_the_file_and_the_server_last() -> None:
    """All fields of containerd's document."""
    found = parse_hosts(
        """
        server = "https://registry.example"
        [host."https://b.example:5000"]
          capabilities = ["pull", "Resolve"]
          ca = ["one.crt", "/two.crt"]
          client = [["a.cert", "a.key"], ["both.pem", ""]]
          skip_verify = true
          [host."https://b.example:5000".header]
            X-One = "1"
            X-Two = ["2", "3"]
        [host."http://A.example/proxy"]
          ca = "one.crt"
          client = "both.pem"
        [host."c.example/v2/mirror"]
          override_path = true
        """,
        HERE,
    )
    folder = HERE.parent
    assert found == (
        Endpoint(
            "https://b.example:5000/v2",
            frozenset({"pull", "resolve"}),
            (folder / "one.crt", Path("/two.crt")),
            ((folder / "a.cert", folder / "a.key"), (folder / "both.pem", None)),
            True,
            (("X-One", "1"), ("X-Two", "2"), ("X-Two", "3")),
        ),
        Endpoint(
            "http://a.example/proxy/v2",
            ca=(folder / "one.crt",),
            client=((folder / "both.pem", None),),
        ),
        Endpoint("https://c.example/v2/mirror"),
        Endpoint("https://registry.example/v2"),
    )
    assert [(e.scheme, e.host, e.path) for e in found[1:3]] == [
        ("http", "a.example", "/proxy/v2"),
        ("https", "c.example", "/v2/mirror"),
    ]
    assert found[1].capabilities == CAPABILITIES


@readable
def test_a_server_that_is_not_named_is_the_registry_itself_with_what_is_said_of_it() -> None:
    """Its certificates, and no URL."""
    assert parse_hosts('ca = "x.crt"', HERE) == (Endpoint(ca=(HERE.parent / "x.crt",)),)
    assert parse_hosts("", HERE) == (Endpoint(),)
    assert Endpoint().path == "/v2"


@readable
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ]", "line 1"),
        ("mirrors = []", "unknown key 'mirrors'"),
        ('[host."https://a"]\nproxy = "x"', "unknown key"),
        ("server = 1", "server is no text"),
        ("host = 1", "host is no table"),
        ('[host]\n"https://a" = 1', "is no table"),
        ('[host."ftp://a"]', "no http.s. URL of a host"),
        ('[host."https://user:secret@a"]', "no http.s. URL of a host"),
        ('[host."https://a:99999999"]', "no http.s. URL of a host"),
        (
            '[host."https://a"]\ncapabilities = ["fly"]',
            "unknown capability 'fly'; there are pull, resolve, push",
        ),
        ('[host."https://a"]\nskip_verify = "yes"', "skip_verify is neither true nor false"),
        ('[host."https://a"]\nca = 1', "ca is neither text nor a list"),
        ('[host."https://a"]\nclient = [["a", "b", "c"]]', "client is no file"),
        ('[host."https://a"]\nheader = "x"', "header is no table"),
        ('[host."https://a"]\nheader = { x = 1 }', "header.x is neither text nor a list"),
    ],
)
def test_what_it_cant_say_is_an_error_that_names_file_and_key(text: str, said: str) -> None:
    """One line."""
    with pytest.raises(UsageError, match=said) as caught:
        parse_hosts(text, HERE)
    assert str(caught.value).startswith(str(HERE))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_a_toml_reader_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Python 3.10."""
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="pip install tomli"):
        parse_hosts("", HERE)


@readable
def test_folders_are_looked_for_as_containerd_does(tmp_path: Path) -> None:
    """With a port: HOST_PORT_, then HOST:PORT, then _default; the first folder of several that has one."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (
        first / "_default",
        first / "a.example",
        second / "b.example:5000",
        second / "b.example_5000_",
    ):
        path.mkdir(parents=True)
    assert folder_of("a.example", [first, second]) == first / "a.example"
    assert folder_of("b.example:5000", [second]) == second / "b.example_5000_"
    (second / "b.example_5000_").rmdir()
    assert folder_of("b.example:5000", [second]) == second / "b.example:5000"
    assert folder_of("b.example:5000", [first, second]) == first / "_default"
    assert folder_of("c.example", [second]) is None
    assert read_hosts("c.example", [second]) == ()


def test_without_hosts_toml_the_folder_holds_certificates_as_docker_keeps_them(tmp_path: Path) -> None:
    """*.crt are authorities, *.cert with *.key are ours; a key that is missing is named."""
    folder = tmp_path / "a.example"
    folder.mkdir()
    assert read_hosts("a.example", [tmp_path]) == ()
    for name in ("ca.crt", "me.cert", "me.key", "README"):
        (folder / name).touch()
    (own,) = read_hosts("a.example", [tmp_path])
    assert own == Endpoint(ca=(folder / "ca.crt",), client=((folder / "me.cert", folder / "me.key"),))
    (folder / "me.key").unlink()
    with pytest.raises(UsageError, match=r"its key 'me\.key' is missing"):
        read_hosts("a.example", [tmp_path])


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"#" * ((1 << 20) + 1)])
def test_a_file_that_is_no_text_or_endless_is_refused(tmp_path: Path, raw: bytes) -> None:
    """It is named."""
    (tmp_path / "_default").mkdir()
    path = tmp_path / "_default/hosts.toml"
    path.write_bytes(raw)
    with pytest.raises(UsageError) as caught:
        read_hosts("a.example", [tmp_path])
    assert str(caught.value).startswith(str(path))
