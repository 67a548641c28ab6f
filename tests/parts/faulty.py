"""A registry on loopback that misbehaves as a script says: its API, its token server and its storage, a port each."""

from __future__ import annotations

from contextlib import ExitStack

from ocidist.server.faults import parse_faults
from ocidist.server.personalities.facts import Fact, Personality
from ocidist.server.registry import Registry, RegistryServer, Stored
from ocidist.server.script import Script
from tests.parts import secrets, watched
from tests.parts.images import TestImage

REPOSITORY = "demo/shop"


def stored(*images: TestImage) -> dict[str, Stored]:
    """The content of images, by digest."""
    return {
        digest: Stored(blob.media_type, blob.raw)
        for image in images
        for digest, blob in image.everything().items()
    }


class FaultyRegistry(Registry):
    """``images`` by tag, behind tokens if ``tokens``; blob reads are redirected to another port if ``redirect``.

    ``base`` takes the place of ``/v2`` in its paths.
    """

    def __init__(
        self,
        images: dict[str, TestImage],
        faults: str = "",
        *,
        tokens: bool = False,
        redirect: bool = False,
        base: str = "/v2",
    ) -> None:
        self.registry = self._server()
        self.storage = self._server() if redirect else None
        self.tokens = self._server() if tokens else None
        challenge = storage = ""
        if self.tokens is not None:
            challenge = f'Bearer realm="{self.tokens.url}/token",service="faulty",scope="{{scope}}"'
        if self.storage is not None:
            storage = f"{self.storage.url}/sha256:{{hex}}?X-Signature={{key}}"
            self.storage.observer = watched.look_at_request
        ours = "what these tests need"
        like = Personality(
            name="faulty",
            reference=self.name,
            host=Fact(self.registry.address, ours),
            repository=Fact(REPOSITORY, ours),
            challenge=Fact(challenge, ours),
            catalog_challenge=Fact(challenge, ours),
            user=Fact("", ours),
            anonymous=Fact(True, ours),
            grants=Fact(("get", "password", "refresh_token"), ours),
            expires_in=Fact(300, ours),
            storage=Fact(storage, ours),
            link=Fact("", ours),
            catalog=Fact(None, ours),
        )
        tags = {tag: made.digest for tag, made in images.items()}
        super().__init__(
            like,
            stored(*images.values()),
            tags,
            base=base,
            script=Script(parse_faults(faults)),
            secret="",
            make_secret=secrets.make,
        )
        self._stack = ExitStack()

    def _server(self) -> RegistryServer:
        server = RegistryServer(self)
        server.name = server.address
        return server

    def __enter__(self) -> FaultyRegistry:
        for server in (self.registry, self.storage, self.tokens):
            if server is not None:
                self._stack.enter_context(server)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def name(self) -> str:
        """What the repository is called by its clients."""
        return f"{self.registry.address}/{REPOSITORY}"
