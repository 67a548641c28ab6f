"""Files that configure how a registry is asked, where what has the name is no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.processes import CHECKOUT, clean_environment
from tests.parts.required import require

HOST = "127.0.0.1:1"


@pytest.mark.parametrize("kind", ["fifo", "endless"])
@pytest.mark.parametrize("where", ["config.json", "hosts.toml", "ca.crt", "own.pem", "environment.pem"])
def test_i82_what_is_no_file_is_refused_or_passed_over_at_once(where: str, kind: str, tmp_path: Path) -> None:
    """Docker's file, hosts.toml, an authority beside it, and those of --ca-cert and $SSL_CERT_FILE: never waited for,
    never read without end."""
    require("os:mkfifo", "processes")
    place = tmp_path / "certs.d" / HOST / where if where in ("hosts.toml", "ca.crt") else tmp_path / where
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    environment = clean_environment(tmp_path, {"DOCKER_CONFIG": str(tmp_path)})
    if where == "environment.pem":
        environment["SSL_CERT_FILE"] = str(place)
    options = ["--root", str(tmp_path / "root"), "--hosts-dir", str(tmp_path / "certs.d")]
    (tmp_path / "certs.d").mkdir(exist_ok=True)
    options += ["--ca-cert", str(place)] if where == "own.pem" else []
    command = ["logout", HOST] if where == "config.json" else ["resolve", f"{HOST}/x:1"]
    found = subprocess.run(
        [sys.executable, "-m", "ocidist", *options, *command],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode in (1, 2)
    assert str(place) in found.stderr or "/dev/zero" in found.stderr
    assert "not a regular file" in found.stderr
