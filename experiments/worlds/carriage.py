"""How messages travel in virtual time.

Two ways, the same wire sizes and the same `Link`s.  A link that shares no access line carries whole messages: its model gives
the first and the last arrival exactly, so there is one event a message and none a chunk, and the answer is noted where its
sender will look for it.  Where an uplink or a downlink is shared, chunks take turns: there the shaper and the endpoints work
chunk by chunk, as in the world of processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import isinf
from typing import TYPE_CHECKING, Any

from experiments.build import Fleet
from netem import Downlink, Link, Shaper
from peer.carrier import LinkCount
from peer.effects import Send
from peer.endpoint import Endpoint, piece_bytes
from peer.meter import LinkMeter
from peer.payloads import Parcel
from peer.peer import Message, Peer, message_limit_bytes
from peer.wire import HEADER_BYTES, Acknowledgement, Chunk, Frame

if TYPE_CHECKING:
    from experiments.worlds.virtual import Member

At = Callable[..., None]

class _SettledMeters(dict[int, LinkMeter]):
    """A peer's meters: whoever looks one up finds it as the acknowledgements that have arrived by now left it."""

    def __init__(self, peer: Peer, lines: dict[int, Line]) -> None:
        super().__init__({target: line.meter for target, line in lines.items()})
        self._peer = peer
        self._lines = lines

    def __getitem__(self, neighbour: int) -> LinkMeter:
        line = self._lines[neighbour]
        if line.answers and line.answers[0][0] <= self._peer.now_ns:
            line.settle(self._peer.now_ns)
        return line.meter


class WholeMessages:
    """Carries whole messages over links of their own: one event a message.  `at(time_ns, action, *arguments)` plans one."""

    def __init__(self, fleet: Fleet, members: list[Member], at: At, deliver: Callable[[Member, Message], None]) -> None:
        self._at = at
        self._deliver = deliver
        self.lines: dict[tuple[int, int], Line] = {}
        for source, target in fleet.plan.links:
            link, meter = fleet.plan.link(source, target), members[source].peer.meters[target]
            self.lines[source, target] = Line(members[source], members[target], link, meter)
        for (source, target), line in self.lines.items():
            line.back = self.lines[target, source]
        self._from = {
            member.peer.id: {target: self.lines[member.peer.id, target] for target in member.peer.neighbours}
            for member in members
        }
        for member in members:
            member.peer.meters = _SettledMeters(member.peer, self._from[member.peer.id])

    def send(self, member: Member, effect: Send, now_ns: int) -> None:
        """Carry a message to each of its targets."""
        peer, parcel, lines, arrive = member.peer, effect.parcel, self._from[member.peer.id], self._arrive
        horizon_ns = peer.horizon_ns
        for target in effect.targets:
            if target in peer.mixing:
                line = lines[target]
                facts = line.send(parcel, now_ns, horizon_ns)
                self._at(facts[0], arrive, line, parcel, facts)

    def _arrive(self, line: Line, parcel: Parcel, facts: Facts) -> None:
        target, source = line.target, line.source
        if not (target.alive and source.alive):
            return
        now_ns, _, finish_ns, spread_bytes, spread_ns = facts
        received = line.received
        received.delays_ns.append(now_ns - finish_ns)
        received.spread_bytes += spread_bytes
        received.spread_ns += spread_ns
        line.answer(facts)
        self._deliver(target, Message(source.peer.id, parcel.step, parcel.payload, parcel.scalars, now_ns))

    def lose(self, survivor: Member, dead: int) -> None:
        """A neighbour is gone; what was under way dies with it when it would have arrived."""
        self._from[survivor.peer.id].pop(dead, None)

    def sent(self, member: Member) -> dict[int, LinkCount]:
        """The counts of a peer's outgoing links, by neighbour."""
        return {target: line.sent for target, line in self._from[member.peer.id].items()}

    def received(self, member: Member) -> dict[int, LinkCount]:
        """The counts of a peer's incoming links, by neighbour."""
        return {target: self.lines[target, member.peer.id].received for target in self._from[member.peer.id]}


def carriage_of(fleet: Fleet, members: list[Member], at: At, deliver: Callable[[Member, Any], None]) -> WholeMessages | Chunks:
    """Whole messages where no access line is shared, chunks where one is."""
    shared = not all(isinf(rate) for rate in (*fleet.plan.uplinks, *fleet.plan.downlinks))
    return (Chunks if shared else WholeMessages)(fleet, members, at, deliver)


def new_endpoint(peer: Peer) -> Endpoint:
    """A peer's end of its links, whose meters the peer reads."""
    endpoint = Endpoint(peer.id, peer.mixing, message_limit_bytes(peer.size))
    peer.meters = endpoint.meters
    return endpoint
