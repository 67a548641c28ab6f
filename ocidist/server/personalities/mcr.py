"""Microsoft Artifact Registry: everything is public, and everything comes at once."""

from __future__ import annotations

from ocidist.server.personalities.facts import Fact, Personality

RULES = (
    "microsoft/containerregistry, client-firewall-rules: "
    "https://github.com/microsoft/containerregistry/blob/main/docs/client-firewall-rules.md"
)
LISTS = "microsoft/containerregistry issue 168: https://github.com/microsoft/containerregistry/issues/168"
PAGES = "microsoft/containerregistry issue 96: https://github.com/microsoft/containerregistry/issues/96"

PERSONALITY = Personality(
    name="MCR",
    reference="mcr.microsoft.com/dotnet/runtime:1",
    host=Fact("mcr.microsoft.com", RULES),
    repository=Fact("dotnet/runtime", LISTS),
    challenge=Fact("", LISTS),
    catalog_challenge=Fact("", LISTS),
    user=Fact("", LISTS),
    anonymous=Fact(True, LISTS),
    storage=Fact(
        "https://eastus.data.mcr.microsoft.com/01031d61e1024861afee5d512651eb9f/{hex}?se=1&sig={key}&sp=r",
        RULES + " (Data Endpoint: *.data.mcr.microsoft.com)",
    ),
    link=Fact("", PAGES + " (as an optimization there are no pages; that may change)"),
    catalog=Fact(None, LISTS),
)
