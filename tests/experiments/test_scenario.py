"""What a script does to a fleet: what follows from it, and what happens in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, Result, run
from grapevine.experiments.config.events import (
    CutEvent,
    Event,
    HealEvent,
    KillEvent,
    PartitionEvent,
    PauseEvent,
    RateEvent,
    RestoreEvent,
    SpeedEvent,
)
from grapevine.experiments.config.experiment import ConfigError, Processes, Stop, Virtual
from grapevine.experiments.fleet import build
from grapevine.experiments.scenario import changes_of, in_order, tempos_of
from grapevine.experiments.tasks import Quadratic
from grapevine.netem import Uniform
from grapevine.netem.links.alterations import PLAIN, Change, Condition, Tempo
from grapevine.peer.strategies import DPSGD
from grapevine.topology.graphs.menu import Path as PathGraph
from tests.experiments.scripted import BASE, EVERY

S = 1_000_000_000
OUTAGES = Uniform(rate="8 Mbit/s", outage_every="1 s", outage_length="10 ms")


def carried_out(folder: Path, *events: Event, **changes: Any) -> Result:
    return run(BASE.replace(events=events, **changes), out=folder)


def sent(result: Result, source: int, target: int, begin_s: float, end_s: float) -> int:
    """Bytes on a link in the record intervals between two instants."""
    links = result.links
    rows = links[(links.source == source) & (links.target == target) & (links.time_s > begin_s) & (links.time_s <= end_s)]
    return int(rows["bytes"].sum())


def test_events_say_how_a_link_is_from_then_on() -> None:
    events = in_order(
        [
            RateEvent(at="1 s", factor=0.5), RateEvent(at="2 s", factor=0.1, link=(0, 1), way="in"),
            CutEvent(at="3 s", peer=0, way="out"), HealEvent(at="4 s"), RestoreEvent(at="5 s", link=(1, 0)),
            HealEvent(at="6 s"),
        ]
    )  # fmt: skip
    changes = changes_of(events, [(0, 1), (1, 0)])
    half, tenth = Condition(rate_factor=0.5), Condition(rate_factor=0.1)
    assert changes[0, 1] == [Change(S, half), Change(3 * S, half._replace(up=False)), Change(4 * S, half), Change(5 * S, PLAIN)]
    assert changes[1, 0] == [Change(S, half), Change(2 * S, tenth), Change(5 * S, PLAIN)]
    assert changes_of([HealEvent(at="1 s")], [(0, 1)]) == {}


def test_a_partition_cuts_what_goes_between_its_groups() -> None:
    event = PartitionEvent(at="1 s", groups=((0, 1), (2,)))
    assert event.affected([(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 0)]) == [(1, 2), (2, 0), (2, 3), (4, 0)]


def test_a_pause_ends_at_the_speed_that_holds_then() -> None:
    slower, usual = SpeedEvent(at="2 s", peer=1, factor=0.5), SpeedEvent(at="9 s", peer=1, factor=1)
    events = in_order([slower, PauseEvent(at="1 s", peer=1, length="3 s"), usual])
    assert tempos_of(events, 1) == (Tempo(S, 0.0), Tempo(2 * S, 0.0), Tempo(4 * S, 0.5), Tempo(9 * S, 1.0))
    assert tempos_of(events, 0) == ()


def test_cuts_without_end_are_left_to_a_world_that_can_be_poked() -> None:
    cuts = (CutEvent(at="1 s", link=(0, 1)), HealEvent(at="2 s"), CutEvent(at="3 s", link=(0, 1)))
    for world, last in ((Virtual(), False), (Processes(), True)):
        changes = build(BASE.replace(events=cuts, world=world)).plan.links[0, 1].changes
        assert [change.condition.up for change in changes] == [False, True, last]


@pytest.mark.slow
def test_a_rate_to_a_tenth_is_what_the_link_carries_from_then_on(tmp_path: Path) -> None:
    result = carried_out(tmp_path, RateEvent(at="4 s", link=(0, 1), way="out", factor=0.1))
    assert sent(result, 0, 1, 1, 4) == pytest.approx(sent(result, 1, 0, 1, 4), rel=0.05)
    assert 0.85 * 3 * 1e5 < sent(result, 0, 1, 5, 8) < 3 * 1e5  # 1 MB/s before
    assert sent(result, 1, 0, 5, 8) == pytest.approx(sent(result, 1, 0, 1, 4), rel=0.05)
    rows = result.links[(result.links.source == 0) & (result.links.target == 1)]
    assert rows.rate_asked_bytes_per_s.isna().all()  # it was not asked to be any one figure
    assert (result.links[result.links.source == 2].rate_asked_bytes_per_s == 1e6).all()


@pytest.mark.slow
def test_a_peer_that_waits_for_whole_models_waits_until_the_cut_ends(tmp_path: Path) -> None:
    events = CutEvent(at="3 s", link=(0, 1)), HealEvent(at="5 s", link=(0, 1))
    result = carried_out(tmp_path / "cut", *events, strategy=DPSGD())
    whole = carried_out(tmp_path / "whole", strategy=DPSGD())
    step_s = 1 / (whole.summary["steps_min"] / 10)
    assert result.summary["steps_min"] == pytest.approx(whole.summary["steps_min"] - 2 / step_s, abs=4)
    assert result.summary["completed"]
    assert result.summary["peers_lost"] == []


@pytest.mark.slow
def test_a_partition_keeps_groups_apart_until_it_is_healed(tmp_path: Path) -> None:
    events = PartitionEvent(at="1 s", groups=((0, 1),)), HealEvent(at="6 s")
    task = Quadratic(targets=(0.0, 0.0, 8.0, 8.0), dimension=4, batch_size=10)
    result = carried_out(tmp_path, *events, topology=PathGraph(), task=task)
    distance = result.metrics[result.metrics.name == "consensus_distance"].set_index("time_s")["value"]
    assert distance[6.0] > 4 * distance[1.0]
    assert distance[6.0] == pytest.approx(4 * 16, rel=0.05)  # each group at its own optimum
    assert distance[9.5] < distance[6.0] / 4


@pytest.mark.slow
def test_a_killed_peer_is_lost_in_the_middle(tmp_path: Path) -> None:
    result = carried_out(tmp_path, KillEvent(at="4 s", peer=2), strategy=DPSGD())
    assert result.summary["peers_lost"] == [2]
    assert result.summary["completed"]
    lost = [event for event in result.events if event["kind"] == "lost"]
    assert [(event["time_s"], event["peer"], event["text"]) for event in lost] == [(4.0, 2, "killed by the script")]
    steps = result.metrics.groupby("peer")["step"].max()
    assert steps[2] == pytest.approx(0.4 * steps[0], rel=0.1)
    fleet = result.metrics[(result.metrics["peer"] == -1) & (result.metrics["name"] == "bytes_sent")].sort_values("time_s")
    assert fleet["value"].is_monotonic_increasing  # what the dead one sent is sent all the same
    assert fleet["value"].iloc[-1] == pytest.approx(result.summary["bytes_sent"], rel=0.05)


@pytest.mark.parametrize("event", [KillEvent(at="5 s", peer=2), SpeedEvent(at="6 s", peer=2, factor=0.5)])
def test_nothing_happens_to_the_dead(tmp_path: Path, event: Event) -> None:
    with pytest.raises(ConfigError, match=r"events\[0\].peer.*events\[1\] kills peer 2"):
        carried_out(tmp_path, event, KillEvent(at="4 s", peer=2), strategy=DPSGD())


def test_a_kill_frees_peers_that_waited_for_the_dead_one(tmp_path: Path) -> None:
    events = CutEvent(at="1 s", peer=1), KillEvent(at="3 s", peer=1)
    result = carried_out(tmp_path, *events, strategy=DPSGD(), stop=Stop(steps=300))
    assert result.summary["reason"] == "300 steps done"
    assert result.metrics.groupby("peer")["step"].max()[0] == 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [Uniform(rate="8 Mbit/s"), Uniform(uplink="8 Mbit/s"), Uniform(rate="8 Mbit/s", tcp="cubic"), OUTAGES]
)
def test_a_peer_behind_a_cut_without_end_waits_until_the_time_is_over(tmp_path: Path, network: Uniform) -> None:
    result = carried_out(
        tmp_path, PartitionEvent(at="1 s", groups=((0,),)), network=network, strategy=DPSGD(), stop=Stop(time="3 s")
    )
    assert (result.summary["completed"], result.summary["reason"]) == (True, "3 s of emulated time over")
    assert result.summary["emulated_s"] == 3
    assert result.summary["steps_max"] < 110


@pytest.mark.slow
def test_devices_are_slowed_and_paused(tmp_path: Path) -> None:
    events = SpeedEvent(at="5 s", peer=1, factor=0.2), PauseEvent(at="2 s", peer=2, length="4 s")
    steps = carried_out(tmp_path, *events).metrics.groupby("peer")["step"].max()
    assert (steps[0], steps[1], steps[2]) == pytest.approx((1000, 600, 600), abs=2)


def test_what_is_scripted_after_the_end_does_not_happen(tmp_path: Path) -> None:
    result = carried_out(tmp_path, KillEvent(at="30 s", peer=0), stop=Stop(steps=100))
    assert result.summary["emulated_s"] < 2
    assert result.summary["peers_lost"] == []
    assert [event for event in result.events if event["kind"] == "script"] == []


@pytest.mark.slow
def test_events_are_noted_when_they_happen_and_replay_to_the_byte(tmp_path: Path) -> None:
    events = Experiment.parse(EVERY).events
    first, second = (carried_out(tmp_path / name, *events) for name in "ab")
    noted = [(event["time_s"], event["text"]) for event in first.events if event["kind"] == "script"]
    assert noted == [(event.at_ns / 1e9, event.describe()) for event in in_order(events)]
    assert Experiment.read(tmp_path / "a" / "experiment.toml").events == events
    assert first.summary["digest"] == second.summary["digest"] != carried_out(tmp_path / "c").summary["digest"]


@pytest.mark.slow
def test_a_script_that_does_nothing_changes_nothing(tmp_path: Path) -> None:
    """Links keep their luck: nothing is drawn for an event."""
    network = Uniform(rate="8 Mbit/s", delay="5 ms", jitter="2 ms")
    plain = carried_out(tmp_path / "a", network=network)
    idle = carried_out(tmp_path / "b", HealEvent(at="3 s"), RateEvent(at="4 s", factor=1.0), network=network)
    assert np.array_equal(plain.weights, idle.weights)
    assert plain.summary["digest"] == idle.summary["digest"]
