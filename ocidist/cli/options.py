"""The global options, and how their values read."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from ocidist.errors import UsageError

__all__ = ["Parser", "add_global", "add_no_limits", "duration", "parser_for", "quick_formatter"]

PROGRESS = ("auto", "bar", "plain", "json", "none")
EVERY = "Every command also takes the options that `ocidist --help` lists."
FORMATS = ("table", "json", "jsonl", "csv")


class Parser(argparse.ArgumentParser):
    """argparse's, with every refusal as one line: the usage is what ``--help`` is for."""

    shared: tuple[argparse.Action, ...] = ()
    """Options that are taken and completed, but not shown by this parser's help."""

    behind = ""
    """Where the words behind ``--`` go, untouched, for another program; without one argparse takes them."""

    def format_help(self) -> str:
        """Its own arguments and options; of the shared ones, where they are explained."""
        if not self.shared:
            return super().format_help()
        kept = [(action, action.help) for action in self.shared]
        for action in self.shared:
            action.help = argparse.SUPPRESS
        try:
            text = super().format_help()
        finally:
            for action, said in kept:
                action.help = said
        return f"{text}\n{EVERY}\n"

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        verb = self.prog.removeprefix("ocidist").strip()
        if self.behind and message.startswith("unrecognized arguments"):
            message += " (words for the container go behind --)"
        raise UsageError(f"{verb}: {message}; {self.prog} --help tells more" if verb else message)


LONGEST = 8760 * 3600.0
"""Seconds."""


def duration(text: str) -> float:
    """``500ms``, ``30s``, ``1m30s``, ``2h``, or seconds, as seconds. Raises ArgumentTypeError."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    total, rest = 0.0, text.strip().lower()
    if not rest:
        raise argparse.ArgumentTypeError("an empty duration; write 30s, 1m30s, 500ms or 2h")
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:digits], rest[digits:]
        unit = "ms" if rest.startswith("ms") else rest[:1]
        if not _is_number(number) or (unit and unit not in units):
            raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 30s, 1m30s, 500ms or 2h")
        total += float(number) * units[unit or "s"]
        rest = rest[len(unit) :]
    if total <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not longer than 0; write 30s, 1m30s, 500ms or 2h")
    if total > LONGEST:  # system calls take no more than some hundred years
        raise argparse.ArgumentTypeError("a duration is at most a year (8760h)")
    return total


def _is_number(text: str) -> bool:
    return text.count(".") <= 1 and text.replace(".", "").isascii() and text.replace(".", "").isdigit()


def add_global(parser: argparse.ArgumentParser, *, top: bool) -> None:
    """The global options, last. After the command they have no defaults, so that those before it stay."""

    def add(*names: str, default: Any = None, **options: Any) -> None:
        free = [name for name in names if name not in parser._option_string_actions]
        if free:  # a command may have another use for one: bundle's -u
            parser_group.add_argument(*free, default=default if top else argparse.SUPPRESS, **options)

    parser_group = parser.add_argument_group("options of every command")
    add(
        "--root",
        metavar="PATH",
        type=not_empty,
        help="where content, names and snapshots live ($OCIDIST_ROOT)",
    )
    add(
        "--snapshotter",
        metavar="NAME",
        help="how a new root keeps trees: native (copies) or overlay (layers to mount)",
    )
    add(
        "--shared",
        action="store_true",
        default=False,
        help="make a new root whose blobs and names other users may read",
    )
    add("--timeout", metavar="DUR", type=duration, help="time for the whole command (30s, 1m30s, 2h)")
    add("--connect-timeout", metavar="DUR", type=duration, default=30.0, help="time for one connection (30s)")
    add(
        "--format",
        choices=FORMATS,
        default="table",
        help="how listings print (table); csv has ' before what a spreadsheet would run",
    )
    add("--progress", choices=PROGRESS, default="auto", help="progress on stderr (auto)")
    add("--platform", metavar="OS/ARCH[/VARIANT]", help='which image of an index, or "all"')
    add("-u", "--user", metavar="USER[:PASS]", help="credentials for this command")
    add("--refresh", metavar="TOKEN", help="an identity token instead of a password")
    add("--plain-http", action="store_true", default=False, help="speak http to this registry")
    add("-k", "--insecure", action="store_true", default=False, help="don't check certificates")
    add("--ca-cert", metavar="FILE", type=not_empty, help="trust these certificates too (PEM)")
    add(
        "--hosts-dir",
        metavar="DIR",
        action="append",
        help="where HOST/hosts.toml names mirrors ($OCIDIST_HOSTS_DIR)",
    )
    add(
        "--cassette",
        metavar="PATH",
        type=not_empty,
        help='replay recorded exchanges, no network ("demo" comes along)',
    )
    add(
        "--record",
        metavar="PATH",
        type=not_empty,
        help="record this run: a new .json, or a folder that each run adds to",
    )
    add("--trace", metavar="FILE", type=not_empty, help="write the exchanges as FILE.har or FILE.jsonl")
    add("--debug", action="store_true", default=False, help="debug lines on stderr")
    add("--connect-to", metavar="HOST:PORT=ADDR:PORT", action="append", help=argparse.SUPPRESS)
    parser.formatter_class = argparse.HelpFormatter
    if not top and isinstance(parser, Parser):
        parser.shared = tuple(parser_group._group_actions)


def parser_for(name: str, summary: str, about: str = "") -> Parser:
    """The parser of one command, without the global options yet."""
    description = about or f"{summary[0].upper()}{summary[1:]}."
    return Parser(
        prog=f"ocidist {name}", description=description, allow_abbrev=False, formatter_class=quick_formatter
    )


def add_no_limits(parser: argparse.ArgumentParser) -> None:
    """For the commands that unpack."""
    parser.add_argument(
        "--no-limits",
        action="store_true",
        help="unpack whatever it takes: layers, entries, expansion, steps, the last room on the disk",
    )


def not_empty(text: str) -> str:
    """``text``, unless it is empty: that is a variable of a script which was not set, and would mean another place."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def quick_formatter(prog: str) -> argparse.HelpFormatter:
    """For the making of a parser alone: argparse tries each option's help with a formatter, and the usual one
    loads shutil to ask for the terminal's width. :func:`add_global` puts the usual one back."""
    return argparse.HelpFormatter(prog, width=80)
