"""Strategies with spaces of their own through the whole stack, codecs that draw, and the layout in use; in both worlds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import ConfigError, Dense, Digits, Expected, Experiment, Facts, Peer, Space, Strategy, run
from grapevine.experiments.config.experiment import Record, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.codecs import QSGD, Int8
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import DPSGD, Slices
from grapevine.topology.graphs.menu import Complete
from tests.experiments.strategies.fleets import carried_out, gradients, listen

RATE = 0.1
TARGETS = ((3.0, -1.0, 4.0, 1.0, -5.0), (9.0, 2.0, -6.0, 5.0, 3.0), (-5.0, 8.0, 9.0, 7.0, -9.0))


class Voting(Strategy, frozen=True, tag="voting"):
    """Each peer votes for the coordinate in which its gradient is largest; only coordinates with votes are trained."""

    def spaces(self, facts: Facts) -> tuple[Space, ...]:
        return (Space("votes", facts.size, "uint32"),)

    def expects(self, peer: Peer) -> tuple[Expected, ...]:
        return Expected("whole"), Expected("whole", space="votes")

    async def run(self, peer: Peer) -> None:
        weight = np.uint32(2**32 - 1 - peer.id)  # neither half precision nor eight bits could hold it
        while peer.running:
            own = await peer.broadcast_model()
            gradient = await peer.gradient()
            votes = np.zeros(peer.size, np.uint32)
            votes[np.argmax(np.abs(gradient))] = weight
            await peer.broadcast(Dense(votes, space="votes"))
            models = await peer.gather(peer.step)
            ballots = await peer.gather(peer.step, space="votes")
            tally = votes + sum(ballot.payload.values.astype(np.uint64) for ballot in ballots)
            assert all(int(count) in _SUMS for count in tally)
            peer.mix(models, own)
            peer.apply(np.where(tally > 0, gradient, np.float32(0)))


_SUMS = {sum(2**32 - 1 - peer for peer in range(3) if chosen >> peer & 1) for chosen in range(8)}


def voting(**changes: Any) -> Experiment:
    base = Experiment(
        peers=3, world=Virtual(), topology=Complete(), task=Quadratic(targets=TARGETS), strategy=Voting(),
        devices=UniformDevices(speed="200 samples/s"), network=Uniform(rate="1 Mbit/s", delay="5 ms"),
        optimizer=Sgd(learning_rate=RATE), stop=Stop(steps=40), record=Record(report=False),
    )  # fmt: skip
    return base.replace(**changes)


def voted(steps: int) -> np.ndarray:
    """The same, written down with matrices: all hear all, so W is the mean."""
    models, targets = np.zeros((3, 5)), np.array(TARGETS)
    for _ in range(steps):
        pull = models - targets
        chosen = np.isin(np.arange(5), np.argmax(np.abs(pull), axis=1))
        models = models.mean(axis=0) - RATE * np.where(chosen, pull, 0.0)
    return models


def test_votes_and_models_travel_side_by_side(tmp_path: Path) -> None:
    result = run(voting(), out=tmp_path / "run")
    assert result.summary["completed"]
    np.testing.assert_allclose(result.weights, voted(40), atol=1e-5)
    assert result.summary["messages_sent"] == 3 * 2 * 2 * 40
    assert not any("refused" in warning for warning in result.summary["warnings"])


@pytest.mark.live
def test_both_worlds_vote_alike(tmp_path: Path) -> None:
    """Over sockets, as bytes, with a codec that rounds at random: what is drawn is the peers' own, and votes are exact."""
    asked = voting(codec=QSGD(bucket=4), stop=Stop(steps=25))
    virtual = run(asked, out=tmp_path / "virtual")
    live = run(asked.replace(world=Experiment().world), out=tmp_path / "live")
    assert live.summary["completed"], live.summary["reason"]
    assert not any("refused" in warning for warning in live.summary["warnings"])
    np.testing.assert_allclose(live.weights, virtual.weights, atol=1e-6)
    assert not np.allclose(virtual.weights, voted(25), atol=1e-3)  # since the codec rounds the models


class Odd(Strategy, frozen=True, tag="odd"):
    """Declares whatever it is given."""

    declared: Any

    def spaces(self, facts: Facts) -> tuple[Space, ...]:
        return self.declared

    async def run(self, peer: Peer) -> None:
        return


def test_spaces_that_cannot_be_are_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="strategy: space 'a' has 0 elements"):
        build(voting(strategy=Odd(declared=(Space("a", 0),))))


def test_sizes_may_depend_on_the_task(tmp_path: Path) -> None:
    fleet = build(voting(task=Digits(hidden=(16,)), peers=4, strategy=RankOne()))
    assert fleet.spaces == (Space("left", 64), Space("right", 16))


class RankOne(Strategy, frozen=True, tag="rank-one"):
    """Shares the best rank-1 approximation of the largest tensor's gradient, as its two factors; trains nothing else."""

    def spaces(self, facts: Facts) -> tuple[Space, ...]:
        rows, columns = facts.layout.largest.shape
        return Space("left", rows), Space("right", columns)

    async def run(self, peer: Peer) -> None:
        tensor = peer.layout.largest
        while peer.running:
            u, s, vt = np.linalg.svd(tensor.view(await peer.gradient()), full_matrices=False)
            update = np.zeros(peer.size, np.float32)
            tensor.view(update)[:] += np.outer(u[:, 0] * s[0], vt[0])
            await peer.broadcast(Dense(u[:, 0] * s[0], space="left"))
            await peer.broadcast(Dense(vt[0], space="right"))
            lefts = await peer.gather(peer.step, space="left")
            for left, right in zip(lefts, await peer.gather(peer.step, space="right"), strict=True):
                tensor.view(update)[:] += np.outer(left.payload.values, right.payload.values)
            peer.apply(update / np.float32(peer.peers))


def test_the_largest_tensor_is_trained_by_its_rank_one_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All peers stay equal, the other tensors do not move, and each step is the mean of the best approximations."""
    made = gradients(monkeypatch)
    said = listen(monkeypatch)
    asked = voting(task=Digits(hidden=(16,)), strategy=RankOne(), stop=Stop(steps=3))
    initial = build(asked).problem.initial
    found, outcome = carried_out(tmp_path, asked)
    tensor = found[0].layout.largest
    assert tensor.shape == (64, 16)
    moved = np.zeros(tensor.shape)
    for step in range(3):
        for peer in range(3):
            u, s, vt = np.linalg.svd(tensor.view(made[peer][step]))
            moved -= RATE / 3 * s[0] * np.outer(u[:, 0], vt[0])
    for weights in outcome.weights:
        np.testing.assert_allclose(tensor.view(weights - initial), moved, atol=1e-5)
        assert np.array_equal(np.delete(weights, np.r_[tensor.where()]), np.delete(initial, np.r_[tensor.where()]))
    assert {(one.payload.space, one.payload.count) for one in said} == {("left", 64), ("right", 16)}


def test_dpsgd_keeps_the_mean_with_a_codec_that_draws(tmp_path: Path) -> None:
    """One draw for all who hear it, which the sender knows too: what one takes the others give."""
    result = run(voting(strategy=DPSGD(), codec=QSGD(levels=8, bucket=2), stop=Stop(steps=60)), out=tmp_path / "run")
    expected = np.mean(TARGETS, axis=0) * (1 - (1 - RATE) ** 60)
    np.testing.assert_allclose(result.weights.mean(axis=0, dtype=float), expected, atol=1e-4)


def test_other_draws_stay_when_the_codec_draws(tmp_path: Path) -> None:
    """Slices choose at random what to send; that does not depend on the codec where both cost the same bytes."""
    task = Quadratic(targets=(1.0, 2.0, 3.0), dimension=3000)
    link = Uniform(rate="200 kbit/s", delay="5 ms")
    picked: list[list[Any]] = []
    for number, codec in enumerate([Int8(), QSGD(bucket=1024)]):
        with pytest.MonkeyPatch.context() as patch:
            said = listen(patch)
            carried_out(tmp_path, voting(strategy=Slices(), task=task, network=link, codec=codec, stop=Stop(steps=20)))
            picked.append([(one.source, one.target, one.step, one.payload.where()) for one in said])
        assert picked[number]
    assert picked[0] == picked[1]


PROGRAM = """
import sys
from grapevine import Experiment, run
print(run(Experiment.read(sys.argv[1]), out=sys.argv[2]).summary["digest"])
"""


@pytest.mark.slow
def test_a_codec_that_draws_gives_the_same_digest_everywhere(tmp_path: Path) -> None:
    asked = Experiment(
        world=Virtual(), peers=4, task=Digits(hidden=(32,)), codec=QSGD(levels=15), stop=Stop(steps=8),
        devices=UniformDevices(speed="1000 samples/s"),
    )  # fmt: skip
    file = tmp_path / "asked.toml"
    file.write_text(asked.to_toml())
    runs = []
    for number, (hash_seed, threads) in enumerate([("0", "1"), ("77", "2")]):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / str(number))]
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    digests = [run.communicate()[0] for run in runs]
    assert digests[0] == digests[1] != ""
