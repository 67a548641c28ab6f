"""Azure Container Registry: a token of the cloud becomes a refresh token, and that becomes access tokens."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality

OAUTH = "Azure/acr, AAD-OAuth: https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md"
BASIC = "Azure/acr, Token-BasicAuth: https://github.com/Azure/acr/blob/main/docs/Token-BasicAuth.md"
BEARER = 'Bearer realm="https://{host}/oauth2/token",service="{host}",scope="{scope}"'

PERSONALITY = Personality(
    name="Azure Container Registry",
    reference="contosoregistry.azurecr.io/hello-world:1",
    host=Fact("contosoregistry.azurecr.io", OAUTH),
    repository=Fact("hello-world", OAUTH),
    challenge=Fact(BEARER, BASIC + " (Get the scope of the token to be requested)"),
    catalog_challenge=Fact(BEARER, OAUTH + " (Calling POST /oauth2/token)"),
    unauthorized=Fact(
        b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required",'
        b'"detail":[{"Type":"registry","Name":"catalog","Action":"*"}]}]}',
        OAUTH,
    ),
    user=Fact(
        "00000000-0000-0000-0000-000000000000",
        OAUTH + " (Authenticating docker with an ACR refresh token)",
    ),
    anonymous=Fact(False, OAUTH),
    exchange=Fact("/oauth2/exchange", OAUTH + " (Calling POST /oauth2/exchange)"),
    grants=Fact(("get", "refresh_token"), f"{OAUTH} (Calling POST /oauth2/token); {BASIC}"),
    answers=Fact(("access_token",), OAUTH),
    storage=Fact(
        "https://eusmanaged1.blob.core.windows.net/0000-reg//docker/registry/v2/blobs/sha256/{hex}/data"
        "?se=1&sig={key}&sp=r&sv=2018-03-28&regid=0000",
        "Microsoft Learn, Azure Container Registry, Configure rules to access a registry behind a firewall "
        "(*.blob.core.windows.net): "
        "https://learn.microsoft.com/en-us/azure/container-registry/container-registry-firewall-access-rules; "
        "with Authorization it answers an error: Azure/acr issue 217: https://github.com/Azure/acr/issues/217",
    ),
    link=Fact('<{path}?last={last}&n={n}&orderby=>; rel="next"', OAUTH + " (Tag Listing, Pagination)"),
    catalog=Fact(None, OAUTH + " (Catalog Listing)"),
)
