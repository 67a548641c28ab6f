"""What a command works with: settings, store, client, the scope with its progress, and stdout."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Iterable, Iterator, Sequence

from ocidist.errors import OcidistError, UsageError

if TYPE_CHECKING:
    import argparse
    from io import BufferedReader

    from ocidist.client import Client
    from ocidist.image import Image
    from ocidist.limits import Limits
    from ocidist.net.recording import Trace
    from ocidist.net.replay import ReplayTransport
    from ocidist.progress import Event
    from ocidist.remotes.registry.credentials import Credential
    from ocidist.scope import Scope
    from ocidist.settings import Settings
    from ocidist.spec.digest import Digest
    from ocidist.stores.store import Store
    from ocidist.view.schema import Schema

__all__ = ["Context"]


class Context:
    """One run of one command. Parts are made at first use: a listing of blobs never loads the network.

    ``store`` takes the place of the one that ``--root`` names.
    """

    def __init__(self, args: argparse.Namespace, store: Store | None = None) -> None:
        self.args = args
        self._settings: Settings | None = None
        self._store = store
        self._client: Client | None = None
        self._trace: Trace | None = None

    def __enter__(self) -> Context:
        if self.args.debug:
            from ocidist.cli.streams import log_to_stderr

            log_to_stderr()
        if self.args.record or self.args.trace:
            from ocidist.cli import recording

            recording.check(self.args.record, self.args.trace)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._trace is not None:
            self._save(self._trace, failed=kind is not None)
        if self._store is not None:
            self._store.close()

    # -- parts --

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            from ocidist.settings import Settings

            self._settings = Settings.load()
        return self._settings

    @property
    def store(self) -> Store:
        if self._store is None:
            from ocidist.stores.store import Store

            args = self.args
            self._store = Store.at(args.root or None, snapshotter=args.snapshotter, shared=args.shared)
            limit = self.timeout
            if limit is not None:
                from ocidist.scope import Scope

                self._store = self._store.within(Scope.within(limit))
        return self._store

    @property
    def client(self) -> Client:
        if self._client is None:
            from ocidist.client import Client

            args = self.args
            self._client = Client(
                store=self.store,
                auth=self._auth(),
                ca=args.ca_cert,
                timeout=self.timeout,
                connect_timeout=args.connect_timeout,
                insecure=args.insecure,
                plain_http=args.plain_http,
                platform=args.platform,
                connect_to=_connect_to(args.connect_to or ()),
                hosts_dirs=args.hosts_dir,
                transport=self._replayed(),
                settings=self.settings,
                note=lru_cache(self.warn),
            )
            if args.record or args.trace:
                self._trace = self._client.record(bodies=bool(args.record))
        return self._client

    @property
    def timeout(self) -> float | None:
        """Seconds for the whole command, None without a limit."""
        from ocidist.settings import time_limit

        given: float | None = self.args.timeout
        named = time_limit()
        if given is None and named:
            from argparse import ArgumentTypeError

            from ocidist.cli.options import duration

            try:
                return duration(named)
            except ArgumentTypeError as error:
                raise UsageError(f"$CONTAINERD_FETCH_TIMEOUT: {error}") from None
        return given

    def _auth(self) -> Credential | None:
        user, refresh = self.args.user, self.args.refresh
        if not user and not refresh:
            return None
        from ocidist.remotes.registry.credentials import Credential

        if refresh:
            return Credential((user or "").partition(":")[0], "", refresh, origin="given with --refresh")
        name, colon, password = user.partition(":")
        return Credential(name, password if colon else ask_password(name), origin="given with -u")

    @property
    def _cassette(self) -> str:
        return str(self.args.cassette or self.settings.replay or "")

    def _replayed(self) -> ReplayTransport | None:
        if not self._cassette:
            return None
        from ocidist.net import replay

        return replay.find(self._cassette)

    def _save(self, trace: Trace, *, failed: bool) -> None:
        from ocidist.cli import recording
        from ocidist.errors import OcidistError

        try:
            recording.save(trace, self.args.record, self.args.trace, self.warn)
        except OcidistError as error:
            if not failed:  # else the command's own error is what is to be told
                raise
            self.warn(str(error))
        finally:
            trace.close()

    @property
    def platform(self) -> str:
        """The platform that was asked for, as it was written; "" if none was."""
        return str(self.args.platform or self.settings.platform or "")

    def check_platform(self, image: Image, name: str = "") -> None:
        """Say where an image is for another platform than this machine's, and none was asked for."""
        for note in image.notes:
            self.warn(f"{name or image.reference}: {note}")

    def digest(self, text: str, *, trees: bool = False) -> Digest:
        """A digest, or the one blob of the store (with ``trees``: or unpacked tree) whose digest begins so."""
        from itertools import chain

        from ocidist.spec.prefix import complete, is_prefix

        blobs = (info.digest for info in self.store.content.walk())
        if not trees or not is_prefix(text):
            return complete(text, blobs, "blob")
        try:
            keys = [info.key for info in self.store.snapshots.walk() if info.kind == "committed"]
        except OcidistError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            return complete(text, blobs, "blob (its trees are their owner's alone)")
        return complete(text, chain(blobs, keys), "blob or unpacked tree")

    def say_whose_names(self) -> None:
        """Say why no image is listed in a root of containerd's."""
        if self.store.place.foreign:
            self.warn(
                f"{self.store.place.name} is containerd's: it keeps the names of images in a bolt database of its own, "
                "which is not read here; `ctr images ls` lists them"
            )

    def say_damaged_names(self) -> int:
        """Say which names are left out because their records can't be read; 1 if there are any, the exit code."""
        damaged = self.store.names.all()[1]
        for each in damaged:
            self.warn(each.problem)
        return 1 if damaged else 0

    # -- time and progress --

    @property
    def limits(self) -> Limits | None:
        """How much an image may cost; None with ``--no-limits``."""
        from ocidist.limits import DEFAULT

        return None if "no_limits" in self.args and self.args.no_limits else DEFAULT

    @contextmanager
    def quiet(self) -> Iterator[Scope]:
        """A scope with the command's time limit and no progress but a line for each retry."""
        from ocidist.scope import Scope

        observer = None if self.args.progress == "none" else self._say_retries
        replayed = bool(self._cassette)
        with Scope.within(self.timeout, observer=observer, limits=self.limits, replayed=replayed) as scope:
            yield scope

    def _say_retries(self, event: Event) -> None:
        from ocidist.progress import Retrying

        if isinstance(event, Retrying):
            self.warn(event.why + (f"; trying again in {event.after:.1f} s" if event.after else ""))

    @contextmanager
    def progress(self) -> Iterator[Scope]:
        """A scope whose events are painted on stderr, as ``--progress`` says; none with ``--quiet``."""
        from ocidist.cli.recording import Lacking
        from ocidist.errors import Cancelled, OcidistError
        from ocidist.progress import Failed
        from ocidist.scope import Scope
        from ocidist.terminal import bars

        settings, stream = self.settings, sys.stderr
        painter = bars.make(
            "none" if getattr(self.args, "quiet", False) else self.args.progress,
            stream,
            stream.isatty(),
            colour=not settings.no_color,
            dumb=settings.term == "dumb",
        )
        lacking = Lacking(painter.observe) if self.args.record else None
        with (
            painter,
            Scope.within(
                self.timeout,
                observer=lacking or painter.observe,
                tick=painter.tick,
                limits=self.limits,
                replayed=bool(self._cassette),
            ) as scope,
        ):
            try:
                yield scope
            except (KeyboardInterrupt, OcidistError) as error:
                # The last picture says how it ended, unless an object's failure has said so already.
                painter.tick()
                interrupted = isinstance(error, (KeyboardInterrupt, Cancelled))
                if interrupted or not painter.state.error:
                    painter.observe(Failed(None, "interrupted" if interrupted else str(error), interrupted))
                raise
        if lacking is not None:
            lacking.say(self.warn)

    # -- output --

    @property
    def stdin(self) -> BufferedReader:
        return sys.stdin.buffer  # type: ignore[return-value]

    def announce_stdin(self, what: str) -> None:
        """Say what is going to be read from stdin, if that is a terminal: else it looks like a program that hangs."""
        if sys.stdin.isatty():
            self.warn(f"reading {what} from the terminal; Ctrl-D ends it, Ctrl-C gives up")

    @property
    def stdout(self) -> BinaryIO:
        return sys.stdout.buffer

    def listing(self, schema: Schema, rows: Iterable[Any]) -> None:
        """Rows (objects or tuples) as ``--format`` says, with a header in a table.

        On a terminal a table fits its width and digests are shortened (commands take them so); a file or a
        pipe gets them whole.
        """
        from ocidist.view import table

        if self.args.format == "table" and sys.stdout.isatty():
            from shutil import get_terminal_size

            self.line(table.render(schema, rows, max(get_terminal_size().columns, 40)))
        else:
            table.stream(self.args.format, schema, rows, sys.stdout.write)

    def result(self, schema: Schema, row: Sequence[Any]) -> None:
        """What one command came to: a bare line for scripts, or one object."""
        from ocidist.view.table import stream

        if self.args.format == "table":
            from ocidist.view.text import visible

            self.line(" ".join("-" if value is None else visible(value) for value in row))
        elif self.args.format == "json":
            stream("jsonl", schema, [tuple(row)], sys.stdout.write)
        else:
            stream(self.args.format, schema, [tuple(row)], sys.stdout.write)

    def line(self, text: str) -> None:
        """One line on stdout."""
        sys.stdout.write(f"{text}\n")

    def path_line(self, text: str) -> None:
        """One line on stdout with paths in it, each to the byte: a shell may be what reads it."""
        sys.stdout.flush()
        self.stdout.write(os.fsencode(f"{text}\n"))
        self.stdout.flush()

    def warn(self, text: str) -> None:
        """One line on stderr."""
        from ocidist.cli.streams import say

        say(text)


def ask_password(name: str) -> str:
    """The password, typed at the terminal; without a terminal a usage error says how else to give it."""
    if not sys.stdin.isatty():
        raise UsageError(f"the password of {name!r} is needed; write -u {name}:PASSWORD, or log in first")
    import getpass

    return getpass.getpass(f"Password of {name}: ")


def _connect_to(pairs: Iterable[str]) -> dict[str, tuple[str, int]]:
    """``HOST:PORT=ADDRESS:PORT`` as the transport takes it: where to connect for a host, names unchanged."""
    routes: dict[str, tuple[str, int]] = {}
    for pair in pairs:
        name, _, to = pair.partition("=")
        address, _, port = to.rpartition(":")
        if ":" not in name or not address or not port.isascii() or not port.isdigit():
            raise UsageError(f"--connect-to {pair!r}: write HOST:PORT=ADDRESS:PORT")
        routes[name] = (address.strip("[]"), int(port))
    return routes
