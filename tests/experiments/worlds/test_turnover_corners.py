"""Joining, leaving and dying at instants that touch one another: each run ends, and with the members that its events name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grapevine import Experiment, Result, run
from grapevine.experiments.config.events import Event, JoinEvent, KillEvent, LeaveEvent
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.config.sections import Record
from grapevine.experiments.config.wrappers import Delay
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import MixedDevices, Uniform, Unshaped
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import ADPSGD, DGC, DPSGD, Ako, Full, Slices, Solo
from grapevine.topology.graphs.menu import Complete, Ring
from grapevine.topology.schedules.menu import OnePeerExponential, RandomMatching

SLOW = Uniform(rate="50 kbit/s", delay="1 ms")


def joins(at_ms: int, peer: int) -> Event:
    return JoinEvent(at=f"{at_ms} ms", peer=peer)


def leaves(at_ms: int, peer: int) -> Event:
    return LeaveEvent(at=f"{at_ms} ms", peer=peer)


def killed(at_ms: int, peer: int) -> Event:
    return KillEvent(at=f"{at_ms} ms", peer=peer)


def carried_out(tmp_path: Path, peers: int, *events: Event, dimension: int = 10, **changes: Any) -> Result:
    experiment = Experiment(
        peers=peers, seed=1, world=Virtual(), topology=Complete(), network=Uniform(rate="10 Mbit/s", delay="5 ms"),
        devices=MixedDevices(speeds=("100 samples/s",)),
        task=Quadratic(targets=tuple(float(peer) for peer in range(peers)), dimension=dimension),
        strategy=DPSGD(), optimizer=Sgd(learning_rate=0.05), stop=Stop(time="2 s"), record=Record(every="500 ms"),
        events=events,
    )  # fmt: skip
    result = run(experiment.replace(**changes), out=tmp_path / "run")
    assert result.summary["completed"], result.summary["reason"]
    return result


def changes_of(result: Result) -> list[tuple[str, int]]:
    """The joins and leaves that were carried out, in order."""
    return [(event["kind"], event["peer"]) for event in result.events if event["kind"] in ("join", "leave")]


def join_text(result: Result, peer: int) -> str:
    (text,) = (event["text"] for event in result.events if event["kind"] == "join" and event["peer"] == peer)
    return str(text)


# ---- schedules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [DPSGD(), ADPSGD(), Slices()])
@pytest.mark.parametrize("schedule", [RandomMatching(), OnePeerExponential()])
def test_the_last_member_of_a_schedule_trains_alone(strategy: Any, schedule: Any, tmp_path: Path) -> None:
    result = carried_out(tmp_path, 2, leaves(300, 1), strategy=strategy, topology=schedule, stop=Stop(steps=60))
    assert result.summary["reason"] == "60 steps done"
    assert changes_of(result) == [("leave", 1)]


def test_a_schedule_begins_with_one_member(tmp_path: Path) -> None:
    result = carried_out(tmp_path, 3, joins(300, 1), joins(300, 2), topology=RandomMatching(), stop=Stop(time="1 s"))
    assert result.summary["members"][-1][1] == 3


# ---- wrappers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [joins(300, 3), leaves(300, 0)])
@pytest.mark.parametrize("order", ["combine-then-adapt", "adapt-then-combine"])
def test_a_delayed_message_reaches_a_peer_that_is_no_neighbour_any_more(event: Any, order: Any, tmp_path: Path) -> None:
    """Peer 1 is a step ahead of its own messages, and its former neighbour waits for the last one of the old graph."""
    result = carried_out(
        tmp_path, 4, event, topology=Ring(), strategy=DPSGD(order=order), wrappers=(Delay(time="70 ms", peers=(1,)),),
        stop=Stop(steps=20),
    )  # fmt: skip
    assert result.summary["reason"] == "20 steps done"
    assert len(changes_of(result)) == 1
