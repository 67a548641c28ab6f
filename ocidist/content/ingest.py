"""The small files beside the data of an ingest: ``ref``, ``startedat``, ``updatedat``, ``total``.

Layout and formats are containerd's (plugins/content/local): the directory is named by the sha256 of the
key, times are RFC 3339. ``expected`` (a digest) is ours. What is damaged is read as unknown, never an error:
the digest that is checked at commit decides, not these files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time

from ocidist.content.disk import remove_file
from ocidist.content.protocols import IngestStatus
from ocidist.errors import InvalidDigest, UsageError
from ocidist.files import create, open_regular
from ocidist.spec.digest import Digest

__all__ = ["MAX_KEY", "check_key", "folder_name", "read_status", "remove_ingest", "write_status"]

MAX_KEY = 10_240
"""Bytes of a key in UTF-8."""

_TIME = (  # compiled when an ingest is looked at, by re's own cache
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))\Z"
)
_NUMBER = r"[0-9]{1,19}\Z"


def check_key(key: str) -> bytes:
    """The key in UTF-8. Raises UsageError: empty, with a NUL, or longer than :data:`MAX_KEY`."""
    if not isinstance(key, str) or not key:
        raise UsageError("the key of an ingest can't be empty")
    raw = key.encode("utf-8", "surrogatepass")
    if b"\0" in raw:
        raise UsageError("the key of an ingest can't hold a NUL")
    if len(raw) > MAX_KEY:
        raise UsageError(f"the key of an ingest is {len(raw)} bytes long; at most {MAX_KEY} are taken")
    return raw


def folder_name(key: str) -> str:
    """The directory of ``key`` under ``ingest/``."""
    return Digest.of(check_key(key)).hex


def format_time(seconds: float) -> str:
    """RFC 3339 in UTC, as containerd reads it."""
    whole = int(seconds)
    moment = time.gmtime(whole)
    # Not strftime: of early years it writes fewer digits here and nothing at all there.
    date = f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}"
    clock = f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}"
    return f"{date}T{clock}.{int((seconds - whole) * 1e6):06d}Z"


def parse_time(text: str) -> float | None:
    """Seconds since the epoch, None for anything that is not RFC 3339."""
    found = re.match(_TIME, text)
    if found is None:
        return None
    from datetime import datetime, timedelta, timezone

    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, off_hours, off_minutes = found.groups()[6:]
    offset = timedelta(0)
    if sign:
        offset = timedelta(hours=int(off_hours), minutes=int(off_minutes)) * (1 if sign == "+" else -1)
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone(offset))
        return moment.timestamp() + float(fraction or 0)
    except (ValueError, OverflowError):
        return None


def _read(path: str, limit: int) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(limit)
    except OSError:
        return b""


def _text(path: str, limit: int = 512) -> str:
    return _read(path, limit).decode("ascii", "replace").strip()


def read_key(folder: str) -> str:
    """The key of an ingest directory; the directory's own name where its ``ref`` is damaged."""
    name = os.path.basename(folder)
    raw = _read(os.path.join(folder, "ref"), MAX_KEY + 1)
    if raw and Digest.of(raw).hex == name:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            pass
    return name


def read_status(folder: str) -> IngestStatus | None:
    """What an ingest directory tells, None if there is no data in it."""
    try:
        data = os.stat(os.path.join(folder, "data"), follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(data.st_mode):
        return None
    started = parse_time(_text(os.path.join(folder, "startedat")))
    total = _text(os.path.join(folder, "total"))
    expected: Digest | None = None
    text = _text(os.path.join(folder, "expected"))
    if text:
        try:
            expected = Digest(text)
        except InvalidDigest:
            expected = None
    return IngestStatus(
        key=read_key(folder),
        offset=data.st_size,
        total=int(total) if re.match(_NUMBER, total) else 0,
        started_at=data.st_mtime if started is None else started,
        updated_at=data.st_mtime,
        expected=expected,
    )


def write_status(folder: str, status: IngestStatus) -> None:
    """Write the small files. The data's own mtime is the true ``updatedat``. OSErrors as they come."""
    now = format_time(status.started_at).encode()
    _write(os.path.join(folder, "ref"), check_key(status.key))
    _write(os.path.join(folder, "startedat"), now)
    _write(os.path.join(folder, "updatedat"), now)
    for name, value in (("total", str(status.total or "")), ("expected", str(status.expected or ""))):
        path = os.path.join(folder, name)
        if value:
            _write(path, value.encode())
        else:
            remove_file(path)


def _write(path: str, data: bytes) -> None:
    # A fresh file each time: what a link of this name points at is never written.
    remove_file(path)
    with os.fdopen(create(path, 0o600), "wb") as file:
        file.write(data)


def remove_ingest(folder: str) -> None:
    """Remove an ingest's directory; the caller holds its lock. The lock file goes last: who comes in between
    makes a new one, and then the directory stays."""
    try:
        for name in os.listdir(folder):
            if name != "lock":
                remove_file(os.path.join(folder, name))
        remove_file(os.path.join(folder, "lock"))
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
