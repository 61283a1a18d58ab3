"""Joining and leaving in a live fleet: by script and by its own decision, and by a poke from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from grapevine import Experiment, Peer, run
from grapevine.experiments.cli.main import main
from grapevine.experiments.config.events import JoinEvent, LeaveEvent
from grapevine.experiments.config.experiment import Processes, Stop
from grapevine.experiments.config.sections import Record
from grapevine.experiments.exit_status import ExitStatus
from grapevine.experiments.run import run_experiment
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform, UniformDevices
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import DPSGD, Full, Slices
from grapevine.topology.graphs.menu import Complete
from tests.experiments.fleets import LiveFleet, until

pytestmark = pytest.mark.live

TARGETS = (3.0, -1.0, 4.0, 1.0, -5.0)
BASE = Experiment(
    peers=5,
    world=Processes(),
    network=Uniform(rate="8 Mbit/s", delay="5 ms"),
    devices=UniformDevices(speed="40 samples/s"),
    task=Quadratic(targets=TARGETS, dimension=40),
    optimizer=Sgd(learning_rate=0.1),
    stop=Stop(steps=150),
    record=Record(every="500 ms", report=False),
)


class Restless(DPSGD, frozen=True, tag="restless"):
    """Peer 2 leaves by its own decision, for half a second."""

    leaves: ClassVar[bool] = True

    async def run(self, peer: Peer) -> None:
        while peer.running:
            if peer.id == 2 and peer.step == 10:
                await peer.leave(500_000_000)
            own = await peer.broadcast_model()
            gradient = await peer.gradient()
            peer.mix(await peer.gather(step=peer.step), own)
            peer.apply(gradient)


def happened(result: Any, kind: str) -> list[tuple[int, float]]:
    return [(event["peer"], event["time_s"]) for event in result.events if event["kind"] == kind]


def test_peers_come_and_go_and_the_rest_ends_at_its_optimum(tmp_path: Path) -> None:
    events = JoinEvent(at="500 ms", peer=4), LeaveEvent(at="1.5 s", peer=1)
    result, status = run_experiment(BASE.replace(events=events, strategy=Restless()), tmp_path / "run", quiet=True)
    summary = result.summary
    assert status is ExitStatus.DONE, summary["reason"]
    assert (summary["peers_lost"], summary["peers_absent"], summary["reason"]) == ([], [1], "150 steps done")
    assert sorted(peer for peer, _ in happened(result, "join")) == [2, 4]
    assert sorted(peer for peer, _ in happened(result, "leave")) == [1, 2]
    assert summary["members"][0] == [0.0, 4]
    members = [0, 2, 3, 4]
    np.testing.assert_allclose(result.weights[members].mean(axis=0), np.mean([TARGETS[peer] for peer in members]), atol=1e-2)


def test_full_exchange_stays_alike_in_a_live_fleet(tmp_path: Path) -> None:
    events = JoinEvent(at="500 ms", peer=4), LeaveEvent(at="1 s", peer=1)
    result = run(BASE.replace(events=events, strategy=Full(), topology=Complete(), stop=Stop(steps=80)), out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    assert result.summary["consensus_distance"] == 0.0
    assert result.summary["peers_absent"] == [1]


def test_processes_that_have_made_their_last_step_go_on_giving_weights(tmp_path: Path) -> None:
    """The joiner's request comes after the last step of both givers: it has their step, and makes none itself."""
    result = run(
        BASE.replace(
            peers=3, events=(JoinEvent(at="200 ms", peer=2),), strategy=Slices(), topology=Complete(), stop=Stop(steps=20),
            network=Uniform(rate="8 Mbit/s", delay="400 ms"), task=Quadratic(targets=TARGETS[:3], dimension=40),
        ),
        out=tmp_path / "run",
    )  # fmt: skip
    assert result.summary["completed"], result.summary["reason"]
    (join,) = (event for event in result.events if event["kind"] == "join")
    assert "step 20 on, with the weights of peer" in join["text"]
    assert result.summary["steps_total"] == 40


def test_a_live_fleet_is_poked_to_let_peers_go_and_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = LiveFleet(tmp_path, 'time = "600 s"', "--set", "membership.name=open", "--set", "strategy.name=slices")
    try:
        pids = fleet.training()
        assert main(["poke", str(fleet.out), "join", "peer=1"]) == 2
        assert "peer 1 is a member" in capsys.readouterr().err
        assert main(["poke", str(fleet.out), "leave", "peer=1"]) == 0
        until(lambda: fleet.events("leave"), "the leaving")
        assert main(["poke", str(fleet.out), "leave", "peer=1"]) == 2
        assert main(["poke", str(fleet.out), "join", "peer=1"]) == 0
        until(lambda: fleet.events("join"), "the return")
        assert main(["poke", str(fleet.out), "leave", "peer=2"]) == 0
        until(lambda: len(fleet.events("leave")) == 2, "another leaving")
        os.kill(pids[3], signal.SIGKILL)
        until(lambda: fleet.events("lost"), "the loss")
        fleet.interrupt()
        assert fleet.wait(10) == 130
        assert fleet.summary()["peers_lost"] == [3]
        assert fleet.summary()["peers_absent"] == [2]
    finally:
        fleet.close()


def test_a_fleet_whose_members_stay_says_how_they_could_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = LiveFleet(tmp_path, 'time = "600 s"')
    try:
        fleet.training()
        assert main(["poke", str(fleet.out), "leave", "peer=1"]) == 2
        assert 'name = "open"' in capsys.readouterr().err
    finally:
        fleet.close()
