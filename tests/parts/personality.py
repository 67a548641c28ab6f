"""A registry with a personality on loopback, under a test CA: all of its hosts are one server, told apart by ``Host``."""

from __future__ import annotations

from ocidist.server.personalities.facts import Personality
from ocidist.server.records import Record
from ocidist.server.registry import Registry, RegistryServer
from tests.parts import secrets
from tests.parts.ca import CertificateAuthority
from tests.parts.faulty import stored
from tests.parts.images import TestImage
from tests.parts.names import OnlyThese


class PersonalityServer(RegistryServer):
    """``like`` with one image, ``tags`` names for it, and ``repositories`` in its catalog."""

    def __init__(
        self,
        like: Personality,
        image: TestImage,
        ca: CertificateAuthority,
        *,
        tags: tuple[str, ...] = ("1",),
        hosts: tuple[str, ...] = (),
        repositories: tuple[str, ...] = (),
        allowance: int = 1 << 30,
    ) -> None:
        self.holds = Registry(
            like,
            stored(image),
            dict.fromkeys(tags, image.digest),
            repositories=repositories,
            allowance=allowance,
            make_secret=secrets.make,
        )
        super().__init__(self.holds, tls=ca.server_context((*like.hosts, *hosts)))
        self.is_like, self.image = like, image
        self.user, self.secret = self.holds.user, self.holds.secret

    @property
    def connect_to(self) -> OnlyThese:
        """Where the registry's hosts are, and that there are no others."""
        return OnlyThese({f"{host}:443": self.port for host in self.is_like.hosts})

    def at(self, host: str) -> list[Record]:
        """What was asked of one of the hosts."""
        return self.select(lambda record: record.header("Host") == host)
