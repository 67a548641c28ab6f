"""The demo inside the package."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from ocidist.net.message import Headers, Request
from ocidist.net.replay import DEMO_REFERENCE, find
from ocidist.scope import Scope

ROOT = Path(__file__).resolve().parents[3]
CASSETTE = ROOT / "ocidist/demo"
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import hashlib, json
from ocidist.net.message import Headers, Request
from ocidist.net.replay import load_demo
from ocidist.scope import Scope
replay = load_demo()
blobs = [e for e in replay.exchanges if e.method == "GET" and "/data?" in e.url]
for e in blobs:
    body = replay.send(Request("GET", e.url), Scope()).read(1 << 20)
    assert hashlib.sha256(body).hexdigest() in e.url, e.url
print(len(blobs), "ssl" in sys.modules)
"""


def test_the_demo_is_first_pull() -> None:
    """The same file, and exactly the sidecars that it needs."""
    assert (CASSETTE / "demo.json").read_bytes() == (ROOT / "cassettes/first-pull.json").read_bytes()
    text = (CASSETTE / "demo.json").read_text()
    sidecars = list((CASSETTE / "blobs/sha256").iterdir())
    assert sidecars
    for path in sidecars:
        assert path.name in text
        assert path.read_bytes() == (ROOT / "cassettes/blobs/sha256" / path.name).read_bytes()


def test_the_demo_is_small() -> None:
    """Under 300 kB, sidecars and all."""
    assert sum(path.stat().st_size for path in CASSETTE.rglob("*") if path.is_file()) < 300_000


def test_the_demo_answers_for_its_reference() -> None:
    """Its name, asked as the registry's client asks."""
    host, _, rest = DEMO_REFERENCE.partition("/")
    name, _, tag = rest.partition(":")
    url = f"https://{host}/v2/{name}/manifests/{tag}"
    headers = Headers(
        [("Accept", "application/vnd.oci.image.index.v1+json"), ("Authorization", "Bearer scrubbed")]
    )
    index = json.loads(find("demo").send(Request("GET", url, headers), Scope()).read(1 << 20))
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_the_demo_works_inside_a_zip(tmp_path: Path) -> None:
    """As in the single-file program: every recorded blob is read out of the zip and is what it is named by."""
    archive = tmp_path / "ocidist.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted((ROOT / "ocidist").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                out.write(path, path.relative_to(ROOT))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CODE, str(archive)], capture_output=True, text=True, cwd=tmp_path
    )
    count, ssl = done.stdout.split() if done.stdout else ("", done.stderr)
    assert (int(count or 0), ssl) == (10, "False"), done.stderr
