"""Google Artifact Registry: blobs by a redirect within the same host, whose key is a part of the path."""

from __future__ import annotations

from ocidist.server.personalities.facts import API_SPEC, Fact, Personality

AUTH = (
    "Google Cloud, Artifact Registry, Configure authentication for Docker, Access token: "
    "https://cloud.google.com/artifact-registry/docs/docker/authentication#token"
)
KEY = (
    "Google Cloud, Artifact Registry, Configure authentication for Docker, Service account key: "
    "https://cloud.google.com/artifact-registry/docs/docker/authentication#json-key"
)
BARE = "nicholas-fedor/watchtower pull request 1895: https://github.com/nicholas-fedor/watchtower/pull/1895"
REALM = 'Bearer realm="https://us-docker.pkg.dev/v2/token"'
CATALOG = (
    "vmware-tanzu/kubeapps, design notes on OCI catalogs (2022): https://github.com/vmware-tanzu/kubeapps"
)

PERSONALITY = Personality(
    name="Google Artifact Registry",
    reference="us-docker.pkg.dev/my-project/my-repo/app:1",
    host=Fact("us-docker.pkg.dev", AUTH),
    repository=Fact("my-project/my-repo/app", AUTH),
    challenge=Fact(
        REALM + ',service="us-docker.pkg.dev",scope="{scope}"',
        BARE + " (a request about a repository)",
        differs=Fact(REALM, BARE + " (/v2/ names neither service nor scope)"),
    ),
    catalog_challenge=Fact(REALM, BARE),
    user=Fact(
        "oauth2accesstoken",
        AUTH,
        differs=Fact("_json_key", KEY, differs=Fact("_json_key_base64", KEY)),
    ),
    anonymous=Fact(False, AUTH),
    storage=Fact(
        "/artifacts-downloads/namespaces/my-project/repositories/my-repo/downloads/AI3{key}" + "Qg" * 60,
        "SUSE NeuVector documentation, Deployment preparation (the path to allow): "
        "https://open-docs.neuvector.com/deploying/production; a key in full: "
        "astral-sh/uv pull request 13041: https://github.com/astral-sh/uv/pull/13041",
    ),
    redirect=Fact(
        302,
        "seen in public, without a document: notes on gcr.io, which Artifact Registry serves",
        differs=Fact(307, "astral-sh/uv pull request 13041: https://github.com/astral-sh/uv/pull/13041"),
    ),
    link=Fact(
        "",
        "Google Cloud, Artifact Registry, Support for the Docker Registry API (no paging is mentioned): "
        "https://cloud.google.com/artifact-registry/docs/reference/docker-api",
        differs=Fact('<{path}?n={n}&last={last}>; rel="next"', API_SPEC),
    ),
    catalog=Fact(None, CATALOG),
)
