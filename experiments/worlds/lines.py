"""One directed link between two peers in virtual time: what a message costs on it, what its sender learns from the answer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from netem import Link
from peer.carrier import LinkCount
from peer.endpoint import piece_bytes
from peer.meter import LinkMeter
from peer.payloads import Parcel
from peer.wire import HEADER_BYTES

if TYPE_CHECKING:
    from experiments.worlds.virtual import Member

Facts = tuple[int, int, int, int, int]
"""Of a whole message: when its last bit arrives, its size on the wire, when it has left, and its dispersion: the bytes after
its first chunk, and the time between the arrivals of its first and last chunks."""


class Line:
    """One directed link between two peers that carries whole messages."""

    __slots__ = (
        "_debt_bytes",
        "_sequence",
        "answers",
        "back",
        "idle_bytes",
        "link",
        "meter",
        "received",
        "sent",
        "source",
        "target",
    )

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
        self.idle_bytes = 0  # acknowledgements that it has carried while nothing else was under way
        self.answers: deque[tuple[int, int, int, int, int]] = deque()

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Facts | None:
        """Put a message on the link; what will be known of it when it arrives, where that can be said already."""
        size_bytes, first_bytes = self.pack(parcel, now_ns, horizon_ns)
        debt_bytes, self._debt_bytes = self._debt_bytes, 0
        if first_bytes == size_bytes:
            first = last = self.link.send(now_ns, size_bytes + debt_bytes)
        else:  # acknowledgements fall anywhere among the chunks, and lengthen what the receiver measures accordingly
            early_bytes = debt_bytes * first_bytes // size_bytes
            first = self.link.send(now_ns, first_bytes + early_bytes)
            last = self.link.send(now_ns, size_bytes - first_bytes + debt_bytes - early_bytes, False)
        self.sent.bytes += size_bytes
        self.sent.messages += 1
        return last.due_ns, size_bytes, last.finish_ns, size_bytes - first_bytes, last.due_ns - first.due_ns

    def pack(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> tuple[int, int]:
        """Cut a message as an endpoint would, and tell the meter: its bytes on the wire, and those of its first chunk."""
        if self.answers and self.answers[0][0] <= now_ns:
            self.settle(now_ns)
        total = parcel.body.nbytes
        piece = piece_bytes(total, self._sequence, self.meter.chunk_bytes())
        self._sequence += 1
        chunks = -(-total // piece) if total > piece else 1
        size_bytes = parcel.size_bytes + HEADER_BYTES * chunks
        self.meter.sent(size_bytes, now_ns, horizon_ns)
        return size_bytes, size_bytes if chunks == 1 else HEADER_BYTES + len(parcel.head) + piece

    def busy(self, now_ns: int) -> bool:
        """Whether a message is leaving or waits to."""
        return self.link.free_ns > now_ns

    def answer(self, facts: Facts) -> None:
        """A message has arrived: its acknowledgement goes back past the data that waits there, as the shaper lets it.

        Where the link is busy it takes the room of its bytes from the next message.  Nothing happens when it arrives but that
        the sender's meter knows, so the sender looks it up when it next asks.
        """
        now_ns, size_bytes, finish_ns, spread_bytes, spread_ns = facts
        back = self.back
        assert back is not None
        if not back.busy(now_ns):
            back.idle_bytes += back._debt_bytes
            back._debt_bytes = 0
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
