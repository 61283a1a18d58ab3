"""The predicted consensus distance: against closed forms, and against real runs in virtual time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, run, topology
from grapevine.experiments.config.experiment import Record, Stop, Virtual
from grapevine.experiments.study.theory import Gradients, gains, measured_gradients, predicted
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import DPSGD
from grapevine.topology import Schedule
from grapevine.topology.graphs.names import menu
from grapevine.topology.schedules.names import schedule_menu
from grapevine.topology.schedules.rounds import still

RATE = 0.1
ORDERS = ("combine-then-adapt", "adapt-then-combine")


def matrix(name: str, n: int) -> np.ndarray:
    graph = topology.build(name, n)
    return topology.mixing_matrix(graph, "uniform" if graph.is_directed() else "metropolis")


def others(w: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of a symmetric W without that of the mean."""
    return np.linalg.eigvalsh(w)[:-1]


@pytest.mark.parametrize("name", ["ring", "star", "torus", "complete", "barbell"])
def test_both_gains_end_at_their_closed_forms(name: str) -> None:
    w, pull = matrix(name, 9), 2.0
    found = gains(w, 3000, RATE, pull)
    kept = others(w)
    assert found.noise[-1] == pytest.approx(np.sum(1 / (1 - kept**2)) / 9, rel=1e-9)
    assert found.difference[-1] == pytest.approx(np.sum(1 / (1 - kept + RATE * pull) ** 2) / 8, rel=1e-9)
    felt = gains(w, 3000, RATE, pull, noise_pull=pull)
    assert felt.noise[-1] == pytest.approx(np.sum(1 / (1 - (kept - RATE * pull) ** 2)) / 9, rel=1e-9)
    assert found.noise[:2].tolist() == [0.0, pytest.approx(8 / 9)]


@pytest.mark.parametrize("name", ["ring", "star", "hypercube", "complete"])
def test_adapting_first_ties_the_noise_to_the_effective_neighbours(name: str) -> None:
    w, decay = matrix(name, 8), (1 - RATE) ** 2
    found = gains(w, 4000, RATE, 1.0, 1.0, adapt_first=True)
    neighbours = topology.analyse(w).effective_neighbours(decay)
    assert found.noise[-1] == pytest.approx((1 / neighbours - 1 / 8) / (1 - decay), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("adapt_first", [False, True])
@pytest.mark.parametrize("name", ["ring", "star"])
def test_rounds_and_spectra_give_the_same_gains(name: str, adapt_first: bool) -> None:
    """The same matrix as a schedule of period 2 is not treated as constant: its gains are computed from covariances."""
    w = matrix(name, 8)
    twice = Schedule("twice", 8, lambda t: w.copy(), period=2, max_degree=7)
    one = gains(w, 60, RATE, 1.5, 0.5, adapt_first)
    for other in (
        gains(twice, 60, RATE, 1.5, 0.5, adapt_first),
        gains(still(topology.build(name, 8)), 60, RATE, 1.5, 0.5, adapt_first),
    ):
        np.testing.assert_allclose(other.noise, one.noise, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(other.difference, one.difference, rtol=1e-9, atol=1e-14)


def test_exact_rounds_leave_only_the_last_steps() -> None:
    """After both rounds of the 2-cube all agree: only the noise of the last two steps remains."""
    found = gains(topology.schedule("one-peer-hypercube", 4), 50, RATE)
    assert found.noise[-1] == pytest.approx((3 + 1) / 4)  # rank 3 from the last step, 1 of the pairs' means from the one before
    assert found.noise[-1] == pytest.approx(found.noise[-2])


def quadratic(tmp_path: Path, **changes: Any) -> tuple[Experiment, np.ndarray, float]:
    """A run of 8 peers; the experiment, its weights [8, size] and its final consensus distance."""
    base = Experiment(
        peers=8, world=Virtual(), devices=UniformDevices(speed="1000 samples/s"), optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=200), record=Record(every="10 s", report=False),
    )  # fmt: skip
    asked = base.replace(**changes)
    result = run(asked, out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    assert not (tmp_path / "run" / "report.html").exists()
    return asked, result.weights.astype(float), result.summary["consensus_distance"]


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["ring", "star", "hypercube", "barbell", "complete", "exponential"])
def test_differing_targets_keep_the_fleet_apart_by_exactly_what_is_predicted(tmp_path: Path, name: str, order: Any) -> None:
    """Targets e_1, ..., e_8 have equal mutual distances: their assignment to the peers does not matter."""
    targets = tuple(tuple(row) for row in np.eye(8).tolist())
    _, weights, measured = quadratic(
        tmp_path, topology=menu()[name](), task=Quadratic(targets=targets), strategy=DPSGD(order=order)
    )
    found = gains(matrix(name, 8), 200, RATE, 1.0, adapt_first=order == ORDERS[1])
    expected = predicted(found, Gradients(0.0, 7 / 8, 1.0), RATE)[-1]
    assert measured == pytest.approx(expected, abs=1e-5, rel=1e-4)
    assert np.mean(np.sum((weights - weights.mean(axis=0)) ** 2, axis=1)) == pytest.approx(measured, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
def test_the_gain_of_differences_has_the_limit_of_the_exact_recursion(order: str) -> None:
    """Delta <- W Delta - eta (difference + Delta), or W (Delta - eta (...)): exact at every step if the adaptation is first."""
    w, eta, steps = matrix("ring", 8), 0.2, 200
    apart = np.eye(8) - 1 / 8
    response, exact = np.zeros((8, 8)), [0.0]
    for _ in range(steps):
        response = w @ response + apart - eta * response if order == ORDERS[0] else w @ ((1 - eta) * response + apart)
        exact.append(float((response**2).sum()) / 7)
    found = gains(w, steps, eta, 1.0, 1.0, order == ORDERS[1]).difference
    assert found[-1] == pytest.approx(exact[-1], rel=1e-6)
    if order == ORDERS[1]:
        np.testing.assert_allclose(found, exact, rtol=1e-9)
    else:  # the figures of docs/connectivity.md
        assert found[[2, 3]] == pytest.approx([1.085, 1.480], abs=1e-3)
        assert exact[2:4] == pytest.approx([1.259, 1.741], abs=1e-3)


NOISY = [
    menu()["ring"](),
    menu()["star"](),
    menu()["hypercube"](),
    menu()["exponential"](),
    schedule_menu()["base"](k=1),
    schedule_menu()["one-peer-exponential"](),
    schedule_menu()["random-matching"](),
    schedule_menu()["epidemic-oracle"](s=3),
]


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("graph", NOISY, ids=lambda graph: graph.name)
def test_pure_noise_keeps_the_fleet_apart_as_predicted(tmp_path: Path, graph: Any, order: Any) -> None:
    """Each of the 3,000 parameters is a sample of one Gaussian law, whose covariance S is worked out here step by step: the sum
    of their squares over n has the standard deviation sqrt(2 tr(S^2) 3000) / n."""
    size, noise, steps = 3000, 0.3, 150
    asked, _, measured = quadratic(
        tmp_path, topology=graph, task=Quadratic(targets=(0.0,) * 8, noise=noise, dimension=size),
        strategy=DPSGD(order=order), stop=Stop(steps=steps), seed=3,
    )  # fmt: skip
    timed = isinstance(graph, tuple(schedule_menu().values()))
    rounds = (
        graph.plan(8, asked.seed)
        if timed
        else still(graph.build(8, asked.seed, directed=True), "uniform" if graph.one_way else "metropolis")
    )
    adapt_first = order == ORDERS[1]
    apart = np.eye(8) - 1 / 8
    covariance = np.zeros((8, 8))
    for t in range(steps):
        w = rounds.matrix(t + 1 if adapt_first else t)
        own = np.eye(8) * RATE**2 * noise**2
        if adapt_first:
            covariance = w @ ((1 - RATE) ** 2 * covariance + own) @ w.T
        else:
            once = w - RATE * np.eye(8)
            covariance = once @ covariance @ once.T + own
    spread = apart @ covariance @ apart
    deviation = math.sqrt(2 * np.trace(spread @ spread)) / 8 * math.sqrt(size)
    found = predicted(gains(rounds, steps, RATE, 1.0, 1.0, adapt_first), Gradients(noise**2 * size, 0.0, 1.0), RATE)[-1]
    assert found == pytest.approx(size * np.trace(spread) / 8, rel=1e-9, abs=1e-12)
    assert abs(measured - found) < 4 * deviation + 1e-9


def test_the_three_numbers_are_found_at_the_models_of_a_fleet() -> None:
    problem = Quadratic(targets=tuple(map(tuple, (3.0 * np.eye(6)).tolist())), noise=0.5).problem(6, Experiment().partition, 0)
    weights = np.random.default_rng(1).standard_normal((6, 6)).astype(np.float32)
    found = measured_gradients(problem, weights, 1)
    assert found.noise == pytest.approx(6 * 0.25, rel=0.35)  # 6 x 31 x 6 degrees of freedom: a relative deviation of 4 %
    assert found.difference == pytest.approx(9 * 5 / 6, rel=0.25)
    assert found.pull == pytest.approx(1.0, abs=1e-5)
    alike = measured_gradients(problem, np.zeros((6, 6), np.float32), 1)
    assert alike.pull == 0.0
