"""hosts.toml beside containerd: the same hosts are asked for the same things, in the same order."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import pytest

from ocidist.client import Client
from ocidist.errors import TransportError
from ocidist.server.http import query
from tests.interop.roots import assert_whole
from tests.parts.faulty import REPOSITORY, FaultyRegistry
from tests.parts.images import Entry, image
from tests.parts.processes import Program
from tests.parts.registry import free_port
from tests.parts.tables import Add, Table

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority
    from tests.parts.containerd import Containerd

TABLE = Table("Mirrors, asked by ocidist and by ctr alike", ("hosts.toml", "asked for", "of"))
IMAGE = image([[Entry("a", b"a" * 100)], [Entry("b", b"b" * 100)]])
GOOD, EMPTY = {"1": IMAGE}, dict[str, Any]()
ALL = ";times=always"

# Not among them: a mirror with the capability "resolve" alone, which ctr 1.6 takes for "pull", against its own document.
# What it is -> the mirrors in order: what each has, its faults, its base path, and what hosts.toml says of it.
CASES: dict[str, list[tuple[Any, str, str, str]]] = {
    "a mirror that has all": [(GOOD, "", "/v2", "")],
    "a mirror that has nothing": [(EMPTY, "", "/v2", "")],
    "a mirror that is forbidden, then one that has all": [
        (GOOD, f"403{ALL}", "/v2", ""),
        (GOOD, "", "/v2", ""),
    ],
    "a mirror to pull from alone": [(GOOD, "", "/v2", 'capabilities = ["pull"]')],
    "a mirror below a path of its own": [(GOOD, "", "/proxy/v2", "")],
    "a mirror with a path instead of v2": [(GOOD, "", "/proxy", "override_path = true")],
    "nobody listens there": [(None, "", "/v2", "")],
}


class Hosts:
    """A registry and its mirrors on loopback, and the folder of hosts.toml that says so."""

    def __init__(
        self, folder: Path, mirrors: list[tuple[Any, str, str, str]], stack: contextlib.ExitStack
    ) -> None:
        self.own = stack.enter_context(FaultyRegistry(GOOD))
        self.servers = {"registry": self.own}
        self.folder = folder / "certs.d"
        lines = [f'server = "{self.own.registry.url}"']
        for number, (images, faults, base, said) in enumerate(mirrors, 1):
            if images is None:
                url = f"http://127.0.0.1:{free_port()}"
            else:
                server = stack.enter_context(FaultyRegistry(images, faults, base=base))
                self.servers[f"mirror {number}"] = server
                url = server.registry.url + base.removesuffix("/v2")
            lines += [f'[host."{url}"]', said]
        host = self.folder / self.own.registry.address.replace(":", "_").join(("", "_"))
        host.mkdir(parents=True)
        (host / "hosts.toml").write_text("\n".join(lines))

    def asked(self) -> dict[str, list[str]]:
        """What was asked for -> the servers that were, in that order, each once."""
        found: dict[str, list[tuple[float, str]]] = {}
        for name, server in self.servers.items():
            for record in server.registry.records:
                thing = record.path.rpartition("/")[2]
                found.setdefault(thing, []).append((record.at, name))
                assert query(record.target).get("ns", []) == (
                    [] if name == "registry" else [self.own.registry.address]
                )
        return {thing: list(dict.fromkeys(name for _, name in sorted(who))) for thing, who in found.items()}

    def forget(self) -> None:
        """Start counting anew."""
        for server in self.servers.values():
            server.registry.forget()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[str], Hosts]]:
    """The servers of a case."""
    with contextlib.ExitStack() as stack:
        yield lambda case: Hosts(tmp_path, CASES[case], stack)


@pytest.mark.parametrize("case", CASES)
def test_the_same_hosts_are_asked_in_the_same_order(
    case: str,
    hosts: Callable[[str], Hosts],
    containerd: Containerd,
    tmp_path: Path,
    table: Callable[[Table], Add],
) -> None:
    """For the tag, the manifest and each blob; both have the whole image in the end."""
    made = hosts(case)
    ref = f"{made.own.name}:1"
    containerd.ctr("images", "pull", "--hosts-dir", str(made.folder), "--snapshotter", "native", ref)
    theirs = made.asked()
    made.forget()
    Client(store=tmp_path / "root", hosts_dirs=[made.folder]).fetch(ref)
    ours = made.asked()
    assert_whole(tmp_path / "root", IMAGE)
    names = {"1": "the tag", IMAGE.digest: "the manifest"}
    for thing, servers in ours.items():
        if thing == IMAGE.digest:  # it came with the tag; containerd asks for it once more
            continue
        assert servers == theirs[thing], thing
        table(TABLE)(case, names.get(thing, "a blob"), ", ".join(servers))


def test_ctr_and_ocidist_read_one_default_for_all(
    containerd: Containerd, tmp_path: Path, program: Program
) -> None:
    """``_default`` is for registries that have no folder; on the command line it is --hosts-dir, or a variable."""
    with FaultyRegistry(GOOD) as mirror:
        folder = tmp_path / "certs.d"
        (folder / "_default").mkdir(parents=True)
        (folder / "_default/hosts.toml").write_text(f'[host."{mirror.registry.url}"]\n')
        ref = f"127.0.0.1:{free_port()}/{REPOSITORY}:1"  # nobody listens there
        containerd.ctr("images", "pull", "--hosts-dir", str(folder), "--snapshotter", "native", ref)
        program.ok("--hosts-dir", str(folder), "pull", ref, "--platform", "linux/amd64")
        named = replace(program, environment={"OCIDIST_HOSTS_DIR": str(folder)})
        assert IMAGE.digest in named.ok("resolve", ref).stdout.decode()
        assert "connection refused" in program.fails("resolve", ref)


def test_a_mirror_has_its_own_authority_and_header_and_gets_no_credentials(
    ca: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS by the file that hosts.toml names; the header goes along; those of the registry do not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with FaultyRegistry(GOOD) as own, FaultyRegistry(GOOD) as mirror:
        mirror.registry.tls = ca.server_context()
        folder = tmp_path / own.registry.address
        folder.mkdir()
        said = f'[host."{mirror.registry.url}"]\n{{}}header = {{{{ X-Team = "blue" }}}}\n'
        (folder / "hosts.toml").write_text(said.format(f'ca = "{ca.file}"\n'))
        client = Client(
            store=tmp_path / "root", hosts_dirs=[tmp_path], auth=("ann", "password"), plain_http=True
        )
        client.fetch(f"{own.name}:1")
        assert own.registry.records == []
        assert {record.header("X-Team") for record in mirror.registry.records} == {"blue"}
        assert mirror.registry.authorizations() == []
        # Without the file the mirror is not believed, and never spoken to in the clear: the registry answers.
        mirror.registry.forget()
        (folder / "hosts.toml").write_text(said.format(""))
        assert Client(hosts_dirs=[tmp_path], plain_http=True).resolve(f"{own.name}:1").digest == IMAGE.digest
        assert mirror.registry.records == []
        (folder / "hosts.toml").write_text(said.format("skip_verify = true\n"))
        Client(hosts_dirs=[tmp_path]).resolve(f"{own.name}:1")
        assert len(mirror.registry.records) == 1


def test_wrong_bytes_of_a_mirror_are_fetched_from_the_next(tmp_path: Path) -> None:
    """The store takes none of them, and the pull goes on."""
    with FaultyRegistry(GOOD) as own, FaultyRegistry(GOOD, f"flip;on=layer,config{ALL}") as mirror:
        folder = tmp_path / own.registry.address
        folder.mkdir()
        (folder / "hosts.toml").write_text(f'server = "{own.registry.url}"\n[host."{mirror.registry.url}"]\n')
        Client(store=tmp_path / "root", hosts_dirs=[tmp_path]).fetch(f"{own.name}:1")
    assert_whole(tmp_path / "root", IMAGE)


def test_a_client_certificate_is_shown_to_the_host_it_is_for(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    """Without it the server ends the handshake."""
    with FaultyRegistry(GOOD) as own:
        context = ca.server_context()
        context.load_verify_locations(ca.file)
        context.verify_mode = ssl.CERT_REQUIRED
        own.registry.tls = context
        folder = tmp_path / own.registry.address
        folder.mkdir()
        certificate, key = ca.leaf(["client.example"])
        (folder / "hosts.toml").write_text(
            f'server = "{own.registry.url}"\nca = "{ca.file}"\nclient = [["{certificate}", "{key}"]]\n'
        )
        assert Client(hosts_dirs=[tmp_path]).resolve(f"{own.name}:1").digest == IMAGE.digest
        with pytest.raises(TransportError):
            Client(hosts_dirs=[], ca=ca.file).resolve(f"{own.name}:1")
