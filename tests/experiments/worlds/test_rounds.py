"""Graphs that change from round to round, links that go one way, and graphs laid after data or network: exact laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import ConfigError, Experiment, run, topology
from grapevine.experiments.config.experiment import Record, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.graph import asked_delays_s
from grapevine.experiments.tasks import Digits, Quadratic
from grapevine.experiments.tasks.partitions import Dirichlet
from grapevine.netem import Uniform, UniformDevices
from grapevine.netem.networks.presets import Aws18
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import ADPSGD, DPSGD, Ako, Full, Slices
from grapevine.topology.graphs.circulants import Exponential
from grapevine.topology.graphs.cliques import DCliques
from grapevine.topology.graphs.menu import File
from grapevine.topology.graphs.overlays import Overlay
from grapevine.topology.schedules.names import schedule_menu

RATE = 0.1
TARGETS = (3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0)


def experiment(**changes: Any) -> Experiment:
    base = Experiment(
        peers=8,
        world=Virtual(),
        task=Quadratic(targets=TARGETS, dimension=2),
        devices=UniformDevices(speed="1000 samples/s"),
        network=Uniform(rate="10 Mbit/s", delay="15 ms"),
        optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=30),
        record=Record(report=False),
    )
    return base.replace(**changes)


def weights(tmp_path: Path, **changes: Any) -> np.ndarray:
    result = run(experiment(**changes), out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    return result.weights.astype(float)


def plan(name: str, **options: Any) -> Any:
    return schedule_menu()[name](**options)


SOME = [
    plan("one-peer-exponential"),
    plan("k-peer-exponential", k=3),
    plan("one-peer-hypercube"),
    plan("simple-base", k=2),
    plan("equi-dynamic"),
    plan("equi-dynamic", directed=True),
    plan("epidemic-oracle", s=3),
    plan("epidemic-local", s=2),
    plan("random-matching"),
    plan("moshpit", size=2),
    plan("matcha", graph="hypercube"),
    plan("laplacian", graph="ring"),
    plan("teleportation", k=3),
    plan("random-edge"),
]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SOME, ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("order", ["combine-then-adapt", "adapt-then-combine"])
def test_dpsgd_carries_out_the_matrices_of_its_schedule(tmp_path: Path, schedule: Any, order: Any) -> None:
    """Step for step x <- W_t x - eta (x - b), or x <- W_{t+1} (x - eta (x - b)), over a network with delays."""
    exact = schedule.plan(8, 5)
    x, b = np.zeros(8), np.array(TARGETS)
    for t in range(30):
        if order == "combine-then-adapt":
            x = exact.matrix(t) @ x - RATE * (x - b)
        else:
            x = exact.matrix(t + 1) @ (x - RATE * (x - b))
    found = weights(tmp_path, topology=schedule, strategy=DPSGD(order=order), seed=5)
    np.testing.assert_allclose(found, np.tile(x[:, None], 2), atol=2e-5 * np.abs(x).max())


@pytest.mark.live
@pytest.mark.parametrize("steps", [4, 40])
def test_a_live_fleet_carries_out_the_same_rounds(tmp_path: Path, steps: int) -> None:
    """Each process lays the schedule anew: the weights are those of virtual time."""
    live = Experiment(
        peers=5,
        topology=plan("epidemic-local", s=2),
        task=Quadratic(targets=TARGETS[:5], dimension=2),
        optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=steps),
        seed=4,
    )
    if steps == 40:
        found = run(live, out=tmp_path / "live").weights
        virtual = live.replace(world=Virtual(), devices=UniformDevices(speed="1000 samples/s"))
        np.testing.assert_allclose(found, run(virtual, out=tmp_path / "virtual").weights, atol=1e-5)
    else:
        rounds = build(live).rounds
        assert rounds is not None
        assert rounds.recipe is not None
        make, arguments = rounds.recipe
        schedule = make(*arguments)
        fresh = topology.schedule("epidemic-local", 5, 4, s=2)
        for t in range(steps):
            assert np.array_equal(schedule.matrix(t), fresh.matrix(t))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Slices(), ADPSGD()], ids=["slices", "ad-psgd"])
@pytest.mark.parametrize("schedule", SOME, ids=lambda schedule: schedule.name)
def test_the_asynchronous_ones_agree_on_any_schedule(tmp_path: Path, strategy: Any, schedule: Any) -> None:
    """Targets far apart draw peers apart, and meetings together."""
    alone = np.array(TARGETS) * (1 - (1 - RATE) ** 100)
    found = weights(tmp_path, topology=schedule, strategy=strategy, stop=Stop(steps=100))
    assert found.min() >= min(TARGETS) - 1e-4 or isinstance(strategy, ADPSGD)
    if schedule.name not in ("teleportation", "random-edge"):  # few meetings a step
        assert np.std(found[:, 0]) < 0.6 * np.std(alone)


@pytest.mark.parametrize("schedule", [plan("random-matching"), plan("one-peer-exponential"), plan("epidemic-oracle", s=3)])
def test_adpsgd_moves_the_sum_by_gradients_alone_on_schedules(tmp_path: Path, schedule: Any) -> None:
    """Far from their targets peers see gradients that hardly change: the mean walks along them, whoever meets whom."""
    far = Quadratic(targets=tuple(1e4 * target for target in TARGETS), dimension=2)
    found = weights(tmp_path, topology=schedule, strategy=ADPSGD(), task=far, optimizer=Sgd(learning_rate=1e-6))
    np.testing.assert_allclose(found.mean(axis=0), 30 * 1e-6 * 1e4 * np.mean(TARGETS), rtol=1e-3)
    assert np.ptp(found[:, 0]) > 1e-3  # they did not just all walk alike


def lopsided() -> nx.DiGraph:
    """Eight peers in a directed ring with one-way short cuts: strongly connected, degrees unequal both ways."""
    graph = nx.DiGraph([(i, (i + 1) % 8) for i in range(8)])
    graph.add_edges_from([(0, 3), (0, 5), (2, 6), (4, 6)])
    return graph


@pytest.mark.parametrize("order", ["combine-then-adapt", "adapt-then-combine"])
def test_push_sum_is_the_stochastic_gradient_push_of_the_paper(tmp_path: Path, order: Any) -> None:
    """x <- A x, w <- A w, z = x / w with column-stochastic A and the gradient at z; adapt-then-combine is algorithm 1."""
    path = tmp_path / "lopsided.graphml"
    nx.write_graphml(lopsided(), path)
    a = topology.mixing_matrix(lopsided(), "push-sum")
    x, w, b = np.zeros(8), np.ones(8), np.array(TARGETS)
    for _ in range(60):
        z = x / w
        if order == "combine-then-adapt":
            x = a @ x - RATE * (z - b)
        else:
            x = a @ (x - RATE * (z - b))
        w = a @ w
    found = weights(
        tmp_path, topology=File(path=str(path), mixing="push-sum"), strategy=DPSGD(order=order), stop=Stop(steps=60)
    )
    np.testing.assert_allclose(found, np.tile((x / w)[:, None], 2), atol=2e-5)


@pytest.mark.slow
def test_push_sum_agrees_on_the_true_mean_where_uniform_shares_do_not(tmp_path: Path) -> None:
    """The mass-weighted mean of the models is the mean of the targets in the end, for a small rate."""
    path = tmp_path / "lopsided.graphml"
    nx.write_graphml(lopsided(), path)

    def ends(rule: Any) -> np.ndarray:
        return weights(
            tmp_path,
            topology=File(path=str(path), mixing=rule),
            strategy=DPSGD(),
            optimizer=Sgd(learning_rate=0.01),
            stop=Stop(steps=1500),
        )[:, 0]

    mean = float(np.mean(TARGETS))
    assert abs(ends("push-sum").mean() - mean) < 0.15
    assert abs(ends("uniform").mean() - mean) > 0.4


def test_a_directed_graph_with_equal_degrees_takes_equal_shares(tmp_path: Path) -> None:
    w = topology.mixing_matrix(topology.build("exponential", 8), "uniform")
    fixed = np.linalg.solve(np.eye(8) - w + RATE * np.eye(8), RATE * np.array(TARGETS))
    found = weights(tmp_path, topology=Exponential(), stop=Stop(steps=300))
    np.testing.assert_allclose(found, np.tile(fixed[:, None], 2), atol=1e-5)


def test_cliques_see_the_labels_of_the_peers() -> None:
    skewed = experiment(
        peers=20,
        task=Digits(),
        topology=DCliques(size=10),
        partition=Dirichlet(alpha=0.1),
        strategy=DPSGD(),
        stop=Stop(steps=1),
    )
    fleet = build(skewed)
    counts = fleet.problem.label_counts  # type: ignore[attr-defined]
    assert counts.sum(axis=1).tolist() == fleet.problem.samples
    expected = topology.build("d-cliques", 20, skewed.seed, size=10, label_counts=counts)
    assert sorted(fleet.graph.edges) == sorted(expected.edges)
    other = build(skewed.replace(partition=Dirichlet(alpha=100.0)))
    assert sorted(other.graph.edges) != sorted(fleet.graph.edges)


def test_overlays_see_the_delays_of_the_network() -> None:
    far = experiment(peers=12, network=Aws18(), topology=Overlay(), task=Quadratic(targets=(0.0,) * 12))
    fleet = build(far)
    delays = asked_delays_s(far.network.plan(nx.complete_graph(12), far.seed), 12)
    tree = nx.minimum_spanning_tree(nx.from_numpy_array((delays + delays.T) / 2))
    assert sum(delays[i, j] + delays[j, i] for i, j in fleet.graph.edges) == pytest.approx(
        sum(delays[i, j] + delays[j, i] for i, j in tree.edges)
    )
    # what a link asks for does not depend on whether others are laid too
    for pair, spec in fleet.plan.links.items():
        assert spec.delay_ns / 1e9 == delays[pair]


def test_a_schedule_may_be_given_from_python(tmp_path: Path) -> None:
    given = topology.schedule("base", 8, k=1)
    result = run(experiment(topology=given), out=tmp_path / "run")
    assert result.summary["topology"] == "given"
    named = weights(tmp_path / "named", topology=plan("base", k=1))
    assert np.array_equal(result.weights.astype(float), named)


def test_rounds_end_well_when_a_peer_dies(tmp_path: Path) -> None:
    """The survivors' rounds go on without it: its weights return to those who would have heard it."""
    from grapevine.experiments.results.recorder import Recorder
    from grapevine.experiments.worlds.collector import Collector
    from grapevine.experiments.worlds.interrupt import Interrupt
    from grapevine.experiments.worlds.virtual.world import VirtualWorld

    for place, strategy in enumerate([DPSGD(), Slices(), ADPSGD()]):
        dying = experiment(topology=plan("one-peer-exponential"), strategy=strategy, stop=Stop(steps=60))
        fleet = build(dying)
        recorder = Recorder(tmp_path / str(place), dying.to_toml(), {})
        with Interrupt() as interrupt:
            outcome = VirtualWorld(
                fleet, Collector(fleet, recorder, lambda progress: None), interrupt, [(700_000_000, 3)]
            ).run()
        assert outcome.reason == "60 steps done"
        alive = [peer for peer in range(8) if peer != 3]
        assert np.ptp(outcome.weights[alive, 0]) < np.ptp(TARGETS)


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"topology": plan("base"), "strategy": Ako()}, "strategy.name", "change from round to round"),
        ({"topology": Exponential(), "strategy": Full()}, "strategy.name", "go one way"),
        ({"topology": Exponential(mixing="push-sum"), "strategy": Slices()}, "topology.mixing", "mass"),
        ({"topology": DCliques()}, "topology", "labels"),
        ({"topology": plan("one-peer-hypercube"), "peers": 6}, "topology", "power of two"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_cure(changes: dict[str, Any], key: str, says: str) -> None:
    if "peers" in changes:
        changes = {**changes, "task": Quadratic(targets=TARGETS[: changes["peers"]])}
    with pytest.raises(ConfigError, match=says) as caught:
        build(experiment(**changes))
    assert caught.value.key == key
    assert caught.value.cure or "choose" in str(caught.value)


def test_a_graph_given_from_python_says_how_it_mixes(tmp_path: Path) -> None:
    given = lopsided()
    with pytest.raises(ConfigError, match=r'graph.graph\["mixing"\] = "push-sum"'):
        build(experiment(topology=given))
    with pytest.raises(ConfigError, match="do not sum to 1"):
        build(experiment(topology=topology.still(given, "push-sum")))
    given.graph["mixing"] = "push-sum"
    path = tmp_path / "lopsided.graphml"
    nx.write_graphml(lopsided(), path)
    named = weights(tmp_path, topology=File(path=str(path), mixing="push-sum"))
    assert np.array_equal(weights(tmp_path, topology=given), named)
