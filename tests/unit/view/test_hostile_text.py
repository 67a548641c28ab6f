"""Whatever shows text from outside in a notebook: markup is inert there, and nothing invisible gets in."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Callable, Iterator

import pytest

from ocidist.errors import OcidistError, RegistryError, TransportError
from ocidist.interactive import Replaying
from ocidist.net.exchange import Exchange, Payload
from ocidist.net.message import Headers, Request
from ocidist.net.recording import Recorder
from ocidist.notebook.live import Live
from ocidist.progress import Advanced, Failed, Finished, Named, Queued, Retrying, Waiting
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.stores.upkeep.inventory import IMAGES, ImageRow
from ocidist.view import html as markup
from ocidist.view.card import Card, Part
from ocidist.view.waterfall import Span, waterfall
from tests.parts.scripted import ScriptedResponse, ScriptedTransport

HOSTILE = "\x1b]0;x\x07\u202egpj\u2066\u200b\ud800\x00\r\n\x85<script>alert(1)</script><img src=x onerror=a>&amp;\"'`${x}"
DIGESTS = [Digest.of(bytes([number])) for number in range(4)]
TAGS = frozenset(
    [
        "table",
        "caption",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "strong",
        "code",
        "progress",
        "p",
        "details",
        "summary",
        "div",
        "svg",
        "rect",
        "title",
        "span",
    ]
)


class Tags(HTMLParser):
    """Collects the tags and attributes of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def check_text(text: str) -> None:
    """Printable lines; what does not print is an escape."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)


def check_html(text: str) -> None:
    """Nothing but the tags that are ours, and printable."""
    check_text(text)
    found = Tags()
    found.feed(text)
    assert found.tags <= TAGS
    assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "href")]


def events() -> Iterator[Any]:
    """A transfer in which everybody says hostile things."""
    targets = [
        Descriptor(HOSTILE if n else "application/vnd.oci.image.config.v1+json", d, 9)
        for n, d in enumerate(DIGESTS)
    ]
    yield Named(HOSTILE)
    yield Named(HOSTILE, targets[0])
    yield from map(Queued, targets)
    yield Waiting(DIGESTS[0], HOSTILE)
    yield Retrying(DIGESTS[1], 2, 0.5, HOSTILE)
    yield Advanced(DIGESTS[2], HOSTILE, 5, 9)
    yield Failed(DIGESTS[3], HOSTILE)
    yield Finished(DIGESTS[2], HOSTILE, HOSTILE)


@pytest.mark.parametrize("error", [OcidistError(HOSTILE), ValueError(HOSTILE), KeyboardInterrupt(), None])
def test_g66_i78_a_transfer_on_show(error: BaseException | None) -> None:
    """The table and the text of a display, while it runs and however it ends."""
    display = Live(HOSTILE)
    for event in events():
        display.observe(event)
        display._drain()
        check_html(display._repr_html_())
        check_text(repr(display))
    display.finish(HOSTILE)
    display.__exit__(type(error) if error else None, error, None)
    bundle = display._repr_mimebundle_()
    check_html(bundle["text/html"])
    check_text(bundle["text/plain"])
    check_text(display.outcome)


def test_g66_i78_a_trace() -> None:
    """Its waterfall, its table and its texts, whatever a server put in its answer or an error in its words."""

    class Breaks:
        def send(self, request: Request, scope: Scope) -> Any:
            raise OcidistError(HOSTILE)

    answer = ScriptedResponse(
        200, HOSTILE.encode("utf-8", "surrogatepass"), [(HOSTILE, HOSTILE)], reason=HOSTILE
    )
    recorder = Recorder(ScriptedTransport([answer]))
    recorder.send(
        Request(HOSTILE, f"https://{HOSTILE}/{HOSTILE}?n={HOSTILE}", Headers([(HOSTILE, HOSTILE)])), Scope()
    ).read(999)
    with pytest.raises(OcidistError):
        Recorder(Breaks(), recorder.trace).send(Request("GET", HOSTILE), Scope())
    check_html(recorder.trace._repr_html_())
    check_text(repr(recorder.trace))
    recorder.trace.to_har().encode()


VIEWS: dict[str, Callable[[], str]] = {
    "waterfall": lambda: waterfall([Span(HOSTILE, 0, 0, 1)], HOSTILE),
    "table": lambda: markup.table(
        IMAGES, [ImageRow(HOSTILE, HOSTILE, DIGESTS[0], 1, (HOSTILE,), HOSTILE)], caption=HOSTILE
    ),
    "definitions": lambda: markup.definitions([(HOSTILE, HOSTILE)], HOSTILE, strong=True),
    "note": lambda: markup.note(HOSTILE),
    "details": lambda: markup.details(HOSTILE, ""),
    "json": lambda: markup.json_tree({HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}, HOSTILE),
    "card": lambda: Card(
        HOSTILE,
        [(HOSTILE, HOSTILE)],
        [Part(IMAGES, [ImageRow(HOSTILE, HOSTILE, DIGESTS[0], 1, (HOSTILE,))], HOSTILE, HOSTILE)],
        [HOSTILE],
    ).html(),
    "replaying": lambda: Replaying(HOSTILE, 1, None, None)._repr_html_(),
}


@pytest.mark.parametrize("view", list(VIEWS))
def test_g66_i78_every_view(view: str) -> None:
    """Each function that makes HTML."""
    check_html(VIEWS[view]())


def test_g66_i78_reprs_in_a_notebook() -> None:
    """Of objects that hold text from outside, and what IPython shows of an error."""
    for error in (
        OcidistError(HOSTILE),
        TransportError(HOSTILE, HOSTILE),
        RegistryError("GET", HOSTILE, 400, ((HOSTILE, HOSTILE),), HOSTILE),
    ):
        for line in (*error._render_traceback_(), str(error)):
            check_text(line)
            assert "\n" not in line
    check_text(repr(Replaying(HOSTILE, 1, None, None)))
    check_text(repr(Request("GET", HOSTILE, Headers([(HOSTILE, "")]))))
    check_text(repr(Exchange("GET", HOSTILE, reason=HOSTILE, body=Payload(b""))))
