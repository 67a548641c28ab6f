"""The lessons: executed offline in a kernel without a network, and compared with the outputs that are saved."""

from __future__ import annotations

import copy
import re
import socket
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.notebooks.execute import ROOT, VIEW, lessons, normalised, outputs, read, run, save, shown
from tests.parts.required import require

LESSONS = [pytest.param(path, id=path.stem) for path in lessons()]
ELSEWHERE = re.compile(r"(?<![\w.:/])(?:/home/|/root/|/tmp/|/Users/|/private/|/mnt/|/work|[A-Z]:\\)")


@pytest.fixture(autouse=True)
def _parts() -> None:
    require("module:nbclient", "module:nbformat", "module:ipykernel", "module:ipywidgets", "module:pandas")


def new(*cells: str) -> Any:
    import nbformat

    form: Any = nbformat.v4
    return form.new_notebook(cells=[form.new_code_cell(cell) for cell in cells])


def test_there_is_a_lesson() -> None:
    """The first lesson is where the README says."""
    assert [path.name for path in lessons()][:1] == ["01-first-look.ipynb"]


@pytest.mark.parametrize("path", LESSONS)
def test_a_lesson_shows_what_is_saved(path: Path) -> None:
    """Run again without a network, each cell shows what the file shows; nothing asks for the network."""
    saved = read(path)
    ran = run(copy.deepcopy(saved))
    assert ran.sockets == []
    before, after = shown(saved), shown(ran.notebook)
    assert [name for name, _ in before] == [name for name, _ in after]
    for (name, old), (_, fresh) in zip(before, after, strict=True):
        assert old == fresh, f"cell {name} shows something else; python -m tests.notebooks.execute saves it"
    assert ran.notebook.metadata == saved.metadata


@pytest.mark.parametrize("path", LESSONS)
def test_a_saved_lesson_reads_everywhere(path: Path) -> None:
    """It is valid, ran from top to bottom without warnings or errors, and has HTML wherever it has a widget."""
    import nbformat

    saved = read(path)
    nbformat.validate(saved)
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert set(saved.metadata) == {"kernelspec", "language_info"}
    found = [output for _, output in outputs(saved)]
    assert found
    for output in found:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        data = output.get("data", {})
        assert VIEW not in data or "text/html" in data
        assert not data or "text/plain" in data


@pytest.mark.parametrize("path", LESSONS)
def test_a_saved_lesson_names_no_machine(path: Path) -> None:
    """No path of the machine that saved it, neither this one's nor another's."""
    text = path.read_text(encoding="utf-8")
    for place in (str(ROOT), str(Path.home()), tempfile.gettempdir() + "/"):
        assert place not in text
    assert ELSEWHERE.findall(text) == []
    assert ELSEWHERE.findall('see "/home/me/x" and (/tmp/y)') == ["/home/", "/tmp/"]


class _Balanced(HTMLParser):
    void = frozenset({"br", "hr", "img", "input", "meta", "link", "rect", "path", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def _pages(path: Path) -> Iterator[str]:
    for _, output in outputs(read(path)):
        if "text/html" in output.get("data", {}):
            yield output.data["text/html"]


@pytest.mark.parametrize("path", LESSONS)
def test_saved_html_is_whole_and_without_scripts(path: Path) -> None:
    """Every element is closed; tables of ours have captions and headers; nothing is loaded from anywhere."""
    pages = list(_pages(path))
    assert pages
    for page in pages:
        parser = _Balanced()
        parser.feed(page)
        parser.close()
        assert parser.open == []
        assert parser.seen.isdisjoint({"script", "iframe", "link", "img", "object"})
        if 'class="ocidist"' in page and "table" in parser.seen:
            assert page.count("<caption") == page.count("<table")
            assert '<th scope="col"' in page


def test_the_guard_refuses_the_network() -> None:
    """A cell that tries to connect, even on loopback, gets an error and is told of: so silence means something."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = run(
            new(
                f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 1)\n"
                "except OSError as error:\n    print(error)",
                "import ocidist as oci\ntry:\n    oci.open('registry.example/a')\n"
                "except oci.OcidistError as error:\n    print(type(error).__name__)",
            )
        )
    texts = [output.text for _, output in outputs(ran.notebook)]
    assert texts == ["no network in this kernel: socket.getaddrinfo\n", "TransportError\n"]
    assert set(ran.sockets) <= {"socket.connect", "socket.getaddrinfo"}
    assert len(ran.sockets) >= 2


def test_running_again_changes_no_file(tmp_path: Path) -> None:
    """What differs in seconds alone is not written; what differs in more is."""
    import nbformat

    path = tmp_path / "lesson.ipynb"
    notebook = new("print('elapsed: 0.3 s  total: 18.5 kB (51.4 kB/s)')")
    notebook = run(notebook).notebook
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    first = path.read_bytes()
    other = copy.deepcopy(notebook)
    other.cells[0].outputs[0].text = "elapsed: 12 s  total: 18.5 kB (1.5 kB/s)\n"
    assert not save(path, other)
    assert path.read_bytes() == first
    other.cells[0].outputs[0].text = "elapsed: 12 s  total: 18.6 kB (1.5 kB/s)\n"
    assert save(path, other)
    assert "18.6 kB" in path.read_text()


def test_only_seconds_and_rates_are_taken_out() -> None:
    """The rest of a transfer's sum is compared."""
    text = "elapsed: 3 min 07 s  total: 31.4 MB (26.1 MB/s), 3.0 MB already there\ndone"
    assert normalised(text) == "elapsed: …  total: 31.4 MB, 3.0 MB already there\ndone"
    assert normalised("<td>elapsed: 1.0 s · total: 1 kB (2 kB/s)</td>") == "<td>elapsed: … · total: 1 kB</td>"
    assert normalised("elapsed: 0.0 s  total: 0 B") == "elapsed: …  total: 0 B"
