"""One directed link between two peers in virtual time: what a message costs on it, what its sender learns from the answer."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from grapevine.netem import Link
from grapevine.peer.carrier import LinkCount
from grapevine.peer.endpoint import piece_bytes
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel
from grapevine.peer.wire import HEADER_BYTES

if TYPE_CHECKING:
    from grapevine.experiments.worlds.virtual.world import Member

Facts = tuple[int, int, int, int, int]
"""Of a whole message: when its last bit arrives, its number, when it has left, and its dispersion: the bytes after its first
chunk, and the time between the arrivals of its first and last chunks."""

Report = tuple[int, int, int, int]
"""Of a message that is arriving: when its receiver tells how far it has come, its number, and its dispersion so far."""


class Packed(NamedTuple):
    """A message as an endpoint would cut it."""

    message: int
    size_bytes: int
    first_bytes: int
    """Of its first chunk; all of it where it is the only one."""
    chunk_bytes: int
    """Of every later chunk but the last."""
    report_ns: int
    """How often its sender wants to be told how far it has come; 0 = only when it is whole."""


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
        "reports",
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
        self.answers: deque[Report] = deque()  # on their way back, by when they arrive
        self.reports: deque[Report] = deque()  # that the receiver has not sent yet, as far as they are known

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Facts | None:
        """Put a message on the link; what will be known of it when it arrives, where that can be said already."""
        message, size_bytes, first_bytes, chunk_bytes, report_ns = self.pack(parcel, now_ns, horizon_ns)
        debt_bytes, self._debt_bytes = self._debt_bytes, 0
        if first_bytes == size_bytes:
            first = last = self.link.send(now_ns, size_bytes + debt_bytes)
        else:  # acknowledgements fall anywhere among the chunks, and lengthen what the receiver measures accordingly
            early_bytes = debt_bytes * first_bytes // size_bytes
            rest_bytes, debt_bytes = size_bytes - first_bytes, debt_bytes - early_bytes
            first = self.link.send(now_ns, first_bytes + early_bytes)
            if report_ns and type(self.link) is not Link:  # its rate may change on the way
                ends = [*range(chunk_bytes, rest_bytes, chunk_bytes), rest_bytes]
                dues_ns = []
                for start, end in zip([0, *ends], ends, strict=False):
                    more_bytes = debt_bytes * end // rest_bytes - debt_bytes * start // rest_bytes
                    last = self.link.send(now_ns, end - start + more_bytes, False)
                    dues_ns.append(last.due_ns)
                self._foresee_each(message, chunk_bytes, report_ns, first.due_ns, dues_ns[:-1])
            else:
                last = self.link.send(now_ns, rest_bytes + debt_bytes, False)
                if report_ns and last.due_ns - first.due_ns > report_ns:
                    pace_ns = (last.due_ns - first.due_ns) / rest_bytes * chunk_bytes
                    self._foresee(message, rest_bytes, chunk_bytes, report_ns, first.due_ns, pace_ns)
        self.sent.bytes += size_bytes
        self.sent.messages += 1
        return last.due_ns, message, last.finish_ns, size_bytes - first_bytes, last.due_ns - first.due_ns

    def _foresee(self, message: int, rest_bytes: int, chunk_bytes: int, report_ns: int, first_ns: int, pace_ns: float) -> None:
        """Note when the receiver will tell how far a message has come, whose chunks arrive one in every `pace_ns`."""
        between = max(1, math.ceil(report_ns / pace_ns - 1e-9))
        for chunks in range(between, -(-rest_bytes // chunk_bytes), between):
            spread_ns = round(chunks * pace_ns)
            self.reports.append((first_ns + spread_ns, message, chunks * chunk_bytes, spread_ns))

    def _foresee_each(self, message: int, chunk_bytes: int, report_ns: int, first_ns: int, dues_ns: list[int]) -> None:
        """The same, of chunks that arrive at these instants."""
        told_ns = first_ns
        for chunks, due_ns in enumerate(dues_ns, start=1):
            if due_ns - told_ns >= report_ns:
                told_ns = due_ns
                self.reports.append((due_ns, message, chunks * chunk_bytes, due_ns - first_ns))

    def pack(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Packed:
        """Cut a message as an endpoint would, and tell the meter."""
        back, meter, message = self.back, self.meter, self._sequence
        assert back is not None
        if back.reports:
            back.hear(now_ns)
        if self.answers and self.answers[0][0] <= now_ns:
            self.settle(now_ns)
        total = parcel.body.nbytes
        piece = piece_bytes(total, message, meter.chunk_bytes())
        self._sequence = message + 1
        chunks = -(-total // piece) if total > piece else 1
        size_bytes = parcel.size_bytes + HEADER_BYTES * chunks
        first_bytes = size_bytes if chunks == 1 else HEADER_BYTES + len(parcel.head) + piece
        chunk_bytes = HEADER_BYTES + piece
        report_ms = meter.report_ms(horizon_ns)
        meter.sent(message, size_bytes, first_bytes, chunk_bytes, now_ns, horizon_ns, report_ms)
        return Packed(message, size_bytes, first_bytes, chunk_bytes, report_ms * 1_000_000)

    def busy(self, now_ns: int) -> bool:
        """Whether a message is leaving or waits to."""
        return self.link.free_ns > now_ns

    def waiting_bytes(self, now_ns: int) -> float:
        """What was handed to the link and has not left, at the rate that the link has now."""
        return max(0.0, (self.link.free_ns - now_ns) / 1e9 * self.link.rate_bytes_per_s)

    def answer(self, facts: Facts) -> None:
        """A message has arrived: its acknowledgement goes back."""
        now_ns, message, _, spread_bytes, spread_ns = facts
        if self.reports:
            self.hear(now_ns)
        self._acknowledge(now_ns, message, spread_bytes, spread_ns)

    def hear(self, now_ns: int) -> None:
        """Let the receiver tell, by now, how far messages have come; nothing happens then but that, so it is done when somebody
        looks: the sender at its meter, or the receiver at the link back."""
        reports = self.reports
        while reports and reports[0][0] <= now_ns:
            self._acknowledge(*reports.popleft())

    def _acknowledge(self, now_ns: int, message: int, spread_bytes: int, spread_ns: int) -> None:
        """An acknowledgement goes back past the data that waits there, as the shaper lets it.

        Where the link is busy it takes the room of its bytes from the next message.  Nothing happens when it arrives but that
        the sender's meter knows, so the sender looks it up when it next asks.
        """
        back = self.back
        assert back is not None
        if not back.busy(now_ns):
            back.idle_bytes += back._debt_bytes
            back._debt_bytes = 0
        back._debt_bytes += HEADER_BYTES
        back.sent.bytes += HEADER_BYTES
        self.answers.append((back.link.beside_ns(now_ns, HEADER_BYTES), message, spread_bytes, spread_ns))

    def catch_up(self, now_ns: int) -> None:
        """Let the receiver tell, and the meter know, all that they would have by now."""
        if self.reports:
            self.hear(now_ns)
        if self.answers and self.answers[0][0] <= now_ns:
            self.settle(now_ns)

    def settle(self, now_ns: int) -> None:
        """Let the meter know of the acknowledgements that have arrived by now."""
        answers = self.answers
        while answers and answers[0][0] <= now_ns:
            arrived_ns, message, spread_bytes, spread_ns = answers.popleft()
            self.meter.acknowledged(message, spread_bytes, spread_ns, arrived_ns)

    def stop(self) -> None:
        """One of its ends is gone: nobody tells anything any more."""
        self.reports.clear()
