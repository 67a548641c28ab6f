"""Harbor: robots with a dollar in their names, and Basic where a token was refused."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality, Refusal

AUTH = (
    "goharbor/harbor, src/server/middleware/v2auth/auth.go: "
    "https://github.com/goharbor/harbor/blob/main/src/server/middleware/v2auth/auth.go"
)
ROBOTS = (
    "Harbor documentation, Create project robot accounts: "
    "https://goharbor.io/docs/2.12.0/working-with-projects/project-configuration/create-robot-accounts/"
)
ADMINS = (
    "goharbor/harbor issue 6784: https://github.com/goharbor/harbor/issues/6784; "
    "issue 22194: https://github.com/goharbor/harbor/issues/22194"
)
CATALOG = (
    "goharbor/harbor, src/server/registry/catalog.go: "
    "https://github.com/goharbor/harbor/blob/main/src/server/registry/catalog.go"
)
TRACE = "goharbor/harbor issue 17834 (answers in full): https://github.com/goharbor/harbor/issues/17834"

PERSONALITY = Personality(
    name="Harbor",
    reference="harbor.example/team/app:1",
    host=Fact("harbor.example", "a name of these tests: Harbor runs where its owner puts it"),
    repository=Fact("team/app", ROBOTS),
    challenge=Fact(
        'Bearer realm="https://{host}/service/token",service="harbor-registry",scope="{scope}"', AUTH
    ),
    catalog_challenge=Fact(
        'Basic realm="harbor"',
        AUTH,
        differs=Fact('Bearer realm="https://{host}/service/token",service="harbor-registry"', TRACE),
    ),
    challenge_again=Fact('Basic realm="harbor"', AUTH + " (whatever it was that was sent)"),
    user=Fact("robot$team+puller", ROBOTS),
    anonymous=Fact(
        True,
        "Harbor documentation, Create projects (public): https://goharbor.io/docs/2.12.0/working-with-projects/create-projects/",
    ),
    expires_in=Fact(
        1800,
        "Harbor documentation, Configure system settings (Token Expiration, in minutes): https://goharbor.io/docs/2.12.0/administration/general-settings/",
    ),
    cookies=Fact(("sid",), TRACE),
    storage=Fact(
        "",
        "Harbor documentation, Configure the Harbor YML file (storage_service.redirect.disable may be false): https://goharbor.io/docs/2.12.0/install-config/configure-yml-file/",
    ),
    link=Fact('<{path}?last={last}&n={n}>; rel="next"', CATALOG),
    page=Fact(1 << 20, CATALOG + " (n is not limited)"),
    catalog=Fact(
        Refusal(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to list catalog: unauthorized to list catalog"}]}',
            'Basic realm="harbor"',
        ),
        ADMINS + " (an administrator may)",
        differs=Fact(None, ADMINS + " (for an administrator, or a robot with that permission)"),
    ),
)
