"""The watch over secrets finds what is planted, wherever it looks, and nothing else."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from ocidist.errors import CredentialError, RegistryError
from tests.parts import secrets, watched
from tests.parts.required import require

BEARER = f"Bearer {base64.urlsafe_b64encode(json.dumps({'jti': secrets.make()}).encode()).decode()}"


def test_b29_every_form_of_a_secret_is_recognised() -> None:
    """Plain, as Basic credentials of users with names of any length, in a JWT, and recorded in base64 once more."""
    assert watched.shows_a_secret(f"password={secrets.make()}&x=1")
    assert watched.shows_a_secret(BEARER)
    for length in range(1, 7):
        basic = base64.b64encode(f"{'u' * length}:{secrets.make('')}".encode())
        for before in range(3):
            body = b"x" * before + b"Authorization: Basic " + basic
            assert watched.shows_a_secret(body)
            assert watched.shows_a_secret(base64.b64encode(body))
    assert len({secrets.make() for _ in range(9)}) == 9
    secret = secrets.make()
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le"):
        assert watched.shows_a_secret(secret.encode(encoding))
    for written in ("%%%02x", "%%%02X", "\\u%04x", "\\u%04X", "\\x%02x"):
        assert watched.shows_a_secret("".join(written % ord(char) for char in secret)), written
    assert watched.shows_a_secret(secret.upper()), "a host name is another case of it"


def test_b29_what_is_no_secret_of_this_run_is_not_found() -> None:
    """Another run's secret, the mark cut in two, and base64 of something else."""
    half = len(secrets.MARK) // 2
    other = "f" * len(secrets.MARK)
    for text in (other, f"{secrets.MARK[:half]} {secrets.MARK[half:]}", base64.b64encode(other.encode())):
        assert not watched.shows_a_secret(text)


def test_b29_a_secret_in_a_log_is_found() -> None:
    """At DEBUG, in an argument, and in a traceback."""
    logger = logging.getLogger("ocidist.planted")
    with watched.apart() as finds:
        logger.debug("GET %s", f"https://registry.example/?sig={secrets.make()}")
        logger.debug("GET %s", "https://registry.example/")
        assert [find.partition(",")[0] for find in finds] == ["the log ocidist.planted"]
        try:
            raise ValueError(secrets.make())
        except ValueError:
            logger.warning("failed", exc_info=True)
    assert len(finds) == 2


def test_b29_a_secret_in_an_error_is_found() -> None:
    """In any argument of any OcidistError, whether or not anybody prints it."""
    with watched.apart() as finds:
        RegistryError("GET", "https://registry.example/v2/", 401, (("DENIED", BEARER),))
        CredentialError("config.json", secrets.make())
        CredentialError("config.json", "is not JSON")
    assert [find.partition(",")[0] for find in finds] == [
        "the error RegistryError",
        "the error CredentialError",
    ]


def test_b29_a_secret_in_a_file_is_found_where_none_belongs(tmp_path: Path) -> None:
    """A trace, a cassette's sidecar, a log: named by their paths. Docker's file, and content, may hold one."""
    shown = [tmp_path / "run.har", tmp_path / "cassette/bodies/1", tmp_path / "home/registry.log"]
    meant = [tmp_path / "home/.docker/config.json", tmp_path / "root/content/blobs/sha256/ab"]
    for path in (*shown, *meant):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"auth": "{BEARER}"}}')
    (tmp_path / "link").symlink_to(meant[0])
    with watched.apart() as finds:
        watched.look_at_files(tmp_path)
    assert sorted(finds) == sorted(f"the file {path}" for path in shown)
    for path in shown:
        path.unlink()


def test_b29_a_secret_on_the_output_of_a_program_is_found(tmp_path: Path) -> None:
    """stdout and stderr of whatever ``tests/parts/processes.py`` starts."""
    require("processes")
    from tests.parts.processes import Program

    said = f"import sys; print({secrets.make()!r}); print({BEARER!r}, file=sys.stderr)"
    with watched.apart() as finds:
        Program(tmp_path / "home", start_with=("-c", said)).run()
    assert [find.partition(" of ")[0] for find in finds] == ["stdout", "stderr"]


LEAKS = """
import logging
from pathlib import Path
from tests.parts import secrets

def test_log():
    logging.getLogger("ocidist.net").debug("token %s", secrets.make())

def test_none():
    logging.getLogger("ocidist.net").debug("nothing")

def test_trace(tmp_path):
    (tmp_path / "run.har").write_text(secrets.make())
"""


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_b29_a_leak_fails_the_run_and_is_named(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """A run with two leaks: the test that logged one fails, and the file is found at the end."""
    require("processes", *(["module:xdist"] if workers else []))
    from tests.parts.processes import CHECKOUT, clean_environment

    (tmp_path / "test_leaks.py").write_text(LEAKS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.parts.watched", "-p", "no:cacheprovider", "-q"]
    command += [*workers, "--basetemp", str(tmp_path / "temp"), "-c", str(tmp_path / "pytest.ini")]
    done = subprocess.run(
        [*command, str(tmp_path / "test_leaks.py")],
        cwd=CHECKOUT,
        env=clean_environment(tmp_path / "home", {"PYTHONPATH": str(CHECKOUT)}),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 passed, 2 errors" in done.stdout
    assert "the log ocidist.net, in" in done.stdout
    assert "test_leaks.py::test_log" in done.stdout
    assert "run.har" in done.stdout
