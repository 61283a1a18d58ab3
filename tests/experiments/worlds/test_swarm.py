"""The swarm: seeded random scenarios in virtual time, and what must hold after every one of them.

A failing seed N replays with one command: `python -m pytest "tests/experiments/worlds/test_swarm.py::test_swarm[N]"`.
"""

from __future__ import annotations

from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, Outgoing, Station, Wrapper, run, topology
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.config.sections import Record
from grapevine.experiments.config.wrappers import Delay, Scale
from grapevine.experiments.fleet import Fleet
from grapevine.experiments.results.outcome import Outcome
from grapevine.experiments.tasks import Digits, Quadratic
from grapevine.netem import MixedDevices, Uniform, UniformDevices, Unshaped
from grapevine.netem.devices.varying import PausingDevices, StragglingDevices
from grapevine.peer.codecs import Float16, Float32, Int8
from grapevine.peer.meter import PROBE_BYTES
from grapevine.peer.optimizers import Sgd
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
from grapevine.topology.graphs.circulants import Exponential
from grapevine.topology.graphs.menu import Complete, ErdosRenyi, Ring, Star
from grapevine.topology.graphs.menu import Path as PathGraph
from grapevine.topology.schedules.menu import EpidemicLocal, OnePeerExponential, RandomMatching
from tests.experiments.worlds.watched import (
    NOTHING_LOST,
    WatchedWorld,
    carried_out,
    conserved,
    every_byte_is_accounted_for,
    links_keep_their_rate_and_order,
    watch,
)

RATE = 0.05
SEEDS = range(60)
STRATEGIES = [
    Solo(), DPSGD(), DPSGD(), DPSGD(order="adapt-then-combine"), Full(), Ako(), Slices(), Slices(), ADPSGD(), AllReduce(),
    TFAko(), DLion(), Gaia(), DGC(), ParameterServer(), FedAvg(),
]  # fmt: skip
OUTAGES = {"outage_every": "400 ms", "outage_length": "100 ms"}


def scenario(seed: int) -> tuple[Experiment, list[tuple[int, int]]]:
    """A random experiment of up to ten peers, and who dies when."""
    rng = np.random.default_rng([0x5AB, seed])
    peers = int(rng.integers(2, 10))
    strategy: Any = STRATEGIES[rng.integers(len(STRATEGIES))]
    graphs: list[Any] = [Complete(), PathGraph(), Star()]
    graphs += [Ring(), ErdosRenyi(p=0.9)] if peers > 3 else []
    graphs += [OnePeerExponential(), EpidemicLocal(s=1), RandomMatching(), Exponential()] if strategy.follows_rounds else []
    everybody = strategy.shares == "gradients" or strategy.needs != "connected"
    graph = Complete() if everybody else graphs[rng.integers(len(graphs))]
    shaped = Uniform(
        rate=f"{rng.choice([50, 500, 5000])} kbit/s",
        delay=f"{rng.choice([0, 1, 30, 200])} ms",
        jitter=f"{rng.choice([0, 0, 10])} ms",
        loss=float(rng.choice([0, 0, 0.01])),
        uplink=str(rng.choice(["unlimited", "unlimited", "400 kbit/s"])),
        downlink=str(rng.choice(["unlimited", "unlimited", "300 kbit/s"])),
        **(OUTAGES if rng.random() < 0.25 else {}),
    )
    speeds = tuple(f"{speed} samples/s" for speed in rng.choice([20, 50, 200], size=rng.integers(1, 4)))
    unsteady = [
        StragglingDevices(speed="100 samples/s", spread=1.0),
        PausingDevices(speed="100 samples/s", every="500 ms", length="200 ms"),
    ]
    devices: list[Any] = [
        MixedDevices(speeds=speeds),
        MixedDevices(speeds=speeds),
        UniformDevices(speed="100 samples/s"),
        *unsteady,
    ]
    steps = int(rng.integers(5, 40))
    experiment = Experiment(
        name=f"swarm-{seed}",
        seed=seed,
        peers=peers,
        world=Virtual(),
        topology=graph,
        network=Unshaped() if rng.random() < 0.15 else shaped,
        devices=devices[rng.integers(len(devices))],
        task=Quadratic(targets=tuple(rng.normal(size=peers).tolist()), dimension=int(rng.choice([1, 40, 3000]))),
        strategy=strategy,
        codec=[Float32(), Float16(), Int8()][rng.integers(3)],
        optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=steps) if rng.random() < 0.7 else Stop(time=f"{rng.uniform(0.1, 2):.3f} s"),
        record=Record(every="300 ms"),
    )
    dying = [] if rng.random() < NOTHING_LOST else rng.choice(peers, size=rng.integers(1, peers), replace=False).tolist()
    return experiment, [(int(rng.uniform(0, 1e9)), int(peer)) for peer in dying]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_swarm(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links, carried, forgiven = watch(monkeypatch)
    experiment, losses = scenario(seed)
    world, outcome, _ = carried_out(experiment, losses, tmp_path / "run")
    endings(world, outcome, losses)
    links_keep_their_rate_and_order(links, carried)
    every_byte_is_accounted_for(world, outcome, links, carried, forgiven)
    room_is_respected(world.fleet, outcome)
    conserved(world)
    if not losses:
        means(world.fleet, outcome)


def endings(world: WatchedWorld, outcome: Outcome, losses: list[tuple[int, int]]) -> None:
    """Every run ends, and says so; the dead are named; who lives made the steps asked for."""
    experiment = world.fleet.experiment
    died = {peer for time_ns, peer in losses if time_ns <= outcome.emulated_s * 1e9}
    assert set(outcome.peers_lost) == died
    assert "deadlock" not in outcome.reason, outcome.reason
    assert outcome.completed or died == set(range(experiment.peers))
    if experiment.stop.steps is not None:
        trained = set(range(experiment.strategy.hubs, experiment.peers)) - died  # servers count rounds, and one more
        if not died & set(range(experiment.strategy.hubs)):
            assert all(outcome.steps[peer] == experiment.stop.steps for peer in trained), outcome.steps


def room_is_respected(fleet: Fleet, outcome: Outcome) -> None:
    """Who adapts never gives a link more than it carries: rate x time, one horizon, and the first probe."""
    if not isinstance(fleet.experiment.strategy, Ako | Slices):
        return
    slowest_s = max(device.step_ns(fleet.experiment.task.batch_size) for device in fleet.devices) / 1e9
    for link in outcome.links:
        rate = fleet.plan.links[link.source, link.target].effective_rate_bytes_per_s
        allowed = rate * (outcome.emulated_s + 2 * slowest_s + 0.1) * 1.25 + 2 * PROBE_BYTES if isfinite(rate) else inf
        assert link.bytes <= allowed


def means(fleet: Fleet, outcome: Outcome) -> None:
    """Synchronous strategies move the mean as one machine moves on the mean gradient."""
    experiment = fleet.experiment
    strategy, rounding = experiment.strategy, not isinstance(experiment.codec, Float32)
    if (
        not isinstance(strategy, Solo | DPSGD | Full)
        or (rounding and isinstance(strategy, Full))
        or len(set(outcome.steps)) != 1
    ):
        return
    if not (fleet.rounds is None or topology.analyse(fleet.rounds).mean_preserved):
        return
    optimum = fleet.problem.optimum()
    assert optimum is not None
    expected = optimum * (1 - (1 - RATE) ** outcome.steps[0])
    np.testing.assert_allclose(outcome.weights.mean(axis=0, dtype=float), expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", list(SEEDS)[:16])
def test_swarm_with_wrappers(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers whose messages are late, scaled or repeated harm the training, but neither the books nor the links."""
    links, carried, forgiven = watch(monkeypatch)
    experiment, losses = scenario(seed)
    some = tuple(range(0, experiment.peers, 2))
    wrappers = (Delay(time="70 ms", peers=some), Scale(factor=0.9, peers=(0,)), Twice(peers=some[-1:]))
    world, outcome, _ = carried_out(experiment.replace(wrappers=wrappers), losses, tmp_path / "run")
    endings(world, outcome, losses)
    links_keep_their_rate_and_order(links, carried)
    every_byte_is_accounted_for(world, outcome, links, carried, forgiven)
    conserved(world)


class Twice(Wrapper, frozen=True, tag="twice"):
    """Every message is sent twice, the second time later."""

    def sending(self, station: Station, message: Outgoing) -> list[Outgoing]:
        return [message, message._replace(leaves_ns=message.leaves_ns + 10_000_000)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", list(SEEDS)[:4])
def test_a_scenario_replays_to_the_byte(seed: int, tmp_path: Path) -> None:
    experiment, losses = scenario(seed)
    first, second = (carried_out(experiment, losses, tmp_path / name)[1] for name in "ab")
    assert np.array_equal(first.weights, second.weights)
    assert (first.bytes_sent, first.emulated_s, first.steps) == (second.bytes_sent, second.emulated_s, second.steps)


def test_a_peers_random_draws_do_not_depend_on_the_other_peers(tmp_path: Path) -> None:
    """Another device for one peer, another edge for two: nobody else draws other minibatches."""
    base = Experiment(
        peers=5, world=Virtual(), strategy=Solo(), task=Digits(hidden=(8,)), stop=Stop(steps=15),
        devices=MixedDevices(speeds=("1000 samples/s",) * 5),
    )  # fmt: skip
    other = base.replace(topology=Complete(), devices=MixedDevices(speeds=("1000 samples/s",) * 4 + ("90 samples/s",)))
    first, second = run(base, out=tmp_path / "a").weights, run(other, out=tmp_path / "b").weights
    assert np.array_equal(first, second)
