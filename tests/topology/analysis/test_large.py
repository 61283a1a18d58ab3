"""Figures of thousands of peers, by sparse methods: against closed forms, and against exact methods on few peers."""

from __future__ import annotations

from math import cos, pi, sqrt
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array

from grapevine import topology
from grapevine.experiments.report.topology_page import topology_page
from grapevine.topology.analysis import distances, spectra
from grapevine.topology.graphs.given import links


def neighbours_in_effect(spectrum: np.ndarray, decay: float) -> float:
    return float(1 / (1 - decay) / np.mean(spectrum**2 / (1 - decay * spectrum**2)))


@pytest.mark.slow
def test_a_ring_of_four_thousand() -> None:
    n = 4_000
    figures = topology.analyse(topology.build("ring", n))
    assert figures.slem == pytest.approx((1 + 2 * cos(2 * pi / n)) / 3, abs=1e-12)
    assert figures.algebraic_connectivity == pytest.approx(2 - 2 * cos(2 * pi / n), rel=1e-4)
    assert figures.kirchhoff == pytest.approx((n**3 - n) / 12, rel=0.03)
    assert (figures.node_connectivity, figures.edge_connectivity, figures.edges) == (2, 2, n)
    assert figures.doubly_stochastic
    assert figures.gradient_gossip_eigenvalue == -2.0
    spectrum = (1 + 2 * np.cos(2 * pi * np.arange(n) / n)) / 3
    for decay in (0.9, 0.999):
        assert figures.effective_neighbours(decay) == pytest.approx(neighbours_in_effect(spectrum, decay), rel=0.03)


@pytest.mark.slow
def test_a_torus_of_2500() -> None:
    figures = topology.analyse(topology.build("torus", 2500))
    assert figures.slem == pytest.approx((3 + 2 * cos(2 * pi / 50)) / 5, abs=1e-11)
    turn = 2 * pi * np.arange(50) / 50
    values = (4 - 2 * np.cos(turn)[:, None] - 2 * np.cos(turn)[None, :]).ravel()
    assert figures.kirchhoff == pytest.approx(2500 * np.sum(1 / values[1:]), rel=0.03)
    assert figures.diameter == 50
    assert figures.average_shortest_path == pytest.approx(25 * 2500 / 2499)
    assert figures.effective_neighbours(0.95) == pytest.approx(neighbours_in_effect(1 - values / 5, 0.95), rel=0.02)
    constant = topology.analyse(topology.build("torus", 2500), "best-constant")
    assert constant.slem == pytest.approx((values.max() - values[1]) / (values.max() + values[1]), rel=1e-9)


@pytest.mark.slow
def test_an_exponential_graph_of_ten_thousand() -> None:
    figures = topology.analyse(topology.build("exponential", 10_000), "uniform")
    assert figures.slem == pytest.approx(13 / 15, abs=1e-9)
    assert figures.doubly_stochastic
    assert (figures.max_degree, figures.edges, figures.connected) == (14, 140_000, True)


def test_a_star_of_2000_under_uniform_weights() -> None:
    """W is similar to a symmetric matrix: eigenvalues 1, 1/2 (n - 2 times) and 1/n - 1/2."""
    figures = topology.analyse(topology.build("star", 2000), "uniform")
    assert figures.slem == pytest.approx(0.5, abs=1e-9)
    assert not figures.doubly_stochastic
    small = topology.analyse(topology.build("star", 400), "uniform")
    estimate = 1 / (1 - 0.8) / spectra.walk_variance(csr_array(small.matrix), 0.8)
    assert estimate == pytest.approx(small.effective_neighbours(0.8), rel=0.05)


@pytest.mark.parametrize("search", ["_bits", "_lists"])
@pytest.mark.parametrize("name", ["random-regular", "barbell", "path", "geographic", "exponential"])
def test_hops_are_those_of_networkx_by_either_search(name: str, search: str, monkeypatch: Any) -> None:
    graph = topology.build(name, 90, seed=2)
    monkeypatch.setattr(distances, "SMALL", 0)
    monkeypatch.setattr(distances, "BLOCK", 40)
    monkeypatch.setattr(distances, "FAR", 10**9 if search == "_bits" else -1)
    every = [hop for _, row in nx.all_pairs_shortest_path_length(graph) for hop in row.values()]
    assert distances.hops(links(graph)) == (max(every), sum(every))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random-regular", "path", "binary-tree", "barabasi-albert", "torus"])
def test_extreme_eigenvalues_are_those_of_the_whole_spectrum(name: str, monkeypatch: Any) -> None:
    beside = links(topology.build(name, 400, seed=3))
    whole = np.linalg.eigvalsh(spectra.laplacian(beside).toarray())
    monkeypatch.setattr(spectra, "DENSE", 0)
    assert spectra.extreme_laplacian_eigenvalues(beside) == pytest.approx((whole[1], whole[-1]), rel=1e-6)
    assert spectra.inverse_trace(spectra.laplacian(beside)) == pytest.approx(np.sum(1 / whole[1:]), rel=0.05)


def test_quadrature_is_exact_for_polynomials() -> None:
    """The hypercube has only seven different eigenvalues: fewer than steps."""
    for name, n in (("hypercube", 64), ("path", 200)):
        matrix = topology.mixing_matrix(topology.build(name, n))
        starts = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, 3)) / sqrt(n)
        nodes, weights = spectra.quadrature(csr_array(matrix), starts)
        for power in (0, 1, 4, 11):
            expected = [start @ np.linalg.matrix_power(matrix, power) @ start for start in starts.T]
            np.testing.assert_allclose(np.sum(weights * nodes**power, axis=1), expected, atol=1e-10)


@pytest.mark.slow
def test_the_spread_of_eigenvalues_is_that_of_the_whole_spectrum() -> None:
    """A torus of 50 x 50 has the eigenvalues (1 + 2 cos a + 2 cos b) / 5; the bars must hold the right shares of them."""
    figures = topology.analyse(topology.build("torus", 2500))
    found = figures.spectral_density()
    assert found is not None
    edges, shares = found
    angles = 2 * np.pi * np.arange(50) / 50
    exact = ((1 + 2 * np.cos(angles)[:, None] + 2 * np.cos(angles)) / 5).ravel()
    assert shares.sum() == pytest.approx(1.0)
    held = np.cumsum(shares)
    for at in range(9, 80, 10):
        assert held[at] == pytest.approx(np.mean(exact <= edges[at + 1]), abs=0.03)
    assert topology.analyse(topology.build("exponential", 1600), "uniform").spectral_density() is None


@pytest.mark.slow
def test_the_page_of_a_large_graph_says_how_its_eigenvalues_are_spread() -> None:
    page = topology_page("a large ring", topology.build("ring", 1600))
    assert "share of all eigenvalues" in page
    assert "<h2>The graph</h2>" not in page
