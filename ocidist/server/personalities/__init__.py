"""Ten public registries as their documentation describes them, as data."""

from __future__ import annotations

from ocidist.server.personalities import (
    acr,
    artifactory,
    docker_hub,
    ecr,
    ghcr,
    gitlab,
    google,
    harbor,
    mcr,
    quay,
)
from ocidist.server.personalities.facts import Personality

ALL: tuple[Personality, ...] = tuple(
    module.PERSONALITY
    for module in (docker_hub, ghcr, quay, ecr, google, acr, mcr, harbor, artifactory, gitlab)
)
