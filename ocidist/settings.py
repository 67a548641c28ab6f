"""Settings: the only reader of the environment and of home folders.

``Settings.load()`` reads them once; everything else gets values. An empty variable counts as unset, and so does
a relative path in an XDG variable (XDG base directory specification, "Environment variables").
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Mapping, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Settings", "find_program", "store_root", "time_limit"]


class Settings(NamedTuple):
    """What the environment says. ``proxies`` may hold passwords, so it is not in the repr."""

    root: Path
    """``$OCIDIST_ROOT``, else /var/lib/ocidist for root, else ``$XDG_DATA_HOME/ocidist``."""
    docker_config: Path
    """The config.json that ``login`` writes: in ``$DOCKER_CONFIG``, else ~/.docker."""
    auth_files: tuple[Path, ...]
    """Credential files in the order to look: podman's, then Docker's; they may not exist."""
    replay: str | None = None
    """``$OCIDIST_REPLAY``: a cassette, so that no socket is opened."""
    timeout: str | None = None
    """``$CONTAINERD_FETCH_TIMEOUT``, as written (a duration)."""
    namespace: str = "default"
    """``$CONTAINERD_NAMESPACE``."""
    editor: str | None = None
    """``$EDITOR``, else ``$VISUAL``: a command line."""
    proxies: Mapping[str, str] = {}
    """Scheme (or ``all``) -> proxy URL, as ``urllib.request.getproxies_environment`` reads them."""
    no_proxy: str = ""
    """Hosts that are reached without a proxy, comma-separated."""
    ca_file: Path | None = None
    """``$SSL_CERT_FILE``."""
    hosts_dirs: tuple[Path, ...] = ()
    """Folders of ``HOST/hosts.toml``: ``$OCIDIST_HOSTS_DIR``, else containerd's and Docker's; they may not exist."""
    platform: str | None = None
    """``$OCIDIST_PLATFORM``: what ``--platform`` defaults to; None is linux on the host's architecture."""
    no_color: bool = False
    """``$NO_COLOR`` is set (no-color.org)."""
    term: str = ""
    """``$TERM``; ``dumb`` can't move its cursor."""
    source_date_epoch: str | None = None
    """``$SOURCE_DATE_EPOCH``, as written: seconds since the epoch that no time in a made layer is later than."""

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self._asdict().items() if name != "proxies")
        return f"Settings({', '.join(shown)})"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, home: str | Path | None = None) -> Settings:
        """From ``environ`` (default: the process's) and ``home`` (default: ``$HOME``, else the password
        database). Reads no file, creates nothing."""
        from pathlib import Path

        env = os.environ if environ is None else environ
        folder = Path(_home(env) if home is None else home)
        docker = Path(env.get("DOCKER_CONFIG") or folder / ".docker") / "config.json"
        proxies, no_proxy = _proxies(env)
        ca_file = env.get("SSL_CERT_FILE")
        return cls(
            root=Path(store_root(env, folder)),
            docker_config=docker,
            auth_files=_auth_files(env, folder, docker),
            replay=env.get("OCIDIST_REPLAY") or None,
            timeout=time_limit(env),
            namespace=env.get("CONTAINERD_NAMESPACE") or "default",
            editor=env.get("EDITOR") or env.get("VISUAL") or None,
            proxies=proxies,
            no_proxy=no_proxy,
            ca_file=Path(ca_file) if ca_file else None,
            hosts_dirs=_hosts_dirs(env),
            platform=env.get("OCIDIST_PLATFORM") or None,
            no_color=bool(env.get("NO_COLOR")),
            term=env.get("TERM", ""),
            source_date_epoch=env.get("SOURCE_DATE_EPOCH") or None,
        )


def store_root(environ: Mapping[str, str] | None = None, home: str | Path | None = None) -> str:
    """What ``Settings.load(environ, home).root`` is, for those who need nothing else: it loads no pathlib."""
    env = os.environ if environ is None else environ
    if env.get("OCIDIST_ROOT"):
        return env["OCIDIST_ROOT"]
    if _user_id() == 0:
        return "/var/lib/ocidist"
    folder = _home(env) if home is None else os.fspath(home)
    data = _xdg(env, "XDG_DATA_HOME") or os.path.join(folder, ".local", "share")
    return os.path.join(data, "ocidist")


def find_program(name: str) -> str | None:
    """The absolute path of a program in a directory of ``$PATH``; None if there is none.

    Empty and relative entries, which stand for the working directory, are passed over: that may be an image's tree.
    """
    import shutil

    path = os.pathsep.join(filter(os.path.isabs, os.get_exec_path()))
    if not path:
        return None
    # One that can't be run is found too, if there is no other: trying says why.
    found = shutil.which(name, path=path) or shutil.which(name, os.F_OK, path)
    return found if found is not None and os.path.isabs(found) else None  # Windows looks at its own directory


def time_limit(environ: Mapping[str, str] | None = None) -> str | None:
    """What ``Settings.load(environ).timeout`` is, as :func:`store_root` is its root."""
    return (os.environ if environ is None else environ).get("CONTAINERD_FETCH_TIMEOUT") or None


def _home(env: Mapping[str, str]) -> str:
    if env.get("HOME"):
        return env["HOME"]
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, AttributeError, KeyError):
        # No password database (Pyodide, Windows), or a user id that is not in it (a container's random one).
        found = os.path.expanduser("~")
        return found if found != "~" else "/"


def _xdg(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    return value if value and os.path.isabs(value) else None


def _user_id() -> int:
    geteuid = getattr(os, "geteuid", None)
    return geteuid() if geteuid is not None else -1


def _auth_files(env: Mapping[str, str], home: Path, docker: Path) -> tuple[Path, ...]:
    # containers-auth.json(5), "FORMAT"; without a runtime folder podman uses one under /run/containers.
    from pathlib import Path

    runtime = _xdg(env, "XDG_RUNTIME_DIR")
    own = Path(runtime, "containers") if runtime else Path(f"/run/containers/{max(_user_id(), 0)}")
    files = [Path(env["REGISTRY_AUTH_FILE"])] if env.get("REGISTRY_AUTH_FILE") else []
    config = Path(_xdg(env, "XDG_CONFIG_HOME") or home / ".config")
    files += [own / "auth.json", config / "containers" / "auth.json", docker]
    return tuple(dict.fromkeys(files))


def _hosts_dirs(env: Mapping[str, str]) -> tuple[Path, ...]:
    from pathlib import Path

    named = env.get("OCIDIST_HOSTS_DIR")
    return (Path(named),) if named else (Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))


def _proxies(env: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """``SCHEME_proxy`` variables; lowercase wins over uppercase, also when it is empty.

    The same answers as ``urllib.request.getproxies_environment`` (a test compares), which would import
    http.client, ssl and sockets for a loop over a mapping.
    """
    found: dict[str, str] = {}
    for name, value in env.items():
        if name.lower().endswith("_proxy") and value:
            found[name.lower()[:-6]] = value
    if "REQUEST_METHOD" in env:  # in CGI, a client's "Proxy:" header becomes HTTP_PROXY (httpoxy)
        found.pop("http", None)
    for name, value in env.items():
        if name.endswith("_proxy"):
            if value:
                found[name.lower()[:-6]] = value
            else:
                found.pop(name.lower()[:-6], None)
    return found, found.pop("no", "")
