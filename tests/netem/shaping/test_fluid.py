"""The one integrator of transfers over shared segments, against what can be worked out by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem.links.profile import Profile, Step
from grapevine.netem.shaping.fluid import Fluid
from grapevine.netem.shaping.max_min import MaxMin

MS = 1_000_000


def ask(fluid, at_ns, **caps):
    """Let flows a, b, ... take so much from an instant on; when a segment changes next."""
    flows = {ord(name) - ord("a"): cap for name, cap in caps.items()}
    for flow, cap in flows.items():
        fluid.shares.caps[flow] = cap
    bent, next_ns = fluid.settle(flows, at_ns)
    for flow in bent:
        fluid.bend(flow, at_ns)
    return next_ns


def test_two_flows_of_one_segment_share_it_while_both_have_something():
    """10 kB and 20 kB over 1 MB/s: 5 kB alone until 5 ms, then half each: the first ends at 15 ms, the second at 30 ms."""
    fluid = Fluid(MaxMin([1e6], [[0], [0]]), {})
    fluid.restart(0, 10_000, 0)
    ask(fluid, 0, a=math.inf)
    assert fluid.ends_ns[0] == 10 * MS
    fluid.restart(1, 20_000, 5 * MS)
    ask(fluid, 5 * MS, b=math.inf)
    assert list(fluid.ends_ns) == [15 * MS, 45 * MS]
    assert fluid.done_bytes(0, 10 * MS) == pytest.approx(7_500)
    assert fluid.when_ns(1, 2_500) == pytest.approx(10 * MS)
    ask(fluid, 15 * MS, a=0.0)
    assert list(fluid.ends_ns) == [math.inf, pytest.approx(30 * MS)]
    assert fluid.done_bytes(0, 99 * MS) == pytest.approx(10_000)


def test_a_flow_that_asks_for_more_at_the_same_rate_has_no_breakpoint():
    fluid = Fluid(MaxMin([1e6], [[0]]), {})
    fluid.restart(0, 1_000, 0)
    ask(fluid, 0, a=math.inf)
    fluid.asked[0] += 1_000
    assert not fluid.bend(0, MS / 2)
    assert fluid.ends_ns[0] == pytest.approx(2 * MS)
    fluid.restart(0, 3_000, 2 * MS)
    assert fluid.ends_ns[0] == pytest.approx(5 * MS)


def test_never_more_has_left_than_was_asked_for_however_late_somebody_looks():
    fluid = Fluid(MaxMin([1e6], [[0], [0]]), {})
    fluid.restart(0, 1_000, 0)
    ask(fluid, 0, a=math.inf)
    fluid.restart(1, 1_000, 3 * MS)
    ask(fluid, 3 * MS, b=math.inf)  # the first has been through since 1 ms, and nobody has said so
    assert fluid.done[0] == 1_000
    assert fluid.ends_ns[0] == 3 * MS


def test_a_segment_that_changes_is_looked_at_while_somebody_sends():
    fluid = Fluid(MaxMin([1e6], [[0]]), {0: Profile([Step(10 * MS, 1e6), Step(10 * MS, 0.0)], looped=True)})
    assert ask(fluid, 0) == math.inf
    fluid.restart(0, 15_000, 0)
    assert ask(fluid, 0, a=math.inf) == 10 * MS
    assert ask(fluid, 10 * MS) == 20 * MS
    assert fluid.ends_ns[0] == math.inf
    assert ask(fluid, 20 * MS) == 30 * MS
    assert fluid.ends_ns[0] == pytest.approx(25 * MS)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20_000), st.integers(1, 5 * MS)), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_bytes_are_conserved(asked):
    """Whatever begins when: what all flows have carried between two breakpoints is at most the segment's rate x time, and is
    all of it while the segment is full."""
    fluid, now_ns = Fluid(MaxMin([2e6, 1e6], [[0], [0, 1], [1], [0]]), {}), 0
    for flow, size_bytes, wait_ns in asked:
        before = [fluid.done_bytes(each, now_ns) for each in range(4)]
        rates = list(fluid.slopes)
        now_ns += wait_ns
        after = [min(fluid.done_bytes(each, now_ns), fluid.asked[each]) for each in range(4)]
        carried = sum(after[each] - before[each] for each in (0, 1, 3))
        assert carried <= 2e6 * wait_ns / 1e9 + 1e-3
        if sum(rates[each] for each in (0, 1, 3)) >= 2e6 * (1 - 1e-9) and all(end_ns >= now_ns for end_ns in fluid.ends_ns):
            assert carried == pytest.approx(2e6 * wait_ns / 1e9, rel=1e-6)
        dry = {chr(ord("a") + each): 0.0 for each in range(4) if fluid.ends_ns[each] <= now_ns}
        ask(fluid, now_ns, **dry)
        fluid.restart(flow, size_bytes, now_ns)
        ask(fluid, now_ns, **{chr(ord("a") + flow): math.inf})
