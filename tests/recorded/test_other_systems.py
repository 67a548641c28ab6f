"""Systems that lack what Linux has: open, fetch, replay and list do without, and look for linux images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parts.processes import CHECKOUT, clean_environment
from tests.parts.required import require

# Taken away before ocidist is imported: what Windows, and partly macOS and WebAssembly, don't have.
TAKE_AWAY = """
import json, os, sys
system, root = sys.argv[1:]
for name in ("fcntl", "pwd", "grp", "resource", "termios"):
    sys.modules[name] = None
import platform
platform.uname()
import shutil, socket, sqlite3, ssl, subprocess, tempfile, http.client, importlib.metadata, importlib.resources
for name in dir(os):
    if name in ("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_PATH", "O_NONBLOCK", "O_TMPFILE") or name.endswith("xattr"):
        delattr(os, name)
for name in (
    "mknod", "mkfifo", "makedev", "chown", "fchown", "lchown", "fchmod", "geteuid", "getuid", "getegid", "getgid",
    "fork", "statvfs", "fstatvfs", "copy_file_range", "sendfile", "posix_fallocate", "getpgid", "setsid",
):
    if hasattr(os, name):
        delattr(os, name)

def refusing(function):
    def call(*args, **options):
        if any(options.get(name) is not None for name in ("dir_fd", "src_dir_fd", "dst_dir_fd")):
            raise NotImplementedError(f"{function.__name__}: dir_fd unavailable on this platform")
        return function(*args, **options)
    return call

for function in list(os.supports_dir_fd):
    if hasattr(os, function.__name__):
        setattr(os, function.__name__, refusing(function))
os.supports_dir_fd = os.supports_fd = frozenset()
del os.uname  # the platform module goes by what it saw
sys.platform = system
"""
WORK = """
import contextlib, io
import ocidist
from ocidist.cli.main import main

def said(*arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["--root", root, "--progress", "none", *arguments])
    assert not code, (arguments, code)
    return out.getvalue()

image = "registry.example/demo/shop:1.0"
replayed = ("--cassette", "demo")
with ocidist.replay("demo"):
    opened = ocidist.open(image)
found = {
    "open": [str(opened.descriptor.digest), str(opened.platform), [str(layer.digest) for layer in opened.layers]],
    "fetch": said(*replayed, "fetch", image),
    "again": said(*replayed, "fetch", image),
    "list": said("list", "-q"),
    "resolve": said(*replayed, "resolve", image),
    "check": said("check", "--format", "json"),
    "wanted": str(ocidist.Platform.host()),
}
found["read"] = len(ocidist.Store.at(root).content.walk().__next__().digest)
print(json.dumps(found))
"""


def run(code: str, system: str, root: Path) -> dict[str, Any]:
    """What ``code`` prints in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, system, str(root)],
        env=clean_environment(root.parent / "home"),
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_open_fetch_replay_and_list_do_without_what_only_some_systems_have(
    system: str, tmp_path: Path
) -> None:
    """No fcntl, xattrs, mknod, dir_fd, user ids or O_ flags, whatever the system is called: the answers are the same."""
    require("processes")
    whole = run("import json, sys\nroot = sys.argv[2]\n" + WORK, "linux", tmp_path / "whole")
    lacking = run(TAKE_AWAY + WORK, system, tmp_path / "lacking")
    assert lacking == whole
    assert lacking["wanted"].startswith("linux/")
    assert len(lacking["list"].split()) > 3


def test_what_is_taken_away_is_gone(tmp_path: Path) -> None:
    """The test above can fail: in that Python nothing locks, makes devices, or takes a dir_fd."""
    require("processes")
    probe = """
lost = []
for attempt in ("import fcntl", "os.mknod", "os.setxattr", "os.geteuid()", "os.stat('.', dir_fd=3)"):
    try:
        exec(attempt)
    except (ImportError, AttributeError, NotImplementedError) as error:
        lost.append(type(error).__name__)
print(json.dumps({"lost": lost, "system": sys.platform}))
"""
    found = run(TAKE_AWAY + probe, "win32", tmp_path / "root")
    lost = [
        "ModuleNotFoundError",
        "AttributeError",
        "AttributeError",
        "AttributeError",
        "NotImplementedError",
    ]
    assert found == {"lost": lost, "system": "win32"}
