"""Every config.json that we write is valid by the runtime specification's own JSON schema, and says nothing else."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ocidist.runtime.accounts import Account
from ocidist.runtime.mappings import Mappings, Range
from ocidist.runtime.options import BundleOptions, Mount
from ocidist.runtime.spec import runtime_config
from ocidist.spec.config import ImageConfig
from tests.parts.images import to_json
from tests.parts.redis_image import RUN
from tests.parts.required import require

SCHEMAS = Path(__file__).resolve().parent / "schemas" / "runtime-spec"
BASE = "https://schemas.example/"

FULL = {
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "author": "a",
    "created": "2024-01-01T00:00:00Z",
}
IMAGES = {
    "bare": {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]}},
    "full": {**FULL, "config": RUN},
}
RANGES = (Range(0, 1000, 1), Range(1, 100_000, 65_536))
MOUNTS = (Mount("/x", "bind", "/y", ("rbind", "ro")), Mount("/tmp", "tmpfs", "tmpfs"))


@pytest.fixture(scope="module")
def validator() -> Any:
    """Of whole documents. The schema lets unknown members pass; here they don't, so that none is misspelt."""
    require("module:jsonschema")
    import jsonschema
    import referencing
    from referencing.jsonschema import DRAFT4

    def retrieve(uri: str) -> Any:
        return DRAFT4.create_resource(_closed(json.loads((SCHEMAS / uri.removeprefix(BASE)).read_bytes())))

    registry = referencing.Registry(retrieve=retrieve)  # type: ignore[call-arg]
    return jsonschema.Draft4Validator({"$ref": f"{BASE}config-schema.json"}, registry=registry)


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def complaints(validator: Any, document: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def documents() -> list[Any]:
    """Each image with every combination of the options."""
    found = []
    flags = itertools.product(
        IMAGES.values(), [False, True], [False, True], [None, "host", "private"], [(), MOUNTS]
    )
    for image, rootless, read_only, network, mounts in flags:
        options = BundleOptions(
            args=("one",),
            env={"A": "b"},
            mounts=mounts,
            annotations={"x": "y"},
            read_only=read_only,
            rootless=rootless,
            network=network,
            terminal=read_only,
        )
        made = runtime_config(
            ImageConfig.parse(to_json(image)),
            Account(2**31 - 1, 7, (7, 8)),
            options,
            mappings=Mappings(RANGES, RANGES) if rootless else None,
            volumes=mounts,
        )
        found.append(json.loads(json.dumps(made)))
    return found


def test_every_document_is_valid(validator: Any) -> None:
    """48 of them: two images, with and without root, read-only, each network, with and without mounts."""
    made = documents()
    assert len(made) == 48
    assert [complaint for document in made for complaint in complaints(validator, document)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("process.user.uid", -1),
        ("process.user.uid", 2**32),
        ("process.user.uid", "0"),
        ("process.env", [1]),
        ("process.args", "sh"),
        ("process.misspelt", 1),
        ("linux.namespaces", [{"type": "net"}]),
        ("linux.uidMappings", [{"containerId": 0}]),
        ("root.readOnly", True),
        ("mounts", [{"source": "/x"}]),
        ("annotations", {"x": 1}),
        ("ociVersion", 1),
    ],
)
def test_the_validator_refuses(validator: Any, path: str, value: Any) -> None:
    """What is wrong in a document is found, so that the test above can fail."""
    document = copy.deepcopy(documents()[0])
    *parents, name = path.split(".")
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    assert complaints(validator, document) != []
