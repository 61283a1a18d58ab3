"""The clock of a peer, and the bound on its strategy's calls at one instant, which stops a loop that awaits nothing."""

from __future__ import annotations

MOST_CALLS = 100_000
"""Calls that a strategy may make to its peer at one instant before it is stopped: in virtual time nothing changes until the
strategy awaits a gradient, a message or the passing of time, so a loop without any of these would never end."""
CALLS_OF_A_SEND = 100
"""The number of calls that one message counts for: it takes memory until it has left."""
CALLS_OF_A_NEIGHBOUR = 1_000
"""The number of calls that each neighbour adds to the bound."""


class Calls:
    """The part of a `Peer` that knows the time and counts its strategy's calls at one instant."""

    instant_ns = 0
    """`now_ns` for a world: reading it counts as no call."""
    calls = 0
    """Calls at this instant, since the last event that could have changed an answer."""
    _most_calls = MOST_CALLS

    @property
    def now_ns(self) -> int:
        """The emulated time, ns."""
        self._count()
        return self.instant_ns

    @now_ns.setter
    def now_ns(self, now_ns: int) -> None:
        if now_ns != self.instant_ns:
            self.instant_ns = now_ns
            self.calls = 0

    def _allow_calls(self, neighbours: int) -> None:
        """Set the bound for a number of neighbours."""
        self._most_calls = MOST_CALLS + CALLS_OF_A_NEIGHBOUR * neighbours

    def _count(self, calls: int = 1) -> None:
        """Count calls; raise RuntimeError if the strategy has made more than the bound at one instant."""
        self.calls += calls
        if self.calls > self._most_calls:
            raise RuntimeError(
                f"the strategy called its peer {self.calls:,} times at {self.instant_ns / 1e9:g} s without awaiting anything "
                "that takes time; await peer.gradient(), peer.receive() or peer.sleep(...) in this loop"
            )
