"""Schedules against the literature: rounds to exact agreement, degrees, expected contraction."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import msgspec
import networkx as nx
import numpy as np
import pytest

from grapevine import topology
from grapevine.topology.schedules.names import AnySchedule
from grapevine.topology.schedules.switching import active_peers

RANDOM: dict[str, dict[str, Any]] = {
    "equi-dynamic": {},
    "epidemic-oracle": {"s": 3},
    "epidemic-local": {"s": 3},
    "random-matching": {},
    "random-edge": {"graph": "ring"},
    "moshpit": {"size": 3},
    "matcha": {"graph": "torus", "budget": 0.5},
    "teleportation": {"k": 5},
}
DRIFTING = ("epidemic-local", "teleportation")
SIGNED = ("laplacian", "matcha")


def product(schedule: topology.Schedule, rounds: int | None = None) -> np.ndarray:
    """Return the product of the matrices of the first rounds; a whole period if no number is given."""
    count = schedule.period if rounds is None else rounds
    assert count is not None
    return reduce(lambda done, t: schedule.matrix(t) @ done, range(count), np.eye(schedule.n))


def off_exact(schedule: topology.Schedule) -> float:
    return float(np.abs(product(schedule) - 1.0 / schedule.n).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", topology.schedule_menu())
def test_every_schedule_is_consistent_and_keeps_the_mean(name: str) -> None:
    for n in (16, 64) if name != "laplacian" else (16,):
        options = {"s": 3} if name.startswith("epidemic") else {}
        schedule = topology.schedule(name, n, seed=3, **options)
        assert (schedule.name, schedule.n, schedule.seed) == (name, n, 3)
        for t in range(12):
            matrix, graph = schedule.matrix(t), schedule.graph(t)
            assert matrix.shape == (n, n)
            assert matrix.dtype == np.float64
            np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
            if name not in DRIFTING:
                np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
            if name not in SIGNED:
                assert matrix.min() >= 0.0
            assert graph.is_directed() == schedule.directed
            assert list(graph) == list(range(n))
            if not schedule.directed:
                np.testing.assert_array_equal(matrix, matrix.T)
            sent = ((matrix != 0) & ~np.eye(n, dtype=bool)).sum(axis=0)
            assert sent.max() <= schedule.max_degree
            assert all(len(schedule.targets(t, peer)) == sent[peer] for peer in range(n))
            arcs = {(u, v) for u, v in (graph if schedule.directed else graph.to_directed()).edges}
            assert arcs == {(sender, peer) for peer in range(n) for sender in schedule.weights(t, peer)}
            assert all(schedule.reach.has_edge(u, v) for u, v in graph.edges)
            for u, v, weight in graph.edges(data="weight"):
                assert weight == matrix[v, u]
        if schedule.period is not None:
            np.testing.assert_array_equal(schedule.matrix(2), schedule.matrix(2 + 5 * schedule.period))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_base_graphs_are_exact_for_every_number_of_peers(k: int) -> None:
    """Takezawa et al. 2023, theorem 1: finite time for any n, with degree k and at most 2 log_{k+1}(n) + 2 rounds."""
    for n in range(1, 61):
        simple, base = topology.schedule("simple-base", n, k=k), topology.schedule("base", n, k=k)
        assert off_exact(simple) < 1e-12
        assert off_exact(base) < 1e-12
        assert max(simple.max_degree, base.max_degree) <= k
        assert simple.period is not None
        assert base.period is not None
        assert base.period <= simple.period <= 2 * np.log(n) / np.log(k + 1) + 2


def test_the_length_of_simple_base_graphs() -> None:
    """|H_k(V_1)| + 1 + p_1 rounds, where n's leading digit in base k + 1 is a_1, that of (k + 1)^p_1."""
    assert topology.schedule("simple-base", 5, k=1).period == 2 + 1 + 2
    assert topology.schedule("simple-base", 25, k=1).period == 4 + 1 + 4
    assert topology.schedule("simple-base", 7, k=2).period == 2 + 1 + 1  # 7 = 2 x 3 + 1: V_1 has 6 peers
    assert topology.schedule("simple-base", 16, k=1).period == 4
    assert topology.schedule("base", 6, k=1).period == 1 + topology.schedule("simple-base", 3, k=1).period  # type: ignore[operator]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_hyper_hypercubes_are_exact_where_all_prime_factors_are_small(k: int) -> None:
    for n in range(2, 61):
        primes = [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]
        if max(primes) > k + 1:
            with pytest.raises(ValueError, match=f"prime factors are all at most k \\+ 1 = {k + 1}, not {n}; set peers to"):
                topology.schedule("hyper-hypercube", n, k=k)
        else:
            schedule = topology.schedule("hyper-hypercube", n, k=k)
            assert off_exact(schedule) < 1e-12
            assert schedule.max_degree <= k


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_one_peer_rounds_are_exact_for_powers_of_two_in_any_order(bits: int) -> None:
    """Ying et al. 2021, lemma 1: log2(n) rounds, in any order."""
    n = 2**bits
    for name in ("one-peer-exponential", "one-peer-hypercube"):
        schedule = topology.schedule(name, n)
        assert schedule.period == bits
        assert schedule.max_degree == 1
        assert off_exact(schedule) < 1e-12
        backwards = reduce(np.matmul, [schedule.matrix(t) for t in range(bits)], np.eye(n))
        np.testing.assert_allclose(backwards, 1.0 / n, atol=1e-12)


def test_a_schedule_of_any_number_of_peers_is_planned_at_once() -> None:
    """The period is the number of powers below n, and is found without trying n of them."""
    for name, n, options, period in (
        ("one-peer-exponential", 2**60, {}, 60),
        ("one-peer-exponential", 2**60 + 1, {}, 61),
        ("k-peer-exponential", 3**30, {"k": 2}, 30),
        ("moshpit", 4**30, {"size": 4}, 30),
        ("moshpit", 5, {"size": 5}, 1),
    ):
        assert topology.schedule(name, n, **options).period == period


def test_one_peer_exponential_sends_two_to_the_t_places_on() -> None:
    schedule = topology.schedule("one-peer-exponential", 12)
    assert schedule.period == 4
    assert [schedule.targets(t, 5) for t in range(5)] == [[6], [7], [9], [1], [6]]
    assert schedule.weights(0, 5) == {4: 0.5}
    assert off_exact(schedule) > 1e-3  # never exact unless n is a power of two


@pytest.mark.parametrize(
    ("n", "k", "exact"), [(27, 2, True), (16, 3, True), (25, 4, True), (8, 1, True), (26, 2, False), (17, 3, False)]
)
def test_k_peer_exponential_is_exact_for_powers_of_k_plus_one(n: int, k: int, exact: bool) -> None:
    schedule = topology.schedule("k-peer-exponential", n, k=k)
    assert schedule.max_degree == k
    assert (off_exact(schedule) < 1e-12) == exact


@pytest.mark.parametrize(
    ("graph", "rounds"),
    [
        (nx.complete_graph(12), 1),
        (nx.star_graph(9), 2),
        (nx.petersen_graph(), 2),
        (nx.hypercube_graph(4), 4),
        (nx.cycle_graph(9), 4),
        (nx.cycle_graph(16), 8),
    ],
)
def test_laplacian_rounds_are_exact_in_as_many_rounds_as_there_are_eigenvalues(graph: nx.Graph, rounds: int) -> None:
    schedule = topology.schedule("laplacian", len(graph), graph=graph)
    assert schedule.period == rounds
    assert off_exact(schedule) < 1e-12


@pytest.mark.parametrize("name", ["barbell", "erdos-renyi", "random-regular", "path", "binary-tree"])
def test_laplacian_rounds_are_exact_on_any_connected_graph(name: str) -> None:
    assert off_exact(topology.schedule("laplacian", 24, seed=5, graph=name)) < 1e-9


@pytest.mark.parametrize(("n", "size", "rounds"), [(16, 2, 4), (16, 4, 2), (27, 3, 3), (1024, 32, 2)])
def test_a_full_moshpit_grid_is_exact_after_each_axis(n: int, size: int, rounds: int) -> None:
    schedule = topology.schedule("moshpit", n, size=size)
    assert schedule.period == rounds
    assert schedule.max_degree == size - 1
    assert off_exact(schedule) < 1e-12


# -- random rounds


def measured_contraction(schedule: topology.Schedule, values: np.ndarray, rounds: int) -> tuple[float, float]:
    """Return the mean share of the squared disagreement (about the mean before) that a round leaves, and its standard error."""
    values = values - values.mean()
    kept = np.array([np.sum((schedule.matrix(t) @ values) ** 2) for t in range(rounds)]) / np.sum(values**2)
    return float(kept.mean()), float(kept.std() / np.sqrt(rounds))


EXPECTED: list[tuple[str, int, dict[str, Any], float]] = [
    ("epidemic-oracle", 12, {"s": 4}, 1 / 5 * (1 - 4 / 11)),
    ("epidemic-oracle", 9, {"s": 2}, 1 / 3 * (1 - 2 / 8)),
    ("epidemic-local", 10, {"s": 3}, 1 / 3 * (1 - (1 - 3 / 9) ** 10) - 1 / 9),
    ("random-matching", 12, {}, (12 / 2 - 1) / 11),
    ("random-edge", 10, {}, 1 - 1 / 9),
    ("moshpit", 12, {"size": 4}, (3 - 1) / 11),
    ("moshpit", 11, {"size": 4}, (3 - 1) / 10),
    ("equi-dynamic", 11, {"directed": True}, 1 / 2 - 1 / 22),
    ("equi-dynamic", 11, {"directed": True, "eta": 1.0}, 1 - 2 / 11),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n", "options", "expected"), EXPECTED)
def test_one_random_round_contracts_as_published(name: str, n: int, options: dict[str, Any], expected: float) -> None:
    """The formula exactly, and the mean over 3000 rounds within 4.5 standard errors of it (1 in 100,000 by chance)."""
    schedule = topology.schedule(name, n, seed=1, **options)
    assert schedule.contraction == pytest.approx(expected, rel=1e-12)
    mean, error = measured_contraction(schedule, np.random.default_rng(4).standard_normal(n), 3000)
    assert abs(mean - expected) < 4.5 * error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ring", "star", "barbell"])
def test_pairwise_gossip_on_a_graph_shrinks_the_fiedler_vector_by_its_eigenvalue(name: str) -> None:
    """Exactly, over all edges: 1 - l_2 / (2 |E|) (Boyd et al. 2006); in the drawn rounds within 4.5 standard errors."""
    graph = topology.build(name, 8)
    values, vectors = np.linalg.eigh(nx.laplacian_matrix(graph).toarray().astype(float))
    schedule = topology.schedule("random-edge", 8, seed=2, graph=name)
    assert schedule.contraction == pytest.approx(1 - values[1] / (2 * graph.number_of_edges()))
    mean, error = measured_contraction(schedule, vectors[:, 1], 3000)
    assert abs(mean - schedule.contraction) < 4.5 * error  # type: ignore[operator]
    assert set(map(frozenset, schedule.reach.edges)) == set(map(frozenset, graph.edges))


def test_equi_dynamic_averages_to_the_complete_graph() -> None:
    """Song et al. 2022: the mean over all n - 1 steps is J exactly for eta = 1; each round looks one distance away."""
    seen: dict[int, np.ndarray] = {}
    schedule = topology.schedule("equi-dynamic", 7, directed=True, eta=1.0)
    for t in range(200):
        matrix = schedule.matrix(t)
        step = int(np.argmax(matrix[:, 0]))
        np.testing.assert_allclose(matrix, 6 / 7 * np.roll(np.eye(7), step, axis=0) + np.eye(7) / 7, atol=1e-15)
        seen[step] = matrix
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(np.mean(list(seen.values()), axis=0), 1 / 7, atol=1e-15)


def test_equi_dynamic_pairs_peers_that_are_one_distance_apart() -> None:
    schedule = topology.schedule("equi-dynamic", 10, seed=1)
    for t in range(60):
        graph = schedule.graph(t)
        assert len({min((u - v) % 10, (v - u) % 10) for u, v in graph.edges}) == 1
        assert max(degree for _, degree in graph.degree) == 1
        assert graph.number_of_edges() >= 3  # greedy: at least every third peer finds a partner
        weights = {weight for _, _, weight in graph.edges(data="weight")}
        assert all(weight == pytest.approx(0.45) for weight in weights)


def test_epidemic_rounds_have_their_degrees() -> None:
    oracle, local = topology.schedule("epidemic-oracle", 14, s=5), topology.schedule("epidemic-local", 14, s=5)
    for t in range(20):
        assert {degree for _, degree in oracle.graph(t).degree} == {5}
        assert {degree for _, degree in local.graph(t).out_degree} == {5}
        np.testing.assert_allclose(oracle.matrix(t)[oracle.matrix(t) > 0], 1 / 6)
    assert len({degree for t in range(20) for _, degree in local.graph(t).in_degree}) > 3


def test_a_random_matching_leaves_one_peer_alone_only_if_their_number_is_odd() -> None:
    for n, alone in ((10, 0), (11, 1)):
        schedule = topology.schedule("random-matching", n)
        assert all(sum(degree == 0 for _, degree in schedule.graph(t).degree) == alone for t in range(20))
        assert schedule.contraction == pytest.approx(((n + 1) // 2 - 1) / (n - 1))


def test_teleportation_keeps_the_mean_of_the_active() -> None:
    """Each active peer first copies the model of exactly one peer active before; then the active peers average."""
    n, k = 12, 4
    schedule = topology.schedule("teleportation", n, seed=6, k=k)
    values = np.zeros(n)
    values[active_peers(n, k, 6, 0)] = [1.0, 2.0, 3.0, 6.0]
    for t in range(41):
        values = schedule.matrix(t) @ values
        now = active_peers(n, k, 6, t // 2)
        assert values[now].mean() == pytest.approx(3.0)
        busy = [peer for peer in range(n) if schedule.weights(t, peer)]
        assert len(busy) <= k
        assert sum(len(schedule.targets(t, peer)) for peer in range(n)) <= 2 * k  # for any n: k copies, or a ring of k
    np.testing.assert_allclose(values[now], 3.0, atol=1e-6)


# -- determinism and refusals


@pytest.mark.parametrize("name", RANDOM)
def test_a_round_depends_on_the_seed_and_its_number_only(name: str) -> None:
    first, again, other = (topology.schedule(name, 16, seed=seed, **RANDOM[name]) for seed in (5, 5, 6))
    forwards = [first.matrix(t).copy() for t in range(30)]
    for t in reversed(range(30)):
        np.testing.assert_array_equal(again.matrix(t), forwards[t])
    assert any((other.matrix(t) != forwards[t]).any() for t in range(30))
    assert len({matrix.tobytes() for matrix in forwards}) > 3
    with pytest.raises(ValueError, match="read-only"):
        first.matrix(0)[0, 0] = 2.0


@pytest.mark.slow
def test_the_same_seed_in_another_process_gives_the_same_rounds() -> None:
    code = (
        "from grapevine import topology; import hashlib; options = " + repr(RANDOM) + "\n"
        "print([hashlib.sha256(topology.schedule(name, 16, seed=3, **options[name]).matrix(7).tobytes()).hexdigest()"
        " for name in options])"
    )
    root = Path(__file__).parents[2]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] != ""


@pytest.mark.parametrize("name", topology.schedule_menu())
def test_a_schedule_written_to_a_file_reads_back_the_same(name: str) -> None:
    kind = topology.schedule_menu()[name]
    part = msgspec.convert({"name": name}, AnySchedule)
    assert type(part) is kind
    assert msgspec.convert(msgspec.to_builtins(part), AnySchedule) == part
    assert part.name == name
    assert kind.__doc__
    assert len(get_args(AnySchedule)) == len(topology.schedule_menu())


def test_a_networkx_graph_may_replace_a_name() -> None:
    graph = nx.relabel_nodes(nx.cycle_graph(6), {i: f"n{i}" for i in range(6)})
    np.testing.assert_array_equal(
        topology.schedule("laplacian", 6, graph=graph).matrix(1), topology.schedule("laplacian", 6, graph="ring").matrix(1)
    )
    degree = topology.schedule("random-edge", 10, graph="random-regular", graph_options={"degree": 3}).reach.degree
    assert {found for _, found in degree} == {3}


def test_a_graph_that_never_changes_is_a_schedule_too() -> None:
    graph = topology.build("torus", 12)
    schedule = topology.still(graph, "max-degree")
    assert (schedule.period, schedule.max_degree, schedule.directed) == (1, 4, False)
    np.testing.assert_array_equal(schedule.matrix(9), topology.mixing_matrix(graph, "max-degree"))
    assert set(schedule.graph(3).edges) == set(graph.edges) == set(schedule.reach.edges)
    one_way = topology.still(nx.cycle_graph(5, create_using=nx.DiGraph), "uniform")
    assert one_way.directed
    assert one_way.targets(0, 4) == [0]
    assert one_way.weights(0, 0) == {4: 0.5}


REFUSALS: list[tuple[Any, Any, dict[str, Any], str]] = [
    ("one-peer-exponentiel", 8, {}, "no schedule 'one-peer-exponentiel'.*did you mean 'one-peer-exponential'"),
    ("base", 8, {"kk": 2}, "base has no option 'kk'; its options are k; did you mean 'k'"),
    ("base", 8, {"k": 0}, "k: 0 will not do; expected 1 or more"),
    ("base", 0, {}, "base needs at least 1 peers, not 0; raise peers$"),
    ("base", 8.5, {}, "number of peers is 8.5"),
    ("one-peer-hypercube", 12, {}, "set peers to 8 or 16, or choose 'base'"),
    ("one-peer-exponential", 1, {}, "at least 2 peers, not 1; raise peers or choose schedule 'base'"),
    ("k-peer-exponential", 4, {"k": 4}, "k = 4 needs at least 5 peers, not 4; raise peers or lower k"),
    ("hyper-hypercube", 7, {"k": 2}, "not 7; set peers to 6 or 8, raise k, or choose 'base'"),
    ("equi-dynamic", 8, {"eta": 0.0}, "eta: 0.0 will not do"),
    ("epidemic-oracle", 9, {"s": 3}, "an even number of link ends, and 9 peers x s 3 is odd; set s to 2 or 4, or peers to 10"),
    ("epidemic-oracle", 4, {"s": 4}, "set s to 3 or less"),
    ("epidemic-local", 4, {"s": 4}, "raise peers or lower s"),
    ("moshpit", 4, {"size": 5}, "size = 5 needs at least 5 peers, not 4"),
    ("matcha", 8, {"budget": 1.5}, "budget: 1.5 will not do; expected a share"),
    ("matcha", 8, {"graph": "rign"}, "no topology 'rign'.*did you mean 'ring'"),
    ("matcha", 8, {"graph": nx.cycle_graph(9)}, "the graph has 9 nodes for 8 peers; set peers = 9"),
    ("laplacian", 4, {"graph": nx.Graph([(0, 1), (2, 3)])}, "not connected"),
    ("laplacian", 4, {"graph": nx.cycle_graph(4, create_using=nx.DiGraph)}, "directed"),
    ("base", 8, {"graph": nx.cycle_graph(8)}, "base has no option 'graph'"),
    ("teleportation", 4, {"k": 5}, "k = 5 needs at least 5 peers, not 4"),
]


@pytest.mark.parametrize(("name", "n", "options", "message"), REFUSALS)
def test_every_refusal_names_the_cure(name: str, n: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topology.schedule(name, n, **options)


def test_rounds_are_counted_from_0() -> None:
    schedule = topology.schedule("base", 4)
    for wrong in (-1, 0.5, "1"):
        with pytest.raises(ValueError, match="counted from 0"):
            schedule.matrix(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="base makes its own graphs"):
        topology.schedule_menu()["base"]().plan(4, 0, nx.cycle_graph(4))
