"""Credentials: values, and the stores that Docker and podman keep them in.

Sources: Docker's ``config.json`` (``auths``, ``credHelpers``, ``credsStore``), containers-auth.json(5)
(keys may be ``host/path``), and the credential-helper protocol (``docker-credential-NAME get``, a server on
stdin, JSON on stdout). Paths come as arguments; neither the environment nor a home folder is read here.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Iterator, Mapping, Protocol, Sequence

from ocidist.errors import CredentialError
from ocidist.files import open_regular, replacing
from ocidist.frozen import dataclass
from ocidist.remotes.registry import helper
from ocidist.scope import Scope
from ocidist.spec import document

__all__ = ["Credential", "CredentialSource", "CredentialStore", "NoCredentials", "StaticCredentials"]

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls Docker Hub in its files and towards helpers."""
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_FILE_LIMIT = 4 << 20
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?(?:/[A-Za-z0-9._/-]*)?\Z")
_TOKEN_USER = "<token>"  # what helpers answer as user name where the secret is an identity token


@dataclass(frozen=True)
class Credential:
    """A user name and password, or an identity (refresh) token, or a ready registry (bearer) token.

    ``origin`` tells a person where it comes from.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    origin: str = field(default="given for this call", compare=False)

    @property
    def described(self) -> str:
        """Where it comes from and whose it is, for a person: ``given with -u (user bob)``."""
        return f"{self.origin} (user {self.username})" if self.username else self.origin

    @property
    def basic(self) -> str:
        """The value of a Basic ``Authorization`` header, empty where there is no password."""
        if not self.password:
            return ""
        return "Basic " + self.encoded

    @property
    def encoded(self) -> str:
        """``user:password`` in base64, as headers and files have it. Raises CredentialError."""
        try:
            joined = f"{self.username}:{self.password}".encode()
        except UnicodeEncodeError:
            # Without the cause, which shows the text.
            raise CredentialError("this call", "the user name or password is not valid UTF-8") from None
        return base64.b64encode(joined).decode("ascii")

    def __bool__(self) -> bool:
        return bool(self.password or self.identity_token or self.registry_token)


class CredentialSource(Protocol):
    """Where a session asks. None is anonymous. Raises CredentialError."""

    def get(
        self, host: str, repository: str = "", *, scheme: str = "https", scope: Scope | None = None
    ) -> Credential | None: ...


class NoCredentials:
    """Everyone is anonymous."""

    def get(
        self, host: str, repository: str = "", *, scheme: str = "https", scope: Scope | None = None
    ) -> Credential | None:
        """None."""
        return None


class StaticCredentials:
    """Credentials given for this run (``-u``, ``--refresh``): one for every host that asks, or one per host."""

    def __init__(self, given: Credential | Mapping[str, Credential]) -> None:
        self._any = given if isinstance(given, Credential) else None
        hosts = {} if isinstance(given, Credential) else given
        self._hosts = {_plain(host, "https"): credential for host, credential in hosts.items()}

    def get(
        self, host: str, repository: str = "", *, scheme: str = "https", scope: Scope | None = None
    ) -> Credential | None:
        """The credential that is meant for ``host``."""
        return self._hosts.get(_plain(host, "https"), self._any)

    def __repr__(self) -> str:
        return f"StaticCredentials({'every host' if self._any else sorted(self._hosts)})"


def _plain(host: str, scheme: str) -> str:
    """``host[:port]`` in lowercase, without the scheme's own port; Docker Hub by one name."""
    name = host.strip().lower()
    default = ":80" if scheme == "http" else ":443"
    if name.endswith(default):
        name = name[: -len(default)]
    return "docker.io" if name in _HUB_NAMES else name


def _key_parts(key: str) -> tuple[str, str, str]:
    """``(scheme or "", host, path)`` of a key in ``auths``; a registry API version is no path."""
    scheme = ""
    rest = key.strip()
    for candidate in ("https", "http"):
        if rest.lower().startswith(candidate + "://"):
            scheme, rest = candidate, rest[len(candidate) + 3 :]
    host, _, path = rest.partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):
        path = ""
    return scheme, host, path


class CredentialStore:
    """Credentials in Docker's and podman's files: looked for in ``paths`` in order, written to ``write_path``.

    A key matches by whole host, port and (where it names one) scheme, never by a suffix; of keys with a
    repository path the longest that holds the repository wins. Files are read at each call: they are
    small, and a login elsewhere is seen.
    """

    def __init__(self, paths: Sequence[Path], write_path: Path | None = None) -> None:
        self._paths = tuple(paths)
        self._write = write_path if write_path is not None else (self._paths[0] if self._paths else None)

    def __repr__(self) -> str:
        return f"CredentialStore({[str(path) for path in self._paths]})"

    def get(
        self, host: str, repository: str = "", *, scheme: str = "https", scope: Scope | None = None
    ) -> Credential | None:
        """The credential for ``host`` (and ``repository``), None if there is none. Raises CredentialError."""
        for path in self._paths:
            data = _read(path)
            if data is None:
                continue
            found = self._from_helpers(path, data, host, scheme, scope) or _from_auths(
                path, data, host, repository, scheme
            )
            if found:
                return replace(found, origin=f"of {self.where(host, repository, scheme=scheme) or path}")
        return None

    def where(self, host: str, repository: str = "", *, scheme: str = "https") -> str:
        """Which file and key would be used for ``host``, for a person; empty if none. Runs no helper."""
        for path in self._paths:
            data = _read(path) or {}
            name = _helper_for(path, data, host, scheme)
            if name:
                return f"{path}, helper docker-credential-{name}"
            for key, _ in _matching(path, data, host, repository, scheme):
                return f"{path}, auths[{_shown(key)!r}]"
        return ""

    def files(self) -> Iterator[tuple[Path, tuple[str, ...] | CredentialError]]:
        """Each file that is there, with the hosts and helpers that it names (no secret), or why it can't be used."""
        for path in self._paths:
            try:
                data = _read(path)
            except CredentialError as error:
                yield path, error
                continue
            if data is None:
                continue
            helpers = data.get("credHelpers")
            keys = [key for key, entry in data["auths"].items() if entry]
            named = [_shown(key) for key in (*keys, *(helpers if isinstance(helpers, dict) else ()))]
            if data.get("credsStore"):
                named.append(f"all others by docker-credential-{data['credsStore']}")
            yield path, tuple(named)

    @staticmethod
    def _from_helpers(
        path: Path, data: Mapping[str, Any], host: str, scheme: str, scope: Scope | None
    ) -> Credential | None:
        name = _helper_for(path, data, host, scheme)
        if not name:
            return None
        answer = helper.get(name, _server_name(host), scope)
        if answer is None:
            return None
        username, secret = answer
        if username == _TOKEN_USER:
            return Credential(identity_token=secret)
        return Credential(username, secret)

    # -- login and logout --

    def put(self, host: str, credential: Credential, scope: Scope | None = None) -> str:
        """Keep a credential for ``host``; returns where it went. Through the helper if one is configured."""
        path, data = self._writable()
        key = _server_name(host)
        name = _helper_for(path, data, host, "https")
        if name:
            user = _TOKEN_USER if credential.identity_token else credential.username
            helper.store(name, key, user, credential.identity_token or credential.password, scope)
            entry: dict[str, str] = {}
        else:
            entry = {"auth": credential.encoded}
            if credential.identity_token:
                entry["identitytoken"] = credential.identity_token
        auths = data.setdefault("auths", {})
        for stale in [old for old in auths if old != key and _is_whole_host(old, host)]:
            del auths[stale]
        auths[key] = entry
        _write(path, data)
        return f"helper docker-credential-{name}" if name else str(path)

    def delete(self, host: str, scope: Scope | None = None) -> bool:
        """Forget ``host``'s credential; False if there was none."""
        path, data = self._writable()
        name = _helper_for(path, data, host, "https")
        erased = helper.erase(name, _server_name(host), scope) if name else False
        auths = data.get("auths", {})
        gone = [key for key in auths if _is_whole_host(key, host)]
        for key in gone:
            del auths[key]
        if gone:
            _write(path, data)
        return bool(gone) or erased

    def _writable(self) -> tuple[Path, dict[str, Any]]:
        if self._write is None:
            raise CredentialError("nowhere", "no file to keep credentials in is configured")
        # Through a link: the file that it points at is replaced, not the link.
        path = Path(os.path.realpath(self._write))
        return path, _read(path) or {}


def _server_name(host: str) -> str:
    plain = _plain(host, "https")
    return HUB_KEY if plain == "docker.io" else plain


def _shown(key: str) -> str:
    """A key of a credential file as it may be shown: without the user and password that somebody wrote into it."""
    scheme, slashes, rest = key.rpartition("://")
    host = rest.rpartition("@")[2]
    if _HOST.match(host) is None:
        return "an entry that names no host"
    return f"{scheme}{slashes}{host}" if scheme in ("", "http", "https") else host


def _is_whole_host(key: str, host: str) -> bool:
    _, named, path = _key_parts(key)
    return _plain(named, "https") == _plain(host, "https") and not path


def _helper_for(path: Path, data: Mapping[str, Any], host: str, scheme: str) -> str:
    helpers = data.get("credHelpers")
    if isinstance(helpers, dict):
        for key, name in helpers.items():
            named_scheme, named, inside = _key_parts(key)
            same = _plain(named, scheme) == _plain(host, scheme)
            if same and not inside and named_scheme in ("", scheme):
                return helper.checked_name(name, str(path))
    name = data.get("credsStore")
    return helper.checked_name(name, str(path)) if name else ""


def _matching(
    path: Path, data: Mapping[str, Any], host: str, repository: str, scheme: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The entries of ``auths`` for a host and repository, the most particular first."""
    wanted = _plain(host, scheme)
    found = []
    for key, entry in data.get("auths", {}).items():
        named_scheme, named, inside = _key_parts(key)
        if _plain(named, scheme) != wanted or named_scheme not in ("", scheme):
            continue
        if inside and repository != inside and not repository.startswith(inside + "/"):
            continue
        if not isinstance(entry, dict):
            raise CredentialError(str(path), f"auths[{_shown(key)!r}] is no object")
        found.append((len(inside), key, entry))
    for _, key, entry in sorted(found, key=lambda item: -item[0]):
        yield key, entry


def _from_auths(
    path: Path, data: Mapping[str, Any], host: str, repository: str, scheme: str
) -> Credential | None:
    for key, entry in _matching(path, data, host, repository, scheme):
        credential = _entry(f"{path}, auths[{_shown(key)!r}]", entry)
        if credential:
            return credential
    return None


def _entry(where: str, entry: Mapping[str, Any]) -> Credential:
    fields = {}
    for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(name) or ""
        if not isinstance(value, str):
            raise CredentialError(where, f"{name} is no string")
        fields[name] = value
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            wrapped = fields["auth"].translate(
                {10: None, 13: None}
            )  # as the program base64 writes, and Go reads
            decoded = base64.b64decode(wrapped, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            # The cause is dropped: its traceback would show the text, which is the secret.
            raise CredentialError(where, "auth is not base64 of user:password") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise CredentialError(where, "auth is not base64 of user:password")
        password = password.rstrip("\0")
    return Credential(username, password, fields["identitytoken"], fields["registrytoken"])


# -- the files --------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any] | None:
    if str(path) == os.devnull:  # how podman's users say that there are none
        return None
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CredentialError(str(path), f"can't be read: {error.strerror or error}") from error
    if len(raw) > _FILE_LIMIT:
        raise CredentialError(str(path), "is over 4 MiB")
    if not raw.strip():
        return {}
    try:
        document.check_depth(raw, "credentials")
        data = json.loads(raw)
    except (ValueError, RecursionError):
        raise CredentialError(str(path), "is not JSON; it was left as it is") from None
    if isinstance(data, dict) and data.get("auths") is None:
        data["auths"] = {}
    if not isinstance(data, dict) or not isinstance(data["auths"], dict):
        raise CredentialError(str(path), "is not a Docker configuration; it was left as it is")
    return data


def _write(path: Path, data: Mapping[str, Any]) -> None:
    """Replace the file in one step, readable by its owner alone."""
    text = json.dumps(data, indent="\t", ensure_ascii=False)
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair somewhere, which stays the escape that it was
        raw = json.dumps(data, indent="\t").encode("ascii")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path, 0o600, durable=True) as file:
            file.write(raw + b"\n")
    except OSError as error:
        raise CredentialError(str(path), f"can't be written: {error.strerror or error}") from error
