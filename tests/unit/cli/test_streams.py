"""Standard streams that are closed, full or of another encoding: the program as a shell starts it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ocidist.spec.digest import Digest
from tests.parts.processes import CHECKOUT, clean_environment

DEMO = "registry.example/demo/shop:1.0"
CLOSED = "it is closed"
FULL = "No space left on device"


def shell(home: Path, line: str, **more: str) -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr of a command line in which ``ocidist`` is this program."""
    function = f'ocidist() {{ {shlex.quote(sys.executable)} -m ocidist "$@"; }}\n'
    environment = clean_environment(home, {"OCIDIST_ROOT": str(home / "root"), **more})
    done = subprocess.run(
        ["sh", "-c", function + line],
        env=environment,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr.decode()


needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ocidist images >&-", f"stdout: {CLOSED}"),
        ("ocidist --help >&-", f"stdout: {CLOSED}"),
        (f"ocidist --cassette demo manifest {DEMO} >&-", f"stdout: {CLOSED}"),
        ("ocidist ingest k <&-", f"stdin: {CLOSED}"),
        ("ocidist apply . <&-", f"stdin: {CLOSED}"),
        (f"ocidist --cassette demo fetch-object {DEMO} - <&-", f"stdin: {CLOSED}"),
        pytest.param("ocidist images >/dev/full", f"stdout: {FULL}", marks=needs_full),
        pytest.param("ocidist images -q >/dev/full; ocidist images >/dev/full", FULL, marks=needs_full),
        pytest.param("ocidist --version >/dev/full", f"stdout: {FULL}", marks=needs_full),
        pytest.param(
            f"ocidist --cassette demo fetch-object {DEMO} >/dev/full", f"stdout: {FULL}", marks=needs_full
        ),
        pytest.param(
            f"ocidist --cassette demo inspect {DEMO} --format json >/dev/full",
            f"stdout: {FULL}",
            marks=needs_full,
        ),
    ],
)
def test_a_stream_that_fails_is_one_line_and_1(tmp_path: Path, line: str, says: str) -> None:
    """No traceback, neither from the command nor from what the interpreter flushes at its end."""
    code, _, err = shell(tmp_path, line)
    assert (code, len(err.splitlines())) == (1, 1), err
    assert err.startswith("ocidist: ")
    assert says in err


@pytest.mark.parametrize("stderr", ["2>&-", pytest.param("2>/dev/full", marks=needs_full)])
def test_nothing_is_lost_where_stderr_is(tmp_path: Path, stderr: str) -> None:
    """The command works, silently; an error still has its code."""
    code, out, _ = shell(tmp_path, f"ocidist --cassette demo pull {DEMO} {stderr}")
    assert (code, out.split()[0].decode()) == (0, DEMO)
    assert shell(tmp_path, f"ocidist images -q {stderr}")[:2] == (0, f"{DEMO}\n".encode())
    assert shell(tmp_path, f"ocidist pul {stderr}")[0] == 2
    assert shell(tmp_path, f"ocidist get nothing {stderr}")[0] == 1


def test_a_closed_stream_never_becomes_the_stores_file(tmp_path: Path) -> None:
    """With all three closed, what is opened next must not be file 1 or 2: nothing is written into it."""
    line = f"ocidist --cassette demo pull {DEMO} <&- >&- 2>&-"
    assert shell(tmp_path, line)[0] == 1, "the result could not be printed"
    assert shell(tmp_path, "ocidist images -q")[:2] == (0, f"{DEMO}\n".encode())
    code, out, err = shell(tmp_path, "echo hi | ocidist ingest k 2>&-; ocidist list -q")
    assert (code, err) == (0, "")
    assert out.decode().split()[0] == Digest.of(b"hi\n")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda found: " ".join(found),
)
def test_what_an_encoding_lacks_is_written_as_an_escape(tmp_path: Path, environment: dict[str, str]) -> None:
    """``…`` in a help text, and a label in another script: no UnicodeEncodeError."""
    code, out, err = shell(tmp_path, "ocidist --help", **environment)
    assert (code, err) == (0, "")
    assert b"COMMAND \\u2026" in out
    digest = shell(tmp_path, "echo hi | ocidist ingest k")[1].decode().strip()
    assert shell(tmp_path, f"ocidist label {digest} name=日本")[0] == 0
    code, out, err = shell(tmp_path, f"ocidist label {digest}", **environment)
    assert (code, out, err) == (0, b"name=\\u65e5\\u672c\n", "")
