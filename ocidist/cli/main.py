"""``ocidist`` and ``python -m ocidist``: from words to a command, and from errors to exit codes.

Exit: 0; 1 an error, one line on stderr; 2 usage; 129 hung up; 130 interrupted; 143 terminated. A closed pipe is no error.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from itertools import pairwise
from typing import NoReturn, Sequence

from ocidist.cli.commands import COMMANDS, GROUPS, Command, find
from ocidist.cli.options import Parser, add_global, parser_for, quick_formatter
from ocidist.cli.streams import StreamError, let_go_of_stdout, say, set_up, speak_json
from ocidist.errors import OcidistError, UsageError

__all__ = ["build", "console", "global_parser", "main"]

EXITS = "Exit codes: 0 done; 1 an error, in one line; 2 usage; 129 hung up; 130 interrupted; 143 terminated."
_SIGNALS = {"SIGTERM": "terminated", "SIGHUP": "hung up"}


class _Signalled(KeyboardInterrupt):
    """SIGTERM, or a terminal that was closed: ends everything as Ctrl-C does, so that what was transferred is kept.
    The arguments are a word for it and the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    speak_json(_wants_json(words))
    try:
        try:
            code = _run(words)
        except (Exception, KeyboardInterrupt):
            _fail_in_shell(words)
            raise
        except SystemExit as end:  # argparse, once it has printed a command's help
            code = end.code if isinstance(end.code, int) else 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as end:
        return _end(end)
    except BrokenPipeError:
        let_go_of_stdout()
        return 0
    except UsageError as error:
        return _complain(error, 2)
    except OcidistError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            let_go_of_stdout()
            return 0
        if isinstance(error, StreamError):
            let_go_of_stdout()
        return _complain(error, 1)
    except FileNotFoundError:
        if _has_working_directory():
            raise
        return _complain(
            OcidistError(
                "the working directory was removed; change to one that is there, or write whole paths"
            ),
            1,
        )
    except RecursionError:
        return _complain(OcidistError("a document is nested too deeply to be read"), 1)
    except RuntimeError as error:
        # Before Python 3.12 so comes what ends the making of a class, as in an import.
        if isinstance(error.__cause__, KeyboardInterrupt):
            return _end(error.__cause__)
        raise


def _has_working_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def console() -> NoReturn:
    """The console script: as :func:`main`, and the process ends, whatever worker is still in a system call."""
    gc.set_threshold(50_000)  # what is loaded stays, so looking for cycles in it is in vain
    set_up()
    _take_signals()
    try:
        code = main()
    except KeyboardInterrupt:  # a second one, while the first was being told
        code = 130
    _ignore_sigint()
    try:
        sys.stdout.flush()
    except (OSError, OcidistError, ValueError):  # after an error that has been told
        let_go_of_stdout()
    sys.stderr.flush()
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        # Workers that have not seen the end yet: tearing the interpreter down under them takes its time.
        os._exit(code)
    gc.freeze()  # and in vain at the end as well: a tenth of what a short command takes
    sys.exit(code)


def _take_signals() -> None:
    import signal

    def end(number: int, _: object) -> NoReturn:
        raise _Signalled(_SIGNALS[signal.Signals(number).name], 128 + number)

    for name in _SIGNALS:
        try:
            number = getattr(signal, name)
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                signal.signal(number, end)
        except (ValueError, AttributeError):  # not the main thread, or a system without it
            pass


def _ignore_sigint() -> None:
    import signal

    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except (ValueError, AttributeError):
        pass


def _run(words: list[str]) -> int:
    parser = global_parser()
    front, rest = _split(parser, words)
    options = parser.parse_args(front)
    if options.version:
        return _version()
    if rest[:1] == ["version"]:
        return _version()
    if rest[:1] == ["help"]:
        options.help, rest = True, rest[1:]
    command, tail = find(rest)
    if options.help or command is None:
        return _help_or_complain(options.help, command, rest)
    parser = build(command)
    if isinstance(parser, Parser) and parser.behind:
        tail, behind = _split_behind(tail)
        setattr(options, parser.behind, behind)
    parser.parse_args(tail, namespace=options)
    from ocidist.cli.context import Context

    module = importlib.import_module(f"ocidist.cli.{command.module}")
    with Context(options) as context:
        code: int | None = getattr(module, f"run_{command.function}")(options, context)
    return code or 0


def _fail_in_shell(words: list[str]) -> None:
    """``sh -c "$(ocidist …)"`` of a command that prints nothing would succeed: it gets a line that fails."""
    pairs = list(pairwise(words))
    formats = [second for first, second in pairs if first == "--format"]
    formats += [word[9:] for word in words if word.startswith("--format=")]
    asked = any(" ".join(pair) == command.name for pair in pairs for command in COMMANDS if command.for_shell)
    if asked and set(formats) <= {"table"} and not sys.stdout.isatty():
        try:
            sys.stdout.write("false\n")
            sys.stdout.flush()
        except OSError:  # nobody reads it
            pass


def build(command: Command) -> argparse.ArgumentParser:
    """The parser of one command, global options included."""
    module = importlib.import_module(f"ocidist.cli.{command.module}")
    parser = parser_for(command.name, command.summary, command.about)
    getattr(module, f"configure_{command.function}")(parser)
    add_global(parser, top=False)
    return parser


def global_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ocidist", add_help=False, allow_abbrev=False, formatter_class=quick_formatter)
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("-h", "--help", action="store_true", help="this help; COMMAND --help for one command")
    add_global(parser, top=True)
    return parser


def _split(parser: argparse.ArgumentParser, words: list[str]) -> tuple[list[str], list[str]]:
    """The global options in front, and everything from the command on."""
    takes_value = {
        name for action in parser._actions if action.nargs is None for name in action.option_strings
    }
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return words[:at], words[at + 1 :]
        at += 2 if words[at] in takes_value else 1
    return words[:at], words[at:]


def _split_behind(words: list[str]) -> tuple[list[str], list[str] | None]:
    """The command's own words, and those behind ``--``: None without one."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :] if at < len(words) else None


def _help_or_complain(asked: bool, command: Command | None, rest: list[str]) -> int:
    if command is not None:
        build(command).print_help()
        return 0
    if not rest or (asked and rest[0].startswith("-")):
        sys.stdout.write(_overview())
        return 0 if asked else 2
    verb = rest[0]
    if parts := [entry for entry in COMMANDS if entry.name.startswith(f"{verb} ")]:
        return _help_of_group(verb, parts, asked or {"-h", "--help"}.intersection(rest) != set())
    import difflib

    names = [name for entry in COMMANDS for name in (entry.name, *entry.aliases)]
    close = difflib.get_close_matches(verb, names, 1)
    meant = f"; did you mean {close[0]}?" if close else "; ocidist --help lists them"
    raise UsageError(f"no command {verb!r}{meant}")


def _help_of_group(verb: str, parts: list[Command], asked: bool) -> int:
    """``rootfs --help``: the commands of two words that start so."""
    if not asked:
        raise UsageError(
            f"{verb} needs one of its commands; write {verb} {'|'.join(entry.name.split()[1] for entry in parts)}"
        )
    lines = [f"  {entry.name}  {entry.summary}\n" for entry in parts]
    sys.stdout.write(f"usage: ocidist {verb} COMMAND …\n\n{''.join(lines)}")
    return 0


def _overview() -> str:
    lines = ["usage: ocidist [OPTIONS] COMMAND …", ""]
    width = max(len(command.name) for command in COMMANDS)
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {c.name:<{width}}  {c.summary}" for c in COMMANDS if c.group == group]
        lines.append("")
    options = global_parser().format_help().split("options of every command:\n", 1)[1]
    lines += ["Options, before the command or after it:", options.rstrip()]
    lines += [
        "  -h, --help            this help, or that of the command",
        "  --version             print the version",
        "",
    ]
    lines += ["ocidist help COMMAND, or COMMAND --help, tells about one command.", EXITS]
    return "\n".join(lines) + "\n"


def _version() -> int:
    import ocidist

    sys.stdout.write(f"ocidist {ocidist.__version__}\n")
    return 0


def _complain(error: BaseException, code: int) -> int:
    say(str(error), "error", code=code)
    return code


def _end(end: KeyboardInterrupt) -> int:
    how, code = end.args if isinstance(end, _Signalled) else ("interrupted", 130)
    say(f"{how}; run it again to go on", how, code=code)
    return int(code)


def _wants_json(words: list[str]) -> bool:
    """Whether ``--progress json`` is among the words, also where the rest of them can't be read."""
    front = words[: words.index("--")] if "--" in words else words
    return "--progress=json" in front or ("--progress", "json") in pairwise(front)
