"""The cassettes are what a real registry answers: record them again, and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.parts.required import require

ROOT = Path(__file__).resolve().parents[2]
VOLATILE = {"date", "x-request-id", "docker-upload-uuid"}


def normalised(path: Path) -> dict[str, Any]:
    """A cassette without what differs from run to run: times and dates. Tokens are scrubbed already."""
    document: dict[str, Any] = json.loads(path.read_bytes())
    document["recorded"].pop("at")
    document["recorded"].pop("by")
    for exchange in document["exchanges"]:
        del exchange["offset"], exchange["seconds"]
        for part in (exchange["request"], exchange["response"]):
            if "/tags/list" in exchange["request"]["url"]:
                part["body"] = tags_in_order(part.get("body"))
            part["headers"] = {k: v for k, v in part["headers"].items() if k.lower() not in VOLATILE}
    return document


def tags_in_order(body: Any) -> Any:
    """docker-registry lists tags in the order of its disk."""
    document = json.loads(body["text"]) if body else {}
    if "tags" not in document:
        return body
    return {**document, "tags": sorted(document["tags"])}


def names(folder: Path) -> list[str]:
    """Cassettes and sidecars, by their path in ``folder``."""
    return sorted(str(p.relative_to(folder)) for p in (*folder.glob("*.json"), *folder.glob("blobs/*/*")))


def test_rerecording(tmp_path: Path) -> None:
    """Every cassette, recorded again from the real parts, is the same but for its dates."""
    require("docker-registry", "skopeo", "htpasswd", "module:cryptography")
    from tests.record_cassettes import record_all

    record_all(tmp_path)
    assert names(tmp_path) == names(ROOT / "cassettes")
    for path in sorted(tmp_path.glob("*.json")):
        assert normalised(path) == normalised(ROOT / "cassettes" / path.name), path.name
