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

Facts = tuple[int, int, int, int, int]
"""Of a whole message: when its last bit arrives, its size on the wire, when it has left, and its dispersion: the bytes after
its first chunk, and the time between the arrivals of its first and last chunks."""


class Line:
    """One directed link between two peers that carries whole messages."""

    __slots__ = ("_debt_bytes", "_sequence", "answers", "back", "link", "meter", "received", "sent", "source", "target")

    def __init__(self, source: Member, target: Member, link: Link, meter: LinkMeter) -> None:
        self.source = source
        self.target = target
        self.link = link
        self.meter = meter
        self.sent = LinkCount()
        self.received = LinkCount()
        self.back: Line | None = None
        self._sequence = 0
        self._debt_bytes = 0  # acknowledgements that this link has carried past its queue
        self.answers: deque[tuple[int, int, int, int, int]] = deque()

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Facts:
        """Put a message on the link; what will be known of it when it arrives."""
        if self.answers and self.answers[0][0] <= now_ns:
            self.settle(now_ns)
        total = parcel.body.nbytes
        piece = piece_bytes(total, self._sequence, self.meter.chunk_bytes())
        self._sequence += 1
        chunks = -(-total // piece) if total > piece else 1
        size_bytes = parcel.size_bytes + HEADER_BYTES * chunks
        self.meter.sent(size_bytes, now_ns, horizon_ns)
        first_bytes = size_bytes if chunks == 1 else HEADER_BYTES + len(parcel.head) + piece
        debt_bytes, self._debt_bytes = self._debt_bytes, 0
        if chunks == 1:
            first = last = self.link.send(now_ns, size_bytes + debt_bytes)
        else:  # acknowledgements fall anywhere among the chunks, and lengthen what the receiver measures accordingly
            early_bytes = debt_bytes * first_bytes // size_bytes
            first = self.link.send(now_ns, first_bytes + early_bytes)
            last = self.link.send(now_ns, size_bytes - first_bytes + debt_bytes - early_bytes, False)
        self.sent.bytes += size_bytes
        self.sent.messages += 1
        return last.due_ns, size_bytes, last.finish_ns, size_bytes - first_bytes, last.due_ns - first.due_ns

    def answer(self, facts: Facts) -> None:
        """A message has arrived: its acknowledgement goes back past the data that waits there, as the shaper lets it.

        It takes the room of its bytes from the next message.  Nothing happens when it arrives but that the sender's meter
        knows, so the sender looks it up when it next asks.
        """
        now_ns, size_bytes, finish_ns, spread_bytes, spread_ns = facts
        back = self.back
        assert back is not None
        back._debt_bytes += HEADER_BYTES
        back.sent.bytes += HEADER_BYTES
        arrives_ns = back.link.beside_ns(now_ns, HEADER_BYTES)
        self.answers.append((arrives_ns, size_bytes, spread_bytes, spread_ns, arrives_ns - finish_ns))

    def settle(self, now_ns: int) -> None:
        """Let the meter know of the acknowledgements that have arrived by now."""
        answers = self.answers
        while answers and answers[0][0] <= now_ns:
            _, size_bytes, spread_bytes, spread_ns, round_trip_ns = answers.popleft()
            self.meter.acknowledged(size_bytes, spread_bytes, spread_ns, round_trip_ns)


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


class _Ends:
    """One peer's end of the chunked network."""

    def __init__(self, fleet: Fleet, peer: Peer, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        links = {neighbour: fleet.plan.link(peer.id, neighbour) for neighbour in peer.neighbours}
        self.shaper = Shaper(links, fleet.plan.uplinks[peer.id], 0)
        self.downlink = Downlink(fleet.plan.downlinks[peer.id])
        self.sent = {neighbour: LinkCount() for neighbour in peer.neighbours}
        self.received = {neighbour: LinkCount() for neighbour in peer.neighbours}
        self.release_at_ns: int | None = None


class Chunks:
    """Carries messages chunk by chunk, through shared uplinks and downlinks."""

    def __init__(self, fleet: Fleet, members: list[Member], at: At, deliver: Callable[[Member, Any], None]) -> None:
        self._at = at
        self._deliver_message = deliver
        self._members = members
        self._now_ns = 0
        self.ends = [_Ends(fleet, member.peer, member.endpoint) for member in members]

    def send(self, member: Member, effect: Send, now_ns: int) -> None:
        """Carry a message to each of its targets."""
        peer, ends = member.peer, self.ends[member.peer.id]
        for target in effect.targets:
            if target in peer.mixing:
                for chunk in ends.endpoint.send(target, effect.parcel, now_ns, peer.horizon_ns):
                    ends.shaper.offer(target, chunk, chunk.size_bytes, now_ns, chunk.number == 0)
        self._release(member.peer.id, now_ns)

    def _release(self, source: int, now_ns: int) -> None:
        """Put on the links what begins now, and come back when the next chunk does."""
        ends = self.ends[source]
        for target, frame, transit in ends.shaper.release(now_ns):
            count = ends.sent[target]
            count.bytes += frame.size_bytes
            stamped = frame
            if isinstance(frame, Chunk):
                stamped = frame._replace(due_ns=transit.due_ns, finish_ns=transit.finish_ns)
                if frame.offset + len(frame.piece) == frame.total_bytes:
                    count.messages += 1
                    ends.endpoint.released(target, frame.message, transit.finish_ns)
            self._at(transit.due_ns, self._arrive, target, stamped, transit.due_ns)
        next_ns = ends.shaper.next_ns()
        if next_ns is not None and (ends.release_at_ns is None or next_ns < ends.release_at_ns):
            ends.release_at_ns = next_ns
            self._at(max(next_ns, now_ns), self._release_again, source, next_ns, max(next_ns, now_ns))

    def _release_again(self, source: int, planned_ns: int, now_ns: int) -> None:
        if self.ends[source].release_at_ns == planned_ns:
            self.ends[source].release_at_ns = None
            if self._members[source].alive:
                self._release(source, now_ns)

    def _arrive(self, target: int, frame: Frame, now_ns: int) -> None:
        """A frame has come to the end of its link; the downlink may hold it up."""
        if not (self._members[target].alive and self._members[frame.source].alive):
            return
        in_ns = self.ends[target].downlink.receive(now_ns, frame.size_bytes)
        if in_ns > now_ns:
            self._at(in_ns, self._deliver, target, frame, in_ns)
        else:
            self._deliver(target, frame, now_ns)

    def _deliver(self, target: int, frame: Frame, now_ns: int) -> None:
        ends, member = self.ends[target], self._members[target]
        if not (member.alive and frame.source in ends.endpoint.meters):
            return
        if isinstance(frame, Acknowledgement):
            ends.endpoint.acknowledged(frame, now_ns)
            return
        ends.received[frame.source].delivered(frame, now_ns)
        complete = ends.endpoint.receive(frame, now_ns)
        if complete is None:
            return
        arrival, answer = complete
        ends.shaper.offer(arrival.source, answer, HEADER_BYTES, now_ns, True, True)
        self._release(target, now_ns)
        self._deliver_message(member, arrival)

    def lose(self, survivor: Member, dead: int) -> None:
        """A neighbour is gone: forget what is queued for it and what it had under way."""
        self.ends[survivor.peer.id].shaper.drop(dead)
        survivor.endpoint.lose(dead)

    def sent(self, member: Member) -> dict[int, LinkCount]:
        """The counts of a peer's outgoing links, by neighbour."""
        return self.ends[member.peer.id].sent

    def received(self, member: Member) -> dict[int, LinkCount]:
        """The counts of a peer's incoming links, by neighbour."""
        return self.ends[member.peer.id].received


def carriage_of(fleet: Fleet, members: list[Member], at: At, deliver: Callable[[Member, Any], None]) -> WholeMessages | Chunks:
    """Whole messages where no access line is shared, chunks where one is."""
    shared = not all(isinf(rate) for rate in (*fleet.plan.uplinks, *fleet.plan.downlinks))
    return (Chunks if shared else WholeMessages)(fleet, members, at, deliver)


def new_endpoint(peer: Peer) -> Endpoint:
    """A peer's end of its links, whose meters the peer reads."""
    endpoint = Endpoint(peer.id, peer.mixing, message_limit_bytes(peer.size))
    peer.meters = endpoint.meters
    return endpoint
