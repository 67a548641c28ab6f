"""Parts that a machine may lack, and what a test does then: skip with the reason, or fail if all are required.

Also a pytest plugin (``tests/conftest.py`` uses its hooks): with ``OCIDIST_REQUIRE=all`` any skip whose reason
starts with :data:`MISSING` becomes a failure, wherever it came from.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

MISSING = "missing part: "

# Program -> the Debian package that has it.
PROGRAMS = {
    "bsdtar": "libarchive-tools",
    "bash": "bash",
    "chromium": "chromium",
    "containerd": "containerd",
    "crun": "crun",
    "ctr": "containerd",
    "curl": "curl",
    "du": "coreutils",
    "docker-registry": "docker-registry",
    "fish": "fish",
    "git": "git",
    "htpasswd": "apache2-utils",
    "jq": "jq",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "node": "nodejs",
    "npm": "npm",
    "nsenter": "util-linux",
    "pigz": "pigz",
    "runc": "runc",
    "setpriv": "util-linux",
    "sha256sum": "coreutils",
    "shasum": "perl",
    "skopeo": "skopeo",
    "strace": "strace",
    "tar": "tar",
    "umoci": "umoci",
    "unshare": "util-linux",
    "watch": "procps",
    "zsh": "zsh",
    "zstd": "zstd",
}


def everything_required() -> bool:
    """Whether a missing part is a failure (``.ci/run`` says so)."""
    return os.environ.get("OCIDIST_REQUIRE", "") == "all"


def _found(name: str) -> str | None:
    """The path of an installed program; sbin is looked at too, where an ordinary user's PATH has none."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, as by :func:`require`."""
    require(name)
    found = _found(name)
    assert found is not None
    return found


def shared_images() -> Path | None:
    """The folder of images made by others: ``$OCIDIST_SHARED_IMAGES``, or ``../shared/images`` by the checkout."""
    named = os.environ.get("OCIDIST_SHARED_IMAGES")
    candidates = (
        [Path(named)] if named else [p / "shared/images" for p in Path(__file__).resolve().parents[2:5]]
    )
    return next((path for path in candidates if (path / "busybox").is_dir()), None)


def _missing_program(name: str) -> str | None:
    if _found(name) is None:
        return f"{name} is not installed (Debian package {PROGRAMS[name]})"
    return None


def _missing_images() -> str | None:
    return (
        None if shared_images() else "no folder of shared images beside the checkout (OCIDIST_SHARED_IMAGES)"
    )


def _missing_threads() -> str | None:
    import threading

    try:
        threading.Thread(target=int, daemon=True).start()
    except RuntimeError:
        return "this system has no threads"
    return None


def _missing_go_corpus() -> str | None:
    from tests.parts.corpora import go_folder

    return None if go_folder() else "no Go with the archives of its tests (Debian package golang-src)"


def _missing_in_webassembly(what: str) -> str | None:
    return f"this system has no {what}" if sys.platform in ("emscripten", "wasi") else None


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1


_OTHERS: dict[str, Callable[[], str | None]] = {
    "root": lambda: None if _user() == 0 else "needs to run as root",
    "user": lambda: None if _user() > 0 else "needs to run as an ordinary user",
    "shared-images": _missing_images,
    "threads": _missing_threads,
    "go": lambda: None if _found("go") else "go (1.23 or later) is not installed",
    "go-corpus": _missing_go_corpus,
    "processes": lambda: _missing_in_webassembly("processes"),
    "sockets": lambda: _missing_in_webassembly("sockets"),
    "kernel": lambda: _missing_in_webassembly("kernel below its file system"),
}


def missing(part: str) -> str | None:
    """Why ``part`` isn't here, or None.

    A part is a program, ``module:NAME``, ``os:NAME`` (a function of :mod:`os`), ``root``, ``user``,
    ``shared-images``, ``go``, ``go-corpus``, ``threads``, ``processes``, ``sockets``, or ``kernel``: permissions that hold, names with
    a limit, descriptors that stay with a directory that is moved, depth that costs nothing.
    """
    if part in PROGRAMS:
        return _missing_program(part)
    if part.startswith("module:"):
        name = part.partition(":")[2]
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # the parent of a dotted name
            found = None
        return None if found else f"the Python module {name} is not installed"
    if part.startswith("os:"):
        name = part.partition(":")[2]
        return None if hasattr(os, name) else f"this system has no os.{name}"
    if part in _OTHERS:
        return _OTHERS[part]()
    raise LookupError(f"unknown part {part!r}: add it to tests/parts/required.py")


def lacking(reason: str) -> Any:
    """Skip, or fail if everything is required, because of a part that :func:`missing` has no name for."""
    if everything_required():
        pytest.fail(MISSING + reason, pytrace=False)
    pytest.skip(MISSING + reason)


def require(*parts: str) -> None:
    """Skip the test where the machine lacks one of ``parts``; with ``OCIDIST_REQUIRE=all`` fail."""
    for part in parts:
        reason = missing(part)
        if reason is not None:
            lacking(reason)


def _harden(report: Any) -> Any:
    """The report, failed if it is a skip for a missing part and everything is required."""
    if report.outcome != "skipped" or not everything_required() or not isinstance(report.longrepr, tuple):
        return report
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    if reason.startswith(MISSING):
        report.outcome = "failed"
        report.longrepr = f"OCIDIST_REQUIRE=all, but {reason}"
    return report


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """Turn a skip for a missing part into a failure, in set-up and in the test."""
    outcome: Any = yield
    outcome.force_result(_harden(outcome.get_result()))


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: Any) -> Iterator[None]:
    """The same for a module that skips itself."""
    outcome: Any = yield
    outcome.force_result(_harden(outcome.get_result()))
