"""MATCHA's plan: proper matchings, optimal probabilities, the exact contraction."""

from __future__ import annotations

from itertools import product

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.schedules.matcha import activation, edge_colouring, plan

GRAPHS = [("ring", 8), ("star", 6), ("barbell", 10), ("torus", 9), ("erdos-renyi", 9)]


def laplacians(n: int, matchings: list[list[tuple[int, int]]]) -> np.ndarray:
    graphs = [nx.empty_graph(n) for _ in matchings]
    for graph, matching in zip(graphs, matchings, strict=True):
        graph.add_edges_from(matching)
    return np.array([nx.laplacian_matrix(graph).toarray() for graph in graphs], dtype=np.float64)


@pytest.mark.parametrize("seed", range(60))
def test_edges_are_coloured_with_at_most_one_colour_more_than_the_largest_degree(seed: int) -> None:
    """Vizing's theorem, by Misra and Gries' proof: on sparse and dense graphs."""
    graph = nx.gnp_random_graph(5 + seed % 13, 0.1 + 0.09 * (seed % 10), seed=seed)
    matchings = edge_colouring(graph)
    assert len(matchings) <= max(degree for _, degree in graph.degree) + 1
    assert sorted(edge for matching in matchings for edge in matching) == sorted(graph.edges)
    for matching in matchings:
        ends = [node for edge in matching for node in edge]
        assert len(ends) == len(set(ends))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), GRAPHS)
@pytest.mark.parametrize("budget", [0.2, 0.5, 1.0])
def test_the_expectation_over_all_coins_is_the_published_one(name: str, n: int, budget: float) -> None:
    """E[W] = I - a L, and |E[W'W] - J| is the schedule's contraction: checked by enumerating all possible rounds."""
    graph = topology.build(name, n, seed=1)
    found = plan(graph, budget)
    parts = laplacians(n, found.matchings)
    mean, square = np.zeros((n, n)), np.zeros((n, n))
    for coins in product([0, 1], repeat=len(parts)):
        chance = np.prod(np.where(coins, found.chances, 1.0 - found.chances))
        matrix = np.eye(n) - found.weight * np.tensordot(np.array(coins, dtype=float), parts, axes=1)
        mean += chance * matrix
        square += chance * matrix.T @ matrix
    np.testing.assert_allclose(mean, np.eye(n) - found.weight * np.tensordot(found.chances, parts, axes=1), atol=1e-12)
    assert np.linalg.norm(square - 1.0 / n, 2) == pytest.approx(found.contraction, abs=1e-9)
    assert found.chances.sum() <= budget * len(parts) + 1e-9
    assert found.chances.min() >= 0.0
    assert found.chances.max() <= 1.0


@pytest.mark.parametrize(("name", "n"), GRAPHS)
def test_the_whole_budget_is_the_best_constant_weight(name: str, n: int) -> None:
    """Every link every round: W = I - a L with a = 2 / (l_2 + l_n), and the contraction is its SLEM squared."""
    graph = topology.build(name, n, seed=1)
    found = plan(graph, 1.0)
    values = np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray().astype(float))
    assert found.weight == pytest.approx(2 / (values[1] + values[-1]), rel=1e-6)
    assert found.contraction == pytest.approx(topology.analyse(graph, "best-constant").slem ** 2, abs=1e-7)
    schedule = topology.schedule("matcha", n, seed=1, graph=graph, budget=1.0)
    np.testing.assert_allclose(schedule.matrix(3), topology.mixing_matrix(graph, "best-constant"), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), [*GRAPHS, ("barabasi-albert", 16), ("random-regular", 16)])
def test_no_other_chances_within_the_budget_join_the_graph_better(name: str, n: int) -> None:
    """The optimum of a concave function: no random allocation, near or far, gives a larger value."""
    matchings = edge_colouring(topology.build(name, n, seed=2))
    parts = laplacians(n, matchings)

    def joined(chances: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(np.tensordot(chances, parts, axes=1))[1])

    best = activation(parts, 0.4)
    assert joined(best) >= joined(np.full(len(parts), 0.4)) - 1e-12
    rng = np.random.default_rng(5)
    for nearness in (0.0, 0.9, 0.999):
        for _ in range(60):
            other = rng.random(len(parts))
            other = np.minimum(other * 0.4 * len(parts) / other.sum(), 1.0)
            assert joined(nearness * best + (1 - nearness) * other) <= joined(best) * (1 + 1e-5)


def test_a_bridge_is_used_more_often_than_links_inside_well_connected_parts() -> None:
    found = plan(topology.build("barbell", 10), 0.4)
    bridge = next(i for i, matching in enumerate(found.matchings) if (4, 5) in matching)
    assert found.chances[bridge] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.slow
def test_links_are_used_as_often_as_planned() -> None:
    """Within 4.5 standard errors over 2000 rounds."""
    graph = topology.build("erdos-renyi", 12, seed=2)
    found = plan(graph, 0.4)
    schedule = topology.schedule("matcha", 12, seed=2, graph=graph, budget=0.4)
    for matching, chance in zip(found.matchings, found.chances, strict=True):
        i, j = matching[0]
        used = np.mean([schedule.matrix(t)[i, j] != 0 for t in range(2000)])
        assert abs(used - chance) < 4.5 * np.sqrt(chance * (1 - chance) / 2000) + 1e-9
