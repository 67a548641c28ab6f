"""What completion offers at the end of a command line: commands, options, and names from the store that the line names.

The scripts of ``completion`` ask for it and put what they get into the line, quoted: names come from registries and
other people's stores, and no shell may evaluate one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterable, Mapping

from ocidist.cli.commands import COMMANDS, Command, find
from ocidist.cli.options import Parser
from ocidist.errors import OcidistError

if TYPE_CHECKING:
    from ocidist.stores.store import Store

__all__ = ["FILES", "Line", "Offers", "offers", "read"]

_PATHS = ("PATH", "FILE", "DIR", "TARGET")
_LOCATORS = ("resolve", "inspect", "manifest", "fetch-object", "bundle")
"""Commands that take ``store:REF``."""


@dataclass
class Line:
    """The command that the cursor is in, as the shell would pass it, up to the cursor."""

    words: list[str] = field(default_factory=list)
    """Whole words before the one that is being typed."""
    current: str = ""
    """The word that is being typed, "" for a new one."""
    quote: str = ""
    """The quote that is open in it."""
    into_file: bool = False
    """It is where output is redirected to."""


@dataclass(frozen=True)
class Offers:
    """Words that may stand in the place of the current one, each with a description or "".

    ``files``: any file may; the shell knows them.
    """

    words: tuple[tuple[str, str], ...] = ()
    files: bool = False


FILES = Offers(files=True)


# -- the line --


def read(text: str, variables: Mapping[str, str] | None = None) -> Line:
    """The last command of ``text``, its quotes and backslashes taken away, and ``$NAME`` replaced where ``variables``
    has it. Nothing else is expanded, and nothing is run."""
    reader = _Reader(text, variables or {})
    while reader.at < len(text):
        reader.step()
    line = reader.line
    return Line(line.words, "".join(reader.word or ()), reader.quote, line.into_file)


class _Reader:
    """As POSIX, "Token Recognition" and "Quoting", as far as a completion needs it."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self.text, self.variables = text, variables
        self.at, self.quote = 0, ""
        self.word: list[str] | None = None
        self.line = Line()

    def step(self) -> None:
        char = self.text[self.at]
        self.at += 1
        if self.quote == "'" and char != "'":
            self._add(char)
        elif char == self.quote:
            self.quote = ""
        elif char == "\\":
            self._escaped()
        elif char == "$":
            self._variable()
        elif self.quote:
            self._add(char)
        elif char in "'\"":
            self.quote = char
            self._add("")
        elif char in " \t":
            self._end_word()
        elif char in "<>":
            self._end_word()
            self.line.into_file = True
        elif char in ";|&()`\n":
            self.line, self.word = Line(), None
        else:
            self._add(char)

    def _add(self, text: str) -> None:
        self.word = [*(self.word or ()), text]

    def _escaped(self) -> None:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char != "\n":
            self._add(char if not self.quote or char in '$`"\\' else f"\\{char}")

    def _variable(self) -> None:
        start = self.at + (self.text[self.at : self.at + 1] == "{")
        end = start
        while end < len(self.text) and (
            (self.text[end].isascii() and self.text[end].isalnum()) or self.text[end] == "_"
        ):
            end += 1
        value = self.variables.get(self.text[start:end])
        closed = start == self.at or self.text[end : end + 1] == "}"
        if value is None or not closed:
            self._add("$")
            return
        self._add(value)
        self.at = end + (start != self.at)

    def _end_word(self) -> None:
        if self.word is None:
            return
        if self.line.into_file:
            self.line.into_file = False
        else:
            self.line.words.append("".join(self.word))
        self.word = None


# -- what may stand there --


def offers(line: Line, open_store: Callable[[str | None], Store], home: str = "") -> Offers:
    """What may follow. ``open_store`` gets the root that the line names, or None."""
    program = next(
        (at for at, word in enumerate(line.words) if word.rpartition("/")[2].startswith("ocidist")), None
    )
    if program is None:
        return Offers()
    if line.into_file:
        return FILES
    words = line.words[program + 1 :]
    root = _root(line.words[:program], words)
    if root is not None and root.startswith("~/") and home:
        root = home + root[1:]
    return _matching(_command(words, line.current, lambda: open_store(root)), line.current)


def _matching(found: Offers, current: str) -> Offers:
    """Those that begin as the current word does. What doesn't print is left out, and so is what a program would take
    for an option, unless one is asked for."""
    kept = dict.fromkeys(
        (word, about)
        for word, about in found.words
        if word.startswith(current)
        and word.isprintable()
        and (not word.startswith("-") or current.startswith("-"))
    )
    return Offers(tuple(kept), found.files)


def _root(before: list[str], words: list[str]) -> str | None:
    """The store's root as the line names it: by --root, else by a variable before the program's name."""
    found = None
    for word in before:
        if word.startswith("OCIDIST_ROOT="):
            found = word.partition("=")[2]
    for at, word in enumerate(words):
        if word == "--":
            break
        if word == "--root" and at + 1 < len(words):
            found = words[at + 1]
        elif word.startswith("--root="):
            found = word.partition("=")[2]
    return found or None


def _command(words: list[str], current: str, store: Callable[[], Store]) -> Offers:
    from ocidist.cli.main import build, global_parser

    top = global_parser()
    _, rest, waiting = _walk(top, words, most=0)
    if waiting is not None:
        return _values(waiting)
    if not rest:
        return _options(top, current) if current.startswith("-") else Offers(_verbs())
    if rest[0] == "help":
        return Offers(_verbs() if len(rest) == 1 else _subcommands(rest[1]))
    command, tail = find(rest)
    if command is None:
        return Offers(_subcommands(rest[0]) if len(rest) == 1 else ())
    parser = build(command)
    if "--" in tail and isinstance(parser, Parser) and parser.behind:
        return FILES
    given, _, waiting = _walk(parser, tail)
    if waiting is not None:
        return _values(waiting)
    if current.startswith("-") and "--" not in tail:
        return _options(parser, current)
    action = _positional(parser, len(given))
    return Offers() if action is None else _arguments(command, action, current, store)


def _walk(
    parser: argparse.ArgumentParser, words: list[str], most: int | None = None
) -> tuple[list[str], list[str], argparse.Action | None]:
    """The positional words, at most so many; what follows them; the option whose value is awaited behind all."""
    takes = {
        name: action for action in parser._actions if action.nargs is None for name in action.option_strings
    }
    given: list[str] = []
    at, options = 0, True
    while at < len(words):
        word = words[at]
        if options and word == "--":
            options = False
        elif options and word.startswith("-") and word != "-":
            if word in takes:
                at += 1
                if at == len(words):
                    return given, [], takes[word]
        elif most is not None and len(given) == most:
            return given, words[at:], None
        else:
            given.append(word)
        at += 1
    return given, [], None


def _verbs() -> tuple[tuple[str, str], ...]:
    found = {"help": "tell about a command", "rootfs": "trees of images, and what changed in them"}
    for command in COMMANDS:
        for name in (command.name, *command.aliases):
            found.setdefault(name.split()[0], command.summary)
    return tuple(sorted(found.items()))


def _subcommands(verb: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (command.name.split()[1], command.summary)
        for command in COMMANDS
        if command.name.startswith(f"{verb} ")
    )


def _values(action: argparse.Action) -> Offers:
    """Of an option that is followed by one."""
    if action.choices:
        return Offers(tuple((str(choice), "") for choice in action.choices))
    return FILES if action.metavar in _PATHS else Offers()


def _options(parser: argparse.ArgumentParser, current: str) -> Offers:
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    name, equals, _ = current.partition("=")
    if equals:
        action = next((action for action in shown if name in action.option_strings), None)
        found = Offers() if action is None or action.nargs is not None else _values(action)
        return Offers(tuple((f"{name}={word}", about) for word, about in found.words), found.files)
    return Offers(
        tuple(
            (name, action.help or "")
            for action in shown
            for name in action.option_strings
            if name[:2] == "--"
        )
    )


def _positional(parser: argparse.ArgumentParser, number: int) -> argparse.Action | None:
    """The argument that is the ``number``-th word; the last one may take several."""
    actions = [action for action in parser._actions if not action.option_strings]
    if number < len(actions):
        return actions[number]
    return actions[-1] if actions and actions[-1].nargs in ("*", "+") else None


def _arguments(command: Command, action: argparse.Action, current: str, store: Callable[[], Store]) -> Offers:
    if action.choices:
        return _values(action)
    files = action.metavar in _PATHS or action.dest == "trees"
    try:
        names = list(_names(command.name, action.dest, current, store))
    except OcidistError:  # no store there, or one that can't be read: the command says so
        names = []
    return Offers(tuple((name, "") for name in sorted(names)), files)


def _names(verb: str, dest: str, current: str, store: Callable[[], Store]) -> Iterable[str]:
    """Names of the store that an argument can be."""
    if dest in ("ref", "refs", "remote") or (verb, dest) == ("rootfs unpack", "digest"):
        names = [name for record in store().image_records() for name in _spellings(record.name, current)]
        yield from names
        if verb in _LOCATORS and current and ("store:".startswith(current) or current.startswith("store:")):
            short = current[len("store:") :]
            for record in store().image_records():
                yield from (f"store:{name}" for name in _spellings(record.name, short))
    if dest in ("digest", "digests", "prefixes"):
        yield from (str(info.digest) for info in store().content.walk())
    if (dest in ("chain", "key", "keys", "trees") and verb.startswith("rootfs ")) or verb == "path":
        kinds = {
            "rootfs commit": ("active",),
            "rootfs prepare": ("committed",),
            "rootfs view": ("committed",),
        }
        wanted = ("committed",) if verb == "path" else kinds.get(verb, ("committed", "active", "view"))
        yield from (info.key for info in store().snapshots.walk() if info.kind in wanted)
    elif dest in ("key", "keys"):
        yield from (status.key for status in store().content.statuses(()))


def _spellings(name: str, current: str) -> Iterable[str]:
    """The name, and its short form where that is what is being typed."""
    from ocidist.spec.reference import Reference

    yield name
    if current:
        try:
            yield Reference.parse(name).familiar
        except OcidistError:  # of another kind of remote
            pass
