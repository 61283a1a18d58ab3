"""How messages travel in virtual time: whole, over the same `Link`s and with the same wire sizes as in the world of processes.

A link that shares no line with others carries a message at once: its model gives the first and the last arrival exactly, so
there is one event a message and none a chunk, and the answer is noted where its sender will look for it.  Links that share an
uplink, a downlink or a cable are carried by `experiments.worlds.virtual.shared_link`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from grapevine.experiments.fleet import Fleet
from grapevine.experiments.worlds.virtual.link import Facts, Line
from grapevine.experiments.worlds.virtual.shared_link import SharedLine, Sharing
from grapevine.peer.carrier import LinkCount
from grapevine.peer.effects import Send
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel, message_limit_bytes
from grapevine.peer.peer import Message, Peer

if TYPE_CHECKING:
    from grapevine.experiments.worlds.virtual.world import Member

At = Callable[..., None]


class _SettledMeters(dict[int, LinkMeter]):
    """A peer's meters: whoever looks one up finds it as the acknowledgements that have arrived by now left it."""

    def __init__(self, peer: Peer, lines: dict[int, Line]) -> None:
        super().__init__({target: line.meter for target, line in lines.items()})
        self._peer = peer
        self._lines = lines

    def __getitem__(self, neighbour: int) -> LinkMeter:
        line = self._lines[neighbour]
        line.catch_up(self._peer.instant_ns)
        return line.meter


class WholeMessages:
    """Carries whole messages.  `at(time_ns, action, *arguments)` plans an event, `now_ns` tells the time."""

    def __init__(
        self, fleet: Fleet, members: list[Member], at: At, now_ns: Callable[[], int], deliver: Callable[[Member, Message], None]
    ) -> None:
        self._at = at
        self._deliver = deliver
        self.lines: dict[tuple[int, int], Line] = {}
        shared = fleet.plan.shared()
        sharing = Sharing(shared, at, now_ns, self._arrive)
        for source, target in [*shared.routes, *(pair for pair in fleet.plan.links if pair not in shared.routes)]:
            ends = members[source], members[target]
            link, meter = fleet.plan.link(source, target), members[source].peer.meters[target]
            sharer = (source, target) in shared.routes
            self.lines[source, target] = SharedLine(*ends, link, meter, sharing) if sharer else Line(*ends, link, meter)
        for (source, target), line in self.lines.items():
            line.back = self.lines[target, source]
        self._from = {
            member.peer.id: {
                target: self.lines[member.peer.id, target] for target in sorted(fleet.graph.neighbors(member.peer.id))
            }
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
                if facts is not None:
                    self._at(facts[0], arrive, line, parcel, facts)

    def post(self, member: Member, target: int, parcel: Parcel, now_ns: int) -> None:
        """Carry a message to a peer that need be no neighbour (yet): the links of all that ever are stand from the start."""
        line = self._from[member.peer.id].get(target)
        if line is not None:
            facts = line.send(parcel, now_ns, member.peer.horizon_ns)
            if facts is not None:
                self._at(facts[0], self._arrive, line, parcel, facts)

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
        for pair in ((survivor.peer.id, dead), (dead, survivor.peer.id)):
            self.lines[pair].stop()

    def sent(self, member: Member) -> dict[int, LinkCount]:
        """The counts of a peer's outgoing links, by neighbour."""
        return {target: line.sent for target, line in self._from[member.peer.id].items()}

    def received(self, member: Member) -> dict[int, LinkCount]:
        """The counts of a peer's incoming links, by neighbour."""
        return {target: self.lines[target, member.peer.id].received for target in self._from[member.peer.id]}


def new_endpoint(peer: Peer, neighbours: Iterable[int]) -> Endpoint:
    """A peer's end of its links, to all that are ever its neighbours, whose meters the peer reads."""
    endpoint = Endpoint(peer.id, sorted(neighbours), message_limit_bytes(peer.spaces))
    peer.meters = endpoint.meters
    return endpoint
