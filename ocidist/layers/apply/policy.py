"""One rule for a layer's owners, modes, devices and attributes.

=================  ======================================  ================================================
what               as root                                 as an ordinary user
=================  ======================================  ================================================
owner and group    as archived                             the user's own; the archived one is written beside
                                                           files and directories (see trees.rootless), and
                                                           counted where that can't be
mode of files      as archived, setuid and setgid too      setuid and setgid are dropped: they would speak
                                                           for another owner than the archived one
mode of            as archived                             the same, and always rwx for the owner, so that
directories                                                later layers and a removal can get in
devices            made; skipped and counted where the     skipped and counted
                   kernel refuses (user namespaces),
                   and character devices 0:0, which are
                   whiteouts to overlay mounts
FIFOs, hardlinks   made                                    made
xattrs             as archived, but for                    those of ``user.`` alone, but for the same
                   ``security.selinux``,
                   ``trusted.overlay.`` and
                   ``user.overlay.``: they belong to
                   the host
=================  ======================================  ================================================

What is skipped hides what the layers beneath have there. Sockets are not archived by tar. Extended attributes that the file system refuses are dropped.

The root of a user namespace without other ids (``unshare -r``) can give nothing to anybody: it is an ordinary user here.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from ocidist.layers.apply.layering import InPlace, Layering
from ocidist.spec.digest import Digest
from ocidist.trees.rootless import ATTRIBUTE

__all__ = ["XATTR_REFUSED", "ApplyResult", "Policy"]

XATTR_REFUSED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL})
"""Errors by which a file system says that it doesn't keep an extended attribute."""
_HOST_S_OWN = (b"security.selinux", b"trusted.overlay.", b"user.overlay.")


def _is_alone() -> bool:
    """Whether the user namespace has one user, as ``unshare -r`` makes it (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return sum(int(line.split()[2]) for line in file) == 1
    except (OSError, ValueError, IndexError):
        return False


@dataclass(frozen=True)
class Policy:
    """The rule above: ``privileged`` chooses the column. ``Policy.of_process()`` asks the process."""

    privileged: bool
    layering: Layering = field(default_factory=InPlace)

    @classmethod
    def of_process(cls) -> Policy:
        """Privileged for an effective user id of 0, unless its user namespace has no other, so that nothing can be given
        to anybody."""
        return cls(hasattr(os, "geteuid") and os.geteuid() == 0 and not _is_alone())

    def keeps_xattr(self, name: bytes) -> bool:
        """Whether an extended attribute of an archive is set."""
        if name.startswith(_HOST_S_OWN):
            return False
        return self.privileged or (name.startswith(b"user.") and name != ATTRIBUTE)

    def file_mode(self, mode: int) -> int:
        return mode if self.privileged else mode & 0o1777

    def directory_mode(self, mode: int) -> int:
        return mode if self.privileged else mode & 0o1777 | 0o700


@dataclass(frozen=True)
class ApplyResult:
    """What came of a layer: its DiffID, the bytes of plain tar, the entries, how many of them were skipped, how many
    belong to the user although the archive says otherwise and nothing beside them does, and how many directories were
    made that no entry describes."""

    diff_id: Digest
    size: int
    entries: int
    skipped: int
    disowned: int = 0
    made: int = 0
