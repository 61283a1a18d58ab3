"""What arrives is checked before a strategy sees it: random well-formed messages, and training that diverges by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.tasks import Quadratic
from grapevine.peer.message import Message
from grapevine.peer.optimizers import Sgd
from grapevine.peer.payloads import Dense, Marks, Payload, Sparse
from grapevine.peer.strategies import (
    ADPSGD,
    DGC,
    DPSGD,
    Ako,
    AllReduce,
    DLion,
    FedAvg,
    Full,
    Gaia,
    ParameterServer,
    Slices,
    Solo,
    TFAko,
)
from tests.experiments.strategies.fleets import asked, make_world

SIZE = 24
MENU = [
    Solo(), DPSGD(), DPSGD(order="adapt-then-combine"), Full(), AllReduce(), ParameterServer(),
    ParameterServer(servers=2, mode="ssp"), ParameterServer(mode="asp", overlap=True), FedAvg(),
    FedAvg(fraction=0.5, deadline_s=0.1), ADPSGD(), Ako(), Ako(schedule="room"), Ako(schedule="fixed"),
    TFAko(), DLion(transfer_every=4, adjust_every=3), Gaia(), DGC(warmup_steps=2), Slices(),
]  # fmt: skip


def random_message(rng: np.random.Generator, peers: int, target: int, now_ns: int) -> Message:
    """A message that decodes: any payload, values and scalars of any kind, a step about the present one."""
    values = rng.normal(0, 3, int(rng.choice([0, 1, 5, SIZE]))).astype(np.float32)
    if len(values) and rng.random() < 0.3:
        values[rng.integers(len(values))] = rng.choice([np.nan, np.inf, -np.inf])
    indices = np.sort(rng.choice(SIZE, len(values), replace=False)).astype(np.uint32)
    payload: Payload = Dense(values, int(rng.integers(SIZE - len(values) + 1)))
    if (kind := rng.random()) < 0.4:
        payload = Sparse(indices, values) if kind < 0.3 else Marks(indices)
    numbers = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, -1.0, 1e9, 1e300, -1e300, np.nan, np.inf, -np.inf]
    scalars = tuple(float(x) for x in rng.choice(numbers, int(rng.integers(0, 7)), p=[0.1, 0.2, 0.2, *[0.5 / 12] * 12]))
    source = int(rng.choice([peer for peer in range(peers) if peer != target]))
    return Message(source, int(rng.integers(0, 31)), payload, scalars, now_ns)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", MENU, ids=lambda strategy: type(strategy).__name__)
def test_no_message_breaks_a_strategy(tmp_path: Path, strategy: Any) -> None:
    """Well-formed messages from anybody at any time: no strategy raises, and no weight becomes nan or infinite."""
    peers, refused = 5, 0
    task = Quadratic(targets=(3.0, -1.0, 4.0, 1.0, -5.0), dimension=SIZE)
    for seed in range(2):
        rng = np.random.default_rng([seed, 7])
        world = make_world(tmp_path, asked(peers, task=task, strategy=strategy, seed=seed, stop=Stop(time="600 ms")))
        for at_ns in sorted(rng.integers(1_000_000, 500_000_000, 300)):
            member = world.members[int(rng.integers(peers))]
            message = random_message(rng, peers, member.peer.id, int(at_ns))
            world._at(int(at_ns), world._deliver, member, message)
        outcome = world.run()
        assert outcome.peers_lost == [], outcome.reason
        assert np.isfinite(outcome.weights).all()
        refused += sum(sum(member.peer.errors.values()) for member in world.members)
        assert all(member.peer.errors["sent-empty"] == 0 for member in world.members)
    assert refused > 50 or isinstance(strategy, Solo)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", MENU, ids=lambda strategy: type(strategy).__name__)
def test_training_that_diverges_ends_and_is_called_so(tmp_path: Path, strategy: Any) -> None:
    """A far too high learning rate: nobody waits for ever for values that are not finite, and the run says who made them."""
    experiment = asked(
        5, task=Quadratic(targets=(3.0, -1.0, 4.0, 1.0, -5.0), dimension=SIZE), strategy=strategy, stop=Stop(steps=60),
        optimizer=Sgd(learning_rate=1e6),
    )  # fmt: skip
    world = make_world(tmp_path, experiment)
    outcome = world.run()
    assert outcome.completed, outcome.reason
    diverged = not np.isfinite(outcome.weights).all() or any("training diverged" in warning for warning in outcome.warnings)
    assert diverged or np.abs(outcome.weights).max() > 1e20
    assert not any("not-finite" in warning for warning in outcome.warnings)
