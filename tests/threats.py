"""``python -m tests.threats``: each line of the list of faults and attacks, with the tests that bear its number.

A test of line 12 of section A is called ``test_a12_…``, one of two lines ``test_e50_e53_…``. A line without tests needs
a reason in :data:`WITHOUT`; a reason for a line that has tests is as wrong as none (``tests/test_threats.py`` holds both).
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

TESTS = Path(__file__).resolve().parent

# Section -> its title, and its first and last number: the numbers run on through the sections.
SECTIONS = {
    "A": ("Registry client", 1, 20),
    "B": ("Credentials", 21, 30),
    "C": ("Content store", 31, 41),
    "D": ("Parsing", 42, 49),
    "E": ("Layers", 50, 61),
    "F": ("Registry server", 62, 65),
    "G": ("Notebook", 66, 68),
    "H": ("Limits", 69, 71),
    "I": ("Found by attack", 72, 85),
}

_PUSH = "there is no push yet"
_SERVER = "there is no server yet"
WITHOUT = {
    "A.14": _PUSH,
    "A.15": _PUSH,
    "B.26": _PUSH,
    "D.47": "layouts and archives are no locators yet",
    "F.62": _SERVER,
    "F.63": _SERVER,
    "F.64": _SERVER,
    "F.65": _SERVER,
}

_NAME = re.compile(r"test_((?:[a-i][0-9]{1,2}_)+)")


class Found(NamedTuple):
    """A test that bears the number of a line."""

    line: str
    file: str
    name: str


def lines() -> list[str]:
    """Every line's number, as in ``A.1``."""
    return [f"{s}.{n}" for s, (_, first, last) in SECTIONS.items() for n in range(first, last + 1)]


def numbered(folder: Path) -> Iterator[Found]:
    """The numbered tests of the files below ``folder``, in the order of their files."""
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                match = _NAME.match(node.name)
                for word in match.group(1).split("_")[:-1] if match is not None else ():
                    line = f"{word[0].upper()}.{int(word[1:])}"
                    yield Found(line, path.relative_to(folder).as_posix(), node.name)


def by_line() -> dict[str, list[Found]]:
    """Every line, with its tests; numbers that are in no section come last."""
    found: dict[str, list[Found]] = {line: [] for line in lines()}
    for test in numbered(TESTS):
        found.setdefault(test.line, []).append(test)
    return found


def main() -> int:
    """Print the list; 1 if a line has neither a test nor a reason."""
    bare = 0
    for line, found in by_line().items():
        section, number = line.split(".")
        if section in SECTIONS and int(number) == SECTIONS[section][1]:
            print(f"\n{section}. {SECTIONS[section][0]}")
        if found:
            files = sorted({test.file for test in found})
            print(f"{line:>5}  {len(found):3} tests  {', '.join(files)}")
        else:
            bare += line not in WITHOUT
            print(f"{line:>5}    no test   {WITHOUT.get(line, 'AND NO REASON')}")
    return 1 if bare else 0


if __name__ == "__main__":
    sys.exit(main())
