"""completion: scripts for bash, zsh and fish, which ask the program itself what to offer.

A script sends the line up to the cursor on stdin, and behind it what its shell calls the word to replace and the
variables that the line uses, each ended by NUL. It gets a line that says whether files may follow too, then the
words. Nothing that it gets is ever evaluated: it is put into arrays, quoted.
"""

from __future__ import annotations

import argparse
import re

from ocidist.cli.context import Context
from ocidist.errors import UsageError

_SAFE = re.compile(r"[A-Za-z0-9_@%+=:,./-]")
_LONGEST = 1 << 20  # bytes of stdin
_PATIENCE = 1.0  # seconds that a key press may take


def configure_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")
    parser.add_argument("--offer", action="store_true", help=argparse.SUPPRESS)


def run_completion(args: argparse.Namespace, context: Context) -> None:
    if args.offer:
        _offer(args.shell, context)
    else:
        context.line({"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[args.shell])


def _offer(shell: str, context: Context) -> None:
    from ocidist.cli.offers import offers, read
    from ocidist.scope import Scope
    from ocidist.stores.store import Store

    if context.stdin.isatty():
        raise UsageError("completion --offer reads what the completion scripts send on stdin")
    parts = context.stdin.read(_LONGEST).decode("utf-8", "surrogateescape").split("\0")
    text, word, *pairs = [*parts, ""][: max(len(parts), 2)]
    variables = {name: value for name, equals, value in (pair.partition("=") for pair in pairs) if equals}
    line = read(text, variables)

    def open_store(root: str | None) -> Store:
        store = Store.at(root or context.args.root or None, readonly=True)
        return store.within(Scope.within(_PATIENCE))  # another process may hold the database

    found = offers(line, open_store, variables.get("HOME", ""))
    context.line("files" if found.files else "words")
    replaced = max(len(line.current) - len(read(word, variables).current), 0)
    for offered, about in found.words:
        if shell != "bash":
            if offered[:1] == "~" and shell == "fish":
                continue  # the one thing that fish doesn't quote
            context.line(f"{offered}\t{about}" if about else offered)
        elif not line.quote:
            context.line(_escaped(offered[replaced:]))
        elif _is_safe(offered):  # of others, what is to be escaped depends on the quote
            context.line(offered[replaced:])


def _is_safe(text: str) -> bool:
    return all(map(_SAFE.match, text))


def _escaped(text: str) -> str:
    """As bash's ``printf %q`` writes it, with a backslash before whatever could mean something."""
    return "".join(char if _SAFE.match(char) or char.isalnum() else f"\\{char}" for char in text)


_BASH = r"""# bash completion of ocidist: source <(ocidist completion bash)
_ocidist() {
  # The line as it is typed: bash's own COMP_WORDS are cut at each colon, and references and digests have them.
  local line="${COMP_LINE:0:COMP_POINT}" answer
  local rest="$line" given=("HOME=$HOME")
  while [[ "$rest" =~ \$\{?([A-Za-z_][A-Za-z_0-9]*)(.*) ]]; do
    given+=("${BASH_REMATCH[1]}=${!BASH_REMATCH[1]}")
    rest="${BASH_REMATCH[2]}"
  done
  mapfile -t answer < <(printf '%s\0' "$line" "$2" "${given[@]}" | command ocidist completion bash --offer 2>/dev/null)
  COMPREPLY=("${answer[@]:1}")
  if [[ "${answer[0]}" == files ]]; then compopt -o default 2>/dev/null; fi
}
complete -F _ocidist ocidist"""

_ZSH = r"""#compdef ocidist
# zsh completion of ocidist: source <(ocidist completion zsh)
_ocidist() {
  emulate -L zsh
  local line="$PREBUFFER$LBUFFER" name shown
  local -a given=("HOME=$HOME") answer offered described
  for name in ${(f)"$(print -r -- "$line" | command grep -oE '[$][{]?[A-Za-z_][A-Za-z_0-9]*')"}; do
    name="${name##*[\$\{]}"
    given+=("$name=${(P)name}")
  done
  answer=("${(@f)$(printf '%s\0' "$line" "" "${given[@]}" | command ocidist completion zsh --offer 2>/dev/null)}")
  offered=("${(@)${(@)answer[2,-1]}%%$'\t'*}")
  described=("${(@)${(@)answer[2,-1]}/$'\t'/  -- }")
  if (( $#answer > 1 )); then compadd -l -d described -a -- offered; fi
  if [[ "$answer[1]" == files ]]; then _files; fi
}
compdef _ocidist ocidist"""

_FISH = r"""# fish completion of ocidist: ocidist completion fish | source
function __ocidist_offers
    set -l line (commandline -cp | string collect)
    set -l given HOME=$HOME
    for name in (string match -ar '\$[A-Za-z_][A-Za-z_0-9]*' -- $line | string sub -s 2)
        set -a given "$name=$$name"
    end
    set -l answer (printf '%s\0' $line "" $given | command ocidist completion fish --offer 2>/dev/null)
    printf '%s\n' $answer[2..-1]
    if test "$answer[1]" = files
        __fish_complete_path (commandline -ct)
    end
end
complete -c ocidist -e
complete -c ocidist -f -a '(__ocidist_offers)'"""
