"""The transfers of all peers over the lines that they share, in memory that several processes see.

Each flow is a directed link's: bytes are queued on it, and leave at its max-min fair rate (netem.sharing). Whoever has
something to send writes it down, and whoever looks first after a flow has run dry settles what follows; so the work is done
once, and everybody reads the same. Callers take turns: nothing here locks.
"""

import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple

from netem.plan import Shared
from netem.sharing import MaxMin

_RING = 64  # bends of each flow that are remembered
_HEADER = 2
_NUMBERS = 9  # of each flow, besides its bends
_NOTHING_BYTES = 1e-2  # less is rounding


class Bend(NamedTuple):
    """From when on a flow has a rate."""

    at_ns: float
    done_bytes: float
    """What had left by then, since ever."""
    rate_bytes_per_s: float


class Order(NamedTuple):
    """What a sender writes down."""

    at_ns: int
    flow: int
    bytes: float
    """To be sent, besides what is queued; -math.inf = forget what is queued."""
    cap_bytes_per_s: float
    """What the link can take from now on; 0 = nothing for a while."""


class FlowTable:
    """All flows over shared lines; `memory` holds doubles, all 0 at first, as many as `size(shared)` says.

    Orders count from the instant that they name, or from the last change that is settled already, where that is later.
    """

    def __init__(self, shared: Shared, memory: "memoryview[float]") -> None:
        count = len(shared.routes)
        self.flows = {pair: flow for flow, pair in enumerate(shared.routes)}
        places = itertools.accumulate([0, _HEADER, *[count] * _NUMBERS, 3 * _RING * count])
        parts = [memory[start:end] for start, end in itertools.pairwise(places)]
        self._header = parts[0]  # the instant of the last change, and of the next end of a flow
        caps, rates, holds, self._asked, self._done, self._since, self._slopes, self._ends, self._counts, self._ring = parts[1:]
        self._caps, self._rates = caps, rates
        self._shares = MaxMin(shared.limits, list(shared.routes.values()), caps, rates, holds)
        if not self._header[1]:
            self._header[1] = math.inf
            for flow in range(count):
                self._ends[flow] = math.inf

    @staticmethod
    def size(shared: Shared) -> int:
        """How many doubles the table takes."""
        return _HEADER + len(shared.routes) * (_NUMBERS + 3 * _RING)

    def advance(self, now_ns: float) -> None:
        """Let flows run dry until now."""
        while self._header[1] <= now_ns:
            at_ns = self._header[1]
            dry = [flow for flow, end_ns in enumerate(self._ends) if end_ns <= at_ns]
            for flow in dry:
                self._caps[flow] = 0.0
            self._settle(dry, at_ns)

    def carry_out(self, orders: Iterable[Order]) -> None:
        """Take orders in the order of their instants; those of one instant are settled together."""
        changed: set[int] = set()
        at_ns = self._header[0]
        for order in sorted(orders):
            if order.at_ns > at_ns:
                self._settle(changed, at_ns)
                changed = set()
                self.advance(order.at_ns)
                at_ns = order.at_ns
            flow = order.flow
            if order.bytes == -math.inf:
                self._asked[flow] = self._left_by(flow, at_ns)
            else:
                self._asked[flow] += order.bytes
            waits = self._asked[flow] - self._left_by(flow, at_ns) > _NOTHING_BYTES
            self._caps[flow] = order.cap_bytes_per_s if waits else 0.0
            changed.add(flow)
        self._settle(changed, at_ns)

    def bends(self, flow: int, since: int) -> tuple[int, list[Bend]]:
        """How often a flow has bent, and its bends after the first `since` of them; the oldest may be forgotten."""
        count = int(self._counts[flow])
        places = [3 * (flow * _RING + number % _RING) for number in range(max(since, count - _RING), count)]
        return count, [Bend(*self._ring[place : place + 3]) for place in places]

    def _left_by(self, flow: int, at_ns: float) -> float:
        return self._done[flow] + self._slopes[flow] * (at_ns - self._since[flow]) / 1e9

    def _settle(self, changed: Iterable[int], at_ns: float) -> None:
        changed = set(changed)
        if not changed:
            return
        for flow in sorted(changed | self._shares.settle(changed).keys()):
            self._bend(flow, at_ns)
        self._header[0] = at_ns
        self._header[1] = min(self._ends)

    def _bend(self, flow: int, at_ns: float) -> None:
        """From now on a flow has the rate that it was given."""
        rate, done, asked = self._rates[flow], self._left_by(flow, at_ns), self._asked[flow]
        if asked - done < _NOTHING_BYTES:
            done = asked
        if rate != self._slopes[flow]:
            count = int(self._counts[flow])
            place = 3 * (flow * _RING + count % _RING)
            self._ring[place], self._ring[place + 1], self._ring[place + 2] = at_ns, done, rate
            self._counts[flow] = count + 1
        self._done[flow] = done
        self._since[flow] = at_ns
        self._slopes[flow] = rate
        self._ends[flow] = at_ns + (asked - done) / rate * 1e9 if rate else math.inf
