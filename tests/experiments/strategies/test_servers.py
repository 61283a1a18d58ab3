"""Exact laws of the parameter server and of fed-avg, through the whole stack in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import ConfigError
from grapevine.experiments.config.experiment import Stop
from grapevine.experiments.fleet import build
from grapevine.experiments.tasks import Digits, Quadratic
from grapevine.netem import MixedDevices, Uniform, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.peer import Peer
from grapevine.peer.strategies import fedavg
from grapevine.peer.strategies.fedavg import FedAvg
from grapevine.peer.strategies.parameter_server import ParameterServer
from grapevine.topology.graphs.menu import Ring, Star
from tests.experiments.strategies.fleets import RATE, asked, carried_out, gradients, listen, make_world, normal_targets

VECTORS = normal_targets(8, 51)
MIXED = MixedDevices(speeds=("100 samples/s", "30 samples/s", "500 samples/s"))


# ---- parameter server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [1, 2, 3])
@pytest.mark.parametrize("every", [1, 3])
def test_bsp_is_large_batch_sgd_on_one_machine(tmp_path: Path, servers: int, every: int) -> None:
    """Momentum included: all workers' gradients of a round make one step; with push_every = k so do those of k steps."""
    optimizer = Sgd(learning_rate=0.05, momentum=0.8)
    strategy = ParameterServer(servers=servers, push_every=every, pull_every=every)
    found, _ = carried_out(
        tmp_path, asked(7, task=Quadratic(targets=VECTORS[:7]), strategy=strategy, optimizer=optimizer, devices=MIXED)
    )
    weights, stepper = np.zeros(51, np.float32), optimizer.start(51)
    for _ in range(30 // every):
        stepper.step(weights, weights - np.mean(VECTORS[servers:7], axis=0).astype(np.float32))
    for peer in found:
        np.testing.assert_allclose(peer.weights, weights, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize(("slack", "overlap"), [(0, False), (2, False), (5, False), (1, True), (3, True)])
@pytest.mark.parametrize("every", [(1, 1), (2, 3)])
def test_ssp_never_exceeds_its_slack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: int, slack: int, overlap: bool, every: tuple[int, int]
) -> None:
    """Nobody begins a step more than the slack ahead of the slowest, and the fast ones do get that far."""
    done: dict[int, int] = {}
    gaps = []
    gradient = Peer.gradient

    async def checked(peer: Peer) -> np.ndarray:
        gaps.append(peer.step - min(done.values()))
        found = await gradient(peer)
        done[peer.id] = peer.step + 1
        return found

    monkeypatch.setattr(Peer, "gradient", checked)
    strategy = ParameterServer(
        servers=servers, mode="ssp", slack=slack, push_every=every[0], pull_every=every[1], overlap=overlap
    )
    for server in range(servers, 6):
        done[server] = 0
    carried_out(tmp_path, asked(6, task=Quadratic(targets=VECTORS[:6]), strategy=strategy, devices=MIXED))
    assert max(gaps) == slack


def test_ssp_with_overlap_and_no_slack_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"overlap = true and slack = 0.*set slack = 1 or more"):
        ParameterServer(mode="ssp", slack=0, overlap=True)


@pytest.mark.parametrize("mode", ["ssp", "asp"])
def test_every_gradient_reaches_the_server_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    """Plain SGD adds up whatever the order; at the end the server has it all."""
    made = gradients(monkeypatch)
    strategy = ParameterServer(mode=mode, push_every=1, pull_every=2)
    found, outcome = carried_out(
        tmp_path,
        asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=strategy, devices=MixedDevices(speeds=("100 samples/s",))),
    )
    total = -RATE / 3 * sum(sum(each) for each in made.values())
    np.testing.assert_allclose(found[0].weights, total, atol=1e-4)
    assert outcome.steps[1:] == [30, 30, 30]


def test_asp_never_waits(tmp_path: Path) -> None:
    """The fast worker makes as many steps as its speed and its round trips allow, whatever the slow one does."""
    steps = {}
    for mode in ("asp", "bsp"):
        world = make_world(
            tmp_path,
            asked(3, task=Quadratic(targets=VECTORS[:3]), strategy=ParameterServer(mode=mode), stop=Stop(time="10 s"),  # type: ignore[arg-type]
                  devices=MixedDevices(speeds=("1 samples/s", "1 samples/s", "100 samples/s"))),
        )  # fmt: skip
        world.run()
        steps[mode] = [member.peer.step for member in world.members][1:]
    assert max(steps["bsp"]) <= 10
    assert steps["asp"][0] <= 10
    assert steps["asp"][1] > 300


def test_backup_workers_are_not_waited_for(tmp_path: Path) -> None:
    """One of four is a hundred times slower: with one backup worker the rounds go at the pace of the others."""
    rounds = {}
    for backup in (0, 1):
        world = make_world(
            tmp_path,
            asked(5, task=Quadratic(targets=VECTORS[:5]), strategy=ParameterServer(backup=backup), stop=Stop(time="6 s"),
                  devices=MixedDevices(speeds=("1 samples/s", "1 samples/s", *["100 samples/s"] * 3))),
        )  # fmt: skip
        world.run()
        rounds[backup] = world.members[0].peer.step
    assert rounds[0] <= 6
    assert rounds[1] > 150


def test_servers_need_their_edges_and_somebody_to_serve() -> None:
    build(asked(8, topology=Star(), strategy=ParameterServer()))
    with pytest.raises(ConfigError, match=r"servers.*complete.*star"):
        build(asked(8, topology=Ring(), strategy=ParameterServer()))
    with pytest.raises(ConfigError, match=r"peers 0 to 1.*complete"):
        build(asked(8, topology=Star(), strategy=ParameterServer(servers=2)))
    with pytest.raises(ConfigError, match="no peer is left to train"):
        build(asked(2, strategy=ParameterServer(servers=2)))


@pytest.mark.parametrize("mode", ["bsp", "ssp", "asp"])
@pytest.mark.parametrize("lost", [[0], [3], [0, 1], [4, 1]])
def test_fleets_with_servers_survive(tmp_path: Path, mode: Any, lost: list[int]) -> None:
    strategy = ParameterServer(servers=2, mode=mode)
    losses = [(97_000_000 + 31_000_000 * place, peer) for place, peer in enumerate(lost)]
    found, outcome = carried_out(tmp_path, asked(6, task=Quadratic(targets=VECTORS[:6]), strategy=strategy), losses)
    assert sorted(outcome.peers_lost) == sorted(lost)
    assert all(peer.step == 30 for peer in found if peer.id not in (0, 1, *lost))


# ---- fed-avg ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_client_and_one_epoch_is_local_sgd(tmp_path: Path, momentum: float) -> None:
    """On a quadratic an epoch is one step; momentum begins anew in every round."""
    optimizer = Sgd(learning_rate=0.05, momentum=momentum)
    found, _ = carried_out(tmp_path, asked(2, task=Quadratic(targets=VECTORS[:2]), strategy=FedAvg(), optimizer=optimizer))
    weights = np.array(VECTORS[1]) * (1 - 0.95**30)
    for peer in found:
        np.testing.assert_allclose(peer.weights, weights, atol=1e-5)


def test_epochs_without_end_end_with_the_steps(tmp_path: Path) -> None:
    """A client whose steps are made asks no more, however many epochs its round has, and reports what it has."""
    experiment = asked(3, task=Digits(batch_size=64), strategy=FedAvg(epochs=1_000_000), network=Uniform(), stop=Stop(steps=3))
    found, _ = carried_out(tmp_path, experiment)
    assert [peer.step for peer in found[1:]] == [3, 3]


def test_fedavg_weighs_by_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that the server hands out is the mean of the last reports, weighted by what each client owns."""
    said = listen(monkeypatch)
    found, _ = carried_out(
        tmp_path, asked(4, task=Digits(batch_size=64), strategy=FedAvg(epochs=0.5), network=Uniform(), stop=Stop(steps=12))
    )
    owned = {peer.id: peer.data_samples for peer in found}
    assert all(owned[client] > 100 for client in (1, 2, 3))
    handed = {message.step: message.payload.values for message in said if message.source == 0}
    for turn in (1, 2):
        reports = [message for message in said if message.scalars[:2] == (1.0, turn - 1.0)]
        shares = np.array([owned[message.source] for message in reports])
        mean = (shares / shares.sum()) @ np.array([message.payload.values for message in reports])
        np.testing.assert_allclose(handed[turn], mean, atol=1e-6)
        steps = {message.step - (turn - 1) * -(-owned[message.source] // 128) for message in reports}
        assert len(reports) == 3
        assert steps == {-(-owned[message.source] // 128) for message in reports}


def test_over_selection_and_deadline_ignore_stragglers(tmp_path: Path) -> None:
    """Of 9 clients one is very slow: rounds wait for it only where neither over-selection nor a deadline helps.

    The deadline of 0.2 s is waited for once a round, when clients are selected: the chosen ones all report in time.
    """
    speeds = ("100 samples/s", *["100 samples/s"] * 8, "1 samples/s")
    targets = (*VECTORS, *VECTORS[:2])
    rounds = {}
    for name, strategy in {
        "all": FedAvg(),
        "over": FedAvg(fraction=0.7, over_selection=1.5),
        "deadline": FedAvg(deadline_s=0.2),
    }.items():
        world = make_world(
            tmp_path,
            asked(
                10,
                task=Quadratic(targets=targets),
                strategy=strategy,
                stop=Stop(time="5 s"),
                devices=MixedDevices(speeds=speeds),
            ),
        )
        world.run()
        rounds[name] = world.members[0].peer.step
    assert rounds["all"] <= 5
    assert rounds["over"] > 60
    assert 15 < rounds["deadline"] <= 25


def test_a_fraction_of_the_clients_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = listen(monkeypatch)
    carried_out(tmp_path, asked(8, task=Quadratic(targets=VECTORS), strategy=FedAvg(fraction=0.3), stop=Stop(steps=10)))
    chosen: dict[int, set[int]] = {}
    for message in said:
        if message.source == 0:
            chosen.setdefault(message.step, set()).add(message.target)
    assert {len(clients) for turn, clients in chosen.items() if turn < 15} == {2}
    assert set().union(*chosen.values()) == set(range(1, 8))


@pytest.mark.parametrize("lost", [[0], [3], [2, 5], [4, 0]])
@pytest.mark.parametrize("deadline_s", [0.0, 0.05])
def test_federations_survive(tmp_path: Path, lost: list[int], deadline_s: float) -> None:
    losses = [(97_000_000 + 31_000_000 * place, peer) for place, peer in enumerate(lost)]
    strategy = FedAvg(fraction=0.6, deadline_s=deadline_s)
    found, outcome = carried_out(tmp_path, asked(6, task=Quadratic(targets=VECTORS[:6]), strategy=strategy), losses)
    assert sorted(outcome.peers_lost) == sorted(lost)
    assert all(peer.step == 30 for peer in found if peer.id not in (0, *lost))


def test_rounds_never_shrink_below_their_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of six clients are late from their first round on: every average is still made of the goal's four reports."""
    made: list[int] = []
    average = fedavg._average
    monkeypatch.setattr(fedavg, "_average", lambda peer, reports: made.append(len(reports)) or average(peer, reports))
    speeds = ("100 samples/s", *["100 samples/s"] * 3, *["7 samples/s"] * 3)
    task = Quadratic(targets=VECTORS[:7])
    strategy = FedAvg(fraction=0.66, over_selection=1.3)
    devices = MixedDevices(speeds=speeds)
    make_world(tmp_path, asked(7, task=task, strategy=strategy, devices=devices, stop=Stop(time="3 s"))).run()
    assert len(made) > 5
    assert set(made) == {4}


def test_one_epoch_over_whole_batches_is_gradient_descent(tmp_path: Path) -> None:
    """FedSGD (E = 1, B = infinity, C = 1): a round is one step along the gradient over all clients' data together."""
    experiment = asked(4, task=Digits(batch_size=8), strategy=FedAvg(batch="all"), stop=Stop(steps=3),
                       optimizer=Sgd(learning_rate=0.5), network=Uniform(rate="100 Mbit/s"))  # fmt: skip
    found, _ = carried_out(tmp_path, experiment)
    problem = build(experiment).problem
    owned = np.array(problem.samples[1:], float)
    weights = np.array(problem.initial, np.float32)
    samplers = [problem.sampler(peer, np.random.default_rng(peer)) for peer in (1, 2, 3)]
    for _ in range(3):
        rows = [problem.gradient(weights, each.draw(int(count)))[1] for each, count in zip(samplers, owned, strict=True)]
        weights = weights - 0.5 * np.tensordot(owned / owned.sum(), np.array(rows, float), 1).astype(np.float32)
    np.testing.assert_allclose(found[0].weights, weights, atol=1e-5)
    assert [peer.batch_size for peer in found[1:]] == list(owned)


@pytest.mark.parametrize("mode", ["bsp", "asp"])
def test_overlap_hides_the_way_to_the_server(tmp_path: Path, mode: Any) -> None:
    """Steps of 100 ms, about 90 ms to the server and back: with overlap a step takes as long as the longer of both."""
    steps = {}
    for overlap in (False, True):
        world = make_world(
            tmp_path,
            asked(4, task=Quadratic(targets=VECTORS[:4]), strategy=ParameterServer(mode=mode, overlap=overlap),
                  stop=Stop(time="10 s"), devices=UniformDevices(speed="10 samples/s"),
                  network=Uniform(rate="100 Mbit/s", delay="45 ms")),
        )  # fmt: skip
        assert world.run().completed
        steps[overlap] = world.members[1].peer.step
    assert steps[False] == pytest.approx(10 / 0.19, rel=0.05)
    assert steps[True] == pytest.approx(10 / 0.1, rel=0.05)
