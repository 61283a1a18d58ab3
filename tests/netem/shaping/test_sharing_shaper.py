import heapq
import math
import random
from contextlib import nullcontext

import networkx as nx
import numpy as np
import pytest

from grapevine.netem import (
    Access,
    Bottleneck,
    Cable,
    Edges,
    FlowTable,
    LinkSpec,
    NetworkPlan,
    Profile,
    SharingShaper,
    Step,
    Uniform,
)
from grapevine.netem.shaping.flow_table import Demand
from grapevine.netem.shaping.sharing_shaper import AHEAD_NS
from tests.netem.shaping.fluid import leave_ns

SECOND_NS = 10**9


def memory(shared):
    return memoryview(bytearray(8 * FlowTable.size(shared))).cast("d")


class Senders:
    """All peers of a plan with one table, each looking when it wants to, and up to about `late_ns` later."""

    def __init__(self, plan, late_ns=0, seed=0):
        self.shared = plan.shared()
        self.table = FlowTable(self.shared, memory(self.shared))
        self.shapers = []
        for peer in range(len(plan.uplinks)):
            links = {target: plan.link(source, target) for source, target in plan.links if source == peer}
            flows = {pair[1]: flow for flow, pair in enumerate(self.shared.routes) if pair[0] == peer}
            self.shapers.append(SharingShaper(links, flows, self.table, nullcontext()))
        self._late_ns = late_ns
        self._rng = random.Random(seed)
        self._heap = []
        self._wakes = [None] * len(self.shapers)

    def carry(self, transfers, chunk_bytes=4_000):
        """(asked_ns, source, target, bytes) in chunks; each transfer's transits, and when they were handed out."""
        found = [[] for _ in transfers]
        offers = [[] for _ in self.shapers]
        for place, (at_ns, source, target, size) in sorted(enumerate(transfers), key=lambda each: each[1][0]):
            offers[source].append((at_ns, place, target, size))
            self._plan(at_ns, source)
        while self._heap:
            now_ns, peer = heapq.heappop(self._heap)
            shaper = self.shapers[peer]
            while offers[peer] and offers[peer][0][0] <= now_ns:
                at_ns, place, target, size = offers[peer].pop(0)
                for start in range(0, size, chunk_bytes):
                    shaper.offer(target, place, min(chunk_bytes, size - start), at_ns, start == 0)
            for _, place, transit in shaper.release(now_ns):
                found[place].append((transit, now_ns))
            next_ns = shaper.next_ns()
            if next_ns is not None and (self._wakes[peer] is None or not now_ns < self._wakes[peer] <= next_ns):
                self._wakes[peer] = next_ns
                self._plan(max(next_ns, now_ns + 1), peer)
        return found

    def _plan(self, at_ns, peer):
        late_ns = int(self._rng.expovariate(1 / self._late_ns)) if self._late_ns else 0
        heapq.heappush(self._heap, (at_ns + late_ns, peer))


def random_plan(seed, peers=8):
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(peers, 0.6, seed=seed)
    nx.add_path(graph, range(peers))
    for _, node in graph.nodes(data=True):
        node |= {line: f"{rng.uniform(4, 20):.2f} Mbit/s" for line in ("uplink", "downlink") if rng.random() < 0.8}
    for *_, edge in graph.edges(data=True):
        edge |= {"rate": f"{rng.uniform(2, 30):.2f} Mbit/s", "delay": f"{rng.choice([5, 20, 60])} ms"}
    return Edges(bottlenecks=(Bottleneck(rate="12 Mbit/s", here=(0, 1, 2)),)).plan(graph, seed)


def random_transfers(plan, seed, count):
    rng = np.random.default_rng([seed, 1])
    pairs = list(plan.links)
    return [(int(rng.uniform(0, 2e9)), *pairs[rng.integers(len(pairs))], int(np.exp(rng.uniform(7, 12)))) for _ in range(count)]


@pytest.mark.parametrize("late_ns", [0, 300_000, 2_000_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_transfers_leave_as_by_the_book_however_late_senders_look(seed, late_ns):
    plan = random_plan(seed)
    transfers = random_transfers(plan, seed, 80)
    got = [chunks[-1][0].finish_ns for chunks in Senders(plan, late_ns, seed).carry(transfers)]
    apart = np.abs(np.array(got) - leave_ns(plan, transfers))
    assert np.quantile(apart, 0.95) < 1_000  # ns
    assert apart.max() < (2_000_000 if late_ns else 1_000)


def test_a_chunks_stamps_are_those_of_the_emulated_link():
    plan = random_plan(3)
    transfers = random_transfers(plan, 3, 60)
    for (asked_ns, source, target, size), chunks in zip(transfers, Senders(plan, 200_000).carry(transfers), strict=True):
        assert len(chunks) == -(-size // 4_000)
        spec, shares = plan.links[source, target], (source, target) in plan.shared().routes
        for transit, handed_ns in chunks:
            assert asked_ns <= transit.start_ns <= transit.finish_ns
            assert transit.finish_ns <= handed_ns + AHEAD_NS or not shares
            assert transit.due_ns == transit.finish_ns + spec.delay_ns
        finishes = [transit.finish_ns for transit, _ in chunks]
        assert finishes == sorted(finishes)
        spread = size - 4_000 if len(chunks) > 1 else 0
        assert spread <= spec.effective_rate_bytes_per_s * (finishes[-1] - finishes[0] + 2) / 1e9


def test_without_delay_a_chunk_is_handed_out_a_little_before_it_has_left():
    plan = Uniform(uplink="8 Mbit/s").plan(nx.path_graph(3), 0)
    ((transit, handed_ns),) = Senders(plan).carry([(0, 1, 0, 4_000)])[0]
    assert transit == (0, 4_000_000, 4_000_000)
    assert handed_ns == 4_000_000 - AHEAD_NS


def test_a_demand_that_comes_late_is_put_in_its_place():
    plan = Uniform(uplink="8 Mbit/s").plan(nx.star_graph(2), 0)
    shared = plan.shared()
    table = FlowTable(shared, memory(shared))
    table.carry_out([Demand(0, 0, 10_000.0, math.inf)])
    table.advance(20_000_000)  # it ran dry at 10 ms, had it been alone
    rolled_back = table.rolled_back
    table.carry_out([Demand(5_000_000, 1, 10_000.0, math.inf)])
    table.advance(30_000_000)
    assert table.rolled_back > rolled_back
    ends = [table.breakpoints(flow)[1][-1][:2] for flow in (0, 1)]
    assert ends == [pytest.approx((15e6, 10_000)), pytest.approx((20e6, 10_000))]


def test_a_demand_that_comes_after_more_than_half_of_the_log_is_put_in_its_place():
    """Nine demands fill both halves of the log; each flow has the uplink for 1 ms of every 2, but for those that overlap."""
    plan = Uniform(uplink="8 Mbit/s").plan(nx.star_graph(10), 0)
    shared = plan.shared()
    table = FlowTable(shared, memory(shared))

    def ends_ms():
        return [table.breakpoints(flow)[1][-1][:2] for flow in range(10) if table.breakpoints(flow)[1]]

    for flow in range(9):
        table.carry_out([Demand(2e6 * flow, flow, 1_000.0, math.inf)])
    table.advance(30_000_000)
    assert ends_ms() == [pytest.approx((2e6 * flow + 1e6, 1_000)) for flow in range(9)]
    table.carry_out([Demand(4.5e6, 9, 1_000.0, math.inf)])  # shares with flow 2, which has 500 bytes to go
    table.advance(30_000_000)
    expected = {flow: 2e6 * flow + 1e6 for flow in range(9)} | {2: 5.5e6, 9: 6e6}
    assert table.rolled_back == 1
    assert ends_ms() == [pytest.approx((expected[flow], 1_000)) for flow in range(10)]
    table.carry_out([Demand(16.5e6, 9, 1_000.0, math.inf)])  # shares with flow 8: back to the newer half alone
    table.advance(30_000_000)
    expected |= {8: 17.5e6, 9: 18e6}
    assert table.rolled_back == 2
    assert ends_ms() == [pytest.approx((expected[flow], 1_000 + 1_000 * (flow == 9))) for flow in range(10)]


@pytest.mark.parametrize(("delay_ms", "jitter_ms", "hold_ms"), [(20, 4, 6), (20, 0, 8), (8, 1, 3), (8, 3, -0.5)])
def test_a_chunk_is_handed_out_before_its_jitter_may_let_it_arrive(delay_ms, jitter_ms, hold_ms):
    """It leaves after 4 ms and is due 3 jitters earlier than its delay at the earliest; 2 ms before that it goes out, at most
    8 ms after it has left and half a ms before."""
    plan = Uniform(uplink="8 Mbit/s", delay=f"{delay_ms} ms", jitter=f"{jitter_ms} ms").plan(nx.path_graph(3), 0)
    ((transit, handed_ns),) = Senders(plan).carry([(0, 1, 0, 4_000)])[0]
    assert transit.finish_ns == 4_000_000
    assert handed_ns == 4_000_000 + hold_ms * 1_000_000
    assert abs(transit.due_ns - transit.finish_ns - delay_ms * 1_000_000) <= jitter_ms * 1_000_000


def test_what_is_dropped_leaves_its_share_to_others():
    plan = Uniform(uplink="8 Mbit/s").plan(nx.star_graph(2), 0)
    senders = Senders(plan)
    hub = senders.shapers[0]
    for target in (1, 2):
        for _ in range(10):
            hub.offer(target, target, 1_000, 0)
    hub.release(0)
    hub.release(10_000_000)
    assert hub.drop(1) > 0
    left = [transit.finish_ns for target, _, transit in hub.release(SECOND_NS) if target == 2]
    assert left[-1] == pytest.approx(15_000_000, abs=2)
    assert hub.next_ns() is None


@pytest.mark.parametrize("network", [{"uplink": "12 Mbit/s"}, {}])
def test_acknowledgements_go_past_what_waits_and_are_made_up_for(network):
    """Alike with segments that do not bind and without any: what leaves next makes up for them."""
    plan = Uniform(rate="8 Mbit/s", delay="30 ms", **network).plan(nx.star_graph(2), 0)
    assert bool(plan.shared().routes) == bool(network)
    hub = Senders(plan).shapers[0]
    hub.offer(1, "data", 10_000, 0)
    hub.offer(1, "answer", 100, 0, urgent=True)
    hub.offer(1, "more", 10_000, 0)
    answer, *early = hub.release(0)
    assert answer == (1, "answer", (0, 0, 30_100_000))
    stamps = {item: transit.finish_ns for _, item, transit in early + hub.release(SECOND_NS)}
    assert stamps == {"data": 10_100_000, "more": 20_100_000}


def test_segments_that_change_share_what_they_have_then():
    steps = [Step(10_000_000, 1e6), Step(10_000_000, 4e6), Step(10_000_000, 0.0)]
    links = {pair: LinkSpec(3e6) for pair in ((0, 1), (0, 2), (1, 0), (2, 0))}
    plan = NetworkPlan(
        links=links, uplinks=[1.7e6, math.inf, math.inf], downlinks=[math.inf] * 3, up_profiles={0: Profile(steps, looped=True)}
    )
    found = Senders(plan, 100_000).carry([(0, 0, 1, 20_000), (0, 0, 2, 40_000)], 1_000)
    # 5 kB each by 10 ms, then 2 MB/s each: the first ends at 17.5 ms with 20 kB; then the second, capped at 3 MB/s, has 27.5 kB
    # at 20 ms, nothing till 30 ms, 37.5 kB at 40 ms, and 2.5 kB more at 3 MB/s
    assert found[0][-1][0].finish_ns == pytest.approx(17_500_000, abs=2)
    assert found[1][-1][0].finish_ns == pytest.approx(40_833_334, abs=2)


@pytest.mark.parametrize("network", [{"tcp": "cubic"}, {"outage_every": "300 ms", "outage_length": "50 ms"}])
def test_links_of_their_own_pace_are_as_fast_alone_as_without_sharing(network):
    """Alone behind an access line that never binds for it: the same end as over a link of its own."""
    shape = {"rate": "8 Mbit/s", "delay": "20 ms", "uplink": "9 Mbit/s", **network}
    plan = Uniform(**shape).plan(nx.star_graph(2), 5)
    link = plan.link(0, 1)
    sizes = [60_000, 200_000, 3_000]
    alone = [link.send(at_ns, size).finish_ns for at_ns, size in zip((0, SECOND_NS, 3 * SECOND_NS), sizes, strict=True)]
    transfers = [(at_ns, 0, 1, size) for at_ns, size in zip((0, SECOND_NS, 3 * SECOND_NS), sizes, strict=True)]
    got = [chunks[-1][0].finish_ns for chunks in Senders(plan).carry(transfers)]
    assert got == pytest.approx(alone, abs=3)


def test_two_tcp_flows_share_an_uplink():
    plan = Access(lines=("8 Mbit/s", "100 Mbit/s", "100 Mbit/s"), delay="5 ms", tcp="cubic").plan(nx.star_graph(2), 5)
    found = Senders(plan, 100_000).carry([(0, 0, target, 400_000) for target in (1, 2)])
    ends = [chunks[-1][0].finish_ns for chunks in found]
    assert max(ends) == pytest.approx(0.8 * SECOND_NS, rel=0.1)
    assert min(ends) > 0.7 * max(ends)


def test_a_cable_is_shared_by_links_of_different_peers():
    links = {pair: LinkSpec(1e6) for u, v in ((0, 2), (1, 3)) for pair in ((u, v), (v, u))}
    plan = NetworkPlan(links=links, uplinks=[math.inf] * 4, downlinks=[math.inf] * 4, cables=(Cable(1e6, ((0, 2), (1, 3))),))
    found = Senders(plan).carry([(0, 0, 2, 10_000), (5_000_000, 1, 3, 10_000)])
    assert [chunks[-1][0].finish_ns for chunks in found] == pytest.approx([15_000_000, 20_000_000], abs=2)
