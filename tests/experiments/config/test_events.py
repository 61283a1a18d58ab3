"""Events of an experiment file: read, written again, and refused with their key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grapevine import Experiment
from grapevine.experiments.config.events import (
    CutEvent,
    DelayEvent,
    Event,
    HealEvent,
    KillEvent,
    LossEvent,
    PartitionEvent,
    RateEvent,
    SpeedEvent,
)
from grapevine.experiments.config.experiment import ConfigError, Stop
from grapevine.experiments.config.menus import EVENTS
from grapevine.experiments.fleet import build
from grapevine.experiments.results.recorder import Recorder
from grapevine.experiments.scenario import in_order
from grapevine.experiments.worlds.collector import Collector
from grapevine.experiments.worlds.interrupt import Interrupt
from grapevine.experiments.worlds.virtual.world import VirtualWorld
from grapevine.netem import Trace, Uniform, Unshaped
from grapevine.peer.strategies import Solo
from tests.experiments.scripted import BASE, EVERY


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
def test_an_invalid_event_is_refused_with_its_key(written: str, key: str, words: str) -> None:
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
