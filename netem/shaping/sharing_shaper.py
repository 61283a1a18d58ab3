"""The chunks that one peer sends over segments that it shares with other peers, in real time.

The rate of each link depends on the traffic of all peers, so the rates are in a table that all senders see (`flow_table.py`). A
sender reads there when each of its chunks has left, and releases the chunk with that time. Times are those of the emulated
links, independent of when a sender looks.
"""

import itertools
import math
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

from grapevine.netem.links.link import ChangingLink, Link, TcpLink, Transit
from grapevine.netem.shaping.flow_table import Breakpoint, Demand, FlowTable
from grapevine.netem.shaping.sender import FlowSender, Queued
from grapevine.netem.shaping.shaper import Shaper

LEAD_NS = 2_000_000
"""A chunk is released this long before it is due, if it has left by then: the real way to its receiver may take so long."""
AHEAD_NS = 500_000
"""A chunk is released at most this long before it leaves, because its time may still change until it has left."""
_MOST_HOLD_NS = 8_000_000  # the longest wait after a chunk has left: by then the table has all demands that affect its time


class SharingShaper:
    """All chunks that one peer sends: over links that share no segment (netem.shaping.shaper), and over links that do.

    `links` maps each neighbour to the Link towards it; `flows` maps those whose links share segments to their flows in `table`.
    `turn` is held while the table is used. Acknowledgements overtake queued chunks, as in netem.shaping.shaper.

    A chunk is released 2 ms before it is due. If its link's delay is longer than 2 ms, the chunk has left by then and its time
    is exact. If the delay is shorter, the chunk is released up to 0.5 ms before it has left, at a time that assumes that the
    rates stay the same until then.
    """

    def __init__(
        self, links: dict[int, Link], flows: dict[int, int], table: FlowTable, turn: AbstractContextManager[Any]
    ) -> None:
        self._alone = Shaper({})
        self._flows: dict[int, _Flow] = {}
        self._table = table
        self._turn = turn
        self._ready: list[tuple[int, Any, Transit]] = []
        self._looked_ns = 0
        for target, link in links.items():
            self.add(target, link, flows.get(target))

    def add(self, target: int, link: Link, flow: int | None = None) -> None:
        """Add the link to a neighbour; `flow` is its flow in the table, None if it shares no segment.

        A neighbour that came back after `drop` begins anew.
        """
        if flow is None:
            self._alone.add(target, link)
        else:
            with self._turn:
                self._flows[target] = _Flow(target, link, flow, self._table)

    def offer(self, target: int, item: Any, size_bytes: int, now_ns: int, first: bool = True, urgent: bool = False) -> None:
        """Queue a chunk for `target`; `release` returns `item` unchanged.

        `first`: the chunk begins a message. `urgent`: a message of one chunk (an acknowledgement) that overtakes all data.
        """
        flow = self._flows.get(target)
        if flow is None:
            self._alone.offer(target, item, size_bytes, now_ns, first, urgent)
        elif (transit := flow.offer(now_ns, size_bytes, item, first, urgent)) is not None:
            self._ready.append((target, item, transit))

    def release(self, now_ns: int) -> list[tuple[int, Any, Transit]]:
        """Return the chunks that are due for release, as (target, item, transit); each once, in the order of its link."""
        released, self._ready = self._ready, []
        released += self._alone.release(now_ns)
        self._looked_ns = now_ns
        busy = [flow for flow in self._flows.values() if flow.leaving or flow.queue]
        while busy:
            demands = [demand for flow in busy for demand in flow.demands(now_ns)]
            with self._turn:
                self._table.carry_out(demands)
                self._table.advance(now_ns)
                for flow in busy:
                    flow.look(self._table)
            busy = [flow for flow in busy if flow.hand_out(now_ns, released)]
        return released

    def next_ns(self) -> int | None:
        """Return when to call `release` again; None when nothing is queued."""
        if self._ready:
            return self._looked_ns
        times = [flow.next_ns(self._looked_ns) for flow in self._flows.values() if flow.leaving or flow.queue]
        alone_ns = self._alone.next_ns()
        if alone_ns is not None:
            times.append(alone_ns)
        return min(times, default=None)

    def relink(self, target: int, link: Link) -> None:
        """Use another link to a neighbour from now on; the table's numbers for its queue stay."""
        flow = self._flows.get(target)
        if flow is None:
            self._alone.relink(target, link)
        else:
            flow.relink(link)

    def drop(self, target: int) -> int:
        """Drop the chunks queued for a lost neighbour; return their size in bytes."""
        flow = self._flows.get(target)
        if flow is None:
            return self._alone.drop(target)
        forgotten_bytes = flow.forget()
        self._ready = [chunk for chunk in self._ready if chunk[0] != target]
        with self._turn:
            self._table.carry_out([Demand(self._looked_ns, flow.number, -math.inf, 0.0)])
        return forgotten_bytes


class _Flow(FlowSender):
    """The link to one neighbour, and a copy of its flow in the table; bytes are counted from the beginning of the run."""

    def __init__(self, target: int, link: Link, number: int, table: FlowTable) -> None:
        super().__init__(link)
        self.target = target
        self.number = number
        self._asked_bytes = table.asked_bytes(number)
        self._done_bytes = self._asked_bytes  # up to the end of the chunk released last
        self._left_ns = 0.0  # when that chunk had left
        self._cap = -1.0
        self._changes_ns: int | None = None  # when the link's pace changes
        self._breakpoints: deque[Breakpoint] = deque([Breakpoint(0.0, self._done_bytes, 0.0)])
        self._count = 0  # the breakpoints that the flow has had
        self._rolled_back = -1.0  # the table's roll-backs when it was last read
        self._demands: list[Demand] = []  # demands of future instants
        self.relink(link)

    def relink(self, link: Link) -> None:
        super().relink(link)
        self._varies = isinstance(link, ChangingLink)
        self._whole = isinstance(link, TcpLink)  # its pace depends on the size of the message

    def demands(self, now_ns: int) -> list[Demand]:
        """Return the demands up to now that the table does not have yet."""
        if not (self.queue or self._demands or self._varies):
            return []
        self._follow(now_ns)
        while self.queue and not (self._whole and self.leaving):
            start = self.queue[0]
            others = (place for place, chunk in enumerate(self.queue) if place and self._parts(start, chunk))
            size_bytes = self.begin(next(others, len(self.queue)))
            at_ns = max(start.offered_ns, math.ceil(self._left_ns) if self._whole else 0)
            if self._whole or self._cap < 0:
                at_ns = self._repace(at_ns, size_bytes, start.first)
            self._asked_bytes += size_bytes
            self._demands.append(Demand(at_ns, self.number, float(size_bytes), self._cap))
        known, self._demands = self._demands, [demand for demand in self._demands if demand.at_ns > now_ns]
        return known if not self._demands else [demand for demand in known if demand.at_ns <= now_ns]

    def _follow(self, now_ns: int) -> None:
        """Add demands for the changes of the link's own pace until now."""
        if not self._varies or self._cap < 0:
            return
        while True:
            at_ns, cap = (now_ns if self._changes_ns is None else min(now_ns, self._changes_ns)), self._cap
            self._repace(at_ns)
            if self._cap != cap and self._asked_bytes > self._done_bytes:
                self._demands.append(Demand(at_ns, self.number, 0.0, self._cap))
            if at_ns == now_ns:
                return

    def _parts(self, before: Queued, after: Queued) -> bool:
        """Return whether `after` needs a demand of its own: other offer time than `before` (TCP: another message)."""
        return after.first if self._whole else after.offered_ns != before.offered_ns

    def _repace(self, at_ns: int, size_bytes: int = 0, first: bool = True) -> int:
        pace = self.link.pace(at_ns, size_bytes, first)
        self._cap, self._changes_ns = pace.rate_bytes_per_s, pace.until_ns
        return pace.start_ns

    def look(self, table: FlowTable) -> None:
        """Read the flow's new breakpoints from the table."""
        rolled_back = table.rolled_back
        if rolled_back != self._rolled_back:
            self._rolled_back = rolled_back
            self._count, new = table.breakpoints(self.number)
            self._breakpoints = deque([kept for kept in self._breakpoints if not new or kept.at_ns < new[0].at_ns])
        else:
            self._count, new = table.breakpoints(self.number, self._count)
        if new:
            self._breakpoints.extend(new)

    def hand_out(self, now_ns: int, released: list[tuple[int, Any, Transit]]) -> bool:
        """Release the chunks that are due for release; return whether there are further demands to carry out now."""
        while self.leaving:
            total_bytes = self._done_bytes + self.leaving[0].size_bytes
            left_ns = self._when(total_bytes)
            if left_ns is None or left_ns + self._hold_ns() > now_ns:
                return False
            before_ns, self._left_ns, self._done_bytes = self._left_ns, left_ns, total_bytes
            released.append((self.target, *self.leave(before_ns, left_ns, total_bytes >= self._asked_bytes)))
        return bool(self.queue)

    def next_ns(self, looked_ns: int) -> int:
        """Return when to look again: when the next chunk is due for release, or other peers may have changed its time."""
        hold_ns = self._hold_ns()
        again_ns = min([looked_ns + max(LEAD_NS, hold_ns), *(int(demand.at_ns) for demand in self._demands)])
        left_ns = self._when(self._done_bytes + self.leaving[0].size_bytes) if self.leaving else None
        if left_ns is not None:
            again_ns = min(again_ns, math.ceil(left_ns) + hold_ns)
        return again_ns if self._changes_ns is None else min(again_ns, self._changes_ns)

    def forget(self) -> int:
        """Drop the chunks queued or leaving; return their size in bytes."""
        self._demands.clear()
        self._asked_bytes = self._done_bytes
        return super().forget()

    def _hold_ns(self) -> int:
        """Return the time from a chunk's leaving to its release; below 0: it is released before."""
        most_ns = 0 if self._whole else _MOST_HOLD_NS  # TCP: the next message's pace depends on when this chunk has left
        return max(-AHEAD_NS, min(self.link.delay_ns - 3 * self.link.jitter_ns - LEAD_NS, most_ns))

    def _when(self, total_bytes: float) -> float | None:
        """Return when `total_bytes` have left, counted from the beginning of the run; None at a rate of 0."""
        points = self._breakpoints
        while len(points) > 1 and points[1].done_bytes <= self._done_bytes:
            points.popleft()
        for before, after in itertools.pairwise(points):
            if after.done_bytes >= total_bytes - 1e-2:
                span = after.done_bytes - before.done_bytes
                share = (total_bytes - before.done_bytes) / span if span > 0 else 1.0
                return before.at_ns + min(1.0, share) * (after.at_ns - before.at_ns)
        last = points[-1]
        if not last.rate_bytes_per_s:
            return None
        return last.at_ns + (total_bytes - last.done_bytes) / last.rate_bytes_per_s * 1e9
