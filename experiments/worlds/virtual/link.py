"""One directed link between two peers in virtual time: what a message costs on it, what its sender learns from the answers."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from grapevine.netem import Link
from grapevine.netem.shaping.sender import Sender
from grapevine.peer.counts import LinkCount
from grapevine.peer.endpoint import Endpoint, Prepared
from grapevine.peer.meter import LinkMeter
from grapevine.peer.payloads import Parcel
from grapevine.peer.wire import HEADER_BYTES, Acknowledgement


class Delivery(NamedTuple):
    """A whole message as its receiver sees it."""

    due_ns: int
    """When its last bit arrives."""
    message: int
    finish_ns: int
    """When it had left."""
    spread_bytes: int
    """What comes after its first chunk."""
    spread_ns: int
    """The time between the arrivals of its first and last chunks."""


class Progress(NamedTuple):
    """How far a message has come that is still arriving, as its receiver tells."""

    at_ns: int
    """When it tells."""
    message: int
    spread_bytes: int
    spread_ns: int


class PeerLink:
    """One directed link between two peers: the end of it that its source has, and what its target answers.

    `endpoint` is the source's. An acknowledgement goes back past the data that wait on `back`, the link in the other
    direction. Nothing happens when it is sent or arrives but that numbers change, so both are done when somebody looks.
    """

    __slots__ = ("answers", "back", "endpoint", "open", "received", "reports", "sender", "sent", "source", "target")

    back: PeerLink

    def __init__(self, endpoint: Endpoint, target: int, sender: Sender, sent: LinkCount, received: LinkCount) -> None:
        self.endpoint = endpoint
        self.source = endpoint.peer
        self.target = target
        self.sender = sender
        self.sent = sent
        self.received = received
        self.open = True  # until one of its ends is gone
        self.answers: deque[Acknowledgement] = deque()  # on their way back, by when they arrive
        self.reports: deque[Progress] = deque()  # that the receiver has not sent yet, as far as they are known

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Delivery | None:
        """Put a message on the link; how it arrives, where that can be said already."""
        raise NotImplementedError

    def waiting_bytes(self, now_ns: int) -> float:
        """How much of what was handed to the link has not left."""
        raise NotImplementedError

    @property
    def meter(self) -> LinkMeter:
        """The link as its source measures it, by the answers that were looked at."""
        return self.endpoint.meters[self.target]

    def prepare(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Prepared:
        """Let the endpoint number and cut a message, once it knows all that it would know by now."""
        if self.back.reports:
            self.back.hear(now_ns)
        if self.answers and self.answers[0].due_ns <= now_ns:
            self.settle(now_ns)
        return self.endpoint.prepare(self.target, parcel, now_ns, horizon_ns)

    def answer(self, delivery: Delivery) -> None:
        """A message has arrived: its acknowledgement goes back."""
        now_ns, message, _, spread_bytes, spread_ns = delivery
        if self.reports:
            self.hear(now_ns)
        self._acknowledge(now_ns, message, spread_bytes, spread_ns)

    def hear(self, now_ns: int) -> None:
        """Let the receiver tell, by now, how far messages have come."""
        reports = self.reports
        while reports and reports[0].at_ns <= now_ns:
            self._acknowledge(*reports.popleft())

    def settle(self, now_ns: int) -> None:
        """Let the source measure by the acknowledgements that have arrived by now."""
        answers, acknowledged = self.answers, self.endpoint.acknowledged
        while answers and answers[0].due_ns <= now_ns:
            answer = answers.popleft()
            acknowledged(answer, answer.due_ns)

    def catch_up(self, now_ns: int) -> None:
        """Let the receiver tell, and the source know, all that they would have by now."""
        if self.reports:
            self.hear(now_ns)
        if self.answers and self.answers[0].due_ns <= now_ns:
            self.settle(now_ns)

    def stop(self) -> None:
        """One of its ends is gone: what is under way does not arrive, and nobody tells anything any more."""
        self.open = False
        self.reports.clear()
        self.answers.clear()

    def _acknowledge(self, now_ns: int, message: int, spread_bytes: int, spread_ns: int) -> None:
        back = self.back
        due_ns = back.sender.slip(now_ns, HEADER_BYTES)
        back.sent.bytes += HEADER_BYTES
        self.answers.append(Acknowledgement(self.target, message, spread_bytes, spread_ns, due_ns))


class PrivateLink(PeerLink):
    """A link that shares no segment with others: it says at once how a message will arrive."""

    __slots__ = ()

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> Delivery:
        message, size_bytes, first_bytes, chunk_bytes, report_ms = self.prepare(parcel, now_ns, horizon_ns)
        rest_bytes, sender = size_bytes - first_bytes, self.sender
        if not rest_bytes:
            (last,) = sender.carry(now_ns, (size_bytes,))
            first = last
        elif report_ms and type(sender.link) is not Link:  # its rate may change on the way
            chunks = -(-rest_bytes // chunk_bytes)
            first, *later = sender.carry(
                now_ns, [first_bytes, *[chunk_bytes] * (chunks - 1), rest_bytes - (chunks - 1) * chunk_bytes]
            )
            last = later[-1]
            self._foresee_each(message, chunk_bytes, report_ms, first.due_ns, [transit.due_ns for transit in later[:-1]])
        else:
            first, last = sender.carry(now_ns, (first_bytes, rest_bytes))
            if report_ms:
                self._foresee(message, rest_bytes, chunk_bytes, report_ms, first.due_ns, last.due_ns)
        self.sent.bytes += size_bytes
        self.sent.messages += 1
        return Delivery(last.due_ns, message, last.finish_ns, rest_bytes, last.due_ns - first.due_ns)

    def waiting_bytes(self, now_ns: int) -> float:
        link = self.sender.link
        return max(0.0, (link.free_ns - now_ns) / 1e9 * link.rate_bytes_per_s)

    def _foresee(self, message: int, rest_bytes: int, chunk_bytes: int, report_ms: int, first_ns: int, last_ns: int) -> None:
        """Note when the receiver will tell how far a message has come whose chunks arrive evenly between two instants."""
        report_ns = report_ms * 1_000_000
        if last_ns - first_ns <= report_ns:
            return
        pace_ns = (last_ns - first_ns) / rest_bytes * chunk_bytes
        between = max(1, math.ceil(report_ns / pace_ns - 1e-9))
        for chunks in range(between, -(-rest_bytes // chunk_bytes), between):
            spread_ns = round(chunks * pace_ns)
            self.reports.append(Progress(first_ns + spread_ns, message, chunks * chunk_bytes, spread_ns))

    def _foresee_each(self, message: int, chunk_bytes: int, report_ms: int, first_ns: int, dues_ns: list[int]) -> None:
        """The same, of chunks that arrive at these instants."""
        report_ns, told_ns = report_ms * 1_000_000, first_ns
        for chunks, due_ns in enumerate(dues_ns, start=1):
            if due_ns - told_ns >= report_ns:
                told_ns = due_ns
                self.reports.append(Progress(due_ns, message, chunks * chunk_bytes, due_ns - first_ns))
