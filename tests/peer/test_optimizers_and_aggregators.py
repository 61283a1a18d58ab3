"""Optimizers against torch's, aggregators against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grapevine.peer.aggregators import BLOCK, Aggregator, Mean, Median, TrimmedMean
from grapevine.peer.optimizers import Adam, AnyOptimizer, Sgd

CASES: list[tuple[AnyOptimizer, type[torch.optim.Optimizer], dict[str, float | bool | tuple[float, float]]]] = [
    (Sgd(learning_rate=0.1), torch.optim.SGD, {"lr": 0.1}),
    (Sgd(learning_rate=0.1, momentum=0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (Sgd(learning_rate=0.1, momentum=0.9, nesterov=True), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (Sgd(learning_rate=0.1, weight_decay=0.01), torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    (Adam(learning_rate=0.01), torch.optim.Adam, {"lr": 0.01}),
    (Adam(beta1=0.5, beta2=0.9, weight_decay=0.1), torch.optim.Adam, {"lr": 0.001, "betas": (0.5, 0.9), "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_steps_equal_torchs(ours: AnyOptimizer, theirs: type[torch.optim.Optimizer], options: dict) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=50).astype(np.float32)
    parameter = torch.nn.Parameter(torch.tensor(weights))
    stepper, reference = ours.start(50), theirs([parameter], **options)
    for _ in range(20):
        gradient = rng.normal(size=50).astype(np.float32)
        before = gradient.copy()
        stepper.step(weights, gradient)
        assert np.array_equal(gradient, before)
        parameter.grad = torch.tensor(gradient)
        reference.step()
    np.testing.assert_allclose(weights, parameter.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="momentum"):
        Sgd(nesterov=True)


ROWS = [np.array(row, np.float32) for row in ([0, 10, 1], [1, 20, 2], [2, 30, 900], [-99, 40, 4])]


def combined(aggregator: Aggregator, rows: list[np.ndarray], weights: list[float]) -> list[float]:
    out = np.full(len(rows[0]), np.nan, np.float32)
    aggregator.combine(rows, weights, out)
    return out.tolist()


def test_mean_is_weighted() -> None:
    assert combined(Mean(), ROWS[:2], [0.25, 0.75]) == [0.75, 17.5, 1.75]


def test_mean_of_long_vectors_is_the_same_in_every_block() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=2 * BLOCK + 5).astype(np.float32) for _ in range(3)]
    np.testing.assert_allclose(combined(Mean(), rows, [0.2, 0.3, 0.5]), np.average(rows, 0, [0.2, 0.3, 0.5]), atol=1e-6)


def test_median_and_trimmed_mean_ignore_an_outlier() -> None:
    assert combined(Median(), ROWS, [0.25] * 4) == [0.5, 25.0, 3.0]
    assert combined(TrimmedMean(trim=1), ROWS, [0.25] * 4) == [0.5, 25.0, 3.0]
    assert combined(TrimmedMean(trim=9), ROWS[:1], [1.0]) == [0, 10, 1]
