"""Settings: the only reader of the environment and of home folders.

``Settings.load()`` reads them once; everything else gets values. An empty variable counts as unset, and so does
a relative path in an XDG variable (XDG base directory specification, "Environment variables").
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
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
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Scheme (or ``all``) -> proxy URL, as ``urllib.request.getproxies_environment`` reads them."""
    no_proxy: str = ""
    """Hosts that are reached without a proxy, comma-separated."""
    ca_file: Path | None = None
    """``$SSL_CERT_FILE``."""
    platform: str | None = None
    """``$OCIDIST_PLATFORM``: what ``--platform`` defaults to; None is linux on the host's architecture."""
    no_color: bool = False
    """``$NO_COLOR`` is set (no-color.org)."""
    term: str = ""
    """``$TERM``; ``dumb`` can't move its cursor."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, home: str | Path | None = None) -> Settings:
        """From ``environ`` (default: the process's) and ``home`` (default: ``$HOME``, else the password
        database). Reads no file, creates nothing."""
        env = os.environ if environ is None else environ
        folder = Path(home) if home is not None else _home(env)
        docker = Path(env.get("DOCKER_CONFIG") or folder / ".docker") / "config.json"
        proxies, no_proxy = _proxies(env)
        ca_file = env.get("SSL_CERT_FILE")
        return cls(
            root=_root(env, folder),
            docker_config=docker,
            auth_files=_auth_files(env, folder, docker),
            replay=env.get("OCIDIST_REPLAY") or None,
            timeout=env.get("CONTAINERD_FETCH_TIMEOUT") or None,
            namespace=env.get("CONTAINERD_NAMESPACE") or "default",
            editor=env.get("EDITOR") or env.get("VISUAL") or None,
            proxies=proxies,
            no_proxy=no_proxy,
            ca_file=Path(ca_file) if ca_file else None,
            platform=env.get("OCIDIST_PLATFORM") or None,
            no_color=bool(env.get("NO_COLOR")),
            term=env.get("TERM", ""),
        )


def _home(env: Mapping[str, str]) -> Path:
    if env.get("HOME"):
        return Path(env["HOME"])
    try:
        import pwd

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, AttributeError, KeyError):
        # No password database (Pyodide, Windows), or a user id that is not in it (a container's random one).
        found = os.path.expanduser("~")
        return Path(found if found != "~" else "/")


def _xdg(env: Mapping[str, str], name: str, default: Path | None) -> Path | None:
    value = env.get(name)
    return Path(value) if value and os.path.isabs(value) else default


def _root(env: Mapping[str, str], home: Path) -> Path:
    if env.get("OCIDIST_ROOT"):
        return Path(env["OCIDIST_ROOT"])
    if _user_id() == 0:
        return Path("/var/lib/ocidist")
    data = _xdg(env, "XDG_DATA_HOME", home / ".local" / "share")
    assert data is not None
    return data / "ocidist"


def _user_id() -> int:
    geteuid = getattr(os, "geteuid", None)
    return geteuid() if geteuid is not None else -1


def _auth_files(env: Mapping[str, str], home: Path, docker: Path) -> tuple[Path, ...]:
    # containers-auth.json(5), "FORMAT"; without a runtime folder podman uses one under /run/containers.
    runtime = _xdg(env, "XDG_RUNTIME_DIR", None)
    own = Path(f"/run/containers/{max(_user_id(), 0)}") if runtime is None else runtime / "containers"
    files = [Path(env["REGISTRY_AUTH_FILE"])] if env.get("REGISTRY_AUTH_FILE") else []
    config = _xdg(env, "XDG_CONFIG_HOME", home / ".config")
    assert config is not None
    files += [own / "auth.json", config / "containers" / "auth.json", docker]
    return tuple(dict.fromkeys(files))


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
