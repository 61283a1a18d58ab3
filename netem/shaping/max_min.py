"""Max-min fair division of segments (uplinks, downlinks, cables) among flows, each with its own cap.

An allocation is max-min fair when every flow either has its cap or crosses a full segment on which no flow has a higher rate
(Bertsekas & Gallager, Data Networks, 1992, section 6.5.2). It is unique. Progressive filling finds it: all rates grow together;
a flow that reaches its cap or a full segment stops growing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from grapevine.netem.links.profile import Profile

AT_CAP = -1
"""In place of the segment that holds a flow back: its own cap does."""

_TIGHT = 1e-6  # relative: rates that differ by less count as equal, so that ever smaller changes do not go on for ever


class Numbers(Protocol):
    """Memory for one number per flow."""

    def __getitem__(self, flow: int, /) -> float: ...
    def __setitem__(self, flow: int, value: float, /) -> None: ...
    def __iter__(self) -> Iterator[float]: ...


def max_min(limits: Sequence[float], routes: Sequence[Sequence[int]], caps: Sequence[float]) -> list[float]:
    """Return the rate of each flow by progressive filling, as textbooks describe it.

    `limits` are the rates of the segments, `routes` the segments that each flow crosses, `caps` the highest rate of each flow
    (0 = the flow sends nothing). The reference for MaxMin: plain, and slow for many flows. A flow without segments has its cap.
    """
    rates = [0.0] * len(routes)
    growing = {flow for flow, cap in enumerate(caps) if cap > 0}
    room = list(limits)
    while growing:
        crossing = [[flow for flow in growing if segment in routes[flow]] for segment in range(len(limits))]
        growth = min(
            [caps[flow] - rates[flow] for flow in growing]
            + [room[segment] / len(flows) for segment, flows in enumerate(crossing) if flows]
        )
        for flow in growing:
            rates[flow] += growth
        for segment, flows in enumerate(crossing):
            room[segment] -= growth * len(flows)
        full = {segment for segment, flows in enumerate(crossing) if flows and room[segment] <= 1e-12 * limits[segment]}
        growing = {flow for flow in growing if rates[flow] < caps[flow] * (1 - 1e-12) and full.isdisjoint(routes[flow])}
    return rates


class MaxMin:
    """The same allocation, kept up to date while flows come and go: each change recomputes only the flows that it affects.

    `caps[flow]` is the highest rate that a flow can take now; 0 = it has nothing to send. Set it, then call `settle` with the
    flows whose caps have changed. `caps`, `rates` and `holds` (the segment that holds a flow back) may be given, one number
    per flow, all 0 at first: then several processes can use one memory, in turn.

    `limits` may change too: set them, and give `settle` the segments.

    A change is carried on until every flow is again at its cap or on a full segment where no flow has a higher rate, to 1e-6
    of each rate. No segment ever carries more than its limit.
    """

    def __init__(
        self,
        limits: Numbers,
        routes: Sequence[Sequence[int]],
        caps: Numbers | None = None,
        rates: Numbers | None = None,
        holds: Numbers | None = None,
    ) -> None:
        self.routes = [tuple(route) for route in routes]
        self.caps: Numbers = [0.0] * len(routes) if caps is None else caps
        self.rates: Numbers = [0.0] * len(routes) if rates is None else rates
        self._holds: Numbers = [float(AT_CAP)] * len(routes) if holds is None else holds
        self.limits = limits
        self._members: dict[int, list[int]] = {}
        for flow, route in enumerate(self.routes):
            for segment in route:
                self._members.setdefault(segment, []).append(flow)

    def follow(self, profiles: Mapping[int, Profile], now_ns: float) -> tuple[list[int], float]:
        """Set the limits of segments that change over time; return those whose limit changed, and the next change's instant."""
        segments, next_ns = [], math.inf
        for segment, profile in profiles.items():
            step, until_ns = profile.holds(now_ns)
            next_ns = min(next_ns, until_ns)
            if step.rate_bytes_per_s != self.limits[segment]:
                self.limits[segment] = step.rate_bytes_per_s
                segments.append(segment)
        return segments, next_ns

    def settle(self, changed: Iterable[int], segments: Iterable[int] = ()) -> dict[int, float]:
        """Share the segments anew after the caps of some flows, or the limits of some segments, have changed.

        Return the new rates of the flows whose rate changed.
        """
        caps, rates = self.caps, self.rates
        fresh: dict[int, float] = {}
        chosen = {flow for segment in segments for flow in self._members[segment] if caps[flow] > 0}
        for flow in changed:
            if caps[flow] > 0:
                chosen.add(flow)
            for segment in self.routes[flow]:
                members = self._members[segment]
                if sum([rates[other] for other in members]) >= self.limits[segment] * (1 - _TIGHT):  # it was full
                    chosen.update([other for other in members if caps[other] > 0])
        for flow in changed:
            if not caps[flow] and rates[flow]:
                fresh[flow] = rates[flow] = 0.0
        found, holds = self._fill(chosen)
        while more := self._concerned(chosen, found, holds):
            chosen |= more
            found, holds = self._fill(chosen)
        for flow, rate in found.items():
            self._holds[flow] = holds[flow]
            if abs(rate - rates[flow]) > 1e-9 * rate:
                fresh[flow] = rates[flow] = rate
        return fresh

    def _fill(self, chosen: set[int]) -> tuple[dict[int, float], dict[int, int]]:
        """Fill the rate that the other flows leave; return each chosen flow's rate and the segment that holds it back."""
        caps, rates, routes, members = self.caps, self.rates, self.routes, self._members
        room: dict[int, float] = {}
        count: dict[int, int] = {}
        for flow in chosen:
            for segment in routes[flow]:
                if segment in count:
                    count[segment] += 1
                else:
                    count[segment] = 1
                    taken = 0.0
                    for other in members[segment]:
                        if other not in chosen and caps[other] > 0:
                            taken += rates[other]
                    room[segment] = max(0.0, self.limits[segment] - taken)
        shares = [(room[segment] / count[segment], segment) for segment in count]
        heapify(shares)
        waiting = sorted([(caps[flow], flow) for flow in chosen], reverse=True)
        found: dict[int, float] = {}
        holds: dict[int, int] = {}
        while waiting:
            cap, flow = waiting[-1]
            if flow in found:
                waiting.pop()
                continue
            while shares and not count[shares[0][1]]:
                heappop(shares)
            if not shares or cap <= shares[0][0]:
                waiting.pop()
                stay = [flow]
                rate, hold = cap, AT_CAP
            else:
                share, hold = heappop(shares)
                rate = max(0.0, room[hold]) / count[hold]
                if rate > share * (1 + 1e-12):  # flows that stopped earlier have left more of it
                    heappush(shares, (rate, hold))
                    continue
                stay = [other for other in members[hold] if other in chosen and other not in found]
            for flow in stay:
                found[flow] = rate
                holds[flow] = hold
                for segment in routes[flow]:
                    room[segment] -= rate
                    count[segment] -= 1
        return found, holds

    def _concerned(self, chosen: set[int], found: dict[int, float], holds: dict[int, int]) -> set[int]:
        """Return the flows outside `chosen` whose rate the new allocation makes unfair: they must be filled again too."""
        caps, rates, held_by = self.caps, self.rates, self._holds
        more: set[int] = set()
        segments = {segment for flow in chosen for segment in self.routes[flow]}
        for segment in segments:
            alone = [other for other in self._members[segment] if caps[other] > 0 and other not in chosen]
            if not alone:
                continue
            mine = [flow for flow in self._members[segment] if flow in chosen]
            level = max([found[flow] for flow in mine if holds[flow] == segment], default=None)
            if level is not None:
                more.update([other for other in alone if rates[other] > level * (1 + _TIGHT)])
            held = [other for other in alone if held_by[other] == segment]
            if held:
                load = sum([found[flow] for flow in mine]) + sum([rates[other] for other in alone])
                top = max([found[flow] for flow in mine])
                slack = load < self.limits[segment] * (1 - _TIGHT)
                more.update([other for other in held if slack or top > rates[other] * (1 + _TIGHT)])
        return more
