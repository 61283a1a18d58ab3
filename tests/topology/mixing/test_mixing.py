"""The mixing rules: common properties, and the definition of each."""

from __future__ import annotations

from typing import get_args

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grapevine import topology
from grapevine.topology.mixing.matrix import Rule

FAIR = ("metropolis", "max-degree", "lazy", "best-constant", "fastest")
PLAIN = [rule for rule in topology.RULES if rule != "sinkhorn"]  # it needs rates


@st.composite
def connected_graphs(draw: st.DrawFn) -> nx.Graph:
    """A random tree with random extra edges: every connected graph is possible."""
    n = draw(st.integers(1, 12))
    graph = nx.empty_graph(n)
    graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    graph.add_edges_from(draw(st.lists(pairs, max_size=20)) if n > 1 else [])
    return graph


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(connected_graphs(), st.sampled_from(PLAIN), st.integers(0, 2**32))
def test_every_rule_on_every_connected_graph(graph: nx.Graph, rule: str, seed: int) -> None:
    matrix = topology.mixing_matrix(graph, rule)
    n = len(graph)
    assert matrix.shape == (n, n)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.sum(axis=0 if rule == "push-sum" else 1), 1.0, atol=1e-12)
    off = ~np.eye(n, dtype=bool)
    beside = nx.to_numpy_array(graph).astype(bool)
    assert not matrix[off & ~beside].any()
    if rule != "fastest":  # it may give an edge the weight 0
        assert (matrix[beside] != 0).all()
    if rule not in ("best-constant", "fastest"):
        assert (matrix >= 0).all()
        assert (np.diag(matrix) > 0).all()
    values = np.random.default_rng(seed).standard_normal(n)
    if rule in FAIR:
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.mean(matrix @ values) == pytest.approx(np.mean(values), abs=1e-12)
    agreed = np.linalg.matrix_power(matrix, 20_000) @ values
    if rule == "push-sum":
        agreed = agreed / (np.linalg.matrix_power(matrix, 20_000) @ np.ones(n))
    weight = np.array([degree + 1.0 for _, degree in graph.degree]) if rule == "uniform" else np.ones(n)
    np.testing.assert_allclose(agreed, (weight @ values) / weight.sum(), atol=1e-8)


def test_each_rule_by_hand_on_a_star_of_four() -> None:
    star = topology.build("star", 4)
    assert topology.mixing_matrix(star, "metropolis")[0, 1] == 1 / 4
    assert topology.mixing_matrix(star, "metropolis")[1, 1] == 3 / 4
    assert topology.mixing_matrix(star, "max-degree")[0, 1] == 1 / 4
    assert topology.mixing_matrix(star, "lazy")[0, 1] == 1 / 8
    assert topology.mixing_matrix(star, "uniform")[0, 1] == 1 / 4
    assert topology.mixing_matrix(star, "uniform")[1, 0] == 1 / 2
    best = topology.mixing_matrix(star, "best-constant")  # Laplacian eigenvalues 0, 1, 1, 4: 2 / (1 + 4)
    assert best[0, 1] == pytest.approx(0.4)
    assert best[0, 0] == pytest.approx(-0.2)


def test_max_degree_and_metropolis_differ_off_the_hub() -> None:
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (2, 4)])
    assert topology.mixing_matrix(graph, "metropolis")[0, 1] == pytest.approx(1 / 3)
    assert topology.mixing_matrix(graph, "max-degree")[0, 1] == pytest.approx(1 / 4)


def test_lazy_is_the_mean_of_metropolis_and_no_mixing() -> None:
    graph = topology.build("barbell", 11)
    half = (topology.mixing_matrix(graph, "metropolis") + np.eye(11)) / 2
    np.testing.assert_allclose(topology.mixing_matrix(graph, "lazy"), half, atol=1e-15)
    assert topology.analyse(graph, "lazy").spectrum.min() >= 0


@pytest.mark.parametrize(("name", "n"), [("ring", 9), ("path", 8), ("star", 7), ("torus", 12), ("binary-tree", 10)])
def test_no_other_constant_mixes_faster_than_the_best(name: str, n: int) -> None:
    graph = topology.build(name, n)
    laplacian = nx.laplacian_matrix(graph, weight=None).toarray().astype(float)
    eigenvalues = np.linalg.eigvalsh(laplacian)
    best = topology.analyse(graph, "best-constant").slem
    assert best == pytest.approx((eigenvalues[-1] - eigenvalues[1]) / (eigenvalues[-1] + eigenvalues[1]))
    for constant in np.linspace(0.01, 2 / eigenvalues[-1], 101):
        assert topology.analyse(np.eye(n) - constant * laplacian).slem >= best - 1e-12
    for rule in ("metropolis", "max-degree"):
        assert topology.analyse(topology.mixing_matrix(topology.build("ring", n), rule)).slem >= (
            topology.analyse(topology.build("ring", n), "best-constant").slem - 1e-12
        )


def test_weights_self_loops_and_the_order_of_insertion_play_no_part() -> None:
    plain = nx.Graph([(0, 1), (1, 2), (2, 3)])
    odd = nx.Graph()
    odd.add_edge(3, 2, weight=7.0)
    odd.add_edge(2, 1, weight=0.0)
    odd.add_edge(1, 0)
    odd.add_edge(1, 1)
    for rule in PLAIN:
        np.testing.assert_array_equal(topology.mixing_matrix(odd, rule), topology.mixing_matrix(plain, rule))


def test_the_rules_are_those_that_a_file_may_name() -> None:
    assert get_args(Rule) == tuple(topology.RULES)


REFUSALS = [
    (nx.cycle_graph(4), "metropolys", "no rule 'metropolys'; known are metropolis, .*did you mean 'metropolis'"),
    (
        nx.cycle_graph(4),
        "zzz",
        "no rule 'zzz'; known are metropolis, max-degree, lazy, uniform, best-constant, fastest, push-sum, sinkhorn$",
    ),
    (nx.cycle_graph(4), None, "no rule None"),
    (nx.cycle_graph(4, create_using=nx.DiGraph), "metropolis", r"'metropolis' needs an undirected.*graph.to_undirected\(\)"),
    (nx.MultiGraph([(0, 1), (0, 1)]), "metropolis", r"multigraph.*networkx.Graph\(graph\)"),
    (nx.Graph(), "metropolis", "the graph is empty; give it at least one node"),
    (np.eye(3), "metropolis", r"not ndarray; make one with networkx.Graph\(edges\)"),
    (nx.empty_graph(3), "best-constant", "needs a connected graph; add edges, or choose 'metropolis'"),
    (nx.empty_graph(3), "fastest", "needs a connected graph; add edges, or choose 'metropolis'"),
    (nx.complete_graph(60), "fastest", "at most 1500 edges, and this one has 1770; choose 'best-constant'"),
    (nx.cycle_graph(4, create_using=nx.DiGraph), "fastest", "or choose one of uniform, push-sum, sinkhorn"),
    (nx.cycle_graph(4), "sinkhorn", r"needs rates=\[n, n\]"),
]


@pytest.mark.parametrize(("graph", "rule", "message"), REFUSALS)
def test_every_refusal_names_the_cure(graph: nx.Graph, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.mixing_matrix(graph, rule)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n"), [("ring", 9), ("ring", 16), ("hypercube", 16), ("complete", 12), ("star", 9), ("torus", 16)]
)
def test_fastest_is_the_best_constant_where_all_edges_are_alike(name: str, n: int) -> None:
    """Xiao and Boyd 2004, section 4.1: on edge-transitive graphs no weights beat one weight on all edges."""
    graph = topology.build(name, n)
    fastest, constant = topology.analyse(graph, "fastest"), topology.analyse(graph, "best-constant")
    assert fastest.slem == pytest.approx(constant.slem, abs=1e-9)
    np.testing.assert_allclose(fastest.matrix, constant.matrix, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 8, 21])
def test_fastest_on_a_path_is_a_half_everywhere(n: int) -> None:
    """Boyd, Diaconis, Sun and Xiao 2006, "Fastest mixing Markov chain on a path": SLEM cos(pi / n)."""
    figures = topology.analyse(topology.build("path", n), "fastest")
    assert figures.slem == pytest.approx(np.cos(np.pi / n), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["barbell", "erdos-renyi", "barabasi-albert", "binary-tree", "random-regular"])
def test_nothing_mixes_faster_than_fastest(name: str) -> None:
    """Neither another rule nor similar weights: the optimum of a convex problem."""
    graph = topology.build(name, 14, seed=3)
    figures = topology.analyse(graph, "fastest")
    assert all(topology.analyse(graph, rule).slem >= figures.slem - 1e-9 for rule in FAIR)
    rng = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(40):
            change = np.triu(rng.standard_normal((14, 14)) * nx.to_numpy_array(graph)) * size
            other = figures.matrix + change + change.T
            np.fill_diagonal(other, 0.0)
            np.fill_diagonal(other, 1.0 - other.sum(axis=1))
            assert topology.analyse(other).slem >= figures.slem - 1e-9


def test_push_sum_finds_the_mean_on_any_strongly_connected_digraph() -> None:
    """Kempe, Dobra and Gehrke 2003: the sums of x and of w are constant; x / w tends to the mean, x alone does not."""
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2), (0, 3), (3, 1)])
    matrix = topology.mixing_matrix(graph, "push-sum")
    assert matrix[2, 0] == 1 / 4  # 0 sends to three
    assert matrix[0, 2] == 0.0
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-15)
    start = np.array([5.0, -1.0, 2.0, 0.0, 9.0])
    values, weights = start, np.ones(5)
    for _ in range(300):
        values, weights = matrix @ values, matrix @ weights
        assert values.sum() == pytest.approx(15.0)
        assert weights.sum() == pytest.approx(5.0)
    np.testing.assert_allclose(values / weights, 3.0, atol=1e-12)
    assert np.ptp(values) > 0.1


def test_uniform_on_a_directed_graph_averages_the_received_models() -> None:
    matrix = topology.mixing_matrix(nx.DiGraph([(0, 1), (2, 1), (1, 0)]), "uniform")
    np.testing.assert_allclose(matrix, [[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]])


@pytest.mark.parametrize("name", ["star", "barbell", "erdos-renyi"])
def test_sinkhorn_is_doubly_stochastic_and_counts_fast_links_more(name: str) -> None:
    graph = topology.build(name, 12, seed=2)
    beside = nx.to_numpy_array(graph) > 0
    rates = np.random.default_rng(3).uniform(1e5, 1e7, (12, 12))
    matrix = topology.mixing_matrix(graph, "sinkhorn", rates)
    figures = topology.analyse(matrix)
    assert figures.doubly_stochastic
    assert ((matrix > 0) == (beside | np.eye(12, dtype=bool))).all()
    # scaling rows and columns leaves cross ratios: W_ij W_ji / (W_ii W_jj) is that of the rates
    own = np.where(beside.T, rates.T, 0.0).max(axis=1)
    for i, j in graph.edges:
        cross = rates[i, j] * rates[j, i] / (own[i] * own[j])
        assert matrix[i, j] * matrix[j, i] / (matrix[i, i] * matrix[j, j]) == pytest.approx(cross, rel=1e-8)


def test_equal_rates_make_sinkhorn_uniform_on_regular_graphs() -> None:
    graph = topology.build("torus", 16)
    even = topology.mixing_matrix(graph, "sinkhorn", np.full((16, 16), 7.5))
    np.testing.assert_allclose(even, topology.mixing_matrix(graph, "uniform"), atol=1e-12)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (np.ones((3, 3)), r"rates are of shape \(3, 3\) for 4 peers"),
        (np.zeros((4, 4)), "the rate from 1 to 0 is 0.0; give a positive, finite number"),
        (np.full((4, 4), np.inf), "is inf; give a positive, finite"),
    ],
)
def test_unusable_rates_are_refused(rates: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.mixing_matrix(nx.cycle_graph(4), "sinkhorn", rates)
    with pytest.raises(ValueError, match="uses no rates"):
        topology.mixing_matrix(nx.cycle_graph(4), "metropolis", np.ones((4, 4)))
