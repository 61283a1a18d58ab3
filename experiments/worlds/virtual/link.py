"""One directed link between two peers in virtual time: when messages arrive, and what acknowledgements report to the sender."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from grapevine.netem import Link
from grapevine.netem.shaping.sender import Sender
from grapevine.peer.counts import LinkCount
from grapevine.peer.endpoint import Endpoint, Prepared
from grapevine.peer.payloads import Parcel
from grapevine.peer.wire import HEADER_BYTES


class Delivery(NamedTuple):
    """The arrival of a whole message."""

    due_ns: int
    """When its last bit arrives."""
    message: int
    finish_ns: int
    """When its last bit has left."""
    spread_bytes: int
    """Its bytes after the first chunk."""
    spread_ns: int
    """The time between the arrivals of its first and last chunks."""


_delivery: Callable[[tuple[int, int, int, int, int]], Delivery] = partial(tuple.__new__, Delivery)
"""The same as Delivery(...), in half the time."""

Answer = tuple[int, int, int, int]
"""A receiver's report about a message: the time of the report (or of its arrival), ns; the message's number; and its dispersion
so far: the bytes after its first chunk, and the time in which they arrived, ns."""


class PeerLink:
    """One directed link between two peers: its source's end, and its target's answers.

    `endpoint` is the source's. An acknowledgement travels on `back`, the link in the other direction, ahead of the data that
    wait there. It only changes numbers, so it is sent and received when these numbers are read.
    """

    __slots__ = ("answers", "back", "endpoint", "meter", "open", "received", "reports", "sender", "sent", "source", "target")

    back: PeerLink

    def __init__(self, endpoint: Endpoint, target: int, sender: Sender, sent: LinkCount, received: LinkCount) -> None:
        self.endpoint = endpoint
        self.source = endpoint.peer
        self.target = target
        self.meter = endpoint.meters[target]
        self.sender = sender
        self.sent = sent
        self.received = received
        self.open = True  # False once one of its ends is gone
        self.answers: deque[Answer] = deque()  # on their way back, in the order of arrival
        self.reports: deque[Answer] = deque()  # known, and not yet sent by the receiver

    @abstractmethod
    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Delivery | None:
        """Put a message on the link; return its arrival, or None if that is not known yet."""
        raise NotImplementedError

    @abstractmethod
    def waiting_bytes(self, now_ns: int) -> float:
        """Return how many bytes were handed to the link and have not left."""
        raise NotImplementedError

    def prepare(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Prepared:
        """Let the endpoint number a message and cut it into chunks, after all acknowledgements that have arrived by now."""
        if self.back.reports:
            self.back.hear(now_ns)
        if self.answers and self.answers[0][0] <= now_ns:
            self.settle(now_ns)
        return self.endpoint.prepare(self.target, parcel, now_ns, horizon_ns)

    def arrived(self, delivery: Delivery) -> None:
        """Count a message that has arrived, and send its acknowledgement back."""
        now_ns, message, finish_ns, spread_bytes, spread_ns = delivery
        received = self.received
        received.delays_ns.append(now_ns - finish_ns)
        received.spread_bytes += spread_bytes
        received.spread_ns += spread_ns
        if self.reports:
            self.hear(now_ns)
        self._acknowledge(now_ns, message, spread_bytes, spread_ns)

    def hear(self, now_ns: int) -> None:
        """Send the receiver's reports that are due by now."""
        self._tell(now_ns)

    def settle(self, now_ns: int) -> None:
        """Let the source measure from the acknowledgements that have arrived by now."""
        answers, acknowledged = self.answers, self.meter.acknowledged
        while answers and answers[0][0] <= now_ns:
            arrived_ns, message, spread_bytes, spread_ns = answers.popleft()
            if not acknowledged(message, spread_bytes, spread_ns, arrived_ns):
                self.endpoint.errors["acknowledgement"] += 1

    def catch_up(self, now_ns: int) -> None:
        """Send the reports and take in the acknowledgements that are due by now."""
        if self.reports and self.reports[0][0] <= now_ns:
            self._tell(now_ns)
        if self.answers and self.answers[0][0] <= now_ns:
            self.settle(now_ns)

    def stop(self) -> None:
        """Close the link, because one of its ends is gone: messages and reports under way do not arrive."""
        self.open = False
        self.reports.clear()
        self.answers.clear()

    def _tell(self, now_ns: int) -> None:
        reports = self.reports
        while reports and reports[0][0] <= now_ns:
            self._acknowledge(*reports.popleft())

    def _acknowledge(self, now_ns: int, message: int, spread_bytes: int, spread_ns: int) -> None:
        back = self.back
        due_ns = back.sender.slip(now_ns, HEADER_BYTES)
        back.sent.bytes += HEADER_BYTES
        self.answers.append((due_ns, message, spread_bytes, spread_ns))


class PrivateLink(PeerLink):
    """A link that shares no segment with others, so that a message's arrival is known at once."""

    __slots__ = ()

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Delivery:
        message, size_bytes, first_bytes, chunk_bytes, report_ms = self.prepare(parcel, now_ns, horizon_ns)
        rest_bytes, sender = size_bytes - first_bytes, self.sender
        if report_ms and type(sender.link) is not Link:  # its rate may change meanwhile
            transits = sender.carry_chunks(now_ns, first_bytes, rest_bytes, chunk_bytes)
            _, finish_ns, due_ns = transits[-1]
            spread_ns = due_ns - transits[0].due_ns
            self._foresee_each(message, chunk_bytes, report_ms, [transit.due_ns for transit in transits[:-1]])
        else:
            first_ns, finish_ns, due_ns = sender.carry(now_ns, first_bytes, rest_bytes)
            spread_ns = due_ns - first_ns
            if report_ms and spread_ns > report_ms * 1_000_000:
                self._foresee(message, rest_bytes, chunk_bytes, report_ms * 1_000_000, first_ns, spread_ns)
        sent = self.sent
        sent.bytes += size_bytes
        sent.messages += 1
        return _delivery((due_ns, message, finish_ns, rest_bytes, spread_ns))

    def waiting_bytes(self, now_ns: int) -> float:
        link = self.sender.link
        return max(0.0, (link.free_ns - now_ns) / 1e9 * link.rate_bytes_per_s)

    def _foresee(self, message: int, rest_bytes: int, chunk_bytes: int, report_ns: int, first_ns: int, spread_ns: int) -> None:
        """Plan the receiver's reports about a message whose chunks arrive at equal intervals after the first."""
        pace_ns = spread_ns / rest_bytes * chunk_bytes
        between = max(1, math.ceil(report_ns / pace_ns - 1e-9))
        for chunks in range(between, -(-rest_bytes // chunk_bytes), between):
            told_ns = round(chunks * pace_ns)
            self.reports.append((first_ns + told_ns, message, chunks * chunk_bytes, told_ns))

    def _foresee_each(self, message: int, chunk_bytes: int, report_ms: int, dues_ns: list[int]) -> None:
        """Plan the receiver's reports about a message whose chunks, except the last, arrive at the instants `dues_ns`."""
        report_ns = report_ms * 1_000_000
        told_ns = first_ns = dues_ns[0] if dues_ns else 0
        for chunks, due_ns in enumerate(dues_ns[1:], start=1):
            if due_ns - told_ns >= report_ns:
                told_ns = due_ns
                self.reports.append((due_ns, message, chunks * chunk_bytes, due_ns - first_ns))
