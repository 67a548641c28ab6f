"""All that lies in a content directory, whole or not."""

from __future__ import annotations

import os
import re
import stat
from typing import Iterator

from ocidist.content.disk import failure
from ocidist.content.protocols import Survey
from ocidist.errors import InvalidDigest, StoreError
from ocidist.spec.digest import ALGORITHMS, Digest

__all__ = ["survey"]


def survey(root: str) -> Survey:
    """Blobs and strays in the content directory ``root``. Raises StoreError where a folder can't be read."""
    found: dict[Digest, int] = {}
    strays: list[str] = []
    unseen: list[str] = []
    for algorithm, _ in _listed(os.path.join(root, "blobs")):
        folder = os.path.join(root, "blobs", algorithm)
        if algorithm not in ALGORITHMS or not os.path.isdir(folder):
            strays.append(os.path.join("blobs", algorithm))
            continue
        for name, info in _listed(folder):
            try:
                found[Digest(f"{algorithm}:{name}")] = info.st_size if stat.S_ISREG(info.st_mode) else 0
            except InvalidDigest:
                strays.append(os.path.join("blobs", algorithm, name))
    try:
        for name, info in _listed(os.path.join(root, "ingest")):
            if not re.match(r"[0-9a-f]{64}\Z", name) or not stat.S_ISDIR(info.st_mode):
                strays.append(os.path.join("ingest", name))
    except StoreError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        unseen.append(str(error))
    return Survey(found, tuple(strays), tuple(unseen))


def _listed(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Names and what they are, sorted; what vanishes meanwhile is passed over."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise failure(folder, error) from error
    for name in names:
        try:
            yield name, os.stat(os.path.join(folder, name), follow_symlinks=False)
        except FileNotFoundError:
            continue
