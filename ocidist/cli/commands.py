"""The commands, as data: what ``--help`` lists, and which module runs each. Nothing else is loaded for it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS", "GROUPS", "Command", "find"]


class Command(NamedTuple):
    """``module`` (under ``ocidist.cli``) has ``configure_NAME(parser)`` and ``run_NAME(args, context)``,
    with spaces and hyphens of the name as underscores."""

    name: str
    group: str
    summary: str
    module: str
    aliases: tuple[str, ...] = ()
    about: str = ""
    """What its ``--help`` says it is for, where the summary does not say it all."""
    for_shell: bool = False
    """Whether what it prints is for a shell to run, which must fail where the command does."""

    @property
    def function(self) -> str:
        """The suffix of the functions that configure and run it."""
        return self.name.replace("-", "_").replace(" ", "_")


GROUPS = {
    "move": "Move images",
    "look": "Look at a registry or an image",
    "store": "Work on the local store",
}

_INGEST = """\
Store all of stdin as a blob and print its digest. KEY names the ingest while it is under way: what arrived
before an error, or an interruption, is kept under it, and the next ingest with the same KEY goes on from there
(it is given the whole stream again, and writes what is not here yet). With --expected-digest content that is
here already is not read. A blob that no image names is held for 24 hours, then gc may take it.
"""
_ACTIVE = """\
List the ingests under way: downloads and `ingest`s of other processes as they grow, and what interrupted ones
left to be resumed. REF is the key: what `ingest KEY` is given to go on. SIZE is what has arrived so far, AGE the time
since the start, TOTAL the size when all is here, where it is known.
"""
_LABEL = """\
Show the labels of a blob, or set some and show all. Labels are notes kept beside a blob; those of containerd's
`containerd.io/gc.ref…` names make gc keep what they point to, and `containerd.io/distribution.source…` says
where the blob came from.
"""
_GC = """\
Remove blobs, trees and stale ingests that nothing holds: no image of `images`, no label, no lease. A fetch, an
ingest and an interrupted pull hold what they brought for 24 hours, so that they can be resumed; `rmi` lets go of
an image at once. Nothing else ever frees space.
"""
_CHECK = """\
Hash every blob of the store, and follow every name, label and tree to what it stands for. What is damaged or
missing is listed, and the exit code is 1. With --repair it is fetched again from the repositories that the blobs'
labels and the images' names tell, verified before it takes the damaged one's place, and missing trees are unpacked
again; what can't be had stays as it is, and is listed with the reason. Others may use the store meanwhile.

With --trees the files of unpacked trees are compared with what their layers say, byte by byte: a power cut may leave
some of them empty. Each tree is unpacked once more beside the others for that, and removed; --trees --repair puts what
is unpacked again in the place of a damaged tree, unless something that `rootfs prepare` made stands on it.
"""
_DU = """\
List where the disk went. DISK is what the file system has set aside, SIZE the bytes in files; a file with many
names counts once. Of an image, UNIQUE bytes are in blobs that no other image has (what `rmi` and `gc` would free),
SHARED in blobs that others have too. `image` and `unnamed` are parts of `content`, a `snapshot` is a tree.
"""
_APPLY = """\
Apply one layer, a tar of any compression from stdin, onto DIR as an image's layers are applied: whiteouts remove
what lower layers put there, and no entry reaches out of DIR. As root, owners, modes, devices and extended
attributes are as the layer has them. As an ordinary user the files are yours (their owners are
written beside them, as user.rootlesscontainers), set-user-id bits are left out, and devices are skipped and counted.
"""
_UNPACK = """\
Unpack the layers of an image of the store into a tree under the root and print its ChainID (`path CHAINID` tells
where it is; `pull` does all of this by itself). Layers that are unpacked already are not done again. As root,
owners, modes and devices are as the layers have them. As an ordinary user the files are yours, set-user-id bits
are left out, and devices are skipped.
"""
_PREPARE = """\
Make a snapshot over the unpacked image CHAINID, to be written in, and print the commands that mount it at TARGET, an
existing directory: `sh -c "$(ocidist rootfs prepare CHAINID TARGET)"` does it. The snapshot's key is TARGET made
absolute; there is one for each target. Called again with the same words, as after a reboot, it prints the commands
that mount what is there, with all that was written in it. Where it fails it prints `false` for the shell to fail by,
unless stdout is a terminal. `rootfs diff TARGET` tells what was changed in it.
"""
_VIEW = """\
As `rootfs prepare`, but nothing can be written: print the commands that mount the image CHAINID at TARGET read only.
"""
_DIFF = """\
List what makes UPPER of LOWER; without LOWER, what was changed in the snapshot UPPER since it was prepared. Each is a
snapshot's key, its target, or a directory. With -o the layer is written, gzip, that makes the same change to every
tree that it is applied to: the same bytes each time. No time in it is later than $SOURCE_DATE_EPOCH, if that is set.
"""
_COMMIT = """\
Keep what was changed in the snapshot KEY as a layer of the store, and the tree as a committed snapshot, which takes
its place. Prints the blob's digest, its DiffID, and the ChainID that is the new snapshot's key. Both are held for 24
hours if nothing names them. Unmount the snapshot first. No time in the layer is later than $SOURCE_DATE_EPOCH, if set.
"""
_ROOTFS_RM = """\
Drop snapshots, by their keys or targets, with all that was written in them. Unmount them first. One that others stand
on stays.
"""
_SNAPSHOTS = """\
List the snapshots of the store: unpacked images (committed, the key is the ChainID), and what `rootfs prepare` and
`rootfs view` made over them (active, view; the key is the target). SIZE is what each takes for itself.
"""

_BUNDLE = """\
Make DIR an OCI runtime bundle of an image of the store: rootfs, a copy of the image's tree to be written in, and
config.json, with the image's program, environment, user and working directory over runc's own defaults. Then
`runc run -b DIR NAME` runs it, and so does crun. DIR is for its owner alone. With --rootless an ordinary user can run
it: the container's root is that user, and further users are mapped where /etc/subuid has a range for them.
"""

_DOCTOR = """\
Look at what a pull depends on: root, space and locks, certificate authorities, proxies, where credentials come from,
mirrors, packages that help. With REF each step of a pull is then tried, at each host that answers for its registry:
name, connection, TLS, /v2/, token, manifest, the first bytes of a layer. What fails is explained, with the way out, and
the exit code is 1. No step takes longer than --connect-timeout. No secret is shown, nothing is stored.
"""

COMMANDS = (
    Command("pull", "move", "fetch an image, unpack it, and name it", "move"),
    Command("fetch", "move", "fetch all content of an image", "move"),
    Command("fetch-object", "move", "write one verified object to stdout", "move"),
    Command("login", "move", "check credentials and keep them", "account"),
    Command("logout", "move", "forget the credentials of a registry", "account"),
    Command("resolve", "look", "print what a reference stands for", "look"),
    Command("inspect", "look", "show manifest, config and sizes of an image", "look"),
    Command("manifest", "look", "write the exact bytes of a manifest", "look"),
    Command("tags", "look", "list the tags of a repository", "look"),
    Command("catalog", "look", "list the repositories of a registry", "look"),
    Command("doctor", "look", "find what stands in the way of a pull", "doctor", about=_DOCTOR),
    Command("images", "store", "list the images of the store", "images"),
    Command("rmi", "store", "forget images; gc frees their content", "images"),
    Command("list", "store", "list blobs", "blobs", ("ls",)),
    Command("ingest", "store", "stdin into the store, resumable by key", "blobs", about=_INGEST),
    Command("active", "store", "list ingests under way", "blobs", about=_ACTIVE),
    Command("get", "store", "write a blob to stdout", "blobs"),
    Command("path", "store", "print where blobs lie", "blobs"),
    Command("label", "store", "show or set labels of a blob", "blobs", about=_LABEL),
    Command("delete", "store", "delete blobs", "blobs", ("del", "remove", "rm")),
    Command("bundle", "store", "an OCI runtime bundle that runc and crun run", "bundle", about=_BUNDLE),
    Command("rootfs unpack", "store", "layers of a manifest into snapshots", "rootfs", about=_UNPACK),
    Command(
        "rootfs prepare",
        "store",
        "a tree to write in, and how to mount it",
        "rootfs",
        about=_PREPARE,
        for_shell=True,
    ),
    Command(
        "rootfs view", "store", "a tree to read, and how to mount it", "rootfs", about=_VIEW, for_shell=True
    ),
    Command("rootfs diff", "store", "what changed between two trees", "rootfs", about=_DIFF),
    Command("rootfs commit", "store", "keep what changed as a layer", "rootfs", about=_COMMIT),
    Command("rootfs rm", "store", "drop snapshots", "rootfs", about=_ROOTFS_RM),
    Command("snapshots", "store", "list snapshots", "rootfs", about=_SNAPSHOTS),
    Command("apply", "store", "a layer from stdin onto a directory", "rootfs", about=_APPLY),
    Command("gc", "store", "remove what no image and no lease holds", "images", about=_GC),
    Command("check", "store", "hash everything, report damage, repair it", "upkeep", about=_CHECK),
    Command("du", "store", "list where the disk went", "upkeep", about=_DU),
    Command("completion", "store", "print the completion script for a shell", "completion"),
)

_BY_NAME = {name: command for command in COMMANDS for name in (command.name, *command.aliases)}


def find(words: list[str]) -> tuple[Command | None, list[str]]:
    """The command that ``words`` start with, and the words after its name."""
    if len(words) > 1 and f"{words[0]} {words[1]}" in _BY_NAME:
        return _BY_NAME[f"{words[0]} {words[1]}"], words[2:]
    if words and words[0] in _BY_NAME:
        return _BY_NAME[words[0]], words[1:]
    return None, words
