"""Scripts of events: read and refused, and carried out through the whole stack in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grapevine import Experiment, Result, run
from grapevine.experiments.config.events import (
    CutEvent,
    DelayEvent,
    Event,
    HealEvent,
    KillEvent,
    LossEvent,
    PartitionEvent,
    PauseEvent,
    RateEvent,
    RestoreEvent,
    SpeedEvent,
)
from grapevine.experiments.config.experiment import ConfigError, Processes, Stop, Virtual
from grapevine.experiments.config.menus import EVENTS
from grapevine.experiments.config.sections import Record
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.scenario import changes_of, in_order, tempos_of
from grapevine.experiments.tasks import Quadratic
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import Trace, Uniform, UniformDevices, Unshaped
from grapevine.netem.links.alterations import PLAIN, Change, Condition, Tempo
from grapevine.peer.optimizers import Sgd
from grapevine.peer.strategies import DPSGD, Slices, Solo
from grapevine.topology.graphs.menu import Path as PathGraph
from grapevine.topology.graphs.menu import Ring

S = 1_000_000_000
EVERY = """
[[events]]
at = "1 s"
do = "rate"
link = [0, 1]
way = "out"
factor = 0.1

[[events]]
at = "500 ms"
do = "rate"
to = "2 Mbit/s"

[[events]]
at = "2 s"
do = "delay"
peer = 2
factor = 2.0
add = "10 ms"

[[events]]
at = "3 s"
do = "loss"
to = 0.01

[[events]]
at = "4 s"
do = "partition"
groups = [[0, 1], [2]]

[[events]]
at = "5 s"
do = "heal"

[[events]]
at = "5 s"
do = "cut"
link = [1, 2]

[[events]]
at = "6 s"
do = "restore"

[[events]]
at = "7 s"
do = "speed"
peer = 1
factor = 0.5

[[events]]
at = "8 s"
do = "pause"
peer = 1
length = "500 ms"

[[events]]
at = "9 s"
do = "kill"
peer = 3

[[events]]
at = "9.2 s"
do = "leave"
peer = 2

[[events]]
at = "9.6 s"
do = "join"
peer = 2
"""
BASE = Experiment(
    peers=4,
    seed=1,
    world=Virtual(),
    topology=Ring(),
    network=Uniform(rate="8 Mbit/s", delay="5 ms"),
    devices=UniformDevices(speed="1000 samples/s"),
    task=Quadratic(targets=(1.0, 2.0, 3.0, 4.0), dimension=1000, batch_size=10),
    strategy=Slices(),
    optimizer=Sgd(learning_rate=0.05),
    stop=Stop(time="10 s"),
    record=Record(every="500 ms", report=False),
)

OUTAGES = Uniform(rate="8 Mbit/s", outage_every="1 s", outage_length="10 ms")


def carried_out(folder: Path, *events: Event, **changes: Any) -> Result:
    return run(BASE.replace(events=events, **changes), out=folder)


def sent(result: Result, source: int, target: int, begin_s: float, end_s: float) -> int:
    """Bytes on a link in the record intervals between two instants."""
    links = result.links
    rows = links[(links.source == source) & (links.target == target) & (links.time_s > begin_s) & (links.time_s <= end_s)]
    return int(rows["bytes"].sum())


# ---- read ---------------------------------------------------------------------------------------------------------------


def test_every_event_is_read_and_written_again() -> None:
    experiment = Experiment.parse(EVERY + '[stop]\ntime = "20 s"')
    assert {event.kind for event in experiment.events} == EVENTS.members.keys()
    assert experiment.events[0] == RateEvent(at="1 s", link=(0, 1), way="out", factor=0.1)
    assert experiment.events[4] == PartitionEvent(at="4 s", groups=((0, 1), (2,)))
    assert Experiment.parse(experiment.to_toml()) == experiment
    assert experiment.to_toml().count("[[events]]") == len(experiment.events)
    assert hash(experiment) == hash(Experiment.parse(experiment.to_toml()))
    assert [event.at_ns for event in in_order(experiment.events)] == sorted(event.at_ns for event in experiment.events)
    assert len({event.describe() for event in experiment.events}) == len(experiment.events)
    assert "events" not in Experiment().to_toml()
    assert experiment.set("seed", "5").events == experiment.events
    assert experiment.set("events", "").events == ()


@pytest.mark.parametrize(
    ("written", "key", "words"),
    [
        ("3", "events", "is not a list of tables; write [[events]]"),
        ("[3]", "events[0]", "is not a table"),
        ('[{at = "1 s"}]', "events[0].do", "is missing; known: cut, delay,"),
        ('[{at = "1 s", do = "cuts"}]', "events[0].do", "did you mean cut?"),
        ('[{do = "heal"}]', "events[0].at", "is missing"),
        ('[{at = 1, do = "heal"}]', "events[0].at", "1 has no unit"),
        ('[{at = "1 s", do = "heal"}, {at = "1 s", do = "cut", links = [0, 1]}]', "events[1].links", "did you mean link?"),
        ('[{at = "1 s", do = "cut", link = [0]}]', "events[0].link", "expected a list of 2 whole numbers"),
        ('[{at = "1 s", do = "cut", link = [2, 2]}]', "events[0].link", "joins peer 2 with itself"),
        ('[{at = "1 s", do = "cut", link = [0, 1], peer = 3}]', "events[0].peer", "cannot be combined with link"),
        ('[{at = "1 s", do = "cut", way = "out"}]', "events[0].way", "has no meaning for all links"),
        ('[{at = "1 s", do = "rate"}]', "events[0].factor", "give either factor or to"),
        ('[{at = "1 s", do = "rate", factor = 0.5, to = "1 Mbit/s"}]', "events[0].factor", "give either factor or to"),
        ('[{at = "1 s", do = "rate", factor = 0}]', "events[0].factor", "expected a number above 0"),
        ('[{at = "1 s", do = "rate", to = "fast"}]', "events[0].to", "is not a rate"),
        ('[{at = "1 s", do = "loss", to = 1}]', "events[0].to", "below 1"),
        ('[{at = "1 s", do = "partition", groups = [[0], [0]]}]', "events[0].groups", "peer 0 appears twice"),
        ('[{at = "1 s", do = "pause", peer = 1, length = "0 s"}]', "events[0].length", "is too short"),
        ('[{at = "1 s", do = "kill"}]', "events[0].peer", "is missing"),
    ],
)
def test_what_is_no_event_is_told_with_its_key(written: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(f"events = {written}", "file.toml")
    assert caught.value.key == key
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"file.toml: {key}")


@pytest.mark.parametrize(
    ("event", "key", "words"),
    [
        (HealEvent(at="10 s"), "at", "the run stops at 10 s"),
        (CutEvent(at="1 s", link=(0, 2)), "link", "peers 0 and 2 are not neighbours; the neighbours of peer 0 are 1, 3"),
        (CutEvent(at="1 s", link=(0, 4)), "link", "there is no peer 4; the peers are 0 to 3"),
        (CutEvent(at="1 s", peer=9), "peer", "there is no peer 9"),
        (KillEvent(at="1 s", peer=4), "peer", "there is no peer 4"),
        (PartitionEvent(at="1 s", groups=((0, 7),)), "groups", "there is no peer 7"),
        (PartitionEvent(at="1 s", groups=((0, 1, 2, 3),)), "groups", "cuts no link"),
    ],
)
def test_what_a_fleet_does_not_have(event: Event, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(BASE.replace(events=(HealEvent(at="1 s"), event)))
    assert caught.value.key == f"events[1].{key}"
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("event", "key", "words"),
    [
        (RateEvent(at="1 s", factor=1e-12), "factor", "it would carry 8e-06 bit/s"),
        (DelayEvent(at="1 s", factor=1e12), "factor", "longer than ten years"),
        (DelayEvent(at="1 s", add="315576000 s"), "add", "longer than ten years"),
        (SpeedEvent(at="1 s", peer=1, factor=1e-12), "factor", "a step of peer 1 would take more than ten years"),
    ],
)
def test_what_nothing_can_come_of_is_refused(event: Event, key: str, words: str) -> None:
    """As what an experiment's own tables say is: the bounds are those of links and devices, whatever makes them so."""
    with pytest.raises(ConfigError) as caught:
        build(BASE.replace(events=(event,)))
    assert caught.value.key == f"events[0].{key}"
    assert words in str(caught.value)


def test_what_happens_after_the_end_of_all_time_does_not_happen(tmp_path: Path) -> None:
    """Such as a message over links that are slower than any that can be asked for."""
    experiment = BASE.replace(strategy=Solo(), stop=Stop(steps=5, time="10 s"))
    fleet = build(experiment)
    with Recorder(tmp_path / "run", "", {}) as recorder:
        world = VirtualWorld(fleet, Collector(fleet, recorder, lambda status: None), Interrupt(), [(2**62 + 5, 3)])
        outcome = world.run()
        recorder.finish({"completed": True})
    assert (outcome.completed, outcome.reason) == (True, "10 s of emulated time over")
    assert outcome.peers_lost == []


def test_what_a_link_or_a_device_cannot_do_is_refused_with_the_cure(tmp_path: Path) -> None:
    def refused(event: Event, **changes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            build(BASE.replace(events=(event,), **changes))
        return str(caught.value)

    trace = tmp_path / "trace.csv"
    trace.write_text("time [s],rate [Mbit/s]\n0,8\n5,4\n")
    recorded = Trace(path=str(trace), delay="5 ms", loss=0.001)
    assert 'give the rate: to = "10 Mbit/s"' in refused(RateEvent(at="1 s", factor=0.1), network=Unshaped())
    assert "its delay is 0; set network.delay" in refused(LossEvent(at="1 s", to=0.1), network=Uniform(rate="8 Mbit/s"))
    assert 'set network.tcp = "cubic"' in refused(LossEvent(at="1 s", to=0.1), network=recorded)
    assert 'set network.tcp = "cubic"' in refused(DelayEvent(at="1 s", factor=2.0), network=recorded)
    host = {"devices": Experiment().devices, "stop": Stop(steps=9)}
    assert "is not emulated; set devices.name" in refused(SpeedEvent(at="1 s", peer=0, factor=0.5), **host)
    assert "never healed" in refused(CutEvent(at="1 s", link=(0, 1)), stop=Stop(steps=9))
    cut = CutEvent(at="1 s", link=(0, 1))
    for healed in (HealEvent(at="2 s"), KillEvent(at="2 s", peer=1)):
        build(BASE.replace(events=(cut, healed), stop=Stop(steps=9)))


# ---- what follows from a script -------------------------------------------------------------------------------------------


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


# ---- carried out ----------------------------------------------------------------------------------------------------------


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
def test_who_waits_for_whole_models_waits_through_a_cut(tmp_path: Path) -> None:
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


def test_a_kill_sets_free_who_would_wait_for_ever(tmp_path: Path) -> None:
    events = CutEvent(at="1 s", peer=1), KillEvent(at="3 s", peer=1)
    result = carried_out(tmp_path, *events, strategy=DPSGD(), stop=Stop(steps=300))
    assert result.summary["reason"] == "300 steps done"
    assert result.metrics.groupby("peer")["step"].max()[0] == 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "network", [Uniform(rate="8 Mbit/s"), Uniform(uplink="8 Mbit/s"), Uniform(rate="8 Mbit/s", tcp="cubic"), OUTAGES]
)
def test_who_waits_behind_a_cut_waits_until_the_time_is_over(tmp_path: Path, network: Uniform) -> None:
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
