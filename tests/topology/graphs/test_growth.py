"""Peers enter and leave: every graph of the menu stays connected and keeps what its name promises."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from grapevine.topology.graphs import growth
from grapevine.topology.graphs.base import Topology, Turn
from grapevine.topology.graphs.menu import (
    BarabasiAlbert,
    BinaryTree,
    Complete,
    ErdosRenyi,
    Path,
    RandomRegular,
    Ring,
    Star,
    Torus,
    WattsStrogatz,
)
from grapevine.topology.graphs.overlays import Overlay
from grapevine.topology.graphs.places import Geographic

GROWING = [
    Ring(), Path(), Complete(), Star(), BinaryTree(), RandomRegular(degree=4), RandomRegular(degree=3), ErdosRenyi(p=0.3),
    ErdosRenyi(), BarabasiAlbert(m=2), WattsStrogatz(k=4, p=0.2), Geographic(nearest=2), Overlay(),
]  # fmt: skip
PEERS = 24


def walk(topology: Topology, seed: int, changes: int = 60) -> list[nx.Graph]:
    """Graphs of a fleet of up to 24 peers in which somebody enters or leaves at random."""
    rng = np.random.default_rng(seed)
    delays = rng.random((PEERS, PEERS))
    graph = topology.over(list(range(12)), Turn(seed, 0, delays=delays))
    graphs = [graph]
    for number in range(1, changes):
        absent = sorted(set(range(PEERS)) - set(graph))
        turn = Turn(seed, number, delays=delays)
        if absent and (len(graph) < 7 or rng.random() < 0.5):
            graph = topology.entered(graph, int(rng.choice(absent)), turn)
        else:
            graph = topology.left(graph, int(rng.choice(sorted(graph))), turn)
        graphs.append(graph)
    return graphs


@pytest.mark.parametrize("topology", GROWING, ids=lambda topology: topology.name)
@pytest.mark.parametrize("seed", range(4))
def test_a_graph_stays_connected_and_simple_as_peers_come_and_go(topology: Topology, seed: int) -> None:
    for before, after in zip(graphs := walk(topology, seed), graphs[1:], strict=False):
        assert len(set(before) ^ set(after)) == 1
        assert nx.is_connected(after)
        assert nx.number_of_selfloops(after) == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_ring_stays_a_ring_and_a_path_a_path(seed: int) -> None:
    assert all(set(dict(graph.degree).values()) == {2} for graph in walk(Ring(), seed))
    for graph in walk(Path(), seed):
        assert sorted(dict(graph.degree).values()) == [1, 1, *[2] * (len(graph) - 2)]


def test_a_newcomer_is_spliced_into_a_link_of_a_ring_and_its_neighbours_join_when_it_goes() -> None:
    ring = nx.cycle_graph(5)
    grown = growth.splice(ring, 9, np.random.default_rng(0))
    first, second = sorted(grown.neighbors(9))
    assert ring.has_edge(first, second)
    assert set(map(frozenset, grown.edges)) == set(map(frozenset, ring.edges)) - {frozenset((first, second))} | {
        frozenset((first, 9)), frozenset((second, 9)),
    }  # fmt: skip
    assert nx.utils.edges_equal(growth.close(grown, 9).edges, ring.edges)
    assert nx.utils.graphs_equal(ring, nx.cycle_graph(5)), "what was given is not changed"


def test_small_rings() -> None:
    one = nx.empty_graph([3])
    two = growth.splice(one, 5, np.random.default_rng(0))
    three = growth.splice(two, 4, np.random.default_rng(0))
    assert set(map(frozenset, two.edges)) == {frozenset((3, 5))}
    assert set(dict(three.degree).values()) == {2}
    assert set(map(frozenset, growth.close(three, 4).edges)) == {frozenset((3, 5))}


@pytest.mark.parametrize("degree", [2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_regular_graph_keeps_its_degrees(degree: int, seed: int) -> None:
    for graph in walk(RandomRegular(degree=degree), seed):
        asked = min(degree, len(graph) - 1)
        degrees = sorted(dict(graph.degree).values())
        assert sum(asked - each for each in degrees) == asked * len(graph) % 2, "one is short where ends are odd in number"
        assert degrees[-1] == asked


@pytest.mark.parametrize("seed", range(4))
def test_complete_graphs_and_stars(seed: int) -> None:
    for graph in walk(Complete(), seed):
        assert graph.number_of_edges() == len(graph) * (len(graph) - 1) // 2
    for graph in walk(Star(), seed):
        assert graph.number_of_edges() == len(graph) - 1
        assert max(dict(graph.degree).values()) == len(graph) - 1


def test_a_newcomer_of_a_preferential_graph_prefers_hubs() -> None:
    star = nx.star_graph(9)
    chosen = [next(iter(growth.join_preferred(star, 10, 1, np.random.default_rng(luck)).neighbors(10))) for luck in range(400)]
    assert abs(chosen.count(0) / 400 - 0.5) < 0.08  # nine of the eighteen ends of links are the hub's


def test_coins_decide_the_neighbours_of_a_newcomer() -> None:
    graph = nx.complete_graph(200)
    joined = growth.join_by_coin(graph, 200, 0.3, np.random.default_rng(1)).degree(200)
    assert abs(joined - 60) < 25
    assert growth.join_by_coin(graph, 200, 0.0, np.random.default_rng(1)).degree(200) == 1


def test_the_same_turn_draws_the_same_and_another_another() -> None:
    ring = nx.cycle_graph(50)
    once, again, later = (Ring().entered(ring, 60, Turn(3, number)) for number in (5, 5, 6))
    assert nx.utils.graphs_equal(once, again)
    assert not nx.utils.graphs_equal(once, later)


def test_a_graph_that_is_not_there_for_so_many_says_which_number_is() -> None:
    with pytest.raises(ValueError, match="set peers to 9 or 12"):
        Torus().entered(Torus().build(9), 9, Turn(0, 1))
