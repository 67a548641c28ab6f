"""The demo image, made deterministically: small, for two platforms, with something of everything worth looking at.

os-release, users, a dpkg database, symlinks and a hardlink, a file written twice, a package cache that a later
layer empties (an opaque directory), a secret that one layer adds and the next deletes (a whiteout), labels, and
a history with Dockerfile lines, empty layers among them. The layers of the application are the same for both platforms.

All content is made up here; nothing of it runs. Config digests do not depend on the machine; layer digests depend
on its zlib.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.parts.images import CREATED, Blob, Entry, TestImage, image, index, sha256, to_json

NAME, TAG, DOCKER_TAG = "demo/shop", "1.0", "1.0-docker"
SECRET = b"SHOP_API_KEY=demo-0000-this-was-deleted-one-layer-later\n"
SECRET_PATH = "srv/shop/.env"
LABELS = {
    "org.opencontainers.image.title": "shop",
    "org.opencontainers.image.description": "A small shop that sells nothing: the demo image of ocidist",
    "org.opencontainers.image.version": "1.0",
    "org.opencontainers.image.licenses": "Apache-2.0",
    "org.opencontainers.image.authors": "The ocidist maintainers",
}
PLATFORMS = {"linux/amd64": ("amd64", "x86_64-linux-gnu"), "linux/arm64": ("arm64", "aarch64-linux-gnu")}

OS_RELEASE = """\
PRETTY_NAME="Demo Linux 1 (pocket)"
NAME="Demo Linux"
VERSION_ID="1"
VERSION="1 (pocket)"
VERSION_CODENAME=pocket
ID=demo
ID_LIKE=debian
HOME_URL="https://registry.example/demo"
"""
USERS = (
    ("root", 0, 0, "root", "/root", "/bin/sh"),
    ("daemon", 1, 1, "daemon", "/usr/sbin", "/usr/sbin/nologin"),
    ("www-data", 33, 33, "www-data", "/var/www", "/usr/sbin/nologin"),
    ("nobody", 65534, 65534, "nobody", "/nonexistent", "/usr/sbin/nologin"),
)
SHOP = ("shop", 1000, 1000, "The shop", "/srv/shop", "/bin/sh")
MOTD = "Welcome to Demo Linux. Nothing here runs; everything here can be looked at.\n"
HELLO = "hello: a static text where a program would be ({architecture})\n"


@dataclass(frozen=True)
class Package:
    """A package as dpkg's database has it. ``files`` are paths and contents."""

    name: str
    version: str
    summary: str
    depends: str = ""
    section: str = "admin"
    priority: str = "optional"
    anywhere: bool = False  # Architecture: all
    files: dict[str, str] = field(default_factory=dict)

    def status(self, architecture: str) -> str:
        """The paragraph in /var/lib/dpkg/status."""
        size = max(1, sum(map(len, self.files.values())) // 1024)
        lines = [
            f"Package: {self.name}",
            "Status: install ok installed",
            f"Priority: {self.priority}",
            f"Section: {self.section}",
            f"Installed-Size: {size}",
            "Maintainer: The ocidist maintainers <demo@registry.example>",
            f"Architecture: {'all' if self.anywhere else architecture}",
            f"Version: {self.version}",
            *([f"Depends: {self.depends}"] if self.depends else []),
            f"Description: {self.summary}",
        ]
        return "\n".join(lines) + "\n\n"


def library(name: str, triplet: str, lines: int = 40) -> dict[str, str]:
    """A text in a library's place."""
    body = "".join(
        f"{name} line {number:03d}: no code, only a text of some length\n" for number in range(lines)
    )
    return {f"usr/lib/{triplet}/{name}": body}


def base_packages(triplet: str) -> list[Package]:
    """What the base layer has installed."""
    return [
        Package("base-files", "1.0", "base system files of Demo Linux", priority="required"),
        Package("base-passwd", "1.0", "base users and groups", priority="required"),
        Package("dash", "0.5.12-2", "POSIX-compliant shell, or its name at least", "libc6 (>= 2.36)", "shells",
                "required", files={"usr/bin/dash": "#!/bin/false\n"}),
        Package("libc6", "2.36-9+demo1", "a C library's name", section="libs", priority="required",
                files=library("libc.so.6", triplet)),
        Package("zlib1g", "1:1.2.13.dfsg-1", "compression library, in name", "libc6 (>= 2.14)", "libs",
                "required", files=library("libz.so.1.2.13", triplet, 12)),
        Package("tzdata", "2024a-0+demo1", "time zones, one of them", section="localization", anywhere=True,
                files={"usr/share/zoneinfo/UTC": "UTC0\n"}),
        Package("hello", "2.10-3", "the classic greeting, as a text", "libc6 (>= 2.34)", "devel"),
    ]  # fmt: skip


def added_packages(triplet: str) -> list[Package]:
    """What ``apt-get install`` adds."""
    return [
        Package("ca-certificates", "20230311", "certificates, none in fact", anywhere=True, section="misc",
                files={"usr/share/ca-certificates/README": "No certificate is here.\n"}),
        Package("libsqlite3-0", "3.40.1-2", "SQLite's shared library, in name", "libc6 (>= 2.33)", "libs",
                files=library("libsqlite3.so.0.8.6", triplet, 60)),
        Package("python3-minimal", "3.11.2-1+b1", "a minimal interpreter's name", "libc6, zlib1g", "python",
                files={"usr/bin/python3.11": "#!/bin/false\n" + "# no interpreter\n" * 80}),
    ]  # fmt: skip


class Tree:
    """Entries of one layer; parents come before what is in them, once."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._folders: set[str] = set()

    def folder(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """A directory, and root's directories on the way to it."""
        parts = path.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            if name not in self._folders:
                self._folders.add(name)
                own = (mode, uid, gid) if end == len(parts) else (0o755, 0, 0)
                self.entries.append(Entry(name + "/", mode=own[0], uid=own[1], gid=own[2]))

    def add(self, path: str, content: str | bytes = b"", **options: Any) -> None:
        """A file or a link."""
        if "/" in path:
            self.folder(path.rpartition("/")[0])
        raw = content.encode() if isinstance(content, str) else content
        self.entries.append(Entry(path, raw, **options))

    def packages(self, known: list[Package], new: list[Package], architecture: str) -> None:
        """The files of ``new``, and the database with all."""
        for package in new:
            for path, content in package.files.items():
                self.add(path, content, mode=0o755 if "/bin/" in path else 0o644)
            listing = "".join(f"/{path}\n" for path in ("", *sorted(package.files)))
            self.add(f"var/lib/dpkg/info/{package.name}.list", listing)
            sums = "".join(f"{sha256(c.encode())[7:39]}  {p}\n" for p, c in sorted(package.files.items()))
            self.add(f"var/lib/dpkg/info/{package.name}.md5sums", sums)
        status = "".join(
            package.status(architecture) for package in sorted(known + new, key=lambda p: p.name)
        )
        self.add("var/lib/dpkg/status", status)


def passwd(*users: tuple[str, int, int, str, str, str]) -> str:
    """/etc/passwd."""
    return "".join(f"{n}:x:{uid}:{gid}:{text}:{home}:{shell}\n" for n, uid, gid, text, home, shell in users)


def group(*users: tuple[str, int, int, str, str, str]) -> str:
    """/etc/group."""
    return "".join(f"{name}:x:{gid}:\n" for name, _, gid, *_ in users)


def base_layer(architecture: str, triplet: str) -> list[Entry]:
    """The operating system."""
    tree = Tree()
    for path in ("boot", "etc", "home", "proc", "srv", "sys", "usr/bin", "usr/sbin", "var/log"):
        tree.folder(path)
    tree.folder("root", 0o700)
    tree.folder("tmp", 0o1777)
    tree.folder("var/tmp", 0o1777)
    for name in ("bin", "lib", "sbin"):
        tree.add(name, link=f"usr/{name}")
    tree.add("usr/lib/os-release", OS_RELEASE)
    tree.add("etc/os-release", link="../usr/lib/os-release")
    tree.add("etc/debian_version", "12.0\n")
    tree.add("etc/hostname", "demo\n")
    tree.add("etc/motd", MOTD)
    tree.add("etc/passwd", passwd(*USERS))
    tree.add("etc/group", group(*USERS))
    tree.add("etc/shadow", "".join(f"{user[0]}:*:19675:0:99999:7:::\n" for user in USERS), mode=0o640, gid=42)
    tree.add("etc/localtime", link="/usr/share/zoneinfo/UTC")
    tree.packages([], base_packages(triplet), architecture)
    tree.add("usr/bin/sh", link="dash")
    tree.add("usr/bin/hello", HELLO.format(architecture=architecture), mode=0o755)
    tree.add(f"usr/lib/{triplet}/libz.so.1", link="libz.so.1.2.13")
    tree.add("var/run", link="/run")
    tree.folder("run")
    return tree.entries


def packages_layer(architecture: str, triplet: str) -> list[Entry]:
    """``apt-get install`` that leaves its cache behind."""
    tree = Tree()
    tree.packages(base_packages(triplet), added_packages(triplet), architecture)
    tree.add("usr/bin/python3", link="python3.11")
    tree.add("usr/bin/python3-config", hard="usr/bin/python3.11")
    for package in added_packages(triplet):
        content = "".join(sha256(f"{package.name} {n}".encode()) for n in range(60))
        tree.add(f"var/cache/apt/archives/{package.name}_{architecture}.deb", content)
    tree.folder("var/cache/apt/archives/partial", 0o700, 42)
    tree.add("var/log/apt/history.log", "Commandline: apt-get install -y ca-certificates python3-minimal\n")
    return tree.entries


def user_layer() -> list[Entry]:
    """``useradd``: files of the base written again."""
    tree = Tree()
    tree.add("etc/passwd", passwd(*USERS, SHOP))
    tree.add("etc/group", group(*USERS, SHOP))
    tree.folder("srv/shop", 0o750, 1000, 1000)
    return tree.entries


APP = '''\
"""A shop that sells nothing."""

from http.server import HTTPServer, SimpleHTTPRequestHandler

if __name__ == "__main__":
    HTTPServer(("", 8000), SimpleHTTPRequestHandler).serve_forever()
'''


def app_layer() -> list[Entry]:
    """``COPY . /srv/shop``: what was wanted, and the secret that came along."""
    tree = Tree()
    own: dict[str, Any] = {"uid": 1000, "gid": 1000}
    tree.folder("srv/shop", 0o750, 1000, 1000)
    tree.add("srv/shop/app.py", APP, **own)
    tree.add("srv/shop/config.toml", '[shop]\nname = "shop"\nport = 8000\n', **own)
    tree.add("srv/shop/README.md", "# shop\n\nSells nothing, since 2023. ☂\n", **own)
    tree.add(SECRET_PATH, SECRET, mode=0o600, **own)
    for number in range(1, 4):
        tree.add(f"srv/shop/static/page-{number}.html", f"<h1>Page {number}</h1>\n" * 6, **own)
    tree.add("srv/shop/static/Käse & Brot.txt", "names need not be ASCII\n", **own)
    tree.add("srv/shop/current", link="app.py", **own)
    return tree.entries


def cleanup_layer() -> list[Entry]:
    """``rm``: a whiteout for the secret, an opaque directory over the package cache."""
    tree = Tree()
    tree.folder("srv/shop", 0o750, 1000, 1000)
    tree.add("srv/shop/.wh..env")
    tree.folder("var/cache/apt/archives")
    tree.add("var/cache/apt/archives/.wh..wh..opq")
    tree.add("var/cache/apt/archives/lock", mode=0o640)
    return tree.entries


def build_layer() -> list[Entry]:
    """A build that replaces the static files as a whole."""
    tree = Tree()
    tree.folder("srv/shop", 0o750, 1000, 1000)
    tree.folder("srv/shop/static", 0o755, 1000, 1000)
    tree.add("srv/shop/static/.wh..wh..opq")
    tree.add("srv/shop/static/index.html", "<!doctype html>\n<title>shop</title>\n<h1>Nothing today</h1>\n",
             uid=1000, gid=1000)  # fmt: skip
    tree.add("srv/shop/static/style.css", "h1 { color: teal }\n", uid=1000, gid=1000)
    tree.add("etc/motd", MOTD + "The shop is open.\n")
    return tree.entries


HISTORY = (
    ("/bin/sh -c #(nop) ADD file:base.tar in / ", False),
    ('/bin/sh -c #(nop)  CMD ["sh"]', True),
    ("RUN /bin/sh -c apt-get update && apt-get install -y ca-certificates python3-minimal # buildkit", False),
    ("RUN /bin/sh -c useradd --home-dir /srv/shop --create-home shop # buildkit", False),
    ("WORKDIR /srv/shop", True),
    ("ENV SHOP_PORT=8000 LANG=C.UTF-8", True),
    ("COPY --chown=shop:shop . /srv/shop # buildkit", False),
    ("RUN /bin/sh -c rm -rf .env /var/cache/apt/archives/* # buildkit", False),
    ("RUN /bin/sh -c make static # buildkit", False),
    (f"LABEL {' '.join(f'{k}={json.dumps(v)}' for k, v in LABELS.items())}", True),
    ("EXPOSE map[8000/tcp:{}]", True),
    ("VOLUME [/var/lib/shop]", True),
    ("USER shop", True),
    ('ENTRYPOINT ["python3" "app.py"]', True),
    ('CMD ["--port" "8000"]', True),
)
RUN = {
    "User": "shop",
    "ExposedPorts": {"8000/tcp": {}},
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "SHOP_PORT=8000", "LANG=C.UTF-8"],
    "Entrypoint": ["python3", "app.py"],
    "Cmd": ["--port", "8000"],
    "Volumes": {"/var/lib/shop": {}},
    "WorkingDir": "/srv/shop",
    "Labels": LABELS,
    "StopSignal": "SIGTERM",
}


def demo_image(platform: str) -> TestImage:
    """The image of one platform: six layers."""
    architecture, triplet = PLATFORMS[platform]
    history = [
        {
            "created": CREATED,
            "created_by": line,
            **({"comment": "buildkit.dockerfile.v0"} if number > 1 else {}),
            **({"empty_layer": True} if empty else {}),
        }
        for number, (line, empty) in enumerate(HISTORY)
    ]
    layers = [
        base_layer(architecture, triplet),
        packages_layer(architecture, triplet),
        user_layer(),
        app_layer(),
        cleanup_layer(),
        build_layer(),
    ]
    return image(
        layers,
        platform=platform,
        run=RUN,
        history=history,
        annotations={"org.opencontainers.image.base.name": "registry.example/demo/base:1"},
    )


def demo_index() -> TestImage:
    """What ``registry.example/demo/shop:1.0`` is."""
    return index(
        [demo_image(platform) for platform in PLATFORMS],
        annotations={"org.opencontainers.image.source": "https://registry.example/demo/shop"},
    )


def docker_image() -> TestImage:
    """The amd64 image as Docker's schema 2 has it: the same blobs under other media types."""
    made = demo_image("linux/amd64")
    config, *layers = made.blobs
    kinds = (
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
    blobs = (Blob(config.raw, kinds[0]), *(Blob(layer.raw, kinds[1]) for layer in layers))
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": blobs[0].descriptor(),
        "layers": [layer.descriptor() for layer in blobs[1:]],
    }
    return TestImage(Blob(to_json(document), str(document["mediaType"])), blobs)
