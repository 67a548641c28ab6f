"""hosts.toml: what it says, in containerd's order; what it can't say; where it is looked for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from ocidist.cli.main import main
from ocidist.client import Client
from ocidist.errors import UsageError
from ocidist.remotes.registry.hosts import folder_of, read_hosts
from ocidist.remotes.registry.hosts_toml import CAPABILITIES, Endpoint, parse_hosts
from tests.parts.faulty import REPOSITORY, FaultyRegistry
from tests.parts.images import Entry, image

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
        ('[host."https://a"]\nproxy = "x"', "proxy is not the URL of a proxy"),
        ('proxy = "http://u:secret@p:1/path"', "proxy is not the URL of a proxy"),
        ('proxy = "socks5://p:1"', "proxies of kind 'socks5' are not supported"),
        ('dial_timeout = "10"', "dial_timeout is not a duration"),
        ('dial_timeout = "1s2"', "dial_timeout is not a duration"),
        ("dial_timeout = 10", "dial_timeout is not a duration"),
        ("server = 1", "server is not a string"),
        ("host = 1", "host is not a table"),
        ('[host]\n"https://a" = 1', "is not a table"),
        ('[host."ftp://a"]', "not an http.s. URL of a host"),
        ('[host."https://user:secret@a"]', "not an http.s. URL of a host"),
        ('[host."https://a:99999999"]', "not an http.s. URL of a host"),
        (
            '[host."https://a"]\ncapabilities = ["fly"]',
            "unknown capability 'fly'; there are pull, resolve, push, referrers",
        ),
        ('[host."https://a"]\nskip_verify = "yes"', "skip_verify is neither true nor false"),
        ('[host."https://a"]\nca = 1', "ca is neither text nor a list"),
        ('[host."https://a"]\nclient = [["a", "b", "c"]]', "client is neither a file nor"),
        ('[host."https://a"]\nheader = "x"', "header is not a table"),
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


@readable
def test_keys_that_nobody_knows_are_ignored_with_a_line() -> None:
    """As by containerd, whose files are written for it and for later versions: the file and the key are named."""
    lines: list[str] = []
    found = parse_hosts(
        'mirrors = []\n[host."https://a"]\nfuture = true\nskip_verify = true', HERE, lines.append
    )
    assert found == (Endpoint("https://a/v2", skip_verify=True), Endpoint())
    keys = ("'host.\"https://a\".future'", "'mirrors'")
    assert [line.partition(";")[0] for line in lines] == [
        f"{HERE}: the unknown key {key} is ignored" for key in keys
    ]


@readable
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0), ("0", None), ("", None)],
)
def test_a_host_has_capabilities_a_proxy_and_a_dial_timeout_as_in_containerd(
    text: str, seconds: float | None
) -> None:
    """referrers is a capability; the proxy is not shown, for it may hold a password."""
    (mirror, _) = parse_hosts(
        f'[host."https://a"]\ncapabilities = ["pull", "referrers"]\nproxy = "http://u:pw@p:1"\ndial_timeout = "{text}"',
        HERE,
    )
    assert mirror.capabilities == {"pull", "referrers"}
    assert (mirror.proxy, mirror.dial_timeout) == ("http://u:pw@p:1", seconds)
    assert "pw" not in repr(mirror)
    options = Client(connect_timeout=20).network_options(mirror)
    assert options.connect_timeout == min(seconds or 20, 20)
    assert (dict(options.proxies), options.no_proxy) == ({"all": "http://u:pw@p:1"}, "")


@readable
def test_an_unknown_key_is_a_line_on_stderr_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The command goes on; in Python it is logged, once."""
    made = image([[Entry("a", b"a")]])
    with FaultyRegistry({"1": made}) as registry:
        folder = tmp_path / "127.0.0.1:1"
        folder.mkdir()
        (folder / "hosts.toml").write_text(f'server = "{registry.registry.url}"\nfuture = 1\n')
        name = f"127.0.0.1:1/{REPOSITORY}:1"
        assert main(["resolve", name, "--hosts-dir", str(tmp_path), "--root", str(tmp_path / "root")]) == 0
        for _ in range(2):
            Client(hosts_dirs=[tmp_path]).resolve(name)
    out, err = capsys.readouterr()
    assert made.digest in out
    (line,) = err.splitlines()
    assert line.startswith(f"ocidist: {folder / 'hosts.toml'}: the unknown key 'future' is ignored")
    assert [record.levelname for record in caplog.records if "'future'" in record.getMessage()] == ["WARNING"]


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
    (folder / "hosts.toml").touch()  # an empty one is none
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
