"""One layer onto a directory: contained, in one pass, and with the DiffID of what was read.

What each entry does is in ``whiteouts``, the rule for owners and devices in ``policy``, why nothing leaves the root
in ``contained``. An entry replaces what stands in its place (never writes into it, so another
name of the same file keeps its content); a directory entry over a directory merges with it.

Source: OCI image specification, layer.md, "Applying Changesets".
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Callable, Mapping

from ocidist.content.disk import failure
from ocidist.errors import LayerError, LimitExceeded, OcidistError, UnsafeEntry
from ocidist.files import forget_acls
from ocidist.layers.apply import links
from ocidist.layers.apply.contained import CREATE, Directory, Tree
from ocidist.layers.apply.policy import XATTR_REFUSED, ApplyResult, Policy
from ocidist.layers.apply.space import Space
from ocidist.layers.compression.feed import start
from ocidist.layers.compression.inflate import Readable, open_stream
from ocidist.layers.tar.records import Member, Records
from ocidist.layers.whiteouts import HELD, Nothing, Opaque, in_meta, marker, split, target
from ocidist.scope import Scope
from ocidist.trees.directory import PATH_ONLY
from ocidist.trees.rootless import ATTRIBUTE, encode_owner, in_first_namespace

__all__ = ["ApplyResult", "Policy", "apply_layer"]

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0123456"
_KINDS = {CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}
# What the entry itself makes impossible; everything else is the file system's trouble.
_ENTRY_ERRORS = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.EINVAL, errno.EMLINK, errno.EFBIG, errno.EEXIST),
    )
)


def apply_layer(
    stream: Readable,
    root: Path | int,
    scope: Scope,
    *,
    layer: str = "layer",
    policy: Policy | None = None,
    progress: Callable[[int], object] | None = None,
    tick: Callable[[], object] | None = None,
    threads: bool = True,
    algorithm: str = "sha256",
    before: int = 0,
    opened: int | None = None,
) -> ApplyResult:
    """Apply a layer's tar, of any compression, to the directory ``root`` (a path or a descriptor; ``opened`` is a
    descriptor of the one at that path).

    ``layer`` names it in errors; ``policy`` is ``Policy.of_process()`` by default; ``progress`` is called with
    the cumulative bytes of ``stream`` read, from another thread unless ``threads`` is false; ``tick`` for each
    piece of plain tar, from this one. ``algorithm`` is that of the DiffID; ``before`` how many entries the layers of
    the image beneath had.

    Raises LayerError for what can't be applied, UnsafeEntry (a LayerError) for what reaches out of the root,
    LimitExceeded by the scope's limits, StoreError where the file system fails or is nearly full, Cancelled and
    DeadlineExceeded. What was applied before stays.
    """
    policy = Policy.of_process() if policy is None else policy
    try:
        applier = _Applier(root if opened is None else opened, layer, policy, scope, before)
    except OSError as error:
        raise failure(str(root), error) from error

    taken = 0

    def read(count: int) -> None:
        nonlocal taken
        scope.check()  # also where nothing comes out of what is read
        taken = count
        if progress is not None:
            progress(count)

    feed = start(lambda: open_stream(stream, layer, read, scope)[0], scope, threads, algorithm)
    space, limits = Space(applier.tree.root.fd, layer, scope), scope.limits

    def more() -> bytes:
        if tick is not None:
            tick()
        piece = feed.more()
        space.wrote(len(piece))
        if limits is not None and feed.size > limits.floor and feed.size > limits.ratio * taken:
            raise LimitExceeded(layer, f"{taken} bytes of it unpack to more than the {limits.ratio}-fold")
        return piece

    records = Records(more, layer)
    try:
        entries = applier.run(records)
        records.drain()
    except OSError as error:
        raise applier.failure(error, str(root)) from error
    except (OverflowError, ValueError) as error:
        if isinstance(error, OcidistError):
            raise
        raise applier.unusable(error) from error
    finally:
        feed.close()
        applier.close(str(root))
    return ApplyResult(
        feed.digest(), feed.size, entries, applier.skipped, applier.disowned, applier.tree.made
    )


class _Applier:
    """The state of one layer: the tree, and what this layer itself has put (None in an empty root)."""

    def __init__(self, root: Path | int, layer: str, policy: Policy, scope: Scope, before: int) -> None:
        self.layer = layer
        self.limits, self.before = scope.limits, before
        self.policy = policy
        self.privileged = policy.privileged
        self.skipped = self.disowned = 0
        self.held = False  # whether there are files that AUFS held for their further names
        self.tree = Tree(root, layer, self, scope)
        # Hashes of real paths: 64 bits of a keyed hash are enough, and a tenth of the memory. In an empty root
        # all that is found is this layer's own, so whiteouts do nothing there,
        # in a tree that holds all layers.
        alone = policy.layering.in_place and self.tree.is_empty()
        self.own: set[int] | None = None if alone else set()
        self._makers = {
            HARDLINK: self._hardlink,
            SYMLINK: self._symlink,
            CHARACTER: self._device,
            BLOCK: self._device,
            FIFO: self._special if hasattr(os, "mknod") else self._device,
        }

    def close(self, root: str) -> None:
        try:
            try:
                if self.held:
                    self.tree.remove(self.tree.root, HELD)
            finally:
                self.tree.close()
        except OSError as error:
            raise self.failure(error, root) from error
        except OverflowError as error:
            raise self.unusable(error) from error

    def unusable(self, error: Exception) -> LayerError:
        return LayerError(self.layer, self.shown(), f"a number or name that can't be used: {error}")

    def shown(self) -> str:
        return os.fsdecode(self.tree.member)

    def failure(self, error: OSError, root: str) -> OcidistError:
        if error.errno in _ENTRY_ERRORS:
            reason = error.strerror or str(error)
            if error.errno == errno.EINVAL and self.privileged and not in_first_namespace():
                reason += ": its owner may have no id in this user namespace; map more of them (/etc/subuid, /etc/subgid)"
            return LayerError(self.layer, self.shown(), reason)
        return failure(os.path.join(root, self.shown().lstrip("/")), error)

    def room(self) -> int:
        """Return how many entries, and directories made for them, the limits still allow."""
        if self.limits is None:
            return sys.maxsize
        return self.limits.entries - self.before - self.tree.made

    def too_many(self) -> LimitExceeded:
        assert self.limits is not None
        return LimitExceeded(
            self.layer, f"with it the image has more than {self.limits.entries} entries", self.shown()
        )

    # -- the loop --

    def run(self, records: Records) -> int:
        """Apply every member; returns how many there were."""
        tree, layer, own, privileged = self.tree, self.layer, self.own, self.privileged
        opened, close, chmod, utime = os.open, os.close, os.chmod, os.utime
        described = self.policy.layering.described
        entries, most = 0, self.room()
        at = tree.root
        before: bytes | None = None
        changes = 0
        while (member := records.next()) is not None:
            entries += 1
            tree.member, tree.entries = member.name, entries
            if entries > most:
                raise self.too_many()
            # Most entries stand beside the one before: what was found out about their directory holds, as long
            # as it is open and no directory or link was replaced.
            head, _, name = member.name.rpartition(b"/")
            if head != before or not name or name[0] == 0x2E or at.fd < 0 or tree.changes != changes:
                before, last = None, name
                parent, name = split(member.name, layer)
                if name[:4] == b".wh." or in_meta(parent):
                    if parent != HELD or member.type != FILE:
                        self._mark(parent, name)
                        continue
                    self.held, last = True, b""
                if not name:
                    self._top(member)
                    continue
                at, changes = tree.need(parent), tree.changes
                most = self.room()
                if name == last:  # else there was a slash at the end
                    before = head
            kind = member.type
            if kind == FILE:
                try:
                    fd = opened(name, CREATE, 0o600, dir_fd=at.fd)
                except FileExistsError:
                    tree.replace(at, name)
                    fd = opened(name, CREATE, 0o600, dir_fd=at.fd)
                try:
                    if at.inherits:
                        forget_acls(fd)
                    records.copy(fd)
                    # Owner before mode: chown clears setuid and setgid (and file capabilities).
                    if not privileged:
                        if member.uid or member.gid:
                            self._write_down_owner(fd, member)
                    elif (member.uid, member.gid) != at.gives:
                        self._own(fd, at, member)
                    if member.xattrs:
                        self._xattrs(fd, member.xattrs)
                    chmod(fd, member.mode if privileged else member.mode & 0o1777)
                    utime(fd, ns=(member.mtime, member.mtime))
                finally:
                    close(fd)
            elif kind == DIRECTORY:
                tree.directory(at, name, member)
            else:
                self._makers[kind](at, name, member)
            if own is not None:
                real = at.real + b"/" + name
                own.add(hash(real))
                if kind == DIRECTORY:
                    described(real)
        if entries > self.room():
            raise self.too_many()
        return entries

    def _is_own(self, real: bytes) -> bool:
        return self.own is None or hash(real) in self.own

    def _mark(self, parent: bytes, name: bytes) -> None:
        found = marker(parent, name, self.layer)
        if self.own is None or isinstance(found, Nothing):
            return
        if isinstance(found, Opaque):
            self.policy.layering.opaque(self.tree, parent, self._is_own)
        else:
            self.policy.layering.whiteout(self.tree, parent, name[4:], self._is_own)

    def _top(self, member: Member) -> None:
        if member.type != DIRECTORY:
            raise UnsafeEntry(self.layer, self.shown(), "it would replace the root itself")
        self.tree.root.entry = member
        self.policy.layering.described(b"")

    # -- entries that are neither files nor directories --

    def _room(self, at: Directory, name: bytes, make: Callable[[], None]) -> None:
        """``make`` the entry, removing first what stands in its place."""
        try:
            make()
        except FileExistsError:
            self.tree.replace(at, name)
            make()

    def _symlink(self, at: Directory, name: bytes, member: Member) -> None:
        if not member.link:
            raise LayerError(self.layer, self.shown(), "a symlink to nothing")
        self._room(at, name, lambda: links.symlink(member.link, name, at.fd))
        if not self.privileged:
            self.disowned += bool(member.uid or member.gid)
        else:
            if (member.uid, member.gid) != at.gives:
                os.chown(name, member.uid, member.gid, dir_fd=at.fd, follow_symlinks=False)
            if member.xattrs:
                self._link_xattrs(at, name, member.xattrs)
        links.set_times(name, member.mtime, member.mtime, at.fd)

    def _hardlink(self, at: Directory, name: bytes, member: Member) -> None:
        """Make a further name of a file of this tree; owner, mode and times are the file's."""
        above, last = target(member.link, self.layer, member.name)

        def make() -> None:
            source = self.tree.also(at, above) if last else None
            if source is None:
                raise self._no_target(member)
            try:
                info = os.stat(last, dir_fd=source.fd, follow_symlinks=False)
            except FileNotFoundError:
                if not self.policy.layering.bring_target(source, last):
                    raise
                info = os.stat(last, dir_fd=source.fd, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            # Making room for the name itself would remove what it names.
            if source.real != at.real or last != name:
                links.link(last, name, source.fd, at.fd)

        try:
            self._room(at, name, make)
        except FileNotFoundError:
            raise self._no_target(member) from None
        except PermissionError as error:
            raise LayerError(
                self.layer, self.shown(), f"a hardlink that can't be made: {error.strerror}"
            ) from error

    def _no_target(self, member: Member) -> LayerError:
        return LayerError(
            self.layer, self.shown(), f"a hardlink to {os.fsdecode(member.link)!r}, which isn't there"
        )

    def _device(self, at: Directory, name: bytes, member: Member) -> None:
        # 0:0 is a whiteout to overlay mounts: no directory that they stack can hold it as a device.
        whiteout = member.type == CHARACTER and not member.major and not member.minor
        if self.privileged and hasattr(os, "mknod") and not whiteout:
            try:
                self._special(at, name, member)
                return
            except PermissionError:  # a user namespace, or a container without the capability
                pass
        self.tree.remove(at, name)
        self.replaced(at.real + b"/" + name)
        if self.own is not None:
            self.policy.layering.whiteout(self.tree, at.real[1:], name, self._is_own)
        self.skipped += 1

    def _special(self, at: Directory, name: bytes, member: Member) -> None:
        kind = _KINDS[member.type]
        number = 0 if member.type == FIFO else os.makedev(member.major, member.minor)
        self._room(at, name, lambda: os.mknod(name, kind | 0o600, number, dir_fd=at.fd))
        if self.privileged:
            os.chown(name, member.uid, member.gid, dir_fd=at.fd, follow_symlinks=False)
        else:
            self.disowned += bool(member.uid or member.gid)
        if at.inherits:
            forget_acls(b"/proc/self/fd/%d/%s" % (at.fd, name))
        # Opening a device or FIFO has effects, and chmod by name follows links: hold it without opening it.
        fd = os.open(name, PATH_ONLY, dir_fd=at.fd)
        try:
            if stat.S_IFMT(os.fstat(fd).st_mode) == kind:
                os.chmod(f"/proc/self/fd/{fd}", self.policy.file_mode(member.mode))
        finally:
            os.close(fd)
        links.set_times(name, member.mtime, member.mtime, at.fd)

    # -- metadata --

    def _own(self, fd: int, at: Directory, member: Member) -> None:
        """Give a new file its owner, unless it has it: most files are root's, and so is what root makes.

        What a new file in ``at`` gets is looked at, for mounts and setgid directories have a say in it; once.
        """
        if not hasattr(os, "fchown"):
            return
        if at.gives is None:
            made = os.fstat(fd)
            at.gives = made.st_uid, made.st_gid
        if (member.uid, member.gid) != at.gives:
            os.fchown(fd, member.uid, member.gid)

    def _write_down_owner(self, fd: int, member: Member) -> None:
        try:
            os.setxattr(fd, ATTRIBUTE, encode_owner(member.uid, member.gid))
        except AttributeError:  # a system without them
            self.disowned += 1
        except OSError as error:
            if error.errno not in XATTR_REFUSED:
                raise
            self.disowned += 1

    def entry(self, fd: int, member: Member, merged: bool) -> None:
        """Settle the directory of an entry (called when its descriptor is let go)."""
        if self.privileged:
            os.fchown(fd, member.uid, member.gid)
        if merged and hasattr(os, "listxattr"):
            self._drop_xattrs(fd, member.xattrs or {})
        if member.xattrs:
            self._xattrs(fd, member.xattrs)
        if not self.privileged and (member.uid or member.gid):
            self._write_down_owner(fd, member)
        os.chmod(fd, self.policy.directory_mode(member.mode))
        os.utime(fd, ns=(member.mtime, member.mtime))

    def implied(self, fd: int) -> None:
        """A directory that no entry describes: root's, 0755."""
        if self.privileged:
            os.fchown(fd, 0, 0)
        if hasattr(
            os, "listxattr"
        ):  # one that was hidden but for what is in it has those of the layers beneath
            self._drop_xattrs(fd, {})
        os.chmod(fd, 0o755)

    def bring_up(self, at: Directory, name: bytes, create: bool) -> bool:
        return self.policy.layering.bring_up(at, name, create)

    def replaced(self, real: bytes) -> None:
        self.policy.layering.replaced(real)

    def _drop_xattrs(self, fd: int, but: Mapping[bytes, bytes]) -> None:
        """The attributes of the directory beneath are not this layer's."""
        try:
            for name in os.listxattr(fd):
                raw = os.fsencode(name)
                kept = self.policy.keeps_xattr(raw) or (raw == ATTRIBUTE and not self.privileged)
                if kept and raw not in but:
                    os.removexattr(fd, name)
        except OSError:
            pass  # the file system has none, or keeps its own

    def _xattrs(self, target: int | bytes, xattrs: dict[bytes, bytes], follow: bool = True) -> None:
        if not hasattr(os, "setxattr"):
            return
        for name, value in xattrs.items():
            if not self.policy.keeps_xattr(name):
                continue
            try:
                os.setxattr(target, name, value, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in XATTR_REFUSED:
                    raise

    def _link_xattrs(self, at: Directory, name: bytes, xattrs: dict[bytes, bytes]) -> None:
        # There is no call for a name in a directory; the one component after the descriptor isn't followed.
        self._xattrs(b"/proc/self/fd/%d/%s" % (at.fd, name), xattrs, follow=False)
