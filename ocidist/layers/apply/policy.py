"""What is made of a layer's owners, modes, devices and attributes: one rule, said once.

=================  ======================================  ================================================
what               as root                                 as an ordinary user
=================  ======================================  ================================================
owner and group    as archived                             the user's own; the archived one is written beside
                                                           files and directories (see :mod:`rootless`), and
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

How a layer's tree stands to those beneath it is a :class:`Layering`: ``Merged`` where one tree takes all layers
in turn, others where each layer has a directory of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Protocol

from ocidist.spec.digest import Digest
from ocidist.trees.owners import ATTRIBUTE

if TYPE_CHECKING:
    from ocidist.layers.apply.contained import Directory, Tree

__all__ = ["ApplyResult", "Layering", "Merged", "Policy", "in_first_namespace"]

_FIRST = 0xEFFFFFFD
"""PROC_USER_INIT_INO of Linux, include/linux/proc_ns.h."""
_HOST_S_OWN = (b"security.selinux", b"trusted.overlay.", b"user.overlay.")


def in_first_namespace() -> bool:
    """Whether this process is in the machine's first user namespace, the only one with attributes of ``trusted.``."""
    try:
        return os.stat("/proc/self/ns/user").st_ino == _FIRST
    except OSError:  # another system, which has one
        return True


def _is_alone() -> bool:
    """Whether the user namespace has one user, as ``unshare -r`` makes it (user_namespaces(7))."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return sum(int(line.split()[2]) for line in file) == 1
    except (OSError, ValueError, IndexError):
        return False


class Layering(Protocol):
    """How the tree of a layer stands to the layers beneath it. One object serves one layer at a time.

    ``whiteout`` and ``opaque`` come in the order of the archive, anything may follow them. Parents are
    normalised names of the archive; ``own(real)`` says whether this layer itself has put the entry with that real
    path (without links, from the root, with a leading slash). OSErrors come as they are.
    """

    @property
    def in_place(self) -> bool:
        """Whether the tree itself has all that is beneath."""
        ...

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        """``parent/name`` of the layers beneath is gone; what this layer puts there stays."""
        ...

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        """All that the layers beneath have in ``parent`` is gone."""
        ...

    def bring_up(self, at: Directory, name: bytes) -> bool:
        """Put at ``at/name``, where nothing is, what the layers beneath have there; False if they have nothing.

        Asked for a directory that an entry needs and that the archive doesn't describe (a symlink, or a directory
        with its metadata and without its content, is put there), and for the target of a hardlink (a file, whole).
        """
        ...

    def replaced(self, real: bytes) -> None:
        """What this layer's tree had at that real path gave way to an entry, or to a device that is skipped."""
        ...

    def described(self, real: bytes) -> None:
        """An entry says what the directory with that real path looks like (not asked for in an empty root)."""
        ...

    def finish(self, tree: Tree) -> None:
        """All entries are applied; directories that are open are not yet settled."""
        ...


class Merged:
    """The layers beneath are in the tree itself: what they have is found there, and whiteouts remove it."""

    in_place = True

    def whiteout(self, tree: Tree, parent: bytes, name: bytes, own: Callable[[bytes], bool]) -> None:
        at = tree.at(parent, create=False)
        if at is not None:
            tree.hide(at, name, own)

    def opaque(self, tree: Tree, parent: bytes, own: Callable[[bytes], bool]) -> None:
        at = tree.at(parent, create=False)
        if at is not None:
            tree.empty(at, own)

    def bring_up(self, at: Directory, name: bytes) -> bool:
        return False

    def replaced(self, real: bytes) -> None:
        pass

    def described(self, real: bytes) -> None:
        pass

    def finish(self, tree: Tree) -> None:
        pass


@dataclass(frozen=True)
class Policy:
    """The rule above: ``privileged`` chooses the column. ``Policy.of_process()`` asks the process."""

    privileged: bool
    layering: Layering = field(default_factory=Merged)

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
