"""A transfer on show: in a kernel with and without widgets, interrupted, and where there is no notebook."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ocidist.errors import Cancelled
from ocidist.notebook.live import Live, live
from ocidist.progress import Advanced, Failed, Finished, Named, Queued
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.mediatype import OCI_INDEX, OCI_LAYER_GZIP
from tests.parts.required import require

ROOT = Path(__file__).resolve().parents[2]
VIEW = "application/vnd.jupyter.widget-view+json"

POSTS = """
import threading, time
from ocidist.notebook.live import live
from ocidist.progress import *
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.mediatype import OCI_LAYER_GZIP, OCI_MANIFEST

manifest = Descriptor(OCI_MANIFEST, Digest.of(b"m"), 1200)
layers = [Descriptor(OCI_LAYER_GZIP, Digest.of(b"%d" % at), 1_000_000) for at in range(3)]

def work(post, end=True):
    post(Named("r:1")); post(Named("r:1", manifest)); post(Queued(manifest))
    post(Finished(manifest.digest, "copied"))
    for layer in layers: post(Queued(layer))
    for step in range(1, 5):
        for layer in layers: post(Advanced(layer.digest, "fetch", step * 200_000))
        time.sleep(0.15)
    if end:
        for layer in layers: post(Finished(layer.digest, "copied"))

def wait(display, thread):
    while thread.is_alive():
        display.tick(); time.sleep(0.02)

def run(title):
    with live(title) as display:
        thread = threading.Thread(target=work, args=[display.observe], daemon=True)
        thread.start(); wait(display, thread)
        display.finish("sha256:abc")
"""


class Kernel:
    """A notebook run by nbclient, with the messages that tell of displays and widgets kept."""

    def __init__(self, *cells: str) -> None:
        require("module:nbclient", "module:nbformat", "module:ipykernel")
        import nbclient
        import nbformat

        form: Any = nbformat.v4

        messages: list[tuple[str, dict[str, Any]]] = []

        class Client(nbclient.NotebookClient):
            def process_message(self, message: dict[str, Any], *rest: Any) -> Any:
                messages.append((message["msg_type"], message["content"]))
                return super().process_message(message, *rest)

        notebook = form.new_notebook(cells=[form.new_code_cell(cell) for cell in cells])
        client = Client(notebook, timeout=60, kernel_name="python3", allow_errors=True)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        client.execute(env={**os.environ, "PYTHONPATH": path})
        nbformat.validate(notebook)
        self.cells = notebook.cells
        self.messages = messages

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [content for name, content in self.messages if name == kind]


@pytest.fixture(scope="module")
def with_widgets() -> Kernel:
    require("module:ipywidgets")
    return Kernel(POSTS, "run('pull r:1')")


def test_a_saved_notebook_has_the_result(with_widgets: Kernel) -> None:
    """One output: HTML and text of the end, no widget."""
    (output,) = with_widgets.cells[1].outputs
    assert output.output_type == "display_data"
    assert set(output.data) == {"text/plain", "text/html"}
    for text in output.data.values():
        assert "pull r:1" in text
        assert text.count("fetched") == 4
        assert "done: sha256:abc" in text
        assert f"layer-sha256:{Digest.of(b'0').short}" in text
        assert "total: 3.0 MB" in text
    assert "<progress" not in output.data["text/html"]
    assert "<caption" in output.data["text/html"]


def test_while_it_runs_there_is_a_widget(with_widgets: Kernel) -> None:
    """The first form carries the widget view beside HTML and text; bars move; paints are few."""
    (first,) = with_widgets.of("display_data")
    assert set(first["data"]) == {"text/plain", "text/html", VIEW}
    (last,) = with_widgets.of("update_display_data")
    assert VIEW not in last["data"]
    opened = {
        content["comm_id"]: content["data"]["state"].get("_model_name")
        for content in with_widgets.of("comm_open")
    }
    assert opened[first["data"][VIEW]["model_id"]] == "VBoxModel"
    assert list(opened.values()).count("IntProgressModel") == 4
    values = [
        content["data"]["state"]["value"]
        for content in with_widgets.of("comm_msg")
        if opened.get(content["comm_id"]) == "IntProgressModel"
        and "value" in content["data"].get("state", {})
    ]
    assert {200, 400, 600, 800} & set(values)
    assert len(values) < 4 * 12


def test_no_widget_is_left(with_widgets: Kernel) -> None:
    """Every model that was opened is closed, layouts and styles too."""
    opened = {content["comm_id"] for content in with_widgets.of("comm_open")}
    closed = {content["comm_id"] for content in with_widgets.of("comm_close")}
    assert opened
    assert opened == closed


def test_without_ipywidgets_the_html_is_updated() -> None:
    """The same output goes from HTML to HTML, with progress elements that have labels while it runs."""
    kernel = Kernel("import sys; sys.modules['ipywidgets'] = None", POSTS, "run('pull r:1')")
    (output,) = kernel.cells[2].outputs
    assert set(output.data) == {"text/plain", "text/html"}
    assert "done: sha256:abc" in output.data["text/html"]
    updates = [content["data"]["text/html"] for content in kernel.of("update_display_data")]
    assert 3 <= len(updates) <= 12
    assert f'<progress aria-label="layer-sha256:{Digest.of(b"0").short}" value="' in "".join(updates[:-1])
    assert kernel.of("comm_open") == []


INTERRUPTED = """
import _thread
def later():
    time.sleep(0.5); _thread.interrupt_main()
with live("pull r:1") as display:
    thread = threading.Thread(target=work, args=[display.observe, False], daemon=True)
    threading.Thread(target=later, daemon=True).start()
    thread.start()
    while True:
        display.tick(); time.sleep(0.02)
"""


def test_an_interrupted_cell_says_so() -> None:
    """The HTML that stays says interrupted, and no widget is left."""
    require("module:ipywidgets")
    kernel = Kernel(POSTS, INTERRUPTED)
    shown = [output for output in kernel.cells[1].outputs if output.output_type == "display_data"]
    errors = [output.ename for output in kernel.cells[1].outputs if output.output_type == "error"]
    assert errors == ["KeyboardInterrupt"]
    (output,) = shown
    assert set(output.data) == {"text/plain", "text/html"}
    for text in output.data.values():
        assert "interrupted; what was transferred is kept" in text
        assert "stopped" in text
        assert "failed" not in text
    opened = {content["comm_id"] for content in kernel.of("comm_open")}
    assert opened == {content["comm_id"] for content in kernel.of("comm_close")}


# -- without a kernel -------------------------------------------------------------------------------

INDEX = Descriptor(OCI_INDEX, Digest.of(b"index"), 1800)
LAYER = Descriptor(OCI_LAYER_GZIP, Digest.of(b"layer"), 1_000_000)
HOSTILE = "<script>alert(1)</script>\"'\x1b[31m\u202e"


def post(display: Live) -> None:
    for event in (Named("r:1", INDEX), Queued(INDEX), Queued(LAYER), Finished(INDEX.digest, "copied")):
        display.observe(event)
    display.observe(Advanced(LAYER.digest, "fetch", 400_000))


def test_without_a_notebook_it_is_lines_on_the_stream() -> None:
    """Outside of a kernel the stream gets what --progress auto would write."""
    out = io.StringIO()
    with live("pull r:1", stream=out) as display:
        post(display)
        display.tick()
        display.observe(Finished(LAYER.digest, "copied"))
        display.finish()
    assert out.getvalue().splitlines()[:3] == [
        f"r:1: resolved to {INDEX.digest}",
        f"index-sha256:{INDEX.digest.short}: fetched, 1.8 kB",
        f"layer-sha256:{LAYER.digest.short}: fetched, 1.0 MB",
    ]
    assert repr(display).endswith("\ndone")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt(), "interrupted; what was transferred is kept"),
        (Cancelled(), "interrupted; what was transferred is kept"),
        (ValueError("no <b>\x1b"), "failed: no "),
        (ValueError(), "failed: ValueError"),
    ],
)
def test_how_it_ended_is_told_and_the_error_goes_on(error: BaseException, words: str) -> None:
    """An interrupt, a cancelled scope and a failure each leave their sentence in text and HTML."""
    display = live("pull r:1", stream=io.StringIO())

    def transfer() -> None:
        with display:
            post(display)
            raise error

    with pytest.raises(type(error)):
        transfer()
    assert words in repr(display)
    assert words in display._repr_html_()
    assert "<b>" not in display._repr_html_()
    assert VIEW not in display._repr_mimebundle_()


def test_g66_g67_hostile_words_are_inert() -> None:
    """Names, notes and errors are text in HTML and escapes in both."""
    with live(HOSTILE, stream=io.StringIO()) as display:
        display.observe(Named(HOSTILE, LAYER))
        display.observe(Queued(LAYER))
        display.observe(Failed(LAYER.digest, HOSTILE))
        display.observe(Failed(None, HOSTILE))
        display.finish(HOSTILE)
    for text in display._repr_mimebundle_().values():
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "<script" not in display._repr_html_()


def test_a_broken_display_does_not_end_the_transfer() -> None:
    """A stream that fails, or no stream at all, leaves the work alone."""

    class Broken(io.StringIO):
        def isatty(self) -> bool:
            raise RuntimeError

    with live("pull r:1", stream=Broken()) as display:
        post(display)
        display.tick()
        display.finish("x")
    assert display.outcome == "done: x"
    assert display.state.rows[LAYER.digest].done == 400_000


def test_a_widget_that_breaks_is_followed_by_html(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the comm to the front end breaks, the same output goes on as HTML."""

    class Widget:
        def update(self, *_: object) -> None:
            raise RuntimeError("comm closed")

    class Handle:
        shown: list[str] = []  # noqa: RUF012

        def update(self, display: Live) -> None:
            self.shown.append(display._repr_html_())

    display = Live("pull r:1")
    monkeypatch.setattr(display, "_widget", Widget())
    monkeypatch.setattr(display, "_handle", Handle())
    post(display)
    display.tick()
    display.__exit__(None, None, None)
    assert len(Handle.shown) == 2
    assert "<progress" in Handle.shown[0]
    assert "<strong>done</strong>" in Handle.shown[1]
    assert VIEW not in display._repr_mimebundle_()


def test_a_long_transfer_stays_readable() -> None:
    """A thousand layers: HTML and text are cut, with the count."""
    with live("pull r:1", stream=io.StringIO()) as display:
        for at in range(1000):
            display.observe(Queued(Descriptor(OCI_LAYER_GZIP, Digest.of(b"%d" % at), 1)))
    assert len(repr(display).splitlines()) == 62
    assert "+ 960 more" in display._repr_html_()


def test_importing_the_display_loads_nothing_heavy() -> None:
    """IPython, ipywidgets and pandas come only where a kernel runs."""
    code = (
        "import sys, ocidist.notebook.live\n"
        "print(sorted({'IPython', 'ipywidgets', 'pandas', 'logging', 'ssl', 'http.client'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "[]\n"


def test_an_interrupt_waits_for_the_paint(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while widgets are made is raised right after: none is left half made."""
    import signal

    done = []

    class Widget:
        def update(self, *_: object) -> None:
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    display = Live("pull r:1")
    monkeypatch.setattr(display, "_widget", Widget())
    monkeypatch.setattr(display, "_handle", object())
    with pytest.raises(KeyboardInterrupt):
        display.tick()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
