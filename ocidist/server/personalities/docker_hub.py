"""Docker Hub: a registry, a token server and a store of blobs by three names, and a limit on pulls."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality, Refusal

PULLS = (
    "Docker Docs, Docker Hub pull usage and limits, View pull rate and limit: "
    "https://docs.docker.com/docker-hub/usage/pulls/#view-pull-rate-and-limit"
)
CATALOG = "docker/hub-feedback issue 2094: https://github.com/docker/hub-feedback/issues/2094"
ALLOWED = (
    "Docker Docs, Docker Desktop allowlist, Domain URLs: "
    "https://docs.docker.com/desktop/setup/allow-list/#domain-urls-to-allow"
)
REGCTL = "regclient/regclient issue 539: https://github.com/regclient/regclient/issues/539"
INSUFFICIENT = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="registry:catalog:*",error="insufficient_scope"'

PERSONALITY = Personality(
    name="Docker Hub",
    reference="busybox:1",
    host=Fact("registry-1.docker.io", PULLS),
    repository=Fact(
        "library/busybox",
        "distribution/reference, Normalize (familiar names): https://github.com/distribution/reference",
    ),
    challenge=Fact(
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="{scope}"', CATALOG
    ),
    catalog_challenge=Fact(
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="{scope}"', CATALOG
    ),
    user=Fact("", PULLS + " (any account, curl --user)"),
    anonymous=Fact(True, PULLS),
    answers=Fact(("token", "access_token"), CATALOG),
    expires_in=Fact(300, CATALOG),
    storage=Fact(
        "https://production.cloudflare.docker.com/registry-v2/docker/registry/v2/blobs/sha256/{hex}/data"
        "?expires=1&signature={key}",
        ALLOWED,
        differs=Fact(
            "https://docker-images-prod.s3.dualstack.us-east-1.amazonaws.com/registry-v2/docker/registry/v2/blobs/"
            "sha256/{hex}/data?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={key}",
            "containerd/stargz-snapshotter pull request 167, of issue 128: "
            "https://github.com/containerd/stargz-snapshotter/pull/167",
        ),
    ),
    storage_head=Fact(
        403,
        "containerd/stargz-snapshotter pull request 167 (HEAD to docker-images-prod fails): "
        "https://github.com/containerd/stargz-snapshotter/pull/167",
    ),
    link=Fact(
        '<{path}?last={last}&n={n}>; rel="next"',
        "distribution project, HTTP API V2, Listing Image Tags, Pagination: "
        "https://distribution.github.io/distribution/spec/api/#listing-image-tags",
    ),
    catalog=Fact(
        Refusal(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required",'
            b'"detail":[{"Type":"registry","Class":"","Name":"catalog","Action":"*"}]}]}',
            INSUFFICIENT,
        ),
        f"{CATALOG}; {REGCTL}",
    ),
    limits=Fact(
        {
            "RateLimit-Limit": "100;w=21600",
            "RateLimit-Remaining": "{left};w=21600",
            "Docker-RateLimit-Source": "192.0.2.1",
        },
        PULLS,
    ),
    counts=Fact(
        ("GET",),
        PULLS + " (a HEAD does not count)",
        differs=Fact(
            ("GET", "HEAD"),
            "a user saw his looks counted, every second one: "
            "https://gist.github.com/kosu9i/efb54c53d6442ce0bfb649c8542d9a8b",
        ),
    ),
)
