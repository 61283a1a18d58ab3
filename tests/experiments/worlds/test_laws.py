"""Exact laws, through the whole stack: strategies, peers, wire, links, worlds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import ConfigError, Experiment, Result, run, topology
from grapevine.experiments.config.experiment import Record, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import HostDevices, Uniform, UniformDevices
from grapevine.peer.aggregators import Median
from grapevine.peer.codecs import AnyCodec, Float16, Float32, Int8
from grapevine.peer.optimizers import Sgd
from grapevine.peer.peer import MOST_NOTES, Peer
from grapevine.peer.strategies import DPSGD, Ako, Full, Slices, Solo, Strategy
from grapevine.topology.graphs.menu import Complete, Ring, Star, Torus
from tests.helpers import make_peer

RATE = 0.1
TARGETS = (3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0)
DELAYED = Uniform(rate="1 Mbit/s", delay="20 ms")


def experiment(**changes: Any) -> Experiment:
    base = Experiment(
        peers=8,
        world=Virtual(),
        topology=Ring(),
        task=Quadratic(targets=TARGETS, dimension=3),
        devices=UniformDevices(speed="100 samples/s"),
        network=DELAYED,
        optimizer=Sgd(learning_rate=RATE),
        stop=Stop(steps=300),
        record=Record(report=False),
    )
    return base.replace(**changes)


def weights(tmp_path: Path, **changes: Any) -> np.ndarray:
    result = run(experiment(**changes), out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    return result.weights.astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("graph", [Ring(), Star(), Torus(), Complete()])
@pytest.mark.parametrize("order", ["combine-then-adapt", "adapt-then-combine"])
def test_dpsgd_reaches_its_exact_fixed_point(tmp_path: Path, graph: Any, order: Any) -> None:
    """x = W x - eta (x - b), or x = W ((1 - eta) x + eta b): linear equations with one solution each."""
    peers = 9 if isinstance(graph, Torus) else 8
    targets = np.array([*TARGETS, 7.0][:peers])
    w = topology.mixing_matrix(topology.build(type(graph).__struct_config__.tag, peers, seed=0))
    eye = np.eye(peers)
    if order == "combine-then-adapt":
        fixed = np.linalg.solve(eye - w + RATE * eye, RATE * targets)
    else:
        fixed = np.linalg.solve(eye - (1 - RATE) * w, RATE * w @ targets)
    found = weights(
        tmp_path, topology=graph, peers=peers, task=Quadratic(targets=tuple(targets), dimension=3), strategy=DPSGD(order=order)
    )
    np.testing.assert_allclose(found, np.tile(fixed[:, None], 3), atol=1e-5)


@pytest.mark.live
def test_the_fixed_point_is_the_same_in_a_live_fleet(tmp_path: Path) -> None:
    """Also when time is real and the devices are as fast as they are."""
    live = Experiment(
        peers=8, task=Quadratic(targets=TARGETS, dimension=3), optimizer=Sgd(learning_rate=RATE), stop=Stop(steps=200)
    )
    found = run(live, out=tmp_path / "live").weights
    np.testing.assert_allclose(found, weights(tmp_path, stop=Stop(steps=200)), atol=1e-5)


@pytest.mark.parametrize("codec", [Float32(), Float16(), Int8()])
@pytest.mark.parametrize("order", ["combine-then-adapt", "adapt-then-combine"])
def test_dpsgd_keeps_the_mean(tmp_path: Path, codec: AnyCodec, order: Any) -> None:
    """The mean walks as one machine does on the mean gradient, whatever the graph and the codec's rounding."""
    found = weights(tmp_path, codec=codec, strategy=DPSGD(order=order), stop=Stop(steps=25))
    expected = np.mean(TARGETS) * (1 - (1 - RATE) ** 25)
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=2e-6)


def test_full_is_large_batch_descent_with_equal_weights(tmp_path: Path) -> None:
    found = weights(tmp_path, topology=Complete(), strategy=Full(), stop=Stop(steps=30))
    assert np.array_equal(found, np.tile(found[0], (8, 1)))
    np.testing.assert_allclose(found[0], np.mean(TARGETS) * (1 - (1 - RATE) ** 30), atol=1e-5)


@pytest.mark.slow
def test_full_with_a_median_descends_on_the_median_gradient(tmp_path: Path) -> None:
    found = weights(tmp_path, topology=Complete(), strategy=Full(), aggregator=Median(), stop=Stop(steps=400))
    np.testing.assert_allclose(found, np.median(TARGETS), atol=1e-3)


def test_solo_finds_its_own_target(tmp_path: Path) -> None:
    np.testing.assert_allclose(weights(tmp_path, strategy=Solo()), np.tile(np.array(TARGETS)[:, None], 3), atol=1e-5)


def test_slices_stay_in_the_hull_and_draw_together(tmp_path: Path) -> None:
    """Every move is a convex combination; on a starved network peers still come closer than alone."""
    found = weights(tmp_path, strategy=Slices(), network=Uniform(rate="20 kbit/s", delay="100 ms"))
    assert found.min() >= min(TARGETS) - 1e-5
    assert found.max() <= max(TARGETS) + 1e-5
    assert found.std(axis=0).max() < 0.8 * np.std(TARGETS)


def carried_out(tmp_path: Path, **changes: Any) -> VirtualWorld:
    fleet = build(experiment(**changes))
    with Recorder(tmp_path / "run", "", {}) as recorder:
        world = VirtualWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt())
        world.run()
    return world


@pytest.mark.slow
@pytest.mark.parametrize("codec", [Float32(), Int8()])
def test_ako_delivers_every_gradient_exactly_once(tmp_path: Path, codec: AnyCodec) -> None:
    """(x_0 - x_i) / eta = what i made + what others paid to i, less what lies in its inbox or is under way; all divided by n
    where it was made."""
    world = carried_out(
        tmp_path, topology=Complete(), strategy=Ako(), codec=codec, network=Uniform(rate="1 Mbit/s"),
        task=Quadratic(targets=TARGETS, dimension=700), stop=Stop(steps=40),
    )  # fmt: skip
    peers = [member.peer for member in world.members]
    for peer in peers:
        assert peer.ledger is not None
        owed_to_it = sum(other.ledger.paid[peer.id] for other in peers if other is not peer and other.ledger)
        unread = np.zeros(peer.size)
        for message in peer.inbox:
            unread[message.payload.where()] += message.payload.values
        used = (0.0 - peer.weights.astype(float)) / RATE
        np.testing.assert_allclose(used + unread, peer.ledger.total + owed_to_it, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("strategy", [Ako(), Full()])
def test_gradients_on_a_sparse_graph_are_refused_with_the_eigenvalue(strategy: Any) -> None:
    with pytest.raises(ConfigError, match=r"eigenvalue -2\.000.*complete.*slices"):
        build(experiment(strategy=strategy, topology=Ring()))


def test_virtual_time_that_never_passes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"devices\.name.*never reach"):
        build(experiment(devices=HostDevices(), stop=Stop(time="1 s")))


def test_an_aggregator_without_rounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to aggregate"):
        build(experiment(strategy=Slices(), aggregator=Median()))


@pytest.mark.slow
def test_a_virtual_peer_that_dies_leaves_the_others_with_their_mean(tmp_path: Path) -> None:
    """Survivors of a ring become a path with doubly stochastic rows: their fixed point is that of the path's matrix."""
    fleet = build(experiment(stop=Stop(steps=600)))
    with Recorder(tmp_path / "run", "", {}) as recorder:
        world = VirtualWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt(), losses=[(10**9, 7)])
        outcome = world.run()
    assert outcome.completed
    assert list(outcome.peers_lost) == [7]
    w = fleet.mixing[:7, :7].copy()
    w[0, 0] += fleet.mixing[0, 7]
    w[6, 6] += fleet.mixing[6, 7]
    fixed = np.linalg.solve(np.eye(7) - w + RATE * np.eye(7), RATE * np.array(TARGETS[:7]))
    np.testing.assert_allclose(outcome.weights[:7, 0], fixed, atol=1e-5)


PROGRAM = """
import sys
from grapevine import Experiment, run
text = open(sys.argv[1]).read()
print(run(Experiment.parse(text), out=sys.argv[2]).summary["digest"])
"""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digest_everywhere(tmp_path: Path) -> None:
    """Under other hash seeds and numbers of threads, in processes of their own."""
    asked = Experiment(world=Virtual(), peers=6, strategy=Slices(), devices=UniformDevices(speed="1000 samples/s"),
                       network=Uniform(rate="2 Mbit/s", delay="10 ms", jitter="5 ms"), stop=Stop(steps=20))  # fmt: skip
    file = tmp_path / "asked.toml"
    file.write_text(asked.to_toml())
    runs = []
    for number, (hash_seed, threads) in enumerate([("0", "1"), ("77", "2")]):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / str(number))]
        runs.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    digests = [run.communicate()[0] for run in runs]
    assert digests[0] == digests[1] != ""
    other = run(asked.replace(seed=1), out=tmp_path / "other").summary["digest"]
    assert other != digests[0].strip()


@pytest.mark.live
def test_the_worlds_agree(tmp_path: Path) -> None:
    """The same experiment in real and in virtual time: steps, bytes and accuracy lie close together."""
    asked = Experiment(
        peers=4,
        topology=Complete(),
        strategy=Slices(),
        network=Uniform(rate="1 Mbit/s", delay="20 ms"),
        devices=UniformDevices(speed="1000 samples/s"),
        stop=Stop(time="4 s"),
    )
    live: Result = run(asked, out=tmp_path / "live")
    virtual = run(asked.replace(world=Virtual()), out=tmp_path / "virtual")
    if live.summary["lateness_p99_ms"] > 10:
        pytest.skip("this machine is too busy for real time just now, and the run says so itself")
    for key, share in (("steps_total", 0.03), ("bytes_sent", 0.05), ("messages_sent", 0.05)):
        assert live.summary[key] == pytest.approx(virtual.summary[key], rel=share), key
    assert live.summary["accuracy_mean"] == pytest.approx(virtual.summary["accuracy_mean"], abs=0.03)


class Noting(Strategy, frozen=True, tag="noting"):
    """Notes the square of its step."""

    async def run(self, peer: Peer) -> None:
        while peer.running:
            peer.apply(await peer.gradient())
            peer.note("square", peer.step**2)


def test_what_a_strategy_notes_is_recorded(tmp_path: Path) -> None:
    result = run(
        Experiment(peers=3, world=Virtual(), task=Quadratic(targets=(1.0, 2.0, 3.0)), strategy=Noting(), stop=Stop(steps=40),
                   devices=UniformDevices(speed="1000 samples/s"), record=Record(every="2 ms")),
        out=tmp_path / "run",
    )  # fmt: skip
    noted = result.metrics[result.metrics["name"] == "notes.square"]
    assert set(noted["peer"]) == {0, 1, 2}
    assert len(noted) > 3 * 10
    assert (noted["value"] == noted["step"] ** 2).all()


def test_notes_are_bounded() -> None:
    peer = make_peer(0, {1: 0.5})
    for number in range(MOST_NOTES):
        peer.note(f"{number}", number)
    peer.note("0", -1.0)
    assert peer.notes["0"] == -1.0
    for name in ("one more", "x" * 65):
        with pytest.raises(ValueError, match="at most 64 notes"):
            peer.note(name, 1.0)
