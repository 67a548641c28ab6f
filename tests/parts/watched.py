"""A watch over the whole run: no secret of a test is in a log, an error, a program's output, a cassette or a trace.

A plugin of pytest, loaded by ``tests/conftest.py``. Whatever is seen is looked at when it is seen, so that nothing is
kept: log records of ``ocidist`` at DEBUG, the arguments of every OcidistError, what programs wrote that were started
by ``tests/parts/processes.py``, the requests that came to hosts that no secret is meant for (blob hosts). The files of the run's
temporary folders are looked at when it ends, those apart in which secrets are kept on purpose. A find fails the
test that was running, and says where it was.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import pytest

from tests.parts import secrets

if TYPE_CHECKING:
    from ocidist.server.records import Record

FILE_LIMIT = 16 << 20
"""Bytes of a file that are looked at: no cassette or trace of a test is longer."""

KEPT_ON_PURPOSE = frozenset({"config.json", "auth.json", "htpasswd", "kept-secrets.json"})
"""Files with these names are where a password belongs: Docker's, podman's, a registry's, a helper's."""

CONTENT = frozenset({"blobs", "snapshots", "rootfs", "storage", "layers"})
"""Folders of image content, which is public, named by its digest, and large."""

_finds: list[str] = []


def shows_a_secret(text: str | bytes) -> bool:
    """Whether ``text`` holds a secret of this run: plain, in base64, percent-encoded, JSON-escaped or in UTF-16."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if any(form in data for form in secrets.FORMS):
        return True
    undone = secrets.undone(data)
    return undone != data and any(form in undone for form in secrets.FORMS)


def look(text: str | bytes, where: str) -> None:
    """Remember that ``where`` shows a secret, if ``text`` holds one."""
    if shows_a_secret(text):
        test = os.environ.get("PYTEST_CURRENT_TEST", "no test").partition(" ")[0]
        _finds.append(f"{where}, in {test}")


def look_at_request(record: Record) -> None:
    """Remember a request to a host that no secret is meant for, if its headers hold one."""
    look(repr(record.request_headers), f"a request for {record.path}")


def look_at_files(folder: Path) -> None:
    """Look at every file below ``folder`` that may be a cassette, a trace, a log or an index of the store: once, however
    many names it has, and not at one that is a single hole."""
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in CONTENT]
        for name in names:
            path = os.path.join(place, name)
            if name in KEPT_ON_PURPOSE:
                continue
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours to read
                info = os.lstat(path)
                a_hole = info.st_size > 1 << 16 and not info.st_blocks
                if not stat.S_ISREG(info.st_mode) or a_hole or (info.st_dev, info.st_ino) in seen:
                    continue
                if info.st_nlink > 1:
                    seen.add((info.st_dev, info.st_ino))
                with open(path, "rb") as file:
                    if shows_a_secret(file.read(FILE_LIMIT)):
                        _finds.append(f"the file {path}")


@contextlib.contextmanager
def apart() -> Iterator[list[str]]:
    """What is found within, to be looked at by a test of the watch itself; it fails nothing."""
    global _finds
    outer, _finds = _finds, []
    try:
        yield _finds
    finally:
        _finds = outer


def taken() -> list[str]:
    """What was found since the last call, each place once."""
    found = list(dict.fromkeys(_finds))
    _finds.clear()
    return found


class LogWatch(logging.Handler):
    """Looks at each record, formatted as a file would hold it, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        look(self.format(record), f"the log {record.name}")


def watch_errors() -> None:
    """Look at what every OcidistError holds from now on: its text, repr and pickle say no more than that."""
    from ocidist.errors import OcidistError

    init = OcidistError.__init__

    def looked_at(self: OcidistError, *arguments: Any) -> None:
        init(self, *arguments)
        look(repr((self.args, vars(self))), f"the error {type(self).__name__}")

    OcidistError.__init__ = looked_at  # type: ignore[method-assign]


# -- pytest -----------------------------------------------------------------------------------------


def pytest_sessionstart() -> None:
    """Begin to watch."""
    logger = logging.getLogger("ocidist")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(LogWatch())
    watch_errors()


@pytest.fixture(scope="session", autouse=True)
def _files_are_watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    look_at_files(tmp_path_factory.getbasetemp())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """After the last fixture is gone: fail where a secret was found."""
    try:
        return (yield)
    finally:
        found = taken()
        if found:
            pytest.fail("a secret of the tests is shown by " + "; ".join(found[:20]), pytrace=False)
