"""How far transfers that share segments have come: bytes leave like water, each flow at its max-min fair rate.

A rate changes only when a flow begins, ends or can take another rate, or when a segment changes; between such breakpoints what
has left of a flow grows in a straight line. The one integrator of both worlds: the flow table keeps its numbers in shared
memory (netem.shaping.flow_table), virtual time keeps them in lists.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from grapevine.netem.links.profile import Profile
from grapevine.netem.shaping.max_min import MaxMin, Numbers


class Fluid:
    """All flows over shared segments; times are ns, sizes bytes, rates bytes a second.

    `asked` is what each flow is to carry, `done` what had left of it at `since_ns`, `slopes` its rate from then on, and
    `ends_ns` when it will have carried all (infinity = it stands still). `numbers` are the places of these five, one for each
    flow: all 0 at first, but `ends_ns`, which are infinite; None = lists. `profiles` are the segments that change over time.
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
        """Share the segments anew after the caps of some flows, or segments by themselves, have changed.

        The flows that may have another rate: `bend` each, once what depends on its rate before has been read. And when a
        segment changes next; infinity where nothing is sent, or no segment changes.
        """
        segments: list[int] = []
        next_ns = math.inf
        if self._profiles:
            segments, next_ns = self.shares.follow(self._profiles, at_ns)
        fresh = self.shares.settle(changed, segments) if changed or segments else {}
        looks = next_ns < math.inf and any(self.shares.caps)
        return [*changed, *(flow for flow in fresh if flow not in changed)], next_ns if looks else math.inf

    def bend(self, flow: int, at_ns: float) -> bool:
        """Let a flow have the rate that it was given, from now on; whether that is another one than before."""
        rate, asked = self.shares.rates[flow], self.asked[flow]
        bends = rate != self.slopes[flow]
        if bends:
            self.done[flow] = min(self.done_bytes(flow, at_ns), asked)
            self.since_ns[flow] = at_ns
            self.slopes[flow] = rate
        self.ends_ns[flow] = self.when_ns(flow, asked)
        return bends

    def restart(self, flow: int, size_bytes: float, at_ns: float) -> None:
        """Count a flow anew: so many bytes to carry, from now on, at the rate that it has."""
        self.asked[flow], self.done[flow], self.since_ns[flow] = size_bytes, 0.0, at_ns
        self.ends_ns[flow] = self.when_ns(flow, size_bytes)

    def done_bytes(self, flow: int, at_ns: float) -> float:
        """How much of a flow has left by an instant after its last breakpoint, if nothing changes until then."""
        return self.done[flow] + self.slopes[flow] * (at_ns - self.since_ns[flow]) / 1e9

    def when_ns(self, flow: int, size_bytes: float) -> float:
        """When so many bytes of a flow will have left, if nothing changes until then; infinity where it stands still."""
        rate = self.slopes[flow]
        return self.since_ns[flow] + max(0.0, size_bytes - self.done[flow]) / rate * 1e9 if rate else math.inf
