"""Exact laws of tfako, and of what it shares with ako, through the whole stack in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import MixedDevices, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.peer import Peer
from grapevine.peer.strategies.ako import Ako
from grapevine.peer.strategies.tfako import TFAko
from tests.experiments.strategies.fleets import (
    NARROW,
    WIDE,
    asked,
    carried_out,
    listen,
    normal_targets,
)

VECTORS = normal_targets(8, 240)


def test_tfako_adapts_frequency_and_size_to_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """m = 80 kB, steps of 20 ms, 1 Mbit/s = 2.5 kB a step: R = 32, so with p_max = 8 every 4th step an eighth."""
    said = listen(monkeypatch)
    carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=WIDE), strategy=TFAko(parts_most=8), network=NARROW, stop=Stop(steps=160),
              devices=UniformDevices(speed="50 samples/s")),
    )  # fmt: skip
    to_one = [message for message in said if (message.source, message.target) == (0, 1) and message.step > 60]
    steps = sorted({message.step for message in to_one})
    assert np.median(np.diff(steps)) == pytest.approx(4, abs=1)
    elements = sum(len(message.payload.values) for message in to_one)
    assert elements / (steps[-1] - steps[0]) * 4 == pytest.approx(2500, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [Ako(), Ako(schedule="room"), Ako(schedule="fixed", parts=3), TFAko(), TFAko(scaling=True)],
    ids=str,
)
def test_all_peers_end_at_the_sum_of_everybodys_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any) -> None:
    """Once training has stopped and everything is delivered, every peer stands at x_0 - eta / n sum_j sum_t s_j(t) g_j(t).

    Speeds and batches differ: with `scaling` tfako's s is the peer's speed over the mean of those it has heard of; without it,
    and in ako, all gradients count alike.
    """
    scaled: list[np.ndarray] = []
    scales: list[float] = []
    gradient, scale = Peer.gradient, TFAko._scale

    async def twenty(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        if peer.step >= 20:
            return np.zeros_like(found)
        scaled.append(found.astype(float))
        peer.batch_size = 1 + (peer.step + peer.id) % 3
        return found

    def kept(self: TFAko, peer: Peer, speeds: dict[int, float]) -> tuple[float, tuple[float, ...]]:
        found = scale(self, peer, speeds)
        if peer.step < 20:
            scales.append(found[0])
            scaled[-1] *= found[0]
        return found

    monkeypatch.setattr(Peer, "gradient", twenty)
    monkeypatch.setattr(TFAko, "_scale", kept)
    devices = MixedDevices(speeds=("320 samples/s", "160 samples/s", "80 samples/s", "40 samples/s"))
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, devices=devices, network=NARROW,
              stop=Stop(time="8 s"), optimizer=Sgd(learning_rate=0.01)),
    )  # fmt: skip
    assert len(scaled) == 80
    if strategy == TFAko(scaling=True):
        assert max(scales) > 1.5  # 8 : 4 : 2 : 1
        assert min(scales) < 0.5
    for peer in found:
        np.testing.assert_allclose(peer.weights, -0.01 / 4 * sum(scaled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", [Ako(), TFAko()], ids=["ako", "tfako"])
def test_after_a_loss_gradients_are_divided_by_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    """New gradients by the survivors' number, older ones as they were made: survivors end alike, but for what died."""
    owed: dict[int, list[np.ndarray]] = {}
    gradient = Peer.gradient

    async def forty(peer: Peer) -> np.ndarray:
        found = await gradient(peer)
        if peer.step >= 40 or peer.id == 3:  # the lost one adds nothing
            return np.zeros_like(found)
        owed.setdefault(peer.id, []).append(found.astype(float) / (1 + len(peer.neighbours)))
        return found

    monkeypatch.setattr(Peer, "gradient", forty)
    found, _ = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, network=NARROW, stop=Stop(time="2 s"),
              optimizer=Sgd(learning_rate=0.01)),
        [(203_000_000, 3)],
    )  # fmt: skip
    total = sum(sum(each) for each in owed.values())
    for peer in found[:3]:
        np.testing.assert_allclose(peer.weights, -0.01 * total, rtol=1e-5, atol=1e-5)
