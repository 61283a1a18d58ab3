"""What one peer sends over lines that it shares with others, in real time.

The rates of all peers' links follow from what all of them send, so they stand in a table that all senders see
(`flow_table.py`). A sender reads there when each of its chunks has left, and hands it out with that stamp. Stamps are those of
the emulated lines, however late somebody looks.
"""

import math
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from grapevine.netem.links.link import ChangingLink, Link, TcpLink, Transit
from grapevine.netem.shaping.flow_table import Bend, FlowTable, Order
from grapevine.netem.shaping.shaper import Shaper

LEAD_NS = 2_000_000
"""How long before a chunk is due it is handed out, if it has left by then: what the way to its receiver may take."""
AHEAD_NS = 500_000
"""How long before it leaves it is handed out at most: then nobody knows for sure when that will be."""
_MOST_HOLD_NS = 8_000_000  # after it has left, where the delay is long: by then all orders that concern it are written down


class SharingShaper:
    """All that one peer sends: chunks over links of its own (netem.shaping.shaper), and over links that share lines.

    `links` maps each neighbour to the Link towards it, `flows` those among them that share lines to their flows in `table`.
    `turn` is held while the table is used. Acknowledgements go past whatever waits, as in netem.shaping.shaper.

    A chunk is handed out 2 ms before it is due, which is after it has left where its link's delay is longer than that; then
    its stamp is exact. Where the delay is shorter it is handed out up to 0.5 ms before it has left, as if the rates stayed as
    they are until then.
    """

    def __init__(
        self, links: dict[int, Link], flows: dict[int, int], table: FlowTable, turn: AbstractContextManager[Any]
    ) -> None:
        self._alone = Shaper({target: link for target, link in links.items() if target not in flows})
        self._lanes = {target: _Lane(target, links[target], flow) for target, flow in flows.items()}
        self._table = table
        self._turn = turn
        self._ready: list[tuple[int, Any, Transit]] = []
        self._looked_ns = 0

    def offer(self, target: int, item: Any, size_bytes: int, now_ns: int, first: bool = True, urgent: bool = False) -> None:
        """Queue a chunk for `target`; `item` comes back from `release` as it is.

        `first`: it begins a message. `urgent`: a message of one chunk (an acknowledgement) that goes past all data.
        """
        lane = self._lanes.get(target)
        if lane is None:
            self._alone.offer(target, item, size_bytes, now_ns, first, urgent)
        elif urgent and not lane.link.halted:
            lane.debt_bytes = size_bytes + (lane.debt_bytes if lane.chunks else 0)
            self._ready.append((target, item, Transit(now_ns, now_ns, lane.link.beside_ns(now_ns, size_bytes))))
        else:
            size_bytes, lane.debt_bytes = lane.link.swell(size_bytes + lane.debt_bytes), 0
            lane.chunks.append(_Chunk(now_ns, size_bytes, item, first))
            lane.unasked += 1

    def release(self, now_ns: int) -> list[tuple[int, Any, Transit]]:
        """The chunks that are to be handed out by now, as (target, item, transit); each once, in the order of its link."""
        released, self._ready = self._ready, []
        released += self._alone.release(now_ns)
        self._looked_ns = now_ns
        busy = [lane for lane in self._lanes.values() if lane.chunks]
        while busy:
            orders = [order for lane in busy for order in lane.orders(now_ns)]
            with self._turn:
                self._table.carry_out(orders)
                self._table.advance(now_ns)
                for lane in busy:
                    lane.look(self._table)
            busy = [lane for lane in busy if lane.hand_out(now_ns, released)]
        return released

    def next_ns(self) -> int | None:
        """When to call `release` again; None when nothing is queued."""
        if self._ready:
            return self._looked_ns
        times = [lane.next_ns(self._looked_ns) for lane in self._lanes.values() if lane.chunks]
        alone_ns = self._alone.next_ns()
        if alone_ns is not None:
            times.append(alone_ns)
        return min(times, default=None)

    def relink(self, target: int, link: Link) -> None:
        """Use another link to a neighbour from now on; what the table knows of the queue stays as it is."""
        lane = self._lanes.get(target)
        if lane is None:
            self._alone.relink(target, link)
        else:
            lane.relink(link)

    def drop(self, target: int) -> int:
        """Forget what is queued for a lost neighbour; how many bytes that was."""
        lane = self._lanes.get(target)
        if lane is None:
            return self._alone.drop(target)
        forgotten_bytes = sum(chunk.size_bytes for chunk in lane.chunks)
        lane.forget()
        self._ready = [chunk for chunk in self._ready if chunk[0] != target]
        with self._turn:
            self._table.carry_out([Order(self._looked_ns, lane.flow, -math.inf, 0.0)])
        return forgotten_bytes


class _Chunk(NamedTuple):
    offered_ns: int
    size_bytes: int
    item: Any
    first: bool


class _Lane:
    """One neighbour's queue, and its flow as the table has it."""

    def __init__(self, target: int, link: Link, flow: int) -> None:
        self.target = target
        self.link = link
        self.flow = flow
        self.chunks: deque[_Chunk] = deque()
        self.unasked = 0  # how many of them, at the end, the table does not know of yet
        self.debt_bytes = 0
        self._asked_bytes = 0.0  # what the table was told of, since ever
        self._done_bytes = 0.0  # the end of the chunk handed out last
        self._left_ns = 0.0  # when that had left
        self._cap = -1.0
        self._changes_ns: int | None = None  # when the link's pace changes
        self._bends: deque[Bend] = deque([Bend(0.0, 0.0, 0.0)])
        self._count = 0
        self._rolled_back = 0.0
        self._orders: list[Order] = []  # whose instant is to come
        self.relink(link)

    def relink(self, link: Link) -> None:
        self.link = link
        self._varies = isinstance(link, ChangingLink)
        self._whole = isinstance(link, TcpLink)  # its pace depends on how much is sent

    def orders(self, now_ns: int) -> list[Order]:
        """What the table has to know by now."""
        self._follow(now_ns)
        while self.unasked and not (self._whole and self._asked_bytes > self._done_bytes):
            waiting = list(self.chunks)[-self.unasked :]
            others = (place for place, chunk in enumerate(waiting) if place and self._parts(waiting[0], chunk))
            part = waiting[: next(others, None)]
            size_bytes = sum(chunk.size_bytes for chunk in part)
            at_ns = max(part[0].offered_ns, math.ceil(self._left_ns) if self._whole else 0)
            if self._whole or self._cap < 0:
                at_ns = self._repace(at_ns, size_bytes, part[0].first)
            self.unasked -= len(part)
            self._asked_bytes += size_bytes
            self._orders.append(Order(at_ns, self.flow, float(size_bytes), self._cap))
        known, self._orders = self._orders, [order for order in self._orders if order.at_ns > now_ns]
        return known if not self._orders else [order for order in known if order.at_ns <= now_ns]

    def _follow(self, now_ns: int) -> None:
        """Tell of the changes of the link's own pace until now."""
        if not self._varies or self._cap < 0:
            return
        while True:
            at_ns, cap = (now_ns if self._changes_ns is None else min(now_ns, self._changes_ns)), self._cap
            self._repace(at_ns)
            if self._cap != cap and self._asked_bytes > self._done_bytes:
                self._orders.append(Order(at_ns, self.flow, 0.0, self._cap))
            if at_ns == now_ns:
                return

    def _parts(self, before: _Chunk, after: _Chunk) -> bool:
        """Whether a chunk has to be told by itself: it came later, or its message is another."""
        return after.first if self._whole else after.offered_ns != before.offered_ns

    def _repace(self, at_ns: int, size_bytes: int = 0, first: bool = True) -> int:
        pace = self.link.pace(at_ns, size_bytes, first)
        self._cap, self._changes_ns = pace.rate_bytes_per_s, pace.until_ns
        return pace.start_ns

    def look(self, table: FlowTable) -> None:
        """See what has become of the flow."""
        if table.rolled_back != self._rolled_back:
            self._rolled_back = table.rolled_back
            self._count, bends = table.bends(self.flow)
            self._bends = deque([bend for bend in self._bends if not bends or bend.at_ns < bends[0].at_ns])
        else:
            self._count, bends = table.bends(self.flow, self._count)
        self._bends.extend(bends)

    def hand_out(self, now_ns: int, released: list[tuple[int, Any, Transit]]) -> bool:
        """Release the chunks whose time has come; whether the table has to be told of more now."""
        while len(self.chunks) > self.unasked:
            chunk = self.chunks[0]
            left_ns = self._when(self._done_bytes + chunk.size_bytes)
            if left_ns is None or left_ns + self._hold_ns() > now_ns:
                return False
            self.chunks.popleft()
            self._done_bytes += chunk.size_bytes
            before_ns, self._left_ns = self._left_ns, left_ns
            finish_ns = math.ceil(left_ns)
            due_ns = self.link.arrive(finish_ns, chunk.first, self._done_bytes >= self._asked_bytes)
            start_ns = min(max(chunk.offered_ns, math.ceil(before_ns)), finish_ns)
            released.append((self.target, chunk.item, Transit(start_ns, finish_ns, due_ns)))
        return bool(self.unasked)

    def next_ns(self, looked_ns: int) -> int:
        """When to look again: when the next chunk is to be handed out, or somebody may have changed that."""
        hold_ns = self._hold_ns()
        again_ns = min([looked_ns + max(LEAD_NS, hold_ns), *(int(order.at_ns) for order in self._orders)])
        left_ns = self._when(self._done_bytes + self.chunks[0].size_bytes) if len(self.chunks) > self.unasked else None
        if left_ns is not None:
            again_ns = min(again_ns, math.ceil(left_ns) + hold_ns)
        return again_ns if self._changes_ns is None else min(again_ns, self._changes_ns)

    def forget(self) -> None:
        """Nothing is queued any more."""
        self.chunks.clear()
        self._orders.clear()
        self.unasked = self.debt_bytes = 0
        self._asked_bytes = self._done_bytes

    def _hold_ns(self) -> int:
        """How long after it has left a chunk is handed out; below 0: before."""
        most_ns = 0 if self._whole else _MOST_HOLD_NS  # what it sends next depends on when this has left
        return max(-AHEAD_NS, min(self.link.delay_ns - 3 * self.link.jitter_ns - LEAD_NS, most_ns))

    def _when(self, total_bytes: float) -> float | None:
        """When so many bytes have left since ever; None where the flow stands still."""
        bends = self._bends
        while len(bends) > 1 and bends[1].done_bytes <= self._done_bytes:
            bends.popleft()
        for before, after in zip(bends, list(bends)[1:], strict=False):
            if after.done_bytes >= total_bytes - 1e-2:
                span = after.done_bytes - before.done_bytes
                share = (total_bytes - before.done_bytes) / span if span > 0 else 1.0
                return before.at_ns + min(1.0, share) * (after.at_ns - before.at_ns)
        last = bends[-1]
        if not last.rate_bytes_per_s:
            return None
        return last.at_ns + (total_bytes - last.done_bytes) / last.rate_bytes_per_s * 1e9
