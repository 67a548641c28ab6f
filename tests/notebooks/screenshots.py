"""The README's picture: a card and a pull under way, in JupyterLab.

    python -m tests.notebooks.screenshots [FILE]     # default: notebooks/first-look.png

Needs Chromium, Debian's docker-registry and the ``test`` extra. The registry is a real one on loopback, slowed so that
there is something to see; the kernel knows it as registry.example.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.notebooks.execute import FOLDER
from tests.notebooks.lab import MINUTE, PROGRESS, Lab, Page
from tests.notebooks.slow import NAME, TAG, slow_registry

REFERENCE = f"registry.example/{NAME}:{TAG}"
LARGEST = 250_000  # bytes
# A few layers are here, the two large ones are not.
PART_WAY = """() => {
    const bars = [...document.querySelectorAll('.widget-hprogress .progress-bar')];
    const parts = bars.map(bar => parseFloat(bar.style.width) / 100);
    return parts.filter(part => part === 1).length >= 4 && Math.max(0, ...parts.filter(part => part < 1)) > 0.45;
}"""
CLIP = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.node.getBoundingClientRect());
    const top = Math.min(...cells.map(c => c.top)), bottom = Math.max(...cells.map(c => c.bottom));
    const left = Math.min(...cells.map(c => c.left)), right = Math.max(...cells.map(c => c.right));
    return {x: left, y: top, width: right - left, height: bottom - top};
}"""
QUIET = ".jp-cell-toolbar, .jp-Notebook-footer, .jp-Collapser { visibility: hidden !important; } .jp-Cell { border-color: transparent !important; outline: none !important; box-shadow: none !important; }"


def startup(port: int) -> str:
    """Python that makes the kernel find registry.example on ``port`` of loopback."""
    return (
        "import ocidist.interactive\nfrom ocidist.client import Client\n"
        "ocidist.interactive._client = Client(plain_http=True, connect_to="
        f"{{'registry.example:80': ('127.0.0.1', {port})}})\n"
    )


def take(file: Path) -> None:
    """Run two cells and save the picture of them."""
    cells = {
        "open": f'import ocidist as oci\n\nimg = oci.open("{REFERENCE}", platform="linux/amd64")\nimg',
        "pull": f'img = oci.pull("{REFERENCE}", platform="linux/amd64")',
    }
    with tempfile.TemporaryDirectory() as name, slow_registry(Path(name) / "slow", 1.2e6) as registry:
        lab = Lab(Path(name) / "lab", startup=startup(registry.port))
        with lab, lab.browser(width=1280, height=1150, scale=1.25) as page:
            lab.write("picture.ipynb", cells)
            page.open("picture.ipynb")
            page.page.add_style_tag(content=QUIET)
            page.run_all(wait=False)
            page.page.wait_for_selector(PROGRESS, state="attached", timeout=MINUTE)
            page.page.wait_for_function(PART_WAY, timeout=MINUTE)
            save(page, file)
            registry.front.rate = None
            page.finished()


def save(page: Page, file: Path) -> None:
    """The cells, without what is around them."""
    page.page.screenshot(path=file, clip=page.page.evaluate(CLIP))
    size = file.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{file}: {size:,} bytes, more than {LARGEST:,}")
    print(f"{file.name}: {size:,} bytes")


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "first-look.png")
