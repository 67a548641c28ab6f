"""Scope: the one place where time, interruption and reporting live.

A scope is handed explicitly to every call that does I/O. It bounds the whole (``deadline``), can be ended
from any thread (``cancel``), and carries where reports go (``observer``), which lease holds what is written
(``lease``), how much an image may cost (``limits``), and how often one object is tried again (``retries``).

Cancelling shuts down whatever was registered with :meth:`Scope.on_cancel`, most often sockets, so that a
thread that waits in ``recv`` returns at once.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Iterator

from ocidist.errors import Cancelled, DeadlineExceeded, OcidistError, RegistryError, TransportError
from ocidist.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from ocidist.progress import Event

    Observer = Callable[[Event], None]

__all__ = ["PROGRESS", "Retries", "Scope", "no_check"]

POLL = 0.05  # seconds between looks where nothing can wake a waiter (locks, name look-ups)


PROGRESS = 64 << 10  # bytes between two failures that make the second one count as the first again
_SILENT = frozenset(
    {"refused", "connect"}
)  # nobody answers: a restart is worth another try, no more than that


def no_check() -> None:
    """Stand for a scope's ``check`` where nothing can end the work."""


class Retries:
    """How often one object is tried again. Whoever meets a failure counts it here, and all of them end together.

    At most ``tries`` tries in a row without progress; no further one begins ``seconds`` after the first failure of the row,
    but the second is always made. ``attempt`` is the number of the present try: it only counts up. ``hosts`` is how many
    take turns to answer: only after a failure of each comes a pause.
    """

    def __init__(
        self, tries: int = 10, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.attempt = self.hosts = 1
        self.spent = False
        self._tries, self._seconds, self._clock = tries, seconds, clock
        self._failures = self._silent = self._turns = self._pauses = self._moved = 0
        self._since = 0.0

    def moved(self, count: int) -> None:
        """Count ``count`` bytes that came."""
        self._moved += count
        if self._moved >= PROGRESS and (self._failures or self.spent):
            self._failures = self._silent = self._turns = self._pauses = 0
            self.spent = False

    def elsewhere(self) -> int:
        """Count a failure after which another host is asked, or the same one for all of it; return the number of that try."""
        self._count()
        self.attempt += 1
        return self.attempt

    def after(self, error: OcidistError, jitter: float) -> float | None:
        """Count ``error`` as :meth:`again` does. None if the same request would fail again, or nobody answers for the second time."""
        if not isinstance(error, (TransportError, RegistryError)) or not error.retryable:
            return None
        if isinstance(error, RegistryError):
            return self.again(jitter, error.retry_after)
        self._silent += error.kind in _SILENT
        return self.again(jitter, tries=1 if self._silent > 1 else None)

    def again(self, jitter: float = 0.5, wait: float | None = None, tries: int | None = None) -> float | None:
        """Count a failure; return the seconds to wait before the next try, None if there is none.

        ``wait`` is what the peer asked for, which costs no time of ours; else it is half a second, doubling to four,
        times 0.5 to 1.5 as ``jitter`` says (0 to 1). ``tries`` are allowed if that is fewer.
        """
        if self.spent:
            return None
        now = self._count()
        pause = 0.0
        if wait is not None:
            pause = wait
        elif self._turns >= self.hosts:
            pause = min(0.5 * 2**self._pauses, 4.0) * (0.5 + jitter)
            self._turns, self._pauses = 0, self._pauses + 1
        self._since += wait or 0.0
        late = self._failures > max(1, self.hosts - 1) and now + pause - self._since > self._seconds
        if late or self._failures >= (self._tries if tries is None else min(tries, self._tries)):
            self.spent = True
            return None
        self.attempt += 1
        return pause

    def _count(self) -> float:
        now = self._clock()
        self._moved = 0
        self._failures += 1
        self._turns += 1
        if self._failures == 1:
            self._since = now
        return now


class Scope:
    """Deadline, cancellation, observer, lease, limits and retries of one piece of work.

    ``deadline`` is a value of ``time.monotonic()``. ``tick`` is what the calling thread does about ten times
    a second while it waits for its workers: paint; workers never call it. ``limits`` of None are none. ``replayed`` says that
    the peers are recordings. A scope with a parent ends with it, never the other
    way round.
    """

    def __init__(
        self,
        *,
        deadline: float | None = None,
        observer: Observer | None = None,
        lease: str | None = None,
        tick: Callable[[], object] | None = None,
        limits: Limits | None = DEFAULT,
        replayed: bool = False,
        retries: Retries | None = None,
        parent: Scope | None = None,
    ) -> None:
        if parent is not None:
            if parent.deadline is not None:
                deadline = parent.deadline if deadline is None else min(deadline, parent.deadline)
            observer = parent.observer if observer is None else observer
            lease = parent.lease if lease is None else lease
            tick = parent.tick if tick is None else tick
            limits = parent.limits if limits is DEFAULT else limits
            replayed = replayed or parent.replayed
            retries = parent.retries if retries is None else retries
        self.deadline: float | None = deadline
        self.observer: Observer | None = observer
        self.lease: str | None = lease
        self.limits: Limits | None = limits
        self.replayed: bool = replayed
        self.retries: Retries | None = retries
        self.tick: Callable[[], object] = tick if tick is not None else no_check
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reason: OcidistError | None = None
        self._actions: dict[int, Callable[[], object]] = {}
        self._next = 0
        self._timer: threading.Timer | None = None
        self._parent: Scope | None = parent
        self._parent_key: int | None = None
        if parent is not None:
            self._parent_key = parent._register(lambda: self.cancel(parent._reason))

    @classmethod
    def within(cls, seconds: float | None, **options: Any) -> Scope:
        """A scope that ends ``seconds`` from now; None is no limit."""
        return cls(deadline=None if seconds is None else time.monotonic() + seconds, **options)

    def child(self, **options: Any) -> Scope:
        """A scope that ends with this one, and can be ended alone (one failed copy ends its siblings).

        Close it (or use it in ``with``) so that the parent forgets it.
        """
        return Scope(parent=self, **options)

    def close(self) -> None:
        """Forget timers and the parent. Cancels nothing."""
        if self._parent is not None and self._parent_key is not None:
            self._parent._forget(self._parent_key)
            self._parent_key = None
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- ending --

    @property
    def ended(self) -> bool:
        """True once cancelled or past the deadline."""
        return self._ended.is_set() or (self.deadline is not None and time.monotonic() >= self.deadline)

    def check(self) -> None:
        """Raise :class:`Cancelled` or :class:`DeadlineExceeded` if this scope has ended."""
        if self._ended.is_set():
            raise self._error()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.cancel(DeadlineExceeded())
            raise self._error()

    def _error(self) -> OcidistError:
        # A fresh instance each time: one exception object raised in many threads tangles their tracebacks.
        reason = self._reason
        return DeadlineExceeded() if isinstance(reason, DeadlineExceeded) else Cancelled()

    def cancel(self, reason: OcidistError | None = None) -> None:
        """End this scope now, from any thread; the first reason stays. Never raises."""
        with self._lock:
            if self._ended.is_set():
                return
            self._reason = reason if reason is not None else Cancelled()
            self._ended.set()
            actions, self._actions = list(self._actions.values()), {}
        for action in actions:
            try:
                action()
            except Exception:  # noqa: BLE001 - an end must reach every waiter, whatever one of them does
                continue

    def remaining(self, cap: float | None = None) -> float | None:
        """Seconds left, at most ``cap``; None where nothing bounds it. Raises if the scope has ended."""
        self.check()
        if self.deadline is None:
            return cap
        left = max(self.deadline - time.monotonic(), 0.001)
        return left if cap is None else min(left, cap)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the scope ends first: then raise."""
        until = time.monotonic() + seconds
        while True:
            left = self.remaining(until - time.monotonic())
            if left is None or left <= 0:
                return
            if self._ended.wait(left):
                self.check()
            elif time.monotonic() >= until:
                return

    def pause(self, seconds: float) -> None:
        """Give a peer time before it is asked again: :meth:`sleep`, but where exchanges are ``replayed`` nobody waits."""
        self.sleep(0.0 if self.replayed else seconds)

    @contextmanager
    def on_cancel(self, action: Callable[[], object]) -> Iterator[None]:
        """While the block runs, ending the scope calls ``action`` (from the thread that ends it).

        With a deadline a timer thread ends the scope in time, so a peer that trickles one byte a second
        can't outlast it. Where threads can't be started the deadline is looked at between reads.
        """
        key = self._register(action)
        try:
            yield
        finally:
            self._forget(key)

    def _register(self, action: Callable[[], object]) -> int:
        with self._lock:
            key, self._next = self._next, self._next + 1
            if not self._ended.is_set():
                self._actions[key] = action
                self._arm()
                return key
        action()
        return key

    def _forget(self, key: int) -> None:
        with self._lock:
            self._actions.pop(key, None)

    def _arm(self) -> None:
        if self.deadline is None or self._timer is not None:
            return
        timer = threading.Timer(max(self.deadline - time.monotonic(), 0), self.cancel, [DeadlineExceeded()])
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # no threads here (Pyodide)
            return
        self._timer = timer

    # -- reporting --

    def emit(self, event: Event) -> None:
        """Hand an event to the observer, if there is one."""
        if self.observer is not None:
            self.observer(event)
