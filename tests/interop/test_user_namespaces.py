"""Root of a user namespace: one of its own alone (``unshare -r``), and one with a range of ids (``podman unshare``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.processes import CHECKOUT
from tests.parts.required import lacking, program, require

_CODE = """
import json, os, subprocess, sys
from contextlib import closing
from pathlib import Path
from ocidist.client import Client
from ocidist.errors import OcidistError
from ocidist.scope import Scope
from ocidist.stores.store import Store
from ocidist.graph.copy import copy_graph
from tests.parts.images import Entry, image
from tests.parts.sources import MemorySource

root, kind, owner = sys.argv[1], sys.argv[2], int(sys.argv[3])
layers = [
    [Entry("d/"), Entry("d/a", b"x"), Entry("e/"), Entry("e/x", b"1", gid=42), Entry("e/y", b"2", uid=owner)],
    [Entry("d/.wh..wh..opq"), Entry("d/b", b"y"), Entry("e/.wh.x"), Entry("su", b"s", mode=0o4755, uid=owner)],
]
source = MemorySource(image(layers, run={"Cmd": ["/x"]}))
with Store.at(root, snapshotter=kind) as store:
    with store.lease() as lease, Scope(lease=lease) as scope:
        copy_graph(source, store, source.root, scope, platform="all", workers=0)
        store.tag("docker.io/library/app:1", source.root, scope)
    img = Client(store=store).open("store:docker.io/library/app:1", platform="linux/amd64")
    try:
        chain = str(store.unpack(img.manifest, img.config, Scope()))
    except OcidistError as error:
        sys.exit(str(error))
    store.snapshots.prepare("key", chain)
    img.bundle(Path(root).parent / f"bundle-{kind}", scope=Scope())
    with closing(store.snapshots.reader(chain)) as tree:
        found = {name: sorted(os.fsdecode(each) for each in tree.names(name.encode())) for name in "de"}
        info = tree.stat(b"e/y")
        found["owner"] = info.uid
        found["beside"] = "user.rootlesscontainers" in map(os.fsdecode, tree.xattrs(b"e/y"))
        found["setuid"] = bool(tree.stat(b"su").mode & 0o4000)
    (mount,) = store.snapshots.mounts("key")
    options = [*(["-o", ",".join(mount.options)] if mount.options else []), mount.source]
    words = ["mount", "-t", mount.type, *options, str(Path(root).parent / "mnt")]
    inside = ["unshare", "--mount", "sh", "-c", '"$@" && ls "$0"/mnt/d', str(Path(root).parent), *words]
    done = subprocess.run(inside, capture_output=True, text=True)
    found["mount"], found["mounted"] = mount.options, done.stdout or done.stderr
    print(json.dumps(found))
"""


def run(tmp_path: Path, kind: str, count: int, owner: int) -> subprocess.CompletedProcess[str]:
    """The code above as root of a namespace with ``count`` ids."""
    require("root", "kernel", "processes")
    (tmp_path / "mnt").mkdir()
    words = [sys.executable, "-c", _CODE, str(tmp_path / "root"), kind, str(owner)]
    process = subprocess.Popen(
        [program("unshare"), "--user", "sh", "-c", 'echo ready; read x; exec "$@"', "sh", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        lacking("user namespaces")
    ids = "0 0 1\n" + (f"1 100000 {count - 1}\n" if count > 1 else "")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{name}").write_text(ids)
    out, error = process.communicate("go\n", timeout=60)
    return subprocess.CompletedProcess(words, process.returncode, out, error)


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_the_only_user_of_a_namespace_unpacks_as_an_ordinary_one(kind: str, tmp_path: Path) -> None:
    """Nothing can be given to others: owners are written beside, and no setuid stays."""
    done = run(tmp_path, kind, 1, 5)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["d"], found["e"]) == (["b"], ["y"])
    assert (found["owner"], found["beside"], found["setuid"]) == (5, False, False)
    assert kind == "native" or "userxattr" in found["mount"]
    assert found["mounted"] == "b\n"


@pytest.mark.parametrize("kind", ["native", "overlay"])
def test_root_of_a_range_of_ids_unpacks_as_root(kind: str, tmp_path: Path) -> None:
    """With the attributes that overlay mounts take there: trusted.overlay.* is the first namespace's alone."""
    done = run(tmp_path, kind, 65536, 5)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["d"], found["e"]) == (["b"], ["y"])
    assert (found["owner"], found["beside"], found["setuid"]) == (5, False, True)
    assert kind == "native" or "userxattr" in found["mount"]
    assert found["mounted"] == "b\n"


def test_an_owner_without_an_id_in_the_namespace_is_told(tmp_path: Path) -> None:
    """The system says "Invalid argument"."""
    done = run(tmp_path, "native", 65536, 70000)
    assert done.returncode == 1
    assert "entry 'e/y': Invalid argument: its owner may have no id in this user namespace" in done.stderr
