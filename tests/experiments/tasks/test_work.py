"""What tasks offer beside plain gradients, against brute force, closed forms and torch."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
import pytest
from torch import nn

from grapevine import ConfigError
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Batch, Bootstrap, Digits, Dirichlet, Iid, Module, Problem, Quadratic
from grapevine.experiments.tasks.share import Share
from grapevine.peer.effects import Work
from grapevine.peer.samples import Samples
from grapevine.peer.strategies import Solo
from tests.experiments.strategies.fleets import asked
from tests.experiments.tasks.modules import TEST, TRAIN, Net, dropping, normalised

MODELS = {
    "logistic": Digits(model="logistic"),
    "mlp": Digits(),
    "deep": Digits(hidden=(20, 7, 13)),
    "cnn": Digits(model="cnn"),
    "module": Module(factory=Net, train=TRAIN, test=TEST),
}
PEERS = 9


@functools.cache
def fleet(name: str) -> tuple[Problem, np.ndarray, list[Batch]]:
    """Nine peers of a model: their problem, weights [9, size] and a batch of 16 each."""
    problem = MODELS[name].problem(PEERS, Iid(), 0)
    weights = problem.initial + 0.05 * np.random.default_rng(0).standard_normal((PEERS, problem.size)).astype(np.float32)
    return problem, weights, [problem.sampler(peer, np.random.default_rng([1, peer])).draw(16) for peer in range(PEERS)]


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def soft(problem: Problem, count: int, seed: int = 3) -> np.ndarray:
    """Rows of positive numbers that sum to 1."""
    return np.random.default_rng(seed).dirichlet(np.ones(problem.outputs), count).astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
def test_a_clipped_gradient_is_the_mean_of_clipped_gradients_of_single_samples(name: str) -> None:
    problem, weights, batches = fleet(name)
    singles = [problem.gradient(weights[0], batches[0].part(np.array([i]))) for i in range(16)]
    rows = np.array([gradient.astype(float) for _, gradient in singles])
    norms = np.linalg.norm(rows, axis=1)
    for clip in (1e-3, float(np.median(norms)), 1e6):
        wanted = (rows * np.minimum(1.0, clip / norms)[:, None]).mean(axis=0)
        losses, found = problem.clipped_gradients(weights[:1], batches[:1], [clip])
        assert off(found[0], wanted) < 2e-5
        assert np.linalg.norm(found[0]) <= clip * (1 + 1e-5)
        assert losses[0] == pytest.approx(np.mean([loss for loss, _ in singles]), rel=1e-5)
    assert off(found[0], problem.gradient(weights[0], batches[0])[1]) < 2e-5  # where nothing is that long


@pytest.mark.parametrize("name", MODELS)
def test_variants_of_many_peers_are_those_of_each(name: str) -> None:
    problem, weights, batches = fleet(name)
    clips = np.geomspace(0.1, 10, PEERS)
    targets = [soft(problem, 16, peer) for peer in range(PEERS)]
    for many, given in ((problem.clipped_gradients, clips), (problem.soft_gradients, targets)):
        losses, found = many(weights, batches, given)
        for peer in range(PEERS):
            one_loss, one = many(weights[peer : peer + 1], batches[peer : peer + 1], given[peer : peer + 1])
            assert losses[peer] == pytest.approx(one_loss[0], rel=1e-5)
            assert off(found[peer], one[0]) < 2e-5
    assert problem.notes == []


@pytest.mark.parametrize("name", MODELS)
def test_one_hot_targets_give_the_ordinary_gradient(name: str) -> None:
    problem, weights, batches = fleet(name)
    labels = problem.arrays["train_y"][batches[0].indices]
    losses, found = problem.soft_gradients(weights[:1], batches[:1], [np.eye(10, dtype=np.float32)[labels]])
    loss, wanted = problem.gradient(weights[0], batches[0])
    assert losses[0] == pytest.approx(loss, rel=1e-5)
    assert off(found[0], wanted) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_soft_targets_mix_the_gradients_of_the_classes(name: str) -> None:
    """The cross entropy is linear in the targets: so are its loss and its gradient."""
    problem, weights, batches = fleet(name)
    first, second = soft(problem, 16, 1), soft(problem, 16, 2)
    (a, ga), (b, gb), (both, g) = (
        problem.soft_gradients(weights[:1], batches[:1], [targets]) for targets in (first, second, first + 2 * second)
    )
    assert both[0] == pytest.approx(a[0] + 2 * b[0], rel=1e-5)
    assert off(g[0], ga[0] + 2 * gb[0]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_the_cross_entropy_of_predictions_is_the_loss(name: str) -> None:
    problem, weights, batches = fleet(name)
    labels = problem.arrays["train_y"][batches[0].indices]
    outputs = problem.predict(0, weights[0], batches[0])
    assert (outputs.shape, outputs.dtype) == ((16, problem.outputs), np.float32)
    logits = outputs.astype(float)
    loss = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(16), labels]).mean()
    measured = problem.measure(0, weights[0], batches[0])
    assert measured == pytest.approx((loss, (logits.argmax(axis=1) == labels).mean()), rel=1e-5)
    assert problem.gradient(weights[0], batches[0])[0] == pytest.approx(loss, rel=1e-5)
    kept = outputs.copy()
    problem.predict(0, 2 * weights[0], batches[0])
    assert np.array_equal(outputs, kept)


def regression() -> nn.Module:
    return nn.Linear(64, 1)


def halves(output: Any, y: Any) -> Any:
    return nn.functional.mse_loss(output, y)


@pytest.mark.parametrize(
    ("fields", "without", "outputs"),
    [
        ({"factory": Net}, set(), 10),
        ({"factory": dropping}, set(), 10),
        ({"factory": normalised}, {"clip"}, 10),  # what it gives for one sample depends on the others
        ({"factory": Net, "loss": nn.functional.cross_entropy}, {"targets"}, 10),  # a loss of one's own may take labels only
    ],
)
def test_a_module_offers_what_it_can_do(fields: dict[str, Any], without: set[str], outputs: int) -> None:
    problem = Module(train=TRAIN, test=TEST, **fields).problem(2, Iid(), 0)
    assert set(problem.offers()) == {"gradient", "clip", "targets", "predict", "held-out", "probe"} - without
    assert problem.outputs == outputs


class Clipping(Solo, frozen=True, tag="clipping"):
    asks: ClassVar[tuple[str, ...]] = ("clip",)


def test_a_strategy_that_clips_is_refused_where_samples_are_normalised_together() -> None:
    fleets = [asked(2, task=Module(factory=f, train=TRAIN, test=TEST), strategy=Clipping()) for f in (Net, normalised)]
    build(fleets[0])
    with pytest.raises(ConfigError, match='asks its task for "clip", which "module" does not offer'):
        build(fleets[1])


def test_a_module_that_regresses_predicts_and_takes_no_soft_targets() -> None:
    def with_numbers(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return pair[0], pair[1].astype(np.float32)[:, None]

    problem = Module(factory=regression, train=with_numbers(TRAIN), test=with_numbers(TEST), loss=halves).problem(2, Iid(), 0)
    assert "targets" not in problem.offers()
    batch = Batch(np.arange(7), 0)
    outputs = problem.predict(0, problem.initial, batch)
    assert outputs.shape == (7, 1)
    loss, accuracy = problem.measure(0, problem.initial, batch)
    assert loss == pytest.approx(((outputs - problem.arrays["train_y"][:7]) ** 2).mean(), rel=1e-5)
    assert np.isnan(accuracy)


def test_predictions_of_a_module_are_not_noisy_and_leave_it_as_it_was() -> None:
    for factory in (normalised, dropping):
        problem = Module(factory=factory, train=TRAIN, test=TEST).problem(4, Iid(), 0)
        batch = problem.sampler(0, np.random.default_rng(0)).draw(16)
        before = problem.gradient(problem.initial, batch)[0]
        assert np.array_equal(*(problem.predict(0, problem.initial, batch) for _ in range(2)))
        assert problem.gradient(problem.initial, batch)[0] == before


def test_the_quadratics_gradients_and_its_solution() -> None:
    targets = np.array([[1.0, -2.0], [3.0, 0.0], [5.0, 4.0]])
    problem = Quadratic(targets=targets.tolist(), noise=0.5).problem(3, Iid(), 0)
    share = Share(problem, 1, np.random.default_rng(0))
    at, own = np.array([0.5, 0.5], np.float32), np.zeros(2, np.float32)
    whole = share.whole().batch
    loss, exact = share.do(Work("gradient", 1, whole, at, {}), own)
    assert exact.tolist() == [-2.5, 0.5]
    assert loss == pytest.approx((2.5**2 + 0.5**2) / 2)
    batch = share.draw(1).batch
    noisy, again = (share.do(Work("gradient", 1, batch, at, {}), own)[1] for _ in range(2))
    assert np.array_equal(noisy, again)
    assert not np.array_equal(noisy, exact)
    _, clipped = share.do(Work("clip", 1, whole, at, {"clip": 1.0}), own)
    np.testing.assert_allclose(clipped, exact / np.linalg.norm(exact), rtol=1e-6)

    for rho in (0.0, 0.5, 7.0):
        towards = np.array([9.0, -9.0], np.float32)
        answer = share.do(Work("solve", None, None, None, {"towards": towards, "rho": rho}), own)
        assert answer.dtype == np.float32
        np.testing.assert_allclose((answer - targets[1]) + rho * (answer - towards), 0, atol=1e-5)  # the objective's slope
    with pytest.raises(ValueError, match="rho = -1"):
        problem.solve(0, own, own, -1.0)
    with pytest.raises(ValueError, match=r"shape \[3\]: expected \[2\]"):
        problem.solve(0, own, np.zeros(3), 1.0)


@pytest.mark.parametrize("partition", [Iid(), Dirichlet(alpha=0.3), Bootstrap(samples=90)])
def test_the_probe_set_is_shared_and_apart_from_training_and_scores(partition: Any) -> None:
    whole, problem, again, other = (Digits().problem(5, partition, 2) for _ in range(4))
    for each, seed in ((problem, 2), (again, 2), (other, 3)):
        each.take_probe(60, seed)
        each.hold_out(0.2, seed)
    probe = problem.arrays["probe"]
    assert len(np.unique(probe)) == problem.probe == 60
    assert np.array_equal(probe, again.arrays["probe"])
    assert not np.array_equal(probe, other.arrays["probe"])
    for peer in range(5):
        kept = np.concatenate([problem.indices(peer), problem.indices(peer, "held_out"), probe])
        assert not np.isin(problem.indices(peer), probe).any()
        assert set(kept) >= set(whole.indices(peer))
        share = Share(problem, peer, np.random.default_rng(peer))
        assert np.array_equal(share.probe().batch.indices, probe)
        assert (share.probe().source, len(share.probe())) == ("probe", 60)


def test_a_probe_set_that_takes_all_that_a_peer_has_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 1436"):
        Digits().problem(5, Iid(), 0).take_probe(1437, 0)
    with pytest.raises(ValueError, match="takes all samples of peer"):
        Digits().problem(1437, Iid(), 0).take_probe(10, 0)


def test_handles_are_divided_by_position() -> None:
    share = Share(Digits().problem(3, Iid(), 0), 1, np.random.default_rng(0))
    whole = share.whole()
    assert np.array_equal(whole.batch.indices, share.problem.indices(1))
    odd = whole[1::2]
    assert (len(odd), odd.source) == (len(whole) // 2, "training")
    assert np.array_equal(odd.batch.indices, whole.batch.indices[1::2])
    chosen = whole[np.array([3, 0, 0])]
    assert chosen.batch.indices.tolist() == whole.batch.indices[[3, 0, 0]].tolist()
    for rows in (slice(5, 5), 3):
        with pytest.raises(ValueError, match="chooses no samples"):
            whole[rows]  # type: ignore[index]
    with pytest.raises(ValueError, match="cannot be divided"):
        Samples(None, 3)[:1]


def test_asking_for_samples_does_not_disturb_the_stream() -> None:
    """Fresh handles differ in the seed of what a model draws itself, and in nothing else."""
    problem = Digits().problem(3, Iid(), 0)
    plain, looking = (Share(problem, 0, np.random.default_rng(7)) for _ in range(2))
    seeds = {looking.whole().batch.seed for _ in range(3)}
    assert len(seeds) == 3
    for _ in range(40):
        assert np.array_equal(plain.draw(50).batch.indices, looking.draw(50).batch.indices)


@pytest.mark.parametrize(
    ("name", "count", "cost"),
    [("gradient", 32, 32), ("targets", 32, 32), ("clip", 32, 54), ("held-out", 10, 4), ("probe", 9, 3), ("predict", 1, 1)],
)
def test_what_standard_work_costs(name: str, count: int, cost: int) -> None:
    """Forward and backward are 1 and 2 thirds of a gradient; clipping goes backward twice."""
    share = Share(Digits().problem(3, Iid(), 0), 0, np.random.default_rng(0))
    assert share.take_on(Work(name, count, None, None, {})) == cost


def test_work_that_is_not_offered_or_costs_nonsense_is_refused() -> None:
    problem = Quadratic().problem(2, Iid(), 0)
    for cost in (float("nan"), -1.0, float("inf")):
        share = Share(problem, 0, np.random.default_rng(0))
        share.costs.offers["solve"] = lambda peer, cost=cost: cost
        with pytest.raises(ValueError, match="expected 0 or more, and finite"):
            share.take_on(Work("solve", None, None, None, {}))
    with pytest.raises(ValueError, match='does not offer the work "predict": it offers gradient, clip, held-out, solve'):
        Share(problem, 0, np.random.default_rng(0)).take_on(Work("predict", 1, None, None, {}))
