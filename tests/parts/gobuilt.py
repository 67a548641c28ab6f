"""Programs that Debian has in no version worth comparing with: built by Go at pinned versions, once, and kept in the cache."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.parts.containerd import Programs
from tests.parts.realimages import cached
from tests.parts.required import lacking, require

BUILD_SECONDS = 1200


class Module(NamedTuple):
    """A Go module, its version, and the packages of it that are programs."""

    path: str
    version: str
    commands: tuple[str, ...]


CRANE = Module("github.com/google/go-containerregistry", "v0.20.6", ("cmd/crane",))
CONTAINERD = Module("github.com/containerd/containerd/v2", "v2.1.4", ("cmd/containerd", "cmd/ctr"))


def crane() -> str:
    """Return the path of crane; build it if the cache does not have it."""
    return str(built(CRANE) / "crane")


def containerd_2() -> Programs:
    """Return containerd 2.x and its ctr; build them if the cache does not have them."""
    folder = built(CONTAINERD)
    return Programs(str(folder / "containerd"), str(folder / "ctr"))


def built(module: Module) -> Path:
    """Return the folder with the programs of ``module``.

    Without Go, or where the build fails (no module proxy to be reached, say), it ends as a missing part does.
    """
    require("go")
    name = "-".join(["go", *(os.path.basename(command) for command in module.commands), module.version])
    return cached(name, lambda folder: _build(module, folder))


def _build(module: Module, folder: Path) -> None:
    # A module of its own: `go install PACKAGE@VERSION` refuses a go.mod with exclude directives, as containerd's has.
    source = folder / "source"
    source.mkdir()
    (source / "go.mod").write_text("module peers\n")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    packages = [f"{module.path}/{command}" for command in module.commands]
    for command in (
        ["go", "get", *(f"{package}@{module.version}" for package in packages)],
        ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{folder}/", *packages],
    ):
        try:
            subprocess.run(
                command,
                cwd=source,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            lacking(f"go could not build {module.path} {module.version}: {error.stderr.strip()[-300:]}")
        except subprocess.TimeoutExpired:
            lacking(f"go did not build {module.path} {module.version} within {BUILD_SECONDS} seconds")
