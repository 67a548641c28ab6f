"""What a notebook calls: ``oci.open``, ``oci.pull``, ``oci.replay``, … over one default Client.

The front door (``ocidist/__init__.py``) hands these on lazily. State is one client and what stands in for
its network; nothing here does I/O before it is called.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from ocidist.client import Client
from ocidist.limits import DEFAULT, Limits
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.platform import Platform

if TYPE_CHECKING:
    from ocidist.diagnosis.finding import Finding
    from ocidist.image import Image
    from ocidist.net.recording import Trace
    from ocidist.remotes.registry.connections import Connections
    from ocidist.rows import Rows
    from ocidist.stores.store import Store

__all__ = [
    "Replaying",
    "client",
    "demo",
    "doctor",
    "login",
    "logout",
    "online",
    "open",
    "pull",
    "replay",
    "resolve",
    "tags",
    "trace",
]

DEMO_REFERENCE = "registry.example/demo/shop:1.0"

_lock = threading.RLock()
_client: Client | None = None


def client() -> Client:
    """The client that the module's functions use: made at first use from the environment's settings."""
    global _client
    with _lock:
        if _client is None:
            made = Client()
            replayed = made.settings.replay
            if replayed:
                from ocidist.net import replay as replays

                # A cassette that isn't there must not leave a client that goes to the network instead.
                made.use(replays.find(replayed))
            _client = made
        return _client


def open(locator: str, *, platform: Platform | str | None = None) -> Image:
    """An :class:`~ocidist.image.Image`: at most three requests beside authentication, no layer."""
    return client().open(locator, platform=platform)


def pull(
    locator: str,
    *,
    platform: Platform | str | None = None,
    store: Store | Path | str | None = None,
    progress: bool = True,
    limits: Limits | None = DEFAULT,
) -> Image:
    """Fetch, unpack and name an image, with progress by itself: a widget, HTML or text. Returns the Image.

    ``store`` is where to: a Store or the path of one (default: the settings' root). An interrupt (the stop button, Ctrl-C) ends it within half
    a second; the same call goes on from there.
    ``limits`` bound what an image may cost to unpack; None lifts them.
    """
    here = client() if store is None else client().with_store(store)
    if not progress:
        with Scope.within(here.timeout, limits=limits) as scope:
            return here.pull(locator, platform=platform, scope=scope).image
    try:
        return _on_show(here, locator, platform, limits)
    except KeyboardInterrupt:
        # Not the traceback through the mover: it tells nobody anything, and a notebook takes longer to draw it
        # than the transfer takes to end.
        raise KeyboardInterrupt from None


def _on_show(here: Client, locator: str, platform: Platform | str | None, limits: Limits | None) -> Image:
    from ocidist.notebook.live import live

    settings = here.settings
    with live(f"pull {locator}", colour=not settings.no_color, dumb=settings.term == "dumb") as display:
        scope = Scope.within(here.timeout, observer=display.observe, tick=display.tick, limits=limits)
        with scope:
            pulled = here.pull(locator, platform=platform, scope=scope)
        chain = pulled.chain_id
        display.finish(f"chain ID {chain}" if chain is not None else pulled.descriptor.digest)
    return pulled.image


def resolve(locator: str, *, platform: Platform | str | None = None) -> Descriptor:
    """The descriptor that a reference stands for; with a platform that of its manifest."""
    return client().resolve(locator, platform=platform)


def tags(remote: str) -> list[str]:
    """All tags of a repository."""
    return list(client().tags(remote))


def doctor(locator: str | None = None) -> Rows[Finding]:
    """What stands in the way of pulling ``locator``: this machine, then each step, tried.

    Columns: part, check, state (ok, note, failed, skipped), found, advice. Without a locator the machine alone.
    """
    from ocidist.diagnosis.examination import examine

    return examine(client(), locator)


def login(host: str, username: str, password: str) -> None:
    """Check credentials at a registry and keep them where Docker does."""
    client().login(host, username, password)


def logout(host: str) -> bool:
    """Forget the credentials of a host; False where there were none."""
    return client().logout(host)


class Replaying:
    """The banner of :func:`replay`; used in ``with`` the client is what it was at the end of the block."""

    def __init__(self, name: str, requests: int, connections: Connections, before: Connections) -> None:
        self.name, self.requests, self._connections, self._before = name, requests, connections, before

    def __enter__(self) -> Replaying:
        self._connections.before = self._before
        return self

    def __exit__(self, *exc: object) -> None:
        here = client()
        here.connections = self._connections.end(here.connections)

    def __repr__(self) -> str:
        from ocidist.view.text import visible

        return (
            f"Offline: answers come from the cassette {visible(self.name)} ({self.requests} recorded "
            "exchanges) until oci.online()."
        )

    def _repr_html_(self) -> str:
        from ocidist.view.html import note

        return note(repr(self))


def replay(cassette: str | Path) -> Replaying:
    """Answer every request from recorded exchanges; no socket is opened until :func:`online`.

    ``cassette`` is a path, the name of one in ``cassettes/`` here or above, or "demo", which comes inside
    the package. Also a context manager.
    """
    from ocidist.net import replay as replays

    transport = replays.find(cassette)
    here = client()
    before = here.connections
    here.use(transport)
    return Replaying(str(cassette), len(transport.exchanges), here.connections, before)


def online() -> None:
    """Speak to real registries again."""
    client().use(None)


@contextmanager
def trace() -> Iterator[Trace]:
    """Collect the exchanges of a block: ``with oci.trace() as t: …``, then ``t.rows()``, ``t.to_har()``."""
    here = client()
    found = here.record(bodies=False)
    mine = here.connections
    try:
        yield found
    finally:
        here.connections = mine.end(here.connections)


def demo(*, platform: Platform | str | None = None) -> Image:
    """An Image from the cassette inside the package: offline, the same everywhere."""
    from ocidist.net import replay as replays

    return Client(transport=replays.load_demo(), store=client().store).open(DEMO_REFERENCE, platform=platform)
