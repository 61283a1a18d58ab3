"""Figures of graphs against closed forms, and against networkx."""

from __future__ import annotations

import json
import math
from math import cos, pi
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.graphs.menu import torus_sides


def circulant(n: int) -> list[float]:
    return [(1 + 2 * cos(2 * pi * k / n)) / 3 for k in range(n)]


def torus(n: int) -> list[float]:
    a, b = torus_sides(n) or (0, 0)
    return [(1 + 2 * cos(2 * pi * i / a) + 2 * cos(2 * pi * j / b)) / 5 for i in range(a) for j in range(b)]


def hypercube(n: int) -> list[float]:
    d = n.bit_length() - 1
    return [(1 + d - 2 * k) / (d + 1) for k in range(d + 1) for _ in range(math.comb(d, k))]


SPECTRA = {
    "ring": circulant,
    "path": lambda n: [(1 + 2 * cos(pi * k / n)) / 3 for k in range(n)],
    "torus": torus,
    "hypercube": hypercube,
    "star": lambda n: [1.0, 0.0, *[1 - 1 / n] * (n - 2)],
    "complete": lambda n: [1.0] + [0.0] * (n - 1),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("n", [16, 32, 64])
def test_spectra_under_metropolis(name: str, n: int) -> None:
    spectrum = topology.analyse(topology.build(name, n)).spectrum
    np.testing.assert_allclose(spectrum, sorted(SPECTRA[name](n), reverse=True), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "n", "gap"),
    [
        ("ring", 16, 0.05074698),
        ("ring", 32, 0.01280981),
        ("ring", 64, 0.00321018),
        ("torus", 16, 0.4),
        ("torus", 32, 0.11715729),
        ("torus", 64, 0.11715729),
        ("hypercube", 16, 0.4),
        ("hypercube", 64, 2 / 7),
        ("star", 32, 1 / 32),
        ("complete", 12, 1.0),
        ("barbell", 32, 0.006577),
        ("binary-tree", 32, 0.009674),
    ],
)
def test_published_gaps(name: str, n: int, gap: float) -> None:
    figures = topology.analyse(topology.build(name, n))
    assert figures.gap == pytest.approx(gap, abs=1e-6)
    assert figures.slem == 1 - figures.gap
    assert figures.doubly_stochastic
    assert figures.mean_preserved


@pytest.mark.parametrize(
    ("name", "kirchhoff", "diameter", "connectivity"),
    [
        ("ring", lambda n: (n**3 - n) / 12, lambda n: n // 2, 2),
        ("path", lambda n: (n**3 - n) / 6, lambda n: n - 1, 1),
        ("star", lambda n: (n - 1) ** 2, lambda n: 2, 1),
        ("complete", lambda n: n - 1, lambda n: 1, None),
    ],
)
@pytest.mark.parametrize("n", [5, 16, 33])
def test_kirchhoff_diameter_and_connectivity(
    name: str, kirchhoff: Any, diameter: Any, connectivity: int | None, n: int
) -> None:
    figures = topology.analyse(topology.build(name, n))
    assert figures.kirchhoff == pytest.approx(kirchhoff(n))
    assert figures.diameter == diameter(n)
    assert isinstance(figures.diameter, int)
    assert figures.node_connectivity == figures.edge_connectivity == (connectivity or n - 1)


@pytest.mark.parametrize("name", ["barbell", "erdos-renyi", "watts-strogatz", "barabasi-albert", "random-regular"])
def test_graph_figures_are_those_of_networkx(name: str) -> None:
    graph = topology.build(name, 20, seed=4)
    figures = topology.analyse(graph)
    degrees = [degree for _, degree in graph.degree]
    assert figures.nodes == 20
    assert figures.edges == graph.number_of_edges()
    assert (figures.min_degree, figures.max_degree, figures.mean_degree) == (min(degrees), max(degrees), sum(degrees) / 20)
    assert figures.diameter == nx.diameter(graph)
    assert figures.average_shortest_path == pytest.approx(nx.average_shortest_path_length(graph))
    assert figures.algebraic_connectivity == pytest.approx(nx.laplacian_spectrum(graph, weight=None)[1])
    assert figures.kirchhoff == pytest.approx(sum(sum(row.values()) for row in nx.resistance_distance(graph).values()) / 2)
    assert figures.node_connectivity == nx.node_connectivity(graph)
    assert figures.edge_connectivity == nx.edge_connectivity(graph)
    assert figures.gradient_gossip_eigenvalue == pytest.approx(nx.adjacency_spectrum(graph).real.min())


@pytest.mark.parametrize(
    ("name", "n"), [("random-regular", 64), ("watts-strogatz", 64), ("erdos-renyi", 64), ("barabasi-albert", 64)]
)
def test_random_graphs_mix_about_as_published(name: str, n: int) -> None:
    """Means over seeds: 4-regular 0.8646, Watts-Strogatz (p = 0.1) 0.9693, Erdos-Renyi 0.8178, Barabasi-Albert 0.9394."""
    published = {"random-regular": 0.8646, "watts-strogatz": 0.9693, "erdos-renyi": 0.8178, "barabasi-albert": 0.9394}
    mean = np.mean([topology.analyse(topology.build(name, n, seed=seed)).slem for seed in range(10)])
    assert mean == pytest.approx(published[name], abs=0.03)


def test_gossip_of_gradients_is_stable_on_complete_graphs_alone() -> None:
    for n in (2, 3, 8, 50):
        assert topology.analyse(topology.build("complete", n)).gradient_gossip_eigenvalue == -1.0
    assert topology.analyse(topology.build("ring", 8)).gradient_gossip_eigenvalue == -2.0
    assert topology.analyse(topology.build("hypercube", 16)).gradient_gossip_eigenvalue == -4.0
    assert topology.analyse(topology.build("star", 17)).gradient_gossip_eigenvalue == -4.0
    for name in ("path", "torus", "barbell", "random-regular", "erdos-renyi"):
        assert (topology.analyse(topology.build(name, 16)).gradient_gossip_eigenvalue or 0.0) < -1.1


def test_mixing_time() -> None:
    figures = topology.analyse(topology.build("hypercube", 8))  # SLEM 1/2
    assert [figures.mixing_time(eps) for eps in (0.51, 0.49, 0.26, 0.24, 0.001)] == [1, 2, 2, 3, 10]
    assert topology.analyse(topology.build("complete", 8)).mixing_time(1e-9) == 1
    assert topology.analyse(nx.empty_graph(3)).mixing_time(0.1) == math.inf
    for eps in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="eps is the share"):
            figures.mixing_time(eps)


@pytest.mark.parametrize("name", ["ring", "star", "barbell", "erdos-renyi"])
def test_disagreement_really_shrinks_by_slem(name: str) -> None:
    figures = topology.analyse(topology.build(name, 12, seed=1))
    values = np.random.default_rng(0).standard_normal(12)
    for _ in range(400):
        values = figures.matrix @ values
        values = (values - values.mean()) / np.linalg.norm(values - values.mean())
    after = figures.matrix @ values
    assert np.linalg.norm(after - after.mean()) == pytest.approx(figures.slem, abs=1e-6)


def test_effective_neighbours_at_the_limits() -> None:
    assert topology.analyse(np.full((9, 9), 1 / 9)).effective_neighbours(0.5) == pytest.approx(9)
    assert topology.analyse(np.eye(9)).effective_neighbours(0.5) == pytest.approx(1)
    ring = topology.analyse(topology.build("ring", 12))
    assert ring.effective_neighbours(0.0) == pytest.approx(12 / np.linalg.norm(ring.matrix) ** 2) == pytest.approx(3)
    assert ring.effective_neighbours(1 - 1e-7) == pytest.approx(12, rel=1e-4)
    growing = [ring.effective_neighbours(decay) for decay in np.linspace(0, 0.99, 20)]
    assert growing == sorted(growing)
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="decay is at least 0"):
            ring.effective_neighbours(decay)


@pytest.mark.parametrize(
    "matrix", [topology.mixing_matrix(nx.star_graph(5), "uniform"), np.roll(np.eye(5), 1, axis=1) * 0.6 + np.eye(5) * 0.4]
)
def test_effective_neighbours_is_the_variance_reduction_of_the_walk(matrix: np.ndarray) -> None:
    decay, n = 0.8, len(matrix)
    covariance = np.zeros((n, n))
    for _ in range(500):
        covariance = matrix @ (decay * covariance + np.eye(n)) @ matrix.T
    expected = (1 / (1 - decay)) / (np.trace(covariance) / n)
    assert topology.analyse(matrix).effective_neighbours(decay) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["star", "barbell", "barabasi-albert"])
def test_uniform_averaging_is_not_doubly_stochastic_on_unequal_degrees(name: str) -> None:
    graph = topology.build(name, 14, seed=2)
    figures = topology.analyse(graph, "uniform")
    assert not figures.doubly_stochastic
    assert not figures.mean_preserved
    general = np.sort(np.linalg.eigvals(topology.mixing_matrix(graph, "uniform")).real)[::-1]
    assert figures.spectrum.dtype == np.float64
    np.testing.assert_allclose(figures.spectrum, general, atol=1e-9)
    assert topology.analyse(topology.build("ring", 14), "uniform").doubly_stochastic


def test_best_constant_may_be_negative_and_still_keeps_the_mean() -> None:
    figures = topology.analyse(topology.build("star", 8), "best-constant")
    assert figures.mean_preserved
    assert not figures.doubly_stochastic


def test_a_directed_ring_matrix_has_complex_eigenvalues() -> None:
    matrix = (np.eye(5) + np.roll(np.eye(5), 1, axis=1)) / 2
    figures = topology.analyse(matrix)
    assert figures.slem == pytest.approx(cos(pi / 5))  # |1 + exp(2 pi i / 5)| / 2
    assert figures.doubly_stochastic
    assert figures.spectrum[0] == pytest.approx(1.0)


def test_a_matrix_alone_has_no_figures_of_a_graph() -> None:
    figures = topology.analyse(topology.mixing_matrix(topology.build("ring", 6)))
    assert figures.nodes == 6
    assert figures.slem == pytest.approx(2 / 3)
    graphless = {"rule", "edges", "connected", "min_degree", "mean_degree", "max_degree", "diameter", "average_shortest_path"}
    graphless |= {"node_connectivity", "edge_connectivity", "algebraic_connectivity", "kirchhoff", "gradient_gossip_eigenvalue"}
    graphless |= {"finite_time"}  # a ring never agrees exactly
    assert {name for name, value in figures.as_dict().items() if value is None} == graphless


def test_a_disconnected_graph_never_agrees() -> None:
    figures = topology.analyse(nx.disjoint_union(nx.complete_graph(4), nx.cycle_graph(5)))
    assert not figures.connected
    assert figures.slem == 1.0
    assert figures.gap == figures.algebraic_connectivity == figures.node_connectivity == figures.edge_connectivity == 0
    assert figures.kirchhoff == figures.diameter == figures.average_shortest_path == math.inf


def test_one_peer_alone_agrees_with_itself() -> None:
    figures = topology.analyse(topology.build("complete", 1))
    assert (figures.slem, figures.gap, figures.diameter, figures.kirchhoff, figures.mixing_time(0.1)) == (0.0, 1.0, 0, 0.0, 0)
    assert (figures.node_connectivity, figures.edge_connectivity, figures.gradient_gossip_eigenvalue) == (0, 0, 0.0)
    assert figures.effective_neighbours(0.9) == pytest.approx(1)


def test_figures_go_into_json() -> None:
    for graph in (topology.build("ring", 8), topology.build("complete", 1), nx.empty_graph(2)):
        figures = json.loads(json.dumps(topology.analyse(graph).as_dict(), allow_nan=False))
        assert figures["nodes"] == len(graph)
        assert set(figures) >= {"slem", "gap", "kirchhoff", "mixing_time", "effective_neighbours", "doubly_stochastic"}


REFUSALS = [
    (nx.cycle_graph(4), "fast", "no rule 'fast'"),
    (nx.cycle_graph(4, create_using=nx.DiGraph), "metropolis", r"directed.*give graph.to_undirected\(\)"),
    (nx.MultiGraph([(0, 1)]), "metropolis", "multigraph"),
    (nx.Graph(), "metropolis", "empty"),
    (np.ones((2, 3)), "metropolis", r"not an array of shape \(2, 3\)"),
    (np.array([[np.nan]]), "metropolis", "finite"),
    (np.zeros((0, 0)), "metropolis", r"shape \(0, 0\)"),
    ("ring", "metropolis", "expected a networkx graph or a matrix of numbers, not str"),
    (None, "metropolis", "shape|not NoneType"),
]


@pytest.mark.parametrize(("given", "rule", "message"), REFUSALS)
def test_every_refusal_says_what_was_expected(given: Any, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.analyse(given, rule)


def test_a_matrix_whose_walk_grows_has_no_effective_neighbours() -> None:
    with pytest.raises(ValueError, match="grows without end"):
        topology.analyse(np.eye(3) * 2).effective_neighbours(0.5)
