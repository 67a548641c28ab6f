"""How a pull ends that meets a fault: what is expected of every kind in every phase, and why. Data, no tests."""

from __future__ import annotations

from typing import NamedTuple

from ocidist.server.faults import KINDS, PHASES

__all__ = ["CELLS", "ENDS", "ENTRY", "RIGHT", "End", "end_of", "server_phase"]

RIGHT = "the right bytes"
ENTRY = "entry"
"""The phase ``manifest``, where it is read not for itself but as an entry of an index."""


class End(NamedTuple):
    """How a fault that happens once ends, how one that never ceases does, and why."""

    once: str
    always: str
    why: str


AGAIN = "asked again, five times at most"
PATIENCE = "slow is no fault"
KEPT = "what came is kept, and the rest is asked for"
ANEW = "what came does not verify: dropped, and fetched once more"
WHOLE_INSTEAD = "no range is to be had: the whole is asked for"
FOREIGN = "these are not the bytes that were asked for"
NO_DOCUMENT = "the answer is no such document"
CLEAR = "the answer is clear: another try would not change it"
NO_HTTP = "nobody there speaks HTTP"
REFUSED = "nothing is followed there, and nothing in that form is stored"
TOLD = "the digest that was asked for decides, not the header"
COMPUTED = "the digest is computed"
FRESH = "a token that is a moment old is asked for anew only once the server named another scope"
RENEWED = "a new token is asked for"
SIGNED = "the registry is asked once for another signed URL"
OTHER_WAY = "tokens are asked for with POST where GET is not found"
BY_GET = "where HEAD is not understood, or says too little, GET is asked"
CIRCLE = "ten redirects at most"
ENDLESS = "what never ends is cut at a limit"
RECONNECTED = "a connection that is gone is replaced, and nothing was missing"
NEVER_READ = "bytes behind an answer never begin the next"
AMBIGUOUS = "where a body ends is never guessed"

BLOBS, DOCUMENTS = ("config", "layer", "resume", "redirect"), ("head", "resolve", "manifest", ENTRY)
_READ = ("layer", "resume", "redirect")
DROPS = {
    "*": End(RIGHT, "TransportError", AGAIN),
    **dict.fromkeys(_READ, End(RIGHT, RIGHT, KEPT)),
}
PASSING = {"*": End(RIGHT, "RegistryError", AGAIN)}
FOREIGN_BYTES = {
    "token": End("RegistryError", "RegistryError", NO_DOCUMENT),
    "tags": End("InvalidManifest", "InvalidManifest", NO_DOCUMENT),
    **dict.fromkeys(DOCUMENTS, End("DigestMismatch", "DigestMismatch", FOREIGN)),
    **dict.fromkeys(BLOBS, End("SizeMismatch", "SizeMismatch", FOREIGN)),
    ENTRY: End("SizeMismatch", "SizeMismatch", FOREIGN),
}
NEW_TOKEN = {
    "*": End("Unauthorized", "Unauthorized", FRESH),
    **dict.fromkeys(("config", "layer", "resume", ENTRY), End(RIGHT, "Unauthorized", RENEWED)),
}

# Kind -> phase -> how it ends; "*" is all other phases.
ENDS: dict[str, dict[str, End]] = {
    "drop": DROPS,
    "truncate": DROPS,
    "stall": DROPS,
    "unframed": {
        **FOREIGN_BYTES,
        "config": End(RIGHT, "TransportError", AGAIN),
        ENTRY: End(RIGHT, "TransportError", AGAIN),
        **dict.fromkeys(_READ, End(RIGHT, RIGHT, KEPT)),
    },
    "short": {**FOREIGN_BYTES, "resume": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "long": {**FOREIGN_BYTES, "resume": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "html": {
        **FOREIGN_BYTES,
        "resolve": End("InvalidManifest", "InvalidManifest", NO_DOCUMENT),
        "head": End(RIGHT, RIGHT, BY_GET),
    },
    "flip": {
        **FOREIGN_BYTES,
        **dict.fromkeys((ENTRY, *BLOBS), End(RIGHT, "DigestMismatch", ANEW)),
        "resume": End(RIGHT, RIGHT, ANEW),
    },
    "close": {"*": End(RIGHT, "TransportError", AGAIN)},
    "silent": {"*": End(RIGHT, "TransportError", AGAIN)},
    "slow": {"*": End(RIGHT, RIGHT, PATIENCE)},
    "endless-interim": {"*": End("TransportError", "TransportError", ENDLESS)},
    "endless-headers": {"*": End("TransportError", "TransportError", ENDLESS)},
    "endless-trailers": {"*": End("TransportError", "TransportError", ENDLESS)},
    "endless-body": {
        "*": End("TransportError", "TransportError", ENDLESS),
        **dict.fromkeys((ENTRY, *BLOBS), End(RIGHT, "SizeMismatch", ANEW)),
        "resume": End(RIGHT, RIGHT, ANEW),
    },
    "hang-up": {"*": End(RIGHT, RIGHT, RECONNECTED)},
    "extra": {"*": End(RIGHT, RIGHT, NEVER_READ)},
    "framing": {"*": End("TransportError", "TransportError", AMBIGUOUS)},
    "chunk-size": {"*": End("TransportError", "TransportError", AMBIGUOUS)},
    "garbage": {"*": End("TransportError", "TransportError", NO_HTTP)},
    "loop": {"*": End(RIGHT, "TransportError", CIRCLE)},
    "downgrade": {"*": End("TransportError", "TransportError", REFUSED)},
    "encoded": {"*": End("RegistryError", "RegistryError", REFUSED)},
    "wrong-digest": {
        "head": End("NotFound", "NotFound", TOLD),
        "resolve": End("DigestMismatch", "DigestMismatch", FOREIGN),
        "manifest": End(RIGHT, RIGHT, TOLD),
        ENTRY: End(RIGHT, RIGHT, TOLD),
    },
    "no-digest": {"*": End(RIGHT, RIGHT, COMPUTED), "head": End(RIGHT, RIGHT, BY_GET)},
    "wrong-type": {
        "*": End("InvalidManifest", "InvalidManifest", FOREIGN),
        ENTRY: End(RIGHT, RIGHT, TOLD),
    },
    "ignore-range": {"*": End(RIGHT, RIGHT, KEPT)},
    "wrong-range": {"*": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "no-range": {"*": End(RIGHT, RIGHT, WHOLE_INSTEAD)},
    "416": {
        "resume": End(RIGHT, RIGHT, WHOLE_INSTEAD),
        "redirect": End(RIGHT, "RegistryError", WHOLE_INSTEAD),
    },
    "expired": {"*": End(RIGHT, "Denied", SIGNED)},
    "token-expires": NEW_TOKEN,
    "400": {
        "*": End("RegistryError", "RegistryError", CLEAR),
        "head": End(RIGHT, RIGHT, BY_GET),
        "redirect": End(RIGHT, "RegistryError", SIGNED),
    },
    "401": {
        **NEW_TOKEN,
        "token": End("Unauthorized", "Unauthorized", CLEAR),
        "redirect": End(RIGHT, "Unauthorized", SIGNED),
    },
    "403": {"*": End("Denied", "Denied", CLEAR), "redirect": End(RIGHT, "Denied", SIGNED)},
    "404": {"*": End("NotFound", "NotFound", CLEAR), "token": End(RIGHT, "NotFound", OTHER_WAY)},
    "405": {
        "*": End("RegistryError", "RegistryError", CLEAR),
        "token": End(RIGHT, "RegistryError", OTHER_WAY),
        "head": End(RIGHT, RIGHT, BY_GET),
    },
    "408": PASSING,
    "429": {"*": End(RIGHT, "RateLimited", AGAIN)},
    "500": PASSING,
    "502": PASSING,
    "503": PASSING,
    "504": PASSING,
}


def end_of(kind: str, phase: str) -> End:
    """What :data:`ENDS` says."""
    return ENDS[kind].get(phase) or ENDS[kind]["*"]


def server_phase(phase: str) -> str:
    """What the server calls a phase."""
    return "manifest" if phase == ENTRY else phase


CELLS = [
    (kind, phase) for kind in KINDS for phase in (*PHASES, ENTRY) if server_phase(phase) in KINDS[kind].phases
]
"""Every kind of fault, with every phase in which it can happen."""
