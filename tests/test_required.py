"""A machine without a part: what needs it is skipped with the reason, whichever test, fixture or helper comes to it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

import pytest

from tests.parts import required

TESTS = Path(__file__).resolve().parent
STARTERS = ("run", "Popen", "call", "check_call", "check_output")
ALONE = {"bench", "pyodide"}  # programs of their own, which say themselves what they lack


def _name(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def unasked(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each program that the module starts by its bare name and never asks for."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    asked = {
        _text(word)
        for call in calls
        if _name(call) in ("require", "program", "missing")
        for word in call.args
    }
    for call in calls:
        if _name(call) in STARTERS and call.args and isinstance(call.args[0], ast.List) and call.args[0].elts:
            program = _text(call.args[0].elts[0])
            if program in required.PROGRAMS and program not in asked:
                yield call.lineno, program


def test_every_program_that_a_test_starts_is_asked_for() -> None:
    """By ``require`` or ``program``, somewhere in its module: what is merely on this machine's PATH may not be on yours."""
    found = [
        f"{path.relative_to(TESTS)}:{line} starts {program}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.relative_to(TESTS).parts[0] not in ALONE
        for line, program in unasked(path.read_text("utf-8"))
    ]
    assert found == []


def test_a_planted_start_is_found() -> None:
    """By its bare name only, and not where it is asked for."""
    start = "import subprocess\nsubprocess.run(['tar', 'x'], check=True)\n"
    assert list(unasked(start)) == [(2, "tar")]
    assert list(unasked(start + "require('jq', 'tar')\n")) == []
    assert list(unasked("subprocess.run([program('tar')])\nprint(['tar'])\n")) == []


@pytest.mark.parametrize("name", sorted(required.PROGRAMS))
def test_a_program_that_is_missing_skips_the_test(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where its path is asked for, too: helpers start it deep inside of fixtures."""
    monkeypatch.setattr(required.shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("OCIDIST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"missing part: {name} is not installed"):
        required.program(name)
