"""Quay: strict about scopes, and two ways to go on to the next page."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality

AUTH = "quay/quay, endpoints/v2/v2auth.py: https://github.com/quay/quay/blob/master/endpoints/v2/v2auth.py"
PAGES = (
    "quay/quay, endpoints/v2/__init__.py: https://github.com/quay/quay/blob/master/endpoints/v2/__init__.py"
)
BASIC = "quay/mirror-registry issue 71: https://github.com/quay/mirror-registry/issues/71"

PERSONALITY = Personality(
    name="Quay",
    reference="quay.io/keycloak/keycloak:1",
    host=Fact("quay.io", BASIC),
    repository=Fact("keycloak/keycloak", PAGES),
    challenge=Fact('Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="{scope}"', PAGES),
    catalog_challenge=Fact('Bearer realm="https://quay.io/v2/auth",service="quay.io"', PAGES),
    user=Fact(
        "keycloak+puller",
        "Red Hat Quay documentation, Use Red Hat Quay, Robot accounts: "
        "https://docs.redhat.com/en/documentation/red_hat_quay/3.13/html/use_red_hat_quay/",
    ),
    anonymous=Fact(True, AUTH),
    scopes=Fact(
        r"repository:([.a-zA-Z0-9_-]+/)*[.a-zA-Z0-9_-]+:(push|pull|\*)(,(push|pull|\*))*",
        AUTH + " (another scope, registry:catalog:* too, is answered 400)",
    ),
    storage=Fact(
        "https://cdn01.quay.io/sha256/{hex}?Expires=1&Signature={key}&Key-Pair-Id=1",
        "Red Hat Knowledgebase 6999582, Firewall changes for container image pulls (cdn01.quay.io): "
        "https://access.redhat.com/articles/6999582",
    ),
    redirect=Fact(302, "a redirect of Flask, 302 unless it is told otherwise: " + PAGES),
    link=Fact(
        '<https://{host}{path}?n={n}&last={last}>; rel="next"',
        PAGES,
        differs=Fact(
            '<https://{host}{path}?next_page={last}&n={n}>; rel="next"',
            "before 2024: deitch/docker_registry2 issue 56: https://github.com/deitch/docker_registry2/issues/56",
            differs=Fact(
                '<{path}?n={n}&last={last}>; rel="next"',
                "deitch/docker_registry2 issue 106: https://github.com/deitch/docker_registry2/issues/106",
            ),
        ),
    ),
    catalog=Fact(None, BASIC),
    catalog_link=Fact('<https://{host}{path}?n={n}&next_page={last}>; rel="next"', PAGES),
    page=Fact(
        100,
        PAGES,
        differs=Fact(
            50, "deitch/docker_registry2 issue 56: https://github.com/deitch/docker_registry2/issues/56"
        ),
    ),
)
