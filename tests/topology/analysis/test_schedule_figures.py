"""Figures of schedules and of data, against formulas."""

from __future__ import annotations

import json
from math import ceil, log, sqrt
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.analysis.heterogeneity import neighbourhood_heterogeneity
from grapevine.topology.analysis.schedule_figures import measured_contraction, simulated_rounds


@pytest.mark.parametrize(
    ("name", "n", "options", "rounds"),
    [
        ("one-peer-exponential", 16, {}, 4),
        ("one-peer-exponential", 12, {}, None),
        ("one-peer-hypercube", 32, {}, 5),
        ("base", 25, {"k": 1}, 9),
        ("moshpit", 64, {"size": 4}, 3),
        ("laplacian", 10, {"graph": nx.petersen_graph()}, 2),
        ("random-matching", 16, {}, None),
    ],
)
def test_finite_time(name: str, n: int, options: dict[str, Any], rounds: int | None) -> None:
    figures = topology.analyse(topology.schedule(name, n, **options))
    assert figures.finite_time == rounds
    if rounds is not None:
        assert (figures.slem, figures.gap, figures.mixing_time(1e-9)) == (0.0, 1.0, rounds)
        spread = simulated_rounds(topology.schedule(name, n, **options), rounds)
        assert spread[0] == 1.0
        assert spread[-1] < 1e-12 < spread[-2]


def test_finite_time_of_a_matrix() -> None:
    """De Bruijn's graph: W_ij = 1/p where i's last digits are j's first; exact after as many rounds as there are digits."""
    for p, digits in ((2, 3), (3, 2), (2, 5)):
        n = p**digits
        matrix = np.array([[1 / p if i % (n // p) == j // p else 0.0 for j in range(n)] for i in range(n)])
        assert topology.analyse(matrix).finite_time == digits
    assert topology.analyse(topology.build("complete", 7)).finite_time == 1
    assert topology.analyse(topology.build("complete", 1)).finite_time == 0
    assert topology.analyse(topology.build("ring", 7)).finite_time is None


def test_the_rate_of_rounds_that_repeat_is_that_of_their_product() -> None:
    """For a fixed graph it is its SLEM; for alternating rounds of a lazy ring and torus it is the simulated rate."""
    for name in ("ring", "star", "barbell"):
        graph = topology.build(name, 12)
        still = topology.analyse(topology.still(graph))
        plain = topology.analyse(graph)
        assert still.slem == pytest.approx(plain.slem, abs=1e-12)
        assert still.effective_neighbours(0.9) == pytest.approx(plain.effective_neighbours(0.9))
        assert still.messages_per_round == plain.messages_per_round == 2 * graph.number_of_edges()
        assert still.mixing_time(0.01) == ceil(log(100) / -log(plain.slem))
    schedule = topology.schedule("k-peer-exponential", 20, k=2)
    figures = topology.analyse(schedule)
    spread = simulated_rounds(schedule, 15 * 3)
    assert spread[45] / spread[42] == pytest.approx(figures.slem**3, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "options", "contraction"),
    [
        ("epidemic-oracle", 16, {"s": 3}, (1 - 3 / 15) / 4),
        ("random-matching", 16, {}, 7 / 15),
        ("random-edge", 16, {}, 14 / 15),
    ],
)
def test_random_rounds_shrink_disagreement_by_the_root_of_their_contraction(
    name: str, n: int, options: dict[str, Any], contraction: float
) -> None:
    schedule = topology.schedule(name, n, **options)
    figures = topology.analyse(schedule)
    assert figures.contraction == pytest.approx(contraction)
    assert figures.slem == pytest.approx(sqrt(contraction))
    mean, error = measured_contraction(schedule, 2000)
    assert abs(mean - contraction) < 4.5 * error


@pytest.mark.parametrize(("name", "options"), [("random-matching", {}), ("epidemic-oracle", {"s": 1}), ("random-edge", {})])
def test_two_peers_agree_in_any_round(name: str, options: dict[str, Any]) -> None:
    figures = topology.analyse(topology.schedule(name, 2, **options))
    assert (figures.contraction, figures.slem, figures.mixing_time(1e-6)) == (0.0, 0.0, 1)


def test_a_measured_rate_is_near_what_is_known() -> None:
    """Teleportation has no formula; the measurement is checked on a schedule with a known rate: a lazy ring."""
    from grapevine.topology.analysis.schedule_figures import _measured_rate

    ring = topology.still(topology.build("ring", 10), "lazy")
    assert _measured_rate(ring) == pytest.approx(topology.analyse(ring).slem, rel=1e-3)
    assert topology.analyse(topology.schedule("teleportation", 10, k=3)).slem <= 1.0


@pytest.mark.slow
def test_effective_neighbours_of_a_schedule_reach_those_of_the_complete_graph() -> None:
    """Every round J: n. No exchange: 1. Averages of two and no memory: 2, by the variance of a mean of two."""
    assert topology.analyse(topology.still(topology.build("complete", 8))).effective_neighbours(0.7) == pytest.approx(8)
    assert topology.analyse(topology.still(nx.empty_graph(8))).effective_neighbours(0.7) == pytest.approx(1)
    for name in ("one-peer-exponential", "one-peer-hypercube", "random-matching"):
        figures = topology.analyse(topology.schedule(name, 8))
        assert figures.effective_neighbours(0.0) == pytest.approx(2)
        assert 2 < figures.effective_neighbours(0.5) < figures.effective_neighbours(0.99) < 8
    one_peer = topology.analyse(topology.schedule("one-peer-exponential", 16)).effective_neighbours(0.9)
    assert one_peer > topology.analyse(topology.build("ring", 16)).effective_neighbours(0.9)


@pytest.mark.parametrize(
    ("name", "options", "messages"),
    [
        ("one-peer-exponential", {}, 16),
        ("one-peer-hypercube", {}, 16),
        ("random-edge", {}, 2),
        ("epidemic-local", {"s": 3}, 48),
        ("epidemic-oracle", {"s": 3}, 48),
        ("moshpit", {"size": 4}, 48),
    ],
)
def test_messages_of_a_round(name: str, options: dict[str, Any], messages: int) -> None:
    figures = topology.analyse(topology.schedule(name, 16, **options))
    assert figures.messages_per_round == messages


def test_messages_of_a_round_on_a_graph() -> None:
    """Ring 2 n, star 2 (n - 1), exponential n log2(n)."""
    for name, messages in (("ring", 2 * 16), ("star", 2 * 15), ("complete", 16 * 15), ("exponential", 16 * 4)):
        assert topology.analyse(topology.build(name, 16), "uniform").messages_per_round == messages


@pytest.mark.slow
@pytest.mark.parametrize("name", topology.schedule_menu())
def test_every_schedule_has_figures_for_json(name: str) -> None:
    options = {"s": 3} if name.startswith("epidemic") else {}
    figures = json.loads(json.dumps(topology.analyse(topology.schedule(name, 16, **options)).as_dict(), allow_nan=False))
    assert figures["nodes"] == 16
    assert 0.0 <= figures["slem"] <= 1.0
    assert figures["mean_preserved"] == (name not in ("epidemic-local", "teleportation"))


# -- directed graphs


def test_a_directed_graph_has_figures_but_no_laplacian() -> None:
    figures = topology.analyse(topology.build("exponential", 16), "uniform")
    assert figures.directed
    assert (figures.edges, figures.max_degree, figures.min_degree, figures.connected) == (64, 4, 4, True)
    assert figures.diameter == 4
    assert figures.node_connectivity == 4
    assert figures.algebraic_connectivity is figures.kirchhoff is figures.gradient_gossip_eigenvalue is None
    assert topology.analyse(nx.DiGraph([(0, 1), (1, 2)]), "push-sum").connected is False
    assert json.dumps(figures.as_dict(), allow_nan=False)


# -- data


def test_heterogeneity_of_one_label_a_peer_falls_as_published() -> None:
    """Le Bars et al. 2023: a mean of l + 1 shifts leaves 1/(l + 1) - 1/K, and nothing at l = K - 1."""
    n, classes = 100, 10
    counts = np.eye(classes)[np.arange(n) % classes] * 7
    for taken in range(classes):
        matrix = np.mean([np.roll(np.eye(n), shift, axis=1) for shift in range(taken + 1)], axis=0)
        found = neighbourhood_heterogeneity(matrix, counts)
        assert found == pytest.approx(1 / (taken + 1) - 1 / classes, abs=1e-12)


def test_cliques_that_hold_every_label_have_no_heterogeneity() -> None:
    counts = np.eye(5)[np.random.default_rng(1).permutation(30) % 5] * 3
    graph = topology.build("d-cliques", 30, label_counts=counts, size=5)
    inside = nx.Graph((i, j) for i, j, wide in graph.edges(data="wide_area") if not wide)
    inside.add_nodes_from(range(30))
    assert neighbourhood_heterogeneity(topology.mixing_matrix(inside, "uniform"), counts) == pytest.approx(0.0, abs=1e-15)
    random = topology.build("random-regular", 30, degree=4)
    assert neighbourhood_heterogeneity(topology.mixing_matrix(random), counts) > 0.02
    with pytest.raises(ValueError, match="expected a mixing matrix"):
        neighbourhood_heterogeneity(np.ones((3, 2)), counts)
    with pytest.raises(ValueError, match=r"label_counts are of shape \(30, 5\); expected \[3, classes\]"):
        neighbourhood_heterogeneity(np.eye(3), counts)
