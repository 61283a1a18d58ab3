import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine.netem.networks.plan import Cable, LinkSpec, NetworkPlan
from grapevine.netem.shaping.max_min import MaxMin, max_min


@pytest.mark.parametrize(
    ("limits", "routes", "caps", "rates"),
    [
        ([30], [[0], [0]], [10, math.inf], [10, 20]),
        ([30], [[0], [0], [0]], [math.inf, 0, math.inf], [15, 0, 15]),
        # one long flow over two lines, a short one on each: the long one is held where it is tightest
        ([10, 6], [[0, 1], [0], [1]], [math.inf] * 3, [3, 7, 3]),
        # a receiver's downlink binds one flow of two: the other takes what that leaves of the uplink
        ([20, 4, 30], [[0, 1], [0, 2]], [math.inf] * 2, [4, 16]),
        # Bertsekas & Gallager, figure 6.12 (scaled): levels 1/3, 2/3, 1
        ([3, 3, 3], [[0], [0], [0, 1], [1, 2], [2]], [math.inf] * 5, [1, 1, 1, 1.5, 1.5]),
        ([5], [[], [0]], [7, math.inf], [7, 5]),
    ],
)
def test_known_allocations(limits, routes, caps, rates):
    assert max_min(limits, routes, caps) == pytest.approx(rates)
    kept = MaxMin(limits, routes)
    for flow, cap in enumerate(caps):
        kept.caps[flow] = cap
    kept.settle(range(len(caps)))
    assert kept.rates == pytest.approx(rates)


def check(limits, routes, caps, rates):
    """What makes an allocation max-min fair."""
    loads = [sum(rates[flow] for flow, route in enumerate(routes) if line in route) for line in range(len(limits))]
    for line, limit in enumerate(limits):
        assert loads[line] <= limit * (1 + 1e-9)
    for flow, route in enumerate(routes):
        full = [line for line in route if loads[line] >= limits[line] * (1 - 1e-5)]
        most = [all(rates[flow] >= rates[o] * (1 - 1e-5) for o, other in enumerate(routes) if line in other) for line in full]
        assert rates[flow] >= caps[flow] * (1 - 1e-9) or any(most)


NETWORK = st.integers(2, 6).flatmap(
    lambda peers: st.tuples(
        st.lists(st.sampled_from([1.0, 2.0, 3.0, 10.0]), min_size=2 * peers + 1, max_size=2 * peers + 1),
        st.lists(
            st.tuples(st.integers(0, peers - 1), st.integers(0, peers - 1), st.booleans()), min_size=1, max_size=14, unique=True
        ).map(lambda pairs: [[a, peers + b] + [2 * peers] * crosses for a, b, crosses in pairs]),
    )
)
CHANGES = st.lists(st.tuples(st.integers(0, 13), st.sampled_from([0.0, 0.7, 2.0, math.inf])), max_size=25)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(network=NETWORK, changes=CHANGES, data=st.data())
def test_whatever_changes_it_is_the_textbooks_allocation(network, changes, data):
    limits, routes = network
    kept = MaxMin(list(limits), routes)
    for flow, cap in changes:
        kept.caps[flow % len(routes)] = cap
        lines = []
        if data.draw(st.booleans()):
            line = data.draw(st.integers(0, len(limits) - 1))
            kept.limits[line] = data.draw(st.sampled_from([0.5, 1.0, 4.0, 10.0]))
            lines = [line] if any(line in route for route in routes) else []
        before = list(kept.rates)
        fresh = kept.settle([flow % len(routes)], lines)
        assert kept.rates == pytest.approx(max_min(kept.limits, routes, kept.caps), rel=1e-5)
        assert {other for other, rate in enumerate(kept.rates) if rate != before[other]} == set(fresh)
    check(kept.limits, routes, kept.caps, kept.rates)


@pytest.mark.slow
def test_a_thousand_peers_settle_as_all_at_once():
    rng = np.random.default_rng(3)
    graph = nx.random_regular_graph(4, 400, seed=1)
    pairs = [pair for u, v in graph.edges for pair in ((u, v), (v, u))]
    limits = rng.uniform(5, 40, 800).tolist()
    routes = [(a, 400 + b) for a, b in pairs]
    kept, anew = MaxMin(limits, routes), MaxMin(limits, routes)
    for flow in range(len(pairs)):
        kept.caps[flow] = 20.0
    kept.settle(range(len(pairs)))
    for flow in rng.integers(len(pairs), size=300).tolist():
        kept.caps[flow] = 0.0 if kept.caps[flow] else 20.0
        kept.settle([flow])
    anew.caps = list(kept.caps)
    anew.settle(range(len(pairs)))
    assert kept.rates == pytest.approx(anew.rates, rel=1e-4)
    check(limits, routes, kept.caps, kept.rates)


def test_only_lines_that_can_hold_somebody_up_are_shared():
    links = {pair: LinkSpec(rate_bytes_per_s=10.0) for pair in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1))}
    plan = NetworkPlan(
        links=links, uplinks=[15.0, 20.0, math.inf], downlinks=[math.inf, 12.0, 20.0], cables=(Cable(9.0, ((2, 0),)),)
    )
    shared = plan.shared()
    assert shared.limits == [9.0, 15.0, 12.0]
    assert shared.routes == {(2, 0): (0,), (0, 1): (1, 2), (0, 2): (1,), (2, 1): (2,)}
