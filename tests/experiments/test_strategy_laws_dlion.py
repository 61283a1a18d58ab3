"""Exact laws of dlion's knowledge transfer: what is counted, who is asked, what is kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config import Stop
from experiments.tasks import Quadratic
from netem import MixedDevices, Uniform
from peer.optimizers import Sgd
from peer.peer import Peer
from peer.strategies.dlion import DLion
from tests.experiments.strategy_fleets import asked, carried_out, listen

VECTORS = tuple(tuple(float(x) for x in row) for row in np.random.default_rng(5).normal(0, 3, (8, 1200)))


@pytest.mark.parametrize("peers", [2, 3, 5])
@pytest.mark.parametrize("rate", [0.3, 0.75, 1.0])
def test_a_transfer_counts_no_gradient_twice_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers: int, rate: float
) -> None:
    """Training stops after 200 steps, exchange and transfers go on until nothing is owed: x_i = x_0 - eta / n (sum of all)."""
    made = [np.zeros(1200) for _ in range(peers)]
    gradient = Peer.gradient

    async def ends(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        if peer.step >= 200:
            return np.zeros_like(found)
        made[peer.id] += found
        return found

    said = listen(monkeypatch)
    monkeypatch.setattr(Peer, "gradient", ends)
    strategy = DLion(batching=False, weighting="none", transfer_every=20, transfer_rate=rate)
    found, _ = carried_out(
        tmp_path,
        asked(peers, task=Quadratic(targets=VECTORS[:peers]), strategy=strategy, optimizer=Sgd(learning_rate=0.02),
              devices=MixedDevices(speeds=("100 samples/s", "70 samples/s")), stop=Stop(time="12 s"),
              network=Uniform(rate="300 kbit/s", delay="30 ms")),
    )  # fmt: skip
    given = [message for message in said if message.scalars[0] == 2.0]
    early = [message for message in given if message.step < 200]
    assert len(early) > 5 * (peers - 1)
    expected = -0.02 / peers * sum(made)
    print(len(given), len(early), [float(np.abs(peer.weights - expected).max()) for peer in found], np.abs(expected).max())
    for peer in found:
        np.testing.assert_allclose(peer.weights, expected, atol=2e-4)
