"""``hosts.toml``: which hosts stand for a registry, as containerd reads the file. Text to values, no I/O.

Source: containerd, docs/hosts.md and core/remotes/docker/config/hosts.go.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping
from urllib.parse import urlsplit

from ocidist.errors import UsageError, quoted
from ocidist.frozen import dataclass
from ocidist.net.framing import Malformed, check_field

__all__ = ["CAPABILITIES", "Endpoint", "parse_hosts"]

CAPABILITIES = frozenset({"pull", "resolve", "push", "referrers"})
_FIELDS = frozenset(
    {"capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout", "proxy"}
)
_DURATION = re.compile(
    r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)"
)  # time.ParseDuration of Go
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 86400.0  # seconds; longer ones are no limit to anybody
_BOOLEANS = ("skip_verify", "override_path")


@dataclass(frozen=True)
class Endpoint:
    """A host that answers for a registry. ``url`` is ``SCHEME://HOST/PATH``, the path in place of ``/v2``.

    A ``url`` of "" is the registry itself, wherever that is. ``ca`` and ``client`` are files in PEM form; of a
    client's certificate and key the key may be in the certificate's file. ``header`` is sent along to this host.
    ``dial_timeout`` is in seconds, None where the file has none; ``proxy`` takes the place of the environment's.
    """

    url: str = ""
    capabilities: frozenset[str] = CAPABILITIES
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    skip_verify: bool = False
    header: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold secrets
    dial_timeout: float | None = None
    proxy: str = field(default="", repr=False)  # may hold a password

    @property
    def scheme(self) -> str:
        """``http``, ``https``, or "" for the registry itself."""
        return self.url.partition("://")[0]

    @property
    def host(self) -> str:
        """``HOST[:PORT]``."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def path(self) -> str:
        """What takes the place of ``/v2``, without a slash at its end."""
        if not self.url:
            return "/v2"
        slash, path = self.url.partition("://")[2].partition("/")[1:]
        return (slash + path).rstrip("/")


def parse_hosts(
    text: str, path: Path, note: Callable[[str], object] = lambda line: None
) -> tuple[Endpoint, ...]:
    """The endpoints of a ``hosts.toml`` in the order to ask them; the last one is the server.

    ``path`` is the file's, which relative names in it start from. ``note`` gets a line for each key that is not known here,
    which is ignored, as by containerd. Raises UsageError, naming file and key, or on Python 3.10 what to install.
    """
    try:
        document = _toml(path).loads(text)
    except ValueError as error:  # TOMLDecodeError is one
        raise UsageError(f"{path}: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    hosts = document.pop("host", {})
    server = document.pop("server", "")
    if not isinstance(hosts, dict):
        raise UsageError(f'{path}: host is not a table; write [host."https://mirror.example"]')
    if not isinstance(server, str):
        raise UsageError(f"{path}: server is not a string")
    return (
        *(
            _endpoint(path, f'host."{quoted(_shown(url))[1:-1]}"', url, table, note)
            for url, table in hosts.items()
        ),
        _endpoint(path, "", server, document, note),
    )


def _toml(path: Path) -> Any:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli
        except ImportError:
            raise UsageError(
                f"{path}: reading it takes Python 3.11 or later, or the package tomli: pip install tomli"
            ) from None
        return tomli
    return tomllib


def _endpoint(path: Path, where: str, url: str, table: Any, note: Callable[[str], object]) -> Endpoint:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {where} is not a table")
    prefix = f"{where}." if where else ""
    for key in table:
        if key not in _FIELDS:
            note(
                f"{path}: the unknown key {quoted(prefix + key)} is ignored; there are {', '.join(sorted(_FIELDS))}"
            )
    for key in _BOOLEANS:
        if not isinstance(table.get(key, False), bool):
            raise UsageError(f"{path}: {prefix}{key} is neither true nor false")
    return Endpoint(
        _address(path, where or "server", url, table.get("override_path", False)),
        _capabilities(path, prefix, table.get("capabilities")),
        tuple(path.parent / name for name in _texts(path, f"{prefix}ca", table.get("ca", []))),
        tuple(_clients(path, f"{prefix}client", table.get("client", []))),
        table.get("skip_verify", False),
        tuple(_headers(path, f"{prefix}header", table.get("header", {}))),
        _duration(path, f"{prefix}dial_timeout", table.get("dial_timeout", "")),
        _proxy(path, f"{prefix}proxy", table.get("proxy", "")),
    )


def _duration(path: Path, where: str, value: Any) -> float | None:
    """Seconds; as in containerd 0 is no limit of its own."""
    text = value.removeprefix("+") if isinstance(value, str) else "?"
    parts = _DURATION.findall(text)
    if "".join(parts) != text.removesuffix("0" if text == "0" else ""):
        raise UsageError(f"{path}: {where} is not a duration; write 500ms, 10s or 1m30s")
    seconds = sum(float(part.rstrip("nuµμmsh")) * _SECONDS[part.lstrip("0123456789.")] for part in parts)
    return min(seconds, _LONGEST) or None


def _proxy(path: Path, where: str, value: Any) -> str:
    try:
        parts = urlsplit(value if isinstance(value, str) else "?")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if value and (not host or parts.path not in ("", "/") or parts.query or parts.fragment):
        raise UsageError(f"{path}: {where} is not the URL of a proxy; write http://HOST:PORT")
    if value and parts.scheme != "http":
        raise UsageError(
            f"{path}: {where}: proxies of kind {quoted(parts.scheme)} are not supported, only http://"
        )
    return str(value)


def _address(path: Path, where: str, url: str, override: bool) -> str:
    if not url:
        return ""
    full = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(full)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    plain = re.fullmatch(r"[\x21-\x7e]+", full)  # it goes into a request's line as it is
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or not plain:
        raise UsageError(f"{path}: {where}: {quoted(_shown(url))} is not an http(s) URL of a host")
    clean = posixpath.normpath(parts.path).lstrip("/") if parts.path else ""
    clean = "" if clean == "." else clean
    if not override and clean != "v2" and not clean.endswith("/v2"):
        clean = f"{clean}/v2" if clean else "v2"
    return f"{parts.scheme}://{parts.netloc.lower()}/{clean}"


def _shown(url: str) -> str:
    """Without a password that somebody put into it."""
    return re.sub(r"[^/]*@", "***@", url)


def _capabilities(path: Path, prefix: str, given: Any) -> frozenset[str]:
    if given is None:
        return CAPABILITIES
    found = frozenset(name.lower() for name in _texts(path, f"{prefix}capabilities", given))
    if not found <= CAPABILITIES:
        wrong = quoted(sorted(found - CAPABILITIES)[0])
        raise UsageError(f"{path}: unknown capability {wrong}; there are pull, resolve, push, referrers")
    return found or CAPABILITIES


def _texts(path: Path, where: str, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) and item for item in values):
        raise UsageError(f"{path}: {where} is neither text nor a list of texts")
    return values


def _clients(path: Path, where: str, value: Any) -> Iterator[tuple[Path, Path | None]]:
    """A file with both, a list of such, or a list of pairs of certificate and key."""
    for item in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
        pair = [item] if isinstance(item, str) else item
        if (
            not isinstance(pair, list)
            or len(pair) not in (1, 2)
            or not all(isinstance(name, str) for name in pair)
            or not pair[0]
        ):
            raise UsageError(f"{path}: {where} is neither a file nor a list of [certificate, key]")
        yield path.parent / pair[0], path.parent / pair[1] if len(pair) == 2 and pair[1] else None


def _headers(path: Path, where: str, value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{path}: {where} is not a table")
    for name, said in value.items():
        for text in _texts(path, f"{where}.{quoted(name)[1:-1]}", said):
            try:
                check_field(name, text)
            except Malformed as error:  # it shows no value
                raise UsageError(f"{path}: {where}: {error}") from None
            yield name, text
