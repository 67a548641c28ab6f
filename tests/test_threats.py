"""The list of faults and attacks: every line has tests, or a reason why not."""

from __future__ import annotations

from tests import threats


def test_every_line_has_tests_or_a_reason() -> None:
    """No line is without both."""
    found = threats.by_line()
    assert {line for line, tests in found.items() if not tests} <= set(threats.WITHOUT)


def test_no_reason_stands_for_a_line_that_has_tests() -> None:
    """A reason is struck out with the first test, and is for a line of the list."""
    found = threats.by_line()
    assert {line for line in threats.WITHOUT if found.get(line, ["unknown"])} == set()


def test_no_test_bears_a_number_that_no_line_has() -> None:
    """A test's section and number are those of a line."""
    known = set(threats.lines())
    assert [test for test in threats.numbered(threats.TESTS) if test.line not in known] == []


def test_a_planted_test_is_found(tmp_path: threats.Path) -> None:
    """The search sees a function of a class in a folder, by its number, with one digit or two, and by each of several."""
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit/test_x.py").write_text(
        "class TestX:\n    def test_f62_it(self): ...\n    def test_f62(self): ...\n"
        "def test_a7_a08_both(): ...\nasync def test_h7x_no(): ...\ndef a_test_a1_no(): ...\n"
    )
    assert list(threats.numbered(tmp_path)) == [
        threats.Found("A.7", "unit/test_x.py", "test_a7_a08_both"),
        threats.Found("A.8", "unit/test_x.py", "test_a7_a08_both"),
        threats.Found("F.62", "unit/test_x.py", "test_f62_it"),
    ]
