"""What a client speaks through at present: the network or what stands in for it, and the sessions over that.

A value to put aside and take up again: after a trace or a replay the client is what it was before, tokens included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocidist.net.message import Transport
    from ocidist.net.recording import Trace
    from ocidist.net.replay import ReplayTransport
    from ocidist.remotes.registry.hosts_toml import Endpoint
    from ocidist.remotes.registry.session import RegistrySession

__all__ = ["Connections"]


@dataclass
class Connections:
    """``transport`` is made at first use where it is None; ``offline`` says that it stands in for the network.

    ``traces`` collect every exchange. ``session`` is for registries of which hosts.toml has nothing, ``sessions`` for an
    endpoint and the registry that it answers for. ``before`` are those that a trace or a replay, once it has ``ended``,
    gives back.
    """

    transport: Transport | None = None
    offline: bool = False
    replay: ReplayTransport | None = None
    traces: tuple[Trace, ...] = ()
    session: RegistrySession | None = None
    sessions: dict[tuple[Endpoint, str], RegistrySession] = field(default_factory=dict)
    before: Connections | None = None
    ended: bool = False

    @classmethod
    def over(cls, transport: Transport | None) -> Connections:
        """Those over what stands in for the network; None is the network."""
        if transport is None:
            return cls()
        from ocidist.net.replay import ReplayTransport

        return cls(transport, True, transport if isinstance(transport, ReplayTransport) else None)

    def traced(self, transport: Transport, trace: Trace) -> Connections:
        """The same over ``transport``, in sessions of their own, with every exchange in ``trace`` as well."""
        from ocidist.net.recording import Recorder

        recorder = Recorder(transport, trace)
        return Connections(recorder, self.offline, self.replay, (*self.traces, trace), before=self)

    def end(self, current: Connections) -> Connections:
        """End this trace or replay; the connections to go on with in place of ``current``. Those that were chosen within
        it for good stay; traces and replays may end in any order."""
        self.ended = True
        while current.ended and current.before is not None:
            current = current.before
        return current
