"""What a peer keeps apart of its samples, its loss over them, and the layout of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from grapevine.experiments.config.experiment import ConfigError, Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Bootstrap, Digits, Dirichlet, Iid, LearningProblem, Module, Quadratic, autograd, cnn
from grapevine.experiments.tasks.base import Problem
from grapevine.experiments.tasks.share import Share
from grapevine.netem import UniformDevices
from grapevine.peer.effects import Work
from grapevine.peer.endpoint import Endpoint
from grapevine.peer.live import LivePeer
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import Solo
from grapevine.peer.strategies.dlion import DLion
from tests.experiments.strategies.fleets import asked, make_world
from tests.experiments.tasks.modules import TEST, TRAIN, Net, Tied, dropping, normalised
from tests.helpers import LIMIT_BYTES, make_peer, run_until_blocked
from tests.peer.clocks import SECOND_NS, Slow, Ticking


class Judging(Solo, frozen=True, tag="judging"):
    """Trains alone, and looks at its held-out loss after every step."""

    @property
    def held_out_share(self) -> float:
        return 0.2

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            peer.notes[f"{peer.now_ns}"] = (await peer.evaluate()).loss


def held_out_loss(problem: Problem, peer: int, weights: np.ndarray) -> float:
    share = Share(problem, peer, np.random.default_rng(0))
    return share.do(Work("held-out", problem.held_out[peer], share.held_out().batch, None, {}), weights)[0]


def apart(problem: LearningProblem) -> list[np.ndarray]:
    return np.split(problem.arrays["held_out"], np.cumsum(problem.held_out)[:-1])


@pytest.mark.parametrize("partition", [Iid(), Dirichlet(alpha=0.2), Bootstrap(samples=60)])
def test_what_is_kept_apart_is_a_share_of_the_peers_own_that_is_never_drawn(partition: Any) -> None:
    whole, problem, again, other = (Digits().problem(6, partition, 3) for _ in range(4))
    for each, seed in ((problem, 3), (again, 3), (other, 4)):
        each.hold_out(0.1, seed)
    owned = np.split(whole.arrays["shards"], np.cumsum(whole.samples)[:-1])
    for peer, kept in enumerate(apart(problem)):
        assert len(kept) == problem.held_out[peer] >= 1
        assert len(np.unique(kept)) == max(1, round(0.1 * len(np.unique(owned[peer]))))
        drawn = problem.sampler(peer, np.random.default_rng(0)).draw(problem.samples[peer]).indices
        assert np.array_equal(np.sort(np.concatenate([drawn, kept])), np.sort(owned[peer]))
        assert not np.isin(drawn, kept).any()
    assert np.array_equal(problem.arrays["held_out"], again.arrays["held_out"])
    assert not np.array_equal(problem.arrays["shards"], other.arrays["shards"])


def test_only_a_strategy_that_says_so_loses_samples() -> None:
    for strategy, held_out in ((Solo(), 0), (DLion(transfer_every=0), 0), (DLion(), 144), (Judging(), 287)):
        problem = build(asked(4, task=Digits(), strategy=strategy)).problem
        assert sum(problem.held_out) == pytest.approx(held_out, abs=2)
        assert sum(problem.samples) + sum(problem.held_out) == 1437
    with pytest.raises(ConfigError, match="every peer needs 2 or more"):
        build(asked(3, task=Digits(), strategy=DLion(), partition=Bootstrap(samples=1)))


@pytest.mark.parametrize("task", [Digits(), Digits(model="cnn"), Module(factory=Net, train=TRAIN, test=TEST)])
def test_the_loss_over_what_is_kept_apart_is_that_of_a_batch_of_it(task: Any) -> None:
    problem: LearningProblem = task.problem(4, Iid(), 0)
    problem.hold_out(0.1, 0)
    from grapevine.experiments.tasks import Batch

    weights = problem.initial + 0.1 * np.random.default_rng(0).standard_normal(problem.size).astype(np.float32)
    for peer, kept in enumerate(apart(problem)):
        expected, _ = problem.gradient(weights, Batch(kept, 0))
        assert held_out_loss(problem, peer, weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factory", [normalised, dropping])
def test_a_look_at_a_module_is_not_noisy_and_leaves_it_as_it_was(factory: Any) -> None:
    problem = Module(factory=factory, train=TRAIN, test=TEST).problem(4, Iid(), 0)
    problem.hold_out(0.1, 0)
    batch = problem.sampler(0, np.random.default_rng(0)).draw(16)
    before = problem.gradient(problem.initial, batch)[0]
    assert held_out_loss(problem, 1, problem.initial) == held_out_loss(problem, 1, problem.initial)
    assert problem.gradient(problem.initial, batch)[0] == before


@pytest.mark.parametrize("task", [Digits(batch_size=16), Quadratic(dimension=3, noise=0.1)])
def test_a_look_takes_a_third_of_a_gradients_time_and_disturbs_nothing(tmp_path: Path, task: Any) -> None:
    """The weights walk exactly as without looking; a step takes 100 samples a second, a look a third of that."""
    experiment = asked(4, task=task, strategy=Judging(), stop=Stop(steps=20), devices=UniformDevices(speed="100 samples/s"))
    world = make_world(tmp_path, experiment)
    assert world.run().completed
    problem = build(experiment).problem
    for member in world.members:
        peer, spent = member.peer, sorted(map(int, member.peer.notes))
        look_ns = -(-problem.held_out[peer.id] // 3) * 10_000_000
        assert np.diff(spent).tolist() == [task.batch_size * 10_000_000 + look_ns] * 19
        assert list(peer.notes.values())[-1] == pytest.approx(held_out_loss(problem, peer.id, peer.weights))
        sampler = build(experiment).problem.sampler(peer.id, _generator(experiment.seed, peer.id))
        weights = problem.initial.copy()
        for _ in range(20):
            weights -= np.float32(0.1) * problem.gradient(weights, sampler.draw(task.batch_size))[1]
        np.testing.assert_allclose(peer.weights, weights, rtol=1e-4, atol=1e-5)


def _generator(seed: int, peer: int) -> np.random.Generator:
    from grapevine.experiments.worlds.peer_report import batch_generator

    return batch_generator(seed, peer)


def test_a_live_peer_evaluates_on_held_out_samples_too() -> None:
    class Quick(Slow):
        def take_on(self, work: Work) -> int:
            return -(-(work.count or 0) // (3 if work.name == "held-out" else 1))

        def do(self, work: Work, weights: np.ndarray) -> Any:
            return (float(weights.sum()), 0.5) if work.name == "held-out" else super().do(work, weights)

        def duration_ns(self, samples: int, now_ns: int, step: int) -> int:
            return samples * 1_000_000

    peer = make_peer(0, {}, steps_limit=3, held_out_samples=30)
    live = LivePeer(peer, Endpoint(0, [], LIMIT_BYTES), Quick(), Ticking(), SECOND_NS, SECOND_NS, lambda index, now_ns: None)
    live.run(Judging().run(peer))
    times = sorted(map(int, peer.notes))
    assert len(times) == 3
    assert np.diff(times).min() >= 42_000_000
    assert list(peer.notes.values()) == pytest.approx([-0.8, -1.6, -2.4])


def test_a_peer_that_keeps_nothing_apart_says_so() -> None:
    with pytest.raises(ValueError, match="held_out_share"):
        run_until_blocked(make_peer(0, {}).evaluate())


@pytest.mark.parametrize(
    "task", [Digits(), Digits(hidden=(20, 7)), Digits(model="logistic"), Digits(model="cnn"), Quadratic(dimension=5)]
)
def test_a_layout_covers_the_vector(task: Any) -> None:
    problem = task.problem(2, Iid(), 0)
    edges = [tensor.start for tensor in problem.layout] + [problem.size]
    assert edges[0] == 0
    assert edges[1:] == [tensor.stop for tensor in problem.layout]
    assert len({tensor.name for tensor in problem.layout}) == len(problem.layout)
    assert build(asked(2, task=task)).problem.layout == problem.layout


def test_a_modules_layout_names_its_parameters() -> None:
    for factory, layout in (
        (cnn.network, cnn.layout()),
        *((make, autograd.layout(make())) for make in (Net, Tied, normalised)),
    ):
        module: nn.Module = factory()
        for parameter in module.parameters():
            parameter.data = torch.rand_like(parameter)
        flat, named = autograd.flat(module), dict(module.named_parameters())
        assert len(layout) == sum(parameter.requires_grad for parameter in named.values())
        for tensor in layout:
            values = flat[tensor.start : tensor.stop].reshape(tensor.shape)
            assert np.array_equal(values, named[tensor.name].detach().numpy())


def test_the_perceptrons_layout_tells_weights_from_biases() -> None:
    """Relu layers at zero weights give their biases' softmax, whatever the input: so the last tensor is a bias."""
    problem = Digits(hidden=(20,)).problem(2, Iid(), 0)
    assert [(tensor.name, tensor.shape) for tensor in problem.layout] == [
        ("0.weight", (64, 20)), ("0.bias", (20,)), ("1.weight", (20, 10)), ("1.bias", (10,))
    ]  # fmt: skip
    weights = np.zeros(problem.size, np.float32)
    bias = problem.layout[-1]
    weights[bias.start + 3] = 50.0
    share = float((problem.arrays["test_y"] == 3).mean())
    assert problem.evaluate(weights[None])[1][0] == pytest.approx(share)
