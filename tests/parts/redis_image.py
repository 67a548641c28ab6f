"""redis-server from Debian's packages as an image: what the packages' own files are, and an account to run as."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

from tests.parts.images import EPOCH, Entry, image, write_layout
from tests.parts.realimages import cached
from tests.parts.required import lacking, program, require

UID, GID, STAFF = 999, 998, 50

# Of the packages and all that they depend on: redis, the libraries, and what loads them.
_NEEDED = re.compile(
    r"(usr/bin/redis-.*|etc/redis(/.*)?|(usr/)?lib(64)?(/x86_64-linux-gnu(/[^/]+)?)?|lib64/.*)\Z"
)

ACCOUNTS = [
    Entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/data:/usr/sbin/nologin\n"),
    Entry("etc/group", b"root:x:0:\nstaff:x:50:redis\nredis:x:998:\n"),
    Entry("data/", mode=0o750, uid=UID, gid=GID),
    *(Entry(f"{name}/") for name in ("dev", "proc", "sys", "tmp")),
]

RUN = {
    "Entrypoint": ["redis-server"],
    "Cmd": ["--bind", "127.0.0.1", "--dir", "/data"],
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "REDIS_LANG=C"],
    "User": "redis",
    "WorkingDir": "/data",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"6379/tcp": {}},
    "StopSignal": "SIGTERM",
    "Labels": {"org.opencontainers.image.title": "redis", "maintainer": "the tests"},
}


def redis_layout() -> Path:
    """A layout (tag ``latest``) of two layers: Debian's files, and the account and its folder. Built once."""
    require("mmdebstrap", "root")
    return cached("redis", _build)


def _build(layout: Path) -> None:
    archive = layout / "debian.tar"
    _download(archive)
    layer = _some_of(archive)
    archive.unlink()
    write_layout(layout, {"latest": image([layer, ACCOUNTS], run=RUN)})


def _download(target: Path) -> None:
    # Nothing is installed: no maintainer script runs, so no account is made and no daemon started.
    command = [program("mmdebstrap"), "--quiet", "--variant=extract", "--include=redis-server"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    said = ""
    for _ in range(2):  # a mirror may stumble once
        done = subprocess.run(
            [*command, "bookworm", str(target)], env=environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode == 0:
            return
        said = done.stderr
    lacking("mmdebstrap could not get redis-server: " + said.strip()[-300:])


def _some_of(archive: Path) -> bytes:
    target = io.BytesIO()
    with tarfile.open(archive) as source, tarfile.open(fileobj=target, mode="w") as some:
        for member in source:
            member.name = member.name.removeprefix("./")
            if _NEEDED.match(member.name):
                some.addfile(member, source.extractfile(member) if member.isreg() else None)
    return target.getvalue()
