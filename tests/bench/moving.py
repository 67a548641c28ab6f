"""Images from a registry on loopback: fetch, pull and unpack against their peers."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.measure import Contender, Failed, Run, Track, plain, remove
from tests.bench.report import MIB, Report, if_built
from tests.parts import gobuilt
from tests.parts.containerd import Containerd, Programs
from tests.parts.images import blob_path, layout_graph, layout_root, push_layout
from tests.parts.realimages import big_image, huge_layer
from tests.parts.registry import RegistryProcess
from tests.parts.required import program

FETCH_BOUND, CRANE_BOUND, PULL_BOUND, PEAK_BOUND = 0.7, 1.1, 0.6, 64 * MIB
CONTAINERD_BOUND = 0.4  # of a whole pull
CONTAINERD_2_BOUND, CONTAINERD_2_BOUND_FAST = 0.6, 0.5  # the same, to layers that overlayfs mounts
UMOCI_BOUND, TAR_BOUND, TAR_BOUND_FAST, UNPACK_PEAK_BOUND = 0.3, 1.0, 0.75, 200 * MIB
SNAPSHOTTERS = ("overlayfs", "native")


class Bench:
    """One image in a registry, all on tmpfs, and the programs that can be asked for it."""

    def __init__(self, track: Track, python: str, address: str, layout: Path) -> None:
        self.track, self.python, self.layout = track, python, layout
        self.ref = f"{address}/bench/image:latest"

    def ocidist(self, *arguments: str) -> Contender:
        """``ocidist ARGUMENTS REF`` into an empty store."""

        @contextlib.contextmanager
        def prepare() -> Iterator[Run]:
            root = self.track.fresh("store")
            yield Run(
                [[self.python, "-m", "ocidist", "--root", str(root), "--plain-http", *arguments, self.ref]]
            )
            remove(root)

        return Contender(f"ocidist {' '.join(arguments)}", prepare)

    def skopeo(self, *, unpack: bool = False) -> Contender:
        """``skopeo copy`` into an empty layout; then ``umoci unpack`` of it."""

        @contextlib.contextmanager
        def prepare() -> Iterator[Run]:
            layout, bundle = self.track.fresh("layout"), self.track.fresh("bundle")
            copy = [program("skopeo"), "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
            commands = [[*copy, f"docker://{self.ref}", f"oci:{layout}:latest"]]
            if unpack:
                commands.append(umoci(layout, bundle))
            yield Run(commands)
            remove(layout)
            remove(bundle)

        return Contender("skopeo copy + umoci unpack" if unpack else "skopeo copy", prepare)

    def crane(self) -> Contender:
        """``crane pull`` into an empty layout. Ends as a missing part does where it can't be built."""
        crane = gobuilt.crane()

        @contextlib.contextmanager
        def prepare() -> Iterator[Run]:
            layout = self.track.fresh("layout")
            yield Run([[crane, "pull", "--format", "oci", "--insecure", self.ref, str(layout)]])
            remove(layout)

        return Contender("crane pull", prepare)

    def containerd(self, snapshotter: str, programs: Programs | None = None, *options: str) -> Contender:
        """``ctr images pull`` by a containerd that knows nothing yet; the daemon's part is counted."""

        @contextlib.contextmanager
        def prepare() -> Iterator[Run]:
            folder = self.track.fresh("containerd")
            with Containerd(folder, programs) as daemon:
                pull = [*daemon.client, "images", "pull", *options, "--plain-http"]
                yield Run([[*pull, "--snapshotter", snapshotter, self.ref]], [daemon.pid])
            remove(folder)

        version = " of 2.x" if programs else ""
        return Contender(f"ctr{version} images pull ({snapshotter})", prepare)

    def containerd_2(self) -> Contender:
        """The same with containerd 2.x. Ends as a missing part does where it can't be built."""
        return self.containerd("overlayfs", gobuilt.containerd_2(), "--local")

    def fastest_containerd(self) -> Contender:
        """The one whose snapshotter works here and is faster. Raises Failed."""
        tried: list[tuple[float, Contender]] = []
        why = ""
        for name in SNAPSHOTTERS:
            contender = self.containerd(name)
            try:
                tried.append((self.track.once(contender).wall, contender))
            except (Failed, RuntimeError) as error:
                why = str(error)
        if not tried:
            raise Failed(why)
        return min(tried, key=lambda found: found[0])[1]


def umoci(layout: Path, bundle: Path) -> list[str]:
    """The command that unpacks ``layout`` into ``bundle``."""
    return [program("umoci"), "unpack", "--image", f"{layout}:latest", str(bundle)]


@contextlib.contextmanager
def served(track: Track, python: str, layout: Path) -> Iterator[Bench]:
    """``layout`` in a registry, without a proxy of the tests before it."""
    folder = track.fresh("registry")
    with RegistryProcess(folder, front=False) as registry:
        push_layout(registry.url, layout, "bench/image", "latest")
        yield Bench(track, python, registry.address, layout)
    remove(folder)


def described(layout: Path) -> str:
    """What a layout holds, in a few words."""
    layers = [entry for entry in layout_graph(layout) if ".layer." in entry["mediaType"]]
    return f"{sum(entry['size'] for entry in layers) / 1e6:.0f} MB in {len(layers)} layers"


def fetch(track: Track, report: Report, python: str, rounds: int) -> None:
    """All content of an image into an empty store; then the peak of memory for one huge layer."""
    layout = big_image()
    report.begin("fetch", f"{described(layout)}; medians of {rounds} rounds in turns")
    with served(track, python, layout) as bench:
        ours, peer = bench.ocidist("fetch"), bench.skopeo()
        crane = if_built(report, bench.crane)
        track.race([ours, peer, *crane], rounds)
    report.contenders([ours, peer, *crane])
    report.ratio(ours, peer, FETCH_BOUND)
    for one in crane:
        report.ratio(ours, one, CRANE_BOUND)
    report.peak(ours, "for the image", PEAK_BOUND)
    with served(track, python, huge_layer()) as bench:
        huge = bench.ocidist("fetch")
        huge.costs.append(track.once(huge))
    report.contenders([huge])
    report.peak(huge, "for one layer of 2 GiB", PEAK_BOUND)


def pull(track: Track, report: Report, python: str, rounds: int) -> None:
    """The same and unpacked, against the faster of the two ways that Debian has for it, and containerd 2.x."""
    layout = big_image()
    sizes = json.loads((layout / "size.json").read_bytes())
    report.begin(
        "pull",
        f"{described(layout)}, {sizes['unpacked'] / 1e6:.0f} MB and {sizes['entries']} entries unpacked; "
        f"medians of {rounds} rounds in turns",
    )
    with served(track, python, layout) as bench:
        ours = bench.ocidist("pull")
        peers = [bench.skopeo(unpack=True), bench.fastest_containerd()]
        overlay = bench.ocidist("--snapshotter", "overlay", "pull")
        newest = if_built(report, bench.containerd_2)
        track.race([ours, overlay, *peers, *newest], rounds)
    report.contenders([ours, overlay, *peers, *newest])
    report.ratio(ours, min(peers, key=lambda peer: peer.wall), PULL_BOUND)
    report.ratio(ours, peers[1], CONTAINERD_BOUND)
    report.peak(ours, "in all processes together", UNPACK_PEAK_BOUND)
    report.line(f"  {overlay.name}:")
    for one in newest:
        report.ratio(overlay, one, CONTAINERD_2_BOUND_FAST if accelerated(python) else CONTAINERD_2_BOUND)
    report.peak(overlay, "in all processes together", UNPACK_PEAK_BOUND)


def unpack(track: Track, report: Report, python: str, rounds: int) -> None:
    """Layers that are here already, to trees of either kind, containment on."""
    layout = big_image()
    report.begin("unpack", f"{described(layout)}, already in the store; medians of {rounds} rounds in turns")
    near = track.fresh("near")
    layers = [
        blob_path(near, entry["digest"]) for entry in layout_graph(layout) if ".layer." in entry["mediaType"]
    ]
    copy = Contender("cp", plain(["cp", "-rL", str(layout), str(near)]))
    track.once(copy)
    digest = layout_root(layout, "latest")["digest"]
    ours = []
    with served(track, python, layout) as bench:
        for kind in ("native", "overlay"):
            root = track.fresh("store")
            command = [python, "-m", "ocidist", "--root", str(root), "--snapshotter", kind]
            track.once(Contender("ocidist fetch", plain([*command, "fetch", bench.ref])))
            ours.append(
                Contender(
                    f"ocidist rootfs unpack ({kind})",
                    _then(root / "snapshots" / kind, [*command, "rootfs", "unpack", digest]),
                )
            )
    tree, bundle = track.fresh("tree"), track.fresh("bundle")
    script = f"mkdir {tree} && " + " && ".join(f"pigz -dc {layer} | tar -xp -C {tree}" for layer in layers)
    tar = Contender("pigz -dc | tar -x", _then(tree, ["sh", "-c", script]))
    peer = Contender("umoci unpack", _then(bundle, umoci(near, bundle)))
    track.race([*ours, tar, peer], rounds)
    report.contenders([*ours, tar, peer])
    bound = TAR_BOUND_FAST if accelerated(python) else TAR_BOUND
    for one in ours:
        report.line(f"  {one.name}:")
        report.ratio(one, tar, bound)
        report.ratio(one, peer, UMOCI_BOUND)
        report.peak(one, "in all processes together", UNPACK_PEAK_BOUND)


def accelerated(python: str) -> bool:
    """Whether an interpreter has the ``fast`` extra."""
    code = "import importlib.util as u, sys; sys.exit(not (u.find_spec('isal') or u.find_spec('zlib_ng')))"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def _then(made: Path, command: list[str]) -> Callable[[], contextlib.AbstractContextManager[Run]]:
    """A ``prepare`` for a command whose result is removed."""

    @contextlib.contextmanager
    def prepare() -> Iterator[Run]:
        yield Run([command])
        remove(made)

    return prepare
