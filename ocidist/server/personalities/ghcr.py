"""GitHub Container Registry: one name for all but the blobs; a token even for what is public."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality

FLOW = (
    "Todd Mladenov, Authenticating with OCI Registries, GHCR implementation (with its update of 2024-03-04): "
    "https://toddysm.com/2024/02/12/authenticating-with-oci-registries-github-container-registry-ghcr-implementation"
)
DOCS = (
    "GitHub Docs, Working with the Container registry, Authenticating: "
    "https://docs.github.com/en/packages/working-with-a-github-packages-registry/"
    "working-with-the-container-registry#authenticating-to-the-container-registry"
)
TRIVY = (
    "Trivy documentation, Troubleshooting, Error downloading vulnerability DB (hosts to allow): "
    "https://trivy.dev/latest/docs/references/troubleshooting/"
)
WERF = "werf/werf pull request 3654: https://github.com/werf/werf/pull/3654"

PERSONALITY = Personality(
    name="GHCR",
    reference="ghcr.io/octo-org/app:1",
    host=Fact("ghcr.io", DOCS),
    repository=Fact("octo-org/app", DOCS),
    challenge=Fact('Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="{scope}"', FLOW),
    catalog_challenge=Fact(
        'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"', FLOW
    ),
    user=Fact("", DOCS + " (the user's name, with a personal access token)"),
    anonymous=Fact(True, FLOW),
    expires_in=Fact(None, FLOW + " (the answer does not say)"),
    storage=Fact(
        "https://pkg-containers.githubusercontent.com/ghcr1/blobs/sha256:{hex}?se=1&sig={key}",
        TRIVY,
        differs=Fact(
            "https://github-production-container-registry.s3.amazonaws.com/blobs/sha256:{hex}?X-Amz-Signature={key}",
            "in 2020: containerd/stargz-snapshotter pull request 167: "
            "https://github.com/containerd/stargz-snapshotter/pull/167",
        ),
    ),
    storage_head=Fact(
        403,
        "containerd/stargz-snapshotter pull request 167: "
        "https://github.com/containerd/stargz-snapshotter/pull/167",
    ),
    link=Fact(
        '<{path}?last={last}&n={n}>; rel="next"',
        WERF,
        differs=Fact(
            "",
            "in 2021 all tags came at once: google/go-containerregistry pull request 1102: "
            "https://github.com/google/go-containerregistry/pull/1102",
        ),
    ),
    catalog=Fact(
        None,
        FLOW + " (with credentials; anonymous requests are denied)",
    ),
    catalog_link=Fact(
        '</v2/_catalog?last={last}&n=0>; rel="next"',
        "seen in public, without a document: an answer of 2024-08-05 whose Link names a page of none",
    ),
)
