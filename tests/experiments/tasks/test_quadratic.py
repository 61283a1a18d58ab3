"""The quadratic's exact laws."""

import numpy as np
import pytest

from grapevine.experiments.tasks import Dirichlet, Iid, Quadratic, QuadraticProblem


def make(peers: int = 4, **fields: object) -> QuadraticProblem:
    return Quadratic(**fields).problem(peers, Iid(), 0)  # type: ignore[arg-type]


def test_targets_are_the_peers_numbers_when_left_out_and_the_start_is_zero() -> None:
    problem = make(5)
    assert problem.size == 1
    assert problem.samples == [1] * 5
    assert problem.arrays["targets"].tolist() == [[0], [1], [2], [3], [4]]
    assert problem.initial.tolist() == [0]
    assert problem.initial.dtype == np.float32
    assert problem.optimum().tolist() == [2]


def test_numbers_fill_every_coordinate() -> None:
    problem = make(2, targets=(1.0, (2.0, 3.0)), start=7.0)
    assert problem.arrays["targets"].tolist() == [[1, 1], [2, 3]]
    assert problem.initial.tolist() == [7, 7]
    assert make(3, dimension=100).size == 100


def test_targets_may_come_as_an_array() -> None:
    task = Quadratic(targets=np.array([[1, 2], [3, 4]]), start=[5, 6])  # type: ignore[arg-type]
    assert task == Quadratic(targets=((1.0, 2.0), (3.0, 4.0)), start=(5.0, 6.0))


def test_gradient_is_the_way_from_the_target_and_the_loss_half_its_square() -> None:
    problem = make(2, targets=((1.0, 2.0), (-1.0, 0.5)))
    loss, gradient = problem.gradient(np.array([4, 6], dtype=np.float32), problem.sampler(0, np.random.default_rng(0)).draw(1))
    assert loss == 12.5
    assert gradient.tolist() == [3, 4]
    assert gradient.dtype == np.float32


def test_gradient_descent_contracts_by_exactly_one_minus_the_rate() -> None:
    problem = make(3, targets=(8.0, 16.0, 24.0))
    for peer, target in enumerate((8.0, 16.0, 24.0)):
        weights, sampler = problem.initial.copy(), problem.sampler(peer, np.random.default_rng(0))
        for step in range(1, 9):
            weights -= np.float32(0.5) * problem.gradient(weights, sampler.draw(32))[1]
            assert weights[0] == target * (1 - 0.5**step)  # powers of two: exact in float32


def test_gradients_cancel_at_the_optimum_and_the_score_is_the_mean_loss() -> None:
    rng = np.random.default_rng(1)
    problem = make(6, targets=rng.standard_normal((6, 5)))
    batches = [problem.sampler(peer, np.random.default_rng(peer)).draw(1) for peer in range(6)]
    optimum = problem.optimum()
    point = optimum.astype(np.float32)
    losses, gradients = problem.gradients(np.repeat(point[None], 6, axis=0), batches)
    assert np.abs(gradients.mean(axis=0)).max() < 1e-6
    score, accuracy = problem.evaluate(point[None])
    assert score[0] == pytest.approx(losses.mean(), rel=1e-6)
    assert score[0] == pytest.approx(0.5 * problem.arrays["targets"].var(axis=0).sum(), rel=1e-6)
    assert np.isnan(accuracy).all()
    others = problem.evaluate(point + rng.standard_normal((20, 5)).astype(np.float32))[0]
    assert (others > score[0]).all()


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    problem = make(7, dimension=50, noise=0.3)
    weights = np.random.default_rng(2).standard_normal((7, 50)).astype(np.float32)
    batches = [problem.sampler(peer, np.random.default_rng(peer)).draw(1) for peer in range(7)]
    losses, gradients = problem.gradients(weights, batches)
    for peer in range(7):
        loss, gradient = problem.gradient(weights[peer], batches[peer])
        assert losses[peer] == pytest.approx(loss, rel=1e-5)
        assert np.array_equal(gradients[peer], gradient)


def test_noise_has_the_asked_deviation_and_leaves_the_loss_alone() -> None:
    problem = make(1, targets=(0.0,), noise=3.0, dimension=20_000)
    sampler = problem.sampler(0, np.random.default_rng(0))
    loss, noise = problem.gradient(np.zeros(20_000, dtype=np.float32), sampler.draw(64))
    assert loss == 0
    assert noise.std() == pytest.approx(3, rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.1)
    _, other = problem.gradient(np.zeros(20_000, dtype=np.float32), sampler.draw(64))
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.05


def test_a_kept_gradient_stays() -> None:
    problem = make(2)
    batch = problem.sampler(1, np.random.default_rng(0)).draw(1)
    _, kept = problem.gradient(problem.initial, batch)
    problem.gradient(problem.initial + 5, batch)
    assert kept.tolist() == [-1]


def test_wrong_number_of_targets_and_a_partition_are_refused() -> None:
    with pytest.raises(ValueError, match="2 entries for 3 peers"):
        make(3, targets=(0.0, 1.0))
    with pytest.raises(ValueError, match="no data to split"):
        Quadratic().problem(3, Dirichlet(), 0)
