"""The processes that extract layers: what they load, and what they may not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ocidist
from ocidist.errors import LimitExceeded
from ocidist.scope import Scope
from ocidist.snapshots import parallel
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.processes import CHECKOUT
from tests.parts.required import require

# Two large layers, unpacked as a notebook does it that was started in a directory of an image's tree.
NOTEBOOK = """
import sys
sys.path[:0] = {before!r}
import gzip, io, os, random
from pathlib import Path
from ocidist.snapshots import parallel, unpack
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.store import Store
from tests.parts.tars import entry, layer
os.chdir({folder!r})
sys.path.insert(0, {place!r})
parallel.cores = lambda: 2
started = []
finish = parallel.Workers.finish
parallel.Workers.finish = lambda self, worker: (finish(self, worker), started.append(worker))[0]
raws = [layer(entry(f"big-{{n}}", random.Random(n).randbytes(parallel.SMALL + 9999))).getvalue() for n in (0, 1)]
store = Store.at({root!r})
layers = []
for raw in raws:
    data = gzip.compress(raw, 1, mtime=0)
    digest = Digest.of(data)
    with store.ingest("put", total=len(data), expected=digest) as writer:
        writer.write(data)
        writer.commit(len(data), digest)
    layers.append(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", digest, len(data)))
unpack.LocalApplier(store.content, store.snapshots).unpack(layers, [Digest.of(raw) for raw in raws], Scope())
print([worker.failed for worker in started])
"""
MODULES = (
    "json",
    "hashlib",
    "zlib",
    "isal",
    "zlib_ng",
    "backports",
    "resource",
    "sitecustomize",
    "encodings",
)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A directory with modules of those names, each of which leaves a trace."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'loaded')!r}, 'a').write('{name} ')\nraise ImportError\n"
        )
    return folder


@pytest.mark.parametrize("place", ["", ".", "FOLDER"])
@pytest.mark.parametrize("root", ["absolute", "relative"])
def test_i79_workers_load_nothing_of_the_working_directory(
    planted: Path, tmp_path: Path, place: str, root: str
) -> None:
    """Neither where it is found by an empty or relative entry of sys.path, nor by an absolute one."""
    require("processes", "kernel", "root")
    checkout = str(Path(ocidist.__file__).parent.parent)
    place = str(planted) if place == "FOLDER" else place
    where = str(tmp_path / "root") if root == "absolute" else "../root"
    code = NOTEBOOK.format(before=[checkout], folder=str(planted), place=place, root=where)
    # Whatever the notebook itself has loaded before the tree was its directory is not what is looked at.
    environment = {**os.environ, "PYTHONPATH": str(planted / "nothing")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=checkout
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[None, None]\n"
    assert not (tmp_path / "loaded").exists(), (tmp_path / "loaded").read_text()


def test_i79_workers_of_a_single_file_load_the_program_from_it(tmp_path: Path) -> None:
    """As in ocidist.pyz, started by a relative path."""
    require("processes", "kernel", "root")
    import zipfile

    package = Path(ocidist.__file__).parent
    with zipfile.ZipFile(tmp_path / "ocidist.pyz", "w") as archive:
        for path in package.rglob("*.py"):
            archive.write(path, path.relative_to(package.parent))
    checkout = str(package.parent)
    code = NOTEBOOK.format(
        before=["ocidist.pyz"], folder=str(tmp_path), place="", root=str(tmp_path / "root")
    )
    code = code.replace("from tests.parts.tars", f"sys.path.append({checkout!r})\nfrom tests.parts.tars")
    code += "print(sys.modules['ocidist'].__file__)\n"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "[None, None]"
    assert "ocidist.pyz" in done.stdout.splitlines()[1]


BOUNDS = """
import json, os, resource, sys
sys.path += {path!r}
from ocidist.snapshots import worker
worker._bound({seconds})
print(json.dumps([resource.getrlimit(what) for what in (resource.RLIMIT_CORE, resource.RLIMIT_AS, resource.RLIMIT_CPU)]))
"""


@pytest.mark.parametrize("seconds", [None, 3.5])
def test_i77_workers_have_bounds_of_the_kernel(seconds: float | None) -> None:
    """No core, so much memory, and of the processor's time what the time limit may take."""
    require("processes", "kernel")
    code = BOUNDS.format(path=parallel.places(), seconds=seconds)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    core, memory, processor = json.loads(done.stdout)
    assert core == [0, 0]
    assert memory == [2 << 30, 2 << 30]
    assert processor[0] == (8 if seconds is not None else -1)


def test_i77_a_worker_that_runs_out_of_memory_refuses_the_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not applied again in this process, where nothing bounds it."""
    require("processes", "kernel", "root")
    start = "import sys; sys.path += {path!r}; from ocidist.snapshots import worker; worker._MEMORY = 1; "
    monkeypatch.setattr(
        parallel, "_START", start + "worker.apply_layer = lambda *a, **o: bytes(1 << 40); worker.main()"
    )
    workers = parallel.Workers(Scope(), lambda: None, [], [])
    layer = Descriptor("x", Digest.of(b""), 0)
    with open(os.devnull, "rb") as blob:
        found = workers.start(layer, tmp_path, lambda done: None, blob.fileno(), False, 0)
    with pytest.raises(LimitExceeded, match="need more than"):
        workers.finish(found)


def test_i74_a_worker_ends_when_its_parent_has_ended(tmp_path: Path) -> None:
    """Also while it is in the middle of a blob of which nothing was to be reported."""
    require("processes", "kernel", "root")
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(ocidist.__file__).parent.parent)!r})
from pathlib import Path
from ocidist.scope import Scope
from ocidist.snapshots import parallel
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
worker = parallel.Worker(Descriptor("x", Digest.of(b""), 1 << 40), Path({str(tmp_path)!r}), print)
reader, writer = os.pipe()
worker.start(reader, False, 0, Scope(), [])
print(worker._process.pid, flush=True)
os.close(reader)
from tests.parts.tars import entry
os.set_inheritable(writer, True)
if os.fork() == 0:
    os.close(1)
    try:
        for number in range(2000):
            os.write(writer, entry(f"file{{number}}", bytes(200)))
            time.sleep(0.01)
    except BrokenPipeError:
        pass
    os._exit(0)
while not os.path.exists({str(tmp_path / "file3")!r}):
    time.sleep(0.01)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=CHECKOUT
    )
    pid, until = int(done.stdout.split()[0]), time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # nobody waits for it here
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("it went on without its parent")
