"""What is made of a layer's owners, modes, devices and attributes: one rule, said once.

=================  ======================================  ================================================
what               as root                                 as an ordinary user
=================  ======================================  ================================================
owner and group    as archived                             the user's own
mode of files      as archived, setuid and setgid too      setuid and setgid are dropped: they would speak
                                                           for another owner than the archived one
mode of            as archived                             the same, and always rwx for the owner, so that
directories                                                later layers and a removal can get in
devices            made; skipped and counted where the     skipped and counted
                   kernel refuses (user namespaces)
FIFOs, hardlinks   made                                    made
xattrs             as archived, but for                    those of ``user.`` alone
                   ``security.selinux`` and
                   ``trusted.overlay.``: they belong to
                   the host
=================  ======================================  ================================================

Sockets are not archived by tar. Extended attributes that the file system refuses are dropped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ocidist.spec.digest import Digest

__all__ = ["ApplyResult", "Policy"]


@dataclass(frozen=True)
class Policy:
    """The rule above: ``privileged`` chooses the column. ``Policy.of_process()`` asks the process."""

    privileged: bool

    @classmethod
    def of_process(cls) -> Policy:
        """Privileged for an effective user id of 0."""
        return cls(hasattr(os, "geteuid") and os.geteuid() == 0)

    def keeps_xattr(self, name: bytes) -> bool:
        """Whether an extended attribute of an archive is set."""
        if not self.privileged:
            return name.startswith(b"user.")
        return name != b"security.selinux" and not name.startswith(b"trusted.overlay.")

    def file_mode(self, mode: int) -> int:
        return mode if self.privileged else mode & 0o1777

    def directory_mode(self, mode: int) -> int:
        return mode if self.privileged else mode & 0o1777 | 0o700


@dataclass(frozen=True)
class ApplyResult:
    """What came of a layer: its DiffID, the bytes of plain tar, the entries, and how many were skipped."""

    diff_id: Digest
    size: int
    entries: int
    skipped: int
