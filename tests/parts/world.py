"""The world that cassettes are recorded in: three hosts by their real names, all of them on loopback.

``https://registry.example`` is Debian's registry, ``https://auth.example/token`` signs its tokens, and blob reads
are redirected to ``https://blobs.example`` with a signed URL. A client reaches them by ``connect_to`` and ``ca_file``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ocidist.server.tokens import Policy
from tests.parts.ca import CertificateAuthority
from tests.parts.registry import BlobHost, RegistryProcess
from tests.parts.secrets import PASSWORD, USER
from tests.parts.tokens import TokenServer

REGISTRY, AUTH, BLOBS = "registry.example", "auth.example", "blobs.example"


class ExampleWorld:
    """Runs while it is entered. ``public/…`` may be pulled by anyone; all else needs :attr:`user`."""

    def __init__(
        self,
        folder: Path,
        *,
        ca: CertificateAuthority | None = None,
        redirect: bool = True,
        anonymous: tuple[str, ...] = ("public/*",),
        algorithm: str = "ES256",
    ) -> None:
        self.folder = folder
        self.ca = ca or CertificateAuthority(folder / "ca")
        self.user, self.password = USER, PASSWORD
        self.policy = Policy(users={USER: PASSWORD}, anonymous=anonymous)
        self.tokens = TokenServer(
            folder / "tokens",
            tls=self.ca.server_context([AUTH]),
            policy=self.policy,
            algorithm=algorithm,
            realm=f"https://{AUTH}/token",
            service=REGISTRY,
        )
        storage = folder / "registry/storage"
        self.blobs = BlobHost(storage, tls=self.ca.server_context([BLOBS]), public=f"https://{BLOBS}")
        self.registry = RegistryProcess(
            folder / "registry",
            auth="token",
            tokens=self.tokens,
            tls=self.ca,
            names=[REGISTRY],
            public=f"https://{REGISTRY}",
            blobs=self.blobs if redirect else None,
            storage=storage,
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ExampleWorld:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.tokens)
            stack.enter_context(self.blobs)
            stack.enter_context(self.registry)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def ca_file(self) -> Path:
        """The certificate to trust."""
        return self.ca.file

    @property
    def connect_to(self) -> dict[str, tuple[str, int]]:
        """``host:port`` -> where to connect instead, as ``HTTPOptions.connect_to`` takes it."""
        return {
            f"{REGISTRY}:443": ("127.0.0.1", self.registry.port),
            f"{AUTH}:443": ("127.0.0.1", self.tokens.port),
            f"{BLOBS}:443": ("127.0.0.1", self.blobs.port),
        }

    @property
    def refresh_token(self) -> str:
        """A new identity token for :attr:`user`."""
        return self.tokens.refresh_token(self.user)

    @property
    def curl_options(self) -> list[str]:
        """What makes curl live in this world."""
        mapped = [
            word
            for name, (ip, port) in self.connect_to.items()
            for word in ("--connect-to", f"{name}:{ip}:{port}")
        ]
        return ["--cacert", str(self.ca_file), *mapped]

    def forget(self) -> None:
        """Start counting anew, at every host."""
        for server in (self.registry.front, self.tokens, self.blobs):
            server.forget()
