"""Cycle times against an enumeration of all circuits, and against the results of Marfoq et al. for rings and stars."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.analysis.timing import cycle_time, link_delays


@pytest.mark.parametrize("seed", range(8))
def test_the_cycle_time_is_the_largest_mean_of_all_circuits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(6, 0.5, seed=seed, directed=True)
    delays = rng.uniform(0, 10, (6, 6))
    np.fill_diagonal(delays, rng.uniform(0, 3, 6))
    circuits = [*nx.simple_cycles(graph), *([i] for i in range(6))]
    means = [np.mean([delays[a, b] for a, b in zip(c, [*c[1:], c[0]], strict=True)]) for c in circuits]
    assert cycle_time(graph, delays) == pytest.approx(max(means))


@pytest.mark.parametrize("seed", range(4))
def test_rounds_really_take_that_long(seed: int) -> None:
    """t_j(k + 1) = max_i (t_i(k) + d(i, j)) over the senders i of peer j and j itself."""
    graph = topology.build("erdos-renyi", 15, seed=seed)
    delays = np.random.default_rng(seed).uniform(1, 5, (15, 15))
    waits = np.where((nx.to_numpy_array(graph) + np.eye(15)) > 0, delays, -np.inf)
    starts = np.zeros(15)
    for _ in range(4000):
        starts = (starts[:, None] + waits).max(axis=0)
    assert starts.max() / 4000 == pytest.approx(cycle_time(graph, delays), rel=2e-3)


def test_a_directed_ring_waits_the_mean_delay_and_an_undirected_graph_its_slowest_link() -> None:
    delays = np.random.default_rng(1).uniform(1, 9, (7, 7))
    np.fill_diagonal(delays, 0.0)
    ring = nx.cycle_graph(7, create_using=nx.DiGraph)
    assert cycle_time(ring, delays) == pytest.approx(np.mean([delays[i, (i + 1) % 7] for i in range(7)]))
    both = (delays + delays.T) / 2
    for name in ("path", "star", "binary-tree"):
        graph = topology.build(name, 7)
        assert cycle_time(graph, delays) == pytest.approx(max(both[edge] for edge in graph.edges))  # a tree has no others
    assert cycle_time(topology.build("complete", 7), delays) >= max(both[i, j] for i in range(7) for j in range(i)) - 1e-12


def test_delays_of_links_share_what_a_peer_can_send() -> None:
    """A star's hub sends its model n - 1 times over its uplink; a leaf's own uplink and link are used once."""
    graph = topology.build("star", 5)
    delays = link_delays(graph, 1e6, 0.04, rates_bytes_per_s=1e6, uplinks_bytes_per_s=2e6, compute_s=0.1)
    assert delays[0, 3] == pytest.approx(0.1 + 0.04 + max(1.0, 4 * 0.5))
    assert delays[3, 0] == pytest.approx(0.1 + 0.04 + max(1.0, 0.5))
    assert delays[2, 2] == 0.1
    assert delays[1, 2] == np.inf
    assert cycle_time(graph, delays) == pytest.approx((delays[0, 3] + delays[3, 0]) / 2)
    down = link_delays(graph, 1e6, 0.0, downlinks_bytes_per_s=np.array([1e6, 9e6, 9e6, 9e6, 9e6]))
    assert down[1, 0] == pytest.approx(4.0)


def test_the_spanning_tree_has_the_least_cycle_time_of_all_undirected_overlays() -> None:
    rng = np.random.default_rng(5)
    delays = rng.uniform(1, 9, (8, 8))
    np.fill_diagonal(delays, 0.0)
    least = cycle_time(topology.build("overlay", 8, delays=delays), delays)
    for seed in range(30):
        assert cycle_time(nx.random_labeled_tree(8, seed=seed), delays) >= least - 1e-12
    for shape in ("bounded-tree", "ring", "star"):
        assert cycle_time(topology.build("overlay", 8, delays=delays, shape=shape), delays) >= least - 1e-12


def test_invalid_delays_are_refused() -> None:
    graph = topology.build("ring", 4)
    with pytest.raises(ValueError, match=r"delays are of shape \(3, 3\) for 4 peers"):
        cycle_time(graph, np.ones((3, 3)))
    with pytest.raises(ValueError, match="give the delay of every link"):
        cycle_time(graph, np.full((4, 4), np.inf))
    with pytest.raises(ValueError, match="rates are above 0"):
        link_delays(graph, 1.0, 0.0, rates_bytes_per_s=0.0)
    with pytest.raises(ValueError, match="check their signs"):
        link_delays(graph, -1.0, 0.0)
