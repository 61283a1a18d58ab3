"""Exact laws of dgc, through the whole stack in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.tasks import Quadratic
from grapevine.peer.codecs import Float32, Int8
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Sparse
from grapevine.peer.strategies.dgc import DGC
from tests.experiments.strategies.fleets import (
    RATE,
    asked,
    carried_out,
    gradients,
    listen,
    normal_targets,
)

VECTORS = normal_targets(8, 240)


@pytest.mark.parametrize("nesterov", [False, True])
def test_dgc_at_sparsity_0_is_dense_momentum_sgd(tmp_path: Path, nesterov: bool) -> None:
    strategy = DGC(sparsity=0.0, momentum=0.9, nesterov=nesterov)
    found, _ = carried_out(
        tmp_path, asked(8, task=Quadratic(targets=VECTORS), strategy=strategy, optimizer=Sgd(learning_rate=0.02))
    )
    mean, weights, velocity = np.mean(VECTORS, axis=0), np.zeros(240), np.zeros(240)
    for _ in range(30):
        velocity = 0.9 * velocity + (weights - mean)
        weights = weights - 0.02 * (weights - mean + 0.9 * velocity if nesterov else velocity)
    for peer in found:
        assert np.array_equal(peer.weights, found[0].weights)
        np.testing.assert_allclose(peer.weights, weights, atol=2e-5)


@pytest.mark.parametrize("codec", [Float32(), Int8()], ids=["float32", "int8"])
def test_dgc_keeps_what_it_does_not_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Any) -> None:
    """Residual + sent = all velocities; the weights are what was sent, nothing else; each sends its largest tenth."""
    said, made = listen(monkeypatch), gradients(monkeypatch)
    strategy = DGC(sparsity=0.9, warmup_steps=5, momentum=0.0)
    found, _ = carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, codec=codec))
    sent = np.zeros(240)
    for message in said:
        if message.target == (message.source + 1) % 4:
            assert isinstance(message.payload, Sparse)
            assert len(message.payload.values) == (60 if message.step < 5 else 24)
            sent[message.payload.where()] += message.payload.values
    for peer in found:
        assert peer.ledger is not None
        np.testing.assert_allclose(peer.ledger.total, sum(made[peer.id]), atol=1e-4)
        np.testing.assert_allclose(peer.weights, -RATE * sent / 4, atol=1e-5)
    paid = sum(peer.ledger.paid[peer.id] for peer in found if peer.ledger is not None)
    np.testing.assert_allclose(paid, sent, atol=1e-4)


@pytest.mark.parametrize("size", [1, 10, 100, 1000, 10_000, 123_457])
def test_dgc_sends_the_share_that_is_not_held_back_rounded_up(size: int) -> None:
    """ceil((1 - s) size) of the decimal s, not of the nearest number of base 2; never nothing."""
    for thousandths in range(1000):
        strategy = DGC(sparsity=thousandths / 1000, warmup_steps=0)
        assert strategy.count_at(0, size) == -(-(1000 - thousandths) * size // 1000)
    assert DGC(sparsity=1 - 1e-12, warmup_steps=0).count_at(0, size) == 1


def test_dgc_masks_the_velocity_of_what_was_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """u <- m u + g, v <- v + u, and both begin anew where something went out: replayed element by element."""
    said, made = listen(monkeypatch), gradients(monkeypatch)
    strategy = DGC(sparsity=0.8, warmup_steps=0, momentum=0.9, clip=10.0)
    carried_out(tmp_path, asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, optimizer=Sgd(learning_rate=0.01)))
    velocity, residual = np.zeros(240), np.zeros(240)
    mine = {message.step: message.payload for message in said if (message.source, message.target) == (2, 0)}
    for step, gradient in enumerate(made[2]):
        norm = np.linalg.norm(gradient)
        velocity = 0.9 * velocity + gradient * min(1.0, 10.0 * 2 / norm)
        residual += velocity
        where = mine[step].where()
        np.testing.assert_allclose(mine[step].values, residual[where], rtol=1e-4, atol=1e-4)
        rest = np.delete(residual, where)
        assert np.abs(rest).max() <= np.abs(residual[where]).min() + 1e-4
        velocity[where] = residual[where] = 0


def test_dgc_clips_as_the_paper_does_where_gradients_are_averaged() -> None:
    """Section 3.2: sum over N of clip(1/(N b) sum over the batch, thr / sqrt(N)); here it is the mean of what was clipped."""
    rng, thr = np.random.default_rng(4), 0.7
    for peers in (1, 4, 9):
        batches = rng.normal(0, 1, (peers, 32, 10))  # the gradient of each sample
        local = batches.sum(axis=1) / (peers * 32)
        norms = np.linalg.norm(local, axis=1, keepdims=True)
        published = (local * np.minimum(1, thr / np.sqrt(peers) / norms)).sum(axis=0)
        clipped = [DGC(clip=thr)._clipped(batch.mean(axis=0), peers) for batch in batches]
        np.testing.assert_allclose(np.mean(clipped, axis=0), published, rtol=1e-5)
        orthogonal = 100 * np.eye(peers)  # all are clipped, and none looks where another does
        ours = [DGC(clip=thr)._clipped(gradient, peers) for gradient in orthogonal]
        assert np.linalg.norm(np.mean(ours, axis=0)) == pytest.approx(thr)
