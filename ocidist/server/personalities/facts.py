"""The manners of a registry as data: facts, each with the document that states it.

:class:`ocidist.server.registry.Registry` acts by the values. ``differs`` is what another source says of the same
thing; :meth:`Personality.instead` gives the registry that acts by that one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Iterator, Mapping, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value, the document and section that give it, and what another source says, if one differs."""

    value: T
    source: str
    differs: Fact[T] | None = None


@dataclass(frozen=True)
class Refusal:
    """A refusing answer: its status, its body, and its challenge, if it has one."""

    status: int
    body: bytes
    challenge: str = ""


TOKEN_SPEC = (
    "distribution project, Token Authentication Specification, How to authenticate: "
    "https://distribution.github.io/distribution/spec/auth/token/"
)
API_SPEC = "distribution project, HTTP API V2: https://distribution.github.io/distribution/spec/api/"
OCI_SPEC = (
    "OCI distribution specification 1.1, Content Discovery: "
    "https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#content-discovery"
)
UNAUTHORIZED = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}'


@dataclass(frozen=True)
class Personality:
    """One registry. Texts may hold ``{host}``, ``{scope}``, ``{repository}``, ``{hex}``, ``{key}``, ``{path}``, ``{n}``,
    ``{last}``."""

    name: str
    reference: str
    """The reference that a user types."""
    host: Fact[str]
    """The host of the API."""
    repository: Fact[str]
    """The repository that the reference means there."""
    challenge: Fact[str]
    """``WWW-Authenticate`` of a request about a repository; empty: everything is open."""
    catalog_challenge: Fact[str]
    """The same of ``/v2/_catalog``."""
    user: Fact[str]
    """The user name that goes with the secret; empty: any."""
    anonymous: Fact[bool]
    """Whether public repositories are pulled without credentials."""
    storage: Fact[str]
    """Where a blob is redirected to, signed with ``{key}``; empty: it is sent by the registry itself."""
    link: Fact[str]
    """``Link`` of a page of tags; empty: all tags come at once."""
    catalog: Fact[Refusal | None]
    """How ``/v2/_catalog`` is refused to an ordinary user; None: it is answered."""
    challenge_again: Fact[str] | None = None
    """``WWW-Authenticate`` of a request that had an ``Authorization``, where it is another one."""
    redirect: Fact[int] = Fact(307, API_SPEC + " (Pulling a Layer)")
    page: Fact[int] = Fact(100, API_SPEC + " (Listing Image Tags, Pagination: the server may limit n)")
    catalog_link: Fact[str] | None = None
    """Where the catalog's pages are linked otherwise than those of tags."""
    too_many: Fact[Refusal] | None = None
    """The answer to a page size over ``page``; None: a smaller page."""
    grants: Fact[tuple[str, ...]] = Fact(("get",), TOKEN_SPEC)
    """How a token may be asked for: ``get``, or an OAuth2 grant type by POST."""
    answers: Fact[tuple[str, ...]] = Fact(("token",), TOKEN_SPEC)
    """Under which names the token comes."""
    expires_in: Fact[int | None] = Fact(None, TOKEN_SPEC + " (optional; 60 seconds if it is missing)")
    scopes: Fact[str] = Fact("", TOKEN_SPEC)
    """A pattern that every scope asked for must match, or the token server answers 400."""
    unauthorized: Fact[bytes] = Fact(UNAUTHORIZED, API_SPEC + " (Errors)")
    limits: Fact[Mapping[str, str]] = Fact({}, "no such headers are documented")
    """Headers of manifests that tell of a limit."""
    counts: Fact[tuple[str, ...]] = Fact((), "no limit on pulls is documented")
    """The methods by which a manifest counts as pulled."""
    storage_head: Fact[int] = Fact(200, API_SPEC + " (Existing Layers)")
    """What the storage answers to HEAD with the URL that was signed for GET."""
    cookies: Fact[tuple[str, ...]] = Fact((), "no cookies are documented")
    exchange: Fact[str] | None = None
    """Where a token of the cloud becomes a refresh token of the registry."""

    def facts(self) -> Iterator[tuple[str, Fact[Any]]]:
        """Yield every fact, after the name of its field."""
        for one in fields(self):
            value = getattr(self, one.name)
            while isinstance(value, Fact):
                yield one.name, value
                value = value.differs

    def instead(self, about: str) -> Personality:
        """Return the same registry as the other source of the field ``about`` describes it."""
        other = getattr(self, about).differs
        assert other is not None, f"{self.name}: the sources agree about {about}"
        return replace(self, **{about: other})

    @property
    def realm(self) -> str:
        """Return the URL of the token server; empty if it has none."""
        return self.challenge.value.partition('realm="')[2].partition('"')[0].format(host=self.host.value)

    @property
    def basic(self) -> bool:
        """Tell whether credentials go to the registry itself, with each request."""
        return self.challenge.value.startswith("Basic")

    @property
    def token_host(self) -> str:
        """Return the host of the token server; empty if it has none."""
        return "" if self.basic else urlsplit(self.realm).netloc

    @property
    def storage_host(self) -> str:
        """Return the host that blobs are redirected to; the registry itself if the URL is a path."""
        return urlsplit(self.storage.value).netloc or self.host.value

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return all hosts of the registry."""
        return tuple(dict.fromkeys(filter(None, (self.host.value, self.token_host, self.storage_host))))
