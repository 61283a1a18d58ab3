"""The mixing rules: what they share, and what each is for."""

from __future__ import annotations

from typing import get_args

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topology
from topology.mixing import Rule

FAIR = ("metropolis", "max-degree", "lazy", "best-constant")


@st.composite
def connected_graphs(draw: st.DrawFn) -> nx.Graph:
    """A random tree with random extra edges: every connected graph can come out."""
    n = draw(st.integers(1, 12))
    graph = nx.empty_graph(n)
    graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    graph.add_edges_from(draw(st.lists(pairs, max_size=20)) if n > 1 else [])
    return graph


@settings(max_examples=60, deadline=None)
@given(connected_graphs(), st.sampled_from(list(topology.RULES)), st.integers(0, 2**32))
def test_every_rule_on_every_connected_graph(graph: nx.Graph, rule: str, seed: int) -> None:
    matrix = topology.mixing_matrix(graph, rule)
    n = len(graph)
    assert matrix.shape == (n, n)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    off = ~np.eye(n, dtype=bool)
    assert ((matrix != 0) & off == nx.to_numpy_array(graph).astype(bool)).all()
    if rule != "best-constant":
        assert (matrix >= 0).all()
        assert (np.diag(matrix) > 0).all()
    values = np.random.default_rng(seed).standard_normal(n)
    if rule in FAIR:
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.mean(matrix @ values) == pytest.approx(np.mean(values), abs=1e-12)
    agreed = np.linalg.matrix_power(matrix, 20_000) @ values
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


def test_lazy_is_half_way_to_standing_still() -> None:
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
    for rule in topology.RULES:
        np.testing.assert_array_equal(topology.mixing_matrix(odd, rule), topology.mixing_matrix(plain, rule))


def test_the_rules_are_those_that_a_file_may_name() -> None:
    assert tuple(topology.RULES) == get_args(Rule)


REFUSALS = [
    (nx.cycle_graph(4), "metropolys", "no rule 'metropolys'; known are metropolis, .*did you mean 'metropolis'"),
    (nx.cycle_graph(4), "zzz", "no rule 'zzz'; known are metropolis, max-degree, lazy, uniform, best-constant$"),
    (nx.cycle_graph(4), None, "no rule None"),
    (nx.cycle_graph(4, create_using=nx.DiGraph), "metropolis", r"'metropolis' needs an undirected.*graph.to_undirected\(\)"),
    (nx.MultiGraph([(0, 1), (0, 1)]), "metropolis", r"multigraph.*networkx.Graph\(graph\)"),
    (nx.Graph(), "metropolis", "the graph is empty; give it at least one node"),
    (np.eye(3), "metropolis", r"not ndarray; make one with networkx.Graph\(edges\)"),
    (nx.empty_graph(3), "best-constant", "needs a connected graph; add edges, or choose 'metropolis'"),
]


@pytest.mark.parametrize(("graph", "rule", "message"), REFUSALS)
def test_every_refusal_names_the_cure(graph: nx.Graph, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.mixing_matrix(graph, rule)
