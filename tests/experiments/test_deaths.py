"""A death on links that go one way biases the survivors' mean, and takes push-sum mass away: warnings name the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from grapevine import Experiment, run
from grapevine.experiments.config.events import KillEvent
from grapevine.experiments.config.experiment import Record, Stop, Virtual
from grapevine.experiments.deaths import effect_of_deaths
from grapevine.experiments.fleet import build
from grapevine.experiments.forecast import forecast
from grapevine.experiments.results.result import Result
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import ADPSGD, DPSGD, Slices
from grapevine.topology.graphs.circulants import Exponential
from grapevine.topology.graphs.menu import Ring
from grapevine.topology.schedules.names import schedule_menu

TARGETS = (0.0, 10.0, 20.0, 30.0, 40.0, 1000.0)
RATE = 0.01


def experiment(**changes: Any) -> Experiment:
    base = Experiment(
        peers=6,
        world=Virtual(),
        task=Quadratic(targets=TARGETS),
        devices=UniformDevices(speed="1000 samples/s"),
        network=Uniform(rate="10 Mbit/s", delay="1 ms"),
        strategy=DPSGD(),
        optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=40),
        events=[KillEvent(at="15 ms", peer=5)],
        record=Record(report=False),
    )
    return base.replace(**changes)


def circulant() -> nx.DiGraph:
    return nx.DiGraph([(i, (i + d) % 6) for i in range(6) for d in (1, 2)])


def pushing(edges: list[tuple[int, int]]) -> nx.DiGraph:
    graph = nx.DiGraph(edges)
    graph.graph["mixing"] = "push-sum"
    return graph


HUB = pushing([(1, 2), (2, 3), (3, 4), (4, 1), (1, 0), (2, 0), (3, 0), (4, 0), (0, 1)])
"""Without peer 0 a ring remains."""
CHAIN = pushing([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)])
"""Without peer 0 the graph is not strongly connected."""


def pushed(graph: nx.DiGraph, **changes: Any) -> Experiment:
    common = {"peers": 5, "task": Quadratic(targets=TARGETS[:5]), "events": [KillEvent(at="15 ms", peer=0)]}
    return experiment(topology=graph, **{**common, **changes})


def about(result: Result, words: str) -> list[str]:
    return [warning for warning in result.summary["warnings"] if words in warning]


def test_the_survivors_of_one_way_links_minimise_a_weighted_mean(tmp_path: Path) -> None:
    """The fixed point of x <- W x - eta (x - b) over the survivors, with a lost neighbour's weight on the diagonal."""
    w = np.array([[1 / 3 if sends else 0.0 for sends in row] for row in nx.to_numpy_array(circulant()).T[:5, :5]])
    np.fill_diagonal(w, 1 - w.sum(axis=1))
    expected = np.linalg.solve(np.eye(5) - w + RATE * np.eye(5), RATE * np.array(TARGETS[:5]))
    result = run(experiment(topology=circulant(), stop=Stop(steps=1500)), out=tmp_path / "run")
    np.testing.assert_allclose(result.weights[:5, 0], expected, atol=1e-3)
    assert abs(result.weights[:5].mean() - 20.0) > 4.0
    (warning,) = about(result, "not doubly stochastic")
    assert "peer 5" in warning
    assert "links go both ways" in warning


@pytest.mark.parametrize("topology", [Ring(), schedule_menu()["random-matching"](), schedule_menu()["equi-dynamic"]()])
def test_symmetric_weights_keep_the_survivors_mean_and_have_no_warning(tmp_path: Path, topology: Any) -> None:
    result = run(experiment(topology=topology, stop=Stop(steps=1500)), out=tmp_path / "run")
    assert abs(result.weights[:5].mean() - 20.0) < 0.01
    assert not about(result, "doubly stochastic")
    assert not effect_of_deaths(build(experiment(topology=topology)), [5])


@pytest.mark.parametrize("topology", [circulant(), Exponential(), schedule_menu()["one-peer-exponential"]()])
@pytest.mark.parametrize("strategy", [DPSGD(), Slices()])
def test_check_warns_of_planned_kills(topology: Any, strategy: Any) -> None:
    planned = build(experiment(topology=topology, strategy=strategy))
    assert any("not doubly stochastic" in warning and "peer 5" in warning for warning in forecast(planned).warnings)
    unharmed = build(experiment(topology=topology, strategy=strategy, events=()))
    assert not any("doubly stochastic" in warning for warning in forecast(unharmed).warnings)


def test_pairwise_averages_keep_the_survivors_mean_without_w() -> None:
    assert not effect_of_deaths(build(experiment(topology=circulant(), strategy=ADPSGD())), [5])


def test_unequal_weights_on_links_that_go_both_ways_count_too() -> None:
    graph = nx.path_graph(6)
    graph.graph["mixing"] = "uniform"
    assert "not doubly stochastic" in effect_of_deaths(build(experiment(topology=graph)), [5])


def test_there_is_no_warning_if_at_most_one_peer_survives() -> None:
    fleet = build(experiment(topology=circulant()))
    assert not effect_of_deaths(fleet, range(6))
    assert not effect_of_deaths(fleet, range(5))


def test_lost_mass_makes_the_survivors_steps_longer_by_the_factor_in_the_warning(tmp_path: Path) -> None:
    """The masses follow w <- A w; the dead peer's mass and the shares on their way to it are lost."""
    constant = Quadratic(targets=(1e6,) * 5)  # so far away that the gradient is the same at all steps
    changes = {"task": constant, "optimizer": Sgd(learning_rate=1e-7)}
    early = run(pushed(HUB, **changes), out=tmp_path / "early")
    late = run(pushed(HUB, **changes, stop=Stop(steps=60)), out=tmp_path / "late")
    (warning,) = about(late, "push-sum mass is lost with peer 0")
    factor = float(warning.split("moves their mean ")[1].split(" times")[0])
    assert factor > 1.5
    moved = np.mean(late.weights[1:] - early.weights[1:]) / (20 * 1e-7 * 1e6)
    assert moved == pytest.approx(factor, rel=0.01)
    assert "strongly connected" not in warning


def test_no_factor_is_given_while_shares_of_mass_are_under_way(tmp_path: Path) -> None:
    result = run(pushed(HUB, stop=Stop(time="60 ms")), out=tmp_path / "run")
    (warning,) = about(result, "push-sum mass is lost with peer 0")
    assert "moves their mean" not in warning
    assert "steps are longer" in warning


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_divergence_after_lost_mass_is_not_blamed_on_the_learning_rate_first(tmp_path: Path) -> None:
    result = run(pushed(CHAIN, stop=Stop(steps=400)), out=tmp_path / "run")
    assert about(result, "not strongly connected")
    diverged = about(result, "training diverged")
    assert diverged
    assert all("push-sum mass was lost" in warning for warning in diverged)


def test_check_warns_of_kills_under_push_sum() -> None:
    (warning,) = [warning for warning in forecast(build(pushed(HUB))).warnings if "push-sum" in warning]
    assert "steps are longer" in warning
    assert any("not strongly connected" in warning for warning in forecast(build(pushed(CHAIN))).warnings)
