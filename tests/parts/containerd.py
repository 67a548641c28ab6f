"""A real containerd with its own root, state and socket, and ``ctr`` to talk to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.parts.required import program

_SNAPSHOTTERS = ("aufs", "zfs", "btrfs", "devmapper")
_UNUSED = ["io.containerd.grpc.v1.cri", *(f"io.containerd.snapshotter.v1.{name}" for name in _SNAPSHOTTERS)]


class Programs(NamedTuple):
    """The daemon and its client, of one version."""

    containerd: str
    ctr: str


class Containerd:
    """Runs while it is entered; ``root`` is where its content and metadata lie, ``socket`` where it listens.

    ``programs`` are Debian's unless given.
    """

    def __init__(self, folder: Path, programs: Programs | None = None) -> None:
        self.folder = folder
        self._programs = programs or Programs(program("containerd"), program("ctr"))
        self.root = folder / "root"
        # A socket's path may have 107 bytes, and test folders have long names.
        self._state = Path(tempfile.mkdtemp(prefix="ctrd-"))
        self.socket = self._state / "containerd.sock"
        self.log = folder / "containerd.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Containerd:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{self.root}"\nstate = "{self._state}/run"\n'
            f"disabled_plugins = {json.dumps(_UNUSED)}\n"
            + f'[grpc]\n  address = "{self.socket}"\n[ttrpc]\n  address = "{self.socket}.ttrpc"\n'
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs.containerd, "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.socket.exists() and self._ctr(["version"]).returncode == 0:
                return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"containerd did not start:\n{self.log.read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
            self._process = None
        shutil.rmtree(self._state, ignore_errors=True)

    def _ctr(self, arguments: list[str], namespace: str = "default") -> subprocess.CompletedProcess[str]:
        command = [*self.client, "--namespace", namespace, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    @property
    def client(self) -> list[str]:
        """How a command line of its ``ctr`` begins."""
        return [self._programs.ctr, "--address", str(self.socket)]

    def ctr(self, *arguments: str, namespace: str = "default") -> str:
        """What ``ctr ARGUMENTS`` prints; an AssertionError with its complaint if it fails."""
        done = self._ctr(list(arguments), namespace)
        assert done.returncode == 0, f"ctr {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        assert self._process is not None
        return self._process.pid
