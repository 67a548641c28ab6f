"""Credential helpers: ``docker-credential-NAME``, a program that keeps secrets for Docker.

Protocol: the action is the argument; ``get`` and ``erase`` read a server name on stdin, ``store`` reads
JSON; ``get`` writes JSON with ``Username`` and ``Secret``. "Not found" is said in words and exit code 1.
A helper runs without a shell, in a process group of its own, for ten seconds at most, and says no more than a mebibyte.
It is never looked for in the working directory.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ocidist.errors import CredentialError, quoted
from ocidist.scope import POLL
from ocidist.settings import find_program

if TYPE_CHECKING:
    from subprocess import Popen

    from ocidist.scope import Scope

__all__ = ["checked_name", "erase", "get", "store"]

TIMEOUT = 10.0  # seconds
LIMIT = 1 << 20  # bytes of an answer; no header could hold as long a secret
_GRACE = 1.0  # seconds for its pipes to end once it has ended
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}\Z")
_NOT_FOUND = "credentials not found"


def checked_name(name: object, where: str) -> str:
    """``name`` if it can be a part of a program's name; a path is refused with CredentialError."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise CredentialError(where, f"{quoted(name)} is no name of a credential helper")
    return name


def get(name: str, server: str, scope: Scope | None = None) -> tuple[str, str] | None:
    """``(user name, secret)`` for ``server``; None where the helper has none, or is not installed."""
    answer = _run(name, "get", server, scope)
    if answer is None:
        import logging

        logging.getLogger("ocidist.credentials").warning(
            "docker-credential-%s is configured but not installed: going on without credentials for %s",
            name,
            server,
        )
        return None
    code, out, err = answer
    if code != 0:
        if _NOT_FOUND in (out + err).lower():
            return None
        raise _failure(name, "get", code, out, err)
    try:
        data = json.loads(out)
        user, secret = data["Username"], data["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        # What it wrote may hold the secret: it is not shown, nor chained.
        raise CredentialError(f"docker-credential-{name}", "its answer is not understood") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise CredentialError(f"docker-credential-{name}", "its answer is not understood")
    return (user, secret) if secret else None


def store(name: str, server: str, user: str, secret: str, scope: Scope | None = None) -> None:
    """Hand a secret to the helper. Raises CredentialError, also where it is not installed."""
    answer = _run(name, "store", json.dumps({"ServerURL": server, "Username": user, "Secret": secret}), scope)
    if answer is None:
        raise CredentialError(f"docker-credential-{name}", "is configured but not installed")
    if answer[0] != 0:
        raise _failure(name, "store", *answer)


def erase(name: str, server: str, scope: Scope | None = None) -> bool:
    """Make the helper forget ``server``; False where it knew nothing of it, or is not installed."""
    answer = _run(name, "erase", server, scope)
    if answer is None:
        return False
    code, out, err = answer
    if code != 0 and _NOT_FOUND not in (out + err).lower():
        raise _failure(name, "erase", code, out, err)
    return code == 0


def _failure(name: str, action: str, code: int, out: str, err: str) -> CredentialError:
    said = (err.strip() or out.strip()).partition("\n")[0]
    # An answer in JSON may be the credential itself.
    shown = "" if not said or "{" in out + err or "secret" in (out + err).lower() else f": {quoted(said)}"
    return CredentialError(f"docker-credential-{name}", f"{action} failed with exit code {code}{shown}")


def _run(name: str, action: str, text: str, scope: Scope | None) -> tuple[int, str, str] | None:
    """Exit code, stdout, stderr; None where there is no such program."""
    import subprocess

    program = f"docker-credential-{name}"
    where = find_program(program)
    if where is None:
        return None
    try:
        process = subprocess.Popen(
            [where, action],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise CredentialError(program, f"can't be run: {error.strerror or error}") from error
    try:
        out, err = _listen(process, program, action, text, scope)
    finally:
        _kill(process)
        process.wait()
    if scope is not None:
        scope.check()
    return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def _listen(
    process: Popen[bytes], program: str, action: str, text: str, scope: Scope | None
) -> tuple[bytes, bytes]:
    """Its stdout and stderr, of bounded length, when it has ended. What it leaves running may keep the pipes."""
    from subprocess import TimeoutExpired

    heard = _Heard(process.stdout), _Heard(process.stderr)
    threading.Thread(target=_tell, args=(process.stdin, text.encode()), daemon=True).start()
    until, ended = time.monotonic() + TIMEOUT, False
    while True:
        if any(len(each.data) > LIMIT for each in heard):
            raise CredentialError(program, f"{action} answered with more than {LIMIT >> 20} MiB")
        open_ = next((each for each in heard if each.is_alive()), None)
        if not ended and process.poll() is not None:
            ended, until = True, min(until, time.monotonic() + _GRACE)
        if ended and (open_ is None or time.monotonic() >= until):
            return heard[0].data, heard[1].data
        if time.monotonic() >= until:
            raise CredentialError(program, f"{action} did not answer within {TIMEOUT:g} seconds")
        if scope is not None:
            scope.check()
        if open_ is not None:
            open_.join(POLL)
        else:
            with suppress(TimeoutExpired):
                process.wait(POLL)


def _tell(stream: Any, text: bytes) -> None:
    with suppress(OSError), stream:  # it need not read what it is asked
        stream.write(text)


class _Heard(threading.Thread):
    """Reads a pipe to its end, or until more than LIMIT bytes came."""

    def __init__(self, stream: Any) -> None:
        super().__init__(daemon=True)
        self.data = b""
        self._stream = stream
        self.start()

    def run(self) -> None:
        with suppress(OSError), self._stream:
            while len(self.data) <= LIMIT and (block := self._stream.read1(LIMIT)):
                self.data += block


def _kill(process: Popen[bytes]) -> None:
    """End the helper and what it started, unless it has ended and been waited for."""
    if process.returncode is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, OSError):
        try:
            process.kill()
        except OSError:
            pass
