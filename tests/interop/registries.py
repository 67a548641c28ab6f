"""Registries of every kind that a pull must cope with, and what skopeo makes of the same image."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from tests.interop.conftest import ALICE, PASSWORD
from tests.parts.images import TestImage, push_with_skopeo, write_layout
from tests.parts.required import program, require

if TYPE_CHECKING:
    from tests.parts.ca import CertificateAuthority
    from tests.parts.registry import BlobHost, RegistryProcess
    from tests.parts.tokens import TokenServer

AUTHS = ("none", "htpasswd", "token-anonymous", "token-get", "token-post", "token-identity")
REPOSITORY, TAG = "team/app", "1"


@dataclass
class Place:
    """A running registry that holds an image as ``REPOSITORY:TAG``, and how a client gets in."""

    registry: RegistryProcess
    image: TestImage
    ca: CertificateAuthority | None = None
    tokens: TokenServer | None = None
    blobs: BlobHost | None = None
    options: list[str] = field(default_factory=list)
    credentials: tuple[str, str] | None = None
    identity: str | None = None
    oauth_alone: bool = False

    @property
    def remote(self) -> str:
        """``127.0.0.1:PORT/team/app``."""
        return f"{self.registry.address}/{REPOSITORY}"

    @property
    def ref(self) -> str:
        """With the tag."""
        return f"{self.remote}:{TAG}"

    def forget(self) -> None:
        """Start counting anew, at every host."""
        for server in (self.registry.front, self.tokens, self.blobs):
            if server is not None:
                server.forget()

    def requests(self) -> list[tuple[str, str, int]]:
        """(method, path, status) of what the registry was asked, in the order of the ends."""
        return [(r.method, r.path, r.status) for r in self.registry.front.records]

    def skopeo(self, layout: Path, *more: str) -> dict[str, bytes]:
        """Digest -> content of what ``skopeo copy`` of the image writes into an OCI layout."""
        require("skopeo")
        command = [program("skopeo"), "--insecure-policy", "--override-arch=amd64", "copy", "--quiet", *more]
        address = self.registry.address
        if self.oauth_alone:  # skopeo gives up at a token server that answers GET with 405
            address, options = self.registry.loader.address, ["--src-tls-verify=false"]
        else:
            options = [f"--src-tls-verify={str(self.ca is not None).lower()}"]
            if self.ca is not None:
                options += ["--src-cert-dir", str(self.ca.certs_dir)]
            if self.registry.auth != "none":
                options += ["--src-creds", f"{ALICE}:{PASSWORD}"]
        done = subprocess.run(
            [*command, *options, f"docker://{address}/{REPOSITORY}:{TAG}", f"oci:{layout}:{TAG}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return blobs_in(layout)


def blobs_in(folder: Path) -> dict[str, bytes]:
    """Digest -> content of every blob under ``folder/blobs``: a layout, or the content of a store."""
    return {
        f"{path.parent.name}:{path.name}": path.read_bytes()
        for path in (folder / "blobs").glob("*/*")
        if path.is_file()
    }


@contextlib.contextmanager
def place(
    folder: Path,
    made: TestImage,
    *,
    auth: str = "none",
    tls: CertificateAuthority | None = None,
    redirect: bool = False,
) -> Iterator[Place]:
    """A :class:`Place` with one of :data:`AUTHS`, loaded by skopeo; the records are empty."""
    require("docker-registry", "skopeo")
    from tests.parts.registry import RegistryProcess, redirecting_registry

    with contextlib.ExitStack() as stack:
        context = tls.server_context() if tls else None
        options: dict[str, object] = {"auth": auth.partition("-")[0], "tls": tls}
        tokens = blobs = None
        if auth == "htpasswd":
            require("htpasswd")
            options["users"] = {ALICE: PASSWORD}
        if auth.startswith("token"):
            tokens = options["tokens"] = stack.enter_context(_tokens(folder / "tokens", auth, context))
        if redirect:
            registry, blobs = stack.enter_context(redirecting_registry(folder / "r", **options))  # type: ignore[arg-type]
        else:
            registry = stack.enter_context(RegistryProcess(folder / "r", **options))  # type: ignore[arg-type]
        push_with_skopeo(write_layout(folder / "made", {TAG: made}), registry.loader.address, REPOSITORY, TAG)
        found = Place(registry, made, tls, tokens, blobs, oauth_alone=auth == "token-post")
        if tls is not None:
            found.options += ["--ca-cert", str(tls.file)]
        if auth in ("htpasswd", "token-get", "token-post"):
            found.credentials = (ALICE, PASSWORD)
            found.options += ["-u", f"{ALICE}:{PASSWORD}"]
        if auth == "token-identity":
            assert tokens is not None
            found.identity = tokens.refresh_token(ALICE)
            found.options += ["--refresh", found.identity]
        yield found


@contextlib.contextmanager
def _tokens(folder: Path, auth: str, context: object) -> Iterator[TokenServer]:
    require("module:cryptography")
    from ocidist.server.tokens import Policy
    from tests.parts.tokens import TokenServer

    policy = Policy(users={ALICE: PASSWORD})
    if auth == "token-anonymous":
        policy.anonymous = ("team/*",)
    with TokenServer(folder, tls=context, policy=policy) as server:  # type: ignore[arg-type]
        if auth == "token-post":  # a server that speaks OAuth2 alone
            server.answer("/token", 405, {"Allow": "POST"}, times=None)
        yield server
