"""GitLab: the token server is GitLab itself, at another name than the registry."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality, Refusal

AUTH = (
    "GitLab Docs, Authenticate with the container registry: "
    "https://docs.gitlab.com/user/packages/container_registry/authenticate_with_container_registry/"
)
CHALLENGE = "deitch/docker_registry2 issue 14: https://github.com/deitch/docker_registry2/issues/14"
ADMINS = "gitlab-org/gitlab-foss merge request 14751: https://gitlab.com/gitlab-org/gitlab-foss/-/merge_requests/14751"
REFUSED = "portainer/portainer issue 2956: https://github.com/portainer/portainer/issues/2956"
BEARER = 'Bearer realm="https://gitlab.com/jwt/auth",service="container_registry",scope="{scope}"'

PERSONALITY = Personality(
    name="GitLab",
    reference="registry.gitlab.com/group/project/app:1",
    host=Fact("registry.gitlab.com", CHALLENGE),
    repository=Fact("group/project/app", AUTH),
    challenge=Fact(BEARER, CHALLENGE),
    catalog_challenge=Fact(BEARER, ADMINS),
    user=Fact("gitlab-ci-token", AUTH + " (Use GitLab CI/CD: a job token)"),
    anonymous=Fact(True, AUTH + " (of public projects)"),
    expires_in=Fact(
        None,
        AUTH + " (the document gives 15 minutes on GitLab.com, the answer nothing)",
        differs=Fact(300, AUTH + " (5 minutes elsewhere)"),
    ),
    storage=Fact(
        "https://storage.googleapis.com/gitlab-registry/docker/registry/v2/blobs/sha256/{hex}/data"
        "?GoogleAccessId=x&Expires=1&Signature={key}",
        "GitLab Docs, Administer, Container registry, Disable redirect for storage driver: "
        "https://docs.gitlab.com/administration/packages/container_registry/#disable-redirect-for-storage-driver",
    ),
    link=Fact(
        '<https://{host}{path}?last={last}&n={n}>; rel="next"',
        "gitlab-org/container-registry, HTTP API V2 (of the distribution project): "
        "https://gitlab.com/gitlab-org/container-registry/-/tree/master/docs/spec",
    ),
    catalog=Fact(
        Refusal(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required",'
            b'"detail":[{"Type":"registry","Class":"","Name":"catalog","Action":"*"}]}]}',
            BEARER.format(scope="registry:catalog:*") + ',error="insufficient_scope"',
        ),
        f"{REFUSED}; {ADMINS} (administrators may)",
    ),
)
