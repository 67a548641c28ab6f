"""Where the hosts of a registry are configured on this machine: folders as containerd and Docker keep them.

``FOLDER/HOST/hosts.toml``, or without one Docker's certificate files in that folder: ``*.crt`` are authorities,
``*.cert`` with ``*.key`` this client's. A port is written ``HOST_PORT_`` or ``HOST:PORT``; ``_default`` is for every
registry that has no folder.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Callable, Iterable, Sequence

from ocidist.errors import UsageError, quoted
from ocidist.files import open_regular
from ocidist.remotes.registry.hosts_toml import Endpoint, parse_hosts

__all__ = ["HOSTS_FILE", "folder_of", "read_hosts"]

HOSTS_FILE = "hosts.toml"
_LIMIT = 1 << 20


def folder_of(host: str, folders: Iterable[Path]) -> Path | None:
    """The folder that says who answers for the registry ``host``; None if none does."""
    name, colon, port = host.rpartition(":")
    names = [f"{name}_{port}_", host, "_default"] if colon and not host.endswith("]") else [host, "_default"]
    for folder in folders:
        for candidate in names:
            found = folder / candidate
            try:
                if found.is_dir():
                    return found
            except OSError as error:
                raise UsageError(f"{found}: {error.strerror}") from None
    return None


@lru_cache(maxsize=256)
def log(line: str) -> None:
    """Warn of what is odd in a file, once in the life of the process."""
    import logging

    logging.getLogger("ocidist.hosts").warning("%s", line)


def read_hosts(
    host: str, folders: Sequence[Path], note: Callable[[str], object] = log
) -> tuple[Endpoint, ...]:
    """Who answers for ``host``, in the order to ask; () where nothing is said. The last is the registry's own.

    ``note`` gets a line for each key that is ignored. Raises UsageError where what is said can't be read.
    """
    folder = folder_of(host, folders)
    if folder is None:
        return ()
    path = folder / HOSTS_FILE
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read(_LIMIT + 1)
        if len(raw) > _LIMIT:
            raise UsageError(f"{path}: longer than {_LIMIT} bytes")
        if not raw:  # to containerd an empty file is none
            return _certificates(folder)
        return parse_hosts(raw.decode("utf-8"), path, note)
    except FileNotFoundError:
        return _certificates(folder)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8") from None


def _certificates(folder: Path) -> tuple[Endpoint, ...]:
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from None
    pairs: list[tuple[Path, Path | None]] = []
    for path in files:
        if path.suffix == ".cert":
            key = path.with_suffix(".key")
            if key not in files:
                raise UsageError(f"{path}: its key {quoted(key.name)} is missing")
            pairs.append((path, key))
    own = replace(Endpoint(), ca=tuple(path for path in files if path.suffix == ".crt"), client=tuple(pairs))
    return (own,) if own != Endpoint() else ()
