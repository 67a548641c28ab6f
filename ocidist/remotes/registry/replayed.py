"""Stand-ins for the credentials that a recording was made with: a replay reads no real ones, and runs no helper."""

from __future__ import annotations

from typing import Iterable, Sequence

from ocidist.net.exchange import Exchange
from ocidist.redaction import PLACEHOLDER
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.challenge import parse_challenges
from ocidist.remotes.registry.credentials import Credential
from ocidist.scope import Scope

__all__ = ["ReplayedCredentials"]


class ReplayedCredentials:
    """A CredentialSource: of what kind the recorded credentials for a host were, with ``scrubbed`` for each secret."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges

    def get(
        self, host: str, repository: str = "", *, scheme: str = "https", scope: Scope | None = None
    ) -> Credential | None:
        """A user's if the recording shows one at the registry or its token server; None: it was anonymous."""
        registry = wire.endpoint_host(host).lower()
        here = [e for e in self._exchanges if registry in map(_host, (e.url, e.meant))]
        realms = set(_realms(here))
        there = [e for e in self._exchanges if e.url.partition("?")[0] in realms]
        kinds = set(map(_kind, (*here, *there)))
        if "refresh" in kinds:
            return Credential(identity_token=PLACEHOLDER)
        return Credential(PLACEHOLDER, PLACEHOLDER) if "user" in kinds else None


def _host(url: str) -> str:
    return wire.host_of(url).lower()


def _realms(exchanges: Iterable[Exchange]) -> Iterable[str]:
    for exchange in exchanges:
        values = [value for name, value in exchange.headers if name.lower() == "www-authenticate"]
        for challenge in parse_challenges(values):
            yield challenge.realm.partition("?")[0]


def _kind(exchange: Exchange) -> str:
    """How a request showed who asks."""
    fields = (exchange.request_body.data or b"").decode("latin-1").split("&")
    if exchange.method == "POST" and "grant_type=refresh_token" in fields:
        return "refresh"
    asked = (exchange.asked("authorization") or "").lower()
    posted = exchange.method == "POST" and "grant_type=password" in fields
    return "user" if posted or asked.startswith("basic ") else ""
