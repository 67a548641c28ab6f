"""completion: scripts for bash, zsh and fish, made from the commands' own parsers."""

from __future__ import annotations

import argparse

from ocidist.cli.commands import COMMANDS, Command
from ocidist.cli.context import Context


def configure_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run_completion(args: argparse.Namespace, context: Context) -> None:
    context.line({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]())


def _options(name: str) -> list[str]:
    from ocidist.cli.main import build

    command = next(command for command in COMMANDS if command.name == name)
    return [
        option
        for action in build(command)._actions
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
        if option.startswith("--")
    ]


def _with_value() -> list[argparse.Action]:
    """The shared options that a value follows."""
    from ocidist.cli.main import build

    shared = set(_shared())
    return [
        action
        for action in build(COMMANDS[0])._actions
        if action.nargs is None and shared.intersection(action.option_strings)
    ]


def _values(action: argparse.Action) -> str:
    """What may follow the option, "" where that is free text or a path."""
    return " ".join(sorted(action.choices)) if action.choices else ""


def _verbs() -> list[str]:
    return sorted({name.split()[0] for command in COMMANDS for name in (command.name, *command.aliases)})


def _single() -> list[Command]:
    """Commands of one word."""
    return [command for command in COMMANDS if " " not in command.name]


def _rootfs() -> list[str]:
    """What may follow ``rootfs``."""
    shared = set(_shared())
    pairs = [command.name for command in COMMANDS if command.name.startswith("rootfs ")]
    options = {option for name in pairs for option in _options(name)} - shared
    return [*sorted(name.split()[1] for name in pairs), *sorted(options)]


def _shared() -> list[str]:
    """Options that every command takes."""
    sets = [set(_options(command.name)) for command in COMMANDS]
    return sorted(set.intersection(*sets))


def _summaries() -> list[tuple[str, str]]:
    """Each first word with what it does."""
    found = {command.name.split()[0]: command.summary for command in COMMANDS}
    return list({**found, "rootfs": "trees of images, and what changed in them"}.items())


def _bash() -> str:
    shared = set(_shared())
    cases = []
    for command in _single():
        names = "|".join((command.name, *command.aliases))
        own = " ".join(option for option in _options(command.name) if option not in shared)
        if own:
            cases.append(f'    {names}) own="{own}" ;;')
    body = "\n".join(cases)
    takes = _with_value()
    every = "|".join(name for action in takes for name in action.option_strings)
    choices = "\n".join(
        f'    {"|".join(action.option_strings)}) COMPREPLY=( $(compgen -W "{_values(action)}" -- "$current") ); return ;;'
        for action in takes
        if action.choices
    )
    return f"""# bash completion of ocidist: source <(ocidist completion bash)
_ocidist() {{
  # Words as they are typed: bash's own COMP_WORDS are cut at each colon, and references and digests have them.
  local line="${{COMP_LINE:0:COMP_POINT}}" words verb="" own="" word skip=""
  read -ra words <<< "$line"
  case "$line" in *" ") words+=("") ;; esac
  local last=$(( ${{#words[@]}} - 1 ))
  local current="${{words[last]}}"
  for word in "${{words[@]:1:last-1}}"; do
    if [ -n "$skip" ]; then skip=""; continue; fi
    case "$word" in {every}) skip=1 ;; -*) ;; *) verb="$word"; break ;; esac
  done
  case "${{words[last-1]}}" in
{choices}
    {every}) COMPREPLY=(); return ;;
  esac
  case "$verb" in
{body}
    rootfs) own="{" ".join(_rootfs())}" ;;
    completion) own="bash zsh fish" ;;
    rmi) own="$(ocidist images -q 2>/dev/null)" ;;
    get|path|label|delete|del|remove|rm) own="$(ocidist list -q 2>/dev/null)" ;;
  esac
  if [ -z "$verb" ]; then own="{" ".join(_verbs())}"; fi
  COMPREPLY=( $(compgen -W "$own {" ".join(sorted(shared))}" -- "$current") )
  if [[ "$current" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
    word="${{current%"${{current##*:}}"}}"
    COMPREPLY=( "${{COMPREPLY[@]#"$word"}}" )
  fi
}}
complete -o default -F _ocidist ocidist"""


def _zsh() -> str:
    verbs = "\n".join(f"    '{verb}:{summary}'" for verb, summary in _summaries())
    shared = set(_shared())
    cases = "\n".join(
        f"    {command.name}) compadd -- {' '.join(own)} ;;"
        for command in _single()
        if (own := [option for option in _options(command.name) if option not in shared])
    )
    return f"""#compdef ocidist
# zsh completion of ocidist: source <(ocidist completion zsh)
_ocidist() {{
  local -a verbs
  verbs=(
{verbs}
  )
  if (( CURRENT == 2 )); then _describe command verbs; fi
  case "$words[2]" in
{cases}
    rootfs) compadd -- {" ".join(_rootfs())} ;;
    completion) compadd bash zsh fish ;;
    rmi) compadd -- $(ocidist images -q 2>/dev/null) ;;
    get|path|label|delete) compadd -- $(ocidist list -q 2>/dev/null) ;;
  esac
  compadd -- {" ".join(sorted(shared))}
}}
compdef _ocidist ocidist"""


def _fish() -> str:
    lines = ["# fish completion of ocidist: ocidist completion fish | source"]
    for verb, summary in _summaries():
        lines.append(f"complete -c ocidist -n __fish_use_subcommand -f -a {verb} -d '{summary}'")
    shared = set(_shared())
    lines += [f"complete -c ocidist -l {option[2:]}" for option in sorted(shared)]
    for command in COMMANDS:
        verb = command.name.split()[0]
        for option in _options(command.name):
            if option not in shared:
                lines.append(f"complete -c ocidist -n '__fish_seen_subcommand_from {verb}' -l {option[2:]}")
    lines.append("complete -c ocidist -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'")
    words = " ".join(word for word in _rootfs() if not word.startswith("-"))
    lines.append(f"complete -c ocidist -n '__fish_seen_subcommand_from rootfs' -f -a '{words}'")
    lines.append("complete -c ocidist -n '__fish_seen_subcommand_from rmi' -f -a '(ocidist images -q)'")
    return "\n".join(lines)
