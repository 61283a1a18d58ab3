"""The transport of whole messages in virtual time, over the same links and with the same wire sizes as in real time.

On a link that shares no segment with others, the link's model gives the first and the last arrival of a message exactly. So
there is one event for each message and none for its chunks, and acknowledgements are noted until the sender reads them.  For
links that share an uplink, a downlink or a cable see `experiments.worlds.virtual.shared_link`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from grapevine.experiments.fleet import Fleet
from grapevine.experiments.worlds.virtual.link import Delivery, PeerLink, PrivateLink
from grapevine.experiments.worlds.virtual.shared_link import Segments, SharedLink
from grapevine.netem.shaping.sender import Sender
from grapevine.peer.counts import LinkCount
from grapevine.peer.effects import Send
from grapevine.peer.endpoint import Arrival, Endpoint
from grapevine.peer.message import Message, new_message
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel, message_limit_bytes
from grapevine.peer.peer import Peer

At = Callable[..., None]


class Member(Protocol):
    """One peer of a fleet with its endpoint."""

    peer: Peer
    endpoint: Endpoint


AnyMember = TypeVar("AnyMember", bound=Member)


class SettledMeters(Mapping[int, LinkMeter]):
    """A peer's meters by neighbour; before a meter is read, it takes in the acknowledgements that have arrived by now."""

    def __init__(self, peer: Peer, links: dict[int, PeerLink]) -> None:
        self._peer = peer
        self._links = links

    def __getitem__(self, neighbour: int) -> LinkMeter:
        link = self._links[neighbour]
        link.catch_up(self._peer.instant_ns)
        return link.meter

    def __iter__(self) -> Iterator[int]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)


class Transport(Generic[AnyMember]):
    """Carries whole messages.  `at(time_ns, action, *arguments)` plans an event, `now_ns()` returns the time.

    `deliver` gets a message that a wrapper has made as bytes, and any other one decoded.

    `sent` and `received` are the counts of each peer's links, by neighbour; the counts of a dropped link are kept.
    """

    def __init__(
        self,
        fleet: Fleet,
        members: list[AnyMember],
        at: At,
        now_ns: Callable[[], int],
        deliver: Callable[[AnyMember, Message | Arrival], None],
    ) -> None:
        self._at = at
        self._deliver = deliver
        self._members = members
        self._plan = fleet.plan
        self._segments = Segments(fleet.plan.shared(), at, now_ns, self._arrive)
        self.links: dict[tuple[int, int], PeerLink] = {}
        self._from: list[dict[int, PeerLink]] = [{} for _ in members]
        self.sent: list[dict[int, LinkCount]] = [{} for _ in members]
        self.received: list[dict[int, LinkCount]] = [{} for _ in members]
        for one, other in sorted(fleet.plan.links):
            if one < other:
                self.add(one, other)
        for member, links in zip(members, self._from, strict=True):
            member.peer.meters = SettledMeters(member.peer, links)

    def add(self, one: int, other: int) -> None:
        """Connect two peers by new links in both directions, as configured in the network's plan."""
        there, back = self._lay(one, other), self._lay(other, one)
        there.back, back.back = back, there

    def drop(self, one: int, other: int) -> None:
        """Remove the links between two peers; messages under way between them are dropped when they would arrive."""
        for source, target in ((one, other), (other, one)):
            if (link := self._from[source].pop(target, None)) is not None:
                link.stop()
                link.endpoint.lose(target)

    def send(self, member: AnyMember, effect: Send, now_ns: int) -> None:
        """Carry a message to each of its targets that is a neighbour."""
        peer, parcel, links, arrive = member.peer, effect.parcel, self._from[member.peer.id], self._arrive
        horizon_ns = peer.horizon_ns
        for target in effect.targets:
            if target in peer.mixing:
                link = links[target]
                delivery = link.send(parcel, now_ns, horizon_ns)
                if delivery is not None:
                    self._at(delivery.due_ns, arrive, link, parcel, delivery)

    def post(self, member: AnyMember, target: int, parcel: Parcel, now_ns: int) -> None:
        """Carry a message to a peer that may not be a neighbour (yet): all links of the run exist from the start."""
        link = self._from[member.peer.id].get(target)
        if link is not None:
            delivery = link.send(parcel, now_ns, member.peer.horizon_ns)
            if delivery is not None:
                self._at(delivery.due_ns, self._arrive, link, parcel, delivery)

    def catch_up(self, now_ns: int) -> None:
        """Take in all reports and acknowledgements that are due by now, so that a record has the figures of its instant."""
        for links in self._from:
            for link in links.values():
                link.catch_up(now_ns)

    def _lay(self, source: int, target: int) -> PeerLink:
        endpoint, link = self._members[source].endpoint, self._plan.link(source, target)
        endpoint.add(target)
        counts = self.sent[source].setdefault(target, LinkCount()), self.received[target].setdefault(source, LinkCount())
        laid: PeerLink
        if (source, target) in self._segments.flows:
            laid = SharedLink(endpoint, target, link, *counts, self._segments)
        else:
            laid = PrivateLink(endpoint, target, Sender(link), *counts)
        self.links[source, target] = self._from[source][target] = laid
        return laid

    def _arrive(self, link: PeerLink, parcel: Parcel, delivery: Delivery) -> None:
        if not link.open:
            return
        link.arrived(delivery)
        payload = parcel.payload
        message: Message | Arrival
        if payload is None:
            message = Arrival(link.source, delivery.message, parcel.head, parcel.body, delivery.due_ns, parcel.size_bytes)
        else:
            message = new_message((link.source, parcel.step, payload, parcel.scalars, delivery[0]))
        self._deliver(self._members[link.target], message)


def new_endpoint(peer: Peer) -> Endpoint:
    """Return a peer's endpoint, without links."""
    return Endpoint(peer.id, (), message_limit_bytes(peer.spaces))
