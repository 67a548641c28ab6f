"""Facts of this machine that a pull depends on. Nothing is changed, nothing is sent, no secret is told."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Sequence

from ocidist.diagnosis.finding import FAILED, NOTE, OK, SKIPPED, Finding
from ocidist.errors import CredentialError, OcidistError, TransportError

if TYPE_CHECKING:
    from ocidist.client import Client

__all__ = ["MACHINE", "machine"]

MACHINE = "machine"
_LITTLE = 1 << 30  # bytes free: most images need more
# What is better with a package -> the modules of which one does it, what there is without, and the package's name.
_EXTRAS = (
    ("gzip", ("isal", "zlib_ng"), "Python's own zlib", "isal"),
    ("zstd", ("compression.zstd", "backports.zstd"), "zstd layers are refused", "backports.zstd"),
    ("DataFrames", ("pandas",), "rows have no to_frame()", "pandas"),
    ("widgets", ("ipywidgets",), "progress as HTML or text", "ipywidgets"),
)


def machine(client: Client, host: str = "") -> Iterator[Finding]:
    """Each fact; of credentials and mirrors those for the registry ``host``, if one is given."""
    yield _python()
    yield Finding(MACHINE, "platform", OK, f"images for {client.platform()} are chosen")
    yield from _root(Path(client.store.root))
    if not host or client.session.scheme(host.lower()) != "http":
        yield _authorities(client)
    yield _proxies(client)
    yield from _credentials(client, host)
    yield from _mirrors(client, host)
    yield from _extras()


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(MACHINE, "python", OK, found)


def _root(root: Path) -> Iterator[Finding]:
    folder = root
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    there = f"{root}" if folder == root else f"{root} (not created yet, in {folder})"
    other = "choose another with --root or $OCIDIST_ROOT"
    if not folder.is_dir():
        yield Finding(MACHINE, "root", FAILED, f"{folder} is not a directory", other)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(MACHINE, "root", FAILED, f"{there}: can't be written to by this user", other)
        return
    yield _readers(root, there)
    yield _space(folder)
    yield _locks(folder)


def _readers(root: Path, there: str) -> Finding:
    """Who else may use a store: none, those whom it is shared with, or anybody who can exchange what is in it."""
    from shlex import quote

    try:
        mode, inner = (stat.S_IMODE(os.stat(path).st_mode) for path in (root, root / "content"))
    except OSError:  # not made yet
        return Finding(MACHINE, "root", OK, there)
    if not hasattr(os, "geteuid"):
        return Finding(MACHINE, "root", OK, there)
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return Finding(
            MACHINE, "root", NOTE, f"{there}: other users may write to it", f"chmod go-w {quote(str(root))}"
        )
    if mode & inner & 0o055:
        advice = f"if that is not meant: chmod go-rwx {quote(str(root))} {quote(str(root / 'content'))}"
        return Finding(MACHINE, "root", NOTE, f"{there}: other users may read images in it", advice)
    return Finding(MACHINE, "root", OK, there)


def _space(folder: Path) -> Finding:
    from ocidist.view.sizes import human

    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(MACHINE, "space", NOTE, f"{folder}: {error.strerror or error}")
    found = f"{human(usage.free)} free of {human(usage.total)}"
    if usage.free >= _LITTLE:
        return Finding(MACHINE, "space", OK, found)
    return Finding(
        MACHINE, "space", NOTE, found, "free some with `rmi` and `gc`, or choose another root with --root"
    )


def _locks(folder: Path) -> Finding:
    from ocidist.content.lock import keeps_locks

    try:
        kept = keeps_locks(str(folder))
    except OSError as error:
        why = f"{folder}: {error.strerror or error}"
        return Finding(MACHINE, "locks", FAILED, why, "choose another root with --root or $OCIDIST_ROOT")
    if kept:
        return Finding(MACHINE, "locks", OK, "processes can share the store (flock)")
    advice = "let one process at a time write to the store, or choose a root on another file system"
    return Finding(MACHINE, "locks", NOTE, "no locks between processes (flock)", advice)


def _authorities(client: Client) -> Finding:
    from ocidist.net.tls import NO_AUTHORITIES, authorities

    options = client.network_options()
    own = "" if options.ca_file is None else str(options.ca_file)
    if options.insecure:
        return Finding(MACHINE, "authorities", NOTE, "certificates are not checked (--insecure)")
    if own and not Path(own).is_file():
        return Finding(MACHINE, "authorities", FAILED, f"{own} is not a file", "name a file in PEM format")
    found = authorities()
    if found or own:
        return Finding(MACHINE, "authorities", OK, " and ".join(dict.fromkeys(filter(None, (found, own)))))
    reason, _, advice = NO_AUTHORITIES.partition(": ")
    return Finding(MACHINE, "authorities", FAILED, reason, advice)


def _proxies(client: Client) -> Finding:
    from ocidist.net.probe import way_to
    from ocidist.net.proxy import host_port

    options, said = client.network_options(), []
    for scheme in ("https", "http"):
        try:
            way = way_to(f"{scheme}://registry.example/", options)
        except TransportError as error:
            advice = f"set ${scheme}_proxy to http://HOST:PORT, or unset it"
            return Finding(MACHINE, "proxies", FAILED, error.reason, advice)
        if way.proxy is not None:
            user = " with a user" if way.proxy.authorization else ""
            said.append(f"{scheme} by {host_port(way.proxy.host, way.proxy.port)}{user}")
    if said and options.no_proxy:
        said.append(f"none for {options.no_proxy}")
    return Finding(MACHINE, "proxies", OK, "; ".join(said) or "none")


def _credentials(client: Client, host: str) -> Iterator[Finding]:
    from ocidist.remotes.registry.credentials import CredentialStore

    source = client.credentials
    if not isinstance(source, CredentialStore):
        yield Finding(MACHINE, "credentials", OK, "as given for this call")
        return
    good = True
    named = []
    for path, hosts in source.files():
        if isinstance(hosts, CredentialError):
            good = False
            yield Finding(MACHINE, "credentials", FAILED, str(hosts), "repair that file, or move it away")
        else:
            named.append(f"{path}: {', '.join(hosts) or 'none'}")
    if not good:
        return
    if not host:
        yield Finding(MACHINE, "credentials", OK, "; ".join(named) or "none are kept")
        return
    try:
        where = source.where(host)
    except CredentialError as error:
        yield Finding(MACHINE, "credentials", FAILED, str(error), f"log in again: ocidist login {host}")
    else:
        yield Finding(MACHINE, "credentials", OK, f"{host}: {where or 'none; it is asked anonymously'}")


def _mirrors(client: Client, host: str) -> Iterator[Finding]:
    from ocidist.remotes.registry.hosts import read_hosts

    if client.offline:
        yield Finding(MACHINE, "mirrors", SKIPPED, "answers come from a cassette")
        return
    folders = [folder for folder in client.hosts_dirs if folder.is_dir()]
    try:
        hosts = [host] if host else sorted({at.name for folder in folders for at in folder.iterdir()})
        said: list[str] = []
        odd: list[str] = []
        for name in hosts:
            endpoints = read_hosts(name, folders, odd.append)
            if endpoints:
                said.append(f"{name}: {', then '.join(at.host or 'the registry' for at in endpoints)}")
    except (OcidistError, OSError) as error:
        yield Finding(
            MACHINE,
            "mirrors",
            FAILED,
            str(error),
            "repair that file; docs/hosts.md of containerd explains it",
        )
    else:
        where = ", ".join(map(str, folders))
        yield Finding(MACHINE, "mirrors", OK, "; ".join(said) or (f"none in {where}" if where else "none"))
        for line in odd:
            yield Finding(MACHINE, "mirrors", NOTE, line)


def _extras() -> Iterator[Finding]:
    from ocidist.layers.compression.inflate import zstd_program

    for what, modules, without, package in _EXTRAS:
        found = next((name for name in modules if _importable(name)), "")
        if not found and what == "zstd":
            found = zstd_program() or ""
        if found:
            yield Finding(MACHINE, what, OK, found)
        else:
            yield Finding(MACHINE, what, NOTE, without, f"pip install {package}")


def _importable(name: str) -> bool:
    """Found by its path alone: ``find_spec`` would run the parent of a dotted name."""
    path: Sequence[str] | None = None
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:length]), path)
        if found is None:
            return False
        path = found.submodule_search_locations or ()
    return True
