"""The transfers of all peers over the lines that they share, in memory that several processes see.

Each flow is a directed link's: bytes are queued on it, and leave at its max-min fair rate (netem.shaping.max_min). Whoever has
something to send writes it down, and whoever looks first after a flow has run dry settles what follows; so the work is done
once, and everybody reads the same. Callers take turns: nothing here locks.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from grapevine.netem.networks.plan import Shared
from grapevine.netem.shaping.max_min import MaxMin

_RING = 64  # bends of each flow that are remembered
_NUMBERS = 9  # of each flow
_LOG = 16  # orders that can be carried out anew
_NOTHING_BYTES = 1e-2  # less is rounding
_LAST, _NEXT = 0, 1  # of the clock: the instant of the last change, and of the next end of a flow
_KNOWN, _OLDER, _ROLLED = 0, 1, 2  # of the marks: orders in the log, those before the newer base, times rolled back


class Bend(NamedTuple):
    """From when on a flow has a rate."""

    at_ns: float
    done_bytes: float
    """What had left by then, since ever."""
    rate_bytes_per_s: float


class Order(NamedTuple):
    """What a sender writes down."""

    at_ns: float
    flow: int
    bytes: float
    """To be sent, besides what is queued; -math.inf = forget what is queued."""
    cap_bytes_per_s: float
    """What the link can take from now on; 0 = nothing for a while."""


class FlowTable:
    """All flows over shared lines; `memory` holds doubles, all 0 at first, as many as `size(shared)` says.

    Orders count from the instant that they name. One that comes late, after a change that followed it, is put in its place: the
    table goes back to what it was before, and carries out anew what came since, as far as the last 8 to 16 orders reach;
    what comes later still counts from the last change.
    """

    def __init__(self, shared: Shared, memory: "memoryview[float]") -> None:
        count, lines = len(shared.routes), len(shared.limits)
        state = 2 + lines + _NUMBERS * count
        self.flows = {pair: flow for flow, pair in enumerate(shared.routes)}
        self._state, self._older, self._newer, self._marks, self._log, self._ring = _cut(
            memory, [state, state, state, 3, 4 * _LOG, 3 * _RING * count]
        )
        self._clock, limits, *numbers = _cut(self._state, [2, lines, *[count] * _NUMBERS])
        self._caps, self._rates, holds, self._asked, self._done, self._since, self._slopes, self._ends, self._counts = numbers
        self._profiles = shared.profiles
        self._shares = MaxMin(limits, list(shared.routes.values()), self._caps, self._rates, holds)
        if not self._clock[_NEXT]:
            self._clock[_NEXT] = math.inf
            for line, limit in enumerate(shared.limits):
                limits[line] = limit
            for flow in range(count):
                self._ends[flow] = math.inf
            self._older[:] = self._newer[:] = self._state

    @staticmethod
    def size(shared: Shared) -> int:
        """How many doubles the table takes."""
        count = len(shared.routes)
        return 3 * (2 + len(shared.limits) + _NUMBERS * count) + 3 + 4 * _LOG + 3 * _RING * count

    def advance(self, now_ns: float) -> None:
        """Let flows run dry until now."""
        while self._clock[_NEXT] <= now_ns:
            at_ns = self._clock[_NEXT]
            dry = [flow for flow, end_ns in enumerate(self._ends) if end_ns <= at_ns]
            for flow in dry:
                self._caps[flow] = 0.0
            self._settle(dry, at_ns)  # or a line changes then

    @property
    def rolled_back(self) -> float:
        """How often it went back: whenever this has changed, bends read before may be no more."""
        return self._marks[_ROLLED]

    def carry_out(self, orders: Iterable[Order]) -> None:
        """Take orders; those of one instant are settled together."""
        new = sorted(orders)
        if new and new[0].at_ns < self._clock[_LAST]:
            new = self._roll_back(new)
        for start in range(0, len(new), _LOG // 2):
            part = new[start : start + _LOG // 2]
            self._remember(part)
            self._take(part)

    def _take(self, orders: Sequence[Order]) -> None:
        changed: set[int] = set()
        at_ns = self._clock[_LAST]
        for order in orders:
            if order.at_ns > at_ns:
                self._settle(changed, at_ns)
                changed = set()
                self.advance(order.at_ns)
                at_ns = order.at_ns
            self._write(order, at_ns)
            changed.add(order.flow)
        self._settle(changed, at_ns)

    def _write(self, order: Order, at_ns: float) -> None:
        flow, done = order.flow, self._left_by(order.flow, at_ns)
        self._asked[flow] = done if order.bytes == -math.inf else self._asked[flow] + order.bytes
        self._caps[flow] = order.cap_bytes_per_s if self._asked[flow] - done > _NOTHING_BYTES else 0.0

    def _remember(self, orders: list[Order]) -> None:
        """Note what is carried out next; where the newer half of the log is full the older is forgotten."""
        known, older = int(self._marks[_KNOWN]), int(self._marks[_OLDER])
        if known - older + len(orders) > _LOG // 2:
            self._log[: 4 * (known - older)] = self._log[4 * older : 4 * known]
            self._older[:], self._newer[:] = self._newer, self._state
            known = older = known - older
        for place, order in enumerate(orders, start=known):
            for number, value in enumerate(order):
                self._log[4 * place + number] = value
        self._marks[_KNOWN], self._marks[_OLDER] = known + len(orders), older

    def _roll_back(self, late: list[Order]) -> list[Order]:
        """Go back to before a late order, if that is known; what is to be carried out then."""
        first_ns, known, older = late[0].at_ns, int(self._marks[_KNOWN]), int(self._marks[_OLDER])
        if first_ns < self._older[_LAST]:
            return late
        if first_ns < self._newer[_LAST]:
            self._newer[:] = self._older
            older = 0
        self._state[:] = self._newer
        logged = (self._log[4 * place : 4 * place + 4] for place in range(older, known))
        again = [Order(at_ns, int(flow), more, cap) for at_ns, flow, more, cap in logged]
        self._marks[_KNOWN] = self._marks[_OLDER] = older
        self._marks[_ROLLED] += 1
        return sorted(again + late)

    def bends(self, flow: int, since: int = 0) -> tuple[int, list[Bend]]:
        """How often a flow has bent, and its bends after the first `since` of them; the oldest may be forgotten."""
        count = int(self._counts[flow])
        places = [3 * (flow * _RING + number % _RING) for number in range(max(since, count - _RING), count)]
        return count, [Bend(*self._ring[place : place + 3]) for place in places]

    def _left_by(self, flow: int, at_ns: float) -> float:
        return self._done[flow] + self._slopes[flow] * (at_ns - self._since[flow]) / 1e9

    def _settle(self, changed: Iterable[int], at_ns: float) -> None:
        changed = set(changed)
        lines, next_ns = self._shares.follow(self._profiles, at_ns)
        if changed or lines:
            for flow in sorted(changed | self._shares.settle(changed, lines).keys()):
                self._bend(flow, at_ns)
            self._clock[_LAST] = at_ns
        self._clock[_NEXT] = min(min(self._ends), next_ns if any(self._caps) else math.inf)

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


def _cut(memory: "memoryview[float]", sizes: Sequence[int]) -> list["memoryview[float]"]:
    """Consecutive parts of it."""
    places = itertools.accumulate([0, *sizes])
    return [memory[start:end] for start, end in itertools.pairwise(places)]
