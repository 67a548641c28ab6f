"""The first lesson in JupyterLab, in a real browser: as a stranger's file, while it runs, and when it ran."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.notebooks.execute import FOLDER, normalised, outputs, read
from tests.notebooks.lab import MINUTE, PROGRESS, Lab, Page, parts
from tests.notebooks.slow import NAME, TAG, slow_registry
from tests.parts.required import require

LESSON = "01-first-look.ipynb"
# A recording answers at once; nobody could see the bars.
UNHURRIED = """
def _unhurried():
    from ocidist.net.replay import ReplayTransport
    send = ReplayTransport.send
    def slow(self, request, scope):
        scope.sleep(0.3)
        return send(self, request, scope)
    ReplayTransport.send = slow
_unhurried()
del _unhurried
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    parts()
    with Lab(tmp_path_factory.mktemp("lab") / "lab", startup=UNHURRIED) as running:
        yield running


@pytest.fixture
def page(lab: Lab) -> Iterator[Page]:
    with lab.browser() as shown:
        yield shown


def words(element: Any) -> str:
    """The text that a reader sees."""
    return str(element.inner_text())


def colour(element: Any, name: str = "color") -> tuple[float, ...]:
    """A computed colour's parts."""
    value = element.evaluate("(node, name) => getComputedStyle(node)[name]", name)
    return tuple(float(part) for part in re.findall(r"[\d.]+", str(value)))


def luminance(rgb: tuple[float, ...]) -> float:
    """WCAG 2.1, "relative luminance"."""
    parts = [part / 255 for part in rgb[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.1, "contrast ratio": 1 to 21; text needs 4.5."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_strangers_copy_reads_without_being_run(page: Page, tmp_path: Path) -> None:
    """Nothing is trusted: no picture, no style, but every number and name of the saved outputs is there."""
    page.open(LESSON)
    page.page.screenshot(path=tmp_path / "untrusted.png")
    card = page.cell("open")
    assert card.locator(".ocidist svg").count() == 0
    text = words(card)
    for expected in (
        "registry.example/demo/shop:1.0",
        "linux/amd64",
        "9.1 kB",
        "69 %",
        "layers, lowest first",
    ):
        assert expected in text
    # No rubble: outside of tables and summaries there is no text.
    loose = "node => [...node.querySelectorAll('.ocidist')].flatMap(n => [...n.childNodes]).filter(n => n.nodeType === 3)"
    assert card.evaluate(f"node => ({loose})(node).map(n => n.textContent.trim()).filter(Boolean)") == []
    assert card.locator("table").first.locator("tr").count() > 10
    pulled = words(page.cell("pull"))
    assert "done: chain ID sha256:" in pulled
    assert "unpacked" in pulled
    assert "architecture" in words(page.cell("config"))
    assert page.page.locator(".jp-OutputArea-output.jp-mod-trusted").count() == 0


def test_the_lesson_runs_with_live_progress(page: Page, lab: Lab, tmp_path: Path) -> None:
    """Run all: bars while the pull runs, a table at its end, no error, and what is saved in the repository."""
    page.open(LESSON)
    page.run_all(wait=False)
    page.page.wait_for_selector(PROGRESS, state="attached", timeout=2 * MINUTE)
    page.cell("pull").screenshot(path=tmp_path / "running.png")
    page.finished()
    assert page.page.locator(PROGRESS).count() == 0
    assert page.page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]').count() == 0
    assert page.page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.stderr"]').count() == 0
    pulled = page.cell("pull")
    assert pulled.locator("table caption").count() == 1
    assert "done: chain ID sha256:" in words(pulled)
    page.command("docmanager:save")
    assert page.errors == []
    saved, kept = read(lab.files / LESSON), read(FOLDER / LESSON)
    assert htmls(saved) == htmls(kept)
    assert "widgets" not in saved.metadata or not saved.metadata["widgets"]
    for dark in (False, True):
        page.theme(dark=dark)
        page.page.screenshot(path=tmp_path / f"{'dark' if dark else 'light'}.png")
        reads(page, dark)


def htmls(notebook: Any) -> list[tuple[str, str]]:
    """Cell ids and HTML, normalised."""
    return [
        (cell.id, normalised(output.data["text/html"]))
        for cell, output in outputs(notebook)
        if "text/html" in output.get("data", {})
    ]


def reads(page: Page, dark: bool) -> None:
    """Text, captions and bars stand out from what is behind them, in this theme."""
    back = colour(page.page.locator(".jp-Notebook").first, "backgroundColor")
    assert (luminance(back) < 0.1) is dark
    card = page.cell("open")
    for part, least in (("td", 7.0), ('th[scope="row"]', 4.5), ("caption", 4.5)):
        assert contrast(colour(card.locator(part).first), back) >= least, part
    assert contrast(colour(card.locator(".ocidist svg rect").first, "fill"), back) >= 3.0
    box = card.locator(".ocidist svg").first.bounding_box()
    assert box is not None
    assert box["width"] > 50


def test_bars_move_while_a_slow_registry_answers(page: Page, lab: Lab, tmp_path: Path) -> None:
    """A pull from a registry with a rate: the bars' values rise, each row has its words, and the end is HTML."""
    require("docker-registry")
    with slow_registry(tmp_path / "slow", rate=1.5e6) as registry:
        pull = f"oci.pull('{registry.address}/{NAME}:{TAG}', platform='linux/amd64');"
        lab.write("slow.ipynb", {"import": "import ocidist as oci", "pull": pull})
        page.open("slow.ipynb")
        page.run_all(wait=False)
        page.page.wait_for_selector(PROGRESS, state="attached", timeout=MINUTE)
        page.cell("pull")
        page.page.wait_for_function(
            """() => [...document.querySelectorAll('.widget-hprogress .progress-bar')].filter(bar => {
                const part = parseFloat(bar.style.width) / 100;
                return part > 0.2 && part < 1;
            }).length > 0""",
            timeout=MINUTE,
        )
        text = words(page.cell("pull"))
        page.cell("pull").screenshot(path=tmp_path / "bars.png")
        assert "fetching · " in text
        assert "fetched · " in text
        assert re.search(r"elapsed: .* · total: [\d.]+ [kM]B of 16\.7 MB", text)
        registry.front.rate = None
        page.finished()
    assert page.page.locator(PROGRESS).count() == 0
    assert "unpacked" in words(page.cell("pull"))
    assert page.errors == []
