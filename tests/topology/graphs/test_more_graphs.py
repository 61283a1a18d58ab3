"""Exponential, EquiStatic, expanders, micro-clouds and geographic graphs: their definitions and published properties."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.graphs.expanders import is_prime

# -- exponential


@pytest.mark.parametrize("n", [4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64])
def test_the_exponential_graph_has_its_published_gap_for_even_numbers(n: int) -> None:
    """Ying et al. 2021, proposition 1: |W - J|_2 = SLEM = (tau - 1) / (tau + 1), tau = ceil(log2 n)."""
    graph = topology.build("exponential", n)
    tau = int(np.ceil(np.log2(n)))
    assert {degree for _, degree in graph.out_degree} == {degree for _, degree in graph.in_degree} == {tau}
    matrix = topology.mixing_matrix(graph, "uniform")
    figures = topology.analyse(matrix)
    assert figures.doubly_stochastic
    assert figures.slem == pytest.approx((tau - 1) / (tau + 1), abs=1e-12)
    assert np.linalg.norm(matrix - 1 / n, 2) == pytest.approx((tau - 1) / (tau + 1), abs=1e-12)
    np.testing.assert_allclose(matrix, topology.mixing_matrix(graph, "push-sum"), atol=1e-15)


@pytest.mark.parametrize("n", [5, 9, 15, 33])
def test_for_odd_numbers_the_gap_is_larger(n: int) -> None:
    tau = int(np.ceil(np.log2(n)))
    assert topology.analyse(topology.mixing_matrix(topology.build("exponential", n), "uniform")).gap > 2 / (tau + 1) + 1e-6


def test_its_links_go_to_powers_of_two_and_one_way() -> None:
    graph = topology.build("exponential", 10)
    assert sorted(graph.successors(7)) == sorted([8, 9, 1, 5])
    with pytest.raises(ValueError, match=r"exponential go one way.*choose an undirected graph.*hypercube or .*equi-static"):
        topology.menu()["exponential"]().build(10)
    with pytest.raises(ValueError, match="equi-static go one way"):
        topology.menu()["equi-static"](directed=True).build(10)


# -- EquiStatic


def equi_static_matrix(graph: nx.Graph) -> np.ndarray:
    """The published mixing matrix of an `equi-static` graph, float64 [n, n]: the mean of the basis matrices drawn.

    A basis matrix gives the peer u places before weight (n - 1) / n and the peer itself 1 / n; undirected: half each way.
    """
    n = len(graph)
    matrix = (n - 1) / n * nx.to_numpy_array(graph, nodelist=range(n), weight="weight").T
    weights: np.ndarray = matrix + np.diag(1.0 - matrix.sum(axis=1))
    return weights


def sufficient_draws(n: int, norm: float, doubt: float = 0.05) -> int:
    """Return the draws after which an `equi-static` matrix has |W - J| below `norm` with probability 1 - `doubt`.

    8 ln(2 n / doubt) / (3 norm^2), as Song et al. 2022 derive it from the matrix Bernstein inequality.
    """
    return int(8.0 * np.log(2.0 * n / doubt) / (3.0 * norm**2))


@pytest.mark.parametrize("directed", [True, False])
def test_the_equi_static_matrix_is_a_mean_of_basis_matrices(directed: bool) -> None:
    """Entry (i + u, i) is (n - 1) / n times the share of draws that were u: circulant, doubly stochastic."""
    n, draws = 11, 5
    graph = topology.build("equi-static", n, seed=4, draws=draws, directed=directed)
    matrix = equi_static_matrix(graph)
    assert topology.analyse(matrix).doubly_stochastic
    for i in range(n):
        np.testing.assert_allclose(np.roll(matrix[0], i), matrix[i], atol=1e-15)
    shares = matrix[1:, 0] * n / (n - 1) * draws
    np.testing.assert_allclose(shares.sum(), draws)
    np.testing.assert_allclose(shares * (1 if directed else 2), np.round(shares * (1 if directed else 2)), atol=1e-9)
    assert np.diag(matrix) == pytest.approx(1 / n)
    assert (matrix == matrix.T).all() != directed


@pytest.mark.slow
def test_with_enough_draws_the_equi_static_norm_is_below_its_bound_for_every_size() -> None:
    """Theorem 1 of Song et al. 2022: |W - J| < 0.5 with a probability of 0.95; each of 60 draws is far inside."""
    assert sufficient_draws(60, 0.5, 0.05) == int(8 * np.log(2 * 60 / 0.05) / (3 * 0.25))
    for n in (20, 60):
        for directed in (True, False):
            norms = [
                np.linalg.norm(
                    equi_static_matrix(
                        topology.build("equi-static", n, seed=seed, draws=sufficient_draws(n, 0.5), directed=directed)
                    )
                    - 1 / n,
                    2,
                )
                for seed in range(15)
            ]
            assert max(norms) < 0.5


def test_draws_that_leave_pieces_are_drawn_anew() -> None:
    for seed in range(30):
        assert nx.is_connected(topology.build("equi-static", 12, seed=seed, draws=1))
        assert nx.is_strongly_connected(topology.build("equi-static", 12, seed=seed, draws=1, directed=True))


# -- expanders


@pytest.mark.parametrize("n", [5, 13, 17, 29, 61])
def test_paley_graphs_have_their_three_eigenvalues(n: int) -> None:
    """(n - 1) / 2 once and (-1 +- sqrt(n)) / 2 each (n - 1) / 2 times: strongly regular, and its own complement's twin."""
    graph = topology.build("paley", n)
    values = np.linalg.eigvalsh(nx.to_numpy_array(graph))
    half = (n - 1) // 2
    expected = [(-1 - np.sqrt(n)) / 2] * half + [(-1 + np.sqrt(n)) / 2] * half + [half]
    np.testing.assert_allclose(values, sorted(expected), atol=1e-9)
    assert set(map(frozenset, graph.edges)) == set(map(frozenset, nx.paley_graph(n).to_undirected().edges))


@pytest.mark.parametrize("n", [5, 7, 31, 101])
def test_chordal_cycles_are_those_of_networkx_without_loops_and_double_links(n: int) -> None:
    expected = nx.Graph(nx.chordal_cycle_graph(n))
    expected.remove_edges_from(list(nx.selfloop_edges(expected)))
    graph = topology.build("chordal-cycle", n)
    assert set(map(frozenset, graph.edges)) == set(map(frozenset, expected.edges))
    assert max(degree for _, degree in graph.degree) <= 3
    assert nx.diameter(graph) < max(4, n / 3)


@pytest.mark.parametrize("side", [3, 4, 7, 12])
def test_margulis_gabber_galil_graphs_are_those_of_networkx_and_expand(side: int) -> None:
    expected = nx.Graph(nx.margulis_gabber_galil_graph(side))
    expected.remove_edges_from(list(nx.selfloop_edges(expected)))
    graph = topology.build("margulis-gabber-galil", side**2)
    names = nx.relabel_nodes(expected, {(x, y): x * side + y for x, y in expected})
    assert set(map(frozenset, graph.edges)) == set(map(frozenset, names.edges))
    multi = nx.to_numpy_array(nx.margulis_gabber_galil_graph(side))
    assert np.linalg.eigvalsh(multi)[-2] <= 5 * np.sqrt(2) + 1e-9  # Gabber and Galil 1981: degree 8, any side


def test_primes() -> None:
    assert [n for n in range(60) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59]


# -- micro-clouds


@pytest.mark.parametrize(
    ("n", "size", "between"), [(16, 4, "full"), (17, 4, "ring"), (40, 4, "small-world"), (64, 4, "fractal")]
)
def test_micro_clouds_are_complete_inside_and_thinly_joined(n: int, size: int, between: str) -> None:
    graph = topology.build("micro-clouds", n, size=size, between=between)
    assert nx.is_connected(graph)
    clouds: dict[int, list[int]] = {}
    for peer, cloud in graph.nodes(data="cloud"):
        clouds.setdefault(cloud, []).append(peer)
    assert len(clouds) == -(-n // size)
    assert max(map(len, clouds.values())) - min(map(len, clouds.values())) <= 1
    for peers in clouds.values():
        assert all(graph.has_edge(i, j) for i, j in combinations(peers, 2))
    wide = [(graph.nodes[i]["cloud"], graph.nodes[j]["cloud"]) for i, j, w in graph.edges(data="wide_area") if w]
    assert all(a != b for a, b in wide)
    assert sum(not w for *_, w in graph.edges(data="wide_area")) == sum(len(p) * (len(p) - 1) // 2 for p in clouds.values())
    expected = {"full": 6, "ring": 5, "small-world": len(wide), "fractal": 4 * 6 + 6}
    assert len(wide) == expected[between]
    assert len(set(map(frozenset, wide))) == len(wide)


def test_small_world_fingers_reach_half_way_round_in_few_hops() -> None:
    graph = topology.build("micro-clouds", 64, size=1, between="small-world")
    distances = {min((u - v) % 64, (v - u) % 64) for u, v in graph.edges}
    assert distances == {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 31}
    assert nx.diameter(graph) <= 4


# -- geographic


@pytest.mark.parametrize("n", [6, 40, 150])
def test_each_peer_is_linked_to_the_nearest(n: int) -> None:
    graph = topology.build("geographic", n, seed=3, nearest=3)
    places = np.array([[graph.nodes[i]["x"], graph.nodes[i]["y"]] for i in range(n)])
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    for i in range(n):
        for j in np.argsort(distance[i])[1:4]:
            assert graph.has_edge(i, int(j))
    for i, j, length in graph.edges(data="distance"):
        assert length == pytest.approx(distance[i, j])
    assert nx.is_connected(graph)


def test_pieces_are_joined_by_short_links() -> None:
    """With one nearest neighbour the graph is always disconnected: the number of links added is that of the pieces less one."""
    for seed in range(20):
        graph = topology.build("geographic", 30, seed=seed, nearest=1)
        mutual = topology.build("geographic", 30, seed=seed, nearest=1)
        assert nx.is_connected(graph)
        assert graph.number_of_edges() == mutual.number_of_edges() == 29  # the nearest form a forest, joined to a tree


def test_far_links_shorten_paths_and_prefer_near_peers_as_the_exponent_says() -> None:
    plain, world, even = (
        topology.build("geographic", 300, seed=1, **options) for options in ({}, {"far": 1}, {"far": 1, "exponent": 0.0})
    )
    assert world.number_of_edges() > plain.number_of_edges() + 200
    assert nx.average_shortest_path_length(world) < nx.average_shortest_path_length(plain) / 1.5
    added = [
        sum(d for *_, d in graph.edges(data="distance")) - sum(d for *_, d in plain.edges(data="distance"))
        for graph in (world, even)
    ]
    assert added[0] < 0.6 * added[1]
    assert added[1] / 300 == pytest.approx(0.5214, rel=0.1)  # the mean distance of two random places in a unit square


REFUSALS: list[tuple[str, int, dict[str, Any], str]] = [
    ("exponential", 1, {}, "at least 2"),
    ("equi-static", 12, {"draws": 0}, "draws: 0 will not do; expected 1 to a million"),
    ("paley", 16, {}, r"paley needs a prime number of peers, one more than a multiple of 4, not 16; set peers to 13 or 17"),
    ("chordal-cycle", 9, {}, "needs a prime number of peers, not 9; set peers to 7 or 11"),
    ("margulis-gabber-galil", 20, {}, "needs a square number of peers, not 20; set peers to 16 or 25"),
    ("micro-clouds", 12, {"size": 0}, "size: 0 will not do"),
    ("micro-clouds", 12, {"between": "web"}, "between = 'web' will not do: known are ring, full, fractal, small-world"),
    ("geographic", 4, {}, "needs more than 4 peers, not 4; raise peers or lower nearest"),
    ("geographic", 9, {"far": -1}, "far: -1 will not do"),
]


@pytest.mark.parametrize(("name", "n", "options", "message"), REFUSALS)
def test_every_refusal_names_the_cure(name: str, n: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.build(name, n, **options)
