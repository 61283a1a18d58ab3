"""Gradients by hand against autograd and finite differences; many at once against one at a time."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from grapevine.experiments.tasks import AnyTask, Batch, Digits, Iid, LearningProblem, Quadratic, cnn
from grapevine.experiments.tasks.buffers import Vectors

MODELS = {
    "logistic": Digits(model="logistic"),
    "mlp": Digits(),
    "deep": Digits(hidden=(20, 7, 13)),
    "cnn": Digits(model="cnn"),
}


def start(task: Digits, seed: int = 0) -> tuple[LearningProblem, np.ndarray, Batch]:
    problem = task.problem(4, Iid(), seed)
    return problem, problem.initial.copy(), problem.sampler(1, np.random.default_rng(5)).draw(32)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def torch_gradient(widths: list[int], problem: LearningProblem, weights: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
    """The same perceptron in torch, in double precision, from the same flat weights."""
    whole = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    x = torch.from_numpy(problem.arrays["train_x"][batch.indices, :-1].astype(np.float64))
    at = 0
    for inputs, outputs in itertools.pairwise(widths):
        matrix = whole[at : at + (inputs + 1) * outputs].view(inputs + 1, outputs)
        x = (x.relu() if at else x) @ matrix[:-1] + matrix[-1]
        at += (inputs + 1) * outputs
    loss = nn.functional.cross_entropy(x, torch.from_numpy(problem.arrays["train_y"][batch.indices]))
    loss.backward()
    assert whole.grad is not None
    return loss.item(), whole.grad.numpy()


@pytest.mark.parametrize(("name", "size"), [("mlp", 4810), ("logistic", 650), ("cnn", 10_026)])
def test_sizes_are_as_documented(name: str, size: int) -> None:
    problem = MODELS[name].problem(2, Iid(), 0)
    assert problem.size == len(problem.initial) == size
    assert problem.initial.dtype == np.float32


def test_the_million_parameter_perceptron_has_its_size() -> None:
    assert Digits(hidden=(960, 960)).problem(2, Iid(), 0).size == 994_570


@pytest.mark.parametrize(("name", "widths"), [("logistic", [64, 10]), ("mlp", [64, 64, 10]), ("deep", [64, 20, 7, 13, 10])])
def test_hand_written_gradient_is_autograds(name: str, widths: list[int]) -> None:
    problem, weights, batch = start(MODELS[name])
    loss, gradient = problem.gradient(weights, batch)
    wanted_loss, wanted = torch_gradient(widths, problem, weights, batch)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert gradient.dtype == np.float32
    assert relative(gradient, wanted) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_the_slope_of_the_loss(name: str) -> None:
    problem, weights, batch = start(MODELS[name])
    direction = np.random.default_rng(3).standard_normal(problem.size).astype(np.float32)
    direction /= np.linalg.norm(direction)
    _, gradient = problem.gradient(weights, batch)
    direction = (gradient / np.linalg.norm(gradient) + direction) / 2  # some of it along the slope, lest all be rounding
    width = np.float32(0.005)  # narrow, for the kinks of relu; wide, for rounding
    ahead, _ = problem.gradient(weights + width * direction, batch)
    behind, _ = problem.gradient(weights - width * direction, batch)
    assert (ahead - behind) / (2 * width) == pytest.approx(float(gradient @ direction), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("peers", [1, 9, 40])
def test_many_at_once_are_the_same_as_one_by_one(name: str, peers: int) -> None:
    task = MODELS[name]
    problem = task.problem(peers, Iid(), 0)
    rng = np.random.default_rng(0)
    weights = problem.initial + 0.05 * rng.standard_normal((peers, problem.size)).astype(np.float32)
    batches = [problem.sampler(peer, np.random.default_rng([1, peer])).draw(16) for peer in range(peers)]
    losses, gradients = problem.gradients(weights, batches)
    assert losses.shape == (peers,)
    assert gradients.shape == (peers, problem.size)
    for peer in range(peers):
        loss, gradient = problem.gradient(weights[peer], batches[peer])
        assert losses[peer] == pytest.approx(loss, rel=1e-5)
        assert relative(gradients[peer], gradient) < 1e-5
    assert problem.notes == []  # none fell back


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_batches_of_different_sizes_may_come_together(name: str) -> None:
    problem = MODELS[name].problem(9, Iid(), 0)
    weights = np.repeat(problem.initial[None], 9, axis=0)
    batches = [problem.sampler(peer, np.random.default_rng(peer)).draw(8 + peer % 3) for peer in range(9)]
    _, gradients = problem.gradients(weights, batches)
    for row, batch in zip(gradients, batches, strict=True):
        assert relative(row, problem.gradient(problem.initial, batch)[1]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_scores_of_many_models_are_those_of_each(name: str) -> None:
    problem = MODELS[name].problem(2, Iid(), 0)
    rng = np.random.default_rng(0)
    models = problem.initial + 0.1 * rng.standard_normal((5, problem.size)).astype(np.float32)
    loss, accuracy = problem.evaluate(models)
    for k, model in enumerate(models):
        alone_loss, alone_accuracy = problem.evaluate(model[None])
        assert loss[k] == pytest.approx(alone_loss[0], rel=1e-5)
        assert accuracy[k] == pytest.approx(alone_accuracy[0], abs=1 / 300)


def test_score_is_what_torch_says() -> None:
    problem = MODELS["logistic"].problem(2, Iid(), 0)
    matrix = problem.initial.reshape(65, 10).astype(np.float64)
    logits = torch.from_numpy(problem.arrays["test_x"].astype(np.float64) @ matrix)
    labels = torch.from_numpy(np.array(problem.arrays["test_y"]))
    loss, accuracy = problem.evaluate(problem.initial[None])
    assert loss[0] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert accuracy[0] == pytest.approx((logits.argmax(1) == labels).double().mean().item())


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_huge_weights_give_finite_answers_and_infinite_ones_no_warning(name: str) -> None:
    problem, weights, batch = start(MODELS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss, gradient = problem.gradient(weights * 1e6, batch)
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()
        assert np.isfinite(problem.evaluate(weights[None] * 1e6)[0]).all()
        loss, _ = problem.gradient(np.full_like(weights, np.inf), batch)
        assert np.isnan(loss)
        assert np.isnan(problem.evaluate(np.full_like(weights, np.inf)[None])[0]).all()


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_left_alone_and_a_kept_gradient_stays(name: str) -> None:
    problem, weights, batch = start(MODELS[name])
    before = weights.copy()
    _, kept = problem.gradient(weights, batch)
    copy, view = kept.copy(), problem.gradient(weights * 2, batch)[1][10:20]
    seen = view.copy()
    for _ in range(5):
        problem.gradient(weights * 3, batch)
    assert np.array_equal(kept, copy)
    assert np.array_equal(view, seen)
    assert np.array_equal(weights, before)


def test_memory_is_used_again_once_no_reference_is_left() -> None:
    vectors = Vectors(10, lambda flat: [flat[:5], flat[5:].reshape(1, 5)])
    places, held = set(), None
    for _ in range(20):
        held = vectors.take().vector
        places.add(held.__array_interface__["data"][0])
    assert len(places) == 2  # the one held while the next is asked for, and that one
    many = [vectors.take().vector for _ in range(6)]
    assert len({vector.__array_interface__["data"][0] for vector in [*many, held]}) == 7


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_same_bits_and_another_seed_another_start(name: str) -> None:
    first, again = start(MODELS[name], seed=3), start(MODELS[name], seed=3)
    assert np.array_equal(first[1], again[1])
    assert np.array_equal(first[0].gradient(first[1], first[2])[1], again[0].gradient(again[1], again[2])[1])
    assert not np.array_equal(first[1], start(MODELS[name], seed=4)[1])


def test_the_networks_own_start_has_the_same_law_as_torchs() -> None:
    ours = cnn.initial(np.random.default_rng(0))
    torch.manual_seed(0)
    theirs = [parameter.detach().numpy().reshape(-1) for parameter in cnn.network().parameters()]
    at = 0
    for wanted in theirs:
        found = ours[at : at + len(wanted)]
        at += len(wanted)
        assert np.abs(found).max() == pytest.approx(np.abs(wanted).max(), rel=0.35, abs=1e-12)
    assert at == len(ours)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "steps"), [(MODELS["mlp"], 300), (MODELS["logistic"], 300), (MODELS["cnn"], 150)])
def test_plain_gradient_descent_learns_the_digits(task: Digits, steps: int) -> None:
    problem = task.problem(1, Iid(), 0)
    weights, sampler = problem.initial.copy(), problem.sampler(0, np.random.default_rng(1))
    assert problem.evaluate(weights[None])[1][0] < 0.3
    for _ in range(steps):
        weights -= 0.1 * problem.gradient(weights, sampler.draw(32))[1]
    loss, accuracy = problem.evaluate(weights[None])
    assert accuracy[0] > 0.9
    assert loss[0] < 0.4


@pytest.mark.parametrize("task", [*MODELS.values(), Quadratic(noise=1.0)])
def test_no_model_at_all_is_scored_as_nothing(task: AnyTask) -> None:
    problem = task.problem(2, Iid(), 0)
    loss, accuracy = problem.evaluate(np.empty((0, problem.size), dtype=np.float32))
    assert loss.shape == accuracy.shape == (0,)
