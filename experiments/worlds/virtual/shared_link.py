"""Links in virtual time that share segments with others: an uplink, a downlink, a cable.

Whole messages flow like a fluid (netem.shaping.fluid): at every instant each link with bytes to send has its max-min fair rate,
and a message has left when the integral of that rate reaches its size.  There are events only when the set of sending links
changes, or a link's own rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from grapevine.experiments.worlds.virtual.link import Delivery, PeerLink
from grapevine.netem import Link, Shared
from grapevine.netem.shaping.fluid import Fluid
from grapevine.netem.shaping.max_min import MaxMin
from grapevine.netem.shaping.sender import FlowSender
from grapevine.peer.counts import LinkCount
from grapevine.peer.endpoint import Endpoint, Prepared
from grapevine.peer.payloads import Parcel

At = Callable[..., None]
Arrive = Callable[[PeerLink, Parcel, Delivery], None]


class Segments:
    """The flows over all shared segments; flows that change at one instant get their new rates together.

    `at(time_ns, action, *arguments)` plans an event, `now_ns()` returns the time, `arrive` receives messages.
    """

    def __init__(self, shared: Shared, at: At, now_ns: Callable[[], int], arrive: Arrive) -> None:
        self.at = at
        self.now_ns = now_ns
        self.arrive = arrive
        self.fluid = Fluid(MaxMin(list(shared.limits), list(shared.routes.values())), shared.profiles)
        self.flows = {pair: flow for flow, pair in enumerate(shared.routes)}
        self.links: dict[int, SharedLink] = {}  # by flow
        self._looks_ns: float | None = None  # when a segment changes next
        self._changed: dict[int, None] = {}

    def ask(self, link: SharedLink, cap_bytes_per_s: float) -> None:
        """Limit a link's rate from now on to what the link itself allows; 0 = it has nothing to send."""
        flow, caps = link.flow, self.fluid.shares.caps
        if caps[flow] == cap_bytes_per_s and flow not in self._changed:
            link.bend(self.now_ns())
            return
        caps[flow] = cap_bytes_per_s
        if not self._changed:
            self.at(self.now_ns(), self._settle)
        self._changed[flow] = None

    def _settle(self) -> None:
        changed, self._changed = self._changed, {}
        now_ns = self.now_ns()
        flows, next_ns = self.fluid.settle(changed, now_ns)
        if next_ns not in (math.inf, self._looks_ns):
            self._looks_ns = next_ns
            self.at(int(next_ns), self._look, next_ns)
        for flow in flows:
            self.links[flow].bend(now_ns)

    def _look(self, planned_ns: float) -> None:
        """Settle the flows at a planned change of a segment."""
        if planned_ns == self._looks_ns:
            self._looks_ns = None
            self._settle()


class SharedLink(PeerLink):
    """One directed link that shares segments with others."""

    __slots__ = (
        "_chunks",
        "_first_bytes",
        "_first_due_ns",
        "_first_ns",
        "_looked_ns",
        "_number",
        "_planned_ns",
        "_rest_bytes",
        "_told_ns",
        "flow",
        "segments",
    )

    sender: FlowSender

    def __init__(
        self, endpoint: Endpoint, target: int, link: Link, sent: LinkCount, received: LinkCount, segments: Segments
    ) -> None:
        super().__init__(endpoint, target, FlowSender(link), sent, received)
        self.segments = segments
        self.flow = segments.flows[self.source, target]
        segments.links[self.flow] = self
        self._first_bytes = self._rest_bytes = 0  # of the message that is leaving: first chunk, other chunks
        self._first_ns: float | None = None  # when the first chunk has left
        self._first_due_ns: int | None = None  # when the first chunk arrives
        self._chunks = 0  # number of later chunks that are known to have left
        self._told_ns = 0.0  # when the last reported chunk has left
        self._planned_ns: int | None = None  # time of the next planned look
        self._looked_ns = -1  # time at which the source last read the acknowledgements
        self._number = 0  # number of messages that have begun to leave

    def send(self, parcel: Parcel, now_ns: int, horizon_ns: float) -> None:
        """Queue a message; its arrival is planned when it has left."""
        prepared, sender = self.prepare(parcel, now_ns, horizon_ns), self.sender
        sender.offer(now_ns, prepared.size_bytes, (parcel, prepared))
        if not sender.leaving:
            self._begin(now_ns)

    def waiting_bytes(self, now_ns: int) -> float:
        if not self.sender.leaving:
            return 0.0
        fluid, flow = self.segments.fluid, self.flow
        return self.sender.queued_bytes + fluid.asked[flow] - fluid.done_bytes(flow, now_ns)

    def hear(self, now_ns: int) -> None:
        if self.sender.leaving:
            self._foresee_until(now_ns)
        self._tell(now_ns)

    def catch_up(self, now_ns: int) -> None:
        if now_ns > self._looked_ns and self.sender.leaving:  # a strategy may read several times at one instant
            self._looked_ns = now_ns
            self._foresee_until(now_ns)
        super().catch_up(now_ns)

    def stop(self) -> None:
        """Close the link, because one of its ends is gone: nothing more leaves."""
        super().stop()
        self.sender.forget()
        self._number += 1
        self._planned_ns = None
        self.segments.ask(self, 0.0)

    def bend(self, now_ns: int) -> None:
        """Take the rate that the flow has from now on."""
        fluid, flow, sends = self.segments.fluid, self.flow, bool(self.sender.leaving)
        if sends and fluid.shares.rates[flow] != fluid.slopes[flow] and now_ns > fluid.since_ns[flow]:
            self._look_back(now_ns)
        fluid.bend(flow, now_ns)
        if sends:
            self._plan()

    def _begin(self, now_ns: float) -> None:
        """Begin to send the next message of the queue."""
        sender, segments = self.sender, self.segments
        queued = sender.queue.popleft()
        sender.leaving.append(queued)
        sender.queued_bytes -= queued.size_bytes
        first_bytes = queued.item[1].first_bytes
        self._first_bytes = sender.takes(first_bytes)
        self._rest_bytes = sender.takes(queued.size_bytes - first_bytes) if first_bytes < queued.size_bytes else 0
        size_bytes = self._first_bytes + self._rest_bytes
        segments.fluid.restart(self.flow, size_bytes, now_ns)
        self._first_ns = self._first_due_ns = None
        self._chunks = 0
        self._number += 1
        pace = sender.link.pace(math.ceil(now_ns), size_bytes)
        if pace.start_ns > now_ns + 1:
            segments.ask(self, 0.0)
            segments.at(pace.start_ns, self._open, self._number, pace.rate_bytes_per_s)
        else:
            segments.ask(self, pace.rate_bytes_per_s)
        if pace.until_ns is not None:
            segments.at(pace.until_ns, self._repace, self._number)

    def _open(self, number: int, rate_bytes_per_s: float) -> None:
        """Let a message begin that had to wait for the link."""
        if number == self._number:
            self.segments.ask(self, rate_bytes_per_s)

    def _repace(self, number: int) -> None:
        """Take a new rate of the link while a message leaves."""
        if number == self._number and self.sender.leaving:
            pace = self.sender.link.pace(self.segments.now_ns(), 0)
            self.segments.ask(self, pace.rate_bytes_per_s)
            if pace.until_ns is not None:
                self.segments.at(pace.until_ns, self._repace, number)

    def _look_back(self, now_ns: float) -> None:
        """Note the chunks that have left until now, before their rate is overwritten."""
        self._foresee_until(now_ns)
        fluid = self.segments.fluid
        if self._first_ns is None and fluid.done_bytes(self.flow, now_ns) >= self._first_bytes:
            self._first_ns = fluid.when_ns(self.flow, self._first_bytes)

    def _foresee_until(self, now_ns: float) -> None:
        """Plan the receiver's reports about those chunks of the leaving message that have left until now."""
        prepared: Prepared = self.sender.leaving[0].item[1]
        message, size_bytes, plain_first_bytes, chunk_bytes, report_ms = prepared
        if not report_ms or not self._rest_bytes:
            return
        fluid, flow, first_bytes = self.segments.fluid, self.flow, self._first_bytes
        if not fluid.slopes[flow]:
            return
        done_bytes = fluid.done_bytes(flow, now_ns)
        if done_bytes < first_bytes:
            return
        link, report_ns = self.sender.link, report_ms * 1_000_000
        if self._first_due_ns is None:
            if self._first_ns is None:
                self._first_ns = fluid.when_ns(flow, first_bytes)
            self._first_due_ns = link.arrive(math.ceil(self._first_ns), True, False)
            self._told_ns = self._first_ns
        rest_bytes = size_bytes - plain_first_bytes
        step_bytes = chunk_bytes * (self._rest_bytes / rest_bytes)  # with the bytes that are sent twice
        least_bytes = fluid.done_bytes(flow, self._told_ns + report_ns)
        last = (rest_bytes - 1) // chunk_bytes  # the last chunk but one: the very last is always reported
        while True:
            chunks = max(self._chunks + 1, math.ceil((least_bytes - first_bytes) / step_bytes - 1e-9))
            left_bytes = first_bytes + chunks * step_bytes
            if chunks > last or left_bytes > done_bytes:
                return
            self._chunks, self._told_ns = chunks, fluid.when_ns(flow, left_bytes)
            due_ns = link.arrive(math.ceil(self._told_ns), False, False)
            self.reports.append((due_ns, message, chunks * chunk_bytes, due_ns - self._first_due_ns))
            least_bytes = left_bytes + fluid.slopes[flow] * report_ns / 1e9

    def _plan(self) -> None:
        """Plan a look for when the message will have left, unless an earlier one is planned, which will plan again."""
        end_ns = self.segments.fluid.ends_ns[self.flow]
        if end_ns == math.inf:
            return
        look_ns = max(math.ceil(end_ns), self.segments.now_ns())
        if self._planned_ns is None or look_ns < self._planned_ns:
            self._planned_ns = look_ns
            self.segments.at(look_ns, self._look, look_ns)

    def _look(self, planned_ns: int) -> None:
        if planned_ns != self._planned_ns:
            return
        self._planned_ns = None
        if self.segments.fluid.ends_ns[self.flow] <= planned_ns:
            self._left()
        else:
            self._plan()

    def _left(self) -> None:
        """End a message whose last bit has left, and plan its arrival."""
        segments, sender = self.segments, self.sender
        left_ns = segments.fluid.ends_ns[self.flow]
        self._foresee_until(left_ns)
        self.back.hear(segments.now_ns())  # while this link is known to be busy
        parcel, prepared = sender.leaving[0].item
        if self._rest_bytes and self._first_due_ns is None:
            first_ns = segments.fluid.when_ns(self.flow, self._first_bytes) if self._first_ns is None else self._first_ns
            self._first_due_ns = sender.link.arrive(math.ceil(first_ns), True, False)
        finish_ns = math.ceil(left_ns)
        due_ns = sender.link.arrive(finish_ns, not self._rest_bytes)
        spread_ns = 0 if self._first_due_ns is None else due_ns - self._first_due_ns
        sender.leaving.clear()
        self.sent.bytes += prepared.size_bytes
        self.sent.messages += 1
        delivery = Delivery(due_ns, prepared.message, finish_ns, prepared.size_bytes - prepared.first_bytes, spread_ns)
        segments.at(due_ns, segments.arrive, self, parcel, delivery)
        if sender.queue:
            self._begin(left_ns)
        else:
            segments.ask(self, 0.0)
