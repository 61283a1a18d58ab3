"""Graphs that depend on the fleet: D-Cliques on its labels, overlays on its delays."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.graphs.cliques import balanced_cliques, skew
from grapevine.topology.graphs.overlays import _path_through


def one_label_each(n: int, classes: int) -> np.ndarray:
    return np.eye(classes)[np.arange(n) % classes] * 50


def cliques_of(graph: nx.Graph) -> list[list[int]]:
    cliques: dict[int, list[int]] = {}
    for peer, clique in graph.nodes(data="clique"):
        cliques.setdefault(clique, []).append(peer)
    return list(cliques.values())


@pytest.mark.parametrize("seed", range(4))
def test_with_one_label_a_peer_every_clique_holds_each_once(seed: int) -> None:
    """Bellet et al. 2022, section 3: ten classes, cliques of ten, skew exactly 0."""
    counts = one_label_each(100, 10)[np.random.default_rng(seed).permutation(100)]
    graph = topology.build("d-cliques", 100, seed=seed, label_counts=counts)
    for clique in cliques_of(graph):
        assert sorted(counts[clique].argmax(axis=1)) == list(range(10))
        assert skew(counts, clique) == pytest.approx(0.0, abs=1e-12)
        assert all(graph.has_edge(i, j) for i, j in combinations(clique, 2))


@pytest.mark.parametrize(("between", "links"), [("full", 9450), ("ring", 4600)])
def test_a_thousand_peers_save_as_many_links_as_published(between: str, links: int) -> None:
    """100 cliques of 10: 98.1 % and 99.1 % fewer than the 499,500 of the complete graph."""
    graph = nx.empty_graph(1000)
    from grapevine.topology.graphs.cliques import _lay_cliques

    _lay_cliques(graph, [list(range(i, i + 10)) for i in range(0, 1000, 10)], between, "clique")
    assert graph.number_of_edges() == links
    wide = nx.Graph((i, j) for i, j, w in graph.edges(data="wide_area") if w)
    assert max(degree for _, degree in wide.degree) <= (10 if between == "full" else 1)  # spread over a clique's peers


def test_swaps_lower_the_skew_of_uneven_labels_and_end_where_no_swap_helps() -> None:
    counts = np.random.default_rng(1).dirichlet(np.full(6, 0.2), size=24) * 100 + 1e-3
    cliques = balanced_cliques(counts, 6, seed=0)
    assert sorted(peer for clique in cliques for peer in clique) == list(range(24))
    found = sum(skew(counts, clique) for clique in cliques)
    order = np.random.default_rng(9)
    random = [sum(skew(counts, part) for part in np.array_split(order.permutation(24), 4)) for _ in range(200)]
    assert found < min(random)
    for a, b in combinations(cliques, 2):
        for i in a:
            for j in b:
                swapped = [[peer for peer in a if peer != i] + [j], [peer for peer in b if peer != j] + [i]]
                assert sum(skew(counts, c) for c in swapped) >= skew(counts, a) + skew(counts, b) - 1e-9


@pytest.mark.parametrize("between", ["ring", "full", "fractal", "small-world"])
@pytest.mark.parametrize("n", [3, 12, 20, 47])
def test_d_cliques_are_connected_with_every_way_of_joining(between: str, n: int) -> None:
    counts = np.random.default_rng(n).integers(1, 20, size=(n, 4))
    graph = topology.build("d-cliques", n, label_counts=counts, size=4, between=between)
    again = topology.build("d-cliques", n, label_counts=counts, size=4, between=between)
    assert nx.is_connected(graph)
    assert list(graph) == list(range(n))
    assert list(graph.edges) == list(again.edges)
    assert max(map(len, cliques_of(graph))) <= 4


# -- overlays


def delays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return delays between random places, slightly different per direction, and the cost of each undirected link."""
    rng = np.random.default_rng(seed)
    places = rng.random((n, 2))
    asked = np.linalg.norm(places[:, None] - places[None], axis=2) + rng.uniform(0, 0.05, (n, n))
    return asked, (asked + asked.T) / 2


def total(graph: nx.Graph, cost: np.ndarray) -> float:
    return float(sum(cost[edge] for edge in graph.edges))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_spanning_tree_is_the_least_of_all_trees(seed: int) -> None:
    asked, cost = delays(6, seed)
    graph = topology.build("overlay", 6, delays=asked)
    trees = [nx.from_prufer_sequence(list(code)) for code in np.ndindex(6, 6, 6, 6)]
    assert nx.is_tree(graph)
    assert total(graph, cost) == pytest.approx(min(total(tree, cost) for tree in trees))
    assert max(cost[e] for e in graph.edges) == pytest.approx(min(max(cost[e] for e in tree.edges) for tree in trees))
    for i, j, delay in graph.edges(data="asked_delay"):
        assert delay == pytest.approx(cost[i, j])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [2, 3, 4])
def test_bounded_trees_keep_to_their_degree_and_wait_at_most_three_times_as_long(seed: int, most: int) -> None:
    asked, _ = delays(20, seed)
    metric = np.asarray(nx.floyd_warshall_numpy(nx.from_numpy_array((asked + asked.T) / 2 * (1 - np.eye(20)))))
    graph = topology.build("overlay", 20, delays=metric, shape="bounded-tree", most=most)
    least = max(metric[e] for e in topology.build("overlay", 20, delays=metric).edges)
    assert nx.is_tree(graph)
    assert max(degree for _, degree in graph.degree) <= most
    assert max(metric[e] for e in graph.edges) <= 3 * least + 1e-12


def test_a_path_through_the_cube_of_any_tree() -> None:
    """Sekanina 1960: the cube of a connected graph has a Hamiltonian path."""
    for seed in range(60):
        tree = nx.random_labeled_tree(3 + seed % 20, seed=seed)
        path = _path_through(list(tree.edges), len(tree))
        assert sorted({peer for step in path for peer in step}) == list(tree)
        assert len(path) == len(tree) - 1
        assert max(nx.shortest_path_length(tree, i, j) for i, j in path) <= 3
    long = nx.path_graph(3000)  # deeper than Python's stack
    assert len(_path_through(list(long.edges), 3000)) == 2999


@pytest.mark.parametrize("seed", range(4))
def test_the_ring_is_at_most_half_longer_than_the_shortest(seed: int) -> None:
    places = np.random.default_rng(seed).random((7, 2))
    cost = np.linalg.norm(places[:, None] - places[None], axis=2)
    graph = topology.build("overlay", 7, delays=cost, shape="ring")
    assert {degree for _, degree in graph.degree} == {2}
    assert nx.is_connected(graph)
    tours = [(0, *order) for order in permutations(range(1, 7))]
    best = min(sum(cost[a, b] for a, b in zip(tour, (*tour[1:], 0), strict=True)) for tour in tours)
    assert best - 1e-12 <= total(graph, cost) <= 1.5 * best


def test_the_centre_of_the_star_is_on_most_shortest_paths() -> None:
    asked, cost = delays(9, 3)
    graph = topology.build("overlay", 9, delays=asked, shape="star")
    hub = next(peer for peer, degree in graph.degree if degree == 8)
    load = nx.load_centrality(nx.from_numpy_array(cost * (1 - np.eye(9))), weight="weight")
    assert load[hub] == max(load.values())
    hop = np.full((5, 5), 10.0)
    hop[3], hop[:, 3] = 1.0, 1.0  # all shortest paths lead through peer 3
    assert dict(topology.build("overlay", 5, delays=hop, shape="star").degree)[3] == 4
    near = np.full((5, 5), 10.0)
    near[2], near[:, 2] = 9.0, 9.0  # no path through another peer is shorter than the direct link
    assert dict(topology.build("overlay", 5, delays=near, shape="star").degree)[2] == 4


@pytest.mark.parametrize("shape", ["spanning-tree", "bounded-tree", "ring", "star"])
def test_overlays_can_be_built_for_few_peers(shape: str) -> None:
    for n in (2, 3, 4, 5):
        assert nx.is_connected(topology.build("overlay", n, delays=delays(n, 1)[0], shape=shape))


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("d-cliques", {}, r"give label_counts=\[peers, classes\], or choose micro-clouds"),
    ("d-cliques", {"label_counts": np.ones((3, 2))}, r"label_counts are of shape \(3, 2\); expected \[4, classes\]"),
    ("d-cliques", {"label_counts": np.zeros((4, 2))}, "a peer without samples"),
    ("d-cliques", {"label_counts": np.ones((4, 2)), "size": 1}, "size: 1 will not do; expected 2 or more"),
    ("overlay", {}, r"give delays=\[peers, peers\], from peer i to peer j, or choose binary-tree"),
    ("overlay", {"delays": np.ones((3, 3))}, r"delays are of shape \(3, 3\) for 4 peers"),
    ("overlay", {"delays": -np.ones((4, 4))}, "a delay is negative or not finite"),
    ("overlay", {"delays": np.ones((4, 4)), "most": 1}, "most: 1 will not do; expected 2"),
    ("overlay", {"delays": np.ones((4, 4)), "shape": "line"}, "shape = 'line' will not do: known are spanning-tree"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSALS)
def test_every_refusal_names_the_cure(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.build(name, 4, **options)
