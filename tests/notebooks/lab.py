"""JupyterLab on loopback in Debian's Chromium, through Playwright: started by the test that asks, and stopped with it.

with Lab(tmp_path) as lab, lab.browser() as page:
    page.open("01-first-look.ipynb")
    page.run_all()
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator, Mapping

from tests.notebooks.execute import FOLDER, ROOT, environment
from tests.parts.registry import free_port
from tests.parts.required import program, require

PROGRESS = ".widget-hprogress .progress-bar"
IDLE = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
MINUTE = 60_000  # milliseconds


def parts() -> None:
    """Skip, or fail, where the machine can't show a notebook in a browser."""
    require("chromium", "module:jupyterlab", "module:playwright", "module:ipywidgets", "module:ipykernel")


class Lab:
    """A JupyterLab whose files are a copy of ``notebooks/`` and ``cassettes/``, with an empty home.

    ``startup`` is Python that each kernel runs first. Nothing of it is trusted: the outputs of a copied notebook
    are shown as those of a stranger's until they are run.
    """

    def __init__(self, folder: Path, *, startup: str = "", env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.port = 0
        self.log = folder / "lab.log"
        self._startup, self._env = startup, dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def files(self) -> Path:
        """Where the notebooks are."""
        return self.folder / "files/notebooks"

    def write(self, name: str, cells: Mapping[str, str]) -> None:
        """A notebook of code cells: id -> source."""
        import nbformat

        form: Any = nbformat.v4
        made = [form.new_code_cell(source, id=ident) for ident, source in cells.items()]
        spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook = form.new_notebook(cells=made, metadata={"kernelspec": spec})
        (self.files / name).write_text(nbformat.writes(notebook))  # type: ignore[no-untyped-call]

    def __enter__(self) -> Lab:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(FOLDER, self.files, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
        (self.folder / "files/cassettes").symlink_to(ROOT / "cassettes")
        startup = self.folder / "ipython/profile_default/startup"
        startup.mkdir(parents=True)
        (startup / "00-first.py").write_text(self._startup)
        self._configure(self.folder / "config/labconfig")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _configure(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        overrides = {
            # Every cell is in the page, also those that are scrolled out of it.
            "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
            "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        }
        (folder / "default_setting_overrides.json").write_text(json.dumps(overrides))

    def _start(self) -> None:
        for _ in range(5):  # another process may take the port between our look and the server's bind
            self.port = free_port()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self.folder,
                    env=environment(
                        self.folder,
                        JUPYTER_CONFIG_DIR=str(self.folder / "config"),
                        JUPYTER_DATA_DIR=str(self.folder / "data"),
                        JUPYTER_RUNTIME_DIR=str(self.folder / "runtime"),
                        **self._env,
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            if self._answers():
                return
            self._stop()
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def _command(self) -> list[str]:
        return [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", "--ServerApp.allow_root=True",
            f"--ServerApp.root_dir={self.folder / 'files'}", f"--IdentityProvider.token={self.token}",
            "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
        ]  # fmt: skip

    def _answers(self) -> bool:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/api/status", headers={"Authorization": f"token {self.token}"})
                if connection.getresponse().status == 200:
                    return True
            connection.close()
            time.sleep(0.1)
        return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)  # it ends its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def __exit__(self, *_: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def browser(self, *, width: int = 1280, height: int = 1000, scale: float = 1.0) -> Iterator[Page]:
        """A page of Chromium; ``scale`` is device pixels per CSS pixel."""
        from playwright.sync_api import sync_playwright

        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=program("chromium"), args=flags)
            try:
                context = chromium.new_context(
                    viewport={"width": width, "height": height}, device_scale_factor=scale
                )
                yield Page(self, context.new_page())
            finally:
                chromium.close()


class Page:
    """One notebook in Lab. ``page`` is Playwright's."""

    def __init__(self, lab: Lab, page: Any) -> None:
        self.lab, self.page = lab, page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, name: str, *, dark: bool = False) -> None:
        """Show a notebook in a fresh workspace, its kernel started."""
        address = f"http://127.0.0.1:{self.lab.port}/lab/tree/notebooks/{name}?reset&token={self.lab.token}"
        self.page.goto(address, timeout=MINUTE)
        self.page.wait_for_selector(IDLE, timeout=MINUTE)
        # The indicator is there, and idle, before there are a document and a kernel.
        ready = """() => {
            const shown = window.jupyterapp && window.jupyterapp.shell.currentWidget;
            const kernel = shown && shown.context && shown.context.sessionContext.session?.kernel;
            return shown?.context?.isReady && kernel?.status === 'idle' && shown.content.widgets.length > 1;
        }"""
        self.page.wait_for_function(ready, timeout=MINUTE)
        self.command("application:set-mode", {"mode": "single-document"})
        self.page.evaluate(
            "() => { const app = window.jupyterapp; app.shell.collapseLeft && app.shell.collapseLeft(); }"
        )
        self.theme(dark=dark)

    def theme(self, *, dark: bool) -> None:
        """Lab's light or dark theme."""
        self.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"})
        shown = f'body[data-jp-theme-light="{"false" if dark else "true"}"]'
        self.page.wait_for_selector(shown, state="attached", timeout=MINUTE)

    def command(self, name: str, arguments: Mapping[str, Any] | None = None, *, wait: bool = True) -> None:
        """One of Lab's commands, through its command registry."""
        call = "window.jupyterapp.commands.execute(name, args)"
        body = f"return {call}.then(() => null)" if wait else f"{call}.catch(() => null)"
        self.page.evaluate(f"([name, args]) => {{ {body} }}", [name, dict(arguments or {})])

    def run_all(self, *, wait: bool = True) -> None:
        """Run every cell; without ``wait`` they are under way afterwards."""
        self.command("notebook:run-all-cells", wait=False)
        if wait:
            self.finished()

    def finished(self) -> None:
        """Wait until every code cell has run and the kernel is idle."""
        done = """() => {
            const cells = window.jupyterapp.shell.currentWidget.content.widgets;
            const code = cells.filter(cell => cell.model.type === 'code');
            return code.every(cell => cell.model.executionCount !== null
                && cell.model.executionState !== 'running' && !cell.node.querySelector('.jp-mod-pending'));
        }"""
        self.page.wait_for_function(done, timeout=2 * MINUTE)
        self.page.wait_for_selector(IDLE, timeout=MINUTE)

    def cell(self, ident: str) -> Any:
        """The output area of the code cell with that id."""
        find = """ident => {
            const cells = window.jupyterapp.shell.currentWidget.content.widgets;
            const at = cells.findIndex(cell => cell.model.id === ident);
            if (at < 0) throw new Error('no cell ' + ident);
            cells[at].node.dataset.ident = ident;
        }"""
        self.page.evaluate(find, ident)
        return self.page.locator(f'[data-ident="{ident}"] .jp-Cell-outputArea')
