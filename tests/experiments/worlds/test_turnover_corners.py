"""Joining, leaving and dying at instants that touch one another: each run ends, and with the members that its events name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from grapevine import Experiment, Result, run
from grapevine.experiments.config.events import Event, JoinEvent, KillEvent, LeaveEvent
from grapevine.experiments.config.experiment import Stop, Virtual
from grapevine.experiments.config.membership import Always
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


# ---- leaving --------------------------------------------------------------------------------------------------------------


def test_a_peer_that_is_asked_back_while_it_leaves_and_leaves_again_leaves_once(tmp_path: Path) -> None:
    """Peer 0 is slow: all three events come before its first leaving is over."""
    slow = MixedDevices(speeds=("2 samples/s", "20 samples/s", "20 samples/s", "20 samples/s"))
    events = leaves(20, 0), joins(30, 0), leaves(200, 0)
    result = carried_out(tmp_path, 4, *events, topology=Ring(), devices=slow, stop=Stop(steps=12))
    assert changes_of(result) == [("leave", 0)]


@pytest.mark.parametrize("strategy", [Full(), DGC()])
def test_a_member_leaves_while_all_wait_for_a_joiner(strategy: Any, tmp_path: Path) -> None:
    """The weights take 0.5 s; the leaver makes the step for which it needs the joiner's first message."""
    result = carried_out(
        tmp_path, 4, joins(100, 3), leaves(300, 0), strategy=strategy, dimension=20_000, stop=Stop(steps=30),
        network=Uniform(rate="1 Mbit/s", delay="20 ms"), devices=MixedDevices(speeds=("50 samples/s",)),
    )  # fmt: skip
    assert changes_of(result) == [("join", 3), ("leave", 0)]
    assert "with the weights of peer" in join_text(result, 3)


# ---- givers that go -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Solo(), Slices(), DPSGD(), Full()])
@pytest.mark.parametrize("goes", [leaves, killed])
def test_the_only_giver_goes_at_the_instant_of_the_join(strategy: Any, goes: Any, tmp_path: Path) -> None:
    result = carried_out(tmp_path, 2, joins(100, 1), goes(100, 0), strategy=strategy, stop=Stop(steps=30))
    assert ("join", 1) in changes_of(result)
    if goes is killed or strategy.membership == "at-once":
        assert "its own weights" in join_text(result, 1)


def test_all_givers_die_at_the_instant_of_the_join_over_links_without_time(tmp_path: Path) -> None:
    result = carried_out(tmp_path, 3, joins(200, 2), killed(200, 0), killed(200, 1), network=Unshaped(), stop=Stop(steps=30))
    assert "its own weights" in join_text(result, 2)


@pytest.mark.parametrize("strategy", [Ako(), Slices(), DPSGD(), Full()])
def test_the_last_giver_dies_while_its_weights_travel(strategy: Any, tmp_path: Path) -> None:
    """3,000 elements over 50 kbit/s take 1.9 s."""
    events = joins(200, 2), killed(300, 0), killed(400, 1)
    result = carried_out(tmp_path, 3, *events, strategy=strategy, network=SLOW, dimension=3000, stop=Stop(steps=60))
    assert "its own weights" in join_text(result, 2)
    assert result.summary["reason"] == "60 steps done"


def test_of_two_joiners_without_givers_the_second_takes_the_weights_of_the_first(tmp_path: Path) -> None:
    events = joins(100, 1), joins(120, 2), killed(300, 0)
    result = carried_out(tmp_path, 3, *events, strategy=Full(), network=SLOW, dimension=3000, stop=Stop(steps=60))
    assert "its own weights" in join_text(result, 1)
    assert "the weights of peer 1" in join_text(result, 2)
    assert (result.weights[1] == result.weights[2]).all()


def test_a_peer_that_needs_the_weights_of_one_step_does_not_wait_for_another_joiner(tmp_path: Path) -> None:
    """Two join at once, each with the mean of two neighbours: one of them has weights only after the other."""
    result = carried_out(
        tmp_path, 3, joins(200, 2), joins(200, 1), strategy=Full(), membership=Always(weights="mean"), stop=Stop(steps=60)
    )
    assert sorted(changes_of(result)) == [("join", 1), ("join", 2)]
    assert (result.weights == result.weights[0]).all()


# ---- givers that have ended -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Slices(), DPSGD(), Full()])
@pytest.mark.parametrize("join_ms", [200, 280, 290])
def test_a_joiner_stops_with_the_others_whose_last_step_comes_first(strategy: Any, join_ms: int, tmp_path: Path) -> None:
    """The others make 30 steps before their weights have arrived: those that have ended go on giving."""
    result = carried_out(
        tmp_path, 3, joins(join_ms, 2), strategy=strategy, network=Uniform(rate="1 Mbit/s", delay="1 ms"), dimension=300,
        stop=Stop(steps=30),
    )  # fmt: skip
    assert result.summary["reason"] == "30 steps done"
    assert "the weights of peer" in join_text(result, 2)
    assert result.summary["steps_max"] == 30
    if strategy.alike:
        assert (result.weights == result.weights[0]).all()


def test_joiners_that_wait_for_one_another_begin_when_the_peer_between_them_and_the_members_dies(tmp_path: Path) -> None:
    """A path: peer 3 waits for 2, which waits for 1, which dies while the weights of 0 travel to it."""
    events = joins(100, 1), joins(110, 2), joins(120, 3), killed(300, 1)
    result = carried_out(
        tmp_path, 4, *events, topology=nx.path_graph(4), strategy=Slices(), network=SLOW, dimension=3000, stop=Stop(time="4 s")
    )
    assert result.summary["peers_absent"] == []
    assert "its own weights" in join_text(result, 2)
    assert "the weights of peer 2" in join_text(result, 3)
