"""The progress of transfers that share segments: a fluid model, in which each flow has its max-min fair rate.

A rate changes only when a flow begins, ends or can take another rate, or when a segment changes; between these breakpoints the
bytes that have left grow linearly with time. Both worlds use this integrator: the flow table keeps its numbers in shared
memory (netem.shaping.flow_table), virtual time keeps them in lists.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from grapevine.netem.links.profile import Profile
from grapevine.netem.shaping.max_min import MaxMin, Numbers


class Fluid:
    """All flows over shared segments; times are ns, sizes bytes, rates bytes a second.

    For each flow, `asked` holds the bytes to carry, `done` the bytes that had left at `since_ns`, `slopes` the rate from then
    on, and `ends_ns` the instant at which all bytes will have left (infinity = the rate is 0). `numbers` gives the memory of
    these five, one number per flow, all 0 at first except `ends_ns`, which are infinite; None = lists. `profiles` maps each
    segment that changes over time to its profile.
    """

    __slots__ = ("_profiles", "asked", "done", "ends_ns", "shares", "since_ns", "slopes")

    def __init__(self, shares: MaxMin, profiles: Mapping[int, Profile], numbers: Sequence[Numbers] | None = None) -> None:
        count = len(shares.routes)
        self.shares = shares
        self._profiles = profiles
        if numbers is None:
            numbers = [*([0.0] * count for _ in range(4)), [math.inf] * count]
        self.asked, self.done, self.since_ns, self.slopes, self.ends_ns = numbers

    def settle(self, changed: Collection[int], at_ns: float) -> tuple[list[int], float]:
        """Share the segments anew after the caps of some flows have changed, or the rates of segments that change over time.

        Return the flows that may have another rate, and the instant at which a segment changes next (infinity if no flow
        sends, or no segment changes). The caller then calls `bend` for each flow, after reading values that depend on its old
        rate.
        """
        segments: list[int] = []
        next_ns = math.inf
        if self._profiles:
            segments, next_ns = self.shares.follow(self._profiles, at_ns)
        fresh = self.shares.settle(changed, segments) if changed or segments else {}
        looks = next_ns < math.inf and any(self.shares.caps)
        return [*changed, *(flow for flow in fresh if flow not in changed)], next_ns if looks else math.inf

    def bend(self, flow: int, at_ns: float) -> bool:
        """Give a flow its new rate from now on; return whether the rate differs from the old one."""
        rate, asked = self.shares.rates[flow], self.asked[flow]
        bends = rate != self.slopes[flow]
        if bends:
            self.done[flow] = min(self.done_bytes(flow, at_ns), asked)
            self.since_ns[flow] = at_ns
            self.slopes[flow] = rate
        self.ends_ns[flow] = self.when_ns(flow, asked)
        return bends

    def restart(self, flow: int, size_bytes: float, at_ns: float) -> None:
        """Count a flow's bytes anew: `size_bytes` to carry from now on, at its present rate."""
        self.asked[flow], self.done[flow], self.since_ns[flow] = size_bytes, 0.0, at_ns
        self.ends_ns[flow] = self.when_ns(flow, size_bytes)

    def done_bytes(self, flow: int, at_ns: float) -> float:
        """Return the bytes of a flow that have left by an instant after its last breakpoint, if nothing changes until then."""
        return self.done[flow] + self.slopes[flow] * (at_ns - self.since_ns[flow]) / 1e9

    def when_ns(self, flow: int, size_bytes: float) -> float:
        """Return the instant at which `size_bytes` of a flow have left, if nothing changes until then; infinity at rate 0."""
        rate = self.slopes[flow]
        return self.since_ns[flow] + max(0.0, size_bytes - self.done[flow]) / rate * 1e9 if rate else math.inf
