"""Artifactory: a token server inside of a path, and repositories that begin with the key of one of its own."""

from __future__ import annotations

from ocidist.server.personalities.facts import TOKEN_SPEC, Fact, Personality

LOGIN = (
    "JFrog Help Center, How to troubleshoot Docker problems, docker login: "
    "https://jfrog.com/help/r/how-to-troubleshoot-docker-problems/docker-login-docker.art.local"
)
LISTS = "JFrog Help Center, REST APIs, List Docker Repositories: https://jfrog.com/help/r/jfrog-rest-apis/list-docker-repositories"
TAGS = "JFrog Help Center, REST APIs, List Docker Tags: https://jfrog.com/help/r/jfrog-rest-apis/list-docker-tags"
PATHS = (
    "JFrog Help Center, Artifactory, Docker: the repository path method: "
    "https://jfrog.com/help/r/jfrog-artifactory-documentation/the-repository-path-method-for-docker"
)
REALM = 'Bearer realm="https://{host}/artifactory/api/docker/null/v2/token",service="{host}"'

PERSONALITY = Personality(
    name="Artifactory",
    reference="artifactory.example/docker-local/team/app:1",
    host=Fact("artifactory.example", "a name of these tests: Artifactory runs where its owner puts it"),
    repository=Fact("docker-local/team/app", PATHS),
    challenge=Fact(
        REALM + ',scope="{scope}"',
        "JFrog Help Center, Artifactory Helm charts, rules for ingress (the path of the token server), with "
        + TOKEN_SPEC,
        differs=Fact(
            'Basic realm="Artifactory Realm"', "of an Artifactory without token authentication: " + LOGIN
        ),
    ),
    catalog_challenge=Fact(REALM, LOGIN),
    user=Fact("", LOGIN),
    anonymous=Fact(
        False,
        LOGIN + " (unless the administrator allows it)",
    ),
    expires_in=Fact(3600, LOGIN),
    storage=Fact(
        "",
        "Artifactory sends the content itself: " + PATHS,
        differs=Fact(
            "https://bucket.s3.us-east-1.amazonaws.com/filestore/{hex}?X-Amz-Expires=60&X-Amz-Signature={key}",
            "JFrog Help Center, Direct Cloud Storage Download: "
            "https://jfrog.com/help/r/jfrog-installation-setup-documentation/direct-cloud-storage-download",
        ),
    ),
    redirect=Fact(
        302,
        "JFrog Help Center, Direct Cloud Storage Download: https://jfrog.com/help/r/jfrog-installation-setup-documentation/direct-cloud-storage-download",
    ),
    link=Fact('<{path}?last={last}&n={n}>; rel="next"', TAGS),
    catalog=Fact(None, LISTS + " (to a privileged user)"),
)
