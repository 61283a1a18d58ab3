"""Strategies that exchange gradients go on when peers die, and survivors differ by no more than what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Access
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies.ako import Ako
from grapevine.peer.strategies.dgc import DGC
from grapevine.peer.strategies.dlion import DLion
from grapevine.peer.strategies.full import Full
from grapevine.peer.strategies.gaia import Gaia
from grapevine.peer.strategies.tfako import TFAko
from tests.experiments.strategies.fleets import (
    asked,
    carried_out,
    normal_targets,
)

VECTORS = normal_targets(8, 240)

ALL = [Ako(schedule="rates"), Ako(schedule="fixed"), TFAko(), Gaia(), DGC(warmup_steps=2), DLion(transfer_every=4),
       DLion(prioritized=False)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ALL, ids=lambda strategy: type(strategy).__name__)
def test_the_others_go_on_when_peers_die(tmp_path: Path, strategy: Any) -> None:
    for at_ms in (3, 61, 118):
        losses = [(at_ms * 10**6, 2), (at_ms * 10**6 + 13_000_000, 0)]
        found, outcome = carried_out(tmp_path, asked(5, task=Quadratic(targets=VECTORS[:5]), strategy=strategy), losses)
        assert list(outcome.peers_lost) == [0, 2]
        assert all(peer.step == 30 for peer in found if peer.id in (1, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [Full(), DGC(sparsity=0.9, warmup_steps=0, momentum=0.0)], ids=["full", "dgc"])
def test_what_survivors_differ_by_after_a_loss_stays_as_it_is(tmp_path: Path, strategy: Any) -> None:
    """A peer is lost in the middle of a broadcast over unequal links: some got its last gradient, and nobody settles that."""
    network = Access(lines=("unlimited",), links=("4 Mbit/s", "1 Mbit/s", "500 kbit/s", "300 kbit/s"), delay="3 ms")
    apart = []
    for at_ms in range(50, 110, 4):
        found: dict[int, np.ndarray] = {}
        for steps in (15, 30):
            peers, _ = carried_out(
                tmp_path,
                asked(4, task=Quadratic(targets=VECTORS[:4], noise=1.0), strategy=strategy, network=network,
                      stop=Stop(steps=steps), optimizer=Sgd(learning_rate=0.02)),
                [(at_ms * 10**6, 0)],
            )  # fmt: skip
            found[steps] = np.array([peer.weights - peers[1].weights for peer in peers[2:]])
        np.testing.assert_allclose(found[15], found[30], atol=1e-5)
        apart.append(np.abs(found[30]).max())
    assert 0.01 < max(apart) < 0.2
