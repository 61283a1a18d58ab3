"""The transfers of all peers over the segments that they share, in memory that several processes see.

Each flow belongs to one directed link. The flows advance as one fluid (netem.shaping.fluid). This module adds the parts that
several processes need: one place for the fluid's numbers, demands that may come late, and breakpoints that a sender reads
afterwards. A sender writes its demands; the first process that looks after a flow has run dry computes the new rates. So the
work is done once, and all processes read the same numbers. This module does not lock: callers take turns.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from grapevine.netem.networks.plan import Shared
from grapevine.netem.shaping.fluid import Fluid
from grapevine.netem.shaping.max_min import MaxMin

_RING = 64  # the breakpoints of each flow that the table keeps
_NUMBERS = 8  # doubles per flow
_LOG = 16  # the demands that the table can carry out again after a roll-back
_NOTHING_BYTES = 1e-2  # a smaller rest is a rounding error
_LAST, _NEXT = 0, 1  # places in the clock: the instant of the last change, and of the next end of a flow
_KNOWN, _OLDER, _ROLLED = 0, 1, 2  # places in the marks: demands in the log, those before the newer base, roll-backs


class Breakpoint(NamedTuple):
    """An instant from which a flow has a rate, until its next breakpoint."""

    at_ns: float
    done_bytes: float
    """The bytes that had left by then, counted from the beginning of the run."""
    rate_bytes_per_s: float


class Demand(NamedTuple):
    """The bytes that a sender offers to its flow, and the rate that the link can take, from an instant on."""

    at_ns: float
    flow: int
    more_bytes: float
    """Bytes to send, in addition to those queued; -math.inf = forget the queued bytes."""
    cap_bytes_per_s: float
    """The highest rate that the link can take from now on; 0 = none for a while."""


class FlowTable:
    """All flows over shared segments; `memory` holds `size(shared)` doubles, all 0 at first.

    A demand takes effect at its instant `at_ns`. If it comes late, after a change that followed that instant, the table rolls
    back to its state before that instant and carries out the later demands again; the last 8 to 16 demands are kept for this.
    A demand that is older than those takes effect at the last change.
    """

    def __init__(self, shared: Shared, memory: "memoryview[float]") -> None:
        count, segments = len(shared.routes), len(shared.limits)
        state = 2 + segments + _NUMBERS * count
        self.flows = {pair: flow for flow, pair in enumerate(shared.routes)}
        self._state, self._older, self._newer, self._marks, self._log, self._counts, self._ring = _cut(
            memory, [state, state, state, 3, 4 * _LOG, count, 3 * _RING * count]
        )
        self._clock, limits, *numbers = _cut(self._state, [2, segments, *[count] * _NUMBERS])
        self._caps, rates, holds, *fluid = numbers
        self._fluid = Fluid(MaxMin(limits, list(shared.routes.values()), self._caps, rates, holds), shared.profiles, fluid)
        if not self._clock[_NEXT]:
            self._clock[_NEXT] = math.inf
            for segment, limit in enumerate(shared.limits):
                limits[segment] = limit
            for flow in range(count):
                self._fluid.ends_ns[flow] = math.inf
            self._older[:] = self._newer[:] = self._state

    @staticmethod
    def size(shared: Shared) -> int:
        """Return the number of doubles in the table's memory."""
        count = len(shared.routes)
        return 3 * (2 + len(shared.limits) + _NUMBERS * count) + 3 + 4 * _LOG + 3 * _RING * count

    def advance(self, now_ns: float) -> None:
        """Advance to `now_ns`: compute the rates after each flow that has run dry and each change of a segment."""
        while self._clock[_NEXT] <= now_ns:
            at_ns = self._clock[_NEXT]
            dry = [flow for flow, end_ns in enumerate(self._fluid.ends_ns) if end_ns <= at_ns]
            for flow in dry:
                self._caps[flow] = 0.0
            self._settle(dry, at_ns)  # `dry` is empty where a segment changes at this instant

    @property
    def rolled_back(self) -> float:
        """The number of roll-backs; after each of them, breakpoints that were read before may be invalid."""
        return self._marks[_ROLLED]

    def asked_bytes(self, flow: int) -> float:
        """Return the bytes that a flow was given to carry, counted from the beginning of the run."""
        return self._fluid.asked[flow]

    def carry_out(self, demands: Iterable[Demand]) -> None:
        """Carry out demands; the rates are computed once for all demands of one instant."""
        new = sorted(demands)
        if new and new[0].at_ns < self._clock[_LAST]:
            new = self._roll_back(new)
        for start in range(0, len(new), _LOG // 2):
            part = new[start : start + _LOG // 2]
            self._remember(part)
            self._take(part)

    def breakpoints(self, flow: int, since: int = 0) -> tuple[int, list[Breakpoint]]:
        """Return the number of breakpoints that a flow has had, and those after the first `since`, as far as they are kept."""
        count = int(self._counts[flow])
        if count == since:
            return count, []
        places = [3 * (flow * _RING + number % _RING) for number in range(max(since, count - _RING), count)]
        return count, [Breakpoint(*self._ring[place : place + 3]) for place in places]

    def _take(self, demands: Sequence[Demand]) -> None:
        changed: set[int] = set()
        at_ns = self._clock[_LAST]
        for demand in demands:
            if demand.at_ns > at_ns:
                self._settle(changed, at_ns)
                changed = set()
                self.advance(demand.at_ns)
                at_ns = demand.at_ns
            self._write(demand, at_ns)
            changed.add(demand.flow)
        self._settle(changed, at_ns)

    def _write(self, demand: Demand, at_ns: float) -> None:
        flow, asked, done_bytes = demand.flow, self._fluid.asked, self._fluid.done_bytes(demand.flow, at_ns)
        asked[flow] = done_bytes if demand.more_bytes == -math.inf else asked[flow] + demand.more_bytes
        self._caps[flow] = demand.cap_bytes_per_s if asked[flow] - done_bytes > _NOTHING_BYTES else 0.0

    def _settle(self, changed: Collection[int], at_ns: float) -> None:
        flows, next_ns = self._fluid.settle(changed, at_ns)
        for flow in sorted(flows):
            if self._fluid.bend(flow, at_ns):
                self._note(flow)
        if flows:
            self._clock[_LAST] = at_ns
        self._clock[_NEXT] = min(next_ns, min(self._fluid.ends_ns))

    def _note(self, flow: int) -> None:
        """Keep a flow's newest breakpoint for later readers."""
        fluid, count = self._fluid, int(self._counts[flow])
        place = 3 * (flow * _RING + count % _RING)
        for number, numbers in enumerate((fluid.since_ns, fluid.done, fluid.slopes)):
            self._ring[place + number] = numbers[flow]
        self._counts[flow] = count + 1

    def _remember(self, demands: list[Demand]) -> None:
        """Write demands to the log before they are carried out; forget its older half where the newer one is full."""
        known, older = int(self._marks[_KNOWN]), int(self._marks[_OLDER])
        if known - older + len(demands) > _LOG // 2:
            self._log[: 4 * (known - older)] = self._log[4 * older : 4 * known]
            self._older[:], self._newer[:] = self._newer, self._state
            known = older = known - older
        for place, demand in enumerate(demands, start=known):
            for number, value in enumerate(demand):
                self._log[4 * place + number] = value
        self._marks[_KNOWN], self._marks[_OLDER] = known + len(demands), older

    def _roll_back(self, late: list[Demand]) -> list[Demand]:
        """Roll back to the state before the late demands, if it is kept; return the demands to carry out from there."""
        first_ns, known, older = late[0].at_ns, int(self._marks[_KNOWN]), int(self._marks[_OLDER])
        if first_ns < self._older[_LAST]:
            return late
        if first_ns < self._newer[_LAST]:
            self._newer[:] = self._older
            older = 0
        self._state[:] = self._newer
        logged = (self._log[4 * place : 4 * place + 4] for place in range(older, known))
        again = [Demand(at_ns, int(flow), more, cap) for at_ns, flow, more, cap in logged]
        self._marks[_KNOWN] = self._marks[_OLDER] = older
        self._marks[_ROLLED] += 1
        return sorted(again + late)


def _cut(memory: "memoryview[float]", sizes: Sequence[int]) -> list["memoryview[float]"]:
    """Return consecutive parts of the memory, of these sizes."""
    places = itertools.accumulate([0, *sizes])
    return [memory[start:end] for start, end in itertools.pairwise(places)]
