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

    @property
    def function(self) -> str:
        """The suffix of the functions that configure and run it."""
        return self.name.replace("-", "_").replace(" ", "_")


GROUPS = {
    "move": "Move images",
    "look": "Look at a registry or an image",
    "store": "Work on the local store",
}

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
    Command("images", "store", "list the images of the store", "images"),
    Command("rmi", "store", "forget images; gc frees their content", "images"),
    Command("list", "store", "list blobs", "blobs", ("ls",)),
    Command("ingest", "store", "stdin into the store, resumable by key", "blobs"),
    Command("active", "store", "list ingests under way", "blobs"),
    Command("get", "store", "write a blob to stdout", "blobs"),
    Command("path", "store", "print where blobs lie", "blobs"),
    Command("label", "store", "show or set labels of a blob", "blobs"),
    Command("delete", "store", "delete blobs", "blobs", ("del", "remove", "rm")),
    Command("rootfs unpack", "store", "layers of a manifest into snapshots", "rootfs"),
    Command("apply", "store", "a layer from stdin onto a directory", "rootfs"),
    Command("gc", "store", "remove what no image and no lease holds", "images"),
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
