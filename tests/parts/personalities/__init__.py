"""Registries as their documentation has them: ten of them, on loopback, by their own names."""

from __future__ import annotations

from tests.parts.personalities import (
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
from tests.parts.personalities.facts import Personality

ALL: tuple[Personality, ...] = tuple(
    module.PERSONALITY
    for module in (docker_hub, ghcr, quay, ecr, google, acr, mcr, harbor, artifactory, gitlab)
)
